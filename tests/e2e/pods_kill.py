#!/usr/bin/env python3
"""kill -9 of the node agent, again and again, while pods run, start, crash and end: pods_kill.py THIMBLE

Containers go on (same id, same counters, no line of their log lost), nothing is started twice (each
start of a container writes a line to a file on the host: as many lines as its restartCount says), what
was being created comes up, what was being deleted goes, and nothing is left behind: no container, no
mount, no process. Then the machine is restarted: each container starts once more and counts it once,
and finds its volume as it left it.
Host driver only: the agent is found as a child of the supervisor in init.pid."""
import os
import random
import shutil
import signal
import sys
import time

import pods_storage
from lab import Failure, Lab, has, same, state_of, status_of

SEED = int(os.environ.get("TH_SEED", "0")) or random.randrange(1 << 30)
KILLS = 6


class Agent:
    def __init__(self, lab):
        with open("%s/thimble/%s/init.pid" % (lab.env["XDG_STATE_HOME"], lab.profile)) as f:
            self.init = int(f.read().split()[0])

    def children(self, of):
        out = []
        for p in os.listdir("/proc"):
            if p.isdigit():
                try:
                    with open("/proc/%s/stat" % p) as f:
                        if int(f.read().rsplit(")", 1)[1].split()[1]) == of:
                            out.append(int(p))
                except OSError:
                    pass
        return out

    def pid(self):
        for c in self.children(self.init):
            try:
                with open("/proc/%d/cmdline" % c, "rb") as f:
                    if f.read().replace(b"\0", b" ").startswith(b"thimbled node "):
                        return c
            except OSError:
                pass
        return None

    def kill(self, lab):
        old = lab.until("an agent", self.pid, 30)
        os.kill(old, signal.SIGKILL)
        return old

    def processes(self, text):
        """Processes of the cluster whose command line has text."""
        todo, found = [self.init], []
        while todo:
            c = todo.pop()
            todo += self.children(c)
            try:
                with open("/proc/%d/cmdline" % c, "rb") as f:
                    if text.encode() in f.read().replace(b"\0", b" "):
                        found.append(c)
            except OSError:
                pass
        return found


def mark(name, then):
    """A container's command: one line per start in /marks/<name>, then the rest."""
    return ["sh", "-c", "echo start >>/marks/%s; %s # marked-%s" % (name, then, name)]


COUNT = "i=0; trap 'exit 0' TERM; while true; do i=$((i+1)); echo n $i; sleep 0.2; done"


def pod(lab, name, *containers, **spec):
    marks = {"name": "marks", "hostPath": {"path": lab.dir + "/marks"}}
    for c in list(containers) + spec.get("initContainers", []):
        c.setdefault("volumeMounts", []).append({"name": "marks", "mountPath": "/marks"})
    lab.pod(name, containers=list(containers), volumes=[marks], **spec)


def starts(lab, name):
    try:
        with open("%s/marks/%s" % (lab.dir, name)) as f:
            return f.read().count("start\n")
    except FileNotFoundError:
        return 0


def restart_machine(lab):
    """The cluster is stopped and started: every container starts once more, and counts it once."""
    names = {"steady": {"main": "steady"}, "two": {"a": "two-a", "b": "two-b"},
             "probed": {"main": "probed", "side": "probed-side"}}
    before = {n: lab.read(n) for n in names}
    kept = pods_storage.before_stop(lab)
    lab.t("stop")
    lab.t("start", *lab.options)
    pods_storage.is_kept(lab, kept)
    for n, containers in names.items():
        p = lab.until_pod(n, "ready again", lambda p, n=n: all(
            (status_of(p, c) or {}).get("restartCount", 0) > 0 and status_of(p, c)["ready"] for c in names[n]))
        for c, m in containers.items():
            lab.until("the second start of " + m, lambda m=m: starts(lab, m) >= 2, 10)
            same((status_of(p, c)["restartCount"], starts(lab, m)), (1, 2), "%s after a restart of the machine" % m)
            same(status_of(p, c)["lastState"]["terminated"]["containerID"], status_of(before[n], c)["containerID"], m)
        same(p["status"]["podIP"], before[n]["status"]["podIP"], "address of " + n)
        lab.until_event(n, "SandboxChanged")
    p = lab.until_pod("crash", "crashed after the restart", lambda p: status_of(p)["restartCount"] >= 3)
    p = lab.until_pod("crash", "between two runs", lambda p: state_of(p)[0] == "waiting")
    same(starts(lab, "crash"), status_of(p)["restartCount"] + 1, "starts of crash after the restart")


