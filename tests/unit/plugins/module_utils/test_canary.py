# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pure parts of canary_gate: engines, counters into bins, the fold to a verdict, the state file, the reports."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import settings as patience
from hypothesis import strategies as st

from ansible_collections.sophia.platform.plugins.module_utils._canary import engines, model, plan, report, state
from ansible_collections.sophia.platform.plugins.module_utils._canary import series as counters
from ansible_collections.sophia.platform.plugins.module_utils._canary.engines import Counts, Evidence
from ansible_collections.sophia.platform.plugins.module_utils._canary.model import COUNTER_RATIO, MEAN, OK, Metric, Reading, Settings, Stage
from ansible_collections.sophia.platform.plugins.module_utils._canary.series import Series, Track
from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput, StateConflict

ERRORS = Metric("errors", COUNTER_RATIO, "requests_total", 'requests_total{status="500"}', ratio=2.0)
SETTINGS = Settings(metrics=(ERRORS,), canary='v="2"', baseline='v="1"', stages=(5, 50))


def settings(*metrics, **changes):
    return replace(SETTINGS, **({"metrics": metrics} if metrics else {}), **changes)


def stage(counts, percent=5, origin=0):
    return Stage(percent, origin, tuple((Reading(OK, Counts(*map(float, item))),) for item in counts))


# Engines

def pmf(n, p):
    return [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]


@pytest.mark.parametrize("burst", [1, 2, 5])
@pytest.mark.parametrize(("n0", "n1", "ratio"), [(80, 20, 1.0), (95, 5, 2.0), (50, 50, 2.0)])
def test_bets_are_fair_whatever_the_bursts(n0, n1, ratio, burst):
    """Given the causes of a bin, each lands in the canary with probability theta: the expected factor is at most 1."""
    theta = engines.share(Counts(n0, 0, n1, 0), ratio)
    for causes in (1, 2, 4):
        for bet in (engines.worse, engines.better, engines.worse_mean):
            factors = [bet(Counts(n0, burst * (causes - j), n1, burst * j), ratio) for j in range(causes + 1)]
            for column in zip(*factors, strict=True):
                assert math.fsum(p * math.exp(f) for p, f in zip(pmf(causes, theta), column, strict=True)) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("burst", [1, 2, 5])
@pytest.mark.parametrize("bet", [engines.worse_capped, engines.better_capped])
def test_capped_bets_are_fair_up_to_the_largest_burst(burst, bet):
    theta = engines.share(Counts(80, 0, 20, 0), 2.0)
    for causes in (1, 2, 4):
        factors = [bet(Counts(80, burst * (causes - j), 20, burst * j), 2.0, 5.0) for j in range(causes + 1)]
        for column in zip(*factors, strict=True):
            assert math.fsum(p * math.exp(f) for p, f in zip(pmf(causes, theta), column, strict=True)) <= 1 + 1e-12


def test_limit_bets_are_fair():
    n, limit = 40, 0.1
    outcomes = list(enumerate(pmf(n, limit)))
    for column in zip(*(engines.above(n, k, limit) for k, _p in outcomes), strict=True):
        assert math.fsum(p * math.exp(f) for (_k, p), f in zip(outcomes, column, strict=True)) == pytest.approx(1.0)
    for column in zip(*(engines.below(n, k, limit, 1.0) for k, _p in outcomes), strict=True):
        assert math.fsum(p * math.exp(f) for (_k, p), f in zip(outcomes, column, strict=True)) <= 1 + 1e-12


@patience(deadline=None)
@given(st.tuples(*[st.floats(0, 1e6)] * 4), st.floats(0.1, 20), st.floats(0.5, 100))
def test_factors_are_finite_whatever_was_seen(values, ratio, largest):
    seen = Counts(*values)
    for factors in (
        engines.worse(seen, ratio), engines.better(seen, ratio), engines.worse_mean(seen, ratio), engines.worse_capped(seen, ratio, largest),
        engines.better_capped(seen, ratio, largest), engines.above(seen.n1, seen.k1, 0.01), engines.below(seen.n1, seen.k1, 0.01, largest),
    ):
        assert all(math.isfinite(factor) for factor in factors)


