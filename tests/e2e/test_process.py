# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers come and go without a refused request: upgrade, failed upgrade, a worker's sudden death, drain."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.bed import Bed

QUESTION = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "Say something."}]}


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    bed = Bed(tmp_path)
    bed.start_sandbox("--latency-scale", "0.05")
    bed.start_gateway()
    yield bed
    bed.close()


def workers(bed: Bed) -> list[int]:
    status = json.loads((bed.folder / "state" / "gateway.json").read_text())
    found: list[int] = status["workers"]
    return found


def upgrade(bed: Bed) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sophia", "upgrade", "--config", str(bed.config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


class Load:
    """Requests from some kept-alive connections until told to stop."""

    def __init__(self, bed: Bed, key: str, streams: bool = False) -> None:
        self.bed = bed
        self.key = key
        self.body = QUESTION | {"stream": streams}
        self.ending = threading.Event()
        self.answered = 0
        self.failures: list[str] = []

    def _client(self) -> None:
        with httpx.Client(timeout=60, headers={"authorization": f"Bearer {self.key}"}) as client:
            while not self.ending.is_set():
                try:
                    answer = client.post(f"{self.bed.url}/v1/chat/completions", json=self.body)
                    whole = answer.status_code == 200 and (not self.body["stream"] or "[DONE]" in answer.text)
                    if not whole:
                        self.failures.append(f"{answer.status_code}: {answer.text[-200:]}")
                    self.answered += 1
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))

    @contextmanager
    def running(self) -> Iterator[Load]:
        threads = [threading.Thread(target=self._client) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self.ending.set()
            for thread in threads:
                thread.join()


@pytest.mark.parametrize("streams", [False, True])
def test_upgrade_under_load_refuses_nothing(bed: Bed, streams: bool) -> None:
    key = bed.tenant("acme")
    before = workers(bed)
    with Load(bed, key, streams).running() as load:
        for _ in range(2):
            time.sleep(0.5)
            result = upgrade(bed)
            assert result.returncode == 0, result.stderr
        time.sleep(0.5)
    assert load.failures == []
    assert load.answered > 10
    assert set(workers(bed)).isdisjoint(before)


def test_a_failed_upgrade_leaves_the_old_worker_serving(bed: Bed) -> None:
    key = bed.tenant("acme")
    before = workers(bed)
    good = bed.config.read_text()
    bed.config.write_text(good + "models_file: missing.yml\n")
    with Load(bed, key).running() as load:
        result = upgrade(bed)
    bed.config.write_text(good)
    assert result.returncode != 0
    assert load.failures == []
    assert workers(bed) == before


def test_a_killed_worker_is_replaced_and_no_connection_refused(bed: Bed) -> None:
    key = bed.tenant("acme")
    for _ in range(2):
        (pid,) = workers(bed)
        os.kill(pid, signal.SIGKILL)
        answer = httpx.post(
            f"{bed.url}/v1/chat/completions", json=QUESTION, headers={"authorization": f"Bearer {key}"}, timeout=60
        )
        assert answer.status_code == 200
    assert workers(bed) != [pid]


def test_drain_finishes_streams_and_exits_zero(bed: Bed) -> None:
    key = bed.tenant("acme")
    body = QUESTION | {"stream": True, "max_tokens": 200}
    headers = {"authorization": f"Bearer {key}"}
    with httpx.stream("POST", f"{bed.url}/v1/chat/completions", json=body, headers=headers, timeout=60) as answer:
        pieces = answer.iter_text()
        text = next(pieces)
        assert bed.gateway is not None
        bed.gateway.terminate()
        text += "".join(pieces)
    assert text.rstrip().endswith("[DONE]")
    assert bed.gateway.wait(timeout=60) == 0
    assert not (bed.folder / "state" / "gateway.json").exists()


def test_the_parents_death_ends_its_workers(bed: Bed) -> None:
    assert bed.gateway is not None
    (pid,) = workers(bed)
    os.kill(bed.gateway.pid, signal.SIGKILL)
    bed.gateway.wait()
    end = time.monotonic() + 30
    while time.monotonic() < end and Path(f"/proc/{pid}").exists():
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()
    bed.start_gateway()
