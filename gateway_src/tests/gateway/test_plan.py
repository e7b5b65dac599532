# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan keeps policy for every candidate, says why, and is the same for the same input."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from listing import MODELS, body, entry

from sophia.errors import ApiError, BadRequest, Forbidden, NotFound, Unavailable
from sophia.gateway.catalogue import Catalogue, Model, build
from sophia.gateway.flags import FlagSet
from sophia.gateway.health import Condition, Health
from sophia.gateway.judge import KINDS, Task
from sophia.gateway.plan import Ask, Plan, ProviderPrefs, plan
from sophia.gateway.prices import MaxPrice, rate
from sophia.gateway.rules import matches, read_rules, shipped_rules
from sophia.stores.model import Flag, Principal, Role

CATALOGUE = build(body(), shipped_rules(), 0.0)
MILLION = 10**6


def principal(**changes: Any) -> Principal:
    fields: dict[str, Any] = {
        "key": "key_1",
        "organization": "org_1",
        "team": None,
        "user": "user_1",
        "role": Role.MEMBER,
        "scopes": frozenset(),
        "models": None,
        "accounts": (),
        "limits": (),
    }
    return Principal(**{**fields, **changes})


def flags(**values: tuple[str, ...]) -> FlagSet:
    return FlagSet({name: Flag(name, enabled=True, values=each) for name, each in values.items()})


def sick(*models: str, retry_after: float = 7.0) -> Health:
    return Health({model: Condition("open", 1.0, retry_after) for model in models})


def decide(
    model: str = "auto",
    kind: str = "chat",
    difficulty: float = 0.3,
    *,
    who: Principal | None = None,
    catalogue: Catalogue = CATALOGUE,
    on: FlagSet | None = None,
    health: Health | None = None,
    **ask: Any,
) -> Plan:
    wish = Ask(model, Task(kind, difficulty), **{"prompt_tokens": 500, "output_tokens": 300, **ask})
    return plan(wish, who or principal(), catalogue, on or FlagSet(), health or Health())


def ids(found: Plan) -> list[str]:
    return [candidate.model.id for candidate in found.candidates]


def per_million(usd: str) -> int:
    return rate(usd) // MILLION


def test_balanced_takes_the_cheapest_that_is_good_enough_and_says_so() -> None:
    easy, hard = decide("auto:balanced", "reasoning", 0.1), decide("auto:balanced", "reasoning", 0.8)
    assert easy.preference == hard.preference == "balanced"
    score = {each.id: each.quality[KINDS.index("reasoning")] for each in CATALOGUE.rated}
    assert score[ids(easy)[0]] >= 590
    assert score[ids(hard)[0]] >= 870
    cheaper = [each for each in CATALOGUE.rated if 500 * each.prompt + 300 * each.completion < cost(hard, 0)]
    assert all(each.quality[KINDS.index("reasoning")] < 870 for each in cheaper)
    assert hard.reason == (
        f"reasoning, difficulty 0.80: {ids(hard)[0]} is the cheapest above quality 0.87 for reasoning"
    )


def cost(found: Plan, place: int) -> int:
    prices = found.candidates[place].model.prices
    assert prices is not None
    return 500 * prices.base.prompt + 300 * prices.base.completion


def test_fast_takes_the_quickest_above_its_floor() -> None:
    found = decide("auto:fast", "chat", 0.5)
    rated = {each.id: each for each in CATALOGUE.rated}
    good = [each for each in CATALOGUE.rated if each.quality[0] >= 600]
    quickest = min(each.first_token + 300 * each.token for each in good)
    first = rated[ids(found)[0]]
    assert first.first_token + 300 * first.token == quickest
    assert "is the quickest above quality 0.60 for chat" in found.reason


def test_quality_takes_the_best_score_under_its_ceiling() -> None:
    found = decide("auto:quality", "maths")
    assert ids(found)[0] == "openai/gpt-5"
    assert found.reason.endswith("openai/gpt-5 has the best score for maths")


