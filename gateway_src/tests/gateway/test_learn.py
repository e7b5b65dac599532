# SPDX-License-Identifier: GPL-3.0-or-later
"""The rule that near answers are served by: its proof, its failure, and that its bound is kept."""

from __future__ import annotations

import math
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sophia.gateway.learn import EDGES, Rule
from sophia.stores.lessons import Band

deltas = st.sampled_from([0.005, 0.01, 0.05, 0.2])
counts = st.integers(0, 2000)


def run(rule: Rule, results: list[bool], band: Band | None = None) -> Band:
    band = band or Band()
    for same in results:
        band = rule.observe(band, same)
    return band


@pytest.mark.parametrize(("delta", "most"), [(0.01, 600), (0.02, 300), (0.05, 120)])
def test_checks_without_a_wrong_answer_prove_a_band(delta: float, most: int) -> None:
    rule = Rule(delta=delta)
    needed = rule.needed()
    assert math.log(len(EDGES) / 0.05) / delta * 0.9 < needed < most
    assert not run(rule, [True] * (needed - 1)).served
    assert run(rule, [True] * needed).served


def test_one_wrong_answer_among_many_only_delays_the_proof() -> None:
    rule = Rule()
    band = run(rule, [False] + [True] * (rule.needed() - 1))
    assert not band.served
    assert run(rule, [True] * 400, band).served


def test_a_served_band_that_turns_bad_is_switched_off_and_begins_anew() -> None:
    rule = Rule()
    band = run(rule, [True] * rule.needed())
    checks = 0
    while band.served:
        band = rule.observe(band, checks % 2 == 0)
        checks += 1
    assert checks < 30
    assert band == Band(episode=1, failures=1)
    assert rule.needed(1) > rule.needed(0)


def test_a_long_good_past_does_not_hide_a_bad_present() -> None:
    rule = Rule()
    band = run(rule, [True] * 20_000)
    assert band.served
    assert not run(rule, [False] * 10, band).served


def test_a_slow_failure_is_found_too() -> None:
    """Three wrong in two hundred, again and again: above the bound, below what a sudden change looks like."""
    rule = Rule()
    band = run(rule, [True] * rule.needed())
    checks = 0
    while band.served:
        band = rule.observe(band, checks % 200 not in (7, 90, 150))
        checks += 1
    assert checks < 60_000


@given(deltas, counts, counts)
def test_evidence_grows_with_right_answers_and_falls_with_wrong_ones(delta: float, right: int, wrong: int) -> None:
    rule = Rule(delta=delta)
    checks = right + wrong
    here = rule.evidence(checks, wrong)
    assert rule.evidence(checks + 1, wrong) > here
    assert rule.evidence(checks + 1, wrong + 1) < here


@given(deltas, counts, counts)
def test_the_evidence_is_fair_at_the_bound(delta: float, right: int, wrong: int) -> None:
    """Its mean after one more check at a chance of delta is what it was: a martingale, so Ville's inequality holds."""
    rule = Rule(delta=delta)
    checks = right + wrong
    here = rule.evidence(checks, wrong)
    after = (1 - delta) * math.exp(rule.evidence(checks + 1, wrong) - here)
    after += delta * math.exp(rule.evidence(checks + 1, wrong + 1) - here)
    assert after == pytest.approx(1.0, abs=1e-6)


@given(deltas, counts, st.integers(0, 50), st.floats(1.0, 5.0))
def test_the_evidence_is_not_for_worse_than_the_bound(delta: float, right: int, wrong: int, times: float) -> None:
    chance = min(1.0, delta * times)
    rule = Rule(delta=delta)
    here = rule.evidence(right + wrong, wrong)
    after = (1 - chance) * math.exp(rule.evidence(right + wrong + 1, wrong) - here)
    after += chance * math.exp(rule.evidence(right + wrong + 1, wrong + 1) - here)
    assert after <= 1 + 1e-6


@settings(max_examples=50)
@given(st.lists(st.booleans(), max_size=300))
def test_a_band_is_served_only_with_proof(results: list[bool]) -> None:
    rule = Rule(delta=0.05)
    band = Band()
    for same in results:
        before, band = band, rule.observe(band, same)
        if band.served and not before.served:
            assert band.checks >= rule.needed(band.episode)
            assert same
        assert band.episode >= before.episode
        assert 0 <= band.wrong <= band.checks
        assert 0 <= band.watched_wrong <= band.watched
        assert msgspec.convert(msgspec.structs.asdict(band), Band) == band


def test_a_band_at_the_bound_is_hardly_ever_proven() -> None:
    """400 bands whose chance is the bound itself, 1,500 checks each: the promise is 1 % of them (5 % over 5 bands)."""
    rule = Rule(delta=0.05)
    chance = random.Random(5)
    proven = 0
    for _ in range(400):
        band = Band()
        for _ in range(1500):
            band = rule.observe(band, chance.random() >= 0.05)
            if band.served:
                proven += 1
                break
    assert proven <= 12


@given(st.floats(0.0, 1.0))
def test_every_similarity_has_a_band(similarity: float) -> None:
    number = Rule().band(similarity)
    assert similarity >= EDGES[number]
    assert number == 0 or similarity < EDGES[number - 1]
