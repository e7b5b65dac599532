# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""From what was seen to a verdict: a pure fold over the bins, the same however often one looks on the way.

Rollback: the e-values of all tests (a metric worse than the baseline, a metric above its limit) are averaged, and
within a test those of the stages begun so far, each with an equal part of the whole from its first bin on. An average
of e-processes is an e-process, so the probability of ever rolling back a canary that is no worse is at most
``alpha_rollback`` over all looks, metrics and stages together, and a canary that turns bad at 50 % is not shielded by
its good record at 5 %.

Promotion: every metric must pass on the evidence of the present stage alone, each at ``alpha_promote``; a canary that
is too bad in one metric is promoted from a stage with at most that probability, however many metrics there are.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence

from ansible_collections.sophia.platform.plugins.module_utils._canary import engines
from ansible_collections.sophia.platform.plugins.module_utils._canary.engines import Counts, Evidence, log_mean
from ansible_collections.sophia.platform.plugins.module_utils._canary.model import (
    ANY,
    HOLD,
    IDLE,
    INCONCLUSIVE,
    MEAN,
    NO_DATA,
    NO_TRAFFIC,
    NOTHING,
    OK,
    PROMOTE,
    ROLLBACK,
    TOO_FEW,
    Finding,
    Judgement,
    Metric,
    Reading,
    Settings,
    Stage,
)

# Errors are declared proven at this part of the error allowed. What is kept back pays for bursts that lie across the
# edge of a bin, where the theory allows nothing; docs/canary.md has the measured rates.
SLACK = 0.75
# How many canary requests the baseline's traffic must have promised before none at all is a fault of the routing:
# with Poisson traffic none come with probability exp(-20).
PROMISED = 20.0


class Sums:
    """What a stage has shown of one metric in all, and how far its errors are from independent."""

    def __init__(self) -> None:
        self.counts = NOTHING
        self.bins: dict[str, int] = {}
        self._pearson = 0.0
        self._terms = 0

    def add(self, reading: Reading) -> None:
        self.bins[reading.status] = self.bins.get(reading.status, 0) + 1
        if reading.status not in (OK, IDLE):
            return
        seen = reading.counts
        self.counts = Counts(*map(operator.add, self.counts, seen))
        total = seen.k0 + seen.k1
        theta = engines.share(seen, self._ratio())
        if total > 0 and 0 < theta < 1:
            self._pearson += (seen.k1 - theta * total) ** 2 / (total * theta * (1 - theta))
            self._terms += 1

    def _ratio(self) -> float:
        rates = rate(self.counts.k0, self.counts.n0), rate(self.counts.k1, self.counts.n1)
        return rates[1] / rates[0] if rates[0] and rates[1] else 1.0

    @property
    def phi(self) -> float | None:
        """Return the dispersion: about 1 where errors are independent, about the mean burst where they are not."""
        return self._pearson / self._terms if self._terms else None


def bet_worse(metric: Metric, seen: Counts, ratio: float) -> list[float]:
    """Return the bets that this metric's canary is more than ``ratio`` times the baseline."""
    if metric.kind == MEAN:
        return engines.worse_mean(seen, ratio)
    if metric.bursts == ANY:
        return engines.worse_capped(seen, ratio, metric.largest)
    return engines.worse(seen, ratio)


def bet_better(metric: Metric, seen: Counts, ratio: float) -> list[float]:
    """Return the bets that this metric's canary is less than ``ratio`` times the baseline."""
    if metric.kind == MEAN or metric.bursts == ANY:
        return engines.better_capped(seen, ratio, metric.largest)
    return engines.better(seen, ratio)


class Rollback:
    """The evidence that one metric's canary is worse, from the beginning of each stage to now."""

    def __init__(self, metric: Metric, stages: int) -> None:
        self._metric = metric
        self._stages = stages
        self._started: list[tuple[Evidence, Evidence, Evidence]] = []

    def begin(self) -> None:
        """Start another stage: its evidence begins at 1, the earlier ones go on."""
        self._started.append((Evidence(), Evidence(), Evidence()))

    def add(self, seen: Counts) -> None:
        metric = self._metric
        ratio = None
        if metric.ratio is not None:
            ratio = bet_worse(metric, seen, metric.tolerance)
        floor = engines.above(seen.n1, seen.k1, metric.floor) if metric.floor is not None else None
        limit = engines.above(seen.n1, seen.k1, metric.limit) if metric.limit is not None else None
        for worse, over_floor, over_limit in self._started:
            if ratio is not None:
                worse.add(ratio)
            if floor is not None:
                over_floor.add(floor)
            if limit is not None:
                over_limit.add(limit)

    def logs(self) -> list[float]:
        """Return the log e-value of each test: worse than the baseline and above the floor; above the limit."""
        metric = self._metric
        tests = []
        if metric.ratio is not None:
            # The smaller of two e-values is an e-value of "one of the two nulls holds".
            tests.append(
                self._over_stages([
                    worse.log if metric.floor is None else min(worse.log, over_floor.log)
                    for worse, over_floor, _limit in self._started
                ])
            )
        if metric.limit is not None:
            tests.append(self._over_stages([over_limit.log for _worse, _floor, over_limit in self._started]))
        return tests

    def _over_stages(self, logs: list[float]) -> float:
        # A stage not begun yet has an e-value of 1.
        return log_mean(logs + [0.0] * (self._stages - len(logs)))


