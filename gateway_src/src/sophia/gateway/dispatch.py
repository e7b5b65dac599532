# SPDX-License-Identifier: GPL-3.0-or-later
"""Attempts: which candidate and key next, what an error means for that, and each attempt's money.

Every attempt has its own identity, reservation and durable intent before its first byte, and is settled exactly
once, whichever way it leaves. A request ends with the first good answer, or when nothing is left to try within
its deadline, its number of attempts, and the gateway's retry budget.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from sophia.errors import ApiError, DeadlineExceeded
from sophia.gateway.breaker import Breakers
from sophia.gateway.budget import Budget
from sophia.gateway.course import LEAST, Course
from sophia.gateway.dialects import Call, Dialect, Result
from sophia.gateway.faults import Fault, Kind, classify
from sophia.gateway.hedge import Hedges, race
from sophia.gateway.ledger import Ledger
from sophia.gateway.metrics import Metrics
from sophia.gateway.pace import Pace
from sophia.gateway.plan import Candidate, Plan
from sophia.gateway.prices import Load, MaxPrice, bound, output_for
from sophia.gateway.records import user_agent
from sophia.gateway.relay import Broken, End, Relay
from sophia.gateway.slots import Slot, Slots
from sophia.gateway.upstream import Lost, NotSent, Reply, UpstreamFailure
from sophia.gateway.upstream import Upstream as Client
from sophia.settings import Settings
from sophia.stores.model import Intent, Outcome, Principal, Settlement, Tokens, new_id

__all__ = ["Delivered", "Dispatcher", "Request"]

T = TypeVar("T")

_BODY_LIMIT = 64 * 1024 * 1024
_MOMENT = 5.0  # for the body of an error
_FAIR = 30.0  # seconds after which silence is the model's fault, where nothing is known of it
_UNBILLED = frozenset({500, 502, 503, 529})


@dataclass(slots=True)
class Request:
    """One request on its way. `received` and `deadline` are instants of the monotonic clock (s)."""

    id: str
    principal: Principal
    dialect: Dialect
    call: Call
    load: Load
    max_price: MaxPrice | None
    received: float
    deadline: float
    hurried: bool = False
    """Whether the deadline is the client's own, shorter than the gateway's."""
    final: bool = False
    """Whether a stream, too, has to end with the deadline."""
    batch: bool = False
    """Whether it waits behind interactive requests."""
    hedge: bool = False
    """Whether a second attempt may be made beside one that is late."""
    headers: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    keep: bool = False
    """Whether a stream's events are kept, to be put together for the cache."""
    waited: float = 0.0
    """Seconds spent waiting for the upstream, so that the rest is the gateway's own."""


class Delivered(msgspec.Struct, frozen=True):
    """A whole answer."""

    body: bytes
    result: Result
    candidate: Candidate
    generation: str | None
    cost: int | None
    attempts: int


