#!/usr/bin/env python3
"""Every resource, by its row: discovery says what schema/data/resources.tsv says, a minimal object is
created, shown as a Table, patched and deleted, and an invalid one is refused with upstream's causes."""
import json
import os
import subprocess
import sys
import time
import unittest

from cluster import ROOT, Cluster

DATA = os.path.join(ROOT, "controlplane/schema/data")


def rows():
    with open(os.path.join(DATA, "resources.tsv"), encoding="utf-8") as f:
        for line in f:
            if not line.startswith("#"):
                yield (line.rstrip("\n").split("\t") + [""] * 11)[:11]


def base(group, version):
    return "/apis/%s/%s" % (group, version) if group else "/api/" + version


def podspec(**kw):
    return dict({"containers": [{"name": "c", "image": "img"}]}, **kw)


LABELS = {"app": "x"}
TEMPLATE = {"metadata": {"labels": LABELS}, "spec": podspec()}
WORKLOAD = {"selector": {"matchLabels": LABELS}, "template": TEMPLATE}
JOB_TEMPLATE = {"spec": podspec(restartPolicy="Never")}
CSR = ("LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlISk1IRUNBUUF3RHpFTk1Bc0dBMVVFQXd3RWQyRnNhekJaTUJN"
       "R0J5cUdTTTQ5QWdFR0NDcUdTTTQ5QXdFSApBMElBQkxZZC9JdFAwODNFaC9GSWw4Wm92Y2V3WnhLcllHSjRvenE4L2thcWdkNnFS"
       "NTIrNzJZcEUyWGZJeTJzCmJLQWlxdGhNZnM3STVFN2N3Z3JlNU9VYWpUeWdBREFLQmdncWhrak9QUVFEQWdOSUFEQkZBaUVBdkNw"
       "ZXh4eXoKSndpZXpvYnRpRUpGZm1namlwbGtRU1BZTVpONU16cWM4dGdDSUVSMVFPYmFmZWVxaERpS2FyT0dPMVl6NDB0NQpydG5M"
       "NCswRFNXZ1I3WUtBCi0tLS0tRU5EIENFUlRJRklDQVRFIFJFUVVFU1QtLS0tLQo=")

