# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue reads what OpenRouter lists, however odd, and `models.yml` only when it is right."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from listing import MODELS, body, entry

from sophia.gateway.catalogue import Catalogue, CatalogueError, Shelf, build, read_models
from sophia.gateway.rules import Rules, RulesError, matches, read_rules, shipped_rules
from sophia.stores.model import Principal, Role

SMALL = """
policy: {}
speeds: {fast: {first_token: 0.5, tokens_per_second: 100}}
preferences:
  fast: {choose: latency}
  quality: {choose: quality}
  code: {choose: value}
  balanced: {choose: cheapest}
auto: {default: balanced}
models:
  openai/gpt-4o: {quality: {default: 0.8}, speed: fast}
"""


@pytest.fixture(scope="module")
def rules() -> Rules:
    return shipped_rules()


@pytest.fixture(scope="module")
def catalogue(rules: Rules) -> Catalogue:
    return build(body(), rules, 5.0)


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


def problems(text: str) -> list[str]:
    with pytest.raises(RulesError) as caught:
        read_rules(text, "models.yml")
    return caught.value.problems


def test_the_listing_is_read_whole(catalogue: Catalogue) -> None:
    model = catalogue.models["anthropic/claude-sonnet-4.5"]
    assert model.slug == "anthropic/claude-sonnet-4.5-20251001"
    assert model.context_length == 1_000_000
    assert model.max_completion_tokens == 32_000
    assert model.inputs == {"text", "image", "file"}
    assert "tools" in model.parameters
    assert model.prices is not None
    assert model.prices.base.prompt == 3 * 10**9
    assert model.image_tokens == 4800
    assert model.max_price == {"prompt": "3", "completion": "15"}
    assert json.loads(model.raw)["created"] == 1_750_000_000
    assert catalogue.models["openrouter/auto"].prices is None
    assert catalogue.models["openrouter/auto"].max_price == {}
    assert catalogue.skipped == ()
    assert catalogue.at == 5.0


def test_every_model_of_the_shipped_file_is_rated_or_an_embedding(catalogue: Catalogue, rules: Rules) -> None:
    assert {entry.id for entry in catalogue.rated} | {"openai/text-embedding-3-small"} == set(rules.models)
    assert catalogue.warnings == ()


def test_headroom_raises_what_a_provider_may_ask(catalogue: Catalogue) -> None:
    model = catalogue.models["qwen/qwen3-coder"]
    assert model.headroom == 50
    assert model.max_price == {"prompt": "0.33", "completion": "1.425"}


@pytest.mark.parametrize(
    ("name", "model", "send", "sort"),
    [
        ("openai/gpt-4o", "openai/gpt-4o", "openai/gpt-4o", None),
        ("openai/gpt-4o-20251001", "openai/gpt-4o", "openai/gpt-4o", None),
        ("gpt-4", "anthropic/claude-sonnet-4.5", "anthropic/claude-sonnet-4.5", None),
        ("gpt-3.5-turbo", "google/gemini-2.5-flash", "google/gemini-2.5-flash", None),
        ("qwen/qwen3-coder:nitro", "qwen/qwen3-coder", "qwen/qwen3-coder:nitro", "throughput"),
        ("qwen/qwen3-coder:floor", "qwen/qwen3-coder", "qwen/qwen3-coder:floor", "price"),
        ("gpt-4:floor", "anthropic/claude-sonnet-4.5", "anthropic/claude-sonnet-4.5:floor", "price"),
        ("openai/gpt-4o:online", "openai/gpt-4o", "openai/gpt-4o:online", None),
    ],
)
def test_names(catalogue: Catalogue, name: str, model: str, send: str, sort: str | None) -> None:
    found = catalogue.find(name)
    assert found is not None
    assert (found.model.id, found.send, found.sort) == (model, send, sort)


@pytest.mark.parametrize("name", ["", "gpt-9", "qwen/qwen3-coder:free", "qwen/qwen3-coder:", ":nitro", "nitro"])
def test_names_of_nothing(catalogue: Catalogue, name: str) -> None:
    assert catalogue.find(name) is None


def test_a_free_variant_is_a_model_of_its_own(rules: Rules) -> None:
    free = entry("qwen/qwen3-coder", id="qwen/qwen3-coder:free", pricing={"prompt": "0", "completion": "0"})
    found = build(body(free), rules, 0.0).find("qwen/qwen3-coder:free")
    assert found is not None
    assert found.send == "qwen/qwen3-coder:free"


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"pricing": None}, "pricing: missing"),
        ({"pricing": {"prompt": "dear", "completion": "0"}}, "pricing.prompt"),
        ({"pricing": {"prompt": "0.1", "completion": "-2"}}, "pricing.completion"),
        ({"id": None}, "has no id"),
        ({"id": "openai/gpt-4o"}, "is listed twice"),
    ],
)
def test_what_cannot_be_priced_is_left_out_with_its_reason(odd: dict[str, Any], reason: str) -> None:
    models, skipped = read_models(body(entry("openai/gpt-4o", **{"id": "odd/one", **odd})))
    assert len(models) == len(MODELS) + 2
    assert [reason in each.reason for each in skipped] == [True]


