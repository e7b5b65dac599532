# SPDX-License-Identifier: GPL-3.0-or-later
"""The wall itself: cases side by side in lanes, and what each client saw."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.bed import Bed
from tests.e2e.faults.cases import DEADLINE, Case, Fault, batches, expected
from tests.e2e.faults.gateways import EMBEDDING, LANES, Gateway, Lane
from tests.e2e.faults.look import View, body, look

__all__ = ["Outcome", "run"]

_SLACK = 6.0
_NOTHING = Fault("none", "slow", {})


@dataclass
class Outcome:
    """A case and what came of it. `billed` counts the generations that the stand-in charged for; `models` are those
    that it charged. `wrong` says what is not as it must be."""

    case: Case
    identity: str
    view: View
    billed: int
    models: list[str]
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Turn:
    case: Case
    lane: Lane
    identity: str
    first: str


def run(gateway: Gateway, progress: Callable[[str], None] = lambda _: None) -> list[Outcome]:
    """Every case that the gateway has a route for, a batch of them at a time."""
    lanes = [gateway.lane(lane) for lane in LANES]
    embedding = gateway.lane(EMBEDDING)
    texts = _References(gateway.routes)
    outcomes: list[Outcome] = []
    marked = False
    for every in batches():
        batch = [case for case in every if gateway.takes(case)]
        if not batch:
            continue
        if marked:
            gateway.fresh()
        marked = batch[0].fault.nature == "key"
        chats = iter(lanes)
        places = [(case, embedding if case.route == "embeddings" else next(chats)) for case in batch]
        outcomes += asyncio.run(_batch(gateway, places, len(outcomes), texts))
        progress(f"{len(outcomes)} cases: {batch[0].fault.name}, {batch[0].scope}")
    return outcomes


async def _batch(
    gateway: Gateway, batch: list[tuple[Case, Lane]], count: int, texts: _References
) -> list[Outcome]:
    turns = [
        _Turn(case, lane, f"wall-{count + place}", await asyncio.to_thread(gateway.first, case, lane))
        for place, (case, lane) in enumerate(batch)
    ]
    rules = [rule for turn in turns for rule in _rules(turn, gateway.bed)]
    before = len((await asyncio.to_thread(gateway.bed.truth))["generations"])
    await asyncio.to_thread(gateway.bed.faults, rules)
    async with httpx.AsyncClient() as client:
        views = await asyncio.gather(*(_look(client, gateway, turn) for turn in turns))
    await asyncio.to_thread(gateway.bed.faults, [])
    charged = await asyncio.to_thread(_charged, gateway, before)
    outcomes = []
    for turn, view in zip(turns, views, strict=True):
        mine = [each for each in charged if each["streamed"] == turn.case.stream]
        own = [each["model"] for each in mine if each["model"] in turn.lane.models]
        outcome = Outcome(turn.case, turn.identity, view, len(own), own)
        outcome.wrong = _wrong(turn, view, texts, exact=gateway.exact)
        outcomes.append(outcome)
    return outcomes


def _rules(turn: _Turn, bed: Bed) -> list[dict[str, Any]]:
    """What the stand-in does: to the first candidate always or once, to one of two keys, or to all."""
    fault, first = turn.case.fault, {"model": turn.first, "method": "POST"}
    match turn.case.scope:
        case "first":
            matches: list[dict[str, Any]] = [first]
        case "once" if fault.nature == "key":
            matches = [first | {"key_hash": key} for key in bed.truth(summary=True)["keys"]][:1]
        case "once":
            matches = [first | {"times": 1}]
        case _:
            matches = [{"model": model, "method": "POST"} for model in turn.lane.models]
    return [{"match": match, "fault": fault.rule} for match in matches]


async def _look(client: httpx.AsyncClient, gateway: Gateway, turn: _Turn) -> View:
    headers, request = gateway.request(turn.case, turn.lane, turn.identity)
    return await look(client, f"{gateway.url}/v1/{turn.case.route}", headers, request, turn.case, DEADLINE + _SLACK)


def _charged(gateway: Gateway, before: int) -> list[dict[str, Any]]:
    """The generations since, once none is open any more."""
    end = time.monotonic() + 5.0
    while gateway.bed.truth(summary=True)["open"] and time.monotonic() < end:
        time.sleep(0.02)
    return [each for each in gateway.bed.truth()["generations"][before:] if each["cost_nano"]]


class _References:
    """What each model answers when nothing is wrong, asked of a stand-in of its own."""

    def __init__(self, routes: Iterable[str]) -> None:
        self._known: dict[tuple[str, str], str] = {}
        with tempfile.TemporaryDirectory() as folder:
            bed = Bed(Path(folder))
            try:
                bed.start_sandbox()
                asyncio.run(self._learn(bed, routes))
            finally:
                bed.close()

    async def _learn(self, bed: Bed, routes: Iterable[str]) -> None:
        headers = {"authorization": f"Bearer {bed.upstream_key}"}
        async with httpx.AsyncClient() as client:
            for route in routes:
                case = Case(_NOTHING, "chat/completions" if route == "chat" else route, False, "all")  # type: ignore[arg-type]
                for lane in (EMBEDDING,) if route == "embeddings" else LANES:
                    for model in lane.models:
                        url = f"{bed.sandbox_url}/api/v1/{case.route}"
                        view = await look(client, url, headers, body(case, model), case, 30.0)
                        assert view.kind == "whole" and view.text, f"{route} of {model} gives no text: {view}"
                        self._known[route, model] = view.text

    def of(self, case: Case, model: str) -> str:
        """The whole text that a model gives on a case's route."""
        return self._known[case.route, model]


def _wrong(turn: _Turn, view: View, texts: _References, *, exact: bool) -> list[str]:
    """What a client may not see: another end than expected, and never a text that is not a model's own."""
    want = expected(turn.case)
    answers = {model: texts.of(turn.case, model) for model in turn.lane.models}
    wrong = []
    better = want.kind == "broken" and view.kind == "whole"
    if view.kind != want.kind and not better:
        wrong.append(f"{view.kind} ({view.status}, {view.code}) and not {want.kind}")
    elif exact and want.kind == "refused" and view.status != want.status:
        wrong.append(f"refused with {view.status} and not {want.status}")
    if view.kind == "whole" and view.text not in answers.values():
        wrong.append("a part of an answer passed off as whole")
    elif exact and view.kind == "whole" and want.by is not None:
        by = next(model for model, text in answers.items() if text == view.text)
        if (by == turn.first) != (want.by == "first"):
            wrong.append(f"{by} answered, which is not the {want.by}")
    if view.kind == "broken" and not any(text.startswith(view.text) for text in answers.values()):
        wrong.append("what arrived is no beginning of an answer")
    if view.seconds > DEADLINE + _SLACK / 2:
        wrong.append(f"{view.seconds:.1f} s")
    return wrong
