#!/usr/bin/env python3
"""kubectl's commands as their users know them, with played nodes: what they print, and how they end."""
import base64
import json
import os
import subprocess
import tempfile
import unittest

from cluster import Cluster, kubectl_path
from kubelet import Player

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: %(name)s}
spec:
  replicas: %(replicas)d
  selector: {matchLabels: {app: %(name)s}}
  template:
    metadata: {labels: {app: %(name)s}}
    spec: {containers: [{name: a, image: "i:%(image)s"}]}
"""


class Kubectl(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.c = Cluster(extra=["--controllers", "all", "--scheduler", "on"])
        cls.player = Player(cls.c)
        cls.dir = tempfile.TemporaryDirectory(prefix="th-kubectl-")
        cls.c.kubectl("wait", "--for=create", "sa/default", "--timeout=20s")

    @classmethod
    def tearDownClass(cls):
        cls.player.stop()
        cls.c.close()
        cls.dir.cleanup()

    def k(self, *args, stdin=None, code=0, **env):
        """What it prints (both streams); its exit code must be `code`."""
        p = subprocess.run([kubectl_path(), *args], input=stdin, capture_output=True, text=True, timeout=60,
                           env=dict(os.environ, KUBECONFIG=self.c.kubeconfig, HOME=self.dir.name, **env))
        self.assertEqual(p.returncode, code, p.stdout + p.stderr)
        return p.stdout + p.stderr

    def get(self, *args):
        return json.loads(self.k("get", *args, "-o", "json"))

    def web(self, name, replicas=1, image="1"):
        return WEB % dict(name=name, replicas=replicas, image=image)

    def test_apply_diff_and_conflicts(self):
        k = self.k
        k("apply", "-f", "-", stdin=self.web("ap"))
        self.assertEqual(k("diff", "-f", "-", stdin=self.web("ap")), "")
        out = k("diff", "-f", "-", stdin=self.web("ap", image="2"), code=1)
        self.assertIn("-      - image: i:1", out)
        self.assertIn("+      - image: i:2", out)
        self.assertIn("serverside-applied", k("apply", "--server-side", "-f", "-", stdin=self.web("ap")))
        out = k("apply", "--server-side", "--field-manager=b", "-f", "-", stdin=self.web("ap", image="3"), code=1)
        self.assertIn('error: Apply failed with 1 conflict: conflict with "kubectl": .spec.template.spec.containers[name="a"].image', out)
        k("apply", "--server-side", "--field-manager=b", "--force-conflicts", "-f", "-", stdin=self.web("ap", image="3"))
        self.assertIn("image: i:3", k("diff", "--server-side", "--force-conflicts", "-f", "-", stdin=self.web("ap", image="4"), code=1))
        self.assertIn("i:1", k("apply", "view-last-applied", "deploy/ap"))
        out = k("apply", "-f", "-", stdin='{"apiVersion":"foo/v1","kind":"Bar","metadata":{"name":"x"}}', code=1)
        self.assertIn('no matches for kind "Bar" in version "foo/v1"\nensure CRDs are installed first', out)
        k("apply", "--prune", "-l", "set=a", "-f", "-", stdin='{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"pr1","labels":{"set":"a"}}}')
        out = k("apply", "--prune", "-l", "set=a", "-f", "-", stdin='{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"pr2","labels":{"set":"a"}}}')
        self.assertIn("configmap/pr1 pruned", out)

    def test_edit_replace_and_patch(self):
        k = self.k
        k("apply", "-f", "-", stdin=self.web("ed", 0))
        self.assertIn("edited", k("edit", "deploy", "ed", KUBE_EDITOR="sed -i s/image:.i:1/image:\\ i:9/"))
        self.assertEqual(self.get("deploy", "ed")["spec"]["template"]["spec"]["containers"][0]["image"], "i:9")
        self.assertIn("Edit cancelled, no changes made.", k("edit", "deploy", "ed", KUBE_EDITOR="true"))
        out = k("edit", "deploy", "ed", KUBE_EDITOR="sed -i s/replicas:.*/replicas:\\ -1/", code=1)
        self.assertIn('error: deployments.apps "ed" is invalid\nA copy of your changes has been stored', out)
        out = k("patch", "deploy", "ed", "--subresource=scale", "--type=merge", "-p", '{"spec":{"replicas":2}}')
        self.assertEqual(out, "scale.autoscaling/ed patched\n")
        out = k("get", "deploy", "ed", "--subresource=scale")
        self.assertRegex(out, r"NAME +DESIRED +AVAILABLE +AGE\ned +2 +")
        out = k("patch", "deploy", "ed", "--type=json", "-p", '[{"op":"test","path":"/spec/replicas","value":77}]', code=1)
        self.assertEqual(out, "The request is invalid: the server rejected our request due to an error in our request\n")
        cm = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"rp"},"data":{"%s":"x"}}'
        self.assertIn('configmaps "rp" not found', k("replace", "-f", "-", stdin=cm % "a", code=1))
        k("create", "-f", "-", stdin=cm % "a")
        uid = self.get("cm", "rp")["metadata"]["uid"]
        self.assertIn("replaced", k("replace", "--force", "-f", "-", stdin=cm % "b"))
        self.assertNotEqual(self.get("cm", "rp")["metadata"]["uid"], uid)
        k("label", "cm", "rp", "a=b")
        self.assertIn("'a' already has a value (b), and --overwrite is false", k("label", "cm", "rp", "a=c", code=1))
        self.assertIn("unlabeled", k("label", "cm", "rp", "a-"))

    def test_rollouts_and_waits(self):
        k = self.k
        k("create", "deploy", "ro", "--image=i:1", "--replicas=2")
        self.assertIn('deployment "ro" successfully rolled out', k("rollout", "status", "deploy/ro", "--timeout=60s"))
        k("set", "image", "deploy/ro", "i=i:2")
        k("rollout", "status", "deploy/ro", "--timeout=60s")
        self.assertRegex(k("rollout", "history", "deploy/ro"), r"REVISION +CHANGE-CAUSE\n1 +<none>\n2 +<none>")
        self.assertEqual(k("rollout", "undo", "deploy/ro"), "deployment.apps/ro rolled back\n")
        self.assertEqual(k("rollout", "pause", "deploy/ro"), "deployment.apps/ro paused\n")
        self.assertIn("is already paused", k("rollout", "pause", "deploy/ro", code=1))
        k("rollout", "resume", "deploy/ro")
        k("rollout", "restart", "deploy/ro")
        k("rollout", "status", "deploy/ro", "--timeout=60s")
        self.assertEqual(k("wait", "--for=condition=Available", "deploy/ro", "--timeout=60s"), "deployment.apps/ro condition met\n")
        self.assertEqual(k("wait", "--for=jsonpath={.status.readyReplicas}=2", "deploy/ro", "--timeout=60s"),
                         "deployment.apps/ro condition met\n")
        self.assertIn("timed out waiting", k("wait", "--for=delete", "deploy/ro", "--timeout=1s", code=1))
        k("scale", "deploy/ro", "--replicas=3", "--current-replicas=2")
        self.assertIn("Expected replicas to be 1, was 3", k("scale", "deploy/ro", "--replicas=4", "--current-replicas=1", code=1))
        k("delete", "deploy", "ro", "--cascade=orphan")
        self.assertIn("ro-", k("get", "rs", "-l", "app=ro", "-o", "name"))
        self.assertIn("deleted", k("delete", "rs", "-l", "app=ro", "--cascade=foreground"))
        self.assertEqual(k("get", "pods", "-l", "app=ro", "-o", "name"), "")

    def test_pods_to_debug(self):
        k = self.k
        k("run", "db", "--image=i", "--restart=Never", "--labels=x=y", "--env=A=B")
        k("wait", "--for=condition=Ready", "pod/db", "--timeout=60s")
        k("debug", "db", "--image=busybox", "--target=db", "-c", "dbg", "--attach=false")
        e = self.get("pod", "db")["spec"]["ephemeralContainers"]
        self.assertEqual([(c["name"], c["image"], c["targetContainerName"]) for c in e], [("dbg", "busybox", "db")])
        k("debug", "db", "--copy-to=db2", "--share-processes", "-c", "dbg", "--image=busybox", "--attach=false")
        spec = self.get("pod", "db2")["spec"]
        self.assertEqual(([c["name"] for c in spec["containers"]], spec["shareProcessNamespace"]), (["db", "dbg"], True))
        k("debug", "node/n1", "--image=busybox", "--attach=false", "--profile=general")
        pods = [p for p in self.get("pods")["items"] if p["metadata"]["name"].startswith("node-debugger-n1-")]
        self.assertEqual((len(pods), pods[0]["spec"]["nodeName"], pods[0]["spec"]["hostNetwork"]), (1, "n1", True))
        self.assertIn("pod/db", k("get", "pods", "--field-selector=spec.nodeName!=,status.phase=Running", "-l", "x in (y),!z", "-o", "name"))
        self.assertIn("field label not supported: spec.nope", k("get", "pods", "--field-selector", "spec.nope=x", code=1))
        k("delete", "pods", "--all", "--grace-period=0", "--force", "--wait=false")

    def test_nodes_are_emptied(self):
        k = self.k
        k("create", "deploy", "dr", "--image=i", "--replicas=2")
        k("rollout", "status", "deploy/dr", "--timeout=60s")
        self.assertEqual(k("taint", "nodes", "n2", "a=b:NoSchedule"), "node/n2 tainted\n")
        self.assertIn("already has", k("taint", "nodes", "n2", "a=c:NoSchedule", code=1))
        self.assertEqual(k("taint", "nodes", "n2", "a-"), "node/n2 untainted\n")
        out = k("drain", "n2", "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout=60s")
        self.assertIn("node/n2 cordoned", out)
        self.assertIn("node/n2 drained", out)
        self.assertIn("SchedulingDisabled", k("get", "node", "n2"))
        self.assertEqual({p["spec"].get("nodeName") for p in self.get("pods", "-l", "app=dr")["items"]} - {None}, {"n1"})
        self.assertEqual(k("uncordon", "n2"), "node/n2 uncordoned\n")

    def test_who_may_what(self):
        k = self.k
        k("create", "sa", "bot")
        k("create", "role", "rd", "--verb=get,list", "--resource=pods,deployments.apps")
        k("create", "rolebinding", "rb", "--role=rd", "--serviceaccount=default:bot")
        bot = "--as=system:serviceaccount:default:bot"
        self.assertEqual(k("auth", "can-i", "list", "pods", bot), "yes\n")
        self.assertEqual(k("auth", "can-i", "delete", "pods", bot, code=1), "no\n")
        self.assertRegex(k("auth", "can-i", "--list", bot), r"deployments.apps +\[\] +\[\] +\[get list\]")
        self.assertIn("system:serviceaccount:default:bot", k("auth", "whoami", bot))
        self.assertEqual(k("get", "secrets", bot, code=1),
                         'Error from server (Forbidden): secrets is forbidden: User "system:serviceaccount:default:bot" cannot list '
                         'resource "secrets" in API group "" in the namespace "default"\n')
        token = k("create", "token", "bot", "--duration=10m").strip()
        out = subprocess.run([kubectl_path(), "auth", "whoami", "--kubeconfig=/dev/null", "--server", self.c.url, "--token", token,
                              "--insecure-skip-tls-verify"], capture_output=True, text=True, timeout=60)
        self.assertIn("system:serviceaccount:default:bot", out.stdout + out.stderr)

    def test_certificates_are_signed(self):
        k, d = self.k, self.dir.name
        subprocess.run(["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", d + "/k.pem", "-out", d + "/r.csr",
                        "-subj", "/O=devs/CN=joe"], check=True, capture_output=True)
        with open(d + "/r.csr", "rb") as f:
            request = base64.b64encode(f.read()).decode()
        for n in ("yes", "no"):
            k("create", "-f", "-", stdin=json.dumps({
                "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": n},
                "spec": {"request": request, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}}))
        self.assertIn("yes approved", k("certificate", "approve", "yes"))
        self.assertIn("no denied", k("certificate", "deny", "no"))
        self.assertIn("already Approved", k("certificate", "deny", "yes", code=1))
        k("wait", "--for=jsonpath={.status.certificate}", "csr/yes", "--timeout=30s")
        out = k("get", "csr")
        self.assertRegex(out, r"yes .* Approved,Issued")
        self.assertRegex(out, r"no .* Denied")

    def test_things_are_made_from_flags(self):
        k = self.k
        made = [("job", "j", "--image=i"), ("cronjob", "cj", "--image=i", "--schedule=*/5 * * * *"),
                ("ingress", "in", "--rule=foo.com/bar*=svc:8080,tls=cert", "--class=c"), ("quota", "qu", "--hard=pods=100"),
                ("pdb", "pd", "--selector=a=b", "--min-available=50%"), ("priorityclass", "pc", "--value=10"),
                ("secret", "generic", "s1", "--from-literal=a=b"),
                ("secret", "docker-registry", "s2", "--docker-username=u", "--docker-password=p", "--docker-server=s"),
                ("service", "nodeport", "np", "--tcp=80"), ("service", "externalname", "en", "--external-name=a.b"),
                ("configmap", "cm1", "--from-literal=a=b", "--append-hash"), ("clusterrole", "cr", "--verb=get", "--non-resource-url=/logs/*"),
                ("clusterrolebinding", "crb", "--clusterrole=cr", "--group=g"), ("namespace", "made")]
        for args in made:
            self.assertIn(" created", k("create", *args))
        k("create", "job", "again", "--from=cronjob/cj")
        self.assertEqual(self.get("job", "again")["metadata"]["annotations"]["cronjob.kubernetes.io/instantiate"], "manual")
        self.assertIn("80, 443", k("get", "ingress", "in"))
        k("create", "deploy", "none", "--image=i", "--replicas=0")
        k("autoscale", "deploy", "none", "--min=1", "--max=3", "--cpu=50%")
        self.assertRegex(k("get", "hpa", "none"), r"cpu: <unknown>/50% +1 +3")
        k("expose", "job", "j", "--port=80", "--selector=a=b", code=1)
        for kind in ("job/j", "cronjob/cj", "ingress/in", "quota/qu", "secret/s1", "svc/np", "ns/made"):
            self.assertIn("Name:", k("describe", kind))
        self.assertIn("NAME", k("get", "all"))
        self.assertIn("deleted", k("delete", "ns", "made", "--timeout=30s"))

    def test_what_there_is(self):
        k = self.k
        self.assertIn("deployments", k("api-resources", "--api-group=apps", "--verbs=list", "--namespaced", "-o", "name"))
        self.assertIn("apps/v1\n", k("api-versions"))
        self.assertIn("maxSurge\t<IntOrString>", k("explain", "deploy.spec", "--recursive"))
        self.assertIn("rollingUpdate\t<Object>", k("explain", "deploy.spec.strategy", "--output=plaintext-openapiv2"))
        self.assertIn('field "nope" does not exist', k("explain", "pod.nope", code=1))
        self.assertIn("is running at", k("cluster-info"))
        self.assertIn("dumped", k("cluster-info", "dump", "--output-directory=" + self.dir.name + "/dump"))
        self.assertIn("default", k("get", "ns", "--chunk-size=1", "--sort-by=.metadata.name", "--no-headers"))
        self.assertEqual(k("get", "ns", "default", "-o", "jsonpath={.metadata.name}"), "default")
        self.assertEqual(k("get", "ns", "default", "-o", "go-template={{.metadata.name}}"), "default")
        self.assertIn("default", k("get", "ns", "-o", "custom-columns=N:.metadata.name"))
        self.assertIn('namespaces "nope" not found', k("get", "cm", "x", "-n", "nope", code=1))
        os.makedirs(self.dir.name + "/kz", exist_ok=True)
        with open(self.dir.name + "/kz/kustomization.yaml", "w") as f:
            f.write("namePrefix: kz-\nconfigMapGenerator: [{name: c, literals: [a=b]}]\n")
        self.assertRegex(k("apply", "-k", self.dir.name + "/kz"), r"configmap/kz-c-\w+ created")


if __name__ == "__main__":
    unittest.main()
