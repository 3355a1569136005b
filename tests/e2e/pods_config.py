"""Cases of pods.py: what containers are given: environment, volumes, identity, limits, host's parts."""
import base64
import json
import os
import time

from lab import NS, Failure, b64, condition, has, same, state_of, status_of

SLEEP = ["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.2; done"]


def lines(text):
    return dict(l.split("=", 1) for l in text.splitlines() if "=" in l)


def environment(lab):
    lab.create("configmaps", {"kind": "ConfigMap", "metadata": {"name": "env"}, "data": {"a": "1", "b.c": "2"}})
    lab.create("secrets", {"kind": "Secret", "metadata": {"name": "env"}, "data": {"pass": b64("s3cret")}})
    lab.create("services", {"kind": "Service", "metadata": {"name": "my-svc"},
                            "spec": {"selector": {"app": "none"}, "ports": [{"name": "web", "port": 81}]}})

    def ref(name, path):
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}

    def res(name, resource, **kw):
        return {"name": name, "valueFrom": {"resourceFieldRef": dict(resource=resource, **kw)}}

    def key(name, kind, obj, k, **kw):
        return {"name": name, "valueFrom": {kind: dict(name=obj, key=k, **kw)}}
    yield
    lab.pod("env", restartPolicy="Never", labels={"app": "env", "tier": "x"}, annotations={"note": "n 1"}, containers=[{
        "command": ["sh", "-c", "tr '\\0' '\\n' </proc/1/environ; echo 'arg=$(TEXT) $(NOPE) $$(TEXT)'"],
        "resources": {"requests": {"cpu": "250m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "env"}}, {"secretRef": {"name": "env"}},
                    {"configMapRef": {"name": "missing", "optional": True}}],
        "env": [{"name": "TEXT", "value": "t"}, {"name": "MIX", "value": "$(TEXT)-$(P_a)-$$(x)-$(none)"},
                ref("NAME", "metadata.name"), ref("NS", "metadata.namespace"), ref("UID_", "metadata.uid"),
                ref("LABEL", "metadata.labels['tier']"), ref("NOTE", "metadata.annotations['note']"),
                ref("NODE", "spec.nodeName"), ref("SA", "spec.serviceAccountName"), ref("IP", "status.podIP"),
                ref("HOST", "status.hostIP"), ref("IPS", "status.podIPs"),
                res("CPU", "requests.cpu"), res("CPUM", "requests.cpu", divisor="1m"), res("MEM", "limits.memory"),
                res("MEMMI", "limits.memory", divisor="1Mi"), res("CPULIM", "limits.cpu"),
                key("K", "configMapKeyRef", "env", "a"), key("S", "secretKeyRef", "env", "pass"),
                key("OPT", "configMapKeyRef", "env", "zz", optional=True)]}])
    p = lab.until_phase("env", "Succeeded")
    v = lines(lab.logs("env"))
    want = {"TEXT": "t", "MIX": "t-1-$(x)-$(none)", "NAME": "env", "NS": NS, "UID_": p["metadata"]["uid"], "LABEL": "x",
            "NOTE": "n 1", "NODE": p["spec"]["nodeName"], "SA": "default", "HOST": p["status"]["hostIP"],
            "CPU": "1", "CPUM": "250", "MEM": str(64 << 20), "MEMMI": "64", "K": "1", "S": "s3cret", "P_a": "1",
            "P_b.c": "2", "pass": "s3cret", "IMAGE_SAYS": "hello", "HOSTNAME": "env", "HOME": "/root",
            "KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT_HTTPS": "443",
            "MY_SVC_SERVICE_PORT": "81", "MY_SVC_SERVICE_PORT_WEB": "81", "arg": "t $(NOPE) $(TEXT)"}
    same({k: v.get(k) for k in want}, want)
    same((v["IP"], v["IPS"]), (v["IP"], v["IP"]))
    has(v["MY_SVC_PORT"], "tcp://10.96.")
    same("OPT" in v, False)
    if not 1 <= int(v["CPULIM"]) <= os.cpu_count():
        raise Failure("limits.cpu is %s" % v["CPULIM"])


def config_errors(lab):
    """A missing source is said, waited for, and taken when it comes."""
    lab.pod("noconf", containers=[{"command": SLEEP, "env": [
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "later", "key": "a"}}}]}])
    lab.pod("novol", containers=[{"command": SLEEP, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            volumes=[{"name": "v", "secret": {"secretName": "later"}}])
    lab.pod("rootless", containers=[{"command": SLEEP, "securityContext": {"runAsNonRoot": True}}])
    yield
    p = lab.until_pod("noconf", "CreateContainerConfigError",
                      lambda p: state_of(p)[1].get("reason") == "CreateContainerConfigError")
    same(state_of(p)[1]["message"], 'configmap "later" not found')
    same(lab.until_event("noconf", "Failed")[2], 'Error: configmap "later" not found')
    same(lab.until_event("novol", "FailedMount")[2], 'MountVolume.SetUp failed for volume "v" : secret "later" not found')
    same(state_of(lab.history("novol")[-1])[1], {"reason": "ContainerCreating"})
    p = lab.until_pod("rootless", "CreateContainerConfigError",
                      lambda p: state_of(p)[1].get("reason") == "CreateContainerConfigError")
    same(state_of(p)[1]["message"], 'container has runAsNonRoot and image will run as root (pod: "rootless_default(%s)", '
         'container: main)' % p["metadata"]["uid"])
    lab.create("configmaps", {"kind": "ConfigMap", "metadata": {"name": "later"}, "data": {"a": "1"}})
    lab.create("secrets", {"kind": "Secret", "metadata": {"name": "later"}, "data": {"a": b64("1")}})
    lab.until_ready("noconf")
    lab.until_ready("novol")


def volumes(lab):
    lab.create("configmaps", {"kind": "ConfigMap", "metadata": {"name": "vol"}, "data": {"a": "A", "b": "B"},
                              "binaryData": {"bin": base64.b64encode(b"\x00\xff").decode()}})
    lab.create("secrets", {"kind": "Secret", "metadata": {"name": "vol"}, "data": {"s": b64("S")}})
    host = lab.dir + "/host"
    os.makedirs(host + "/dir")
    vols = [{"name": "cm", "configMap": {"name": "vol", "defaultMode": 0o440}},
            {"name": "items", "configMap": {"name": "vol", "items": [{"key": "a", "path": "x/y", "mode": 0o400}]}},
            {"name": "sec", "secret": {"secretName": "vol"}},
            {"name": "opt", "secret": {"secretName": "missing", "optional": True}},
            {"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "dir", "emptyDir": {}},
            {"name": "down", "downwardAPI": {"items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}},
                {"path": "cpu", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu",
                                                     "divisor": "1m"}}]}},
            {"name": "all", "projected": {"sources": [
                {"configMap": {"name": "vol", "items": [{"key": "a", "path": "one"}]}},
                {"secret": {"name": "vol"}},
                {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                {"serviceAccountToken": {"path": "tok", "audience": "vault", "expirationSeconds": 600}}]}},
            {"name": "img", "image": {"reference": "box:1", "pullPolicy": "IfNotPresent"}},
            {"name": "hd", "hostPath": {"path": host + "/new", "type": "DirectoryOrCreate"}},
            {"name": "hf", "hostPath": {"path": host + "/file", "type": "FileOrCreate"}}]
    mounts = [{"name": v["name"], "mountPath": "/v/" + v["name"]} for v in vols]
    mounts += [{"name": "dir", "mountPath": "/sub", "subPath": "some/where"},
               {"name": "cm", "mountPath": "/one.txt", "subPath": "a"},
               {"name": "dir", "mountPath": "/expr", "subPathExpr": "$(POD)-logs"},
               {"name": "img", "mountPath": "/img", "subPath": "data"},
               {"name": "dir", "mountPath": "/ro", "readOnly": True}]
    lab.pod("vols", volumes=vols, labels={"app": "vols"}, annotations={"why": 'a "b"'}, containers=[
        {"command": SLEEP, "volumeMounts": mounts, "resources": {"limits": {"cpu": "300m"}},
         "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}])
    for n, t, path in (("ht-dir", "Directory", "none"), ("ht-file", "File", "dir"), ("ht-sock", "Socket", "dir"),
                       ("ht-char", "CharDevice", "dir"), ("ht-block", "BlockDevice", "dir")):
        lab.pod(n, volumes=[{"name": "v", "hostPath": {"path": host + "/" + path, "type": t}}],
                containers=[{"command": SLEEP, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}])
    lab.pod("ht-ok", volumes=[{"name": "c", "hostPath": {"path": "/dev/null", "type": "CharDevice"}},
                              {"name": "d", "hostPath": {"path": host + "/dir", "type": "Directory"}}],
            containers=[{"command": SLEEP, "volumeMounts": [{"name": "c", "mountPath": "/c"},
                                                            {"name": "d", "mountPath": "/d"}]}])
    lab.pod("sub-out", volumes=[{"name": "v", "emptyDir": {}}],
            initContainers=[{"name": "i", "command": ["ln", "-s", "/etc", "/v/evil"],
                             "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            containers=[{"command": SLEEP, "volumeMounts": [{"name": "v", "mountPath": "/w", "subPath": "evil"}]}])
    yield
    lab.until_ready("vols")
    out = lab.sh("vols", """
cd /v; stat -Lc '%n %a' cm/a items/x/y sec/s all/tok; cat cm/a cm/b items/x/y sec/s all/one all/s all/name; echo
ls items opt; od -An -tx1 cm/bin; cat down/labels; echo; cat down/annotations; echo; cat down/cpu; echo
grep ' /v/mem ' /proc/mounts; readlink cm/a; readlink cm/..data
touch cm/new 2>&1; touch /ro/new 2>&1; echo hi >/sub/f; echo ex >/expr/g; cat dir/some/where/f dir/vols-logs/g /one.txt; echo
cat img/data/file /img/file; touch img/new 2>&1
echo from >hd/f; echo pod >hf; dd if=/dev/zero of=mem/big bs=1M count=2 2>&1 | grep -o 'No space left'; stat -c %a dir; true""")
    for part in ("cm/a 440", "items/x/y 400", "sec/s 644", "all/tok 644", "ABASASvols\n", "opt:\n 00 ff\n", 'app="vols"',
                 'why="a \\"b\\""', "300\n", "tmpfs", "..data/a\n..2", "Read-only file system", "hi\nex\nA\n", "in-image\nin-image\n",
                 "No space left", "777"):
        has(out, part)
    same(out.count("Read-only file system"), 3)
    with open(host + "/new/f") as f, open(host + "/file") as g:
        same(f.read() + g.read(), "from\npod\n")
    token = lab.sh("vols", "cat /v/all/tok")
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    same((claims["aud"], claims["sub"], claims["kubernetes.io"]["pod"]["name"]),
         (["vault"], "system:serviceaccount:default:default", "vols"))
    for n, what in (("ht-dir", "none is not a directory"), ("ht-file", "dir is not a file"),
                    ("ht-sock", "dir is not a socket file"), ("ht-char", "dir is not a character device"),
                    ("ht-block", "dir is not a block device")):
        has(lab.until_event(n, "FailedMount")[2], "hostPath type check failed: %s/%s" % (host, what))
    lab.until_ready("ht-ok")
    lab.until_event("sub-out", "Failed", "subPath")
    # a changed ConfigMap, and a token that is due, come with the pod's next change
    data = "%(XDG_DATA_HOME)s/thimble/" % lab.env + lab.profile
    if os.path.isdir(data + "/data/pods"):
        old = "%s/data/pods/%s/volumes/kubernetes.io~projected/all/..data/tok" % (
            data, lab.history("vols")[0]["metadata"]["uid"])
        claims["iat"], claims["exp"] = claims["iat"] - 500, claims["exp"] - 500
        with open(old, "w") as f:
            f.write("x.%s.y" % base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("="))
    lab.must("PATCH", "/api/v1/namespaces/%s/configmaps/vol" % NS, {"data": {"a": "new", "b": None}},
             content="application/merge-patch+json")
    lab.must("PATCH", "/api/v1/namespaces/%s/pods/vols" % NS, {"metadata": {"annotations": {"again": "1"}}},
             content="application/merge-patch+json")
    end = time.monotonic() + 20 * lab.patience
    while True:
        out = lab.sh("vols", "cat /v/cm/a; ls /v/cm; grep again /v/down/annotations; cat /one.txt /v/all/tok")
        if out.startswith("newa\nbin\nagain=\"1\"\nA") and not out.endswith(".y"):
            break
        if time.monotonic() > end:
            raise Failure("the volumes still say %r" % out)
        time.sleep(0.3)


def service_account(lab):
    lab.pod("sa", containers=[{"command": SLEEP}])
    lab.pod("nosa", automountServiceAccountToken=False, containers=[{"command": SLEEP}])
    yield
    lab.until_ready("sa")
    out = lab.sh("sa", "cd /var/run/secrets/kubernetes.io/serviceaccount; ls; cat namespace; echo; head -1 ca.crt; "
                 "box api /api/v1/namespaces/default/pods/sa; grep -c serviceaccount /proc/mounts")
    for part in ("ca.crt\nnamespace\ntoken\n", NS, "BEGIN CERTIFICATE", "system:serviceaccount:default:default", "\n1\n"):
        has(out, part)
    lab.until_ready("nosa")
    same(lab.sh("nosa", "ls /var/run/secrets/kubernetes.io 2>&1 | wc -l"), "1\n")


def security(lab):
    v = [{"name": "v", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "sec", "defaultMode": 0o400}}]
    m = [{"name": "v", "mountPath": "/v"}, {"name": "s", "mountPath": "/s"}]
    lab.create("secrets", {"kind": "Secret", "metadata": {"name": "sec"}, "data": {"k": b64("v")}})
    lab.pod("user", volumes=v, securityContext={"runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000,
                                                "supplementalGroups": [4000],
                                                "sysctls": [{"name": "net/ipv4/ip_unprivileged_port_start", "value": "0"}]},
            containers=[{"command": SLEEP, "volumeMounts": m, "securityContext": {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}}])
    lab.pod("caps", containers=[{"command": SLEEP, "securityContext": {
        "capabilities": {"add": ["NET_ADMIN", "SYS_TIME"], "drop": ["CHOWN"]}}}])
    lab.pod("priv", containers=[{"command": SLEEP, "securityContext": {"privileged": True}}])
    lab.pod("byname", containers=[{"command": SLEEP, "workingDir": "/data/new/dir", "securityContext": {"runAsUser": 1000}}])
    yield
    p = lab.until_ready("user")
    user = status_of(p)["user"]["linux"]
    same((user["uid"], user["gid"], sorted(user["supplementalGroups"])), (1000, 3000, [1500, 2000, 3000, 4000]))
    out = lab.sh("user", "id -u; id -g; id -G; touch /x 2>&1; touch /v/f && stat -c '%u %g' /v/f; stat -c '%g %a' /v; "
                 "stat -Lc '%u %g %a' /var/run/secrets/kubernetes.io/serviceaccount/token; cat /s/k; echo; grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; "
                 "unshare -r true 2>&1; cat /proc/sys/net/ipv4/ip_unprivileged_port_start")
    for part in ("1000\n3000\n", "4000", "2000", "Read-only file system", "1000 2000\n", "2000 2777", "1000 2000 640\n", "v\n",
                 "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2",
                 "Operation not permitted", "\n0\n"):
        has(out, part)
    lab.until_ready("caps")
    out = lab.sh("caps", "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status")
    caps = int(out.split()[1], 16)
    same([caps >> n & 1 for n in (0, 12, 25, 13)], [0, 1, 1, 1])  # CHOWN, NET_ADMIN, SYS_TIME, NET_RAW
    has(out, "Seccomp:\t0")
    has(lab.sh("caps", "echo x 2>&1 >/proc/sys/kernel/hostname; ls /dev | tr '\\n' ' '; cat /proc/kcore | wc -c"), "0\n")
    lab.until_ready("priv")
    out = lab.sh("priv", "grep CapEff /proc/self/status; mount -t tmpfs t /tmp && echo mounted; ls /dev | wc -l")
    has(out, "mounted")
    if int(out.split()[1], 16) < 0x1fffffffff or int(out.split()[-1]) < 20:
        raise Failure("not privileged: " + out)
    lab.until_ready("byname")
    same(lab.sh("byname", "pwd; id -un"), "/data/new/dir\napp\n")


def refused(lab):
    """What the node cannot give is said, not left out."""
    lab.pod("userns", hostUsers=False, containers=[{"command": SLEEP}])
    if not os.path.exists("/sys/kernel/security/apparmor"):
        lab.pod("armor", containers=[{"command": SLEEP, "securityContext": {
            "appArmorProfile": {"type": "Localhost", "localhostProfile": "mine"}}}])
    yield
    has(lab.until_event("userns", "FailedCreatePodSandBox")[2], "user namespaces are not supported")
    if not os.path.exists("/sys/kernel/security/apparmor"):
        p = lab.until_phase("armor", "Failed")
        same((p["status"]["reason"], p["status"]["message"]),
             ("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"))


def termination_message(lab):
    def pod(name, script, **kw):
        lab.pod(name, restartPolicy="Never", containers=[dict({"command": ["sh", "-c", script]}, **kw)])
    pod("tm-file", "echo said >/dev/termination-log; exit 1")
    pod("tm-path", "echo elsewhere >/tmp/msg", terminationMessagePath="/tmp/msg")
    pod("tm-log", "echo one; echo two >&2; exit 1", terminationMessagePolicy="FallbackToLogsOnError")
    pod("tm-open", "printf open; exit 1", terminationMessagePolicy="FallbackToLogsOnError")
    pod("tm-ok", "echo one", terminationMessagePolicy="FallbackToLogsOnError")
    pod("tm-long", "yes x | head -c 9000 >/dev/termination-log")
    pod("tm-many", "yes 0123456789012345678901234567890123456789 | head -n 200; exit 1",
        terminationMessagePolicy="FallbackToLogsOnError")
    yield
    def message(name):
        return state_of(lab.until_phase(name, "Succeeded", "Failed"))[1].get("message")
    same(message("tm-file"), "said\n")
    same(message("tm-path"), "elsewhere\n")
    same(message("tm-log"), "one\ntwo\n")
    same(message("tm-open"), "open")
    same(message("tm-ok"), None)
    same(len(message("tm-long")), 4096)
    same(len(message("tm-many")), 2048)


def host_parts(lab):
    lab.pod("hostnet", hostNetwork=True, hostPID=True, hostIPC=True, containers=[{"command": SLEEP}])
    lab.pod("names", hostname="h1", subdomain="sub", setHostnameAsFQDN=True,
            hostAliases=[{"ip": "10.1.2.3", "hostnames": ["foo.local", "bar.local"]}],
            dnsPolicy="None", dnsConfig={"nameservers": ["1.2.3.4"], "searches": ["a.example", "b.example"],
                                         "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]},
            containers=[{"command": SLEEP}])
    lab.pod("dns", dnsConfig={"searches": ["extra.example"], "options": [{"name": "ndots", "value": "3"}]},
            containers=[{"command": SLEEP}])
    lab.pod("shared", shareProcessNamespace=True, containers=[
        {"name": "a", "command": ["sh", "-c", "exec sleep 1234"]},
        {"name": "b", "command": SLEEP}])
    yield
    p = lab.until_ready("hostnet")
    same((p["status"]["podIP"], p["status"]["hostIP"]), (p["status"]["hostIP"],) * 2)
    out = lab.sh("hostnet", "echo $HOSTNAME; head -1 /etc/hosts; cat /proc/1/comm")
    has(out, p["spec"]["nodeName"] + "\n# Kubernetes-managed hosts file (host network).\n")
    has(out, "thimbled\n")
    lab.until_ready("names")
    out = lab.sh("names", "hostname; cat /etc/hosts /etc/resolv.conf")
    for part in ("h1.sub.default.svc.cluster.local\n", "\n# Entries added by HostAliases.\n10.1.2.3\tfoo.local\tbar.local\n",
                 "\th1.sub.default.svc.cluster.local\th1\n",
                 "search a.example b.example\nnameserver 1.2.3.4\noptions ndots:2 edns0\n"):
        has(out, part)
    lab.until_ready("dns")
    same(lab.sh("dns", "cat /etc/resolv.conf"), "search default.svc.cluster.local svc.cluster.local cluster.local "
         "extra.example\nnameserver 10.96.0.10\noptions ndots:3\n")
    lab.until_ready("shared")
    out = lab.sh("shared", "ps; cat /proc/1/comm", "-c", "b")
    has(out, "sleep 1234")
    has(out, "/pause")
    pid = [l.split()[0] for l in out.splitlines() if "sleep 1234" in l][0]
    same(lab.sh("shared", "ls /proc/%s/root/etc | head -1; kill -9 %s" % (pid, pid), "-c", "b"), "group\n")
    p = lab.until_pod("shared", "a restarted", lambda p: status_of(p, "a")["restartCount"] == 1)
    same(status_of(p, "a")["lastState"]["terminated"]["exitCode"], 137)
    lab.until_ready("shared")
    lab.delete("shared")
    lab.until_gone("shared", 20)


def names_and_rules(lab):
    """hostnameOverride is the whole name; restartPolicyRules start a container again by its exit code;
    a sysctl that is not safe is refused by the node."""
    lab.pod("named", hostnameOverride="other.name", subdomain="sub", restartPolicy="Never",
            containers=[{"command": ["sh", "-c", "hostname; tail -n 1 /etc/hosts"]}])
    lab.pod("unsafe", containers=[{"command": SLEEP}],
            securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "65536"}]})
    rules = [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]
    for name, code in (("rule", 42), ("norule", 43)):
        lab.pod(name, restartPolicy="Never", volumes=[{"name": "v", "emptyDir": {}}], containers=[
            {"command": ["sh", "-c", "[ -f /v/again ] && exit 0; touch /v/again; exit %d" % code],
             "restartPolicy": "Never", "restartPolicyRules": rules,
             "volumeMounts": [{"name": "v", "mountPath": "/v"}]}])
    yield
    p = lab.until_phase("named", "Succeeded")
    same(lab.logs("named"), "other.name\n%s\tother.name\n" % p["status"]["podIP"])
    p = lab.until_phase("unsafe", "Failed")
    same((p["status"]["reason"], p["status"]["message"]),
         ("SysctlForbidden", 'Pod was rejected: forbidden sysctl: "kernel.msgmax" not allowlisted'))
    p = lab.until_phase("rule", "Succeeded")
    same((status_of(p)["restartCount"], status_of(p)["lastState"]["terminated"]["exitCode"]), (1, 42))
    p = lab.until_phase("norule", "Failed")
    same((status_of(p)["restartCount"], state_of(p)[1]["exitCode"]), (0, 43))


def limits(lab):
    """What the container's own control group says."""
    lab.pod("limits", containers=[{"command": SLEEP, "resources": {
        "requests": {"cpu": "100m", "memory": "16Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}}}])
    lab.pod("guaranteed", containers=[{"command": SLEEP, "resources": {"limits": {"cpu": "100m", "memory": "64Mi"}}}])
    yield
    p = lab.until_ready("limits")
    c = status_of(p)
    same(c["resources"], {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "100m", "memory": "16Mi"}})
    same(c["allocatedResources"], {"cpu": "100m", "memory": "16Mi"})
    v2 = lab.sh("limits", "cat /proc/self/cgroup").startswith("0::")
    if v2:
        out = lab.sh("limits", "cd /sys/fs/cgroup; cat cpu.max cpu.weight memory.max pids.max")
        same(out.split(), ["50000", "100000", "4", str(64 << 20), "max"])
    else:
        path = {l.split(":")[1]: l.strip().split(":")[2] for l in lab.sh("limits", "cat /proc/self/cgroup").splitlines()}
        cpu = [v for k, v in path.items() if "cpu" in k.split(",")][0]
        base = "/sys/fs/cgroup/%s" + cpu
        values = []
        for f in ("cpu/%s/cpu.cfs_quota_us", "cpu/%s/cpu.shares", "memory/%s/memory.limit_in_bytes"):
            with open("/sys/fs/cgroup/" + f % cpu) as h:
                values.append(int(h.read()))
        same(values, [50000, 102, 64 << 20], base)
        pids = [v for k, v in path.items() if k == "pids"]
        if pids:
            with open("/sys/fs/cgroup/pids%s/pids.max" % os.path.dirname(pids[0])) as h:
                same(h.read(), "4096\n")
    score = int(lab.sh("limits", "cat /proc/1/oom_score_adj"))
    if not 2 < score < 1000:
        raise Failure("oom_score_adj is %d" % score)
    same(lab.until_ready("guaranteed")["status"]["qosClass"], "Guaranteed")
    same(condition(p, "Ready")["status"], "True")


CASES = [environment, config_errors, volumes, service_account, security, refused, termination_message, host_parts,
         names_and_rules, limits]