def test_a_bin_without_one_arm_is_no_evidence():
    for bet in (engines.worse, engines.better, engines.worse_mean):
        assert set(bet(Counts(100, 5, 0, 0), 2.0)) == {0.0}
        assert set(bet(Counts(0, 0, 100, 5), 2.0)) == {0.0}


def test_evidence_starts_at_one_and_is_a_mean():
    evidence = Evidence()
    assert evidence.log == 0.0
    evidence.add([math.log(3.0), math.log(1.0)])
    assert math.exp(evidence.log) == pytest.approx(2.0)


# Counters into bins

steps = st.lists(st.tuples(st.floats(0.5, 20), st.integers(0, 50), st.booleans()), min_size=1, max_size=40)


def counter(moves):
    """Return samples of a counter and what it really counted since the first one: (gap, gain, reset before it)."""
    time, value, samples, truth = 1000.0, 7.0, [(1000.0, 7.0)], []
    for gap, gain, reset in moves:
        time += gap
        # A reset is only visible if the counter ends up lower.
        value = float(gain) if reset and gain < value else value + gain
        samples.append((time, value))
        truth.append((time, float(gain)))
    return samples, truth


@patience(deadline=None)
@given(steps)
def test_bins_add_up_to_what_was_counted_across_resets(moves):
    samples, truth = counter(moves)
    edges = list(range(1000, int(samples[-1][0]) + 16, 15))
    part = counters.increases([Series({"a": "b"}, samples)], Track(), [], edges, 60, False)
    assert sum(part.increase) == pytest.approx(sum(gain for _time, gain in truth))
    for index, (low, high) in enumerate(itertools.pairwise(edges)):
        assert part.increase[index] == pytest.approx(sum(gain for time, gain in truth if low < time <= high))


@patience(deadline=None)
@given(steps, st.lists(st.integers(1, 30), max_size=6), st.sets(st.integers(0, 39), max_size=3))
def test_reading_in_pieces_gives_the_same_bins(moves, cuts, broken):
    samples, _truth = counter(moves)
    samples = [(time, math.nan if index in broken else value) for index, (time, value) in enumerate(samples)]
    edges = list(range(1000, int(samples[-1][0]) + 16, 15))
    scraped = [time for time, _value in samples]
    whole = counters.increases([Series({"a": "b"}, samples)], Track(), scraped, edges, 60, False)
    track, increase, status = Track(), [], []
    bounds = [0, *sorted({cut for cut in cuts if cut < len(edges) - 1}), len(edges) - 1]
    for low, high in itertools.pairwise(bounds):
        known = [Series({"a": "b"}, [sample for sample in samples if edges[low] - (300 if low == 0 else 0) <= sample[0] <= edges[high]])]
        part = counters.increases(known, track, counters.times(known, track), edges[low : high + 1], 60, False)
        increase += part.increase
        status += part.status
    assert increase == list(whole.increase)
    assert status == list(whole.status)


def test_a_series_born_under_observation_counts_from_zero():
    edges = [0, 15, 30]
    born = [Series({"s": "500"}, [(20.0, 3.0), (29.0, 4.0)])]
    assert counters.increases(born, Track(), [5.0, 20.0], edges, 60, False).increase == (0.0, 4.0)
    # Nothing was scraped before: these three may be of last year.
    assert counters.increases(born, Track(), [20.0], edges, 60, False).increase == (0.0, 1.0)
    assert counters.increases(born, Track(), [5.0, 20.0], edges, 10, False).increase == (0.0, 1.0)


