# SPDX-License-Identifier: GPL-3.0-or-later
"""The bed's own branch in every cgroup hierarchy, v1 (also hybrid) and v2.

All daemons live under `sophia-testbed/daemons`, each node's pods under `sophia-testbed/NODE`; what lies in the branch is the bed's.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from .errors import NotReady, Unsupported
from .layout import Node

__all__ = ["adopt", "exists", "holds", "make", "members", "remove", "root_of"]

MOUNT = Path("/sys/fs/cgroup")
BRANCH = "sophia-testbed"
DAEMONS = f"{BRANCH}/daemons"
# A branch weighs as one process outside, however many are in it. A cluster that starves beside a busy machine's other work loses its leases.
WEIGHTS = {"cpu.shares": "32768", "cpu.weight": "3200"}


def root_of(node: Node) -> str:
    """The kubelet's cgroupRoot."""
    return f"/{BRANCH}/{node.name}"


def hierarchies(mount: Path = MOUNT) -> list[Path]:
    """The roots of all hierarchies: the mount itself with cgroup v2, else one folder a controller."""
    if (mount / "cgroup.controllers").exists():
        return [mount]
    found = sorted({path.parent.resolve() for path in mount.glob("*/cgroup.procs")})
    if not found:
        raise Unsupported(f"no cgroups under {mount}")
    return found


def make(nodes: tuple[Node, ...], mount: Path = MOUNT) -> None:
    """Make the branch with a place for the daemons and each node's pods."""
    for hierarchy in hierarchies(mount):
        for path in (BRANCH, DAEMONS, *(root_of(node).lstrip("/") for node in nodes)):
            folder = hierarchy / path
            folder.mkdir(exist_ok=True)
            # cgroup v1: a new cpuset is empty, and nothing can run in it.
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (hierarchy / name).exists() and (folder / name).exists():
                    (folder / name).write_text((hierarchy / name).read_text())
        if (hierarchy / "cgroup.controllers").exists():
            enable(hierarchy)
        for name, weight in WEIGHTS.items():
            if (file := hierarchy / BRANCH / name).exists():
                file.write_text(weight)


def enable(hierarchy: Path) -> None:
    """cgroup v2: hand every controller down to the nodes' places."""
    controllers = (hierarchy / "cgroup.controllers").read_text().split()
    for folder in (hierarchy, hierarchy / BRANCH):
        for controller in controllers:
            with suppress(OSError):  # some controllers stay with the root (a realtime process holds cpu)
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def adopt(pid: int, mount: Path = MOUNT) -> None:
    """Put a process, and all that it will start, among the daemons."""
    for hierarchy in hierarchies(mount):
        if (procs := hierarchy / DAEMONS / "cgroup.procs").exists():
            with suppress(ProcessLookupError):
                procs.write_text(str(pid))


def holds(pid: int) -> bool:
    """Whether a process is one of the daemons."""
    try:
        return f"/{DAEMONS}\n" in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False


def members(mount: Path = MOUNT) -> set[int]:
    """Every process anywhere in the branch."""
    pids: set[int] = set()
    for hierarchy in hierarchies(mount):
        for procs in (hierarchy / BRANCH).rglob("cgroup.procs"):
            with suppress(OSError):
                pids.update(int(line) for line in procs.read_text().split())
    return pids


def exists(mount: Path = MOUNT) -> bool:
    return any((hierarchy / BRANCH).exists() for hierarchy in hierarchies(mount))


def remove(mount: Path = MOUNT, seconds: float = 10.0) -> None:
    """Remove the branch, whose processes have ended. The kernel may hold a cgroup busy for a moment after that."""
    limit = time.monotonic() + seconds
    while True:
        for hierarchy in hierarchies(mount):
            branch = hierarchy / BRANCH
            for folder in (*sorted((path for path in branch.rglob("*") if path.is_dir()), reverse=True), branch):
                with suppress(OSError):
                    folder.rmdir()
        if not exists(mount):
            return
        if time.monotonic() > limit:
            raise NotReady(f"cgroups stay busy: {members(mount)}")
        time.sleep(0.1)
