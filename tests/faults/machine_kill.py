#!/usr/bin/env python3
"""The machine is killed with SIGKILL while clients write: machine_kill.py THIMBLE [options of start].
QEMU in a VM, the supervisor with the host driver; in both, everything inside is gone at that instant, as
when the power fails. After `thimble start` every acknowledged write must be there. State is in folders of
its own and removed at the end; exit status 77 says that the machine lacks what is needed."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE]
from client import Admin  # noqa: E402
from ledger import Ledger  # noqa: E402

ROUNDS = int(os.environ.get("TH_FAULT_ROUNDS", "2"))
PROGRAM, OPTIONS = sys.argv[1], sys.argv[2:]
PROFILE = "kill%d" % os.getpid()


class Machine:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="thk.", dir="/tmp")
        self.kubeconfig = os.path.join(self.dir, "kubeconfig")
        self.env = dict(os.environ, KUBECONFIG=self.kubeconfig, XDG_DATA_HOME=self.dir + "/data",
                        XDG_STATE_HOME=self.dir + "/state")
        self.env["XDG_CACHE_HOME"] = os.environ.get("TH_TEST_CACHE", os.path.join(HERE, "../../build/test-cache"))

    def run(self, *args):
        p = subprocess.run([PROGRAM, *args, "-p", PROFILE], env=self.env, capture_output=True, text=True)
        if p.returncode != 0:
            raise RuntimeError("thimble %s: %s" % (" ".join(args), p.stderr))
        return p.stdout

    def start(self):
        self.run("start", *OPTIONS)

    def pid(self):
        return json.loads(self.run("status", "-o", "json"))["pid"]

    def close(self):
        try:
            self.run("delete")
        finally:
            shutil.rmtree(self.dir)


class Kill(unittest.TestCase):
    def test_acknowledged_writes_survive_the_machine(self):
        machine = Machine()
        self.addCleanup(machine.close)
        machine.start()
        ledger = Ledger(self)
        for _ in range(ROUNDS):
            pid = machine.pid()
            ledger.write_until(lambda: Admin(machine.kubeconfig), lambda: os.kill(pid, signal.SIGKILL))
            machine.start()
            ledger.verify(Admin(machine.kubeconfig))


if __name__ == "__main__":
    if "host" in OPTIONS and os.geteuid() != 0:
        print("SKIP: the host driver needs root")
        sys.exit(77)
    if "host" not in OPTIONS and not shutil.which("qemu-system-x86_64"):
        print("SKIP: qemu-system-x86_64 is not installed")
        sys.exit(77)
    unittest.main(argv=[sys.argv[0], "-v"])
