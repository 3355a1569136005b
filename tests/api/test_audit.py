#!/usr/bin/env python3
"""The audit log beyond one request and its answer: streams, who was turned away, addresses, rotation; and
what is said of requests whose target is not there."""
import base64
import glob
import json
import os
import ssl
import tempfile
import time
import unittest
import urllib.error
import urllib.request

from cluster import Cluster, FakeNode

POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- {level: Request, verbs: [create], resources: [{group: "", resources: [configmaps]}], namespaces: [big]}
- {level: Metadata}
"""
WS = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "x" * 22 + "=="}


class Audit(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.TemporaryDirectory(prefix="th-audit-")
        cls.log = cls.dir.name + "/audit.log"
        with open(cls.dir.name + "/policy", "w") as f:
            f.write(POLICY)
        cls.c = Cluster(extra=["--audit-policy-file", cls.dir.name + "/policy", "--audit-log-path", cls.log,
                               "--audit-log-maxsize", "1", "--audit-log-maxbackup", "2",
                               "--disable-admission", "ServiceAccount"])
        cls.node = FakeNode(cls.c.dir + "/node.sock")
        with open(cls.c.kubeconfig) as f:
            ca = [line.split()[1] for line in f if "certificate-authority-data" in line][0]
        cls.tls = ssl.create_default_context(cadata=base64.b64decode(ca).decode())

    @classmethod
    def tearDownClass(cls):
        cls.node.close()
        cls.c.close()
        cls.dir.cleanup()

    def events(self, audit_id, n=1):
        """Of one request, once there are n of them."""
        deadline = time.time() + 20
        while True:
            with open(self.log) as f:
                got = [e for e in map(json.loads, f) if e["auditID"] == audit_id]
            if len(got) >= n or time.time() > deadline:
                return got
            time.sleep(0.02)

    def https(self, path, **headers):
        try:
            r = urllib.request.urlopen(urllib.request.Request(self.c.url + path, headers=headers), context=self.tls, timeout=30)
        except urllib.error.HTTPError as e:
            r = e
        with r:
            r.read()
            return r.status, r.headers

    def test_an_answer_names_the_audit_id_of_its_events(self):
        s, h, _ = self.c.http("GET", "/api/v1/namespaces/default")
        got = self.events(h["Audit-Id"], 2)
        self.assertEqual([e["stage"] for e in got], ["RequestReceived", "ResponseComplete"])
        self.assertEqual(got[1]["responseStatus"], {"metadata": {}, "code": 200})
        s, h, _ = self.c.http("GET", "/api/v1/nodes", headers={"Audit-ID": "mine-1"})
        self.assertEqual(h.get_all("Audit-Id"), ["mine-1"])
        self.assertEqual(len(self.events("mine-1", 2)), 2)

    def test_addresses_are_written(self):
        s, h = self.https("/version", **{"X-Forwarded-For": "203.0.113.9, nonsense", "X-Real-Ip": "198.51.100.1"})
        self.assertEqual(self.events(h["Audit-Id"])[0]["sourceIPs"], ["203.0.113.9", "198.51.100.1", "127.0.0.1"])

    def test_bad_credentials_are_written(self):
        s, h = self.https("/api/v1/pods", Authorization="Bearer nonsense")
        self.assertEqual(s, 401)
        got = self.events(h["Audit-Id"], 2)
        self.assertEqual([e["stage"] for e in got], ["RequestReceived", "ResponseStarted"])
        self.assertEqual(got[1]["responseStatus"], {"metadata": {}, "message": "Authentication failed, attempted: bearer", "code": 401})
        self.assertEqual((got[1]["verb"], got[1]["objectRef"]["resource"], got[1]["user"]), ("list", "pods", {}))

    def test_forbidden_impersonation_is_written(self):
        s, h, _ = self.c.http("GET", "/api/v1/pods", headers={"Impersonate-User": "root"}, user="joe")
        self.assertEqual(s, 403)
        got = self.events(h["Audit-Id"], 2)
        self.assertEqual((got[1]["stage"], got[1]["user"]["username"], got[1]["responseStatus"]["code"]), ("ResponseComplete", "joe", 403))

    def test_streams_begin_and_end(self):
        self.c.api("POST", "/api/v1/nodes", {"metadata": {"name": "n"}})
        self.c.api("POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": "p"}, "spec": {
            "nodeName": "n", "containers": [{"name": "a", "image": "i"}]}})
        s, h, out = self.c.http("GET", "/api/v1/namespaces/default/pods/p/log", headers={"Audit-ID": "log-1"})
        self.assertEqual(s, 200)
        got = self.events("log-1", 3)
        self.assertEqual([(e["stage"], e.get("responseStatus", {}).get("code")) for e in got],
                         [("RequestReceived", None), ("ResponseStarted", 200), ("ResponseComplete", 200)])

    def test_unknown_resources_are_forbidden_before_they_are_unknown(self):
        path = "/apis/nothing.example.com/v1/namespaces/default/things"
        s, o = self.c.api("GET", path, user="joe", groups=["system:authenticated"])
        self.assertEqual((s, o["message"]), (403, 'things.nothing.example.com is forbidden: User "joe" cannot list resource '
                                             '"things" in API group "nothing.example.com" in the namespace "default"'))
        s, h, out = self.c.http("GET", path)
        self.assertEqual((s, json.loads(out)["reason"]), (404, "NotFound"))
        self.assertEqual(self.events(h["Audit-Id"], 2)[1]["objectRef"]["resource"], "things")

    def test_pod_security_says_what_it_enforces_and_finds(self):
        self.c.api("POST", "/api/v1/namespaces", {"metadata": {"name": "ps", "labels": {
            "pod-security.kubernetes.io/audit": "restricted", "pod-security.kubernetes.io/enforce": "baseline"}}})
        s, h, out = self.c.http("POST", "/api/v1/namespaces/ps/pods", {"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "a", "image": "i"}]}})
        self.assertEqual(s, 201, out)
        notes = self.events(h["Audit-Id"], 2)[1]["annotations"]
        self.assertEqual(notes["pod-security.kubernetes.io/enforce-policy"], "baseline:latest")
        self.assertTrue(notes["pod-security.kubernetes.io/audit-violations"].startswith(
            'would violate PodSecurity "restricted:latest": allowPrivilegeEscalation != false'), notes)

    def test_z_the_log_is_put_aside_when_it_is_full(self):
        self.c.api("POST", "/api/v1/namespaces", {"metadata": {"name": "big"}})
        for i in range(9):
            s, o = self.c.api("POST", "/api/v1/namespaces/big/configmaps", {"metadata": {"name": "c%d" % i}, "data": {"x": "y" * 600000}})
            self.assertEqual(s, 201)
        names = glob.glob(self.dir.name + "/audit-*.log")
        self.assertEqual(len(names), 2, names)
        for n in names + [self.log]:
            self.assertLessEqual(os.path.getsize(n), 1 << 20)
            with open(n) as f:
                for line in f:
                    json.loads(line)
        for n in names:
            self.assertRegex(n, r"/audit-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}\.log$")


if __name__ == "__main__":
    unittest.main()
