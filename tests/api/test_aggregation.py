#!/usr/bin/env python3
"""Aggregation: APIServices, the servers behind them and their availability. The servers are played by this
process on an address of this machine that is not loopback (EndpointSlices have no others)."""
import base64
import http.client
import http.server
import json
import ssl
import threading
import unittest

from cluster import Cluster, openssl, own_address, self_signed
from kubelet import Scene

APIS = "/apis/apiregistration.k8s.io/v1/apiservices"
RESOURCES = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "shop.example.com/v1alpha1", "resources": [
    {"name": "cakes", "singularName": "cake", "namespaced": True, "kind": "Cake", "shortNames": ["ck"],
     "verbs": ["create", "get", "list", "watch"]},
    {"name": "cakes/status", "singularName": "", "namespaced": True, "kind": "Cake", "verbs": ["get"]}]}
SCHEMA = {"type": "object", "description": "A cake.", "properties": {"flavour": {"type": "string", "description": "How it tastes."}},
          "x-kubernetes-group-version-kind": [{"group": "shop.example.com", "version": "v1alpha1", "kind": "Cake"}]}
V2 = {"swagger": "2.0", "info": {"title": "s", "version": "1"}, "paths": {
    "/apis/shop.example.com/v1alpha1/cakes": {"get": {"responses": {"200": {
        "description": "OK", "schema": {"$ref": "#/definitions/com.example.Cake"}}}}},
    "/apis/other/v1/x": {}}, "definitions": {"com.example.Cake": SCHEMA, "com.example.Unused": {"type": "object"}}}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *a):
        pass

    def say(self, code, out, kind="application/json"):
        out = out if isinstance(out, bytes) else json.dumps(out).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(out)))
        self.end_headers()
        self.wfile.write(out)

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        s = self.server
        cert = self.connection.getpeercert()
        s.seen.append((self.command, self.path, self.headers, body, cert))
        path = self.path.split("?")[0]
        if s.broken:
            self.say(500, {"kind": "Status", "message": "broken"})
        elif path == "/apis/shop.example.com/v1alpha1":
            self.say(200, RESOURCES)
        elif path == "/openapi/v3":
            self.say(200, {"paths": {"apis/shop.example.com/v1alpha1": {
                "serverRelativeURL": "/openapi/v3/apis/shop.example.com/v1alpha1?hash=ABC"}}})
        elif path == "/openapi/v3/apis/shop.example.com/v1alpha1":
            self.say(200, {"openapi": "3.0.0", "info": {"title": "s", "version": "1"}, "paths": {
                "/apis/shop.example.com/v1alpha1/namespaces/{namespace}/cakes/{name}": {"get": {
                    "x-kubernetes-action": "get", "responses": {}, "x-kubernetes-group-version-kind": {
                        "group": "shop.example.com", "version": "v1alpha1", "kind": "Cake"}}}},
                           "components": {"schemas": {"com.example.Cake": SCHEMA}}})
        elif path == "/openapi/v2":
            self.say(200, V2)
        elif "watch=" in self.path:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            line = b'{"type":"ADDED","object":{"kind":"Cake"}}\n'
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(line), line))
        else:
            self.say(201 if self.command == "POST" else 200, {
                "kind": "Cake", "apiVersion": "shop.example.com/v1alpha1", "metadata": {"name": "c"},
                "asked": "%s %s" % (self.command, self.path), "body": body.decode()})

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer


class Aggregation(Scene, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.ip = own_address()
        if not cls.ip:
            raise unittest.SkipTest("this machine has no address but loopback")
        cls.c = Cluster("memory", ["--disable-admission", "ServiceAccount"])
        d = cls.c.dir
        self_signed(d + "/ca.key", d + "/ca.crt", "ca")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x", "-keyout",
                d + "/s.key", "-out", d + "/s.csr")
        with open(d + "/ext", "w") as f:
            f.write("subjectAltName=DNS:shop.bakery.svc\n")
        openssl("x509", "-req", "-in", d + "/s.csr", "-CA", d + "/ca.crt", "-CAkey", d + "/ca.key", "-CAcreateserial",
                "-days", "2", "-extfile", d + "/ext", "-out", d + "/s.crt")
        with open(d + "/ca.crt", "rb") as f:
            cls.ca = base64.b64encode(f.read()).decode()
        s, cm = cls.c.api("GET", "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication")
        assert s == 200, cm
        cls.auth = cm["data"]
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ctx.load_cert_chain(d + "/s.crt", d + "/s.key")
        ctx.load_verify_locations(cadata=cls.auth["requestheader-client-ca-file"])
        ctx.verify_mode = ssl.CERT_REQUIRED
        cls.web = http.server.ThreadingHTTPServer((cls.ip, 0), Handler)
        cls.web.daemon_threads = True
        cls.web.seen, cls.web.broken = [], False
        cls.web.socket = ctx.wrap_socket(cls.web.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=cls.web.serve_forever, daemon=True).start()
        cls.must("POST", "/api/v1/namespaces", {"metadata": {"name": "bakery"}})

    @classmethod
    def tearDownClass(cls):
        cls.web.shutdown()
        cls.c.close()

    @classmethod
    def must(cls, method, path, body):
        s, o = cls.c.api(method, path, body)
        assert s in (200, 201), o
        return o

    def condition(self):
        s, o = self.c.api("GET", APIS + "/v1alpha1.shop.example.com")
        got = [c for c in o.get("status", {}).get("conditions", []) if c["type"] == "Available"]
        return (got[0]["status"], got[0]["reason"], got[0]["message"]) if got else None

    def available(self, status, reason):
        self.wait("%s %s" % (status, reason), lambda: (self.condition() or ())[:2] == (status, reason))
        return self.condition()[2]

    def register(self, **spec):
        spec = dict({"group": "shop.example.com", "version": "v1alpha1", "groupPriorityMinimum": 2000,
                     "versionPriority": 200, "service": {"namespace": "bakery", "name": "shop", "port": 7443},
                     "caBundle": self.ca}, **spec)
        self.must("POST", APIS, {"metadata": {"name": "v1alpha1.shop.example.com"}, "spec": spec})
        self.addCleanup(self.c.api, "DELETE", APIS + "/v1alpha1.shop.example.com")

    def service(self):
        p = "/api/v1/namespaces/bakery/services"
        self.must("POST", p, {"metadata": {"name": "shop"}, "spec": {"ports": [{"name": "https", "port": 7443}]}})
        self.addCleanup(self.c.api, "DELETE", p + "/shop")

    def slice(self, **kw):
        p = "/apis/discovery.k8s.io/v1/namespaces/bakery/endpointslices"
        o = dict({"metadata": {"name": "shop-1", "labels": {"kubernetes.io/service-name": "shop"}}, "addressType": "IPv4",
                  "endpoints": [{"addresses": [self.ip]}], "ports": [{"name": "https", "port": self.web.server_port}]}, **kw)
        self.must("POST", p, o)
        self.addCleanup(self.c.api, "DELETE", p + "/shop-1")

    def up(self, **spec):
        self.service()
        self.slice()
        self.register(**spec)
        self.available("True", "Passed")

    def test_every_group_and_version_has_an_apiservice(self):
        s, l = self.c.api("GET", APIS)
        names = {i["metadata"]["name"]: i for i in l["items"]}
        v1 = names["v1."]
        self.assertEqual(v1["spec"], {"version": "v1", "groupPriorityMinimum": 18000, "versionPriority": 1})
        self.assertEqual(v1["metadata"]["labels"], {"kube-aggregator.kubernetes.io/automanaged": "onstart"})
        c = v1["status"]["conditions"][0]
        self.assertEqual((c["type"], c["status"], c["reason"], c["message"]),
                         ("Available", "True", "Local", "Local APIServices are always available"))
        self.assertEqual((names["v1.apps"]["spec"]["groupPriorityMinimum"], names["v2.autoscaling"]["spec"]["versionPriority"]),
                         (17800, 30))
        s, groups = self.c.api("GET", "/apis")
        want = {v["version"] + "." + g["name"] for g in groups["groups"] for v in g["versions"]}
        self.assertEqual(want - set(names), {"v1.apiregistration.k8s.io"})
        self.assertNotIn("metrics.k8s.io", [g["name"] for g in groups["groups"]])
        out = self.c.kubectl("get", "apiservices", "v1.apps")
        self.assertEqual(out.split()[:7], ["NAME", "SERVICE", "AVAILABLE", "AGE", "v1.apps", "Local", "True"])

    def test_custom_resources_get_theirs_and_lose_it(self):
        crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        self.must("POST", crds, {"metadata": {"name": "trees.wood.example"}, "spec": {
            "group": "wood.example", "scope": "Cluster", "names": {"plural": "trees", "kind": "Tree"}, "versions": [version]}})
        self.wait("registered", lambda: self.c.api("GET", APIS + "/v1.wood.example")[0] == 200)
        s, o = self.c.api("GET", APIS + "/v1.wood.example")
        self.assertEqual(o["spec"], {"group": "wood.example", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 100})
        self.assertEqual(o["metadata"]["labels"], {"kube-aggregator.kubernetes.io/automanaged": "true"})
        self.c.api("DELETE", APIS + "/v1.wood.example")
        self.wait("made again", lambda: self.c.api("GET", APIS + "/v1.wood.example")[0] == 200)
        self.c.api("DELETE", crds + "/trees.wood.example")
        self.wait("gone", lambda: self.c.api("GET", APIS + "/v1.wood.example")[0] == 404)

    def test_validation(self):
        s, o = self.c.api("POST", APIS, {"metadata": {"name": "v1.other"}, "spec": {
            "group": "x_", "version": "1", "insecureSkipTLSVerify": True, "caBundle": "QUFB", "versionPriority": 1001,
            "service": {"port": 70000}}})
        self.assertEqual(s, 422)
        self.assertEqual([c["field"] for c in o["details"]["causes"]], [
            "metadata.name", "spec.group", "spec.version", "spec.groupPriorityMinimum", "spec.versionPriority",
            "spec.service.namespace", "spec.service.name", "spec.service.port", "spec.insecureSkipTLSVerify"])
        s, o = self.c.api("POST", APIS, {"metadata": {"name": "v1.a.b"}, "spec": {
            "group": "a.b", "version": "v1", "insecureSkipTLSVerify": True, "versionPriority": 1, "groupPriorityMinimum": 1}})
        self.assertEqual(o["details"]["causes"][0]["message"],
                         "Invalid value: true: local APIServices may not have insecureSkipTLSVerify")

    def test_why_a_server_is_not_available(self):
        self.register()
        self.assertEqual(self.available("False", "ServiceNotFound"), 'service/shop in "bakery" is not present')
        self.service()
        self.assertEqual(self.available("False", "EndpointsNotFound"), 'cannot find endpointslices for service/shop in "bakery"')
        s, _, out = self.c.http("GET", "/apis/shop.example.com/v1alpha1/cakes")
        self.assertEqual((s, out), (503, b"service unavailable\n"))
        self.slice(endpoints=[{"addresses": [self.ip], "conditions": {"ready": False}}])
        self.assertEqual(self.available("False", "MissingEndpoints"),
                         'endpointslices for service/shop in "bakery" have no addresses with port name "https"')
        p = "/apis/discovery.k8s.io/v1/namespaces/bakery/endpointslices/shop-1"
        s, o = self.c.api("GET", p)
        o["endpoints"], o["ports"] = [{"addresses": [self.ip]}], [{"name": "https", "port": 1}]
        self.must("PUT", p, o)
        where = "https://%s:1/apis/shop.example.com/v1alpha1" % self.ip
        self.assertIn("failing or missing response from " + where, self.available("False", "FailedDiscoveryCheck"))
        s, o = self.c.api("GET", p)
        o["ports"][0]["port"] = self.web.server_port
        self.must("PUT", p, o)
        self.assertEqual(self.available("True", "Passed"), "all checks passed")
        s, o = self.c.api("GET", APIS + "/v1alpha1.shop.example.com")
        o["spec"]["service"]["port"] = 9
        self.must("PUT", APIS + "/v1alpha1.shop.example.com", o)
        self.assertEqual(self.available("False", "ServicePortError"), 'service/shop in "bakery" is not listening on port 9')
        self.assertIn("False (ServicePortError)", self.c.kubectl("get", "apiservice", "v1alpha1.shop.example.com"))

    def test_a_server_that_answers_wrongly_is_not_available(self):
        self.web.broken = True
        try:
            self.service()
            self.slice()
            self.register()
            self.assertTrue(self.available("False", "FailedDiscoveryCheck").endswith(": 500"))
        finally:
            self.web.broken = False
        self.available("True", "Passed")

    def test_requests_are_passed_on_with_who_asks(self):
        self.up()
        s, o = self.c.api("POST", "/apis/shop.example.com/v1alpha1/namespaces/x/cakes?fieldManager=m", {"a": 1})
        self.assertEqual((s, o["asked"]), (201, "POST /apis/shop.example.com/v1alpha1/namespaces/x/cakes?fieldManager=m"))
        self.assertEqual(json.loads(o["body"]), {"a": 1})
        _, _, headers, _, cert = self.web.seen[-1]
        self.assertEqual((headers["X-Remote-User"], headers.get_all("X-Remote-Group")), ("system:admin", ["system:masters", "system:authenticated"]))
        self.assertEqual(cert["subject"], ((("commonName", "front-proxy-client"),),))
        s, o = self.c.api("GET", "/apis/shop.example.com/v1alpha1/namespaces/x/cakes/c", user="joe", groups=["g", "h"])
        self.assertEqual((s, o["message"]), (403, 'cakes.shop.example.com "c" is forbidden: User "joe" cannot get resource '
                                                  '"cakes" in API group "shop.example.com" in the namespace "x"'))
        s, _, out = self.c.http("GET", "/apis/shop.example.com/v1alpha1/cakes?watch=true")
        self.assertEqual((s, out), (200, b'{"type":"ADDED","object":{"kind":"Cake"}}\n'))
        out = self.c.kubectl("get", "--raw", "/apis/shop.example.com/v1alpha1/cakes", "--as=ann", "--as-group=system:masters",
                             "--as-user-extra=Scope=a/b")
        headers = self.web.seen[-1][2]
        self.assertEqual((headers["X-Remote-User"], headers["X-Remote-Extra-Scope"]), ("ann", "a/b"))
        self.assertIsNone(headers["Impersonate-User"])
        self.assertIsNone(headers["Authorization"])

    def test_discovery_and_schemas_are_merged(self):
        self.up()
        s, g = self.c.api("GET", "/apis/shop.example.com")
        self.assertEqual((s, g["preferredVersion"]["groupVersion"]), (200, "shop.example.com/v1alpha1"))
        s, l = self.c.api("GET", "/apis")
        self.assertIn("shop.example.com", [x["name"] for x in l["groups"]])
        self.assertEqual(self.c.api("GET", "/apis/shop.example.com/v1alpha1")[1], RESOURCES)
        accept = {"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
        s, d = self.c.api("GET", "/apis", headers=accept)
        v = [i for i in d["items"] if i["metadata"]["name"] == "shop.example.com"][0]["versions"][0]
        kind = {"group": "shop.example.com", "version": "v1alpha1", "kind": "Cake"}
        self.assertEqual(v, {"version": "v1alpha1", "freshness": "Current", "resources": [{
            "resource": "cakes", "responseKind": kind, "scope": "Namespaced", "singularResource": "cake",
            "verbs": ["create", "get", "list", "watch"], "shortNames": ["ck"],
            "subresources": [{"subresource": "status", "responseKind": kind, "verbs": ["get"]}]}]})
        self.assertIn("cakes", self.c.kubectl("api-resources"))
        self.assertIn("How it tastes", self.c.kubectl("explain", "cakes.flavour", "--api-version=shop.example.com/v1alpha1"))
        s, v2 = self.c.api("GET", "/openapi/v2")
        self.assertIn("/apis/shop.example.com/v1alpha1/cakes", v2["paths"])
        self.assertIn("com.example.Cake", v2["definitions"])
        self.assertNotIn("/apis/other/v1/x", v2["paths"])
        self.assertNotIn("com.example.Unused", v2["definitions"])
        self.c.api("DELETE", APIS + "/v1alpha1.shop.example.com")
        self.assertEqual(self.c.api("GET", "/apis/shop.example.com/v1alpha1")[0], 404)
        self.assertEqual(self.c.api("GET", "/apis/shop.example.com")[0], 404)

    def test_a_certificate_of_somebody_else_is_refused(self):
        with open(self.c.dir + "/pki/ca.crt", "rb") as f:
            self.service()
            self.slice()
            self.register(caBundle=base64.b64encode(f.read()).decode())
        self.available("False", "FailedDiscoveryCheck")
        s, o = self.c.api("GET", APIS + "/v1alpha1.shop.example.com")
        del o["spec"]["caBundle"]
        o["spec"]["insecureSkipTLSVerify"] = True
        self.must("PUT", APIS + "/v1alpha1.shop.example.com", o)
        self.available("True", "Passed")
        self.assertEqual(self.c.api("GET", "/apis/shop.example.com/v1alpha1/cakes")[0], 200)

    def whoami(self, headers, pair):
        ctx = ssl.create_default_context(cafile=self.c.dir + "/pki/ca.crt")
        ctx.check_hostname = False
        if pair:
            ctx.load_cert_chain(*pair)
        host, port = self.c.url[8:].split(":")
        h = http.client.HTTPSConnection(host, int(port), context=ctx, timeout=30)
        h.putrequest("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews")
        body = b'{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}'
        for k, v in headers + [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]:
            h.putheader(k, v)
        h.endheaders(body)
        r = h.getresponse()
        o = json.loads(r.read())
        h.close()
        return r.status, o.get("status", {}).get("userInfo") if r.status == 201 else o["message"]

    def test_a_front_proxy_may_say_who_asks(self):
        self.assertEqual(sorted(self.auth), [
            "client-ca-file", "requestheader-allowed-names", "requestheader-client-ca-file",
            "requestheader-extra-headers-prefix", "requestheader-group-headers", "requestheader-uid-headers",
            "requestheader-username-headers"])
        d = self.c.dir + "/pki/"
        proxy = (d + "front-proxy-client.crt", d + "front-proxy-client.key")
        said = [("X-Remote-User", "ann"), ("X-Remote-Group", "a"), ("X-Remote-Group", "b"), ("X-Remote-Uid", "7"),
                ("X-Remote-Extra-Example.com%2FK", "v")]
        self.assertEqual(self.whoami(said, proxy), (201, {
            "username": "ann", "uid": "7", "groups": ["a", "b", "system:authenticated"], "extra": {"example.com/k": ["v"]}}))
        self.assertEqual(self.whoami([], proxy), (401, "Unauthorized"))
        self.assertEqual(self.whoami(said, (d + "admin.crt", d + "admin.key"))[1]["username"], "kubernetes-admin")
        self.assertEqual(self.whoami(said, None)[0], 403)

    def test_component_statuses(self):
        out = self.c.kubectl("get", "cs", ok=True)
        self.assertIn("etcd-0", out)
        s, h, body = self.c.http("GET", "/api/v1/componentstatuses/etcd-0")
        self.assertEqual((s, json.loads(body)["conditions"]), (200, [{"type": "Healthy", "status": "True", "message": "ok"}]))
        self.assertIn("v1 ComponentStatus is deprecated in v1.19+", h["Warning"])
        s, l = self.c.api("GET", "/api/v1/componentstatuses?fieldSelector=metadata.name%3Dscheduler")
        self.assertEqual([i["metadata"]["name"] for i in l["items"]], ["scheduler"])
        self.assertEqual(self.c.api("GET", "/api/v1/componentstatuses/x")[0], 404)


if __name__ == "__main__":
    unittest.main()
