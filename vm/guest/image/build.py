#!/usr/bin/env python3
"""Builds the parts of the guest: kernel (uncompressed ELF), initramfs and root image.

  build.py kernel    --out DIR               DIR/kernel-debian, DIR/modules/
  build.py initramfs --out DIR --cache DIR --stage1 ELF    DIR/initramfs
  build.py rootfs    --out DIR --cache DIR --thimbled ELF  DIR/rootfs
  build.py pack      --out DIR --part NAME=FILE... --level N   DIR/blob/*.zst, guest_blob.S, .c

No container tools and no root: Debian's kernel comes from `apt-get download` (kept in DIR/debs),
programs and libraries come from the packages that the build host has installed. Same inputs give
the same bytes: times, owners, the UUID and the order of files are fixed; each step keeps a key of
its inputs beside its output and does nothing when they have not changed.

The kernel is taken out of vmlinuz because QEMU can start an ELF with a PVH note directly: under
emulation a bzImage takes a third of a second to unpack itself. For the same reason the initramfs
is not compressed.
"""
import argparse
import ctypes
import hashlib
import lzma
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
EPOCH = 1767225600  # 2026-01-01, the time of every file
UUID = "7468696d-626c-6500-0000-000000000001"
PROGRAMS = ["crun", "conmon", "mke2fs", "e2fsck", "haproxy"]
OPTIONAL_PROGRAMS = {"haproxy"}  # the Ingress data plane; present once the host has the package
LIBDIR = "usr/lib/x86_64-linux-gnu"
SBIN = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def fail(msg, hint=None):
    sys.stderr.write("guest image: %s\n" % msg)
    if hint:
        sys.stderr.write("guest image: %s\n" % hint)
    sys.exit(1)


def run(*argv, **kw):
    try:
        return subprocess.run(argv, check=True, **kw)
    except FileNotFoundError:
        fail("%s is missing" % argv[0], "apt-get install erofs-utils zstd binutils dpkg apt")
    except subprocess.CalledProcessError as e:
        out = (e.stderr or b"").decode(errors="replace").strip()
        fail("%s failed (%d) %s" % (" ".join(argv[:3]), e.returncode, out))


