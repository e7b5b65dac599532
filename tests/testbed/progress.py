# SPDX-License-Identifier: GPL-3.0-or-later
"""One line for each step, with the time it took and the time since the start."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

__all__ = ["Progress"]


class Progress:
    """Steps may overlap (addons are made ready side by side); each writes whole lines."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._started = time.monotonic()
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        with self._lock:
            print(f"[{time.monotonic() - self._started:6.1f} s] {text}", file=self._stream, flush=True)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A step that is over before a person wonders: only its end is told."""
        started = time.monotonic()
        try:
            yield
        except BaseException:
            self.say(f"{name}: failed after {time.monotonic() - started:.1f} s")
            raise
        self.say(f"{name}: {time.monotonic() - started:.1f} s")

    @contextmanager
    def slow_step(self, name: str) -> Iterator[None]:
        """A step that takes long enough for a person to want to know that it began."""
        self.say(f"{name} …")
        with self.step(name):
            yield
