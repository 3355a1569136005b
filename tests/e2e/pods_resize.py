"""Cases of pods.py: resources of pods that run are changed in place, through the resize subresource."""
import json

from lab import condition, has, same, status_of

SLEEP = ["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.2; done"]
# What a container sees of its own groups: version 2, else version 1.
SHOW = ("cd /sys/fs/cgroup; if [ -f cgroup.controllers ]; then cat memory.max; cut -d' ' -f1 cpu.max; "
        "else cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us; fi")


def amounts(cpu, memory, cpu_limit=None, memory_limit=None):
    return {"requests": {"cpu": cpu, "memory": memory},
            "limits": {"cpu": cpu_limit or cpu, "memory": memory_limit or memory}}


def resize(lab, name, **resources):
    body = {"spec": {"containers": [{"name": n, "resources": r} for n, r in resources.items()]}}
    return lab.kubectl("patch", "pod", name, "--subresource", "resize", "-p", json.dumps(body), check=False)


def settled(lab, name, generation):
    def done(p):
        return p["status"].get("observedGeneration") == generation and \
            not any(c["type"].startswith("PodResize") for c in p["status"]["conditions"]) and \
            condition(p, "Ready")["status"] == "True"
    return lab.until_pod(name, "resized to generation %d" % generation, done)


def in_place(lab):
    lab.pod("resize", restartPolicy="Always", containers=[
        {"name": "stay", "command": SLEEP, "resources": amounts("50m", "20Mi")},
        {"name": "again", "command": SLEEP, "resources": amounts("50m", "20Mi"),
         "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]}])
    yield
    lab.until_ready("resize")
    same(lab.read("resize")["metadata"]["generation"], 1, "generation of a pod that was bound")
    more = amounts("100m", "40Mi")
    same(resize(lab, "resize", stay=more, again=more).returncode, 0)
    p = settled(lab, "resize", 2)
    same({c["observedGeneration"] for c in p["status"]["conditions"]}, {2}, "generations of conditions")
    for name, restarts in (("stay", 0), ("again", 1)):
        c = status_of(p, name)
        same((c["resources"], c["allocatedResources"], c["restartCount"]), (more, more["requests"], restarts), name)
        same(lab.sh("resize", SHOW, "-c", name).split(), [str(40 << 20), "10000"], "limits of " + name)
    for reason in ("ResizeStarted", "ResizeCompleted"):
        text = lab.until_event("resize", reason)[2]
        same(json.loads(text.split(": ", 1)[1])["generation"], 2)
    lab.until_event("resize", "Killing", "Container again resize requires restart")
    # CPU alone restarts nothing, and less is taken as well as more
    less = amounts("20m", "40Mi")
    same(resize(lab, "resize", again=less).returncode, 0)
    p = settled(lab, "resize", 3)
    same(status_of(p, "again")["restartCount"], 1)
    same(lab.sh("resize", SHOW, "-c", "again").split(), [str(40 << 20), "2000"])


def cannot_yet(lab):
    """What does not fit beside the other pods is refused, or waits and says so; a limit below what is used is refused."""
    node = lab.must("GET", "/api/v1/nodes")["items"][0]
    cpus = int(node["status"]["allocatable"]["cpu"])
    lab.pod("waits", containers=[{"command": SLEEP, "resources": {"requests": {"cpu": "10m"}}}])
    lab.pod("uses", containers=[{"command": ["sh", "-c", "dd if=/dev/zero of=/dev/shm/f bs=1M count=30; exec sleep 1000"],
                                 "resources": {"limits": {"memory": "100Mi"}, "requests": {"memory": "10Mi"}}}])
    lab.pod("toobig", nodeName=node["metadata"]["name"], containers=[
        {"command": SLEEP, "resources": {"requests": {"cpu": str(cpus + 1)}}}])
    lab.pod("port", containers=[{"command": SLEEP, "ports": [{"containerPort": 80, "hostPort": 54999}]}])
    yield
    lab.until_ready("port")
    lab.pod("port2", nodeName=node["metadata"]["name"], containers=[
        {"command": SLEEP, "ports": [{"containerPort": 80, "hostPort": 54999, "hostIP": "127.0.0.1"}]}])
    p = lab.until_phase("port2", "Failed")
    same((p["status"]["reason"], p["status"]["message"]), ("NodePorts", "Pod was rejected: Predicate NodePorts failed: "
         "node(s) didn't have free ports for the requested pod ports"))
    p = lab.until_phase("toobig", "Failed")
    same(p["status"]["reason"], "OutOfcpu")
    has(p["status"]["message"], "Pod was rejected: Node didn't have enough resource: cpu, requested: %d," %
        (cpus * 1000 + 1000))
    lab.until_ready("waits")
    same(resize(lab, "waits", main={"requests": {"cpu": "%dm" % (cpus * 1000 - 1)}}).returncode, 0)
    p = lab.until_pod("waits", "PodResizePending", lambda p: condition(p, "PodResizePending")["status"] == "True")
    c = condition(p, "PodResizePending")
    same((c["reason"], c["observedGeneration"]), ("Deferred", 2))
    has(c["message"], "Node didn't have enough resource: cpu, requested: %d," % (cpus * 1000 - 1))
    same(status_of(p)["allocatedResources"], {"cpu": "10m"})
    same(resize(lab, "waits", main={"requests": {"cpu": "11m"}}).returncode, 0)
    same(status_of(settled(lab, "waits", 3))["allocatedResources"], {"cpu": "11m"})

    lab.until_ready("uses")
    lab.until("30 MiB used", lambda: lab.sh("uses", "wc -c </dev/shm/f").strip() == str(30 << 20))
    same(resize(lab, "uses", main={"limits": {"memory": "20Mi"}, "requests": {"memory": "10Mi"}}).returncode, 0)
    p = lab.until_pod("uses", "an error", lambda p: condition(p, "PodResizeInProgress").get("reason") == "Error")
    has(condition(p, "PodResizeInProgress")["message"], 'attempting to set container "main" memory limit (20971520) below')
    same(status_of(p)["resources"]["limits"]["memory"], "100Mi")
    lab.sh("uses", "rm /dev/shm/f")
    same(status_of(settled(lab, "uses", 2))["resources"]["limits"]["memory"], "20Mi")


CASES = [in_place, cannot_yet]
