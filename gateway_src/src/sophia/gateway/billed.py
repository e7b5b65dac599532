# SPDX-License-Identifier: GPL-3.0-or-later
"""Embeddings that the gateway itself asks for, in a tenant's name: planned, reserved, booked like any request."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence

import msgspec

from sophia.gateway.breaker import Breakers
from sophia.gateway.catalogue import Shelf
from sophia.gateway.dialects import EMBEDDINGS
from sophia.gateway.dispatch import Dispatcher, Request
from sophia.gateway.flags import FlagSet
from sophia.gateway.judge import Task
from sophia.gateway.load import load_of
from sophia.gateway.plan import Ask, plan
from sophia.gateway.prices import prompt_estimate
from sophia.stores.model import Principal, new_id

__all__ = ["BilledEmbeddings"]

_TASK = Task("embedding", 0.0)
_TAGS = ("semantic-cache",)


class _Item(msgspec.Struct):
    index: int
    embedding: list[float]


class _Answer(msgspec.Struct):
    data: list[_Item]


class BilledEmbeddings:
    """Calls `model` upstream. `deadline` in seconds."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        shelf: Shelf,
        flags: Callable[[], FlagSet],
        breakers: Breakers,
        model: str,
        deadline: float = 5.0,
    ) -> None:
        self._dispatcher = dispatcher
        self._shelf = shelf
        self._flags = flags
        self._breakers = breakers
        self._model = model
        self._deadline = deadline

    async def __call__(self, principal: Principal, texts: Sequence[str]) -> list[bytes]:
        """One little-endian float32 vector for each text.

        Raises:
            ApiError: policy, budget or the upstream does not allow it.
            msgspec.ValidationError: the answer is none.
        """
        body = {"model": self._model, "input": list(texts), "encoding_format": "float"}
        call = EMBEDDINGS.read(msgspec.json.encode(body))
        ask = Ask(call.model, _TASK, prompt_estimate(call.prompt_bytes, len(texts)), api="embeddings")
        route = plan(ask, principal, self._shelf.current, self._flags(), self._breakers.health())
        now = time.monotonic()
        request = Request(
            id=new_id("req"),
            principal=principal,
            dialect=EMBEDDINGS,
            call=call,
            load=load_of(call),
            max_price=None,
            received=now,
            deadline=now + self._deadline,
            tags=_TAGS,
        )
        delivered = await self._dispatcher.whole(request, route)
        items = sorted(msgspec.json.decode(delivered.body, type=_Answer).data, key=lambda item: item.index)
        return [array("f", item.embedding).tobytes() for item in items]
