# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ledger in the cluster's Postgres against what the stand-in for OpenRouter has billed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass

from .platform import Cluster

__all__ = ["Account", "Booked", "compare", "settled"]

_ROWS = "SELECT attempt, coalesce(generation, ''), coalesce(cost, 0), state FROM spend WHERE at >= "
_PSQL = ("psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--host=/tmp", "--username=postgres", "--dbname=gateway")


@dataclass(frozen=True)
class Booked:
    """One attempt of the ledger; `cost` in nano-dollars."""

    attempt: str
    generation: str
    cost: int
    state: str


@dataclass(frozen=True)
class Account:
    """What came of the comparison; amounts in nano-dollars."""

    generations: int
    billed: int
    booked: int
    unsettled: int
    problems: tuple[str, ...]


def compare(billed: dict[str, int], rows: Iterable[Booked]) -> Account:
    """Every generation that was billed has to be booked once and at its cost, and nothing else."""
    booked: dict[str, int] = {}
    problems, unsettled, total = [], 0, 0
    for row in rows:
        total += row.cost
        unsettled += row.state != "settled"
        if not row.generation:
            if row.cost:
                problems.append(f"{row.attempt} cost {row.cost} without a generation")
        elif row.generation in booked:
            problems.append(f"{row.generation} is booked twice")
        else:
            booked[row.generation] = row.cost
    for generation in sorted(billed.keys() | booked.keys()):
        asked, found = billed.get(generation, 0), booked.get(generation, 0)
        if asked != found:
            problems.append(f"{generation} was billed {asked} and booked {found}")
    if unsettled:
        problems.append(f"{unsettled} attempts are not settled")
    return Account(len(billed), sum(billed.values()), total, unsettled, tuple(problems))


def settled(cluster: Cluster, since: float, seconds: float) -> Account:
    """Compare what began after `since` (epoch seconds) until both agree, for `seconds` at most: the ledger is fed from journals.

    The gateways and the stand-in may run on machines whose clocks differ; leave some quiet seconds before `since`.
    """
    limit = time.monotonic() + seconds
    while True:
        account = compare(_billed(cluster, since), _booked(cluster, since))
        if not account.problems or time.monotonic() > limit:
            return account
        time.sleep(5)


def _billed(cluster: Cluster, since: float) -> dict[str, int]:
    code = (
        "import json,urllib.request as u\n"
        f"t=json.load(u.urlopen('http://127.0.0.1:8787/_sandbox/truth?since={int(since)}',timeout=60))\n"
        "print(json.dumps({g['id']:g['cost_nano'] for g in t['generations']}))"
    )
    pod = cluster.pods("openrouter-sandbox")[0]["metadata"]["name"]
    found: dict[str, int] = json.loads(cluster("exec", pod, "--", "python3", "-c", code))
    return found


def _booked(cluster: Cluster, since: float) -> list[Booked]:
    out = cluster("exec", "postgres-0", "--", *_PSQL, f"--command={_ROWS}{int(since) * 1_000_000_000}")
    cells = (line.split("|") for line in out.splitlines() if line)
    return [Booked(attempt, generation, int(cost), state) for attempt, generation, cost, state in cells]
