#!/usr/bin/env python3
"""Where pods go, why some go nowhere, and who has to make room."""
import unittest

from cluster import Cluster
from kubelet import Scene, node

PODS = "/api/v1/namespaces/default/pods"
NODES = "/api/v1/nodes"


def pod(name, cpu=None, memory=None, labels=None, **spec):
    c = {"name": "c", "image": spec.pop("image", "i")}
    if cpu or memory:
        c["resources"] = {"requests": {k: v for k, v in (("cpu", cpu), ("memory", memory)) if v}}
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": dict({"containers": [c], "terminationGracePeriodSeconds": 0}, **spec)}


def near(labels, key="kubernetes.io/hostname", anti=False, **more):
    term = dict({"labelSelector": {"matchLabels": labels}, "topologyKey": key}, **more)
    return {"podAntiAffinity" if anti else "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


class Scheduling(Scene, unittest.TestCase):
    def setUp(self):
        self.c = Cluster(extra=["--controllers", "serviceaccount-controller", "--scheduler", "on",
                                # nodes here have no conditions that would take their first taint away
                                "--disable-admission", "TaintNodesByCondition"])
        self.wait("account", lambda: self.get("/api/v1/namespaces/default/serviceaccounts/default"))

    def tearDown(self):
        self.c.close()

    def node(self, name, **kw):
        """Made, and known to the scheduler: a pod that tolerates everything and asks for nothing has been there."""
        self.make(NODES, kw.pop("obj", None) or node(name, **kw))
        self.pod("probe", nodeSelector={"kubernetes.io/hostname": name}, tolerations=[{"operator": "Exists"}])
        self.on("probe")
        self.drop(PODS + "/probe", gracePeriodSeconds=0)

    def pod(self, name, *a, **kw):
        return self.make(PODS, pod(name, *a, **kw))

    def on(self, name):
        return self.wait("%s has a node" % name, lambda: self.get(PODS + "/" + name)["spec"].get("nodeName"))

    def why(self, name, message=None):
        def said():
            c = self.condition(self.get(PODS + "/" + name), "PodScheduled")
            return c.get("status") == "False" and (message is None or c["message"] == message) and c
        c = self.wait("%s is refused (%s)" % (name, message), said, timeout=30)
        self.assertEqual(c["reason"], "Unschedulable")
        return c["message"]

    def why_has(self, name, part):
        """The same, for a part of the message: the scheduler may hear of the nodes one after the other."""
        self.wait("%s is refused with %s" % (name, part), lambda: part in self.condition(self.get(PODS + "/" + name), "PodScheduled").get("message", ""))

    def test_without_nodes_it_says_so(self):
        self.pod("a")
        self.why("a", "no nodes available to schedule pods")
        e = self.wait("event", lambda: self.events("default", "FailedScheduling"))[0]
        self.assertEqual((e["message"], e["type"], e["source"]["component"]), ("no nodes available to schedule pods", "Warning", "default-scheduler"))
        self.node("n")
        self.assertEqual(self.on("a"), "n")
        self.wait("event", lambda: "Successfully assigned default/a to n" in [e["message"] for e in self.events("default", "Scheduled")])
        c = self.condition(self.get(PODS + "/a"), "PodScheduled")
        self.assertEqual(c["status"], "True")

    def test_every_node_says_why_not(self):
        self.node("cordoned", unschedulable=True)
        self.node("tainted", taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}])
        self.node("small", cpu="100m", memory="1Mi", labels={"disk": "ssd"})
        self.node("other")
        self.pod("a", "200m", "2Mi", nodeSelector={"disk": "ssd"})
        self.why("a", "0/4 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 node(s) didn't match Pod's node affinity/selector, "
                 "1 node(s) had untolerated taint(s), 1 node(s) were unschedulable. preemption: 0/4 nodes are available: "
                 "4 Preemption is not helpful for scheduling.")
        self.patch(NODES + "/other", {"metadata": {"labels": {"disk": "ssd"}}})
        self.assertEqual(self.on("a"), "other")

    def test_room_is_counted(self):
        self.node("n", cpu="1", pods="3")
        self.pod("a", "600m")
        self.on("a")
        self.pod("b", "600m")
        self.why("b", "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: "
                 "1 No preemption victims found for incoming pod.")
        self.drop(PODS + "/a", gracePeriodSeconds=0)
        self.on("b")
        for n in ("c", "d", "e"):
            self.pod(n)
        self.wait("one too many", lambda: [n for n in ("c", "d", "e") if "Too many pods" in str(self.condition(self.get(PODS + "/" + n), "PodScheduled"))])

    def test_init_containers_sidecars_and_the_whole_pod_count(self):
        self.node("n", cpu="1")
        big = pod("init")
        big["spec"]["initContainers"] = [{"name": "i", "image": "i", "resources": {"requests": {"cpu": "1200m"}}}]
        self.make(PODS, big)
        self.why_has("init", "Insufficient cpu")
        side = pod("side", "600m")
        side["spec"]["initContainers"] = [{"name": "i", "image": "i", "restartPolicy": "Always", "resources": {"requests": {"cpu": "600m"}}}]
        self.make(PODS, side)
        self.why_has("side", "Insufficient cpu")
        self.pod("whole", "100m", resources={"requests": {"cpu": "1100m"}})
        self.why_has("whole", "Insufficient cpu")
        self.pod("fits", "100m", resources={"requests": {"cpu": "900m"}})
        self.on("fits")

    def test_host_ports_are_had_once(self):
        self.node("n")
        port = [{"containerPort": 80, "hostPort": 8080}]
        for name in ("a", "b"):
            p = pod(name)
            p["spec"]["containers"][0]["ports"] = port
            self.make(PODS, p)
            if name == "a":
                self.on("a")
        self.why("b", "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. "
                 "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.")

    def test_gates_hold_a_pod(self):
        self.node("n")
        c = self.condition(self.pod("a", schedulingGates=[{"name": "example.com/x"}]), "PodScheduled")
        self.assertEqual((c["status"], c["reason"], c["message"]),
                         ("False", "SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates"))
        self.assertIn("SchedulingGated", self.c.kubectl("get", "pod", "a"))
        self.pod("b")
        self.on("b")
        self.assertNotIn("nodeName", self.get(PODS + "/a")["spec"])
        self.patch(PODS + "/a", {"spec": {"schedulingGates": []}})
        self.on("a")

    def test_preferences_decide(self):
        self.node("n1", labels={"kind": "x"})
        self.node("n2", taints=[{"key": "soft", "effect": "PreferNoSchedule"}])
        self.node("n3", labels={"kind": "y"})
        prefer = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "preference": {"matchExpressions": [{"key": "kind", "operator": "In", "values": ["y"]}]}}]}}
        self.pod("a", affinity=prefer)
        self.assertEqual(self.on("a"), "n3")
        for i in range(6):
            self.pod("p%d" % i, "1")
        where = [self.on("p%d" % i) for i in range(6)]
        self.assertNotIn("n2", where)
        self.assertLessEqual(abs(where.count("n1") - where.count("n3")), 2)

    def test_images_that_are_there_attract(self):
        self.node("n1")
        n = node("n2")
        n["status"]["images"] = [{"names": ["docker.io/library/big:latest", "big:latest"], "sizeBytes": 900 << 20}]
        self.node("n2", obj=n)
        self.pod("a", image="big")
        self.assertEqual(self.on("a"), "n2")

    def test_affinity_between_pods(self):
        for i, zone in enumerate(("a", "a", "b")):
            self.node("n%d" % i, labels={"zone": zone})
        self.pod("lonely", affinity=near({"app": "db"}))
        self.why("lonely", "0/3 nodes are available: 3 node(s) didn't match pod affinity rules. preemption: 0/3 nodes are available: "
                 "3 Preemption is not helpful for scheduling.")
        self.pod("db", labels={"app": "db"}, nodeSelector={"kubernetes.io/hostname": "n2"})
        self.assertEqual(self.on("lonely"), "n2")
        self.pod("first", labels={"app": "self"}, affinity=near({"app": "self"}, "zone"), nodeSelector={"kubernetes.io/hostname": "n0"})
        self.assertEqual(self.on("first"), "n0")
        self.pod("second", labels={"app": "self"}, affinity=near({"app": "self"}, "zone"))
        self.assertIn(self.on("second"), ("n0", "n1"))
        for i in range(3):
            self.pod("one%d" % i, labels={"app": "one"}, affinity=near({"app": "one"}, anti=True))
        self.assertEqual(sorted(self.on("one%d" % i) for i in range(3)), ["n0", "n1", "n2"])
        self.pod("one3", labels={"app": "one"}, affinity=near({"app": "one"}, anti=True))
        self.why("one3", "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules. preemption: 0/3 nodes are available: "
                 "3 No preemption victims found for incoming pod.")
        self.pod("plain", labels={"app": "one"})
        self.why("plain", "0/3 nodes are available: 3 node(s) didn't satisfy existing pods anti-affinity rules. preemption: 0/3 nodes are available: "
                 "3 No preemption victims found for incoming pod.")

    def test_affinity_looks_into_the_namespaces_that_it_names(self):
        self.node("n0")
        self.node("n1")
        self.make("/api/v1/namespaces", {"metadata": {"name": "far", "labels": {"team": "x"}}})
        self.wait("account", lambda: self.get("/api/v1/namespaces/far/serviceaccounts/default"))
        self.make("/api/v1/namespaces/far/pods", pod("db", labels={"app": "db"}, nodeSelector={"kubernetes.io/hostname": "n1"}))
        self.pod("own", affinity=near({"app": "db"}))
        self.why_has("own", "pod affinity rules")
        self.pod("named", affinity=near({"app": "db"}, namespaces=["far"]))
        self.assertEqual(self.on("named"), "n1")
        self.pod("selected", affinity=near({"app": "db"}, namespaceSelector={"matchLabels": {"team": "x"}}))
        self.assertEqual(self.on("selected"), "n1")

    def test_pods_are_spread_over_domains(self):
        for i, zone in enumerate(("a", "a", "b")):
            self.node("n%d" % i, labels={"zone": zone})
        self.node("nowhere")
        spread = [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "s"}}}]
        zones = {"n0": "a", "n1": "a", "n2": "b"}
        for i in range(6):
            self.pod("s%d" % i, labels={"app": "s"}, topologySpreadConstraints=spread)
            self.on("s%d" % i)
        where = [zones[self.on("s%d" % i)] for i in range(6)]
        self.assertEqual((where.count("a"), where.count("b")), (3, 3))
        self.patch(NODES + "/n2", {"spec": {"unschedulable": True}})
        self.pod("mark", nodeSelector={"kubernetes.io/hostname": "n2"})
        self.why_has("mark", "were unschedulable")
        self.pod("s6", labels={"app": "s"}, topologySpreadConstraints=spread)
        self.assertIn(self.on("s6"), ("n0", "n1"))
        self.pod("s7", labels={"app": "s"}, topologySpreadConstraints=spread)
        self.why("s7", "0/4 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label), "
                 "1 node(s) were unschedulable, 2 node(s) didn't match pod topology spread constraints. preemption: 0/4 nodes are available: "
                 "2 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling.")

    def test_a_more_important_pod_takes_the_room_of_others(self):
        for name, value, policy in (("high", 1000, "PreemptLowerPriority"), ("polite", 1000, "Never"), ("low", 10, "PreemptLowerPriority")):
            self.make("/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": name}, "value": value, "preemptionPolicy": policy})
        self.node("n1", cpu="2")
        self.node("n2", cpu="2")
        self.pod("small", "500m", priorityClassName="low", nodeSelector={"kubernetes.io/hostname": "n1"})
        self.pod("mid", "1500m", priorityClassName="low", nodeSelector={"kubernetes.io/hostname": "n1"})
        self.pod("equal", "1500m", priorityClassName="high", nodeSelector={"kubernetes.io/hostname": "n2"})
        for n in ("small", "mid", "equal"):
            self.on(n)
        self.pod("polite", "1", priorityClassName="polite")
        self.why("polite", "0/2 nodes are available: 2 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.")
        self.drop(PODS + "/polite", gracePeriodSeconds=0)
        uid = self.get(PODS + "/mid")["metadata"]["uid"]
        p = self.pod("vip", "1", priorityClassName="high")
        self.wait("victim gone", lambda: (self.get(PODS + "/mid") or {"metadata": {}})["metadata"].get("uid") != uid)
        self.assertEqual(self.on("vip"), "n1")
        self.assertIsNotNone(self.get(PODS + "/small"))
        self.assertIsNotNone(self.get(PODS + "/equal"))
        e = self.wait("event", lambda: self.events("default", "Preempted"))[0]
        self.assertEqual((e["message"], e["involvedObject"]["name"]), ("Preempted by pod %s on node n1" % p["metadata"]["uid"], "mid"))

    def test_the_room_is_kept_for_the_one_it_was_made_for(self):
        for name, value in (("high", 1000), ("low", 10)):
            self.make("/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": name}, "value": value})
        self.node("n", cpu="1")
        self.pod("old", "1", priorityClassName="low", terminationGracePeriodSeconds=30)
        self.on("old")
        self.pod("vip", "800m", priorityClassName="high")
        self.wait("nominated", lambda: self.get(PODS + "/vip")["status"].get("nominatedNodeName") == "n")
        old = self.wait("old is going", lambda: (lambda o: "deletionTimestamp" in o["metadata"] and o)(self.get(PODS + "/old")))
        c = self.condition(old, "DisruptionTarget")
        self.assertEqual((c["status"], c["reason"], c["message"]), (
            "True", "PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod"))
        self.pod("thief", "800m", priorityClassName="low")
        self.why("thief")
        self.drop(PODS + "/old", gracePeriodSeconds=0)
        self.on("vip")
        self.assertNotIn("nodeName", self.get(PODS + "/thief")["spec"])

    def test_other_schedulers_pods_are_left_alone(self):
        self.node("n")
        self.pod("theirs", schedulerName="mine")
        self.pod("ours")
        self.on("ours")
        self.assertNotIn("nodeName", self.get(PODS + "/theirs")["spec"])


if __name__ == "__main__":
    unittest.main(verbosity=1)
