# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast a look into the vectors is, what they weigh, and what they find. usage: python -m tests.bench.cache.index N

Each size runs in a process of its own, whose memory is its own. Times are of `LocalVectors.nearest`, as the cache calls
it, eight neighbours, without the embedding: by the clock on the wall, and by the processor time of the thread, which
other work on the machine does not lengthen.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sophia.stores.vectors import LocalVectors

__all__ = ["measure"]

DIMENSIONS = 384
_END = 2_000_000_000 * 10**9
_NOW = 1_800_000_000 * 10**9
_TOPICS = 2000
_SPREAD = 0.04
_BLOCK = 2000
_PARTITION = b"p" * 16


def measure(size: int, partitions: int, probes: int = 3000) -> dict[str, float]:
    """Fill a store with `size` vectors over so many partitions (sizes by Zipf), then ask for near-duplicates."""
    return asyncio.run(_measure(size, partitions, probes))


async def _measure(size: int, partitions: int, probes: int) -> dict[str, float]:
    store = LocalVectors(vectors=size + 10_000, partition_vectors=size + 10_000)
    topics = _unit(np.random.default_rng(1).standard_normal((_TOPICS, DIMENSIONS)).astype(np.float32))
    weights = 1 / np.arange(1, partitions + 1)
    names = [number.to_bytes(16, "big") for number in range(partitions)]
    # What the process takes at first use (BLAS' work space, imports) is not the store's.
    warm = LocalVectors()
    names_of_warm = [number.to_bytes(32, "big") for number in range(3000)]
    await warm.extend("org", _PARTITION, names_of_warm, _questions(np.random.default_rng(3), topics, 3000), [_END] * 3000, _NOW)
    await warm.nearest("org", _PARTITION, topics[0], 8, _NOW)
    del warm
    _settle()
    before = _resident()
    began, took = time.perf_counter(), 0.0
    kept: list[tuple[int, bytes, NDArray[np.float32]]] = []
    for start in range(0, size, _BLOCK):
        rng = np.random.default_rng([7, start])
        vectors = _questions(rng, topics, _BLOCK)
        keys = [(start + place).to_bytes(32, "little") for place in range(_BLOCK)]
        homes = rng.choice(partitions, _BLOCK, p=weights / weights.sum())
        started = time.perf_counter()
        for home in np.unique(homes):
            places = np.flatnonzero(homes == home)
            await store.extend(
                "org", names[home], [keys[place] for place in places], vectors[places], [_END] * len(places), _NOW
            )
        took += time.perf_counter() - started
        kept.append((start, names[homes[0]], vectors[0].copy()))
    _settle()
    memory = _resident() - before
    rng = np.random.default_rng(9)
    single = []
    for number in range(500):
        vector = _questions(rng, topics, 1)[0]
        started = time.thread_time()
        await store.add("org", names[0], (size + number).to_bytes(32, "little"), vector, _END, _NOW)
        single.append(time.thread_time() - started)
    found = {"size": size, "partitions": partitions, "build_s": took, "all_s": time.perf_counter() - began}
    found |= {"memory_mb": memory / 1e6, "rows_mb": store.nbytes / 1e6, "add_p99_ms": float(np.percentile(single, 99)) * 1e3}
    wall, cpu, hits, close = [], [], 0, []
    for _ in range(probes):
        start, home, vector = kept[rng.integers(len(kept))]
        asked = _unit(vector + rng.standard_normal(DIMENSIONS).astype(np.float32) * rng.choice([0.0, 0.005, 0.01, 0.02]))
        close.append(float(asked @ vector))
        clock, processor = time.perf_counter(), time.thread_time()
        near = await store.nearest("org", home, asked, 8, _NOW)
        cpu.append(time.thread_time() - processor)
        wall.append(time.perf_counter() - clock)
        hits += bool(near) and near[0].key == start.to_bytes(32, "little")
    for name, values in (("wall", wall), ("cpu", cpu)):
        for share in (50, 99):
            found[f"{name}_p{share}_ms"] = float(np.percentile(values, share)) * 1e3
    return found | {"recall": hits / probes, "lowest_cosine": min(close)}


def _questions(rng: np.random.Generator, topics: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Vectors around topics: cosines within one are about 0.6, between two about 0."""
    spread = rng.standard_normal((count, DIMENSIONS)).astype(np.float32) * _SPREAD
    return _unit(topics[rng.integers(0, len(topics), count)] + spread)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def _settle() -> None:
    """Give back to the system what is free, so that resident memory is what is held."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("size", type=int)
    parser.add_argument("--partitions", type=int, default=1)
    given = parser.parse_args()
    print(json.dumps(measure(given.size, given.partitions)))
