# SPDX-License-Identifier: GPL-3.0-or-later
"""What a request can cost at most, what it will probably cost, and what a given use was billed.

OpenRouter prices a token as a decimal string in USD (``"0.00000006"``), often below a nano-dollar, so rates here are
integer femto-dollars (1e-15 USD) and only whole requests become nano-dollars, rounded up.

A bound is never below the bill, on these assumptions (OpenRouter API reference, `PublicPricing`, `PricingOverride`):

- Tokens never outnumber UTF-8 bytes: byte-level BPE and byte-fallback tokenizers spend at least one byte on a token.
  What a chat template adds is covered by `MESSAGE_TOKENS`, `REQUEST_TOKENS` and `TOOLS_TOKENS`.
- An override applies when its conditions hold (`min_prompt_tokens` strictly exceeded, or a daily UTC window); later
  entries win key by key. The bound takes the dearest rate, key by key, over every override that could apply.
- Reasoning tokens are part of the completion tokens, billed at `internal_reasoning` where that is priced.
- A cached token is billed at `input_cache_read`. A cache write is billed at `input_cache_write`, or at that and the
  prompt price together where the base list has it below the prompt price (Google lists the storage surcharge alone).
- The listed price is that of one provider; `provider.max_price` in each request (see `plan.ProviderPrefs`) keeps
  OpenRouter from a dearer one, up to the model's `headroom` in per cent, which every bound includes.
- A positive `discount` is ignored, `service_tier` must be left at its default: neither may lower or raise a bound.

::

    PriceError         a price that is no decimal number, or none at all where a bound is asked for
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, Context, Decimal, InvalidOperation
from typing import Any

import msgspec

__all__ = [
    "FEMTO",
    "MESSAGE_TOKENS",
    "REQUEST_TOKENS",
    "TOOLS_TOKENS",
    "Load",
    "MaxPrice",
    "PriceError",
    "Priced",
    "Prices",
    "Rates",
    "Use",
    "bill",
    "bound",
    "expected",
    "listed_max_price",
    "output_for",
    "per_million",
    "prompt_bound",
    "prompt_estimate",
    "rate",
    "read_prices",
    "usd",
]

FEMTO = 10**15
_NANO_FEMTO = 10**6
_EXACT = Context(prec=60, rounding=ROUND_CEILING)

MESSAGE_TOKENS = 16
"""What a chat template adds to a message: role, separators, name (OpenAI counts 3 to 4, Llama 3 about 5)."""

REQUEST_TOKENS = 64
"""What a template adds once: start, reply header, a default system prompt (Llama 3.3's dates, Qwen's greeting)."""

TOOLS_TOKENS = 700
"""The system prompt that tools bring with them (Anthropic, "Tool use": 264 to 530 tokens with the choice of any)."""

SEARCH_RESULT = 4 * FEMTO // 1000
"""USD 4 per 1,000 results: the web plugin with Exa (OpenRouter, "Web Search", pricing)."""

SEARCH_RESULT_TOKENS = 4_000
"""Prompt tokens that one search result may add; `max_characters` is 2,000 by default for the dearest engine."""

PAGE = 2 * FEMTO // 1000
"""USD 2 per 1,000 pages: the file-parser plugin with mistral-ocr (OpenRouter, "PDF Inputs", pricing)."""

_IMAGE_OUTPUT_TOKEN = FEMTO // 1000
"""`image_output` is documented per image, yet listed per token for Google's models: below USD 0.001 it is a token's."""


class PriceError(ValueError):
    """A price that cannot be read, or a model without one where a bound is asked for."""


class Rates(msgspec.Struct, frozen=True):
    """Prices in femto-dollars per token or unit. None means: not priced apart from its parent."""

    prompt: int
    completion: int
    request: int = 0
    image: int = 0
    image_token: int | None = None
    image_output: int = 0
    audio: int | None = None
    audio_output: int | None = None
    input_audio_cache: int | None = None
    input_cache_read: int | None = None
    input_cache_write: int | None = None
    input_cache_write_1h: int | None = None
    internal_reasoning: int | None = None
    web_search: int = 0


_KEYS = Rates.__struct_fields__


class Override(msgspec.Struct, frozen=True):
    """Rates that replace the base where the conditions hold. `window` is [start, end) in UTC clock numbers, HHMM."""

    rates: tuple[tuple[str, int], ...]
    over: int = -1
    window: tuple[int, int] | None = None

    def applies(self, prompt_tokens: int, hhmm: int) -> bool:
        """Whether the override holds for a prompt of so many tokens at a UTC clock number."""
        if prompt_tokens <= self.over:
            return False
        if self.window is None:
            return True
        start, end = self.window
        return start <= hhmm < end if start <= end else hhmm >= start or hhmm < end


class Prices(msgspec.Struct, frozen=True):
    """A model's price list. `steps` are the dearest rates for prompts of more tokens than each step's first member."""

    base: Rates
    overrides: tuple[Override, ...] = ()
    steps: tuple[tuple[int, Rates], ...] = ()

    @property
    def surcharge(self) -> bool:
        """Whether `input_cache_write` comes on top of the prompt price."""
        return self.base.input_cache_write is not None and self.base.input_cache_write < self.base.prompt

    def at(self, prompt_tokens: int, hhmm: int = 0) -> Rates:
        """The rates that OpenRouter applies to a prompt of so many tokens at a UTC clock number (HHMM)."""
        changes: dict[str, int] = {}
        for override in self.overrides:
            if override.applies(prompt_tokens, hhmm):
                changes.update(override.rates)
        return msgspec.structs.replace(self.base, **changes) if changes else self.base

    def worst(self, prompt_tokens: int) -> Rates:
        """The dearest rates, key by key, for any prompt of at most so many tokens at any time of the day."""
        found = self.base
        for over, rates in self.steps:
            if prompt_tokens <= over:
                break
            found = rates
        return found


class MaxPrice(msgspec.Struct, frozen=True):
    """A ceiling in femto-dollars per token (prompt, completion), per request and per image. None is no ceiling."""

    prompt: int | None = None
    completion: int | None = None
    request: int | None = None
    image: int | None = None

    def body(self) -> dict[str, str]:
        """As OpenRouter's `provider.max_price` has it: USD per million tokens, per request, per image; exact."""
        found = {
            "prompt": per_million(self.prompt),
            "completion": per_million(self.completion),
            "request": usd(self.request),
            "image": usd(self.image),
        }
        return {key: value for key, value in found.items() if value is not None}

    def admits(self, rates: Rates) -> bool:
        """Whether the listed rates stay at or below the ceiling."""
        return (
            (self.prompt is None or rates.prompt <= self.prompt)
            and (self.completion is None or rates.completion <= self.completion)
            and (self.request is None or rates.request <= self.request)
            and (self.image is None or rates.image <= self.image)
        )


