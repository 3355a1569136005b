#!/usr/bin/env bash
# Prints the path of a go command that is at least as new as the first argument ("1.26.0"), or says
# on standard error what is missing and fails.
#
# Looked at in this order: TH_GO, go in the path, /usr/local/go, a toolchain that this script fetched
# before. A Go of 1.21 or newer is enough whatever is asked for: it fetches the toolchain that a
# go.mod names by itself. An older one (Debian 12 has 1.19) cannot do that, but it can download the
# same toolchain as the module that it is, checksum database included; it is then unpacked below
# build/clients. Module archives carry no execute bits and no nested go.mod files (they are called
# _go.mod there), so both are put right.
set -euo pipefail
want=${1:?usage: go.sh VERSION}
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=$root/build/clients/go-$want

version_of() { # of a go command, without the local toolchain switching
    GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null | sed -n 's/^go\([0-9.]*\).*/\1/p'
}
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | sed -n 1p)" = "$1" ]; }

old=
for go in ${TH_GO:+"$TH_GO"} go /usr/local/go/bin/go "$dir/bin/go"; do
    path=$(command -v "$go") || continue
    have=$(version_of "$path")
    [ -n "$have" ] || continue
    if at_least "$want" "$have" || { at_least 1.21 "$have" && [ "${GOTOOLCHAIN:-auto}" != local ]; }; then
        echo "$path"
        exit 0
    fi
    old=$path
done
[ -n "$old" ] || { echo "no go command: install golang, or set TH_GO" >&2; exit 1; }

case "$(uname -m)" in
x86_64) arch=amd64 ;;
aarch64) arch=arm64 ;;
*) echo "no Go toolchain is known for $(uname -m)" >&2; exit 1 ;;
esac
module=golang.org/toolchain@v0.0.1-go$want.linux-$arch
work=$(mktemp -d)
trap 'chmod -R u+w "$work" 2>/dev/null; rm -rf "$work"' EXIT
(cd "$work" && GOPATH=$work/path GOFLAGS="" "$old" mod download "$module" >&2) ||
    { echo "$old is $(version_of "$old"), $want is needed, and $module cannot be downloaded" >&2; exit 1; }
mkdir -p "$root/build/clients"
cp -r "$work/path/pkg/mod/$module" "$work/go"
chmod -R u+w "$work/go"
chmod +x "$work"/go/bin/* "$work"/go/pkg/tool/*/*
find "$work/go" -name _go.mod -execdir mv {} go.mod \;
rm -rf "$dir"
mv "$work/go" "$dir"
echo "$dir/bin/go"
