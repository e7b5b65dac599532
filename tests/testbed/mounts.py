# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounts, sockets and links that kubelets and containerds leave behind when they are killed."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .shell import run

__all__ = ["below", "remove", "remove_links", "remove_sockets"]

_SHIM_SOCKETS = Path("/run/containerd/s")
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


def remove_sockets(folder: Path) -> None:
    """Each shim's socket lies outside containerd's folders, and its path in the file `address` of a container's bundle."""
    for address in folder.rglob("io.containerd.runtime.v2.task/*/*/address"):
        socket = Path(address.read_text().strip().removeprefix("unix://"))
        if socket.parent == _SHIM_SOCKETS:
            socket.unlink(missing_ok=True)
    for empty in (_SHIM_SOCKETS, _SHIM_SOCKETS.parent):
        if empty.is_dir() and not any(empty.iterdir()):
            empty.rmdir()


def remove_links(folder: Path) -> None:
    """The kubelet links each container's log in /var/log/containers; remove those into `folder`, and an empty folder."""
    if not _CONTAINER_LOGS.is_dir():
        return
    for link in _CONTAINER_LOGS.iterdir():
        if link.is_symlink() and os.readlink(link).startswith(f"{folder}/"):
            link.unlink()
    if not any(_CONTAINER_LOGS.iterdir()):
        _CONTAINER_LOGS.rmdir()
