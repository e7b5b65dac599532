# SPDX-License-Identifier: GPL-3.0-or-later
"""The room where a request gets its money, before anything is sent upstream.

`Budget.acquire` reserves over the caller's whole hierarchy. What is spent is refused at once (402); what is only
promised to other requests in flight is waited for, first come first served, and refused (429) when the wait is over.
Within a process no request overtakes an earlier one that waits for an account of both; between replicas the order is
that of luck.

Raises, besides `sophia.stores.reservations.StoreAway` (503):

::

    PaymentRequired      402  budget_exceeded     a budget's settled spend leaves no room; `retry_after` is its reset
    TooManyRequests      429  budget_in_flight    it would fit once others have settled; `retry_after` is an estimate
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from sophia.errors import PaymentRequired, TooManyRequests
from sophia.money import show
from sophia.settings import BudgetSettings
from sophia.stores.model import Account, Level, Period, Refusal, window_start
from sophia.stores.reservations import SETTLE_SOON, SHARED, Reservations, StoreAway, window_end

__all__ = ["Budget", "Granted"]

_POLL = 1.0  # windows end and caps rise without a settlement
_BURST = 0.001  # settlements come in bursts: everyone is tried once for several of them
_Key = tuple[Level, str, Period]


class Granted(msgspec.Struct, frozen=True):
    """Money is reserved: `amount` in nano-dollars, between the request's floor and want; `waited` in seconds."""

    amount: int
    waited: float = 0.0


class _Waiter:
    """A request that waits for others to settle. `answer` gets what `Reservations.take` says, or its error."""

    __slots__ = ("accounts", "answer", "attempt", "blocked", "floor", "keys", "organization", "refusal", "want")

    def __init__(
        self, attempt: str, accounts: tuple[Account, ...], want: int, floor: int, organization: str, refusal: Refusal
    ) -> None:
        self.attempt = attempt
        self.accounts = accounts
        self.want = want
        self.floor = floor
        self.organization = organization
        self.keys = frozenset(_key(account) for account in accounts)
        self.refusal = refusal
        self.blocked = _key(refusal.account)
        self.answer: asyncio.Future[int | Refusal | Exception] = asyncio.get_running_loop().create_future()


