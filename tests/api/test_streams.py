#!/usr/bin/env python3
"""Streams through the API server to a node agent: a stand-in answers on the node's socket."""
import json
import socket
import ssl
import unittest

from cluster import Cluster, FakeNode

BIG = 48 << 20


def pod(name, node=None, containers=("c",)):
    spec = {"containers": [{"name": n, "image": "i"} for n in containers]}
    if node:
        spec["nodeName"] = node
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


class Streams(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.c = Cluster("memory", ["--disable-admission", "ServiceAccount"])
        cls.node = FakeNode(cls.c.dir + "/node.sock")
        cls.ok("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
        p = "/api/v1/namespaces/default/pods"
        cls.ok("POST", p, pod("one", "n1"))
        cls.ok("POST", p, pod("two", "n1", ("a", "b")))
        cls.ok("POST", p, pod("unscheduled"))
        cls.uid = cls.c.api("GET", p + "/one")[1]["metadata"]["uid"]

    @classmethod
    def tearDownClass(cls):
        cls.c.close()
        cls.node.close()

    @classmethod
    def ok(cls, method, path, body):
        s, o = cls.c.api(method, path, body)
        assert s == 201, o

    def tls(self):
        ctx = ssl.create_default_context(cafile=self.c.dir + "/pki/ca.crt")
        ctx.load_cert_chain(self.c.dir + "/pki/admin.crt", self.c.dir + "/pki/admin.key")
        host, port = self.c.url[8:].split(":")
        return ctx.wrap_socket(socket.create_connection((host, int(port)), timeout=30), server_hostname="localhost")

    def test_logs_go_to_the_pods_node_with_their_query(self):
        s, _, out = self.c.http("GET", "/api/v1/namespaces/default/pods/one/log?tailLines=5&timestamps=true")
        self.assertEqual((s, out), (200, b"GET /containerLogs/default/one/c?tailLines=5&timestamps=true 0"))
        self.assertEqual(self.c.http("GET", "/api/v1/namespaces/default/pods/unscheduled/log")[2], b"")

    def test_a_nodes_fault_about_a_log_is_a_status(self):
        p = "/api/v1/namespaces/default/pods/one/log?fault="
        gone = "the server could not find the requested resource ( pods/log one)"
        busy = "the server is currently unable to handle the request ( pods/log one)"
        for code, reason, message in ((400, "BadRequest", "because "), (404, "NotFound", gone), (503, "ServiceUnavailable", busy),
                                      (500, "InternalError", "Internal error occurred: because ")):
            s, o = self.c.api("GET", p + "%d,short" % code)
            self.assertEqual((s, o["kind"], o["code"], o["reason"], o["message"]), (code, "Status", code, reason, message))
        self.assertEqual(self.c.api("GET", p + "500,short")[1]["details"], {"causes": [{"message": "because "}]})
        s, o = self.c.api("GET", p + "400")  # much of it
        self.assertTrue(50000 <= len(o["message"]) < 60000 and o["message"].startswith("because because"), len(o["message"]))

    def test_containers_are_named_as_upstream_asks(self):
        p = "/api/v1/namespaces/default/pods/"
        s, o = self.c.api("GET", p + "two/log")
        self.assertEqual((s, o["message"]), (400, "a container name must be specified for pod two, choose one of: [a b]"))
        s, o = self.c.api("GET", p + "two/log?container=x")
        self.assertEqual((s, o["message"]), (400, "container x is not valid for pod two"))
        s, o = self.c.api("GET", p + "none/log")
        self.assertEqual((s, o["message"]), (404, 'pods "none" not found'))
        s, o = self.c.api("POST", p + "unscheduled/exec?command=ls")
        self.assertEqual((s, o["message"]), (400, "pod unscheduled does not have a host assigned"))

    def test_uploads_and_downloads_stream(self):
        path = "/api/v1/nodes/n1/proxy/images/load?x=1"
        s, _, out = self.c.http("POST", path, b"z" * BIG, headers={"Content-Type": "application/x-tar"})
        self.assertEqual((s, out), (200, b"POST /images/load?x=1 %d" % BIG))
        t = self.tls()
        t.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" % path.encode())
        for _ in range(BIG >> 16):
            t.sendall(b"10000\r\n" + b"y" * 65536 + b"\r\n")
        t.sendall(b"0\r\n\r\n")
        answer = t.makefile("rb").read()
        self.assertIn(b"POST /images/load?x=1 %d" % BIG, answer)
        t.close()
        s, _, out = self.c.http("GET", "/api/v1/nodes/n1/proxy/big")
        self.assertEqual((s, len(out)), (200, 512 * 65536))
        rss = int([l for l in open("/proc/%d/status" % self.c.proc.pid) if l.startswith("VmRSS")][0].split()[1])
        if "san" not in __import__("os").environ.get("TH_CONTROLPLANE", ""):
            self.assertLess(rss, 64 << 10, "memory does not grow with what passes")

    def test_upgraded_bytes_pass_both_ways_in_bulk(self):
        t = self.tls()
        t.sendall(b"GET /api/v1/namespaces/default/pods/one/exec?command=sh&stdin=true HTTP/1.1\r\nHost: x\r\n"
                  b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                  b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n")
        f = t.makefile("rb")
        self.assertIn(b"101", f.readline())
        while f.readline().strip():
            pass
        self.assertEqual(f.read(5), b"hello")
        method, path, headers, _ = self.node.requests[-1]
        self.assertEqual(path, "/exec/default/one/%s/c?command=sh&stdin=true" % self.uid)
        self.assertEqual((headers["upgrade"], headers["sec-websocket-protocol"]), ("websocket", "v5.channel.k8s.io"))
        self.assertNotIn("authorization", headers)
        block = bytes(range(256)) * 256
        for _ in range(64):
            t.sendall(block)
            self.assertEqual(f.read(len(block)), block)
        t.close()

    def test_a_node_that_is_away_is_said_to_be(self):
        c = Cluster("memory")
        try:
            c.api("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}})
            s, o = c.api("GET", "/api/v1/nodes/n/proxy/healthz")
            self.assertEqual((s, o["reason"]), (503, "ServiceUnavailable"))
            self.assertIn("the agent of node n cannot be reached", o["message"])
        finally:
            c.close()


if __name__ == "__main__":
    unittest.main()
