# SPDX-License-Identifier: GPL-3.0-or-later
"""The rule that near answers are served by: its proof, its failure, and that its bound is kept."""

from __future__ import annotations

import math
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sophia.gateway.learn import EDGES, Rule, upper_limit
from sophia.stores.lessons import BANDS, Standing

deltas = st.sampled_from([0.005, 0.01, 0.05, 0.2])
counts = st.integers(0, 2000)


def run(rule: Rule, results: list[bool], known: Standing | None = None, band: int = 0) -> Standing:
    known = known or Standing()
    for same in results:
        known = rule.observe(known, band, same)
    return known


@pytest.mark.parametrize(("delta", "most"), [(0.01, 650), (0.02, 320), (0.05, 130)])
def test_checks_without_a_wrong_answer_are_a_proof(delta: float, most: int) -> None:
    rule = Rule(delta=delta)
    needed = rule.needed()
    assert math.log(10 / 0.05) / delta * 0.9 < needed < most
    assert not run(rule, [True] * (needed - 1)).served
    known = run(rule, [True] * needed)
    assert known.served == 1
    assert rule.threshold(known) == EDGES[0]
    assert rule.threshold(Standing()) is None


def test_bands_are_proven_together() -> None:
    """Checks spread over three bands prove their common threshold; one that had too few of its own is left out."""
    rule = Rule()
    known = Standing()
    for number in range(rule.needed() + 20):
        known = rule.observe(known, 3 if number % 100 == 1 else number % 3, True)
    assert known.served == 3
    assert rule.threshold(known) == EDGES[2]


def test_a_bad_band_keeps_those_above_it_out_of_nothing() -> None:
    rule = Rule()
    known = Standing()
    for number in range(2 * rule.needed()):
        known = rule.observe(known, number % 2, number % 2 == 0 or number % 4 == 1)
    assert known.served == 1


def test_a_served_threshold_is_lowered_by_checks_of_the_next_band_alone() -> None:
    rule = Rule()
    known = run(rule, [True] * rule.needed())
    assert run(rule, [True] * (rule.needed() - 1), known, 1).served == 1
    assert run(rule, [True] * rule.needed(), known, 1).served == 2


def test_one_wrong_answer_among_many_only_delays_the_proof() -> None:
    rule = Rule()
    known = run(rule, [False] + [True] * (rule.needed() - 1))
    assert not known.served
    assert run(rule, [True] * 600, known).served


def test_what_turns_bad_is_switched_off_and_begins_anew() -> None:
    rule = Rule()
    known = run(rule, [True] * rule.needed())
    checks = 0
    while known.served:
        known = rule.observe(known, 0, checks % 2 == 0)
        checks += 1
    assert checks < 30
    assert known == Standing(episode=1, failures=1)
    assert rule.needed(1) > rule.needed(0)


def test_a_wrong_answer_makes_for_closer_looks_until_it_is_outweighed() -> None:
    rule = Rule()
    known = run(rule, [True] * rule.needed())
    assert rule.share(known) == rule.shadow
    known = rule.observe(known, 0, False)
    assert rule.share(known) == 0.5
    assert rule.share(run(rule, [True] * 40, known)) == rule.shadow


def test_a_long_good_past_does_not_hide_a_bad_present() -> None:
    rule = Rule()
    known = run(rule, [True] * 20_000)
    assert known.served
    assert not run(rule, [False] * 10, known).served


def test_a_slow_failure_is_found_too() -> None:
    """Three wrong in two hundred, again and again: above the bound, below what a sudden change looks like."""
    rule = Rule()
    known = run(rule, [True] * rule.needed())
    checks = 0
    while known.served:
        known = rule.observe(known, 0, checks % 200 not in (7, 90, 150))
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
@given(st.lists(st.tuples(st.integers(0, BANDS - 1), st.booleans()), max_size=300))
def test_nothing_is_served_without_proof(results: list[tuple[int, bool]]) -> None:
    rule = Rule(delta=0.05)
    known = Standing()
    for number, same in results:
        before, known = known, rule.observe(known, number, same)
        if known.served > before.served:
            assert sum(known.checks[before.served : known.served]) >= rule.needed(known.episode)
            assert same
        if known.served:
            assert known.checks[: known.served] == before.checks[: known.served] or known.served > before.served
        assert known.episode >= before.episode
        assert all(0 <= wrong <= checks for wrong, checks in zip(known.wrong, known.checks, strict=True))
        assert 0 <= known.watched_wrong <= known.watched
        assert msgspec.convert(msgspec.structs.asdict(known), Standing) == known


def test_a_chance_at_the_bound_is_hardly_ever_proven() -> None:
    """300 units whose chance is the bound itself, 1,500 checks each: at most 5 % may be, and it is far fewer."""
    rule = Rule(delta=0.05)
    chance = random.Random(5)
    proven = 0
    for _ in range(300):
        known = Standing()
        for _ in range(1500):
            known = rule.observe(known, chance.randrange(BANDS), chance.random() >= 0.05)
            if known.served:
                proven += 1
                break
    assert proven <= 9


@given(st.floats(0.0, 1.0))
def test_every_similarity_has_a_band(similarity: float) -> None:
    number = Rule().band(similarity)
    assert similarity >= EDGES[number]
    assert number == 0 or similarity < EDGES[number - 1]


def test_there_are_as_many_bands_as_are_counted() -> None:
    assert len(EDGES) == BANDS


@pytest.mark.parametrize(
    ("checks", "wrong", "limit"),
    [(100, 0, 0.0295), (1000, 10, 0.0169), (5000, 2500, 0.5118), (10, 10, 1.0), (0, 0, 1.0)],
)
def test_the_upper_limit_is_clopper_and_pearsons(checks: int, wrong: int, limit: float) -> None:
    assert upper_limit(checks, wrong) == pytest.approx(limit, abs=1e-4)
