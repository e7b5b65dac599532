# SPDX-License-Identifier: GPL-3.0-or-later
"""Attempts at backends, and the overflow after them.

A request that has had nothing passed on is tried again where that may help: at another backend when a connection was
refused, an answer was lost, or the server failed; never after its first byte. Where no backend can take it, it goes to
the gateway if its caller allows that and the model has a counterpart there, and else it is refused with the reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from sophia.errors import ApiError, DeadlineExceeded, NotFound, TooManyRequests, Unavailable, Upstream
from sophia.gateway.upstream import Lost, NotSent, Reply, Stalled, UpstreamFailure
from sophia.gateway.upstream import Upstream as Client
from sophia.router.ask import Ask
from sophia.router.fleet import Fleet
from sophia.router.metrics import Metrics
from sophia.router.relay import Broken, Ending, Relay, used_tokens
from sophia.router.schedule import Lease, Refused, Schedule
from sophia.router.settings import OverflowSettings, Settings

__all__ = ["Answer", "Caller", "Dispatcher", "Overflow"]

_LOG = logging.getLogger(__name__)

_WHOLE_BODY = 256 * 1024 * 1024
_BUSY = frozenset((408, 425, 429))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the tenant, until when (seconds of the clock), and whether the request may leave the house."""

    tenant: str
    deadline: float | None
    may_overflow: bool
    headers: dict[str, str]


@dataclass(slots=True)
class Answer:
    """An answer: whole (`body`), or a stream whose first piece is there (`relay`)."""

    status: int
    content_type: str
    placement: str
    backend: str
    body: bytes = b""
    relay: Relay | None = None


@dataclass(frozen=True, slots=True)
class Overflow:
    """The gateway, and the key for it."""

    settings: OverflowSettings
    client: Client
    key: str


class _Failed(Exception):
    """An attempt failed with nothing passed on. `worked`: the backend may have worked on it."""

    def __init__(self, result: str, *, worked: bool) -> None:
        super().__init__(result)
        self.result = result
        self.worked = worked


class _Nobody:
    """The progress of an answer that no backend of ours works on."""

    def begun(self) -> None:
        return None

    def made(self, tokens: int) -> None:
        return None


