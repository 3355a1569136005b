#!/usr/bin/env python3
"""Who may do what, and who is who: kubectl over TLS with certificates, tokens and --as."""
import base64
import json
import os
import subprocess
import time
import unittest

from cluster import Cluster

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


if __name__ == "__main__":
    unittest.main()
