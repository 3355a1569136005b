#!/usr/bin/env bash
# Runs a Go module beside this file: gotest.sh DIR test [FLAGS] | gotest.sh DIR run [ARGS]
#
# Ends with 77 (skipped) and the reason when there is no Go that is new enough for the module and none
# can be had, or when its modules are neither in the module cache nor to be downloaded.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$here/$1
what=$2
shift 2
skip() { echo "SKIP: $*"; exit 77; }

cd "$dir"
go=$("$here/../tools/go.sh" "$(sed -n 's/^go //p' go.mod)") || skip "no suitable Go (see above)"
unset GOROOT
"$go" mod download || skip "the modules of $dir/go.mod cannot be downloaded"
case "$what" in
test) exec "$go" test -count=1 -timeout 8m "$@" . ;;
run) exec "$go" run . "$@" ;;
esac
