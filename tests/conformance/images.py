#!/usr/bin/env python3
"""Builds the container images that upstream's end-to-end suite starts, as one OCI archive, from Go
modules and Debian packages only: nothing is pulled from a registry of images.

    images.py [--work DIR] [--only NAME,…] ARCHIVE.tar     makes the archive
    images.py --load THIMBLE PROFILE ARCHIVE.tar           loads it into a cluster

Where upstream's images are Alpine, these are busybox and Debian's tools: the suite needs the programs
(sh, dig, curl, nc, ip, …) and not the distribution. The names and tags are those of
test/utils/image/manifest.go in the module k8s.io/kubernetes, so that the suite finds every image on
the node and pulls none. Layers are shared: what several images have in common is stored once.

Go programs come from the module k8s.io/kubernetes itself (its staging modules are at v0.x of the same
release), from go.etcd.io/etcd/server/v3 and from k8s.io/sample-apiserver. --work keeps binaries and
packages between runs."""
import argparse
import glob
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KUBE, STAGING, ETCD, SAMPLE = "v1.36.3", "v0.36.3", "v3.6.8", "v0.36.3"
GO = "1.26.0"
E2E = "registry.k8s.io/e2e-test-images/"
TOOLS = ("bind9-dnsutils curl netcat-openbsd iproute2 iperf libc-bin util-linux hostname").split()
# What comes along as a dependency and is never used: configuration machinery, package tools.
NOT = set("base-files cdebconf debconf debianutils dpkg gawk gcc-12-base install-info libdebian-installer4 "
          "libelogind0 libmpfr6 libnewt0.52 libsigsegv2 libslang2 libtextwrap1 "
          "lsb-base mawk original-awk perl perl-base readline-common sysvinit-utils tar".split())
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(*args, **kw):
    return subprocess.run(args, check=True, **kw)


def out(*args, **kw):
    return run(*args, stdout=subprocess.PIPE, text=True, **kw).stdout


# ---- programs ----

def go_command():
    return out(ROOT + "/tests/tools/go.sh", GO).strip()


def module_dir(go, name, version, cwd):
    return json.loads(out(go, "mod", "download", "-json", "%s@%s" % (name, version), cwd=cwd))["Dir"]


def kube_module(go, work):
    """A module that can build packages of k8s.io/kubernetes: its staging replacements, at their tag."""
    d = work + "/kube"
    os.makedirs(d, exist_ok=True)
    with open(d + "/go.mod", "w") as f:
        f.write("module conformance\n\ngo %s\n" % GO)
    src = module_dir(go, "k8s.io/kubernetes", KUBE, d)
    with open(src + "/go.mod") as f:
        text = f.read()
    mods = set(re.findall(r"(k8s\.io/[a-z0-9-]+) => \./staging", text))
    mods |= set(re.findall(r"^\s*(k8s\.io/[a-z0-9-]+) v0\.0\.0(?:\s|$)", text, re.M))
    with open(d + "/go.mod", "a") as f:
        f.write("require k8s.io/kubernetes %s\n" % KUBE)
        for m in sorted(mods):
            f.write("replace %s => %s %s\n" % (m, m, STAGING))
        for pkg in Programs.KUBE.values():
            f.write("tool k8s.io/kubernetes/%s\n" % pkg)
    run(go, "mod", "tidy", cwd=d, stderr=subprocess.DEVNULL)
    return d


def plain_module(go, work, name, module, version):
    d = "%s/%s" % (work, name)
    os.makedirs(d, exist_ok=True)
    with open(d + "/go.mod", "w") as f:
        f.write("module conformance\n\ngo %s\n\nrequire %s %s\n\ntool %s\n" % (GO, module, version, module))
    run(go, "mod", "tidy", cwd=d, stderr=subprocess.DEVNULL)
    return d


