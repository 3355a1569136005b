#!/usr/bin/env bash
# Runs suite.py (or the program TH_SUITE) with Kubernetes' Python client, in a virtual environment under
# build/clients that is made when requirements.txt changed. Ends with 77 (skipped) and the reason when it
# cannot be made.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
skip() { echo "SKIP: $*"; exit 77; }

wanted=$(sha256sum "$here/requirements.txt" | cut -c1-12)
env=$root/build/clients/python-$wanted
if [ ! -f "$env/complete" ]; then
    mkdir -p "$root/build/clients"
    exec 9>"$root/build/clients/.python.lock"
    flock 9
    if [ ! -f "$env/complete" ]; then
        rm -rf "$env"
        python3 -m venv "$env" || skip "python3 cannot make a virtual environment"
        "$env/bin/pip" -q --disable-pip-version-check install -r "$here/requirements.txt" ||
            skip "the packages of requirements.txt cannot be downloaded"
        touch "$env/complete"
    fi
fi
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$here/.. exec "$env/bin/python" "${TH_SUITE:-$here/suite.py}" "$@"
