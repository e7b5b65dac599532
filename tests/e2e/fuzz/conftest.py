# SPDX-License-Identifier: GPL-3.0-or-later
"""A gateway for rubbish, and what has to hold of whatever it answers."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, settings

from tests.e2e.bed import Bed

# How long an example takes says nothing on a busy machine, and the gateway is meant to be one for all examples.
settings.register_profile(
    "gateway",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
settings.load_profile("gateway")

TIMEOUT = 30.0


@dataclass
class Target:
    """A gateway under fuzz. `sent` is every body so far, `statuses` what came of them."""

    bed: Bed
    key: str
    client: httpx.Client
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def post(self, path: str, body: bytes) -> httpx.Response:
        """Send a body. The answer must be honest: no 5xx, JSON or events, an error with a message, in time."""
        self.sent.append((path, body))
        answer = self.client.post(path, content=body)
        self.statuses[answer.status_code] += 1
        assert answer.status_code < 500, f"{path} answered {answer.status_code} {answer.text[:400]} to {body[:1500]!r}"
        if answer.status_code != 200:
            assert answer.json()["error"]["message"], body[:1500]
        elif answer.headers["content-type"].startswith("application/json"):
            answer.json()
        else:
            assert whole(answer.text), f"{path}: not a whole stream: {answer.text[-600:]} to {body[:1500]!r}"
        return answer

    @property
    def workers(self) -> list[int]:
        """The workers' process identifiers."""
        found: list[int] = json.loads((self.bed.folder / "state" / "gateway.json").read_text())["workers"]
        return found

    def resident(self) -> int:
        """What the workers hold in memory (bytes)."""
        total = 0
        for pid in self.workers:
            status = Path(f"/proc/{pid}/status").read_text()
            total += int(re.findall(r"^VmRSS:\s+(\d+) kB", status, re.M)[0]) * 1024
        return total

    def billed(self) -> int:
        """How many generations have cost anything."""
        return sum(generation["cost_nano"] > 0 for generation in self.bed.truth()["generations"])


def whole(text: str) -> bool:
    """Whether a stream came to the end that its API has."""
    return any(
        mark in text for mark in ("[DONE]", "message_stop", "response.completed", "response.incomplete", '"done":')
    )


@pytest.fixture(scope="session")
def target(open_bed: Callable[..., Bed]) -> Iterator[Target]:
    """One gateway for all examples; at the end the same workers must still run, and nothing have failed inside."""
    bed = open_bed(
        "fuzz", max_body=1_000_000, cache={"enabled": False}, dispatch={"breaker_failures": 1_000_000, "deadline": 20.0}
    )
    key = bed.tenant("fuzz")
    with httpx.Client(base_url=bed.url, headers={"authorization": f"Bearer {key}"}, timeout=TIMEOUT) as client:
        target = Target(bed, key, client)
        workers = target.workers
        yield target
        assert target.workers == workers, "a worker died"
    log = (bed.folder / "gateway.log").read_text()
    assert "Traceback" not in log, log[-4000:]
    assert target.billed() <= target.statuses[200] + target.statuses[504], "something refused was billed"
