"""Cases of pods.py: claims and volumes: what pods find in them, what outlives what."""
import os

from lab import NS, Failure, has, same, state_of, status_of

SLEEP = ["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.2; done"]
CLAIMS = "/api/v1/namespaces/%s/persistentvolumeclaims/" % NS
VOLUMES = "/api/v1/persistentvolumes/"


def claim(lab, name, size="1Gi", **spec):
    spec.setdefault("accessModes", ["ReadWriteOnce"])
    spec["resources"] = {"requests": {"storage": size}}
    return lab.create("persistentvolumeclaims", {"kind": "PersistentVolumeClaim", "metadata": {"name": name},
                                                 "spec": spec})


def volume(lab, name, **spec):
    spec.setdefault("accessModes", ["ReadWriteOnce"])
    spec.setdefault("capacity", {"storage": "1Gi"})
    spec.setdefault("storageClassName", "by-hand")
    return lab.must("POST", VOLUMES[:-1], {"apiVersion": "v1", "kind": "PersistentVolume",
                                           "metadata": {"name": name}, "spec": spec})


def uses(name, **more):
    return [{"name": "v", "persistentVolumeClaim": dict(claimName=name, **more)}]


def runs(script, **mount):
    return [{"command": ["sh", "-c", script], "volumeMounts": [dict({"name": "v", "mountPath": "/v"}, **mount)]}]


def gone(lab, path):
    lab.until("no " + path, lambda: lab.call("GET", path)[0] == 404)


def provisioned(lab):
    """The default class: data outlives the pod, permissions, subPath, readOnly, and the folder goes with the claim."""
    claim(lab, "data")
    lab.pod("st-write", restartPolicy="Never", volumes=uses("data"), securityContext={"runAsUser": 1000},
            containers=runs("echo kept > /v/f && mkdir /v/sub && echo below > /v/sub/g"))
    yield
    lab.until_phase("st-write", "Succeeded")
    lab.delete("st-write")
    lab.until_gone("st-write")
    lab.pod("st-read", restartPolicy="Never", volumes=uses("data"), containers=runs("cat /v/f; stat -c %a /v"))
    lab.pod("st-sub", restartPolicy="Never", volumes=uses("data"),
            containers=runs("cat /v/g; echo more > /v/h", subPath="sub"))
    lab.pod("st-ro", restartPolicy="Never", volumes=uses("data", readOnly=True),
            containers=runs("cat /v/f; echo x > /v/x || echo refused"))
    for name in ("st-read", "st-sub", "st-ro"):
        lab.until_phase(name, "Succeeded")
    same(lab.logs("st-read"), "kept\n777\n")
    has(lab.logs("st-sub"), "below")
    has(lab.logs("st-ro"), "refused")
    pvc = lab.must("GET", CLAIMS + "data")
    pv = lab.must("GET", VOLUMES + pvc["spec"]["volumeName"])
    same((pvc["status"]["phase"], pv["status"]["phase"], pv["spec"]["storageClassName"]), ("Bound", "Bound", "standard"))
    lab.must("DELETE", CLAIMS + "data")
    same(lab.must("GET", CLAIMS + "data")["metadata"]["finalizers"], ["kubernetes.io/pvc-protection"])
    for name in ("st-read", "st-sub", "st-ro"):
        lab.delete(name)
    gone(lab, CLAIMS + "data")
    gone(lab, VOLUMES + pv["metadata"]["name"])
    if "host" in lab.options and os.path.exists(pv["spec"]["hostPath"]["path"]):
        raise Failure("%s is still there" % pv["spec"]["hostPath"]["path"])


