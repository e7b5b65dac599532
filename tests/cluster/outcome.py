# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What requests saw of an event, and whether that is what was promised."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .events import Event

__all__ = ["Answer", "Outcome", "judge", "line"]


@dataclass(frozen=True)
class Answer:
    """One request: when it began and ended (monotonic seconds), and what failed of it; empty where it was answered whole."""

    began: float
    ended: float
    failure: str


@dataclass(frozen=True)
class Outcome:
    """What requests saw of one event. Seconds are from the event's begin; `until` is the end of the last that failed."""

    event: Event
    seconds: float
    answered: int
    failures: Counter[str]
    first: float
    until: float
    median: float
    slowest: float

    @property
    def problem(self) -> str:
        """How the event's promise is broken, or nothing."""
        if not self.failures:
            return ""
        if self.event.bound == 0:
            return f"{self.event.name}: {self.failures.total()} requests failed, where none may: {dict(self.failures)}"
        if self.until > self.event.bound:
            return f"{self.event.name}: requests failed until {self.until:.1f} s after its begin, promised are {self.event.bound:.0f}"
        if others := [kind for kind in self.failures if not kind.startswith(self.event.refusals)]:
            return f"{self.event.name}: failed in another way than by a refusal: {others}"
        return ""


def judge(event: Event, answers: Sequence[Answer], began: float, ended: float) -> Outcome:
    """What the requests that were under way between `began` and `ended` (monotonic seconds) saw."""
    seen = [answer for answer in answers if answer.ended >= began and answer.began <= ended]
    failed = [answer for answer in seen if answer.failure]
    times = [answer.ended - answer.began for answer in seen if not answer.failure] or [0.0]
    return Outcome(
        event=event,
        seconds=ended - began,
        answered=len(seen) - len(failed),
        failures=Counter(_kind(answer.failure) for answer in failed),
        first=min((answer.ended - began for answer in failed), default=0.0),
        until=max((answer.ended - began for answer in failed), default=0.0),
        median=statistics.median(times),
        slowest=max(times),
    )


def _kind(failure: str) -> str:
    """A refusal by its status and code, anything else as it was told: identifiers would make each one its own kind."""
    status, _, text = failure.partition(" ")
    if not status.isdigit():
        return failure
    code = re.search(r'"code": *"?(\w+)', text)
    return f"{status} {code.group(1)}" if code else failure[:80]


def line(outcome: Outcome) -> str:
    failed = outcome.failures.total()
    when = f", {outcome.first:.1f} to {outcome.until:.1f} s after its begin: {dict(outcome.failures)}" if failed else ""
    times = f"median {outcome.median:.3f} s, slowest {outcome.slowest:.3f} s"
    return f"{outcome.event.name:<10} {outcome.seconds:6.1f} s  {outcome.answered:6} answered, {times}; {failed} failed{when}"
