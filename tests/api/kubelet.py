"""Nodes without containers, for tests of the control plane: a player that does towards the API what
kubelets do. Pods bound to its nodes become Running and Ready; pods being deleted go when told.

What a pod does is said by its labels or annotations:
  play/ready: "false"     Running, never Ready
  play/phase: Pending | Succeeded | Failed     that phase instead of Running
  play/stop: hold         a deleted pod stays until the test removes it
"""
import json
import threading
import time

MERGE = {"Content-Type": "application/strategic-merge-patch+json"}


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def micro():
    t = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(t)) + ".%06dZ" % (t % 1 * 1e6)


def node(name, cpu="8", memory="16Gi", pods="200", labels=None, taints=None, ready="True", **spec):
    room = {"cpu": cpu, "memory": memory, "pods": pods, "ephemeral-storage": "100Gi"}
    labels = dict({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}, **(labels or {}))
    if taints:
        spec["taints"] = taints
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": spec,
            "status": {"capacity": room, "allocatable": room, "addresses": [{"type": "InternalIP", "address": "10.9.0.1"}],
                       "conditions": [{"type": "Ready", "status": ready, "reason": "KubeletReady", "message": "played",
                                       "lastHeartbeatTime": now(), "lastTransitionTime": now()}]}}


class Player:
    def __init__(self, cluster, nodes=("n1", "n2")):
        self.c = cluster
        self.nodes = set()
        self.dead = set()
        self.held = set()
        self.next_ip = 1
        self.conn = None
        self.stopping = False
        for n in nodes:
            self.add_node(node(n))
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        self.heart = threading.Thread(target=self.beat, daemon=True)
        self.heart.start()

    def add_node(self, obj):
        s, o = self.c.api("POST", "/api/v1/nodes", obj)
        assert s == 201, o
        self.nodes.add(obj["metadata"]["name"])
        return o

    def renew(self, name):
        """The lease of a node, made or renewed."""
        p = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": micro()}
        s, o = self.c.api("PATCH", p + "/" + name, {"spec": spec}, headers={"Content-Type": "application/merge-patch+json"})
        if s == 404:
            s, o = self.c.api("POST", p, {"metadata": {"name": name}, "spec": spec})
        assert s in (200, 201), o

    def beat(self):
        while not self.ended.wait(1):
            for n in sorted(self.nodes - self.dead):
                try:
                    self.renew(n)
                except (OSError, AssertionError, ValueError):
                    if self.c.proc.poll() is not None:
                        return

    def run(self):
        while not self.stopping:
            try:
                s, l = self.c.api("GET", "/api/v1/pods")
                for p in l["items"]:
                    self.play(p)
                ev, self.conn = self.c.watch("/api/v1/pods?watch=1&resourceVersion=" + l["metadata"]["resourceVersion"])
                for e in ev:
                    if self.stopping:
                        return
                    if e["type"] in ("ADDED", "MODIFIED"):
                        self.play(e["object"])
            except (OSError, ValueError, AttributeError, json.JSONDecodeError):
                if self.stopping or self.c.proc.poll() is not None:
                    return
                time.sleep(0.05)

    def wish(self, pod, name):
        m = pod["metadata"]
        return (m.get("annotations") or {}).get("play/" + name) or (m.get("labels") or {}).get("play-" + name)

    def path(self, pod):
        return "/api/v1/namespaces/%s/pods/%s" % (pod["metadata"]["namespace"], pod["metadata"]["name"])

    def play(self, pod):
        n = pod["spec"].get("nodeName")
        if n not in self.nodes or n in self.dead:
            return
        if pod["metadata"].get("deletionTimestamp"):
            if self.wish(pod, "stop") != "hold":
                self.remove(pod)
            return
        st = pod.get("status", {})
        phase = self.wish(pod, "phase") or "Running"
        if st.get("phase") in ("Succeeded", "Failed") or phase == "Pending":
            return
        want = "True" if phase == "Running" and self.wish(pod, "ready") != "false" else "False"
        have = [c["status"] for c in st.get("conditions", []) if c["type"] == "Ready"]
        if st.get("phase") == phase and have == [want] and st.get("podIP"):
            return
        self.say(pod, phase, want, int(self.wish(pod, "exit") or (0 if phase == "Succeeded" else 1)))

    def say(self, pod, phase, ready, code=0):
        ip = pod.get("status", {}).get("podIP")
        if not ip:
            ip = "10.244.%d.%d" % (self.next_ip // 250, self.next_ip % 250 + 1)
            self.next_ip += 1
        t = now()
        conds = [{"type": k, "status": v, "lastTransitionTime": t} for k, v in
                 (("PodScheduled", "True"), ("Initialized", "True"), ("ContainersReady", ready), ("Ready", ready))]
        state = {"running": {"startedAt": t}} if phase == "Running" else {"terminated": {"exitCode": code, "startedAt": t, "finishedAt": t}}
        cs = [{"name": c["name"], "image": c["image"], "imageID": "", "ready": ready == "True", "restartCount": 0,
               "started": phase == "Running", "state": state} for c in pod["spec"]["containers"]]
        self.c.api("PATCH", self.path(pod) + "/status", {"metadata": {"uid": pod["metadata"]["uid"]}, "status": {
            "phase": phase, "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "10.9.0.1", "startTime": t,
            "conditions": conds, "containerStatuses": cs}}, headers=MERGE)

    def remove(self, pod):
        self.c.api("DELETE", self.path(pod), {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}})

    def stop(self):
        self.stopping = True
        self.ended.set()
        self.heart.join(timeout=10)
        if self.conn and self.conn.sock:
            try:
                self.conn.sock.shutdown(2)
            except OSError:
                pass
        self.thread.join(timeout=10)
        if self.conn:
            self.conn.close()


class Scene:
    """What tests of controllers ask again and again; mixed into a TestCase with self.c."""

    def wait(self, what, fn, timeout=30):
        """fn's first true value."""
        end = time.monotonic() + timeout
        while True:
            got = fn()
            if got:
                return got
            if time.monotonic() > end:
                self.fail("waited %ds for: %s" % (timeout, what))
            time.sleep(0.03)

    def must(self, got, *codes):
        self.assertIn(got[0], codes or (200, 201, 202), got[1])
        return got[1]

    def make(self, path, obj):
        return self.must(self.c.api("POST", path, obj))

    def get(self, path):
        s, o = self.c.api("GET", path)
        return o if s == 200 else None

    def patch(self, path, body, kind="merge"):
        return self.must(self.c.api("PATCH", path, body, headers={"Content-Type": "application/%s-patch+json" % kind}))

    def drop(self, path, **options):
        return self.must(self.c.api("DELETE", path, options or None))

    def items(self, path, **labels):
        q = "?labelSelector=" + ",".join("%s%%3D%s" % kv for kv in labels.items()) if labels else ""
        return self.must(self.c.api("GET", path + q))["items"]

    def names(self, path, **labels):
        return sorted(i["metadata"]["name"] for i in self.items(path, **labels))

    def condition(self, obj, kind):
        for c in (obj or {}).get("status", {}).get("conditions") or []:
            if c["type"] == kind:
                return c
        return {}

    def namespace(self, name):
        self.make("/api/v1/namespaces", {"metadata": {"name": name}})
        return name

    def events(self, ns, reason):
        return [e for e in self.items("/api/v1/namespaces/%s/events" % ns) if e["reason"] == reason]
