#!/usr/bin/env python3
"""Who may do what, and who is who: kubectl over TLS with certificates, tokens and --as."""
import base64
import json
import os
import subprocess
import time
import unittest

from cluster import BINARY, Cluster

RBAC = "/apis/rbac.authorization.k8s.io/v1"


def wait_for(what, deadline=20):
    end = time.monotonic() + deadline
    while True:
        got = what()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError("timed out")
        time.sleep(0.05)


class Base(unittest.TestCase):
    extra = ()

    @classmethod
    def setUpClass(cls):
        cls.c = Cluster("memory", cls.extra)
        cls.k = staticmethod(cls.c.kubectl)
        cls.plain = cls.c.dir + "/nobody.kubeconfig"
        with open(cls.c.kubeconfig) as f, open(cls.plain, "w") as g:
            g.writelines(line for line in f if "client-" not in line)
        if "none" not in cls.extra:
            cls.k("create", "sa", "default", ok=False)

    @classmethod
    def tearDownClass(cls):
        cls.c.close()

    def no(self, want, *args, **kw):
        code, out = self.k(*args, ok=False, **kw)
        self.assertEqual((code, out.strip()), (1, want))

    def token_kubectl(self, token, *args, ok=True, stdin=None):
        """kubectl with a bearer token and no certificate."""
        return self.k("--kubeconfig", self.plain, "--token", token, *args, ok=ok, stdin=stdin)

    def cert(self, cn, *orgs):
        """A kubeconfig of a user whose certificate the cluster's CA signed."""
        d, pki = self.c.dir, self.c.dir + "/pki"
        subject = "".join("/O=" + o for o in orgs) + "/CN=" + cn
        name = cn.replace(":", "_")

        def run(*a):
            subprocess.run(["openssl", *a], check=True, capture_output=True)
        run("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{d}/{name}.key")
        run("req", "-new", "-key", f"{d}/{name}.key", "-subj", subject, "-out", f"{d}/{name}.csr")
        run("x509", "-req", "-in", f"{d}/{name}.csr", "-CA", f"{pki}/ca.crt", "-CAkey", f"{pki}/ca.key",
            "-CAcreateserial", "-out", f"{d}/{name}.crt", "-days", "1")
        return ["--kubeconfig", self.plain, "--client-certificate", f"{d}/{name}.crt", "--client-key", f"{d}/{name}.key"]


