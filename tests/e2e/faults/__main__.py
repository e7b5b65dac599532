# SPDX-License-Identifier: GPL-3.0-or-later
"""The fault wall as a command: our gateway and its peers, a table for people and one for programs.

    python -m tests.e2e.faults [--gateways sophia litellm portkey] [--cache .cache/bench] [--output docs/bench]
"""

from __future__ import annotations

import argparse
import csv
import platform
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tests.e2e.faults.cases import DEADLINE, FAULTS, PATIENCE, Fault, expected
from tests.e2e.faults.gateways import Gateway, litellm_gateway, portkey_gateway, sophia_gateway
from tests.e2e.faults.wall import Outcome, run

Row = tuple[str, str, list[Outcome], list[str]]


def main() -> int:
    """The command; 1 where our own gateway is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateways", nargs="+", default=["sophia", "litellm", "portkey"])
    parser.add_argument("--cache", type=Path, default=Path(".cache/bench"))
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    rows = [_try(name, _starts(given.cache)[name]) for name in given.gateways]
    text = _report(rows)
    print(text)
    if given.output is not None:
        (given.output / "faults.md").write_text(text)
        _write(rows, given.output / "faults.csv")
    ours = [row for row in rows if row[0] == "sophia"]
    return int(any(problems or any(outcome.wrong for outcome in outcomes) for _, _, outcomes, problems in ours))


def _starts(cache: Path) -> dict[str, Callable[[Path], AbstractContextManager[Gateway]]]:
    return {
        "sophia": sophia_gateway,
        "litellm": lambda folder: litellm_gateway(folder, cache / "litellm"),
        "portkey": lambda folder: portkey_gateway(folder, cache / "portkey"),
    }


def _try(name: str, start: Callable[[Path], AbstractContextManager[Gateway]]) -> Row:
    with tempfile.TemporaryDirectory() as folder, start(Path(folder)) as gateway:
        outcomes = run(gateway, lambda text: print(f"{name}: {text}", file=sys.stderr, flush=True))
        return gateway.name, gateway.version, outcomes, gateway.account()


def _report(rows: list[Row]) -> str:
    lines = [
        "# The fault wall",
        "",
        "Made by `make faults`. Every fault of the OpenRouter stand-in, on every route that a gateway has, whole and",
        "streamed, before two candidates and two keys. *first*: the fault strikes the first candidate each time; *once*: only",
        "its first attempt, or one of two keys; *all*: everything.",
        f"All gateways have {PATIENCE:g} s to an answer's head and between two pieces; a request has {DEADLINE:g} s.",
        "",
        "| gateway | cases | as it must be | refused or silent, though another try would have served | a broken answer passed "
        "off as whole, or ended without a word | otherwise not | books differ from the bill |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, version, outcomes, problems in rows:
        wrong = [outcome for outcome in outcomes if outcome.wrong]
        untold = [outcome for outcome in wrong if _untold(outcome)]
        lost = [each for each in wrong if expected(each.case).kind == "whole" and each not in untold]
        books = str(len(problems)) if name == "sophia" else "has none"
        rest = len(wrong) - len(untold) - len(lost)
        figures = (len(outcomes), len(outcomes) - len(wrong), len(lost), len(untold), rest, books)
        lines.append(f"| {name} {version} | {' | '.join(map(str, figures))} |")
    lines += ["", "## Chat completions, fault by fault", "", _head(rows), "|---|---|" + "---|---|" * len(rows)]
    for fault in FAULTS:
        for scope in ("first", "once", "all"):
            cells = [_cell(row[2], fault, scope, stream) for row in rows for stream in (False, True)]
            if any(cells):
                lines.append(f"| {fault.name} | {scope} | {' | '.join(cells)} |")
    lines += [
        "",
        "In bold what must not be. *n* × billed: OpenRouter charged so many generations for the one request.",
        "",
        f"Python {platform.python_version()}, Linux {platform.release()}. Peers as their packages come, with a retry and",
        "fallbacks configured; LiteLLM without a database. Of the peers, chat completions and embeddings were tried, of Portkey",
        "no streams: 1.15.2 answers each with a 500 (`TypeError: immutable`) here, on Node.js 20.20 and 24.19.",
    ]
    return "\n".join(lines) + "\n"


def _head(rows: list[Row]) -> str:
    return "| fault | at | " + " | ".join(f"{name}, whole | {name}, stream" for name, *_ in rows) + " |"


def _untold(outcome: Outcome) -> bool:
    return outcome.view.kind == "cut" or any("passed off" in word for word in outcome.wrong)


def _cell(outcomes: list[Outcome], fault: Fault, scope: str, stream: bool) -> str:
    for outcome in outcomes:
        case = outcome.case
        if (case.fault, case.route, case.stream, case.scope) == (fault, "chat/completions", stream, scope):
            text = _words(outcome)
            return f"**{text}**" if outcome.wrong else text
    return ""


def _words(outcome: Outcome) -> str:
    view = outcome.view
    text = f"refused {view.status}" if view.kind == "refused" else view.kind
    if any("passed off" in word for word in outcome.wrong):
        text = "a part as whole"
    elif view.kind == "cut":
        text = "ends untold"
    elif view.kind == "broken":
        text = "told broken"
    if outcome.billed > 1:
        text += f", {outcome.billed} × billed"
    return text


def _write(rows: list[Row], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["gateway", "version", "fault", "scope", "route", "stream", "seen", "status", "code", "billed", "wrong"])
        for name, version, outcomes, _ in rows:
            for outcome in outcomes:
                case, view = outcome.case, outcome.view
                what = (case.fault.name, case.scope, case.route, case.stream)
                seen = (view.kind, view.status, view.code, outcome.billed, "; ".join(outcome.wrong))
                writer.writerow([name, version, *what, *seen])


if __name__ == "__main__":
    sys.exit(main())
