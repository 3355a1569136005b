#!/usr/bin/env bash
# An ordinary user's cluster in a VM: start, build, apply, call, stop, start, delete.
#   user.sh THIMBLE [options of thimble start]
# As root it becomes "nobody" first, with a home of its own; leaves nothing behind.
set -euo pipefail
thimble=$(realpath "${1:?usage: user.sh THIMBLE [start options]}")
shift
root=$(cd "$(dirname "$0")/../.." && pwd)
for tool in qemu-system-x86_64 go curl; do
    command -v $tool >/dev/null || { echo "SKIP: $tool is not installed"; exit 77; }
done
if [ "$(id -u)" = 0 ]; then
    home=$(mktemp -d /tmp/thu.XXXXXX)
    trap 'rm -rf "$home"' EXIT
    # The user may not be able to read where the sources are.
    kubectl=$("$root/tests/tools/kubectl.sh")
    cp "$thimble" "$home/thimble"
    cp "$kubectl" "$home/kubectl"
    cp -r "$root/docs/examples/hello" "$home/hello"
    cp "$0" "$home/user.sh"
    chown -R nobody "$home"
    setpriv --reuid nobody --regid nogroup --clear-groups env -i HOME="$home" PATH="$PATH" \
        TH_USER_HOME="$home" "$home/user.sh" "$home/thimble" "$@"
    exit
fi
home=${TH_USER_HOME:?run it as root}
cd "$home"
finish() {
    code=$?
    [ $code = 0 ] || { ./kubectl get pods,svc,events -A >&2 || true; "$thimble" console -n 40 >&2 || true; }
    "$thimble" delete >/dev/null 2>&1 || true
    chmod -R u+w "$home" # the module cache of Go is read-only
    exit $code
}
trap finish EXIT
step() { printf '\n-- %s\n' "$*"; }
answers() { # URL: within a minute
    local limit=$((SECONDS + 60))
    until curl -fsS --max-time 3 "$1"; do
        [ $SECONDS -lt $limit ] || return 1
        sleep 0.5
    done
}

step "start as $(id -un)"
"$thimble" start "$@"
step "build, without a base image"
"$thimble" image build --go . -t hello:1.0 hello
step "apply and call"
./kubectl apply -f hello/k8s.yaml
./kubectl rollout status deployment/hello-deployment --timeout=180s
url=$("$thimble" service hello-service --url)
echo "$url"
answers "$url"
if [ "$(cat /proc/sys/net/ipv4/ip_unprivileged_port_start)" -gt 80 ]; then
    [[ $url = *:8080 ]] # port 80 is not for ordinary users: its second choice
fi
step "stop, start: the same address"
"$thimble" stop
"$thimble" start "$@"
./kubectl rollout status deployment/hello-deployment --timeout=180s
[ "$("$thimble" service hello-service --url)" = "$url" ]
answers "$url"
step "delete leaves nothing"
"$thimble" delete
[ ! -e ~/.local/share/thimble/default ]
[ ! -e ~/.local/state/thimble/default ]
[ -z "$(./kubectl config get-contexts -o name)" ]
echo
echo "an ordinary user has a cluster"
