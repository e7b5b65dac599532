# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the vectors of all partitions lie: pages of four rows, and one partition's index over them. Not thread-safe.

A row is a vector of length one as 8-bit integers with a scale of its own (the error of a cosine is below 0.002 at 384
dimensions), its entry's key, when it expires, and when it came: 426 bytes at 384 dimensions. An `Index` is an inverted
file (Jégou, Douze, Schmid 2011, without the product quantisation): rows lie in lists around centres, a search looks
through the few lists whose centres are nearest. A list that grows past `_SPLIT` rows is split in two, so there is
never a pause for training, and an index of fewer rows is one list and searched exactly. A list over which centres were
set later may hide a row: that costs a hit, never a wrong answer.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Found", "Index", "Pages", "Vector"]

Vector = NDArray[np.float32]

_PAGE = 4
_GROWTH = 1024
_SPLIT = 384
_PROBES = 6
_ROUNDS = 4
_BATCH = 1024
_KEY = 32
_SECOND = 1_000_000_000


class Found(NamedTuple):
    """A row near the one asked: its entry's key, and the cosine similarity."""

    key: bytes
    similarity: float


class Pages:
    """The memory of all vectors of one dimension. It grows by steps of 4,096 rows and gives pages back for reuse."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self.codes = np.zeros((0, dimensions), np.int8)
        self.scales = np.zeros(0, np.float16)
        self.keys = np.zeros((0, _KEY), np.uint8)
        self.ends = np.zeros(0, np.uint32)  # seconds since the epoch, rounded up; 0 where there is no row
        self.arrivals = np.zeros(0, np.uint32)
        self._free: list[int] = []
        self._pages = 0
        self._arrived = 0

    @property
    def heads(self) -> NDArray[np.uint32]:
        """The first four bytes of every row's key, as the machine reads them."""
        return self.keys.view(np.uint32)[:, 0]

    @property
    def nbytes(self) -> int:
        """Bytes of the rows, used or not."""
        arrays = (self.codes, self.scales, self.keys, self.ends, self.arrivals)
        return sum(array.nbytes for array in arrays)

    def take(self) -> int:
        """A page without rows."""
        if not self._free:
            self._grow()
        return self._free.pop()

    def give(self, page: int) -> None:
        """Let go of a page whose rows are cleared."""
        self._free.append(page)

    def write(
        self, rows: NDArray[np.int64], keys: NDArray[np.uint8], vectors: Vector, ends: NDArray[np.uint32]
    ) -> None:
        """Put vectors of length one into rows."""
        scales = np.maximum(np.abs(vectors).max(axis=1) / 127, 1e-12)
        self.codes[rows] = np.rint(vectors / scales[:, None])
        self.scales[rows] = scales
        self.keys[rows] = keys
        self.ends[rows] = ends
        self.arrivals[rows] = (self._arrived + np.arange(len(rows))) & 0xFFFFFFFF
        self._arrived += len(rows)

    def move(self, source: NDArray[np.int64], target: NDArray[np.int64]) -> None:
        """Copy rows to others; what is read is read before anything is written."""
        for array in (self.codes, self.scales, self.keys, self.ends, self.arrivals):
            array[target] = array[source]

    def clear(self, rows: NDArray[np.int64]) -> None:
        """Say that there is nothing in these rows."""
        self.ends[rows] = 0

    def vectors(self, rows: NDArray[np.int64]) -> Vector:
        """The vectors of some rows, one a line, of about length one."""
        found = self.codes.take(rows, axis=0).astype(np.float32)
        found *= self.scales[rows, None]
        return found

    def _grow(self) -> None:
        """`resize` moves a large array by the kernel's page tables, without copying it. No view of one is ever kept."""
        before, self._pages = self._pages, self._pages + _GROWTH
        rows = self._pages * _PAGE
        self.codes.resize((rows, self.dimensions), refcheck=False)
        self.scales.resize(rows, refcheck=False)
        self.keys.resize((rows, _KEY), refcheck=False)
        self.ends.resize(rows, refcheck=False)
        self.arrivals.resize(rows, refcheck=False)
        self._free.extend(range(self._pages - 1, before - 1, -1))


class _List:
    """The rows around one centre: full pages and one that fills up."""

    __slots__ = ("count", "pages")

    def __init__(self) -> None:
        self.pages = np.zeros(0, np.int32)
        self.count = 0

    def rows(self) -> NDArray[np.int64]:
        """Every row in use, in the list's order."""
        return _rows(self.pages)[: self.count]


