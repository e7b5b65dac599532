# SPDX-License-Identifier: GPL-3.0-or-later
"""Rate limits: requests and estimated tokens per minute, taken on all levels at once or on none.

The generic cell rate algorithm in its continuous-state form (ITU-T I.371, Annex A: "continuous-state leaky bucket").
A cell's level rises by what is taken and drains at the limit's rate; a take is granted if the level stays within
`burst` minutes' worth. So no interval of t minutes ever sees more than limit × (burst + t). Levels are kept in
units of 1/60,000,000 of a request (or token), which drain at `limit` units per microsecond: integers, without
rounding, and a limit that changes needs no conversion. Time has microsecond steps.

`LocalRates` is for one process, `sophia.stores.rates_redis.RedisRates` for many replicas. A level's clock never runs
backwards: a replica whose clock lags sees what the others took, and waits at most its lag longer.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol

import msgspec

from sophia.stores.model import Level, Limit

__all__ = ["FREE", "UNIT", "Kind", "LocalRates", "Rate", "Rates", "Room", "Taken", "granted", "rates_of", "refused"]

UNIT = 60_000_000  # of a cell's level, per request or token: the microseconds of a minute
SHARED = "shared"
_SWEEP = 60_000_000

Kind = Literal["requests", "tokens"]


class Room(msgspec.Struct, frozen=True):
    """What is left of a rate: `limit` per minute, whole units `remaining` now, seconds until it is full (`reset`)."""

    limit: int
    remaining: int
    reset: float


class Taken(msgspec.Struct, frozen=True):
    """The answer to a take.

    `wait` is None where it was granted; else nothing was taken, and the same take would be granted after `wait`
    seconds if nobody takes in between (infinity: it is larger than the limit allows at all). `limit` and `kind` say
    which limit refuses longest. `requests` and `tokens` are the rooms left on the tightest limits, None without any.
    """

    wait: float | None
    limit: Limit | None
    kind: Kind | None
    requests: Room | None
    tokens: Room | None


FREE = Taken(None, None, None, None, None)


class Rates(Protocol):
    """The seam. `at` is in nanoseconds since the epoch; `organization` as in `sophia.stores.reservations`."""

    async def take(self, limits: tuple[Limit, ...], tokens: int, at: int, *, organization: str = SHARED) -> Taken:
        """Take one request and its estimated tokens from every limit, or nothing from any."""

    async def adjust(
        self, limits: tuple[Limit, ...], tokens_delta: int, at: int, *, organization: str = SHARED
    ) -> None:
        """Take more tokens (or give back, where negative) once the real count is known. Never refuses."""

    async def close(self) -> None:
        """Give back what is held open."""


class Rate(msgspec.Struct, frozen=True):
    """One rate of a limit: `pace` requests or tokens per minute, and as many at once (`capacity`, in units)."""

    kind: Kind
    pace: int
    capacity: int
    limit: Limit


def rates_of(limits: tuple[Limit, ...]) -> tuple[list[Rate], int]:
    """The rates that limits set, those of requests first, and how many those are."""
    requests = [(limit.requests_per_minute, limit) for limit in limits if limit.requests_per_minute is not None]
    tokens = [(limit.tokens_per_minute, limit) for limit in limits if limit.tokens_per_minute is not None]
    rates = [Rate("requests", pace, pace * UNIT, limit) for pace, limit in requests]
    rates += [Rate("tokens", pace, pace * UNIT, limit) for pace, limit in tokens]
    return rates, len(requests)


def granted(rates: list[Rate], split: int, left: list[int]) -> Taken:
    """The answer to a take that fitted; `left` is what it left of each rate's capacity."""
    return Taken(None, None, None, *_rooms(rates, split, left))


def refused(rates: list[Rate], split: int, left: list[int], tokens: int, lags: list[int]) -> Taken:
    """The answer to a take that does not fit; `left` is what would be left, below 0 where it is too much.

    A lag is by how much a rate's clock is ahead of the caller's (µs): its level stands still that long.
    """
    amounts = [UNIT if rate.kind == "requests" else tokens * UNIT for rate in rates]
    waits = [_wait(*state) for state in zip(rates, left, amounts, lags, strict=True)]
    wait = max(waits)
    longest = rates[waits.index(wait)]
    before = [have + amount for have, amount in zip(left, amounts, strict=True)]
    return Taken(wait, longest.limit, longest.kind, *_rooms(rates, split, before))


