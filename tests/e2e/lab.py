"""A cluster for tests of pods: started with the thimble program in folders of its own, watched by two
threads that keep every version of every Pod and every Event, so that a test can ask what was seen on
the way and not only what is there at the end.

A case is a generator function. Before its first yield it declares what it needs (lab.create); after
it, everything declared by all cases has been created, and it checks. All cases run at the same time."""
import base64
import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests/faults"))
from client import Admin  # noqa: E402

NS = "default"


class Failure(Exception):
    pass


def find_go():
    """A go command that is new enough for the box: Debian's net/http has no HTTP/2 without TLS, which
    gRPC probes need. Leaves with status 77 when there is none."""
    with open(ROOT + "/tests/e2e/box/go.mod") as f:
        want = next(line.split()[1] for line in f if line.startswith("go "))
    p = subprocess.run([ROOT + "/tests/tools/go.sh", want], stdout=subprocess.PIPE, text=True)
    if p.returncode != 0:
        print("SKIP: no Go %s" % want)
        sys.exit(77)
    return p.stdout.strip()


class Lab:
    def __init__(self, thimble, start_options, patience=1.0):
        self.go = find_go()
        self.thimble, self.options, self.patience = thimble, start_options, patience
        self.dir = tempfile.mkdtemp(prefix="thp.")
        self.profile = "pods%d" % os.getpid()
        self.env = dict(os.environ, XDG_DATA_HOME=self.dir + "/data", XDG_STATE_HOME=self.dir + "/state",
                        KUBECONFIG=self.dir + "/kubeconfig",
                        XDG_CACHE_HOME=os.environ.get("TH_TEST_CACHE", ROOT + "/build/test-cache"))
        self.kubectl_path = os.environ.get("TH_KUBECTL") or subprocess.run(
            [ROOT + "/tests/tools/kubectl.sh"], check=True, capture_output=True, text=True).stdout.strip()
        self.cond = threading.Condition()
        self.pods = {}    # name -> [every version seen]
        self.events = {}  # uid of the event -> newest version
        self.stopping = False
        self.local = threading.local()

    # ---- the machine ----

    def t(self, *args, check=True):
        p = subprocess.run([self.thimble, *args, "-p", self.profile], env=self.env, capture_output=True, text=True)
        if check and p.returncode:
            raise Failure("thimble %s: %d\n%s%s" % (" ".join(args), p.returncode, p.stdout, p.stderr))
        return p.stdout + p.stderr

    def start(self):
        self.t("start", *self.options)
        self.admin = Admin(self.dir + "/kubeconfig")
        for path, take in (("/api/v1/namespaces/%s/pods" % NS, self._pod),
                           ("/api/v1/namespaces/%s/events" % NS, self._event)):
            threading.Thread(target=self._watch, args=(path, take), daemon=True).start()

    def build_box(self):
        ctx = self.dir + "/box"
        shutil.copytree(ROOT + "/tests/e2e/box", ctx)
        subprocess.run([self.go, "build", "-ldflags=-s -w", "-o", ctx + "/box", "."], cwd=ROOT + "/tests/e2e/box",
                       env=dict(os.environ, CGO_ENABLED="0"), check=True)
        shutil.copy(shutil.which("busybox"), ctx + "/busybox")
        with open(ctx + "/passwd", "w") as f:
            f.write("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/:/bin/sh\n")
        with open(ctx + "/group", "w") as f:
            f.write("root:x:0:\napp:x:1000:\nextra:x:1500:app\n")
        self.t("image", "build", "-t", "box:1", ctx)

    def close(self):
        self.stopping = True
        self.t("delete", check=False)
        shutil.rmtree(self.dir, ignore_errors=True)

    # ---- the API ----

    def call(self, method, path, body=None, raw=False, content="application/json"):
        """(status, object, or bytes when raw). One connection per thread."""
        for attempt in range(3):
            conn = getattr(self.local, "conn", None)
            if conn is None:
                conn = self.local.conn = self.admin.connect(60)
            try:
                conn.request(method, path, None if body is None else json.dumps(body).encode(),
                             {"Content-Type": content} if body is not None else {})
                r = conn.getresponse()
                data = r.read()
                return r.status, data if raw else json.loads(data or b"null")
            except (http.client.HTTPException, OSError):
                self.local.conn = None
                if attempt == 2:
                    raise
                time.sleep(0.2)

    def must(self, method, path, body=None, **kw):
        s, o = self.call(method, path, body, **kw)
        if s >= 300:
            raise Failure("%s %s: %d %s" % (method, path, s, o))
        return o

    def create(self, plural, obj):
        api = obj.setdefault("apiVersion", "v1")
        base = "/api/v1" if api == "v1" else "/apis/" + api
        return self.must("POST", "%s/namespaces/%s/%s" % (base, NS, plural), obj)

    def pod(self, name, **spec):
        """Creates a pod. Containers without an image get box:1; the grace period is short."""
        meta = {"name": name, "labels": spec.pop("labels", {"app": name}),
                "annotations": spec.pop("annotations", {})}
        for c in spec.get("initContainers", []) + spec["containers"]:
            c.setdefault("image", "box:1")
            c.setdefault("name", "main")
        spec.setdefault("terminationGracePeriodSeconds", 1)
        return self.create("pods", {"kind": "Pod", "metadata": meta, "spec": spec})

    def delete(self, name, grace=None):
        q = "" if grace is None else "?gracePeriodSeconds=%d" % grace
        self.must("DELETE", "/api/v1/namespaces/%s/pods/%s%s" % (NS, name, q))

    def logs(self, name, query=""):
        s, b = self.call("GET", "/api/v1/namespaces/%s/pods/%s/log%s" % (NS, name, query), raw=True)
        if s != 200:
            raise Failure("logs of %s: %d %s" % (name, s, b))
        return b.decode()

    def kubectl(self, *args, input=None, check=True, timeout=60):
        p = subprocess.run([self.kubectl_path, *args], env=self.env, capture_output=True, text=True, input=input,
                           timeout=timeout * self.patience)
        if check and p.returncode:
            raise Failure("kubectl %s: %d\n%s%s" % (" ".join(args), p.returncode, p.stdout, p.stderr))
        return p

    def sh(self, pod, script, *more):
        return self.kubectl("exec", pod, *more, "--", "sh", "-c", script).stdout

    def read(self, name):
        return self.must("GET", "/api/v1/namespaces/%s/pods/%s" % (NS, name))

    # ---- what was seen ----

    def _watch(self, path, take):
        rv = ""
        while not self.stopping:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                conn = self.admin.connect(600)
                if not rv:
                    conn.request("GET", path)
                    lst = json.loads(conn.getresponse().read())
                    rv = lst["metadata"]["resourceVersion"]
                    for o in lst["items"]:
                        take("ADDED", o)
                conn.request("GET", "%s?watch=1&resourceVersion=%s" % (path, rv))
                r = conn.getresponse()
                for line in r:
                    e = json.loads(line)
                    if e["type"] == "ERROR":
                        rv = ""
                        break
                    rv = e["object"]["metadata"]["resourceVersion"]
                    take(e["type"], e["object"])
            time.sleep(0.3)

    def _pod(self, kind, o):
        with self.cond:
            if kind == "DELETED":
                o["gone"] = True
            self.pods.setdefault(o["metadata"]["name"], []).append(o)
            self.cond.notify_all()

    def _event(self, kind, o):
        with self.cond:
            if kind != "DELETED":
                self.events[o["metadata"]["uid"]] = o
            self.cond.notify_all()

    def until(self, what, fn, limit=60):
        """Waits until fn() gives something true (looked at whenever something was seen, and once a second)."""
        end = time.monotonic() + limit * self.patience
        while True:
            with self.cond:
                v = fn()
                if v:
                    return v
                left = end - time.monotonic()
                if left > 0:
                    self.cond.wait(min(left, 1))
                    continue
            raise Failure("gave up after %d s on: %s" % (limit * self.patience, what))

    def history(self, name):
        return self.pods.get(name, [])

    def until_pod(self, name, what, fn, limit=60):
        def look():
            h = self.history(name)
            return h[-1] if h and fn(h[-1]) else None
        try:
            return self.until("pod %s: %s" % (name, what), look, limit)
        except Failure as e:
            last = self.history(name)[-1:] or [{}]
            raise Failure("%s\nstatus: %s\nevents: %s" % (
                e, json.dumps(last[0].get("status")), self.messages(name))) from None

    def until_phase(self, name, *phases, limit=60):
        return self.until_pod(name, " or ".join(phases), lambda p: p["status"].get("phase") in phases, limit)

    def until_ready(self, name, limit=60):
        return self.until_pod(name, "Ready", lambda p: condition(p, "Ready")["status"] == "True", limit)

    def until_gone(self, name, limit=60):
        return self.until_pod(name, "gone", lambda p: p.get("gone"), limit)

    def messages(self, name):
        """(type, reason, message, count, field path) of the pod's events, oldest first."""
        l = [e for e in self.events.values() if e["involvedObject"].get("name") == name]
        l.sort(key=lambda e: (e.get("firstTimestamp") or "", int(e["metadata"]["resourceVersion"])))
        return [(e["type"], e["reason"], e["message"], e.get("count", 1), e["involvedObject"].get("fieldPath", ""))
                for e in l]

    def until_event(self, name, reason, text="", limit=60, count=1):
        def look():
            for e in self.messages(name):
                if e[1] == reason and text in e[2] and e[3] >= count:
                    return e
            return None
        try:
            return self.until("event %s %s" % (reason, text), look, limit)
        except Failure as e:
            raise Failure("%s\nevents: %s" % (e, self.messages(name))) from None


