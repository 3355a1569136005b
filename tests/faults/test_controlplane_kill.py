#!/usr/bin/env python3
"""The control plane is killed with SIGKILL while clients write. Every write that was acknowledged must
be there after the restart, deletions included, with the same resourceVersion, and resourceVersions
must never be given out twice or go back. TH_FAULT_SEED repeats a run's moments."""
import os
import signal
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "api")]
from client import Admin, call, config_map  # noqa: E402
from cluster import Cluster  # noqa: E402
from ledger import BASE, Ledger  # noqa: E402

ROUNDS = int(os.environ.get("TH_FAULT_ROUNDS", "5"))


class Kill(unittest.TestCase):
    def test_acknowledged_writes_survive(self):
        cluster = Cluster("disk")
        self.addCleanup(cluster.close)
        ledger = Ledger(self)
        for _ in range(ROUNDS):
            ledger.write_until(lambda: Admin(cluster.kubeconfig),
                               lambda: self.assertEqual(cluster.kill(signal.SIGKILL), -signal.SIGKILL))
            cluster.start()
            ledger.verify(Admin(cluster.kubeconfig))


class FullDisk(unittest.TestCase):
    """The data folder on a tmpfs of a few MiB, filled by somebody else."""

    def setUp(self):
        if os.geteuid() != 0:
            self.skipTest("only root can mount the small tmpfs")
        self.cluster = Cluster("disk")
        self.addCleanup(self.cleanup)
        self.mounted = False
        self.assertEqual(self.cluster.kill(), 0)
        p = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "th-full", self.cluster.dir],
                           capture_output=True, text=True)
        if p.returncode != 0:
            self.cluster.start()
            self.skipTest("no tmpfs may be mounted here: " + p.stderr.strip())
        self.mounted = True
        self.cluster.start()

    def cleanup(self):
        try:
            if self.cluster.proc.poll() is None:
                self.assertEqual(self.cluster.kill(), 0)
        finally:
            if self.mounted:
                subprocess.run(["umount", self.cluster.dir], check=True)
            subprocess.run(["rm", "-rf", self.cluster.dir], check=True)

    def test_full_disk(self):
        conn = Admin(self.cluster.kubeconfig).connect()
        there = {}
        status, obj = call(conn, "POST", BASE, config_map("first"))
        self.assertEqual(status, 201, obj)
        there["first"] = obj

        ballast = os.path.join(self.cluster.dir, "ballast")
        try:
            with open(ballast, "wb", buffering=0) as f:
                while True:
                    f.write(b"\0" * 4096)
        except OSError:
            pass  # full, which is what was wanted

        refused = None
        for i in range(400):
            name = "fill-%d" % i
            status, obj = call(conn, "POST", BASE, config_map(name, 16384))
            if status != 201:
                refused = (name, status, obj)
                break
            there[name] = obj
        self.assertIsNotNone(refused, "the disk was full and every write was acknowledged")
        name, status, obj = refused
        self.assertEqual(status, 507, obj)
        self.assertEqual(obj["kind"], "Status")
        self.assertEqual(obj["status"], "Failure")
        self.assertEqual(obj["reason"], "InsufficientStorage", obj)
        self.assertTrue(obj["message"], obj)
        self.assertEqual(obj["code"], 507)
        print("full: %d %s: %s" % (status, obj["reason"], obj["message"]), file=sys.stderr)

        # Refused means not there; everything acknowledged is still read.
        self.assertEqual(call(conn, "GET", BASE + "/" + name)[0], 404)
        self.check(conn, there)
        self.assertEqual(call(conn, "GET", "/api/v1")[0], 200)

        os.unlink(ballast)
        status, obj = call(conn, "POST", BASE, config_map(name, 16384))
        self.assertEqual(status, 201, obj)
        there[name] = obj
        status, obj = call(conn, "DELETE", BASE + "/first")
        self.assertEqual(status, 200, obj)
        del there["first"]
        self.check(conn, there)
        conn.close()

        self.assertEqual(self.cluster.kill(signal.SIGKILL), -signal.SIGKILL)
        self.cluster.start()
        conn = Admin(self.cluster.kubeconfig).connect()
        self.check(conn, there)
        conn.close()

    def check(self, conn, there):
        status, found = call(conn, "GET", BASE)
        self.assertEqual(status, 200, found)
        have = {o["metadata"]["name"]: o["metadata"]["resourceVersion"] for o in found["items"]}
        have.pop("kube-root-ca.crt", None)
        self.assertEqual(have, {n: o["metadata"]["resourceVersion"] for n, o in there.items()})


if __name__ == "__main__":
    unittest.main()
