# SPDX-License-Identifier: GPL-3.0-or-later
"""The bed as a whole: up, down, status."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from . import builds, cgroups, control, daemons, kernel, keys, mounts, network, node, packages, registry
from .addons import Addon, Context, install
from .errors import Unsupported
from .images import Config, Image, static_layer
from .kube import Kubectl
from .layout import NODES, Layout
from .progress import Progress

__all__ = ["down", "status", "up"]

_BUSYBOX = (
    "cat", "chmod", "cp", "env", "hostname", "httpd", "id", "ip", "ls", "mkdir", "mv", "nc", "rm", "sh", "sleep", "sync",
    "tail",
)


def up(layout: Layout, addons: list[Addon], progress: Progress) -> Context:
    """Bring up what is missing: packages, programs, network, control plane, nodes, addons.

    Raises BedError; what is up by then stays up, and the next call goes on from there.
    """
    if os.geteuid() != 0:
        raise Unsupported("namespaces, mounts and cgroups take root; a cluster of yours can be named by KUBECONFIG instead")
    if packages.missing(packages.NODE):
        with progress.slow_step("Debian packages"):
            packages.install(packages.NODE)
    groups = list(dict.fromkeys(["kubernetes", "registry", *(group for addon in addons for group in addon.groups)]))
    built = builds.build(groups, layout, progress)
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
    install(addons, context)
    return context


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
        network.remove(NODES)
        cgroups.remove()
        kernel.restore_limits(layout)
    with progress.step("state"):
        for path in layout.state.iterdir() if layout.state.exists() else ():
            if keep and path in (layout.etcd, layout.keys, layout.volumes, layout.kubeconfig):
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not keep:
            layout.state.rmdir()
        mounts.remove_links(layout.state)


def _stop(layout: Layout) -> None:
    """The API's data is closed in order; everything else may just be killed."""
    nowhere = Path("/")
    plane = {daemon.name: daemon for daemon in control.daemons(layout, nowhere).values()}
    for name in ("scheduler", "controllers", "apiserver", "etcd"):
        if name in plane:
            plane[name].stop()
    daemons.stop_all()


def status(layout: Layout) -> dict[str, Any]:
    """What the bed is, as the last `up` wrote it; `up` says whether it runs."""
    path = layout.state / "status.json"
    document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return {"up": bool(cgroups.members()), **document}
