#!/usr/bin/env python3
"""Runs Kubernetes' own end-to-end suite against Thimble, and keeps docs/conformance.md.

    suite.py run [options] [REGEX…]    runs the conformance tests whose names match any REGEX
    suite.py page                      writes docs/conformance.md again from results.tsv

The suite is upstream's e2e.test, built from Go's module proxy at the version in images.py (the module
k8s.io/kubernetes with its staging modules at their tag), and ginkgo's own command for running it in
several processes. It meets a cluster of the host driver: real pods, so root is needed; images.py makes
the images. --kubeconfig takes a cluster that is there instead and leaves it alone.

Tests marked [Serial] run one by one after all others. What a run saw goes into results.tsv (a line a
test: name, release, result, date, our own test of the same behaviour) unless --no-record is given;
names and releases are upstream's own list, so a test that upstream adds shows up as not run. --all
also takes tests that are not conformance; they are run and shown, never recorded.

This is not part of tests/run: it takes an hour, some gigabytes, and modules that must be fetched."""
import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import images

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = images.ROOT
RESULTS = HERE + "/results.tsv"
PAGE = ROOT + "/docs/conformance.md"
COLUMNS = ("name", "release", "result", "date", "own")
STATES = {"passed": "pass", "failed": "fail", "panicked": "fail", "timedout": "fail", "interrupted": "fail",
          "aborted": "fail"}


# ---- programs ----

def build(work):
    """e2e.test and ginkgo; returns their paths and upstream's list of conformance tests."""
    go = images.go_command()
    bin_dir = work + "/bin/" + images.KUBE
    os.makedirs(bin_dir, exist_ok=True)
    kube = images.kube_module(go, work)
    env = dict(os.environ, GOFLAGS="-mod=mod")
    e2e, ginkgo = bin_dir + "/e2e.test", bin_dir + "/ginkgo"
    if not os.path.exists(ginkgo):
        images.run(go, "build", "-ldflags=-s -w", "-o", ginkgo, "github.com/onsi/ginkgo/v2/ginkgo", cwd=kube, env=env)
    if not os.path.exists(e2e):
        print("building e2e.test: some minutes", flush=True)
        images.run(go, "test", "-c", "-vet=off", "-ldflags=-s -w", "-o", e2e, "k8s.io/kubernetes/test/e2e", cwd=kube,
                   env=env)
    src = images.module_dir(go, "k8s.io/kubernetes", images.KUBE, kube)
    return e2e, ginkgo, conformance_list(src + "/test/conformance/testdata/conformance.yaml")


def conformance_list(path):
    """Name -> release. The file is a list of flat maps with folded strings; no YAML reader is needed."""
    rows, name = {}, None
    with open(path) as f:
        text = re.sub(r"\n {4,}", " ", f.read())  # unfold
    for line in text.split("\n"):
        key, _, value = line.lstrip("- ").partition(": ")
        if key == "codename":
            name = value.strip()
            if name[:1] == "'":
                name = name[1:-1].replace("''", "'")
            elif name[:1] == '"':
                name = json.loads(name)
        elif key == "release":
            rows[name] = value.strip().replace(", ", " ")
    return rows


# ---- results ----

def read_results():
    rows = {}
    if os.path.exists(RESULTS):
        with open(RESULTS) as f:
            for line in f.read().splitlines()[1:]:
                row = dict(zip(COLUMNS, line.split("\t")))
                rows[row["name"]] = row
    return rows


def write_results(rows):
    with open(RESULTS, "w") as f:
        f.write("\t".join(COLUMNS) + "\n")
        for name in sorted(rows):
            f.write("\t".join(rows[name].get(c) or "-" for c in COLUMNS) + "\n")


def record(listed, seen):
    old, today = read_results(), datetime.date.today().isoformat()
    rows = {}
    for name, release in listed.items():
        row = old.get(name, {"name": name, "result": "-", "date": "-", "own": "-"})
        row["release"] = release
        if name in seen:
            row["result"], row["date"] = seen[name], today
        rows[name] = row
    write_results(rows)


def write_page():
    rows = read_results()
    groups = {}
    for row in rows.values():
        sig, _, rest = row["name"].partition("] ")
        groups.setdefault(sig[1:], []).append((rest.replace(" [Conformance]", ""), row))
    passed = sum(r["result"] == "pass" for r in rows.values())
    with open(PAGE, "w") as f:
        f.write("# Conformance\n\n"
                "Kubernetes' own conformance tests (%s) against Thimble: %d of %d pass. Written by\n"
                "`tests/conformance/suite.py`, whose head says how it runs; do not edit.\n\n"
                "Conditions: upstream's unchanged e2e.test; one cluster of the host driver on Linux, real pods in crun;\n"
                "images of the same names built from upstream's Go modules and Debian's packages\n"
                "(`tests/conformance/images.py`). Own test: what checks the same behaviour at every change.\n"
                % (images.KUBE, passed, len(rows)))
        for sig in sorted(groups):
            ok = sum(r["result"] == "pass" for _, r in groups[sig])
            f.write("\n## %s: %d of %d\n\n| Test | Since | Result | Date | Own test |\n| --- | --- | --- | --- | --- |\n"
                    % (sig, ok, len(groups[sig])))
            for rest, row in sorted(groups[sig], key=lambda g: g[0]):
                result = {"pass": "passes", "fail": "**fails**"}.get(row["result"], "not run")
                f.write("| %s | %s | %s | %s | %s |\n" % (rest.replace("|", "\\|"), row["release"], result, row["date"],
                                                          row["own"]))


# ---- a cluster ----