def condition(pod, kind):
    for c in pod["status"].get("conditions", []):
        if c["type"] == kind:
            return c
    return {"status": "missing"}


def status_of(pod, name="main"):
    for key in ("containerStatuses", "initContainerStatuses"):
        for c in pod["status"].get(key, []):
            if c["name"] == name:
                return c
    return None


def state_of(pod, name="main"):
    """("running", {...}), ("waiting", ...), ("terminated", ...) or (None, {})."""
    c = status_of(pod, name)
    for k, v in ((c or {}).get("state") or {}).items():
        return k, v
    return None, {}


def same(got, want, what=""):
    if got != want:
        raise Failure("%s is %r, not %r" % (what or "it", got, want))


def has(text, part, what=""):
    if part not in text:
        raise Failure("%s: no %r in %r" % (what or "text", part, text))


def b64(s):
    return base64.b64encode(s.encode()).decode()


def run_cases(lab, cases):
    """Runs generator functions as the module says. The number of those that failed."""
    live, failed = [], []

    def fail(fn):
        failed.append(fn.__name__)
        print("FAIL: %s\n%s" % (fn.__name__, traceback.format_exc(limit=-3)), flush=True)

    for fn in cases:
        g = fn(lab)
        try:
            next(g)
            live.append((fn, g))
        except Exception:
            fail(fn)

    def finish(fn, g):
        t0 = time.monotonic()
        try:
            for _ in g:
                pass
            print("ok: %s (%.1f s)" % (fn.__name__, time.monotonic() - t0), flush=True)
        except Exception:
            fail(fn)

    threads = [threading.Thread(target=finish, args=x) for x in live]
    for th in threads:
        th.start()
    for th in threads:
        th.join()
    return len(failed)