class Promotion:
    """The evidence of the present stage that one metric's canary is good."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._better = Evidence()
        self._floor = Evidence()
        self._limit = Evidence()

    def add(self, seen: Counts) -> None:
        metric = self._metric
        if metric.ratio is not None:
            self._better.add(bet_better(metric, seen, metric.ratio))
        if metric.floor is not None:
            self._floor.add(engines.below(seen.n1, seen.k1, metric.floor, metric.largest))
        if metric.limit is not None:
            self._limit.add(engines.below(seen.n1, seen.k1, metric.limit, metric.largest))

    def log(self) -> float:
        """Return the log e-value of all that must be shown: near enough to the baseline, and below the limit."""
        needed = []
        if self._metric.ratio is not None:
            # Either suffices, so they share: too bad means above the ratio and above the floor at once.
            needed.append(
                self._better.log if self._metric.floor is None else log_mean([self._better.log, self._floor.log])
            )
        if self._metric.limit is not None:
            needed.append(self._limit.log)
        return min(needed)

    @property
    def log_limit(self) -> float | None:
        return self._limit.log if self._metric.limit is not None else None


class Gate:
    """Judges a rollout bin by bin; knows nothing of time or of looks."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._bar_rollback = -math.log(SLACK * settings.alpha_rollback)
        self._bar_promote = -math.log(SLACK * settings.alpha_promote)
        self._rollback = [Rollback(item, len(settings.stages)) for item in settings.metrics]
        self._best = [0.0] * len(settings.metrics)
        self._rolled_back: str | None = None
        self._promoted = False
        self._decided_at: int | None = None
        self._trace: list[tuple[int, float, float]] = []
        self._log_rollback = 0.0

    def begin(self, stage: Stage) -> None:
        """Go on to a stage."""
        self._stage = stage
        self._promoted = False
        self._fed = 0
        self._last: tuple[Reading, ...] = ()
        self._silent = 0
        self._promised = [0.0] * len(self.settings.metrics)
        self._idle = 0
        self._sums = [Sums() for _item in self.settings.metrics]
        self._promotion = [Promotion(item) for item in self.settings.metrics]
        self._promote_logs = [0.0] * len(self.settings.metrics)
        if self._rolled_back is None:
            self._decided_at = None
        for item in self._rollback:
            item.begin()

    def add(self, readings: Sequence[Reading]) -> None:
        """Take in one bin. After a decision, or when the stage's time is over, nothing is taken in any more."""
        if self.decided or self._fed >= self.settings.max_bins:
            return
        self._fed += 1
        self._last = tuple(readings)
        end = self._stage.origin + self._fed * self.settings.bin
        for index, reading in enumerate(readings):
            self._sums[index].add(reading)
            if reading.status == OK:
                self._rollback[index].add(reading.counts)
                self._promotion[index].add(reading.counts)
                self._promote_logs[index] = self._promotion[index].log()
        self._mind_silence(readings)
        tests = [item.logs() for item in self._rollback]
        self._best = [max([best, *tests[index]]) for index, best in enumerate(self._best)]
        self._log_rollback = log_mean([log for logs in tests for log in logs])
        self._trace.append((end, self._log_rollback, min(self._promote_logs)))
        if self._log_rollback >= self._bar_rollback:
            worst = max(range(len(tests)), key=lambda index: max(tests[index]))
            self._rolled_back = f"{self.settings.metrics[worst].name}: {self._blame(worst, tests[worst])}"
            self._decided_at = end
        elif self._good_enough(readings):
            self._promoted = True
            self._decided_at = end

    @property
    def rolled_back(self) -> bool:
        return self._rolled_back is not None

    @property
    def decided(self) -> bool:
        """Say whether this stage needs no more data."""
        return self.rolled_back or self._promoted

    def judge(self) -> Judgement:
        """Return the verdict on what has been taken in so far."""
        verdict, reason = self._verdict()
        return Judgement(
            verdict=verdict,
            reason=reason,
            stage=self._stage.percent,
            looks=self._fed,
            findings=tuple(self._finding(index) for index in range(len(self.settings.metrics))),
            log_rollback=self._log_rollback,
            trace=tuple(self._trace),
            decided_at=self._decided_at,
        )

    def _mind_silence(self, readings: Sequence[Reading]) -> None:
        """Count for how long there has been no data, and how many requests the canary should have had by now."""
        self._silent = self._silent + 1 if any(item.status not in (OK, IDLE) for item in readings) else 0
        self._idle = self._idle + 1 if any(item.status == IDLE for item in readings) else 0
        percent = min(self._stage.percent, 99)
        for index, item in enumerate(readings):
            if item.status == IDLE:
                self._promised[index] += item.counts.n0 * percent / (100 - percent)
            elif item.counts.n1 > 0:
                self._promised[index] = 0.0

    def _good_enough(self, readings: Sequence[Reading]) -> bool:
        settings = self.settings
        return (
            all(item.status == OK for item in readings)
            and all(item.counts.n1 >= settings.min_requests for item in self._sums)
            and all(item.bins[OK] >= settings.min_bins for item in self._sums)
            and all(log >= self._bar_promote for log in self._promote_logs)
        )

    def _blame(self, index: int, logs: list[float]) -> str:
        metric, seen = self.settings.metrics[index], self._sums[index].counts
        rates = [rate(seen.k0, seen.n0), rate(seen.k1, seen.n1)]
        if metric.limit is not None and logs[-1] == max(logs):
            return f"the canary's {_show(rates[1])} is above the limit of {metric.limit:g}"
        return f"the canary's {_show(rates[1])} is worse than the baseline's {_show(rates[0])}"

    def _verdict(self) -> tuple[str, str]:
        settings = self.settings
        if self._rolled_back is not None:
            return ROLLBACK, self._rolled_back
        if self._promoted:
            return PROMOTE, "every metric was shown to be good enough"
        if self._silent and self._silent * settings.bin >= settings.no_data_grace:
            names = [item.name for item in settings.metrics]
            return NO_DATA, "; ".join(f"{names[index]}: {item.reason}" for index, item in enumerate(self._last) if item.reason)
        if max(self._promised) >= PROMISED or (
            settings.baseline is None and self._idle and self._idle * settings.bin >= settings.no_data_grace
        ):
            return NO_TRAFFIC, "the canary gets no requests although it should"
        if self._fed >= settings.max_bins:
            return INCONCLUSIVE, f"neither was shown within {settings.max_duration} s"
        return HOLD, "not enough evidence yet"

    def _finding(self, index: int) -> Finding:
        sums, settings = self._sums[index], self.settings
        status, reason = (self._last[index].status, self._last[index].reason) if self._last else (TOO_FEW, "no bin yet")
        if self.decided:
            pass
        elif status == OK and sums.counts.n1 < settings.min_requests:
            status, reason = TOO_FEW, f"{sums.counts.n1:g} of {settings.min_requests} canary requests"
        elif status == OK and sums.bins[OK] < settings.min_bins:
            status, reason = TOO_FEW, f"{sums.bins[OK]} of {settings.min_bins} bins"
        log_promote = self._promote_logs[index]
        return Finding(
            name=settings.metrics[index].name,
            data_status=status,
            reason=reason,
            counts=sums.counts,
            log_rollback=max(self._rollback[index].logs()),
            log_rollback_max=self._best[index],
            log_promote=log_promote,
            log_limit=self._promotion[index].log_limit,
            passed=log_promote >= self._bar_promote,
            phi=sums.phi,
            bins=dict(sorted(sums.bins.items())),
        )