def test_status_of_bins():
    edges = [0, 15, 30, 45, 60]
    one = Series({"a": "1"}, [(10.0, 1.0), (25.0, math.nan), (40.0, 5.0)])
    part = counters.increases([one], Track(), [], edges, 18, False)
    assert part.status == ("ok", "nan", "ok", "stale")
    assert part.increase == (0.0, 0.0, 4.0, 0.0)
    two = Series({"a": "2"}, [(10.0, 1.0)])
    assert counters.increases([one, two], Track(), [], edges, 100, False).status[0] == "several_series"
    assert counters.increases([one, two], Track(), [], edges, 100, True).status[0] == "ok"
    assert counters.increases([], Track(), [], edges, 18, False).status == ("no_data",) * 4
    negative = Series({"a": "1"}, [(10.0, -1.0)])
    assert counters.increases([negative], Track(), [], [0, 15], 18, False).status == ("nan",)


@pytest.mark.parametrize(("selector", "arm", "whole"), [
    ("up", 'v="2"', 'up{v="2"}'),
    ('up{job="a", }', '{v="2"}', 'up{job="a",v="2"}'),
    (' up { job = "}{" } ', 'v="2"', 'up{job = "}{",v="2"}'),
])
def test_arms_narrow_selectors(selector, arm, whole):
    assert counters.narrow(selector, arm) == whole


@pytest.mark.parametrize("selector", ["rate(up[5m])", "a + b", "", '{job="a"}', "up[5m]"])
def test_expressions_are_refused(selector):
    with pytest.raises(InvalidInput):
        counters.split(selector)


def test_labels_of_a_selector_are_not_looked_for_in_strings():
    assert counters.labels_of('m{a="b=1",c=~"d!=\\"e=2",f!~"x"}') == {"a", "c", "f"}


def test_an_absent_counter_of_errors_means_zero_only_where_it_could_exist():
    total = [Series({"__name__": "requests_total", "status": "200"}, [])]
    assert counters.absent_means_zero(ERRORS, total, ever_seen=False)
    misspelt = replace(ERRORS, part='requests_total{statsu="500"}')
    assert not counters.absent_means_zero(misspelt, total, ever_seen=False)
    other = replace(ERRORS, part="errors_total")
    assert not counters.absent_means_zero(other, total, ever_seen=False)
    assert counters.absent_means_zero(other, total, ever_seen=True)
    assert counters.absent_means_zero(replace(other, absent_is_zero=True), total, ever_seen=False)


# The fold

def test_an_equal_canary_is_promoted_and_a_bad_one_rolled_back():
    good = plan.judge(SETTINGS, [stage([(600, 3, 150, 1), (600, 4, 150, 0)] * 60)])
    bad = plan.judge(SETTINGS, [stage([(600, 3, 150, 3), (600, 3, 150, 4)] * 60)])
    assert (good.verdict, bad.verdict) == ("promote", "rollback")
    assert bad.reason == "errors: the canary's 0.0225 is worse than the baseline's 0.005" or bad.reason.startswith("errors: the canary's 0.02")
    assert bad.looks < good.looks


bins = st.lists(
    st.tuples(st.integers(0, 500), st.integers(0, 12), st.integers(0, 200), st.integers(0, 12), st.sampled_from(["ok"] * 9 + ["nan", "stale", "no_traffic"])),
    max_size=80,
)


@patience(deadline=None)
@given(bins, bins, st.lists(st.integers(0, 80), max_size=5))
def test_looking_on_the_way_changes_nothing(first, second, looks):
    """A final verdict is the same for any looks, and nothing but a promotion of the stage can follow a hold."""
    changed = settings(replace(ERRORS, limit=0.02, floor=0.01), no_data_grace=45)

    def made(rows, percent):
        return Stage(percent, 0, tuple((Reading(status, Counts(*map(float, (n0, min(k0, n0), n1, min(k1, n1))))),) for n0, k0, n1, k1, status in rows))

    whole = [made(first, 5), made(second, 50)]
    end = plan.judge(changed, whole)
    gate = plan.Gate(changed)
    memory = state.Memory("c")
    for part in whole:
        gate.begin(part)
        memory.stages.append(Stage(part.percent, part.origin))
        last = 0
        for cut in [*sorted({min(look, len(part.bins)) for look in looks}), len(part.bins)]:
            for readings in part.bins[last:cut]:
                gate.add(readings)
            memory.stages[-1] = replace(part, bins=part.bins[:cut])
            last = cut
            seen = gate.judge()
            # Resumed from what was written down, it says the same.
            resumed = state.load(state.dump(memory), "c")
            assert plan.judge(changed, resumed.stages) == seen
            if seen.verdict == "rollback":
                assert end.verdict == "rollback"
                assert end.reason == seen.reason
    assert gate.judge() == end