class Programs:
    """Static programs below WORK/bin, built when asked for the first time."""
    KUBE = {"agnhost": "test/images/agnhost", "nnp": "test/images/nonewprivs",
            "consumer": "test/images/resource-consumer",
            "consume-cpu": "test/images/resource-consumer/consume-cpu"}

    def __init__(self, work):
        self.work, self.bin, self.kube = work, work + "/bin", None
        os.makedirs(self.bin, exist_ok=True)

    def get(self, name):
        path = "%s/%s" % (self.bin, name)
        if os.path.exists(path):
            return path
        print("building %s" % name, flush=True)
        if name == "pause":
            src = self.work + "/pause.c"
            with open(src, "w") as f:
                f.write(PAUSE)
            run("cc", "-Os", "-static", "-s", "-o", path, src)
            return path
        go = go_command()
        if name in self.KUBE:
            self.kube = self.kube or kube_module(go, self.work)
            cwd, pkg = self.kube, "k8s.io/kubernetes/" + self.KUBE[name]
        elif name == "etcd":
            pkg = "go.etcd.io/etcd/server/v3"
            cwd = plain_module(go, self.work, "etcd", pkg, ETCD)
        else:
            pkg = "k8s.io/sample-apiserver"
            cwd = plain_module(go, self.work, "sample", pkg, SAMPLE)
        run(go, "build", "-ldflags=-s -w", "-o", path, pkg, cwd=cwd,
            env=dict(os.environ, CGO_ENABLED="0"))
        return path


PAUSE = r"""
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
/* Holds the namespaces of a pod: reaps what is left to it, leaves at SIGTERM or SIGINT. */
static void leave(int s) { (void)s; _exit(0); }
static void reap(int s) { (void)s; while (waitpid(-1, 0, WNOHANG) > 0) { } }
int main(void)
{
    signal(SIGINT, leave);
    signal(SIGTERM, leave);
    signal(SIGCHLD, reap);
    for (;;) {
        pause();
    }
}
"""


# ---- Debian's packages ----

def closure(names):
    text = out("apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts",
               "--no-breaks", "--no-replaces", "--no-enhances", *names)
    found = set(re.findall(r"^([a-z0-9][a-z0-9.+-]*)$", text, re.M))
    return sorted(n for n in found if n not in NOT)


def unpack(work, name, packages):
    """A folder with the files of packages and of what they depend on."""
    d = "%s/root-%s" % (work, name)
    stamp = d + "/.packages"
    names = closure(packages)
    want = " ".join(names)
    if os.path.exists(stamp) and open(stamp).read() == want:
        return d
    shutil.rmtree(d, ignore_errors=True)
    debs = work + "/debs"
    os.makedirs(debs, exist_ok=True)
    for top in ("bin", "sbin", "lib", "lib64"):
        os.makedirs("%s/usr/%s" % (d, top))
        os.symlink("usr/" + top, "%s/%s" % (d, top))
    missing = [n for n in names if not glob.glob("%s/%s_*.deb" % (debs, n))]
    if missing:
        run("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *missing, cwd=debs)
    for p in names:
        have = glob.glob("%s/%s_*.deb" % (debs, p))
        tar = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", have[0]], stdout=subprocess.PIPE)
        run("tar", "-x", "-C", d, "--keep-directory-symlink", "--no-same-owner",
            "--exclude=./usr/share/doc", "--exclude=./usr/share/man", "--exclude=./usr/share/locale",
            "--exclude=./usr/share/i18n", "--exclude=./usr/lib/*/gconv", stdin=tar.stdout)
        if tar.wait():
            sys.exit("%s cannot be unpacked" % have[0])
    with open(stamp, "w") as f:
        f.write(want)
    return d


# ---- layers and images ----

class Layer:
    """An uncompressed tar. The same content gives the same bytes: no times, root owns everything."""

    def __init__(self):
        self.buf = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buf, mode="w", format=tarfile.PAX_FORMAT)
        self.seen = set()

    def entry(self, name, type_, mode, data=b"", link="", uid=0, gid=0):
        if name in self.seen:
            return
        self.seen.add(name)
        t = tarfile.TarInfo(name)
        t.type, t.mode, t.linkname, t.size, t.uid, t.gid = type_, mode, link, len(data), uid, gid
        self.tar.addfile(t, io.BytesIO(data))

    def dir(self, name, mode=0o755, uid=0, gid=0):
        self.entry(name, tarfile.DIRTYPE, mode, uid=uid, gid=gid)

    def file(self, name, data, mode=0o644):
        if isinstance(data, str) and data.startswith("/") and "\n" not in data:
            with open(data, "rb") as f:
                data = f.read()
        self.entry(name, tarfile.REGTYPE, mode, data.encode() if isinstance(data, str) else data)

    def link(self, name, to):
        self.entry(name, tarfile.SYMTYPE, 0o777, link=to)

    def tree(self, root):
        for top, dirs, files in os.walk(root):
            dirs.sort()
            for n in sorted(dirs + files):
                p = os.path.join(top, n)
                rel = os.path.relpath(p, root)
                if rel == ".packages":
                    continue
                st = os.lstat(p)
                if os.path.islink(p):
                    self.link(rel, os.readlink(p))
                elif os.path.isdir(p):
                    self.dir(rel, st.st_mode & 0o7777)
                elif os.path.isfile(p):
                    self.file(rel, p, st.st_mode & 0o7777)

    def bytes(self):
        self.tar.close()
        return self.buf.getvalue()


