#!/bin/sh
# Boots the machine alone (no cluster) under TCG to ready, twice over the same disk, with each
# kernel that is built in, and checks forwards, shutdown and that nothing is left.
#   boot.sh TH_MACHINE
set -eu
machine=${1:?usage: boot.sh path/to/th-machine}
dir=$(mktemp -d /tmp/thb.XXXXXX)
export XDG_DATA_HOME="$dir/d" XDG_STATE_HOME="$dir/s" XDG_CACHE_HOME="$dir/c"
trap '"$machine" delete -p boot 2>/dev/null || true; rm -rf "$dir"' EXIT
fail() {
    echo "FAIL: $*" >&2
    "$machine" console -p boot >&2 || true
    exit 1
}
for kernel in debian small; do
    if ! out=$("$machine" start -p boot -a tcg -k $kernel); then
        if [ "$kernel" = small ]; then
            echo "SKIP: the small kernel is not built in"
            continue
        fi
        fail "start with $kernel"
    fi
    echo "$out" | grep -q "running=1 ready=1 accel=tcg.*kernel=$kernel" || fail "status: $out"
    if "$machine" start -p boot -a tcg 2>/dev/null; then
        fail "a second start succeeded"
    fi
    answer=$(echo '{"op":"forward","host_ip":"127.96.0.7","host_port":0,"guest_port":31080}' |
        "$machine" port-agent -p boot)
    case $answer in
    *'"ok":true'*) ;;
    *) fail "port agent: $answer" ;;
    esac
    pid=$(echo "$out" | sed -n 's/.* pid=\([0-9]*\) .*/\1/p')
    "$machine" stop -p boot || fail "stop"
    if kill -0 "$pid" 2>/dev/null; then
        fail "QEMU is left"
    fi
    echo "ok: $kernel kernel"
done
"$machine" delete -p boot || fail "delete"
[ ! -e "$dir/d/thimble/boot" ] && [ ! -e "$dir/s/thimble/boot" ] || fail "delete left files"
echo "ok: boot"
