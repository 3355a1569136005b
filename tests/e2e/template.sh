#!/usr/bin/env bash
# Starts from a template, in a real VM under TCG: the first start makes it, later ones use it, two machines
# of one template are two machines, and damage falls back to booting, with a message.
#   template.sh THIMBLE
set -euo pipefail
thimble=${1:?usage: template.sh THIMBLE}
root=$(cd "$(dirname "$0")/../.." && pwd)
command -v qemu-system-x86_64 >/dev/null || { echo "SKIP: qemu-system-x86_64 is not installed"; exit 77; }
kubectl=$("$root/tests/tools/kubectl.sh")
work=$(mktemp -d /tmp/thm.XXXXXX)
export XDG_DATA_HOME=$work/data XDG_STATE_HOME=$work/state KUBECONFIG=$work/kubeconfig
# The cache of its own (templates), with the guest unpacked and libvirt's findings where tests keep them.
export XDG_CACHE_HOME=$work/cache
kept=${TH_TEST_CACHE:-$root/build/test-cache}/thimble
mkdir -p "$kept/guest" "$kept/libvirt" "$work/cache/thimble"
ln -s "$kept/guest" "$kept/libvirt" "$work/cache/thimble/"
templates=$work/cache/thimble/templates
finish() {
    code=$?
    for p in one two; do
        [ $code = 0 ] || "$thimble" console -p $p -n 60 >&2 2>/dev/null || true
        "$thimble" delete -p $p >/dev/null 2>&1 || true
    done
    rm -rf "$work"
    exit $code
}
trap finish EXIT
fail() { echo "FAIL: $*" >&2; exit 1; }
step() { printf '\n-- %s\n' "$*"; }
# start PROFILE PATTERN [options]: starts, and the sentence about the machine has the pattern.
start() {
    local profile=$1 pattern=$2; shift 2
    "$thimble" start -p "$profile" --accel tcg "$@" >"$work/out" 2>&1 || { cat "$work/out"; fail "start of $profile"; }
    grep '^Machine:\|ready at' "$work/out" || true
    grep -q "^Machine: .*$pattern" "$work/out" || { cat "$work/out"; fail "no \"$pattern\""; }
}
k() { "$kubectl" --context "thimble-$1" "${@:2}"; }
state_file() { local f; f=$(echo "$templates"/*/state); [ -f "$f" ] || fail "not one template: $f"; echo "$f"; }
# same_time PROFILE: what the guest stamps is the host's time.
same_time() {
    k "$1" delete configmap clock >/dev/null 2>&1 || true
    k "$1" create configmap clock >/dev/null
    local there off
    there=$(date +%s -d "$(k "$1" get configmap clock -o jsonpath='{.metadata.creationTimestamp}')")
    off=$(($(date +%s) - there))
    [ $off -ge -2 ] && [ $off -le 15 ] || fail "the clock of $1 is off by ${off}s"
}

step "the first start makes a template"
start one "a template was made"
[ "$(stat -c %a "$(state_file)")" = 600 ] || fail "others can read the template"
boot1=$(k one get node thimble -o jsonpath='{.status.nodeInfo.bootID}')

step "another profile starts from it"
start two "restored in"
same_time two
k two get nodes
for what in bootID machineID systemUUID; do
    a=$(k one get node thimble -o jsonpath="{.status.nodeInfo.$what}")
    b=$(k two get node thimble -o jsonpath="{.status.nodeInfo.$what}")
    [ -n "$a" ] && [ -n "$b" ] && [ "$a" != "$b" ] || fail "$what: $a and $b"
done

step "so does the one that made it, and is another boot of the same machine"
k one create configmap kept --from-literal=a=b
"$thimble" stop -p one
# Two machines of one template, each with its own generators: nothing that they draw is equal.
"$thimble" stop -p two
start one "restored in"
[ "$(k one get configmap kept -o jsonpath='{.data.a}')" = b ] || fail "the ConfigMap is lost"
same_time one
boot2=$(k one get node thimble -o jsonpath='{.status.nodeInfo.bootID}')
[ "$boot1" != "$boot2" ] || fail "the boot id is that of the last start"
start two "restored in"
for p in one two; do
    for i in 1 2 3 4; do
        printf '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"r-","namespace":"default"}}' |
            k $p create -o jsonpath='{.metadata.uid}{" "}{.metadata.name}{"\n"}' -f - | tr ' ' '\n'
    done
done >"$work/drawn"
[ "$(wc -l <"$work/drawn")" = 16 ] || fail "not 16 names"
[ -z "$(sort "$work/drawn" | uniq -d)" ] || fail "drawn twice: $(sort "$work/drawn" | uniq -d)"

step "a damaged template is thrown away, and the kernel boots"
"$thimble" stop -p one
printf 'x' | dd of="$(state_file)" bs=1 seek=4000000 conv=notrunc status=none
start one "thrown away.*a template was made"
[ "$(k one get configmap kept -o jsonpath='{.data.a}')" = b ] || fail "the ConfigMap is lost"

step "so is one that QEMU does not take"
"$thimble" stop -p one
python3 - "$(dirname "$(state_file)")" <<'PY'
import hashlib, json, sys
d = sys.argv[1]
data = b"QEVM" + bytes(100)
open(d + "/state", "wb").write(data)
info = json.load(open(d + "/info.json"))
info.update(size_b=len(data), sha256=hashlib.sha256(data).hexdigest())
json.dump(info, open(d + "/info.json", "w"))
PY
start one "thrown away.*a template was made"

step "--template off boots, another size of machine does too"
"$thimble" stop -p one
"$thimble" start -p one --accel tcg --template off -o json >"$work/json"
python3 -c 'import json,sys; assert json.load(open(sys.argv[1]))["restored"] is False' "$work/json"
"$thimble" stop -p one
start one "a template was made" --memory 768

step "delete --all removes the templates"
"$thimble" delete --all
[ ! -e "$templates" ] || fail "templates are left"
echo
echo "templates work"
