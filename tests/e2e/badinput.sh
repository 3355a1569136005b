#!/usr/bin/env bash
# Bad input and bad surroundings, line by line: each has a reason code, a cause, a next step and the
# exit code of its class. No VM is booted: commands that need a cluster get one of the host driver.
#   badinput.sh THIMBLE
# Uses folders of its own; leaves nothing behind. What needs root (the cluster, a full disk) is
# skipped by name without it.
set -euo pipefail
thimble=$(realpath "${1:?usage: badinput.sh THIMBLE}")
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d /tmp/thb.XXXXXX)
export XDG_DATA_HOME=$work/data XDG_STATE_HOME=$work/state KUBECONFIG=$work/kubeconfig
export XDG_CACHE_HOME=${TH_TEST_CACHE:-$root/build/test-cache} NO_COLOR=1
unset THIMBLE_PROFILE
cluster=bad$$
passed=0 failed=0 skipped=0
t() { "$thimble" "$@" </dev/null; }
tc() { "$thimble" "$@" -p "$cluster" </dev/null; }
finish() {
    code=$?
    for p in "$cluster" other one; do t delete -p $p >/dev/null 2>&1 || true; done
    mountpoint -q "$work/full" 2>/dev/null && umount "$work/full"
    [ ! -d "$work/ro" ] || chmod 700 "$work/ro"
    rm -rf "$work"
    printf '\n%d passed, %d failed, %d skipped\n' $passed $failed $skipped
    [ $code = 0 ] && [ $failed = 0 ]
}
trap finish EXIT
step() { printf '\n-- %s\n' "$*"; }
skip() { echo "SKIP: $*"; skipped=$((skipped + 1)); }
no() { failed=$((failed + 1)); echo "NOT OK: $*"; }
ok() { passed=$((passed + 1)); }
# run COMMAND...: with a limit; t and tc are thimble, tc on the cluster of this run.
run() {
    case $1 in
    t) shift; timeout 120 "$thimble" "$@" </dev/null ;;
    k) shift; timeout 60 "$kubectl" "$@" </dev/null ;;
    tc) shift; timeout 120 "$thimble" "$@" -p "$cluster" </dev/null ;;
    *) timeout 120 "$@" </dev/null ;;
    esac
}
# bad EXIT REASON 'MESSAGE PATTERN' 'NEXT STEP PATTERN' COMMAND...: fails as it must.
bad() {
    local want=$1 reason=$2 message=$3 next=$4 out code=0
    shift 4
    out=$(run "$@" 2>&1) || code=$?
    local first=${out#*thimble: }
    if [ $code != "$want" ] || ! grep -Eq "\[($reason)\]" <<<"$out" || ! grep -Eq -- "$message" <<<"$first" ||
        ! grep -Eq -- "^  .*$next" <<<"$out"; then
        no "$* -> exit $code (wanted $want [$reason] /$message/ next /$next/):"
        # shellcheck disable=SC2001
        sed 's/^/    /' <<<"$out"
        return 0
    fi
    ok
}
# good 'PATTERN' COMMAND...: succeeds and says so.
good() {
    local pattern=$1 out code=0
    shift
    out=$(run "$@" 2>&1) || code=$?
    if [ $code != 0 ] || ! grep -Eq -- "$pattern" <<<"$out"; then
        no "$* -> exit $code (wanted 0 and /$pattern/):"
        # shellcheck disable=SC2001
        sed 's/^/    /' <<<"$out"
        return 0
    fi
    ok
}
# is 'WHAT' CONDITION...
is() {
    local what=$1
    shift
    if "$@"; then ok; else no "$what"; fi
}
f() { # f NAME: a file of standard input; its path is printed
    cat >"$work/$1"
    echo "$work/$1"
}

step "unknown commands and options"
bad 2 usage 'unknown command "strat"' 'did you mean "thimble start"' t strat
bad 2 usage 'unknown command "image biuld"' 'did you mean "thimble image build"' t image biuld
bad 2 usage 'unknown command "frobnicate"' '"thimble help" lists' t frobnicate
bad 2 usage 'unknown option "--memroy"' 'did you mean --memory' t start --memroy 5
bad 2 usage 'unknown option "-Z"' 'thimble help start' t start -Z
bad 2 usage 'unknown option "--cpus"' 'after its name' t --cpus 2 start
bad 2 usage '"abc" is not a whole number from 1 to 64' 'thimble help start' t start --cpus abc
bad 2 usage '"0" is not a whole number' 'thimble help start' t start --cpus 0
bad 2 usage '99999999999999999999' 'thimble help start' t start --cpus 99999999999999999999
bad 2 usage 'needs a value' '--cpus N' t start --cpus
bad 2 usage 'takes no value' '--quiet' t start --quiet=1
bad 2 usage 'not one of libvirt, host' 'did you mean libvirt' t start --driver libvrit
bad 2 usage 'not one of text, json' 'thimble help' t status -o yaml
bad 2 usage 'unexpected argument "now"' 'thimble help start' t start now
bad 2 usage 'needs IMAGE NAME' 'thimble help image tag' t image tag a
bad 2 usage 'no help for "nothing"' 'thimble help' t help nothing
bad 2 usage 'shell "tcsh"' 'bash, zsh and fish' t completion tcsh
for port in abc 0 70000:1 1:70000 10.0.0.1:80:80 8080:80/sctp 1:2:3:4 : 127.0.0.1:: -5:80; do
    bad 2 usage 'is not a port mapping' 'HOSTPORT:PORT' t start --port="$port"
done
is "an error of the command line as JSON" python3 - "$thimble" <<'END'
import json, subprocess, sys
r = subprocess.run([sys.argv[1], "start", "--nope", "-o", "json"], capture_output=True, text=True)
e = json.loads(r.stdout)["error"]
assert r.returncode == 2 and e["reason"] == "usage" and e["next"] and e["message"], e
END

step "profile names"
for name in UPPER .. "" a/b aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa -x a_b 'a b'; do
    for command in start stop status delete "image ls" service console kubeconfig; do
        # shellcheck disable=SC2086
        bad 2 usage 'bad profile name' '1 to 32 of a-z' t $command --profile="$name"
    done
done
THIMBLE_PROFILE=../x bad 2 usage 'bad profile name' '1 to 32' t status
is "nothing was made" [ ! -e "$work/data" ]

step "no cluster"
bad 3 not-found 'no profile "one"' 'thimble start -p one' t status -p one
bad 3 not-found 'no profile "one"' 'thimble list' t stop -p one
bad 3 not-found 'no profile "one"' 'thimble list' t delete -p one
bad 3 not-found 'no profile "one"' 'thimble start -p one' t kubeconfig -p one
bad 3 not-found 'no console' 'thimble list' t console -p one
for command in "image ls" "image rm x" "image tag a b" "image pull x" "image load $0" service; do
    # shellcheck disable=SC2086
    bad 5 not-running '"one" is not running' 'thimble start -p one' t $command -p one
done
bad 2 usage 'neither HOME nor' 'thimble' env -u HOME -u XDG_DATA_HOME "$thimble" status

step "manifests that are none"
bad 2 usage 'nothing to apply' '-f FILE' t apply
bad 3 not-found 'nofile' '.' t apply -f "$work/nofile"
bad 7 parse 'line 2, column 1' 'correct the file' t apply -f "$(f a.yaml <<<'a: [1')"
bad 7 parse 'line 3, column' 'correct the file' t apply -f "$(printf 'a: 1\nb:\n\t- x\n' | f tab.yaml)"
bad 7 parse 'line 1, column|line 2, column' 'correct the file' t apply -f "$(f a.json <<<'{"a":')"
bad 7 parse 'UTF-8' 'correct the file' t apply -f "$(printf 'a: \xff\xfe' | f utf.yaml)"
bad 7 parse 'document 1 is not an object' 'apiVersion' t apply -f "$(f text.yaml <<<'just text')"
bad 7 parse 'document 2 has no apiVersion' 'apiVersion' t apply -f "$(printf -- 'apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\nkind: Pod\n' | f two.yaml)"
bad 7 parse 'no metadata.name' 'kubectl create' t apply -f "$(f gen.yaml <<<'{apiVersion: v1, kind: Pod, metadata: {generateName: a-}}')"
bad 7 parse 'holds no objects' 'apiVersion' t apply -f "$(f empty.yaml </dev/null)"
python3 - >"$work/bomb.yaml" <<'END'
print("a0: &a0 [x,x,x,x,x,x,x,x,x,x]")
for i in range(1, 12):
    print(f"a{i}: &a{i} [" + ",".join([f"*a{i-1}"] * 10) + "]")
END
bad 7 'parse|too-large' 'bomb.yaml' '.' t apply -f "$work/bomb.yaml"
python3 -c 'print("a: " + "[" * 5000 + "]" * 5000)' >"$work/deep.yaml"
bad 7 'parse|too-large' 'deep.yaml' '.' t apply -f "$work/deep.yaml"

step "no QEMU, no libvirt"
mkdir "$work/bin"
bad 4 no-qemu 'QEMU is not installed' 'apt-get install.*qemu-system-x86' env PATH="$work/bin" "$thimble" start -p one
is "a start that fails leaves no profile" [ ! -e "$work/data/thimble/one" ]
printf '#!/bin/sh\nexit 0\n' >"$work/bin/qemu-system-x86_64"
chmod +x "$work/bin/qemu-system-x86_64"
bad 4 no-qemu 'qemu-img is not installed' 'apt-get install.*qemu-utils' env PATH="$work/bin" "$thimble" start -p one
is "a start that fails leaves no profile" [ ! -e "$work/data/thimble/one" ]

rm "$work/bin/qemu-system-x86_64"
if command -v qemu-system-x86_64 >/dev/null && command -v qemu-img >/dev/null; then
    # The library is there, its QEMU driver is not.
    bad 4 no-libvirt "QEMU driver does not start" 'apt-get install.*libvirt-daemon-driver-qemu' \
        env LIBVIRT_DRIVER_DIR="$work/none" "$thimble" start -p one --accel tcg
    t delete -p one >/dev/null 2>&1 || true
    lib=$(ldconfig -p | sed -n 's/.*libvirt\.so\.0 .*=> //p' | head -1)
    if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
        bad 4 no-libvirt 'libvirt is not installed' 'apt-get install.*libvirt-daemon-driver-qemu' \
            unshare -m sh -c "mount --bind /dev/null $(realpath "$lib") && exec '$thimble' start -p one"
        is "a start that fails leaves no profile" [ ! -e "$work/data/thimble/one" ]
    else
        skip "no libvirt.so: needs root and mount namespaces"
    fi
else
    skip "no libvirt: QEMU is not installed"
fi

step "paths"
long=$work/$(printf 'x%.0s' {1..90})
bad 2 usage 'too long for Unix sockets' 'XDG_STATE_HOME' env XDG_STATE_HOME="$long" "$thimble" start -p one --accel tcg
t delete -p one >/dev/null 2>&1 || true
: >"$work/plainfile"
bad 3 not-found 'plainfile.*Not a directory' '.' env XDG_DATA_HOME="$work/plainfile" "$thimble" start -p one
if [ "$(id -u)" != 0 ]; then
    mkdir -m 500 "$work/ro"
    bad 4 no-permission 'ro' '.' env XDG_DATA_HOME="$work/ro" "$thimble" start -p one
fi

step "kubeconfig"
# A cluster to speak of: without root only what needs none is tested.
if [ "$(id -u)" != 0 ]; then
    skip "what needs a cluster: the host driver needs root"
    exit 0
fi
if ! tc start --driver host -q; then
    skip "what needs a cluster: the host driver does not run here"
    exit 0
fi
kubectl=$("$root/tests/tools/kubectl.sh")
k() { "$kubectl" --request-timeout=10s "$@" </dev/null; }
context_name=thimble-$cluster
mode() { stat -c %a "$1"; }
is "the kubeconfig is 0600" [ "$(mode "$KUBECONFIG")" = 600 ]
is "the context is current" [ "$(k config current-context)" = "$context_name" ]

# what is not a kubeconfig is left alone
for text in 'a: [' '[1, 2]' 'clusters: 5' '{"contexts": "x"}'; do
    printf '%s' "$text" >"$work/kc-bad"
    KUBECONFIG=$work/kc-bad bad 5 kubeconfig 'kc-bad' 'KUBECONFIG' tc kubeconfig
    is "a file that is no kubeconfig stays as it is" [ "$(cat "$work/kc-bad")" = "$text" ]
done
KUBECONFIG=$work bad 5 kubeconfig 'Is a directory' 'KUBECONFIG' tc kubeconfig
: >"$work/kc-empty"
KUBECONFIG=$work/kc-empty good 'kubectl uses' tc kubeconfig
is "an empty file becomes one" k --kubeconfig "$work/kc-empty" get ns default

# several files: the one that has the current context's place is the first, as with kubectl
printf 'apiVersion: v1\nkind: Config\ncurrent-context: old\ncontexts:\n- {name: old, context: {cluster: c, user: u}}\nclusters:\n- {name: c, cluster: {server: "https://127.0.0.1:1"}}\nusers:\n- {name: u, user: {token: t}}\nextensions: []\n' >"$work/kc1"
cp "$work/kc1" "$work/kc2"
KUBECONFIG=$work/kc1:$work/kc2 good 'kubectl uses' tc kubeconfig
is "the first file has it" grep -q "$context_name" "$work/kc1"
is "the second is untouched" cmp -s "$work/kc2" <(cat "$work/kc2")
is "other entries are kept" [ "$(k --kubeconfig "$work/kc1" config get-contexts -o name | sort | tr '\n' ' ')" = "old $context_name " ]

# a symbolic link stays one
cp "$work/kc2" "$work/real"
ln -s real "$work/link"
KUBECONFIG=$work/link good 'kubectl uses' tc kubeconfig
is "the link is still a link" [ -L "$work/link" ]
is "its target has it" grep -q "$context_name" "$work/real"
is "and is 0600" [ "$(mode "$work/real")" = 600 ]

# kubectl's own lock is heeded
touch "$work/kc1.lock"
KUBECONFIG=$work/kc1 bad 5 locked 'locked by another program' 'remove .*kc1.lock' tc kubeconfig
touch -d '5 minutes ago' "$work/kc1.lock"
KUBECONFIG=$work/kc1 good 'kubectl uses' tc kubeconfig
is "a stale lock is taken away" [ ! -e "$work/kc1.lock" ]

# where it cannot be written
mkdir "$work/rofs"
mount -t tmpfs -o ro tmpfs "$work/rofs"
KUBECONFIG=$work/rofs/config bad 5 kubeconfig 'rofs/config.lock: Read-only' 'KUBECONFIG' tc kubeconfig
umount "$work/rofs"

# stale: the server of the entry is not the cluster's any more
k config set-cluster "$context_name" --server=https://127.0.0.1:9 >/dev/null
good 'stale: "thimble kubeconfig" renews it' tc status
good 'kubectl uses' tc kubeconfig
is "the renewed one answers" k get ns default

step "a start while one runs"
good 'running already' tc start --driver host
good 'not applied: --memory, --port' tc start --memory 512 --port 8080
is "as JSON" sh -c "'$thimble' start -p $cluster -o json | grep -q '\"started\": false'"
bad 2 usage 'made with the driver host' 'delete it first' tc start --driver libvirt
pids=()
for i in 1 2 3 4 5 6; do
    (
        code=0
        t start -p other --driver host -q >"$work/start$i" 2>&1 || code=$?
        echo $code >"$work/code$i"
    ) &
    pids+=($!)
done
wait "${pids[@]}"
good_starts=$(cat "$work"/code? | grep -c '^0$') || true
refused=$(cat "$work"/code? | grep -c '^5$') || true
is "of six starts at once each works or says locked ($good_starts and $refused)" [ $((good_starts + refused)) = 6 ] 
is "and at least one works" [ "$good_starts" -ge 1 ]
is "those refused say so" [ "$(cat "$work"/start? | grep -c '\[locked\]')" = "$refused" ]
good 'other +Running' t list

step "a port in use"
python3 - "$work/port" <<'END' &
import socket, sys, time
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(1)
open(sys.argv[1] + ".tmp", "w").write(str(s.getsockname()[1]))
import os; os.rename(sys.argv[1] + ".tmp", sys.argv[1])
time.sleep(600)
END
holder=$!
until [ -e "$work/port" ]; do sleep 0.02; done
port=$(cat "$work/port")
t stop -p other -q
bad 4 port-in-use "127.0.0.1:$port" 'port' t start -p other --driver host --port "$port:30080"
bad 4 port-in-use "127.0.0.1:$port" '--api-port' t start -p other --driver host --api-port "$port"
kill $holder
wait $holder 2>/dev/null || true

step "a corrupted state folder"
data=$work/data/thimble/other state=$work/state/thimble/other
# hurt FILE HOW: damages one file of the profile "other" and keeps it for heal.
hurt() {
    rm -rf "$work/kept"
    cp -a "$1" "$work/kept"
    case $2 in
    garbage) head -c 300 /dev/urandom >"$1" ;;
    empty) : >"$1" ;;
    truncated) head -c 25 "$work/kept" >"$1" ;;
    list) echo '[]' >"$1" ;;
    wrong) echo '{"driver": 7, "pid": "x", "ports": {}}' >"$1" ;;
    missing) rm "$1" ;;
    folder) rm "$1"; mkdir "$1" ;;
    esac
}
heal() { rm -rf "$1"; mv "$work/kept" "$1"; }
for how in garbage empty truncated list wrong missing folder; do
    hurt "$data/profile.json" $how
    bad 5 state-corrupt 'profile.json' 'thimble delete -p other' t start -p other --driver host
    if [ $how != missing ]; then
        bad 5 state-corrupt 'profile.json' 'thimble delete -p other' t status -p other
        bad 5 state-corrupt 'profile.json' 'thimble delete -p other' t stop -p other
        good 'other +Damaged' t list
    fi
    heal "$data/profile.json"
