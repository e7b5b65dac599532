# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""What a canary is judged by, what was seen, and what was concluded: plain immutable values."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._canary.engines import Counts
from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput

PROMOTE = "promote"
ROLLBACK = "rollback"
HOLD = "hold"
INCONCLUSIVE = "inconclusive"
NO_DATA = "no_data"
NO_TRAFFIC = "no_traffic"
VERDICTS = (PROMOTE, ROLLBACK, HOLD, INCONCLUSIVE, NO_DATA, NO_TRAFFIC)

# What can be wrong with the data of a metric in a bin. Only OK is evidence; nothing else ever promotes.
OK = "ok"
MISSING = "no_data"
NAN = "nan"
STALE = "stale"
PARTIAL = "partial"
SEVERAL = "several_series"
QUERY_ERROR = "query_error"
TOO_FEW = "too_few"
IDLE = "no_traffic"

COUNTER_RATIO = "counter_ratio"
HISTOGRAM_SLOW = "histogram_slow"
MEAN = "mean"
KINDS = (COUNTER_RATIO, HISTOGRAM_SLOW, MEAN)

# Whether bursts of errors are alike in both arms, so that a worse canary has more of them, or differ in any way.
ALIKE = "alike"
ANY = "any"

# What `largest` is where the user does not say. Bursts of 5 errors are safe where bursts have a geometric tail and a mean
# of 3 (5 is their size-biased mean); a request 50 times as dear as the limit on the mean is rare.
LARGEST_BURST = 5.0
LARGEST_MULTIPLE = 50.0


@dataclass(frozen=True)
class Metric:
    """One figure of merit: ``k`` per ``n``, smaller is better.

    ``ratio`` is the ratio of canary to baseline that must be ruled out before promotion (None: no comparison),
    ``tolerance`` the one up to which the canary counts as no worse, ``limit`` the absolute bound (None: none),
    ``floor`` the value below which no ratio matters, ``largest`` the most that one cause can add to ``k`` at once,
    ``bursts`` whether what comes at once is alike in both arms.
    """

    name: str
    kind: str
    total: str
    part: str
    ratio: float | None
    tolerance: float = 1.0
    limit: float | None = None
    floor: float | None = None
    largest: float = LARGEST_BURST
    bursts: str = ALIKE
    absent_is_zero: bool = False

    @property
    def tests(self) -> int:
        """Return in how many ways this metric can roll back."""
        return (self.ratio is not None) + (self.limit is not None)


