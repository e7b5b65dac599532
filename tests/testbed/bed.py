# SPDX-License-Identifier: GPL-3.0-or-later
"""The bed as a whole: up, down, status."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import builds, cgroups, control, daemons, kernel, keys, mounts, network, node, packages, registry
from .addons import CORE, GPUS, Addon, Context, install
from .errors import Unsupported
from .images import Config, Image, static_layer
from .kube import Kubectl
from .layout import HOST_ADDRESS, NODES, REGISTRY, Layout
from .progress import Progress

__all__ = ["down", "status", "up"]

_BUSYBOX = (
    "cat", "chmod", "cp", "env", "hostname", "httpd", "id", "ip", "ls", "mkdir", "mv", "nc", "rm", "sh", "sleep", "sync",
    "tail",
)


def up(layout: Layout, addons: list[Addon], progress: Progress, keep_compiler: bool = False) -> Context:
    """Bring up what is missing: packages, programs, network, control plane, nodes, addons.

    Raises BedError; what is up by then stays up, and the next call goes on from there.
    """
    if os.geteuid() != 0:
        raise Unsupported("namespaces, mounts and cgroups take root; a cluster of yours can be named by KUBECONFIG instead")
    if packages.missing(packages.NODE):
        with progress.slow_step("Debian packages"):
            packages.install(packages.NODE)
    core = [addon for addon in addons if addon.name in CORE]
    built = builds.build(["kubernetes", "registry", *_groups(core)], layout, progress)
    programs = built["kubernetes"].programs
    with progress.step("network, cgroups, keys"):
        layout.state.mkdir(mode=0o711, parents=True, exist_ok=True)
        kernel.raise_limits(layout)
        cgroups.make(NODES)
        network.make(NODES)
        keys.make(layout.keys)
    with progress.step("registry"):
        images = registry.start(layout, built["registry"].programs)
        _push_busybox(layout, images)
    with progress.step("control plane"):
        control.start(layout, programs)
    for one in NODES:
        with progress.step(one.name):
            node.start(layout, programs, one)
    context = Context(layout, Kubectl(programs / "kubectl", layout.kubeconfig), images, built, progress)
    install(core, context)
    progress.say("the cluster is ready; addons follow")
    rest = [addon for addon in addons if addon not in core]
    built.update(builds.build(_groups(rest), layout, progress))
    _link_programs(layout, built)
    install(rest, context)
    if not keep_compiler:
        builds.forget_compiler(layout)
    return context


def _groups(addons: list[Addon]) -> list[str]:
    """The builds that addons need, each once."""
    return list(dict.fromkeys(group for addon in addons for group in addon.groups))


def _link_programs(layout: Layout, built: Mapping[str, builds.Programs]) -> None:
    """One folder for people and playbooks to find kubectl and helm in, whatever the builds' keys are."""
    folder = layout.programs
    folder.mkdir(parents=True, exist_ok=True)
    for group in built.values():
        for program in group.programs.iterdir():
            link = folder / program.name
            link.unlink(missing_ok=True)
            link.symlink_to(program)


def _push_busybox(layout: Layout, images: registry.Registry) -> None:
    """The pods' sandbox and the volumes' helper."""
    folder = layout.cache / "layers"
    folder.mkdir(parents=True, exist_ok=True)
    layer = static_layer(folder / "busybox.tar", {"/bin/busybox": Path("/bin/busybox")}, {f"/bin/{name}": "busybox" for name in _BUSYBOX})
    image = Image((layer,), Config(command=("/bin/sleep", "2147483647"), environment=("PATH=/bin",)))
    for name in ("pause", "busybox"):
        images.push(name, "1", image)


def down(layout: Layout, progress: Progress, keep: bool = False) -> None:
    """Take everything down; `keep` leaves etcd, the keys and the volumes, and the next `up` resumes with them."""
    if not layout.state.exists() and not cgroups.exists():
        progress.say("no bed is up")
        return
    with progress.step("processes"):
        _stop(layout)
    with progress.step("mounts, network, cgroups"):
        mounts.remove(layout.state)
        # A build of an image that was ended leaves its container mounted.
        mounts.remove(layout.cache / "buildah")
        for one in NODES:
            mounts.remove_containers(layout.node(one) / "run")
        network.remove(NODES)
        cgroups.remove()
        kernel.restore_limits(layout)
    with progress.step("state"):
        kept = (layout.etcd, layout.keys, layout.volumes, layout.kubeconfig) if keep else ()
        for path in layout.state.glob("*"):
            if path not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if layout.state.exists() and not kept:
            layout.state.rmdir()
        mounts.remove_links(layout.state)
        mounts.remove_folders()


def _stop(layout: Layout) -> None:
    """The API's data is closed in order; everything else may just be killed."""
    for daemon in reversed(control.daemons(layout, layout.programs).values()):
        daemon.stop()
    daemons.stop_all()


def status(layout: Layout) -> dict[str, Any]:
    """What others need to know to use the bed; `up` says whether its registry answers now."""
    images = registry.Registry(REGISTRY)
    answers = images.answers()
    return {
        "up": answers,
        "kubeconfig": str(layout.kubeconfig),
        "context": keys.CONTEXT,
        "server": control.server(),
        "nodes": {one.name: one.address for one in NODES},
        "host_address": HOST_ADDRESS,
        "registry": REGISTRY,
        "images": images.references() if answers else {},
        "storage_class": "local-path",
        "shared_storage_class": "shared",
        "gateway_class": "envoy",
        "cluster_issuer": "testbed-ca",
        "domain": "sophia.test",
        "ca_file": str(layout.authority),
        "programs": str(layout.programs),
        "gpus": {NODES[-1].name: GPUS},
    }
