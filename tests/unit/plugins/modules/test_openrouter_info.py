# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules openrouter_key_info and openrouter_model_info against the sandbox over HTTP."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ansible_collections.sophia.platform.plugins.modules import openrouter_key_info, openrouter_model_info


@pytest.fixture
def keys(sandbox, run_module):
    def run(**args):
        ended = run_module(openrouter_key_info, api_url=sandbox.url, management_key=sandbox.management_key, **args)
        assert not ended.failed and not ended.result["changed"]
        return [key for key in ended.result["openrouter_keys"] if key["hash"] not in sandbox.first]

    return run


@pytest.fixture
def models(sandbox, run_module):
    def run(**args):
        ended = run_module(openrouter_model_info, api_url=sandbox.url, management_key=sandbox.management_key, **args)
        assert not ended.failed and not ended.result["changed"]
        return ended.result

    return run


def test_disabled_keys_are_listed_and_can_be_left_out(sandbox, keys):
    made = [sandbox.call("POST", "keys", {"name": name, "limit": 0.1})["data"]["hash"] for name in ("a", "b")]
    sandbox.call("PATCH", f"keys/{made[1]}", {"disabled": True})
    assert {key["name"] for key in keys()} == {"a", "b"}
    assert [key["name"] for key in keys(live=True)] == ["a"]
    assert [key["name"] for key in keys(live=False)] == ["b"]
    assert [key["hash"] for key in keys(hash=made[0])] == [made[0]]
    assert keys(name="c") == []


def test_amounts_are_text_and_the_guardrail_is_told(sandbox, keys):
    made = sandbox.call("POST", "keys", {"name": "a", "limit": 0.1})["data"]["hash"]
    guardrail = sandbox.call("POST", "guardrails", {"name": "careful"})["data"]["id"]
    sandbox.call("POST", f"guardrails/{guardrail}/assignments/keys", {"key_hashes": [made]})
    (key,) = keys(name="a", check=True)
    assert (key["limit"], key["limit_remaining"], key["usage"]) == ("0.1", "0.1", "0")
    assert key["guardrail_id"] == guardrail


def test_every_page_is_read(sandbox, keys):
    for number in range(130):
        sandbox.call("POST", "keys", {"name": f"key-{number}"})
    found = keys()
    assert len({key["hash"] for key in found}) == len(found) == 130


def test_every_model_with_exact_prices(sandbox, models):
    found = models()["openrouter_models"]
    assert [model["id"] for model in found] == sorted(model["id"] for model in sandbox.call("GET", "models")["data"])
    for model in found:
        assert isinstance(model["pricing"]["prompt"], str) and Decimal(model["pricing"]["prompt"]).is_finite()
        assert model["context_length"] is None or model["context_length"] > 0
        assert isinstance(model["zdr"], bool)


def test_models_by_id_and_those_missing(models):
    result = models(ids=["openai/gpt-4o-mini", "nobody/nothing"])
    assert [model["id"] for model in result["openrouter_models"]] == ["openai/gpt-4o-mini"]
    assert result["missing"] == ["nobody/nothing"]


def test_filters_agree_with_what_they_filter_by(models):
    every = {model["id"]: model for model in models()["openrouter_models"]}

    def ids(**args):
        return {model["id"] for model in models(**args)["openrouter_models"]}

    def where(good):
        found = {id for id, model in every.items() if good(model)}
        assert 0 < len(found) < len(every), "a filter that all or none pass shows nothing"
        return found

    assert ids(parameters=["tools"]) == where(lambda model: "tools" in model["supported_parameters"])
    assert ids(input_modalities=["image"]) == where(lambda model: "image" in model["architecture"]["input_modalities"])
    assert ids(min_context=200_000) == where(lambda model: (model["context_length"] or 0) >= 200_000)
    assert ids(search="ClAuDe") == where(lambda model: "claude" in (model["id"] + model["name"]).lower())
    assert ids(max_prompt_price="0.5") == where(lambda model: 0 <= Decimal(model["pricing"]["prompt"]) * 1_000_000 <= Decimal("0.5"))
    assert ids(zdr=True) == where(lambda model: model["zdr"])
    assert ids(zdr=False) == where(lambda model: not model["zdr"])
    assert ids(search="claude", max_completion_price="1") == ids(search="claude") & ids(max_completion_price="1")


def test_a_price_that_is_none_is_refused(sandbox, run_module):
    ended = run_module(
        openrouter_model_info, api_url=sandbox.url, management_key=sandbox.management_key, max_prompt_price="cheap"
    )
    assert ended.failed and ended.result["failure"]["code"] == "invalid_input"
