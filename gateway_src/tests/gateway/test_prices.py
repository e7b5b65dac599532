# SPDX-License-Identifier: GPL-3.0-or-later
"""A bound is never below the bill; what a budget affords is neither too much nor too little."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sophia.gateway.prices import (
    FEMTO,
    SEARCH_RESULT_TOKENS,
    Load,
    MaxPrice,
    Priced,
    PriceError,
    Prices,
    Use,
    bill,
    bound,
    expected,
    listed_max_price,
    output_for,
    prompt_bound,
    prompt_estimate,
    rate,
    read_prices,
)

NANO_FEMTO = 10**6


def prices(**values: object) -> Prices:
    found = read_prices(values)
    assert found is not None
    return found


def decimals(top: int = 30_000) -> st.SearchStrategy[str]:
    """Prices per token from nothing to USD 30 per million, with up to 12 fractional digits."""
    return st.integers(0, top).map(lambda value: f"{Decimal(value).scaleb(-9):f}")


KEYS = (
    "prompt",
    "completion",
    "input_cache_read",
    "input_cache_write",
    "input_cache_write_1h",
    "internal_reasoning",
    "image_token",
    "audio",
    "audio_output",
)


@st.composite
def price_lists(draw: st.DrawFn) -> Prices:
    pricing: dict[str, object] = {"prompt": draw(decimals()), "completion": draw(decimals())}
    for key in KEYS[2:]:
        if draw(st.booleans()):
            pricing[key] = draw(decimals())
    pricing["request"] = draw(st.sampled_from(["0", "0.005"]))
    pricing["image"] = draw(st.sampled_from(["0", "0.0048"]))
    pricing["web_search"] = draw(st.sampled_from(["0", "0.01"]))
    overrides: list[dict[str, object]] = []
    for _ in range(draw(st.integers(0, 3))):
        override: dict[str, object] = {key: draw(decimals()) for key in draw(st.sets(st.sampled_from(KEYS)))}
        if draw(st.booleans()):
            override["min_prompt_tokens"] = draw(st.integers(0, 4000))
        if draw(st.booleans()):
            override |= {"utc_start": draw(st.integers(0, 23)) * 100, "utc_end": draw(st.integers(0, 23)) * 100}
        overrides.append(override)
    if overrides:
        pricing["overrides"] = overrides
    return prices(**pricing)


def parts(draw: st.DrawFn, total: int, count: int) -> list[int]:
    """Split a total into so many parts and a rest."""
    found = []
    for _ in range(count):
        part = draw(st.integers(0, total))
        found.append(part)
        total -= part
    return found


@st.composite
def requests(draw: st.DrawFn) -> tuple[Priced, Load, Use, int]:
    """A model, what a request may use, a use within that, and the clock."""
    context = draw(st.one_of(st.none(), st.integers(1, 6000)))
    model = Priced(
        prices=draw(price_lists()),
        context_length=context,
        image_tokens=draw(st.integers(1, 300)),
        headroom=draw(st.sampled_from([0, 25, 50])),
    )
    load = Load(
        prompt_tokens=draw(st.integers(0, 5000)),
        output_tokens=draw(st.integers(0, 5000)),
        choices=draw(st.integers(1, 4)),
        images=draw(st.integers(0, 4)),
        audio_tokens=draw(st.integers(0, 500)),
        audio_output=draw(st.booleans()),
        searches=draw(st.integers(0, 2)),
        results=draw(st.integers(0, 5)),
        pages=draw(st.integers(0, 3)),
        hour_cache=draw(st.booleans()),
    )
    image_tokens = draw(st.integers(0, load.images * model.image_tokens))
    audio = draw(st.integers(0, load.audio_tokens))
    text = draw(st.integers(0, load.prompt_tokens + load.searches * load.results * SEARCH_RESULT_TOKENS))
    if context is not None:
        image_tokens = min(image_tokens, context)
        audio = min(audio, context - image_tokens)
        text = min(text, context - image_tokens - audio)
    cached, written, hour = parts(draw, text, 3)
    if not load.hour_cache:
        hour = 0
    most = (load.output_tokens or 0) if context is None else min(load.output_tokens or 0, context)
    completion = draw(st.integers(0, most * load.choices))
    reasoning, spoken = parts(draw, completion, 2)
    use = Use(
        prompt=text + image_tokens + audio,
        completion=completion,
        cached=cached,
        written=written,
        written_1h=hour,
        image_tokens=image_tokens,
        audio=audio,
        reasoning=reasoning,
        audio_output=spoken if load.audio_output else 0,
        images=draw(st.integers(0, load.images)),
        searches=draw(st.integers(0, load.searches)),
        results=draw(st.integers(0, load.searches * load.results)),
        pages=draw(st.integers(0, load.pages)),
    )
    return model, load, use, draw(st.integers(0, 23)) * 100 + draw(st.integers(0, 59))


@given(requests())
@settings(max_examples=250, deadline=None)
def test_no_use_within_the_load_is_billed_above_the_bound(case: tuple[Priced, Load, Use, int]) -> None:
    model, load, use, hhmm = case
    assert model.prices is not None
    billed = bill(model.prices, use, hhmm)
    # A provider dearer than the listing by the headroom is let in by max_price, so the bound must cover it.
    assert billed * (100 + model.headroom) <= bound(model, load) * NANO_FEMTO * 100


@given(requests(), st.integers(0, 10**9))
@settings(max_examples=100, deadline=None)
def test_what_a_budget_affords_fits_and_one_token_more_does_not(
    case: tuple[Priced, Load, Use, int], budget: int
) -> None:
    model, load, _, _ = case
    tokens = output_for(model, load, budget)

    def costs(output: int) -> int:
        return bound(model, Load(**{**{f: getattr(load, f) for f in load.__struct_fields__}, "output_tokens": output}))

    limit = min(load.output_tokens or 10**9, model.context_length or 10**9)
    if tokens:
        assert costs(tokens) <= budget
    if tokens < limit and load.output_tokens:
        assert costs(tokens + 1) > budget


@given(price_lists(), st.integers(0, 5000), st.integers(0, 2359))
@settings(max_examples=100, deadline=None)
def test_the_worst_rates_are_never_below_those_that_apply(listed: Prices, tokens: int, hhmm: int) -> None:
    worst, actual = listed.worst(tokens), listed.at(tokens, hhmm)
    for key in worst.__struct_fields__:
        assert (getattr(worst, key) or 0) >= (getattr(actual, key) or 0)


def test_a_tier_bills_the_whole_prompt_and_only_above_its_threshold() -> None:
    listed = prices(
        prompt="0.00000125",
        completion="0.00001",
        overrides=[{"min_prompt_tokens": 200_000, "prompt": "0.0000025", "completion": "0.000015"}],
    )
    at = bill(listed, Use(prompt=200_000, completion=1000))
    above = bill(listed, Use(prompt=200_001, completion=1000))
    assert Decimal(at) / FEMTO == Decimal("0.26")
    assert Decimal(above) / FEMTO == Decimal("0.5150025")
    model = Priced(prices=listed)
    assert bound(model, Load(200_000, 1000)) == 260_000_000
    assert bound(model, Load(200_001, 1000)) == 515_002_500


def test_prices_below_a_nano_dollar_are_exact() -> None:
    listed = prices(prompt="0.0000000000123", completion="0")
    assert bill(listed, Use(prompt=1_000_000)) == 12_300 * 1_000_000
    assert bound(Priced(prices=listed), Load(1, 0)) == 1
    assert bound(Priced(prices=listed), Load(1_000_000, 0)) == 12_300


def test_a_cache_write_is_a_price_of_its_own_or_a_surcharge() -> None:
    anthropic = prices(prompt="0.000003", completion="0", input_cache_write="0.00000375")
    google = prices(prompt="0.00000125", completion="0", input_cache_write="0.000000375")
    assert Decimal(bill(anthropic, Use(prompt=1000, written=1000))) / FEMTO == Decimal("0.00375")
    assert Decimal(bill(google, Use(prompt=1000, written=1000))) / FEMTO == Decimal("0.001625")


def test_choices_multiply_the_output_only() -> None:
    model = Priced(prices=prices(prompt="0.000001", completion="0.000002"))
    assert bound(model, Load(1000, 100, choices=3)) == 1_000_000 + 3 * 200_000


def test_rounds_of_server_tools_multiply_everything() -> None:
    model = Priced(prices=prices(prompt="0.000001", completion="0.000002", request="0.001"))
    assert bound(model, Load(1000, 100, rounds=4)) == 4 * bound(model, Load(1000, 100))


def test_a_drawn_picture_is_billed_by_the_picture_or_by_the_token() -> None:
    each = Priced(prices=prices(prompt="0", completion="0.000001", image_output="0.04"))
    token = Priced(prices=prices(prompt="0", completion="0.0000025", image_output="0.00003"))
    assert bound(each, Load(0, 0, image_outputs=2)) == 80_000_000
    assert bound(token, Load(0, 1000, image_outputs=2)) == 30_000_000


def test_no_more_than_the_context_is_billed() -> None:
    model = Priced(prices=prices(prompt="0.000001", completion="0.000001"), context_length=100)
    assert bound(model, Load(10_000, None)) == 100_000 + 100_000


def test_a_full_context_may_hold_the_dearest_tokens_of_the_load() -> None:
    model = Priced(prices=prices(prompt="0.000001", completion="0", audio="0.00001"), context_length=100)
    assert bound(model, Load(100, 0, audio_tokens=60)) == 60 * 10_000 + 40 * 1_000


def test_a_router_model_is_bounded_by_max_price_only() -> None:
    router = Priced(prices=read_prices({"prompt": "-1", "completion": "-1"}), context_length=1000)
    assert router.prices is None
    with pytest.raises(PriceError, match="max_price"):
        bound(router, Load(10, 10))
    with pytest.raises(PriceError, match="max_price"):
        bound(router, Load(10, 10), MaxPrice(prompt=1))
    with pytest.raises(PriceError):
        expected(router, 10, 10)
    ceiling = MaxPrice(prompt=rate("0.000003"), completion=rate("0.000015"))
    # A cache write may cost twice the prompt price.
    assert bound(router, Load(100, 10), ceiling) == 100 * 6000 + 10 * 15_000


def test_an_output_that_nothing_limits_has_no_bound() -> None:
    free = Priced(prices=prices(prompt="0", completion="0"))
    with pytest.raises(PriceError, match="max_tokens"):
        bound(free, Load(10))
    with pytest.raises(PriceError, match="max_tokens"):
        output_for(free, Load(10), 1000)


def test_a_prompt_above_the_budget_affords_nothing() -> None:
    model = Priced(prices=prices(prompt="0.000001", completion="0.000001"), max_completion_tokens=50)
    assert output_for(model, Load(1000, None), 999_999) == 0
    assert output_for(model, Load(1000, None), 1_000_000) == 0
    assert output_for(model, Load(1000, None), 1_020_000) == 20
    assert output_for(model, Load(1000, None), 9_000_000) == 50
    assert output_for(model, Load(1000, 7), 9_000_000) == 7


@pytest.mark.parametrize("text", ["", "x", "-0.1", "NaN", "Infinity", None, True, [], "1e9"])
def test_what_is_no_price_is_refused(text: object) -> None:
    with pytest.raises(PriceError):
        rate(text)


@given(st.decimals(0, 1000, allow_nan=False, allow_infinity=False, places=24))
def test_a_rate_is_never_below_the_listed_price(value: Decimal) -> None:
    femto = rate(str(value))
    assert 0 <= Decimal(femto) - value * FEMTO < 1


@pytest.mark.parametrize(
    ("pricing", "problem"),
    [
        ({"completion": "1"}, "pricing.prompt: missing"),
        ({"prompt": "free"}, "pricing.prompt"),
        ({"prompt": "0", "overrides": ["x"]}, "overrides"),
        ({"prompt": "0", "overrides": [{"min_prompt_tokens": "many"}]}, "overrides"),
        ({"prompt": "0", "overrides": [{"prompt": "-3"}]}, "overrides"),
    ],
)
def test_an_unreadable_price_list_says_where(pricing: dict[str, object], problem: str) -> None:
    with pytest.raises(PriceError, match=problem):
        read_prices(pricing)


def test_a_time_window_may_pass_midnight() -> None:
    listed = prices(
        prompt="0.000002", completion="0", overrides=[{"prompt": "0.000001", "utc_start": 1630, "utc_end": 30}]
    )
    at = {hhmm: listed.at(1, hhmm).prompt for hhmm in (1629, 1630, 2359, 0, 29, 30)}
    assert at == {1629: 2 * 10**9, 1630: 10**9, 2359: 10**9, 0: 10**9, 29: 10**9, 30: 2 * 10**9}


def test_the_price_ceiling_for_openrouter_is_exact() -> None:
    model = Priced(prices=prices(prompt="0.0000001", completion="0.00000039", image="0.0048"), headroom=50)
    ceiling = listed_max_price(model)
    assert ceiling is not None
    assert ceiling.body() == {"prompt": "0.15", "completion": "0.585", "image": "0.0072"}


@given(st.text(max_size=200), st.integers(1, 5))
def test_bytes_outnumber_tokens(text: str, messages: int) -> None:
    size = len(text.encode())
    assert prompt_bound(size, messages) >= size + 16 * messages
    assert prompt_bound(size, messages, 100) > prompt_bound(size, messages) + 100
    assert prompt_estimate(size, messages) <= prompt_bound(size, messages)