class Dispatcher:
    """Answers requests. `settings` and `overflow` may be replaced between two requests."""

    def __init__(
        self,
        settings: Settings,
        fleet: Fleet,
        schedule: Schedule,
        overflow: Overflow | None,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self.settings = settings
        self.overflow = overflow
        self._fleet = fleet
        self._schedule = schedule
        self._metrics = metrics
        self._clock = clock

    async def answer(self, ask: Ask, caller: Caller) -> Answer:
        """The answer to a request, from wherever it can be had.

        Raises:
            ApiError: it cannot be had; the error says why and when to come again.
        """
        overflow = self._overflow_for(ask, caller)
        if not self._fleet.known(ask.model) and overflow is None:
            raise NotFound("model_not_found", f"The model {ask.model!r} is not served here.", param="model")
        if overflow is not None and not self._fleet.able(ask.model):
            return await self._spill(overflow, ask, caller, "down")
        tried: set[str] = set()
        worked = 0
        again = False
        until = self._clock() + self._patience(caller, overflow)
        while True:
            if tried and all(backend.name in tried for backend in self._fleet.able(ask.model)):
                if overflow is not None:
                    return await self._spill(overflow, ask, caller, "failed")
                tried.clear()  # whoever is up first, or again, may have another try
            try:
                lease = await self._schedule.place(
                    ask, caller.tenant, until - self._clock(), without=tried, again=again
                )
            except Refused as refused:
                if overflow is not None:
                    return await self._spill(overflow, ask, caller, refused.reason)
                raise self._refusal(refused, ask, caller) from refused
            try:
                return await self._attempt(lease, ask, caller)
            except _Failed as failed:
                tried.add(lease.backend.name)
                worked += failed.worked
                again = True
                _LOG.warning(
                    "attempt failed", extra={"backend": lease.backend.name, "result": failed.result, "model": ask.model}
                )
                if worked >= self.settings.attempts:
                    if overflow is not None:
                        return await self._spill(overflow, ask, caller, "failed")
                    raise Upstream("backends_failed", "The model's servers failed; send the request again.") from failed

    async def _attempt(self, lease: Lease, ask: Ask, caller: Caller) -> Answer:
        """One request to one backend.

        Raises:
            _Failed: nothing came of it, and nothing was passed on.
            DeadlineExceeded: the caller's own deadline passed meanwhile.
        """
        backend, condition = lease.backend, lease.backend.condition
        limit = self.settings.head_timeout if ask.stream else self.settings.whole_timeout
        left = limit if caller.deadline is None else caller.deadline - self._clock()
        result = "left"
        try:
            if left <= 0:
                raise _deadline()
            reply = await backend.client.post(
                ask.route, caller.headers | backend.headers, ask.body, head_timeout=min(limit, left), stream=ask.stream
            )
            answer = await self._read(reply, lease, ask)
        except NotSent as error:
            condition.refused()
            result = "refused"
            raise _Failed(result, worked=False) from error
        except Stalled as error:
            if left < limit:
                raise _deadline() from error
            result = "stalled"
            raise _Failed(result, worked=True) from error
        except Lost as error:
            result = "lost"
            raise _Failed(result, worked=True) from error
        except _Failed as failed:
            result = failed.result
            raise
        else:
            result = ""
            return answer
        finally:
            if result:
                self._end(lease, result, None)

    async def _read(self, reply: Reply, lease: Lease, ask: Ask) -> Answer:
        name = lease.backend.name
        kind = reply.header("content-type") or "application/json"
        if reply.status >= 500 or reply.status in _BUSY:
            await reply.close()
            raise _Failed("failed", worked=True)
        if ask.stream and reply.status < 300:
            relay = Relay(
                reply, self.settings.idle_timeout, lease, lambda ending, used: self._streamed(lease, ending, used)
            )
            try:
                await relay.prime()
            except Broken as broken:
                raise _Failed("broken", worked=True) from broken
            return Answer(reply.status, kind, "local", name, relay=relay)
        try:
            body = await reply.read(_WHOLE_BODY)
        finally:
            await reply.close()
        good = reply.status < 300
        if good:
            lease.begun()
        self._end(lease, "ok" if good else "client", used_tokens(body) if good else None)
        return Answer(reply.status, kind, "local", name, body)

    def _streamed(self, lease: Lease, ending: Ending, used: int | None) -> None:
        """A stream is over, well or not."""
        if ending not in ("ok", "left"):
            self._metrics.broken_stream(lease.backend.name, ending)
        self._end(lease, {"ok": "ok", "left": "left"}.get(ending, "broken"), used)

    def _end(self, lease: Lease, result: str, used: int | None) -> None:
        """An attempt is over: what it says of the backend, and its place given back. Only the first call counts."""
        if lease.closed:
            return
        condition, now = lease.backend.condition, self._clock()
        if result == "ok":
            condition.succeeded(now)
        elif result in ("left", "client"):
            condition.undecided()
        elif result != "refused":
            condition.failed(now)
        self._metrics.attempt(lease.backend.name, result)
        lease.close(used, finished=result == "ok")

    def _patience(self, caller: Caller, overflow: Overflow | None) -> float:
        """How long the request may wait in the queue (s)."""
        wait = self.settings.queue.wait if overflow is None else min(self.settings.queue.wait, overflow.settings.wait)
        return wait if caller.deadline is None else min(wait, caller.deadline - self._clock())

    def _overflow_for(self, ask: Ask, caller: Caller) -> Overflow | None:
        """The overflow, if this request may use it."""
        if self.overflow is None or not caller.may_overflow or ask.model not in self.overflow.settings.models:
            return None
        return self.overflow

    async def _spill(self, overflow: Overflow, ask: Ask, caller: Caller, reason: str) -> Answer:
        """Ask the gateway. What it answers is passed on, errors as well.

        Raises:
            ApiError: it did not answer.
        """
        self._metrics.overflowed(reason)
        fields = msgspec.json.decode(ask.body, type=dict[str, msgspec.Raw])
        fields["model"] = msgspec.Raw(msgspec.json.encode(overflow.settings.models[ask.model]))
        headers = caller.headers | {
            "authorization": f"Bearer {overflow.key}",
            "x-sophia-overflowed": reason,
            "x-sophia-tenant": caller.tenant,
        }
        limit = self.settings.head_timeout if ask.stream else self.settings.whole_timeout
        if caller.deadline is not None:
            limit = min(limit, caller.deadline - self._clock())
            headers["x-request-timeout"] = f"{max(limit, 0.001):.3f}"
        route = ask.route.removeprefix("/v1")
        try:
            reply = await overflow.client.post(
                route, headers, msgspec.json.encode(fields), head_timeout=max(limit, 0.001), stream=ask.stream
            )
            return await self._spilled(reply, ask)
        except (UpstreamFailure, Broken) as error:
            raise Unavailable(
                "overflow_unavailable", "Neither the local model nor the overflow answers.", retry_after=2.0
            ) from error

    async def _spilled(self, reply: Reply, ask: Ask) -> Answer:
        kind = reply.header("content-type") or "application/json"
        if ask.stream and reply.status < 300:
            relay = Relay(reply, self.settings.idle_timeout, _Nobody(), self._overflow_ended)
            await relay.prime()
            return Answer(reply.status, kind, "overflow", "overflow", relay=relay)
        try:
            return Answer(reply.status, kind, "overflow", "overflow", await reply.read(_WHOLE_BODY))
        finally:
            await reply.close()

    def _overflow_ended(self, ending: Ending, used: int | None) -> None:
        if ending not in ("ok", "left"):
            self._metrics.broken_stream("overflow", ending)

    def _refusal(self, refused: Refused, ask: Ask, caller: Caller) -> ApiError:
        if caller.deadline is not None and caller.deadline <= self._clock():
            return _deadline()
        after = refused.retry_after
        if refused.reason == "down":
            text = f"No server of {ask.model!r} is up."
            return Unavailable("backends_down", text, retry_after=after or 2 * self.settings.health.interval)
        if refused.reason == "full":
            return TooManyRequests("queue_full", "The queue is full; come again later.", retry_after=after or 1.0)
        text = "The queue is longer than this request may wait; come again later."
        return TooManyRequests("queue_slow", text, retry_after=after or 1.0)


def _deadline() -> DeadlineExceeded:
    return DeadlineExceeded("deadline_exceeded", "The request's own deadline passed before its answer began.")
