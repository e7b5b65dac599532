# SPDX-License-Identifier: GPL-3.0-or-later
"""Attempts: which candidate and key next, what an error means for that, and each attempt's money.

Every attempt has its own identity, reservation and durable intent before its first byte, and is settled exactly
once, whichever way it leaves. A request ends with the first good answer, or when nothing is left to try within
its deadline, its number of attempts, and the gateway's retry budget.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from sophia.errors import (
    ApiError,
    BadRequest,
    DeadlineExceeded,
    Forbidden,
    NotFound,
    TooManyRequests,
    Unavailable,
    Upstream,
)
from sophia.gateway.breaker import Breakers
from sophia.gateway.budget import Budget
from sophia.gateway.dialects import Call, Dialect, Result
from sophia.gateway.faults import Fault, Kind, classify
from sophia.gateway.ledger import Ledger
from sophia.gateway.metrics import Metrics
from sophia.gateway.pace import Pace
from sophia.gateway.plan import Candidate, Plan
from sophia.gateway.prices import Load, MaxPrice, bound, output_for
from sophia.gateway.reconcile import user_agent
from sophia.gateway.relay import Broken, End, Relay
from sophia.gateway.slots import Slot, Slots
from sophia.gateway.upstream import Lost, NotSent, Reply, UpstreamFailure
from sophia.gateway.upstream import Upstream as Client
from sophia.settings import Settings
from sophia.stores.model import Intent, Outcome, Principal, Settlement, Tokens, new_id

__all__ = ["Delivered", "Dispatcher", "Request"]

_BODY_LIMIT = 64 * 1024 * 1024
_PAUSE = 0.2
_PATIENCE = 10.0
_MOMENT = 5.0  # for the body of an error
_LEAST = 0.05  # seconds that are not worth an attempt
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
    """Whether the deadline is the client's own."""
    final: bool = False
    """Whether a stream, too, has to end with the deadline."""
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

    async def whole(self, request: Request, plan: Plan) -> Delivered:
        """A whole answer from the first candidate that gives one.

        Raises:
            ApiError: no candidate did, or none may be asked.
        """
        course = self._course(request, plan, stream=False)
        while True:
            attempt = await self._begin(request, course)
            try:
                delivered = await self._ask(request, attempt, course.tries)
            except _Failed as failure:
                await course.after(attempt.candidate, attempt.slot, failure.fault)
                continue
            finally:
                self._slots.leave(attempt.slot)
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
                relay = await self._open(request, attempt)
            except _Failed as failure:
                await course.after(attempt.candidate, attempt.slot, failure.fault)
                continue
            return relay, attempt.candidate

    def _course(self, request: Request, plan: Plan, *, stream: bool) -> _Course:
        return _Course(request, plan, self._slots, self._breakers, self._pace, self._settings, stream=stream)

    async def _begin(self, request: Request, course: _Course) -> _Attempt:
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

    async def _promise(self, request: Request, course: _Course, candidate: Candidate, slot: Slot) -> _Attempt:
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
        return _Attempt(intent, candidate, slot, body)

    async def _reserve(
        self, request: Request, candidate: Candidate, course: _Course, identity: str
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
        if left < _LEAST:  # it waited for its budget meanwhile
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
        if request.deadline - time.monotonic() >= _LEAST:
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
        return classify(reply.status, body, reply.header("retry-after"))

    async def _ask(self, request: Request, attempt: _Attempt, tries: int) -> Delivered:
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
        self._pace.note(attempt.candidate.model.id, False, time.monotonic() - attempt.begun)
        self._metrics.attempt(attempt.candidate.model.id, "ok")
        return Delivered(body, result, attempt.candidate, generation, cost, tries)

    async def _dropped(self, attempt: _Attempt, reply: Reply, generation: str | None) -> None:
        """Nobody waits for the rest of an answer: upstream may stop, and what it bills is found out later."""
        await reply.close()
        await self._unconfirmed(attempt, Outcome.ABORTED, generation)

    async def _open(self, request: Request, attempt: _Attempt) -> Relay:
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
        self._pace.note(attempt.candidate.model.id, True, time.monotonic() - attempt.begun)
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


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("deadline_exceeded", "No answer came within the request's deadline; allow more time.")


def _output_limit(candidate: Candidate, load: Load) -> int | None:
    """The output that a request without a limit of its own gets at most: what the model can give at all."""
    model = candidate.model
    room = model.context_length - load.prompt_tokens if model.context_length is not None else None
    limits = [limit for limit in (model.max_completion_tokens, room) if limit is not None]
    return max(1, min(limits)) if limits else None


class _Course:
    """What is left to try for one request."""

    def __init__(
        self,
        request: Request,
        plan: Plan,
        slots: Slots,
        breakers: Breakers,
        pace: Pace,
        settings: Settings,
        *,
        stream: bool,
    ) -> None:
        self._request = request
        self._pace = pace
        self._stream = stream
        self._candidates = list(plan.candidates)
        self._slots = slots
        self._breakers = breakers
        self._most = settings.dispatch.attempts
        self._refused_slots: set[str] = set()
        self._last: Fault | None = None
        self._free = True
        self.tries = 0
        self.shrink_to: int | None = None

    def next(self) -> tuple[Candidate, Slot]:
        """The next candidate and key.

        Raises:
            ApiError: nothing is left.
        """
        left = self._request.deadline - time.monotonic()
        if left < _LEAST:
            raise DeadlineExceeded(
                "deadline_exceeded", "The request's deadline has passed; allow more time or ask for less."
            )
        if self.tries or self._request.hurried:
            self._drop_slow(left)
        if self.tries and not self._free and (self.tries >= self._most or not self._breakers.may_retry()):
            raise self._final()
        while self._candidates and not self._breakers.admits(self._candidates[0].model.id):
            if len(self._candidates) == 1:
                break
            self._candidates.pop(0)
        if not self._candidates:
            raise self._final()
        slot = self._slots.pick(self._refused_slots)
        if slot is None:
            raise self._no_key()
        if not self.tries:
            self._breakers.request()
        self.tries += 1
        return self._candidates[0], slot

    def _drop_slow(self, left: float) -> None:
        """Leave out the candidates that cannot answer in what is left.

        Raises:
            DeadlineExceeded: none can.
        """
        before = len(self._candidates)
        self._candidates = [
            candidate for candidate in self._candidates if self._pace.least(candidate.model.id, self._stream) <= left
        ]
        if before and not self._candidates:
            raise DeadlineExceeded(
                "deadline_exceeded", f"No model that may answer this has been quick enough of late for {left:.2f} s."
            )

    async def after(self, candidate: Candidate, slot: Slot, fault: Fault) -> None:
        """Decide what a fault leaves to try.

        Raises:
            ApiError: where trying again cannot help.
        """
        self._last = fault
        self._free = False
        match fault.kind:
            case Kind.BAD_KEY | Kind.KEY_LIMIT:
                self._slots.reject(slot) if fault.kind is Kind.BAD_KEY else self._slots.limit(slot)
                self._refused_slots.add(slot.hash)
                self._free = True
            case Kind.CREDIT | Kind.REFUSED | Kind.INVALID:
                raise self._final()
            case Kind.AFFORD if self.shrink_to is None and fault.affordable:
                self.shrink_to = fault.affordable
                self._free = True
            case Kind.IN_FLIGHT | Kind.RATE:
                await self._wait(fault.retry_after if fault.retry_after is not None else _PAUSE * 2**self.tries)
            case Kind.FAILED if len(self._candidates) == 1:
                await self._wait(random.uniform(0, _PAUSE * 2**self.tries))  # noqa: S311 - jitter, not a secret
            case Kind.BUSY if len(self._candidates) == 1 and (fault.retry_after or _PATIENCE) < _PATIENCE:
                await self._wait(fault.retry_after or _PAUSE)
            case _:
                self._candidates.pop(0)

    async def _wait(self, seconds: float) -> None:
        if time.monotonic() + seconds >= self._request.deadline or seconds > _PATIENCE:
            raise self._final()
        await asyncio.sleep(seconds)

    def _no_key(self) -> ApiError:
        kind = self._last.kind if self._last is not None else None
        if kind is Kind.KEY_LIMIT:
            return Unavailable(
                "upstream_key_limit", "The credit limit of every OpenRouter key is spent; an operator must raise it."
            )
        return Unavailable(
            "upstream_key_rejected", "OpenRouter accepts none of the gateway's keys; an operator must replace them."
        )

    def _final(self) -> ApiError:
        """The last fault as the client is told it."""
        fault = self._last
        if fault is None:
            return Unavailable("no_candidate", "No model can be asked at the moment; try again.", retry_after=5.0)
        message = fault.message
        match fault.kind:
            case Kind.INVALID:
                status = fault.status if fault.status in (400, 413, 422) else 400
                return BadRequest(fault.error_type or "upstream_rejected", message, status=status)
            case Kind.CONTEXT:
                return BadRequest("context_length_exceeded", message)
            case Kind.REFUSED:
                return Forbidden("content_refused", message)
            case Kind.CREDIT | Kind.AFFORD:
                return Unavailable(
                    "upstream_credit", "The OpenRouter account has no credit left; an operator must add some."
                )
            case Kind.RATE | Kind.IN_FLIGHT:
                return TooManyRequests("upstream_rate_limited", message, retry_after=fault.retry_after or 1.0)
            case Kind.BUSY:
                return Unavailable("upstream_busy", message, retry_after=fault.retry_after or 5.0)
            case Kind.UNSERVED:
                return NotFound("model_unavailable", message)
            case _:
                return Upstream("upstream_failed", f"{message} ({self.tries} attempts)")