def run(lab):
    rnd = random.Random(SEED)
    agent = Agent(lab)
    os.mkdir(lab.dir + "/marks")
    pod(lab, "steady", {"command": mark("steady", COUNT)})
    pod(lab, "two", {"name": "a", "command": mark("two-a", COUNT)}, {"name": "b", "command": mark("two-b", COUNT)},
        shareProcessNamespace=True)
    pod(lab, "probed", {"command": mark("probed", COUNT), "readinessProbe": {"exec": {"command": ["true"]}},
                        "livenessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1}},
        initContainers=[{"name": "side", "restartPolicy": "Always", "command": mark("probed-side", COUNT)},
                        {"name": "init", "command": mark("probed-init", "true")}])
    pod(lab, "crash", {"command": mark("crash", "sleep 1; exit 3")})
    pod(lab, "slowend", {"command": mark("slowend", "trap 'sleep 6; exit 5' TERM; while true; do sleep 0.1; done")},
        terminationGracePeriodSeconds=30)
    before = {n: lab.until_ready(n) for n in ("steady", "two", "probed")}
    lab.until_phase("slowend", "Running")
    lab.delete("slowend")
    for k in range(KILLS):
        for i in range(3):
            pod(lab, "new%d-%d" % (k, i), {"command": mark("new%d-%d" % (k, i), COUNT)}, shareProcessNamespace=i == 2)
        if k > 0:
            lab.delete("new%d-0" % (k - 1))
        time.sleep(rnd.uniform(0, 0.7))
        old = agent.kill(lab)
        lab.until("a new agent", lambda old=old: agent.pid() not in (None, old), 30)
    for n, p in before.items():
        now = lab.read(n)
        for c in p["status"]["containerStatuses"] + p["status"].get("initContainerStatuses", []):
            mine = status_of(now, c["name"])
            same((mine["containerID"], mine["restartCount"]), (c["containerID"], 0), n)
            if c["name"] != "init":
                same(state_of(now, c["name"])[1]["startedAt"], state_of(p, c["name"])[1]["startedAt"], n)
    ready = [h for h in lab.history("probed") if h["metadata"]["resourceVersion"] >
             before["probed"]["metadata"]["resourceVersion"]]
    same([1 for h in ready if not status_of(h)["ready"]], [], "probed was unready")
    for mark_name in ("steady", "two-a", "two-b", "probed", "probed-side", "probed-init"):
        same(starts(lab, mark_name), 1, "starts of " + mark_name)
    n = [int(l.split()[1]) for l in lab.logs("steady").splitlines()]
    same(n, list(range(1, len(n) + 1)), "the log of steady")
    for k in range(KILLS):
        for i in range(3):
            name = "new%d-%d" % (k, i)
            if i > 0 or k == KILLS - 1:
                p = lab.until_ready(name)
                same(status_of(p)["restartCount"], 0, name)
                same(starts(lab, name), 1, "starts of " + name)
                # (one process, but for the moment between the shell's fork and exec)
                lab.until("one process of " + name, lambda: len(agent.processes("marked-%s" % name)) == 1, 5)
            else:
                lab.until_gone(name)
                same(starts(lab, name) <= 1, True, "starts of " + name)
                same(agent.processes("marked-%s" % name), [], name)
    p = lab.until_gone("slowend")
    same(state_of(p)[1]["exitCode"], 5)
    p = lab.until_pod("crash", "crashed again", lambda p: status_of(p)["restartCount"] >= 2 and
                      state_of(p)[0] == "waiting")
    same(starts(lab, "crash"), status_of(p)["restartCount"] + 1, "starts of crash")
    same(status_of(p)["lastState"]["terminated"]["exitCode"], 3)
    restart_machine(lab)
    agent = Agent(lab)
    for n in sorted(lab.pods):
        if not lab.history(n)[-1].get("gone"):
            lab.delete(n, 0 if n == "crash" else None)
    for n in sorted(lab.pods):
        lab.until_gone(n)
    state = "%s/thimble/%s/run" % (lab.env["XDG_STATE_HOME"], lab.profile)
    inside = "/proc/%d/root%s" % (agent.init, state)

    def left():
        rest = []
        for d in ("crun", "exits", "ns", "attach"):
            if os.path.isdir(inside + "/" + d):
                rest += [d + "/" + x for x in os.listdir(inside + "/" + d)]
        return rest + ["process %d" % x for x in agent.processes("conmon") + agent.processes("/pause")]
    try:
        lab.until("nothing left behind", lambda: not left(), 15)
    except Failure as e:
        raise Failure("%s: %s" % (e, left())) from None
    with open("/proc/%d/mounts" % agent.init) as f:
        same([l for l in f if "/pods/" in l], [], "mounts")


def main(argv):
    if os.geteuid() != 0:
        print("SKIP: the host driver needs root")
        return 77
    if not shutil.which("busybox"):
        print("SKIP: busybox is not installed")
        return 77
    print("TH_SEED=%d" % SEED, flush=True)
    lab = Lab(argv[0], ["--driver", "host"], float(os.environ.get("TH_PATIENCE", "1")))
    failed = True
    try:
        lab.start()
        lab.build_box()
        run(lab)
        failed = False
        print("ok: %d kills" % KILLS)
    finally:
        if failed and os.environ.get("TH_KEEP"):
            print("left running: profile", lab.profile, "in", lab.dir)
        else:
            if failed:
                print(lab.t("console", "-n", "120", check=False)[-12000:])
            lab.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
