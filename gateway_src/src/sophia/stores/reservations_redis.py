# SPDX-License-Identifier: GPL-3.0-or-later
"""Reservations in Redis, shared by all replicas: one Lua script per operation, so each is atomic.

Redis is a cache of the ledger here, never its source. Counters that are missing, or belong to an earlier run of the
server (an empty restart, FLUSHALL, a stale dump, a promoted replica), are not read as zero: the script answers which
windows are unknown, and they are seeded from the ledger before anything is granted. After a loss that waits until all
replicas' journals have reached the ledger (`grace`). A settlement that arrives meanwhile is remembered, so the seed
books it instead of the reservation that the ledger may still show.

A window that begins while its account is known starts at zero without a seed. A budget that is put on somebody in
the middle of a window is seeded at its first use.

While Redis is away everything raises `StoreAway`, within `timeout`. What could not be settled, and what may have been
reserved by a call whose answer was lost, is settled by a task of this object as soon as Redis answers again.

Redis should run with `maxmemory-policy noeviction`: an evicted counter is seeded again, but an evicted attempt stays
charged until its windows end. Amounts are exact up to 2^53 - 1 nano-dollars (nine million dollars) a window.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sophia.errors import Unavailable
from sophia.stores.model import Account, Level, Period, Refusal, window_start
from sophia.stores.reservations import ALREADY, DAY, SETTLED, SHARED, Seed, Settled, StoreAway, refusal, window_end
from sophia.stores.scripts import Script

__all__ = ["RedisReservations"]

_LOG = logging.getLogger(__name__)

_LARGEST = 2**53 - 1
_SECOND = 1_000_000_000
_REMEMBER = 60_000  # ms for which a settlement is remembered: longer than a seed takes
_SEED_SECONDS = 10.0
_KEEP = 8 * DAY  # how long counters outlive their window
_FORGET = {Period.DAY: 3 * DAY, Period.WEEK: 21 * DAY, Period.MONTH: 93 * DAY}
_POLL = 0.05
_REPAY_SECONDS = 0.25

_TAKE = Script("counters", "take")
_RESIZE = Script("counters", "resize")
_SETTLE = Script("counters", "settle")
_SEED = Script("counters", "seed")
_USAGE = Script("counters", "usage")
_HOLD = Script("hold")


class _Own:
    """What this process reserved and has not settled."""

    __slots__ = ("accounts", "at", "organization")

    def __init__(self, organization: str, accounts: tuple[Account, ...], at: int) -> None:
        self.organization = organization
        self.accounts = accounts
        self.at = at


class RedisReservations:
    """Reservations shared through Redis. See `sophia.stores.reservations.Reservations` for what each call does.

    - `client`: a client that does not repeat commands by itself (`sophia.stores.scripts.open_redis`).
    - `instance`: this replica's name, kept with each open reservation for operators.
    - `timeout`: seconds within which a call answers or raises; a seed may take longer.
    - `grace`: seconds within which every replica's journal reaches the ledger.
    """

    def __init__(self, client: Redis, seed: Seed, instance: str, *, timeout: float = 1.0, grace: float = 1.0) -> None:
        self._client = client
        self._seed = seed
        self._instance = instance
        self._timeout = timeout
        self._grace = grace
        self._own: dict[str, _Own] = {}
        self._seeding: dict[tuple[str, Level, str, Period, int], asyncio.Task[None]] = {}
        self._owed: dict[str, tuple[str, int]] = {}
        self._repayer: asyncio.Task[None] | None = None
        self._freed = asyncio.Event()

    async def reserve(
        self, attempt: str, accounts: tuple[Account, ...], amount: int, at: int, *, organization: str = SHARED
    ) -> Refusal | None:
        """See `Reservations.reserve`."""
        taken = await self.take(attempt, accounts, amount, amount, 1.0, at, organization=organization)
        return taken if isinstance(taken, Refusal) else None

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
        """See `Reservations.take`. After `StoreAway` the attempt's identity is spent: it will be released."""
        if not 0 <= floor <= want:
            raise ValueError(f"a reservation needs 0 <= floor <= want, not {floor} and {want}")
        if not accounts:
            self._own[attempt] = _Own(organization, accounts, at)
            return want
        prefix = _prefix(organization)
        keys = [f"{prefix}run", f"{prefix}t:{attempt}", f"{prefix}d:{attempt}", f"{prefix}open"]
        keys += _account_keys(prefix, accounts)
        values: list[str | int | float] = [attempt, want, floor, share, at // 1_000_000, self._instance]
        windows = [window_start(account.period, at) for account in accounts]
        ends = [window_end(account.period, start) for account, start in zip(accounts, windows, strict=True)]
        values.append((max(ends) - at + _KEEP) // 1_000_000)
        for account, start, end in zip(accounts, windows, ends, strict=True):
            forget = start - _FORGET[account.period]
            values += [start // _SECOND, _cap(account), forget // _SECOND, (end - at + _KEEP) // 1_000_000]
        try:
            reply = await self._seeded(_TAKE, keys, values, organization, accounts, at)
        except (StoreAway, asyncio.CancelledError):
            self._owe(attempt, organization, 0)
            raise
        if reply[0] == b"granted":
            self._own[attempt] = _Own(organization, accounts, at)
            return int(reply[1])
        if reply[0] == b"settled":
            raise ValueError(f"{attempt} has been settled before it was reserved")
        return refusal(accounts, _pairs(reply[1:]), floor, at)

    async def resize(self, attempt: str, amount: int) -> Refusal | None:
        """See `Reservations.resize`."""
        own = self._own.get(attempt)
        if own is None:
            raise LookupError(f"{attempt} is not an open reservation of this process")
        if not own.accounts:
            return None
        prefix = _prefix(own.organization)
        keys = [f"{prefix}run", f"{prefix}t:{attempt}", *_account_keys(prefix, own.accounts)]
        values: list[str | int | float] = [amount]
        for account in own.accounts:
            values += [window_start(account.period, own.at) // _SECOND, _cap(account)]
        reply = await self._seeded(_RESIZE, keys, values, own.organization, own.accounts, own.at)
        if reply[0] == b"granted":
            self._freed.set()
            return None
        if reply[0] == b"refused":
            return refusal(own.accounts, _pairs(reply[2:]), int(reply[1]), own.at)
        raise LookupError(f"{attempt} is not an open reservation ({reply[0].decode()})")

    async def hold(self, attempt: str, *, organization: str = SHARED) -> None:
        """See `Reservations.hold`."""
        own = self._own.get(attempt)
        prefix = _prefix(own.organization if own else organization)
        await self._call(_HOLD, [f"{prefix}t:{attempt}"], [])

    async def settle(self, attempt: str, cost: int, *, organization: str = SHARED) -> Settled:
        """See `Reservations.settle`.

        Raises:
            StoreAway: not done yet; it is repeated until it is.
        """
        own = self._own.pop(attempt, None)
        if own is not None:
            organization = own.organization
            if not own.accounts:
                return SETTLED
        try:
            return await self._settle(attempt, organization, cost)
        except (StoreAway, asyncio.CancelledError):
            self._owe(attempt, organization, cost)
            raise

    async def release(self, attempt: str, *, organization: str = SHARED) -> Settled:
        """See `Reservations.release`."""
        return await self.settle(attempt, 0, organization=organization)

    async def usage(
        self, accounts: tuple[Account, ...], at: int, *, organization: str = SHARED
    ) -> list[tuple[int, int]]:
        """See `Reservations.usage`."""
        if not accounts:
            return []
        prefix = _prefix(organization)
        values: list[str | int | float] = [window_start(account.period, at) // _SECOND for account in accounts]
        keys = [f"{prefix}run", *_account_keys(prefix, accounts)]
        reply = await self._seeded(_USAGE, keys, values, organization, accounts, at)
        return _pairs(reply[1:])

    async def opened(self, before: int, *, organization: str = SHARED) -> list[str]:
        """See `Reservations.opened`: those of all replicas."""
        key = f"{_prefix(organization)}open"
        found = await self._bounded(lambda: self._client.zrange(key, "-inf", f"({before // 1_000_000}", byscore=True))
        return [attempt.decode() for attempt in found]

    async def changed(self, timeout: float) -> None:
        """See `Reservations.changed`: at once for settlements of this process, soon for those of others."""
        try:
            async with asyncio.timeout(min(timeout, _POLL)):
                await self._freed.wait()
        except TimeoutError:
            return
        self._freed.clear()

    async def ping(self) -> None:
        """See `Reservations.ping`."""
        await self._bounded(self._client.ping)

    async def close(self) -> None:
        """Stop seeding and repaying. The client is its owner's to close."""
        tasks = [*self._seeding.values(), *([self._repayer] if self._repayer else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _settle(self, attempt: str, organization: str, cost: int) -> Settled:
        prefix = _prefix(organization)
        keys = [f"{prefix}t:{attempt}", f"{prefix}d:{attempt}", f"{prefix}open"]
        reply = await self._call(_SETTLE, keys, [attempt, cost, _REMEMBER])
        if reply[0] != b"settled":
            return ALREADY
        self._freed.set()
        overrun = cost - int(reply[1])
        return Settled(True, overrun) if overrun > 0 else SETTLED

    async def _call(self, script: Script, keys: list[str], values: Sequence[str | int | float]) -> Any:
        return await self._bounded(lambda: script(self._client, keys, values))

    async def _bounded(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Call, and once more over a new connection if the old one broke: every script may be repeated."""
        try:
            async with asyncio.timeout(self._timeout):
                try:
                    return await call()
                except RedisConnectionError:
                    return await call()
        except (RedisTimeoutError, TimeoutError) as error:
            raise StoreAway(f"Redis does not answer within {self._timeout:g} s") from error
        except (RedisError, OSError) as error:
            raise StoreAway(f"Redis: {error or type(error).__name__}") from error

    async def _seeded(
        self,
        script: Script,
        keys: list[str],
        values: list[str | int | float],
        organization: str,
        accounts: tuple[Account, ...],
        at: int,
    ) -> Any:
        """Call a script until no window that it needs is unknown."""
        deadline = asyncio.get_running_loop().time() + self._grace + _SEED_SECONDS
        while True:
            reply = await self._call(script, keys, values)
            if reply[0] != b"unseeded":
                return reply
            lost = int(reply[1]) < 2000 * self._grace
            tasks = [self._seed_once(organization, accounts[int(index)], at, lost) for index in reply[2:]]
            done, waiting = await asyncio.wait(tasks, timeout=deadline - asyncio.get_running_loop().time())
            if waiting:
                raise StoreAway("the ledger, from which spend is restored, does not answer in time")
            for task in done:
                if not task.cancelled() and isinstance(error := task.exception(), Unavailable):
                    raise StoreAway(f"spend cannot be restored: {error.message}") from error
                task.result()

    def _seed_once(self, organization: str, account: Account, at: int, lost: bool) -> asyncio.Task[None]:
        """The task that seeds this window; all who need it wait for the same one."""
        window = window_start(account.period, at)
        key = (organization, account.level, account.owner, account.period, window)
        task = self._seeding.get(key)
        if task is None:
            task = asyncio.create_task(self._seed_window(organization, account, window, at, lost))
            self._seeding[key] = task

            def forget(done: asyncio.Task[None]) -> None:
                del self._seeding[key]
                if not done.cancelled():
                    done.exception()  # told to those who wait for it; if nobody does any more, it is nobody's

            task.add_done_callback(forget)
        return task

    async def _seed_window(self, organization: str, account: Account, window: int, at: int, lost: bool) -> None:
        if lost:
            await asyncio.sleep(self._grace)
        try:
            async with asyncio.timeout(_SEED_SECONDS):
                spent, open_attempts = await self._seed(account.level, account.owner, account.period, window)
        except TimeoutError as error:
            raise StoreAway("the ledger, from which spend is restored, does not answer in time") from error
        prefix = _prefix(organization)
        keys = [f"{prefix}run", f"{prefix}open", *_account_keys(prefix, (account,))]
        ttl = (window_end(account.period, window) - at + _KEEP) // 1_000_000
        values: list[str | int | float] = [prefix, window // _SECOND, spent, at // 1_000_000, ttl, self._instance]
        for attempt, amount in open_attempts:
            values += [attempt, amount]
        if await self._call(_SEED, keys, values) and lost:
            _LOG.warning(
                "budget restored from the ledger",
                extra={"level": account.level, "owner": account.owner, "period": account.period, "spent": spent},
            )

    def _owe(self, attempt: str, organization: str, cost: int) -> None:
        self._owed[attempt] = (organization, cost)
        if self._repayer is None or self._repayer.done():
            self._repayer = asyncio.create_task(self._repay())

    async def _repay(self) -> None:
        """Settle what is owed, in order, until nothing is."""
        while self._owed:
            attempt, (organization, cost) = next(iter(self._owed.items()))
            try:
                await self._settle(attempt, organization, cost)
            except StoreAway:
                await asyncio.sleep(_REPAY_SECONDS)
            else:
                del self._owed[attempt]


def _prefix(organization: str) -> str:
    return f"sophia:{{{organization}}}:"


def _account_keys(prefix: str, accounts: tuple[Account, ...]) -> list[str]:
    keys = [f"{prefix}a:{account.level}:{account.owner}:{account.period}" for account in accounts]
    if len(set(keys)) < len(keys):
        raise ValueError(f"the same account twice: {accounts}")
    return keys


def _cap(account: Account) -> int:
    # A cap of 0 refuses what is free too, so it counts as one below.
    return min(account.cap, _LARGEST) if account.cap > 0 else -1


def _pairs(numbers: Sequence[Any]) -> list[tuple[int, int]]:
    return [(int(numbers[index]), int(numbers[index + 1])) for index in range(0, len(numbers), 2)]
