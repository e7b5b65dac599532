# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests at a steady rate, beside whatever else a test does."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable

import aiohttp

__all__ = ["Steady"]

Ask = Callable[[aiohttp.ClientSession, int], Awaitable[None]]


class Steady:
    """Calls `ask(session, number)` `rate` times a second in a thread of its own, whether or not the calls before are over.

    Where the machine cannot keep up, no more than `most` are open and no more are begun; `reached` is the rate that came of it.
    """

    def __init__(self, ask: Ask, rate: float, most: float = math.inf) -> None:
        self._ask, self._rate, self._most = ask, rate, most
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send()), daemon=True)
        self.reached = 0.0

    def __enter__(self) -> Steady:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    async def _send(self) -> None:
        begun = started = time.monotonic()
        sent = 0
        pending: set[asyncio.Future[None]] = set()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as session:
            while not self._ended.is_set():
                while sent < (time.monotonic() - started) * self._rate and len(pending) < self._most:
                    task = asyncio.ensure_future(self._ask(session, sent))
                    pending.add(task)
                    task.add_done_callback(pending.discard)
                    sent += 1
                await asyncio.sleep(0.005)
                if len(pending) >= self._most:
                    started = max(started, time.monotonic() - sent / self._rate)
            self.reached = sent / (time.monotonic() - begun)
            await asyncio.gather(*pending)