def _wait(rate: Rate, left: int, amount: int, lag: int) -> float:
    """Seconds until `amount` fits; below 0 where it fits now."""
    if left >= 0:
        return -1.0
    if amount > rate.capacity:
        return math.inf
    return (lag - left // rate.pace) / 1e6


def _rooms(rates: list[Rate], split: int, left: list[int]) -> tuple[Room | None, Room | None]:
    """The tightest room for requests and for tokens."""
    return (
        _tightest(rates, left[:split], 0) if split else None,
        _tightest(rates, left[split:], split) if split < len(left) else None,
    )


def _tightest(rates: list[Rate], left: list[int], offset: int) -> Room:
    least = min(left)
    rate = rates[offset + left.index(least)]
    pace = rate.pace
    return Room(pace, least // UNIT if least > 0 else 0, (rate.capacity - least) / (pace * 1e6) if pace else 0.0)


class _Cell:
    """A rate's level as it was at the instant `at` (µs), and the pace at which it was last seen to drain."""

    __slots__ = ("at", "level", "pace")

    def __init__(self) -> None:
        self.level = 0
        self.at = 0
        self.pace = 0


# A request's rates, how many of them count requests, and for each: cell, pace, capacity, whether it counts requests.
_Line = tuple[list[Rate], int, list[tuple[_Cell, int, int, bool]]]


class LocalRates:
    """Rates of a single process. Nothing here waits, so each call is atomic on its event loop."""

    def __init__(self) -> None:
        self._cells: dict[tuple[Level, str, Kind], _Cell] = {}
        self._lines: dict[tuple[Limit, ...], _Line] = {}
        self._swept = 0

    async def take(self, limits: tuple[Limit, ...], tokens: int, at: int, *, organization: str = SHARED) -> Taken:
        """See `Rates.take`."""
        now = at // 1000
        rates, split, line = self._line(limits, now)
        if not rates:
            return FREE
        amount = tokens * UNIT
        left = []
        for cell, pace, capacity, counts_requests in line:
            level = cell.level
            if now > cell.at:
                level -= (now - cell.at) * pace
                if level < 0:
                    level = 0
            left.append(capacity - level - (UNIT if counts_requests else amount))
        if min(left) < 0:
            return refused(rates, split, left, tokens, [max(0, cell.at - now) for cell, *_ in line])
        for (cell, _, capacity, _), have in zip(line, left, strict=True):
            cell.level = capacity - have
            if now > cell.at:
                cell.at = now
        return granted(rates, split, left)

    async def adjust(
        self, limits: tuple[Limit, ...], tokens_delta: int, at: int, *, organization: str = SHARED
    ) -> None:
        """See `Rates.adjust`."""
        now = at // 1000
        for cell, pace, _, counts_requests in self._line(limits, now)[2]:
            if not counts_requests:
                level = max(0, cell.level - max(0, now - cell.at) * pace)
                cell.level = max(0, level + tokens_delta * UNIT)
                cell.at = max(cell.at, now)

    async def close(self) -> None:
        """See `Rates.close`: there is nothing to give back."""

    def _line(self, limits: tuple[Limit, ...], now: int) -> _Line:
        if now - self._swept > _SWEEP:
            self._sweep(now)
        line = self._lines.get(limits)
        if line is None:
            rates, split = rates_of(limits)
            entries = [(self._cell(rate), rate.pace, rate.capacity, rate.kind == "requests") for rate in rates]
            line = self._lines[limits] = (rates, split, entries)
        return line

    def _cell(self, rate: Rate) -> _Cell:
        key = (rate.limit.level, rate.limit.owner, rate.kind)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = _Cell()
        cell.pace = rate.pace
        return cell

    def _sweep(self, now: int) -> None:
        """Forget the rates that nobody has used for so long that they are full again."""
        self._cells = {
            key: cell for key, cell in self._cells.items() if cell.pace > 0 and cell.level > (now - cell.at) * cell.pace
        }
        self._lines.clear()
        self._swept = now
