#!/usr/bin/env python3
"""metrics.k8s.io from what a node agent (played here) measures, kubectl top, and the HorizontalPodAutoscaler
that lives on it."""
import json
import threading
import time
import unittest

from cluster import Cluster, FakeNode
from kubelet import Player, Scene

NS = "/api/v1/namespaces/default"
APPS = "/apis/apps/v1/namespaces/default"
HPAS = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
METRICS = "/apis/metrics.k8s.io/v1beta1"


class Agent(FakeNode):
    """Answers /stats/summary for the pods that run: each container uses self.cores processors."""

    def __init__(self, path, cluster):
        self.c = cluster
        self.cores = {"busy": 0.5, "side": 0.1}
        self.began = time.time()
        self.used = {}
        self.lock = threading.Lock()
        super().__init__(path)

    def count(self, key, cores):
        now = time.time()
        at, total = self.used.get(key, (now, 5e9))
        self.used[key] = (now, total + (now - at) * cores * 1e9)
        return int(self.used[key][1])

    def summary(self):
        s, l = self.c.api("GET", "/api/v1/pods")
        start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.began - 600))
        with self.lock:
            use = lambda key, cores, mem: {"cpu": {"usageCoreNanoSeconds": self.count(key, cores)},
                                           "memory": {"workingSetBytes": mem}, "startTime": start}
            pods = []
            for p in l["items"]:
                if p["status"].get("phase") == "Running":
                    m = p["metadata"]
                    pods.append({"podRef": {"name": m["name"], "namespace": m["namespace"], "uid": m["uid"]}, "containers": [
                        dict(use(m["uid"] + c["name"], self.cores.get(c["name"], 0), 64 << 20), name=c["name"])
                        for c in p["spec"]["containers"]]})
            return {"node": dict(use("", 2.0, 3 << 30), nodeName="n1"), "pods": pods}

    def serve(self, c):
        f = c.makefile("rb")
        while f.readline().strip():
            pass
        body = json.dumps(self.summary()).encode()
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
                  % len(body) + body)
        f.close()
        c.close()