# What a minimal object of each kind has beside its name.
MINIMAL = {
    "APIService": {"spec": {"group": "walk.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10}},
    "CustomResourceDefinition": {"spec": {"group": "example.com", "scope": "Namespaced", "names": {
        "plural": "walks", "kind": "Walk"}, "versions": [{"name": "v1", "served": True, "storage": True, "schema": {
            "openAPIV3Schema": {"type": "object"}}}]}},
    "ConfigMap": {"data": {"k": "v"}},
    "Endpoints": {"subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}]},
    "Event": {"involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "reason": "R", "type": "Normal"},
    "LimitRange": {"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}},
    "Namespace": {},
    "Node": {},
    "PersistentVolumeClaim": {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}},
    "PersistentVolume": {"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
                                  "hostPath": {"path": "/tmp"}}},
    "Pod": {"spec": podspec()},
    "PodTemplate": {"template": TEMPLATE},
    "ReplicationController": {"spec": {"selector": LABELS, "template": TEMPLATE}},
    "ResourceQuota": {"spec": {"hard": {"services": "5"}}},
    "Secret": {"data": {"k": "dg=="}},
    "ServiceAccount": {},
    "Service": {"spec": {"ports": [{"port": 80}]}},
    "MutatingAdmissionPolicy": {"spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                                                "resources": ["pods"]}]},
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'test', path: '/kind', value: 'Pod'}]"}}]}},
    "MutatingAdmissionPolicyBinding": {"spec": {"policyName": "p"}},
    "MutatingWebhookConfiguration": {"webhooks": [{
        "name": "a.b.example", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {"url": "https://example.com/x"},
        "rules": [{"apiGroups": ["none.example"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["xs"]}]}]},
    "ValidatingWebhookConfiguration": {"webhooks": [{
        "name": "a.b.example", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {"url": "https://example.com/x"},
        "rules": [{"apiGroups": ["none.example"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["xs"]}]}]},
    "ValidatingAdmissionPolicy": {"spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": ["none.example"], "apiVersions": ["v1"],
                                                "operations": ["CREATE"], "resources": ["xs"]}]},
        "validations": [{"expression": "true"}]}},
    "ValidatingAdmissionPolicyBinding": {"spec": {"policyName": "p", "validationActions": ["Deny"]}},
    "ControllerRevision": {"revision": 1, "data": {"a": 1}},
    "DaemonSet": {"spec": WORKLOAD},
    "Deployment": {"spec": WORKLOAD},
    "ReplicaSet": {"spec": WORKLOAD},
    "StatefulSet": {"spec": dict(WORKLOAD, serviceName="s")},
    "HorizontalPodAutoscaler": {"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d",
                                                                              "apiVersion": "apps/v1"}}},
    "CronJob": {"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": JOB_TEMPLATE}}}},
    "Job": {"spec": {"template": JOB_TEMPLATE}},
    "CertificateSigningRequest": {"spec": {"request": CSR, "signerName": "example.com/x", "usages": ["client auth"]}},
    "Lease": {"spec": {"holderIdentity": "me"}},
    "EndpointSlice": {"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}]},
    "FlowSchema": {"spec": {"priorityLevelConfiguration": {"name": "catch-all"}}},
    "PriorityLevelConfiguration": {"spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}},
    "IngressClass": {"spec": {"controller": "example.com/c"}},
    "Ingress": {"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}},
    "IPAddress": {"spec": {"parentRef": {"resource": "services", "name": "s", "namespace": "default"}}},
    "NetworkPolicy": {"spec": {"podSelector": {}}},
    "ServiceCIDR": {"spec": {"cidrs": ["10.99.0.0/24"]}},
    "RuntimeClass": {"handler": "runc"},
    "PodDisruptionBudget": {"spec": {"minAvailable": 1, "selector": {"matchLabels": LABELS}}},
    "ClusterRoleBinding": {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
                           "subjects": [{"kind": "User", "name": "u"}]},
    "ClusterRole": {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
    "RoleBinding": {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
                    "subjects": [{"kind": "ServiceAccount", "name": "u", "namespace": "default"}]},
    "Role": {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
    "DeviceClass": {"spec": {}},
    "ResourceClaim": {"spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "d.example"}}]}}},
    "ResourceClaimTemplate": {"spec": {"spec": {"devices": {"requests": [
        {"name": "r", "exactly": {"deviceClassName": "d.example"}}]}}}},
    "ResourceSlice": {"spec": {"driver": "d.example", "nodeName": "n",
                               "pool": {"name": "n", "generation": 1, "resourceSliceCount": 1}, "devices": []}},
    "PriorityClass": {"value": 5},
    "CSIDriver": {"spec": {}},
    "CSINode": {"spec": {"drivers": []}},
    "CSIStorageCapacity": {"storageClassName": "s", "capacity": "1Gi"},
    "StorageClass": {"provisioner": "example.com/p"},
    "VolumeAttachment": {"spec": {"attacher": "a.example", "nodeName": "n", "source": {"persistentVolumeName": "pv"}}},
    "VolumeAttributesClass": {"driverName": "d.example", "parameters": {"a": "b"}},
}
NAMES = {"APIService": "v1.walk.example.com", "CustomResourceDefinition": "walks.example.com", "IPAddress": "10.96.3.4"}


class Resources(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.c = Cluster("memory")
        cls.c.api("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
        cls.served = {}
        gvs = ["/api/v1"]
        for g in cls.c.api("GET", "/apis")[1]["groups"]:
            gvs += ["/apis/" + v["groupVersion"] for v in g["versions"]]
        for gv in gvs:
            for r in cls.c.api("GET", gv)[1]["resources"]:
                cls.served[gv + "/" + r["name"]] = r

    @classmethod
    def tearDownClass(cls):
        cls.c.close()

    def stored(self):
        for r in rows():
            if base(r[0], r[1]) + "/" + r[2] in self.served and "list" in r[8] and "create" in r[8]:
                yield r

    def collection(self, r):
        ns = "/namespaces/default" if r[5] == "1" else ""
        return base(r[0], r[1]) + ns + "/" + r[2]

    def obj(self, r, name=None):
        body = json.loads(json.dumps(MINIMAL[r[4]]))
        if r[0] == "events.k8s.io":
            body = {"regarding": body["involvedObject"], "reason": "R", "type": "Normal", "action": "A",
                    "reportingController": "example.com/c", "reportingInstance": "i",
                    "eventTime": "2026-01-01T00:00:00.000000Z"}
        body.update(apiVersion=(r[0] + "/" if r[0] else "") + r[1], kind=r[4],
                    metadata={"name": name or NAMES.get(r[4], "walk")})
        return body

    def test_discovery_says_what_the_data_says(self):
        for r in rows():
            path = base(r[0], r[1]) + "/" + r[2]
            if path not in self.served:
                continue
            d = self.served[path]
            with self.subTest(path):
                self.assertEqual((d["kind"], d["singularName"], d["namespaced"]), (r[4], r[3], r[5] == "1"))
                self.assertEqual(",".join(d["verbs"]), r[8])
                self.assertEqual(",".join(d.get("shortNames", [])), r[6])
                self.assertEqual(",".join(d.get("categories", [])), r[7])
                self.assertEqual(d.get("storageVersionHash", ""), r[10])
                subs = [n[len(path) + 1:] for n in self.served if n.startswith(path + "/")]
                self.assertEqual(sorted(subs), sorted(s.split("(")[0] for s in r[9].split(" ") if s))

    def test_a_minimal_object_lives_and_goes(self):
        for r in self.stored():
            path = self.collection(r)
            body = self.obj(r)
            name = body["metadata"]["name"]
            with self.subTest(path):
                status, made = self.c.api("POST", path, body)
                self.assertEqual(status, 201, made)
                self.assertEqual((made["kind"], made["apiVersion"]), (r[4], body["apiVersion"]))
                status, got = self.c.api("GET", path + "/" + name)
                self.assertEqual((status, got), (200, made))
                accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
                status, table = self.c.api("GET", path, headers=accept)
                self.assertEqual((status, table["kind"]), (200, "Table"))
                if r[4] != "IPAddress":  # upstream's rows of IPAddress have a cell more than columns
                    for row in table["rows"]:
                        self.assertEqual(len(row["cells"]), len(table["columnDefinitions"]), row["cells"])
                patch = {"metadata": {"labels": {"walked": "yes"}}}
                status, now = self.c.api("PATCH", path + "/" + name, patch,
                                         headers={"Content-Type": "application/merge-patch+json"})
                self.assertEqual((status, now["metadata"].get("labels", {}).get("walked")), (200, "yes"), now)
                status, items = self.c.api("GET", path + "?labelSelector=walked%3Dyes")
                self.assertEqual([o["metadata"]["name"] for o in items["items"]], [name])
                now["metadata"]["labels"]["walked"] = "twice"
                status, put = self.c.api("PUT", path + "/" + name, now)
                self.assertEqual((status, put["metadata"]["labels"]["walked"]), (200, "twice"), put)
                status, _ = self.c.api("DELETE", path + "/" + name)
                self.assertEqual(status, 200)

    def test_kubectl_gets_every_kind(self):
        for r in self.stored():
            with self.subTest(r[2]):
                self.c.kubectl("get", ".".join([r[2], r[1], r[0]]) if r[0] else r[2], "-o", "wide")

    # ---- Validation ----

    def test_invalid_objects_have_upstreams_causes(self):
        """invalid.json was made with upstream's own validation code: changes of good objects, [path to a
        member, new value (missing: the member goes; {"$again": 0}: the list's first element once more at
        its end), the causes]."""
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "invalid.json"), encoding="ascii") as f:
            groups = json.load(f)
        bad = []
        for g in groups:
            for case in g["cases"]:
                obj = json.loads(json.dumps(g["base"]))
                at = obj
                for key in case[0][:-1]:
                    at = at[key]
                if len(case) == 2:
                    del at[case[0][-1]]
                elif case[1] == {"$again": 0}:
                    at[case[0][-1]].append(at[case[0][-1]][0])
                else:
                    at[case[0][-1]] = case[1]
                status, s = self.c.api("POST", g["path"] + "?dryRun=All", obj)
                causes = s.get("details", {}).get("causes", []) if status == 422 else [status]
                got = sorted({"%s %s: %s" % (c["reason"], c.get("field", ""), c["message"]) for c in causes}
                             if status == 422 else causes)
                if got != case[-1]:
                    bad.append((g["path"], case, got))
        self.assertEqual(bad[:5], [])

    def test_the_coverage_page_says_what_the_tables_say(self):
        page = subprocess.run([sys.executable, os.path.join(ROOT, "controlplane/resources/gen_coverage.py")],
                              stdout=subprocess.PIPE, text=True, check=True).stdout
        with open(os.path.join(ROOT, "docs/api-coverage.md"), encoding="utf-8") as f:
            self.assertEqual(f.read(), page)
        for r in rows():
            if r[0] == "metrics.k8s.io":
                continue  # served where nodes are, while its APIService is local
            self.assertEqual("| %s | %s | not there |" % (r[0] or "core", r[2]) not in page,
                             base(r[0], r[1]) + "/" + r[2] in self.served, r[2])

    # ---- Subresources and admission ----

    def test_subresources_of_pods_change_their_part_only(self):
        core = self.namespace("parts")
        spec = podspec()
        spec["containers"][0]["resources"] = {"requests": {"cpu": "1"}}
        pod = self.make(core + "/pods", {"metadata": {"name": "p"}, "spec": spec})
        status, s = self.c.api("POST", core + "/pods/p/binding", {"target": {"kind": "Node", "name": "nowhere"}})
        self.assertEqual(status, 201, s)
        status, pod = self.c.api("GET", core + "/pods/p")
        self.assertEqual((pod["spec"]["nodeName"], pod["metadata"]["generation"]), ("nowhere", 1))
        pod["spec"]["tolerations"] = [{"key": "k", "operator": "Exists"}]
        status, pod = self.c.api("PUT", core + "/pods/p", pod)
        self.assertEqual((status, [t["key"] for t in pod["spec"]["tolerations"]]), (
            200, ["k", "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]), pod)
        pod["spec"]["ephemeralContainers"] = [{"name": "e", "image": "i"}]
        status, now = self.c.api("PUT", core + "/pods/p/ephemeralcontainers", pod)
        self.assertEqual((status, [e["name"] for e in now["spec"]["ephemeralContainers"]]), (200, ["e"]), now)
        now["spec"]["ephemeralContainers"] = []
        status, s = self.c.api("PUT", core + "/pods/p/ephemeralcontainers", now)
        self.assertEqual((status, s["details"]["causes"][0]["message"]),
                         (422, 'Forbidden: existing ephemeral containers "e" may not be removed\n'))
        ct = {"Content-Type": "application/strategic-merge-patch+json"}
        more = {"spec": {"ephemeralContainers": [{"name": "f", "image": "i"}]}}
        status, now = self.c.api("PATCH", core + "/pods/p/ephemeralcontainers", more, headers=ct)
        self.assertEqual((status, now["metadata"]["generation"]), (200, 4), now)
        self.assertEqual({e["name"]: e["imagePullPolicy"] for e in now["spec"]["ephemeralContainers"]},
                         {"e": "Always", "f": "Always"})
        resize = {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}}
        status, s = self.c.api("PATCH", core + "/pods/p/resize", resize, headers=ct)
        self.assertEqual((status, s["message"]), (403, 'pods "p" is forbidden: node "nowhere" not found'))
        node = self.make("/api/v1/nodes", {"metadata": {"name": "nowhere"}, "status": {"allocatable": {
            "cpu": "1500m", "memory": "1Gi"}}})
        status, s = self.c.api("PATCH", core + "/pods/p/resize", resize, headers=ct)
        self.assertEqual((status, s["message"], s["details"]["causes"]), (
            403, 'pods "p" is forbidden: node didn\'t have enough allocatable resources: cpu, requested: 2000, '
            'allocatable: 1500', [{"reason": "NodeCapacity"}]))
        node["status"]["allocatable"]["cpu"] = "4"
        self.assertEqual(self.c.api("PUT", "/api/v1/nodes/nowhere/status", node)[0], 200)
        self.addCleanup(self.c.api, "DELETE", "/api/v1/nodes/nowhere")
        status, now = self.c.api("PATCH", core + "/pods/p/resize", resize, headers=ct)
        self.assertEqual((status, now["spec"]["containers"][0]["resources"]), (200, {"requests": {"cpu": "2"}}), now)
        resize["spec"]["containers"][0]["resources"]["requests"] = {"cpu": None}
        status, s = self.c.api("PATCH", core + "/pods/p/resize", resize, headers=ct)
        self.assertEqual((status, sorted(c["message"] for c in s["details"]["causes"])), (422, [
            "Forbidden: resource requests cannot be removed",
            'Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing']))

    def test_a_json_patch_adds_to_a_status_that_nobody_wrote(self):
        path = "/apis/resource.k8s.io/v1/namespaces/%s/resourceclaims" % self.namespace("claims").rsplit("/", 1)[-1]
        made = self.make(path, {"metadata": {"name": "c"}, "spec": {"devices": {"requests": [
            {"name": "r", "exactly": {"deviceClassName": "d.example.com"}}]}}})
        self.assertEqual(made["status"], {})
        status, o = self.c.api("PATCH", path + "/c/status", [{"op": "add", "path": "/status/allocation", "value": {}}],
                               headers={"Content-Type": "application/json-patch+json"})
        self.assertEqual((status, o["status"]["allocation"] is not None), (200, True), o)

    def test_pod_security_holds_pods_to_the_standards(self):
        label = "pod-security.kubernetes.io/"
        core = self.namespace("standards", {label + "enforce": "baseline", label + "warn": "restricted"})
        bad = self.make(core + "/pods", {"metadata": {"name": "p"}, "spec": podspec(hostNetwork=True, hostPID=True)}, 403)
        self.assertEqual(bad["message"], 'pods "p" is forbidden: violates PodSecurity "baseline:latest": '
                         'host namespaces (hostNetwork=true, hostPID=true)')
        self.make(core + "/pods", {"metadata": {"name": "p"}, "spec": podspec()})
        code, out = self.c.kubectl("create", "deployment", "d", "--image=i", "-n", "standards", ok=False)
        self.assertEqual(code, 0, out)
        self.assertIn('Warning: would violate PodSecurity "restricted:latest": allowPrivilegeEscalation != false '
                      '(container "i" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities', out)
        bad = self.make("/api/v1/namespaces", {"metadata": {"name": "x", "labels": {label + "enforce": "no"}}}, 422)
        self.assertEqual(bad["details"]["causes"], [{
            "reason": "FieldValueInvalid", "field": "metadata.labels[%senforce]" % label,
            "message": 'Invalid value: "no": must be one of privileged, baseline, restricted'}])

    def namespace(self, name, labels=None):
        self.c.api("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels or {}}})
        self.c.api("POST", "/api/v1/namespaces/%s/serviceaccounts" % name, {"metadata": {"name": "default"}})
        return "/api/v1/namespaces/" + name

    def make(self, path, body, want=201):
        status, made = self.c.api("POST", path, body)
        self.assertEqual(status, want, made)
        return made

    def test_an_eviction_asks_the_budget(self):
        core = self.namespace("evict")
        pods, budgets = core + "/pods", "/apis/policy/v1/namespaces/evict/poddisruptionbudgets"
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
        pod = self.make(pods, {"metadata": {"name": "p", "labels": LABELS}, "spec": podspec(nodeName="n")})
        pod["status"].update(phase="Running", conditions=[{"type": "Ready", "status": "True"}])
        self.assertEqual(self.c.api("PUT", pods + "/p/status", pod)[0], 200)
        self.make(budgets, {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": LABELS}}})

        def refused(message):
            status, s = self.c.api("POST", pods + "/p/eviction", eviction)
            self.assertEqual((status, s["reason"], s["message"], s["details"]["causes"]),
                             (429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.",
                              [{"reason": "DisruptionBudget", "message": message}]))

        def status(**kw):
            b = self.c.api("GET", budgets + "/b")[1]
            b["status"] = dict(observedGeneration=1, expectedPods=2, **kw)
            self.assertEqual(self.c.api("PUT", budgets + "/b/status", b)[0], 200)
        refused("The disruption budget b is still being processed by the server.")
        status(disruptionsAllowed=0, currentHealthy=1, desiredHealthy=1)
        refused("The disruption budget b needs 1 healthy pods and has 1 currently")
        status(disruptionsAllowed=1, currentHealthy=2, desiredHealthy=1)
        self.make(pods + "/p/eviction", dict(eviction, deleteOptions={"dryRun": ["All"]}))
        self.assertNotIn("deletionTimestamp", self.c.api("GET", pods + "/p")[1]["metadata"])
        self.make(pods + "/p/eviction", eviction)
        gone = self.c.api("GET", pods + "/p")[1]
        self.assertIn("deletionTimestamp", gone["metadata"])
        self.assertEqual([c["reason"] for c in gone["status"]["conditions"] if c["type"] == "DisruptionTarget"],
                         ["EvictionByEvictionAPI"])
        budget = self.c.api("GET", budgets + "/b")[1]["status"]
        self.assertEqual((budget["disruptionsAllowed"], list(budget["disruptedPods"])), (0, ["p"]))

    def test_limit_ranges_give_defaults_and_bounds(self):
        core = self.namespace("limits")
        self.make(core + "/limitranges", {"metadata": {"name": "l"}, "spec": {"limits": [
            {"type": "Container", "default": {"cpu": "2", "memory": "1Gi"}, "defaultRequest": {"cpu": "1"},
             "max": {"cpu": "4"}, "min": {"cpu": "100m"}},
            {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}]}})
        pod = self.make(core + "/pods", {"metadata": {"name": "p"}, "spec": podspec()})
        self.assertEqual(pod["spec"]["containers"][0]["resources"],
                         {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}})
        self.assertEqual(pod["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
                         "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c")
        big = podspec()
        big["containers"] = [dict(big["containers"][0], resources={"limits": {"cpu": "5"}, "requests": {"cpu": "1m"}})]
        bad = self.make(core + "/pods", {"metadata": {"name": "q"}, "spec": big}, 403)
        self.assertEqual(bad["message"], 'pods "q" is forbidden: [minimum cpu usage per Container is 100m, but request is 1m, '
                         'maximum cpu usage per Container is 4, but limit is 5]')
        claim = dict(MINIMAL["PersistentVolumeClaim"], metadata={"name": "c"})
        claim["spec"] = dict(claim["spec"], resources={"requests": {"storage": "2Gi"}})
        bad = self.make(core + "/persistentvolumeclaims", claim, 403)
        self.assertEqual(bad["message"], 'persistentvolumeclaims "c" is forbidden: maximum storage usage per '
                         'PersistentVolumeClaim is 1Gi, but request is 2Gi')

    def test_classes_that_are_default(self):
        core = self.namespace("classes")
        note = {"storageclass.kubernetes.io/is-default-class": "true"}
        self.make("/apis/storage.k8s.io/v1/storageclasses",
                  {"metadata": {"name": "fast", "annotations": note}, "provisioner": "example.com/p"})
        claim = self.make(core + "/persistentvolumeclaims", dict(MINIMAL["PersistentVolumeClaim"], metadata={"name": "c"}))
        self.assertEqual(claim["spec"]["storageClassName"], "fast")
        note = {"ingressclass.kubernetes.io/is-default-class": "true"}
        self.make("/apis/networking.k8s.io/v1/ingressclasses",
                  {"metadata": {"name": "web", "annotations": note}, "spec": {"controller": "example.com/c"}})
        ingress = self.make("/apis/networking.k8s.io/v1/namespaces/classes/ingresses",
                            dict(MINIMAL["Ingress"], metadata={"name": "i"}))
        self.assertEqual(ingress["spec"]["ingressClassName"], "web")
        for path in ("/apis/storage.k8s.io/v1/storageclasses/fast", "/apis/networking.k8s.io/v1/ingressclasses/web"):
            self.c.api("DELETE", path)

    def test_runtime_classes_add_to_pods(self):
        core = self.namespace("runtimes")
        bad = self.make(core + "/pods", {"metadata": {"name": "p"}, "spec": podspec(runtimeClassName="none")}, 403)
        self.assertEqual(bad["message"], 'pods "p" is forbidden: pod rejected: RuntimeClass "none" not found')
        self.make("/apis/node.k8s.io/v1/runtimeclasses",
                  {"metadata": {"name": "rc"}, "handler": "h", "overhead": {"podFixed": {"cpu": "10m"}},
                   "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "k", "operator": "Exists"}]}})
        pod = self.make(core + "/pods", {"metadata": {"name": "p"}, "spec": podspec(runtimeClassName="rc")})["spec"]
        self.assertEqual((pod["overhead"], pod["nodeSelector"]), ({"cpu": "10m"}, {"a": "b"}))
        self.assertIn({"key": "k", "operator": "Exists"}, pod["tolerations"])
        bad = self.make(core + "/pods", {"metadata": {"name": "q"}, "spec": podspec(overhead={"cpu": "1"})}, 403)
        self.assertIn("Pod Overhead set without corresponding RuntimeClass", bad["message"])

    def test_events_end(self):
        c = Cluster("memory", ["--event-ttl", "2s"])
        try:
            path = "/api/v1/namespaces/default/events"
            c.api("POST", path, dict(MINIMAL["Event"], metadata={"name": "e"}))
            self.assertEqual(len(c.api("GET", path)[1]["items"]), 1)
            until = time.time() + 20
            while c.api("GET", path)[1]["items"] and time.time() < until:
                time.sleep(0.2)
            self.assertEqual(c.api("GET", path)[1]["items"], [])
        finally:
            c.close()

    def test_a_new_cluster_has_its_system_objects(self):
        classes = self.c.api("GET", "/apis/scheduling.k8s.io/v1/priorityclasses")[1]["items"]
        self.assertEqual({p["metadata"]["name"]: p["value"] for p in classes if p["metadata"]["name"].startswith("system-")},
                         {"system-node-critical": 2000001000, "system-cluster-critical": 2000000000})
        self.assertEqual(self.c.api("GET", "/apis/networking.k8s.io/v1/servicecidrs/kubernetes")[1]["spec"],
                         {"cidrs": ["10.96.0.0/16"]})


if __name__ == "__main__":
    unittest.main()
