# SPDX-License-Identifier: GPL-3.0-or-later
"""Reservations: money that is promised to attempts in flight, atomically over the whole hierarchy of budgets.

A reservation charges one amount to every account of a request at once, or to none. Its settlement replaces the
amount by the cost, in the very windows where it was reserved, exactly once. So for everything that was granted under
a cap, settled plus reserved never passes that cap, at any concurrency; and when everything is settled, nothing is
reserved. A cap of 0 refuses everything, also what is free of charge.

Two implementations of one protocol: `LocalReservations` here (one process, restored from the ledger at start) and
`sophia.stores.reservations_redis.RedisReservations` (many replicas).

`organization` names the tenant whose counters belong together: the Redis implementation keeps them in one slot of a
cluster. All calls about an attempt name the same one.

::

    sophia.errors.Unavailable
    └── StoreAway              503  the reservations' store does not answer: nothing may be sent (fail closed)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import msgspec

from sophia.errors import Unavailable
from sophia.stores.model import Account, Level, Period, Refusal, window_start

__all__ = [
    "ALREADY",
    "SETTLED",
    "SETTLE_SOON",
    "SHARED",
    "LocalReservations",
    "Reservations",
    "Seed",
    "Settled",
    "StoreAway",
    "refusal",
    "window_end",
]

Seed = Callable[[Level, str, Period, int], Awaitable[tuple[int, list[tuple[str, int]]]]]
"""``seed(level, owner, period, window)``: what the ledger knows of one window, read from one snapshot: the settled
spend, and ``(attempt, reserved)`` of those without a confirmed cost. It raises `Unavailable` where the ledger does not
answer, or may lack something that is older than the grace."""

SHARED = "shared"
SETTLE_SOON = 1.0
DAY = 86_400_000_000_000
_LINES = 16_384
_UNBOUNDED = 2**62


class StoreAway(Unavailable):
    """The reservations' store does not answer; `retry_after` is when to try again (s)."""

    def __init__(self, reason: str, retry_after: float = 1.0) -> None:
        super().__init__(
            "reservations_unavailable",
            f"budgets cannot be checked because their store does not answer ({reason}); nothing was sent or spent: "
            "try again shortly",
            retry_after=retry_after,
        )


class Settled(msgspec.Struct, frozen=True):
    """What a settlement did.

    `booked` is False where there was nothing to settle any more. `overrun` is by how much the cost passed the
    reservation (nano-dollars): it is booked in full, and is the only way in which spend can pass a cap.
    """

    booked: bool
    overrun: int = 0


SETTLED = Settled(True)
ALREADY = Settled(False)


class Reservations(Protocol):
    """The seam. Amounts in nano-dollars, instants (`at`) in nanoseconds since the epoch.

    Every method may raise `StoreAway`. An attempt's identity is used once: reserving it again while it is open is
    granted without charging twice, so a call whose answer was lost can be repeated.
    """

    async def reserve(
        self, attempt: str, accounts: tuple[Account, ...], amount: int, at: int, *, organization: str = SHARED
    ) -> Refusal | None:
        """Charge `amount` to all accounts, in the windows that hold `at`, or to none. None means granted."""

    async def take(
        self,
        attempt: str,
        accounts: tuple[Account, ...],
        want: int,
        floor: int,
        share: float,
        at: int,
        *,
        organization: str = SHARED,
    ) -> int | Refusal:
        """Reserve as much as there is between `floor` and `want`; the amount granted, or why not even `floor` was.

        More than `floor` is granted only up to `share` of the headroom of the tightest account, so that one request
        whose bound is only a guess does not block others.
        """

    async def resize(self, attempt: str, amount: int) -> Refusal | None:
        """Change an open reservation of this process; growth is checked like a new reservation.

        Raises:
            LookupError: the attempt is not open, or is held.
        """

    async def hold(self, attempt: str, *, organization: str = SHARED) -> None:
        """Mark an attempt unconfirmed: it stays charged, whatever happens, until it is settled."""

    async def settle(self, attempt: str, cost: int, *, organization: str = SHARED) -> Settled:
        """Replace the reservation by the cost. Once: a second settlement, with whatever cost, changes nothing."""

    async def release(self, attempt: str, *, organization: str = SHARED) -> Settled:
        """Settle with nothing: the attempt was not sent, or was not billed."""

    async def usage(
        self, accounts: tuple[Account, ...], at: int, *, organization: str = SHARED
    ) -> list[tuple[int, int]]:
        """``(spent, reserved)`` of each account's window that holds `at`."""

    async def opened(self, before: int, *, organization: str = SHARED) -> list[str]:
        """Attempts still open that were reserved before the instant `before`, oldest first.

        For reconciliation: those that the ledger has settled are settled here too, those that it does not know (their
        process died before the intent was durable, so nothing was sent) are released.
        """

    async def changed(self, timeout: float) -> None:
        """Return once headroom may have been freed since the last call, at the latest after `timeout` seconds.

        For one caller at a time.
        """

    async def ping(self) -> None:
        """Return if the store answers."""

    async def close(self) -> None:
        """Give back what is held open."""