class Budget:
    """Reservations with manners: waiting, order, fair shares, and answers that say what to do.

    - `settings`: `wait` (s) bounds the wait; `output_share` is how much of the headroom a request may take beyond its
      floor, if its want is only a bound of our own choice.
    - `clock`: nanoseconds since the epoch.
    """

    def __init__(
        self, reservations: Reservations, settings: BudgetSettings, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._reservations = reservations
        self._settings = settings
        self._clock = clock
        self._waiters: dict[str, _Waiter] = {}
        self._blocked: Counter[_Key] = Counter()
        self._server: asyncio.Task[None] | None = None
        self._usual_wait = SETTLE_SOON

    async def acquire(
        self,
        attempt: str,
        accounts: tuple[Account, ...],
        want: int,
        floor: int,
        deadline: int,
        *,
        organization: str = SHARED,
    ) -> Granted:
        """Reserve `want` nano-dollars, or where the request can shrink (`floor` < `want`) what there is of it.

        `deadline` is the request's own, in nanoseconds since the epoch.

        Raises:
            PaymentRequired: not even `floor` fits beside what is spent.
            TooManyRequests: not even `floor` came free in time.
            StoreAway: the reservations' store does not answer.
        """
        refusal = self._behind(accounts)
        if refusal is None:
            taken = await self._take(attempt, accounts, want, floor, organization)
            if isinstance(taken, int):
                return Granted(taken)
            refusal = taken
            if refusal.kind == "spent":
                raise await self._exceeded(refusal, floor, organization)
        begin = time.monotonic()
        seconds = min(self._settings.wait, (deadline - self._clock()) / 1e9)
        answer = None
        if seconds > 0:
            waiter = _Waiter(attempt, accounts, want, floor, organization, refusal)
            answer = await self._wait(waiter, seconds)
            refusal = waiter.refusal
        waited = time.monotonic() - begin
        if isinstance(answer, int):
            self._usual_wait += (waited - self._usual_wait) / 8
            return Granted(answer, waited)
        if isinstance(answer, Refusal):
            raise await self._exceeded(answer, floor, organization)
        if answer is not None:
            raise answer
        raise self._in_flight(refusal, floor, waited)

    async def headroom(self, accounts: tuple[Account, ...], *, organization: str = SHARED) -> int | None:
        """What the tightest account has left (nano-dollars, at least 0); None without any budget."""
        if not accounts:
            return None
        used = await self._reservations.usage(accounts, self._clock(), organization=organization)
        return max(0, min(account.cap - spent - held for account, (spent, held) in zip(accounts, used, strict=True)))

    async def close(self) -> None:
        """Stop serving those who wait; their waits run out."""
        if self._server is not None:
            self._server.cancel()
            await asyncio.gather(self._server, return_exceptions=True)

    async def _take(
        self, attempt: str, accounts: tuple[Account, ...], want: int, floor: int, organization: str
    ) -> int | Refusal:
        return await self._reservations.take(
            attempt, accounts, want, floor, self._settings.output_share, self._clock(), organization=organization
        )

    def _behind(self, accounts: tuple[Account, ...]) -> Refusal | None:
        """Whether somebody waits for one of these accounts already: then this request queues up behind."""
        if self._waiters:
            for account in accounts:
                if _key(account) in self._blocked:
                    return Refusal("reserved", account, 0, SETTLE_SOON)
        return None

    async def _wait(self, waiter: _Waiter, seconds: float) -> int | Refusal | Exception | None:
        """What became of it; None when the time was up."""
        self._waiters[waiter.attempt] = waiter
        self._blocked[waiter.blocked] += 1
        if self._server is None or self._server.done():
            self._server = asyncio.create_task(self._serve())
        try:
            await asyncio.wait([waiter.answer], timeout=seconds)
        except asyncio.CancelledError:
            if waiter.answer.done() and isinstance(waiter.answer.result(), int):
                await self._give_back(waiter)
            raise
        finally:
            del self._waiters[waiter.attempt]
            self._block(waiter, None)
            waiter.answer.cancel()
        return None if waiter.answer.cancelled() else waiter.answer.result()

    def _block(self, waiter: _Waiter, key: _Key | None) -> None:
        """Note for which account a request waits; None: for none any more."""
        self._blocked[waiter.blocked] -= 1
        if not self._blocked[waiter.blocked]:
            del self._blocked[waiter.blocked]
        if key is not None:
            self._blocked[key] += 1
            waiter.blocked = key

    async def _serve(self) -> None:
        while self._waiters:
            await self._serve_once()
            if self._waiters:
                await self._reservations.changed(_POLL)
                await asyncio.sleep(_BURST)

    async def _serve_once(self) -> None:
        """Try everyone in order of arrival, except those who share an account that an earlier one waits for."""
        blocked: set[_Key] = set()
        for waiter in list(self._waiters.values()):
            if waiter.answer.done() or waiter.blocked in blocked or not blocked.isdisjoint(waiter.keys):
                continue
            answer: int | Refusal | Exception
            try:
                answer = await self._take(
                    waiter.attempt, waiter.accounts, waiter.want, waiter.floor, waiter.organization
                )
            except Exception as error:
                answer = error
            if waiter.answer.done():  # it gave up while the store was asked
                if isinstance(answer, int):
                    await self._give_back(waiter)
            elif isinstance(answer, Refusal) and answer.kind == "reserved":
                waiter.refusal = answer
                self._block(waiter, _key(answer.account))
                blocked.add(waiter.blocked)
            else:
                waiter.answer.set_result(answer)

    async def _give_back(self, waiter: _Waiter) -> None:
        with suppress(StoreAway):  # the store repeats by itself what it could not settle
            await self._reservations.release(waiter.attempt, organization=waiter.organization)

    async def _exceeded(self, refusal: Refusal, floor: int, organization: str) -> PaymentRequired:
        account, now = refusal.account, self._clock()
        [(spent, _)] = await self._reservations.usage((account,), now, organization=organization)
        waiting = "This request is larger than the whole budget:" if floor > account.cap else "Wait until then,"
        remedy = "lower max_tokens, choose a cheaper model, or ask an administrator to raise the cap"
        message = (
            f"the {account.period} budget of {account.level} {account.owner} is used up: {show(spent)} of its cap of "
            f"{show(account.cap)} is spent, and this request needs {show(floor)}. It resets at {_reset(account, now)}. "
            f"{waiting} {remedy}."
        )
        return PaymentRequired("budget_exceeded", message, retry_after=refusal.retry_after)

    def _in_flight(self, refusal: Refusal, floor: int, waited: float) -> TooManyRequests:
        account = refusal.account
        message = (
            f"the {account.period} budget of {account.level} {account.owner} (cap {show(account.cap)}) is reserved by "
            f"other requests in flight, and {show(floor)} did not come free within {waited:.1f} s. Try again when they "
            "have finished, send fewer at once, or lower max_tokens."
        )
        return TooManyRequests("budget_in_flight", message, retry_after=max(SETTLE_SOON, self._usual_wait))


def _key(account: Account) -> _Key:
    return account.level, account.owner, account.period


def _reset(account: Account, now: int) -> str:
    end = window_end(account.period, window_start(account.period, now))
    return datetime.fromtimestamp(end // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