@pytest.mark.parametrize(
    "odd",
    [
        {"context_length": None, "top_provider": None},
        {"context_length": "many", "top_provider": []},
        {"context_length": 1e30, "created": "yesterday"},
        {"architecture": None, "supported_parameters": None},
        {"architecture": {"input_modalities": [1, None, "text"]}, "supported_parameters": [{}, "tools"]},
        {"canonical_slug": None, "expiration_date": 7, "name": None},
        {"something_new": {"deep": [1, 2, 3]}},
    ],
)
def test_odd_fields_spoil_nothing(odd: dict[str, Any]) -> None:
    models, skipped = read_models(body(entry("openai/gpt-4o", **{"id": "odd/one", **odd})))
    assert skipped == []
    assert models[-3:][0].id == "openai/text-embedding-3-small" or models[-1].id == "odd/one"


def test_a_price_given_as_a_number_does_not_pass_through_a_float() -> None:
    raw = b'{"data":[{"id":"a/b","pricing":{"prompt":0.000000123456789,"completion":1e-7}}]}'
    (model,), _ = read_models(raw)
    assert model.prices is not None
    assert model.prices.base.prompt == 123_456_789
    assert model.prices.base.completion == 10**8


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[]", b'{"data": 3}', b"<html>", b"\xff", b'{"data": []}', b'{"data": [1]}']
)
def test_a_body_that_is_no_listing_is_refused(raw: bytes, rules: Rules) -> None:
    with pytest.raises(CatalogueError):
        build(raw, rules, 0.0)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "id",
                "pricing",
                "architecture",
                "top_provider",
                "context_length",
                "supported_parameters",
                "created",
                "name",
            ]
        ),
        _JSON | st.just({"prompt": "0.1"}) | st.just({"overrides": {}, "prompt": "1"}),
    )
)
@settings(max_examples=200, deadline=None)
def test_no_entry_is_an_error(odd: dict[str, Any]) -> None:
    models, skipped = read_models(json.dumps({"data": [odd]}).encode())
    assert len(models) + len(skipped) == 1


async def test_a_refresh_swaps_the_snapshot_and_a_failed_one_keeps_it(rules: Rules) -> None:
    now = 100.0
    bodies: list[bytes | Exception] = [body(), OSError("no network"), b"{}", body(without=("openai/gpt-5",))]

    async def fetch() -> bytes:
        found = bodies.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    shelf = Shelf(fetch, rules, lambda: now)
    assert not shelf.ready
    assert shelf.age == float("inf")
    with pytest.raises(CatalogueError):
        _ = shelf.current
    first = await shelf.refresh()
    assert shelf.current is first
    now = 160.0
    with pytest.raises(OSError, match="no network"):
        await shelf.refresh()
    with pytest.raises(CatalogueError):
        await shelf.refresh()
    assert shelf.current is first
    assert shelf.age == 60.0
    second = await shelf.refresh()
    assert shelf.current is second
    assert shelf.age == 0.0
    assert "models.openai/gpt-5: OpenRouter does not list it" in second.warnings
    assert first.find("openai/gpt-5") is not None
    now = 200.0
    shelf.reload(read_rules(SMALL, "x"))
    assert [each.id for each in shelf.current.rated] == ["openai/gpt-4o"]
    assert shelf.age == 40.0


@pytest.mark.parametrize(
    ("model", "changes", "reason"),
    [
        ("openai/gpt-4o", {}, None),
        ("openai/gpt-4o", {"models": ("openai/gpt-4o",)}, None),
        ("openai/gpt-4o", {"models": ("openai/*",)}, None),
        ("openai/gpt-4o", {"models": ()}, "may use"),
        ("openai/gpt-4o", {"models": ("openai/gpt-4o-mini", "anthropic/*")}, "may use"),
        ("openai/gpt-4o", {"zero_data_retention": True}, None),
        ("mistralai/codestral-2508", {"zero_data_retention": True}, "keep no data"),
        ("openrouter/auto", {"zero_data_retention": True}, "keep no data"),
        ("openai/gpt-4o", {"regions": ("us",)}, None),
        ("openai/gpt-4o", {"regions": ("eu",)}, "serve from eu only"),
        ("mistralai/codestral-2508", {"regions": ("eu", "us")}, None),
        ("openai/gpt-4o", {"regions": ()}, "serve from nowhere only"),
        ("openai/gpt-4o", {"regions": ("us",), "zero_data_retention": True}, "keep no data and to serve from us only"),
        ("openai/gpt-4o", {"regions": ("eu", "us"), "zero_data_retention": True}, None),
    ],
)
def test_policy(catalogue: Catalogue, model: str, changes: dict[str, Any], reason: str | None) -> None:
    found = catalogue.refusal(catalogue.models[model], principal(**changes))
    assert found is None if reason is None else found is not None and reason in found