@dataclass(frozen=True)
class Settings:
    """Everything that decides a verdict. Durations are whole seconds, stages are percentages."""

    metrics: tuple[Metric, ...]
    canary: str
    baseline: str | None
    stages: tuple[int, ...]
    bin: int = 15
    alpha_rollback: float = 0.05
    alpha_promote: float = 0.05
    min_requests: int = 200
    min_bins: int = 10
    warm_up: int = 60
    max_duration: int = 7200
    no_data_grace: int = 300
    stale_after: int = 60
    sum_series: bool = False

    def digest(self) -> str:
        """Return the SHA-256 of the settings, which binds a state to them."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def max_bins(self) -> int:
        return math.ceil(self.max_duration / self.bin)


NOTHING = Counts(0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Reading:
    """What one metric showed in one bin. ``counts`` are meaningful only where ``status`` is ok or no_traffic."""

    status: str
    counts: Counts = NOTHING
    reason: str = ""


@dataclass(frozen=True)
class Stage:
    """One stage: its share of traffic in percent, where its bins begin (Unix time), and what they showed.

    ``bins[i]`` covers the time from ``origin + i * bin`` to ``origin + (i + 1) * bin`` and has one reading a metric.
    """

    percent: int
    origin: int
    bins: tuple[tuple[Reading, ...], ...] = ()


@dataclass(frozen=True)
class Finding:
    """What one metric came to; ``log_*`` are logarithms of e-values."""

    name: str
    data_status: str
    reason: str
    counts: Counts
    log_rollback: float
    log_rollback_max: float
    log_promote: float
    log_limit: float | None
    passed: bool
    phi: float | None
    bins: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """The verdict and its grounds. ``trace`` holds (time, log e for rollback, least log e for promotion) a bin."""

    verdict: str
    reason: str
    stage: int
    looks: int
    findings: tuple[Finding, ...]
    log_rollback: float
    trace: tuple[tuple[int, float, float], ...]
    decided_at: int | None

    @property
    def final(self) -> bool:
        """Say whether more data of this stage cannot change the verdict."""
        return self.verdict in (PROMOTE, ROLLBACK, INCONCLUSIVE)


def metric(spec: dict[str, Any], comparing: bool) -> Metric:
    """Return the metric that a module option describes.

    Raises :class:`InvalidInput` for one that could not be judged.
    """
    name = spec["name"]
    kind = spec["kind"]
    limit = spec.get("limit")
    for key in ("ratio", "tolerance", "limit", "floor", "largest", "threshold"):
        if spec.get(key) is not None and not (math.isfinite(spec[key]) and spec[key] > 0):
            raise InvalidInput(f"metric {name}: {key} must be a positive number")
    ratio = spec["ratio"] if comparing and spec.get("compare", True) else None
    if ratio is None and limit is None:
        raise InvalidInput(f"metric {name}: without a comparison with the baseline it needs a limit")
    if ratio is not None and ratio <= spec["tolerance"]:
        raise InvalidInput(f"metric {name}: ratio must be larger than tolerance")
    largest = spec.get("largest")
    if largest is None and kind == MEAN:
        if limit is None:
            raise InvalidInput(f"metric {name}: a mean needs largest, the most that one request can add, or a limit")
        largest = LARGEST_MULTIPLE * limit
    total, part = _selectors(name, kind, spec)
    return Metric(
        name=name,
        kind=kind,
        total=total,
        part=part,
        ratio=ratio,
        tolerance=spec["tolerance"],
        limit=limit,
        # Half the limit: a canary there is good whatever the baseline does.
        floor=spec["floor"] if spec.get("floor") is not None else (limit / 2 if limit is not None else None),
        largest=LARGEST_BURST if largest is None else largest,
        bursts=spec.get("bursts") or ALIKE,
        absent_is_zero=bool(spec.get("absent_is_zero")),
    )


def check(settings: Settings) -> None:
    """Raise :class:`InvalidInput` for settings that contradict themselves."""
    if not settings.metrics:
        raise InvalidInput("there are no metrics to judge by")
    names = [item.name for item in settings.metrics]
    if len(set(names)) != len(names):
        raise InvalidInput("two metrics have the same name")
    for name in ("alpha_rollback", "alpha_promote"):
        if not 0 < getattr(settings, name) <= 0.5:
            raise InvalidInput(f"{name} must be above 0 and at most 0.5")
    for name in ("bin", "min_bins", "max_duration", "stale_after"):
        if getattr(settings, name) < 1:
            raise InvalidInput(f"{name} must be at least 1")
    for name in ("min_requests", "warm_up", "no_data_grace"):
        if getattr(settings, name) < 0:
            raise InvalidInput(f"{name} must not be negative")
    if not settings.stages or len(set(settings.stages)) != len(settings.stages):
        raise InvalidInput("stages must be different percentages")


def _selectors(name: str, kind: str, spec: dict[str, Any]) -> tuple[str, str]:
    """Return the selectors of the counter of all requests and of the part that is judged."""
    if kind == HISTOGRAM_SLOW:
        histogram, threshold = spec.get("histogram"), spec.get("threshold")
        if not histogram or threshold is None:
            raise InvalidInput(f"metric {name}: a histogram_slow needs histogram and threshold")
        base, brace, matchers = histogram.partition("{")
        inner = matchers.rpartition("}")[0] if brace else ""
        # Go writes le="2", Python and OpenMetrics write le="2.0".
        bounds = sorted({f"{threshold:g}", repr(float(threshold))})
        bucket = ",".join(text for text in (inner.strip().rstrip(","), f'le=~"{"|".join(bounds)}"') if text)
        return f"{base.strip()}_count{brace}{matchers}", f"{base.strip()}_bucket{{{bucket}}}"
    needed = ("total", "bad") if kind == COUNTER_RATIO else ("count", "sum")
    if not all(spec.get(key) for key in needed):
        raise InvalidInput(f"metric {name}: a {kind} needs {needed[0]} and {needed[1]}")
    return spec[needed[0]], spec[needed[1]]