class Priced(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a model that a bound needs; `catalogue.Model` extends it.

    `prices` is None for router models (listed at ``"-1"``). `image_tokens` bounds the tokens of one image,
    `headroom` says by how many per cent a provider may be dearer than the listing.
    """

    prices: Prices | None
    context_length: int | None = None
    max_completion_tokens: int | None = None
    image_tokens: int = 16_384
    headroom: int = 0


class Load(msgspec.Struct, frozen=True):
    """What a request may use at most.

    `prompt_tokens` bounds the text (`prompt_bound`), `output_tokens` is what `max_tokens` upstream will be (None: up
    to the context). `choices` is `n`. `rounds` counts how often server tools may send the prompt again, the first
    time included. `searches` and `results` (per search) are for the web plugin, `pages` for the file parser.
    """

    prompt_tokens: int
    output_tokens: int | None = None
    choices: int = 1
    images: int = 0
    audio_tokens: int = 0
    image_outputs: int = 0
    audio_output: bool = False
    searches: int = 0
    results: int = 5
    pages: int = 0
    rounds: int = 1
    hour_cache: bool = False


class Use(msgspec.Struct, frozen=True):
    """What a request has used. Cached, written, image and audio tokens are parts of `prompt`, reasoning and audio
    output of `completion`."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    written: int = 0
    written_1h: int = 0
    image_tokens: int = 0
    audio: int = 0
    reasoning: int = 0
    audio_output: int = 0
    images: int = 0
    searches: int = 0
    results: int = 0
    pages: int = 0


def rate(text: Any) -> int:
    """A listed price in femto-dollars, rounded up; accepts the decimal strings of the API and plain numbers.

    Raises:
        PriceError: not a finite number, or below zero.
    """
    try:
        value = Decimal(str(text))
        if not value.is_finite() or value < 0 or value >= 10**6:
            raise PriceError(f"{text!r} is no price")
        return int(_EXACT.multiply(value, Decimal(FEMTO)).to_integral_value(rounding=ROUND_CEILING))
    except InvalidOperation as error:
        raise PriceError(f"{text!r} is no price") from error


def per_million(femto: int | None) -> str | None:
    """Femto-dollars per token as USD per million tokens, exact."""
    return None if femto is None else _plain(Decimal(femto).scaleb(-9))


def usd(femto: int | None) -> str | None:
    """Femto-dollars as USD, exact."""
    return None if femto is None else _plain(Decimal(femto).scaleb(-15))


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def listed_max_price(model: Priced) -> MaxPrice | None:
    """The ceiling that makes OpenRouter serve at the listed price, with the model's headroom, or not at all.

    None for a router model. A request's or a picture's own price is named only where the listing has one: many
    providers leave these out.
    """
    if model.prices is None:
        return None
    base, scale = model.prices.base, 100 + model.headroom

    def raised(femto: int) -> int:
        return femto * scale // 100

    return MaxPrice(
        raised(base.prompt), raised(base.completion), raised(base.request) or None, raised(base.image) or None
    )


def read_prices(pricing: Mapping[str, Any]) -> Prices | None:
    """Read the `pricing` object of a model; None for a router model, listed at "-1".

    Raises:
        PriceError: prompt or completion is missing, or any price that we know cannot be read.
    """
    values: dict[str, int] = {}
    for key in _KEYS:
        value = pricing.get(key)
        if value is None:
            continue
        if str(value).strip() in ("-1", "-1.0"):
            return None
        try:
            values[key] = rate(value)
        except PriceError as error:
            raise PriceError(f"pricing.{key}: {error}") from error
    if "prompt" not in values:
        raise PriceError("pricing.prompt: missing")
    values.setdefault("completion", 0)
    base = Rates(**values)
    overrides = tuple(_read_override(entry) for entry in pricing.get("overrides") or ())
    return Prices(base, overrides, _steps(base, overrides))


def _read_override(entry: Any) -> Override:
    if not isinstance(entry, Mapping):
        raise PriceError("pricing.overrides: an entry is no object")
    try:
        rates = tuple((key, rate(entry[key])) for key in _KEYS if entry.get(key) is not None)
        over = -1 if entry.get("min_prompt_tokens") is None else int(entry["min_prompt_tokens"])
        start, end = entry.get("utc_start"), entry.get("utc_end")
        window = None if start is None and end is None else (int(start or 0), int(2400 if end is None else end))
    except (TypeError, ValueError, OverflowError) as error:
        raise PriceError(f"pricing.overrides: {error}") from error
    return Override(rates, over, window)


def _steps(base: Rates, overrides: tuple[Override, ...]) -> tuple[tuple[int, Rates], ...]:
    steps = []
    for over in sorted({override.over for override in overrides}):
        dearest = {key: getattr(base, key) for key in _KEYS}
        for override in overrides:
            if override.over <= over:
                for key, value in override.rates:
                    dearest[key] = max(dearest[key] or 0, value)
        steps.append((over, Rates(**dearest)))
    return tuple(steps)


def prompt_bound(text_bytes: int, messages: int, tool_bytes: int = 0) -> int:
    """The most prompt tokens that so many bytes of text (UTF-8) in so many messages can become.

    `tool_bytes` are the JSON bytes of tools and response schema. Images, audio and files are not text: count them in
    `Load`, and leave their base64 out of `text_bytes`.
    """
    return text_bytes + messages * MESSAGE_TOKENS + REQUEST_TOKENS + (tool_bytes + TOOLS_TOKENS if tool_bytes else 0)


def prompt_estimate(text_bytes: int, messages: int, tool_bytes: int = 0) -> int:
    """The prompt tokens to expect: four bytes a token, which holds within a third for English, most scripts, code."""
    return (text_bytes + tool_bytes) // 4 + messages * 4 + (TOOLS_TOKENS // 2 if tool_bytes else 0)


def bound(model: Priced, load: Load, max_price: MaxPrice | None = None) -> int:
    """The most that OpenRouter can bill for the load, in nano-dollars. `max_price` prices a router model.

    Raises:
        PriceError: a router model without a full `max_price`, or an unlimited output without a known context.
    """
    fixed, each = _femto(model, load, max_price)
    return -(-(fixed + each * _output(model, load)) // _NANO_FEMTO)


def output_for(model: Priced, load: Load, budget: int, max_price: MaxPrice | None = None) -> int:
    """The largest `max_tokens` whose bound stays within `budget` nano-dollars; 0 where not even the prompt fits.

    Never more than `load.output_tokens`, the model's `max_completion_tokens` and its context.

    Raises:
        PriceError: as `bound`, or a free model whose output nothing limits.
    """
    fixed, each = _femto(model, load, max_price)
    left = budget * _NANO_FEMTO - fixed
    if left < 0:
        return 0
    known = (load.output_tokens, model.max_completion_tokens, model.context_length)
    limits = [limit for limit in known if limit is not None]
    if each:
        limits.append(left // each)
    if not limits:
        raise PriceError("nothing limits the output: give max_tokens")
    return min(limits)


def expected(model: Priced, prompt_tokens: int, output_tokens: int, cached: int = 0, images: int = 0) -> int:
    """What a request will probably cost, in nano-dollars, rounded up: list price, no headroom. For ranking.

    Raises:
        PriceError: a router model: what it will cost is not known.
    """
    if model.prices is None:
        raise PriceError("a router model has no price of its own")
    use = Use(prompt=prompt_tokens, completion=output_tokens, cached=min(cached, prompt_tokens), images=images)
    return -(-bill(model.prices, use) // _NANO_FEMTO)


def bill(prices: Prices, use: Use, hhmm: int = 0) -> int:
    """What OpenRouter bills for a use at a UTC clock number (HHMM), in femto-dollars."""
    rates = prices.at(use.prompt, hhmm)
    plain = use.prompt - use.cached - use.written - use.written_1h - use.image_tokens - use.audio
    spoken = use.completion - use.reasoning - use.audio_output
    return (
        plain * rates.prompt
        + use.cached * _or(rates.input_cache_read, rates.prompt)
        + use.written * _write(prices, rates, hour=False)
        + use.written_1h * _write(prices, rates, hour=True)
        + use.image_tokens * _or(rates.image_token, rates.prompt)
        + use.audio * _or(rates.audio, rates.prompt)
        + spoken * rates.completion
        + use.reasoning * (rates.internal_reasoning or rates.completion)
        + use.audio_output * _or(rates.audio_output, rates.completion)
        + use.images * rates.image
        + use.searches * rates.web_search
        + use.results * SEARCH_RESULT
        + use.pages * PAGE
        + rates.request
    )


def _or(value: int | None, parent: int) -> int:
    return parent if value is None else value


def _write(prices: Prices, rates: Rates, *, hour: bool) -> int:
    price = rates.input_cache_write_1h if hour else None
    if price is None:
        price = rates.input_cache_write
    if price is None:
        return rates.prompt
    return rates.prompt + price if prices.surcharge else price


def _output(model: Priced, load: Load) -> int:
    if load.output_tokens is None:
        if model.context_length is None:
            raise PriceError("nothing limits the output: give max_tokens")
        return model.context_length
    return load.output_tokens if model.context_length is None else min(load.output_tokens, model.context_length)


def _femto(model: Priced, load: Load, max_price: MaxPrice | None) -> tuple[int, int]:
    """The bound without output, and the bound of one output token of every choice, headroom included."""
    text = load.prompt_tokens + load.searches * load.results * SEARCH_RESULT_TOKENS
    images = load.images * model.image_tokens
    prices = model.prices or _ceiling(max_price)
    rates = prices.worst(text + images + load.audio_tokens)
    token = max(rates.prompt, _or(rates.input_cache_read, 0), _write(prices, rates, hour=False))
    if load.hour_cache:
        token = max(token, _write(prices, rates, hour=True))
    parts = (
        (max(token, _or(rates.audio, 0), _or(rates.input_audio_cache, 0)), load.audio_tokens),
        (max(token, _or(rates.image_token, 0)), images),
        (token, text),
    )
    output = max(rates.completion, _or(rates.internal_reasoning, 0))
    if load.audio_output:
        output = max(output, _or(rates.audio_output, 0))
    drawn = load.image_outputs * rates.image_output
    if load.image_outputs and rates.image_output < _IMAGE_OUTPUT_TOKEN:
        output, drawn = max(output, rates.image_output), 0
    fixed = (
        rates.request
        + _fill(parts, model.context_length)
        + load.images * rates.image
        + drawn * load.choices
        + load.searches * (rates.web_search + load.results * SEARCH_RESULT)
        + load.pages * PAGE
    )
    scale = load.rounds * (100 + model.headroom)
    return -(-fixed * scale // 100), -(-output * load.choices * scale // 100)


def _ceiling(max_price: MaxPrice | None) -> Prices:
    if max_price is None or max_price.prompt is None or max_price.completion is None:
        raise PriceError("a router model needs provider.max_price with prompt and completion, or its cost has no bound")
    # A cache write costs up to two prompt prices (Anthropic's 1-hour write); max_price says nothing of it.
    write = 2 * max_price.prompt
    return Prices(
        Rates(
            max_price.prompt,
            max_price.completion,
            max_price.request or 0,
            max_price.image or 0,
            input_cache_write=write,
            input_cache_write_1h=write,
        )
    )


def _fill(parts: tuple[tuple[int, int], ...], context: int | None) -> int:
    """The cost of the tokens, of which no more than the context are billed: the dearest ones first."""
    left = sum(count for _, count in parts)
    left = left if context is None else min(left, context)
    total = 0
    for price, count in sorted(parts, reverse=True):
        taken = min(count, left)
        total += price * taken
        left -= taken
    return total
