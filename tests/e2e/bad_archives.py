#!/usr/bin/env python3
"""Image archives that are wrong in one way each, for badinput.sh: bad_archives.py FOLDER.

Writes FOLDER/list with "NAME EXIT REASON PATTERN" a line, a good archive and a good OCI folder.
"""
import gzip
import hashlib
import io
import json
import os
import sys
import tarfile

out = sys.argv[1]
rows = []


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar(entries):
    """entries: (name, data or None for a folder, {TarInfo attributes})"""
    b = io.BytesIO()
    with tarfile.open(fileobj=b, mode="w", format=tarfile.PAX_FORMAT) as t:
        for name, data, attrs in entries:
            info = tarfile.TarInfo(name)
            if data is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(data)
            for k, v in attrs.items():
                setattr(info, k, v)
            t.addfile(info, io.BytesIO(data) if data and info.isreg() else None)
    return b.getvalue()


def image(layer, diff_id=None, arch="amd64", os_name="linux", name="x:1", **change):
    """An OCI archive's files with one layer; change replaces blobs by role."""
    config = json.dumps({"architecture": arch, "os": os_name, "config": {},
                         "rootfs": {"type": "layers", "diff_ids": [diff_id or digest(layer)]}}).encode()
    config = change.get("config", config)
    kind = "application/vnd.oci.image.layer.v1.tar"
    if layer[:2] == b"\x1f\x8b":
        kind += "+gzip"
    manifest = json.dumps({"schemaVersion": 2,
                           "mediaType": "application/vnd.oci.image.manifest.v1+json",
                           "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                                      "digest": digest(config), "size": len(config)},
                           "layers": [{"mediaType": kind, "digest": digest(layer),
                                       "size": len(layer)}]}).encode()
    manifest = change.get("manifest", manifest)
    index = json.dumps({"schemaVersion": 2, "manifests": [
        {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(manifest),
         "size": len(manifest), "annotations": {"io.containerd.image.name":
                                                "docker.io/library/" + name}}]}).encode()
    index = change.get("index", index)
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
    for blob, role in ((config, "config"), (manifest, "manifest"), (layer, "layer")):
        if role not in change.get("without", ()):
            files["blobs/sha256/" + digest(blob)[7:]] = change.get("content_" + role, blob)
    return files


def archive(files):
    return tar([(n, d, {}) for n, d in files.items()])


def put(name, data, exit_code, reason, pattern):
    with open(os.path.join(out, name), "wb") as f:
        f.write(data)
    rows.append("%s %s %s %s\n" % (name, exit_code, reason, pattern))


def layer(*entries):
    return tar(list(entries))


plain = layer(("etc", None, {}), ("etc/x", b"x", {}))
good = archive(image(plain, name="good:1"))
with open(os.path.join(out, "good.tar"), "wb") as f:
    f.write(good)
for n, d in dict(image(plain, name="good:1"), **{".dockerignore": b"blobs\n*.json\n"}).items():
    path = os.path.join(out, "good-oci", n)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(d)

put("empty.tar", b"", 7, "bad-archive", ".")
put("text.tar", b"this is not an archive\n" * 100, 7, "bad-archive", ".")
put("zeros.tar", bytes(10240), 7, "bad-archive", "empty")
put("half.tar", good[:len(good) // 2], 7, "bad-archive", ".")
put("cut-header.tar", good[:700], 7, "bad-archive", ".")
put("half.tar.gz", gzip.compress(good)[:400], 7, "bad-archive", ".")
put("other.tar", tar([("README", b"hello", {})]), 7, "bad-archive", "index.json|manifest.json|image")
bad_header = bytearray(good)
bad_header[100] ^= 0x55
put("checksum.tar", bytes(bad_header), 7, "bad-archive", ".")

# manifests
put("no-json.tar", archive(image(plain, index=b"{")), 7, "bad-archive", "index.json.*JSON")
put("no-list.tar", archive(image(plain, index=b'{"manifests":7}')), 7, "bad-archive", "index.json")
put("no-manifest.tar", archive(image(plain, without=("manifest",))), 7, "bad-archive", "blobs/sha256")
put("no-layer.tar", archive(image(plain, without=("layer",))), 7, "bad-archive", "blob")
put("no-config.tar", archive(image(plain, without=("config",))), 7, "bad-archive", "blob")
put("not-a-manifest.tar", archive(image(plain, manifest=b'{"layers":"x"}')), 7, "bad-archive",
    "not an image manifest")
put("bad-config.tar", archive(image(plain, config=b"[]")), 7, "bad-archive", ".")
put("bad-digest-name.tar", archive(image(plain, index=json.dumps(
    {"manifests": [{"digest": "sha256:../../../etc/passwd"}]}).encode())), 7, "bad-archive",
    "not a sha256 digest")
put("docker-no-layer.tar", tar([("manifest.json", b'[{"Config":"c.json","RepoTags":["a:1"],'
                                b'"Layers":["l/layer.tar"]}]', {}), ("c.json", b"{}", {})]), 7,
    "bad-archive", ".")
put("docker-outside.tar", tar([("manifest.json", b'[{"Config":"../../etc/passwd","RepoTags":["a:1"],'
                               b'"Layers":[]}]', {})]), 7, "bad-archive", ".")
put("windows.tar", archive(image(plain, os_name="windows")), 7, "bad-archive", "linux")

# contents that are not what their digest says
put("layer-damaged.tar", archive(image(plain, content_layer=plain.replace(b"etc/x", b"etc/y"))), 7,
    "digest-mismatch", "really is")
put("config-damaged.tar", archive(image(plain, content_config=b"{}")), 7, "digest-mismatch",
    "really is")
put("diff-id.tar", archive(image(plain, diff_id="sha256:" + "0" * 64)), 7,
    "digest-mismatch|bad-archive", ".")

# layers that lead outside
put("dotdot.tar", archive(image(layer(("../../../../../../escaped", b"x", {})))), 7, "bad-archive", r"\.\.")
put("member-outside.tar", tar([("../escaped", b"x", {})]), 7, "bad-archive", "outside")
put("hardlink-outside.tar", archive(image(layer(
    ("x", b"", {"type": tarfile.LNKTYPE, "linkname": "../../../../etc/passwd"})))), 7, "bad-archive", ".")

# more than it seems: a gzip layer of zeros that grows a thousand times, and no end of files
bomb = gzip.compress(tar([("f", bytes(200 << 20), {})]), 9)
put("wrong-diff-bomb.tar", archive(image(bomb, diff_id="sha256:" + "1" * 64)), 7,
    "digest-mismatch|bad-archive|too-large", ".")
many = tar([("f%05d" % i, b"", {}) for i in range(20050)])
put("many-files.tar", many, 7, "bad-archive", "more files")

with open(os.path.join(out, "list"), "w") as f:
    f.writelines(rows)
