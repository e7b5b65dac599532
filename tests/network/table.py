# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of docs/network.md as data: who may open a connection to whom."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import BadTable

__all__ = ["Path", "Port", "parse"]

HEADER = "| From | To | Ports | Why |"
STAND_IN = "| From | To | Ports | Instead of |"


@dataclass(frozen=True, order=True)
class Port:
    number: int
    protocol: str = "TCP"

    def __str__(self) -> str:
        return str(self.number) if self.protocol == "TCP" else f"{self.number} {self.protocol}"


@dataclass(frozen=True, order=True)
class Path:
    """A way from one name to another, each the label app.kubernetes.io/name of pods or one of the names that the page explains."""

    source: str
    target: str
    port: Port


def parse(page: str, stand_in: bool = False) -> frozenset[Path]:
    """Every path of the page's table. BadTable where a row cannot be read or there is no table.

    `stand_in`: where the stand-in for OpenRouter runs, the rows of the second table hold as well, each instead of the same source's way to another target.
    """
    paths = {path for row in _rows(page, HEADER) for path in _paths(row)}
    if not paths:
        raise BadTable(f"there is no table with the header {HEADER}")
    for row in _rows(page, STAND_IN) if stand_in else ():
        added, instead = set(_paths(row)), _names(_cells(row)[3])
        paths = added | {path for path in paths if not (path.target in instead and path.source in {new.source for new in added})}
    return frozenset(paths)


def _rows(page: str, header: str) -> Iterator[str]:
    lines = iter(page.splitlines())
    for line in lines:
        if line.strip() == header:
            next(lines, None)
            for row in lines:
                if not row.startswith("|"):
                    return
                yield row


def _paths(row: str) -> Iterator[Path]:
    cells = _cells(row)
    for source in _names(cells[0]):
        for target in _names(cells[1]):
            for port in cells[2].split(","):
                yield Path(source, target, _port(port.strip(), row))


def _cells(row: str) -> list[str]:
    cells = [cell.strip().replace("`", "") for cell in row.strip().strip("|").split("|")]
    if len(cells) != 4 or not all(cells):
        raise BadTable(f"a row has four cells: {row}")
    return cells


def _names(cell: str) -> list[str]:
    return [name.strip() for name in cell.split(",")]


def _port(text: str, row: str) -> Port:
    match = re.fullmatch(r"(\d+)(?: (TCP|UDP|SCTP))?", text)
    if not match:
        raise BadTable(f"{text!r} is no port: {row}")
    return Port(int(match.group(1)), match.group(2) or "TCP")
