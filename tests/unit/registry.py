#!/usr/bin/env python3
"""A small registry on loopback for test_images_pull.c: tokens, redirects, indexes, ranges, faults.

registry.py PORTFILE: writes its port there and serves until its standard input ends.

  multi:1     an index of several platforms (and an attestation), wants a token
  private:1   wants a token, which is never given
  secret:1    wants basic credentials: alice, wonder
  moved:1     its layer is behind two redirects, to another host name
  cut:1       the first two downloads of its layer break off half way; Range goes on
  damaged:1   its layer is not what its digest says
  arm:1       an index without this machine's platform
  slow:1      503 twice, then it comes
"""
import gzip
import hashlib
import http.server
import io
import json
import os
import sys
import tarfile
import threading

ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
blobs, manifests, counts = {}, {}, {}
OCI = "application/vnd.oci.image."


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def blob(data):
    blobs[digest(data)] = data
    return {"digest": digest(data), "size": len(data)}


def layer(text):
    b = io.BytesIO()
    with tarfile.open(fileobj=b, mode="w") as t:
        info = tarfile.TarInfo("hello")
        info.size = len(text)
        t.addfile(info, io.BytesIO(text))
        info = tarfile.TarInfo("noise") # so that half of the layer is a good part of it
        noise = os.urandom(200000)
        info.size = len(noise)
        t.addfile(info, io.BytesIO(noise))
    return b.getvalue()


def manifest(name, tag, arch, text):
    raw = layer(text)
    packed = gzip.compress(raw, mtime=0)
    config = json.dumps({"architecture": arch, "os": "linux", "config": {"Cmd": ["/hello"]},
                         "rootfs": {"type": "layers", "diff_ids": [digest(raw)]}}).encode()
    m = json.dumps({"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json",
                    "config": dict(blob(config), mediaType=OCI + "config.v1+json"),
                    "layers": [dict(blob(packed), mediaType=OCI + "layer.v1.tar+gzip")]}).encode()
    put(name, tag, OCI + "manifest.v1+json", m)
    return {"mediaType": OCI + "manifest.v1+json", "digest": digest(m), "size": len(m)}, digest(packed)


def put(name, tag, kind, data):
    for ref in (tag, digest(data)):
        if ref:
            manifests[name, ref] = (kind, data)


def index(name, tag, rows):
    data = json.dumps({"schemaVersion": 2, "mediaType": OCI + "index.v1+json",
                       "manifests": [dict(d, platform=p) for d, p in rows]}).encode()
    put(name, tag, OCI + "index.v1+json", data)


def fill():
    other = "s390x"
    mine, _ = manifest("multi", None, ARCH, b"mine")
    theirs, _ = manifest("multi", None, other, b"theirs")
    index("multi", "1", [(theirs, {"architecture": other, "os": "linux"}),
                         (mine, {"architecture": ARCH, "os": "linux"}),
                         (theirs, {"architecture": "unknown", "os": "unknown"})])
    theirs, _ = manifest("arm", None, other, b"theirs")
    index("arm", "1", [(theirs, {"architecture": other, "os": "linux"})])
    special = {}
    for name in ("private", "secret", "moved", "cut", "damaged", "slow"):
        _, special[name] = manifest(name, "1", ARCH, name.encode())
    return special


special = fill()


def times(what):
    counts[what] = counts.get(what, 0) + 1
    return counts[what]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, code, body=b"", kind="application/json", **headers):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for k, v in headers.items():
            self.send_header(k.replace("_", "-"), v)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def port(self):
        return self.server.server_address[1]

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == "/token":
            if "scope=repository%3Amulti%3Apull" not in query or "service=test" not in query:
                return self.answer(403, b"{}")
            return self.answer(200, json.dumps({"token": "let-me-in"}).encode())
        if path.startswith("/elsewhere/"):
            if "Authorization" in self.headers: # credentials must not follow to another host
                return self.answer(400, b"{}")
            return self.answer(200, blobs[path[len("/elsewhere/"):]], "application/octet-stream")
        if path.startswith("/hop/"):
            return self.answer(307, Location="http://localhost:%d/elsewhere/%s" %
                               (self.port(), path[len("/hop/"):]))
        parts = path.split("/")
        if len(parts) != 5 or parts[1] != "v2":
            return self.answer(404, b"{}")
        name, what, ref = parts[2:]
        if name in ("multi", "private") and self.headers.get("Authorization") != "Bearer let-me-in":
            return self.answer(401, b"{}", WWW_Authenticate='Bearer realm="http://127.0.0.1:%d/token",'
                               'service="test",scope="repository:%s:pull"' % (self.port(), name))
        if name == "secret" and self.headers.get("Authorization") != "Basic YWxpY2U6d29uZGVy":
            return self.answer(401, b"{}", WWW_Authenticate='Basic realm="test"')
        if what == "manifests":
            kind, data = manifests.get((name, ref), (None, None))
            if not data:
                return self.answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
            return self.answer(200, data, kind, Docker_Content_Digest=digest(data))
        data = blobs.get(ref)
        if what != "blobs" or data is None:
            return self.answer(404, b"{}")
        if special.get(name) == ref:
            return self.special(name, ref, data)
        return self.answer(200, data, "application/octet-stream")

    def special(self, name, ref, data):
        if name == "moved":
            return self.answer(302, Location="/hop/" + ref)
        if name == "damaged":
            return self.answer(200, data[:-1] + b"x", "application/octet-stream")
        if name == "slow" and times("slow") <= 2:
            return self.answer(503, b"{}")
        if name == "cut":
            start = 0
            if self.headers.get("Range", "").startswith("bytes="):
                start = int(self.headers["Range"][6:].split("-")[0])
            if times("cut") <= 2:
                half = data[start:start + (len(data) - start) // 2]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(data) - start))
                self.end_headers()
                self.wfile.write(half)
                self.close_connection = True
                return None
            if not start: # what came before must not be asked for again
                return self.answer(500, b"{}")
            return self.answer(206, data[start:], "application/octet-stream", Content_Range=
                               "bytes %d-%d/%d" % (start, len(data) - 1, len(data)))
        return self.answer(200, data, "application/octet-stream")


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with open(sys.argv[1] + ".tmp", "w") as f:
        f.write(str(server.server_address[1]))
    os.rename(sys.argv[1] + ".tmp", sys.argv[1])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