def busybox_layer(work):
    """busybox under every name it knows, accounts, the folders every image has. /bin/sh is busybox's. A
    plain "sh" is bash: the shell in Debian's busybox hands on no variables whose names a shell cannot
    use, as the one in upstream's image does."""
    box = shutil.which("busybox") or sys.exit("busybox-static is not installed")
    la = Layer()
    for d in ("usr", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "usr/local", "usr/local/bin", "etc", "home",
              "proc", "sys", "dev", "var", "var/log", "mnt"):
        la.dir(d)
    for d in ("bin", "sbin", "lib", "lib64"):
        la.link(d, "usr/" + d)
    la.dir("root", 0o700)
    la.dir("tmp", 0o1777)
    la.dir("var/tmp", 0o1777)
    la.link("var/run", "/run")
    la.dir("run")
    la.file("usr/bin/busybox", box, 0o755)
    la.file("usr/bin/bash", unpack(work, "shell", ["bash-static"]) + "/bin/bash-static", 0o755)
    la.link("usr/local/bin/sh", "/usr/bin/bash")
    for n in out(box, "--list").split():
        if n != "busybox":
            la.link("usr/bin/" + n, "busybox")
    la.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
            "bin:x:2:2:bin:/bin:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\n"
            "nobody:x:65534:65534:nobody:/home:/bin/false\n")
    la.file("etc/group", "root:x:0:\ndaemon:x:1:\nbin:x:2:\ntty:x:5:\nwww-data:x:33:\nnogroup:x:65534:\n")
    la.file("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
    return la.bytes()


def debian_layer(work, name, packages, links=()):
    la = Layer()
    la.tree(unpack(work, name, packages))
    for n, to in links:
        la.link(n, to)
    return la.bytes()


def sha(b):
    return "sha256:" + hashlib.sha256(b).hexdigest()


class Archive:
    """An OCI layout in a tar: blobs once, one named descriptor for each name of each image."""

    def __init__(self):
        self.blobs, self.index = {}, []

    def blob(self, data):
        d = sha(data)
        self.blobs[d] = data
        return d

    def image(self, names, layers, **config):
        conf = json.dumps({"architecture": "amd64", "os": "linux",
                           "config": dict({"Env": ["PATH=" + PATH]}, **config),
                           "rootfs": {"type": "layers", "diff_ids": [sha(la) for la in layers]},
                           "history": [{"created_by": "tests/conformance/images.py"} for _ in layers]},
                          sort_keys=True).encode()
        man = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                          "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                                     "digest": self.blob(conf), "size": len(conf)},
                          "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar",
                                      "digest": self.blob(la), "size": len(la)} for la in layers]},
                         sort_keys=True).encode()
        for n in names:
            self.index.append({"mediaType": "application/vnd.oci.image.manifest.v1+json",
                               "digest": self.blob(man), "size": len(man),
                               "annotations": {"io.containerd.image.name": n}})
        return man, conf

    def write(self, path):
        with tarfile.open(path + ".new", "w") as t:
            def add(name, data):
                i = tarfile.TarInfo(name)
                i.size, i.mode = len(data), 0o644
                t.addfile(i, io.BytesIO(data))
            add("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            add("index.json", json.dumps({"schemaVersion": 2, "manifests": self.index}).encode())
            for d, data in sorted(self.blobs.items()):
                add("blobs/sha256/" + d[7:], data)
        os.rename(path + ".new", path)


def fake_registry(la, name, tag, manifest, blobs):
    """The folder from which agnhost's registry serves: blobs and manifests under their digests."""
    base = "var/registry/" + name
    for d in ("var", "var/registry", base, base + "/manifests", base + "/blobs"):
        la.dir(d)

    def put(kind, data):
        h = hashlib.sha256(data).hexdigest()
        for d in ("sha256", "sha256/" + h[:2], "sha256/%s/%s" % (h[:2], h)):
            la.dir("%s/%s/%s" % (base, kind, d))
        la.file("%s/%s/sha256/%s/%s/data" % (base, kind, h[:2], h), data)
        return "sha256:" + h
    for b in blobs:
        put("blobs", b)
    m = put("manifests", manifest)
    index = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
                        "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": m,
                                       "size": len(manifest),
                                       "platform": {"architecture": "amd64", "os": "linux"}}]}).encode()
    la.file(base + "/manifests/" + tag, put("manifests", index) + "\n")


