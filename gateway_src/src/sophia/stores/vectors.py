# SPDX-License-Identifier: GPL-3.0-or-later
"""Vectors of cached questions, one index a partition: the seam, and the store inside one process.

A partition is a boundary, not a filter: a search sees the vectors of one partition of one organisation and nothing
else. A store of vectors only proposes; whether an entry may be served is decided where the entry is kept
(`sophia.stores.exact`), so a vector that outlives its entry costs a look and is removed then.

Vectors are float32, of length one, all of a partition of the same dimension; similarity is their cosine. They are
kept as float16.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from usearch.index import Index

__all__ = ["LocalVectors", "Neighbour", "Vector", "VectorStore"]

Vector = NDArray[np.float32]

_BRUTE = 256
"""Up to here a matrix product is quicker than a graph, and exact."""


class Neighbour(NamedTuple):
    """A kept question near the one asked: its entry's key, and the cosine similarity."""

    key: bytes
    similarity: float


class VectorStore(Protocol):
    """Proposes the entries whose questions are near. Methods raise `sophia.errors.Unavailable`."""

    async def holds(self, organization: str, partition: bytes, now: int) -> bool:
        """Whether the partition has any vector: if not, embedding the question can wait."""

    async def nearest(
        self, organization: str, partition: bytes, vector: Vector, count: int, now: int
    ) -> list[Neighbour]:
        """At most `count` neighbours that have not expired, the nearest first."""

    async def add(
        self, organization: str, partition: bytes, key: bytes, vector: Vector, expires: int, now: int
    ) -> None:
        """Keep a vector under its entry's key, in the place of an earlier one of that key."""

    async def remove(self, organization: str, partition: bytes, key: bytes) -> None:
        """Forget a vector whose entry is gone."""

    async def clear(self, organization: str) -> None:
        """Forget every vector of the organisation."""


class _Partition:
    """One index. Small ones are a matrix, larger ones a usearch graph (HNSW, cosine, float16)."""

    __slots__ = ("_graph", "_keys", "_matrix", "_next", "_slots", "dimensions")

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._slots: OrderedDict[bytes, tuple[int, int]] = OrderedDict()  # key -> slot, expiry; oldest first
        self._keys: dict[int, bytes] = {}
        self._matrix = np.empty((4, dimensions), np.float16)
        self._graph: Index | None = None
        self._next = 0

    def __len__(self) -> int:
        return len(self._slots)

    def add(self, key: bytes, vector: Vector, expires: int) -> None:
        self.remove(key)
        if self._graph is None and len(self._slots) == _BRUTE:
            self._grow_graph()
        if self._graph is None:
            slot = len(self._slots)
            if slot == len(self._matrix):
                self._matrix = np.concatenate((self._matrix, np.empty_like(self._matrix)))
            self._matrix[slot] = vector
        else:
            slot = self._next
            self._next += 1
            self._graph.add(slot, vector, threads=1)
        self._slots[key] = (slot, expires)
        self._keys[slot] = key

    def remove(self, key: bytes) -> bool:
        place = self._slots.pop(key, None)
        if place is None:
            return False
        slot = place[0]
        del self._keys[slot]
        if self._graph is not None:
            self._graph.remove(slot)
            return True
        last = len(self._slots)
        if slot != last:  # the matrix has no holes: the last row moves into the free one
            moved = self._keys.pop(last)
            self._matrix[slot] = self._matrix[last]
            self._keys[slot] = moved
            self._slots[moved] = (slot, self._slots[moved][1])
        return True

    def remove_oldest(self) -> None:
        self.remove(next(iter(self._slots)))

    def nearest(self, vector: Vector, count: int, now: int) -> list[Neighbour]:
        found = [
            Neighbour(self._keys[slot], similarity)
            for slot, similarity in self._search(vector, min(count, len(self._slots)))
        ]
        expired = {near.key for near in found if self._slots[near.key][1] <= now}
        for key in expired:
            self.remove(key)
        return [near for near in found if near.key not in expired]

    def _search(self, vector: Vector, count: int) -> list[tuple[int, float]]:
        if not count:
            return []
        if self._graph is not None:
            matches = self._graph.search(vector, count, threads=1)
            return [(int(slot), 1.0 - float(far)) for slot, far in zip(matches.keys, matches.distances, strict=True)]
        similarities = self._matrix[: len(self._slots)].astype(np.float32) @ vector
        order = np.argsort(-similarities)[:count]
        return [(int(slot), float(similarities[slot])) for slot in order]

    def _grow_graph(self) -> None:
        graph = Index(ndim=self.dimensions, metric="cos", dtype="f16")
        slots = np.arange(len(self._slots), dtype=np.uint64)
        graph.add(slots, self._matrix[: len(self._slots)], threads=1)
        self._graph = graph
        self._next = len(self._slots)
        self._matrix = np.empty((0, self.dimensions), np.float16)


