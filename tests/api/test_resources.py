#!/usr/bin/env python3
"""Every resource, by its row: discovery says what schema/data/resources.tsv says, a minimal object is
created, shown as a Table, patched and deleted, and an invalid one is refused with upstream's causes."""
import json
import os
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
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}}]}},
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
NAMES = {"CustomResourceDefinition": "walks.example.com", "IPAddress": "10.96.3.4"}


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


if __name__ == "__main__":
    unittest.main()
