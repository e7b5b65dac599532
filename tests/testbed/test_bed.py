# SPDX-License-Identifier: GPL-3.0-or-later
"""The bed does what a cluster does: it runs, connects, stores, serves, scales, and goes without a trace. Takes root."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.testbed import bed, control, node
from tests.testbed.conftest import Bed, Space, curl
from tests.testbed.kube import Kubectl
from tests.testbed.layout import NODES
from tests.testbed.progress import Progress
from tests.testbed.snapshot import difference, snapshot

SERVER = "import http.server,os\nclass H(http.server.BaseHTTPRequestHandler):\n def do_GET(self):\n  self.send_response(200);self.end_headers();" \
         "self.wfile.write(os.environ['HOSTNAME'].encode())\n def log_message(self,*a): pass\nhttp.server.ThreadingHTTPServer(('',8000),H).serve_forever()"


def pod(name: str, image: str, command: list[str], **spec: Any) -> dict[str, Any]:
    """A pod that may run under Pod Security's `restricted`; `container` in spec is laid over its container."""
    container = {
        "name": "main", "image": image, "command": command,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True},
        **spec.pop("container", {}),
    }
    security = {"runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "securityContext": security, "containers": [container], **spec},
    }


def on(number: int) -> dict[str, str]:
    return {"kubernetes.io/hostname": f"node-{number}"}


def servers(space: Space, image: str) -> None:
    """One server on each node behind the Service web."""
    pods = [pod(f"web-{number}", image, ["python3", "-c", SERVER], nodeSelector=on(number)) for number in (1, 2)]
    for one in pods:
        one["metadata"]["labels"] = {"app": "web"}
    space.apply(*pods, {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8000}]},
    })
    space.ready("web-1", "web-2")


def until(seconds: float, ask: Callable[[], Any]) -> Any:
    """Ask until the answer is true; what failed last is raised."""
    limit = time.monotonic() + seconds
    while True:
        try:
            if answer := ask():
                return answer
            problem: Exception = AssertionError(f"not after {seconds} s")
        except Exception as error:  # whatever a cluster on its way says
            problem = error
        if time.monotonic() > limit:
            raise problem
        time.sleep(0.5)


def test_both_nodes_are_ready_in_zones_of_their_own(kubectl: Kubectl) -> None:
    nodes = kubectl.get("nodes")["items"]
    assert {item["metadata"]["name"] for item in nodes} == {one.name for one in NODES}
    assert len({item["metadata"]["labels"]["topology.kubernetes.io/zone"] for item in nodes}) == 2
    assert all({"type": "Ready", "status": "True"}.items() <= item["status"]["conditions"][-1].items() for item in nodes)


def test_a_service_reaches_both_nodes_from_everywhere(space: Space, python: str) -> None:
    servers(space, python)
    address = space.get("service/web")["spec"]["clusterIP"]
    assert until(20, lambda: {curl(f"http://{address}/") for _ in range(10)} == {"web-1", "web-2"})
    # By name, so that DNS answers on both nodes too.
    code = "import urllib.request as u; print({u.urlopen('http://web/', timeout=5).read().decode() for _ in range(20)} == {'web-1', 'web-2'})"
    asks = [f"pod/web-{number}" for number in (1, 2)]
    assert until(20, lambda: [space("exec", name, "--", "python3", "-c", code) for name in asks] == ["True\n", "True\n"])


def test_an_image_is_pulled_by_digest_and_what_is_not_there_is_not(space: Space, python: str) -> None:
    assert "@sha256:" in python
    missing = python.replace(python[-8:], "00000000")
    space.apply(pod("there", python, ["sleep", "60"]), pod("missing", missing, ["sleep", "60"]))
    space.ready("there")
    waiting = until(30, lambda: space.get("pod/missing")["status"]["containerStatuses"][0]["state"]["waiting"]["reason"])
    assert waiting in ("ErrImagePull", "ImagePullBackOff")


def claim(name: str, mode: str, **spec: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": [mode], "resources": {"requests": {"storage": "64Mi"}}, **spec},
    }


def mounted(name: str) -> dict[str, Any]:
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": name}}
    return {"container": {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}, "volumes": [volume]}


