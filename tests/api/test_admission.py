#!/usr/bin/env python3
"""Admission webhooks and policies: what is asked, what is answered, and what the client sees of it."""
import json
import unittest

from cluster import MODES, Cluster, FakeNode
from hookserver import HookServer, patch

ADMISSION = "/apis/admissionregistration.k8s.io/v1/"
MAPS = "/api/v1/namespaces/default/configmaps"
RULE = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE", "UPDATE", "DELETE"]}


def cm(name, data=None, **meta):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": dict({"name": name}, **meta), "data": data or {}}


class Base(unittest.TestCase):
    mode = "memory"
    extra = ("--disable-admission", "ServiceAccount")

    @classmethod
    def setUpClass(cls):
        cls.c = Cluster(cls.mode, extra=cls.extra)
        cls.hook = HookServer(cls.c.dir, lambda path, request: cls.answers[path.split("?")[0]](request))
        cls.answers = {}

    @classmethod
    def tearDownClass(cls):
        cls.hook.close()
        cls.c.close()

    def setUp(self):
        self.answers.clear()
        self.hook.asked.clear()
        self.hook.raw = None
        self.hook.delay.set()

    def make(self, path, obj, status=201):
        s, o = self.c.api("POST", path, obj)
        self.assertEqual(s, status, o)
        if status == 201:
            self.addCleanup(self.c.api, "DELETE", path + "/" + o["metadata"]["name"])
        return o

    def configure(self, kind, name, *hooks):
        full = "%sWebhookConfiguration" % kind.capitalize()
        return self.make(ADMISSION + full.lower() + "s",
                         {"apiVersion": "admissionregistration.k8s.io/v1", "kind": full, "metadata": {"name": name},
                          "webhooks": list(hooks)})

    def webhook(self, name, path, answer=None, **more):
        if answer:
            self.answers[path] = answer
        return dict({"name": name + ".example.com", "clientConfig": self.hook.config(path), "rules": [RULE],
                     "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 5}, **more)

    def requests(self):
        return [r["request"] for _, r in self.hook.asked]


class Webhooks(Base):
    def test_a_review_has_what_upstream_sends(self):
        self.configure("validating", "look", self.webhook("look", "/look", lambda r: {"allowed": True}))
        s, o = self.c.api("POST", MAPS + "?fieldManager=me&dryRun=All", cm("a", {"k": "v"}), user="jane",
                          groups=["system:masters", "dev"])
        self.assertEqual(s, 201, o)
        path, review = self.hook.asked[0]
        self.assertEqual((path, review["apiVersion"], review["kind"]),
                         ("/look?timeout=5s", "admission.k8s.io/v1", "AdmissionReview"))
        r = review["request"]
        self.assertEqual(r["kind"], {"group": "", "version": "v1", "kind": "ConfigMap"})
        self.assertEqual(r["resource"], {"group": "", "version": "v1", "resource": "configmaps"})
        self.assertEqual((r["requestKind"], r["requestResource"]), (r["kind"], r["resource"]))
        self.assertEqual((r["name"], r["namespace"], r["operation"], r["dryRun"]), ("a", "default", "CREATE", True))
        self.assertEqual((r["userInfo"]["username"], r["userInfo"]["groups"][:2]), ("jane", ["system:masters", "dev"]))
        self.assertEqual(r["options"], {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"],
                                        "fieldManager": "me"})
        self.assertEqual((r["object"]["data"], r["object"]["kind"], r["oldObject"]), ({"k": "v"}, "ConfigMap", None))
        self.assertTrue(r["object"]["metadata"]["uid"], "validating webhooks see the object as it will be stored")
        self.make(MAPS, cm("a", {"k": "v"}))
        self.hook.asked.clear()
        self.assertEqual(self.c.api("PUT", MAPS + "/a", cm("a", {"k": "w"}))[0], 200)
        self.assertEqual(self.c.api("DELETE", MAPS + "/a", {"kind": "DeleteOptions", "apiVersion": "v1",
                                                            "propagationPolicy": "Background"})[0], 200)
        up, down = self.requests()
        self.assertEqual((up["operation"], up["object"]["data"], up["oldObject"]["data"], up["options"]["kind"]),
                         ("UPDATE", {"k": "w"}, {"k": "v"}, "UpdateOptions"))
        self.assertEqual((down["operation"], down["object"], down["oldObject"]["data"], down["name"]),
                         ("DELETE", None, {"k": "w"}, "a"))
        self.assertEqual(down["options"], {"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1",
                                           "propagationPolicy": "Background"})
        self.assertEqual(self.hook.connections, 1, "the connection is used again")

    def test_a_refusal_is_told_with_the_webhooks_words_code_and_reason(self):
        no = {}
        self.configure("validating", "no", self.webhook("no", "/no", lambda r: dict({"allowed": False}, **no)))
        for result, want in (
                (None, (400, "", 'denied the request without explanation')),
                ({"message": "not today"}, (400, "", "denied the request: not today")),
                ({"reason": "Because"}, (400, "Because", "denied the request: Because")),
                ({"message": "no", "code": 403, "reason": "Forbidden",
                  "details": {"causes": [{"message": "m", "field": "data.x", "reason": "FieldValueInvalid"}]}},
                 (403, "Forbidden", "denied the request: no")),
                ({"message": "ok?", "code": 200, "status": "Success"}, (400, "", "denied the request: ok?"))):
            no.clear()
            if result:
                no["status"] = result
            s, o = self.c.api("POST", MAPS, cm("x"))
            self.assertEqual((s, o["code"], o.get("reason", ""), o["message"]),
                             (want[0], want[0], want[1], 'admission webhook "no.example.com" ' + want[2]), o)
            self.assertEqual(o["status"], "Failure")
            if result and "details" in result:
                self.assertEqual(o["details"], result["details"])
        rc, out = self.c.kubectl("create", "cm", "x", ok=False)
        self.assertEqual(rc, 1)
        self.assertIn('admission webhook "no.example.com" denied the request', out)

    def test_a_patch_is_applied_defaulted_and_validated(self):
        ops = []
        rule = dict(RULE, resources=["services", "configmaps"])
        self.configure("mutating", "mut", self.webhook("mut", "/mut", lambda r: patch(*ops), rules=[rule]))
        ops[:] = [{"op": "add", "path": "/data/added", "value": "yes"}]
        o = self.make(MAPS, cm("m", {"k": "v"}))
        self.assertEqual(o["data"], {"k": "v", "added": "yes"})
        ops[:] = [{"op": "add", "path": "/spec/ports/-", "value": {"name": "more", "port": 81, "wrong": 1}}]
        o = self.make("/api/v1/namespaces/default/services", {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
            "spec": {"ports": [{"name": "a", "port": 80}], "selector": {"a": "b"}}})
        self.assertEqual(o["spec"]["ports"][1], {"name": "more", "port": 81, "targetPort": 81, "protocol": "TCP"})
        ops[:] = [{"op": "add", "path": "/metadata/labels", "value": {"a": "not valid!"}}]
        s, o = self.c.api("POST", MAPS, cm("n"))
        self.assertEqual((s, o["reason"]), (422, "Invalid"), o)
        ops[:] = [{"op": "replace", "path": "/nothing/here", "value": 1}]
        s, o = self.c.api("POST", MAPS, cm("n"))
        self.assertEqual((s, o["reason"]), (500, "InternalError"), o)
        ops[:] = [{"op": "replace", "path": "/data", "value": "text"}]
        s, o = self.c.api("POST", MAPS, cm("n"))
        self.assertEqual((s, o["reason"]), (500, "InternalError"), o)
        ops[:] = [{"op": "add", "path": "/metadata/namespace", "value": "kube-system"}]
        s, o = self.c.api("POST", MAPS, cm("n"))
        self.assertEqual((s, o["reason"]), (400, "BadRequest"), o)
        ops[:] = []
        self.assertEqual(self.c.api("DELETE", MAPS + "/m")[0], 200)

    def test_mutators_run_in_order_and_again_when_a_later_one_changed_the_object(self):
        calls = []

        def append(letter, again=True):
            def answer(r):
                calls.append(letter)
                if r["operation"] == "DELETE":
                    return {"allowed": True}
                have = r["object"].get("data", {}).get("order", "")
                if letter in have:
                    return {"allowed": True}
                return patch({"op": "add", "path": "/data", "value": {"order": have + letter}})
            return answer
        self.configure("mutating", "b-second", self.webhook("b", "/b", append("b")))
        self.configure("mutating", "a-first", self.webhook("a", "/a", append("a"), reinvocationPolicy="IfNeeded"),
                       self.webhook("x", "/x", append("x")))
        o = self.make(MAPS, cm("m"))
        self.assertEqual((o["data"]["order"], calls), ("axb", ["a", "x", "b", "a"]))

    def test_what_is_matched(self):
        ok = lambda r: {"allowed": True}
        self.answers["/m"] = ok

        def asked(hook, *calls):
            o = self.configure("validating", "match", dict(self.webhook("m", "/m"), **hook))
            self.hook.asked.clear()
            for c in calls:
                s, got = self.c.api(*c)
                self.assertLess(s, 300, got)
            n = [(r["operation"], r["resource"]["resource"], r.get("subResource", "")) for r in self.requests()]
            self.c.api("DELETE", ADMISSION + "validatingwebhookconfigurations/match")
            return n
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"app": "x"}},
               "spec": {"containers": [{"name": "c", "image": "i"}]}}
        ns = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "labels": {"team": "red"}}}
        any_ = lambda **k: dict({"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"]}, **k)
        POD = "/api/v1/namespaces/default/pods"
        status = dict(pod, status={"phase": "Running"})
        self.assertEqual(asked({"rules": [any_(resources=["*/*"])]}, ("POST", POD, pod), ("PUT", POD + "/p/status", status)),
                         [("CREATE", "pods", ""), ("UPDATE", "pods", "status")])
        self.assertEqual(asked({"rules": [any_(resources=["pods/*"], operations=["UPDATE"])]},
                               ("PUT", POD + "/p/status", status)), [("UPDATE", "pods", "status")])
        self.assertEqual(asked({"rules": [any_()]}, ("PUT", POD + "/p/status", status)), [])
        self.assertEqual(asked({"rules": [any_(scope="Cluster")]}, ("POST", "/api/v1/namespaces", ns),
                               ("POST", MAPS, cm("q"))), [("CREATE", "namespaces", "")])
        self.assertEqual(asked({"rules": [any_(resources=["configmaps"])],
                                "namespaceSelector": {"matchLabels": {"team": "red"}}},
                               ("POST", MAPS, cm("r")), ("POST", "/api/v1/namespaces/n/configmaps", cm("r"))),
                         [("CREATE", "configmaps", "")])
        self.assertEqual(asked({"rules": [any_()], "objectSelector": {"matchLabels": {"app": "x"}}},
                               ("DELETE", MAPS + "/r"), ("DELETE", POD + "/p?gracePeriodSeconds=0")),
                         [("DELETE", "pods", "")])
        self.assertEqual(asked({"rules": [any_()], "matchConditions": [
            {"name": "not-system", "expression": "!request.userInfo.username.startsWith('system:')"},
            {"name": "q", "expression": "request.operation == 'DELETE' && oldObject.metadata.name == 'q'"}]},
            ("DELETE", MAPS + "/q")), [])
        self.c.api("POST", MAPS, cm("q"))
        self.assertEqual(asked({"rules": [any_()], "matchConditions": [
            {"name": "q", "expression": "request.operation == 'DELETE' && oldObject.metadata.name == 'q' && "
             "authorizer.group('').resource('configmaps').namespace('default').check('create').allowed()"}]},
            ("DELETE", MAPS + "/q")), [("DELETE", "configmaps", "")])
        self.assertEqual(asked({"rules": [any_(operations=["DELETE"])]}, ("DELETE", "/api/v1/namespaces/n")),
                         [("DELETE", "namespaces", "")])
        hpa = {"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
               "spec": {"maxReplicas": 2, "targetCPUUtilizationPercentage": 50,
                        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}}
        HPA = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
        rule = {"apiGroups": ["autoscaling"], "apiVersions": ["v2"], "resources": ["horizontalpodautoscalers"],
                "operations": ["*"]}
        self.assertEqual(asked({"rules": [rule], "matchPolicy": "Exact"}, ("POST", HPA, hpa)), [])
        asked({"rules": [rule], "matchPolicy": "Equivalent"}, ("DELETE", HPA + "/h"))
        r = self.requests()[0]
        self.assertEqual((r["resource"]["version"], r["requestResource"]["version"], r["oldObject"]["apiVersion"]),
                         ("v2", "v1", "autoscaling/v2"))
        self.assertIn("metrics", r["oldObject"]["spec"])

    def test_a_webhook_that_cannot_be_asked_counts_by_its_failure_policy(self):
        dead = {"clientConfig": {"url": "https://127.0.0.1:1/x"}}
        self.configure("validating", "dead", self.webhook("dead", "/x", failurePolicy="Ignore", **dead))
        self.make(MAPS, cm("ok"))
        self.c.api("DELETE", ADMISSION + "validatingwebhookconfigurations/dead")
        self.configure("mutating", "dead", self.webhook("dead", "/x", **dead))
        s, o = self.c.api("POST", MAPS, cm("no"))
        self.assertEqual((s, o["reason"]), (500, "InternalError"))
        self.assertEqual(o["message"], 'Internal error occurred: failed calling webhook "dead.example.com": failed to call '
                         'webhook: Post "https://127.0.0.1:1/x?timeout=5s": dial tcp 127.0.0.1:1: connect: connection refused')
        self.c.api("DELETE", ADMISSION + "mutatingwebhookconfigurations/dead")
        slow = self.webhook("slow", "/slow", lambda r: {"allowed": True}, timeoutSeconds=1)
        self.configure("validating", "slow", slow)
        self.hook.delay.clear()
        s, o = self.c.api("POST", MAPS, cm("no"))
        self.hook.delay.set()
        self.assertEqual(o["message"], 'Internal error occurred: failed calling webhook "slow.example.com": failed to call '
                         'webhook: Post "%s?timeout=1s": context deadline exceeded' % slow["clientConfig"]["url"])
        self.c.api("DELETE", ADMISSION + "validatingwebhookconfigurations/slow")
        svc = self.webhook("svc", "/svc", clientConfig={"service": {"name": "none", "namespace": "default", "path": "/p"},
                                                        "caBundle": self.hook.bundle})
        self.configure("validating", "svc", svc)
        s, o = self.c.api("POST", MAPS, cm("no"))
        self.assertEqual(o["message"], 'Internal error occurred: failed calling webhook "svc.example.com": failed to call '
                         'webhook: Post "https://none.default.svc:443/p?timeout=5s": service "none" not found')
        self.c.api("DELETE", ADMISSION + "validatingwebhookconfigurations/svc")
        other = dict(self.webhook("ca", "/ca", lambda r: {"allowed": True}))
        other["clientConfig"] = dict(other["clientConfig"], caBundle=self.other_ca())
        self.configure("validating", "ca", other)
        s, o = self.c.api("POST", MAPS, cm("no"))
        self.assertIn("tls: failed to verify certificate: x509: certificate signed by unknown authority", o["message"])

    def other_ca(self):
        with open(self.c.kubeconfig) as f:
            return next(l.split()[1] for l in f if "certificate-authority-data" in l)

    def test_answers_that_are_wrong_are_no_answers(self):
        self.configure("validating", "w", self.webhook("w", "/w", lambda r: {}))
        prefix = 'Internal error occurred: failed calling webhook "w.example.com": received invalid webhook response: '

        def says(response, text):
            self.answers["/w"] = lambda r: response(r) if callable(response) else response
            s, o = self.c.api("POST", MAPS, cm("no"))
            self.assertEqual((s, o["message"]), (500, prefix + text), o)
        says(None, "webhook response was absent")
        says(lambda r: patch({"op": "remove", "path": "/data"}), "validating webhook may not return response.patch")
        self.hook.raw = b"not json"
        s, o = self.c.api("POST", MAPS, cm("no"))
        self.assertEqual(s, 500)
        self.assertIn('failed calling webhook "w.example.com": failed to call webhook: ', o["message"])

    def test_warnings_and_dry_run(self):
        self.configure("mutating", "warn", self.webhook("warn", "/warn", lambda r: {"allowed": True, "warnings": ["careful"]}))
        s, h, _ = self.c.http("POST", MAPS + "?dryRun=All", cm("w"))
        self.assertEqual((s, h.get_all("Warning")), (201, ['299 - "careful"']))

    def test_the_configurations_themselves_are_not_asked_about(self):
        all_ = {"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"]}
        self.configure("validating", "all", self.webhook("all", "/all", lambda r: {"allowed": False}, rules=[all_]))
        o = self.configure("mutating", "other", self.webhook("other", "/other"))
        self.assertEqual(self.c.api("DELETE", ADMISSION + "mutatingwebhookconfigurations/other")[0], 200)
        self.assertEqual(self.hook.asked, [])

    def test_subresources_show_what_they_take(self):
        rules = [{"apiGroups": ["apps", ""], "apiVersions": ["v1"], "operations": ["*"],
                  "resources": ["deployments/scale", "pods/binding", "pods/eviction", "pods/exec", "pods/attach"]}]
        answers = {"scale": patch({"op": "replace", "path": "/spec/replicas", "value": 3})}
        self.configure("mutating", "sub", self.webhook("sub", "/sub", rules=rules,
                                                       answer=lambda r: answers.get(r["subResource"], {"allowed": True})))
        D = "/apis/apps/v1/namespaces/default/deployments"
        self.make(D, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
            "selector": {"matchLabels": {"a": "b"}}, "template": {
                "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
        scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d", "namespace": "default"},
                 "spec": {"replicas": 7}}
        s, o = self.c.api("PUT", D + "/d/scale", scale)
        self.assertEqual((s, o["spec"]["replicas"]), (200, 3), o)
        r = self.requests()[0]
        self.assertEqual((r["kind"], r["subResource"], r["object"]["kind"], r["object"]["spec"], r["oldObject"]["spec"]),
                         ({"group": "autoscaling", "version": "v1", "kind": "Scale"}, "scale", "Scale", {"replicas": 7},
                          {"replicas": 1}))
        self.assertEqual(self.c.api("GET", D + "/d")[1]["spec"]["replicas"], 3)
        self.hook.asked.clear()
        P = "/api/v1/namespaces/default/pods"
        self.make(P, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
            "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "i"}]}})
        s, o = self.c.api("POST", P + "/p/binding", {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
                                                     "target": {"kind": "Node", "name": "n"}})
        self.assertEqual(s, 201, o)
        node = FakeNode(self.c.dir + "/node.sock")
        s, _, out = self.c.http("POST", P + "/p/exec?command=ls&command=-l&stdout=true&container=c")
        answers["exec"] = {"allowed": False, "status": {"message": "no shells here"}}
        s, o = self.c.api("POST", P + "/p/exec?command=ls&stdout=true")
        self.assertEqual((s, o["message"]), (400, 'admission webhook "sub.example.com" denied the request: no shells here'))
        ops = [(r["operation"], r["subResource"], r["kind"]["kind"], r["object"]["kind"]) for r in self.requests()]
        self.assertEqual(ops, [("CREATE", "binding", "Binding", "Binding"), ("CONNECT", "exec", "PodExecOptions", "PodExecOptions"),
                               ("CONNECT", "exec", "PodExecOptions", "PodExecOptions")])
        self.assertEqual(self.requests()[1]["object"], {"kind": "PodExecOptions", "apiVersion": "v1", "stdout": True,
                                                        "container": "c", "command": ["ls", "-l"]})

    def test_custom_resources_are_shown_in_the_version_that_the_rule_names_and_pruned(self):
        versions = [{"name": v, "served": True, "storage": v == "v1", "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"spec": {"type": "object", "properties": {
                "a": {"type": "string"}, "n": {"type": "integer", "default": 5}}}}}}} for v in ("v1", "v2")]
        crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        self.make(crds, {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                         "metadata": {"name": "things.example.com"}, "spec": {
                             "group": "example.com", "scope": "Namespaced", "versions": versions,
                             "names": {"plural": "things", "kind": "Thing", "singular": "thing", "listKind": "ThingList"}}})
        rule = {"apiGroups": ["example.com"], "apiVersions": ["v2"], "resources": ["things"], "operations": ["*"]}
        ops = [{"op": "add", "path": "/spec/a", "value": "by hook"}, {"op": "add", "path": "/spec/unknown", "value": 1}]
        self.configure("mutating", "cr", self.webhook("cr", "/cr", lambda r: patch(*ops) if r["object"] else {"allowed": True},
                                                      rules=[rule]))
        T = "/apis/example.com/v1/namespaces/default/things"
        o = self.make(T, {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {}})
        self.assertEqual((o["apiVersion"], o["spec"]), ("example.com/v1", {"a": "by hook", "n": 5}))
        r = self.requests()[0]
        self.assertEqual((r["object"]["apiVersion"], r["kind"]["version"], r["requestKind"]["version"]),
                         ("example.com/v2", "v2", "v1"))



