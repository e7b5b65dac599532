# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel settings of the whole machine that the bed raises while it is up, and puts back."""

from __future__ import annotations

import json
from pathlib import Path

from .layout import Layout

__all__ = ["raise_limits", "restore_limits"]

# Each kubelet, containerd and controller watches files.
LIMITS = {"fs/inotify/max_user_instances": 1024, "fs/inotify/max_user_watches": 524288}
_SYSCTL = Path("/proc/sys")


def _memory(layout: Layout) -> Path:
    return layout.state / "kernel.json"


def raise_limits(layout: Layout, sysctl: Path = _SYSCTL) -> None:
    """Raise what is lower, and remember what was there before the first time."""
    before = json.loads(_memory(layout).read_text()) if _memory(layout).exists() else {}
    for name, value in LIMITS.items():
        path = sysctl / name
        if (now := int(path.read_text())) < value:
            before.setdefault(name, now)
            _memory(layout).write_text(json.dumps(before))
            path.write_text(str(value))


def restore_limits(layout: Layout, sysctl: Path = _SYSCTL) -> None:
    if _memory(layout).exists():
        for name, value in json.loads(_memory(layout).read_text()).items():
            (sysctl / name).write_text(str(value))
        _memory(layout).unlink()
