# SPDX-License-Identifier: GPL-3.0-or-later
"""What the bed installs into its cluster: each addon's programs, its images, its objects, and how one sees that it is ready."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from string import Template

from . import roots, stock
from .builds import Programs
from .errors import Unsupported
from .images import NOBODY, Config, Content, Image, files_layer, static_layer
from .kube import Kubectl, manifest
from .layout import CLUSTER_DOMAIN, DNS_ADDRESS, NODES, Layout
from .progress import Progress
from .registry import Registry
from .shell import run, wait_for

__all__ = ["ADDONS", "CORE", "GPUS", "Addon", "Context", "install", "ordered"]

# Without these no pod of the others gets far.
CORE = ("dns", "storage")
GATEWAY_NAMESPACE = "envoy-gateway-system"
GPUS = 8


@dataclass(frozen=True)
class Context:
    """What an addon is installed with."""

    layout: Layout
    kubectl: Kubectl
    registry: Registry
    builds: dict[str, Programs]
    progress: Progress

    def program(self, group: str, name: str) -> Path:
        return self.builds[group].programs / name

    def static_image(self, group: str, name: str) -> str:
        """Push an image that holds and runs one of a group's programs; return its reference."""
        folder = self.layout.cache / "layers"
        folder.mkdir(parents=True, exist_ok=True)
        path = f"/usr/local/bin/{name}"
        layer = static_layer(folder / f"{name}.tar", {path: self.program(group, name)})
        return self.registry.push(name, "1", Image((layer,), Config(user=NOBODY, entrypoint=(path,))))


@dataclass(frozen=True)
class Addon:
    """`groups` are the builds it needs, `after` the addons that have to be ready first; not every one is there by default."""

    name: str
    install: Callable[[Context], None]
    groups: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    default: bool = True


def _dns(context: Context) -> None:
    image = context.static_image("dns", "coredns")
    context.kubectl.apply(manifest("dns", COREDNS=image, DOMAIN=CLUSTER_DOMAIN, ADDRESS=DNS_ADDRESS, NODES=str(len(NODES))))
    context.kubectl.rolled_out("deployment/coredns", "kube-system")


def _storage(context: Context) -> None:
    for name in ("own", "shared"):
        folder = context.layout.volumes / name
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
    images = {"PROVISIONER": context.static_image("storage", "local-path-provisioner"), "BUSYBOX": f"{context.registry.address}/busybox:1"}
    context.kubectl.apply(manifest("storage", VOLUMES=str(context.layout.volumes), **images))
    context.kubectl.rolled_out("deployment/local-path-provisioner", "local-path-storage")


def _gateway(context: Context) -> None:
    """Gateway API, Envoy Gateway by its own chart, and a GatewayClass whose proxies are this bed's Envoy."""
    kubectl, charts = context.kubectl, context.builds["gateway"].files
    gateway = context.static_image("gateway", "envoy-gateway")
    envoy = stock.push("envoy", context.layout, context.registry, context.progress)
    definitions = charts / "gateway-helm/charts/crds/crds"
    for path in (definitions / "gatewayapi-crds.yaml", *sorted((definitions / "generated").glob("*.yaml"))):
        kubectl.apply(path.read_text())
    values = context.layout.run / "gateway-values.yaml"
    template = Template((charts / "gateway-helm/values.tmpl.yaml").read_text())
    values.write_text(template.substitute(GatewayImage=gateway, GatewayImagePullPolicy="IfNotPresent"))
    run(context.program("gateway", "helm"), "upgrade", "--install", "envoy-gateway", charts / "gateway-helm", "--kubeconfig", kubectl.kubeconfig,
        "--namespace", GATEWAY_NAMESPACE, "--create-namespace", "--skip-crds", "--set", "crds.enabled=false", "--values", values,
        "--wait", "--timeout", "3m")
    kubectl.apply(manifest("gateway", ENVOY=envoy, GATEWAY=gateway, NODES=str(len(NODES))))
    kubectl.wait_for_condition("gatewayclass/envoy", "condition=Accepted", 60)


def _certificates(context: Context) -> None:
    """cert-manager and an authority of the bed's own; its certificate is written where clients can name it."""
    kubectl = context.kubectl
    image = context.static_image("certificates", "cert-manager")
    for path in sorted((context.builds["certificates"].files / "crds").glob("crd-*.yaml")):
        kubectl.apply(plain(path.read_text()))
    kubectl.apply(manifest("certificates", CERT_MANAGER=image))
    kubectl.rolled_out("deployment/cert-manager", "cert-manager")
    kubectl.apply(manifest("issuers"))
    # A leaf that is asked for before its authority has a key waits for cert-manager's next try.
    kubectl.wait_for_condition("certificate/testbed-ca", "condition=Ready", 90, "--namespace=cert-manager")
    kubectl.wait_for_condition("clusterissuer/testbed-ca", "condition=Ready", 60)
    secret = kubectl.get("secret/testbed-ca", "--namespace=cert-manager")
    context.layout.authority.write_bytes(base64.b64decode(secret["data"]["ca.crt"]))