done
for how in garbage empty truncated list folder; do
    hurt "$state/state.json" $how
    bad 5 state-corrupt 'state.json' 'remove the file' t start -p other --driver host
    heal "$state/state.json"
done
for how in garbage empty truncated folder; do
    hurt "$state/ports.json" $how
    bad 5 state-corrupt 'ports.json' 'remove the file' t start -p other --driver host
    heal "$state/ports.json"
done
for name in ca.crt ca.key sa.key; do
    for how in garbage empty truncated folder; do
        hurt "$data/identity/$name" $how
        bad 5 state-corrupt 'identity/' 'put the file back' t start -p other --driver host
        heal "$data/identity/$name"
    done
done
for name in ca.crt ca.key; do
    hurt "$data/identity/$name" missing
    bad 5 state-corrupt "identity/$name" 'put the file back' t start -p other --driver host
    heal "$data/identity/$name"
done
# what can be made again is made again
hurt "$data/identity/server.crt" garbage
hurt "$data/identity/admin.key" missing
rm "$data/identity/sa.pub"
good 'ready at' t start -p other --driver host
is "and the cluster answers" k get ns default
t stop -p other -q
# run state that is missing is no damage: nothing ran
rm "$state/state.json" "$state/ports.json"
good 'ready at' t start -p other --driver host
t stop -p other -q

