# SPDX-License-Identifier: GPL-3.0-or-later
"""Money: the arithmetic as properties, and what requests are really billed."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.sandbox.openrouter import billing, catalogue, tokens
from sophia.sandbox.openrouter.ask import Ask, Turn
from sophia.sandbox.openrouter.billing import Counts, Override, Pricing

from .conftest import Account, unhurried

CATALOGUE = catalogue.load()
PRICED = [
    (model, endpoint) for model in CATALOGUE.models.values() for endpoint in model.endpoints if not model.is_embedding
]
NOON = 1_790_000_000.0

prices = st.decimals(0, "0.001", places=12).map(lambda value: f"{value:f}")
pricings = st.builds(
    Pricing,
    prompt=prices,
    completion=prices,
    request=st.none() | prices,
    image=st.none() | prices,
    internal_reasoning=st.none() | prices,
    input_cache_read=st.none() | prices,
    input_cache_write=st.none() | prices,
)


@st.composite
def counted(draw: st.DrawFn) -> Counts:
    prompt, completion = draw(st.integers(0, 2_000_000)), draw(st.integers(0, 200_000))
    cached = draw(st.integers(0, prompt))
    written = draw(st.integers(0, prompt - cached))
    return Counts(prompt, completion, cached, written, draw(st.integers(0, completion)), draw(st.integers(0, 9)))


@unhurried
@given(pricings, counted())
def test_a_bill_is_the_exact_sum_rounded_once(pricing: Pricing, counts: Counts) -> None:
    def price(text: str | None, otherwise: str = "0") -> Fraction:
        return Fraction(otherwise if text is None else text)

    exact = (
        (counts.prompt - counts.cached - counts.written) * price(pricing.prompt)
        + counts.cached * price(pricing.input_cache_read, pricing.prompt)
        + counts.written * price(pricing.input_cache_write, pricing.prompt)
        + (counts.completion - counts.reasoning) * price(pricing.completion)
        + counts.reasoning * price(pricing.internal_reasoning, pricing.completion)
        + counts.images * price(pricing.image)
        + price(pricing.request)
    ) * 1_000_000_000
    made = billing.bill(billing.rates(pricing, counts.prompt, NOON), counts)
    assert made.total == round(exact)  # Fraction rounds half to even


@unhurried
@given(pricings, counted(), st.integers(0, 10_000))
def test_more_tokens_never_cost_less(pricing: Pricing, counts: Counts, more: int) -> None:
    rate = billing.rates(pricing, counts.prompt, NOON)
    longer = Counts(
        counts.prompt + more, counts.completion + more, counts.cached, counts.written, counts.reasoning, counts.images
    )
    assert billing.bill(rate, longer).total >= billing.bill(rate, counts).total >= 0


@unhurried
@given(st.integers(0, 400_000))
def test_tiers_begin_above_their_threshold(prompt: int) -> None:
    pricing = CATALOGUE.models["qwen/qwen3-coder"].entry.pricing
    rate = billing.rates(pricing, prompt, NOON)
    expected = "0.00000075" if prompt > 128_000 else "0.00000045" if prompt > 32_000 else "0.00000022"
    assert rate.prompt == Decimal(expected)


def test_later_overrides_win_per_price_and_clock_windows_wrap() -> None:
    night = Override(utc_start=2200, utc_end=600, prompt="0.000001")
    long = Override(min_prompt_tokens=10, completion="0.000009")
    pricing = Pricing(prompt="0.000002", completion="0.000003", overrides=(night, long))
    midnight = 1_790_035_200.0 - 1_790_035_200.0 % 86_400
    for hour, dark in ((23, True), (5, True), (6, False), (12, False), (21, False), (22, True)):
        rate = billing.rates(pricing, 11, midnight + hour * 3600)
        assert rate.prompt == Decimal("0.000001" if dark else "0.000002")
        assert rate.completion == Decimal("0.000009")


@unhurried
@given(st.text(), st.integers(0, 60))
def test_tokens_are_bounded_and_cut_exactly(text: str, most: int) -> None:
    count = tokens.count(text)
    assert count <= len(text.encode())
    head = tokens.cut(text, most)
    assert text.startswith(head)
    assert tokens.count(head) <= most
    assert head == text or tokens.size(text[: len(head) + 1]) > most * tokens.TOKEN_BYTES
    assert "".join(tokens.pieces(text)) == text


@unhurried
@given(st.lists(st.builds(Turn, st.just("user"), st.text(), st.lists(st.text(min_size=1)).map(tuple)), min_size=1))
def test_a_prompt_never_has_more_tokens_than_bytes_and_sixteen_a_message(turns: list[Turn]) -> None:
    size = sum(tokens.size(turn.text) + sum(map(tokens.size, turn.images)) for turn in turns)
    assert Ask(models=["m"], turns=turns).prompt_tokens(image_tokens=True) <= size + 16 * len(turns)


@pytest.mark.parametrize("stream", [False, True])
async def test_each_model_is_billed_by_its_own_prices(account: Account, *, stream: bool) -> None:
    for model, _ in PRICED:
        if model.entry.expiration_date is not None:
            continue
        answer = await account.chat(model=model.id, stream=stream, max_tokens=2000)
        assert answer.status_code == 200, answer.text
        generation = (await account.truth())["generations"][-1]
        pricing = model.endpoints[0].pricing
        plain = generation["completion_tokens"] - generation["reasoning_tokens"]
        expected = (
            generation["prompt_tokens"] * Decimal(pricing.prompt)
            + plain * Decimal(pricing.completion)
            + generation["reasoning_tokens"] * Decimal(pricing.internal_reasoning or pricing.completion)
            + Decimal(pricing.request or 0)
        )
        assert abs(Decimal(generation["cost"]) - expected) <= Decimal("5e-10")
        assert Decimal(generation["cost"]) == Decimal(generation["cost_nano"]).scaleb(-9)


async def test_images_and_requests_have_prices(account: Account) -> None:
    def question(images: int) -> list[dict[str, Any]]:
        picture = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
        return [{"role": "user", "content": [{"type": "text", "text": "What is 2 + 2?"}] + [picture] * images}]

    model = "google/gemini-2.5-flash-image"
    answers = [await account.chat(model=model, messages=question(images), max_tokens=1) for images in (0, 1, 3)]
    usages = [answer.json()["usage"] for answer in answers]
    costs = [generation["cost_nano"] for generation in (await account.truth())["generations"]]
    assert [usage["prompt_tokens"] for usage in usages] == [usages[0]["prompt_tokens"]] * 3
    assert costs[1] - costs[0] == 1_238_000
    assert costs[2] - costs[0] == 3 * 1_238_000
    assert costs[0] == usages[0]["prompt_tokens"] * 300 + 2500 + 500_000


async def test_implicit_cache_reads_are_cheaper_and_stay_with_key_and_session(account: Account) -> None:
    long = [{"role": "user", "content": "Tell me about sharding. " + "Context matters here. " * 400}]
    model = "openai/gpt-4o"
    first = (await account.chat(model=model, messages=long)).json()["usage"]
    second = (await account.chat(model=model, messages=long)).json()["usage"]
    elsewhere = (await account.chat(model=model, messages=long, session_id="s")).json()["usage"]
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    cached = second["prompt_tokens_details"]["cached_tokens"]
    assert cached % 128 == 0
    assert 1024 <= cached <= second["prompt_tokens"]
    assert elsewhere["prompt_tokens_details"]["cached_tokens"] == 0
    assert Decimal(str(first["cost"])) - Decimal(str(second["cost"])) == cached * Decimal("0.00000125")
    account.clock.now += 301
    late = (await account.chat(model=model, messages=long)).json()["usage"]
    assert late["prompt_tokens_details"]["cached_tokens"] == 0


async def test_totals_are_the_sum_of_the_generations_and_of_the_keys(account: Account) -> None:
    other = "sk-or-v1-" + "ab" * 32
    await account.seed(key=other)
    async with account.with_key(other) as second:
        for _ in range(3):
            await account.chat()
            await second.post(
                "/chat/completions", json={"model": "openai/gpt-5", "messages": [{"role": "user", "content": "hi"}]}
            )
            await second.post("/embeddings", json={"model": "openai/text-embedding-3-small", "input": "some text"})
    truth = await account.truth()
    costs = [generation["cost_nano"] for generation in truth["generations"]]
    assert len(costs) == 9
    assert truth["totals"]["cost_nano"] == sum(costs) == sum(key["cost_nano"] for key in truth["keys"].values())
    shown = (await account.manager.get("/keys")).json()["data"]
    assert {key["hash"]: round(key["usage"] * 1e9) for key in shown} == {
        key_hash: key["cost_nano"] for key_hash, key in truth["keys"].items()
    }
    credit = (await account.manager.get("/credits")).json()["data"]
    assert round(credit["total_usage"] * 1e9) == truth["totals"]["cost_nano"]
