# SPDX-License-Identifier: GPL-3.0-or-later
"""The bed's network: a bridge on this machine, and a namespace on it for each node.

This machine keeps one bridge, one link for each node and a route for each range; rules live in the nodes' namespaces and go with them.
Services and pods are reached from here through the first node.
"""

from __future__ import annotations

from pathlib import Path

from .layout import BRIDGE, HOST_ADDRESS, NODES, SERVICE_RANGE, Node
from .shell import output, run, succeeds

__all__ = ["inside", "make", "remove"]


def inside(node: Node, *argv: str) -> str:
    """Run a program in a node's network namespace."""
    return output("nsenter", f"--net=/run/netns/{node.namespace}", *argv)


def make(nodes: tuple[Node, ...] = NODES) -> None:
    """Make what is missing of the network; what is there stays."""
    if not succeeds("ip", "link", "show", BRIDGE):
        run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "address", "replace", f"{HOST_ADDRESS}/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    for node in nodes:
        if not Path("/run/netns", node.namespace).exists():
            _make_namespace(node)
    for node in nodes:
        for other in nodes:
            if other != node:
                inside(node, "ip", "route", "replace", other.pods, "via", other.address)
        run("ip", "route", "replace", node.pods, "via", node.address)
    run("ip", "route", "replace", SERVICE_RANGE, "via", nodes[0].address)


def _make_namespace(node: Node) -> None:
    run("ip", "netns", "add", node.namespace)
    run("ip", "link", "add", node.link, "type", "veth", "peer", "name", "eth0", "netns", node.namespace)
    run("ip", "link", "set", node.link, "master", BRIDGE, "up")
    inside(node, "ip", "link", "set", "lo", "up")
    inside(node, "ip", "address", "add", f"{node.address}/24", "dev", "eth0")
    inside(node, "ip", "link", "set", "eth0", "up")
    inside(node, "ip", "route", "add", "default", "via", HOST_ADDRESS)
    inside(node, "sysctl", "-qw", "net.ipv4.ip_forward=1")


def remove(nodes: tuple[Node, ...] = NODES) -> None:
    """Remove all of it: links, addresses, rules and routes go with the namespaces and the bridge."""
    for node in nodes:
        if Path("/run/netns", node.namespace).exists():
            run("ip", "netns", "delete", node.namespace)
        # The namespace's end of the pair goes later, when the kernel has let the namespace go.
        if succeeds("ip", "link", "show", node.link):
            succeeds("ip", "link", "delete", node.link)
    if succeeds("ip", "link", "show", BRIDGE):
        run("ip", "link", "delete", BRIDGE)
