# SPDX-License-Identifier: GPL-3.0-or-later
"""What a generation costs: exact decimal arithmetic from token counts and the endpoint's prices.

Prices are USD per token, image or request, as strings in the catalogue (`GET /models`, PublicPricing). A cost is
quantised once, at the end, to 1e-9 USD, half to even, and is an integer of nano-dollars from there on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from sophia.money import nano

__all__ = ["FREE", "Bill", "Counts", "Override", "Pricing", "Rates", "bill", "rates"]

ZERO = Decimal(0)


class Override(msgspec.Struct, frozen=True, omit_defaults=True):
    """A conditional price (PricingOverride). Applies only when all of its conditions hold; later entries win per key.

    `min_prompt_tokens` is exceeded strictly; `utc_start` and `utc_end` are HHMM clock numbers of a half-open window
    that may wrap past midnight.
    """

    min_prompt_tokens: int | None = None
    utc_start: int | None = None
    utc_end: int | None = None
    prompt: str | None = None
    completion: str | None = None
    input_cache_read: str | None = None
    input_cache_write: str | None = None
    input_cache_write_1h: str | None = None

    def applies(self, prompt_tokens: int, now: float) -> bool:
        """Whether every condition of the entry holds. `now` is seconds since the epoch."""
        if self.min_prompt_tokens is not None and prompt_tokens <= self.min_prompt_tokens:
            return False
        if self.utc_start is None or self.utc_end is None:
            return True
        moment = datetime.fromtimestamp(now, tz=UTC)
        clock = moment.hour * 100 + moment.minute
        if self.utc_start <= self.utc_end:
            return self.utc_start <= clock < self.utc_end
        return clock >= self.utc_start or clock < self.utc_end


class Pricing(msgspec.Struct, frozen=True, omit_defaults=True):
    """PublicPricing: USD per unit as decimal strings."""

    prompt: str
    completion: str
    request: str | None = None
    image: str | None = None
    internal_reasoning: str | None = None
    input_cache_read: str | None = None
    input_cache_write: str | None = None
    input_cache_write_1h: str | None = None
    web_search: str | None = None
    overrides: tuple[Override, ...] | None = None


@dataclass(frozen=True, slots=True)
class Rates:
    """The prices in force for one request, USD per unit."""

    prompt: Decimal
    completion: Decimal
    cache_read: Decimal
    cache_write: Decimal
    reasoning: Decimal
    image: Decimal
    request: Decimal


@dataclass(frozen=True, slots=True)
class Counts:
    """What was used. `prompt` includes `cached` and `written`; `completion` includes `reasoning`."""

    prompt: int
    completion: int
    cached: int = 0
    written: int = 0
    reasoning: int = 0
    images: int = 0


@dataclass(frozen=True, slots=True)
class Bill:
    """A cost and its parts, in nano-dollars; each part is rounded on its own."""

    total: int
    prompt: int
    completion: int
    cache_discount: int


FREE = Bill(0, 0, 0, 0)


def rates(pricing: Pricing, prompt_tokens: int, now: float) -> Rates:
    """The prices that hold for a prompt of this length at this time."""
    chosen = {
        "prompt": pricing.prompt,
        "completion": pricing.completion,
        "input_cache_read": pricing.input_cache_read,
        "input_cache_write": pricing.input_cache_write,
    }
    for override in pricing.overrides or ():
        if override.applies(prompt_tokens, now):
            for name in chosen:
                chosen[name] = getattr(override, name) or chosen[name]
    prompt = Decimal(chosen["prompt"] or 0)
    completion = Decimal(chosen["completion"] or 0)
    return Rates(
        prompt=prompt,
        completion=completion,
        cache_read=_price(chosen["input_cache_read"], prompt),
        cache_write=_price(chosen["input_cache_write"], prompt),
        reasoning=_price(pricing.internal_reasoning, completion),
        image=_price(pricing.image, ZERO),
        request=_price(pricing.request, ZERO),
    )


def bill(rate: Rates, counts: Counts) -> Bill:
    """The cost of one generation."""
    fresh = counts.prompt - counts.cached - counts.written
    inputs = (
        fresh * rate.prompt
        + counts.cached * rate.cache_read
        + counts.written * rate.cache_write
        + counts.images * rate.image
    )
    outputs = (counts.completion - counts.reasoning) * rate.completion + counts.reasoning * rate.reasoning
    discount = counts.cached * (rate.prompt - rate.cache_read) + counts.written * (rate.prompt - rate.cache_write)
    return Bill(
        total=nano(inputs + outputs + rate.request),
        prompt=nano(inputs),
        completion=nano(outputs),
        cache_discount=nano(discount),
    )


def _price(text: str | None, otherwise: Decimal) -> Decimal:
    return otherwise if text is None else Decimal(text)
