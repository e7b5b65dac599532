# SPDX-License-Identifier: GPL-3.0-or-later
"""`sophia serve router` as a process: its configuration, its signals, its logs; and the `openai` SDK through it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml

from router.conftest import MODEL, QUICK, Park
from sophia.router.settings import load
from sophia.settings import SettingsError
from standin import SOURCE, Vllm, metric


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """The router's process. `configure` writes its file anew."""

    def __init__(self, folder: Path, vllms: list[Vllm], **settings: Any) -> None:
        self.port, self.metrics_port = free_port(), free_port()
        self.folder = folder
        self.path = folder / "router.yml"
        self.log = folder / "log"
        self.settings = settings
        self.configure(vllms)
        command = [sys.executable, "-m", "sophia", "serve", "router", "--config", str(self.path)]
        environment = os.environ | {"PYTHONPATH": str(SOURCE)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30, verify=False)
        self.until(lambda: self.http.get("/health/ready").status_code == 200)

    def configure(self, vllms: list[Vllm], **settings: Any) -> None:
        given: dict[str, Any] = {
            "listen": f"127.0.0.1:{self.port}",
            "metrics_listen": f"127.0.0.1:{self.metrics_port}",
            "backends": [{"name": f"vllm-{number}", "url": vllm.url} for number, vllm in enumerate(vllms)],
            "health": {"interval": 0.1},
            "drain": 20,
        }
        self.path.write_text(yaml.safe_dump(given | self.settings | settings))

    def until(self, holds: Any) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                if holds():
                    return
            except httpx.TransportError:
                pass
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        pytest.fail(f"it does not come to hold:\n{self.log.read_text()}")

    def metrics(self) -> str:
        return self.http.get(f"http://127.0.0.1:{self.metrics_port}/metrics").text

    def close(self) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@pytest.fixture
def slow(parked: Park) -> list[Vllm]:
    return parked.take(2, "--tokens-per-second", "100", "--prefill-tokens-per-second", "0")


@pytest.fixture
def process(tmp_path: Path, slow: list[Vllm]) -> Iterator[Process]:
    made = Process(tmp_path, slow[:1])
    yield made
    made.close()


def names(process: Process) -> set[str]:
    return set(process.http.get("/health/ready").json()["backends"])


def test_a_reload_takes_backends_in_and_out_and_cuts_nothing(process: Process, slow: list[Vllm]) -> None:
    assert names(process) == {"vllm-0"}
    process.configure(slow)
    process.process.send_signal(signal.SIGHUP)
    process.until(lambda: names(process) == {"vllm-0", "vllm-1"})
    with openai.OpenAI(base_url=f"http://127.0.0.1:{process.port}/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Once"}], max_tokens=150, stream=True,
            extra_body={"ignore_eos": True},
        )  # fmt: skip
        text = next(iter(stream)).choices[0].delta.content or ""
        slow[0].pace(0.01)
        process.path.write_text("backends: nonsense\n")
        process.process.send_signal(signal.SIGHUP)
        process.until(lambda: "configuration not reloaded" in process.log.read_text())
        process.configure([], backends=[{"name": "other", "url": slow[1].url}])
        process.process.send_signal(signal.SIGHUP)
        process.until(lambda: names(process) == {"other"})
        slow[0].pace(1)
        finish = None
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            finish = chunk.choices[0].finish_reason or finish
    assert finish == "length"
    assert len(text) == 150 * 4


def test_a_reload_with_an_overflow_is_done_at_once_each_time(tmp_path: Path, slow: list[Vllm]) -> None:
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text("key-of-the-overflow")
    overflow = {"url": f"{slow[1].url}/v1", "key_file": "key", "models": {MODEL: MODEL}}
    process = Process(tmp_path, slow[:1], overflow=overflow, drain=120)
    try:
        for count in range(1, 4):
            process.process.send_signal(signal.SIGHUP)
            process.until(lambda count=count: process.log.read_text().count("configuration reloaded") == count)
        process.process.terminate()
        assert process.process.wait(timeout=60) == 0
    finally:
        process.close()


def test_sigterm_lets_what_runs_end(process: Process, slow: list[Vllm]) -> None:
    answers: list[httpx.Response] = []
    body = {"model": MODEL, "messages": [{"role": "user", "content": "A secret word"}], "ignore_eos": True}

    def ask() -> None:
        answers.append(process.http.post("/v1/chat/completions", json=body | {"max_tokens": 150}))

    slow[0].pace(0.01)
    asking = threading.Thread(target=ask)
    asking.start()
    process.until(lambda: metric(process.metrics(), "sophia_router_running") == 1)
    process.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)  # the signal is to arrive while the answer is under way
    slow[0].pace(1)
    asking.join(30)
    assert process.process.wait(timeout=30) == 0
    assert [answer.status_code for answer in answers] == [200]
    assert answers[0].json()["usage"]["completion_tokens"] == 150
    assert answers[0].headers["connection"] == "close"
    log = process.log.read_text()
    assert '"path":"/v1/chat/completions"' in log
    assert "secret word" not in log


def test_the_sdk_lists_models_and_reads_embeddings_through_it(tmp_path: Path, parked: Park) -> None:
    chat, pooling = (
        parked.take(1, *QUICK)[0],
        parked.take(1, "--runner", "pooling", "--served-model-name", "embedder")[0],
    )
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text("key-of-the-router")
    process = Process(tmp_path, [chat, pooling], key_file="key")
    try:
        url = f"http://127.0.0.1:{process.port}/v1"
        with openai.OpenAI(base_url=url, api_key="key-of-the-router", max_retries=0) as client:
            assert {model.id for model in client.models.list()} == {MODEL, "embedder"}
            assert len(client.embeddings.create(model="embedder", input=["a", "b"]).data) == 2
            answer = client.completions.create(model=MODEL, prompt="Once", max_tokens=4)
            assert answer.usage is not None
            assert answer.usage.completion_tokens == 4
        with (
            openai.OpenAI(base_url=url, api_key="wrong", max_retries=0) as stranger,
            pytest.raises(openai.AuthenticationError),
        ):
            stranger.models.list()
    finally:
        process.close()


def test_everything_that_is_wrong_with_a_configuration_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "router.yml"
    path.write_text(
        """
        listen: nowhere
        backends:
        - {name: a, url: "ftp://x"}
        - {name: a, url: "http://x", concurrency: 0, key_file: missing}
        affinity: {bound: 0.5}
        queue: {requests: 0, weights: {t: 0}}
        overflow: {url: "x", key_file: missing, models: {}}
        log_level: loud
        """
    )
    with pytest.raises(SettingsError) as caught:
        load(path)
    text = "\n".join(caught.value.problems)
    for name in (
        "listen:", "'a' is there twice", "backends.a.url", "backends.a.concurrency", "backends.a.key_file",
        "affinity.bound", "queue.requests", "queue.weights.t", "overflow.url", "overflow.key_file", "log_level",
    ):  # fmt: skip
        assert name in text
    path.write_text("backend: []\naffinity: {bound: x}\n")
    with pytest.raises(SettingsError) as caught:
        load(path)
    assert len(caught.value.problems) == 3
