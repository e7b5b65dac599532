# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stand-ins' faults on demand have in common: conditions on a request, and rules that count.

A rule is ``{"match": {…}, "fault": {"kind": …}}``. All conditions of `match` must hold; a rule whose conditions hold is
then counted, so that `every_nth` and `times` are per rule. Which kinds there are is each stand-in's own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import msgspec

__all__ = ["Armed", "Counted", "Match", "written"]


class Match(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which requests. `path` is the end of the path (`/launch`)."""

    path: str | None = None
    method: str | None = None
    every_nth: int | None = None
    probability: float | None = None
    times: int | None = None

    def names(self, method: str, path: str) -> bool:
        """Whether this method and path are meant."""
        return (self.path is None or path.endswith(self.path)) and (
            self.method is None or self.method.upper() == method
        )


class Matching(Protocol):
    """A rule of a stand-in."""

    @property
    def match(self) -> Match:
        """When it strikes."""


R = TypeVar("R", bound=Matching)
F = TypeVar("F")


@dataclass(slots=True)
class Armed(Generic[R]):
    """A rule with its counters."""

    rule: R
    seen: int = 0
    struck: int = 0


@dataclass(slots=True)
class Counted(Generic[R]):
    """The rules in force."""

    seed: int = 0
    armed: list[Armed[R]] = field(default_factory=list)
    _random: random.Random = field(default_factory=random.Random)

    def arm(self, rules: list[R]) -> None:
        """Replace all rules; counters and seed begin anew."""
        self.armed = [Armed(rule) for rule in rules]
        self._random = random.Random(self.seed)  # noqa: S311 (reproducible on purpose)

    def first(self, holds: Callable[[R], bool]) -> R | None:
        """The first rule whose conditions hold and whose turn it is."""
        for armed in self.armed:
            if holds(armed.rule) and self._strikes(armed):
                return armed.rule
        return None

    def _strikes(self, armed: Armed[R]) -> bool:
        match = armed.rule.match
        if match.times is not None and armed.struck >= match.times:
            return False
        armed.seen += 1
        if match.every_nth is not None and armed.seen % match.every_nth:
            return False
        if match.probability is not None and self._random.random() >= match.probability:
            return False
        armed.struck += 1
        return True


def written(text: str, kind: type[F], arguments: Mapping[str, Sequence[str]]) -> F:
    """The fault that a request asks for itself, as ``kind[:argument[:argument]]``; `arguments` names those of a kind.

    Raises:
        msgspec.ValidationError: there is none like that.
    """
    word, *given = text.strip().split(":")
    values: dict[str, Any] = {"kind": word}
    values.update(zip(arguments.get(word, ()), given, strict=False))
    return msgspec.convert(values, kind, strict=False)
