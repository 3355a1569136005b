#!/usr/bin/env bash
# The road a user walks, literally: start, build, apply, call, logs, roll out, undo, stop, start, delete.
#   road.sh THIMBLE [options of thimble start, such as --driver host]
# TH_KUBECTL names the kubectl; else tests/tools/kubectl.sh brings one.
# Uses folders of its own (XDG and KUBECONFIG); leaves nothing behind.
set -euo pipefail
thimble=${1:?usage: road.sh THIMBLE [start options]}
shift
root=$(cd "$(dirname "$0")/../.." && pwd)
case " $* " in
*" host "*) [ "$(id -u)" = 0 ] || { echo "SKIP: the host driver needs root"; exit 77; } ;;
esac
for tool in qemu-system-x86_64 go; do
    command -v $tool >/dev/null || { echo "SKIP: $tool is not installed"; exit 77; }
done
kubectl=$("$root/tests/tools/kubectl.sh")
work=$(mktemp -d /tmp/thr.XXXXXX)
export XDG_DATA_HOME=$work/data XDG_STATE_HOME=$work/state KUBECONFIG=$work/kubeconfig
# The cache holds unpacked guests and Go stand-ins; it is kept between runs.
export XDG_CACHE_HOME=${TH_TEST_CACHE:-$root/build/test-cache}
profile=road$$
t() { "$thimble" "$@" -p "$profile"; }
k() { "$kubectl" "$@"; }
step() { printf '\n-- %s\n' "$*"; }
finish() {
    code=$?
    if [ $code != 0 ]; then
        echo "FAILED with status $code; what the machine says:" >&2
        k get pods,events -A >&2 2>/dev/null || true
        t console -n 60 >&2 || true
    fi
    t delete >/dev/null 2>&1 || true
    rm -rf "$work"
    exit $code
}
trap finish EXIT
# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
    local limit=$((SECONDS + $1)); shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $limit ] || { echo "gave up on: $*" >&2; return 1; }
        sleep 0.2
    done
}
answers() { curl -fsS --max-time 3 "$1"; }
# says PATTERN COMMAND...: the command succeeds and its whole output has the pattern. (A pipe into
# grep -q or head would end the command with SIGPIPE now and then, which pipefail calls a failure.)
says() {
    local pattern=$1 output; shift
    output=$("$@") || return
    grep -q -- "$pattern" <<<"$output" || { printf 'no "%s" in: %s\n' "$pattern" "$output" >&2; return 1; }
}
first_pod() { k get pods -l "$1" -o jsonpath='{.items[0].metadata.name}'; }

step "start"
t start "$@"
says thimble k config current-context
k get nodes -o wide
wait_for 60 says '\bReady\b' k get nodes

step "a second start says that it runs"
says 'running already' t start

step "image build"
t image build -t hello:1.0 "$root/docs/examples/hello"
says 'hello:1.0' t image ls

step "apply and roll out"
k apply -f "$root/docs/examples/hello/k8s.yaml"
k rollout status deployment/hello-deployment --timeout=180s
k get deploy,rs,pods,svc,endpointslices -o wide
[ "$(k get pods -l app=hello --no-headers | grep -cw Running)" = 3 ]

step "the Service answers on the host"
url=$(t service hello-service --url)
wait_for 30 answers "$url"
answers "$url"

step "logs and exec"
says 'listens on :8080' k logs deploy/hello-deployment
pod=$(first_pod app=hello)
k get pod "$pod" -o jsonpath='{.status.podIP}{"\n"}'

step "set image, undo"
t image tag hello:1.0 hello:1.1
container=$(k get deploy hello-deployment -o jsonpath='{.spec.template.spec.containers[0].name}')
k set image deployment/hello-deployment "$container=hello:1.1"
k rollout status deployment/hello-deployment --timeout=180s
k rollout undo deployment/hello-deployment
k rollout status deployment/hello-deployment --timeout=180s
k rollout history deployment/hello-deployment

step "a program that ends: Completed, CrashLoopBackOff, previous logs"
t image build -t hello-exit:1.0 "$root/docs/examples/hello-exit"
k apply -f "$root/docs/examples/hello-exit/k8s.yaml"
exit_pods() { k get pods -l app=hello-exit --no-headers; }
wait_for 120 says CrashLoopBackOff exit_pods
exit_pods
exit_pod=$(first_pod app=hello-exit)
says 'Hello, World!' k logs --previous "$exit_pod"
says BackOff k get events --field-selector reason=BackOff

step "stop and start: everything is there again"
before=$(k get svc hello-service -o jsonpath='{.spec.clusterIP} {.status.loadBalancer.ingress[0].ip}')
t stop
t list
t start "$@"
after=$(k get svc hello-service -o jsonpath='{.spec.clusterIP} {.status.loadBalancer.ingress[0].ip}')
[ "$before" = "$after" ]
k rollout status deployment/hello-deployment --timeout=180s
wait_for 60 answers "$(t service hello-service --url)"

step "status"
t status
t status -o json | python3 -c 'import json,sys; assert json.load(sys.stdin)["running"]'

step "delete"
t delete
[ -z "$(k config get-contexts -o name)" ]
echo
echo "the road is open"
