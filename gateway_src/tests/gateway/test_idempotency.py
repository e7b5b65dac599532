# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may run a request that names an idempotency key; over a real ledger, without an upstream."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sophia.errors import ApiError, Unavailable
from sophia.gateway.asgi import respond
from sophia.gateway.exchange import Exchange
from sophia.gateway.idempotency import Idempotency, _may_keep, _read
from sophia.gateway.ledger import Ledger
from sophia.gateway.metrics import Metrics
from sophia.gateway.trace import Tracer
from sophia.settings import IdempotencySettings, TelemetrySettings, UpstreamSettings
from sophia.stores.database import Database
from sophia.stores.idempotency import Claim, IdempotencyStore, Kept
from sophia.stores.ledger import LedgerStore
from sophia.stores.model import Intent, Outcome, Principal, Role, Settlement

NOW = 1_700_000_000_000_000_000
TRACER = Tracer(TelemetrySettings(), UpstreamSettings())


def principal(**more: Any) -> Principal:
    return Principal("key", "org", None, "user", Role.MEMBER, frozenset({"chat"}), None, (), (), **more)


class Room:
    """The room with a clock, and what has been sent."""

    def __init__(self, database: Database, folder: Path, store: IdempotencyStore | None = None) -> None:
        self.now = NOW
        spend = LedgerStore(database, "me")
        self.ledger = Ledger(spend, folder, "me", self._nothing)
        store = store or IdempotencyStore(database, 1 << 20)
        self.room = Idempotency(store, self.ledger, spend, Metrics(), IdempotencySettings(), "me", lambda: self.now)
        self.numbers = itertools.count()

    async def _nothing(self, intent: Intent, cost: int) -> None:
        pass

    def exchange(self, **headers: str) -> tuple[Exchange, list[Any]]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            raise AssertionError("nothing is to be received")

        more = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        pairs = [(b"idempotency-key", b"name"), *more]
        scope = {"type": "http", "path": "/v1/chat", "headers": pairs}
        found = Exchange(scope, receive, send, TRACER.begin(scope))
        found.principal = principal()
        self.now += 1000
        return found, sent

    async def spend(self, exchange: Exchange, cost: int | None) -> str:
        """An attempt of the request, ended unless its cost is not known."""
        attempt = f"att_{next(self.numbers)}"
        names = (exchange.identity, self.now, "org", None, "user", "key", "chat", "model", "slot", 100)
        await self.ledger.intend(Intent(attempt, *names))
        await self.ledger.settle(Settlement(attempt, self.now, Outcome.FAILED, cost))
        return attempt

    async def fail(self, exchange: Exchange, code: str) -> None:
        exchange.code = code
        await respond(exchange.send, 502, [(b"content-type", b"application/json")], code.encode())


@pytest.fixture
async def room(database: Database, tmp_path: Path) -> AsyncIterator[Room]:
    room = Room(database, tmp_path)
    await room.ledger.start()
    yield room
    await room.room.close()
    await room.ledger.stop()


async def refused(room: Room) -> str:
    exchange, _ = room.exchange()
    with pytest.raises(ApiError) as caught:
        await room.room.replayed(exchange, b"body", ())
    assert (caught.value.retry_after is None) == (dict(caught.value.headers) == {b"x-should-retry": b"false"})
    return caught.value.code


async def test_a_failure_is_judged_by_what_it_cost(room: Room) -> None:
    first, _ = room.exchange()
    assert not await room.room.replayed(first, b"body", ())
    assert await refused(room) == "idempotency_in_progress"
    await room.spend(first, 0)
    await room.fail(first, "busy")
    second, _ = room.exchange()  # the first cost nothing
    assert not await room.room.replayed(second, b"body", ())
    await room.spend(second, 0)
    unknown = await room.spend(second, None)
    await room.fail(second, "cut")
    assert await refused(room) == "idempotency_unsettled"
    await room.ledger.settle(Settlement(unknown, room.now, Outcome.FAILED, 7))
    third, sent = room.exchange()
    assert await room.room.replayed(third, b"body", ())
    assert (sent[0]["status"], sent[1]["body"]) == (502, b"cut")
    assert dict(sent[0]["headers"])[b"idempotent-replayed"] == b"true"
    assert dict(sent[0]["headers"])[b"x-should-retry"] == b"false"
    assert third.recording is None


