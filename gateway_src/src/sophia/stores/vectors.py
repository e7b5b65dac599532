# SPDX-License-Identifier: GPL-3.0-or-later
"""Vectors of cached questions, one index a partition: the seam, and the store inside one process.

A partition is a boundary, not a filter: a search sees the vectors of one partition of one organisation and nothing
else. A store of vectors only proposes; whether an entry may be served is decided where the entry is kept
(`sophia.stores.exact`), so a vector that outlives its entry costs a look and is removed then.

Vectors are float32, of length one, all of a partition of the same dimension; similarity is their cosine. How they are
kept and searched: `sophia.stores.pages`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

from sophia.stores.pages import Found as Neighbour
from sophia.stores.pages import Index, Pages, Vector

__all__ = ["LocalVectors", "Neighbour", "Vector", "VectorStore"]

_ROOM = 256
"""A full partition makes room for one in so many of its vectors at once, the oldest."""


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


class _Shelf:
    """One organisation's partitions, the least recently used first."""

    __slots__ = ("count", "organization", "partitions")

    def __init__(self, organization: str) -> None:
        self.organization = organization
        self.partitions: OrderedDict[bytes, Index] = OrderedDict()
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
        self._pages: dict[int, Pages] = {}
        self.count = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors and their keys, without the indexes' own bookkeeping."""
        return sum(pages.nbytes for pages in self._pages.values())

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
        await self.extend(organization, partition, [key], vector[None], [expires], now)

    async def extend(
        self,
        organization: str,
        partition: bytes,
        keys: Sequence[bytes],
        vectors: Vector,
        expires: Sequence[int],
        now: int,
    ) -> None:
        """Keep many vectors of one partition at once, one a line."""
        shelf = self._shelves.setdefault(organization, _Shelf(organization))
        index = shelf.partitions.get(partition)
        if index is None:
            index = shelf.partitions[partition] = Index(self._pages_of(vectors.shape[1]))
        shelf.partitions.move_to_end(partition)
        before = len(index)
        index.extend(keys, vectors, expires)
        over = len(index) - self._max_partition
        if over > 0:
            index.remove_oldest(max(over, self._max_partition // _ROOM))
        self._account(shelf, partition, before)
        while self.count > self._max:
            self._evict()

    async def remove(self, organization: str, partition: bytes, key: bytes) -> None:
        """See `VectorStore.remove`."""
        shelf = self._shelves.get(organization)
        index = shelf.partitions.get(partition) if shelf else None
        if shelf is None or index is None:
            return
        before = len(index)
        index.remove(key)
        self._account(shelf, partition, before)

    async def clear(self, organization: str) -> None:
        """See `VectorStore.clear`."""
        shelf = self._shelves.pop(organization, None)
        if shelf is not None:
            self.count -= shelf.count
            for index in shelf.partitions.values():
                index.clear()

    def _pages_of(self, dimensions: int) -> Pages:
        pages = self._pages.get(dimensions)
        if pages is None:
            pages = self._pages[dimensions] = Pages(dimensions)
        return pages

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
        before = len(index)
        index.remove_oldest(min(before, max(1, shelf.count // _ROOM)))
        self._account(shelf, partition, before)
        if self._on_evict is not None:
            self._on_evict(shelf.organization, partition)