def test_policy_of_the_file(rules: Rules) -> None:
    text = SMALL.replace("policy: {}", 'policy: {ceiling: {prompt: 3, completion: "12.5"}, disabled: ["mistralai/*"]}')
    found = build(body(), read_rules(text, "x"), 0.0)
    assert found.refusal(found.models["openai/gpt-4o"], principal()) is None
    assert "ceiling" in (found.refusal(found.models["anthropic/claude-opus-4.5"], principal()) or "")
    assert "disabled" in (found.refusal(found.models["mistralai/codestral-2508"], principal()) or "")


@pytest.mark.parametrize(
    ("pattern", "model", "fits"),
    [("a/*", "a/b", True), ("a/*", "ab/c", False), ("a/b*", "a/bc", True), ("*", "x/y", True), ("a/b", "a/bc", False)],
)
def test_patterns(pattern: str, model: str, fits: bool) -> None:
    assert matches(pattern, model) is fits


def test_fallbacks_of_fallbacks_come_nearest_first_and_once() -> None:
    text = (
        SMALL
        + """
  a/a: {fallbacks: [b/b, c/c]}
  b/b: {fallbacks: [d/d]}
  c/c: {fallbacks: [d/d, b/b]}
  d/d: {}
"""
    )
    found = read_rules(text, "x")
    assert found.closure("a/a") == ("b/b", "c/c", "d/d")
    assert found.closure("d/d") == ()
    assert found.closure("no/such") == ()


def test_every_error_of_the_file_is_listed_at_once_with_its_line() -> None:
    text = """\
policy:
  ceiling: {prompt: cheap}
  fallbak: 3
speeds: {fast: {first_token: 0.5, tokens_per_second: 0}}
preferences:
  fast: {choose: speed}
  quality: {choose: quality, task: cooking}
  balanced: {choose: listed, floor: 2}
auto: {code: hasty}
models:
  gpt: {quality: {default: 1.5, codee: 0.5}, speed: quick}
  a/a: {fallbacks: b/b}
  b/b: {providers: [mars], headroom: -1}
aliases: {x: y, y: a/a}
"""
    first = problems(text)
    for line, words in (
        (3, "policy.fallbak: unknown"),
        (6, "preferences.fast.choose: Invalid enum value 'speed'"),
        (12, "models.a/a.fallbacks: Expected `array`"),
    ):
        assert any(each.startswith(f"models.yml:{line}: ") and words in each for each in first), (words, first)
    second = problems(
        text.replace("  fallbak: 3\n", "").replace("choose: speed", "choose: latency").replace(": b/b}", ": [b/b]}")
    )
    for line, words in (
        (2, "policy.ceiling: 'cheap' is no price"),
        (3, "speeds.fast"),
        (4, "preferences: code is missing"),
        (6, "unknown task cooking"),
        (7, "floor and rise"),
        (7, "choose: listed needs models"),
        (8, "no preference hasty"),
        (8, "auto: default is missing"),
        (10, "must be an OpenRouter identifier"),
        (10, "quality.codee: unknown task"),
        (10, "quality.default: must be between 0 and 1"),
        (10, "no speed class 'quick'"),
        (12, "unknown provider mars"),
        (12, "headroom"),
        (13, "y is an alias itself"),
    ):
        assert any(each.startswith(f"models.yml:{line}: ") and words in each for each in second), (line, words, second)


def test_a_circle_of_fallbacks_is_named() -> None:
    found = problems(SMALL + "  a/a: {fallbacks: [b/b]}\n  b/b: {fallbacks: [c/c]}\n  c/c: {fallbacks: [a/a]}\n")
    assert found == ["models.yml:14: models.c/c.fallbacks: the fallbacks go in a circle: a/a -> b/b -> c/c -> a/a"]


def test_a_name_given_twice_is_an_error_not_the_last_one() -> None:
    (found,) = problems(SMALL + "  openai/gpt-4o: {}\n")
    assert found.startswith("models.yml:12: models.openai/gpt-4o: named twice")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "policy is missing"),
        ("[]", "must be a mapping"),
        ("a: [", "not YAML"),
        ("models: 3", "models"),
        ("7: 1", "7"),
    ],
)
def test_a_file_that_is_no_file_of_rules(text: str, words: str) -> None:
    assert any(words in each for each in problems(text))


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_is_rules_or_a_list_of_problems(text: str) -> None:
    with pytest.raises(RulesError):
        read_rules(text, "models.yml")
