# SPDX-License-Identifier: GPL-3.0-or-later
"""What the bed installs into its cluster: each addon's programs, its images, its objects, and how one sees that it is ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .builds import Programs
from .errors import Unsupported
from .images import NOBODY, Config, Image, static_layer
from .kube import Kubectl, manifest
from .layout import CLUSTER_DOMAIN, DNS_ADDRESS, NODES, Layout
from .progress import Progress
from .registry import Registry

__all__ = ["ADDONS", "Addon", "Context", "install", "ordered"]


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

    def static_image(self, group: str, *names: str, entrypoint: str | None = None) -> str:
        """Push an image that holds some of a group's programs and runs the first; return its reference."""
        name = entrypoint or names[0]
        folder = self.layout.cache / "layers"
        folder.mkdir(parents=True, exist_ok=True)
        layer = static_layer(folder / f"{name}.tar", {f"/{program}": self.program(group, program) for program in names})
        return self.registry.push(name, "1", Image((layer,), Config(user=NOBODY, entrypoint=(f"/{name}",))))


@dataclass(frozen=True)
class Addon:
    """`groups` are the builds it needs, `after` the addons that have to be ready first."""

    name: str
    install: Callable[[Context], None]
    groups: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


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


ADDONS = {
    addon.name: addon
    for addon in (
        Addon("dns", _dns, groups=("dns",)),
        Addon("storage", _storage, groups=("storage",)),
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
    """Install them side by side, each when those that it needs are ready; the first failure is raised after all have ended."""
    futures: dict[str, Future[None]] = {}

    def one(addon: Addon) -> None:
        for needed in addon.after:
            futures[needed].result()
        with context.progress.step(addon.name):
            addon.install(context)

    with ThreadPoolExecutor(max_workers=len(addons) or 1) as pool:
        for addon in addons:
            futures[addon.name] = pool.submit(one, addon)
    for future in futures.values():
        future.result()
