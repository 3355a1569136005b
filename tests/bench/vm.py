"""The machine's part of tests/bench/run: what boots, how long until something answers, what it holds.
All state goes to folders of its own; the machine is deleted at the end."""
import glob
import json
import os
import shutil
import statistics
import subprocess
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HELLO = os.path.join(ROOT, "docs/examples/hello")
PROFILE = "bench"
READY_S = 30  # a node that is not Ready so long after start is not measured further
median = statistics.median

INIT_C = """
#include <unistd.h>
#include <sys/reboot.h>
int main(void) { reboot(RB_AUTOBOOT); for (;;) { pause(); } }
"""


def trivial_initramfs(folder):
    """A cpio archive with a static init that resets the machine at once (QEMU then ends: -no-reboot)."""
    src, exe, out = (os.path.join(folder, n) for n in ("init.c", "init", "init.cpio"))
    with open(src, "w") as f:
        f.write(INIT_C)
    subprocess.run(["cc", "-static", "-O2", "-s", "-o", exe, src], check=True)
    with open(exe, "rb") as f:
        init = f.read()
    data = b""
    for i, (name, mode, body) in enumerate((("init", 0o100755, init), ("TRAILER!!!", 0, b""))):
        head = (i + 1, mode, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(name) + 1, 0)
        data += b"070701" + b"".join(b"%08x" % n for n in head) + name.encode() + b"\0"
        data += b"\0" * (-len(data) % 4) + body
        data += b"\0" * (-len(data) % 4)
    with open(out, "wb") as f:
        f.write(data)
    return out


def bare_boot(kernel, initramfs, accel, memory, machine="pc"):
    t = time.perf_counter()
    subprocess.run(["qemu-system-x86_64", "-machine", machine, "-accel", accel, "-cpu",
                    "host" if accel == "kvm" else "qemu64", "-m", str(memory), "-smp", "1", "-nodefaults",
                    "-no-user-config", "-display", "none", "-no-reboot", "-serial", "null", "-kernel", kernel,
                    "-initrd", initramfs, "-append", "console=ttyS0 quiet panic=-1"],
                   check=True, timeout=120, capture_output=True)
    return time.perf_counter() - t


class Thimble:
    def __init__(self, path, folder):
        self.path = os.path.abspath(path)
        self.env = dict(os.environ, KUBECONFIG=os.path.join(folder, "kubeconfig"))
        for name in ("DATA", "STATE", "CACHE", "CONFIG"):
            self.env["XDG_%s_HOME" % name] = os.path.join(folder, "xdg", name.lower())
        self.cache = self.env["XDG_CACHE_HOME"]

    def run(self, *args, ok=True):
        p = subprocess.run([self.path, *args, "-p", PROFILE], env=self.env, capture_output=True, text=True,
                           timeout=600)
        if ok and p.returncode != 0:
            raise RuntimeError("thimble %s: %s" % (" ".join(args), (p.stderr or p.stdout).strip()))
        return p.stdout

    def kubectl(self, *args, ok=True):
        tool = os.environ.get("TH_KUBECTL") or shutil.which("kubectl")
        if not tool:
            raise RuntimeError("no kubectl: set TH_KUBECTL")
        p = subprocess.run([tool, *args], env=self.env, capture_output=True, text=True, timeout=60)
        if ok and p.returncode != 0:
            raise RuntimeError("kubectl %s: %s" % (" ".join(args), p.stderr.strip()))
        return p.stdout


def start_to_ready(th, a, template="auto"):
    """(seconds until kubectl shows a Ready node or None, seconds of start, start's own answer)"""
    t = time.perf_counter()
    said = json.loads(th.run("start", "--accel", a.accel, "--kernel", a.kernel, "--template", template, "-o", "json"))
    started = time.perf_counter() - t
    while time.perf_counter() - t < started + READY_S:
        nodes = json.loads(th.kubectl("get", "nodes", "-o", "json", ok=False) or '{"items":[]}')["items"]
        if any(c["type"] == "Ready" and c["status"] == "True" for n in nodes
               for c in n.get("status", {}).get("conditions", [])):
            return time.perf_counter() - t, started, said
        time.sleep(0.05)
    return None, started, said


def guest_memory(th):
    """MemTotal - MemAvailable as the node reports it (stats/summary), in MiB, or None."""
    try:
        node = json.loads(th.kubectl("get", "nodes", "-o", "json"))["items"][0]["metadata"]["name"]
        s = json.loads(th.kubectl("get", "--raw", "/api/v1/nodes/%s/proxy/stats/summary" % node))
        return s["node"]["memory"]["workingSetBytes"] / 2**20
    except (RuntimeError, KeyError, IndexError, ValueError):
        return None


def apply_to_answer(th):
    t = time.perf_counter()
    th.kubectl("apply", "-f", os.path.join(HELLO, "k8s.yaml"))
    url = None
    while time.perf_counter() - t < 120:
        try:
            url = url or th.run("service", "hello-service", "--url").split()[0]
            with urllib.request.urlopen(url, timeout=2) as r:
                if r.status == 200:
                    return time.perf_counter() - t
        except (OSError, RuntimeError, IndexError):
            time.sleep(0.05)
    raise RuntimeError("no answer from hello-service within 120 s")


def answers(th, runs):
    """Seconds of each apply; the pods of one are gone before the next."""
    times = []
    for _ in range(runs):
        times.append(apply_to_answer(th))
        th.kubectl("delete", "-f", os.path.join(HELLO, "k8s.yaml"), "--wait=true")
        while th.kubectl("get", "pods", "-o", "name").strip():
            time.sleep(0.2)
    return times


