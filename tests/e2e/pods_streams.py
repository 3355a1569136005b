"""Cases of pods.py: how clients reach into containers: logs, exec, attach, cp, port-forward."""
import base64
import contextlib
import os
import re
import socket
import subprocess
import threading
import time
import urllib.request

from lab import Failure, has, same

SLEEP = ["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.2; done"]


def logs(lab):
    lab.pod("log", containers=[
        {"command": ["sh", "-c", "for i in 1 2 3 4 5; do echo line $i; echo err $i >&2; done; sleep 1; echo late; "
                     "sleep 3; exit 1"]}])
    lab.pod("twologs", restartPolicy="Never", containers=[
        {"name": "a", "command": ["sh", "-c", "printf 'no newline'"]},
        {"name": "b", "command": ["sh", "-c", "head -c 20000 /dev/zero | tr '\\0' x; echo; echo end"]}])
    yield
    lab.until_phase("log", "Running")
    follow = lab.kubectl("logs", "-f", "log").stdout
    same(follow.count("line"), 5)
    has(follow, "late\n")
    same(lab.logs("log", "?tailLines=1&previous=true"), "late\n")
    lab.until_phase("twologs", "Succeeded")
    same(lab.logs("twologs", "?container=a"), "no newline")
    node = "/api/v1/nodes/%s/proxy/logs/pods/" % lab.must("GET", "/api/v1/nodes")["items"][0]["metadata"]["name"]
    folder = re.search(r'<a href="(default_twologs_[^/]*/)">', lab.must("GET", node, raw=True).decode()).group(1)
    has(lab.must("GET", node + folder + "a/0.log", raw=True).decode(), " stdout P no newline")
    b = lab.logs("twologs", "?container=b")
    same((len(b), b[-5:]), (20005, "\nend\n"))
    same(lab.logs("twologs", "?container=b&limitBytes=10"), "x" * 10)
    same(lab.logs("twologs", "?container=b&tailLines=1"), "end\n")
    stamped = lab.logs("twologs", "?container=b&tailLines=1&timestamps=true")
    same(bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z end\n", stamped)), True, stamped)
    same(lab.logs("twologs", "?container=a&sinceSeconds=3600"), "no newline")
    time.sleep(1.1)
    same(lab.logs("twologs", "?container=a&sinceSeconds=1"), "")
    same(lab.logs("twologs", "?container=a&sinceTime=" + stamped.split()[0][:19] + "Z")[:2] in ("no", ""), True)
    p = lab.kubectl("logs", "twologs", check=False)
    has(p.stderr + p.stdout, "no newline")  # kubectl takes the first container


def rotation(lab):
    """10 MiB a part, at most five; readers see them as one log."""
    lab.pod("big", containers=[{"command": ["sh", "-c", "i=0; while [ $i -lt 26 ]; do "
            "yes 0123456789012345678901234567890123456789012345678901234567890123456789012345678 | head -n 13108; "
            "echo part $i; sleep 0.6; i=$((i+1)); done; echo all; sleep 1000"]}])
    yield
    lab.until_ready("big")
    follow = subprocess.Popen([lab.kubectl_path, "logs", "-f", "big"], env=lab.env, stdout=subprocess.PIPE, text=True)
    parts = []
    for line in follow.stdout:
        if line.startswith("part"):
            parts.append(int(line.split()[1]))
        elif len(line) != 80 and line != "all\n":
            raise Failure("a line was torn: %r" % line)
        if line == "all\n":
            break
    follow.kill()
    follow.wait()
    same(parts, list(range(26)))
    same(lab.logs("big", "?tailLines=1"), "all\n")
    data = "%(XDG_DATA_HOME)s/thimble/" % lab.env + lab.profile + "/data"
    if os.path.isdir(data):
        files = [os.path.join(d, f) for d, _, fs in os.walk(data) for f in fs if "default_big_" in d and ".log" in f]
        if not files:
            return
        end = time.monotonic() + 20 * lab.patience
        while len(files) < 2 and time.monotonic() < end:
            time.sleep(0.5)
            files = [os.path.join(d, f) for d, _, fs in os.walk(data) for f in fs if "default_big_" in d]
        same(len(files) >= 2, True, "rotated: %s" % files)


def execute(lab):
    lab.pod("ex", containers=[{"name": "main", "command": SLEEP}, {"name": "two", "command": SLEEP}])
    yield
    lab.until_ready("ex")
    for sockets in ("true", "false"):  # WebSocket, and SPDY as kubectl before 1.29
        env = dict(lab.env, KUBECTL_REMOTE_COMMAND_WEBSOCKETS=sockets)

        def k(*args, input=None, check=True):
            p = subprocess.run([lab.kubectl_path, *args], env=env, capture_output=True, input=input,
                               timeout=60 * lab.patience)
            if check and p.returncode:
                raise Failure("%s (websockets=%s): %d %s" % (args, sockets, p.returncode, p.stderr))
            return p
        p = k("exec", "ex", "-c", "two", "--", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
        same((p.returncode, p.stdout, p.stderr), (7, b"out\n", b"err\ncommand terminated with exit code 7\n"), sockets)
        big = os.urandom(1 << 16).hex().encode() * 16
        p = k("exec", "-i", "ex", "-c", "main", "--", "md5sum", input=big)
        p2 = subprocess.run(["md5sum"], input=big, capture_output=True)
        same(p.stdout, p2.stdout, sockets)
        p = k("exec", "-i", "ex", "-c", "main", "--", "cat", input=big)
        same(p.stdout == big, True, "cat gives back what it got (websockets=%s)" % sockets)
        p = k("exec", "ex", "-c", "main", "--", "/no/such", check=False)
        same(p.returncode != 0, True)
        # a terminal, through script(1)
        p = subprocess.run(["script", "-qec", "%s exec -it ex -c main -- sh -c 'tty; stty size; exit 3'" % lab.kubectl_path,
                            "/dev/null"], env=env, capture_output=True, input=b"", timeout=60 * lab.patience)
        has(p.stdout.decode(), "/dev/pts/0")
        same(p.returncode, 3, sockets)
    path = lab.dir + "/cp"
    with open(path, "wb") as f:
        f.write(os.urandom(300000))
    lab.kubectl("cp", path, "ex:/tmp/there", "-c", "two")
    lab.kubectl("cp", "ex:/tmp/there", path + ".back", "-c", "two")
    with open(path, "rb") as f, open(path + ".back", "rb") as g:
        same(f.read() == g.read(), True, "kubectl cp there and back")


def attach(lab):
    lab.pod("att", restartPolicy="Never", containers=[{
        "command": ["sh", "-c", "while read x; do echo got $x; [ $x = bye ] && exit 4; done; echo eof"],
        "stdin": True, "stdinOnce": True}])
    lab.pod("att2", restartPolicy="Never", containers=[{
        "command": ["sh", "-c", "while read x; do echo got $x; [ $x = bye ] && exit 4; done; echo eof"],
        "stdin": True}])
    yield
    lab.until_phase("att", "Running")
    p = lab.kubectl("attach", "-i", "att", input="one\nbye\n", check=False)
    has(p.stdout, "got one\ngot bye\n")
    lab.until_phase("att", "Failed")
    lab.until_phase("att2", "Running")
    env = dict(lab.env, KUBECTL_REMOTE_COMMAND_WEBSOCKETS="false")
    p = subprocess.run([lab.kubectl_path, "attach", "-i", "att2"], env=env, capture_output=True, text=True,
                       input="two\nbye\n", timeout=60 * lab.patience)
    has(p.stdout, "got two\ngot bye\n")
    lab.until_phase("att2", "Failed")


@contextlib.contextmanager
def forwarded(lab, env, *args):
    p = subprocess.Popen([lab.kubectl_path, "port-forward", *args], env=env, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True)
    try:
        first = p.stdout.readline()
        m = re.search(r"127\.0\.0\.1:(\d+)", first)
        if not m:
            raise Failure("port-forward said %r" % first)
        yield int(m.group(1)), p
    finally:
        p.kill()
        p.wait()


def port_forward(lab):
    lab.pod("pf", containers=[{"command": ["box", "serve"], "ports": [{"name": "web", "containerPort": 8080}]}],
            labels={"app": "pf"})
    lab.create("services", {"kind": "Service", "metadata": {"name": "pf"}, "spec": {
        "selector": {"app": "pf"}, "ports": [{"port": 80, "targetPort": "web"}]}})
    yield
    lab.until_ready("pf")
    for sockets in ("true", "false"):
        env = dict(lab.env, KUBECTL_PORT_FORWARD_WEBSOCKETS=sockets)
        with forwarded(lab, env, "svc/pf", ":80") as (port, _):
            for _ in range(3):
                body = urllib.request.urlopen("http://127.0.0.1:%d/x" % port, timeout=30).read()
                same(body, b"hello from pf\n", sockets)
        with forwarded(lab, env, "pod/pf", ":7000") as (port, _):
            blob = os.urandom(3 << 20)
            results = []

            def echo():
                s = socket.create_connection(("127.0.0.1", port), timeout=60)
                got = bytearray()
                t = threading.Thread(target=lambda: (s.sendall(blob), s.shutdown(socket.SHUT_WR)))
                t.start()
                while True:
                    b = s.recv(65536)
                    if not b:
                        break
                    got += b
                t.join()
                results.append(bytes(got) == blob)
            ts = [threading.Thread(target=echo) for _ in range(4)]
            for t in ts:
                t.start()
            for t in ts:
                t.join()
            same(results, [True] * 4, "echo of 3 MiB (websockets=%s)" % sockets)
        with forwarded(lab, env, "pod/pf", ":81") as (port, p):
            s = socket.create_connection(("127.0.0.1", port), timeout=30)
            same(s.recv(10), b"")
            text = ""
            while "connection refused" not in text:
                line = p.stdout.readline()
                if not line:
                    raise Failure("port-forward to a closed port said %r" % text)
                text += line
            has(text, "error forwarding port 81 to pod pf, uid ")


def websocket(lab, path, protocol):
    """An upgraded connection: the socket and a function that gives the next frame as (opcode, bytes)."""
    conn = lab.admin.connect(30)
    conn.connect()
    conn.sock.sendall(("GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                       "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%s\r\n" %
                       (path, protocol and "Sec-WebSocket-Protocol: %s\r\n" % protocol)).encode())
    f = conn.sock.makefile("rb")
    has(f.readline().decode(), "101")
    while f.readline() not in (b"\r\n", b""):
        pass

    def frame():
        b0, n = f.read(2)
        n = int.from_bytes(f.read(2), "big") if n == 126 else n
        return b0 & 15, f.read(n)
    return conn, frame


def first_protocols(lab):
    """Clients of the first days: exec by channel.k8s.io and its base64 form, logs over a WebSocket."""
    lab.pod("ws", containers=[{"command": ["sh", "-c", "echo logged; exec sleep 1000"]}])
    yield
    lab.until_ready("ws")
    base = "/api/v1/namespaces/default/pods/ws/"

    def whole(path, protocol, decode):
        conn, frame = websocket(lab, base + path, protocol)
        got = b""
        while True:
            op, data = frame()
            if op == 8:
                break
            got += decode(data)
        conn.close()
        return got.decode()

    def text(data):
        return bytes([data[0] - 48]) + base64.b64decode(data[1:])
    run = "exec?command=sh&command=-c&command=echo+hi%3B+exit+3&stdout=1"
    for protocol, decode in (("channel.k8s.io", bytes), ("", bytes), ("base64.channel.k8s.io", text)):
        got = whole(run, protocol, decode).replace("\1\1", "\1")
        has(got, "\1hi\n")
        has(got, "\3error executing command in container: ")
    for protocol, decode in (("binary.k8s.io", bytes), ("", bytes), ("base64.binary.k8s.io", base64.b64decode)):
        same(whole("log", protocol, decode), "logged\n")


def port_forward_channels(lab):
    """As the Python client does it: a WebSocket, v4.channel.k8s.io, the ports in the query."""
    lab.pod("pfc", containers=[{"command": ["box", "serve"]}])
    yield
    lab.until_ready("pfc")
    conn, frame = websocket(lab, "/api/v1/namespaces/default/pods/pfc/portforward?ports=8080%2C81",
                            "v4.channel.k8s.io")
    s = conn.sock

    def message():
        op, body = frame()
        return op, body[:1], body[1:]
    seen = {}

    def until(ch, part):
        while part not in seen.get(ch, b""):
            op, c, data = message()
            if op == 8:
                raise Failure("closed: %r" % seen)
            seen[c] = seen.get(c, b"") + data
    until(b"\0", (8080).to_bytes(2, "little"))
    until(b"\3", (81).to_bytes(2, "little"))
    request = b"\0GET /x HTTP/1.0\r\n\r\n"
    s.sendall(bytes([0x82, 0x80 | len(request), 0, 0, 0, 0]) + request)
    until(b"\0", b"hello from pfc")
    until(b"\3", b"connection refused")
    while message()[0] != 8:  # both connections have ended
        pass
    conn.close()


def debug(lab):
    """Ephemeral containers: kubectl debug."""
    lab.pod("dbg", containers=[{"command": ["sh", "-c", "exec sleep 4321"]}])
    yield
    lab.until_ready("dbg")
    p = lab.kubectl("debug", "dbg", "--image=box:1", "--target=main", "-c", "look", "-q", "--image-pull-policy=IfNotPresent",
                    "--", "sh", "-c", "ps; cat /proc/1/root/etc/hostname; sleep 1; exit 6")
    last = lab.until_pod("dbg", "ended", lambda p: (p["status"].get("ephemeralContainerStatuses") or [{}])[0].get(
        "state", {}).get("terminated"))
    c = last["status"]["ephemeralContainerStatuses"][0]
    same((c["name"], c["state"]["terminated"]["exitCode"], c["restartCount"], c["ready"]), ("look", 6, 0, False))
    has(lab.logs("dbg", "?container=look"), "sleep 4321")
    has(lab.logs("dbg", "?container=look"), "\ndbg\n")
    same([e[4] for e in lab.messages("dbg") if e[1] == "Started"], ["spec.containers{main}", "spec.ephemeralContainers{look}"])
    same((last["status"]["phase"], last["status"]["containerStatuses"][0]["restartCount"]), ("Running", 0))
    lab.kubectl("debug", "dbg", "--image=box:1", "-c", "two", "-q", "--image-pull-policy=IfNotPresent", "--", "sleep", "1000")
    lab.until_pod("dbg", "second one runs", lambda p: any("running" in c["state"] for c in p["status"].get(
        "ephemeralContainerStatuses", []) if c["name"] == "two"))
    has(lab.sh("dbg", "ps", "-c", "two"), "sleep 1000")
    lab.delete("dbg")
    lab.until_gone("dbg", 20)


def stats(lab):
    lab.pod("busy", volumes=[{"name": "v", "emptyDir": {}}], containers=[
        {"command": ["sh", "-c", "dd if=/dev/zero of=/v/f bs=1M count=3 2>/dev/null; dd if=/dev/zero of=/big bs=1M count=2 "
                     "2>/dev/null; touch /tmp/ok; while true; do :; done"],
         "readinessProbe": {"exec": {"command": ["cat", "/tmp/ok"]}, "periodSeconds": 1},
         "resources": {"limits": {"cpu": "200m", "memory": "64Mi"}},
         "volumeMounts": [{"name": "v", "mountPath": "/v"}]}])
    yield
    node = lab.until_ready("busy")["spec"]["nodeName"]
    lab.must("GET", "/api/v1/nodes/%s/proxy/stats/summary" % node)
    time.sleep(1.2)
    s = lab.must("GET", "/api/v1/nodes/%s/proxy/stats/summary" % node)
    n = s["node"]
    same(n["nodeName"], node)
    for v in (n["cpu"]["usageCoreNanoSeconds"], n["memory"]["availableBytes"], n["memory"]["workingSetBytes"],
              n["fs"]["capacityBytes"], n["runtime"]["imageFs"]["usedBytes"]):
        same(v > 0, True, n)
    p = [x for x in s["pods"] if x["podRef"]["name"] == "busy"][0]
    c = p["containers"][0]
    same(c["name"], "main")
    same(20_000_000 < c["cpu"]["usageNanoCores"] < 600_000_000, True, c)
    same(100_000 < c["memory"]["workingSetBytes"] < 64 << 20, True, c)
    for m in (n["memory"], p["memory"], c["memory"]):
        same(0 < m["rssBytes"] <= m["usageBytes"] and m["pageFaults"] > 0 and m["majorPageFaults"] >= 0, True, m)
    same(c["rootfs"]["usedBytes"] >= 2 << 20, True, c)
    same([v["usedBytes"] >= 3 << 20 for v in p["volume"] if v["name"] == "v"], [True])
    same(p["ephemeral-storage"]["usedBytes"] >= 5 << 20, True, p)
    same(p["network"]["name"], "eth0")
    same(p["cpu"]["usageCoreNanoSeconds"] >= c["cpu"]["usageCoreNanoSeconds"], True, p)
    text = lab.must("GET", "/api/v1/nodes/%s/proxy/metrics/resource" % node, raw=True).decode()
    for name in ("container_cpu_usage_seconds_total", "container_memory_working_set_bytes", "container_start_time_seconds"):
        same(bool(re.search(r'^%s\{container="main",namespace="default",pod="busy"\} [0-9.e+]+ \d+$' % name, text, re.M)),
             True, text)
    for name in ("pod_cpu_usage_seconds_total", "pod_memory_working_set_bytes"):
        same(bool(re.search(r'^%s\{namespace="default",pod="busy"\} [0-9.e+]+ \d+$' % name, text, re.M)), True, text)
    has(text, "\nnode_cpu_usage_seconds_total ")
    has(text, "\nresource_scrape_error 0\n")
    lab.delete("busy", 0)


CASES = [logs, rotation, execute, attach, port_forward, port_forward_channels, first_protocols, debug, stats]