class Rbac(Base):
    def test_who_am_i(self):
        who = json.loads(self.k("auth", "whoami", "-o", "json"))["status"]["userInfo"]
        self.assertEqual((who["username"], who["groups"]), ("kubernetes-admin", ["system:masters", "system:authenticated"]))
        who = json.loads(self.k(*self.cert("alice", "dev", "ops"), "auth", "whoami", "-o", "json"))["status"]["userInfo"]
        self.assertEqual((who["username"], who["groups"]), ("alice", ["dev", "ops", "system:authenticated"]))
        self.assertRegex(who["extra"]["authentication.kubernetes.io/credential-id"][0], "^X509SHA256=[0-9a-f]{64}$")

    def test_a_user_without_roles_is_refused_with_upstreams_words(self):
        alice = self.cert("alice", "dev")
        self.no('Error from server (Forbidden): pods is forbidden: User "alice" cannot list resource "pods" in API '
                'group "" in the namespace "default"', *alice, "get", "pods")
        self.no('Error from server (Forbidden): nodes "n1" is forbidden: User "alice" cannot get resource "nodes" in '
                'API group "" at the cluster scope', *alice, "get", "node", "n1")
        self.no('Error from server (Forbidden): deployments.apps is forbidden: User "alice" cannot list resource '
                '"deployments" in API group "apps" at the cluster scope', *alice, "get", "deploy", "-A")
        self.no('Error from server (Forbidden): forbidden: User "alice" cannot get path "/metrics"',
                *alice, "get", "--raw", "/metrics")
        status, obj = self.c.api("GET", "/api/v1/namespaces/default/pods/x/log", user="alice")
        self.assertEqual((status, obj["reason"], obj["details"]), (403, "Forbidden", {"name": "x", "kind": "pods"}))
        self.assertEqual(obj["message"], 'pods "x" is forbidden: User "alice" cannot get resource "pods/log" in API '
                         'group "" in the namespace "default"')
        status, obj = self.c.api("GET", "/metrics", user="<a&b>")
        self.assertEqual((status, obj["message"], obj["details"]),
                         (403, 'forbidden: User "&lt;a&amp;b&gt;" cannot get path "/metrics"', {}))

    def test_a_role_opens_what_it_names_and_nothing_else(self):
        k = self.k
        k("create", "ns", "team")
        k("create", "role", "reader", "-n", "team", "--verb=get,list", "--resource=configmaps,pods/log", "--resource-name=")
        k("create", "rolebinding", "reader", "-n", "team", "--role=reader", "--user=bob")
        can = lambda *a: k("auth", "can-i", *a, "--as=bob", ok=False)
        self.assertEqual(can("list", "configmaps", "-n", "team"), (0, "yes\n"))
        self.assertEqual(can("list", "configmaps", "-n", "default"), (1, "no\n"))
        self.assertEqual(can("list", "configmaps", "-A"), (1, "no\n"))
        self.assertEqual(can("delete", "configmaps", "-n", "team"), (1, "no\n"))
        self.assertEqual(can("get", "pods", "--subresource=log", "-n", "team"), (0, "yes\n"))
        self.assertEqual(can("get", "pods", "-n", "team"), (1, "no\n"))
        k("get", "cm", "-n", "team", "--as=bob")
        k("delete", "rolebinding", "reader", "-n", "team")
        self.assertEqual(can("list", "configmaps", "-n", "team"), (1, "no\n"))

    def test_resource_names_open_lists_of_that_name_only(self):
        k = self.k
        k("create", "ns", "names")
        k("create", "cm", "one", "-n", "names")
        k("create", "role", "one", "-n", "names", "--verb=get,list,watch", "--resource=configmaps", "--resource-name=one")
        k("create", "rolebinding", "one", "-n", "names", "--role=one", "--group=dev")
        as_dev = ("--as=x", "--as-group=dev", "-n", "names")
        self.assertIn("one", k("get", "cm", "one", *as_dev))
        self.assertIn("one", k("get", "cm", "--field-selector=metadata.name=one", *as_dev))
        code, out = k("get", "cm", *as_dev, ok=False)
        self.assertIn('configmaps is forbidden: User "x" cannot list', out)
        code, out = k("get", "cm", "two", *as_dev, ok=False)
        self.assertIn('configmaps "two" is forbidden', out)

    def test_default_roles_and_bindings_are_there_and_are_mended(self):
        _, roles = self.c.api("GET", RBAC + "/clusterroles")
        names = {r["metadata"]["name"]: r for r in roles["items"]}
        self.assertGreater(len(names), 60)
        admin = names["cluster-admin"]
        self.assertEqual(admin["metadata"]["labels"], {"kubernetes.io/bootstrapping": "rbac-defaults"})
        self.assertEqual(admin["metadata"]["annotations"], {"rbac.authorization.kubernetes.io/autoupdate": "true"})
        self.assertEqual(admin["rules"], [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
                                          {"verbs": ["*"], "nonResourceURLs": ["*"]}])
        self.assertEqual(admin["metadata"]["managedFields"][0]["manager"], "kube-apiserver")
        _, b = self.c.api("GET", RBAC + "/clusterrolebindings/system:public-info-viewer")
        self.assertEqual(sorted(s["name"] for s in b["subjects"]), ["system:authenticated", "system:unauthenticated"])
        _, b = self.c.api("GET", RBAC + "/namespaces/kube-system/rolebindings/system::leader-locking-kube-scheduler")
        self.assertEqual(b["subjects"][1], {"kind": "ServiceAccount", "name": "kube-scheduler", "namespace": "kube-system"})
        out = self.k("get", "clusterrolebindings", "cluster-admin", "-o", "wide")
        self.assertIn("ClusterRole/cluster-admin", out)

    def test_access_reviews_say_why(self):
        self.k("create", "clusterrolebinding", "vv", "--clusterrole=view", "--serviceaccount=default:rev")

        def review(**spec):
            status, obj = self.c.api("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews",
                                     {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec})
            self.assertEqual(status, 201, obj)
            return obj["status"]
        self.k("create", "clusterrole", "cr", "--verb=get", "--resource=pods")
        self.k("create", "clusterrolebinding", "crb", "--clusterrole=cr", "--serviceaccount=default:rev", "--group=g")
        ra = {"verb": "get", "resource": "pods", "namespace": "x"}
        self.assertEqual(review(user="system:serviceaccount:default:rev", resourceAttributes=ra),
                         {"allowed": True, "reason": 'RBAC: allowed by ClusterRoleBinding "crb" of ClusterRole "cr" to '
                                                     'ServiceAccount "rev/default"'})
        self.assertEqual(review(user="u", groups=["g"], resourceAttributes=ra),
                         {"allowed": True, "reason": 'RBAC: allowed by ClusterRoleBinding "crb" of ClusterRole "cr" to Group "g"'})
        self.assertEqual(review(user="u", resourceAttributes=ra), {"allowed": False})
        self.assertEqual(review(user="u", nonResourceAttributes={"path": "/healthz", "verb": "get"}), {"allowed": False})
        self.assertTrue(review(groups=["system:masters"], resourceAttributes=ra)["allowed"])
        self.k("create", "rolebinding", "dangling", "-n", "default", "--role=nope", "--user=u")
        self.assertEqual(review(user="u", resourceAttributes=dict(ra, namespace="default")),
                         {"allowed": False, "reason": 'RBAC: role.rbac.authorization.k8s.io "nope" not found'})
        for kind, plural, body in (
                ("SubjectAccessReview", "subjectaccessreviews", {"user": "u"}),
                ("SelfSubjectAccessReview", "selfsubjectaccessreviews", {}),
                ("SubjectAccessReview", "subjectaccessreviews", {"resourceAttributes": ra})):
            status, obj = self.c.api("POST", "/apis/authorization.k8s.io/v1/" + plural,
                                     {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": body})
            self.assertEqual((status, obj["reason"], obj["details"]["kind"]), (422, "Invalid", kind))
        status, obj = self.c.api("POST", "/apis/authorization.k8s.io/v1/namespaces/a/localsubjectaccessreviews",
                                 {"apiVersion": "authorization.k8s.io/v1", "kind": "LocalSubjectAccessReview",
                                  "spec": {"user": "u", "resourceAttributes": dict(ra, namespace="b")}})
        self.assertEqual(obj["message"], 'LocalSubjectAccessReview.authorization.k8s.io "" is invalid: '
                         'spec.resourceAttributes.namespace: Invalid value: "b": must match metadata.namespace')

    def test_can_i_list(self):
        out = self.k("auth", "can-i", "--list", "--as=carol")
        self.assertIn("selfsubjectaccessreviews.authorization.k8s.io", out)
        self.assertIn("[/version]", out)
        self.assertNotIn("*.*", out)

    def test_anonymous_reaches_what_public_info_viewer_names(self):
        def get(path):
            return self.k("--kubeconfig", self.plain, "--token", "", "get", "--raw", path, ok=False)
        import ssl
        import urllib.request
        ctx = ssl._create_unverified_context()

        def code(path):
            try:
                with urllib.request.urlopen(self.c.url + path, context=ctx) as r:
                    return r.status, r.read()
            except urllib.error.HTTPError as e:
                return e.code, e.read()
        self.assertEqual(code("/healthz"), (200, b"ok"))
        self.assertEqual(code("/version")[0], 200)
        status, body = code("/api")
        self.assertEqual((status, json.loads(body)["message"]),
                         (403, 'forbidden: User "system:anonymous" cannot get path "/api"'))
        status, body = code("/api/v1/pods")
        self.assertIn('User "system:anonymous" cannot list resource "pods"', json.loads(body)["message"])

    def test_bad_credentials_are_401(self):
        code, out = self.token_kubectl("nonsense", "get", "pods", ok=False)
        self.assertEqual(out.strip(), "error: You must be logged in to the server (Unauthorized)")

    # ---- escalation ----

    def test_nobody_hands_out_more_than_he_has(self):
        k = self.k
        k("create", "ns", "esc")
        k("create", "role", "rbac-editor", "-n", "esc", "--verb=*", "--resource=roles.rbac.authorization.k8s.io,rolebindings.rbac.authorization.k8s.io")
        k("create", "role", "pod-reader", "-n", "esc", "--verb=get,list", "--resource=pods")
        for r in ("rbac-editor", "pod-reader"):
            k("create", "rolebinding", "mal-" + r, "-n", "esc", "--role=" + r, "--user=mallory")
        mal = ("--as=mallory", "-n", "esc")
        k("create", "role", "fine", "--verb=get", "--resource=pods", *mal)
        # verb * of roles includes escalate and bind, so a narrower editor is used for the refusals
        k("delete", "rolebinding", "mal-rbac-editor", "-n", "esc")
        k("create", "role", "narrow", "-n", "esc", "--verb=get,list,create,update,patch,delete",
          "--resource=roles.rbac.authorization.k8s.io,rolebindings.rbac.authorization.k8s.io")
        k("create", "rolebinding", "mal-narrow", "-n", "esc", "--role=narrow", "--user=mallory")
        k("create", "role", "fine2", "--verb=list", "--resource=pods", *mal)
        self.no('Error from server (Forbidden): roles.rbac.authorization.k8s.io "evil" is forbidden: user "mallory" '
                '(groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:\n'
                '{APIGroups:[""], Resources:["pods"], Verbs:["delete" "create"]}\n'
                '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "delete" "create"]}',
                "create", "role", "evil", "--verb=get,delete,create", "--resource=pods,secrets", *mal)
        self.no('error: failed to create rolebinding: rolebindings.rbac.authorization.k8s.io "evil" is forbidden: user '
                '"mallory" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently '
                'held:\n{APIGroups:["*"], Resources:["*"], Verbs:["*"]}\n{NonResourceURLs:["*"], Verbs:["*"]}',
                "create", "rolebinding", "evil", "--clusterrole=cluster-admin", "--user=mallory", *mal)
        self.no('error: failed to create rolebinding: role.rbac.authorization.k8s.io "nope" not found',
                "create", "rolebinding", "evil", "--role=nope", "--user=mallory", *mal)
        k("create", "role", "binder", "-n", "esc", "--verb=bind", "--resource=clusterroles.rbac.authorization.k8s.io", "--resource-name=view")
        k("create", "rolebinding", "binder", "-n", "esc", "--role=binder", "--user=mallory")
        k("create", "rolebinding", "now-fine", "--clusterrole=view", "--user=mallory", *mal)
        code, out = k("patch", "role", "fine", "--type=json", *mal, "-p",
                      '[{"op":"add","path":"/rules/-","value":{"verbs":["get"],"apiGroups":[""],"resources":["secrets"]}}]', ok=False)
        self.assertIn('{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}', out)

    def test_aggregation_rules_need_everything(self):
        k = self.k
        k("create", "clusterrole", "cr-editor", "--verb=create,update,get", "--resource=clusterroles.rbac.authorization.k8s.io")
        k("create", "clusterrolebinding", "cr-editor", "--clusterrole=cr-editor", "--user=agg")
        self.no('Error from server (Forbidden): clusterroles.rbac.authorization.k8s.io "a" is forbidden: must '
                'have cluster-admin privileges to use the aggregationRule',
                "create", "clusterrole", "a", "--aggregation-rule=x=y", "--as=agg")

    def test_auth_reconcile(self):
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "rec"},
                "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}
        self.assertIn("reconciled", self.k("auth", "reconcile", "-f", "-", stdin=json.dumps(role)))
        role["rules"][0]["verbs"] = ["list"]
        self.k("auth", "reconcile", "-f", "-", stdin=json.dumps(role))
        _, now = self.c.api("GET", RBAC + "/clusterroles/rec")
        self.assertEqual([r["verbs"] for r in now["rules"]], [["get"], ["list"]])

    # ---- impersonation ----

    def test_impersonation_is_asked_for_each_part(self):
        k = self.k
        who = json.loads(k("auth", "whoami", "-o", "json", "--as=imp", "--as-group=g1", "--as-group=g2", "--as-uid=7"))["status"]["userInfo"]
        self.assertEqual(who, {"username": "imp", "uid": "7", "groups": ["g1", "g2", "system:authenticated"]})
        who = json.loads(k("auth", "whoami", "-o", "json", "--as=system:serviceaccount:ns1:sa1"))["status"]["userInfo"]
        self.assertEqual(who["groups"], ["system:serviceaccounts", "system:serviceaccounts:ns1", "system:authenticated"])
        eve = self.cert("eve")
        self.no('Error from server (Forbidden): users "root" is forbidden: User "eve" cannot impersonate resource '
                '"users" in API group "" at the cluster scope', *eve, "get", "pods", "--as=root")
        k("create", "clusterrole", "imp", "--verb=impersonate", "--resource=users", "--resource-name=root")
        k("create", "clusterrolebinding", "imp", "--clusterrole=imp", "--user=eve")
        who = json.loads(k(*eve, "auth", "whoami", "-o", "json", "--as=root"))["status"]["userInfo"]
        self.assertEqual(who["username"], "root")
        self.no('Error from server (Forbidden): groups "system:masters" is forbidden: User "eve" cannot impersonate '
                'resource "groups" in API group "" at the cluster scope',
                *eve, "get", "pods", "--as=root", "--as-group=system:masters")
        self.no('Error from server (Forbidden): serviceaccounts "d" is forbidden: User "eve" cannot impersonate '
                'resource "serviceaccounts" in API group "" in the namespace "default"',
                *eve, "get", "pods", "--as=system:serviceaccount:default:d")
        status, _, out = self.c.http("GET", "/api/v1/pods", headers={"Impersonate-Group": "x"})
        self.assertEqual(status, 400)
        self.assertIn("without impersonating a user", json.loads(out)["message"])
        h = {"Impersonate-User": "u", "Impersonate-Extra-Acme.com%2Fproject": "p1", "Content-Type": "application/json"}
        status, _, out = self.c.http("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", b"{}", headers=h)
        self.assertEqual(json.loads(out)["status"]["userInfo"]["extra"], {"acme.com/project": ["p1"]})
        status, _, out = self.c.http("GET", "/api/v1/pods", headers=h, user="eve")
        self.assertEqual(json.loads(out)["message"].split(": ")[0], 'users "u" is forbidden')


class Aggregation(Base):
    extra = ("--controllers", "all")

    def test_admin_edit_and_view_are_gathered_and_follow(self):
        def verbs_of(role, resource):
            _, r = self.c.api("GET", RBAC + "/clusterroles/" + role)
            return [v for rule in r["rules"] or [] if resource in rule["resources"] for v in rule["verbs"]]
        wait_for(lambda: "list" in verbs_of("admin", "services") and "create" in verbs_of("admin", "rolebindings"))
        wait_for(lambda: "create" in verbs_of("edit", "services"))
        self.k("create", "rolebinding", "dev", "--clusterrole=edit", "--user=dev")
        self.assertEqual(self.k("auth", "can-i", "create", "deployments", "--as=dev"), "yes\n")
        self.assertEqual(self.k("auth", "can-i", "create", "roles", "--as=dev", ok=False), (1, "no\n"))
        self.k("apply", "-f", "-", stdin=json.dumps({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "widgets", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
            "rules": [{"apiGroups": ["acme.com"], "resources": ["widgets"], "verbs": ["get"]}]}))
        wait_for(lambda: verbs_of("admin", "widgets") == ["get"])
        self.k("delete", "clusterrole", "widgets")
        wait_for(lambda: verbs_of("admin", "widgets") == [])
        _, admin = self.c.api("GET", RBAC + "/clusterroles/admin")
        self.assertIn("clusterrole-aggregation-controller", [m["manager"] for m in admin["metadata"]["managedFields"]])


def claims(token):
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


class Tokens(Base):
    def review(self, token, *audiences):
        status, obj = self.c.api("POST", "/apis/authentication.k8s.io/v1/tokenreviews",
                                 {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
                                  "spec": {"token": token, "audiences": list(audiences)}})
        self.assertEqual(status, 201, obj)
        return obj["status"]

    def request(self, sa, **spec):
        return self.c.api("POST", f"/api/v1/namespaces/default/serviceaccounts/{sa}/token",
                          {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})

    def test_a_token_is_its_account_until_the_account_goes(self):
        self.k("create", "sa", "one")
        token = self.k("create", "token", "one", "--duration=15m").strip()
        c = claims(token)
        self.assertEqual((c["sub"], c["exp"] - c["iat"], c["aud"]),
                         ("system:serviceaccount:default:one", 900, ["https://kubernetes.default.svc.cluster.local"]))
        self.assertEqual(c["iss"], "https://kubernetes.default.svc.cluster.local")
        who = json.loads(self.token_kubectl(token, "auth", "whoami", "-o", "json"))["status"]["userInfo"]
        self.assertEqual(who["groups"], ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"])
        self.assertEqual(who["extra"], {"authentication.kubernetes.io/credential-id": ["JTI=" + c["jti"]]})
        self.assertEqual(self.review(token)["user"]["uid"], who["uid"])
        self.k("delete", "sa", "one")
        self.k("create", "sa", "one")
        code, out = self.token_kubectl(token, "get", "pods", ok=False)
        self.assertIn("You must be logged in", out)
        self.assertIn("does not match claim", self.review(token)["error"])

    def test_bounds_of_a_request(self):
        self.k("create", "sa", "two")
        self.no('error: failed to create token: TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: '
                'Invalid value: 60: may not specify a duration less than 10 minutes', "create", "token", "two", "--duration=60s")
        self.no('error: failed to create token: serviceaccounts "none" not found', "create", "token", "none")
        status, obj = self.request("two", expirationSeconds=2**33)
        self.assertEqual((status, obj["details"]["causes"][0]["message"]),
                         (422, "Invalid value: 8589934592: may not specify a duration larger than 2^32 seconds"))
        status, obj = self.request("two", boundObjectRef={"kind": "ConfigMap", "apiVersion": "v1", "name": "x"})
        self.assertEqual((status, obj["message"]), (400, "cannot bind token to object of type /v1, Kind=ConfigMap"))
        status, obj = self.request("two", boundObjectRef={"kind": "Pod", "apiVersion": "v1", "name": "x"})
        self.assertEqual((status, obj["message"]), (404, 'pods "x" not found'))

    def test_audiences(self):
        self.k("create", "sa", "aud")
        token = self.k("create", "token", "aud", "--audience=vault", "--audience=other").strip()
        code, out = self.token_kubectl(token, "get", "pods", ok=False)
        self.assertIn("You must be logged in", out)
        r = self.review(token, "vault", "nobody")
        self.assertEqual((r["authenticated"], r["audiences"]), (True, ["vault"]))
        r = self.review(token)
        self.assertNotIn("authenticated", {k for k, v in r.items() if v is True})
        self.assertIn('token audiences ["vault" "other"] is invalid for the target audiences', r["error"])
        self.assertEqual(self.review("x.y.z")["error"], "invalid bearer token")

    def test_a_bound_token_dies_with_its_object(self):
        self.k("create", "sa", "bound")
        self.k("create", "secret", "generic", "holder")
        token = self.k("create", "token", "bound", "--bound-object-kind=Secret", "--bound-object-name=holder").strip()
        self.assertTrue(self.review(token)["authenticated"])
        self.k("delete", "secret", "holder")
        self.assertEqual(self.review(token)["error"], "[invalid bearer token, service account token has been invalidated]")
        self.k("create", "secret", "generic", "holder")
        self.assertIn("does not match service account secret ref claim", self.review(token)["error"])
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
               "spec": {"serviceAccountName": "bound", "nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}}
        self.k("apply", "-f", "-", stdin=json.dumps(pod))
        self.c.api("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
        status, obj = self.request("bound", expirationSeconds=3607, boundObjectRef={"kind": "Pod", "apiVersion": "v1", "name": "p"})
        self.assertEqual(status, 201, obj)
        c = claims(obj["status"]["token"])
        k8s = c["kubernetes.io"]
        self.assertEqual((k8s["pod"]["name"], k8s["node"]["name"], c["exp"] - c["iat"], k8s["warnafter"] - c["iat"]),
                         ("p", "n1", 365 * 86400, 3607))
        extra = self.review(obj["status"]["token"])["user"]["extra"]
        self.assertEqual((extra["authentication.kubernetes.io/pod-name"], extra["authentication.kubernetes.io/node-uid"]),
                         (["p"], [k8s["node"]["uid"]]))
        self.k("create", "sa", "stranger")
        status, got = self.request("stranger", boundObjectRef={"kind": "Pod", "apiVersion": "v1", "name": "p"})
        self.assertEqual((status, got["message"]), (400, 'cannot bind token for serviceaccount "stranger" to pod running '
                                                         'with different serviceaccount name.'))
        self.k("delete", "pod", "p", "--grace-period=0", "--force")
        self.assertFalse(self.review(obj["status"]["token"]).get("authenticated", False))

    def test_keys_and_issuer_are_published(self):
        self.k("create", "sa", "reader")
        token = self.k("create", "token", "reader").strip()
        conf = json.loads(self.token_kubectl(token, "get", "--raw", "/.well-known/openid-configuration"))
        self.assertEqual((conf["issuer"], conf["response_types_supported"], conf["subject_types_supported"]),
                         ("https://kubernetes.default.svc.cluster.local", ["id_token"], ["public"]))
        self.assertTrue(conf["jwks_uri"].endswith("/openid/v1/jwks"))
        keys = json.loads(self.token_kubectl(token, "get", "--raw", "/openid/v1/jwks"))["keys"]
        head = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
        self.assertEqual([(k["kid"], k["alg"], k["use"]) for k in keys], [(head["kid"], "ES256", "sig")])


class StaticTokens(Base):
    @classmethod
    def setUpClass(cls):
        with open("/tmp/th-tokens-%d.csv" % os.getpid(), "w") as f:
            f.write('# comment\nt0ken,dave,uid-1,"dev,system:masters"\nplain,erin,uid-2\n')
            cls.file = f.name
        cls.extra = ("--token-file", cls.file)
        super().setUpClass()
        os.unlink(cls.file)

    def test_static_tokens(self):
        who = json.loads(self.token_kubectl("t0ken", "auth", "whoami", "-o", "json"))["status"]["userInfo"]
        self.assertEqual(who, {"username": "dave", "uid": "uid-1", "groups": ["dev", "system:masters", "system:authenticated"]})
        code, out = self.token_kubectl("plain", "get", "ns", ok=False)
        self.assertIn('User "erin" cannot list resource "namespaces"', out)


class Audit(Base):
    POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: [quiet]
- level: Metadata
  resources: [{group: "", resources: [secrets]}]
- level: RequestResponse
  verbs: [create]
  resources: [{group: "", resources: ["configmaps"]}]
- level: Request
  resources: [{group: "", resources: ["pods/*", "configmaps"]}]
- level: None
  nonResourceURLs: ["/healthz*"]
- level: Metadata
"""

    @classmethod
    def setUpClass(cls):
        cls.base = "/tmp/th-audit-%d" % os.getpid()
        with open(cls.base + ".yaml", "w") as f:
            f.write(cls.POLICY)
        cls.extra = ("--audit-policy-file", cls.base + ".yaml", "--audit-log-path", cls.base + ".log")
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        for end in (".yaml", ".log"):
            os.unlink(cls.base + end)

    def events(self, **want):
        with open(self.base + ".log") as f:
            every = [json.loads(line) for line in f]
        return [e for e in every if all(e.get(k) == v for k, v in want.items())]

    def test_each_rule_says_how_much_is_written(self):
        ns = "/api/v1/namespaces/default/"
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "h1dden-value"}}
        self.c.api("POST", ns + "secrets", secret)
        self.c.api("GET", ns + "secrets/s")
        self.c.api("POST", ns + "configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}})
        self.c.api("DELETE", ns + "configmaps/c", {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"})
        self.c.api("GET", ns + "pods", user="quiet")
        self.c.http("GET", "/healthz")
        made = self.events(verb="create", level="RequestResponse")[0]
        self.assertEqual(made["objectRef"], {"resource": "configmaps", "namespace": "default", "name": "c", "apiVersion": "v1"})
        self.assertEqual((made["requestObject"]["data"], made["responseObject"]["data"]), ({"a": "b"}, {"a": "b"}))
        self.assertEqual((made["stage"], made["responseStatus"]["code"], made["user"]["username"]), ("ResponseComplete", 201, "system:admin"))
        self.assertEqual(made["annotations"], {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""})
        gone = self.events(verb="delete", level="Request")[0]
        self.assertEqual(gone["requestObject"]["propagationPolicy"], "Background")
        self.assertNotIn("responseObject", gone)
        self.assertEqual({e["level"] for e in self.events() if e.get("objectRef", {}).get("resource") == "secrets"}, {"Metadata"})
        with open(self.base + ".log") as f:
            text = f.read()
        self.assertNotIn("h1dden-value", text)
        self.assertNotIn("quiet", text)
        self.assertNotIn("/healthz", text)
        self.assertNotIn("RequestReceived", text)

    def test_refusals_and_impersonation_are_written(self):
        self.k("get", "deploy", "--as=heidi", ok=False)
        e = [e for e in self.events(verb="list") if e.get("impersonatedUser", {}).get("username") == "heidi"][0]
        self.assertEqual((e["user"]["username"], e["responseStatus"]["code"], e["responseStatus"]["reason"]),
                         ("kubernetes-admin", 403, "Forbidden"))
        self.assertEqual((e["annotations"]["authorization.k8s.io/decision"], e["objectRef"]["apiGroup"]), ("forbid", "apps"))
        self.assertTrue(e["userAgent"].startswith("kubectl"))
        events, conn = self.c.watch("/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=1")
        self.assertEqual(list(events), [])
        conn.close()
        deadline = time.time() + 10
        while len(self.events(verb="watch")) < 2 and time.time() < deadline:
            time.sleep(0.02)
        self.assertEqual([e["stage"] for e in self.events(verb="watch")], ["ResponseStarted", "ResponseComplete"])

    def test_a_bad_policy_does_not_start(self):
        with open(self.base + ".bad", "w") as f:
            f.write("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Everything}]\n")
        args = [BINARY] + (["controlplane"] if os.path.basename(BINARY) == "thimbled" else [])
        p = subprocess.run(args + ["--memory", "--listen", "127.0.0.1:0", "--audit-policy-file", self.base + ".bad"],
                           capture_output=True, text=True, timeout=30)
        os.unlink(self.base + ".bad")
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("rules[0].level", p.stderr)


class AlwaysAllow(Base):
    extra = ("--authorization-mode", "AlwaysAllow")

    def test_everybody_may_everything(self):
        self.assertEqual(self.k("auth", "can-i", "delete", "nodes", "--as=anyone"), "yes\n")
        _, roles = self.c.api("GET", RBAC + "/clusterroles")
        self.assertEqual(roles["items"], [])


class Nodes(Base):
    """What a node's agent may do: the Node authorizer and NodeRestriction."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for n in ("n1", "n2"):
            cls.k("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": n}}))
        for name in ("mine", "other", "env"):
            cls.k("create", "secret", "generic", name, "--from-literal=a=b")
        cls.k("create", "cm", "conf")
        cls.k("create", "sa", "acc")
        for name, node in (("p1", "n1"), ("p2", "n2")):
            cls.k("apply", "-f", "-", stdin=json.dumps({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
                "spec": {"nodeName": node, "serviceAccountName": "acc", "containers": [
                    {"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "env" if node == "n1" else "other"}}]}],
                    "volumes": [{"name": "v", "secret": {"secretName": "mine"}}, {"name": "c", "configMap": {"name": "conf"}}]
                    if node == "n1" else []}}))

    def node(self, method, path, body=None):
        return self.c.api(method, path, body, user="system:node:n1", groups=["system:nodes"])

    def refused(self, got, *parts):
        status, obj = got
        self.assertEqual((status, obj["reason"]), (403, "Forbidden"), obj)
        for p in parts:
            self.assertIn(p, obj["message"])

    def test_only_what_its_pods_lead_to_is_readable(self):
        ns = "/api/v1/namespaces/default/"
        for path in ("secrets/mine", "secrets/env", "configmaps/conf", "configmaps/kube-root-ca.crt", "pods/p1"):
            self.assertIn(self.node("GET", ns + path)[0], (200, 404), path)
        self.refused(self.node("GET", ns + "secrets/other"),
                     'User "system:node:n1" cannot get resource "secrets" in API group "" in the namespace "default": '
                     "no relationship found between node 'n1' and this object")
        self.refused(self.node("GET", ns + "configmaps/nothing"), "no relationship found")
        self.refused(self.node("GET", ns + "secrets"), "No Object name found")
        self.refused(self.node("GET", "/api/v1/secrets"), "can only read namespaced object of this type")
        self.refused(self.node("GET", ns + "pods/p2"), "no relationship found")
        self.refused(self.node("GET", "/api/v1/pods"), "can only list/watch pods with spec.nodeName field selector")
        self.assertEqual(self.node("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1")[0], 200)
        self.refused(self.node("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2"))
        self.assertEqual(self.node("GET", "/api/v1/nodes/n1")[0], 200)
        self.refused(self.node("GET", "/api/v1/nodes/n2"), "node 'n1' cannot read 'n2', only its own Node object")
        self.refused(self.node("GET", "/api/v1/nodes"), "node 'n1' cannot read all nodes, only its own Node object")
        self.assertEqual(self.node("GET", "/api/v1/services")[0], 200)
        self.refused(self.node("GET", "/apis/apps/v1/deployments"))

    def test_only_its_own_things_are_writable(self):
        ns = "/api/v1/namespaces/default/"
        pod = lambda n: self.c.api("GET", ns + "pods/" + n)[1]
        p1 = pod("p1")
        p1["status"]["message"] = "hello"
        self.assertEqual(self.node("PUT", ns + "pods/p1/status", p1)[0], 200)
        self.refused(self.node("PUT", ns + "pods/p2/status", pod("p2")),
                     'node "n1" can only update pod status for pods with spec.nodeName set to itself')
        self.refused(self.node("DELETE", ns + "pods/p2"), 'node "n1" can only delete pods with spec.nodeName set to itself')
        self.refused(self.node("POST", ns + "pods", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"},
                                                     "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}}),
                     'pod does not have "kubernetes.io/config.mirror" annotation, node "n1" can only create mirror pods')
        evict = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p2"}}
        self.refused(self.node("POST", ns + "pods/p2/eviction", evict), "node n1 can only evict pods with spec.nodeName set to itself")
        _, n1 = self.c.api("GET", "/api/v1/nodes/n1")
        n1["metadata"]["labels"] = {"node-role.kubernetes.io/control-plane": "", "own.example": "1"}
        self.refused(self.node("PUT", "/api/v1/nodes/n1", n1), "is not allowed to modify labels: node-role.kubernetes.io/control-plane")
        n1["metadata"]["labels"] = {"own.example": "1", "kubernetes.io/os": "linux"}
        self.assertEqual(self.node("PUT", "/api/v1/nodes/n1", n1)[0], 200)
        _, n1 = self.c.api("GET", "/api/v1/nodes/n1")
        n1["spec"]["taints"] = [{"key": "a", "effect": "NoSchedule"}]
        self.refused(self.node("PUT", "/api/v1/nodes/n1", n1), 'node "n1" is not allowed to modify taints')
        _, n2 = self.c.api("GET", "/api/v1/nodes/n2")
        self.refused(self.node("PUT", "/api/v1/nodes/n2", n2), 'node "n1" is not allowed to modify node "n2"')
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "n1"}}
        leases = "/apis/coordination.k8s.io/v1/namespaces/%s/leases"
        self.assertEqual(self.node("POST", leases % "kube-node-lease", lease)[0], 201)
        self.refused(self.node("POST", leases % "default", lease), 'can only access leases in the "kube-node-lease" system namespace')
        lease["metadata"]["name"] = "n2"
        self.refused(self.node("POST", leases % "kube-node-lease", lease), "can only access node lease with the same name")

    def test_tokens_are_for_its_own_pods(self):
        def ask(sa, **spec):
            return self.node("POST", f"/api/v1/namespaces/default/serviceaccounts/{sa}/token",
                             {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})

        def ref(name):
            uid = self.c.api("GET", "/api/v1/namespaces/default/pods/" + name)[1]["metadata"]["uid"]
            return {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
        self.assertEqual(ask("acc", boundObjectRef=ref("p1"))[0], 201)
        self.refused(ask("acc"), "node requested token not bound to a pod")
        self.refused(ask("acc", boundObjectRef=ref("p2")), "node requested token bound to a pod scheduled on a different node")
        self.refused(ask("acc", boundObjectRef=ref("p1"), audiences=["vault"]), 'audience "vault" not found in pod spec volume')
        self.refused(ask("default"), "no relationship found")


class Certificates(Base):
    extra = ("--controllers", "all")

    def csr(self, name, subject, signer="kubernetes.io/kube-apiserver-client", usages=("client auth",), san=None, user=None, groups=(), **spec):
        d = self.c.dir
        subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-keyout", f"{d}/{name}.key", "-out", f"{d}/{name}.csr", "-subj", subject] +
                       (["-addext", "subjectAltName=" + san] if san else []), check=True, capture_output=True)
        with open(f"{d}/{name}.csr", "rb") as f:
            request = base64.b64encode(f.read()).decode()
        return self.c.api("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", {
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
            "spec": dict(request=request, signerName=signer, usages=list(usages), **spec)}, user=user, groups=groups)

    def issued(self, name):
        def look():
            _, o = self.c.api("GET", "/apis/certificates.k8s.io/v1/certificatesigningrequests/" + name)
            return o if "certificate" in o["status"] else None
        o = wait_for(look)
        with open(f"{self.c.dir}/{name}.crt", "wb") as f:
            f.write(base64.b64decode(o["status"]["certificate"]))
        return o

    def test_approved_requests_become_certificates_that_work(self):
        status, obj = self.csr("frank", "/O=dev/CN=frank", expirationSeconds=3600)
        self.assertEqual(status, 201, obj)
        self.assertEqual((obj["spec"]["username"], obj["spec"]["groups"]), ("system:admin", ["system:masters", "system:authenticated"]))
        out = self.k("get", "csr", "frank")
        self.assertRegex(out, r"frank +\S+ +kubernetes.io/kube-apiserver-client +system:admin +60m +Pending")
        self.assertIn("frank approved", self.k("certificate", "approve", "frank"))
        o = self.issued("frank")
        self.assertEqual((o["status"]["conditions"][0]["reason"], o["status"]["conditions"][0]["type"]), ("KubectlApprove", "Approved"))
        self.assertIn("Approved,Issued", self.k("get", "csr", "frank"))
        d = self.c.dir
        who = json.loads(self.k("--kubeconfig", self.plain, "--client-certificate", d + "/frank.crt", "--client-key",
                                d + "/frank.key", "auth", "whoami", "-o", "json"))["status"]["userInfo"]
        self.assertEqual((who["username"], who["groups"]), ("frank", ["dev", "system:authenticated"]))
        text = subprocess.run(["openssl", "x509", "-in", d + "/frank.crt", "-noout", "-text"], capture_output=True, text=True).stdout
        self.assertIn("TLS Web Client Authentication", text)
        self.assertNotIn("CA:TRUE", text)

    def test_denied_requests_stay_denied(self):
        self.csr("denied", "/CN=x")
        self.k("certificate", "deny", "denied")
        self.assertIn("Denied", self.k("get", "csr", "denied"))
        code, out = self.k("certificate", "approve", "denied", ok=False)
        self.assertEqual(out, 'error: certificate signing request "denied" is already Denied\n')
        path = "/apis/certificates.k8s.io/v1/certificatesigningrequests/denied"
        _, o = self.c.api("GET", path)
        o["status"]["conditions"].append({"type": "Approved", "status": "True"})
        status, got = self.c.api("PUT", path + "/approval", o)
        self.assertEqual((status, got["details"]["causes"][0]["message"]),
                         (422, 'Invalid value: "Approved": Approved and Denied conditions are mutually exclusive'))
        status, got = self.c.api("PUT", path + "/status", o)
        self.assertIn('updates may not add a condition of type "Approved"', got["message"])
        o["status"]["conditions"] = []
        status, got = self.c.api("PUT", path + "/approval", o)
        self.assertIn('updates may not remove a condition of type "Denied"', got["message"])

    def test_what_may_not_be_asked(self):
        status, obj = self.csr("masters", "/O=system:masters/CN=x")
        self.assertEqual((status, obj["message"]), (403, 'certificatesigningrequests.certificates.k8s.io "masters" is '
                         'forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed'))
        status, obj = self.csr("short", "/CN=x", signer="nodomain", usages=["client auth", "bogus"], expirationSeconds=5)
        self.assertEqual((status, sorted(c["field"] for c in obj["details"]["causes"])),
                         (422, ["spec.expirationSeconds", "spec.signerName", "spec.usages[1]"]))
        self.csr("serve", "/CN=x", usages=["server auth"])
        self.k("certificate", "approve", "serve")
        wait_for(lambda: "Approved,Failed" in self.k("get", "csr", "serve"))

    def test_who_decides_needs_the_signer(self):
        self.k("create", "clusterrole", "approver", "--verb=get,list,update", "--resource=certificatesigningrequests,certificatesigningrequests/approval")
        self.k("create", "clusterrolebinding", "approver", "--clusterrole=approver", "--user=grace")
        self.csr("wait", "/CN=x")
        code, out = self.k("certificate", "approve", "wait", "--as=grace", ok=False)
        self.assertIn('user not permitted to approve requests with signerName "kubernetes.io/kube-apiserver-client"', out)
        self.k("apply", "-f", "-", stdin=json.dumps({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "signer"},
            "rules": [{"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": ["kubernetes.io/*"],
                       "verbs": ["approve"]}]}))
        self.k("create", "clusterrolebinding", "signer", "--clusterrole=signer", "--user=grace")
        self.k("certificate", "approve", "wait", "--as=grace")
        self.issued("wait")

    def test_kubelets_are_approved_by_themselves_and_serve_under_their_names(self):
        usages = ["digital signature", "client auth"]
        self.csr("boot", "/O=system:nodes/CN=system:node:n7", "kubernetes.io/kube-apiserver-client-kubelet", usages,
                 user="system:node:n7", groups=["system:nodes"])
        self.k("create", "clusterrolebinding", "self", "--clusterrole=system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
               "--group=system:nodes")
        self.csr("boot2", "/O=system:nodes/CN=system:node:n7", "kubernetes.io/kube-apiserver-client-kubelet", usages,
                 user="system:node:n7", groups=["system:nodes"])
        o = self.issued("boot2")
        self.assertEqual(o["status"]["conditions"][0]["message"], "Auto approving self kubelet client certificate after SubjectAccessReview.")
        self.csr("serving", "/O=system:nodes/CN=system:node:n7", "kubernetes.io/kubelet-serving",
                 ["digital signature", "server auth"], san="DNS:n7,IP:10.0.0.7", user="system:node:n7", groups=["system:nodes"])
        self.k("certificate", "approve", "serving")
        self.issued("serving")
        text = subprocess.run(["openssl", "x509", "-in", self.c.dir + "/serving.crt", "-noout", "-text"], capture_output=True, text=True).stdout
        self.assertIn("DNS:n7, IP Address:10.0.0.7", text)

    def test_a_secret_of_a_service_account_gets_its_token(self):
        self.k("create", "sa", "old")
        secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
                  "metadata": {"name": "old-token", "annotations": {"kubernetes.io/service-account.name": "old"}}}
        self.k("apply", "-f", "-", stdin=json.dumps(secret))
        path = "/api/v1/namespaces/default/secrets/old-token"
        o = wait_for(lambda: (lambda s: s if "token" in s.get("data", {}) else None)(self.c.api("GET", path)[1]))
        self.assertEqual(base64.b64decode(o["data"]["namespace"]), b"default")
        self.assertIn(b"BEGIN CERTIFICATE", base64.b64decode(o["data"]["ca.crt"]))
        token = base64.b64decode(o["data"]["token"]).decode()
        who = json.loads(self.token_kubectl(token, "auth", "whoami", "-o", "json"))["status"]["userInfo"]
        self.assertEqual(who["username"], "system:serviceaccount:default:old")
        labels = self.c.api("GET", path)[1]["metadata"]["labels"]
        self.assertRegex(labels["kubernetes.io/legacy-token-last-used"], r"^20\d\d-\d\d-\d\d$")
        tracking = self.c.api("GET", "/api/v1/namespaces/kube-system/configmaps/kube-apiserver-legacy-service-account-token-tracking")[1]
        self.assertEqual(list(tracking["data"]), ["since"])
        self.k("delete", "sa", "old")
        wait_for(lambda: self.c.api("GET", path)[0] == 404)
        code, out = self.token_kubectl(token, "get", "pods", ok=False)
        self.assertIn("You must be logged in", out)


if __name__ == "__main__":
    unittest.main()