def test_code_gives_the_most_code_for_the_money_whatever_the_task() -> None:
    found = decide("auto:code", "chat", 0.62)
    rated = {each.id: each for each in CATALOGUE.rated}
    score = KINDS.index("code")
    assert all(rated[each].quality[score] >= 824 for each in ids(found))
    value = [
        rated[each].quality[score] / (500 * rated[each].prompt + 300 * rated[each].completion) for each in ids(found)
    ]
    assert value == sorted(value, reverse=True)
    assert "code quality for its price above quality 0.82 for code" in found.reason


def test_auto_takes_the_preference_that_the_file_names_for_the_task() -> None:
    assert decide("auto", "code").preference == "code"
    assert decide("auto", "writing").preference == "balanced"
    assert decide("", "writing").preference == "balanced"


def test_where_nobody_is_good_enough_the_nearest_serves_and_it_is_said() -> None:
    who = principal(models=("meta-llama/*",))
    found = decide("auto:balanced", "maths", 1.0, who=who)
    assert ids(found)[0] == "meta-llama/llama-3.3-70b-instruct"
    assert "no usable model reaches quality 0.95 for maths" in found.reason


def test_a_listed_preference_keeps_its_order() -> None:
    text = """
policy: {}
speeds: {fast: {first_token: 0.5, tokens_per_second: 100}}
preferences:
  fast: {choose: listed, models: [qwen/qwen3-coder, openai/gpt-5, "openai/*"]}
  quality: {choose: quality}
  code: {choose: value}
  balanced: {choose: cheapest}
auto: {default: balanced}
models:
  openai/gpt-4o: {quality: {default: 0.8}, speed: fast}
  openai/gpt-5: {quality: {default: 0.9}, speed: fast}
  qwen/qwen3-coder: {quality: {default: 0.1}, speed: fast}
  google/gemini-2.5-pro: {quality: {default: 1.0}, speed: fast}
"""
    catalogue = build(body(), read_rules(text, "x"), 0.0)
    assert ids(decide("auto:fast", catalogue=catalogue)) == ["qwen/qwen3-coder", "openai/gpt-5", "openai/gpt-4o"]
    with pytest.raises(Forbidden, match="of the preference"):
        decide("auto:fast", catalogue=catalogue, who=principal(models=("google/*",)))


def test_a_deadline_moves_the_late_ones_behind() -> None:
    slow = decide("auto:balanced", "maths", 0.8)
    quick = decide("auto:balanced", "maths", 0.8, deadline=8.0)
    rated = {each.id: each for each in CATALOGUE.rated}

    def seconds(found: Plan) -> float:
        first = rated[ids(found)[0]]
        return first.first_token + 300 * first.token

    assert seconds(slow) > 8.0 >= seconds(quick)
    assert quick.reason.endswith("that can keep the deadline")


def test_a_named_model_is_taken_with_fallbacks_that_are_no_dearer() -> None:
    found = decide("anthropic/claude-sonnet-4.5")
    assert found.preference is None
    assert found.reason == "anthropic/claude-sonnet-4.5 was asked for"
    assert ids(found)[0] == "anthropic/claude-sonnet-4.5"
    assert ids(found)[1:3] == ["openai/gpt-5", "google/gemini-2.5-pro"]
    cheap = decide("google/gemini-2.5-flash-lite")
    assert ids(cheap) == ["google/gemini-2.5-flash-lite", "meta-llama/llama-3.1-8b-instruct"]
    assert "no dearer" in cheap.candidates[1].reason


def test_a_dearer_fallback_is_taken_only_where_the_request_names_it() -> None:
    text = "openai/gpt-4o-mini"
    assert "anthropic/claude-opus-4.5" not in ids(decide(text))
    named = decide(text, fallbacks=("anthropic/claude-opus-4.5",))
    assert ids(named)[:2] == [text, "anthropic/claude-opus-4.5"]
    with pytest.raises(NotFound, match="no/such"):
        decide(text, fallbacks=("no/such",))


def test_an_alias_is_said_in_the_reason() -> None:
    assert decide("gpt-4").reason == "anthropic/claude-sonnet-4.5 was asked for as gpt-4"


