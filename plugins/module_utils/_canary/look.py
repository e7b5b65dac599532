# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""One look: read what Prometheus has collected since the last one, as readings of closed bins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ansible_collections.sophia.platform.plugins.module_utils._canary.api import Prometheus
from ansible_collections.sophia.platform.plugins.module_utils._canary.model import Metric, Reading, Settings, Stage
from ansible_collections.sophia.platform.plugins.module_utils._canary.series import (
    Part,
    Series,
    Track,
    absent_means_zero,
    increases,
    narrow,
    readings,
    times,
)
from ansible_collections.sophia.platform.plugins.module_utils._canary.state import Memory

# How far before the first bin samples are looked for, so that each series has something to increase from.
LOOKBACK = 300
# How much is read at once, in seconds: a gate that resumes after hours must not ask for everything in one answer.
CHUNK = 3600


def begin(memory: Memory, settings: Settings, percent: int, start: int | None, now: float) -> bool:
    """Make ``percent`` the present stage of the memory; return whether it is a new one.

    Its bins begin at ``start``, else after the warm-up from now on, at a multiple of the bin's length.
    """
    if memory.stages and memory.stages[-1].percent == percent:
        return False
    origin = now + settings.warm_up if start is None else start
    memory.stages.append(Stage(percent, math.ceil(origin / settings.bin) * settings.bin))
    return True


def look(prometheus: Prometheus, memory: Memory, settings: Settings, now: float, lag: float) -> None:
    """Read the bins that closed at least ``lag`` seconds before ``now`` and keep them in the memory.

    Raises an :class:`ApiError`; the memory is then as it was before the chunk that failed.
    """
    while True:
        stage = memory.stages[-1]
        first = stage.origin + len(stage.bins) * settings.bin
        closed = min(math.floor((now - lag - first) / settings.bin), settings.max_bins - len(stage.bins), max(1, CHUNK // settings.bin))
        if closed < 1:
            return
        edges = [first + index * settings.bin for index in range(closed + 1)]
        seen = _read(prometheus, memory, settings, edges)
        memory.stages[-1] = replace(stage, bins=stage.bins + tuple(seen))
        memory.cursor = edges[-1]


def _read(prometheus: Prometheus, memory: Memory, settings: Settings, edges: Sequence[int]) -> list[tuple[Reading, ...]]:
    start = edges[0] - LOOKBACK
    if memory.cursor is not None and memory.cursor > start:
        start = memory.cursor
    # Everything is fetched before anything is remembered: a failed query leaves no half a bin behind.
    answers: dict[str, list[Series]] = {}
    for arm, matchers in _arms(settings):
        for metric in settings.metrics:
            for selector in (metric.total, metric.part):
                name = f"{arm} {selector}"
                if name not in answers:
                    answers[name] = prometheus.samples(narrow(selector, matchers), start, edges[-1])
    parts: dict[str, Part] = {}
    columns: list[tuple[Reading, ...]] = []
    alive = {name: times(found, memory.tracks.get(name, Track())) for name, found in answers.items()}
    for metric in settings.metrics:
        for arm, _matchers in _arms(settings):
            for selector in (metric.total, metric.part):
                name = f"{arm} {selector}"
                if name not in parts:
                    track = memory.tracks.setdefault(name, Track())
                    scraped = alive[f"{arm} {metric.total}"]
                    parts[name] = increases(answers[name], track, scraped, edges, settings.stale_after, settings.sum_series)
        columns.append(_column(metric, settings, memory, parts, answers))
    return [tuple(column[index] for column in columns) for index in range(len(edges) - 1)]


def _column(
    metric: Metric, settings: Settings, memory: Memory, parts: dict[str, Part], answers: dict[str, list[Series]]
) -> tuple[Reading, ...]:
    """Return one metric's readings, one a bin."""
    arms = [arm for arm, _matchers in _arms(settings)]
    seen = {arm: (parts[f"{arm} {metric.total}"], parts[f"{arm} {metric.part}"]) for arm in arms}
    ever = any(memory.tracks[f"{arm} {metric.part}"].last for arm in arms)
    labelled = [series for arm in arms for series in answers[f"{arm} {metric.total}"]]
    zero = absent_means_zero(metric, labelled, ever)
    return readings(metric, seen.get("baseline"), seen["canary"], (zero, zero))


def _arms(settings: Settings) -> list[tuple[str, str]]:
    arms = [("canary", settings.canary)]
    return arms if settings.baseline is None else [("baseline", settings.baseline), *arms]
