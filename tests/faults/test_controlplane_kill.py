#!/usr/bin/env python3
"""The control plane is killed with SIGKILL while clients write. Every write that was acknowledged must
be there after the restart, deletions included, with the same resourceVersion, and resourceVersions
must never be given out twice or go back. TH_FAULT_SEED repeats a run's moments."""
import http.client
import os
import random
import signal
import subprocess
import sys
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "api")]
from client import Admin, call, config_map  # noqa: E402
from cluster import Cluster  # noqa: E402

BASE = "/api/v1/namespaces/default/configmaps"
ROUNDS = int(os.environ.get("TH_FAULT_ROUNDS", "5"))
WRITERS = 4


class Writer(threading.Thread):
    """Creates; updates one in three of what it created and deletes one in five, so that all three
    kinds of write are in flight when the kill comes. Remembers only what was answered."""

    def __init__(self, admin, prefix, started):
        super().__init__()
        self.admin, self.prefix, self.started = admin, prefix, started
        self.there = {}      # name -> object as acknowledged
        self.gone = set()    # names whose deletion was acknowledged
        self.unknown = set()  # names with a write that was sent and not answered
        self.refused = []
        self.top = 0

    def run(self):
        name = None
        conn = self.admin.connect()
        try:
            i = 0
            while True:
                name = "%s-%d" % (self.prefix, i)
                self.write(conn, "POST", BASE, name, config_map(name))
                if i % 3 == 0:
                    body = dict(self.there[name], data={"value": "second"})
                    self.write(conn, "PUT", BASE + "/" + name, name, body)
                if i % 5 == 0:
                    self.write(conn, "DELETE", BASE + "/" + name, name, None)
                i += 1
        except (OSError, http.client.HTTPException, ValueError):
            self.unknown.add(name)  # the kill; the server may or may not have done it
        finally:
            conn.close()

    def write(self, conn, method, path, name, body):
        status, obj = call(conn, method, path, body)
        if status not in (200, 201):
            self.refused.append((method, name, status, obj))
            raise ValueError("refused")
        if method == "DELETE":
            self.there.pop(name)
            self.gone.add(name)
        else:
            self.there[name] = obj
            self.top = max(self.top, int(obj["metadata"]["resourceVersion"]))
        self.started.set()


class Kill(unittest.TestCase):
    def test_acknowledged_writes_survive(self):
        seed = int(os.environ.get("TH_FAULT_SEED", str(random.randrange(1 << 30))))
        print("seed %d" % seed, file=sys.stderr)
        rnd = random.Random(seed)
        cluster = Cluster("disk")
        self.addCleanup(cluster.close)
        there, gone, unknown, seen = {}, set(), set(), {}
        top = 0
        for round_no in range(ROUNDS):
            admin = Admin(cluster.kubeconfig)
            started = threading.Event()
            writers = [Writer(admin, "r%d-w%d" % (round_no, i), started) for i in range(WRITERS)]
            for w in writers:
                w.start()
            self.assertTrue(started.wait(30), "nothing was written")
            time.sleep(rnd.uniform(0, 0.8))  # the random moment itself, not a wait for something
            self.assertEqual(cluster.kill(signal.SIGKILL), -signal.SIGKILL)
            for w in writers:
                w.join(60)
                self.assertFalse(w.is_alive())
                self.assertEqual(w.refused, [])
                there.update(w.there)
                gone |= w.gone
                unknown |= w.unknown
                top = max(top, w.top)
            cluster.start()

            conn = Admin(cluster.kubeconfig).connect()
            status, found = call(conn, "GET", BASE)
            self.assertEqual(status, 200, found)
            self.assertGreaterEqual(int(found["metadata"]["resourceVersion"]), top)
            top = int(found["metadata"]["resourceVersion"])
            have = {o["metadata"]["name"]: o for o in found["items"]}
            for name, obj in there.items():
                if name in unknown:
                    continue
                self.assertIn(name, have, "round %d: an acknowledged write is lost" % round_no)
                for part in ("uid", "resourceVersion"):
                    self.assertEqual(have[name]["metadata"][part], obj["metadata"][part], name)
                self.assertEqual(have[name]["data"], obj["data"], name)
            for name in gone - unknown:
                self.assertNotIn(name, have, "round %d: a deleted object is back" % round_no)
            # What was in flight is there whole or not at all, and stays as first seen.
            for name in unknown:
                now = have.get(name, {}).get("metadata", {}).get("resourceVersion")
                self.assertEqual(seen.setdefault(name, now), now, name)
            versions = [o["metadata"]["resourceVersion"] for o in have.values()]
            self.assertEqual(len(versions), len(set(versions)), "a resourceVersion was used twice")
            status, obj = call(conn, "POST", BASE, config_map("after-%d" % round_no))
            self.assertEqual(status, 201, obj)
            self.assertGreater(int(obj["metadata"]["resourceVersion"]), top)
            top = int(obj["metadata"]["resourceVersion"])
            there[obj["metadata"]["name"]] = obj
            conn.close()
            print("round %d: %d there, %d deleted, %d unanswered, resourceVersion %d"
                  % (round_no, len(there), len(gone), len(unknown), top), file=sys.stderr)


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
