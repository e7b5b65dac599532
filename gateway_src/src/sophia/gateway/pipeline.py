# SPDX-License-Identifier: GPL-3.0-or-later
"""A request's way through the gateway, one room after the other, none entered twice.

limits → plan → cache → turns → (budget → ledger → dispatch → upstream, in `dispatch`) → settle. Each arrow is a typed
value, so that each room can be tested alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import msgspec

from sophia.errors import DeadlineExceeded
from sophia.gateway.breaker import Breakers
from sophia.gateway.cache import Answer, Cache, CacheControls, CacheQuery, Hit, assemble
from sophia.gateway.catalogue import Shelf
from sophia.gateway.dialects import Call, Dialect
from sophia.gateway.dispatch import Delivered, Dispatcher, Request
from sophia.gateway.flags import HEDGE, FlagSet
from sophia.gateway.judge import Task, judge
from sophia.gateway.limits import Headers, Limits
from sophia.gateway.load import load_of, max_price_of
from sophia.gateway.metrics import Metrics
from sophia.gateway.plan import Ask, Candidate, Plan, plan
from sophia.gateway.prices import MaxPrice, prompt_estimate
from sophia.gateway.relay import Relay
from sophia.gateway.turns import Turn, Turns
from sophia.stores.model import Principal, Tokens

__all__ = ["Journey", "Pipeline"]

_NO_LIMIT = nullcontext()
_NAMED = Task("chat", 0.0)


@dataclass(slots=True)
class Journey:
    """A request that has passed limits and plan. `estimate` is what was taken from the token rate."""

    request: Request
    plan: Plan
    query: CacheQuery | None
    estimate: int
    rate_headers: Headers
    turn: Turn | None = None
    """The stream's place upstream, which `Pipeline.streamed` gives back."""