step "a damaged profile can be deleted"
head -c 300 /dev/urandom >"$data/profile.json"
head -c 300 /dev/urandom >"$state/state.json"
run t delete -p other >/dev/null 2>&1 || no "delete of a damaged profile"
is "nothing is left of it" [ ! -e "$data" ]
is "nor of its state" [ ! -e "$state" ]

step "a full disk"
mkdir -p "$work/full"
for size in 16k 64k; do # too small for the profile; for the cluster's store
    mount -t tmpfs -o size=$size tmpfs "$work/full"
    mkdir "$work/full/d" "$work/full/s"
    bad 4 'no-space|boot-failed' 'No space|disk is full' 'room|console' \
        env XDG_DATA_HOME="$work/full/d" XDG_STATE_HOME="$work/full/s" "$thimble" start -p one --driver host
    env XDG_DATA_HOME="$work/full/d" XDG_STATE_HOME="$work/full/s" "$thimble" delete -p one >/dev/null 2>&1 || true
    umount "$work/full"
done

step "bad image archives"
archives=$work/archives
mkdir "$archives"
python3 "$root/tests/e2e/bad_archives.py" "$archives"
while read -r name exit reason message; do
    bad "$exit" "$reason" "$message" '.' tc image load "$archives/$name"
done <"$archives/list"
good 'loaded.*good:1' tc image load "$archives/good.tar"
good 'loaded.*good:1' tc image load "$archives/good-oci"
is "a .dockerignore in an OCI folder is a file like any" grep -q . "$archives/good-oci/.dockerignore"
good '"ref": "docker.io/library/good:1"' tc image load "$archives/good.tar" -o json
is "nothing came of the bad ones" [ "$(tc image ls | grep -vc '^IMAGE')" = 1 ]
is "nothing was written outside" [ ! -e "$work/escaped" ] 
bad 3 no-image 'nosuch' 'thimble image ls' tc image rm nosuch
bad 3 no-image 'nosuch' 'thimble image ls' tc image tag nosuch a:1
bad 3 no-image 'nosuch' 'thimble image ls' tc image save nosuch -f "$work/x.tar"
is "a save that fails leaves no file" [ ! -e "$work/x.tar" ] 
bad 7 bad-reference 'BAD//x' 'NAME:TAG' tc image tag good:1 BAD//x
bad 7 bad-reference 'a:b:c' 'NAME:TAG' tc image pull a:b:c
bad 4 offline 'cannot reach http://127.0.0.1:9' 'image load' tc image pull 127.0.0.1:9/x:1
bad 4 offline 'cannot reach' 'image load' tc image pull registry.invalid/x:1