@patience(deadline=None)
@given(st.lists(st.sampled_from(["nan", "stale", "partial", "no_data", "several_series", "no_traffic"]), min_size=1, max_size=600))
def test_bad_data_never_promotes_nor_rolls_back(statuses):
    rows = tuple((Reading(status, Counts(600.0, 0.0, 150.0, 150.0), "why"),) for status in statuses)
    judged = plan.judge(SETTINGS, [Stage(5, 0, rows)])
    assert judged.verdict in ("hold", "no_data", "no_traffic", "inconclusive")


def test_a_gap_is_reported_and_then_forgotten():
    fine = (Reading(OK, Counts(1200.0, 6.0, 300.0, 1.0)),)
    gone = (Reading("stale", reason="canary: no fresh sample for all requests"),)
    rows = [fine] * 5 + [gone] * 20
    judged = plan.judge(SETTINGS, [Stage(5, 0, tuple(rows))])
    assert judged.verdict == "no_data"
    assert judged.reason == "errors: canary: no fresh sample for all requests"
    assert judged.findings[0].data_status == "stale"
    assert plan.judge(SETTINGS, [Stage(5, 0, (*rows, fine))]).verdict == "hold"
    assert plan.judge(SETTINGS, [Stage(5, 0, (*rows, *[fine] * 200))]).verdict == "promote"


def test_a_canary_without_requests_is_a_fault_of_the_routing():
    idle = (Reading("no_traffic", Counts(100.0, 1.0, 0.0, 0.0), "canary: no requests"),)
    assert plan.judge(SETTINGS, [Stage(5, 0, (idle,) * 3)]).verdict == "hold"
    assert plan.judge(SETTINGS, [Stage(5, 0, (idle,) * 4)]).verdict == "no_traffic"
    alone = settings(replace(ERRORS, ratio=None, limit=0.01), baseline=None)
    idle = (Reading("no_traffic", Counts(0.0, 0.0, 0.0, 0.0), "canary: no requests"),)
    assert plan.judge(alone, [Stage(5, 0, (idle,) * 19)]).verdict == "hold"
    assert plan.judge(alone, [Stage(5, 0, (idle,) * 20)]).verdict == "no_traffic"


def test_too_few_requests_hold_and_time_ends_it():
    few = settings(max_duration=1500)
    judged = plan.judge(few, [stage([(4, 0, 1, 0)] * 99)])
    assert (judged.verdict, judged.findings[0].data_status) == ("hold", "too_few")
    assert plan.judge(few, [stage([(4, 0, 1, 0)] * 100)]).verdict == "inconclusive"
    # What comes after the end of the stage's time is not looked at.
    assert plan.judge(few, [stage([(4, 0, 1, 0)] * 100 + [(600, 0, 150, 150)] * 50)]).verdict == "inconclusive"


def test_promotion_needs_every_metric_and_rollback_only_one():
    cost = Metric("cost", MEAN, "n", "s", ratio=1.5, largest=1.0)
    two = settings(ERRORS, cost)
    good, dear = (600.0, 12.0, 150.0, 3.0), (600.0, 12.0, 150.0, 6.0)
    rows = [(Reading(OK, Counts(600.0, 3.0, 150.0, k)),) for k in (1.0, 0.0)] * 100

    def judged(values):
        return plan.judge(two, [Stage(5, 0, tuple((*row, Reading(OK, Counts(*values))) for row in rows))])

    assert judged(good).verdict == "promote"
    assert judged(dear).verdict == "rollback"
    assert judged(dear).reason == "cost: the canary's 0.04 is worse than the baseline's 0.02"


