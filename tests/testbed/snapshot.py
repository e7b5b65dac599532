# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bed could leave behind on this machine: processes, mounts, namespaces, links, addresses, routes, rules, cgroups, files.

`python -m tests.testbed.snapshot` prints it, so that two moments can be compared by hand.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from .shell import output, succeeds

__all__ = ["difference", "snapshot"]

# Programs of the bed, by the names that the kernel gives their processes.
_PROGRAMS = re.compile(r"^(etcd|kube-|kubelet|containerd|registry$|runc|coredns|envoy|buildah)")
_FILES = ("/etc/hosts", "/etc/resolv.conf")
_FOLDERS = (
    "/run/netns", "/run/containerd", "/run/containerd/s", "/run/containerd/runc/k8s.io", "/var/log/containers", "/var/log/pods", "/var/lib/cni",
    "/var/lib/cni/results", "/var/lib/kubelet", "/var/lib/sophia-testbed",
)
_SETTINGS = ("fs/inotify/max_user_instances", "fs/inotify/max_user_watches", "net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables")


def snapshot() -> dict[str, list[str]]:
    """Each kind's entries, sorted. Figures that change on their own (counters, ids) are left out."""
    cgroups = sorted(str(path) for path in Path("/sys/fs/cgroup").rglob("*") if path.is_dir())
    return {
        "processes": sorted(name for name in _processes() if _PROGRAMS.match(name)),
        "mounts": sorted(line.split(" ")[1] for line in Path("/proc/mounts").read_text().splitlines()),
        "namespaces": _lines("ip", "netns", "list"),
        "links": sorted(item["ifname"] for item in json.loads(output("ip", "-json", "link", "show"))),
        "addresses": sorted(f"{item['ifname']} {one['local']}" for item in json.loads(output("ip", "-json", "address", "show")) for one in item["addr_info"]),
        "routes": _lines("ip", "route", "show", "table", "all"),
        "rules": _lines("nft", "list", "ruleset") if succeeds("nft", "list", "ruleset") else [],
        "cgroups": cgroups,
        "files": [f"{name} {Path(name).read_text()}" for name in _FILES if Path(name).exists()],
        "folders": sorted(str(path) for name in _FOLDERS if Path(name).is_dir() for path in Path(name).iterdir()),
        "settings": [f"{name} {(Path('/proc/sys') / name).read_text().strip()}" for name in _SETTINGS if (Path("/proc/sys") / name).exists()],
    }


def _processes() -> list[str]:
    names = []
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            names.append(comm.read_text().strip())
        except OSError:
            continue
    return names


def _lines(*argv: str) -> list[str]:
    return sorted(line.strip() for line in output(*argv).splitlines() if line.strip())


def difference(before: dict[str, list[str]], after: dict[str, list[str]]) -> dict[str, dict[str, list[str]]]:
    """What came and what went, kind by kind; empty where nothing did."""
    found = {}
    for kind, old in before.items():
        came, went = sorted(set(after[kind]) - set(old)), sorted(set(old) - set(after[kind]))
        if came or went:
            found[kind] = {"came": came, "went": went}
    return found


if __name__ == "__main__":
    print(json.dumps(snapshot(), indent=1))