def one_file(path, data, mode=0o755, parents=()):
    la = Layer()
    for p in parents:
        la.dir(p)
    la.file(path, data, mode)
    return la.bytes()


def build(work, only, path):
    prog, ar = Programs(work), Archive()

    def want(n):
        return not only or n in only
    base = busybox_layer(work)
    tools = debian_layer(work, "tools", TOOLS, [("usr/bin/sh", "bash"), ("usr/bin/nc", "nc.openbsd"),
                                                ("usr/local/bin/iperf", "/usr/bin/iperf")])  # busybox's shell prefers its own nc

    la = Layer()
    la.file("pause", prog.get("pause"), 0o755)
    pause = la.bytes()
    pause_m, pause_c = ar.image(["registry.k8s.io/pause:3.10.2"], [pause], Entrypoint=["/pause"], User="65535:65535")
    ar.image([E2E + "busybox:1.37.0-1"], [base], Cmd=["sh"])
    ar.image([E2E + "nonroot:1.5"], [base], User="1234", Cmd=["sh"])
    ar.image([E2E + "glibc-dns-testing:2.0.0", E2E + "ipc-utils:1.4"], [base, tools], Cmd=["bash"])
    if want("nginx"):
        conf = debian_layer(work, "nginx", ["nginx-light"])
        la = Layer()
        la.dir("etc/nginx", 0o755)
        la.file("etc/nginx/nginx.conf", NGINX)
        for d in ("usr/share/nginx", "usr/share/nginx/html"):
            la.dir(d)
        la.file("usr/share/nginx/html/index.html", "<html><body><h1>Welcome to nginx!</h1></body></html>\n")
        for d in ("var/log/nginx", "var/lib/nginx", "var/cache/nginx"):
            la.dir(d)
        la.link("var/log/nginx/access.log", "/dev/stdout")
        la.link("var/log/nginx/error.log", "/dev/stderr")
        ar.image([E2E + "nginx:1.15-4"], [base, conf, la.bytes()], ExposedPorts={"80/tcp": {}},
                 StopSignal="SIGQUIT", Cmd=["nginx", "-g", "daemon off;"])
        ar.image([E2E + "nginx:1.27-0"], [base, conf, la.bytes(), one_file("etc/nginx/release", "1.27\n", 0o644)],
                 ExposedPorts={"80/tcp": {}}, StopSignal="SIGQUIT", Cmd=["nginx", "-g", "daemon off;"])
    if want("agnhost"):
        src = module_dir(go_command(), "k8s.io/kubernetes", KUBE, work)
        la = Layer()
        la.file("agnhost", prog.get("agnhost"), 0o755)
        la.link("agnhost-2", "agnhost")
        for n in ("localhost.crt", "localhost.key"):
            la.file(n, "%s/test/images/agnhost/porter/%s" % (src, n))
        la.dir("uploads")
        passwd = ("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n"
                  "user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n")
        la.file("etc/passwd", passwd)
        la.file("etc/group", "root:x:0:root\ntty:x:5:\nnobody:x:65534:\nuser-defined-in-image:x:1000:\n"
                "group-defined-in-image:x:50000:user-defined-in-image\n")
        la.dir("home/user-defined-in-image", 0o755, 1000, 1000)
        la.file("etc/os-release", 'ID=stand-in\nPRETTY_NAME="busybox and Debian tools in place of Alpine Linux"\n')
        fake_registry(la, "pause", "testing", pause_m, [pause_c, pause])
        agn = la.bytes()
        cfg = {"Entrypoint": ["/agnhost"], "Cmd": ["pause"],
               "ExposedPorts": {"%d/tcp" % p: {} for p in (80, 8080, 8081, 9376, 5000)}}
        for tag in ("2.63.0", "2.55"):  # different images, as upstream's two versions are
            ar.image([E2E + "agnhost:" + tag], [base, tools, agn, one_file("etc/agnhost-version", tag + "\n", 0o644)],
                     **cfg)
        for n in ("kitten", "nautilus"):
            la = Layer()
            for f in ("%s.jpg" % n, "data.json"):
                la.file(f, "%s/test/images/%s/html/%s" % (src, n, f))
            ar.image(["%s%s:1.8" % (E2E, n)], [base, tools, agn, la.bytes()], **dict(cfg, Cmd=["test-webserver"]))
        ar.image([E2E + "nonewprivs:1.4"], [base, one_file("usr/local/bin/nnp", prog.get("nnp"), 0o6755)], Cmd=["nnp"])
    if want("resource-consumer"):
        la = Layer()
        la.file("consumer", prog.get("consumer"), 0o755)
        la.file("consume-cpu", prog.get("consume-cpu"), 0o755)
        ar.image([E2E + "resource-consumer:1.14"],
                 [base, debian_layer(work, "stress", ["stress"]), la.bytes()], Entrypoint=["/consumer"])
    if want("etcd"):
        ar.image(["registry.k8s.io/etcd:3.6.8-0"], [base, one_file("usr/local/bin/etcd", prog.get("etcd"))])
    if want("sample-apiserver"):
        ar.image([E2E + "sample-apiserver:1.29.2"],
                 [base, one_file("sample-apiserver", prog.get("sample-apiserver"))], Entrypoint=["/sample-apiserver"])
    ar.write(path)
    print("%s: %d names, %d MiB" % (path, len(ar.index), os.path.getsize(path) >> 20))


NGINX = """worker_processes 1;
events { worker_connections 256; }
http {
    include /etc/nginx/mime.types;
    server {
        listen 80;
        location / { root /usr/share/nginx/html; index index.html; }
    }
}
"""


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--work", default=ROOT + "/build/clients/conformance", help="binaries and packages are kept here")
    ap.add_argument("--only", default="", help="agnhost, nginx, resource-consumer, etcd, sample-apiserver")
    ap.add_argument("--load", nargs=2, metavar=("THIMBLE", "PROFILE"))
    ap.add_argument("archive")
    a = ap.parse_args()
    if a.load:
        run(a.load[0], "image", "load", a.archive, "-p", a.load[1])
        return
    os.makedirs(a.work, exist_ok=True)
    build(os.path.abspath(a.work), set(filter(None, a.only.split(","))), os.path.abspath(a.archive))


if __name__ == "__main__":
    main()