class _Shelf:
    """One organisation's partitions, the least recently used first."""

    __slots__ = ("count", "organization", "partitions")

    def __init__(self, organization: str) -> None:
        self.organization = organization
        self.partitions: OrderedDict[bytes, _Partition] = OrderedDict()
        self.count = 0


class LocalVectors:
    """Vectors of this process: gone when it ends.

    At most `vectors` in all and `partition_vectors` in one partition. When full, the organisation with the most
    gives way: the oldest vector of its least recently used partition goes, and `on_evict` is told which partition.
    """

    def __init__(
        self,
        *,
        vectors: int = 100_000,
        partition_vectors: int = 100_000,
        on_evict: Callable[[str, bytes], None] | None = None,
    ) -> None:
        self._on_evict = on_evict
        self._max = vectors
        self._max_partition = partition_vectors
        self._shelves: dict[str, _Shelf] = {}
        self.count = 0

    async def holds(self, organization: str, partition: bytes, now: int) -> bool:
        """See `VectorStore.holds`."""
        shelf = self._shelves.get(organization)
        return shelf is not None and partition in shelf.partitions

    async def nearest(
        self, organization: str, partition: bytes, vector: Vector, count: int, now: int
    ) -> list[Neighbour]:
        """See `VectorStore.nearest`."""
        shelf = self._shelves.get(organization)
        index = shelf.partitions.get(partition) if shelf else None
        if shelf is None or index is None:
            return []
        shelf.partitions.move_to_end(partition)
        before = len(index)
        found = index.nearest(vector, count, now)
        self._account(shelf, partition, before)
        return found

    async def add(
        self, organization: str, partition: bytes, key: bytes, vector: Vector, expires: int, now: int
    ) -> None:
        """See `VectorStore.add`."""
        shelf = self._shelves.setdefault(organization, _Shelf(organization))
        index = shelf.partitions.get(partition)
        if index is None:
            index = shelf.partitions[partition] = _Partition(len(vector))
        shelf.partitions.move_to_end(partition)
        before = len(index)
        index.add(key, vector, expires)
        if len(index) > self._max_partition:
            index.remove_oldest()
        self._account(shelf, partition, before)
        while self.count > self._max:
            self._evict()

    async def remove(self, organization: str, partition: bytes, key: bytes) -> None:
        """See `VectorStore.remove`."""
        shelf = self._shelves.get(organization)
        index = shelf.partitions.get(partition) if shelf else None
        if shelf is not None and index is not None and index.remove(key):
            self._account(shelf, partition, len(index) + 1)

    async def clear(self, organization: str) -> None:
        """See `VectorStore.clear`."""
        shelf = self._shelves.pop(organization, None)
        if shelf is not None:
            self.count -= shelf.count

    def _account(self, shelf: _Shelf, partition: bytes, before: int) -> None:
        """Book how a partition's size changed, and drop it where nothing is left."""
        change = len(shelf.partitions[partition]) - before
        shelf.count += change
        self.count += change
        if not shelf.partitions[partition]:
            del shelf.partitions[partition]

    def _evict(self) -> None:
        shelf = max(self._shelves.values(), key=lambda shelf: shelf.count)
        partition, index = next(iter(shelf.partitions.items()))
        index.remove_oldest()
        self._account(shelf, partition, len(index) + 1)
        if self._on_evict is not None:
            self._on_evict(shelf.organization, partition)
