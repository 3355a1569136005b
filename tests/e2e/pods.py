#!/usr/bin/env python3
"""What pods do on a node, with real containers: pods.py THIMBLE [-k CASE]... [options of thimble start]

Walks through the life of pods (phases, conditions, events, restarts, probes, hooks, termination), what
containers are given (pods_config.py), what they find in their volumes (pods_storage.py), how what they
may use changes while they run (pods_resize.py) and how clients reach into them (pods_streams.py). The
pods run offline images only. Needs root for the host driver, Go and busybox; says so and exits with 77
without them. TH_KEEP=1 leaves the cluster after a failure and prints how to reach it; TH_PATIENCE
multiplies all limits (a machine under TCG wants 5)."""
import sys
import time

import pods_config
import pods_resize
import pods_storage
import pods_streams
from lab import Failure, condition, has, main, same, state_of, status_of

SLEEP = ["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.2; done"]
STUBBORN = ["sh", "-c", "trap '' TERM; while true; do sleep 0.2; done"]


def reasons(lab, name):
    return [e[1] for e in lab.messages(name)]


# ---- phases, conditions, events ----

def plain(lab):
    lab.pod("plain", containers=[{"command": SLEEP}])
    yield
    p = lab.until_ready("plain")
    first = [h for h in lab.history("plain") if state_of(h)[0] == "waiting"]
    same(state_of(first[-1])[1], {"reason": "ContainerCreating"})
    same(first[-1]["status"]["phase"], "Pending")
    same([c["type"] for c in p["status"]["conditions"]],
         ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"])
    same({c["status"] for c in p["status"]["conditions"]}, {"True"})
    s, c = p["status"], status_of(p)
    same((s["phase"], s["qosClass"], s["podIPs"], s["hostIPs"]),
         ("Running", "BestEffort", [{"ip": s["podIP"]}], [{"ip": s["hostIP"]}]))
    same((c["ready"], c["started"], c["restartCount"], c["image"]), (True, True, 0, "docker.io/library/box:1"))
    has(c["containerID"], "crun://")
    has(c["imageID"], "sha256:")
    lab.until_event("plain", "Started")
    same(reasons(lab, "plain"), ["Scheduled", "Pulled", "Created", "Started"])
    e = lab.messages("plain")
    same(e[1][2:], ('Container image "box:1" already present on machine and can be accessed by the pod', 1,
                    "spec.containers{main}"))
    lab.delete("plain")
    lab.until_gone("plain")
    same(lab.messages("plain")[-1], ("Normal", "Killing", "Stopping container main", 1, "spec.containers{main}"))
    last = lab.history("plain")[-1]
    same((state_of(last)[0], state_of(last)[1]["exitCode"], last["status"]["phase"]), ("terminated", 0, "Succeeded"))
    same(condition(last, "Ready")["reason"], "PodCompleted")


def ends(lab):
    """Never and OnFailure: exit codes, phases, conditions."""
    lab.pod("ends-ok", restartPolicy="Never", containers=[{"command": ["true"]}])
    lab.pod("ends-bad", restartPolicy="Never", containers=[{"command": ["sh", "-c", "exit 3"]}])
    lab.pod("ends-mixed", restartPolicy="Never",
            containers=[{"name": "a", "command": ["true"]}, {"name": "b", "command": ["sh", "-c", "sh -c 'kill -9 $$$$'; exit $?"]}])
    lab.pod("ends-twice", restartPolicy="OnFailure", volumes=[{"name": "v", "emptyDir": {}}], containers=[
        {"command": ["sh", "-c", "[ -e /v/x ] && exit 0; touch /v/x; exit 4"],
         "volumeMounts": [{"name": "v", "mountPath": "/v"}]}])
    yield
    p = lab.until_phase("ends-ok", "Succeeded")
    k, v = state_of(p)
    same((k, v["exitCode"], v["reason"]), ("terminated", 0, "Completed"))
    same((condition(p, "Ready")["status"], condition(p, "Ready")["reason"]), ("False", "PodCompleted"))
    same(condition(p, "Initialized")["status"], "True")
    lab.until_pod("ends-ok", "no sandbox", lambda p: condition(p, "PodReadyToStartContainers")["status"] == "False")
    p = lab.until_phase("ends-bad", "Failed")
    k, v = state_of(p)
    same((k, v["exitCode"], v["reason"]), ("terminated", 3, "Error"))
    same(condition(p, "Ready")["reason"], "PodFailed")
    p = lab.until_phase("ends-mixed", "Failed")
    same(state_of(p, "a")[1]["exitCode"], 0)
    same(state_of(p, "b")[1]["exitCode"], 137)
    p = lab.until_phase("ends-twice", "Succeeded")
    c = status_of(p)
    same((c["restartCount"], c["lastState"]["terminated"]["exitCode"], c["state"]["terminated"]["exitCode"]), (1, 4, 0))


def crash_loop(lab):
    """Back-off: at once, then 10 s, 20 s; counts, texts, events, previous logs."""
    lab.pod("crash", containers=[{"command": ["sh", "-c", "echo run $(date +%s); exit 1"]}])
    yield
    p = lab.until_pod("crash", "CrashLoopBackOff 10s",
                      lambda p: state_of(p)[1].get("reason") == "CrashLoopBackOff" and
                      "back-off 10s" in state_of(p)[1]["message"])
    uid = p["metadata"]["uid"]
    same(state_of(p)[1]["message"],
         "back-off 10s restarting failed container=main pod=crash_default(%s)" % uid)
    c = status_of(p)
    same((c["restartCount"], c["ready"], c["started"]), (1, False, False))
    same((c["lastState"]["terminated"]["exitCode"], c["lastState"]["terminated"]["reason"]), (1, "Error"))
    same(p["status"]["phase"], "Running")
    e = lab.until_event("crash", "BackOff")
    same(e[0], "Warning")
    same(e[2], "Back-off restarting failed container main in pod crash_default(%s)" % uid)
    before = lab.logs("crash", "?previous=true")
    has(before, "run ")
    p = lab.until_pod("crash", "back-off 20s", lambda p: "back-off 20s" in state_of(p)[1].get("message", ""))
    c = status_of(p)
    same(c["restartCount"], 2)
    first, second = int(before.split()[1]), int(lab.logs("crash").split()[1])
    if second - first < 10:
        raise Failure("restarted after %d s" % (second - first))
    lab.delete("crash")


def start_errors(lab):
    lab.pod("nocmd", containers=[{"command": ["/no/such/program"]}])
    lab.pod("badcwd", restartPolicy="Never", containers=[{"command": ["/no/such/program"], "workingDir": "/x"}])
    lab.pod("noimage", containers=[{"image": "box:none", "imagePullPolicy": "Never"}])
    lab.pod("pull", containers=[{"image": "registry.invalid/none:1"}])
    lab.pod("badname", containers=[{"image": "Not//Valid::"}])
    yield
    p = lab.until_pod("nocmd", "a StartError", lambda p: (status_of(p) or {}).get("lastState", {}).get("terminated"))
    t = status_of(p)["lastState"]["terminated"]
    same((t["exitCode"], t["reason"]), (128, "StartError"))
    same(t["startedAt"], "1970-01-01T00:00:00Z")
    has(t["message"], "/no/such/program")
    e = lab.until_event("nocmd", "Failed")
    has(e[2], "Error: ")
    lab.until_pod("nocmd", "CrashLoopBackOff or RunContainerError", lambda p: state_of(p)[1].get("reason") in
                  ("CrashLoopBackOff", "RunContainerError"))
    p = lab.until_phase("badcwd", "Failed")
    same(state_of(p)[1]["exitCode"], 128)
    p = lab.until_pod("noimage", "ErrImageNeverPull", lambda p: state_of(p)[1].get("reason") == "ErrImageNeverPull")
    same(state_of(p)[1]["message"], 'Container image "box:none" is not present with pull policy of Never')
    same(p["status"]["phase"], "Pending")
    same(lab.until_event("noimage", "Failed")[2], "Error: ErrImageNeverPull")
    p = lab.until_pod("pull", "ErrImagePull", lambda p: state_of(p)[1].get("reason") == "ErrImagePull")
    has(state_of(p)[1]["message"], "thimble image build")  # what to do about it
    p = lab.until_pod("pull", "ImagePullBackOff", lambda p: state_of(p)[1].get("reason") == "ImagePullBackOff")
    has(state_of(p)[1]["message"], 'Back-off pulling image "registry.invalid/none:1"')
    same(lab.until_event("pull", "BackOff")[2], 'Back-off pulling image "registry.invalid/none:1"')
    p = lab.until_pod("badname", "InvalidImageName", lambda p: state_of(p)[1].get("reason") == "InvalidImageName")
    same(state_of(p)[1]["message"], 'Failed to apply default image tag "Not//Valid::": couldn\'t parse image name '
         '"Not//Valid::": invalid reference format')


def deadline(lab):
    lab.pod("deadline", activeDeadlineSeconds=2, containers=[{"command": SLEEP}])
    yield
    p = lab.until_phase("deadline", "Failed")
    same((p["status"]["reason"], p["status"]["message"]),
         ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline"))
    e = lab.until_event("deadline", "DeadlineExceeded")
    same(e[2], "Pod was active on the node longer than the specified deadline")
    p = lab.until_pod("deadline", "terminated", lambda p: state_of(p)[0] == "terminated")


# ---- init containers and sidecars ----

def say(text):
    return ["sh", "-c", "echo %s $(date +%%s%%N) >>/v/log" % text]


def stay(text, slow_start=0):
    return ["sh", "-c", "sleep %s; echo %s-up >>/v/log; touch /tmp/up; "
            "trap 'echo %s-down >>/v/log; exit 0' TERM; while true; do sleep 0.1; done" % (slow_start, text, text)]


def init_order(lab):
    v = [{"name": "v", "mountPath": "/v"}]
    lab.pod("init", volumes=[{"name": "v", "hostPath": {"path": lab.dir + "/initv", "type": "DirectoryOrCreate"}}],
            terminationGracePeriodSeconds=20,
            initContainers=[
                {"name": "i1", "command": ["sh", "-c", "echo i1 >>/v/log; sleep 0.5"], "volumeMounts": v},
                {"name": "side1", "restartPolicy": "Always", "command": stay("side1", 1), "volumeMounts": v,
                 "startupProbe": {"exec": {"command": ["cat", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 30}},
                {"name": "i2", "command": ["sh", "-c", "echo i2 >>/v/log"], "volumeMounts": v},
                {"name": "side2", "restartPolicy": "Always", "command": stay("side2"), "volumeMounts": v}],
            containers=[{"command": stay("app", 1), "volumeMounts": v,
                         "readinessProbe": {"exec": {"command": ["cat", "/tmp/up"]}, "periodSeconds": 1}}])
    lab.pod("initfail", restartPolicy="Never", initContainers=[{"name": "i", "command": ["sh", "-c", "exit 5"]}],
            containers=[{"command": SLEEP}])
    lab.pod("initloop", initContainers=[{"name": "i", "command": ["sh", "-c", "exit 5"]}],
            containers=[{"command": SLEEP}])
    lab.pod("job", restartPolicy="Never",
            initContainers=[{"name": "side", "restartPolicy": "Always", "command": SLEEP}],
            containers=[{"command": ["sleep", "0.5"]}])
    yield
    p = lab.until_ready("init")
    seen = [h["status"] for h in lab.history("init")]
    incomplete = [c["message"] for s in seen for c in s.get("conditions", [])
                  if c["type"] == "Initialized" and c["status"] == "False"]
    has(incomplete, "containers with incomplete status: [i1 side1 i2 side2]")
    has([state_of(h)[1].get("reason") for h in lab.history("init")], "PodInitializing")
    same([(c["name"], c["ready"], c.get("started")) for c in p["status"]["initContainerStatuses"]],
         [("i1", True, False), ("side1", True, True), ("i2", True, False), ("side2", True, True)])
    same(state_of(p, "i1")[1]["reason"], "Completed")
    lab.delete("init")
    lab.until_gone("init")
    with open(lab.dir + "/initv/log") as f:
        words = f.read().split()
    same([w for w in words if w != "side2-up"],
         ["i1", "side1-up", "i2", "app-up", "app-down", "side2-down", "side1-down"])
    p = lab.until_phase("initfail", "Failed")
    same((state_of(p, "i")[1]["exitCode"], state_of(p)[1]), (5, {"reason": "PodInitializing"}))
    p = lab.until_pod("initloop", "init back-off", lambda p: state_of(p, "i")[1].get("reason") == "CrashLoopBackOff")
    same(p["status"]["phase"], "Pending")
    has(state_of(p, "i")[1]["message"], "restarting failed container=i pod=initloop_default(")
    same(condition(p, "Initialized")["message"], "containers with incomplete status: [i]")
    p = lab.until_phase("job", "Succeeded")
    lab.until_pod("job", "sidecar ended", lambda p: state_of(p, "side")[0] == "terminated")


# ---- probes ----

def http(path, **kw):
    port = kw.pop("port", 8080)
    extra = kw.pop("get", {})
    return dict({"httpGet": dict({"path": path, "port": port}, **extra), "periodSeconds": 1}, **kw)


def probes(lab):
    box = {"command": ["box", "serve"], "ports": [{"name": "web", "containerPort": 8080}]}
    lab.pod("p-http", containers=[dict(box, readinessProbe=http("/healthz", port="web", failureThreshold=1))])
    lab.pod("p-moved", containers=[dict(box, livenessProbe=http("/moved", failureThreshold=2),
                                        lifecycle={"postStart": {"exec": {"command": ["touch", "/tmp/sick"]}}})])
    lab.pod("p-away", containers=[dict(box, readinessProbe=http("/away"))])
    lab.pod("p-https", containers=[dict(box, readinessProbe=http("/x?y=1", port=8443, get={
        "scheme": "HTTPS", "httpHeaders": [{"name": "X-Test", "value": "a b"}, {"name": "Host", "value": "h.example"}]}))])
    lab.pod("p-tcp", containers=[dict(box, readinessProbe={"tcpSocket": {"port": 7000}, "periodSeconds": 1})])
    lab.pod("p-grpc", containers=[dict(box, readinessProbe={"grpc": {"port": 9090}, "periodSeconds": 1})])
    lab.pod("p-grpc-sick", containers=[dict(box, readinessProbe={"grpc": {"port": 9090, "service": "sick"},
                                                                 "periodSeconds": 1})])
    lab.pod("p-refused", containers=[dict(box, readinessProbe=http("/", port=81))])
    lab.pod("p-slow", containers=[dict(box, readinessProbe=http("/slow", timeoutSeconds=1))])
    lab.pod("p-live", containers=[dict(box, livenessProbe=http("/healthz", failureThreshold=2),
                                       lifecycle={"postStart": {"exec": {"command": ["touch", "/tmp/sick"]}}})])
    lab.pod("p-exec", containers=[{"command": SLEEP, "readinessProbe": {
        "exec": {"command": ["sh", "-c", "echo not yet; false"]}, "periodSeconds": 1}}])
    lab.pod("p-exec-slow", containers=[{"command": SLEEP, "readinessProbe": {
        "exec": {"command": ["sleep", "10"]}, "periodSeconds": 1, "timeoutSeconds": 1}}])
    lab.pod("p-startup", containers=[{
        "command": ["sh", "-c", "sleep 2; touch /tmp/up; sleep 100"],
        "startupProbe": {"exec": {"command": ["cat", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 30},
        "livenessProbe": {"exec": {"command": ["cat", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 1}}])
    lab.pod("p-startup-bad", restartPolicy="Never", containers=[{
        "command": SLEEP, "startupProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 2}}])
    yield
    lab.until_ready("p-http")
    lab.sh("p-http", "touch /tmp/sick")
    p = lab.until_pod("p-http", "unready", lambda p: condition(p, "Ready")["status"] == "False" and
                      p["status"]["phase"] == "Running" and lab.messages("p-http")[-1][1] == "Unhealthy")
    same(condition(p, "Ready")["reason"], "ContainersNotReady")
    same(condition(p, "Ready")["message"], "containers with unready status: [main]")
    same(lab.until_event("p-http", "Unhealthy", "Readiness")[2],
         "Readiness probe failed: HTTP probe failed with statuscode: 500")
    lab.until_event("p-moved", "Killing", "failed liveness probe")  # what /moved leads to counts
    lab.until_ready("p-away")
    has(lab.until_event("p-away", "ProbeWarning")[2], "Readiness probe warning: Probe terminated redirects, "
        'Response body: <a href="http://elsewhere.example/">Found</a>.')
    lab.until_ready("p-https")
    has(lab.logs("p-https"), "request GET /x?y=1 host=h.example agent=kube-probe/1.36 x=a b")
    lab.until_ready("p-tcp")
    lab.until_ready("p-grpc")
    has(lab.logs("p-grpc"), 'grpc /grpc.health.v1.Health/Check service=""')
    same(lab.until_event("p-grpc-sick", "Unhealthy")[2],
         'Readiness probe failed: service unhealthy (responded with "NOT_SERVING")')
    p = lab.until_phase("p-refused", "Running")
    ip = p["status"]["podIP"]
    same(lab.until_event("p-refused", "Unhealthy")[2],
         'Readiness probe failed: Get "http://%s:81/": dial tcp %s:81: connect: connection refused' % (ip, ip))
    p = lab.until_phase("p-slow", "Running")
    has(lab.until_event("p-slow", "Unhealthy")[2],
        'Readiness probe failed: Get "http://%s:8080/slow": context deadline exceeded' % p["status"]["podIP"])
    same(lab.until_event("p-live", "Killing")[2], "Container main failed liveness probe, will be restarted")
    p = lab.until_pod("p-live", "restarted", lambda p: (status_of(p) or {}).get("restartCount", 0) >= 1)
    same(status_of(p)["lastState"]["terminated"]["exitCode"], 2)  # Go's answer to SIGTERM here
    has(lab.until_event("p-exec", "Unhealthy")[2], "Readiness probe failed: not yet")
    same(lab.until_event("p-exec-slow", "Unhealthy")[2],
         'Readiness probe failed: command timed out: "sleep 10" timed out after 1s')
    p = lab.until_ready("p-startup")
    same(status_of(p)["restartCount"], 0)
    unstarted = [h for h in lab.history("p-startup") if state_of(h)[0] == "running" and not status_of(h)["started"]]
    same(bool(unstarted), True, "seen running and not started")
    same(lab.until_event("p-startup-bad", "Killing")[2], "Container main failed startup probe")
    lab.until_phase("p-startup-bad", "Failed", "Succeeded")
    lab.until_event("p-startup-bad", "Unhealthy", "Startup probe failed: ")


# ---- hooks and termination ----

def hooks(lab):
    box = {"command": ["box", "serve"], "ports": [{"name": "web", "containerPort": 8080}]}
    lab.pod("hook-target", containers=[box])
    lab.pod("h-post", containers=[{"command": ["sh", "-c", "sleep 100"], "lifecycle": {
        "postStart": {"exec": {"command": ["sh", "-c", "sleep 1; echo done >/tmp/post"]}}}}])
    lab.pod("h-fail", containers=[{"command": SLEEP, "lifecycle": {
        "postStart": {"exec": {"command": ["sh", "-c", "echo no good; exit 7"]}}}}])
    lab.pod("h-sleep", terminationGracePeriodSeconds=5, containers=[{"command": SLEEP, "lifecycle": {"postStart": {"sleep": {"seconds": 2}}}}])
    lab.pod("h-pre", terminationGracePeriodSeconds=15, containers=[{
        "command": ["sh", "-c", "trap '' TERM; until [ -e /tmp/stop ]; do sleep 0.1; done; exit 9"],
        "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "sleep 1; touch /tmp/stop"]}}}}])
    yield
    target = lab.until_ready("hook-target")["status"]["podIP"]
    lab.pod("h-http", terminationGracePeriodSeconds=15, containers=[{"command": SLEEP, "lifecycle": {
        "postStart": {"httpGet": {"host": target, "port": 8080, "path": "/post"}},
        "preStop": {"httpGet": {"host": target, "port": 8443, "path": "/pre", "scheme": "HTTPS"}}}}])
    lab.pod("h-own", terminationGracePeriodSeconds=15, containers=[dict(box, lifecycle={
        "preStop": {"httpGet": {"port": "web", "path": "/bye"}}})])
    lab.pod("h-over", terminationGracePeriodSeconds=2, containers=[{"command": STUBBORN, "lifecycle": {
        "preStop": {"exec": {"command": ["sleep", "60"]}}}}])
    lab.pod("h-presleep", terminationGracePeriodSeconds=15, containers=[{"command": SLEEP, "lifecycle": {
        "preStop": {"sleep": {"seconds": 2}}}}])
    lab.pod("kill9", terminationGracePeriodSeconds=2, containers=[{"command": STUBBORN}])
    lab.pod("sigusr", containers=[{"command": ["sh", "-c", "trap 'exit 42' USR1; while true; do sleep 0.1; done"],
                                   "lifecycle": {"stopSignal": "SIGUSR1"}}], os={"name": "linux"},
            restartPolicy="Never", terminationGracePeriodSeconds=15)
    lab.until_ready("h-post")
    same(lab.sh("h-post", "cat /tmp/post"), "done\n")
    starting = [h for h in lab.history("h-post") if state_of(h)[0] == "waiting"]
    same(bool(starting), True, "seen waiting")
    e = lab.until_event("h-fail", "FailedPostStartHook")
    same((e[0], e[2]), ("Warning", "PostStartHook failed"))
    lab.until_event("h-fail", "Killing", "FailedPostStartHook")
    p = lab.until_ready("h-sleep")
    names = ["h-http", "h-own", "h-over", "h-presleep", "kill9", "sigusr", "h-pre"]
    for n in names:
        lab.until_phase(n, "Running")
    lab.until_ready("h-http")
    t0 = time.monotonic()
    took = {}
    for n in names:
        lab.delete(n)
    left = set(names)
    while left:
        n = lab.until("a pod gone", lambda: [n for n in left if lab.history(n)[-1].get("gone")])[0]
        took[n] = time.monotonic() - t0
        left.remove(n)
    log = lab.logs("hook-target")
    has(log, "request GET /post host=%s:8080 agent=kube-lifecycle/1.36" % target)
    has(log, "request GET /pre host=%s:8443" % target)

    def ended(n):
        s = state_of(lab.history(n)[-1])
        same(s[0], "terminated", n)
        return s[1]["exitCode"]
    same(ended("h-pre"), 9)
    same(ended("h-over"), 137)
    has(lab.until_event("h-over", "FailedPreStopHook")[2], "PreStopHook failed")
    same(ended("kill9"), 137)
    same(ended("sigusr"), 42)
    same(ended("h-presleep"), 0)
    for n, least in (("h-over", 2), ("h-presleep", 2), ("kill9", 2), ("h-pre", 1)):
        if took[n] < least:
            raise Failure("%s took %.1f s to go" % (n, took[n]))


def oom(lab):
    lab.pod("oom", restartPolicy="Never", containers=[{
        "command": ["box", "eat", "200"], "resources": {"limits": {"memory": "32Mi"}}}])
    yield
    p = lab.until_phase("oom", "Failed")
    v = state_of(p)[1]
    same((v["exitCode"], v["reason"]), (137, "OOMKilled"))
    same(p["status"]["qosClass"], "Burstable")


def eviction(lab):
    """Pods over their limits of local storage are ended by the node."""
    mib = ["sh", "-c", "dd if=/dev/zero of=$0 bs=1M count=4 2>/dev/null; sleep 1000"]
    lab.pod("ev-dir", volumes=[{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}], containers=[
        {"command": mib + ["/v/f"], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}])
    lab.pod("ev-ctr", containers=[{"command": mib + ["/f"], "resources": {"limits": {"ephemeral-storage": "2Mi"}}}])
    lab.pod("ev-pod", volumes=[{"name": "v", "emptyDir": {}}], containers=[
        {"command": mib + ["/v/f"], "volumeMounts": [{"name": "v", "mountPath": "/v"}],
         "resources": {"limits": {"ephemeral-storage": "2Mi"}}}])
    lab.pod("ev-not", volumes=[{"name": "v", "emptyDir": {"sizeLimit": "100Mi"}}], containers=[
        {"command": mib + ["/v/f"], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}])
    yield
    for n, text in (("ev-dir", 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '),
                    ("ev-ctr", 'Container main exceeded its local ephemeral storage limit "2Mi". '),
                    ("ev-pod", "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ")):
        p = lab.until_phase(n, "Failed")
        same((p["status"]["reason"], p["status"]["message"]), ("Evicted", text), n)
        e = lab.until_event(n, "Evicted")
        same((e[0], e[2]), ("Warning", text), n)
        c = condition(p, "DisruptionTarget")
        same((c["status"], c["reason"], c["message"]), ("True", "TerminationByKubelet", text), n)
        lab.until_pod(n, "ended", lambda p: state_of(p)[0] == "terminated")
    same(lab.read("ev-not")["status"]["phase"], "Running")


CASES = [plain, ends, crash_loop, start_errors, deadline, init_order, probes, hooks, oom, eviction]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], CASES + pods_config.CASES + pods_storage.CASES + pods_resize.CASES + pods_streams.CASES))
