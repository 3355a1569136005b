#!/usr/bin/env python3
"""The proxies of pods, Services and nodes: where requests go, what is rewritten in answers, and what is said
when nobody is there. Pods are played by servers on an address of this machine that is not loopback, which the
API server refuses to proxy to."""
import http.server
import socket
import ssl
import threading
import unittest

from cluster import Cluster, FakeNode, own_address, self_signed

PAGE = (b"<!doctype html><html><head><link rel=x href='/style.css'><script src=/a.js>if (a<b) { x = '<a href=\"/no\">'; }"
        b"</script></head><!-- <a href=\"/no\"> --><body>1 < 2 <a title=\"a > b\" HREF=\"/abs/?q=1#f\">a</a>"
        b"<a href=\"rel\">r</a><a href=\"http://elsewhere/x\">e</a><img src=\"//%s/pic\" alt=\"/alt\"></body></html>")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *a):
        pass

    def answer(self):
        n = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(n)
        self.server.seen.append((self.command, self.path, dict(self.headers), body))
        if self.path.startswith("/redirect"):
            self.send_response(302)
            self.send_header("Location", "/there/?a=b")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        out, kind = ("%s %s" % (self.command, self.path)).encode(), "text/plain"
        if self.path.startswith("/page"):
            out, kind = PAGE % self.server.where.encode(), "text/html; charset=utf-8"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Content-Length", str(len(out)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(out)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_HEAD = answer


def serve(ip, pem=None):
    s = http.server.ThreadingHTTPServer((ip, 0), Handler)
    s.daemon_threads = True
    s.seen = []
    s.where = "%s:%d" % (ip, s.server_port)
    if pem:
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ctx.load_cert_chain(pem)
        s.socket = ctx.wrap_socket(s.socket, server_side=True)
    threading.Thread(target=s.serve_forever, daemon=True).start()
    return s