def test_a_shared_volume_is_written_on_one_node_and_read_on_the_other(space: Space, running: Bed, python: str) -> None:
    space.apply(claim("shared", "ReadWriteMany", storageClassName=running.status["shared_storage_class"]))
    for number in (1, 2):
        spec = mounted("shared")
        spec["container"]["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        space.apply(pod(f"p{number}", python, ["sleep", "600"], nodeSelector=on(number), **spec))
    space.ready("p1", "p2")
    space("exec", "p1", "--", "sh", "-c", "echo from-1 > /data/file")
    assert space("exec", "p2", "--", "cat", "/data/file") == "from-1\n"


def test_a_claim_without_a_class_keeps_its_data_over_pods(space: Space, python: str) -> None:
    space.apply(claim("own", "ReadWriteOnce"), pod("one", python, ["sleep", "600"], **mounted("own")))
    space.ready("one")
    space("exec", "one", "--", "sh", "-c", "echo kept > /data/file")
    space("delete", "pod/one")
    space.apply(pod("two", python, ["sleep", "600"], **mounted("own")))
    space.ready("two")
    assert space("exec", "two", "--", "cat", "/data/file") == "kept\n"


def test_gpus_are_given_out_and_run_out(space: Space, python: str) -> None:
    def asks(number: int) -> dict[str, Any]:
        return {"container": {"resources": {"limits": {"nvidia.com/gpu": str(number)}}}}

    space.apply(pod("fits", python, ["sleep", "60"], **asks(1)), pod("too-many", python, ["sleep", "60"], **asks(9)))
    space.ready("fits")
    assert space.get("pod/fits")["spec"]["nodeName"] == NODES[-1].name
    message = until(20, lambda: space.get("pod/too-many")["status"]["conditions"][0]["message"])
    assert "Insufficient nvidia.com/gpu" in message


def test_the_gateway_serves_tls_of_the_beds_authority(space: Space, running: Bed, python: str) -> None:
    servers(space, python)
    host = f"{space.name}.{running.status['domain']}"
    space.apply(
        {
            "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": "web"},
            "spec": {"secretName": "web-tls", "dnsNames": [host], "issuerRef": {"name": running.status["cluster_issuer"], "kind": "ClusterIssuer"}},
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "web"},
            "spec": {"gatewayClassName": running.status["gateway_class"], "listeners": [{
                "name": "https", "protocol": "HTTPS", "port": 443, "tls": {"certificateRefs": [{"name": "web-tls"}]},
            }]},
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "web"},
            "spec": {"parentRefs": [{"name": "web"}], "hostnames": [host], "rules": [{"backendRefs": [{"name": "web", "port": 80}]}]},
        },
    )
    space("wait", "--for=condition=Programmed", "gateway/web", "--timeout=120s")
    address = space.get("gateway/web")["status"]["addresses"][0]["value"]
    arguments = ["--cacert", running.status["ca_file"], "--resolve", f"{host}:443:{address}", f"https://{host}/"]
    assert until(60, lambda: {curl(*arguments) for _ in range(10)} == {"web-1", "web-2"})


def test_usage_is_measured(kubectl: Kubectl) -> None:
    lines = until(60, lambda: kubectl("top", "nodes", "--no-headers")).splitlines()
    assert {line.split()[0] for line in lines} == {one.name for one in NODES}


def test_a_metric_scales_a_deployment(space: Space, python: str) -> None:
    """KEDA's workload trigger: as many replicas as there are pods with a label."""
    template = pod("scaled", python, ["sleep", "600"])
    space.apply(
        {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "scaled"},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "scaled"}}, "template": {
                "metadata": {"labels": {"app": "scaled"}}, "spec": template["spec"],
            }},
        },
        {
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "scaled"},
            "spec": {
                "scaleTargetRef": {"name": "scaled"}, "minReplicaCount": 1, "maxReplicaCount": 3, "pollingInterval": 2,
                "triggers": [{"type": "kubernetes-workload", "metadata": {"podSelector": "app=load", "value": "1"}}],
            },
        },
    )
    for number in range(3):
        load = pod(f"load-{number}", python, ["sleep", "600"])
        load["metadata"]["labels"] = {"app": "load"}
        space.apply(load)
    assert until(120, lambda: space.get("deployment/scaled")["status"].get("readyReplicas") == 3)


def test_secrets_are_encrypted_at_rest(kubectl: Kubectl, space: Space) -> None:
    def written() -> float:
        text = kubectl("get", "--raw", "/metrics")
        return sum(
            float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
            if line.startswith("apiserver_storage_transformation_operations_total") and "secretbox" in line and "to_storage" in line
        )

    before = written()
    space("create", "secret", "generic", "x", "--from-literal=a=b")
    assert written() > before


def test_bringing_it_up_again_restarts_nothing(running: Bed) -> None:
    layout = running.layout
    programs = layout.programs
    daemons = [*control.daemons(layout, programs).values(), *node.all_daemons(layout, programs)]
    before = {f"{daemon.run}/{daemon.name}": daemon.pid for daemon in daemons}
    assert None not in before.values()
    started = time.monotonic()
    bed.up(layout, [], Progress())
    assert {f"{daemon.run}/{daemon.name}": daemon.pid for daemon in daemons} == before
    print(f"up again: {time.monotonic() - started:.1f} s")


def test_it_goes_without_a_trace(running: Bed) -> None:
    if not running.ours:
        pytest.skip("the bed was up before these tests, so it is not theirs to take down")
    assert running.before is not None
    bed.down(running.layout, Progress())
    assert difference(running.before, snapshot()) == {}, json.dumps(difference(running.before, snapshot()), indent=1)
