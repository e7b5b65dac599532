# SPDX-License-Identifier: GPL-3.0-or-later
"""One generation from its acceptance to its bill, whichever API it came through.

`accept` does everything that the vendor does before a model starts: credit, key limit, routing, faults, context length,
affordability. What it returns is settled exactly once, by `settle`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sophia.money import nano

from . import billing, errors
from .ask import Ask
from .billing import Bill, Counts, Rates
from .catalogue import Catalogue, Endpoint, Model
from .drafts import Draft, draft
from .errors import VendorError
from .faults import Fault, Faults, Subject
from .records import Generation, Key
from .routing import Candidate, candidates
from .state import Open, State
from .wire import Exchange, ResetNow

__all__ = ["Accepted", "Platform", "accept", "begin", "complete", "fault_error", "settle"]


@dataclass(frozen=True, slots=True)
class Platform:
    """What every request handler needs."""

    state: State
    catalogue: Catalogue
    faults: Faults
    latency_scale: float


@dataclass(frozen=True, slots=True)
class Accepted:
    """A generation that a model is working on. `counts` and `bill` are those of the whole answer."""

    id: str
    created: float
    ask: Ask
    key: Key
    candidate: Candidate
    drafts: tuple[Draft, ...]
    rates: Rates
    counts: Counts
    bill: Bill
    attempts: tuple[dict[str, Any], ...]

    @property
    def model(self) -> str:
        """The model that answers, which need not be the one that was asked."""
        return self.candidate.model.id

    @property
    def provider(self) -> str:
        """The name of the provider that answers."""
        return self.candidate.endpoint.provider.name

    @property
    def finish(self) -> str:
        """Why the first choice ends."""
        return self.drafts[0].finish if self.drafts else "stop"

    @property
    def seconds_to_first_token(self) -> float:
        """How long the model takes to begin, at its real pace."""
        return self.candidate.endpoint.ttft

    def seconds_to_generate(self, tokens: int) -> float:
        """How long so many tokens take, at the model's real pace."""
        rate = self.candidate.endpoint.tokens_per_second
        return tokens / rate if rate else 0.0


def begin(platform: Platform, exchange: Exchange, now: float) -> str:
    """Give a request its generation id, which every answer names from here on. Returns it."""
    generation_id = platform.state.generation_id(now)
    exchange.reply_headers.append((b"x-generation-id", generation_id.encode()))
    return generation_id


def accept(platform: Platform, exchange: Exchange, ask: Ask, key: Key, generation_id: str, now: float) -> Accepted:
    """Everything before the model starts. Raises `VendorError` with the status that the vendor would answer with."""
    state = platform.state
    check_funds(state, key)
    check_text(state, key, ask)
    found = candidates(platform.catalogue, ask, state.guardrail_of(key.hash), now)
    attempts: list[dict[str, Any]] = []
    failure = VendorError(502, upstream=True)
    for candidate in found:
        try:
            exchange.fault = strike(platform, exchange, key, candidate, stream=ask.stream)
            return _start(platform, ask, key, candidate, generation_id, now, attempts)
        except VendorError as error:
            if not error.upstream:
                raise
            failure = error
            attempts.append(
                {"provider": candidate.endpoint.provider.name, "model": candidate.model.id, "status": error.status}
            )
    if len(attempts) > 1:
        failure.metadata["previous_errors"] = [
            {"provider": attempt["provider"], "code": attempt["status"], "status": attempt["status"]}
            for attempt in attempts[:-1]
        ]
    raise failure


