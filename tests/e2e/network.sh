#!/usr/bin/env bash
# The cluster's network, live: pods, Services of every kind, DNS, host ports; and nothing left behind.
#   network.sh THIMBLE [options of thimble start]     default: --driver host (root, crun, conmon, Go)
# In a VM ("network.sh THIMBLE --accel tcg") what is done from the node itself is left out.
# TH_KUBECTL names the kubectl; else tests/tools/kubectl.sh brings one.
set -euo pipefail
thimble=${1:?usage: network.sh THIMBLE [start options]}
shift
[ $# -gt 0 ] || set -- --driver host
host='' slow=1 give_up=limit=1s
case " $* " in *" host "*) host=1 ;; *) slow=8 give_up=limit=3s ;; esac
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
[ -z "$host" ] || [ "$(id -u)" = 0 ] || { echo "SKIP: the host driver needs root"; exit 77; }
for tool in go ${host:+crun conmon nsenter ip nft}; do
    command -v $tool >/dev/null || { echo "SKIP: $tool is not installed"; exit 77; }
done
kubectl=$("$root/tests/tools/kubectl.sh")
work=$(mktemp -d /tmp/thn.XXXXXX)
export XDG_DATA_HOME=$work/data XDG_STATE_HOME=$work/state KUBECONFIG=$work/kubeconfig
export XDG_CACHE_HOME=${TH_TEST_CACHE:-$root/build/test-cache}
profile=net$$
t() { "$thimble" "$@" -p "$profile"; }
k() { "$kubectl" "$@"; }
kn() { k -n net "$@"; }
step() { printf '\n-- %s (%ss)\n' "$*" "$SECONDS"; }
init_pid() { cut -d' ' -f1 "$XDG_STATE_HOME/thimble/$profile/init.pid"; }
finish() {
    code=$?
    if [ $code != 0 ]; then
        echo "FAILED with status $code; what the machine says:" >&2
        k get pods,svc,endpointslices,events -A -o wide >&2 2>/dev/null || true
        nsenter -t "$(init_pid)" -n nft list table ip thimble >&2 2>/dev/null || true
        t console -n 60 >&2 || true
    fi
    t delete >/dev/null 2>&1 || true
    rm -rf "$work"
    exit $code
}
trap finish EXIT
wait_for() { # SECONDS COMMAND...: until the command succeeds
    local limit=$((SECONDS + slow * $1)); shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $limit ] || { echo "gave up on: $*" >&2; "$@" >&2 || true; return 1; }
        sleep 0.1
    done
}
field() { kn get "$1" "$2" -o jsonpath="{$3}"; }
cluster_ip() { field svc "$1" .spec.clusterIP; }
external_ip() { field svc "$1" '.status.loadBalancer.ingress[0].ip'; }
node_port() { field svc "$1" ".spec.ports[$2].nodePort"; }
# Where probes run from: a pod, the node, the host.
from_pod() { kn exec client -- /netprobe probe $give_up "$@"; }
from_node() { nsenter -t "$(init_pid)" -n "$work/img/netprobe" probe $give_up "$@"; }
from_host() { "$work/img/netprobe" probe $give_up "$@"; }
# expect WHERE (SPEC PATTERN)...: every probe's result matches its pattern, a whole extended regex.
expect() {
    local where=$1 specs=() patterns=() bad=0 i=0 line; shift
    [ "$where" != node ] || [ -n "$host" ] || return 0
    while [ $# -gt 0 ]; do
        specs+=("$1"); patterns+=("$2"); shift 2
    done
    while IFS= read -r line; do
        if [[ ${line#* => } =~ ^(${patterns[$i]})$ ]]; then
            echo "   $where $line"
        else
            echo "!! $where $line (wanted: ${patterns[$i]})" >&2
            bad=1
        fi
        i=$((i + 1))
    done < <("from_$where" "${specs[@]}")
    [ $i = ${#specs[@]} ] && [ $bad = 0 ]
}
echo_='ok echo-[a-z0-9-]+'
dns() { echo "dns:10.96.0.10:$1"; }
zone=svc.cluster.local
# Whom pods see when the host comes: the relay at the node's address, or QEMU.
from='10\.0\.2\.(15|2)'
soa=' authority \[cluster.local. SOA ns.dns.cluster.local.\]'
node=10.0.2.15

step "start, build, apply"
before=$(ip -o link | wc -l)/$(nft list tables 2>/dev/null | wc -l)/$(ip netns list | wc -l)
t start "$@"
mkdir "$work/img"
(cd "$here/netprobe" && CGO_ENABLED=0 GOFLAGS=-mod=mod GOTOOLCHAIN=local go build -ldflags='-s -w' -o "$work/img/netprobe" .)
cp "$here/netprobe/Dockerfile" "$work/img/"
t image build -t netprobe:1 "$work/img"
k apply -f "$here/network.yaml"
kn rollout status deploy/echo --timeout=$((slow * 30))s
kn wait --for=condition=Ready pod/client pod/peer-0 --timeout=$((slow * 30))s
for s in lb lb-plain lb-pods lb-host lb-local; do
    wait_for 10 test -n "$(wait_for 10 external_ip $s; external_ip $s)"
done
kn get pods,svc -o wide

echo0=$(kn get pods -l app=echo -o jsonpath='{.items[0].status.podIP}')
client=$(field pod client .status.podIP)
peer0=$(field pod peer-0 .status.podIP)
peer1=$(field pod peer-1 .status.podIP)
E=$(cluster_ip echo) N=$(cluster_ip empty)
L=$(external_ip lb)
np=$(node_port np 0) npu=$(node_port np 1) none=$(node_port empty 0) none_u=$(node_port empty 1)

step "pods reach pods, Services, the node and themselves"
wait_for 5 expect pod "tcp:$(cluster_ip solo):80" "ok client .*"
expect pod \
    "tcp:$echo0:8080" "$echo_ $client 8080" \
    "udp:$echo0:9090" "$echo_ $client 9090" \
    "tcp:$E:80" "$echo_ $client 8080" \
    "tcp:$E:81" "$echo_ $client 9090" \
    "udp:$E:53" "$echo_ $client 9090" \
    "tcp:$(cluster_ip solo):80" "ok client $node 8080" \
    "tcp:$L:18080" "$echo_ $client 8080" \
    "udp:$L:18080" "$echo_ $client 8080" \
    "tcp:$(external_ip lb-plain):18080" "$echo_ $client 8080" \
    "tcp:$(external_ip lb-pods):18080" "$echo_ $client 8080" \
    "tcp:$(external_ip lb-host):18080" timeout \
    "tcp:$(external_ip lb-local):18080" "$echo_ $client 8080" \
    "tcp:$node:$np" "$echo_ $client 8080" \
    "udp:$node:$npu" "$echo_ $client 8080" \
    "tcp:$(cluster_ip far):80" timeout \
    "http:https://10.96.0.1/readyz" ".*certificate.*"

step "what has no endpoints, and ports that are none, are refused: pod, node, host"
expect pod \
    "tcp:$N:80" refused "udp:$N:80" refused "tcp:$E:82" refused "udp:$E:99" refused \
    "tcp:$node:$none" refused "udp:$node:$none_u" refused "tcp:$L:1" refused "tcp:$node:1" refused
expect node \
    "tcp:$N:80" refused "udp:$N:80" refused "tcp:$E:82" refused "udp:$E:99" refused \
    "tcp:127.0.0.1:$none" refused "tcp:$node:$none" refused "udp:$node:$none_u" refused "tcp:10.96.250.250:80" timeout
wait_for 10 expect host "tcp:127.0.0.1:$none" refused "udp:127.0.0.1:$none_u" refused

step "the node reaches Services"
expect node \
    "tcp:$echo0:8080" "$echo_ $node 8080" \
    "tcp:$E:80" "$echo_ $node 8080" "udp:$E:53" "$echo_ $node 9090" \
    "tcp:127.0.0.1:$np" "$echo_ $node 8080" "udp:127.0.0.1:$npu" "$echo_ $node 8080" \
    "tcp:$L:18080" "$echo_ $node 8080" \
    "tcp:$(external_ip lb-pods):18080" timeout "tcp:$(external_ip lb-host):18080" "$echo_ $node 8080"

step "the host reaches node ports and EXTERNAL-IPs"
expect host \
    "tcp:127.0.0.1:$np" "$echo_ $from 8080" "udp:127.0.0.1:$npu" "$echo_ $from 8080" \
    "tcp:$L:18080" "$echo_ $from 8080" "udp:$L:18080" "$echo_ $from 8080" \
    "tcp:$(external_ip lb-plain):18080" "$echo_ $from 8080" \
    "tcp:$(external_ip lb-pods):18080" refused \
    "tcp:$(external_ip lb-host):18080" "$echo_ $from 8080" \
    "tcp:$(external_ip lb-local):18080" "$echo_ $from 8080"
[ -z "$(node_port lb-plain 0)" ]

step "hostPort: pod, node, host"
expect pod "tcp:$node:20080" "ok client $node 8080"
expect node "tcp:127.0.0.1:20080" "ok client $node 8080" "udp:$node:20080" "ok client $node 8080"
expect host "tcp:127.0.0.1:20080" "ok client $from 8080" "udp:127.0.0.1:20080" "ok client $from 8080"

step "healthCheckNodePort"
check=$(field svc lb-local .spec.healthCheckNodePort)
expect node "http:http://127.0.0.1:$check/x" \
    '200 \{"service":\{"namespace":"net","name":"lb-local"\},"localEndpoints":2,"serviceProxyHealthy":true\}'
expect host "http:http://127.0.0.1:$check/" '200 .*"localEndpoints":2.*'

step "DNS: every type of record"
expect pod \
    "$(dns echo.net.$zone:A)" "NOERROR aa \[echo.net.$zone. A $E\]" \
    "$(dns ECHO.Net.$zone:A)" "NOERROR aa \[ECHO.Net.$zone. A $E\]" \
    "$(dns echo.net.$zone:A:tcp)" "NOERROR aa \[echo.net.$zone. A $E\]" \
    "$(dns echo.net.$zone:A:edns=1232)" "NOERROR aa \[echo.net.$zone. A $E\] edns=1232" \
    "$(dns echo.net.$zone:A:edns=1232:v=1)" "16 edns=1232" \
    "$(dns echo.net.$zone:AAAA)" "NOERROR aa$soa" \
    "$(dns _web._tcp.echo.net.$zone:SRV)" \
    "NOERROR aa \[_web._tcp.echo.net.$zone. SRV 0 100 80 echo.net.$zone.\] additional \[echo.net.$zone. A $E\]" \
    "$(dns _dgram._udp.echo.net.$zone:SRV)" "NOERROR aa \[_dgram._udp.echo.net.$zone. SRV 0 100 53 .*" \
    "$(dns peers.net.$zone:A)" "NOERROR aa \[peers.net.$zone. A $peer0\]" \
    "$(dns peer-0.peers.net.$zone:A)" "NOERROR aa \[peer-0.peers.net.$zone. A $peer0\]" \
    "$(dns peer-1.peers.net.$zone:A)" "NXDOMAIN aa$soa" \
    "$(dns all-peers.net.$zone:A)" "NOERROR aa \[all-peers.net.$zone. A ($peer0|$peer1), all-peers.net.$zone. A ($peer0|$peer1)\]" \
    "$(dns _web._tcp.peers.net.$zone:SRV)" "NOERROR aa \[_web._tcp.peers.net.$zone. SRV 0 100 8080 peer-0.peers.net.$zone.\] .*" \
    "$(dns ${peer0//./-}.net.pod.cluster.local:A)" "NOERROR aa \[.* A $peer0\]" \
    "$(dns 10-1-1-1.nowhere.pod.cluster.local:A)" "NXDOMAIN aa$soa" \
    "$(dns alias.net.$zone:A)" "NOERROR aa \[alias.net.$zone. CNAME echo.net.$zone., echo.net.$zone. A $E\]" \
    "$(dns outside.net.$zone:CNAME)" "NOERROR aa \[outside.net.$zone. CNAME www.example.test.\]" \
    "$(dns outside.net.$zone:A)" "(NOERROR|NXDOMAIN) aa \[outside.net.$zone. CNAME www.example.test.\].*" \
    "$(dns nothing.net.$zone:A)" "NXDOMAIN aa$soa" \
    "$(dns net.$zone:A)" "NOERROR aa$soa" \
    "$(dns cluster.local:SOA)" "NOERROR aa .*" \
    "$(dns dns-version.cluster.local:TXT)" 'NOERROR aa \[.* TXT "1.1.0"\]' \
    "$(dns 1.0.96.10.in-addr.arpa:PTR)" "NOERROR aa \[.* PTR kubernetes.default.$zone.\]" \
    "$(dns "$(echo "$peer0" | awk -F. '{print $4"."$3"."$2"."$1}').in-addr.arpa:PTR")" "NOERROR aa \[.* PTR peer-0.peers.net.$zone.\]" \
    "$(dns www.example.test:A)" "(SERVFAIL|NXDOMAIN.*)" \
    "$(dns www.example.test:A:edns=1232)" "(SERVFAIL edns=1232 ede=2[23] \"not a name of the cluster|NXDOMAIN).*"
# resolv.conf with its search domains and ndots, by a resolver that reads it
expect pod lookup:echo "$E" lookup:echo.net "$E" lookup:kubernetes.default 10.96.0.1 \
    lookup:peer-0.peers "$peer0" lookup:alias "$E" lookup:echo.net.$zone. "$E"

step "session affinity holds, and ends with its time"
S=$(cluster_ip sticky)
hits() { from_pod "$@" | cut -d' ' -f4 | sort -u; }
held='' spec="tcp:$S:80"
for _ in 1 2 3 4 5; do # on a busy machine two commands may be further apart than the timeout of 3 s
    began=$(date +%s%N)
    first=$(hits $spec)
    rest=$(hits $spec $spec $spec $spec $spec $spec $spec $spec)
    if [ $(($(date +%s%N) - began)) -lt 2500000000 ]; then
        [ "$rest" = "$first" ] || { echo "affinity: $first, then $rest" >&2; exit 1; }
        held=1
        break
    fi
done
[ -n "$held" ] || echo "   this machine is too busy to see that affinity holds"
moved=
for _ in 1 2 3 4 5 6 7 8; do # another endpoint is chosen by chance, so now and then the same again
    sleep 3.3
    [ "$(hits $spec)" = "$first" ] || { moved=1; break; }
done
[ -n "$moved" ]

step "endpoints that go: UDP flows move on, affinity of the others stays, host ports close and open"
expect pod "udpfrom:5555:$E:53" "$echo_ $client 9090" # a flow that outlives its endpoint
kn scale deploy/echo --replicas=0
gone() { [ -z "$(kn get pods -l app=echo -o name)" ]; }
wait_for 15 gone
wait_for 5 expect pod "tcp:$E:80" refused "udp:$E:53" refused
wait_for 10 expect host "tcp:127.0.0.1:$np" refused "tcp:$L:18080" refused
wait_for 5 expect node "http:http://127.0.0.1:$check/" '503 .*"localEndpoints":0.*'
[ "$(external_ip lb)" = "$L" ]
kn scale deploy/echo --replicas=1
wait_for 15 expect host "tcp:127.0.0.1:$np" "$echo_ $from 8080" "udp:$L:18080" "$echo_ $from 8080"
expect pod "udp:$E:53" "$echo_ $client 9090" "udpfrom:5555:$E:53" "$echo_ $client 9090"

step "NetworkPolicy: isolated pods, what is allowed, and DNS"
kn apply -f - <<'Y'
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: echo}, spec: {podSelector: {matchLabels: {app: echo}},
  ingress: [{from: [{podSelector: {matchLabels: {app: peer}}}], ports: [{port: web}]}]}}
Y
from_peer() { kn exec peer-0 -- /netprobe probe $give_up "$@"; }
wait_for 10 expect pod "tcp:$E:80" timeout
expect pod "tcp:$L:18080" timeout "udp:$E:53" timeout "$(dns echo.net.$zone:A)" "NOERROR .*"
expect peer "tcp:$E:80" "$echo_ $peer0 8080" "tcp:$E:81" timeout
expect node "tcp:$E:80" "$echo_ .*"
expect host "tcp:127.0.0.1:$np" "(EOF|timeout|.*reset.*)"
kn apply -f - <<'Y'
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: peers}, spec: {podSelector: {matchLabels: {app: peer}},
  policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}},
  podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: 53, protocol: UDP}]}]}}