step "Dockerfiles with mistakes"
ctx=$work/ctx
mkdir "$ctx"
# dockerfile EXIT REASON MESSAGE NEXT: the Dockerfile comes on standard input.
dockerfile() {
    cat >"$ctx/Dockerfile"
    bad "$1" "$2" "$3" "$4" tc image build -t x:1 "$ctx"
}
dockerfile 7 dockerfile 'Dockerfile:3: unknown instruction: COPPY .did you mean COPY' 'at that line' <<'END'
FROM scratch

COPPY a /a
END
dockerfile 7 dockerfile 'Dockerfile:1: no build stage' 'at that line' <<'END'
RUN true
END
dockerfile 7 dockerfile 'Dockerfile:2: ' '.' <<'END'
FROM scratch
COPY a
END
dockerfile 7 dockerfile 'Dockerfile:2: ' '.' <<'END'
FROM scratch
COPY --form=x a b
END
dockerfile 7 dockerfile 'Dockerfile:3: .*EOT|unterminated heredoc' '.' <<'END'
FROM scratch

COPY <<EOT /x
text
END
dockerfile 7 dockerfile 'Dockerfile:2: ' '.' <<'END'
FROM scratch
ENV a=${b
END
dockerfile 7 dockerfile 'Dockerfile:2: ' '.' <<'END'
FROM scratch
ONBUILD FROM x
END
dockerfile 7 dockerfile 'Dockerfile:2: ' '.' <<'END'
FROM scratch
HEALTHCHECK --interval=x CMD true
END
dockerfile 7 dockerfile 'Dockerfile:2: ' '.' <<'END'
FROM scratch
EXPOSE 99999
END
dockerfile 7 dockerfile 'Dockerfile' '.' </dev/null
dockerfile 3 no-image 'Dockerfile:2: .*"nostage" is not in the cluster' 'thimble image load' <<'END'
FROM scratch
COPY --from=nostage /a /b
END
dockerfile 3 no-image 'Dockerfile:1: .*"docker.io/library/alpine:3.99" is not in|Dockerfile:1: .*"alpine:3.99" is not in' 'thimble image load' <<'END'
FROM alpine:3.99
RUN true
END
dockerfile 1 build-failed 'Dockerfile:2: .*"/missing": not found' 'build context' <<'END'
FROM scratch
COPY missing /missing
END
dockerfile 1 build-failed 'Dockerfile:2: .*"/escaped": not found' 'build context' <<'END'
FROM scratch
COPY ../escaped /x
END
bad 3 not-found 'Dockerfile' 'thimble image build --go' tc image build "$archives"
bad 3 not-found 'not a folder' 'thimble image build' tc image build "$work/nowhere"
bad 7 bad-reference 'Bad:Tag:x' 'NAME:TAG' tc image build -t Bad:Tag:x "$ctx"
bad 2 usage 'needs a name' '-t NAME:TAG' tc image build --go . "$ctx"
bad 1 unsupported 'no stand-in for alpine' 'golang' tc image base alpine:3

step "manifests the cluster refuses"
bad 7 bad-request '\.dataa: field not declared in schema' 'correct' tc apply -f "$(f unknown.yaml <<<'{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, dataa: {}}')"
bad 3 not-found 'no matches for kind "Podd"' 'apiVersion and kind' tc apply -f "$(f kind.yaml <<<'{apiVersion: v1, kind: Podd, metadata: {name: a}}')"
bad 7 invalid 'metadata.name' 'fields named' tc apply -f "$(f name.yaml <<<'{apiVersion: v1, kind: ConfigMap, metadata: {name: A_b}}')"
bad 3 not-found 'namespaces "nope" not found' '.' tc apply -f "$(f ns.yaml <<<'{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: nope}}')"
good 'configmaps/a applied' tc apply -f "$(f cm.yaml <<<'{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {k: v}}]}')"
k patch configmap a --type=merge --field-manager=other -p '{"data": {"k": "w"}}' >/dev/null
bad 1 conflict 'conflict with "other"' 'force' tc apply -f "$work/cm.yaml"
good 'applied' tc apply --force -f "$work/cm.yaml"
# kubectl's view of the same
kubectl_says() { # PATTERN COMMAND...
    local pattern=$1 out code=0
    shift
    out=$(timeout 60 "$kubectl" "$@" 2>&1 </dev/null) || code=$?
    if [ $code = 0 ] || ! grep -Eq -- "$pattern" <<<"$out"; then
        no "kubectl $* -> exit $code: $out"
    else
        ok
    fi
}
kubectl_says 'error parsing|error converting YAML to JSON' apply -f "$work/a.yaml"
kubectl_says 'unknown field "dataa"' apply -f "$work/unknown.yaml"
kubectl_says '\.dataa: field not declared in schema' apply --server-side -f "$work/unknown.yaml"
kubectl_says 'no matches for kind "Podd"' apply --validate=false -f "$work/kind.yaml"
out=$(k apply --validate=warn -f "$work/unknown.yaml" 2>&1) || true
is "unknown fields are warnings when asked for" grep -q 'Warning: unknown field "dataa"' <<<"$out"
out=$(k apply --validate=ignore -f "$work/unknown.yaml" 2>&1) || true
is "and nothing when that is asked for" [ "$(grep -c Warning <<<"$out")" = 0 ]

step "services"
bad 3 not-found 'services "nope" not found' '.' tc service nope
bad 1 unsupported 'type ClusterIP' 'LoadBalancer' tc service kubernetes

step "a machine that was killed"
pid=$(tc status -o json | python3 -c 'import json,sys; print(json.load(sys.stdin)["pid"])')
kill -9 "$pid"
while kill -0 "$pid" 2>/dev/null && [ "$(ps -o stat= -p "$pid" | cut -c1)" != Z ]; do sleep 0.05; done
bad 5 not-running 'is not running' 'thimble start' tc image ls
good 'State: +Stopped' tc status
good 'was not running' tc stop
good 'ready at' tc start
good 'a  *1' k get configmap a

step "delete restores the context that was current"
k config set-context mine --cluster=x --user=y >/dev/null
k config use-context mine >/dev/null
tc stop -q
tc start -q
is "start makes it current" [ "$(k config current-context)" = "$context_name" ]
cp "$KUBECONFIG" "$work/kc-stale"
tc delete -q
is "delete brings the one before back" [ "$(k config current-context)" = mine ]
is "its entries are gone" [ -z "$(k config get-contexts -o name | grep "$context_name" || true)" ]
is "the file is still 0600" [ "$(mode "$KUBECONFIG")" = 600 ]
# the context of a deleted profile in another file
cp "$work/kc-stale" "$KUBECONFIG"
good 'did not exist any more' tc delete
bad 3 not-found 'no profile' 'thimble list' tc delete
good 'no cluster yet' t list