class Cluster:
    """A cluster of the host driver in folders of its own."""

    def __init__(self, thimble, work):
        self.thimble, self.dir, self.profile = thimble, tempfile.mkdtemp(prefix="thc."), "conf%d" % os.getpid()
        self.kubeconfig = self.dir + "/kubeconfig"
        self.env = dict(os.environ, XDG_DATA_HOME=self.dir + "/data", XDG_STATE_HOME=self.dir + "/state",
                        XDG_CACHE_HOME=work + "/cache", KUBECONFIG=self.kubeconfig)
        self.call("start", "--driver", "host")

    def call(self, *args):
        images.run(self.thimble, *args, "-p", self.profile, env=self.env)

    def load(self, work):
        archive = work + "/images-" + images.KUBE + ".tar"
        if not os.path.exists(archive):
            images.run(sys.executable, HERE + "/images.py", "--work", work + "/images", archive)
        self.call("image", "load", archive)

    def close(self):
        self.call("delete")
        shutil.rmtree(self.dir, ignore_errors=True)


# ---- running ----

def wanted(names, args):
    take = [n for n in names if not args.regex or any(re.search(r, n) for r in args.regex)]
    return [n for n in take if not args.skip or not re.search(args.skip, n)]


def focus(names):
    """What ginkgo matches has the suite's name before the test's."""
    return ["--focus= " + re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", n) + "$" for n in names]


def launch(ginkgo, e2e, kubeconfig, names, procs, args, out):
    report = tempfile.mkdtemp(prefix="report.", dir=out)
    cmd = [ginkgo, "run", "--no-color", "--procs=%d" % procs, "--json-report=report.json", "--output-dir=" + report,
           "--timeout=%s" % args.timeout, "--silence-skips", *focus(names), e2e, "--", "--kubeconfig=" + kubeconfig,
           "--provider=skeleton", "--disable-log-dump", "--kubectl-path=" + kubectl(), "--node-os-distro=debian",
           "--allowed-not-ready-nodes=0", "--report-dir=" + report]
    with open(report + "/log", "w") as log:
        subprocess.run(cmd, stdout=log, stderr=subprocess.STDOUT, cwd=report)
    seen = {}
    if not os.path.exists(report + "/report.json"):
        print("no report: see %s/log" % report)
        return seen
    with open(report + "/report.json") as f:
        suites = json.load(f)
    for spec in [s for suite in suites for s in suite["SpecReports"] or []]:
        name = " ".join([*(spec["ContainerHierarchyTexts"] or []), spec["LeafNodeText"]])
        if spec["LeafNodeType"] == "It" and spec["State"] in STATES:
            seen[name] = STATES[spec["State"]]
            seconds = spec["RunTime"] / 1e9
            print("%s %6.1f s  %s" % (STATES[spec["State"]], seconds, name))
            if "Failure" in spec:
                where = spec["Failure"]["Location"]
                print("      %s\n      at %s:%d" % (spec["Failure"]["Message"].replace("\n", "\n      ")[:1200],
                                                   where["FileName"], where["LineNumber"]))
        elif spec["State"] == "skipped" and spec.get("Failure", {}).get("Message"):
            print("skip            %s: %s" % (name, spec["Failure"]["Message"]))
    print("log: %s/log" % report, flush=True)
    return seen


def kubectl():
    return os.environ.get("TH_KUBECTL") or images.out(ROOT + "/tests/tools/kubectl.sh").strip()


def listed_tests(e2e):
    """Every test in the binary."""
    out = subprocess.run([e2e, "--list-tests"], capture_output=True, text=True).stdout
    return [re.sub(r"^.*?: ", "", line.strip()) for line in out.splitlines() if ": [sig-" in line]


def cmd_run(args):
    work = os.path.abspath(args.work)
    out = tempfile.mkdtemp(prefix="run.", dir=work if os.path.isdir(work) else None)
    e2e, ginkgo, listed = build(work)
    names = wanted(listed_tests(e2e) if args.all else listed, args)
    cluster = None
    kubeconfig = args.kubeconfig
    if not kubeconfig:
        cluster = Cluster(args.thimble, work)
        kubeconfig = cluster.kubeconfig
        cluster.load(work)
    seen = {}
    try:
        at_once = [n for n in names if "[Serial]" not in n]
        alone = [n for n in names if "[Serial]" in n]
        for part, procs in ((at_once, args.procs), (alone, 1)):
            if part:
                seen.update(launch(ginkgo, e2e, os.path.abspath(kubeconfig), part, procs, args, out))
    finally:
        if cluster and not args.keep:
            cluster.close()
    if not args.no_record and not args.all:
        record(listed, seen)
        write_page()
    bad = sorted(n for n in names if seen.get(n) != "pass")
    print("%d of %d pass" % (len(names) - len(bad), len(names)))
    for n in bad:
        print("  %s: %s" % (seen.get(n, "not run"), n))
    return 1 if bad else 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="command", required=True)
    r = sub.add_parser("run")
    r.add_argument("regex", nargs="*")
    r.add_argument("--skip", help="leave out the names that match")
    r.add_argument("--all", action="store_true", help="all of the suite's tests, not conformance alone")
    r.add_argument("--procs", type=int, default=4)
    r.add_argument("--timeout", default="2h")
    r.add_argument("--work", default=ROOT + "/build/conformance")
    r.add_argument("--thimble", default=ROOT + "/build/release/cli/thimble")
    r.add_argument("--kubeconfig")
    r.add_argument("--keep", action="store_true", help="leave the cluster that was started")
    r.add_argument("--no-record", action="store_true")
    sub.add_parser("page")
    args = p.parse_args()
    if args.command == "page":
        write_page()
        return 0
    return cmd_run(args)


if __name__ == "__main__":
    sys.exit(main())