class Pipeline:
    """The rooms in their order. `clock` gives nanoseconds since the epoch."""

    def __init__(
        self,
        *,
        limits: Limits,
        shelf: Shelf,
        flags: Callable[[], FlagSet],
        breakers: Breakers,
        cache: Cache | None,
        dispatcher: Dispatcher,
        turns: Turns,
        metrics: Metrics,
        deadline: float,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._limits = limits
        self._shelf = shelf
        self._flags = flags
        self._breakers = breakers
        self._cache = cache
        self._dispatcher = dispatcher
        self._turns = turns
        self._metrics = metrics
        self._deadline = deadline
        self._clock = clock
        self._stores: set[asyncio.Task[bool]] = set()

    async def prepare(
        self,
        principal: Principal,
        dialect: Dialect,
        call: Call,
        request_id: str,
        received: float,
        controls: CacheControls,
        headers: dict[str, str],
        deadline: float | None = None,
        final: bool = False,
        batch: bool = False,
    ) -> Journey:
        """Admit and plan a request. `deadline` is the client's own, in seconds from its arrival; where it is `final`, a
        stream ends with it too. A `batch` request waits behind interactive ones.

        Raises:
            ApiError: it is over a limit, or no model may answer it.
        """
        begun = time.perf_counter()
        estimate = prompt_estimate(call.prompt_bytes, len(call.turns), call.tool_bytes)
        rate_headers = await self._limits.admit(principal, estimate + min(call.max_output or 500, 500), self._clock())
        admitted = time.perf_counter()
        self._metrics.stage("limits", admitted - begun)
        hurried = deadline is not None and deadline < self._deadline
        seconds = min(deadline or self._deadline, self._deadline)
        max_price = max_price_of(call.provider)
        route = self._plan(principal, dialect, call, estimate, seconds, max_price)
        planned = time.perf_counter()
        self._metrics.stage("plan", planned - admitted)
        request = Request(
            id=request_id,
            principal=principal,
            dialect=dialect,
            call=call,
            load=load_of(call),
            max_price=max_price,
            received=received,
            deadline=received + seconds,
            hurried=hurried,
            final=hurried and final,
            batch=batch,
            hedge=self._flags().on(HEDGE, principal.organization, principal.user or principal.key),
            headers=headers,
            tags=controls.tags,
        )
        query = None
        if self._cache is not None and dialect.api != "embeddings":
            query = self._cache.query(principal, dialect.api, call.model, call.fields, controls)
            self._metrics.stage("cache", time.perf_counter() - planned)
        _identify(call, principal)
        return Journey(request, route, query, estimate + min(call.max_output or 500, 500), rate_headers)

    def _plan(
        self,
        principal: Principal,
        dialect: Dialect,
        call: Call,
        estimate: int,
        seconds: float,
        max_price: MaxPrice | None,
    ) -> Plan:
        ask = Ask(
            model=call.model,
            task=_judge(call),
            prompt_tokens=estimate,
            output_tokens=call.max_output,
            inputs=call.inputs,
            parameters=call.parameters,
            max_price=max_price,
            fallbacks=call.models,
            deadline=seconds,
            images=call.images,
            api="embeddings" if dialect.api == "embeddings" else "chat",
        )
        health = self._breakers.health()
        return plan(ask, principal, self._shelf.current, self._flags(), health)

    async def lookup(self, journey: Journey) -> Hit | None:
        """The cached answer, if there is one. A miss must be followed by `whole` or by `release`.

        Raises:
            DeadlineExceeded: the deadline passed while another request for the same answer was waited for.
        """
        if self._cache is None or journey.query is None:
            self._metrics.cache("off")
            return None
        try:
            request = journey.request
            async with asyncio.timeout(request.deadline - time.monotonic()) if request.hurried else _NO_LIMIT:
                hit = await self._cache.lookup(journey.query, self._clock())
        except TimeoutError as error:
            raise DeadlineExceeded(
                "deadline_exceeded", "The request's deadline has passed; allow more time."
            ) from error
        self._metrics.cache(hit.kind if hit else "miss")
        return hit

    async def whole(self, journey: Journey) -> Delivered:
        """A whole answer from upstream, kept in the cache where it may be.

        Raises:
            ApiError: no candidate gave one.
        """
        used: Tokens | None = None
        try:
            turn = await self._take(journey)
            try:
                delivered = await self._dispatcher.whole(journey.request, journey.plan)
                used = delivered.result.usage.tokens if delivered.result.usage else None
            finally:
                turn.close(_sum(used))
        except BaseException:
            self.release(journey)
            raise
        if journey.query is not None:
            self._keep(journey.query, _answer(delivered, self._clock()))
        await self._correct(journey, used)
        return delivered

    async def stream(self, journey: Journey) -> tuple[Relay, Candidate]:
        """A stream from upstream, past its first content; `streamed` is to be called once it is over.

        Raises:
            ApiError: no candidate gave one.
        """
        journey.request.keep = journey.query is not None
        try:
            journey.turn = await self._take(journey)
            relay, candidate = await self._dispatcher.stream(journey.request, journey.plan)
        except BaseException:
            if journey.turn is not None:
                journey.turn.close()
            self.release(journey)
            raise
        self._metrics.first_token(candidate.model.id, time.monotonic() - journey.request.received)
        return relay, candidate

    async def streamed(self, journey: Journey, relay: Relay) -> None:
        """The stream is over: keep its answer where it came whole, and correct the token rate."""
        if relay.whole and relay.kept is not None and journey.query is not None:
            body = assemble(journey.request.dialect.api, relay.kept)
            if body is not None:
                now = self._clock()
                answer = Answer(
                    body, relay.model, relay.provider, relay.tokens, relay.cost or 0, now, relay.finish or ""
                )
                self._keep(journey.query, answer)
        if journey.turn is not None:
            journey.turn.close(_sum(relay.tokens) if relay.cost is not None else None)
        self.release(journey)
        if relay.cost is not None:
            await self._correct(journey, relay.tokens)

    async def _take(self, journey: Journey) -> Turn:
        """The request's turn upstream.

        Raises:
            Unavailable: there is none for it in time.
        """
        request = journey.request
        begun = time.monotonic()
        left = request.deadline - begun
        turn = await self._turns.take(request.principal.organization, journey.estimate, left, batch=request.batch)
        if turn.charged is not None:
            request.waited += time.monotonic() - begun
            self._metrics.stage("queue", time.monotonic() - begun)
        return turn

    def _keep(self, query: CacheQuery, answer: Answer) -> None:
        """Store beside the answer, not before it: the question may have to be embedded."""
        if self._cache is not None:
            task = asyncio.create_task(self._cache.store(query, answer, answer.created))
            self._stores.add(task)
            task.add_done_callback(self._stores.discard)

    def release(self, journey: Journey) -> None:
        """Let others who wait for the same answer go on."""
        if self._cache is not None and journey.query is not None:
            self._cache.release(journey.query)

    async def close(self) -> None:
        """Wait for answers that are still being stored."""
        await asyncio.gather(*self._stores, return_exceptions=True)

    async def _correct(self, journey: Journey, tokens: Tokens | None) -> None:
        actual = _sum(tokens)
        if actual is not None:
            await self._limits.correct(journey.request.principal, journey.estimate, actual, self._clock())


def _sum(tokens: Tokens | None) -> int | None:
    return None if tokens is None else tokens.prompt + tokens.completion


def _judge(call: Call) -> Task:
    """What the request is about, where that decides its model."""
    if call.model and not call.model.startswith("auto"):
        return _NAMED
    return judge([{"role": turn.role, "content": turn.text()} for turn in call.turns], pictures=call.images > 0)


def _identify(call: Call, principal: Principal) -> None:
    """Tell OpenRouter who the user is, by our own opaque identifier, so that abuse is theirs and not everyone's."""
    if "user" not in call.fields:
        call.fields["user"] = msgspec.Raw(msgspec.json.encode(principal.user or principal.key))


def _answer(delivered: Delivered, at: int) -> Answer:
    result = delivered.result
    return Answer(
        body=delivered.body,
        model=result.model or delivered.candidate.model.id,
        provider=result.provider,
        tokens=result.usage.tokens if result.usage is not None else Tokens(),
        cost=delivered.cost or 0,
        created=at,
        finish=result.finish or "",
    )