def test_below_the_floor_no_ratio_matters_and_above_the_limit_no_ratio_helps():
    limited = settings(replace(ERRORS, limit=0.02, floor=0.01, largest=1.0), max_duration=3600)
    worse_but_good = [(6000, 3, 1500, 3), (6000, 3, 1500, 2)] * 60
    assert plan.judge(SETTINGS, [stage(worse_but_good)]).verdict == "rollback"
    assert plan.judge(limited, [stage(worse_but_good)]).verdict == "promote"
    both_bad = [(600, 24, 150, 6)] * 200
    judged = plan.judge(limited, [stage(both_bad)])
    assert (judged.verdict, judged.reason) == ("rollback", "errors: the canary's 0.04 is above the limit of 0.02")


def test_evidence_against_is_carried_over_and_a_good_record_is_no_shield():
    mildly = [(600, 3, 150, 1), (600, 3, 150, 2)] * 3
    alone = plan.judge(SETTINGS, [stage(mildly, 50)])
    carried = plan.judge(SETTINGS, [stage(mildly, 5), stage(mildly, 50)])
    assert carried.log_rollback > alone.log_rollback
    good = stage([(600, 3, 150, 1), (600, 4, 150, 0)] * 60, 5)
    turned = plan.judge(SETTINGS, [good, stage([(300, 2, 300, 8)] * 40, 50)])
    fresh = plan.judge(SETTINGS, [stage([(300, 2, 300, 8)] * 40, 5)])
    assert turned.verdict == "rollback"
    assert turned.looks <= fresh.looks + 4


def test_rollback_is_final_for_the_whole_rollout():
    bad = stage([(600, 3, 150, 15)] * 60, 5)
    assert plan.judge(SETTINGS, [bad, stage([(600, 3, 150, 0)] * 200, 50)]).verdict == "rollback"


def test_interval_holds_the_ratio():
    seen = stage([(600, 3, 150, 1), (600, 4, 150, 0), (600, 3, 150, 1)] * 100)
    low, high = plan.interval(SETTINGS, ERRORS, seen)
    assert low < (2 / 450) / (10 / 1800) < high
    assert 0.5 < low < 0.8 < high < 1
    assert plan.interval(SETTINGS, ERRORS, Stage(5, 0)) == (None, None)


# State

@patience(deadline=None)
@given(st.binary(min_size=1, max_size=3), st.integers(0, 10**6))
def test_a_damaged_state_is_refused(junk, at):
    memory = state.Memory("c", [stage([(600, 3, 150, 1)] * 3)], {"canary up": Track({"k": (1.5, 2.0), "n": (2.5, math.nan)})}, 45, None)
    text = state.dump(memory).encode()
    at %= len(text) - 1
    damaged = text[:at] + junk + text[at + len(junk) :]
    try:
        again = state.load(damaged.decode("utf-8", "replace"), "c")
    except StateConflict:
        return
    # Only a change that changes nothing may pass.
    assert state.dump(again) == state.dump(memory)


def test_a_state_comes_back_as_it_was(tmp_path):
    memory = state.Memory("c", [stage([(600, 0.1 + 0.2, 150, 1)] * 3)], {"canary up": Track({"k": (1.5, 2.0)})}, 45, 1.25)
    path = tmp_path / "state.json"
    state.write(str(path), state.dump(memory))
    assert state.read(str(path), "c") == memory
    assert state.read(str(tmp_path / "none"), "c") is None
    assert [item.name for item in tmp_path.iterdir()] == ["state.json"]
    with pytest.raises(StateConflict, match="another configuration"):
        state.read(str(path), "d")
    with pytest.raises(StateConflict, match="cannot be written"):
        state.write(str(tmp_path / "no" / "state.json"), "")


