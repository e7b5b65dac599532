# SPDX-License-Identifier: GPL-3.0-or-later
"""The questions to ask, and what the answers come to."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from .cluster import OUTSIDE, Peer
from .cyclonus import Query
from .table import Path, Port

__all__ = ["Difference", "differences", "queries", "render"]

# A port that nobody listens on and no row names, so that a policy which opens a whole pod shows.
STRANGE = Port(4242)
WEB = (Port(80), Port(443))


@dataclass(frozen=True)
class Difference:
    query: Query
    allowed: bool

    def __str__(self) -> str:
        source, target = (f"{peer.name} ({peer.namespace}/{peer.pod})" if peer.pod else peer.name for peer in (self.query.source, self.query.target))
        verdict = "is open, and not in the table" if self.allowed else "is in the table, and not open"
        return f"{source} -> {target} port {self.query.port}: {verdict}"


def queries(peers: Sequence[Peer], table: Collection[Path], closed: Collection[str]) -> list[Query]:
    """Every pod to every other and to the outside, and the outside to every pod, over every port that a row names, a pod opens, or nobody knows.

    `closed`: the namespaces whose pods are judged; a path between two others is nobody's business.
    """
    named = {path.port for path in table}
    asked = []
    everybody = [*peers, *OUTSIDE]
    for source in everybody:
        for target in everybody:
            if source is target or not {source.namespace, target.namespace} & set(closed):
                continue
            names = dict(target.ports)
            ports = named | set(WEB) | {STRANGE} | set(names)
            asked += [Query(source, target, port, names.get(port, "")) for port in sorted(ports)]
    return asked


def differences(asked: Iterable[Query], answers: Iterable[bool], table: Collection[Path]) -> list[Difference]:
    return [
        Difference(query, allowed) for query, allowed in zip(asked, answers, strict=True)
        if allowed != (Path(query.source.name, query.target.name, query.port) in table)
    ]


def render(asked: Sequence[Query], answers: Sequence[bool]) -> str:
    """Who reaches whom, by name, over which ports."""
    sources = list(dict.fromkeys(query.source.name for query in asked))
    targets = list(dict.fromkeys(query.target.name for query in asked))
    open_ports: dict[tuple[str, str], set[Port]] = {}
    for query, allowed in zip(asked, answers, strict=True):
        if allowed:
            open_ports.setdefault((query.source.name, query.target.name), set()).add(query.port)
    cells = [["from \\ to", *targets]]
    for source in sources:
        cells.append([source, *(" ".join(map(str, sorted(open_ports.get((source, target), ())))) or "." for target in targets)])
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
