#!/usr/bin/env python3
"""kubectl's commands that need a node with real containers: kubectl_host.py THIMBLE [-k CASE]... [options of start]

tests/api/test_kubectl.py has what the API alone decides, pods_streams.py the protocols below. Here kubectl
is asked as its users do, and what it prints, which streams it uses and how it ends are those of a
cluster of upstream's. Names are one case's own, since all cases but the last run at the same time; the
node is emptied when they are done. Needs what pods.py needs, and says so with 77."""
import base64
import fcntl
import json
import os
import pty
import re
import select
import socket
import struct
import subprocess
import sys
import tarfile
import termios
import threading
import time
import urllib.error
import urllib.request

from lab import ROOT, has, main, same
from pods_streams import forwarded

SLEEP = ["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.2; done"]
SERVE = {"name": "web", "image": "box:1", "command": ["box", "serve"],
         "ports": [{"name": "http", "containerPort": 8080}],
         "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}}
SIDE = {"name": "side", "image": "box:1", "command": ["sh", "-c", "echo side of $HOSTNAME; exec sleep 10000"],
        "resources": {"requests": {"cpu": "10m"}}}


def deployment(lab, name, replicas=2, budget=False):
    lab.create("deployments", {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [SERVE, SIDE]}}}})
    lab.create("services", {"kind": "Service", "metadata": {"name": name}, "spec": {
        "selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}})
    if budget:
        lab.create("poddisruptionbudgets", {
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": name}}}})


def rolled_out(lab, name):
    p = lab.kubectl("rollout", "status", "deploy/" + name, "--timeout=60s")
    same(p.stdout.splitlines()[-1], 'deployment "%s" successfully rolled out' % name)
    return lab.kubectl("get", "pods", "-l", "app=" + name, "-o", "jsonpath={.items[*].metadata.name}").stdout.split()


def terminal(lab, *args, typed, rows=33, cols=77):
    """kubectl with a terminal of its own: types when a prompt comes. (exit code, what the screen got)."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(lab.kubectl_path, [lab.kubectl_path, *args], lab.env)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
    out, end = b"", time.monotonic() + 60 * lab.patience
    while time.monotonic() < end:
        if select.select([fd], [], [], 1)[0]:
            try:
                data = os.read(fd, 4096)
            except OSError:
                break
            if not data:
                break
            out += data
        if typed and b"# " in out:
            os.write(fd, typed)
            typed = None
    else:
        os.kill(pid, 9)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(fd)
    return code, out.decode(errors="replace").replace("\r", "")


def refused(lab, *args, code=1):
    p = lab.kubectl(*args, check=False)
    same(p.returncode, code, "kubectl %s (%s%s)" % (" ".join(args), p.stdout, p.stderr))
    return p.stderr


def copies(lab):
    lab.pod("cp", containers=[{"name": "a", "command": SLEEP}, {"name": "b", "command": SLEEP}])
    yield
    lab.until_ready("cp")
    d = lab.dir + "/copies"
    os.makedirs(d + "/tree/deep")
    for path, text in (("/one", "one\n"), ("/tree/deep/two", "two\n"), ("/tree/three words", "3\n")):
        with open(d + path, "w") as f:
            f.write(text)
    os.chmod(d + "/one", 0o750)
    lab.kubectl("cp", d + "/one", "default/cp:/tmp/uno", "-c", "b")
    same(lab.sh("cp", "cat /tmp/uno; stat -c %a /tmp/uno", "-c", "b"), "one\n750\n")
    lab.kubectl("cp", d + "/tree", "cp:/tmp")
    same(lab.sh("cp", "cd /tmp/tree; find . -type f | sort; cat deep/two", "-c", "a"), "./deep/two\n./three words\ntwo\n")
    p = lab.kubectl("cp", "cp:/tmp/tree", d + "/back")
    has(p.stdout, 'Defaulted container "a" out of: a, b')
    same(subprocess.run(["diff", "-r", d + "/tree", d + "/back"], capture_output=True, text=True).stdout, "")
    has(refused(lab, "cp", d + "/one", "nopod:/x"), 'pods "nopod" not found')
    has(refused(lab, "cp", d + "/one", "cp:/tmp/x", "-c", "zz"), "container zz is not valid for pod cp")
    # the recipe of kubectl's own help, for those who want more than cp
    p = subprocess.run([lab.kubectl_path, "exec", "cp", "-c", "a", "--", "tar", "cf", "-", "-C", "/tmp", "tree"], env=lab.env,
                       stdout=open(d + "/t.tar", "wb"), timeout=60 * lab.patience)
    same((p.returncode, "tree/deep/two" in tarfile.open(d + "/t.tar").getnames()), (0, True))


def commands(lab):
    deployment(lab, "run", 1)
    yield
    pod = rolled_out(lab, "run")[0]
    p = lab.kubectl("exec", "deploy/run", "--", "echo", "by way of", "a deployment")
    same((p.stdout, p.stderr), ("by way of a deployment\n", 'Defaulted container "web" out of: web, side\n'))
    same(lab.kubectl("exec", "svc/run", "-c", "side", "--", "hostname").stdout, pod + "\n")
    same(lab.kubectl("exec", "-i", pod, "-c", "web", "--", "sh", input="echo piped\n").stdout, "piped\n")
    same(refused(lab, "exec", pod, "-c", "web", "--", "sh", "-c", "kill -9 $$", code=137), "command terminated with exit code 137\n")
    has(refused(lab, "exec", pod, "-c", "web", "--", "nosuch", code=255), "executable file `nosuch` not found in $PATH")
    has(refused(lab, "exec", pod, "-c", "zz", "--", "ls"), "container zz is not valid for pod " + pod)
    same(refused(lab, "exec", "nopod", "--", "ls"), 'Error from server (NotFound): pods "nopod" not found\n')
    code, out = terminal(lab, "exec", "-it", pod, "-c", "web", "--", "sh", typed=b"stty size; tty; ls /nope; exit 9\n")
    same(code, 9)
    has(out, "\n33 77\n/dev/pts/0\nls: /nope: No such file or directory\ncommand terminated with exit code 9\n")
    code, out = terminal(lab, "exec", "-it", pod, "-c", "web", "--", "sh", "-c", "trap 'exit 2' INT; echo '# '; sleep 1000",
                         typed=b"\x03")
    same(code, 2, out)  # ^C reaches what runs there
    p = lab.kubectl("attach", "deploy/run", "-c", "zz", check=False)
    has(p.stderr, "container zz is not valid for pod " + pod)


def runs(lab):
    yield
    image = ["--image=box:1", "--restart=Never"]
    p = lab.kubectl("run", "r1", "-i", "--rm", *image, "--", "sh", "-c", "read a; echo got $a", input="two words\n")
    has(p.stdout, "got two words\n")
    has(p.stdout, 'pod "r1" deleted from default namespace\n')
    p = lab.kubectl("run", "r2", "-i", "--rm", *image, "--", "sh", "-c", "cat; exit 5", input="", check=False)
    same(p.returncode, 5)
    has(p.stderr, "pod default/r2 terminated (Error)")
    code, out = terminal(lab, "run", "r3", "-it", "--rm", *image, "--", "sh", typed=b"stty size; tty; exit 3\n")
    same(code, 3, out)
    has(out, "\n33 77\n/dev/pts/0\n")
    has(out, 'pod "r3" deleted from default namespace')
    has(lab.kubectl("run", "r4", *image, "--attach", "--", "sh", "-c", "sleep 1; echo hello").stdout, "hello\n")
    for name in ("r1", "r2", "r3"):
        lab.until_gone(name)
    same(lab.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/r4", "--timeout=30s").stdout,
         "pod/r4 condition met\n")
    has(refused(lab, "wait", "--for=delete", "pod/r4", "--timeout=1s"), "timed out waiting for the condition on pods/r4")
    has(refused(lab, "attach", "r4"), "cannot attach a container in a completed pod; current phase is Succeeded")
    # one that listens already
    lab.kubectl("run", "r5", "-i", "--attach=false", *image, "--", "sh", "-c", "while read x; do echo got $x; done")
    lab.until_ready("r5")
    p = subprocess.Popen([lab.kubectl_path, "attach", "-i", "r5"], env=lab.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL, text=True)
    p.stdin.write("more\n")
    p.stdin.flush()
    same(p.stdout.readline(), "got more\n")
    p.kill()
    p.wait()


def logs(lab):
    deployment(lab, "lg")
    lab.pod("again", containers=[{"command": ["sh", "-c", "echo a life; sleep 1; exit 3"]}])
    lab.pod("steps", restartPolicy="Never", containers=[{
        "command": ["sh", "-c", "i=0; while [ $i -lt 8 ]; do echo step $i; i=$((i+1)); sleep 0.2; done"]}])
    yield
    pods = sorted(rolled_out(lab, "lg"))
    p = lab.kubectl("logs", "-l", "app=lg", "--all-containers", "--prefix", "--tail=1")
    same(sorted(p.stdout.splitlines()), sorted("[pod/%s/%s] %s" % (n, c, t) for n in pods for c, t in (
        ("web", "box serves"), ("side", "side of " + n))))
    p = lab.kubectl("logs", "deploy/lg", "-c", "side")
    same(bool(re.fullmatch(r"side of (%s)\n" % "|".join(pods), p.stdout)), True, p.stdout)
    has(p.stderr, "Found 2 pods, using pod/lg-")
    same(len(lab.kubectl("logs", "deploy/lg", "--all-pods", "-c", "side").stdout.splitlines()), 2)
    p = lab.kubectl("logs", pods[0])
    same((p.stdout, p.stderr), ("box serves\n", 'Defaulted container "web" out of: web, side\n'))
    same(refused(lab, "logs", pods[0], "-c", "web", "-p"),
         'Error from server (BadRequest): previous terminated container "web" in pod "%s" not found\n' % pods[0])
    same(refused(lab, "logs", pods[0], "-c", "zz"), "error: container zz is not valid for pod %s out of: web, side\n" % pods[0])
    lab.until_pod("again", "a second life", lambda p: (p["status"].get("containerStatuses") or [{}])[0].get("restartCount"))
    same(lab.kubectl("logs", "again", "--previous").stdout, "a life\n")
    lab.until_phase("steps", "Running", "Succeeded")
    same(lab.kubectl("logs", "-f", "steps").stdout, "".join("step %d\n" % i for i in range(8)))
    out = lab.kubectl("logs", "steps", "--tail=1", "--timestamps").stdout
    same(bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z step 7\n", out)), True, out)
    out = lab.kubectl("describe", "pod", "again").stdout
    for part in (r"Last State: +Terminated\n +Reason: +Error\n +Exit Code: +3\n", r"Restart Count: +[1-9]",
                 r"Normal +Created +\S+ \(x\d+ over \S+\) +kubelet"):
        same(bool(re.search(part, out)), True, "%s in %s" % (part, out))


def forwards(lab):
    deployment(lab, "fw", 1)
    yield
    pod = rolled_out(lab, "fw")[0]
    for what, port in (("pod/" + pod, ":http"), ("svc/fw", ":80"), ("deploy/fw", ":8080")):
        with forwarded(lab, lab.env, what, port) as (local, _):
            got = []

            def ask():
                got.append(urllib.request.urlopen("http://127.0.0.1:%d/" % local, timeout=30).read().decode())
            threads = [threading.Thread(target=ask) for _ in range(6)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            same(got, ["hello from %s\n" % pod] * 6, what)
    with forwarded(lab, lab.env, pod, ":7000", ":8080") as (local, p):
        line = next(x for x in iter(p.stdout.readline, "") if x.startswith("Forwarding from 127.0.0.1:") and x.endswith("8080\n"))
        with socket.create_connection(("127.0.0.1", local), timeout=30) as s:
            s.sendall(b"echo")
            same(s.recv(10), b"echo")
            second = int(re.search(r"127\.0\.0\.1:(\d+) ->", line).group(1))
            same(urllib.request.urlopen("http://127.0.0.1:%d/" % second, timeout=30).status, 200)
            s.sendall(b"still")
            same(s.recv(10), b"still")
    same(refused(lab, "port-forward", "svc/fw", ":81"), "error: Service fw does not have a service port 81\n")
    same(refused(lab, "port-forward", "svc/none", ":81"), 'Error from server (NotFound): services "none" not found\n')


def debugs(lab):
    lab.pod("bug", containers=[{"command": ["sh", "-c", "exec sleep 4321"]}])
    lab.pod("bad", containers=[{"command": ["sh", "-c", "exit 1"]}])
    yield
    lab.until_ready("bug")
    box = ["--image=box:1", "--image-pull-policy=IfNotPresent", "-q"]
    p = lab.kubectl("debug", "bug", "-i", *box, "-c", "eph", "--target=main", "--", "sh", input="ps\nexit 4\n")
    has(p.stdout, "sleep 4321")
    code, out = terminal(lab, "debug", "-it", "bug", *box[:2], "--", "sh", typed=b"tty; exit 4\n")
    same(code, 0, out)  # kubectl debug does not hand on exit codes
    has(out, "\n/dev/pts/0\n")
    out = lab.kubectl("describe", "pod", "bug").stdout
    has(out, "Ephemeral Containers:\n  eph:\n")
    has(out, "Exit Code:    4")
    lab.kubectl("debug", "bug", "--copy-to=bug2", "--share-processes", "--same-node", "-c", "look", *box, "--", "sleep", "1000")
    lab.kubectl("debug", "bad", "--copy-to=bad2", "--container=main", "-q", "--", "sleep", "1000")
    same(lab.kubectl("wait", "--for=condition=Ready", "pod/bug2", "pod/bad2", "--timeout=30s").stdout,
         "pod/bug2 condition met\npod/bad2 condition met\n")
    has(lab.sh("bug2", "ps", "-c", "look"), "sleep 4321")
    node = lab.read("bug")["spec"]["nodeName"]
    p = lab.kubectl("debug", "node/" + node, "-i", *box, "--profile=sysadmin", "--", "chroot", "/host", "sh", input="uname -s; exit\n")
    same(p.stdout, "Linux\n")
    # Asked for: the lab's own watch may not have come that far.
    names = [n[len("pod/"):] for n in lab.kubectl("get", "pods", "-o", "name").stdout.split()
             if n.startswith("pod/node-debugger-%s-" % node)]
    same((len(names), lab.read(names[0])["spec"]["hostPID"]), (1, True))


def proxies(lab):
    deployment(lab, "px", 1)
    yield
    pod = rolled_out(lab, "px")[0]
    p = subprocess.Popen([lab.kubectl_path, "proxy", "--port=0"], env=lab.env, stdout=subprocess.PIPE, text=True)
    try:
        base = "http://" + re.search(r"Starting to serve on (\S+)", p.stdout.readline()).group(1)

        def get(path):
            try:
                with urllib.request.urlopen(base + path, timeout=30) as r:
                    return r.status, r.read().decode()
            except urllib.error.HTTPError as e:
                return e.code, json.loads(e.read())["message"]
        ns = "/api/v1/namespaces/default/"
        for path in ("services/px:http/proxy/", "services/px:80/proxy/x?y=z", "services/http:px:http/proxy/",
                     "pods/%s/proxy/" % pod, "pods/%s:8080/proxy/a/b" % pod, "pods/https:%s:8443/proxy/" % pod):
            same(get(ns + path), (200, "hello from %s\n" % pod), path)
        same(get(ns + "services/px/proxy/"), (503, 'no endpoints available for service "px"'))  # its port has a name
        same(get(ns + "services/px:81/proxy/"), (503, 'no service port 81 found for service "px"'))
        same(get("/healthz"), (200, "ok"))
        same(get("/api/v1/nodes/%s/proxy/healthz" % lab.read(pod)["spec"]["nodeName"]), (200, "ok"))
        req = urllib.request.Request(base + ns + "pods/%s:8080/proxy/sent" % pod, data=b"body", headers={"X-Test": "on"})
        same(urllib.request.urlopen(req, timeout=30).status, 200)
        has(lab.logs(pod, "?container=web"), "request POST /sent ")
        has(lab.logs(pod, "?container=web"), " x=on\n")
    finally:
        p.kill()
        p.wait()


def told(lab):
    """describe, get events, events, top, cluster-info."""
    deployment(lab, "ds", 1)
    yield
    pod = rolled_out(lab, "ds")[0]
    ip = lab.read(pod)["status"]["podIP"]
    node = lab.read(pod)["spec"]["nodeName"]
    out = lab.kubectl("describe", "pod", pod).stdout
    for part in ("Node:             %s/" % node, "Status:           Running\n", "IP:               %s\n" % ip,
                 "Controlled By:  ReplicaSet/ds-", "Container ID:  crun://", "    Ready:          True\n", "QoS Class:                   Burstable\n",
                 "node.kubernetes.io/not-ready:NoExecute op=Exists for 300s",
                 "default-scheduler  Successfully assigned default/%s to %s" % (pod, node),
                 "TokenExpirationSeconds:  3607", "ConfigMapName:           kube-root-ca.crt"):
        has(out, part)
    out = lab.kubectl("describe", "svc", "ds").stdout
    for part in ("Endpoints:                %s:8080\n" % ip, "TargetPort:               http/TCP\n", "Type:                     ClusterIP\n",
                 "Session Affinity:         None\n", "Internal Traffic Policy:  Cluster\n"):
        has(out, part)
    out = lab.kubectl("describe", "node", node).stdout
    for part in ("Unschedulable:      false\n", "HolderIdentity:  %s\n" % node, "KubeletReady ", "Allocated resources:\n",
                 "Capacity:\n", "Allocatable:\n",
                 "PodCIDR:  ", "Container Runtime Version:  crun://", "default                     " + pod, "NodeReady "):
        has(out, part)
    out = lab.kubectl("get", "events", "--field-selector", "involvedObject.name=" + pod).stdout
    same(out.split("\n")[0].split(), ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"])
    same({"Scheduled", "Pulled", "Created", "Started"} <= set(out.split()), True, out)
    has(lab.kubectl("events", "--for", "pod/" + pod, "--types=Normal").stdout, "Successfully assigned")
    has(lab.kubectl("cluster-info").stdout, "is running at https://127.0.0.1:")
    same(lab.kubectl("cluster-info", "dump", "--output-directory=" + lab.dir + "/dump").stdout, "Cluster info dumped to %s/dump\n" % lab.dir)
    with open("%s/dump/default/%s/logs.txt" % (lab.dir, pod)) as f:
        text = f.read()
    has(text, "==== START logs for container web of pod default/%s ====\n" % pod)
    has(text, "side of %s\n" % pod)
    with open(lab.dir + "/dump/nodes.json") as f:
        same([n["metadata"]["name"] for n in json.load(f)["items"]], [node])
    lab.until("metrics of " + pod, lambda: pod in lab.kubectl("top", "pods", check=False).stdout)
    out = lab.kubectl("top", "pods", "--containers", "-l", "app=ds").stdout
    same(bool(re.search(r"POD +NAME +CPU\(cores\) +MEMORY\(bytes\) *\n%s +side +\d+m +\d+Mi *\n%s +web +\d+m +[1-9]\d*Mi" % (pod, pod), out)), True, out)
    same(bool(re.search(r"NAME +CPU\(cores\) +CPU\(%%\) +MEMORY\(bytes\) +MEMORY\(%%\) *\n%s +\d+m +\d+%% +[1-9]\d*Mi +\d+%%" % node,
                        lab.kubectl("top", "node", node).stdout)), True)
    same(refused(lab, "top", "pod", "nope"), 'Error from server (NotFound): podmetrics.metrics.k8s.io "default/nope" not found\n')


def who(lab):
    yield
    lab.kubectl("create", "sa", "bot")
    lab.kubectl("create", "role", "bot", "--verb=get,list", "--resource=pods")
    lab.kubectl("create", "rolebinding", "bot", "--role=bot", "--serviceaccount=default:bot")
    bot = "system:serviceaccount:default:bot"
    same(lab.kubectl("auth", "can-i", "create", "pods/exec").stdout, "yes\n")
    same(lab.kubectl("auth", "can-i", "create", "pods/exec", "--as", bot, check=False).stdout, "no\n")
    has(lab.kubectl("auth", "whoami", "--as", bot).stdout, bot)
    token = lab.kubectl("create", "token", "bot", "--duration=10m").stdout.strip()
    config = json.loads(lab.kubectl("config", "view", "--raw", "--minify", "-o", "json").stdout)
    cluster = config["clusters"][0]["cluster"]
    with open(lab.dir + "/ca.crt", "wb") as f:
        f.write(base64.b64decode(cluster["certificate-authority-data"]))

    def curl(path):
        p = subprocess.run(["curl", "-sS", "--cacert", lab.dir + "/ca.crt", "-H", "Authorization: Bearer " + token, cluster["server"] + path],
                           capture_output=True, text=True, timeout=60 * lab.patience)
        return json.loads(p.stdout) if p.returncode == 0 else p.stderr
    same(curl("/api/v1/namespaces/default/pods")["kind"], "PodList")
    same(curl("/api/v1/namespaces/default/secrets")["message"], 'secrets is forbidden: User "%s" cannot list resource "secrets" '
         'in API group "" in the namespace "default"' % bot)


def scales(lab):
    deployment(lab, "sc", 1)
    yield
    rolled_out(lab, "sc")
    same(lab.kubectl("rollout", "restart", "deploy/sc").stdout, "deployment.apps/sc restarted\n")
    rolled_out(lab, "sc")
    same(re.findall(r"^\d+", lab.kubectl("rollout", "history", "deploy/sc").stdout, re.M), ["1", "2"])
    same(lab.kubectl("rollout", "undo", "deploy/sc").stdout, "deployment.apps/sc rolled back\n")
    rolled_out(lab, "sc")
    same(lab.kubectl("autoscale", "deploy", "sc", "--min=2", "--max=3", "--cpu=50%").stdout,
         "horizontalpodautoscaler.autoscaling/sc autoscaled\n")
    lab.kubectl("wait", "--for=jsonpath={.status.availableReplicas}=2", "deploy/sc", "--timeout=60s")
    same(lab.kubectl("wait", "--for=condition=Available", "deploy/sc").stdout, "deployment.apps/sc condition met\n")
    lab.kubectl("wait", "--for=condition=ScalingActive", "hpa/sc", "--timeout=60s")
    same(bool(re.search(r"sc +Deployment/sc +cpu: \d+%/50% +2 +3 +\d", lab.kubectl("get", "hpa", "sc").stdout)), True)


def drained(lab):
    """Empties the node of one application that wants to keep a pod: the last case, alone."""
    deployment(lab, "dr", budget=True)
    yield
    rolled_out(lab, "dr")
    node = lab.kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}").stdout
    lab.kubectl("wait", "--for=jsonpath={.status.disruptionsAllowed}=1", "pdb/dr", "--timeout=30s")
    same(lab.kubectl("cordon", node).stdout, "node/%s cordoned\n" % node)
    has(lab.kubectl("get", "node", node).stdout, " Ready,SchedulingDisabled ")
    p = lab.kubectl("drain", node, "--ignore-daemonsets", check=False)
    has(p.stdout, "node/%s already cordoned\n" % node)
    has(p.stderr, "cannot delete Pods that declare no controller (use --force to override): default/")
    p = lab.kubectl("drain", node, "--ignore-daemonsets", "--force", "--timeout=3s", "--pod-selector=app=dr", check=False)
    same(p.returncode, 1)
    same(len(re.findall(r"^pod/dr-\S+ evicted$", p.stdout, re.M)), 1, p.stdout)
    has(p.stderr, "(will retry after 5s): Cannot evict pod as it would violate the pod's disruption budget.")
    has(p.stderr, "global timeout reached: 3s")
    pods = lab.kubectl("get", "pods", "-l", "app=dr", "-o", "jsonpath={.items[*].status.phase}").stdout.split()
    same(sorted(pods), ["Pending", "Running"])
    same(lab.kubectl("uncordon", node).stdout, "node/%s uncordoned\n" % node)
    rolled_out(lab, "dr")


def python_client(lab):
    deployment(lab, "py", 1)
    yield
    pod = rolled_out(lab, "py")[0]
    p = subprocess.run([ROOT + "/tests/api/python/run.sh", pod], capture_output=True, text=True, timeout=300,
                       env=dict(lab.env, TH_SUITE=ROOT + "/tests/e2e/client_streams.py"))
    if p.returncode == 77:
        print(p.stdout)
        return
    same(p.returncode, 0, p.stdout + p.stderr)


CASES = [python_client, copies, commands, runs, logs, forwards, debugs, proxies, told, who, scales]
LAST = [drained]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], CASES, LAST))
