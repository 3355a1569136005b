#!/usr/bin/env bash
# Runs suite.mjs with Kubernetes' JavaScript client, in a folder under build/clients that is made when
# package.json changed. Ends with 77 (skipped) and the reason when it cannot be made.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
skip() { echo "SKIP: $*"; exit 77; }

command -v node >/dev/null && command -v npm >/dev/null || skip "node and npm are not there"
[ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ] || skip "node $(node -v) is older than 20, which the client's packages ask for"
wanted=$(sha256sum "$here/package.json" | cut -c1-12)
dir=$root/build/clients/javascript-$wanted
if [ ! -f "$dir/complete" ]; then
    mkdir -p "$dir"
    cp "$here/package.json" "$dir/"
    (cd "$dir" && npm install --silent --no-audit --no-fund --no-package-lock >&2) ||
        skip "the packages of package.json cannot be downloaded"
    touch "$dir/complete"
fi
cp "$here/suite.mjs" "$dir/"
exec node --test "$dir/suite.mjs"