def attempt(what, row, fn):
    """One part that fails is said, and the others are still measured."""
    try:
        fn()
    except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as e:
        row(what, "not measured", str(e).strip().replace("\n", "; ")[:300])


def host_driver(path, folder, a, row):
    """The same cluster without a machine."""
    print("\nHost driver")
    if os.geteuid() != 0:
        row("host driver", "not measured", "needs root")
        return
    th = Thimble(path, folder)
    try:
        times = []
        for _ in range(a.runs + 1):  # the first unpacks thimbled
            t = time.perf_counter()
            th.run("start", "--driver", "host")
            times.append(time.perf_counter() - t)
            if len(times) <= a.runs:
                th.run("stop")
        row("thimble start returns, second start on", "%.2f s" % median(times[1:]), "first %.2f s" % times[0])
        th.run("image", "build", "-t", "hello:1.0", HELLO)
        times = answers(th, a.runs)
        row("kubectl apply to first 200 of the Service", "%.2f s" % median(times), "first %.2f s" % times[0],
            "<= 1.5 s")
    finally:
        th.run("delete", ok=False)


def bench(path, folder, a, row, rss_mib):
    attempt("host driver", row, lambda: host_driver(path, folder, a, row))
    print("\nMachine (%s)" % path)
    row("size of the thimble file", "%.1f MiB" % (os.path.getsize(path) / 2**20), "", "<= 60 MiB")
    th = Thimble(path, folder)
    try:
        machine(th, folder, a, row, rss_mib)
    finally:
        th.run("delete", ok=False)


def machine(th, folder, a, row, rss_mib):
    state = {}

    def starts():
        took, started, _ = start_to_ready(th, a)  # unpacks the guest, probes QEMU, makes disk and identity
        state["status"] = json.loads(th.run("status", "-o", "json"))
        row("first start ever to Ready", "%.2f s" % took if took else "never",
            "the command returned after %.2f s" % started)
        got, cold = [], []
        for _ in range(a.runs if took else 1):
            th.run("stop")
            cold.append(start_to_ready(th, a, "off"))
            th.run("stop")
            got.append(start_to_ready(th, a))
        if took:
            state["ready"] = median(g[0] for g in got if g[0])
            state["cold"] = median(g[0] for g in cold if g[0])
        state["started"] = median(g[1] for g in got)
        state["hello"] = median(next(s["ms"] for s in g[2]["timings"] if s["step"] == "kernel") / 1e3 for g in cold)
        state["steps"] = got[-1][2]["timings"]
        state["how"] = "restored from a template" if all(g[2]["restored"] for g in got) else "booted"

    attempt("start to Ready", row, starts)
    status = state.get("status")
    if not status or not status.get("running"):
        return
    kernel = glob.glob(os.path.join(th.cache, "thimble/guest/*", "kernel*"))
    print("  kernel %s, %s, %d CPU, %d MiB" % (status["kernel"], status["acceleration"], status["cpus"],
                                             status["memoryMiB"]))

    def idle():
        time.sleep(10)  # idle is what is measured
        rss = rss_mib(json.loads(th.run("status", "-o", "json"))["pid"])
        row("QEMU's RSS, idle, no pods of the user", "%.0f MiB" % rss, "",
            "<= 200 MiB" if status["kernel"] == "small" else "<= 300 MiB")
        mem = guest_memory(th)
        row("guest memory in use, idle", "%.0f MiB" % mem if mem else "not measured",
            "" if mem else "the node gives no stats/summary")

    def image():
        t = time.perf_counter()
        th.run("image", "build", "-t", "hello:1.0", HELLO)
        row("image build of hello, first", "%.1f s" % (time.perf_counter() - t))
        t = time.perf_counter()
        th.run("image", "build", "-t", "hello:1.0", HELLO)
        row("image build of hello, cached", "%.1f s" % (time.perf_counter() - t))

    def answer():
        times = answers(th, a.runs)
        row("kubectl apply to first 200 of the Service", "%.2f s" % median(times), "first %.2f s" % times[0],
            "<= 5 s (TCG)")

    attempt("memory", row, idle)
    attempt("image build", row, image)
    if "ready" in state:
        attempt("apply to first answer", row, answer)
    else:
        row("kubectl apply to first 200 of the Service", "not measured", "no Ready node", "<= 5 s (TCG)")
    th.run("stop", ok=False)

    def bare():
        initramfs = trivial_initramfs(folder)
        accel = "kvm" if status["acceleration"] == "kvm" else "tcg,tb-size=64"
        times = [bare_boot(kernel[0], initramfs, accel, status["memoryMiB"]) for _ in range(a.runs)]
        row("bare boot, same kernel, init resets at once", "%.2f s" % median(times))
        q35 = [bare_boot(kernel[0], initramfs, accel, status["memoryMiB"], "q35,hpet=off") for _ in range(a.runs)]
        row("  the same on Thimble's machine type", "%.2f s" % median(q35))
        if "ready" in state:
            row("start to Ready, second start on", "%.2f s" % state["ready"],
                "%.2f x the bare boot, %s" % (state["ready"] / median(times), state["how"]), "<= 1.6 x")
            row("  booting (--template off)", "%.2f s" % state["cold"],
                "%.2f x the bare boot" % (state["cold"] / median(times)))
        if "started" in state:
            row("thimble start returns, second start on", "%.2f s" % state["started"],
                "%.2f x the bare boot" % (state["started"] / median(times)))
            row("  booting: QEMU running to thimbled's hello", "%.2f s" % state["hello"],
                "%.2f x the bare boot" % (state["hello"] / median(times)))
            print("  last start: " + ", ".join("%s %d ms" % (s["step"], s["ms"]) for s in state["steps"]))

    attempt("bare boot", row, bare)
