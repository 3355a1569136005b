"""The API server's figures, each beside its yardstick of the same run. Loads and yardsticks are C programs
(load.c, yardstick.c); GETs come from wrk when it is installed."""
import base64
import glob
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import tempfile
import time

BASE = "/api/v1/namespaces/default/"
median = statistics.median


class Tools:
    def __init__(self, build, folder, row):
        self.load_program = os.path.join(build, "tests/bench/th-bench-load")
        self.yardstick_program = os.path.join(build, "tests/bench/th-bench-yardstick")
        self.folder, self.row = folder, row

    def file(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w") as f:
            f.write(text)
        return path

    def yardstick(self, *args):
        out = subprocess.run([self.yardstick_program, *map(str, args)], check=True, stdout=subprocess.PIPE)
        return json.loads(out.stdout)

    def load_args(self, cluster, kind, **options):
        pki = os.path.join(cluster.dir, "pki")
        host, port = re.match(r"https://(.*):(\d+)", cluster.url).groups()
        options = dict(host=host, port=port, ca=pki + "/ca.crt", cert=pki + "/admin.crt", key=pki + "/admin.key",
                       **options)
        return [self.load_program, kind] + ["%s=%s" % kv for kv in options.items()]

    def load(self, cluster, kind, **options):
        """What the load program tells, and the server's CPU time of a request."""
        before = cpu_s(cluster.proc.pid)
        out = subprocess.run(self.load_args(cluster, kind, **options), check=True, stdout=subprocess.PIPE)
        got = json.loads(out.stdout.splitlines()[-1])
        if "requests" in got:
            got["server_cpu_us"] = (cpu_s(cluster.proc.pid) - before) * 1e6 / got["requests"]
        return got


def cpu_s(pid):
    """Nanoseconds of all threads, which /proc/PID/stat rounds to hundredths of a second."""
    total = 0
    for path in glob.glob("/proc/%d/task/*/schedstat" % pid):
        with open(path) as f:
            total += int(f.read().split()[0])
    return total / 1e9


def wakeups(pid):
    total = 0
    for path in glob.glob("/proc/%d/task/*/status" % pid):
        with open(path) as f:
            total += int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", f.read(), re.M).group(1))
    return total


def rss_mib(pid):
    with open("/proc/%d/status" % pid) as f:
        return int(re.search(r"^VmRSS:\s*(\d+)", f.read(), re.M).group(1)) / 1024


def met(ok):
    return "met" if ok else "MISSED"


def config_map(size):
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "@NAME@"},
                       "data": {"value": "x" * size}})


