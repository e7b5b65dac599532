# SPDX-License-Identifier: GPL-3.0-or-later
"""The embedders: the local model where it is installed, and the provider's behind the gateway."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sophia.gateway import embed
from sophia.gateway.embed import EmbeddingError, LocalEmbedder, ProviderEmbedder, normal
from sophia.stores.model import Principal, Role

WHO = Principal("key", "org_a", None, "user_a", Role.MEMBER, frozenset(), None, (), ())


class Model:
    """What sentence-transformers gives, for batching: a vector from the text's length, a batch at a time."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.fails = False

    def encode(self, texts: list[str], **_: Any) -> np.ndarray[Any, Any]:
        self.batches.append(texts)
        time.sleep(0.01)
        if self.fails:
            raise RuntimeError("out of memory")
        return np.array([[len(text), 1.0] for text in texts], np.float32)


@pytest.fixture
async def local(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[LocalEmbedder, Model]]:
    """The embedder with its own threads and batches, around a model that is quick to load."""
    model = Model()
    monkeypatch.setattr(embed, "_load", lambda path: model)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    embedder = LocalEmbedder("some/model")
    await embedder.open()
    yield embedder, model
    await embedder.close()


async def test_one_question_alone_does_not_wait(local: tuple[LocalEmbedder, Model]) -> None:
    embedder, model = local
    (vector,) = await embedder.embed(WHO, ["abc"])
    assert vector.tolist() == pytest.approx([3 / 10**0.5, 1 / 10**0.5])
    assert vector.dtype == np.float32
    assert model.batches == [["abc"]]


async def test_questions_that_come_meanwhile_go_together(local: tuple[LocalEmbedder, Model]) -> None:
    embedder, model = local
    texts = ["x" * (1 + number) for number in range(70)]
    found = await asyncio.gather(*(embedder.embed(WHO, [text]) for text in texts))
    assert [vector[0] / vector[1] for (vector,) in found] == pytest.approx([len(text) for text in texts], rel=1e-4)
    assert len(model.batches) <= 4
    assert max(map(len, model.batches)) == 32


async def test_a_batch_that_fails_is_an_embedding_error_and_the_next_goes_on(
    local: tuple[LocalEmbedder, Model],
) -> None:
    embedder, model = local
    model.fails = True
    outcomes = await asyncio.gather(*(embedder.embed(WHO, ["a"]) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(outcome, EmbeddingError) for outcome in outcomes)
    model.fails = False
    assert len(await embedder.embed(WHO, ["a", "b"])) == 2


async def test_who_gives_up_is_left_out(local: tuple[LocalEmbedder, Model]) -> None:
    embedder, model = local
    first = asyncio.create_task(embedder.embed(WHO, ["first"]))
    await asyncio.sleep(0.002)
    gone = asyncio.create_task(embedder.embed(WHO, ["gone"]))
    stays = asyncio.create_task(embedder.embed(WHO, ["stays"]))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(first, stays)
    assert "gone" not in [text for batch in model.batches for text in batch]


async def test_closing_fails_what_waits(local: tuple[LocalEmbedder, Model]) -> None:
    embedder, _ = local
    tasks = [asyncio.create_task(embedder.embed(WHO, ["a"])) for _ in range(40)]
    await asyncio.sleep(0.002)
    await embedder.close()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, EmbeddingError) for outcome in outcomes)
    with pytest.raises(EmbeddingError):
        await embedder.embed(WHO, ["a"])


async def test_without_the_package_opening_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EmbeddingError, match="install"):
        await LocalEmbedder().open()


async def test_a_model_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def load(path: str) -> None:
        raise OSError("no such file")

    monkeypatch.setattr(embed, "_load", load)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(EmbeddingError, match="nowhere"):
        await LocalEmbedder(tmp_path / "nowhere").open()


async def test_the_provider_is_called_in_the_tenants_name() -> None:
    calls = []

    async def call(principal: Principal, texts: Sequence[str]) -> list[bytes]:
        calls.append((principal, list(texts)))
        return [np.array([3, 4], "<f4").tobytes() for _ in texts]

    embedder = ProviderEmbedder("vendor/embedding", call)
    vectors = await embedder.embed(WHO, ["a", "b"])
    assert [vector.tolist() for vector in vectors] == [pytest.approx([0.6, 0.8])] * 2
    assert calls == [(WHO, ["a", "b"])]


@pytest.mark.parametrize(
    "replies",
    [
        [],
        [b""],
        [b"\x00" * 3],
        [b"\x00" * 8],
        [np.array([np.nan, 1], "<f4").tobytes()],
        [np.array([np.inf, 1], "<f4").tobytes()],
        [np.array([1, 2, 3], "<f4").tobytes()],
        [np.array([1, 2], "<f4").tobytes()] * 2,
    ],
)
async def test_a_reply_that_is_no_vector_is_an_embedding_error(replies: list[bytes]) -> None:
    script = [[np.array([1, 2], "<f4").tobytes()], replies]

    async def call(principal: Principal, texts: Sequence[str]) -> list[bytes]:
        return script.pop(0)

    embedder = ProviderEmbedder("vendor/embedding", call)
    await embedder.embed(WHO, ["a"])
    with pytest.raises(EmbeddingError):
        await embedder.embed(WHO, ["a"])


async def test_a_call_that_fails_is_an_embedding_error() -> None:
    async def call(principal: Principal, texts: Sequence[str]) -> list[bytes]:
        raise ConnectionError("away")

    with pytest.raises(EmbeddingError, match="away"):
        await ProviderEmbedder("vendor/embedding", call).embed(WHO, ["a"])


def test_models_have_names_of_their_own() -> None:
    async def call(principal: Principal, texts: Sequence[str]) -> list[bytes]:
        return []

    names = {LocalEmbedder("a").name, LocalEmbedder("b").name, ProviderEmbedder("a", call).name}
    assert len(names) == 3


def test_a_vector_is_scaled_to_one() -> None:
    assert np.linalg.norm(normal(np.array([1e-3, 5e-4], np.float32))) == pytest.approx(1.0)


if os.environ.get("SOPHIA_TEST_EMBEDDINGS"):  # loading torch takes longer than all other tests of this folder

    @pytest.mark.filterwarnings("ignore")
    async def test_the_real_model(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        embedder = LocalEmbedder()
        await embedder.open()
        try:
            one, same, other = await embedder.embed(WHO, ["how to reset a password", "resetting a password", "a cat"])
        finally:
            await embedder.close()
        assert one.shape == (384,)
        assert float(one @ same) > 0.8 > float(one @ other)
