#!/usr/bin/env python3
"""Nodes that fall silent: what happens to them and to their pods, in seconds instead of minutes."""
import unittest

from cluster import Cluster
from kubelet import Player, Scene

PODS = "/api/v1/namespaces/default/pods"
NODES = "/api/v1/nodes/"


class Nodes(Scene, unittest.TestCase):
    def setUp(self):
        self.c = Cluster(extra=["--controllers", "all", "--node-monitor-period", "200ms", "--node-monitor-grace-period", "6s"])
        self.player = Player(self.c, nodes=("n1", "n2"))

    def tearDown(self):
        self.player.stop()
        self.c.close()

    def taints(self, name):
        return {(t["key"], t["effect"]) for t in self.get(NODES + name)["spec"].get("taints", [])}

    def test_work_moves_off_a_node_that_is_lost(self):
        self.wait("account", lambda: self.get("/api/v1/namespaces/default/serviceaccounts/default"))
        tolerate = [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}]
        self.make("/apis/apps/v1/namespaces/default/deployments", {
            "metadata": {"name": "web"}, "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "web"}}, "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"terminationGracePeriodSeconds": 0, "tolerations": tolerate, "containers": [{"name": "c", "image": "i"}]}}}})

        def ready_on(*nodes):
            pods = [p for p in self.items(PODS) if "deletionTimestamp" not in p["metadata"]]
            return len(pods) == 4 and all(self.condition(p, "Ready").get("status") == "True" and
                                          p["spec"]["nodeName"] in nodes for p in pods)
        self.wait("4 ready", lambda: ready_on("n1", "n2"))
        self.player.dead.add("n1")
        self.wait("Unknown", lambda: self.condition(self.get(NODES + "n1"), "Ready").get("status") == "Unknown")
        self.wait("taints", lambda: self.taints("n1") == {("node.kubernetes.io/unreachable", "NoSchedule"),
                                                          ("node.kubernetes.io/unreachable", "NoExecute")})
        self.assertIn("NotReady", self.c.kubectl("get", "node", "n1"))
        self.wait("4 ready on the other", lambda: ready_on("n2"))
        self.wait("no taints on the other", lambda: self.taints("n2") == set())
        self.player.dead.discard("n1")

        def back():
            """As a kubelet, which says again and again how it is: once could be before its lease counts."""
            self.c.api("PATCH", NODES + "n1/status", {"status": {"conditions": [
                {"type": "Ready", "status": "True", "reason": "KubeletReady"}]}},
                       headers={"Content-Type": "application/strategic-merge-patch+json"})
            return self.taints("n1") == set()
        self.wait("no taints", back)

    def test_a_drained_node_is_empty(self):
        self.wait("account", lambda: self.get("/api/v1/namespaces/default/serviceaccounts/default"))
        self.make("/apis/apps/v1/namespaces/default/replicasets", {
            "metadata": {"name": "web"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": {
                "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
        self.wait("3 ready", lambda: len([p for p in self.items(PODS) if self.condition(p, "Ready").get("status") == "True"]) == 3)
        out = self.c.kubectl("drain", "n1", "--timeout=30s")
        self.assertIn("node/n1 drained", out)
        self.wait("taint", lambda: self.taints("n1") == {("node.kubernetes.io/unschedulable", "NoSchedule")})
        self.wait("3 on the other", lambda: [p["spec"].get("nodeName") for p in self.items(PODS)] == ["n2"] * 3)
        self.c.kubectl("uncordon", "n1")
        self.wait("no taint", lambda: self.taints("n1") == set())


if __name__ == "__main__":
    unittest.main(verbosity=1)
