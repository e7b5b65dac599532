# SPDX-License-Identifier: GPL-3.0-or-later
"""The vLLM stand-in as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

__all__ = ["SOURCE", "Vllm", "metric"]

SOURCE = Path(__file__).resolve().parents[1] / "src"


class Vllm:
    """A running stand-in. `start` again after `kill` takes the same port."""

    def __init__(self, *options: str, api_key: str = "") -> None:
        self._options = options
        self._environ = {**os.environ, "PYTHONPATH": str(SOURCE), "VLLM_API_KEY": api_key}
        self._port = 0
        self.url = ""
        self.start()

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._http = httpx.Client(verify=False, timeout=30)
        command = [sys.executable, "-m", "sophia.sandbox.vllm", "--port", str(self._port), *self._options]
        self._process = subprocess.Popen(command, env=self._environ, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("listening on "), line
        self.url = line.split()[-1]
        self._port = int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """SIGKILL."""
        self._http.close()
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def faults(self, *rules: Any) -> None:
        """Replace the rules of faults."""
        self._http.post(f"{self.url}/_sandbox/faults", json=list(rules)).raise_for_status()

    def pace(self, pace: float) -> None:
        """Set the engine's speed, 1 as configured."""
        self._http.post(f"{self.url}/_sandbox/pace", json={"pace": pace}).raise_for_status()

    def forget(self) -> None:
        """Empty the prefix cache."""
        self._http.post(f"{self.url}/reset_prefix_cache").raise_for_status()

    def reset(self) -> None:
        """No faults, the configured pace, an empty prefix cache."""
        self._http.post(f"{self.url}/_sandbox/reset").raise_for_status()

    def truth(self) -> dict[str, int]:
        """How many sequences run, wait, and were aborted."""
        answer: dict[str, int] = self._http.get(f"{self.url}/_sandbox/truth").json()
        return answer

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        return metric(self._http.get(f"{self.url}/metrics").text, name)


def metric(text: str, name: str, **labels: str) -> float:
    """The sum of the samples of that name which have these labels."""
    total = 0.0
    for line in text.splitlines():
        series, _, value = line.rpartition(" ")
        found, _, rest = series.partition("{")
        if found == name and all(f'{label}="{content}"' in rest for label, content in labels.items()):
            total += float(value)
    return total
