# SPDX-License-Identifier: GPL-3.0-or-later
"""How a change of the database gets into every replica's memory, in less than a second.

The audit chain's sequence is the change counter. `Changes.run` reads it every 250 ms and tells the followers when it
has moved; the replica that made the change tells its own followers at once, and with Redis it nudges the others, so
that they need not wait for the next poll. A nudge that gets lost costs nothing but that wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import sqlalchemy as sa
from redis.asyncio import Redis
from redis.exceptions import RedisError

from sophia.errors import Unavailable
from sophia.stores import schema
from sophia.stores.database import Database

__all__ = ["Changes"]

INTERVAL = 0.25
CHANNEL = "sophia:changes"
_log = logging.getLogger(__name__)


class Changes:
    """The change counter, followed. A follower is an async function that brings its memory up to date."""

    def __init__(self, database: Database, redis: Redis | None = None, interval: float = INTERVAL) -> None:
        self._database = database
        self._redis = redis
        self._interval = interval
        self._followers: list[Callable[[], Awaitable[None]]] = []
        self._nudged = asyncio.Event()
        self._seen = -1
        self._fresh_at = time.monotonic()

    def follow(self, refresh: Callable[[], Awaitable[None]]) -> None:
        """Call `refresh` after every change."""
        self._followers.append(refresh)

    @property
    def age(self) -> float:
        """Seconds since memory was last known to agree with the database."""
        return time.monotonic() - self._fresh_at

    async def published(self) -> None:
        """This process has committed a change: put it in force here, and nudge the others."""
        try:
            for refresh in self._followers:
                await refresh()
        except Unavailable as error:
            _log.warning("the change is durable and will be in force at the next poll: %s", error.__cause__ or error)
        if self._redis is not None:
            try:
                await self._redis.publish(CHANNEL, "")
            except (RedisError, OSError) as error:
                _log.warning("no nudge to the other replicas, they will see the change by polling: %s", error)

    async def poll(self) -> None:
        """Read the counter once; refresh the followers if it has moved.

        Raises:
            Unavailable: the database does not answer.
        """
        started = time.monotonic()
        async with self._database.read() as connection:
            sequence = (await connection.execute(sa.select(schema.audit_head.c.sequence))).scalar_one_or_none() or 0
        if sequence != self._seen:
            for refresh in self._followers:
                await refresh()
            self._seen = sequence
        self._fresh_at = started

    async def run(self) -> None:
        """Follow the counter until cancelled. Memory stays as it is while the database is away."""
        listener = asyncio.create_task(self._listen()) if self._redis is not None else None
        away = False
        try:
            while True:
                try:
                    await self.poll()
                    away = False
                except Unavailable as error:
                    if not away:
                        _log.warning("changes cannot be followed: %s", error.__cause__ or error)
                    away = True
                await self._pause()
        finally:
            if listener is not None:
                listener.cancel()
                await asyncio.gather(listener, return_exceptions=True)

    async def _pause(self) -> None:
        self._nudged.clear()
        try:
            async with asyncio.timeout(self._interval):
                await self._nudged.wait()
        except TimeoutError:
            return

    async def _listen(self) -> None:
        assert self._redis is not None  # noqa: S101
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(CHANNEL)
                    async for message in pubsub.listen():
                        if message["type"] == "message":
                            self._nudged.set()
            except (RedisError, OSError) as error:
                _log.info("no nudges from Redis, polling goes on: %s", error)
            await asyncio.sleep(1.0)
