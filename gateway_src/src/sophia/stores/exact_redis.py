# SPDX-License-Identifier: GPL-3.0-or-later
"""Cached answers in Redis (7 or later), shared by all replicas.

Keys, all of one organisation in one cluster slot; none is ever looked for by a pattern::

    sophia:cache:{<organisation>}:e:<hex>    an entry (MessagePack), expires by itself
    sophia:cache:{<organisation>}:used       sorted set: entry -> when it was last used (ms)
    sophia:cache:{<organisation>}:ends       sorted set: entry -> when it expires (ms)
    sophia:cache:{<organisation>}:size       hash: entry -> bytes
    sophia:cache:{<organisation>}:bytes      what the entries count for together
    sophia:cache:{<organisation>}:purges     the generation (MessagePack): it never expires

The generation has a random `life`: if it is lost (a flush, an eviction, a failover to an empty replica), the next one
has another, and no entry stamped under the old one is served. An entry is read before the generation it is judged by,
so a purge that was answered is seen by every read that starts after it.

One organisation's share is bounded (`entries`, `max_bytes`); its least recently used entries go first. The whole is
bounded by Redis itself (`maxmemory` with a `volatile-*` policy).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError, WatchError

from sophia.errors import Unavailable
from sophia.stores.exact import MAX_TTL, Entry, Generation, Reading
from sophia.stores.scripts import Script

__all__ = ["RedisExact", "answering"]

_MILLI = 1_000_000
_BATCH = 256
_PURGE_TIMEOUT = 30.0

_pack = msgspec.msgpack.Encoder().encode
_unpack_entry = msgspec.msgpack.Decoder(Entry).decode
_unpack_generation = msgspec.msgpack.Decoder(Generation).decode

_PUT = Script("cache_put")
_DROP = Script("cache_drop")


@asynccontextmanager
async def answering(timeout: float) -> AsyncIterator[None]:
    """Turn what Redis or the way to it raises, and its silence for `timeout` seconds, into the API's error."""
    try:
        async with asyncio.timeout(timeout):
            yield
    except (RedisError, OSError, TimeoutError) as error:
        raise Unavailable(
            "cache_unavailable", f"The cache's store does not answer: {error}", retry_after=1.0
        ) from error


class RedisExact:
    """Entries in Redis. `entries` and `max_bytes` bound one organisation's share.

    `client` is one of `sophia.stores.scripts.open_redis`. `timeout` in seconds: more no lookup is worth; a purge may
    take as long as it takes.
    """

    def __init__(
        self, client: Redis, *, entries: int = 100_000, max_bytes: int = 256 * 1024 * 1024, timeout: float = 0.5
    ) -> None:
        self._client: Any = client  # redis-py types every reply as bytes or str, whatever the client decodes
        self._entries = entries
        self._max_bytes = max_bytes
        self._timeout = timeout

    async def get(self, organization: str, key: bytes, now: int) -> Reading:
        """See `ExactStore.get`: one round trip, two where the organisation is new."""
        names = _Names(organization)
        async with answering(self._timeout):
            pipeline = self._client.pipeline(transaction=False)
            pipeline.get(names.entry(key))
            pipeline.get(names.purges)
            pipeline.zadd(names.used, {key.hex(): now // _MILLI}, xx=True)
            packed, state, _ = await pipeline.execute()
            generation = _unpack_generation(state) if state else await self._begin(names)
        entry = _unpack(packed)
        if entry is not None and (entry.organization != organization or not generation.alive(entry, now)):
            entry = None
        return Reading(entry, generation.stamp)

    async def put(self, key: bytes, entry: Entry, now: int) -> bool:
        """See `ExactStore.put`. An entry over an eighth of the organisation's share is too large."""
        names = _Names(entry.organization)
        packed = _pack(entry)
        if len(packed) > self._max_bytes // 8 or entry.expires - now > MAX_TTL * 1_000_000_000:
            return False
        async with answering(self._timeout):
            state = await self._client.get(names.purges)
            if state is None or not _unpack_generation(state).alive(entry, now):
                return False
            start, end = now // _MILLI, max(now // _MILLI + 1, entry.expires // _MILLI)
            bounds = [entry.size, start, end, self._entries, self._max_bytes]
            keys = [names.entry(key), names.used, names.ends, names.size, names.bytes]
            await _PUT(self._client, keys, cast("list[str]", [names.prefix, key.hex(), packed, *bounds]))
        return True

    async def purge(
        self,
        organization: str,
        now: int,
        *,
        tag: str | None = None,
        model: str | None = None,
        user: str | None = None,
    ) -> int:
        """See `ExactStore.purge`.

        In force as soon as the new generation is written, in one step. Freeing the memory then walks the
        organisation's own entries; if that is cut short, the rest expires unread.
        """
        names = _Names(organization)
        async with answering(_PURGE_TIMEOUT):
            generation = await self._next(names, now, tag, model, user)
            return await self._free(names, generation, now)

    async def _begin(self, names: _Names) -> Generation:
        """Write the organisation's first generation, unless another replica was quicker."""
        await self._client.setnx(names.purges, _pack(Generation(secrets.randbits(62))))
        return _unpack_generation(await self._client.get(names.purges))

    async def _next(self, names: _Names, now: int, tag: str | None, model: str | None, user: str | None) -> Generation:
        async with self._client.pipeline() as pipeline:
            while True:
                await pipeline.watch(names.purges)
                state = await pipeline.get(names.purges)
                before = _unpack_generation(state) if state else Generation(secrets.randbits(62))
                after = before.after(now, tag, model, user)
                pipeline.multi()
                pipeline.set(names.purges, _pack(after))
                try:
                    await pipeline.execute()
                except WatchError:
                    continue
                return after

    async def _free(self, names: _Names, generation: Generation, now: int) -> int:
        freed, start = 0, 0
        while True:
            batch: list[bytes] = await self._client.zrange(names.used, start, start + _BATCH - 1)
            if not batch:
                return freed
            members = [member.decode() for member in batch]
            entries = map(_unpack, await self._client.mget([names.prefix + member for member in members]))
            dead = [
                (member, entry is not None)
                for member, entry in zip(members, entries, strict=True)
                if entry is None or not generation.alive(entry, now)
            ]
            if dead:
                keys = [names.used, names.ends, names.size, names.bytes]
                await _DROP(self._client, keys, [names.prefix, *(member for member, _ in dead)])
            freed += sum(there for _, there in dead)
            start += len(batch) - len(dead)


def _unpack(packed: bytes | None) -> Entry | None:
    """The entry; None where there is none, or one in the form of another version of this program."""
    try:
        return None if packed is None else _unpack_entry(packed)
    except msgspec.DecodeError:
        return None


class _Names:
    """The keys of one organisation."""

    __slots__ = ("bytes", "ends", "prefix", "purges", "size", "used")

    def __init__(self, organization: str) -> None:
        base = f"sophia:cache:{{{organization}}}:"
        self.prefix = base + "e:"
        self.used = base + "used"
        self.ends = base + "ends"
        self.size = base + "size"
        self.bytes = base + "bytes"
        self.purges = base + "purges"

    def entry(self, key: bytes) -> str:
        return self.prefix + key.hex()
