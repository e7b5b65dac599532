# SPDX-License-Identifier: GPL-3.0-or-later
"""Which faults there are, and what must come of each of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["FAULTS", "Case", "Expected", "Fault", "batches", "expected"]

Route = Literal["chat/completions", "responses", "messages", "chat", "embeddings"]
Scope = Literal["first", "once", "all"]
Nature = Literal["before", "after", "slow", "final", "wait", "key"]
Kind = Literal["whole", "refused", "broken"]

ROUTES: tuple[Route, ...] = ("chat/completions", "responses", "messages", "chat", "embeddings")

# Streams carry a fault `after` so many pieces of content; 0 strikes before the first.
_BEGUN = 3
# What the gateways are given: seconds to the head of an answer, between two pieces, and in all.
PATIENCE, DEADLINE = 1.0, 12.0


@dataclass(frozen=True)
class Fault:
    """A fault and its nature, seen from the client of a stream.

    before: nothing has been passed on, another try can still give the whole answer. after: the stream has begun.
    slow: the answer comes, late. final: no other try can help, the client gets `status`. wait: the same model may be
    asked again after a pause. key: the other key of OpenRouter can answer.
    """

    name: str
    nature: Nature
    rule: dict[str, Any] = field(hash=False)
    status: int = 502
    chat_only: bool = False


def _status(status: int, nature: Nature, then: int = 502, variant: str | None = None, **more: Any) -> Fault:
    rule = {"kind": "status", "status": status} | ({"variant": variant} if variant else {}) | more
    return Fault(f"{status} {variant}" if variant else str(status), nature, rule, then)


def _kind(kind: str, nature: Nature, chat_only: bool = False, **rule: Any) -> Fault:
    words = [kind.replace("_", " ")]
    if "after" in rule:
        words.append("after content" if rule["after"] else "before content")
    return Fault(" ".join(words), nature, {"kind": kind} | rule, chat_only=chat_only)


FAULTS = (
    _status(400, "final", 400),
    _status(400, "before", 400, "context_length"),
    _status(401, "key", 503),
    _status(401, "key", 503, "disabled"),
    _status(402, "final", 503),
    _status(402, "wait", 503, "affordability"),
    _status(403, "key", 503, "key_limit"),
    _status(403, "final", 403, "moderation"),
    _status(403, "final", 403, "guardrail"),
    _status(403, "before", 404, "region"),
    _status(404, "before", 404, "no_endpoints"),
    _status(404, "before", 404, "model_deprecated"),
    _status(408, "before"),
    _status(422, "final", 422),
    _status(429, "wait", 429, retry_after=0.3),
    _status(429, "before", 503, "upstream", retry_after=0.3),
    _status(429, "before", 503, "capacity"),
    _status(500, "before"),
    _status(502, "before"),
    _status(503, "before", 503),
    _status(503, "before", 503, "bare"),
    _status(504, "before"),
    _status(524, "before"),
    _status(529, "before", 503),
    _kind("error_200", "before", status=502),
    _kind("choice_error", "after", chat_only=True, status=502),
    _kind("midstream_error", "before", chat_only=True, after=0, status=502),
    _kind("midstream_error", "after", chat_only=True, after=_BEGUN, status=502),
    _kind("empty", "before", chat_only=True),
    _kind("cut", "before", after=0),
    _kind("cut", "after", after=_BEGUN),
    _kind("stall", "before", after=0, seconds=60),
    _kind("stall", "after", after=_BEGUN, seconds=60),
    _kind("malformed_chunk", "before", after=0),
    _kind("malformed_chunk", "after", after=_BEGUN),
    _kind("trickle", "slow", seconds=0.0002),
    Fault("slow headers", "slow", {"kind": "slow_headers", "seconds": PATIENCE / 3}),
    Fault("headers too late", "before", {"kind": "slow_headers", "seconds": 60}),
    _kind("reset", "before"),
    _kind("reset_after_accept", "before"),
    _kind("timeout_after_success", "before"),
)


@dataclass(frozen=True)
class Case:
    """One request. first: the fault strikes the first candidate, each time; once: only its first attempt (or only the
    first of two keys, where it is about the key); all: every attempt."""

    fault: Fault
    route: Route
    stream: bool
    scope: Scope

    @property
    def name(self) -> str:
        """For test reports and tables."""
        return f"{self.fault.name}, {self.route}{' stream' if self.stream else ''}, {self.scope}"


@dataclass(frozen=True)
class Expected:
    """What the client must see, and the model that must have answered: the first candidate or the second."""

    kind: Kind
    status: int = 200
    by: Literal["first", "second"] | None = None


def expected(case: Case) -> Expected:
    """What must come of a case."""
    fault = case.fault
    if fault.nature == "slow":
        return Expected("whole", by="first")
    if case.stream and fault.nature == "after":
        return Expected("broken")
    if fault.nature == "final" or case.scope == "all":
        return Expected("refused", fault.status)
    if case.scope == "once" or fault.nature in ("key", "wait"):
        return Expected("whole", by="first")
    return Expected("whole", by="second")


def batches() -> Iterator[list[Case]]:
    """All cases; those of one fault and scope can run side by side."""
    for fault in FAULTS:
        every = [
            Case(fault, route, stream, scope)
            for route in ROUTES
            if not (route == "embeddings" and fault.chat_only)
            for stream in ((False,) if route == "embeddings" else (False, True))
            for scope in _scopes(fault, route)
        ]
        for scope in ("first", "once", "all"):
            batch = [case for case in every if case.scope == scope]
            if batch:
                yield batch


def _scopes(fault: Fault, route: Route) -> tuple[Scope, ...]:
    """An embedding has one model only, and nothing but another attempt at it can help."""
    if fault.nature in ("slow", "final"):
        return ("all",)
    if route != "embeddings" and fault.nature == "before":
        return ("first", "all")
    another = fault.nature != "before" or fault.status == 502 or fault.rule.get("retry_after") is not None
    if route == "embeddings" and not another:
        return ("all",)
    return ("once", "all") if fault.nature != "after" or route == "embeddings" else ("first", "all")