async def test_of_many_at_once_one_runs(room: Room) -> None:
    exchanges = [room.exchange()[0] for _ in range(30)]
    results = await asyncio.gather(
        *(room.room.replayed(each, b"body", ()) for each in exchanges), return_exceptions=True
    )
    assert [result for result in results if not isinstance(result, ApiError)] == [False]
    assert {result.code for result in results if isinstance(result, ApiError)} == {"idempotency_in_progress"}


@pytest.mark.parametrize("cost", [0, 9])
async def test_unknown_that_turns_out(room: Room, cost: int) -> None:
    first, _ = room.exchange()
    assert not await room.room.replayed(first, b"body", ())
    unknown = await room.spend(first, None)
    assert first.recording is not None
    await first.recording.finish()  # it ended without an answer
    assert await refused(room) == "idempotency_unsettled"
    await room.ledger.settle(Settlement(unknown, room.now, Outcome.FAILED, cost))
    if cost:
        assert await refused(room) == "idempotency_not_kept"
    else:
        second, _ = room.exchange()
        assert not await room.room.replayed(second, b"body", ())


async def test_the_end_reaches_the_client_only_when_the_answer_is_kept(room: Room) -> None:
    first, sent = room.exchange()
    assert not await room.room.replayed(first, b"body", ())
    await first.send({"type": "http.response.start", "status": 200, "headers": [(b"x-request-id", b"r")]})
    await first.send({"type": "http.response.body", "body": b"half ", "more_body": True})
    assert await refused(room) == "idempotency_in_progress"
    await first.send({"type": "http.response.body", "body": b"whole"})
    assert len(sent) == 3
    second, again = room.exchange()
    assert await room.room.replayed(second, b"body", ())
    assert again[1]["body"] == b"half whole"
    assert [value for name, value in again[0]["headers"] if name == b"x-request-id"] == [second.identity.encode()]


class Away(IdempotencyStore):
    """A store that is away for the next `away` ends."""

    away = 1

    async def finish(self, claim: Claim, state: Any, answer: Kept | None) -> None:
        if self.away:
            self.away -= 1
            raise Unavailable("database_unavailable", "away")
        await super().finish(claim, state, answer)


async def test_an_end_that_the_database_missed_is_written_later(database: Database, tmp_path: Path) -> None:
    room = Room(database, tmp_path, Away(database, 1 << 20))
    await room.ledger.start()
    first, sent = room.exchange()
    assert not await room.room.replayed(first, b"body", ())
    await respond(first.send, 200, [], b"answer")
    assert sent[1]["body"] == b"answer"
    assert await refused(room) == "idempotency_in_progress"
    (late,) = room.room._late
    await late
    second, again = room.exchange()
    assert await room.room.replayed(second, b"body", ())
    assert again[1]["body"] == b"answer"
    await room.ledger.stop()


@pytest.mark.parametrize(("value", "key"), [("abc", "abc"), (' "abc" ', "abc"), ('"', '"'), ("a b", "a b")])
def test_keys_as_they_come(value: str, key: str) -> None:
    assert _read(value) == key


@pytest.mark.parametrize("value", ["", '""', " ", "x" * 256, "é", "a\tb"])
def test_keys_that_are_none(value: str) -> None:
    with pytest.raises(ApiError, match="Idempotency-Key") as caught:
        _read(value)
    assert caught.value.code == "invalid_idempotency_key"


async def test_whose_answers_are_kept(room: Room) -> None:
    assert _may_keep(room.exchange()[0], principal())
    assert _may_keep(room.exchange(cache_control="no-cache, max-age=0")[0], principal())
    assert not _may_keep(room.exchange(cache_control="max-age=0, No-Store")[0], principal())
    assert not _may_keep(room.exchange()[0], principal(zero_data_retention=True))