def window_end(period: Period, start: int) -> int:
    """The end (exclusive) of the window that begins at `start`, in nanoseconds since the epoch."""
    if period is Period.MONTH:
        return window_start(period, start + 32 * DAY)
    return start + (DAY if period is Period.DAY else 7 * DAY)


class _Cell:
    """One account in one window."""

    __slots__ = ("reserved", "spent")

    def __init__(self) -> None:
        self.spent = 0
        self.reserved = 0


_Line = list[tuple[int, _Cell]]  # the caps and cells of a request's accounts, resolved for one day


class _Open:
    """A reservation that is not settled. It holds its cells, so a settlement finds its windows whatever the time."""

    __slots__ = ("accounts", "amount", "at", "held", "line")

    def __init__(self, amount: int, line: _Line, accounts: tuple[Account, ...], at: int) -> None:
        self.amount = amount
        self.line = line
        self.accounts = accounts
        self.at = at
        self.held = False


class LocalReservations:
    """Reservations of a single process.

    With `seed`, an account's window is read from the ledger when it is first asked for: after a start, and for a budget
    that is put on somebody in the middle of a window. Apart from that nothing here waits, so each call is atomic on its
    event loop. Instants may lag behind the latest one seen by up to a day; older windows are forgotten.
    """

    def __init__(self, seed: Seed | None = None) -> None:
        self._seed = seed
        self._cells: dict[tuple[Level, str, Period, int], _Cell] = {}
        self._lines: dict[tuple[Account, ...], _Line] = {}
        self._day = -1
        self._open: dict[str, _Open] = {}
        self._freed = asyncio.Event()
        self._seeding = asyncio.Lock()

    def restore(
        self,
        spent: Iterable[tuple[Level, str, Period, int, int]],
        open: Iterable[tuple[str, tuple[Account, ...], int, int]],
    ) -> None:
        """Put back what the ledger knows, before anything is served: nothing is checked against caps.

        - `spent`: ``(level, owner, period, window, amount)``, the settled spend of a window.
        - `open`: ``(attempt, accounts, amount, at)``, the attempts without a confirmed cost.
        """
        for level, owner, period, window, amount in spent:
            self._cell(level, owner, period, window).spent += amount
        for attempt, accounts, amount, at in open:
            if attempt not in self._open:
                self._charge(attempt, accounts, self._resolve(accounts, at), amount, at)

    async def reserve(
        self, attempt: str, accounts: tuple[Account, ...], amount: int, at: int, *, organization: str = SHARED
    ) -> Refusal | None:
        """See `Reservations.reserve`."""
        if self._unseeded(accounts, at):
            await self._seed_accounts(accounts, at)
        taken = self._take(attempt, accounts, amount, amount, 1.0, at)
        return None if taken.__class__ is int else taken  # type: ignore[return-value]

    async def take(
        self,
        attempt: str,
        accounts: tuple[Account, ...],
        want: int,
        floor: int,
        share: float,
        at: int,
        *,
        organization: str = SHARED,
    ) -> int | Refusal:
        """See `Reservations.take`."""
        if self._unseeded(accounts, at):
            await self._seed_accounts(accounts, at)
        return self._take(attempt, accounts, want, floor, share, at)

    async def resize(self, attempt: str, amount: int) -> Refusal | None:
        """See `Reservations.resize`."""
        entry = self._open.get(attempt)
        if entry is None or entry.held:
            raise LookupError(f"{attempt} is not an open reservation")
        growth = amount - entry.amount
        if growth > 0 and any(cap - cell.spent - cell.reserved < growth for cap, cell in entry.line):
            # Windows that joined by a seed have no cap of their own here, and stand behind the accounts' own.
            return _refusal(entry.accounts, entry.line[: len(entry.accounts)], growth, entry.at)
        for _, cell in entry.line:
            cell.reserved += growth
        entry.amount = amount
        if growth < 0:
            self._freed.set()
        return None

    async def hold(self, attempt: str, *, organization: str = SHARED) -> None:
        """See `Reservations.hold`."""
        entry = self._open.get(attempt)
        if entry is not None:
            entry.held = True

    async def settle(self, attempt: str, cost: int, *, organization: str = SHARED) -> Settled:
        """See `Reservations.settle`."""
        entry = self._open.pop(attempt, None)
        if entry is None:
            return ALREADY
        amount = entry.amount
        for _, cell in entry.line:
            cell.reserved -= amount
            cell.spent += cost
        self._freed.set()
        return SETTLED if cost <= amount else Settled(True, cost - amount)

    async def release(self, attempt: str, *, organization: str = SHARED) -> Settled:
        """See `Reservations.release`."""
        return await self.settle(attempt, 0)

    async def usage(
        self, accounts: tuple[Account, ...], at: int, *, organization: str = SHARED
    ) -> list[tuple[int, int]]:
        """See `Reservations.usage`."""
        if self._unseeded(accounts, at):
            await self._seed_accounts(accounts, at)
        return [(cell.spent, cell.reserved) for _, cell in self._line(accounts, at)]

    async def opened(self, before: int, *, organization: str = SHARED) -> list[str]:
        """See `Reservations.opened`."""
        found = [(entry.at, attempt) for attempt, entry in self._open.items() if entry.at < before]
        return [attempt for _, attempt in sorted(found)]

    async def changed(self, timeout: float) -> None:
        """See `Reservations.changed`."""
        try:
            async with asyncio.timeout(timeout):
                await self._freed.wait()
        except TimeoutError:
            return
        self._freed.clear()

    async def ping(self) -> None:
        """See `Reservations.ping`: memory always answers."""

    async def close(self) -> None:
        """See `Reservations.close`: there is nothing to give back."""

    def _unseeded(self, accounts: tuple[Account, ...], at: int) -> bool:
        return self._seed is not None and not (at // DAY == self._day and accounts in self._lines)

    async def _seed_accounts(self, accounts: tuple[Account, ...], at: int) -> None:
        async with self._seeding:
            await self._seed_missing(accounts, at)

    async def _seed_missing(self, accounts: tuple[Account, ...], at: int) -> None:
        for account in accounts:
            window = window_start(account.period, at)
            key = (account.level, account.owner, account.period, window)
            if key in self._cells or self._seed is None:
                continue
            spent, opened = await self._seed(*key)
            cell = self._cell(*key)
            cell.spent = spent
            for attempt, amount in opened:
                entry = self._open.get(attempt)
                if entry is None:
                    entry = self._open[attempt] = _Open(amount, [], (), window)
                entry.line = [*entry.line, (_UNBOUNDED, cell)]
                cell.reserved += entry.amount

    def _take(
        self, attempt: str, accounts: tuple[Account, ...], want: int, floor: int, share: float, at: int
    ) -> int | Refusal:
        if not 0 <= floor <= want:
            raise ValueError(f"a reservation needs 0 <= floor <= want, not {floor} and {want}")
        if attempt in self._open:
            return self._open[attempt].amount
        line = self._line(accounts, at)
        amount = want
        if line:
            headroom = min([cap - cell.spent - cell.reserved for cap, cell in line])
            if floor < want:
                amount = min(want, max(floor, int(headroom * share)))
            if amount > headroom:
                return _refusal(accounts, line, floor, at)
        self._charge(attempt, accounts, line, amount, at)
        return amount

    def _charge(self, attempt: str, accounts: tuple[Account, ...], line: _Line, amount: int, at: int) -> None:
        for _, cell in line:
            cell.reserved += amount
        self._open[attempt] = _Open(amount, line, accounts, at)

    def _line(self, accounts: tuple[Account, ...], at: int) -> _Line:
        day = at // DAY
        if day != self._day:
            if day < self._day:
                return self._resolve(accounts, at)
            self._begin(day, at)
        line = self._lines.get(accounts)
        if line is None:
            if len(self._lines) >= _LINES:
                self._lines.clear()
            line = self._lines[accounts] = self._resolve(accounts, at)
        return line

    def _begin(self, day: int, at: int) -> None:
        """A new day: other windows, so other cells; what nobody can ask for any more is forgotten."""
        self._day = day
        self._lines.clear()
        oldest = {period: window_start(period, at - DAY) for period in Period}
        self._cells = {key: cell for key, cell in self._cells.items() if key[3] >= oldest[key[2]]}

    def _resolve(self, accounts: tuple[Account, ...], at: int) -> _Line:
        if len({(account.level, account.owner, account.period) for account in accounts}) < len(accounts):
            raise ValueError(f"the same account twice: {accounts}")
        starts = {period: window_start(period, at) for period in Period}
        # A cap of 0 refuses what is free too, so it counts as one below.
        return [
            (account.cap if account.cap > 0 else -1, self._cell(account.level, account.owner, account.period, start))
            for account in accounts
            for start in (starts[account.period],)
        ]

    def _cell(self, level: Level, owner: str, period: Period, window: int) -> _Cell:
        key = (level, owner, period, window)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = _Cell()
        return cell


def _refusal(accounts: tuple[Account, ...], line: _Line, amount: int, at: int) -> Refusal:
    return refusal(accounts, [(cell.spent, cell.reserved) for _, cell in line], amount, at)


def refusal(accounts: tuple[Account, ...], used: list[tuple[int, int]], amount: int, at: int) -> Refusal:
    """Say why `amount` does not fit, given each account's ``(spent, reserved)``.

    An account whose settled spend alone is in the way decides, the one that resets last before the others: to wait
    for other requests would not help. `headroom` is what all accounts together would still grant.
    """
    left = [account.cap - spent - reserved for account, (spent, reserved) in zip(accounts, used, strict=True)]
    headroom = max(0, min(left))
    exhausted = [
        (window_end(account.period, window_start(account.period, at)), index)
        for index, (account, (spent, _)) in enumerate(zip(accounts, used, strict=True))
        if account.cap <= 0 or spent + amount > account.cap
    ]
    if exhausted:
        end, index = max(exhausted, key=lambda pair: pair[0])
        return Refusal("spent", accounts[index], headroom, (end - at) / 1e9)
    return Refusal("reserved", accounts[left.index(min(left))], headroom, SETTLE_SOON)