class Autoscaling(Scene, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.c = Cluster("memory", ["--controllers", "all", "--scheduler", "on"])
        cls.agent = Agent(cls.c.dir + "/node.sock", cls.c)
        cls.player = Player(cls.c, nodes=("n1",))
        cls().deployments()

    @classmethod
    def tearDownClass(cls):
        cls.player.stop()
        cls.c.close()
        cls.agent.close()

    def deployments(self):
        """All at once: pods that nothing is known of yet have no metrics for some seconds."""
        some = {"cpu": "500m", "memory": "64Mi"}
        for name, replicas, containers, requests in (
                ("topped", 2, ("busy", "side"), some), ("web", 2, ("busy",), some), ("low", 1, ("busy",), some),
                ("two", 2, ("busy", "side"), some), ("bare", 1, ("busy",), {}), ("cow", 2, ("busy",), some)):
            labels = {"app": name}
            self.make(APPS + "/deployments", {"metadata": {"name": name}, "spec": {
                "replicas": replicas, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
                    "containers": [{"name": n, "image": "i", "resources": {"requests": requests}} for n in containers]}}}})
        self.wait("pods run", lambda: 10 == sum(p["status"].get("phase") == "Running" for p in self.get(NS + "/pods")["items"]))
        old = {"status": {"startTime": "2020-01-01T00:00:00Z", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}]}}
        for p in self.get(NS + "/pods")["items"]:
            self.must(self.c.api("PATCH", NS + "/pods/%s/status" % p["metadata"]["name"], old,
                                 headers={"Content-Type": "application/strategic-merge-patch+json"}))
        self.wait("all are measured", lambda: len(self.get(METRICS + "/pods")["items"]) == 10)

    def hpa(self, name, metrics, low=1, high=10, target=None, **spec):
        target = target or {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
        self.make(HPAS, {"metadata": {"name": name}, "spec": dict({
            "scaleTargetRef": target, "minReplicas": low, "maxReplicas": high, "metrics": metrics}, **spec)})
        self.addCleanup(self.c.api, "DELETE", HPAS + "/" + name)

    def drop(self, *names):
        for name in names:
            self.assertEqual(self.c.api("DELETE", HPAS + "/" + name)[0], 200)

    def cond(self, name, kind, text="", timeout=60):
        def look():
            o = self.get(HPAS + "/" + name)
            got = [c for c in o.get("status", {}).get("conditions", []) if c["type"] == kind]
            return (got[0]["status"], got[0]["reason"], got[0]["message"]) if got and text in got[0]["message"] else None
        return self.wait("condition " + kind, look, timeout)

    def replicas(self, name):
        return self.get(APPS + "/deployments/" + name)["spec"]["replicas"]

    def events(self, name):
        l = self.c.api("GET", NS + "/events?fieldSelector=involvedObject.kind%3DHorizontalPodAutoscaler,involvedObject.name%3D" + name)[1]
        return {(e["type"], e["reason"], e["message"]) for e in l["items"]}

    def cpu(self, percent):
        return [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}}]

    def runTest(self):
        pass

    def test_metrics_are_served_and_topped(self):
        s, l = self.c.api("GET", METRICS + "/nodes")
        self.assertEqual((s, l["kind"], [i["metadata"]["name"] for i in l["items"]]), (200, "NodeMetricsList", ["n1"]))
        s, l = self.c.api("GET", METRICS + "/namespaces/default/pods?labelSelector=app%3Dtopped")
        self.assertEqual((s, len(l["items"])), (200, 2))
        p = l["items"][0]
        self.assertEqual((p["metadata"]["namespace"], p["metadata"]["labels"]["app"], sorted(c["name"] for c in p["containers"])),
                         ("default", "topped", ["busy", "side"]))
        self.assertTrue(p["window"].endswith("s") and p["timestamp"].endswith("Z"))
        used = {c["name"]: c["usage"] for c in p["containers"]}
        self.assertEqual(used["busy"]["memory"], "64Mi")
        self.assertRegex(used["busy"]["cpu"], r"^[45]\d{8}n$|^[45]\d{5}u$|^[45]\d\dm$")
        s, one = self.c.api("GET", METRICS + "/namespaces/default/pods/" + p["metadata"]["name"])
        self.assertEqual((s, one["kind"], one["metadata"]["name"]), (200, "PodMetrics", p["metadata"]["name"]))
        self.assertEqual(self.c.api("GET", METRICS + "/namespaces/default/pods/none")[1]["message"],
                         'podmetrics.metrics.k8s.io "default/none" not found')
        top = self.c.kubectl("top", "nodes").split()
        self.assertEqual((top[:5], top[5]), (["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"], "n1"))
        self.assertEqual(top[8:10], ["3072Mi", "18%"])
        rows = self.c.kubectl("top", "pods", "-l", "app=topped", "--containers").splitlines()
        self.assertEqual((rows[0].split(), len(rows)), (["POD", "NAME", "CPU(cores)", "MEMORY(bytes)"], 5))
        self.assertEqual(self.get("/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io")["spec"], {
            "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100})
        self.wait("view gathers the role for metrics", lambda: any(
            r.get("apiGroups") == ["metrics.k8s.io"] and r["verbs"] == ["get", "list", "watch"]
            for r in self.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/view")["rules"] or []))
        s, o = self.c.api("GET", METRICS + "/pods", user="joe")
        self.assertEqual(s, 403)

    def test_more_pods_when_they_are_busy(self):
        self.c.kubectl("autoscale", "deployment", "web", "--cpu=25%", "--min=1", "--max=6")
        self.addCleanup(self.c.api, "DELETE", HPAS + "/web")
        self.wait("scaled", lambda: self.replicas("web") == 4, 60)  # 8 are wanted: twice as many at most
        # The status comes after the scale, and an earlier one may be there.
        self.wait("told", lambda: self.get(HPAS + "/web").get("status", {}).get("desiredReplicas") == 4)
        self.assertEqual(self.cond("web", "AbleToScale"), (
            "True", "SucceededRescale", "the HPA controller was able to update the target scale to 4"))
        self.assertEqual(self.cond("web", "ScalingActive"), (
            "True", "ValidMetricFound",
            "the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)"))
        self.assertEqual(self.cond("web", "ScalingLimited"), (
            "True", "ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate"))
        st = self.wait("told", lambda: self.get(HPAS + "/web").get("status"))
        self.assertEqual((st["currentReplicas"], st["desiredReplicas"]), (2, 4))
        self.assertIn("lastScaleTime", st)
        cur = st["currentMetrics"][0]["resource"]
        self.assertEqual(cur["name"], "cpu")
        self.assertAlmostEqual(cur["current"]["averageUtilization"], 100, delta=25)
        self.wait("told", lambda: ("Normal", "SuccessfulRescale",
                                   "New size: 4; reason: cpu resource utilization (percentage of request) above target")
                  in self.events("web"))
        self.assertIn("/25%", self.c.kubectl("get", "hpa", "web"))

    def test_bounds_come_before_metrics(self):
        self.hpa("low", self.cpu(50), low=3)
        self.wait("at least three", lambda: self.replicas("low") == 3)
        self.wait("told", lambda: ("Normal", "SuccessfulRescale",
                                   "New size: 3; reason: Current number of replicas below Spec.MinReplicas") in self.events("low"))

    def test_average_values_of_containers_and_memory(self):
        self.hpa("two", [
            {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "busy", "target": {
                "type": "AverageValue", "averageValue": "500m"}}},
            {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "96Mi"}}}])
        self.wait("128Mi of 96Mi: three", lambda: self.replicas("two") == 3, 60)
        # A pod that is new has no metrics for a moment, and then the status has none either.
        self.wait("told", lambda: [m["type"] for m in self.get(HPAS + "/two").get("status", {}).get("currentMetrics") or ()] ==
                  ["ContainerResource", "Resource"])

    def test_why_nothing_can_be_calculated(self):
        self.hpa("bare", self.cpu(50))
        s, reason, text = self.cond("bare", "ScalingActive", "missing request")
        self.assertEqual((s, reason), ("False", "FailedGetResourceMetric"))
        self.assertIn("the HPA was unable to compute the replica count: failed to get cpu utilization: missing request for cpu in "
                      "container busy of Pod bare-", text)
        self.hpa("twin", self.cpu(50), target={"apiVersion": "apps/v1", "kind": "Deployment", "name": "bare"})
        why = "pods by selector app=bare are controlled by multiple HPAs: [{bare default} {twin default}]"
        self.assertEqual(self.cond("twin", "ScalingActive", "multiple"), ("False", "AmbiguousSelector", why))
        self.wait("told", lambda: ("Warning", "AmbiguousSelector", why) in self.events("twin"))
        self.drop("twin", "bare")
        self.hpa("custom", [{"type": "Pods", "pods": {"metric": {"name": "qps"}, "target": {
            "type": "AverageValue", "averageValue": "1"}}}], target={"apiVersion": "apps/v1", "kind": "Deployment", "name": "bare"})
        self.assertEqual(self.cond("custom", "ScalingActive")[1:], (
            "FailedGetPodsMetric", "the HPA was unable to compute the replica count: unable to get metric qps: unable to fetch "
            "metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered"))
        self.drop("custom")
        self.hpa("external", [{"type": "External", "external": {"metric": {"name": "queue"}, "target": {
            "type": "Value", "value": "1"}}}], target={"apiVersion": "apps/v1", "kind": "Deployment", "name": "bare"})
        self.assertEqual(self.cond("external", "ScalingActive")[1:], (
            "FailedGetExternalMetric", "the HPA was unable to compute the replica count: unable to get external metric "
            "default/queue: unable to fetch metrics from external metrics API: the server could not find the requested "
            "resource (get queue.external.metrics.k8s.io)"))
        self.hpa("lost", self.cpu(50))
        self.assertEqual(self.cond("lost", "AbleToScale"), (
            "False", "FailedGetScale", 'the HPA controller was unable to get the target\'s current scale: '
            'deployments.apps "lost" not found'))

    def test_custom_resources_are_scaled_by_their_rules(self):
        version = {"name": "v1", "served": True, "storage": True,
                   "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                   "subresources": {"scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n",
                                              "labelSelectorPath": ".status.sel"}, "status": {}}}
        self.make("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", {"metadata": {"name": "herds.farm.example"}, "spec": {
            "group": "farm.example", "scope": "Namespaced", "names": {"plural": "herds", "kind": "Herd"}, "versions": [version]}})
        path = "/apis/farm.example/v1/namespaces/default/herds"
        self.wait("served", lambda: self.c.api("GET", path)[0] == 200)
        self.make(path, {"apiVersion": "farm.example/v1", "kind": "Herd", "metadata": {"name": "h"}, "spec": {"n": 2}})
        self.must(self.c.api("PATCH", path + "/h/status", {"status": {"n": 2, "sel": "app=cow"}},
                             headers={"Content-Type": "application/merge-patch+json"}))
        self.hpa("h", self.cpu(10), target={"apiVersion": "farm.example/v1", "kind": "Herd", "name": "h"},
                 behavior={"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 1800}]}})
        self.wait("one more", lambda: self.get(path + "/h")["spec"]["n"] == 3, 60)
        self.assertEqual(self.cond("h", "ScalingLimited")[:2], ("True", "ScaleUpLimit"))


if __name__ == "__main__":
    unittest.main()
