# SPDX-License-Identifier: GPL-3.0-or-later
"""Rate limits in Redis, shared by all replicas: one Lua script, so a take is atomic over all levels.

The algorithm, its units and its clock are those of `sophia.stores.rates`. While Redis is away every take is granted:
rates protect machines, budgets protect money, and budgets fail closed. `on_away` hears of it, for a metric and a log
line. After a failure Redis is left alone for `pause` seconds, so an outage does not cost every request the timeout.
Levels are exact for limits up to 10^8 a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from sophia.stores.model import Limit
from sophia.stores.rates import FREE, SHARED, UNIT, Rate, Taken, granted, rates_of, refused
from sophia.stores.scripts import Script

__all__ = ["RedisRates"]

_TTL = 120_000  # ms; any level has drained after a minute, and a broken clock's mark is gone after two
_RATES = Script("rates")


class RedisRates:
    """Rates shared through Redis.

    - `client`: a client that does not repeat commands by itself (`sophia.stores.scripts.open_redis`).
    - `on_away`: called with the reason each time that Redis turns out to be away.
    - `timeout`, `pause`: seconds.
    """

    def __init__(
        self, client: Redis, on_away: Callable[[str], None], *, timeout: float = 0.25, pause: float = 1.0
    ) -> None:
        self._client = client
        self._on_away = on_away
        self._timeout = timeout
        self._pause = pause
        self._away_until = 0.0

    async def take(self, limits: tuple[Limit, ...], tokens: int, at: int, *, organization: str = SHARED) -> Taken:
        """See `Rates.take`."""
        rates, split = rates_of(limits)
        if not rates:
            return FREE
        amounts = [UNIT if rate.kind == "requests" else tokens * UNIT for rate in rates]
        reply = await self._call(rates, amounts, at, organization, check=True)
        if reply is None:
            return FREE
        left, lags = [int(number) for number in reply[1::2]], [int(number) for number in reply[2::2]]
        return granted(rates, split, left) if reply[0] else refused(rates, split, left, tokens, lags)

    async def adjust(
        self, limits: tuple[Limit, ...], tokens_delta: int, at: int, *, organization: str = SHARED
    ) -> None:
        """See `Rates.adjust`."""
        rates = [rate for rate in rates_of(limits)[0] if rate.kind == "tokens"]
        if rates:
            await self._call(rates, [tokens_delta * UNIT] * len(rates), at, organization, check=False)

    async def close(self) -> None:
        """See `Rates.close`. The client is its owner's to close."""

    async def _call(self, rates: list[Rate], amounts: list[int], at: int, organization: str, *, check: bool) -> Any:
        """The script's reply; None while Redis is away."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._away_until:
            return None
        prefix = f"sophia:{{{organization}}}:rate:"
        keys = [f"{prefix}{rate.limit.level}:{rate.limit.owner}:{rate.kind}" for rate in rates]
        values = [at // 1000, int(check), _TTL]
        for rate, amount in zip(rates, amounts, strict=True):
            values += [rate.pace, amount]
        try:
            async with asyncio.timeout(self._timeout):
                return await _RATES(self._client, keys, values)
        except (RedisError, OSError, TimeoutError) as error:
            self._away_until = loop.time() + self._pause
            self._on_away(str(error) or type(error).__name__)
            return None