class _Failed(Exception):
    """An attempt failed and has been settled."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


@dataclass(slots=True)
class _Attempt:
    intent: Intent
    candidate: Candidate
    slot: Slot
    body: bytes
    max_output: int | None
    begun: float = 0.0
    """When it was sent (s of the monotonic clock)."""


class Dispatcher:
    """Sends requests upstream. `clock` gives nanoseconds since the epoch."""

    def __init__(
        self,
        *,
        client: Client,
        slots: Slots,
        ledger: Ledger,
        budget: Budget,
        breakers: Breakers,
        metrics: Metrics,
        settings: Settings,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._client = client
        self._slots = slots
        self._ledger = ledger
        self._budget = budget
        self._breakers = breakers
        self._metrics = metrics
        self._settings = settings
        self._clock = clock
        self._pace = Pace()
        # Without the management key a loser whose head had not come could not be settled.
        told = settings.upstream.management_key_file is not None
        self._hedges = Hedges(self._pace, settings.dispatch.hedge_share if told else 0.0)

    async def whole(self, request: Request, plan: Plan) -> Delivered:
        """A whole answer from the first candidate that gives one.

        Raises:
            ApiError: no candidate did, or none may be asked.
        """
        course = self._course(request, plan, stream=False)
        while True:
            attempt = await self._begin(request, course)
            try:
                if request.hedge:
                    delivered = await self._hedged(request, attempt, course, self._ask, _let_go, stream=False)
                else:
                    delivered = await self._ask(request, attempt, course)
            except _Failed as failure:
                await course.after(attempt.candidate, attempt.slot, failure.fault)
                continue
            self._breakers.success(attempt.candidate.model.id)
            return delivered

    async def stream(self, request: Request, plan: Plan) -> tuple[Relay, Candidate]:
        """A stream whose first content has arrived; the caller relays it to its end or aborts it.

        Raises:
            ApiError: no candidate did, or none may be asked.
        """
        course = self._course(request, plan, stream=True)
        while True:
            attempt = await self._begin(request, course)
            try:
                if request.hedge:
                    relay = await self._hedged(request, attempt, course, self._open, Relay.abort, stream=True)
                else:
                    relay = await self._open(request, attempt, course)
            except _Failed as failure:
                await course.after(attempt.candidate, attempt.slot, failure.fault)
                continue
            return relay, attempt.candidate

    def _course(self, request: Request, plan: Plan, *, stream: bool) -> Course:
        return Course(request, plan, self._slots, self._breakers, self._pace, self._settings, stream=stream)

    async def _hedged(
        self,
        request: Request,
        attempt: _Attempt,
        course: Course,
        ask: Callable[[Request, _Attempt, Course], Coroutine[Any, Any, T]],
        drop: Callable[[T], Awaitable[None]],
        *,
        stream: bool,
    ) -> T:
        """What `ask` gives for the attempt, or for its twin where the attempt is late.

        Raises:
            _Failed, ApiError: as `ask` does.
        """
        model, organization = attempt.candidate.model.id, request.principal.organization
        after = self._hedges.after(organization, model, stream)
        if after is None:
            return await ask(request, attempt, course)
        started, waited = time.perf_counter(), request.waited

        async def second(over: Callable[[], bool]) -> Coroutine[Any, Any, T] | None:
            twin = await self._twin(request, attempt, course, over)
            return None if twin is None else ask(request, twin, course)

        try:
            found, hedged = await race(ask(request, attempt, course), after, second, drop)
        finally:
            request.waited = waited + time.perf_counter() - started  # the two have waited at the same time
        if hedged is not None:
            self._metrics.hedge(model, "won" if hedged else "lost")
        if hedged:  # it took at least this long: without it, the usual would seem ever quicker
            self._note(request, attempt, stream=stream)
        return found

    async def _twin(
        self, request: Request, attempt: _Attempt, course: Course, over: Callable[[], bool]
    ) -> _Attempt | None:
        """The attempt once more, with a reservation and an intent of its own; None where it may not be made, or the
        attempt is `over` by then."""
        model, organization = attempt.candidate.model.id, request.principal.organization
        slot = self._slots.pick()
        if slot is None or not course.another() or not self._hedges.withdraw(organization):
            self._metrics.hedge(model, "capped")
            return None
        self._slots.enter(slot)
        identity = new_id("att")
        amount = attempt.intent.reserved
        try:
            await self._budget.acquire(
                identity, request.principal.accounts, amount, amount, self._clock(), organization=organization
            )
            intent = msgspec.structs.replace(attempt.intent, attempt=identity, at=self._clock(), slot=slot.hash)
            # OpenRouter takes the quickest of the providers that the policy and the price ceilings allow.
            provider = msgspec.structs.replace(attempt.candidate.provider, sort="latency").body(request.call.provider)
            send, output = attempt.candidate.send, attempt.max_output
            try:
                body = request.dialect.rewrite(request.call, send, output, provider)
                await self._ledger.intend(intent)
            except BaseException:
                await self._ledger.unsent(intent, self._clock())
                raise
            if over():
                await self._ledger.unsent(intent, self._clock())
                self._slots.leave(slot)
                return None
        except ApiError:
            self._slots.leave(slot)
            self._metrics.hedge(model, "unaffordable")
            return None
        except BaseException:
            self._slots.leave(slot)
            raise
        return _Attempt(intent, attempt.candidate, slot, body, output)

    def _note(self, request: Request, attempt: _Attempt, *, stream: bool) -> None:
        """Remember how long an attempt took."""
        seconds, model = time.monotonic() - attempt.begun, attempt.candidate.model.id
        self._pace.note(model, stream, seconds)
        if request.hedge:
            self._pace.note((request.principal.organization, model), stream, seconds)

    async def _begin(self, request: Request, course: Course) -> _Attempt:
        """Choose, reserve, and make the intent durable. The key counts as in flight from here on."""
        self._ledger.require_open()
        candidate, slot = course.next()
        self._slots.enter(slot)
        try:
            return await self._promise(request, course, candidate, slot)
        except BaseException:
            self._slots.leave(slot)
            self._breakers.release(candidate.model.id)
            raise

    async def _promise(self, request: Request, course: Course, candidate: Candidate, slot: Slot) -> _Attempt:
        principal = request.principal
        started = time.perf_counter()
        identity = new_id("att")
        amount, max_output = await self._reserve(request, candidate, course, identity)
        reserved = time.perf_counter()
        intent = Intent(
            attempt=identity,
            request=request.id,
            at=self._clock(),
            organization=principal.organization,
            team=principal.team,
            user=principal.user,
            key=principal.key,
            api=request.dialect.api,
            model=candidate.model.id,
            slot=slot.hash,
            reserved=amount,
            tags=request.tags,
        )
        try:
            provider = candidate.provider.body(request.call.provider)
            body = request.dialect.rewrite(request.call, candidate.send, max_output, provider)
            await self._ledger.intend(intent)
        except BaseException:
            await self._ledger.unsent(intent, self._clock())
            raise
        self._metrics.stage("budget", reserved - started)
        self._metrics.stage("ledger", time.perf_counter() - reserved)
        return _Attempt(intent, candidate, slot, body, max_output)

    async def _reserve(
        self, request: Request, candidate: Candidate, course: Course, identity: str
    ) -> tuple[int, int | None]:
        """Reserve what the attempt can cost at most; the amount, and the output bound where we must set one."""
        load, model = request.load, candidate.model
        if course.shrink_to is not None:
            output = min(course.shrink_to, load.output_tokens or course.shrink_to)
            load = msgspec.structs.replace(load, output_tokens=output)
        shrinkable = load.output_tokens is None
        if shrinkable:
            load = msgspec.structs.replace(load, output_tokens=_output_limit(candidate, load))
        want = floor = bound(model, load, request.max_price)
        if shrinkable:
            least = msgspec.structs.replace(load, output_tokens=self._settings.budget.output_floor)
            floor = min(want, bound(model, least, request.max_price))
        principal = request.principal
        deadline = self._clock() + int((request.deadline - time.monotonic()) * 1e9)
        granted = await self._budget.acquire(
            identity, principal.accounts, want, floor, deadline, organization=principal.organization
        )
        amount = granted.amount
        if amount < want:
            return amount, max(1, output_for(model, load, amount, request.max_price))
        return amount, load.output_tokens if shrinkable or course.shrink_to is not None else None

    async def _send(self, request: Request, attempt: _Attempt, *, stream: bool) -> Reply:
        """Send the attempt; settle it where no usable head comes back.

        Raises:
            _Failed: it has been settled.
        """
        candidate = attempt.candidate
        headers = request.headers | {
            "authorization": f"Bearer {attempt.slot.key}",
            "content-type": "application/json",
            "user-agent": user_agent(attempt.intent.attempt),
        }
        started = time.perf_counter()
        left = request.deadline - time.monotonic()
        if left < LEAST:  # it waited for its budget meanwhile
            self._breakers.release(candidate.model.id)
            await self._ledger.unsent(attempt.intent, self._clock())
            raise _late()
        timeout = min(self._settings.upstream.head_timeout, left)
        attempt.begun = time.monotonic()
        try:
            reply = await self._client.post(
                request.dialect.path, headers, attempt.body, head_timeout=timeout, stream=stream
            )
        except NotSent as error:
            await self._ledger.unsent(attempt.intent, self._clock())
            self._check(request, attempt, stream=stream)
            raise self._failed(attempt, Fault(Kind.FAILED, 502, f"no connection: {error}")) from error
        except UpstreamFailure as error:
            await self._unconfirmed(attempt, Outcome.FAILED, None)
            self._check(request, attempt, stream=stream)
            raise self._failed(attempt, Fault(Kind.FAILED, 502, f"no answer: {error}")) from error
        except BaseException:
            self._breakers.release(candidate.model.id)
            await self._unconfirmed(attempt, Outcome.ABORTED, None)
            raise
        finally:
            elapsed = time.perf_counter() - started
            request.waited += elapsed
            self._metrics.stage("upstream", elapsed)
        if reply.status >= 400:
            raise self._failed(attempt, await self._refused(attempt, reply))
        return reply

    def _check(self, request: Request, attempt: _Attempt, *, stream: bool) -> None:
        """An attempt has failed: it is the client's deadline that ended it, or something else.

        Raises:
            DeadlineExceeded: it is. That says nothing of the model, unless it had more time than it usually takes.
        """
        if request.deadline - time.monotonic() >= LEAST:
            return
        model = attempt.candidate.model.id
        usual = self._pace.late(model, stream)
        if request.deadline - attempt.begun > (_FAIR if usual is None else 2 * usual):
            self._breakers.failure(model)
        else:
            self._breakers.release(model)
        self._metrics.attempt(model, "deadline")
        raise _late()

    async def _refused(self, attempt: _Attempt, reply: Reply) -> Fault:
        """Settle an attempt whose status is an error. OpenRouter bills nothing before the model has started; a
        time-out may have come after that."""
        generation = reply.header("x-generation-id")
        try:
            async with asyncio.timeout(_MOMENT):
                body = await reply.read(_BODY_LIMIT)
        except (Lost, TimeoutError):
            body = b""
        except asyncio.CancelledError:
            self._breakers.release(attempt.candidate.model.id)
            await self._unconfirmed(attempt, Outcome.ABORTED, generation)
            raise
        finally:
            await reply.close()
        if reply.status < 500 or (generation is None and reply.status in _UNBILLED):
            await self._settle(attempt, Outcome.FAILED, 0, generation, Tokens(), "none")
        else:
            await self._unconfirmed(attempt, Outcome.FAILED, generation)
        own_limit = reply.header("x-ratelimit-limit") is not None
        return classify(reply.status, body, reply.header("retry-after"), own_limit=own_limit)

    async def _ask(self, request: Request, attempt: _Attempt, course: Course) -> Delivered:
        """A whole answer. Raises `_Failed`: it has been settled."""
        try:
            return await self._whole(request, attempt, course)
        finally:
            self._slots.leave(attempt.slot)

    async def _whole(self, request: Request, attempt: _Attempt, course: Course) -> Delivered:
        reply = await self._send(request, attempt, stream=False)
        generation = reply.header("x-generation-id")
        try:
            async with asyncio.timeout(request.deadline - time.monotonic()):
                body = await reply.read(_BODY_LIMIT)
            result = request.dialect.result(body)
        except TimeoutError:
            await self._dropped(attempt, reply, generation)
            self._check(request, attempt, stream=False)
            raise
        except asyncio.CancelledError:
            self._breakers.release(attempt.candidate.model.id)
            await self._dropped(attempt, reply, generation)
            raise
        except (Lost, ValueError) as error:
            await self._unconfirmed(attempt, Outcome.FAILED, generation)
            raise self._failed(attempt, Fault(Kind.FAILED, 502, f"unreadable answer: {error}")) from error
        generation = generation or result.generation
        cost = result.usage.cost if result.usage is not None else None
        tokens = result.usage.tokens if result.usage is not None else Tokens()
        outcome = Outcome.FAILED if result.failed else Outcome.COMPLETE
        if cost is None:
            await self._unconfirmed(attempt, outcome, generation)
        else:
            await self._settle(attempt, outcome, cost, generation, tokens, "usage", result.model, result.provider)
        if result.failed:
            raise self._failed(attempt, classify(200, body))
        self._note(request, attempt, stream=False)
        self._metrics.attempt(attempt.candidate.model.id, "ok")
        return Delivered(body, result, attempt.candidate, generation, cost, course.tries)

    async def _dropped(self, attempt: _Attempt, reply: Reply, generation: str | None) -> None:
        """Nobody waits for the rest of an answer: upstream may stop, and what it bills is found out later."""
        await reply.close()
        await self._unconfirmed(attempt, Outcome.ABORTED, generation)

    async def _open(self, request: Request, attempt: _Attempt, course: Course) -> Relay:
        """Open a stream and read up to its first content."""
        try:
            reply = await self._send(request, attempt, stream=True)
        except BaseException:
            self._slots.leave(attempt.slot)
            raise

        expiry: asyncio.TimerHandle | None = None

        async def ended(end: End) -> None:
            if expiry is not None:
                expiry.cancel()
            self._slots.leave(attempt.slot)
            await self._stream_ended(attempt, end)

        started = time.perf_counter()
        relay = Relay(
            reply,
            request.dialect,
            attempt.candidate.model.id,
            ended,
            idle=self._settings.upstream.idle_timeout,
            include_usage=request.call.include_usage,
            keep=request.keep,
        )
        try:
            async with asyncio.timeout(request.deadline - time.monotonic()):
                await relay.prime()
        except Broken as error:
            raise self._failed(attempt, error.fault) from error
        except TimeoutError:
            await relay.abort()
            self._check(request, attempt, stream=True)
            raise
        except BaseException:
            await relay.abort()
            raise
        finally:
            request.waited += time.perf_counter() - started
        self._note(request, attempt, stream=True)
        if request.final:
            left = max(0.0, request.deadline - time.monotonic())
            expiry = asyncio.get_running_loop().call_later(left, relay.expire)
        return relay

    async def _stream_ended(self, attempt: _Attempt, end: End) -> None:
        model = attempt.candidate.model.id
        if end.outcome is Outcome.PARTIAL:
            self._metrics.broken_stream(model, end.reason or "cut")
            if not end.primed:
                await self._book(attempt, end)  # its failure is counted where the next candidate is chosen
                return
            if end.reason == "expired":
                self._breakers.release(model)
            else:
                self._breakers.failure(model)
        elif end.outcome is Outcome.COMPLETE:
            self._breakers.success(model)
            self._metrics.attempt(model, "ok")
        else:
            self._breakers.release(model)
        await self._book(attempt, end)

    async def _book(self, attempt: _Attempt, end: End) -> None:
        if end.cost is not None and end.outcome is not Outcome.ABORTED:
            await self._settle(
                attempt, end.outcome, end.cost, end.generation, end.tokens, "usage", end.model, end.provider
            )
        else:
            await self._unconfirmed(attempt, end.outcome, end.generation)

    def _failed(self, attempt: _Attempt, fault: Fault) -> _Failed:
        self._metrics.attempt(attempt.candidate.model.id, fault.kind)
        if fault.breaks:
            self._breakers.failure(attempt.candidate.model.id, fault.retry_after)
        else:
            self._breakers.release(attempt.candidate.model.id)
        return _Failed(fault)

    async def _settle(
        self,
        attempt: _Attempt,
        outcome: Outcome,
        cost: int | None,
        generation: str | None,
        tokens: Tokens,
        source: str,
        model: str | None = None,
        provider: str | None = None,
    ) -> None:
        await self._ledger.settle(
            Settlement(
                attempt=attempt.intent.attempt,
                at=self._clock(),
                outcome=outcome,
                cost=cost,
                model=model,
                provider=provider,
                generation=generation,
                tokens=tokens,
                source=source,  # type: ignore[arg-type]
            )
        )

    async def _unconfirmed(self, attempt: _Attempt, outcome: Outcome, generation: str | None) -> None:
        await self._settle(attempt, outcome, None, generation, Tokens(), "none")


async def _let_go(_: Delivered) -> None:
    """A whole answer that came second has been settled already."""


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("deadline_exceeded", "No answer came within the request's deadline; allow more time.")


def _output_limit(candidate: Candidate, load: Load) -> int | None:
    """The output that a request without a limit of its own gets at most: what the model can give at all."""
    model = candidate.model
    room = model.context_length - load.prompt_tokens if model.context_length is not None else None
    limits = [limit for limit in (model.max_completion_tokens, room) if limit is not None]
    return max(1, min(limits)) if limits else None