class Policies(Base):
    def policy(self, name, kind="Validating", binding=None, **spec):
        spec.setdefault("matchConstraints", {"resourceRules": [RULE]})
        if kind == "Mutating":
            spec.setdefault("reinvocationPolicy", "Never")
            spec["matchConstraints"] = {"resourceRules": [dict(RULE, operations=["CREATE", "UPDATE"])]}
        o = self.make(ADMISSION + kind.lower() + "admissionpolicies", {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind + "AdmissionPolicy", "metadata": {"name": name},
            "spec": spec})
        b = {"policyName": name}
        if kind == "Validating":
            b["validationActions"] = ["Deny"]
        self.make(ADMISSION + kind.lower() + "admissionpolicybindings", {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind + "AdmissionPolicyBinding",
            "metadata": {"name": name + "-binding"}, "spec": dict(b, **(binding or {}))})
        return o

    def send(self, data=None, name="x", **kw):
        s, h, out = self.c.http("POST", MAPS + "?dryRun=All", cm(name, data), **kw)
        return s, json.loads(out), h

    def test_a_policy_denies_with_its_message_reason_and_code(self):
        self.policy("deny", validations=[
            {"expression": "!has(object.data) || !('bad' in object.data)", "messageExpression": "'bad is ' + object.data.bad"},
            {"expression": "object.metadata.name != 'forbidden'", "message": "no such name", "reason": "Forbidden"},
            {"expression": "object.metadata.name != 'plain'"}])
        self.assertEqual(self.send({"good": "1"})[0], 201)
        s, o, _ = self.send({"bad": "here"})
        text = "ValidatingAdmissionPolicy 'deny' with binding 'deny-binding' denied request: bad is here"
        self.assertEqual((s, o["reason"], o["message"]), (422, "Invalid", 'configmaps "x" is forbidden: ' + text))
        self.assertEqual(o["details"], {"name": "x", "kind": "configmaps", "causes": [{"message": text}]})
        s, o, _ = self.send(name="forbidden")
        self.assertEqual((s, o["reason"]), (403, "Forbidden"))
        self.assertTrue(o["message"].endswith("denied request: no such name"), o["message"])
        s, o, _ = self.send(name="plain")
        self.assertTrue(o["message"].endswith("failed expression: object.metadata.name != 'plain'"), o["message"])

    def test_variables_request_namespace_and_authorizer(self):
        self.policy("env", variables=[
            {"name": "n", "expression": "has(object.data) ? int(object.data.n) : 0"},
            {"name": "odd", "expression": "variables.n % 2 == 1"}],
            validations=[
                {"expression": "!variables.odd", "message": "odd"},
                {"expression": "variables.n / (variables.n - 2) >= 0 || true", "message": "never"},
                {"expression": "namespaceObject.metadata.name == request.namespace && request.operation == 'CREATE'",
                 "message": "where"},
                {"expression": "authorizer.requestResource.check('create').allowed()", "message": "not allowed"},
                {"expression": "!authorizer.serviceAccount('default', 'nobody').group('').resource('pods').namespace('default')"
                               ".check('delete').allowed()", "message": "nobody may"}])
        self.assertEqual(self.send({"n": "4"})[0], 201)
        self.assertTrue(self.send({"n": "3"})[1]["message"].endswith("denied request: odd"))
        s, o, _ = self.send({"n": "x"})
        self.assertEqual(s, 422)
        self.assertIn("denied request: expression '!variables.odd' resulted in error: ", o["message"])
        self.assertIn('composited variable "odd" fails to evaluate: composited variable "n" fails to evaluate: ', o["message"])

    def test_warn_failure_policy_and_match_conditions(self):
        self.policy("warn", binding={"validationActions": ["Warn"]}, matchConditions=[
            {"name": "not-skipped", "expression": "object.metadata.name != 'skip'"}],
            validations=[{"expression": "false", "message": "think again"}])
        s, o, h = self.send()
        self.assertEqual((s, h.get_all("Warning")), (201, [
            "299 - \"Validation failed for ValidatingAdmissionPolicy 'warn' with binding 'warn-binding': think again\""]))
        self.assertEqual(self.send(name="skip")[2].get_all("Warning"), None)
        self.policy("open", failurePolicy="Ignore", validations=[{"expression": "object.data.missing == 'x'"}])
        self.assertEqual(self.send()[0], 201)

    def test_parameters(self):
        self.make("/api/v1/namespaces/kube-system/configmaps", cm("limits", {"max": "2"}, namespace="kube-system",
                                                                     labels={"limits": "yes"}))
        self.policy("params", paramKind={"apiVersion": "v1", "kind": "ConfigMap"}, validations=[
            {"expression": "!has(object.data) || object.data.size() <= int(params.data.max)",
             "messageExpression": "'more than ' + params.data.max"}],
            binding={"paramRef": {"name": "limits", "namespace": "kube-system", "parameterNotFoundAction": "Deny"}})
        self.assertEqual(self.send({"a": "1", "b": "2"})[0], 201)
        self.assertTrue(self.send({"a": "1", "b": "2", "c": "3"})[1]["message"].endswith("denied request: more than 2"))
        B = ADMISSION + "validatingadmissionpolicybindings/params-binding"
        merge = {"Content-Type": "application/merge-patch+json"}
        self.c.api("PATCH", B, {"spec": {"paramRef": {"name": "other"}}}, headers=merge)
        s, o, _ = self.send()
        self.assertTrue(o["message"].endswith("failed to configure binding: no params found for policy binding with `Deny` "
                                              "parameterNotFoundAction"), o["message"])
        self.c.api("PATCH", B, {"spec": {"paramRef": {"parameterNotFoundAction": "Allow"}}}, headers=merge)
        self.assertEqual(self.send()[0], 201)
        self.c.api("PATCH", B, {"spec": {"paramRef": {"name": None, "selector": {"matchLabels": {"limits": "yes"}}}}},
                   headers=merge)
        self.assertEqual(self.send({"a": "1", "b": "2", "c": "3"})[0], 422)

    def test_policies_change_objects(self):
        self.policy("apply", "Mutating", mutations=[{"patchType": "ApplyConfiguration", "applyConfiguration": {
            "expression": "Object{metadata: Object.metadata{labels: {'by': request.userInfo.username}}}"}}])
        self.policy("patch", "Mutating", mutations=[{"patchType": "JSONPatch", "jsonPatch": {
            "expression": "[JSONPatch{op: 'test', path: '/metadata/labels/by', value: 'jane'}, "
                          "JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/x'), value: 'y'}]"}}])
        s, o, _ = self.send(user="jane", groups=["system:masters"])
        self.assertEqual((s, o["metadata"]["labels"]), (201, {"by": "jane", "example.com/x": "y"}), o)
        s, o, _ = self.send(user="joe", groups=["system:masters"])
        self.assertEqual((s, o["metadata"]["labels"]), (201, {"by": "joe"}), "a test that fails changes nothing")
        self.policy("wrong", "Mutating", mutations=[{"patchType": "JSONPatch", "jsonPatch": {
            "expression": "[JSONPatch{op: 'remove', path: '/data/none'}]"}}])
        s, o, _ = self.send()
        self.assertEqual((s, o["reason"]), (403, "Invalid"), o)
        self.assertTrue(o["message"].startswith("policy 'wrong' with binding 'wrong-binding' denied request: JSON Patch: "), o)

    def test_lists_are_merged_by_their_keys_and_atomic_ones_refused(self):
        pods = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}
        P = "/api/v1/namespaces/default/pods?dryRun=All"
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
               "spec": {"containers": [{"name": "c", "image": "i"}]}}

        def policy(name, expr):
            A, B = ADMISSION + "mutatingadmissionpolicies", ADMISSION + "mutatingadmissionpolicybindings"
            s, o = self.c.api("POST", A, {
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": name},
                "spec": {"matchConstraints": {"resourceRules": [pods]}, "reinvocationPolicy": "IfNeeded", "mutations": [
                    {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expr}}]}})
            self.assertEqual(s, 201, o)
            self.c.api("POST", B, {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
                                   "metadata": {"name": name}, "spec": {"policyName": name}})
            got = self.c.api("POST", P, pod)
            self.c.api("DELETE", A + "/" + name)
            self.c.api("DELETE", B + "/" + name)
            return got
        s, o = policy("env", "Object{spec: Object.spec{containers: object.spec.containers.map(c, Object.spec.containers{"
                             "name: c.name, env: [Object.spec.containers.env{name: 'A', value: 'b'}]}), "
                             "initContainers: [Object.spec.initContainers{name: 'i', image: 'side', restartPolicy: 'Always'}]}}")
        self.assertEqual(s, 201, o)
        c = o["spec"]["containers"][0]
        self.assertEqual((c["image"], c["env"], o["spec"]["initContainers"][0]["terminationMessagePath"]),
                         ("i", [{"name": "A", "value": "b"}], "/dev/termination-log"))
        s, o = policy("atomic", "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'c', args: ['x']}]}}")
        self.assertEqual(s, 403)
        self.assertIn("error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: "
                      ".spec.containers[0].args", o["message"])
        s, o = policy("names", "Object{spec: Object.wrong{hostname: 'x'}}")
        self.assertIn('type mismatch: unexpected type name "Object.wrong", expected "Object.spec", which matches field name '
                      'path from root Object type', o["message"])

    def test_what_is_refused_when_it_is_written(self):
        def causes(kind, spec, name="v"):
            s, o = self.c.api("POST", ADMISSION + kind.lower() + ("s" if kind[-1] != "y" else ""), {}) if False else self.c.api(
                "POST", ADMISSION + (kind.lower()[:-1] + "ies" if kind.endswith("Policy") else kind.lower() + "s"),
                {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
            self.assertEqual((s, o["reason"]), (422, "Invalid"), o)
            return {x["field"]: x["message"] for x in o["details"]["causes"]}
        match = {"resourceRules": [RULE]}
        got = causes("ValidatingAdmissionPolicy", {"matchConstraints": match, "variables": [
            {"name": "in", "expression": "1"}, {"name": "ok", "expression": "object.spec +"}], "validations": [
            {"expression": "object.x == oops"}, {"expression": "1 + 1", "message": "a\nb"},
            {"expression": "request.nothing == ''", "reason": "Other", "messageExpression": "1"}],
            "matchConditions": [{"name": "b!", "expression": "true"}]})
        self.assertEqual(got["spec.variables[0].name"], 'Invalid value: "in": must be a valid CEL identifier')
        self.assertTrue(got["spec.variables[1].expression"].startswith('Invalid value: "object.spec +": compilation failed: '
                                                                       "ERROR: <input>:1:14: Syntax error: "), got)
        self.assertTrue(got["spec.validations[0].expression"].startswith(
            'Invalid value: "object.x == oops": compilation failed: ERROR: <input>:1:13: undeclared reference to '
            "'oops' (in container '')"), got)
        self.assertEqual(got["spec.validations[1].expression"], 'Invalid value: "1 + 1": must evaluate to bool but got int')
        self.assertEqual(got["spec.validations[1].message"], 'Invalid value: "a\\nb": must not contain line breaks')
        self.assertIn("undefined field 'nothing'", got["spec.validations[2].expression"])
        self.assertEqual(got["spec.validations[2].messageExpression"], 'Invalid value: "1": must evaluate to string but got int')
        self.assertIn('Unsupported value: "Other"', got["spec.validations[2].reason"])
        self.assertIn("spec.matchConditions[0].name", got)
        self.assertIn("spec.matchConstraints", causes("ValidatingAdmissionPolicy", {"validations": [{"expression": "true"}]}))
        got = causes("MutatingAdmissionPolicy", {"matchConstraints": {"resourceRules": [RULE]}, "reinvocationPolicy": "Never",
                                                 "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "Object{}"}},
                                                               {"patchType": "ApplyConfiguration"}]})
        self.assertEqual(got["spec.mutations[0].jsonPatch.expression"],
                         'Invalid value: "Object{}": must evaluate to list(JSONPatch) but got Object')
        self.assertEqual(got["spec.mutations[1].applyConfiguration"],
                         "Required value: must be specified when patchType is ApplyConfiguration")
        self.assertIn('Unsupported value: "DELETE"', got["spec.matchConstraints.resourceRules.operations"])
        got = causes("ValidatingAdmissionPolicyBinding", {"policyName": "x", "validationActions": ["Deny", "Warn", "Deny"],
                                                          "paramRef": {"name": "a", "selector": {}}})
        self.assertEqual(got["spec.validationActions[2]"], 'Duplicate value: "Deny"')
        self.assertIn("must not contain both Deny and Warn", got["spec.validationActions"])
        self.assertEqual(got["spec.paramRef.name"], "Forbidden: name and selector are mutually exclusive")
        self.assertEqual(got["spec.paramRef.parameterNotFoundAction"], "Required value")

    def test_webhooks_with_wrong_conditions_are_refused(self):
        w = self.webhook("c", "/c", matchConditions=[{"name": "bad", "expression": "... [] bad expression"}])
        for kind in ("mutating", "validating"):
            s, o = self.c.api("POST", ADMISSION + kind + "webhookconfigurations", {
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind.capitalize() + "WebhookConfiguration",
                "metadata": {"name": "bad"}, "webhooks": [w]})
            self.assertEqual(s, 422, o)
            self.assertIn('webhooks[0].matchConditions[0].expression: Invalid value: "... [] bad expression": compilation '
                          "failed: ", o["message"])


if __name__ == "__main__":
    unittest.main()
