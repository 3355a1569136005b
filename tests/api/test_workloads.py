#!/usr/bin/env python3
"""StatefulSets, DaemonSets, Jobs and CronJobs, with played kubelets."""
import json
import unittest

from cluster import Cluster
from kubelet import Player, Scene, node

SPEC = {"containers": [{"name": "c", "image": "i:1"}], "terminationGracePeriodSeconds": 1}
TEMPLATE = {"metadata": {"labels": {"app": "x"}}, "spec": SPEC}


def template(image="i:1", annotations=None, **spec):
    t = json.loads(json.dumps(TEMPLATE))
    t["spec"]["containers"][0]["image"] = image
    t["spec"].update(spec)
    if annotations:
        t["metadata"]["annotations"] = annotations
    return t


def workload(kind, version, tmpl=None, name="x", **spec):
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name},
            "spec": dict({"selector": {"matchLabels": {"app": "x"}}, "template": tmpl or template()}, **spec)}


def job(tmpl=None, name="j", **spec):
    t = tmpl or template()
    t["spec"].setdefault("restartPolicy", "Never")
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": dict({"template": t}, **spec)}


DONE, BROKEN = {"play/phase": "Succeeded"}, {"play/phase": "Failed"}


class Workloads(Scene, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.c = Cluster(extra=["--controllers", "all"])
        cls.player = Player(cls.c, nodes=("n1", "n2", "n3"))

    @classmethod
    def tearDownClass(cls):
        cls.player.stop()
        cls.c.close()

    def setUp(self):
        self.ns = self.namespace("w" + str(abs(hash(self.id())) % 10**10))
        apps, core = "/apis/apps/v1/namespaces/%s/" % self.ns, "/api/v1/namespaces/%s/" % self.ns
        self.sts, self.ds, self.pods = apps + "statefulsets", apps + "daemonsets", core + "pods"
        self.pvcs, self.revs = core + "persistentvolumeclaims", apps + "controllerrevisions"
        self.jobs, self.crons = ["/apis/batch/v1/namespaces/%s/%s" % (self.ns, p) for p in ("jobs", "cronjobs")]
        self.wait("account", lambda: self.get(core + "serviceaccounts/default"))

    def tearDown(self):
        self.c.api("DELETE", "/api/v1/namespaces/" + self.ns)

    def status(self, path, **want):
        return self.wait("%s has %s" % (path, want), lambda: (lambda o: o and all(
            o.get("status", {}).get(k, 0) == v for k, v in want.items()) and o)(self.get(path)))

    def images(self):
        return {p["metadata"]["name"]: p["spec"]["containers"][0]["image"] for p in self.items(self.pods)}

    # ---- StatefulSet ----

    def sset(self, tmpl=None, **spec):
        return workload("StatefulSet", "apps/v1", tmpl, name="web", serviceName="svc", **spec)

    def test_stateful_pods_come_one_after_the_other(self):
        self.make(self.sts, self.sset(template(annotations={"play/ready": "false"}), replicas=3))
        self.wait("web-0", lambda: self.names(self.pods) == ["web-0"])
        for i in range(3):
            name = "web-%d" % i
            p = self.wait(name, lambda: self.get(self.pods + "/" + name))
            self.assertEqual(self.names(self.pods), ["web-%d" % k for k in range(i + 1)])
            self.assertEqual((p["spec"]["hostname"], p["spec"]["subdomain"]), (name, "svc"))
            self.assertEqual({k: p["metadata"]["labels"][k] for k in ("statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index")},
                             {"statefulset.kubernetes.io/pod-name": name, "apps.kubernetes.io/pod-index": str(i)})
            self.patch(self.pods + "/" + name, {"metadata": {"annotations": {"play/ready": None}}})
        s = self.status(self.sts + "/web", readyReplicas=3, currentReplicas=3, updatedReplicas=3, availableReplicas=3)
        self.assertEqual(s["status"]["currentRevision"], s["status"]["updateRevision"])
        self.assertEqual(self.names(self.revs), [s["status"]["currentRevision"]])
        data = self.items(self.revs)[0]["data"]  # clients compare its bytes with what Go makes of the template
        self.assertEqual(json.dumps(data), json.dumps(data, sort_keys=True))
        self.assertEqual(data["spec"]["template"]["$patch"], "replace")
        self.assertIn("create Pod web-0 in StatefulSet web successful", self.wait(
            "events", lambda: [e["message"] for e in self.events(self.ns, "SuccessfulCreate")]))
        for name in ("web-1", "web-2"):  # while two are not well none goes
            self.patch(self.pods + "/" + name, {"metadata": {"annotations": {"play/ready": "false"}}})
        self.status(self.sts + "/web", readyReplicas=1)
        self.patch(self.sts + "/web/scale", {"spec": {"replicas": 1}})
        generation = self.get(self.sts + "/web")["metadata"]["generation"]
        self.status(self.sts + "/web", observedGeneration=generation)
        self.assertEqual(self.names(self.pods), ["web-0", "web-1", "web-2"])
        self.patch(self.pods + "/web-1", {"metadata": {"annotations": {"play/ready": None}}})
        self.wait("one", lambda: self.names(self.pods) == ["web-0"])

    def test_a_stateful_pod_comes_back_under_its_name(self):
        self.make(self.sts, self.sset(replicas=2))
        self.status(self.sts + "/web", readyReplicas=2)
        uid = self.get(self.pods + "/web-0")["metadata"]["uid"]
        self.drop(self.pods + "/web-0")
        self.wait("again", lambda: (self.get(self.pods + "/web-0") or {"metadata": {"uid": uid}})["metadata"]["uid"] != uid)
        self.status(self.sts + "/web", readyReplicas=2)
        p = self.get(self.pods + "/web-1")
        self.player.say(p, "Failed", "False")
        self.wait("again", lambda: (self.get(self.pods + "/web-1") or p)["metadata"]["uid"] != p["metadata"]["uid"])
        self.status(self.sts + "/web", readyReplicas=2)

    def test_a_stateful_update_goes_from_the_end_and_stops_at_the_partition(self):
        self.make(self.sts, self.sset(replicas=3, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}))
        self.status(self.sts + "/web", readyReplicas=3)
        self.patch(self.sts + "/web", {"spec": {"template": template("i:2")}})
        s = self.status(self.sts + "/web", readyReplicas=3, updatedReplicas=1, currentReplicas=2)
        self.assertNotEqual(s["status"]["currentRevision"], s["status"]["updateRevision"])
        self.assertEqual(self.images(), {"web-0": "i:1", "web-1": "i:1", "web-2": "i:2"})
        self.drop(self.pods + "/web-0")
        self.status(self.sts + "/web", readyReplicas=3, replicas=3)
        self.wait("the old one again", lambda: self.images().get("web-0") == "i:1")
        self.patch(self.sts + "/web", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})
        s = self.status(self.sts + "/web", readyReplicas=3, updatedReplicas=3, currentReplicas=3)
        self.assertEqual(set(self.images().values()), {"i:2"})
        self.assertEqual(s["status"]["currentRevision"], s["status"]["updateRevision"])
        self.assertIn("rolling update complete", self.c.kubectl("rollout", "status", "sts/web", "-n", self.ns).replace("roll out", "rolling update"))
        self.c.kubectl("rollout", "undo", "sts/web", "-n", self.ns)
        self.wait("back", lambda: set(self.images().values()) == {"i:1"} and len(self.images()) == 3)
        self.assertEqual(sorted(r["revision"] for r in self.items(self.revs)), [2, 3])

    def test_every_stateful_pod_has_its_claims(self):
        claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
        self.make(self.sts, self.sset(replicas=2, volumeClaimTemplates=[claim], podManagementPolicy="Parallel",
                                      persistentVolumeClaimRetentionPolicy={"whenScaled": "Delete", "whenDeleted": "Retain"}))
        self.wait("two", lambda: self.names(self.pods) == ["web-0", "web-1"])
        self.assertEqual(self.names(self.pvcs), ["data-web-0", "data-web-1"])
        self.assertEqual(self.get(self.pvcs + "/data-web-0")["metadata"]["labels"], {"app": "x"})
        v = [v for v in self.get(self.pods + "/web-1")["spec"]["volumes"] if v["name"] == "data"]
        self.assertEqual(v, [{"name": "data", "persistentVolumeClaim": {"claimName": "data-web-1"}}])
        self.patch(self.sts + "/web/scale", {"spec": {"replicas": 1}})
        self.wait("its claim goes with it", lambda: self.names(self.pods) == ["web-0"] and self.names(self.pvcs) == ["data-web-0"])
        self.drop(self.sts + "/web")
        self.wait("no pods", lambda: not self.names(self.pods))
        self.assertEqual(self.names(self.pvcs), ["data-web-0"])

    # ---- DaemonSet ----

    def where(self):
        return sorted(p["spec"].get("nodeName", "") for p in self.items(self.pods) if "deletionTimestamp" not in p["metadata"])

    def test_a_daemon_runs_on_every_node_that_fits(self):
        self.make(self.ds, dict(workload("DaemonSet", "apps/v1"), metadata={
            "name": "x", "annotations": {"kubernetes.io/change-cause": "because"}}))
        d = self.status(self.ds + "/x", desiredNumberScheduled=3, currentNumberScheduled=3, numberReady=3, numberAvailable=3,
                        updatedNumberScheduled=3, numberMisscheduled=0)
        self.assertEqual(self.where(), ["n1", "n2", "n3"])
        self.assertEqual(d["status"]["observedGeneration"], 1)
        history = self.c.kubectl("rollout", "history", "daemonset/x", "-n", self.ns)
        self.assertIn("because", history)
        p = self.items(self.pods)[0]
        keys = {(t["key"], t["effect"]) for t in p["spec"]["tolerations"]}
        self.assertIn(("node.kubernetes.io/unschedulable", "NoSchedule"), keys)
        self.assertIn("controller-revision-hash", p["metadata"]["labels"])
        self.player.add_node(node("n4", labels={"disk": "ssd"}))
        self.wait("4", lambda: self.where() == ["n1", "n2", "n3", "n4"])
        self.patch(self.ds + "/x", {"spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}})
        self.wait("only there", lambda: self.where() == ["n4"])
        self.drop("/api/v1/nodes/n4")
        self.player.nodes.discard("n4")
        self.status(self.ds + "/x", desiredNumberScheduled=0)

    def test_a_daemon_update_replaces_pod_by_pod(self):
        self.make(self.ds, workload("DaemonSet", "apps/v1"))
        self.status(self.ds + "/x", numberReady=3)
        self.c.kubectl("set", "image", "ds/x", "c=i:2", "-n", self.ns)
        self.status(self.ds + "/x", updatedNumberScheduled=3, numberAvailable=3, observedGeneration=2)
        self.assertEqual(set(self.images().values()), {"i:2"})
        self.assertIn("successfully rolled out", self.c.kubectl("rollout", "status", "ds/x", "-n", self.ns))
        self.c.kubectl("rollout", "undo", "ds/x", "-n", self.ns)
        self.wait("back", lambda: set(self.images().values()) == {"i:1"})
        self.status(self.ds + "/x", updatedNumberScheduled=3, numberAvailable=3)
        self.assertEqual(sorted(r["revision"] for r in self.items(self.revs)), [2, 3])

    def test_a_daemon_pod_that_failed_is_replaced(self):
        self.make(self.ds, workload("DaemonSet", "apps/v1"))
        self.status(self.ds + "/x", numberReady=3)
        p = self.items(self.pods)[0]
        self.player.say(p, "Failed", "False")
        self.wait("another", lambda: p["metadata"]["name"] not in self.names(self.pods) and len(self.items(self.pods)) == 3)
        self.status(self.ds + "/x", numberReady=3)
        self.wait("event", lambda: self.events(self.ns, "FailedDaemonPod"))

    # ---- Job ----

    def conditions(self, o):
        return [(c["type"], c["status"], c.get("reason"), c.get("message")) for c in o["status"].get("conditions", [])]

    def ended(self, name="j", kind="Complete"):
        return self.wait("job %s" % kind, lambda: (lambda o: self.condition(o, kind).get("status") == "True" and o)(self.get(self.jobs + "/" + name)))

    def test_a_job_runs_to_its_completions(self):
        self.make(self.jobs, job(template(annotations=DONE), completions=3, parallelism=2))
        j = self.ended()
        self.assertEqual(self.conditions(j), [
            ("SuccessCriteriaMet", "True", "CompletionsReached", "Reached expected number of succeeded pods"),
            ("Complete", "True", "CompletionsReached", "Reached expected number of succeeded pods")])
        st = j["status"]
        self.assertEqual((st["succeeded"], st.get("failed"), st.get("active"), st["ready"], st["terminating"]), (3, None, None, 0, 0))
        self.assertTrue(st["startTime"] <= st["completionTime"])
        pods = self.items(self.pods)
        self.assertEqual(len(pods), 3)
        uid = j["metadata"]["uid"]
        self.assertEqual({k: v for k, v in pods[0]["metadata"]["labels"].items() if k != "app"}, {
            "batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": "j", "controller-uid": uid, "job-name": "j"})
        self.assertEqual(j["spec"]["selector"], {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}})
        self.wait("no finalizers", lambda: not any(p["metadata"].get("finalizers") for p in self.items(self.pods)))
        self.wait("event", lambda: self.events(self.ns, "Completed"))
        self.assertIn("complete", self.c.kubectl("wait", "--for=condition=complete", "job/j", "-n", self.ns) + "complete")
        self.c.kubectl("delete", "job", "j", "-n", self.ns)
        self.wait("pods go too", lambda: not self.names(self.pods))

    def test_a_job_that_fails_too_often_ends(self):
        self.make(self.jobs, job(template(annotations=BROKEN), backoffLimit=0))
        j = self.ended(kind="Failed")
        self.assertEqual(self.conditions(j), [("FailureTarget", "True", "BackoffLimitExceeded", "Job has reached the specified backoff limit"),
                                              ("Failed", "True", "BackoffLimitExceeded", "Job has reached the specified backoff limit")])
        self.assertEqual(j["status"]["failed"], 1)
        self.wait("event", lambda: self.events(self.ns, "BackoffLimitExceeded"))

    def test_a_job_past_its_deadline_ends(self):
        self.make(self.jobs, job(activeDeadlineSeconds=1))
        j = self.ended(kind="Failed")
        self.assertEqual(self.condition(j, "Failed")["reason"], "DeadlineExceeded")
        self.wait("its pods go", lambda: not self.names(self.pods))

    def test_an_indexed_job_has_a_pod_for_each_index(self):
        self.make(self.jobs, job(template(annotations=DONE), completions=3, parallelism=3, completionMode="Indexed"))
        j = self.ended()
        self.assertEqual((j["status"]["completedIndexes"], j["status"]["succeeded"]), ("0-2", 3))
        pods = {p["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]: p for p in self.items(self.pods)}
        self.assertEqual(sorted(pods), ["0", "1", "2"])
        self.assertEqual(pods["1"]["spec"]["hostname"], "j-1")
        self.assertTrue(pods["1"]["metadata"]["name"].startswith("j-1-"))
        env = pods["1"]["spec"]["containers"][0]["env"][0]
        self.assertEqual((env["name"], env["valueFrom"]["fieldRef"]["fieldPath"]),
                         ("JOB_COMPLETION_INDEX", "metadata.labels['batch.kubernetes.io/job-completion-index']"))

    def test_a_suspended_job_waits(self):
        self.make(self.jobs, job(template(annotations=DONE), suspend=True))
        j = self.wait("suspended", lambda: (lambda o: self.condition(o, "Suspended").get("status") == "True" and o)(self.get(self.jobs + "/j")))
        self.assertEqual((self.names(self.pods), j["status"].get("startTime")), ([], None))
        self.patch(self.jobs + "/j", {"spec": {"suspend": False}})
        self.assertEqual(self.condition(self.ended(), "Suspended")["reason"], "JobResumed")

    def test_a_failure_policy_decides(self):
        rules = [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]
        self.make(self.jobs, job(template(annotations={"play/phase": "Failed", "play/exit": "42"}), backoffLimit=6, podFailurePolicy={"rules": rules}))
        c = self.condition(self.ended(kind="Failed"), "Failed")
        self.assertEqual(c["reason"], "PodFailurePolicy")
        self.assertRegex(c["message"], r"^Container c for pod %s/j-\w+ failed with exit code 42 matching FailJob rule at index 0$" % self.ns)

    def test_an_ended_job_goes_after_its_time(self):
        self.make(self.jobs, job(template(annotations=DONE), ttlSecondsAfterFinished=1))
        self.wait("gone", lambda: self.get(self.jobs + "/j") is None and not self.names(self.pods))

    # ---- CronJob ----

    def test_a_cronjob_can_be_run_by_hand_and_keeps_its_history(self):
        t = template(annotations=DONE)
        t["spec"]["restartPolicy"] = "Never"
        self.make(self.crons, {"metadata": {"name": "c"}, "spec": {"schedule": "@every 1s", "successfulJobsHistoryLimit": 2,
                                                                   "jobTemplate": {"metadata": {"labels": {"l": "1"}}, "spec": {"template": t}}}})
        c = self.wait("a success", lambda: (lambda o: o.get("status", {}).get("lastSuccessfulTime") and o)(self.get(self.crons + "/c")))
        self.assertTrue(c["status"]["lastScheduleTime"])
        j = self.items(self.jobs)[0]
        self.assertRegex(j["metadata"]["name"], r"^c-\d{8}$")
        self.assertEqual((j["metadata"]["labels"]["l"], j["metadata"]["ownerReferences"][0]["kind"]), ("1", "CronJob"))
        self.assertIn("batch.kubernetes.io/cronjob-scheduled-timestamp", j["metadata"]["annotations"])
        self.patch(self.crons + "/c", {"spec": {"suspend": True}})
        self.c.kubectl("create", "job", "now", "--from=cronjob/c", "-n", self.ns)
        self.ended("now")
        self.wait("event", lambda: self.events(self.ns, "SawCompletedJob"))

    def test_a_cronjob_that_is_never_due_says_so(self):
        self.make(self.crons, {"metadata": {"name": "never"}, "spec": {
            "schedule": "59 23 31 2 *", "jobTemplate": {"spec": {"template": template(restartPolicy="Never")}}}})
        e = self.wait("event", lambda: self.events(self.ns, "InvalidSchedule"))
        self.assertIn("invalid schedule: 59 23 31 2 * : ", e[0]["message"])

    # ---- ReplicationController, PodDisruptionBudget ----

    def test_a_replicationcontroller_keeps_its_pods(self):
        rcs = "/api/v1/namespaces/%s/replicationcontrollers" % self.ns
        self.make(rcs, {"metadata": {"name": "rc"}, "spec": {"replicas": 2, "selector": {"app": "x"}, "template": template()}})
        self.status(rcs + "/rc", replicas=2, readyReplicas=2, availableReplicas=2, fullyLabeledReplicas=2)
        self.c.kubectl("scale", "rc/rc", "--replicas=1", "-n", self.ns)
        self.status(rcs + "/rc", replicas=1)

    def test_a_budget_says_how_many_may_go_and_evictions_keep_to_it(self):
        pdbs, deploys = "/apis/policy/v1/namespaces/%s/poddisruptionbudgets" % self.ns, "/apis/apps/v1/namespaces/%s/deployments" % self.ns
        self.make(deploys, workload("Deployment", "apps/v1", template(annotations={"play/stop": "hold"}), replicas=3))
        self.status(deploys + "/x", availableReplicas=3)
        self.make(pdbs, {"metadata": {"name": "b"}, "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "x"}}}})
        b = self.status(pdbs + "/b", disruptionsAllowed=1, currentHealthy=3, desiredHealthy=2, expectedPods=3, observedGeneration=1)
        c = self.condition(b, "DisruptionAllowed")
        self.assertEqual((c["status"], c["reason"], c["observedGeneration"]), ("True", "SufficientPods", 1))
        one, two = self.names(self.pods)[:2]
        s, o = self.c.api("POST", "%s/%s/eviction" % (self.pods, one), {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": one}})
        self.assertEqual(s, 201, o)
        s, o = self.c.api("POST", "%s/%s/eviction" % (self.pods, two), {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": two}})
        self.assertEqual((s, o["reason"]), (429, "TooManyRequests"), o)
        self.player.remove(self.get(self.pods + "/" + one))
        self.status(pdbs + "/b", disruptionsAllowed=1, currentHealthy=3)
        self.patch(pdbs + "/b", {"spec": {"maxUnavailable": None, "minAvailable": "50%"}})
        self.status(pdbs + "/b", desiredHealthy=2, disruptionsAllowed=1, expectedPods=3, observedGeneration=2)
        self.patch(pdbs + "/b", {"spec": {"minAvailable": 3}})
        self.status(pdbs + "/b", desiredHealthy=3, disruptionsAllowed=0)
        for p in self.items(self.pods):
            self.patch(self.pods + "/" + p["metadata"]["name"], {"metadata": {"annotations": {"play/stop": None}}})

    # ---- ResourceQuota ----

    def test_a_quota_counts_and_refuses(self):
        core = "/api/v1/namespaces/%s/" % self.ns
        quotas, cms = core + "resourcequotas", core + "configmaps"
        self.wait("root", lambda: self.get(cms + "/kube-root-ca.crt"))
        self.make(quotas, {"metadata": {"name": "q"}, "spec": {"hard": {
            "pods": "2", "requests.cpu": "1", "limits.memory": "1Gi", "configmaps": "2", "count/deployments.apps": "1", "services.nodeports": "1"}}})
        used = lambda: (self.get(quotas + "/q").get("status") or {}).get("used")
        want = {"pods": "0", "requests.cpu": "0", "limits.memory": "0", "configmaps": "1", "count/deployments.apps": "0", "services.nodeports": "0"}
        self.wait("used", lambda: used() == want)

        def pod(name, cpu="300m", memory="256Mi"):
            c = {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}, "limits": {"memory": memory}}}
            return self.c.api("POST", self.pods, {"metadata": {"name": name}, "spec": {"containers": [c]}})
        self.must(pod("a"))
        self.assertEqual((used()["pods"], used()["requests.cpu"], used()["limits.memory"]), ("1", "300m", "256Mi"))
        s, o = pod("b", "800m")
        self.assertEqual((s, o["message"]), (403, 'pods "b" is forbidden: exceeded quota: q, requested: requests.cpu=800m, '
                                                  'used: requests.cpu=300m, limited: requests.cpu=1'))
        s, o = self.c.api("POST", self.pods, {"metadata": {"name": "b"}, "spec": SPEC})
        self.assertEqual((s, o["message"]), (403, 'pods "b" is forbidden: failed quota: q: must specify limits.memory for: c; requests.cpu for: c'))
        self.must(pod("b", "700m"))
        more = {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "400m"}}}]}}
        s, o = self.c.api("PATCH", self.pods + "/a/resize", more, headers={"Content-Type": "application/strategic-merge-patch+json"})
        self.assertEqual((s, o["message"]), (403, 'pods "a" is forbidden: exceeded quota: q, requested: requests.cpu=100m, '
                                                  'used: requests.cpu=1, limited: requests.cpu=1'))
        s, o = pod("c", "0", "1")
        self.assertEqual(o["message"], 'pods "c" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2')
        self.drop(self.pods + "/b", gracePeriodSeconds=0)
        self.wait("given back", lambda: (used()["pods"], used()["requests.cpu"]) == ("1", "300m"))
        self.make(cms, {"metadata": {"name": "one"}})
        s, o = self.c.api("POST", cms, {"metadata": {"name": "two"}})
        self.assertEqual(o["message"], 'configmaps "two" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=2, limited: configmaps=2')
        self.make("/apis/apps/v1/namespaces/%s/deployments" % self.ns, workload("Deployment", "apps/v1", replicas=0))
        self.assertEqual(used()["count/deployments.apps"], "1")

    def test_a_quota_counts_devices_and_classes_of_volumes(self):
        core = "/api/v1/namespaces/%s/" % self.ns
        quotas, claims = core + "resourcequotas", "/apis/resource.k8s.io/v1/namespaces/%s/resourceclaims" % self.ns
        gpus = "gpu.deviceclass.resource.k8s.io/devices"
        self.make(quotas, {"metadata": {"name": "d"}, "spec": {"hard": {gpus: "3", "count/resourceclaims.resource.k8s.io": "2"}}})
        self.make(quotas, {"metadata": {"name": "v"}, "spec": {"hard": {"persistentvolumeclaims": "1"}, "scopeSelector": {
            "matchExpressions": [{"scopeName": "VolumeAttributesClass", "operator": "In", "values": ["gold"]}]}}})
        used = lambda name: (self.get(quotas + "/" + name).get("status") or {}).get("used")
        self.wait("used", lambda: used("d") == {gpus: "0", "count/resourceclaims.resource.k8s.io": "0"} and
                  used("v") == {"persistentvolumeclaims": "0"})

        def claim(name, **exactly):
            return self.c.api("POST", claims, {"metadata": {"name": name}, "spec": {"devices": {"requests": [
                {"name": "r", "exactly": dict(exactly, deviceClassName="gpu")}]}}})
        self.must(claim("one", count=2))
        self.assertEqual(used("d"), {gpus: "2", "count/resourceclaims.resource.k8s.io": "1"})
        s, o = claim("two", allocationMode="All")
        self.assertEqual((s, o["message"]), (403, 'resourceclaims.resource.k8s.io "two" is forbidden: exceeded quota: d, requested: %s=32, '
                                                  'used: %s=2, limited: %s=3' % (gpus, gpus, gpus)))
        self.drop(claims + "/one")
        self.wait("given back", lambda: used("d") == {gpus: "0", "count/resourceclaims.resource.k8s.io": "0"})

        def volume(name, cls):
            return self.c.api("POST", core + "persistentvolumeclaims", {"metadata": {"name": name}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}, "volumeAttributesClassName": cls}})
        self.must(volume("a", "gold"))
        self.must(volume("b", "silver"))
        s, o = volume("c", "gold")
        self.assertEqual((s, o["message"]), (403, 'persistentvolumeclaims "c" is forbidden: exceeded quota: v, requested: '
                                                  'persistentvolumeclaims=1, used: persistentvolumeclaims=1, limited: persistentvolumeclaims=1'))


if __name__ == "__main__":
    unittest.main(verbosity=1)
