# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Counters as Prometheus keeps them, made into what happened in each bin. Pure: no clock, no network.

An increase belongs to the bin in which the scrape that showed it lies: nothing is interpolated, so counts stay whole
and the bins add up to what the counters counted. A counter that fell was reset and counts from 0
(prometheus.io/docs/prometheus/latest/querying/functions/#rate). A series that appears while its arm is already being
scraped was born there and counts from 0 too, unlike in ``rate()``: the first error of a pod is an error. A series that
appears after a gap only gives a starting point.
"""

from __future__ import annotations

import bisect
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.sophia.platform.plugins.module_utils._canary.engines import Counts
from ansible_collections.sophia.platform.plugins.module_utils._canary.model import (
    COUNTER_RATIO,
    HISTOGRAM_SLOW,
    IDLE,
    MISSING,
    NAN,
    OK,
    PARTIAL,
    SEVERAL,
    STALE,
    Metric,
    Reading,
)
from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput

_SELECTOR = re.compile(r"^\s*([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{(.*)\})?\s*$", re.DOTALL)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'')
_LABEL = re.compile(r"([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)")


@dataclass(frozen=True)
class Series:
    """One series: its labels and its raw samples (Unix time, value), oldest first."""

    labels: Mapping[str, str]
    samples: Sequence[tuple[float, float]]

    @property
    def key(self) -> str:
        return json.dumps(sorted(self.labels.items()), separators=(",", ":"))


@dataclass
class Track:
    """What is remembered of one selector of one arm between looks: the last sample of each series, and what was wrong
    with the data, if anything, when there last was some."""

    last: dict[str, tuple[float, float]] = field(default_factory=dict)
    trouble: str = ""

    @property
    def newest(self) -> float:
        return max((time for time, _value in self.last.values()), default=-math.inf)


@dataclass(frozen=True)
class Part:
    """What one selector of one arm showed: the increase in each bin, the state of the data in each bin, and whether a
    sample of the bin could be compared with an earlier one: only then is an increase of 0 silence."""

    increase: tuple[float, ...]
    status: tuple[str, ...]
    compared: tuple[bool, ...]


def split(selector: str) -> tuple[str, str]:
    """Return the metric's name and the matchers of a plain selector; raise InvalidInput for anything else."""
    match = _SELECTOR.match(selector)
    if not match:
        raise InvalidInput(f"not a plain series selector, name{{label=\"value\"}}: {selector}")
    return match.group(1), (match.group(2) or "").strip().rstrip(",").strip()


def narrow(selector: str, matchers: str) -> str:
    """Return ``selector`` restricted by the matchers of an arm."""
    name, own = split(selector)
    added = matchers.strip().strip("{}").strip().rstrip(",")
    return f"{name}{{{','.join(text for text in (own, added) if text)}}}"


def labels_of(selector: str) -> set[str]:
    """Return the names of the labels that a selector asks for."""
    return set(_LABEL.findall(_QUOTED.sub('""', split(selector)[1])))


def increases(
    found: Iterable[Series],
    track: Track,
    alive: Sequence[float],
    edges: Sequence[int],
    stale_after: float,
    several: bool,
) -> Part:
    """Return what the series showed between the edges, and remember their last samples in ``track``.

    ``alive`` are the times, in order, at which the arm is known to have been scraped; ``several`` says that series may
    be summed. Samples after the last edge are left for a later call, samples up to the last remembered one were used
    by an earlier call.
    """
    bins = len(edges) - 1
    total = [0.0] * bins
    compared = [False] * bins
    broken: set[int] = set()
    seen: list[float] = [track.newest]
    live: list[set[str]] = [set() for _index in range(bins)]
    for series in found:
        key = series.key
        before = track.last.get(key)
        for time, value in series.samples:
            if time > edges[-1]:
                break
            if before is not None and time <= before[0]:
                continue
            index = bisect.bisect_left(edges, time) - 1
            seen.append(time)
            if 0 <= index < bins:
                live[index].add(key)
            if not math.isfinite(value) or value < 0:
                if index >= 0:
                    broken.add(index)
                # The next good sample is compared with the last good one; the time moves on.
                before = (time, math.nan if before is None else before[1])
                continue
            gain: float | None = None
            if before is None:
                gain = value if _alive(alive, time, stale_after) else None
            elif not math.isnan(before[1]):
                gain = value - before[1] if value >= before[1] else value
            if index >= 0 and gain is not None:
                total[index] += gain
                compared[index] = True
            before = (time, value)
        if before is not None:
            track.last[key] = before
    seen.sort()
    status = []
    for index in range(bins):
        newest = seen[bisect.bisect_right(seen, edges[index + 1]) - 1]
        if live[index]:
            track.trouble = NAN if index in broken else SEVERAL if len(live[index]) > 1 and not several else ""
        if newest == -math.inf:
            status.append(MISSING)
        elif newest < edges[index + 1] - stale_after:
            status.append(STALE)
        else:
            # A bin between two scrapes says nothing new: what was wrong is still wrong.
            status.append(track.trouble or OK)
    return Part(tuple(total), tuple(status), tuple(compared))


def times(found: Iterable[Series], track: Track) -> list[float]:
    """Return, in order, when the arm was scraped, the last time known from an earlier call included."""
    known = {time for series in found for time, _value in series.samples}
    if track.last:
        known.add(track.newest)
    return sorted(known)


def absent_means_zero(metric: Metric, total: Iterable[Series], ever_seen: bool) -> bool:
    """Say whether a counter of errors that does not exist means that there were none.

    It does where such a counter has been seen in either arm, where the user says so, or where the errors are series of
    the same metric as the requests and their labels exist there. Otherwise the selector may simply be wrong.
    """
    if metric.kind != COUNTER_RATIO:
        return False
    if metric.absent_is_zero or ever_seen:
        return True
    if split(metric.part)[0] != split(metric.total)[0]:
        return False
    known = {name for series in total for name in series.labels}
    return labels_of(metric.part) <= known


def readings(
    metric: Metric,
    baseline: tuple[Part, Part] | None,
    canary: tuple[Part, Part],
    zero: tuple[bool, bool],
) -> tuple[Reading, ...]:
    """Return one reading a bin from the (total, part) of both arms; ``zero`` as :func:`absent_means_zero` says."""
    return tuple(
        _reading(metric, index, baseline, canary, zero) for index in range(len(canary[0].increase))
    )


def _reading(
    metric: Metric, index: int, baseline: tuple[Part, Part] | None, canary: tuple[Part, Part], zero: tuple[bool, bool]
) -> Reading:
    counts = []
    for arm, parts, may_be_zero in (("baseline", baseline, zero[0]), ("canary", canary, zero[1])):
        if parts is None:
            counts += [0.0, 0.0]
            continue
        total, part = parts
        if total.status[index] != OK:
            return Reading(total.status[index], reason=f"{arm}: {_WHY[total.status[index]]} for all requests")
        trouble = part.status[index]
        # A counter of errors is often born by the first error and dies with its pod: silence is no news there.
        if metric.kind == COUNTER_RATIO and may_be_zero and trouble in (MISSING, STALE):
            trouble = OK
        if trouble in (MISSING, STALE):
            return Reading(PARTIAL, reason=f"{arm}: {_WHY[trouble]} for {_PARTS[metric.kind]}")
        if trouble != OK:
            return Reading(trouble, reason=f"{arm}: {_WHY[trouble]} for {_PARTS[metric.kind]}")
        n, k = total.increase[index], part.increase[index]
        counts += [n, max(0.0, n - k) if metric.kind == HISTOGRAM_SLOW else k]
    seen = Counts(*counts)
    # Where the canary's scrape failed or came late, its requests are in a later bin's increase.
    if seen.n1 <= 0 and canary[0].compared[index] and (seen.n0 > 0 or baseline is None):
        return Reading(IDLE, seen, "canary: no requests")
    return Reading(OK, seen)


_WHY = {MISSING: "no series", STALE: "no fresh sample", NAN: "not a number", SEVERAL: "several series, not to be summed"}
_PARTS = {COUNTER_RATIO: "the bad requests", HISTOGRAM_SLOW: "the bucket of the threshold", "mean": "the sum"}


def _alive(alive: Sequence[float], time: float, stale_after: float) -> bool:
    """Say whether the arm was scraped shortly before ``time``."""
    index = bisect.bisect_left(alive, time) - 1
    return index >= 0 and alive[index] >= time - stale_after