def main(argv, *rounds):
    """The command line of a test: THIMBLE [options of thimble start] [-k CASE]...; each round's cases run
    when the last round's have ended. TH_KEEP leaves a cluster in which something failed."""
    names, options, thimble = [], [], None
    it = iter(argv)
    for a in it:
        if a == "-k":
            names.append(next(it))
        elif thimble is None:
            thimble = a
        else:
            options.append(a)
    if "host" in options and os.geteuid() != 0:
        print("SKIP: the host driver needs root")
        return 77
    if not shutil.which("busybox"):
        print("SKIP: busybox is not installed")
        return 77
    lab = Lab(thimble, options, float(os.environ.get("TH_PATIENCE", "1")))
    failed = 1
    try:
        t0 = time.monotonic()
        lab.start()
        lab.build_box()
        print("cluster and image: %.1f s" % (time.monotonic() - t0), flush=True)
        rounds = [[c for c in cases if not names or c.__name__ in names] for cases in rounds]
        failed = sum(run_cases(lab, cases) for cases in rounds)
        print("%d of %d cases failed, %.1f s" % (failed, sum(map(len, rounds)), time.monotonic() - t0), flush=True)
    finally:
        if failed and os.environ.get("TH_KEEP"):
            print("left running: export KUBECONFIG=%(KUBECONFIG)s XDG_DATA_HOME=%(XDG_DATA_HOME)s "
                  "XDG_STATE_HOME=%(XDG_STATE_HOME)s" % lab.env, "profile", lab.profile)
        else:
            if failed:
                print(lab.t("console", "-n", "80", check=False)[-6000:])
            lab.close()
    return 1 if failed else 0
