# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gateway's pods follow the rate of requests: more of them under load, fewer without it. Needs KEDA (`make cluster ARGS="--with keda"`)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest

from ..e2e.load import Steady
from .load import Recorder
from .platform import Cluster, CommandFailed, Platform, playbook

# Three pods' worth of requests for the two that are there at least; processors and memory have no say.
RATE = 20.0
SCALING = {"minimum": 2, "maximum": 4, "cpu": 0, "memory": 0, "requests_per_second": 8, "interval": 5, "down_seconds": 15}
MORE, LEAST = 3, 2


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    try:
        cluster = Cluster.of()
        found = Platform.of(cluster)
        cluster("get", "crd/scaledobjects.keda.sh")
    except CommandFailed as error:
        pytest.skip(f"nothing to scale, or nothing that does it: {error}")
    stages = ("playbooks/site.yml", "--tags", "core,monitoring")
    code, output = playbook(*stages, "--extra-vars", json.dumps({"sophia_metrics_adapter": "keda", "gateway_scaling": SCALING}))
    assert code == 0, output[-6000:]
    yield found
    code, output = playbook(*stages)
    assert code == 0, output[-6000:]


def pods(platform: Platform) -> int:
    count: int = platform.cluster.get("deployment/gateway")["status"].get("readyReplicas", 0)
    return count


def seconds_until(limit: float, reached: Callable[[], bool]) -> float:
    started = time.monotonic()
    while not reached():
        assert time.monotonic() - started < limit, f"not within {limit:.0f} s"
        time.sleep(1)
    return time.monotonic() - started


def test_pods_follow_the_request_rate(platform: Platform) -> None:
    recorder = Recorder(platform, platform.key())
    seconds_until(120, lambda: pods(platform) == LEAST)
    with Steady(recorder.ask, RATE, most=RATE * 30):
        up = seconds_until(240, lambda: pods(platform) >= MORE)
    down = seconds_until(360, lambda: pods(platform) == LEAST)
    failures = [answer.failure for answer in recorder.answers() if answer.failure]
    print(f"{LEAST} to {MORE} pods after {up:.0f} s of {RATE:g} requests/s, back after {down:.0f} s without; {len(recorder.answers())} answers")
    assert failures == []