def judge(settings: Settings, stages: Sequence[Stage]) -> Judgement:
    """Return the verdict on all the stages seen so far; the last one is the present one."""
    gate = Gate(settings)
    for stage in stages:
        gate.begin(stage)
        for readings in stage.bins:
            gate.add(readings)
    return gate.judge()


def interval(settings: Settings, metric: Metric, stage: Stage) -> tuple[float | None, float | None]:
    """Return bounds on the ratio of canary to baseline that hold at every look together.

    A ratio is ruled out from below or above once the bets against it have ever been worth ``2 / alpha``; None where
    nothing in [1/64, 64] could be ruled out. ``alpha`` is the smaller of the two allowed.
    """
    if metric.ratio is None:
        return None, None
    needed_log = -math.log(min(settings.alpha_rollback, settings.alpha_promote) / 2)
    bins = [item.counts for item in _of(stage, settings.metrics.index(metric)) if item.status == OK]

    def above(ratio: float) -> bool:
        return _ever([bet_worse(metric, seen, ratio) for seen in bins], needed_log)

    def below(ratio: float) -> bool:
        return _ever([bet_better(metric, seen, ratio) for seen in bins], needed_log)

    return _edge(above, 1 / 64, 64.0), _edge(below, 64.0, 1 / 64)


def rate(k: float, n: float) -> float | None:
    """Return ``k / n``, None where nothing was seen."""
    return k / n if n > 0 else None


def _of(stage: Stage, index: int) -> list[Reading]:
    return [readings[index] for readings in stage.bins]


def _ever(factors: list[list[float]], needed_log: float) -> bool:
    evidence = Evidence()
    for item in factors:
        evidence.add(item)
        if evidence.log >= needed_log:
            return True
    return False


def _edge(ruled_out: Callable[[float], bool], sure: float, unsure: float) -> float | None:
    """Return the ratio, between one that is ruled out and one that is not, where that changes (within 2 %)."""
    if not ruled_out(sure):
        return None
    if ruled_out(unsure):
        return unsure
    while abs(math.log(sure / unsure)) > 0.02:
        middle = math.sqrt(sure * unsure)
        if ruled_out(middle):
            sure = middle
        else:
            unsure = middle
    return sure


def _show(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.4g}"
