#!/usr/bin/env python3
"""The controllers, with played kubelets: Deployments, ReplicaSets, garbage, namespaces, slices."""
import json
import threading
import time
import unittest

from cluster import Cluster
from kubelet import Player, Scene

TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}


def copy(o, **over):
    return dict(json.loads(json.dumps(o)), **over)


def template(image="i:1", annotations=None, **spec):
    t = copy(TEMPLATE)
    t["spec"]["containers"][0]["image"] = image
    t["spec"].update(spec)
    if annotations:
        t["metadata"]["annotations"] = annotations
    return t


def deployment(name="web", replicas=3, tmpl=None, **spec):
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": dict({"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": tmpl or template()}, **spec)}


def replicaset(name="web", replicas=2, tmpl=None, **spec):
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name},
            "spec": dict({"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": tmpl or template()}, **spec)}


def configmap(name, owners=None, **meta):
    m = dict({"name": name}, **meta)
    if owners:
        m["ownerReferences"] = owners
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": m}


def ref(o, kind=None, version=None, **more):
    return dict({"apiVersion": version or o["apiVersion"], "kind": kind or o["kind"], "name": o["metadata"]["name"],
                 "uid": o["metadata"]["uid"]}, **more)


NOT_READY = {"play/ready": "false"}


class Controllers(Scene, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.c = Cluster(extra=["--controllers", "all"])
        cls.player = Player(cls.c)

    @classmethod
    def tearDownClass(cls):
        cls.player.stop()
        cls.c.close()

    def setUp(self):
        self.ns = self.namespace("t" + str(abs(hash(self.id())) % 10**10))
        base = "/apis/apps/v1/namespaces/%s/" % self.ns
        core = "/api/v1/namespaces/%s/" % self.ns
        self.d, self.rs, self.pods, self.cms = base + "deployments", base + "replicasets", core + "pods", core + "configmaps"
        self.svcs, self.slices = core + "services", "/apis/discovery.k8s.io/v1/namespaces/%s/endpointslices" % self.ns
        self.eps = core + "endpoints"
        self.wait("account", lambda: self.get(core + "serviceaccounts/default"))

    def tearDown(self):
        self.c.api("DELETE", "/api/v1/namespaces/" + self.ns)

    def complete(self, name="web"):
        def done():
            d = self.get(self.d + "/" + name)
            st, n = d.get("status", {}), d["spec"]["replicas"]
            return st.get("observedGeneration") == d["metadata"]["generation"] and st.get("updatedReplicas", 0) == n and \
                st.get("replicas", 0) == n and st.get("availableReplicas", 0) == n and \
                self.condition(d, "Progressing").get("reason") in ("NewReplicaSetAvailable", None) and d
        return self.wait("deployment %s complete" % name, done)

    def sizes(self):
        """Wished sizes of the ReplicaSets, oldest revision first."""
        l = sorted(self.items(self.rs), key=lambda r: int(r["metadata"]["annotations"]["deployment.kubernetes.io/revision"]))
        return [r["spec"]["replicas"] for r in l]

    def revision(self, o):
        return o["metadata"]["annotations"]["deployment.kubernetes.io/revision"]

    # ---- flow control ----

    def test_a_flow_schema_says_whether_its_level_is_there(self):
        base = "/apis/flowcontrol.apiserver.k8s.io/v1/"
        self.make(base + "flowschemas", {"metadata": {"name": "late"}, "spec": {
            "matchingPrecedence": 7000, "priorityLevelConfiguration": {"name": "later"}, "rules": [{
                "subjects": [{"kind": "User", "user": {"name": "nobody"}}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/none"]}]}]}})

        def dangling():
            c = self.condition(self.get(base + "flowschemas/late"), "Dangling")
            return c and (c["status"], c["reason"], c["message"])
        text = 'This FlowSchema references the PriorityLevelConfiguration object named "later" '
        self.wait("dangling", lambda: dangling() == ("True", "NotFound", text + "but there is no such object"))
        self.make(base + "prioritylevelconfigurations", {"metadata": {"name": "later"}, "spec": {
            "type": "Limited", "limited": {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}}})
        self.wait("found", lambda: dangling() == ("False", "Found", text + "and it exists"))
        self.drop(base + "flowschemas/late")
        self.drop(base + "prioritylevelconfigurations/later")

    # ---- Deployment ----

    def test_a_deployment_gets_its_pods_and_says_so(self):
        self.make(self.d, deployment())
        d = self.complete()
        self.assertEqual(d["status"], {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3,
                                       "availableReplicas": 3, "terminatingReplicas": 0, "conditions": d["status"]["conditions"]})
        rs = self.items(self.rs)[0]
        h = rs["metadata"]["labels"]["pod-template-hash"]
        self.assertEqual(rs["metadata"]["name"], "web-" + h)
        self.assertEqual(rs["spec"]["selector"]["matchLabels"], {"app": "web", "pod-template-hash": h})
        self.assertEqual(rs["metadata"]["annotations"], {"deployment.kubernetes.io/desired-replicas": "3",
                                                         "deployment.kubernetes.io/max-replicas": "4", "deployment.kubernetes.io/revision": "1"})
        self.assertEqual(rs["metadata"]["ownerReferences"], [ref(self.get(self.d + "/web"), "Deployment", "apps/v1", controller=True, blockOwnerDeletion=True)])
        self.assertEqual(self.revision(d), "1")
        self.assertEqual([(k, self.condition(d, k)["status"], self.condition(d, k)["reason"], self.condition(d, k)["message"])
                          for k in ("Available", "Progressing")],
                         [("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability."),
                          ("Progressing", "True", "NewReplicaSetAvailable", 'ReplicaSet "%s" has successfully progressed.' % rs["metadata"]["name"])])
        for p in self.items(self.pods):
            self.assertEqual(p["metadata"]["labels"], {"app": "web", "pod-template-hash": h})
            self.assertEqual(p["metadata"]["generateName"], rs["metadata"]["name"] + "-")
        self.assertIn("Scaled up replica set web-%s from 0 to 3" % h, self.wait(
            "event", lambda: [e["message"] for e in self.events(self.ns, "ScalingReplicaSet")]))
        self.wait("3 pods created events", lambda: len(self.events(self.ns, "SuccessfulCreate")) == 3)
        out = self.c.kubectl("rollout", "status", "deployment/web", "-n", self.ns)
        self.assertIn("successfully rolled out", out)

    def watch_bounds(self, least, most):
        """Watches until told: ready pods are never fewer than least, and the ReplicaSets never ask for more than most
        (there may be more pods for a moment: one set creates before the other deletes)."""
        ends = [self.watch_sum(self.pods, lambda p: "deletionTimestamp" not in p["metadata"] and self.condition(p, "Ready").get("status") == "True",
                               lambda n: n >= least),
                self.watch_sum(self.rs, lambda r: r["spec"]["replicas"], lambda n: n <= most)]
        return lambda: [end() for end in ends]

    def watch_sum(self, path, value, fits):
        _, l = self.c.api("GET", path)
        values = {o["metadata"]["name"]: int(value(o)) for o in l["items"]}
        ev, conn = self.c.watch(path + "?watch=1&resourceVersion=" + l["metadata"]["resourceVersion"])
        bad = []

        def run():
            try:
                for e in ev:
                    o = e["object"]
                    values[o["metadata"]["name"]] = 0 if e["type"] == "DELETED" else int(value(o))
                    if not fits(sum(values.values())):
                        bad.append(dict(values))
            except (OSError, ValueError, AttributeError):
                pass
        t = threading.Thread(target=run, daemon=True)
        t.start()

        def end():
            conn.sock.shutdown(2)
            t.join(10)
            conn.close()
            self.assertEqual(bad, [])
        return end

    def test_a_rolling_update_keeps_within_its_bounds_and_undo_goes_back(self):
        self.make(self.d, deployment(replicas=5, strategy={"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}}))
        self.complete()
        end = self.watch_bounds(4, 7)
        self.c.kubectl("set", "image", "deployment/web", "c=i:2", "-n", self.ns)
        self.wait("2nd revision", lambda: self.revision(self.get(self.d + "/web")) == "2")
        self.complete()
        end()
        self.assertEqual(self.sizes(), [0, 5])
        out = self.c.kubectl("rollout", "history", "deployment/web", "-n", self.ns)
        self.assertEqual([l.split()[0] for l in out.splitlines()[2:] if l.strip()], ["1", "2"])
        self.c.kubectl("rollout", "undo", "deployment/web", "-n", self.ns)
        self.wait("3rd revision", lambda: self.revision(self.get(self.d + "/web")) == "3")
        self.complete()
        self.assertEqual(self.sizes(), [0, 5])
        new = [r for r in self.items(self.rs) if self.revision(r) == "3"][0]
        self.assertEqual(new["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"], "1")
        self.assertEqual(new["spec"]["template"]["spec"]["containers"][0]["image"], "i:1")
        self.c.kubectl("rollout", "undo", "deployment/web", "--to-revision=2", "-n", self.ns)
        self.wait("4th revision", lambda: self.revision(self.get(self.d + "/web")) == "4")
        self.complete()
        self.c.kubectl("rollout", "restart", "deployment/web", "-n", self.ns)
        self.wait("5th revision", lambda: self.revision(self.get(self.d + "/web")) == "5")
        self.complete()

    def test_with_max_unavailable_0_no_old_pod_goes_before_a_new_one_is_there(self):
        self.make(self.d, deployment(replicas=2, strategy={"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}))
        self.complete()
        end = self.watch_bounds(2, 3)
        self.patch(self.d + "/web", {"spec": {"template": template("i:2")}})
        self.complete()
        end()

    def test_recreate_lets_all_old_pods_go_first(self):
        self.make(self.d, deployment(tmpl=template(annotations={"play/stop": "hold"}), strategy={"type": "Recreate"}))
        self.complete()
        self.patch(self.d + "/web", {"spec": {"template": template("i:2")}})
        self.wait("old pods being deleted", lambda: all(p["metadata"].get("deletionTimestamp") for p in self.items(self.pods)))
        self.wait("0 of 3", lambda: self.condition(self.get(self.d + "/web"), "Available").get("status") == "False")
        self.assertEqual({p["spec"]["containers"][0]["image"] for p in self.items(self.pods)}, {"i:1"})
        self.assertEqual(len(self.items(self.rs)), 1)
        for p in self.items(self.pods):
            self.player.remove(p)
        self.complete()
        self.assertEqual({p["spec"]["containers"][0]["image"] for p in self.items(self.pods)}, {"i:2"})
        self.assertEqual(self.sizes(), [0, 3])

    def test_a_paused_deployment_scales_but_does_not_roll(self):
        self.make(self.d, deployment(replicas=2))
        self.complete()
        self.c.kubectl("rollout", "pause", "deployment/web", "-n", self.ns)
        self.wait("paused", lambda: self.condition(self.get(self.d + "/web"), "Progressing").get("reason") == "DeploymentPaused")
        p = self.condition(self.get(self.d + "/web"), "Progressing")
        self.assertEqual((p["status"], p["message"]), ("Unknown", "Deployment is paused"))
        self.c.kubectl("set", "image", "deployment/web", "c=i:2", "-n", self.ns)
        self.c.kubectl("scale", "deployment/web", "--replicas=4", "-n", self.ns)
        self.wait("4 pods", lambda: self.get(self.d + "/web").get("status", {}).get("readyReplicas") == 4)
        self.assertEqual(self.sizes(), [4])
        self.assertEqual(self.get(self.d + "/web").get("status", {}).get("updatedReplicas"), None)
        self.c.kubectl("rollout", "resume", "deployment/web", "-n", self.ns)
        self.wait("2nd revision", lambda: self.revision(self.get(self.d + "/web")) == "2")
        self.complete()
        self.assertEqual(self.sizes(), [0, 4])

    def test_a_rollout_that_stalls_exceeds_its_deadline(self):
        self.make(self.d, deployment(replicas=1, tmpl=template(annotations=NOT_READY), progressDeadlineSeconds=1))
        p = self.wait("deadline", lambda: (lambda c: c.get("reason") == "ProgressDeadlineExceeded" and c)(
            self.condition(self.get(self.d + "/web"), "Progressing")))
        name = self.names(self.rs)[0]
        self.assertEqual((p["status"], p["message"]), ("False", 'ReplicaSet "%s" has timed out progressing.' % name))
        code, out = self.c.kubectl("rollout", "status", "deployment/web", "-n", self.ns, ok=False)
        self.assertEqual((code, 'error: deployment "web" exceeded its progress deadline' in out), (1, True))
        for pod in self.items(self.pods):
            self.patch(self.pods + "/" + pod["metadata"]["name"], {"metadata": {"annotations": {"play/ready": None}}})
        self.complete()

    def test_scaling_in_mid_rollout_is_shared_in_proportion(self):
        strategy = {"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}
        self.make(self.d, deployment(replicas=10, strategy=strategy))
        self.complete()
        self.patch(self.d + "/web", {"spec": {"template": template("bad", annotations=NOT_READY)}})
        self.wait("8 old and 5 new", lambda: self.sizes() == [8, 5])
        self.patch(self.d + "/web/scale", {"spec": {"replicas": 15}})
        self.wait("11 old and 7 new", lambda: self.sizes() == [11, 7])
        for r in self.items(self.rs):
            self.assertEqual(r["metadata"]["annotations"]["deployment.kubernetes.io/desired-replicas"], "15")
            self.assertEqual(r["metadata"]["annotations"]["deployment.kubernetes.io/max-replicas"], "18")
        self.c.kubectl("rollout", "undo", "deployment/web", "-n", self.ns)
        self.wait("3rd revision", lambda: self.revision(self.get(self.d + "/web")) == "3")
        self.complete()

    def test_old_replicasets_are_kept_up_to_the_history_limit(self):
        self.make(self.d, deployment(replicas=1, revisionHistoryLimit=1))
        self.complete()
        for i in (2, 3, 4):
            self.patch(self.d + "/web", {"spec": {"template": template("i:%d" % i)}})
            self.wait("revision %d" % i, lambda: self.revision(self.get(self.d + "/web")) == str(i))
            self.complete()
        self.wait("two sets", lambda: sorted(self.revision(r) for r in self.items(self.rs)) == ["3", "4"])
        self.patch(self.d + "/web", {"spec": {"revisionHistoryLimit": 0}})
        self.wait("one set", lambda: sorted(self.revision(r) for r in self.items(self.rs)) == ["4"])

    def test_min_ready_seconds_delays_availability(self):
        self.make(self.d, deployment(replicas=1, minReadySeconds=3))
        self.wait("ready", lambda: self.get(self.d + "/web").get("status", {}).get("readyReplicas") == 1)
        d = self.get(self.d + "/web")
        self.assertEqual((d["status"].get("availableReplicas"), d["status"].get("unavailableReplicas")), (None, 1))
        self.complete()

    def test_a_set_that_was_orphaned_is_adopted(self):
        self.make(self.d, deployment(replicas=2))
        self.complete()
        rs = self.items(self.rs)[0]
        before = self.names(self.pods)
        self.c.kubectl("delete", "deployment", "web", "--cascade=orphan", "-n", self.ns)
        self.wait("orphan", lambda: not self.get(self.rs + "/" + rs["metadata"]["name"])["metadata"].get("ownerReferences"))
        self.assertIsNone(self.get(self.d + "/web"))
        d = self.make(self.d, deployment(replicas=2))
        self.wait("adopted", lambda: [r["uid"] for r in self.items(self.rs)[0]["metadata"].get("ownerReferences", [])] == [d["metadata"]["uid"]])
        self.complete()
        self.assertEqual(self.names(self.pods), before)
        self.assertEqual(len(self.items(self.rs)), 1)

    def test_a_set_of_another_label_is_released(self):
        self.make(self.d, deployment(replicas=1))
        self.complete()
        rs = self.names(self.rs)[0]
        self.patch(self.rs + "/" + rs, {"metadata": {"labels": {"app": "other"}}})
        self.wait("released", lambda: not self.get(self.rs + "/" + rs)["metadata"].get("ownerReferences"))

    # ---- ReplicaSet ----

    def full(self, n, name="web"):
        return self.wait("%d ready" % n, lambda: (lambda r: r and r.get("status", {}).get("readyReplicas", 0) == n and
                                                  r["status"]["replicas"] == n and r)(self.get(self.rs + "/" + name)))

    def test_a_pod_that_is_lost_is_replaced_once(self):
        self.make(self.rs, replicaset(replicas=2))
        self.full(2)
        gone = self.items(self.pods)[0]
        self.drop(self.pods + "/" + gone["metadata"]["name"])
        self.wait("replaced", lambda: gone["metadata"]["name"] not in self.names(self.pods) and len(self.items(self.pods)) == 2)
        self.full(2)
        self.wait("3 events", lambda: len(self.events(self.ns, "SuccessfulCreate")) == 3)

    def test_pods_that_ended_are_replaced_and_not_counted(self):
        self.make(self.rs, replicaset(replicas=1))
        self.full(1)
        p = self.items(self.pods)[0]
        self.player.say(p, "Failed", "False")
        self.wait("another", lambda: len(self.items(self.pods)) == 2)
        r = self.full(1)
        self.assertEqual(r["status"]["replicas"], 1)

    def test_pods_are_adopted_and_released_by_labels(self):
        lone = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lone", "labels": {"app": "web"}}, "spec": TEMPLATE["spec"]}
        self.make(self.pods, lone)
        rs = self.make(self.rs, replicaset(replicas=2))
        self.full(2)
        self.assertIn("lone", self.names(self.pods))
        self.assertEqual(self.get(self.pods + "/lone")["metadata"]["ownerReferences"],
                         [ref(rs, "ReplicaSet", "apps/v1", controller=True, blockOwnerDeletion=True)])
        self.assertEqual(len(self.items(self.pods)), 2)
        self.patch(self.pods + "/lone", {"metadata": {"labels": {"app": "mine"}}})
        self.wait("released", lambda: "ownerReferences" not in self.get(self.pods + "/lone")["metadata"])
        self.wait("replaced", lambda: len(self.items(self.pods, app="web")) == 2)

    def test_scaling_down_takes_what_serves_least(self):
        self.make(self.rs, replicaset(replicas=4))
        self.full(4)
        pods = self.names(self.pods)
        self.patch(self.pods + "/" + pods[1], {"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}}})
        self.patch(self.pods + "/" + pods[0], {"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "7"}}})
        self.patch(self.pods + "/" + pods[2], {"metadata": {"annotations": {"play/ready": "false"}}})
        self.wait("3 ready", lambda: self.get(self.rs + "/web").get("status", {}).get("readyReplicas") == 3)
        for n, gone in ((3, pods[2]), (2, pods[1]), (1, pods[3])):
            self.patch(self.rs + "/web/scale", {"spec": {"replicas": n}})
            self.wait("%d pods without %s" % (n, gone), lambda: len(self.names(self.pods)) == n)
            self.assertNotIn(gone, self.names(self.pods))
        self.wait("one deletion each", lambda: len(self.events(self.ns, "SuccessfulDelete")) == 3)
        self.assertEqual([e.get("count", 1) for e in self.events(self.ns, "SuccessfulDelete")], [1, 1, 1])

    def test_a_set_that_cannot_create_says_why(self):
        t = template()
        t["spec"]["serviceAccountName"] = "nobody"
        self.make(self.rs, replicaset(replicas=2, tmpl=t))
        c = self.wait("failure", lambda: self.condition(self.get(self.rs + "/web"), "ReplicaFailure"))
        self.assertEqual((c["status"], c["reason"]), ("True", "FailedCreate"))
        self.assertIn('serviceaccount "nobody" not found', c["message"])
        self.wait("event", lambda: [e for e in self.events(self.ns, "FailedCreate") if e["message"].startswith("Error creating: pods ")])
        self.make("/api/v1/namespaces/%s/serviceaccounts" % self.ns, {"metadata": {"name": "nobody"}})
        self.full(2)
        self.wait("no failure", lambda: not self.condition(self.get(self.rs + "/web"), "ReplicaFailure"))

    # ---- Garbage ----

    def test_background_deletion_takes_the_dependents_after(self):
        self.make(self.d, deployment(replicas=2))
        self.complete()
        self.drop(self.d + "/web", propagationPolicy="Background")
        self.assertIsNone(self.get(self.d + "/web"))
        self.wait("all gone", lambda: not self.names(self.rs) and not self.names(self.pods))

    def test_replicationcontrollers_and_jobs_leave_their_pods_by_default(self):
        core, batch = "/api/v1/namespaces/%s/" % self.ns, "/apis/batch/v1/namespaces/%s/" % self.ns
        labels = {"app": "left"}
        spec = {"containers": [{"name": "c", "image": "i"}]}
        self.make(core + "replicationcontrollers", {"metadata": {"name": "rc"}, "spec": {
            "replicas": 1, "selector": labels, "template": {"metadata": {"labels": labels}, "spec": spec}}})
        self.make(batch + "jobs", {"metadata": {"name": "j"}, "spec": {"template": {"spec": dict(spec, restartPolicy="Never")}}})
        self.wait("pods", lambda: len(self.items(self.pods)) == 2)
        for path, warned in ((core + "replicationcontrollers/rc", False), (batch + "jobs/j", True)):
            s, h, out = self.c.http("DELETE", path)
            self.assertEqual((s, json.loads(out)["metadata"]["finalizers"]), (200, ["orphan"]))
            self.assertEqual("child pods are preserved by default" in (h["Warning"] or ""), warned)
            self.wait("gone", lambda p=path: self.get(p) is None)
        pods = self.items(self.pods)
        self.assertEqual([p["metadata"].get("ownerReferences") for p in pods], [None, None])

    def test_foreground_deletion_takes_the_dependents_before(self):
        self.make(self.d, deployment(replicas=2, tmpl=template(annotations={"play/stop": "hold"})))
        self.complete()
        rs = self.names(self.rs)[0]
        o = self.drop(self.d + "/web", propagationPolicy="Foreground")
        self.assertEqual(o["metadata"]["finalizers"], ["foregroundDeletion"])
        self.wait("pods being deleted", lambda: all(p["metadata"].get("deletionTimestamp") for p in self.items(self.pods)))
        self.assertEqual(self.get(self.rs + "/" + rs)["metadata"]["finalizers"], ["foregroundDeletion"])
        self.assertIn("deletionTimestamp", self.get(self.d + "/web")["metadata"])
        for p in self.items(self.pods):
            self.player.remove(p)
        self.wait("all gone", lambda: not self.names(self.rs) and not self.names(self.d) and not self.names(self.pods))

    def test_only_those_that_block_hold_their_owner(self):
        owner = self.make(self.cms, configmap("owner"))
        self.make(self.cms, configmap("free", [ref(owner, "ConfigMap", "v1")], finalizers=["example.com/hold"]))
        self.make(self.cms, configmap("block", [ref(owner, "ConfigMap", "v1", blockOwnerDeletion=True)], finalizers=["example.com/hold"]))
        self.drop(self.cms + "/owner", propagationPolicy="Foreground")
        self.wait("both being deleted", lambda: all("deletionTimestamp" in self.get(self.cms + "/" + n)["metadata"] for n in ("free", "block")))
        self.assertIsNotNone(self.get(self.cms + "/owner"))
        self.patch(self.cms + "/block", {"metadata": {"finalizers": None}})
        self.wait("owner gone", lambda: self.get(self.cms + "/owner") is None)
        self.assertIsNotNone(self.get(self.cms + "/free"))
        self.patch(self.cms + "/free", {"metadata": {"finalizers": None}})
        self.wait("free gone", lambda: self.get(self.cms + "/free") is None)

    def test_one_owner_that_is_left_keeps_the_dependent(self):
        a, b = self.make(self.cms, configmap("a")), self.make(self.cms, configmap("b"))
        self.make(self.cms, configmap("kid", [ref(a, "ConfigMap", "v1"), ref(b, "ConfigMap", "v1")]))
        self.drop(self.cms + "/a")
        self.wait("one owner", lambda: [r["name"] for r in self.get(self.cms + "/kid")["metadata"]["ownerReferences"]] == ["b"])
        self.drop(self.cms + "/b")
        self.wait("gone", lambda: self.get(self.cms + "/kid") is None)

    def test_an_owner_that_never_was_counts_as_gone(self):
        self.make(self.cms, configmap("kid", [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "0-0"}]))
        self.wait("gone", lambda: self.get(self.cms + "/kid") is None)
        owner = self.make(self.cms, configmap("twin"))
        self.make(self.cms, configmap("kid2", [dict(ref(owner, "ConfigMap", "v1"), uid="another")]))
        self.wait("gone", lambda: self.get(self.cms + "/kid2") is None)

    def test_an_owner_of_an_unknown_kind_keeps_the_dependent(self):
        self.make(self.cms, configmap("kid", [{"apiVersion": "example.com/v1", "kind": "Nope", "name": "x", "uid": "0-1"}]))
        a = self.make(self.cms, configmap("a"))
        self.make(self.cms, configmap("mark", [ref(a, "ConfigMap", "v1")]))
        self.drop(self.cms + "/a")
        self.wait("mark gone", lambda: self.get(self.cms + "/mark") is None)
        self.assertIsNotNone(self.get(self.cms + "/kid"))

    def test_an_owner_of_another_namespace_is_no_owner(self):
        other = self.namespace(self.ns + "x")
        o = self.make("/api/v1/namespaces/%s/configmaps" % other, configmap("far"))
        self.make(self.cms, configmap("kid", [ref(o, "ConfigMap", "v1")]))
        self.wait("gone", lambda: self.get(self.cms + "/kid") is None)
        e = self.wait("event", lambda: self.events(self.ns, "OwnerRefInvalidNamespace"))[0]
        self.assertEqual(e["message"], "ownerRef [v1/ConfigMap, namespace: %s, name: far, uid: %s] does not exist in namespace \"%s\""
                         % (self.ns, o["metadata"]["uid"], self.ns))
        self.drop("/api/v1/namespaces/" + other)

    def test_a_cluster_scoped_owner_works_too(self):
        n = self.player.add_node(__import__("kubelet").node("gc-node"))
        self.make(self.cms, configmap("kid", [ref(n, "Node", "v1")]))
        a = self.make(self.cms, configmap("a"))
        self.make(self.cms, configmap("mark", [ref(a, "ConfigMap", "v1")]))
        self.drop(self.cms + "/a")
        self.wait("mark gone", lambda: self.get(self.cms + "/mark") is None)
        self.assertIsNotNone(self.get(self.cms + "/kid"))
        self.drop("/api/v1/nodes/gc-node")
        self.wait("gone", lambda: self.get(self.cms + "/kid") is None)

    def test_two_that_own_each_other_go_together(self):
        a = self.make(self.cms, configmap("a"))
        b = self.make(self.cms, configmap("b", [ref(a, "ConfigMap", "v1", blockOwnerDeletion=True)]))
        self.patch(self.cms + "/a", {"metadata": {"ownerReferences": [ref(b, "ConfigMap", "v1", blockOwnerDeletion=True)]}})
        self.drop(self.cms + "/a", propagationPolicy="Foreground")
        self.wait("both gone", lambda: not {"a", "b"} & set(self.names(self.cms)))

    # ---- Namespace ----

    def test_a_namespace_goes_with_all_that_is_in_it(self):
        self.make(self.d, deployment(replicas=2))
        self.complete()
        self.make(self.svcs, {"metadata": {"name": "s"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}})
        self.c.kubectl("delete", "namespace", self.ns, "--wait=true", "--timeout=60s")
        for path in (self.d, self.rs, self.pods, self.cms, self.svcs, self.slices):
            self.assertEqual(self.names(path), [])

    def test_what_holds_a_namespace_is_said(self):
        self.make(self.cms, configmap("held", finalizers=["example.com/hold", "example.com/more"]))
        self.make(self.pods, {"metadata": {"name": "p", "annotations": {"play/stop": "hold"}}, "spec": TEMPLATE["spec"]})
        self.wait("running", lambda: self.get(self.pods + "/p")["status"]["phase"] == "Running")
        self.drop("/api/v1/namespaces/" + self.ns)

        def said():
            n = self.get("/api/v1/namespaces/" + self.ns)
            return {k: (c["status"], c["reason"], c["message"]) for k in (
                "NamespaceDeletionDiscoveryFailure", "NamespaceDeletionGroupVersionParsingFailure", "NamespaceDeletionContentFailure",
                "NamespaceContentRemaining", "NamespaceFinalizersRemaining") for c in [self.condition(n, k)] if c}
        want = {
            "NamespaceDeletionDiscoveryFailure": ("False", "ResourcesDiscovered", "All resources successfully discovered"),
            "NamespaceDeletionGroupVersionParsingFailure": ("False", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
            "NamespaceDeletionContentFailure": ("False", "ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
            "NamespaceContentRemaining": ("True", "SomeResourcesRemain",
                                          "Some resources are remaining: pods. has 1 resource instances"),
            "NamespaceFinalizersRemaining": ("False", "ContentHasNoFinalizers", "All content-preserving finalizers finished")}
        self.wait("conditions %s" % want, lambda: said() == want)
        self.assertEqual(self.get("/api/v1/namespaces/" + self.ns)["status"]["phase"], "Terminating")
        # Nothing else goes before the pods are gone.
        self.assertNotIn("deletionTimestamp", self.get(self.cms + "/held")["metadata"])
        self.player.remove(self.get(self.pods + "/p"))
        want["NamespaceContentRemaining"] = ("True", "SomeResourcesRemain",
                                             "Some resources are remaining: configmaps. has 1 resource instances")
        want["NamespaceFinalizersRemaining"] = (
            "True", "SomeFinalizersRemain", "Some content in the namespace has finalizers remaining: "
            "example.com/hold in 1 resource instances, example.com/more in 1 resource instances")
        self.wait("conditions %s" % want, lambda: said() == want)
        self.patch(self.cms + "/held", {"metadata": {"finalizers": None}})
        self.wait("gone", lambda: self.get("/api/v1/namespaces/" + self.ns) is None)

    def test_every_namespace_has_its_account_and_root_certificate(self):
        core = "/api/v1/namespaces/%s/" % self.ns
        self.wait("account", lambda: self.get(core + "serviceaccounts/default"))
        cm = self.wait("root", lambda: self.get(core + "configmaps/kube-root-ca.crt"))
        self.patch(core + "configmaps/kube-root-ca.crt", {"data": {"ca.crt": "no", "x": "y"}})
        self.wait("put right", lambda: self.get(core + "configmaps/kube-root-ca.crt")["data"] == cm["data"])
        self.drop(core + "configmaps/kube-root-ca.crt")
        self.drop(core + "serviceaccounts/default")
        self.wait("made again", lambda: self.get(core + "serviceaccounts/default") and self.get(core + "configmaps/kube-root-ca.crt"))

    # ---- Slices ----

    def service(self, name="s", **spec):
        return self.make(self.svcs, {"metadata": {"name": name, "labels": {"l": "1"}}, "spec": dict(
            {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}, **spec)})

    def endpoints(self, name="s"):
        out = []
        for s in self.items(self.slices, **{"kubernetes.io/service-name": name}):
            out += s["endpoints"] or []
        return out

    def test_slices_follow_the_pods(self):
        self.service()
        self.make(self.rs, replicaset(replicas=2, tmpl=template(annotations={"play/stop": "hold"})))
        self.full(2)
        self.wait("2 endpoints", lambda: len(self.endpoints()) == 2)
        s = self.items(self.slices)[0]
        self.assertTrue(s["metadata"]["name"].startswith("s-"))
        self.assertEqual(s["metadata"]["labels"], {"l": "1", "kubernetes.io/service-name": "s",
                                                   "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"})
        self.assertIn("endpoints.kubernetes.io/last-change-trigger-time", s["metadata"].get("annotations", {}))
        self.assertEqual((s["addressType"], s["ports"]), ("IPv4", [{"name": "http", "port": 8080, "protocol": "TCP"}]))
        pods = {p["metadata"]["name"]: p for p in self.items(self.pods)}
        for e in s["endpoints"]:
            p = pods[e["targetRef"]["name"]]
            self.assertEqual(e, {"addresses": [p["status"]["podIP"]], "conditions": {"ready": True, "serving": True, "terminating": False},
                                 "nodeName": p["spec"]["nodeName"],
                                 "targetRef": {"kind": "Pod", "namespace": self.ns, "name": p["metadata"]["name"], "uid": p["metadata"]["uid"]}})
        gone = sorted(pods)[0]
        self.drop(self.pods + "/" + gone)
        self.wait("terminating", lambda: [e["conditions"] for e in self.endpoints() if e["targetRef"]["name"] == gone] ==
                  [{"ready": False, "serving": True, "terminating": True}])
        self.player.remove(pods[gone])
        self.wait("gone", lambda: gone not in [e["targetRef"]["name"] for e in self.endpoints()] and len(self.endpoints()) == 2)
        self.drop(self.svcs + "/s")
        self.wait("no slices", lambda: not self.names(self.slices))

    def test_slices_say_what_is_not_ready(self):
        self.service()
        self.service("early", publishNotReadyAddresses=True)
        self.service("none", clusterIP="None")
        self.make(self.rs, replicaset(replicas=1, tmpl=template(annotations=NOT_READY, hostname="h", subdomain="none")))
        self.wait("1 not ready", lambda: [e["conditions"] for e in self.endpoints()] == [{"ready": False, "serving": False, "terminating": False}])
        self.wait("1 early", lambda: [e["conditions"]["ready"] for e in self.endpoints("early")] == [True])
        self.wait("hostname", lambda: [e.get("hostname") for e in self.endpoints("none")] == ["h"])
        s = self.items(self.slices, **{"kubernetes.io/service-name": "none"})[0]
        self.assertEqual(s["metadata"]["labels"]["service.kubernetes.io/headless"], "")

    def test_named_target_ports_are_looked_up_in_each_pod(self):
        self.service(ports=[{"name": "w", "port": 80, "targetPort": "web"}])
        for i, port in enumerate((8001, 8002)):
            t = template()
            t["spec"]["containers"][0]["ports"] = [{"name": "web", "containerPort": port}]
            self.make(self.pods, {"metadata": {"name": "p%d" % i, "labels": {"app": "web"}}, "spec": t["spec"]})
        self.wait("two slices", lambda: sorted((s["ports"][0]["port"], len(s["endpoints"])) for s in self.items(self.slices) if s["ports"]) ==
                  [(8001, 1), (8002, 1)])

    def test_a_slice_holds_a_hundred_endpoints(self):
        self.service()
        self.make(self.rs, replicaset(replicas=120))
        self.full(120)
        self.wait("120 endpoints", lambda: len(self.endpoints()) == 120)
        self.assertEqual(sorted(len(s["endpoints"]) for s in self.items(self.slices)), [20, 100])

    # ---- Endpoints ----

    def test_endpoints_have_the_same_addresses(self):
        self.service(ports=[{"name": "b", "port": 81, "targetPort": 8081}, {"name": "a", "port": 80, "targetPort": 8080}])
        self.make(self.rs, replicaset(replicas=2))
        self.full(2)
        e = self.wait("2 addresses", lambda: (lambda e: e and e.get("subsets") and len(e["subsets"][0].get("addresses", [])) == 2 and e)(
            self.get(self.eps + "/s")))
        self.assertEqual(e["metadata"]["labels"], {"l": "1", "endpoints.kubernetes.io/managed-by": "endpoint-controller"})
        self.assertEqual([(p["name"], p["port"], p["protocol"]) for p in e["subsets"][0]["ports"]], [("a", 8080, "TCP"), ("b", 8081, "TCP")])
        pods = {p["status"]["podIP"]: p for p in self.items(self.pods)}
        self.assertEqual([a["ip"] for a in e["subsets"][0]["addresses"]], sorted(pods))
        for a in e["subsets"][0]["addresses"]:
            p = pods[a["ip"]]
            self.assertEqual(a, {"ip": a["ip"], "nodeName": p["spec"]["nodeName"], "targetRef": {
                "kind": "Pod", "namespace": self.ns, "name": p["metadata"]["name"], "uid": p["metadata"]["uid"]}})
        one = e["subsets"][0]["addresses"][0]["targetRef"]["name"]
        self.patch(self.pods + "/" + one, {"metadata": {"annotations": {"play/ready": "false"}}})
        self.wait("1 not ready", lambda: [a["targetRef"]["name"] for a in self.get(self.eps + "/s")["subsets"][0].get("notReadyAddresses", [])] == [one])
        self.drop(self.svcs + "/s")
        self.wait("gone", lambda: self.get(self.eps + "/s") is None)

    def test_endpoints_made_by_hand_are_mirrored(self):
        self.make(self.svcs, {"metadata": {"name": "hand"}, "spec": {"ports": [{"port": 80}]}})
        self.make(self.eps, {"metadata": {"name": "hand", "labels": {"x": "y"}}, "subsets": [
            {"addresses": [{"ip": "10.1.2.3"}], "notReadyAddresses": [{"ip": "10.1.2.4"}], "ports": [{"port": 8080}]}]})
        s = self.wait("slice", lambda: self.items(self.slices, **{"kubernetes.io/service-name": "hand"}))[0]
        self.assertEqual(s["metadata"]["labels"], {"x": "y", "kubernetes.io/service-name": "hand",
                                                   "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io"})
        self.assertEqual(s["metadata"]["ownerReferences"][0]["kind"], "Endpoints")
        self.assertEqual([(e["addresses"], e["conditions"]) for e in s["endpoints"]], [(["10.1.2.3"], {"ready": True}), (["10.1.2.4"], {"ready": False})])
        self.assertEqual(s["ports"], [{"name": "", "port": 8080, "protocol": "TCP"}])
        self.patch(self.eps + "/hand", {"subsets": [{"addresses": [{"ip": "10.1.2.5"}], "ports": [{"port": 8080}]}]})
        self.wait("changed", lambda: [e["addresses"] for e in self.endpoints("hand")] == [["10.1.2.5"]])
        self.assertEqual(self.names(self.slices), [s["metadata"]["name"]])
        self.patch(self.eps + "/hand", {"metadata": {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}})
        self.wait("no slices", lambda: not self.names(self.slices))


if __name__ == "__main__":
    unittest.main(verbosity=1)