class Index:
    """One partition's vectors. Keys are 32 bytes and occur once."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._lists = [_List()]
        self._centres = np.zeros((1, pages.dimensions), np.float32)
        self._seen: dict[bytes, tuple[_List, int]] = {}
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def add(self, key: bytes, vector: Vector, expires: int) -> None:
        """Keep a vector under `key`, in the place of an earlier one."""
        self.extend([key], vector[None], [expires])

    def extend(self, keys: Sequence[bytes], vectors: Vector, expires: Sequence[int]) -> None:
        """Keep many vectors, one a line, each under its key; of a key that comes twice, the last."""
        latest = {key: place for place, key in enumerate(keys)}
        if len(latest) < len(keys):
            places = sorted(latest.values())
            keys, vectors = [keys[place] for place in places], vectors[places]
            expires = [expires[place] for place in places]
        packed = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, _KEY)
        ends = np.array([-(-end // _SECOND) for end in expires], np.uint32)
        for start in range(0, len(keys), _BATCH):
            part = slice(start, start + _BATCH)
            self._extend(list(keys[part]), packed[part], vectors[part], ends[part])

    def _extend(
        self, keys: Sequence[bytes], packed: NDArray[np.uint8], vectors: Vector, ends: NDArray[np.uint32]
    ) -> None:
        homes = np.argmax(vectors @ self._centres[: len(self._lists)].T, axis=1)
        order = np.argsort(homes, kind="stable")
        bounds = np.flatnonzero(np.diff(homes[order])) + 1
        for members in np.split(order, bounds):
            home = self._lists[int(homes[members[0]])]
            for member in members:
                self._forget(home, keys[member])
            self._pages.write(self._append(home, len(members)), packed[members], vectors[members], ends[members])
        self._split_large()

    def remove(self, key: bytes) -> bool:
        """Forget a key; whether it was there. At once for what the last search found, else every list is walked."""
        place = self._seen.pop(key, None)
        if place is not None and self._holds(*place, key):
            self._drop(place[0], np.array([place[1]]))
            return True
        return any(self._forget(found, key) for found in self._lists)

    def remove_oldest(self, count: int) -> None:
        """Forget the `count` vectors that came first."""
        rows = np.concatenate([found.rows() for found in self._lists])
        ages = self._pages.arrivals[rows]
        limit = np.partition(ages, count - 1)[count - 1] if count < len(rows) else ages.max()
        for found in list(self._lists):
            places = np.flatnonzero(self._pages.arrivals[found.rows()] <= limit)
            if len(places):
                self._drop(found, places)

    def nearest(self, vector: Vector, count: int, now: int) -> list[Found]:
        """At most `count` neighbours that have not expired, the nearest first; what has expired is forgotten."""
        lists = self._around(vector)
        rows = np.concatenate([found.rows() for found in lists])
        if not len(rows):
            return []
        alive = self._pages.ends[rows] > now // _SECOND
        similarities = self._pages.codes.take(rows, axis=0).astype(np.float32) @ vector
        similarities *= self._pages.scales[rows]
        similarities[~alive] = -2.0
        best = np.argpartition(-similarities, min(count, len(rows) - 1))[: count + 1]
        best = best[np.argsort(-similarities[best])]
        hits: dict[bytes, float] = {}
        for place in best:
            if similarities[place] > -2.0:
                hits.setdefault(self._pages.keys[rows[place]].tobytes(), float(similarities[place]))
        self._remember(lists, rows, best)
        if not alive.all():
            self._expire(lists, now)
        return [Found(key, similarity) for key, similarity in hits.items()][:count]

    def clear(self) -> None:
        """Forget everything."""
        for found in self._lists:
            self._drop(found, np.arange(found.count))

    def _around(self, vector: Vector) -> list[_List]:
        count = len(self._lists)
        if count <= _PROBES:
            return self._lists
        near = self._centres[:count] @ vector
        return [self._lists[number] for number in np.argpartition(-near, _PROBES)[:_PROBES]]

    def _remember(self, lists: list[_List], rows: NDArray[np.int64], best: NDArray[np.int64]) -> None:
        """Where the neighbours lie: those whose entries turn out to be gone are removed next."""
        self._seen.clear()
        offset = 0
        for found in lists:
            for place in best[(best >= offset) & (best < offset + found.count)]:
                self._seen[self._pages.keys[rows[place]].tobytes()] = (found, int(place - offset))
            offset += found.count

    def _holds(self, found: _List, place: int, key: bytes) -> bool:
        return place < found.count and self._pages.keys[found.rows()[place]].tobytes() == key

    def _expire(self, lists: list[_List], now: int) -> None:
        for found in lists:
            places = np.flatnonzero(self._pages.ends[found.rows()] <= now // _SECOND)
            if len(places):
                self._drop(found, places)

    def _forget(self, found: _List, key: bytes) -> bool:
        """Take a key out of one list. The same question has the same vector, hence the same list; where that was
        divided since, two rows of one key may live on, and a search gives the better."""
        heads = self._pages.heads[found.rows()]
        places = np.flatnonzero(heads == int.from_bytes(key[:4], sys.byteorder))
        same = [place for place in places if self._holds(found, int(place), key)]
        if same:
            self._drop(found, np.array(same))
        return bool(same)

    def _append(self, found: _List, count: int) -> NDArray[np.int64]:
        """Rows at the end of a list, to be written."""
        while len(found.pages) * _PAGE < found.count + count:
            found.pages = np.append(found.pages, np.int32(self._pages.take()))
        places = np.arange(found.count, found.count + count)
        found.count += count
        self.count += count
        return found.pages[places // _PAGE].astype(np.int64) * _PAGE + places % _PAGE

    def _drop(self, found: _List, places: NDArray[np.int64]) -> None:
        """Take rows out of a list: the last ones move into the holes, empty pages go back."""
        self._seen.clear()
        rows = found.rows()
        left = found.count - len(places)
        holes = places[places < left]
        tail = np.setdiff1d(np.arange(left, found.count), places, assume_unique=True)
        self._pages.move(rows[tail], rows[holes])
        self._pages.clear(rows[left:])
        self.count -= len(places)
        found.count = left
        needed = -(-left // _PAGE)
        for page in found.pages[needed:]:
            self._pages.give(int(page))
        found.pages = found.pages[:needed]

    def _split_large(self) -> None:
        large = [number for number, found in enumerate(self._lists) if found.count > _SPLIT]
        while large:
            number = large.pop()
            self._split(number)
            large += [each for each in (number, len(self._lists) - 1) if self._lists[each].count > _SPLIT]

    def _split(self, number: int) -> None:
        """Two lists out of one, around two centres found by spherical k-means."""
        found = self._lists[number]
        rows = found.rows()
        vectors = self._pages.vectors(rows)
        centres = _two_centres(vectors)
        near = vectors @ centres.T
        right = near[:, 1] > near[:, 0]
        if not len(rows) // 16 < right.sum() < len(rows) - len(rows) // 16:  # all but alike: any halves will do
            right = np.arange(len(rows)) >= len(rows) // 2
            centres = np.stack([_mean(vectors[~right]), _mean(vectors[right])])
        if len(self._lists) == len(self._centres):
            self._centres.resize((len(self._centres) + 64, self._pages.dimensions), refcheck=False)
        self._centres[number] = centres[0]
        self._centres[len(self._lists)] = centres[1]
        other = _List()
        self._lists.append(other)
        moved = rows[right]
        self._pages.move(moved, self._append(other, len(moved)))
        self._drop(found, np.flatnonzero(right))


def _rows(pages: NDArray[np.int32]) -> NDArray[np.int64]:
    rows: NDArray[np.int64] = (pages[:, None].astype(np.int64) * _PAGE + np.arange(_PAGE)).ravel()
    return rows


def _mean(vectors: Vector) -> Vector:
    mean = vectors.mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32)


def _two_centres(vectors: Vector) -> Vector:
    """Two centres of length one, begun with the vector farthest from the mean and the one farthest from that."""
    first = vectors[int(np.argmin(vectors @ _mean(vectors)))]
    centres = np.stack([first, vectors[int(np.argmin(vectors @ first))]])
    for _ in range(_ROUNDS):
        near = vectors @ centres.T
        right = near[:, 1] > near[:, 0]
        if right.all() or not right.any():
            break
        centres = np.stack([_mean(vectors[~right]), _mean(vectors[right])])
    return np.asarray(centres, np.float32)
