# SPDX-License-Identifier: GPL-3.0-or-later
"""Vectors of cached questions, shared by replicas through plain Redis (7 or later; no search module is needed).

Redis keeps, each replica searches. A partition is a bounded stream; a replica asks it for what is newer than what it
has seen and puts that into its own index (`LocalVectors`), in the one round trip that a search costs::

    sophia:cache:{<organisation>}:v:<hex>    stream: k (entry's key), v (float16), e (expiry, ns); expires by itself
    sophia:cache:{<organisation>}:parts      sorted set: partition -> when its last vector expires (s)

What one replica has added is found by the next search of any other. A vector that a replica misses or keeps too long
costs a hit or a look, never a wrong answer: entries are judged where they are kept.

A partition holds at most `partition_vectors` (the oldest go first) and an organisation at most `partitions`: enough
for many partitions of a user's or a team's size. For partitions of hundreds of thousands, a vector database is the
better shared tier; it would implement the same protocol.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
from redis.asyncio import Redis

from sophia.stores.exact_redis import answering
from sophia.stores.vectors import LocalVectors, Neighbour, Vector

__all__ = ["RedisVectors"]

_SECOND = 1_000_000_000
_ALL_SEEN = 65_536


class RedisVectors:
    """Vectors in Redis streams, searched in this process.

    `vectors` bounds this replica's own index over all partitions; one that was pushed out is read again in full.
    """

    def __init__(
        self,
        client: Redis,
        *,
        vectors: int = 100_000,
        partition_vectors: int = 4096,
        partitions: int = 10_000,
        timeout: float = 0.5,
    ) -> None:
        self._client: Any = client  # redis-py types every reply as bytes or str, whatever the client decodes
        self._local = LocalVectors(vectors=vectors, partition_vectors=partition_vectors, on_evict=self._forget)
        self._partition_vectors = partition_vectors
        self._partitions = partitions
        self._timeout = timeout
        self._seen: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()

    async def holds(self, organization: str, partition: bytes, now: int) -> bool:
        """See `VectorStore.holds`; reads what is new."""
        await self._follow(organization, partition, now)
        return await self._local.holds(organization, partition, now)

    async def nearest(
        self, organization: str, partition: bytes, vector: Vector, count: int, now: int
    ) -> list[Neighbour]:
        """See `VectorStore.nearest`: over what `holds` has read, without another round trip."""
        return await self._local.nearest(organization, partition, vector, count, now)

    async def add(
        self, organization: str, partition: bytes, key: bytes, vector: Vector, expires: int, now: int
    ) -> None:
        """See `VectorStore.add`."""
        stream, parts = _stream(organization, partition), _parts(organization)
        ends = expires // _SECOND + 1
        fields = {"k": key, "v": vector.astype("<f2").tobytes(), "e": str(expires)}
        async with answering(self._timeout):
            pipeline = self._client.pipeline(transaction=False)
            pipeline.xadd(stream, fields, maxlen=self._partition_vectors, approximate=False)
            pipeline.expire(stream, max(1, ends - now // _SECOND), nx=True)
            pipeline.expire(stream, max(1, ends - now // _SECOND), gt=True)
            pipeline.zadd(parts, {partition.hex(): ends}, gt=True)
            pipeline.zremrangebyscore(parts, "-inf", now // _SECOND)
            pipeline.zcard(parts)
            many = (await pipeline.execute())[-1] - self._partitions
            if many > 0:
                for name, _ in await self._client.zpopmin(parts, many):
                    await self._client.unlink(_stream(organization, bytes.fromhex(name.decode())))

    async def remove(self, organization: str, partition: bytes, key: bytes) -> None:
        """See `VectorStore.remove`: from this replica's index, each finds out for itself."""
        await self._local.remove(organization, partition, key)

    async def clear(self, organization: str) -> None:
        """See `VectorStore.clear`: deletes the organisation's streams, walking its own list of partitions."""
        await self._local.clear(organization)
        async with answering(self._timeout):
            while names := await self._client.zpopmin(_parts(organization), 256):
                await self._client.unlink(*(_stream(organization, bytes.fromhex(name.decode())) for name, _ in names))

    async def _follow(self, organization: str, partition: bytes, now: int) -> None:
        place = (organization, partition)
        last = self._seen.get(place)
        async with answering(self._timeout):
            news = await self._client.xrange(_stream(organization, partition), min=b"(" + last if last else "-")
        fresh = [(fields[b"k"], fields[b"v"], int(fields[b"e"])) for _, fields in news if int(fields[b"e"]) > now]
        if fresh:
            keys, packed, expires = zip(*fresh, strict=True)
            vectors = np.frombuffer(b"".join(packed), "<f2").reshape(len(fresh), -1).astype(np.float32)
            await self._local.extend(organization, partition, keys, vectors, expires, now)
        if news:  # only now: what the partition itself pushed out while it was read is not read again at once
            self._seen[place] = news[-1][0]
            self._seen.move_to_end(place)
        while len(self._seen) > _ALL_SEEN:
            self._seen.popitem(last=False)

    def _forget(self, organization: str, partition: bytes) -> None:
        self._seen.pop((organization, partition), None)


def _stream(organization: str, partition: bytes) -> str:
    return f"sophia:cache:{{{organization}}}:v:{partition.hex()}"


def _parts(organization: str) -> str:
    return f"sophia:cache:{{{organization}}}:parts"
