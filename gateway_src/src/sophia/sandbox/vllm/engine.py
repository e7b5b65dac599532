# SPDX-License-Identifier: GPL-3.0-or-later
"""The modelled engine: one batch of sequences, prefilled in order of arrival, then decoded side by side.

A sequence waits until the batch has a place and there are blocks for its prompt and its longest answer (the real engine
takes blocks as it goes, and preempts). Prefill shares one rate among all; tokens found in the prefix cache cost
nothing. Each decoding sequence has a rate of its own. Time is measured, not counted in steps, so a busy machine
changes the granularity and not the pace.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from .blocks import TOKEN_BYTES, Blocks, chain, count
from .config import Config
from .figures import Figures

__all__ = ["Engine", "Sequence"]

_STEP = 0.004


@dataclass(eq=False)
class Sequence:
    """One sequence: its prompt, and the answer that decoding will bring out."""

    prompt: bytes
    answer: bytes
    finish: str
    arrived: float = field(default_factory=time.monotonic)
    cached: int = 0
    prefilled: float = 0.0
    decoded: float = 0.0
    given: int = 0
    held: int = 0
    blocks: list[bytes] = field(default_factory=list)
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return count(self.prompt)

    @property
    def answer_tokens(self) -> int:
        """Tokens of the answer."""
        return count(self.answer)


class Engine:
    """Runs sequences; belongs to one event loop. `pace` scales its speed (a fault may slow it down)."""

    def __init__(self, config: Config, figures: Figures) -> None:
        self._config = config
        self._figures = figures
        self.blocks = Blocks(config.num_gpu_blocks)
        self.running: list[Sequence] = []
        self.waiting: deque[Sequence] = deque()
        self.pace = 1.0
        self._task: asyncio.Task[None] | None = None

    async def run(self, sequence: Sequence) -> AsyncGenerator[bytes, None]:
        """The answer, piece by piece as it is decoded. Closing the iterator early aborts the sequence."""
        self.waiting.append(sequence)
        self._admit()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="engine")
        whole = False
        try:
            while sequence.given < sequence.answer_tokens:
                await sequence.ready.wait()
                sequence.ready.clear()
                reached = min(int(sequence.decoded), sequence.answer_tokens)
                while sequence.given < reached:
                    begin = sequence.given * TOKEN_BYTES
                    sequence.given += 1
                    self._figures.token(sequence)
                    yield sequence.answer[begin : begin + TOKEN_BYTES]
            whole = True
        finally:
            self._end(sequence, whole=whole)

    def _end(self, sequence: Sequence, *, whole: bool) -> None:
        if sequence in self.running:
            self.running.remove(sequence)
            self.blocks.release(sequence.blocks, sequence.held)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self._figures.ended(sequence, sequence.finish if whole else "abort")
        self._admit()

    def _admit(self) -> None:
        """Take waiting sequences into the batch, in order, while there is room."""
        size = self._config.block_size
        while self.waiting and len(self.running) < self._config.max_num_seqs:
            sequence = self.waiting[0]
            needed = -(-(sequence.prompt_tokens + sequence.answer_tokens) // size)
            if not self.blocks.hold(needed):
                return
            self.waiting.popleft()
            sequence.held = needed
            hashes = chain(sequence.prompt, size)
            # The last token is always computed: its logits are what the first new token comes from.
            sequence.cached = min(self.blocks.cached(hashes) * size, sequence.prompt_tokens - 1)
            sequence.prefilled = float(sequence.cached)
            self.running.append(sequence)
            self._figures.admitted(sequence)

    async def _work(self) -> None:
        """Move time on for the batch until it is empty."""
        before = time.monotonic()
        while self.running or self.waiting:
            await asyncio.sleep(_STEP if self._config.tokens_per_second else 0)
            now = time.monotonic()
            self._advance((now - before) * self.pace)
            before = now

    def _advance(self, seconds: float) -> None:
        config = self._config
        budget = config.prefill_tokens_per_second * seconds if config.prefill_tokens_per_second else float("inf")
        for sequence in self.running:
            missing = sequence.prompt_tokens - sequence.prefilled
            if missing > 0:
                step = min(missing, budget)
                sequence.prefilled += step
                budget -= step
                if sequence.prefilled >= sequence.prompt_tokens:
                    # Its blocks can be found from now on, those of the answer as well: the next turn repeats them.
                    sequence.blocks = chain(sequence.prompt + sequence.answer, config.block_size)
                    self.blocks.use(sequence.blocks)
                    sequence.decoded = 1.0
                    sequence.ready.set()
                if budget <= 0:
                    break
            elif config.tokens_per_second:
                sequence.decoded += config.tokens_per_second * seconds
                sequence.ready.set()
            else:
                sequence.decoded = float(sequence.answer_tokens)
                sequence.ready.set()