def test_a_variant_is_sent_as_it_was_asked_for() -> None:
    (first, *_) = decide("qwen/qwen3-coder:nitro").candidates
    assert first.send == "qwen/qwen3-coder:nitro"
    assert first.provider.sort == "throughput"
    assert first.provider.max_price == {"prompt": "0.33", "completion": "1.425"}


@pytest.mark.parametrize(
    ("error", "code", "arguments"),
    [
        (NotFound, "model_not_found", {"model": "no/such"}),
        (NotFound, "model_not_found", {"model": "auto:cheap"}),
        (Forbidden, "model_not_allowed", {"model": "openai/gpt-5", "who": principal(models=("google/*",))}),
        (Forbidden, "model_not_allowed", {"who": principal(models=())}),
        (Forbidden, "model_not_allowed", {"who": principal(regions=("mars",))}),
        (
            Forbidden,
            "model_not_allowed",
            {"model": "mistralai/codestral-2508", "who": principal(zero_data_retention=True)},
        ),
        (BadRequest, "context_length_exceeded", {"model": "meta-llama/llama-3.1-8b-instruct", "prompt_tokens": 40_000}),
        (BadRequest, "context_length_exceeded", {"prompt_tokens": 2_000_000}),
        (BadRequest, "unsupported_parameter", {"model": "deepseek/deepseek-r1", "parameters": frozenset({"tools"})}),
        (
            BadRequest,
            "unsupported_parameter",
            {"parameters": frozenset({"logprobs"}), "who": principal(models=("anthropic/*",))},
        ),
        (BadRequest, "unsupported_modality", {"model": "qwen/qwen3-coder", "inputs": frozenset({"text", "image"})}),
        (BadRequest, "unsupported_modality", {"inputs": frozenset({"text", "video"})}),
        (BadRequest, "unsupported_modality", {"model": "openai/text-embedding-3-small"}),
        (BadRequest, "unsupported_modality", {"model": "openai/gpt-5", "api": "embeddings"}),
        (BadRequest, "price_unknown", {"model": "openrouter/auto"}),
        (BadRequest, "max_price", {"model": "openai/gpt-5", "max_price": MaxPrice(completion=per_million("9.9"))}),
        (BadRequest, "max_price", {"max_price": MaxPrice(prompt=0, completion=0)}),
        (
            Forbidden,
            "model_not_allowed",
            {"model": "openrouter/auto", "max_price": MaxPrice(per_million("16"), per_million("1"))},
        ),
        (Unavailable, "no_candidate", {"health": sick(*MODELS)}),
        (Unavailable, "no_candidate", {"model": "openai/gpt-4o", "on": flags(disable_model=("*",))}),
    ],
)
def test_refusals(error: type[ApiError], code: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(error) as caught:
        decide(**arguments)
    assert caught.value.code == code


def test_a_refusal_for_health_says_when_to_come_back() -> None:
    health = Health({model: Condition("open", 1.0, 5.0 + place) for place, model in enumerate(MODELS)})
    with pytest.raises(Unavailable) as caught:
        decide(health=health)
    assert caught.value.retry_after == 5.0


def test_a_router_model_may_serve_under_a_full_max_price() -> None:
    ceiling = MaxPrice(per_million("3"), per_million("15"))
    (first, *_) = decide("openrouter/auto", max_price=ceiling).candidates
    assert first.model.id == "openrouter/auto"
    assert first.provider.max_price == {"prompt": "3", "completion": "15"}


def test_parameters_that_matter_filter_and_are_required_upstream() -> None:
    needs = frozenset({"tools", "temperature", "max_completion_tokens"})
    found = decide("auto:fast", "chat", 0.0, parameters=needs)
    assert all("tools" in candidate.model.parameters for candidate in found.candidates)
    assert all(candidate.provider.require_parameters for candidate in found.candidates)
    hint = decide("auto:fast", "chat", 0.0, parameters=frozenset({"temperature", "verbosity"}))
    assert not hint.candidates[0].provider.require_parameters
    unknown = decide("auto:fast", "chat", 0.0, parameters=frozenset({"tools", "verbosity"}))
    assert not unknown.candidates[0].provider.require_parameters


def test_an_embedding_has_no_fallback() -> None:
    for name in ("", "auto", "text-embedding-ada-002", "openai/text-embedding-3-small"):
        assert ids(decide(name, api="embeddings")) == ["openai/text-embedding-3-small"]
    with pytest.raises(Unavailable):
        decide("", api="embeddings", health=sick("openai/text-embedding-3-small"))


def test_policy_goes_along_to_openrouter() -> None:
    who = principal(zero_data_retention=True, regions=("us", "eu"))
    (first, *_) = decide("openai/gpt-5", who=who).candidates
    assert first.provider.body() == {
        "max_price": {"prompt": "1.25", "completion": "10"},
        "zdr": True,
        "data_collection": "deny",
        "only": ["azure"],
    }
    (first, *_) = decide("openai/gpt-5", who=principal(zero_data_retention=True)).candidates
    assert first.provider.only == ()
    assert first.provider.zdr


def test_the_callers_own_provider_wishes_count_where_they_are_stricter() -> None:
    policy = ProviderPrefs({"prompt": "1", "completion": "2"}, zdr=True, only=("a", "b"), sort="price")
    asked = {
        "max_price": {"prompt": "0.5", "completion": 9, "image": "0.1"},
        "only": ["b", "c"],
        "zdr": False,
        "data_collection": "allow",
        "sort": "latency",
        "ignore": ["x"],
    }
    assert policy.body(asked) == {
        "max_price": {"prompt": "0.5", "completion": "2", "image": "0.1"},
        "only": ["b"],
        "zdr": True,
        "data_collection": "deny",
        "sort": "latency",
        "ignore": ["x"],
    }
    assert policy.body({"only": ["c"], "max_price": {"prompt": "cheap"}})["only"] == ["a", "b"]
    assert policy.body({"max_price": {"prompt": "cheap"}})["max_price"] == {"prompt": "1", "completion": "2"}


def test_disable_model_takes_a_model_out_everywhere() -> None:
    on = flags(disable_model=("anthropic/claude-sonnet-4.5", "openai/*"))
    for found in (decide("auto:quality", on=on), decide("anthropic/claude-opus-4.5", on=on)):
        assert not any(each == "anthropic/claude-sonnet-4.5" or each.startswith("openai/") for each in ids(found))
    moved = decide("anthropic/claude-sonnet-4.5", on=on)
    assert ids(moved)[0] == "google/gemini-2.5-pro"
    assert moved.reason.startswith("anthropic/claude-sonnet-4.5 is disabled by the flag disable_model: ")


def test_fallback_mode_serves_from_its_values_only() -> None:
    on = flags(fallback_mode=("google/*", "meta-llama/llama-3.1-8b-instruct"))
    found = decide("auto:quality", on=on)
    assert all(each.startswith("google/") or each == "meta-llama/llama-3.1-8b-instruct" for each in ids(found))
    assert "(flags on: fallback_mode)" in found.reason
    named = decide("anthropic/claude-opus-4.5", on=on)
    assert ids(named)[0].startswith("google/")
    with pytest.raises(Unavailable):
        decide("google/gemini-2.5-flash-lite", on=flags(fallback_mode=("anthropic/claude-opus-4.5",)))


def test_fallback_mode_without_values_serves_from_cheap_healthy_models() -> None:
    health = Health({"google/gemini-2.5-flash": Condition("closed", 0.3), "openai/gpt-4o-mini": Condition("half_open")})
    found = decide("auto:quality", on=flags(fallback_mode=()), health=health)
    for candidate in found.candidates:
        assert candidate.model.prices is not None
        assert candidate.model.prices.base.prompt <= per_million("1")
        assert candidate.model.prices.base.completion <= per_million("4")
        assert candidate.model.id not in health.models


def test_force_healthy_models_puts_its_values_first() -> None:
    on = flags(force_healthy_models=("google/gemini-2.5-flash", "openai/gpt-5-mini"))
    found = decide("auto:quality", "maths", on=on)
    assert ids(found)[:2] == ["google/gemini-2.5-flash", "openai/gpt-5-mini"]
    assert "force_healthy_models names" in found.reason
    limping = Health({"anthropic/claude-opus-4.5": Condition("closed", 0.2)})
    assert ids(decide("anthropic/claude-opus-4.5", health=limping))[0] == "anthropic/claude-opus-4.5"
    moved = decide("anthropic/claude-opus-4.5", health=limping, on=on)
    assert ids(moved)[0] == "google/gemini-2.5-flash"
    assert "not in good health" in moved.reason


def test_an_open_breaker_moves_a_named_model_to_its_fallback() -> None:
    moved = decide("anthropic/claude-sonnet-4.5", health=sick("anthropic/claude-sonnet-4.5"))
    assert ids(moved)[0] == "openai/gpt-5"
    assert moved.reason.startswith("anthropic/claude-sonnet-4.5 fails too often at the moment: ")


def test_without_explicit_fallbacks_a_named_model_stands_alone() -> None:
    text = """
policy: {explicit_fallbacks: false}
speeds: {fast: {first_token: 0.5, tokens_per_second: 100}}
preferences: {fast: {choose: latency}, quality: {choose: quality}, code: {choose: value}, balanced: {choose: cheapest}}
auto: {default: balanced}
models:
  openai/gpt-4o: {quality: {default: 0.8}, speed: fast, fallbacks: [openai/gpt-4o-mini]}
"""
    catalogue = build(body(), read_rules(text, "x"), 0.0)
    assert ids(decide("openai/gpt-4o", catalogue=catalogue)) == ["openai/gpt-4o"]
    with pytest.raises(Unavailable):
        decide("openai/gpt-4o", catalogue=catalogue, health=sick("openai/gpt-4o"))


FREE = build(
    body(entry("qwen/qwen3-coder", id="qwen/qwen3-coder:free", pricing={"prompt": "0", "completion": "0"})),
    shipped_rules(),
    0.0,
)
PATTERNS = [*MODELS, "openai/*", "google/*", "anthropic/*", "mistralai/*", "*"]
NAMES = [
    "",
    "auto",
    "auto:fast",
    "auto:quality",
    "auto:code",
    "auto:balanced",
    "gpt-4",
    "qwen/qwen3-coder:free",
    "openai/gpt-5:floor",
    "openrouter/auto",
    "openai/text-embedding-3-small",
]
patterns = st.lists(st.sampled_from(PATTERNS), max_size=4).map(tuple)
conditions = st.builds(Condition, st.sampled_from(["closed", "open", "half_open"]), st.floats(0, 1), st.floats(0, 30))


@st.composite
def situations(draw: st.DrawFn) -> tuple[Ask, Principal, FlagSet, Health]:
    ask = Ask(
        draw(st.sampled_from([*NAMES, *MODELS])),
        Task(draw(st.sampled_from(KINDS)), draw(st.floats(0, 1))),
        prompt_tokens=draw(st.sampled_from([0, 10, 500, 30_000, 300_000])),
        output_tokens=draw(st.sampled_from([None, 1, 300, 30_000])),
        inputs=draw(st.sampled_from([frozenset({"text"}), frozenset({"text", "image"})])),
        parameters=draw(st.sampled_from([frozenset(), frozenset({"tools"}), frozenset({"logprobs", "seed"})])),
        max_price=draw(st.sampled_from([None, MaxPrice(per_million("1"), per_million("5"))])),
        fallbacks=tuple(draw(st.lists(st.sampled_from(list(MODELS)), max_size=2))),
        deadline=draw(st.sampled_from([None, 0.1, 5.0])),
        api=draw(st.sampled_from(["chat", "chat", "chat", "embeddings"])),
    )
    who = principal(
        models=draw(st.one_of(st.none(), patterns)),
        zero_data_retention=draw(st.booleans()),
        regions=draw(st.sampled_from([None, None, ("us",), ("eu",), ("eu", "us")])),
    )
    names = draw(st.sets(st.sampled_from(["fallback_mode", "disable_model", "force_healthy_models"])))
    on = FlagSet({name: Flag(name, enabled=True, values=draw(patterns)) for name in sorted(names)})
    health = Health(draw(st.dictionaries(st.sampled_from(list(MODELS)), conditions, max_size=6)))
    return ask, who, on, health


def listed(model: Model, ask: Ask) -> int:
    assert model.prices is not None
    rates = model.prices.worst(ask.prompt_tokens)
    return rates.request + ask.prompt_tokens * rates.prompt + (ask.output_tokens or 500) * rates.completion


def outcome(ask: Ask, who: Principal, catalogue: Catalogue, on: FlagSet, health: Health) -> Plan | tuple[int, str, str]:
    try:
        return plan(ask, who, catalogue, on, health)
    except ApiError as error:
        return error.status, error.code, error.message


def reason(found: Plan | tuple[int, str, str]) -> str | tuple[int, str, str]:
    return found.reason if isinstance(found, Plan) else found


@given(situations())
@settings(max_examples=250, deadline=None)
def test_whatever_is_asked_every_candidate_keeps_policy(case: tuple[Ask, Principal, FlagSet, Health]) -> None:
    ask, who, on, health = case
    found = outcome(ask, who, FREE, on, health)
    assert found == outcome(ask, who, FREE, on, health)
    if not isinstance(found, Plan):
        assert found[0] in (400, 403, 404, 503)
        return
    assert 1 <= len(found.candidates) <= 4
    assert len(set(ids(found))) == len(found.candidates)
    disabled = on.values("disable_model", "org_1", "user_1") or ()
    fallback = on.values("fallback_mode", "org_1", "user_1")
    for candidate in found.candidates:
        model = candidate.model
        assert FREE.refusal(model, who) is None
        assert who.models is None or any(matches(pattern, model.id) for pattern in who.models)
        known = FREE.rules.providers
        assert candidate.provider.zdr is who.zero_data_retention
        if who.zero_data_retention:
            assert any(known[name].zero_data_retention for name in FREE.rules.models[model.id].providers)
        if who.regions is not None:
            assert candidate.provider.only
            for name in candidate.provider.only:
                assert set(known[name].regions) <= set(who.regions)
                assert known[name].zero_data_retention or not who.zero_data_retention
        assert not any(matches(pattern, model.id) for pattern in disabled)
        assert health.of(model.id).state != "open"
        if fallback:
            assert any(matches(pattern, model.id) for pattern in fallback)
        assert ask.inputs <= model.inputs
        assert ask.parameters & set(FREE.rules.required_parameters) <= model.parameters
        assert ("embeddings" if ask.api == "embeddings" else "text") in model.outputs
        if ask.max_price is not None and model.prices is not None:
            assert ask.max_price.admits(model.prices.base)
        if model.prices is not None:
            assert candidate.provider.max_price
    asked = FREE.find(ask.model)
    if asked is not None and asked.model.prices is not None:
        for candidate in found.candidates:
            if candidate.model.id not in ask.fallbacks:
                assert listed(candidate.model, ask) <= listed(asked.model, ask)
        if health.of(asked.model.id).state != "open" and not on.flags:
            assert ids(found)[0] == asked.model.id


@given(situations(), st.permutations(list(MODELS)))
@settings(max_examples=12, deadline=None)
def test_the_order_of_the_listing_does_not_matter(
    case: tuple[Ask, Principal, FlagSet, Health], order: list[str]
) -> None:
    data = {each["id"]: each for each in json.loads(body())["data"]}
    rest = [each for name, each in data.items() if name not in MODELS]
    shuffled = json.dumps({"data": [*(data[name] for name in order), *rest]}).encode()
    other = build(shuffled, shipped_rules(), 0.0)
    ask, who, on, health = case
    assert reason(outcome(ask, who, CATALOGUE, on, health)) == reason(outcome(ask, who, other, on, health))
