#!/usr/bin/env python3
"""Helm 4 as its users know it: it applies on the server side, waits with watches, keeps its releases in
Secrets. The chart has a definition, hooks with weights, a lookup and a test; played nodes run its pods."""
import json
import os
import subprocess
import tempfile
import unittest

from cluster import Cluster, kubectl_path
from kubelet import Player

CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: toys.h.example.com}
spec:
  group: h.example.com
  scope: Namespaced
  names: {plural: toys, singular: toy, kind: Toy}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
"""
MAIN = """
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}-cm}
data:
  msg: {{ .Values.msg }}
  found: {{ (lookup "v1" "Namespace" "" "kube-system") | dig "metadata" "name" "none" }}
---
apiVersion: h.example.com/v1
kind: Toy
metadata: {name: {{ .Release.Name }}}
---
apiVersion: v1
kind: Service
metadata: {name: {{ .Release.Name }}}
spec: {ports: [{port: 80}], selector: {app: {{ .Release.Name }}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec: {containers: [{name: a, image: "i:{{ .Values.msg }}"}]}
"""
HOOK = """
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}-%(name)s
  annotations: {helm.sh/hook: %(hook)s, helm.sh/hook-weight: "%(weight)d", helm.sh/hook-delete-policy: "%(policy)s"}
spec:
  template:
    metadata: {labels: {play-phase: %(phase)s}}
    spec: {restartPolicy: Never, containers: [{name: a, image: i}]}
  backoffLimit: 0
"""
TEST = """
apiVersion: v1
kind: Pod
metadata:
  name: {{ .Release.Name }}-test
  labels: {play-phase: Succeeded}
  annotations: {helm.sh/hook: test}
spec: {restartPolicy: Never, containers: [{name: a, image: i}]}
"""
HOOKS = [("pre-b", "pre-install", 5, "before-hook-creation"), ("pre-a", "pre-install", -5, "before-hook-creation"),
         ("post", "post-install,post-upgrade", 0, "hook-succeeded"), ("bye", "pre-delete", 0, "hook-succeeded")]


class Helm(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.helm_path = os.path.join(os.path.dirname(kubectl_path()), "helm")
        cls.c = Cluster(extra=["--controllers", "all", "--scheduler", "on"])
        cls.player = Player(cls.c)
        cls.dir = tempfile.TemporaryDirectory(prefix="th-helm-")
        files = {"Chart.yaml": "apiVersion: v2\nname: app\nversion: 1.2.3\nappVersion: '7'\n",
                 "values.yaml": "msg: one\nreplicas: 1\n", "crds/toy.yaml": CRD, "templates/main.yaml": MAIN,
                 "templates/test.yaml": TEST}
        for name, hook, weight, policy in HOOKS:
            files["templates/%s.yaml" % name] = HOOK % dict(name=name, hook=hook, weight=weight, policy=policy,
                                                            phase="Succeeded")
        for path, text in files.items():
            full = os.path.join(cls.dir.name, "app", path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w") as f:
                f.write(text)

    @classmethod
    def tearDownClass(cls):
        cls.player.stop()
        cls.c.close()
        cls.dir.cleanup()

    def helm(self, *args, ok=True):
        env = dict(os.environ, KUBECONFIG=self.c.kubeconfig, HOME=self.dir.name, HELM_CACHE_HOME=self.dir.name + "/c",
                   HELM_CONFIG_HOME=self.dir.name + "/f", HELM_DATA_HOME=self.dir.name + "/d")
        p = subprocess.run([self.helm_path, *args], env=env, cwd=self.dir.name, capture_output=True, text=True, timeout=120)
        if ok:
            self.assertEqual(p.returncode, 0, p.stdout + p.stderr)
            return p.stdout
        self.assertNotEqual(p.returncode, 0, p.stdout)
        return p.stdout + p.stderr

    def data(self):
        return json.loads(self.c.kubectl("get", "cm", "web-cm", "-o", "json"))

    def test_the_life_of_a_release(self):
        k = self.c.kubectl
        out = self.helm("install", "web", "app", "--wait", "--timeout", "60s")
        self.assertIn("STATUS: deployed", out)
        cm = self.data()
        self.assertEqual(cm["data"], {"msg": "one", "found": "kube-system"})
        self.assertEqual(k("get", "deploy", "web", "-o", "jsonpath={.status.readyReplicas}"), "1", "it was waited for")
        jobs = json.loads(k("get", "jobs", "-o", "json"))["items"]
        times = {j["metadata"]["name"]: j["metadata"]["creationTimestamp"] for j in jobs if j["metadata"]["name"].startswith("web-")}
        self.assertEqual(sorted(times), ["web-pre-a", "web-pre-b"], "hooks with hook-succeeded are gone")
        self.assertLessEqual(times["web-pre-a"], times["web-pre-b"], "weights order hooks")
        managers = {(m["manager"], m["operation"]) for m in json.loads(
            k("get", "cm", "web-cm", "-o", "json", "--show-managed-fields"))["metadata"]["managedFields"]}
        self.assertEqual(managers, {("helm", "Apply")})

        self.helm("upgrade", "web", "app", "--install", "--set", "msg=two", "--wait", "--timeout", "60s")
        self.assertEqual(self.data()["data"]["msg"], "two")
        k("patch", "cm", "web-cm", "-p", '{"data":{"msg":"edited"}}')
        out = self.helm("upgrade", "web", "app", "--set", "msg=three", ok=False)
        self.assertIn('conflict with "kubectl-patch" using v1: .data.msg', out)
        self.helm("upgrade", "web", "app", "--set", "msg=three", "--force-conflicts")
        self.assertEqual(self.data()["data"]["msg"], "three")

        self.helm("rollback", "web", "1", "--wait", "--timeout", "60s")
        self.assertEqual(self.data()["data"]["msg"], "one")
        history = json.loads(self.helm("history", "web", "-o", "json"))
        self.assertEqual([(h["revision"], h["status"]) for h in history], [
            (1, "superseded"), (2, "superseded"), (3, "failed"), (4, "superseded"), (5, "deployed")])
        self.assertEqual(len(k("get", "secrets", "--field-selector", "type=helm.sh/release.v1", "-o", "name").split()), 5)
        self.assertIn("web", self.helm("list", "-q"))
        out = self.helm("status", "web")
        self.assertRegex(out, r"deployment.apps/web|v1/Deployment\nNAME +READY +UP-TO-DATE +AVAILABLE +AGE\nweb +1/1")

        out = self.helm("test", "web", "--timeout", "60s")
        self.assertIn("Phase:          Succeeded", out)
        out = self.helm("upgrade", "--install", "other", "app", "--dry-run=server", "--skip-crds")
        self.assertIn("found: kube-system", out, "lookup asks the server")
        self.assertEqual(k("get", "cm", "other-cm", "--ignore-not-found"), "")
        self.assertIn("ConfigMap", self.helm("get", "manifest", "web"))

        self.helm("uninstall", "web", "--wait", "--timeout", "60s")
        self.assertEqual(k("get", "deploy,svc,toys,cm", "-l", "app.kubernetes.io/managed-by=Helm", "-o", "name"), "")
        self.assertEqual(self.helm("list", "-q"), "")
        self.assertIn("toys.h.example.com", k("get", "crd", "-o", "name"), "definitions stay")

    def test_packages_and_mistakes(self):
        self.assertIn("app-1.2.3.tgz", self.helm("package", "app"))
        self.helm("install", "pk", "app-1.2.3.tgz", "--set", "replicas=0", "--wait", "--timeout", "60s")
        out = self.helm("install", "pk", "app", ok=False)
        self.assertIn("a name that is still in use", out)
        out = self.helm("upgrade", "pk", "app", "--set", "replicas=many", ok=False)
        self.assertIn("Deployment", out)
        self.helm("uninstall", "pk", "--wait", "--timeout", "60s")


if __name__ == "__main__":
    unittest.main()