def settle(
    platform: Platform,
    exchange: Exchange,
    accepted: Accepted,
    *,
    counts: Counts | None = None,
    cancelled: bool = False,
    finish: str | None = "stop",
    free: bool = False,
) -> Bill:
    """Bill a generation. `counts` is what was generated if not all; `free` is the zero-completion insurance."""
    used = counts or accepted.counts
    bill = accepted.bill if counts is None else billing.bill(accepted.rates, used)
    if free:
        bill = billing.FREE
    first = accepted.seconds_to_first_token * platform.latency_scale
    ended = platform.state.clock()
    ask = accepted.ask
    platform.state.settle(
        Generation(
            id=accepted.id,
            key_hash=accepted.key.hash,
            model=accepted.model,
            provider=accepted.provider,
            api_type=ask.api_type,
            created_at=accepted.created,
            ended_at=ended,
            cost=bill.total,
            cost_prompt=bill.prompt,
            cost_completion=bill.completion,
            cache_discount=bill.cache_discount,
            prompt_tokens=used.prompt,
            completion_tokens=used.completion,
            cached_tokens=used.cached,
            cache_write_tokens=used.written,
            reasoning_tokens=used.reasoning,
            images=used.images,
            streamed=ask.stream,
            cancelled=cancelled,
            finish_reason=finish,
            latency=min(first, ended - accepted.created),
            router=accepted.candidate.router,
            user=ask.user,
            session_id=ask.session_id,
            user_agent=exchange.header(b"user-agent"),
            http_referer=exchange.header(b"http-referer") or exchange.header(b"referer"),
            request_id=exchange.header(b"x-request-id"),
            workspace_id=accepted.key.workspace_id,
            attempts=list(accepted.attempts) or None,
        )
    )
    return bill


async def complete(platform: Platform, exchange: Exchange, accepted: Accepted) -> tuple[Bill, VendorError | None]:
    """Let the model finish, whether or not anybody still waits, and bill it. Returns the bill and the model's error."""
    kind = None if exchange.fault is None else exchange.fault.kind
    seconds = accepted.seconds_to_first_token + accepted.seconds_to_generate(accepted.counts.completion)
    failed = kind in ("error_200", "choice_error", "midstream_error", "empty")
    finish = None if kind == "empty" else "error" if failed else accepted.finish
    try:
        if platform.latency_scale:
            await asyncio.sleep(seconds * platform.latency_scale)
    finally:
        counts = None
        if failed:
            counts = replace(accepted.counts, completion=0, reasoning=0)
        bill = settle(platform, exchange, accepted, counts=counts, finish=finish, free=failed)
    if not failed or kind == "empty" or exchange.fault is None:
        return bill, None
    return bill, fault_error(exchange.fault, accepted.model, accepted.provider, accepted.created)


def strike(platform: Platform, exchange: Exchange, key: Key, candidate: Candidate, *, stream: bool) -> Fault | None:
    """The fault for this attempt. Kind `status` is raised as the `VendorError` that it is, `reset` as `ResetNow`."""
    if platform.faults.idle(exchange.headers):
        return None
    provider = candidate.endpoint.provider
    subject = Subject(
        path=exchange.path,
        method=exchange.method,
        headers=exchange.headers,
        key_hash=key.hash,
        model=candidate.model.id,
        provider=provider.slug,
        stream=stream,
    )
    fault = platform.faults.find(subject)
    if fault is not None and fault.kind == "status":
        raise fault_error(fault, candidate.model.id, provider.name, platform.state.clock())
    if fault is not None and fault.kind == "reset":
        raise ResetNow
    return fault


def fault_error(fault: Fault, model: str, provider: str, now: float) -> VendorError:
    """The error that a fault carries."""
    error = errors.by_status(
        fault.status or 502, fault.variant, model=model, provider=provider, now=now, retry_after=fault.retry_after
    )
    if fault.message is not None:
        error.message = fault.message
    return error


def check_funds(state: State, key: Key) -> None:
    """Raise `VendorError` 402 for an account without credit, 403 for a key whose limit or guardrail budget is spent."""
    if state.credits_left() <= 0:
        raise VendorError(402)
    if state.remaining(key) == 0:
        raise errors.key_limit_exceeded(key.limit_reset)
    guardrail = state.guardrail_of(key.hash)
    if guardrail is not None and guardrail.settings.get("limit_usd") is not None:
        window = guardrail.settings.get("reset_interval")
        spent = state.spend_of(key.hash).window(window, state.clock())
        if spent >= nano(str(guardrail.settings["limit_usd"])):
            raise VendorError(403, f"Guardrail budget exceeded ({window or 'total'} limit).")


def check_text(state: State, key: Key, ask: Ask) -> None:
    """Raise `VendorError` 403 for a prompt that a content filter of the key's guardrail blocks."""
    guardrail = state.guardrail_of(key.hash)
    filters = None if guardrail is None else guardrail.settings.get("content_filters")
    for entry in filters or ():
        pattern = entry.get("pattern", "")
        if entry.get("action") == "block" and any(pattern in turn.text for turn in ask.turns):
            raise errors.guardrail_blocked([pattern])


