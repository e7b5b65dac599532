# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests through the Gateway's address over TLS, at a steady rate, while the platform is updated, drained and hurt.

    python -m tests.cluster.load --rate 50                 all events, one after the other
    python -m tests.cluster.load --rate 20 update drain    some

Needs what site.yml deploys with the stand-in for OpenRouter (`inventories/local`). Every other request is streamed and only its
whole end counts; every fourth comes on a connection of its own. Nothing is tried again: each failure is one that a user would see.
Afterwards the ledger in Postgres has to equal what the stand-in has billed. Exit status 1 where a promise is not kept.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

from ..e2e.load import Steady
from . import account
from .events import EVENTS, Event
from .outcome import Answer, Outcome, judge, line
from .platform import Cluster, CommandFailed, Platform

__all__ = ["Recorder", "Report", "run"]

STEADY = Event("steady", "nothing happens", act=lambda cluster: time.sleep(15))
# How long after an event's end its failures still count as its own.
TAIL_SECONDS = 5.0
QUIET_SECONDS = 3.0


@dataclass
class Report:
    rate: float = 0.0
    outcomes: list[Outcome] = field(default_factory=list)
    account: account.Account | None = None

    @property
    def problems(self) -> list[str]:
        money = self.account.problems if self.account else ()
        return [outcome.problem for outcome in self.outcomes if outcome.problem] + list(money)


class Recorder:
    """Asks, and keeps what came of it."""

    def __init__(self, platform: Platform, key: str) -> None:
        self._platform = platform
        self._url = f"https://{platform.address}/v1/chat/completions"
        self._headers = {"host": platform.host, "authorization": f"Bearer {key}"}
        self._lock = threading.Lock()
        self._answers: list[Answer] = []

    def answers(self) -> list[Answer]:
        with self._lock:
            return list(self._answers)

    async def ask(self, session: aiohttp.ClientSession, number: int) -> None:
        began = time.monotonic()
        try:
            failure = await self._one(session, number)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            failure = f"{type(error).__name__} {error}"[:160]
        answer = Answer(began, time.monotonic(), failure)
        with self._lock:
            self._answers.append(answer)

    async def _one(self, session: aiohttp.ClientSession, number: int) -> str:
        stream = number % 2 == 0
        # No two questions are alike, so that none is answered from the cache.
        text = f"{number} {secrets.token_hex(8)}"
        chat = {"model": "openai/gpt-4o-mini", "stream": stream, "max_tokens": 20, "messages": [{"role": "user", "content": text}]}
        headers = self._headers | ({"connection": "close"} if number % 4 == 0 else {})
        sent = session.post(self._url, json=chat, headers=headers, ssl=self._platform.tls, server_hostname=self._platform.host)
        async with sent as answer:
            body = await answer.text()
            if answer.status == 200 and ("data: [DONE]" if stream else '"choices"') in body:
                return ""
            return f"{answer.status} {body[-160:].strip()}"


def run(platform: Platform, rate: float, events: Sequence[Event], settle: float = 180.0) -> Report:
    """Put the load on, let the events come one after the other, compare the accounts.

    Raises CommandFailed where an event cannot be brought about, or the platform does not become whole again after it.
    """
    report = Report()
    key = platform.key()
    recorder = Recorder(platform, key)
    time.sleep(QUIET_SECONDS)
    since = time.time()
    time.sleep(QUIET_SECONDS)
    spans: list[tuple[Event, float, float]] = []
    with Steady(recorder.ask, rate, most=rate * 30) as steady:
        for event in (STEADY, *events):
            began = time.monotonic()
            event.act(platform.cluster)
            time.sleep(TAIL_SECONDS)
            spans.append((event, began, time.monotonic()))
            print(line(judge(*_of(spans[-1], recorder))), flush=True)
    report.rate = steady.reached
    report.outcomes = [judge(*_of(span, recorder)) for span in spans]
    report.account = account.settled(platform.cluster, since, settle)
    return report


def _of(span: tuple[Event, float, float], recorder: Recorder) -> tuple[Event, list[Answer], float, float]:
    event, began, ended = span
    return event, recorder.answers(), began, ended


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("events", nargs="*", metavar="EVENT", help="; ".join(f"{event.name}: {event.what}" for event in EVENTS.values()))
    given = parser.parse_args()
    if unknown := set(given.events) - EVENTS.keys():
        parser.error(f"no such event: {', '.join(sorted(unknown))}")
    try:
        report = run(Platform.of(Cluster.of()), given.rate, [EVENTS[name] for name in given.events or EVENTS])
    except CommandFailed as error:
        print(f"load: {error}", file=sys.stderr)
        return 2
    print(f"rate       {report.rate:.1f} requests/s of {given.rate:g}")
    if (money := report.account) is not None:
        print(f"account    {money.generations} generations, {money.billed} nano-dollars billed, {money.booked} booked, {money.unsettled} unsettled")
    for problem in report.problems[:20]:
        print(f"PROBLEM    {problem}")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
