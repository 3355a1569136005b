"""Streams as Kubernetes' Python client asks for them (WebSockets, one protocol for each of them), against the
cluster of KUBECONFIG. client_streams.py POD: a pod of the box that serves. Run by kubectl_host.py in the
client's own environment, which is why it is a program."""
import json
import sys

from kubernetes import client, config, watch
from kubernetes.stream import portforward, stream
from kubernetes.stream.ws_client import ERROR_CHANNEL


def same(got, want):
    assert got == want, "%r, not %r" % (got, want)


def main(pod):
    config.load_kube_config()
    v1 = client.CoreV1Api()

    def run(script, **kw):
        return stream(v1.connect_get_namespaced_pod_exec, pod, "default", container="web", command=["sh", "-c", script],
                      stdout=True, stderr=kw.pop("stderr", True), stdin=kw.pop("stdin", False), tty=kw.pop("tty", False), **kw)
    same(run("echo out; echo err >&2; exit 0", stderr=False), "out\n")
    s = run("read a; echo got $a; echo bad >&2; exit 7", stdin=True, _preload_content=False)
    s.write_stdin("typed\n")
    s.run_forever(timeout=30)
    same((s.read_stdout(), s.read_stderr(), s.returncode), ("got typed\n", "bad\n", 7))
    s = run("exit 3", _preload_content=False)
    s.run_forever(timeout=30)
    status = json.loads(s.read_channel(ERROR_CHANNEL))
    same((status["status"], status["reason"], status["details"]["causes"]),
         ("Failure", "NonZeroExitCode", [{"reason": "ExitCode", "message": "3"}]))
    same(run("tty", tty=True), "/dev/pts/0\r\n")
    lines = watch.Watch().stream(v1.read_namespaced_pod_log, name=pod, namespace="default", container="web", follow=True)
    same(next(iter(lines)), "box serves")
    assert "side of " + pod in v1.read_namespaced_pod_log(pod, "default", container="side", tail_lines=1)
    pf = portforward(v1.connect_get_namespaced_pod_portforward, pod, "default", ports="8080,7000")
    echo = pf.socket(7000)
    echo.settimeout(30)
    echo.sendall(b"there and back")
    got = b""
    while len(got) < 14:
        got += echo.recv(64)
    same(got, b"there and back")
    web = pf.socket(8080)
    web.settimeout(30)
    web.sendall(b"GET / HTTP/1.0\r\n\r\n")
    text = b""
    hello = ("hello from %s\n" % pod).encode()
    while not text.endswith(hello):  # a channel's end is not told: the WebSocket ends with the last of them
        text += web.recv(4096)
    same((pf.error(7000), pf.error(8080)), (None, None))
    assert "hello from " + pod in v1.connect_get_namespaced_pod_proxy("%s:8080" % pod, "default")


main(*sys.argv[1:])
print("python client: streams are as they should be")