def sha256_file(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            h.update(block)
    return h.hexdigest()


def write_if_changed(path, data):
    """Leaves the file's time alone when the bytes are the same, so that nothing is rebuilt."""
    try:
        with open(path, "rb") as f:
            if f.read() == data:
                return
    except FileNotFoundError:
        pass
    with open(path + ".part", "wb") as f:
        f.write(data)
    os.rename(path + ".part", path)


def up_to_date(path, key):
    try:
        with open(path + ".key") as f:
            return f.read() == key and os.path.exists(path)
    except FileNotFoundError:
        return False


def set_key(path, key):
    with open(path + ".key", "w") as f:
        f.write(key)


# ---------------------------------------------------------------- kernel

def kernel_package():
    """Name and version of the package that linux-image-cloud-amd64 stands for."""
    out = run("apt-cache", "depends", "linux-image-cloud-amd64", stdout=subprocess.PIPE).stdout.decode()
    m = re.search(r"Depends: (linux-image-\S+)", out)
    if not m:
        fail("apt knows no package linux-image-cloud-amd64", "run: apt-get update")
    pol = run("apt-cache", "policy", m.group(1), stdout=subprocess.PIPE).stdout.decode()
    v = re.search(r"Candidate: (\S+)", pol)
    return m.group(1), v.group(1)


def fetch_kernel(out):
    given = os.environ.get("THIMBLE_KERNEL_DEB")
    if given:
        return given
    debs = os.path.join(out, "debs")
    os.makedirs(debs, exist_ok=True)
    have = sorted(f for f in os.listdir(debs) if f.endswith(".deb") and "linux-image" in f)
    if have:  # a build never changes its kernel behind one's back: remove DIR/debs to update
        return os.path.join(debs, have[-1])
    name, version = kernel_package()
    print("guest image: downloading %s %s" % (name, version), flush=True)
    run("apt-get", "download", "-q", "%s=%s" % (name, version), cwd=debs)
    have = sorted(f for f in os.listdir(debs) if f.endswith(".deb"))
    if not have:
        fail("apt-get download %s gave no file" % name)
    return os.path.join(debs, have[-1])


def unlz4_legacy(data):
    """The kernel's LZ4: magic, then blocks of at most 8 MiB plain, each after its packed length.
    liblz4 is on every Debian system (erofs-utils needs it), its command line tool is not."""
    try:
        lz4 = ctypes.CDLL("liblz4.so.1")
    except OSError:
        fail("liblz4.so.1 is missing", "apt-get install liblz4-1")
    plain, pos, room = [], 4, 8 << 20
    buf = ctypes.create_string_buffer(room)
    while pos + 4 <= len(data):
        n = struct.unpack_from("<I", data, pos)[0]
        pos += 4
        got = lz4.LZ4_decompress_safe(data[pos:pos + n], buf, n, room)
        if got < 0:
            fail("the kernel's LZ4 block at %d is damaged" % pos)
        plain.append(buf.raw[:got])
        pos += n
    return b"".join(plain)


def extract_vmlinux(vmlinuz):
    """The ELF inside a bzImage, by the offsets in its setup header (Documentation/x86/boot)."""
    data = open(vmlinuz, "rb").read()
    if data[0x202:0x206] != b"HdrS":
        fail("%s is no bzImage" % vmlinuz)
    setup_sects = data[0x1F1] or 4
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = (setup_sects + 1) * 512 + offset
    payload = data[start:start + length]
    # For some formats the last four bytes are the plain size and no part of the stream.
    if payload[:6] == b"\xfd7zXZ\0":
        elf = lzma.LZMADecompressor(format=lzma.FORMAT_XZ).decompress(payload)
    elif payload[:4] == b"\x28\xb5\x2f\xfd":
        elf = run("zstd", "-dcq", input=payload[:-4], stdout=subprocess.PIPE).stdout
    elif payload[:4] == b"\x02\x21\x4c\x18":
        elf = unlz4_legacy(payload[:-4])
    elif payload[:3] == b"\x1f\x8b\x08":
        elf = zlib.decompressobj(31).decompress(payload)
    else:
        fail("%s: unknown compression %s" % (vmlinuz, payload[:6].hex()))
    if elf[:4] != b"\x7fELF":
        fail("%s: the payload is no ELF file" % vmlinuz)
    return elf


def find_modules(root):
    """name -> path of every module below lib/modules."""
    found = {}
    for d, _, files in os.walk(root):
        for f in files:
            if f.endswith(".ko"):
                found[f[:-3].replace("-", "_")] = os.path.join(d, f)
    return found


def module_depends(path):
    data = open(path, "rb").read()
    m = re.search(rb"\0depends=([^\0]*)\0", data)
    deps = [d.replace("-", "_") for d in m.group(1).decode().split(",") if d] if m else []
    return deps


def wanted_modules():
    rows = []
    for line in open(os.path.join(HERE, "modules.txt")):
        line = line.split("#")[0].split()
        if line:
            rows.append((line[0], line[1]))
    return rows


def builtin_modules(root):
    names = set()
    for d, _, files in os.walk(root):
        if "modules.builtin" in files:
            for line in open(os.path.join(d, "modules.builtin")):
                names.add(os.path.basename(line.strip())[:-3].replace("-", "_"))
    return names


SIGNATURE_MAGIC = b"~Module signature appended~\n"


def without_signature(data):
    """The module as it was before it was signed: who boots our kernel with our root image has chosen the
    modules by that, and checking forty signatures costs a start under TCG a quarter of a second."""
    if not data.endswith(SIGNATURE_MAGIC):
        return data
    end = len(data) - len(SIGNATURE_MAGIC)
    length, = struct.unpack(">I", data[end - 4:end])
    return data[:end - 12 - length]


def cmd_kernel(args):
    out = args.out
    deb = fetch_kernel(out)
    key = "%s %s %s" % (os.path.basename(deb), sha256_file(os.path.join(HERE, "modules.txt")),
                        sha256_file(__file__))
    kernel = os.path.join(out, "kernel-debian")
    if up_to_date(kernel, key):
        return
    work = os.path.join(out, "kernel.work")
    shutil.rmtree(work, ignore_errors=True)
    run("dpkg-deb", "-x", deb, work)
    boot = os.path.join(work, "boot")
    vmlinuz = [f for f in os.listdir(boot) if f.startswith("vmlinuz-")]
    if len(vmlinuz) != 1:
        fail("%s holds %d kernels" % (deb, len(vmlinuz)))
    elf = extract_vmlinux(os.path.join(boot, vmlinuz[0]))

    modroot = os.path.join(work, "lib/modules")
    if not os.path.isdir(modroot):
        modroot = os.path.join(work, "usr/lib/modules")
    found, builtin = find_modules(modroot), builtin_modules(modroot)
    order, seen = [], set()

    def add(stage, name):
        if name in seen or name in builtin:
            return
        if name not in found:
            fail("the kernel package has no module %s" % name)
        seen.add(name)
        for dep in module_depends(found[name]):
            add(stage, dep)
        order.append((stage, name))

    for stage, name in wanted_modules():
        add(stage, name)
    mods = os.path.join(out, "modules")
    shutil.rmtree(mods, ignore_errors=True)
    os.makedirs(mods)
    with open(os.path.join(mods, "order"), "w") as f:
        for stage, name in order:
            with open(found[name], "rb") as ko, open(os.path.join(mods, name + ".ko"), "wb") as to:
                to.write(without_signature(ko.read()))
            f.write("%s %s\n" % (stage, name))
    write_if_changed(kernel, elf)
    shutil.rmtree(work)
    set_key(kernel, key)


# ---------------------------------------------------------------- initramfs

class Cpio:
    """newc archive; device nodes need no privileges here."""

    def __init__(self):
        self.parts, self.ino = [], 0

    def add(self, name, mode, data=b"", rdev=(0, 0)):
        self.ino += 1
        raw = name.encode() + b"\0"
        head = b"070701" + b"".join(b"%08X" % v for v in (
            self.ino, mode, 0, 0, 1, EPOCH, len(data), 0, 0, rdev[0], rdev[1], len(raw), 0))
        self.parts += [self.pad(head + raw), self.pad(data)]

    @staticmethod
    def pad(b):
        return b + b"\0" * (-len(b) % 4)

    def bytes(self):
        self.ino = -1
        self.add("TRAILER!!!", 0)
        return b"".join(self.parts)


def cmd_initramfs(args):
    mods = os.path.join(args.cache, "modules")
    cpio = Cpio()
    for d in ("dev", "modules", "root"):
        cpio.add(d, stat.S_IFDIR | 0o755)
    cpio.add("dev/console", stat.S_IFCHR | 0o600, rdev=(5, 1))
    cpio.add("init", stat.S_IFREG | 0o755, open(args.stage1, "rb").read())
    number = 0
    for line in open(os.path.join(mods, "order")):
        stage, name = line.split()
        if stage == "boot":
            cpio.add("modules/%02d-%s.ko" % (number, name), stat.S_IFREG | 0o644,
                     open(os.path.join(mods, name + ".ko"), "rb").read())
            number += 1
    write_if_changed(os.path.join(args.out, "initramfs"), cpio.bytes())


# ---------------------------------------------------------------- root image

def needed_libraries(elf):
    """Absolute paths of everything the loader would map, the loader included."""
    out = run("ldd", elf, stdout=subprocess.PIPE, stderr=subprocess.PIPE).stdout.decode()
    libs = set()
    for line in out.splitlines():
        if "not found" in line:
            fail("%s: %s" % (elf, line.strip()))
        m = re.search(r"=> (/\S+)", line) or re.match(r"\s*(/\S+)", line)
        if m:
            libs.add(m.group(1))
    return libs


ETC = {
    "passwd": "root:x:0:0:root:/root:/sbin/nologin\nhaproxy:x:101:101::/:/sbin/nologin\n"
              "nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n",
    "group": "root:x:0:\ntty:x:5:\nhaproxy:x:101:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "host.conf": "multi on\n",
    "e2fsck.conf": "[options]\nbroken_system_clock = true\n",
}


def cmd_rootfs(args):
    image = os.path.join(args.out, "rootfs")
    stage = os.path.join(args.out, "rootfs.work")
    files = {"usr/sbin/thimbled": args.thimbled}
    libs = needed_libraries(args.thimbled)
    for name in PROGRAMS:
        path = shutil.which(name, path=SBIN)
        if not path:
            if name in OPTIONAL_PROGRAMS:
                continue
            fail("%s is missing" % name, "apt-get install crun conmon e2fsprogs")
        folder = "usr/sbin" if "sbin" in path else "usr/bin"
        files["%s/%s" % (folder, name)] = os.path.realpath(path)
        libs |= needed_libraries(path)
    for extra in ("libgcc_s.so.1",):  # pthread_cancel and backtraces load it by name
        path = "/lib/x86_64-linux-gnu/" + extra
        if os.path.exists(path):
            libs.add(path)
    for lib in libs:
        if lib.startswith("/lib64/"):
            files["usr" + lib] = os.path.realpath(lib)
        else:
            files[LIBDIR + "/" + os.path.basename(lib)] = os.path.realpath(lib)
    for line in open(os.path.join(args.cache, "modules/order")):
        kind, name = line.split()
        if kind != "boot":
            files["usr/lib/modules/%s.ko" % name] = os.path.join(args.cache, "modules", name + ".ko")
    files["usr/lib/modules/order"] = os.path.join(args.cache, "modules/order")
    if os.path.exists("/etc/ssl/certs/ca-certificates.crt"):
        files["etc/ssl/certs/ca-certificates.crt"] = "/etc/ssl/certs/ca-certificates.crt"
    for name in ("protocols", "services"):
        if os.path.exists("/etc/" + name):
            files["etc/" + name] = "/etc/" + name

    h = hashlib.sha256(open(__file__, "rb").read())
    for dest in sorted(files):
        h.update(("%s %s\n" % (dest, sha256_file(files[dest]))).encode())
    key = h.hexdigest()
    if up_to_date(image, key):
        os.utime(image)
        return

    shutil.rmtree(stage, ignore_errors=True)
    for d in ("dev", "proc", "sys", "run", "tmp", "root", "mnt", "srv", "opt", "home", "data",
              "etc/thimble", "var/lib/thimble", "var/log", "var/tmp", "usr/bin", "usr/sbin",
              "usr/lib", "usr/lib64", LIBDIR):
        os.makedirs(os.path.join(stage, d), mode=0o755, exist_ok=True)
    for link, to in (("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"),
                     ("lib64", "usr/lib64"), ("var/run", "../run"), ("etc/mtab", "../proc/self/mounts"),
                     ("etc/resolv.conf", "../run/resolv.conf"), ("etc/machine-id", "../run/machine-id"),
                     ("etc/hostname", "../run/hostname"), ("usr/sbin/init", "thimbled")):
        os.symlink(to, os.path.join(stage, link))
    for dest, src in files.items():
        path = os.path.join(stage, dest)
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        shutil.copyfile(src, path)
        program = dest.startswith(("usr/bin/", "usr/sbin/", "usr/lib64/"))
        if program or ".so" in dest:
            os.chmod(path, 0o755)
            # Debug information is of no use inside; symbols of shared libraries stay.
            if dest == "usr/sbin/thimbled":
                run("strip", "--strip-debug", "-D", path)
        else:
            os.chmod(path, 0o644)
    for name, text in ETC.items():
        with open(os.path.join(stage, "etc", name), "w") as f:
            f.write(text)
    with open(os.path.join(stage, "usr/lib/os-release"), "w") as f:
        f.write('NAME="Thimble guest"\nID=thimble\nID_LIKE=debian\nVERSION_ID="%s"\n'
                'PRETTY_NAME="Thimble guest %s (Debian 12)"\n' % (args.version, args.version))
    os.symlink("../usr/lib/os-release", os.path.join(stage, "etc/os-release"))
    for d, dirs, names in os.walk(stage):  # the umask must not reach the image
        for n in dirs:
            p = os.path.join(d, n)
            if not os.path.islink(p):
                os.chmod(p, 0o1777 if p.endswith(("/tmp", "/var/tmp")) else 0o755)
        for n in names:
            p = os.path.join(d, n)
            if not os.path.islink(p):
                os.chmod(p, stat.S_IMODE(os.stat(p).st_mode) & 0o755 | 0o444)
    os.chmod(stage, 0o755)
    part = image + ".part"
    if os.path.exists(part):
        os.unlink(part)
    run("mkfs.erofs", "-T", str(EPOCH), "-U", UUID, "--all-root", "-x-1", part, stage,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    os.rename(part, image)
    shutil.rmtree(stage)
    set_key(image, key)


# ---------------------------------------------------------------- pack

def cmd_pack(args):
    """Compresses the parts and writes the assembly and table that put them into a program."""
    blob = os.path.join(args.out, "blob")
    os.makedirs(blob, exist_ok=True)
    asm = ["/* generated by vm/guest/image/build.py */", '    .section .rodata.th_guest,"a",@progbits']
    rows, externs = [], []
    for spec in args.part:
        name, path = spec.split("=", 1)
        if not os.path.exists(path):
            fail("%s: no such file" % path)
        digest, size = sha256_file(path), os.path.getsize(path)
        packed = os.path.join(blob, name + ".zst")
        key = "%s %d" % (digest, args.level)
        if not up_to_date(packed, key):
            run("zstd", "-q", "-f", "-%d" % args.level, "--no-progress", "-T0", "-o", packed + ".part", path)
            os.rename(packed + ".part", packed)
            set_key(packed, key)
        sym = "th_guest_" + name.replace("-", "_")
        # The digest makes the assembly change with the part, so that it is assembled again.
        asm += ["/* %s */" % digest, "    .balign 16", "    .globl %s_start, %s_end" % (sym, sym),
                "    .hidden %s_start, %s_end" % (sym, sym), "%s_start:" % sym,
                '    .incbin "%s"' % packed, "%s_end:" % sym]
        externs.append("extern const unsigned char %s_start[], %s_end[];" % (sym, sym))
        rows.append('    {"%s", "%s", %dull, %s_start, %s_end},' % (name, digest, size, sym, sym))
    asm += ['    .section .note.GNU-stack,"",@progbits', ""]
    table = ["/* generated by vm/guest/image/build.py */", '#include "vm/launcher/bundle.h"'] + externs
    table += ["static const struct th_guest_part parts[] = {"] + rows + ["};",
              "const struct th_guest_bundle th_guest_bundle_embedded = {parts, %d};" % len(rows), ""]
    write_if_changed(os.path.join(args.out, "guest_blob.S"), "\n".join(asm).encode())
    write_if_changed(os.path.join(args.out, "guest_blob.c"), "\n".join(table).encode())


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("step", choices=["kernel", "initramfs", "rootfs", "pack"])
    p.add_argument("--out", required=True)
    p.add_argument("--cache", help="where the kernel step put its output; default: --out")
    p.add_argument("--stage1")
    p.add_argument("--thimbled")
    p.add_argument("--version", default="0")
    p.add_argument("--part", action="append", default=[])
    p.add_argument("--level", type=int, default=3)
    args = p.parse_args()
    args.out = os.path.abspath(args.out)
    args.cache = os.path.abspath(args.cache or args.out)
    os.makedirs(args.out, exist_ok=True)
    os.umask(0o022)
    {"kernel": cmd_kernel, "initramfs": cmd_initramfs, "rootfs": cmd_rootfs, "pack": cmd_pack}[args.step](args)


if __name__ == "__main__":
    main()
