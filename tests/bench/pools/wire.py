# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in behind the modules' HTTP client without a network: answers by a function call, time by a counter."""

from __future__ import annotations

import io
import random
import urllib.parse
from dataclasses import dataclass, field

from ansible_collections.sophia.platform.plugins.module_utils._http import Backoff, Client
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.api import Api
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.model import TAG_ORDINAL, TAG_POOL
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.pace import Pace
from sophia.sandbox.lambda_cloud import API_KEY, Cloud, Request

TIMEOUT = 30.0
# Seconds that a request takes at most on its way, and as long back: less than the pace leaves.
LATENCY = 0.08


class Killed(BaseException):
    """The process is gone: nothing may catch it."""


@dataclass
class Clock:
    """Seconds since the epoch; only sleeping and waiting for the network move it."""

    now: float = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


class Reply(io.BytesIO):
    """What ``Request.open`` returns."""

    length = None

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        super().__init__(body)
        self.status = status
        self.headers = headers


@dataclass
class Wire:
    """Takes the place of the client's opener; kills the caller at a request, before or after it was served.

    After every launch it looks at what the pool has, whatever the caller was told.
    """

    cloud: Cloud
    clock: Clock
    random: random.Random
    pool: str
    budget: int | None = None
    ceiling: int | None = None
    kill_at: int | None = None
    kill_after: bool = False
    calls: int = 0
    broken: list[str] = field(default_factory=list)

    def open(self, method: str, url: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> Reply:
        self.calls += 1
        doomed = self.calls == self.kill_at
        if doomed and not self.kill_after:
            raise Killed
        self.clock.now += self.random.uniform(0, LATENCY)
        parts = urllib.parse.urlsplit(url)
        answer = self.cloud.handle(
            Request(
                method,
                parts.path,
                dict(urllib.parse.parse_qsl(parts.query)),
                {name.lower(): value for name, value in (headers or {}).items()},
                data or b"",
            )
        )
        if parts.path.endswith("/launch"):
            self._judge()
        if doomed:
            raise Killed
        if answer.delivery == "never":
            self.clock.now += TIMEOUT
            raise TimeoutError
        if answer.delivery == "reset":
            raise ConnectionResetError
        self.clock.now += self.random.uniform(0, LATENCY) + answer.delay
        return Reply(answer.status, dict(answer.headers), answer.body)

    def hosts(self) -> list:
        """The pool's instances that are paid for."""
        return [item for item in self.cloud.state.alive() if {"key": TAG_POOL, "value": self.pool} in item.tags]

    def _judge(self) -> None:
        hosts = self.hosts()
        ordinals = [next(tag["value"] for tag in host.tags if tag["key"] == TAG_ORDINAL) for host in hosts]
        if len(set(ordinals)) != len(ordinals):
            self.broken.append(f"two hosts for one ordinal: {sorted(host.name for host in hosts)}")
        cents = sum(host.kind.cents for host in hosts)
        if self.budget is not None and cents > self.budget:
            self.broken.append(f"over budget: {cents} > {self.budget} cents/h")
        if self.ceiling is not None and any(host.kind.cents > self.ceiling for host in hosts):
            self.broken.append("over the ceiling")


def api_of(wire: Wire, folder) -> Api:
    """Return the modules' API over a wire, with the pace of the vendor's limits and the modules' margin."""
    clock = wire.clock
    client = Client(
        "http://127.0.0.1:9/api/v1",
        headers={"Authorization": f"Bearer {API_KEY}"},
        secrets=[API_KEY],
        timeout=TIMEOUT,
        backoff=Backoff(tries=1),
        clock=clock,
        wall=clock,
        sleep=clock.sleep,
    )
    client._opener = wire
    pace = Pace(folder, request_interval=1.1, launch_interval=12.5, wall=clock, sleep=clock.sleep)
    return Api(client, pace, tries=6, sleep=clock.sleep, rng=wire.random.random)