def group(lab):
    """fsGroup owns what is in a provisioned volume; a local volume too."""
    claim(lab, "grouped")
    lab.pod("st-group", restartPolicy="Never", volumes=uses("grouped"),
            securityContext={"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 4321},
            containers=runs("stat -c '%g %a' /v; touch /v/f; stat -c %g /v/f"))
    yield
    lab.until_phase("st-group", "Succeeded")
    same(lab.logs("st-group"), "4321 2777\n4321\n")


def local(lab):
    """A volume by hand: bound by class, found on the node; one that is not there is said."""
    volume(lab, "st-missing", local={"path": "/no/such/folder"}, storageClassName="missing", nodeAffinity={
        "required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]}]}})
    claim(lab, "missing", storageClassName="missing")
    lab.pod("st-missing", volumes=uses("missing"), containers=runs("true"))
    volume(lab, "st-csi", csi={"driver": "none.example.com", "volumeHandle": "x"}, storageClassName="csi")
    claim(lab, "csi", storageClassName="csi")
    lab.pod("st-csi", volumes=uses("csi"), containers=runs("true"))
    lab.pod("st-unbound", volumes=uses("unbound"), containers=runs("true"))
    yield
    has(lab.until_event("st-missing", "FailedMount")[2],
        'MountVolume.NewMounter initialization failed for volume "st-missing" : path "/no/such/folder" does not exist')
    has(lab.until_event("st-csi", "FailedMount")[2], "volumes of type csi are not supported by this node")
    has(lab.until_event("st-unbound", "FailedScheduling")[2],
        '0/1 nodes are available: persistentvolumeclaim "unbound" not found.')
    same(state_of(lab.history("st-csi")[-1])[1], {"reason": "ContainerCreating"})
    for name in ("st-missing", "st-csi", "st-unbound"):
        lab.delete(name, grace=0)


def ephemeral(lab):
    """A generic ephemeral volume comes and goes with its pod."""
    lab.pod("st-eph", containers=runs("echo here > /v/f; exec sleep 1000"), volumes=[
        {"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}}}}])
    yield
    lab.until_ready("st-eph")
    pvc = lab.must("GET", CLAIMS + "st-eph-v")
    same(pvc["metadata"]["ownerReferences"][0]["name"], "st-eph")
    same(lab.sh("st-eph", "cat /v/f"), "here\n")
    lab.delete("st-eph", grace=0)
    lab.until_gone("st-eph")
    gone(lab, CLAIMS + "st-eph-v")
    gone(lab, VOLUMES + pvc["spec"]["volumeName"])


def stateful(lab):
    """Each pod of a StatefulSet has its own volume, and finds it again."""
    lab.create("statefulsets", {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "st-set"}, "spec": {
        "serviceName": "st-set", "replicas": 2, "selector": {"matchLabels": {"app": "st-set"}},
        "podManagementPolicy": "Parallel",
        "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete", "whenDeleted": "Retain"},
        "template": {"metadata": {"labels": {"app": "st-set"}}, "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "box:1", "command": [
                "sh", "-c", "[ -e /v/name ] || hostname > /v/name; trap 'exit 0' TERM; while true; do sleep 0.2; done"],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}},
        "volumeClaimTemplates": [{"metadata": {"name": "v"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}})
    yield
    uid = lab.until_ready("st-set-1")["metadata"]["uid"]
    lab.until_ready("st-set-0")
    lab.delete("st-set-1")
    lab.until_pod("st-set-1", "another one", lambda p: p["metadata"]["uid"] != uid)
    lab.until_ready("st-set-1")
    same(lab.sh("st-set-1", "cat /v/name"), "st-set-1\n")
    lab.must("PATCH", "/apis/apps/v1/namespaces/%s/statefulsets/st-set" % NS, {"spec": {"replicas": 1}},
             content="application/merge-patch+json")
    gone(lab, CLAIMS + "v-st-set-1")
    lab.must("DELETE", "/apis/apps/v1/namespaces/%s/statefulsets/st-set" % NS)
    lab.until_gone("st-set-0")
    same(lab.must("GET", CLAIMS + "v-st-set-0")["status"]["phase"], "Bound")


CASES = [provisioned, group, local, ephemeral, stateful]


def before_stop(lab):
    """What is_kept finds again after a stop and a start of the machine."""
    claim(lab, "over")
    lab.pod("st-over", restartPolicy="Always", volumes=uses("over"), containers=[{
        "command": ["sh", "-c", "date +%s%N >> /v/starts; trap 'exit 0' TERM; while true; do sleep 0.2; done"],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]}])
    lab.until_ready("st-over")
    return lab.sh("st-over", "cat /v/starts")


def is_kept(lab, before):
    lab.until_pod("st-over", "started again", lambda p: (status_of(p) or {}).get("restartCount", 0) > 0 and
                  state_of(p)[0] == "running")
    after = lab.sh("st-over", "cat /v/starts")
    if not after.startswith(before) or len(after) <= len(before):
        raise Failure("%r after %r" % (after, before))
