# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian packages that the bed runs or builds with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

from .errors import CommandFailed, Unsupported
from .shell import output, run

__all__ = ["NODE", "ROOTS", "install"]

NODE = (
    "busybox-static", "ca-certificates", "containerd", "containernetworking-plugins", "iproute2", "nftables", "openssl", "procps", "runc",
    "util-linux",
)
ROOTS = ("mmdebstrap",)


def missing(names: Iterable[str]) -> list[str]:
    """Those of the packages that are not installed."""
    wanted = list(names)
    try:
        known = output("dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *wanted)
    except CommandFailed:  # it fails where it knows one of them not at all
        known = "".join(_status(name) for name in wanted)
    installed = {line.split()[0] for line in known.splitlines() if line.endswith(" installed")}
    return [name for name in wanted if name not in installed]


def _status(name: str) -> str:
    try:
        return output("dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", name)
    except CommandFailed:
        return ""


def install(names: Iterable[str]) -> bool:
    """Install what is missing; say whether anything was.

    Raises Unsupported where there is no apt, CommandFailed where apt fails.
    """
    if not (wanted := missing(names)):
        return False
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Unsupported(f"these packages are missing, and installing them takes root and apt: {' '.join(wanted)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-q", environ=quiet)
    run("apt-get", "install", "-qy", "--no-install-recommends", *wanted, environ=quiet)
    return True
