"""One control plane process for a test: started on a free port and a Unix socket in a folder of its
own, stopped and removed at the end."""
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.environ.get("TH_CONTROLPLANE", os.path.join(ROOT, "build/dev/controlplane/main/th-controlplane"))
MODES = os.environ.get("TH_API_MODES", "memory disk").split()


def kubectl_path():
    if "TH_KUBECTL" in os.environ:
        return os.environ["TH_KUBECTL"]
    out = subprocess.run([os.path.join(ROOT, "tests/tools/kubectl.sh")], check=True, capture_output=True, text=True)
    return out.stdout.strip()


def own_address():
    """An address of this machine that is not loopback, or None."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        s.connect(("192.0.2.1", 9))  # sends nothing: asks the routing table
        ip = s.getsockname()[0]
        return None if ip.startswith("127.") else ip
    except OSError:
        return None
    finally:
        s.close()


def openssl(*args):
    subprocess.run(["openssl", *args], check=True, capture_output=True)


def self_signed(key, crt, name, *more):
    """A key and a certificate that signs itself, in two files; more: further words of `openssl req`."""
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=" + name,
            "-days", "2", *more, "-keyout", key, "-out", crt)


class UnixHTTP(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(self.path)


class Cluster:
    def __init__(self, mode="memory", extra=()):
        self.dir = tempfile.mkdtemp(prefix="th-api-")
        self.mode = mode
        self.extra = list(extra)
        self.proc = None
        self.start()

    def start(self):
        args = [BINARY, "--data", self.dir, "--listen", "127.0.0.1:0", "--unix-socket", self.dir + "/api.sock",
                "--controllers", "none", "--node-socket", self.dir + "/node.sock"]
        if os.path.basename(BINARY) == "thimbled":
            args.insert(1, "controlplane")
        if self.mode == "memory":
            args.append("--memory")
        self.log = open(self.dir + "/log", "ab")
        self.proc = subprocess.Popen(args + self.extra, stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.proc.stdout.readline()
        if not line.startswith("ready "):
            raise RuntimeError("not ready: " + line + open(self.dir + "/log").read())
        self.url = line.split()[1]
        self.kubeconfig = self.dir + "/admin.kubeconfig"

    def kill(self, sig=signal.SIGTERM):
        self.proc.send_signal(sig)
        code = self.proc.wait(timeout=30)
        self.proc.stdout.close()
        self.log.close()
        return code

    def close(self):
        code = self.kill() if self.proc.poll() is None else self.proc.returncode
        with open(self.dir + "/log") as f:
            log = f.read()
        shutil.rmtree(self.dir, ignore_errors=True)
        if code != 0 or "Sanitizer" in log:
            raise RuntimeError("control plane ended with %d:\n%s" % (code, log[-8000:]))

    def kubectl(self, *args, stdin=None, ok=True):
        env = dict(os.environ, KUBECONFIG=self.kubeconfig, HOME=self.dir)
        p = subprocess.run([kubectl_path(), *args], input=stdin, env=env, capture_output=True, text=True, timeout=60)
        if ok and p.returncode != 0:
            raise AssertionError("kubectl %s: %s" % (" ".join(args), p.stderr))
        return p.stdout if ok else (p.returncode, p.stdout + p.stderr)

    def http(self, method, path, body=None, headers=None, user=None, groups=()):
        """(status, headers, bytes) over the Unix socket."""
        c = UnixHTTP(self.dir + "/api.sock")
        c.putrequest(method, path)
        if user:
            c.putheader("X-Remote-User", user)
            for g in groups:
                c.putheader("X-Remote-Group", g)
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        if data is not None:
            c.putheader("Content-Length", str(len(data)))
        for k, v in (headers or ({"Content-Type": "application/json"} if data is not None else {})).items():
            c.putheader(k, v)
        c.endheaders(data)
        r = c.getresponse()
        out = r.read()
        c.close()
        return r.status, r.headers, out

    def api(self, method, path, body=None, **kw):
        """(status, object)."""
        status, _, out = self.http(method, path, body, **kw)
        return status, json.loads(out)

    def watch(self, path):
        """A generator of events, and the connection to close."""
        c = UnixHTTP(self.dir + "/api.sock")
        c.request("GET", path)
        r = c.getresponse()

        def events():
            while True:
                line = r.readline()
                if not line:
                    return
                yield json.loads(line)
        return events(), c


class FakeNode:
    """What stands where the node agent would: answers by path, echoes upgraded bytes."""

    def __init__(self, path):
        self.requests = []
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.bind(path)
        self.sock.listen(16)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while True:
            try:
                c, _ = self.sock.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(c,), daemon=True).start()

    def serve(self, c):
        f = c.makefile("rb")
        line = f.readline().decode().split()
        headers = {}
        while True:
            h = f.readline().decode().strip()
            if not h:
                break
            k, v = h.split(":", 1)
            headers[k.lower()] = v.strip()
        total = 0
        if "content-length" in headers:
            left = int(headers["content-length"])
            while left:
                data = f.read(min(left, 1 << 20))
                left -= len(data)
                total += len(data)
        elif headers.get("transfer-encoding") == "chunked":
            while True:
                n = int(f.readline(), 16)
                total += len(f.read(n))
                f.readline()
                if n == 0:
                    break
        self.requests.append((line[0], line[1], headers, total))
        if "upgrade" in headers:
            c.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello")
            while True:
                data = f.read1(65536)
                if not data:
                    break
                c.sendall(data)
        elif "fault=" in line[1]:
            said = b"because " * (1 if "short" in line[1] else 10000)
            c.sendall(b"HTTP/1.1 %s Fault\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" %
                      (line[1].split("fault=")[1][:3].encode(), len(said)) + said)
        elif line[1].startswith("/big"):
            c.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(512):
                c.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            c.sendall(b"0\r\n\r\n")
        else:
            body = ("%s %s %d" % (line[0], line[1], total)).encode()
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        c.close()

    def close(self):
        self.sock.close()
