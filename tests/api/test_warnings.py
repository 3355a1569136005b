#!/usr/bin/env python3
"""What valid writes are warned about: the Warning headers, with upstream's texts in upstream's order."""
import base64
import unittest

from cluster import Cluster

NS = "/api/v1/namespaces/default/"


def obj(gv, kind, name, spec=None, annotations=None, **more):
    o = {"apiVersion": gv, "kind": kind, "metadata": {"name": name}}
    if annotations:
        o["metadata"]["annotations"] = annotations
    if spec is not None:
        o["spec"] = spec
    return dict(o, **more)


def pod_spec(**more):
    return dict({"containers": [{"name": "a", "image": "i"}]}, **more)


def box(**more):
    return {"containers": [dict(name="a", image="i", **more)]}


NAME = "this is used in %s, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]"
NULL = "a null labelSelector results in matching no pod"

PODS = [
    ("a name with dots", "a.b", pod_spec(), None, ["metadata.name: " + NAME % "the Pod's hostname"]),
    ("labels of nodes", "p", pod_spec(nodeSelector={"beta.kubernetes.io/os": "linux"}, affinity={"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "beta.kubernetes.io/arch", "operator": "Exists"}]}]},
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {
            "matchExpressions": [{"key": "zone", "operator": "In", "values": ["a b"]}]}}]}}), None, [
                'spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead',
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]."
                "matchExpressions[0].key: beta.kubernetes.io/arch is deprecated since v1.14; use \"kubernetes.io/arch\" instead",
                None]),
    ("spread and affinity without selectors", "p", pod_spec(
        topologySpreadConstraints=[{"maxSkew": 1, "topologyKey": "failure-domain.beta.kubernetes.io/zone",
                                    "whenUnsatisfiable": "ScheduleAnyway"}],
        affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "z"}]},
                  "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                      {"weight": 1, "podAffinityTerm": {"topologyKey": "z"}}]}}), None, [
        'spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; '
        'use "topology.kubernetes.io/zone" instead',
        "spec.topologySpreadConstraints[0].labelSelector: " + NULL,
        "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: " + NULL,
        "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector: "
        + NULL]),
    ("annotations that became fields", "p", pod_spec(), {
        "scheduler.alpha.kubernetes.io/critical-pod": "", "container.seccomp.security.alpha.kubernetes.io/a": "x"}, [
        'metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the '
        '"priorityClassName" field instead',
        'metadata.annotations[container.seccomp.security.alpha.kubernetes.io/a]: non-functional in v1.27+; use the '
        '"seccompProfile" field instead']),
    ("paths of volumes that overlap", "p", pod_spec(volumes=[
        {"name": "c", "configMap": {"name": "m", "items": [{"key": "a", "path": "p"}, {"key": "b", "path": "p/q"}]}},
        {"name": "r", "projected": {"sources": [{"secret": {"name": "s", "items": [{"key": "a", "path": "x"}]}},
                                                {"serviceAccountToken": {"path": "x"}}]}}],
                                                 serviceAccountName="s"), None, [
        'volume "c" (ConfigMap "m"): overlapping paths: "p/q" with "p"',
        'volume "r" (Projected): overlapping paths: "x" (ServiceAccountToken) with "x" (Secret "s")']),
    ("names that occur twice", "p", pod_spec(imagePullSecrets=[{"name": "a"}, {"name": "a"}, {}]), None, [
        'spec.imagePullSecrets[1].name: duplicate name "a"', 'spec.imagePullSecrets[2].name: invalid empty name ""']),
    ("half a byte", "p", box(resources={"limits": {"memory": "1500m"}, "requests": {"memory": "1"}}), None, [
        'spec.containers[0].resources.limits[memory]: fractional byte value "1500m" is invalid, must be an integer']),
    ("variables that hide each other", "p", box(env=[
        {"name": "X", "value": "1"}, {"name": "X", "value": "$(X)2"}, {"name": "X", "value": "3"}]), None, [
        'spec.containers[0].env[2]: hides previous definition of "X", which may be dropped when using apply']),
    ("ports", "p", box(ports=[{"containerPort": 80}, {"containerPort": 80, "hostPort": 81},
                              {"containerPort": 80, "hostPort": 81, "hostIP": "1.2.3.4"},
                              {"containerPort": 82, "hostIP": "1.2.3.4"}]), None, [
        "spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
        "spec.containers[0].ports[2]: overlapping port definition with spec.containers[0].ports[0]",
        "spec.containers[0].ports[2]: dangerously ambiguous port definition with spec.containers[0].ports[1]",
        "spec.containers[0].ports[3]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:82 Protocol:TCP "
        "HostIP:1.2.3.4}"]),
    ("names of ports", "p", {"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 80, "name": "w"}]},
                                            {"name": "b", "image": "i", "ports": [{"containerPort": 81, "name": "w"}]}]},
     None, ['spec.containers[1].ports[0]: duplicate port name "w" with spec.containers[0].ports[0], services and probes '
            'that select ports by name will use spec.containers[0].ports[0]']),
    ("IPv6 that could be shorter", "p", pod_spec(hostAliases=[{"ip": "2001:DB8:0::1", "hostnames": ["h"]}]), None, [
        'spec.hostAliases[0].ip: IPv6 address "2001:DB8:0::1" should be in RFC 5952 canonical format ("2001:db8::1")']),
]

TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": pod_spec(nodeSelector={"beta.kubernetes.io/os": "l"})}
OS = 'nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead'
OTHERS = [
    ("apis/apps/v1/namespaces/default/deployments", obj("apps/v1", "Deployment", "a.b", {
        "selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}),
     ["metadata.name: " + NAME % "Pod names and hostnames", "spec.template.spec." + OS]),
    ("apis/apps/v1/namespaces/default/statefulsets", obj("apps/v1", "StatefulSet", "s", {
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod_spec()},
        "volumeClaimTemplates": [{"metadata": {"name": "v"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1500m"}}}}]}),
     ['spec.volumeClaimTemplates[0].resources.requests[storage]: fractional byte value "1500m" is invalid, must be an '
      'integer']),
    ("apis/batch/v1/namespaces/default/cronjobs", obj("batch/v1", "CronJob", "c", {
        "schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": dict(
            TEMPLATE["spec"], restartPolicy="Never")}}}}), ["spec.jobTemplate.spec.template.spec." + OS]),
    (NS + "services", obj("v1", "Service", "h", {"clusterIP": "None", "sessionAffinity": "ClientIP", "externalIPs": ["1.2.3.4"],
                                                 "ports": [{"port": 1}]},
                          {"service.kubernetes.io/topology-aware-hints": "auto"}),
     ["annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode "
      "instead", "spec.externalIPs is ignored for headless services", "spec.SessionAffinity is ignored for headless services"]),
    (NS + "services", obj("v1", "Service", "d", {"externalIPs": ["1.2.3.4"], "ports": [{"port": 1}],
                                                 "trafficDistribution": "PreferClose"}),
     ["spec.externalIPs is deprecated and may no longer be implemented in some clusters",
      'spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"']),
    (NS + "endpoints", obj("v1", "Endpoints", "e", subsets=[{"addresses": [{"ip": "FE80::1"}]}]), None),
    ("apis/networking.k8s.io/v1/namespaces/default/networkpolicies", obj("networking.k8s.io/v1", "NetworkPolicy", "n", {
        "podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "2001:DB8::/32"}}]}]}),
     ['spec.ingress[0].from[0].ipBlock.cidr: IPv6 CIDR value "2001:DB8::/32" should be in RFC 5952 canonical format '
      '("2001:db8::/32")']),
    ("apis/networking.k8s.io/v1/namespaces/default/ingresses", obj("networking.k8s.io/v1", "Ingress", "i", {
        "defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}, {"kubernetes.io/ingress.class": "x"}),
     ['annotation "kubernetes.io/ingress.class" is deprecated, please use \'spec.ingressClassName\' instead']),
    (NS + "secrets", obj("v1", "Secret", "t", type="kubernetes.io/tls", data={
        "tls.crt": base64.b64encode(b"x").decode(), "tls.key": base64.b64encode(b"y").decode()}),
     ["tls: failed to find any PEM data in certificate input"]),
    (NS + "serviceaccounts", obj("v1", "ServiceAccount", "a", None, {"kubernetes.io/enforce-mountable-secrets": "true"}),
     ["metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in v1.32+; prefer separate namespaces to "
      "isolate access to mounted secrets"]),
    ("api/v1/nodes", obj("v1", "Node", "n", {"externalID": "x"}),
     ["spec.externalID: this field is deprecated, and is unused by Kubernetes"]),
    (NS + "resourcequotas", obj("v1", "ResourceQuota", "q", {"hard": {"cpu": "3", "limits.cpu": "2"}}),
     ["ResourceQuota cpu (3) should be less than limits.cpu (2)"]),
    ("api/v1/persistentvolumes", obj("v1", "PersistentVolume", "p", {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"},
        "persistentVolumeReclaimPolicy": "Recycle"}),
     ["spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to "
      "use dynamic provisioning."]),
]


class Warnings(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.c = Cluster(extra=["--disable-admission", "ServiceAccount"])

    @classmethod
    def tearDownClass(cls):
        cls.c.close()

    def warnings(self, method, path, body=None):
        s, h, out = self.c.http(method, path, body)
        self.assertLess(s, 300, out)
        return [w[len('299 - "'):-1].replace('\\"', '"') for w in h.get_all("Warning", [])]

    def test_pods(self):
        for what, name, spec, annotations, want in PODS:
            with self.subTest(what):
                got = self.warnings("POST", NS + "pods?dryRun=All", obj("v1", "Pod", name, spec, annotations))
                self.assertEqual(len(got), len(want), got)
                for g, w in zip(got, want):
                    self.assertEqual(g, w if w is not None else g)

    def test_other_kinds(self):
        for path, body, want in OTHERS:
            with self.subTest(path):
                got = self.warnings("POST", "/" + path.lstrip("/") + "?dryRun=All", body)
                if want is None:
                    want = ["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
                            'subsets[0].addresses[0].ip: IPv6 address "FE80::1" should be in RFC 5952 canonical format '
                            '("fe80::1")']
                self.assertEqual(got, want)

    def test_whoever_uses_a_deprecated_kind_is_told(self):
        want = ["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"]
        self.assertEqual(self.warnings("GET", NS + "endpoints"), want)
        self.assertEqual(self.warnings("GET", "/api/v1/componentstatuses"), ["v1 ComponentStatus is deprecated in v1.19+"])
        self.assertIn("Warning: " + want[0], self.c.kubectl("get", "endpoints", ok=False)[1])

    def test_updates_warn_when_the_spec_changes(self):
        path = "/apis/apps/v1/namespaces/default/deployments"
        body = obj("apps/v1", "Deployment", "d", {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE})
        self.assertEqual(len(self.warnings("POST", path, body)), 1)
        body["metadata"]["labels"] = {"x": "y"}
        self.assertEqual(self.warnings("PUT", path + "/d", body), [])
        body["spec"]["replicas"] = 2
        self.assertEqual(len(self.warnings("PUT", path + "/d", body)), 1)

    def test_many_warnings_are_cut(self):
        env = [{"name": "X" * 200, "value": "1"} for _ in range(60)]
        got = self.warnings("POST", NS + "pods?dryRun=All", obj("v1", "Pod", "p", box(env=env)))
        self.assertTrue(all(len(w) <= 256 for w in got), got)
        self.assertLess(sum(map(len, got)), 4096 + 256)
        self.assertGreater(len(got), 10)


if __name__ == "__main__":
    unittest.main()