def plain(template: str) -> str:
    """cert-manager's definitions without their chart's labels: lines with a template's braces are dropped."""
    return "\n".join(line for line in template.splitlines() if "{{" not in line)


def _metrics(context: Context) -> None:
    """metrics-server: its own manifests, with the bed's image and the kubelets' authority."""
    name, _, digest = context.static_image("metrics", "metrics-server").partition("@")
    overlay = context.layout.run / "metrics"
    shutil.rmtree(overlay, ignore_errors=True)
    shutil.copytree(context.builds["metrics"].files / "manifests", overlay / "base")
    (overlay / "kustomization.yaml").write_text(manifest("metrics", NAME=name, DIGEST=digest))
    context.kubectl.apply(context.kubectl("kustomize", str(overlay)))
    context.kubectl.rolled_out("deployment/metrics-server", "kube-system")
    context.kubectl.wait_for_condition("apiservice/v1beta1.metrics.k8s.io", "condition=Available", 60)


def _monitoring(context: Context) -> None:
    """Prometheus' image; the role `monitoring` runs it."""
    programs: dict[str, Content] = {f"/usr/local/bin/{name}": context.program("monitoring", name) for name in ("prometheus", "promtool")}
    layer = files_layer(context.layout.cache / "layers/prometheus.tar", programs)
    image = roots.image("python", context.layout, context.progress).with_layer(layer, command=("prometheus",))
    context.registry.push("prometheus", "1", image)


def _keda(context: Context) -> None:
    """KEDA's operator and metrics adapter: HorizontalPodAutoscalers on what Prometheus knows."""
    kubectl, folder = context.kubectl, context.layout.run / "keda"
    operator, adapter = (context.static_image("keda", name).partition("@") for name in ("keda", "keda-adapter"))
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(context.builds["keda"].files / "config", folder / "config")
    values = {"KEDA_NAME": operator[0], "KEDA_DIGEST": operator[2], "ADAPTER_NAME": adapter[0], "ADAPTER_DIGEST": adapter[2]}
    (folder / "kustomization.yaml").write_text(manifest("keda", **values))
    kubectl.apply(kubectl("kustomize", str(folder)))
    for name in ("keda-operator", "keda-metrics-apiserver"):
        kubectl.rolled_out(f"deployment/{name}", "keda", 180)
    kubectl.wait_for_condition("apiservice/v1beta1.external.metrics.k8s.io", "condition=Available", 60)


def _devices(context: Context) -> None:
    """The last node offers GPUs: an extended resource in its status, as the documentation of extended resources has it."""
    node = NODES[-1].name
    context.kubectl("label", "--overwrite", f"node/{node}", "nvidia.com/gpu.present=true", "nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3")
    context.kubectl.patch_status(f"node/{node}", {"status": {"capacity": {"nvidia.com/gpu": str(GPUS)}}})
    wait_for("allocatable GPUs", lambda: context.kubectl.get(f"node/{node}")["status"]["allocatable"].get("nvidia.com/gpu") == str(GPUS), 30)


def _stocked(*names: str) -> Callable[[Context], None]:
    def install(context: Context) -> None:
        for name in names:
            stock.push(name, context.layout, context.registry, context.progress)

    return install


ADDONS = {
    addon.name: addon
    for addon in (
        Addon("dns", _dns, groups=("dns",)),
        Addon("storage", _storage, groups=("storage",)),
        Addon("python", _stocked("python")),
        Addon("gateway", _gateway, groups=("gateway",), after=("python",)),
        Addon("certificates", _certificates, groups=("certificates",)),
        Addon("metrics", _metrics, groups=("metrics",), after=("dns",)),
        Addon("devices", _devices),
        Addon("monitoring", _monitoring, groups=("monitoring",), after=("python",)),
        # Every scaler's library comes with it: the longest build by far.
        Addon("keda", _keda, groups=("keda",), after=("dns",), default=False),
        Addon("servers", _stocked("data", "kafka"), after=("python",)),
    )
}


def ordered(names: Iterable[str]) -> list[Addon]:
    """The addons and all that they need, each after what it needs.

    Raises Unsupported for a name that is none.
    """
    found: dict[str, Addon] = {}

    def visit(name: str) -> None:
        if name not in ADDONS:
            raise Unsupported(f"no such addon: {name}; there are {', '.join(ADDONS)}")
        for needed in ADDONS[name].after:
            visit(needed)
        found[name] = ADDONS[name]

    for name in names:
        visit(name)
    return list(found.values())


def install(addons: list[Addon], context: Context) -> None:
    """Install them side by side, each when those of them that it needs are ready; the first failure is raised after all have ended.

    They come in the order of `ordered`, so that what is waited for has begun.
    """
    futures: dict[str, Future[None]] = {}

    def one(addon: Addon) -> None:
        for needed in addon.after:
            if needed in futures:
                futures[needed].result()
        with context.progress.step(addon.name):
            addon.install(context)

    with ThreadPoolExecutor(max_workers=len(addons) or 1) as pool:
        for addon in addons:
            futures[addon.name] = pool.submit(one, addon)
    for future in futures.values():
        future.result()