def pod(size):
    o = {"apiVersion": "v1", "kind": "Pod",
         "metadata": {"name": "@NAME@", "labels": {"app": "bench"}, "annotations": {"fill": ""}},
         "spec": {"containers": [{"name": "c", "image": "registry.example/bench:1",
                                  "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}}]}}
    o["metadata"]["annotations"]["fill"] = "x" * max(0, size)
    return json.dumps(o)


def stored_size(cluster, name):
    return len(cluster.http("GET", BASE + name)[2])


def bench_start(t, cluster_class):
    ready, rss, wakes, cpu = [], [], [], []
    for i in range(3):
        start = time.perf_counter()
        c = cluster_class("disk", ["--controllers", "all"])
        ready.append(time.perf_counter() - start)
        time.sleep(2)  # idle is what is measured
        rss.append(rss_mib(c.proc.pid))
        if i == 0:
            w, s = wakeups(c.proc.pid), cpu_s(c.proc.pid)
            time.sleep(5)
            wakes.append((wakeups(c.proc.pid) - w) / 5)
            cpu.append((cpu_s(c.proc.pid) - s) / 5)
        c.close()
    t.row("start to /readyz, new store, all controllers", "%.0f ms" % (median(ready) * 1e3), "",
          "<= 150 ms: " + met(median(ready) <= 0.15))
    t.row("RSS idle, all controllers", "%.1f MiB" % median(rss), "", "<= 24 MiB: " + met(median(rss) <= 24))
    t.row("CPU idle, all controllers", "%.2f %%" % (cpu[0] * 100), "%.1f wake-ups/s" % wakes[0])


def bench_create(t, c):
    body = t.file("configmap.json", config_map(1024))
    t.load(c, "create", path=BASE + "configmaps", body=body, prefix="warm", clients=1, total=200)
    size = stored_size(c, "configmaps/warm-0")
    one = t.yardstick("sqlite", t.folder, 1, 1000, size)
    trip = t.load(c, "get", path="/livez", clients=1, total=2000)
    got = t.load(c, "create", path=BASE + "configmaps", body=body, prefix="s", clients=1, total=1500)
    again = t.yardstick("sqlite", t.folder, 1, 1000, size)
    floor = (one["p50_us"] + again["p50_us"]) / 2 + trip["p50_us"]
    ratio = got["p50_us"] / floor
    t.row("SQLite, 1 row of %d bytes a commit, p50" % size, "%.0f us" % one["p50_us"],
          "again after the creates: %.0f us" % again["p50_us"])
    t.row("empty TLS round trip (GET /livez), p50", "%.0f us" % trip["p50_us"],
          "server CPU %.0f us" % trip["server_cpu_us"])
    t.row("create, 1 client, p50", "%.0f us" % got["p50_us"],
          "%.2f x (commit + round trip); server CPU %.0f us" % (ratio, got["server_cpu_us"]),
          "<= 1.5 x: " + met(ratio <= 1.5))
    for n in (8, 32):
        limit = t.yardstick("sqlite", t.folder, n, 4000 // n, size)
        got = t.load(c, "create", path=BASE + "configmaps", body=body, prefix="p%d" % n, clients=n, total=6000)
        share = got["per_s"] / limit["rows_per_s"]
        t.row("create, %d clients" % n, "%.0f/s" % got["per_s"],
              "%.2f x SQLite's %.0f rows/s; server CPU %.0f us" % (share, limit["rows_per_s"], got["server_cpu_us"]),
              ">= 0.40 x: " + met(share >= 0.4) if n == 32 else "")


def wrk(url, token, seconds=3):
    out = subprocess.run(["wrk", "-t2", "-c16", "-d%ds" % seconds, "-H", "Authorization: Bearer " + token, url],
                         check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in out:
        raise RuntimeError(out)
    return float(re.search(r"Requests/sec:\s*([\d.]+)", out).group(1)), int(re.search(r"(\d+) requests in", out).group(1))


def bench_get(t, c, token):
    body = t.file("configmap2k.json", config_map(2048 - 500))
    t.load(c, "create", path=BASE + "configmaps", body=body, prefix="g", clients=1, total=1)
    name = "configmaps/g-0"
    size = stored_size(c, name)
    pki = os.path.join(c.dir, "pki")
    mhd = subprocess.Popen([t.yardstick_program, "mhd", pki + "/admin.crt", pki + "/admin.key", str(size)],
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        port = json.loads(mhd.stdout.readline())["port"]
        if shutil.which("wrk"):
            rates, cpus, limits, limit_cpus = [], [], [], []
            for _ in range(3):
                before = cpu_s(mhd.pid)
                rate, n = wrk("https://127.0.0.1:%d/" % port, token)
                limits.append(rate)
                limit_cpus.append((cpu_s(mhd.pid) - before) * 1e6 / n)
                before = cpu_s(c.proc.pid)
                rate, n = wrk(c.url + BASE + name, token)
                rates.append(rate)
                cpus.append((cpu_s(c.proc.pid) - before) * 1e6 / n)
            share, cpu = median(rates) / median(limits), median(cpus)
            t.row("libmicrohttpd's own TLS, constant, wrk", "%.0f/s" % median(limits),
                  "server CPU %.0f us" % median(limit_cpus))
            t.row("GET of %d bytes, wrk, 16 connections" % size, "%.0f/s" % median(rates),
                  "%.2f x the constant; server CPU %.0f us" % (share, cpu),
                  ">= 0.65 x: %s; <= 55 us: %s" % (met(share >= 0.65), met(cpu <= 55)))
        else:
            t.row("GET with wrk", "not measured", "wrk is not installed")
        for n in (1, 16):
            got = t.load(c, "get", path=BASE + name, clients=n, total=8000)
            t.row("GET of %d bytes, client certificate, %d connection%s" % (size, n, "s" * (n > 1)),
                  "%.0f/s" % got["per_s"], "p50 %.0f us; server CPU %.0f us" % (got["p50_us"], got["server_cpu_us"]))
    finally:
        mhd.stdin.close()
        mhd.wait()
    return size


def bench_list(t, c):
    idle = rss_mib(c.proc.pid)
    t.load(c, "create", path=BASE + "pods", body=t.file("small.json", pod(0)), prefix="size", clients=1, total=1)
    fill = 2048 - stored_size(c, "pods/size-0")
    body = t.file("pod.json", pod(fill))
    got = t.load(c, "create", path=BASE + "pods", body=body, prefix="pod", clients=32, total=10000)
    t.row("create of pods of %d bytes, 32 clients" % stored_size(c, "pods/pod-0"), "%.0f/s" % got["per_s"],
          "server CPU %.0f us" % got["server_cpu_us"])
    full = rss_mib(c.proc.pid)
    t.row("RSS of 10,000 pods of 2 KiB, above before", "%.1f MiB" % (full - idle), "%.1f MiB in all" % full,
          "<= 40 MiB: " + met(full - idle <= 40))
    got = t.load(c, "list", path=BASE + "pods", total=9)
    pki = os.path.join(c.dir, "pki")
    limit = t.yardstick("tls", pki + "/admin.crt", pki + "/admin.key", got["body_b"])
    share = got["mb_per_s"] / limit["mb_per_s"]
    t.row("as many bytes through TLS", "%.0f MB/s" % limit["mb_per_s"], "%.1f MB" % (got["body_b"] / 1e6))
    t.row("LIST of 10,000 pods", "%.0f MB/s" % got["mb_per_s"],
          "%.2f x; %.0f ms in all" % (share, got["p50_us"] / 1e3), ">= 0.50 x: " + met(share >= 0.5))
    t.row("LIST, first byte", "%.2f ms" % (got["first_us"] / 1e3), "", "<= 5 ms: " + met(got["first_us"] <= 5000))
    after = rss_mib(c.proc.pid)
    t.row("RSS after the lists, above before them", "%.1f MiB" % (after - full))


def bench_watch(t, c, watchers, rate):
    body = t.file("configmap.json", config_map(1024))
    _, now = c.api("GET", BASE + "configmaps?limit=1")
    rv = now["metadata"]["resourceVersion"]
    before = rss_mib(c.proc.pid)
    args = t.load_args(c, "watch", path=BASE + "configmaps", body=body, prefix="w%d-%d" % (watchers, rate), clients=watchers,
                       total=rate * 5, rate=rate)
    watch_path = "watch_path=%sconfigmaps?watch=1&resourceVersion=%s" % (BASE, rv)
    p = subprocess.Popen(args + [watch_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    p.stdout.readline()
    each = (rss_mib(c.proc.pid) - before) * 1024 / watchers
    cpu = cpu_s(c.proc.pid)
    out, _ = p.communicate(b"\n", timeout=300)
    if p.returncode != 0:
        raise RuntimeError("the watch load failed")
    got = json.loads(out.splitlines()[-1])
    cpu = (cpu_s(c.proc.pid) - cpu) * 1e6 / (got["watchers"] * got["events"])
    t.row("watch, %d watchers, %d writes/s, last watcher" % (watchers, rate), "p99 %.1f ms" % (got["p99_us"] / 1e3),
          "p50 %.1f ms; CPU an event: server %.1f us, client %.1f us; %d of %d writes late" % (
              got["p50_us"] / 1e3, cpu, got["client_cpu_us"], got["late"], got["events"]),
          "< 25 ms: " + met(got["p99_us"] < 25000) if rate == 200 else "")
    if watchers == 1000 and rate == 50:  # the first of so many: the next reuse what these gave back
        t.row("memory of a watcher (TLS connection included)", "%.1f KiB" % each)


def bench_restart(t, c, body):
    have = len(c.api("GET", BASE + "configmaps")[1]["items"]) + len(c.api("GET", BASE + "pods")[1]["items"])
    t.load(c, "create", path=BASE + "configmaps", body=body, prefix="fill", clients=32, total=50000 - have)
    took, peak = [], []
    for _ in range(3):
        c.kill()
        start = time.perf_counter()
        c.start()
        took.append(time.perf_counter() - start)
        peak.append(rss_mib(c.proc.pid))
    t.row("start to /readyz, 50,000 objects", "%.0f ms" % (median(took) * 1e3), "RSS %.1f MiB" % median(peak),
          "<= 1000 ms: " + met(median(took) <= 1))


def bench(build, folder, row, only=None):
    from cluster import BINARY, Cluster
    print("Control plane (%s)" % BINARY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    t = Tools(build, folder, row)
    token = base64.b16encode(os.urandom(8)).decode()
    tokens = t.file("tokens.csv", 'bench-%s,bench,1,"system:masters"\n' % token)
    extra = ["--token-file", tokens, "--disable-admission", "ServiceAccount"]
    want = lambda name: not only or name in only
    if want("start"):
        bench_start(t, Cluster)
    c = Cluster("disk", extra)
    try:
        if want("create"):
            bench_create(t, c)
        if want("get"):
            bench_get(t, c, "bench-" + token)
        if want("watch"):
            for watchers, rate in ((100, 200), (1000, 50), (1000, 200)):
                bench_watch(t, c, watchers, rate)
    finally:
        c.close()
    if want("list") or want("restart"):
        c = Cluster("disk", extra)
        try:
            if want("list"):
                bench_list(t, c)
            if want("restart"):
                bench_restart(t, c, t.file("configmap.json", config_map(1024)))
        finally:
            c.close()
