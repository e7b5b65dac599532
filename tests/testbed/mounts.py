# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounts, sockets, links and folders that kubelets, containerds and their tools leave behind."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from .shell import run

__all__ = ["below", "remove", "remove_containers", "remove_folders", "remove_links"]

_SHIM_SOCKETS = Path("/run/containerd/s")
_NAMESPACES = Path("/run/netns")
_RUNC = Path("/run/containerd/runc/k8s.io")
_NETWORK_RESULTS = Path("/var/lib/cni/results")
# At a fixed place whatever the kubelet's own folder is.
_DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")
_CONTAINER_LOGS = Path("/var/log/containers")


def below(folder: Path, table: str) -> list[str]:
    """Mount points under a folder in a /proc/mounts table, the innermost first (proc(5): spaces are written \\040)."""
    points = (re.sub(r"\\(\d{3})", lambda match: chr(int(match.group(1), 8)), line.split(" ")[1]) for line in table.splitlines())
    return sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True)


def remove(folder: Path) -> None:
    """Unmount everything under a folder; stacked mounts take more than one round."""
    while points := below(folder, Path("/proc/mounts").read_text()):
        for point in points:
            run("umount", "--lazy", point)


def remove_containers(folder: Path) -> None:
    """Of each container whose bundle lies under a containerd's state folder: its shim's socket, runc's state, and CNI's result.

    They lie outside the folders that containerd is given; the socket's path is in the bundle's file `address`.
    """
    for address in folder.rglob("io.containerd.runtime.v2.task/*/*/address"):
        name = address.parent.name
        socket = Path(address.read_text().strip().removeprefix("unix://"))
        if socket.parent == _SHIM_SOCKETS:
            socket.unlink(missing_ok=True)
        shutil.rmtree(_RUNC / name, ignore_errors=True)
        for result in _NETWORK_RESULTS.glob(f"*-{name}-*"):
            result.unlink()


def remove_links(folder: Path) -> None:
    """The kubelet links each container's log in /var/log/containers; remove those into `folder`, and an empty folder."""
    if not _CONTAINER_LOGS.is_dir():
        return
    for link in _CONTAINER_LOGS.iterdir():
        if link.is_symlink() and os.readlink(link).startswith(f"{folder}/"):
            link.unlink()
    _remove_empty(_CONTAINER_LOGS)


def remove_folders() -> None:
    """Remove the folders that the bed's programs make at fixed places, as far as nothing else is in them; also what `ip netns` mounts."""
    for name in ("DEPRECATION", "kubelet.sock", "kubelet_internal_checkpoint"):
        (_DEVICE_PLUGINS / name).unlink(missing_ok=True)
    for folder in (_DEVICE_PLUGINS, _NETWORK_RESULTS, _SHIM_SOCKETS, _RUNC):
        _remove_empty(folder)
        _remove_empty(folder.parent)
    _remove_empty(_RUNC.parent.parent)
    if _NAMESPACES.is_dir() and not any(_NAMESPACES.iterdir()):
        # On itself, once for each first `ip netns add`; one cannot tell such a mount by its device.
        for line in Path("/proc/mounts").read_text().splitlines():
            if line.split(" ")[1] == str(_NAMESPACES):
                run("umount", _NAMESPACES)
        _remove_empty(_NAMESPACES)


def _remove_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
