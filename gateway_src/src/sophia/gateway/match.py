# SPDX-License-Identifier: GPL-3.0-or-later
"""The three-way match of a UTC day: the ledger, OpenRouter's account, and the recount of the tokens at list price.

It goes generation by generation, not by sums, so that two errors cannot cancel each other out. A generation of the
account that the ledger does not have is ours where its recorded User-Agent names an attempt; else somebody else uses
the account (`foreign`). Near midnight the two clocks may put a generation on different days: both sides are read with
a margin, and only what lies within the day counts as missing from the other.

The recount says what the booked tokens cost at the catalogue's present list price: a hint at a price that has changed
or a provider that is dearer, not an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Literal

import msgspec

from sophia.errors import BadRequest, Unavailable
from sophia.gateway.catalogue import Catalogue
from sophia.gateway.prices import Use, bill
from sophia.gateway.records import Billed, Generation, Records, attempt_of
from sophia.stores.ledger import Booked, LedgerStore

__all__ = ["Difference", "Match", "Matcher", "ModelSum", "match"]

_SECOND = 1_000_000_000
_DAY = 86_400 * _SECOND
_MARGIN = 900 * _SECOND
_NANO_FEMTO = 1_000_000
_EXAMINED = 500

Kind = Literal["not_booked", "not_billed", "cost", "tokens"]


class Difference(msgspec.Struct, frozen=True):
    """A generation that is not booked as it was billed. Amounts in nano-dollars, None where a side does not have it."""

    kind: Kind
    generation: str
    attempt: str | None
    model: str
    booked: int | None
    billed: int | None


class ModelSum(msgspec.Struct, frozen=True):
    """One model's day. Amounts in nano-dollars; `recounted` is None where the catalogue has no price."""

    model: str
    generations: int
    booked: int
    billed: int
    recounted: int | None


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. Amounts in nano-dollars.

    `over`: the day has ended, so that nothing more can come. `foreign` and `foreign_cost`: generations that others
    made with the account. `unexamined`: generations that could not be told ours or not. `activity` and `account` are
    OpenRouter's own sums of the day and of all time, None where it does not give them; `ledger` is all that was ever
    booked.
    """

    day: date
    over: bool
    generations: int
    booked: int
    billed: int
    unsettled: int
    foreign: int
    foreign_cost: int
    unexamined: int
    activity: int | None
    account: int | None
    ledger: int
    models: list[ModelSum]
    differences: list[Difference]

    @property
    def drift(self) -> int:
        """What is booked wrongly, both directions added up."""
        return sum(abs((each.billed or 0) - (each.booked or 0)) for each in self.differences)

    @property
    def ok(self) -> bool:
        """Whether the books are right as far as can be told."""
        beyond = self.account is not None and self.ledger > self.account
        return not self.differences and not self.unexamined and not beyond


def match(
    booked: Mapping[str, Booked], billed: Mapping[str, Billed], ours: Mapping[str, str | None], start: int, end: int
) -> list[Difference]:
    """Where the two sides differ.

    `booked` and `billed` hold at least what lies between `start` and `end` (ns), by generation; `ours` names the
    attempt of each billed generation that is not booked and was made by a gateway.
    """
    differences = []
    for name, row in booked.items():
        theirs = billed.get(name)
        if theirs is None:
            if row.cost and start + _MARGIN <= row.at < end:
                differences.append(Difference("not_billed", name, row.attempt, row.model, row.cost, None))
        elif theirs.cost != row.cost:
            differences.append(Difference("cost", name, row.attempt, row.model, row.cost, theirs.cost))
        elif theirs.cost and (theirs.prompt, theirs.completion) != (row.prompt, row.completion):
            differences.append(Difference("tokens", name, row.attempt, row.model, row.cost, theirs.cost))
    for name, attempt in ours.items():
        theirs = billed[name]
        if theirs.cost:
            differences.append(Difference("not_booked", name, attempt, theirs.model, None, theirs.cost))
    return sorted(differences, key=lambda each: (each.kind, each.generation))


class Matcher:
    """Makes the match of a day. `clock` gives nanoseconds since the epoch.

    `settled_after` is the age (ns) from which OpenRouter's records are complete: what is younger is not missed yet.
    """

    def __init__(
        self,
        store: LedgerStore,
        records: Records,
        catalogue: Callable[[], Catalogue],
        clock: Callable[[], int],
        settled_after: int,
    ) -> None:
        self._store = store
        self._records = records
        self._catalogue = catalogue
        self._clock = clock
        self._settled_after = settled_after

    async def day(self, day: date | None) -> Match:
        """The match of a UTC day, yesterday if None.

        Raises:
            BadRequest: the day has not begun, or there is no management key.
            Unavailable: OpenRouter or the database does not answer.
        """
        now = self._clock()
        if day is None:
            day = (datetime.fromtimestamp(now / _SECOND, UTC) - timedelta(days=1)).date()
        start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * _SECOND
        end = start + _DAY
        self._check(start, now)
        wide = await self._records.billed(start - _MARGIN, end + _MARGIN)
        inside = await self._records.billed(start, max(start, min(end, now - self._settled_after)))
        if wide is None or inside is None:
            raise self._no_answer()
        waiting = await self._store.unsettled(start - _DAY, end + _DAY)
        booked = await self._store.booked(start - _DAY, end + _DAY)
        unknown = [each for name, each in inside.items() if name not in booked]
        ours, foreign, unexamined = await self._whose(unknown, waiting)
        names = {name for name, row in booked.items() if start <= row.at < end} | (booked.keys() & inside.keys())
        mine = {name: booked[name] for name in names}
        sums = self._sums(mine.values(), wide)
        over = now >= end
        return Match(
            day=day,
            over=over,
            generations=len(mine),
            booked=sum(row.cost for row in mine.values()),
            billed=sum(wide[name].cost for name in mine if name in wide),
            unsettled=len(await self._store.unsettled(start, end)),
            foreign=len(foreign),
            foreign_cost=sum(each.cost for each in foreign),
            unexamined=unexamined,
            activity=await self._records.activity(day) if over else None,
            account=await self._records.usage(),
            ledger=await self._store.total(),
            models=sums,
            differences=match(mine, wide, ours, start, min(end, now - self._settled_after) - _MARGIN),
        )

    def _check(self, start: int, now: int) -> None:
        if start > now:
            raise BadRequest("day_not_begun", "this day has not begun; give one that has", param="day")
        if not self._records.managed:
            raise BadRequest(
                "management_key_missing",
                "OpenRouter's account is read with a management key: set upstream.management_key_file",
            )

    def _no_answer(self) -> Unavailable:
        reason = self._records.last_error or "no answer"
        return Unavailable(
            "upstream_records", f"OpenRouter's records cannot be read ({reason}); try again.", retry_after=30
        )

    async def _whose(self, unknown: list[Billed], waiting: set[str]) -> tuple[dict[str, str | None], list[Billed], int]:
        """Generations that the ledger does not have: ours by generation, those of others, and how many cannot be told.

        What belongs to an attempt that is still open or unconfirmed is not missing: reconciliation has it in hand.
        """
        ours: dict[str, str | None] = {}
        foreign: list[Billed] = []
        unexamined = max(0, len(unknown) - _EXAMINED)
        for each in unknown[:_EXAMINED]:
            record = await self._records.generation(each.generation)
            if not isinstance(record, Generation):
                unexamined += 1
                continue
            attempt = attempt_of(record.user_agent)
            if attempt is None:
                foreign.append(each)
            elif attempt not in waiting:
                ours[each.generation] = attempt
        return ours, foreign, unexamined

    def _sums(self, rows: Iterable[Booked], billed: Mapping[str, Billed]) -> list[ModelSum]:
        catalogue = self._catalogue()
        by_model: dict[str, list[Booked]] = {}
        for row in rows:
            by_model.setdefault(row.model, []).append(row)
        sums = [
            ModelSum(
                model,
                len(of_model),
                sum(row.cost for row in of_model),
                sum(billed[row.generation].cost for row in of_model if row.generation in billed),
                _recount(catalogue, model, of_model),
            )
            for model, of_model in by_model.items()
        ]
        return sorted(sums, key=lambda each: -each.booked)


def _recount(catalogue: Catalogue, name: str, rows: Iterable[Booked]) -> int | None:
    found = catalogue.find(name)
    if found is None or found.model.prices is None:
        return None
    prices = found.model.prices
    total = 0
    for row in rows:
        if row.cost:
            at = datetime.fromtimestamp(row.at / _SECOND, UTC)
            reasoning = min(row.reasoning, row.completion)
            use = Use(row.prompt, row.completion, min(row.cached, row.prompt), reasoning=reasoning)
            total += bill(prices, use, at.hour * 100 + at.minute)
    return -(-total // _NANO_FEMTO)
