# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Look, judge, and wait for more, until there is a verdict or no more time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ansible_collections.sophia.platform.plugins.module_utils._canary.api import Prometheus
from ansible_collections.sophia.platform.plugins.module_utils._canary.look import begin, look
from ansible_collections.sophia.platform.plugins.module_utils._canary.model import (
    HOLD,
    NO_DATA,
    QUERY_ERROR,
    Judgement,
    Settings,
    Stage,
)
from ansible_collections.sophia.platform.plugins.module_utils._canary.plan import Gate
from ansible_collections.sophia.platform.plugins.module_utils._canary.state import Memory
from ansible_collections.sophia.platform.plugins.module_utils._errors import ApiError, InvalidInput, StateConflict


@dataclass(frozen=True)
class Pace:
    """When to look: ``poll`` and ``lag`` in seconds; without ``wait`` there is one look."""

    wait: bool
    poll: float
    lag: float


def watch(
    prometheus: Prometheus,
    memory: Memory,
    settings: Settings,
    percent: int,
    start: int | None,
    pace: Pace,
    wall: Callable[[], float],
    sleep: Callable[[float], None],
    keep: Callable[[Judgement], None],
) -> Judgement:
    """Return the verdict on a stage; ``keep`` is called after each look, with the memory up to date.

    A server that does not answer is waited for, up to the grace for missing data, and then ``no_data``. Raises an
    :class:`ApiError` that waiting cannot mend, :class:`InvalidInput` for a stage that is not one of the rollout's,
    :class:`StateConflict` for one that it has left behind.
    """
    gate = _resumed(memory, settings, percent)
    while True:
        trouble = None
        if not (gate.rolled_back or (gate.decided and memory.stages[-1].percent == percent)):
            trouble = _look(prometheus, memory, settings, percent, start, pace.lag, gate)
        if trouble is None:
            memory.unreachable_since = None
            judgement = gate.judge()
        else:
            judgement = _unreachable(memory, settings, percent, gate, trouble, wall())
        keep(judgement)
        if judgement.verdict != HOLD or not pace.wait:
            return judgement
        sleep(pace.poll)


def _resumed(memory: Memory, settings: Settings, percent: int) -> Gate:
    """Return a gate that has taken in all that is remembered."""
    if percent not in settings.stages:
        raise InvalidInput(f"stage {percent} is not one of the stages {', '.join(map(str, settings.stages))}")
    left = [stage.percent for stage in memory.stages[:-1]]
    if percent in left:
        raise StateConflict(f"the rollout is at {memory.stages[-1].percent} % already: stage {percent} is over", code="stage_over")
    gate = Gate(settings)
    for stage in memory.stages:
        gate.begin(stage)
        for readings in stage.bins:
            gate.add(readings)
    return gate


def _look(
    prometheus: Prometheus, memory: Memory, settings: Settings, percent: int, start: int | None, lag: float, gate: Gate
) -> ApiError | None:
    """Take in what is new; return the error where the server did not answer and may do so later."""
    fed: int | None = None
    try:
        now = prometheus.now()
        if begin(memory, settings, percent, start, now):
            gate.begin(memory.stages[-1])
        fed = len(memory.stages[-1].bins)
        look(prometheus, memory, settings, now, lag)
    except ApiError as error:
        if not (error.retryable or error.ambiguous):
            raise
        return error
    finally:
        # What was read before a failure is as good as any.
        if memory.stages and memory.stages[-1].percent == percent and fed is not None:
            for readings in memory.stages[-1].bins[fed:]:
                gate.add(readings)
    return None


def _unreachable(memory: Memory, settings: Settings, percent: int, gate: Gate, error: ApiError, now: float) -> Judgement:
    """Return hold, or no_data once the grace is over, with what was known before."""
    if memory.unreachable_since is None:
        memory.unreachable_since = now
    if not memory.stages or memory.stages[-1].percent != percent:
        gate = Gate(settings)
        gate.begin(Stage(percent, int(now)))
    known = gate.judge()
    over = now - memory.unreachable_since >= settings.no_data_grace
    findings = tuple(replace(item, data_status=QUERY_ERROR, reason=error.message) for item in known.findings)
    return replace(known, verdict=NO_DATA if over else HOLD, reason=error.message, findings=findings)
