# SPDX-License-Identifier: GPL-3.0-or-later
"""The bounds hold against a biller that somebody else wrote: the OpenRouter stand-in, model by model."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sophia.errors import Forbidden
from sophia.gateway.catalogue import build
from sophia.gateway.flags import FlagSet
from sophia.gateway.health import Health
from sophia.gateway.judge import Task
from sophia.gateway.plan import Ask, plan
from sophia.gateway.prices import Load, bound, output_for
from sophia.gateway.rules import shipped_rules
from sophia.sandbox.openrouter.ask import MaxPrice
from sophia.sandbox.openrouter.billing import Counts, bill, rates
from sophia.sandbox.openrouter.catalogue import load
from sophia.sandbox.openrouter.routing import _dearer
from sophia.stores.model import Principal, Role

VENDOR = load()


def listing() -> bytes:
    """The stand-in's models as `GET /models` lists them, as far as prices and limits go."""
    data: list[dict[str, Any]] = []
    for model in VENDOR.models.values():
        entry = msgspec.to_builtins(model.entry)
        data.append(
            entry
            | {
                "architecture": {key: entry[key] for key in ("input_modalities", "output_modalities")},
                "top_provider": {"max_completion_tokens": entry["max_completion_tokens"]},
            }
        )
    return json.dumps({"data": data}).encode()


CATALOGUE = build(listing(), shipped_rules(), 0.0)
PRICED = [name for name, model in CATALOGUE.models.items() if model.prices is not None]


def test_every_model_of_the_shipped_rules_is_on_offer() -> None:
    assert CATALOGUE.warnings == ()
    assert CATALOGUE.skipped == ()


@given(st.data(), st.sampled_from(PRICED), st.integers(0, 400_000), st.integers(0, 70_000), st.integers(0, 86_399))
@settings(max_examples=300, deadline=None)
def test_no_provider_that_max_price_lets_in_bills_above_the_bound(
    data: st.DataObject, name: str, prompt: int, output: int, now: int
) -> None:
    model = CATALOGUE.models[name]
    images = data.draw(st.integers(0, 3))
    context = model.context_length or 0
    load_ = Load(prompt_tokens=prompt, output_tokens=output, images=images)
    for endpoint in VENDOR.models[name].endpoints:
        if _dearer(endpoint, MaxPrice(**model.max_price)):
            continue
        used = min(data.draw(st.integers(0, prompt)) + images * 85, context)
        completion = min(data.draw(st.integers(0, output)), context)
        cached = data.draw(st.integers(0, used))
        counts = Counts(
            prompt=used,
            completion=completion,
            cached=cached,
            written=data.draw(st.integers(0, used - cached)),
            reasoning=data.draw(st.integers(0, completion)),
            images=images,
        )
        assert bill(rates(endpoint.pricing, used, float(now)), counts).total <= bound(model, load_)


@given(st.sampled_from(PRICED), st.integers(1, 300_000), st.integers(0, 10**10))
@settings(max_examples=200, deadline=None)
def test_what_a_budget_affords_is_never_billed_above_it(name: str, prompt: int, budget: int) -> None:
    model = CATALOGUE.models[name]
    tokens = output_for(model, Load(prompt_tokens=prompt), budget)
    used = min(prompt, model.context_length or prompt)
    pricing = VENDOR.models[name].entry.pricing
    if tokens:
        assert bill(rates(pricing, used, 0.0), Counts(prompt=used, completion=tokens)).total <= budget


@pytest.mark.parametrize("zero_data_retention", [False, True])
@pytest.mark.parametrize("regions", [None, ("eu",), ("us",), ("eu", "us")])
@pytest.mark.parametrize("model", ["auto:fast", "auto:quality", "auto:code", "auto:balanced"])
def test_every_candidate_has_a_provider_left(
    model: str, zero_data_retention: bool, regions: tuple[str, ...] | None
) -> None:
    who = Principal(
        "k", "o", None, "u", Role.MEMBER, frozenset(), None, (), (), None, False, zero_data_retention, regions
    )
    try:
        found = plan(Ask(model, Task("code", 0.3), 500), who, CATALOGUE, FlagSet(), Health())
    except Forbidden:
        # The stand-in has no European provider that keeps no data.
        assert zero_data_retention
        assert regions == ("eu",)
        return
    for candidate in found.candidates:
        prefs = candidate.provider
        left = [
            endpoint
            for endpoint in VENDOR.models[candidate.model.id].endpoints
            if not _dearer(endpoint, MaxPrice(**prefs.max_price))
            and (endpoint.provider.zdr or not prefs.zdr)
            and (endpoint.provider.slug in prefs.only or not prefs.only)
        ]
        assert left, candidate.model.id