def _start(
    platform: Platform,
    ask: Ask,
    key: Key,
    candidate: Candidate,
    generation_id: str,
    now: float,
    attempts: Sequence[dict[str, Any]],
) -> Accepted:
    state, endpoint, model = platform.state, candidate.endpoint, candidate.model
    per_image = endpoint.pricing.image is not None
    prompt = ask.prompt_tokens(image_tokens=not per_image)
    if model.is_free:
        _count_free(state, now)
    most = 0 if ask.embeds else _longest(ask, model, endpoint, prompt)
    images = ask.images if per_image else 0
    rate = endpoint.rates or billing.rates(endpoint.pricing, prompt, now)
    held = _afford(state, key, rate, prompt, most * ask.n, images)
    cached, written = _cache(state, ask, key, candidate, prompt, now)
    drafts = () if ask.embeds else tuple(draft(ask, model, most, choice) for choice in range(ask.n))
    counts = Counts(
        prompt=prompt,
        completion=sum(made.completion_tokens for made in drafts),
        cached=cached,
        written=written,
        reasoning=sum(made.reasoning_tokens for made in drafts),
        images=images,
    )
    state.hold(Open(generation_id, key.hash, model.id, now, ask.stream, held))
    return Accepted(
        id=generation_id,
        created=now,
        ask=ask,
        key=key,
        candidate=candidate,
        drafts=drafts,
        rates=rate,
        counts=counts,
        bill=billing.bill(rate, counts),
        attempts=tuple(attempts),
    )


def _longest(ask: Ask, model: Model, endpoint: Endpoint, prompt: int) -> int:
    """How many tokens the answer may have. Raises `VendorError` 400 when prompt and answer do not fit the context."""
    context = model.entry.context_length
    wanted = prompt + (ask.max_tokens or 0)
    if wanted > context or prompt >= context:
        text = f"This endpoint's maximum context length is {context} tokens. You requested about {wanted} tokens."
        raise VendorError(400, text, error_type="context_length_exceeded", upstream=True)
    longest = endpoint.max_completion_tokens
    return min(ask.max_tokens or longest, longest, context - prompt)


def _afford(state: State, key: Key, rate: Rates, prompt: int, most: int, images: int) -> int:
    """Nano-dollars to hold for the longest answer. Raises `VendorError` 402 when what is left does not pay for it."""
    dearest = max(rate.completion, rate.reasoning)
    fixed = nano(prompt * max(rate.prompt, rate.cache_write) + images * rate.image + rate.request)
    worst = fixed + nano(most * dearest)
    left = state.credits_left() - state.account.held_total
    of_key = state.remaining(key)
    if of_key is not None:
        left = min(left, of_key - state.account.held[key.hash])
    if worst > left:
        spare = max(left - fixed, 0)
        raise errors.cannot_afford(most, int(spare // (dearest * 1_000_000_000)) if dearest else 0)
    return worst


def _cache(state: State, ask: Ask, key: Key, candidate: Candidate, prompt: int, now: float) -> tuple[int, int]:
    """Tokens read from and written to the provider's prompt cache; nothing where no price speaks of one."""
    pricing = candidate.endpoint.pricing
    if pricing.input_cache_read is None or prompt < 1024:
        return 0, 0
    # Anthropic caches only what a request marks; writing costs there and is free elsewhere.
    explicit = pricing.input_cache_write is not None
    scope = f"{key.hash}:{candidate.model.id}:{candidate.endpoint.tag}:{ask.session_id or ''}"
    read, written = state.cache.use(scope, ask.prompt_bytes(), now, write=ask.cache_write or not explicit)
    read = min(read, prompt)
    return read, min(written, prompt - read) if explicit else 0


def _count_free(state: State, now: float) -> None:
    limit = state.config.free_rpm
    minute = int(now // 60)
    known, used = state.account.minutes.get("free", (minute, 0))
    used = used + 1 if known == minute else 1
    if used > limit:
        reset = (minute + 1) * 60.0
        raise errors.platform_limited(limit, reset, math.ceil(reset - now))
    state.account.minutes["free"] = (minute, used)
