"""A webhook server for a test: TLS on loopback, reviews in, answers out."""
import base64
import http.server
import json
import os
import ssl
import threading

from cluster import self_signed


class HookServer:
    """answer(path, request) gives the response; subclasses or callers replace it. `asked` has what came."""

    def __init__(self, directory, answer=None):
        self.asked, self.connections, outer = [], 0, self
        self.raw = None  # bytes to answer with, whatever was asked
        self.delay = threading.Event()
        self.delay.set()
        if answer:
            self.answer = answer

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                outer.connections += 1
                super().setup()

            def log_message(self, *a):
                pass

            def do_POST(self):
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((self.path, review))
                outer.delay.wait(30)
                out = outer.raw
                if out is None:
                    out = json.dumps({"apiVersion": review["apiVersion"], "kind": review["kind"],
                                      "response": outer.respond(self.path, review["request"])}).encode()
                try:
                    self.send_response(200)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(out)))
                    self.end_headers()
                    self.wfile.write(out)
                except OSError:
                    pass  # nobody waits any more

        crt, key = directory + "/hook.crt", directory + "/hook.key"
        if not os.path.exists(crt):
            self_signed(key, crt, "localhost", "-addext",
                        "subjectAltName=DNS:localhost,IP:127.0.0.1,DNS:hook.default.svc")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(crt, key)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        with open(crt, "rb") as f:
            self.bundle = base64.b64encode(f.read()).decode()

    def config(self, path):
        return {"url": "https://127.0.0.1:%d%s" % (self.port, path), "caBundle": self.bundle}

    def respond(self, path, request):
        r = self.answer(path, request)
        return dict(r, uid=r.get("uid", request["uid"])) if isinstance(r, dict) else r

    def close(self):
        self.delay.set()
        self.server.shutdown()
        self.server.server_close()


def patch(*ops):
    """The part of an admission response that changes the object."""
    return {"allowed": True, "patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(ops).encode()).decode()}
