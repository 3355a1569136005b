"""A client as an administrator has it: TLS with the certificate of admin.kubeconfig. Standard library
only; YAML is read just as far as our own kubeconfig needs it."""
import base64
import http.client
import json
import os
import re
import ssl
import tempfile
from urllib.parse import urlsplit


class Admin:
    def __init__(self, kubeconfig):
        with open(kubeconfig) as f:
            text = f.read()

        def field(name):
            m = re.search(r'"?%s"?:\s*"?([^"\s,}]+)' % name, text)
            if not m:
                raise RuntimeError("no %s in %s" % (name, kubeconfig))
            return m.group(1)

        self.host = urlsplit(field("server"))
        ca = base64.b64decode(field("certificate-authority-data")).decode()
        self.context = ssl.create_default_context(cadata=ca)
        with tempfile.NamedTemporaryFile("wb", delete=False) as f:
            f.write(base64.b64decode(field("client-certificate-data")) + b"\n")
            f.write(base64.b64decode(field("client-key-data")))
        try:
            self.context.load_cert_chain(f.name)
        finally:
            os.unlink(f.name)

    def connect(self, timeout=30):
        return http.client.HTTPSConnection(self.host.hostname, self.host.port, context=self.context,
                                           timeout=timeout)


def call(conn, method, path, body=None):
    """(status, object). Raises what http.client raises when the connection breaks."""
    data = None if body is None else json.dumps(body).encode()
    conn.request(method, path, data, {"Content-Type": "application/json"} if data else {})
    r = conn.getresponse()
    return r.status, json.loads(r.read() or b"null")


def config_map(name, size=256):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
            "data": {"value": (name + "-").ljust(size, "x")}}
