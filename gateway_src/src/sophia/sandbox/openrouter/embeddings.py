# SPDX-License-Identifier: GPL-3.0-or-later
"""`POST /embeddings`: deterministic vectors in which texts that share words and letters are near each other.

Each word and each run of three letters is hashed to a place of the vector (feature hashing, Weinberger et al. 2009);
words weigh more. Vectors have length one; fewer `dimensions` are the first ones, made to length one again, as OpenAI
does it.
"""

from __future__ import annotations

import base64
import re
from typing import Any, Literal
from zlib import crc32

import msgspec
import numpy as np

from . import bodies, tokens
from .ask import NO_PREFERENCES, Ask, Preferences, Turn
from .auth import inference_key
from .errors import VendorError
from .inference import Platform, accept, begin, complete
from .state import usd
from .wire import Exchange

__all__ = ["create", "vector"]

Vector = np.ndarray[Any, np.dtype[np.float64]]
WORD = re.compile(r"\w+")
WORD_WEIGHT = 1.0
GRAM_WEIGHT = 0.35


class EmbeddingsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of createEmbeddings."""

    model: str
    input: str | list[Any]
    dimensions: int | None = None
    encoding_format: Literal["float", "base64"] | None = None
    input_type: str | None = None
    provider: Preferences | None = None
    user: str | None = None
    session_id: str | None = None


DECODER = msgspec.json.Decoder(EmbeddingsRequest)


async def create(platform: Platform, exchange: Exchange) -> None:
    """Answer one request."""
    now = platform.state.clock()
    generation_id = begin(platform, exchange, now)
    key = inference_key(platform.state, exchange)
    request = bodies.parse(DECODER, await exchange.body(platform.state.config.max_body))
    ask = _understand(request)
    _check(platform, request, ask)
    accepted = accept(platform, exchange, ask, key, generation_id, now)
    native = accepted.candidate.model.entry.embedding_dimensions or 0
    bill, failure = await complete(platform, exchange, accepted)
    if failure is not None:
        await exchange.reply(failure.body())
        return
    nothing = exchange.fault is not None and exchange.fault.kind == "empty"
    size = request.dimensions or native
    data = [
        {
            "object": "embedding",
            "index": i,
            "embedding": _encoded(_shortened(vector(turn.text, native), size), request.encoding_format),
        }
        for i, turn in enumerate(() if nothing else ask.turns)
    ]
    used = {
        "prompt_tokens": accepted.counts.prompt,
        "total_tokens": accepted.counts.prompt,
        "cost": usd(bill.total),
        "is_byok": False,
        "cost_details": {
            "upstream_inference_cost": None,
            "upstream_inference_prompt_cost": usd(bill.prompt),
            "upstream_inference_completions_cost": 0,
        },
    }
    answer = {"object": "list", "id": generation_id, "model": accepted.model, "data": data, "usage": used}
    await exchange.reply(answer)


def vector(text: str, dimensions: int) -> Vector:
    """The vector of a text, of length one."""
    made = np.zeros(dimensions)
    for word in WORD.findall(text.lower()):
        _add(made, "w:" + word, WORD_WEIGHT)
        padded = f"^{word}$"
        for i in range(len(padded) - 2):
            _add(made, padded[i : i + 3], GRAM_WEIGHT)
    # What has been counted often says little more than what has been counted twice.
    made = np.sign(made) * np.sqrt(np.abs(made))
    length = float(np.linalg.norm(made))
    if length == 0.0:
        made[crc32(text.encode("utf-8", "surrogatepass")) % dimensions] = length = 1.0
    return made / length


def _add(made: Vector, feature: str, weight: float) -> None:
    mark = crc32(feature.encode("utf-8", "surrogatepass"))
    made[(mark >> 1) % len(made)] += weight if mark & 1 else -weight


def _understand(request: EmbeddingsRequest) -> Ask:
    inputs = [request.input] if isinstance(request.input, str) else _inputs(request.input)
    if not inputs or not all(inputs):
        raise VendorError(400, "input must not be empty")
    return Ask(
        models=[request.model],
        turns=[Turn("input", text) for text in inputs],
        api_type="embeddings",
        preferences=request.provider or NO_PREFERENCES,
        user=request.user,
        session_id=request.session_id,
    )


def _inputs(given: list[Any]) -> list[str]:
    """Texts, arrays of token ids (four bytes a token, so that they count as what they are), or parts with texts."""
    if given and all(isinstance(item, int) for item in given):
        return [_tokens_text(given)]
    texts = []
    for item in given:
        if isinstance(item, str):
            texts.append(item)
        elif isinstance(item, list) and all(isinstance(token, int) for token in item):
            texts.append(_tokens_text(item))
        elif isinstance(item, dict) and isinstance(item.get("content"), list):
            parts = [part.get("text") or (part.get("image_url") or {}).get("url", "") for part in item["content"]]
            texts.append("\n".join(parts))
        else:
            raise VendorError(400, "input must be a text, a list of texts, or lists of token ids")
    return texts


def _tokens_text(ids: list[int]) -> str:
    return "".join(f"{token & 0xFFF:03x} " for token in ids)


def _check(platform: Platform, request: EmbeddingsRequest, ask: Ask) -> None:
    """Raise `VendorError` 400 for dimensions that the model does not have, or an input longer than its context."""
    model = platform.catalogue.find(request.model)
    if model is None or not model.is_embedding:
        return
    native = model.entry.embedding_dimensions or 0
    if request.dimensions is not None and not 1 <= request.dimensions <= native:
        raise VendorError(400, f"dimensions must be between 1 and {native}")
    longest = max(tokens.count(turn.text) for turn in ask.turns)
    if longest > model.entry.context_length:
        text = f"This endpoint's maximum context length is {model.entry.context_length} tokens. An input has {longest}."
        raise VendorError(400, text, error_type="context_length_exceeded")


def _shortened(made: Vector, dimensions: int) -> Vector:
    head = made[:dimensions]
    length = float(np.linalg.norm(head))
    return head / length if length else head


def _encoded(made: Vector, encoding: str | None) -> str | list[float]:
    if encoding == "base64":
        return base64.b64encode(made.astype("<f4").tobytes()).decode()
    return [float(value) for value in made]