def test_a_failed_write_leaves_the_old_state(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    path.write_text("old")
    monkeypatch.setattr(state.os, "fsync", lambda _fd: (item for item in ()).throw(OSError("disk full")))
    with pytest.raises(StateConflict, match="disk full"):
        state.write(str(path), "new")
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["state.json"]


def test_every_setting_is_in_the_digest():
    digests = {SETTINGS.digest()}
    for name, value in (("canary", "x"), ("baseline", None), ("stages", (5,)), ("bin", 30), ("alpha_rollback", 0.01), ("sum_series", True)):
        digests.add(settings(**{name: value}).digest())
    for name, value in (("ratio", 3.0), ("limit", 0.1), ("part", "x"), ("bursts", "any"), ("largest", 7.0)):
        digests.add(settings(replace(ERRORS, **{name: value})).digest())
    assert len(digests) == 12


# Options

SPEC = {"name": "m", "kind": "counter_ratio", "bad": "b", "total": "t", "ratio": 2.0, "tolerance": 1.0}


def test_defaults_of_a_metric():
    made = model.metric({**SPEC, "limit": 0.02}, True)
    assert (made.floor, made.largest, made.bursts) == (0.01, 5.0, "alike")
    assert model.metric({**SPEC, "limit": 0.02}, False).ratio is None
    mean = model.metric({**SPEC, "kind": "mean", "sum": "s", "count": "c", "limit": 0.1}, True)
    assert (mean.total, mean.part, mean.largest) == ("c", "s", 5.0)


@pytest.mark.parametrize("threshold", [2, 2.0, 0.5, 2.5])
def test_a_histogram_is_read_with_either_spelling_of_the_bound(threshold):
    made = model.metric({**SPEC, "kind": "histogram_slow", "histogram": 'h{a="b"}', "threshold": threshold}, True)
    bounds = "2|2.0" if threshold == 2 else str(threshold)
    assert made.total == 'h_count{a="b"}'
    assert made.part == f'h_bucket{{a="b",le=~"{bounds}"}}'


@pytest.mark.parametrize("changes", [
    {"ratio": 1.0}, {"ratio": -1.0}, {"limit": 0.0}, {"limit": math.nan}, {"compare": False}, {"bad": None},
    {"kind": "histogram_slow"}, {"kind": "mean", "sum": "s", "count": "c"},
])
def test_metrics_that_cannot_be_judged_are_refused(changes):
    with pytest.raises(InvalidInput):
        model.metric({**SPEC, **changes}, True)


@pytest.mark.parametrize("changes", [{"metrics": (ERRORS, ERRORS)}, {"alpha_promote": 0.0}, {"bin": 0}, {"stages": ()}, {"stages": (5, 5)}])
def test_settings_that_contradict_themselves_are_refused(changes):
    with pytest.raises(InvalidInput):
        model.check(replace(SETTINGS, **changes))


# Reports

@pytest.mark.parametrize("rows", [[], [(600, 3, 150, 1), (600, 4, 150, 0)] * 60, [(600, 3, 150, 9)] * 60, [(600, 0, 150, 0)] * 5000])
def test_reports_are_well_formed(rows):
    odd = settings(replace(ERRORS, name='a|b <"&>'))
    seen = stage(rows)
    judged = plan.judge(odd, [seen])
    verdict = report.result(odd, [seen], judged)
    assert json.loads(json.dumps(verdict, allow_nan=False)) == verdict
    suite = ElementTree.fromstring(report.junit(verdict))
    assert len(suite) == int(suite.get("tests")) == 2
    assert (suite.find("testcase[@name='verdict']/failure") is not None) == (judged.verdict in ("rollback", "inconclusive"))
    plot = ElementTree.fromstring(report.svg(verdict, judged.trace))
    assert len(plot.findall("{http://www.w3.org/2000/svg}polyline")) == 2
    assert f"# Canary at 5 %: {judged.verdict}" in report.markdown(verdict)
    assert 'a\\|b <"&>' in report.markdown(verdict)
    assert report.svg(verdict, judged.trace) == report.svg(verdict, plan.judge(odd, [seen]).trace)
