"""Writers that remember what was acknowledged, and the comparison with what is there after a kill.
Every acknowledged write must be there, deletions included, with the same resourceVersion, and
resourceVersions must never be given out twice or go back. TH_FAULT_SEED repeats a run's moments."""
import http.client
import os
import random
import sys
import threading
import time

from client import call, config_map

BASE = "/api/v1/namespaces/default/configmaps"
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


class Ledger:
    """What all rounds of one test know together."""

    def __init__(self, test):
        self.test = test
        seed = int(os.environ.get("TH_FAULT_SEED", str(random.randrange(1 << 30))))
        print("seed %d" % seed, file=sys.stderr)
        self.rnd = random.Random(seed)
        self.there, self.gone, self.unknown, self.seen = {}, set(), set(), {}
        self.top = 0
        self.round_no = 0

    def write_until(self, admin, kill):
        """Writes, and calls kill() at a random moment below 0.8 s after the first acknowledged write."""
        started = threading.Event()
        client = admin()
        writers = [Writer(client, "r%d-w%d" % (self.round_no, i), started) for i in range(WRITERS)]
        for w in writers:
            w.start()
        self.test.assertTrue(started.wait(30), "nothing was written")
        time.sleep(self.rnd.uniform(0, 0.8))  # the random moment itself, not a wait for something
        kill()
        for w in writers:
            w.join(60)
            self.test.assertFalse(w.is_alive())
            self.test.assertEqual(w.refused, [])
            self.there.update(w.there)
            self.gone |= w.gone
            self.unknown |= w.unknown
            self.top = max(self.top, w.top)

    def verify(self, admin):
        test, no = self.test, self.round_no
        conn = admin.connect()
        status, found = call(conn, "GET", BASE)
        test.assertEqual(status, 200, found)
        test.assertGreaterEqual(int(found["metadata"]["resourceVersion"]), self.top)
        self.top = int(found["metadata"]["resourceVersion"])
        have = {o["metadata"]["name"]: o for o in found["items"]}
        for name, obj in self.there.items():
            if name in self.unknown:
                continue
            test.assertIn(name, have, "round %d: an acknowledged write is lost" % no)
            for part in ("uid", "resourceVersion"):
                test.assertEqual(have[name]["metadata"][part], obj["metadata"][part], name)
            test.assertEqual(have[name]["data"], obj["data"], name)
        for name in self.gone - self.unknown:
            test.assertNotIn(name, have, "round %d: a deleted object is back" % no)
        # What was in flight is there whole or not at all, and stays as first seen.
        for name in self.unknown:
            now = have.get(name, {}).get("metadata", {}).get("resourceVersion")
            test.assertEqual(self.seen.setdefault(name, now), now, name)
        versions = [o["metadata"]["resourceVersion"] for o in have.values()]
        test.assertEqual(len(versions), len(set(versions)), "a resourceVersion was used twice")
        status, obj = call(conn, "POST", BASE, config_map("after-%d" % no))
        test.assertEqual(status, 201, obj)
        test.assertGreater(int(obj["metadata"]["resourceVersion"]), self.top)
        self.top = int(obj["metadata"]["resourceVersion"])
        self.there[obj["metadata"]["name"]] = obj
        conn.close()
        print("round %d: %d there, %d deleted, %d unanswered, resourceVersion %d"
              % (no, len(self.there), len(self.gone), len(self.unknown), self.top), file=sys.stderr)
        self.round_no += 1