Y
wait_for 10 expect peer "tcp:$E:80" timeout
expect peer "$(dns echo.net.$zone:A)" "NOERROR .*" "$(dns echo.net.$zone:A:tcp)" timeout "tcp:$node:6443" timeout
kn delete networkpolicy --all
wait_for 10 expect pod "tcp:$E:80" "$echo_ $client 8080"
expect peer "tcp:$E:81" "$echo_ $peer0 9090"

agent=${host:+$(pgrep -P "$(init_pid)" -f 'thimbled.* node ')}
if [ -n "$agent" ]; then
    step "the agent is killed: rules stay and are taken up again"
    kill -9 "$agent"
    expect node "tcp:$E:80" "$echo_ .*"
    back() { kn get --raw "/api/v1/nodes/thimble/proxy/healthz"; }
    wait_for 15 back
    kn scale deploy/echo --replicas=2
    kn rollout status deploy/echo --timeout=$((slow * 30))s
    expect pod "tcp:$E:80" "$echo_ .*" "$(dns echo.net.$zone:A)" "NOERROR .*"
    step "rules that somebody took away come back"
    nsenter -t "$(init_pid)" -n nft flush ruleset
    wait_for 20 expect pod "tcp:$E:80" "$echo_ .*"
fi

step "a Service that goes takes its ways along"
kn delete svc lb np solo --wait
wait_for 10 expect host "tcp:$L:18080" refused "tcp:127.0.0.1:$np" refused
wait_for 5 expect pod "$(dns solo.net.$zone:A)" "NXDOMAIN .*"

step "delete leaves nothing"
pid=${host:+$(init_pid)}
t delete
ended() { [ -z "$pid" ] || [ ! -e "/proc/$pid" ] || grep -q '^State:.*Z' "/proc/$pid/status"; }
wait_for 5 ended
after=$(ip -o link | wc -l)/$(nft list tables 2>/dev/null | wc -l)/$(ip netns list | wc -l)
[ "$before" = "$after" ] || { echo "links/tables/namespaces: $before before, $after after" >&2; exit 1; }
if grep -qs "$work" /proc/mounts; then
    grep "$work" /proc/mounts >&2
    exit 1
fi
if left=$(pgrep -f "$work"); then
    ps -fp $left >&2
    exit 1
fi
echo
echo "the network holds ($SECONDS s)"