class Proxies(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.ip = own_address()
        if not cls.ip:
            raise unittest.SkipTest("this machine has no address but loopback")
        cls.c = Cluster("memory", ["--disable-admission", "ServiceAccount"])
        cls.node = FakeNode(cls.c.dir + "/node.sock")
        pem = cls.c.dir + "/pod.pem"
        self_signed(pem, pem + ".crt", "pod")
        with open(pem, "a") as f, open(pem + ".crt") as crt:
            f.write(crt.read())
        cls.web, cls.tls = serve(cls.ip), serve(cls.ip, pem)
        cls.ok("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
        ns = "/api/v1/namespaces/default/"
        for name, ip in (("web", cls.ip), ("looped", "127.0.0.1")):
            cls.ok("POST", ns + "pods", {"metadata": {"name": name}, "spec": {"nodeName": "n1", "containers": [
                {"name": "c", "image": "i", "ports": [{"containerPort": cls.web.server_port}]}]}})
            s, o = cls.c.api("PATCH", ns + "pods/%s/status" % name,
                             {"status": {"podIP": ip, "podIPs": [{"ip": ip}], "phase": "Running"}},
                             headers={"Content-Type": "application/merge-patch+json"})
            assert s == 200, o
        ports = [{"name": "http", "port": 80}, {"name": "https", "port": 443}]
        for name in ("svc", "none", "empty", "alien"):
            cls.ok("POST", ns + "services", {"metadata": {"name": name}, "spec": {"ports": ports}})
        ref = {"kind": "Pod", "namespace": "default", "name": "web"}
        where = [{"name": "http", "port": cls.web.server_port}, {"name": "https", "port": cls.tls.server_port}]
        cls.ok("POST", ns + "endpoints", {"metadata": {"name": "svc"}, "subsets": [
            {"addresses": [{"ip": cls.ip, "targetRef": ref}], "ports": where}]})
        cls.ok("POST", ns + "endpoints", {"metadata": {"name": "empty"}})
        cls.ok("POST", ns + "endpoints", {"metadata": {"name": "alien"}, "subsets": [
            {"addresses": [{"ip": cls.ip}], "ports": where}]})

    @classmethod
    def tearDownClass(cls):
        cls.web.shutdown()
        cls.tls.shutdown()
        cls.c.close()
        cls.node.close()

    @classmethod
    def ok(cls, method, path, body):
        s, o = cls.c.api(method, path, body)
        assert s == 201, o

    def test_all_methods_pass_with_path_query_and_body(self):
        for kind in ("pods/web", "services/svc:http", "services/svc:80", "pods/http:web:%d" % self.web.server_port):
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"):
                path = "/api/v1/namespaces/default/%s/proxy/a%%2Fb/c?x=1&y=%%20" % kind
                with self.subTest(kind=kind, method=method):
                    s, h, out = self.c.http(method, path, b"body" if method in ("POST", "PUT", "PATCH") else None)
                    self.assertEqual(s, 200, out)
                    got = self.web.seen[-1]
                    self.assertEqual(got[:2], (method, "/a%2Fb/c?x=1&y=%20"))
                    self.assertEqual(got[2]["X-Forwarded-Uri"], path.split("?")[0])
                    if method == "HEAD":
                        self.assertEqual(h["Content-Length"], str(len("HEAD /a%2Fb/c?x=1&y=%20")))
                    else:
                        self.assertEqual(out, ("%s /a%%2Fb/c?x=1&y=%%20" % method).encode())
                    self.assertNotIn("Access-Control-Allow-Origin", h)
        self.assertEqual(self.c.http("POST", "/api/v1/namespaces/default/pods/web/proxy/x", b"12345")[0], 200)
        self.assertEqual(self.web.seen[-1][3], b"12345")

    def test_a_bare_proxy_path_is_sent_to_its_root(self):
        for kind in ("namespaces/default/pods/web", "namespaces/default/services/svc:http", "nodes/n1"):
            s, h, _ = self.c.http("GET", "/api/v1/%s/proxy?a=b" % kind)
            self.assertEqual((s, h["Location"]), (301, "/api/v1/%s/proxy/?a=b" % kind))
        s, _, out = self.c.http("GET", "/api/v1/namespaces/default/pods/web/proxy/")
        self.assertEqual((s, out), (200, b"GET /"))
        s, _, out = self.c.http("POST", "/api/v1/namespaces/default/pods/web/proxy")
        self.assertEqual((s, out), (200, b"POST /"))

    def test_redirects_and_links_lead_through_the_proxy(self):
        p = "/api/v1/namespaces/default/pods/web/proxy"
        s, h, _ = self.c.http("GET", p + "/redirect")
        self.assertEqual((s, h["Location"]), (302, p + "/there/?a=b"))
        s, h, out = self.c.http("GET", p + "/page")
        want = PAGE % self.web.where.encode()
        for a, b in ((b"'/style.css'", b"'%s/style.css'"), (b"=/a.js", b"=%s/a.js"), (b'"/abs/?q', b'"%s/abs/?q'),
                     (b"//%s/pic" % self.web.where.encode(), b"%s/pic")):
            want = want.replace(a, b % p.encode())
        self.assertEqual((s, out), (200, want))

    def test_https_ports_are_asked_with_tls(self):
        for kind in ("services/https:svc:https", "services/https:svc:443", "pods/https:web:%d" % self.tls.server_port):
            s, _, out = self.c.http("GET", "/api/v1/namespaces/default/%s/proxy/x" % kind)
            self.assertEqual((s, out), (200, b"GET /x"), kind)
        s, o = self.c.api("GET", "/api/v1/namespaces/default/pods/https:web:%d/proxy/x" % self.web.server_port)
        self.assertEqual((s, o["message"]), (503, "error trying to reach service: tls: first record does not look like "
                                                  "a TLS handshake"))

    def test_upgraded_connections_pass(self):
        got = []

        def peer(s):
            c, _ = s.accept()
            f = c.makefile("rb")
            while True:
                line = f.readline()
                got.append(line)
                if not line.strip():
                    break
            c.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            c.sendall(f.read(4).upper())
            c.close()
        s = socket.create_server((self.ip, 0))
        t = threading.Thread(target=peer, args=(s,), daemon=True)
        t.start()
        c = socket.socket(socket.AF_UNIX)
        c.settimeout(30)
        c.connect(self.c.dir + "/api.sock")
        c.sendall(b"GET /api/v1/namespaces/default/pods/web:%d/proxy HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n"
                  b"Upgrade: websocket\r\n\r\n" % s.getsockname()[1])
        f = c.makefile("rb")
        self.assertIn(b"101", f.readline())
        while f.readline().strip():
            pass
        c.sendall(b"ping")
        self.assertEqual(f.read(), b"PING")
        self.assertTrue(got[0].startswith(b"GET / HTTP/1.1"), got)
        c.close()
        t.join()
        s.close()

    def test_failures_are_upstreams(self):
        spare = socket.create_server((self.ip, 0))
        port = spare.getsockname()[1]
        spare.close()
        ns = "/api/v1/namespaces/default/"
        for path, code, message in (
                (ns + "services/empty/proxy/", 503, 'no endpoints available for service "empty"'),
                (ns + "services/svc:other/proxy/", 503, 'no endpoints available for service "svc:other"'),
                (ns + "services/alien:http/proxy/", 503, 'no endpoints available for service "alien:http"'),
                (ns + "services/none:http/proxy/", 404, 'endpoints "none" not found'),
                (ns + "services/gone:80/proxy/", 404, 'services "gone" not found'),
                (ns + "services/svc:81/proxy/", 503, 'no service port 81 found for service "svc"'),
                (ns + "services/a:b:c:d/proxy/", 400, 'invalid service request "a:b:c:d"'),
                (ns + "services/ftp:svc:http/proxy/", 400, 'invalid service request "ftp:svc:http"'),
                (ns + "pods/gone/proxy/", 404, 'pods "gone" not found'),
                (ns + "pods/looped/proxy/", 400, "address not allowed"),
                (ns + "pods/web:%d/proxy/" % port, 503, "error trying to reach service: dial tcp %s:%d: connect: "
                                                        "connection refused" % (self.ip, port)),
                ("/api/v1/nodes/gone/proxy/", 404, 'nodes "gone" not found')):
            s, o = self.c.api("GET", path)
            self.assertEqual((s, o["message"]), (code, message), path)

    def test_nodes_are_proxied_to_their_agent(self):
        for name in ("n1", "n1:10250", "https:n1:10250"):
            s, _, out = self.c.http("GET", "/api/v1/nodes/%s/proxy/stats/x?y" % name)
            self.assertEqual((s, out), (200, b"GET /stats/x?y 0"))

    def test_who_may_is_asked_by_method(self):
        s, o = self.c.api("GET", "/api/v1/namespaces/default/pods/web/proxy/", user="joe")
        self.assertEqual((s, o["message"]), (403, 'pods "web" is forbidden: User "joe" cannot get resource "pods/proxy" '
                                                  'in API group "" in the namespace "default"'))
        s, o = self.c.api("POST", "/api/v1/namespaces/default/services/svc:http/proxy/", user="joe")
        self.assertIn('cannot create resource "services/proxy"', o["message"])


if __name__ == "__main__":
    unittest.main()
