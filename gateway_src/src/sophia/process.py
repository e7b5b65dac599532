# SPDX-License-Identifier: GPL-3.0-or-later
"""The parent of a service: holds its listening sockets and runs its workers.

Because the sockets belong to the parent, no connection is refused while workers come and go: they wait in the
backlog. The parent starts the *same command path* again for an upgrade (behind a ``current`` symbolic link that is
the new release), and touches the old worker only once the new one is warm::

    new worker: warm ──► old worker: SIGTERM, stops accepting, says "draining" ──► new worker: go ──► ready

so embedded stores never have two writers that accept requests. A worker that dies is started again at once.

- SIGTERM, SIGINT: workers drain (streams finish, up to their deadline), then exit 0
- SIGHUP: workers reload their configuration
- SIGUSR2: upgrade; the outcome goes to the status file, for `sophia upgrade`
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["CONTROL", "SOCKETS", "WARM_TIMEOUT", "Control", "Parent", "bind", "command_of", "read_status"]

_LOG = logging.getLogger(__name__)

SOCKETS = "SOPHIA_SOCKETS"
CONTROL = "SOPHIA_CONTROL"
WARM_TIMEOUT = 60.0
_BACKOFF = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
_GRACE = 10.0


def bind(address: str) -> socket.socket:
    """A listening TCP socket for ``HOST:PORT``.

    Raises:
        OSError: the address is in use or not ours.
    """
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), int(port)))
    except OSError:
        listener.close()
        raise
    listener.listen(4096)
    listener.set_inheritable(True)
    return listener


class Control:
    """The worker's end of the line to its parent; without a parent it does nothing."""

    def __init__(self) -> None:
        descriptor = os.environ.pop(CONTROL, None)
        self._line = socket.socket(fileno=int(descriptor)) if descriptor else None

    def say(self, word: str) -> None:
        """Tell the parent how far this worker is."""
        if self._line is not None:
            with suppress(OSError):
                self._line.send(word.encode() + b"\n")

    async def may_serve(self) -> None:
        """Say that this worker is warm, and wait until the parent lets it accept requests."""
        if self._line is None:
            return
        self.say("warm")
        self._line.setblocking(False)
        answer = await asyncio.get_running_loop().sock_recv(self._line, 16)
        if not answer:
            raise SystemExit(1)

    async def orphaned(self) -> None:
        """Return when the parent is gone; never without one."""
        if self._line is None:
            await asyncio.Event().wait()
            return
        loop = asyncio.get_running_loop()
        while await loop.sock_recv(self._line, 16):
            continue


@dataclass
class _Worker:
    process: asyncio.subprocess.Process
    line: socket.socket
    started: float
    words: set[str] = field(default_factory=set)
    told: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: bool = False

    async def listen(self) -> None:
        """Collect the worker's words until it is gone."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = await loop.sock_recv(self.line, 256)
            except OSError:
                data = b""
            if not data:
                self.words.add("gone")
                self.told.set()
                return
            self.words.update(data.decode().split())
            self.told.set()

    async def until(self, word: str, timeout: float) -> bool:
        """Whether the worker has said the word before it went, and before `timeout` seconds have passed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while word not in self.words and "gone" not in self.words:
                    self.told.clear()
                    await self.told.wait()
        return word in self.words

    def go(self) -> None:
        with suppress(OSError):
            self.line.send(b"go\n")

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)


class Parent:
    """Runs `command` in `count` workers over the given listening sockets.

    `status_file` always tells the state: pids, since when, and the last upgrade with its outcome.
    """

    def __init__(
        self,
        command: Sequence[str],
        listeners: Sequence[socket.socket],
        status_file: Path,
        *,
        count: int = 1,
        drain: float = 30.0,
    ) -> None:
        self._command = list(command)
        self._listeners = list(listeners)
        self._status_file = status_file
        self._count = count
        self._drain = drain
        self._workers: list[_Worker] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._upgrading = asyncio.Lock()
        self._upgrades = 0
        self._upgrade_error: str | None = None

    async def run(self) -> int:
        """Run until told to stop; the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._forward(signal.SIGHUP))
        loop.add_signal_handler(signal.SIGUSR2, lambda: self._background(self._upgrade()))
        for index in range(self._count):
            worker = await self._spawn(index)
            if not await worker.until("warm", WARM_TIMEOUT):
                return await self._failed_start(worker)
            self._serve(worker, index)
        self._write_status()
        await self._stop.wait()
        return await self._shut_down()

    async def _failed_start(self, worker: _Worker) -> int:
        worker.signal(signal.SIGKILL)
        status = await worker.process.wait()
        await self._shut_down()
        return status if status > 0 else 1

    async def _spawn(self, index: int) -> _Worker:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        descriptors = [listener.fileno() for listener in self._listeners]
        environment = os.environ | {
            SOCKETS: ",".join(map(str, descriptors)),
            CONTROL: str(theirs.fileno()),
            "SOPHIA_WORKER": str(index),
        }
        process = await asyncio.create_subprocess_exec(
            *self._command, env=environment, pass_fds=[*descriptors, theirs.fileno()]
        )
        theirs.close()
        worker = _Worker(process, ours, time.monotonic())
        self._background(worker.listen())
        return worker

    def _serve(self, worker: _Worker, index: int) -> None:
        worker.go()
        self._workers.append(worker)
        self._background(self._watch(worker, index))

    async def _watch(self, worker: _Worker, index: int) -> None:
        """Wait for the worker's end; where it was not wanted, start another, slower if it keeps dying."""
        status = await worker.process.wait()
        if worker in self._workers:
            self._workers.remove(worker)
        worker.line.close()
        deaths = 0
        while not worker.stopping and not self._stop.is_set():
            _LOG.error("worker died", extra={"pid": worker.process.pid, "status": status, "deaths": deaths})
            deaths = 0 if time.monotonic() - worker.started > 10 else min(deaths + 1, len(_BACKOFF) - 1)
            await asyncio.sleep(_BACKOFF[deaths])
            worker = await self._spawn(index)
            if await worker.until("warm", WARM_TIMEOUT):
                self._serve(worker, index)
                break
            worker.signal(signal.SIGKILL)
            status = await worker.process.wait()
        self._write_status()

    async def _upgrade(self) -> None:
        if self._stop.is_set() or self._upgrading.locked():
            return
        async with self._upgrading:
            self._upgrade_error = None
            for index, old in enumerate(list(self._workers)):
                new = await self._spawn(index)
                if not await new.until("warm", WARM_TIMEOUT):
                    new.signal(signal.SIGKILL)
                    status = await new.process.wait()
                    self._upgrade_error = f"the new worker exited with status {status}; the old one serves on"
                    break
                self._retire(old)
                await old.until("draining", _GRACE)
                self._serve(new, index)
                if not await new.until("ready", WARM_TIMEOUT):
                    self._upgrade_error = "the new worker did not become ready"
                    break
            self._upgrades += 1
            self._write_status()

    def _retire(self, worker: _Worker) -> None:
        worker.stopping = True
        worker.signal(signal.SIGTERM)
        self._background(self._end(worker))

    async def _end(self, worker: _Worker) -> None:
        try:
            await asyncio.wait_for(worker.process.wait(), self._drain + _GRACE)
        except TimeoutError:
            worker.signal(signal.SIGKILL)

    async def _shut_down(self) -> int:
        for worker in list(self._workers):
            worker.stopping = True
            worker.signal(signal.SIGTERM)
        await asyncio.gather(*(self._end(worker) for worker in self._workers))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._status_file.unlink(missing_ok=True)
        return 0

    def _forward(self, number: int) -> None:
        for worker in self._workers:
            worker.signal(number)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _write_status(self) -> None:
        status = {
            "pid": os.getpid(),
            "workers": [worker.process.pid for worker in self._workers],
            "upgrades": self._upgrades,
            "upgrade_error": self._upgrade_error,
        }
        self._status_file.parent.mkdir(parents=True, exist_ok=True)
        part = self._status_file.with_suffix(".part")
        part.write_text(json.dumps(status), encoding="utf-8")
        part.replace(self._status_file)


def read_status(status_file: Path) -> dict[str, object] | None:
    """The parent's own account of itself, or None where none runs."""
    try:
        status: dict[str, object] = json.loads(status_file.read_text(encoding="utf-8"))
        os.kill(int(str(status["pid"])), 0)
    except (OSError, ValueError, KeyError):
        return None
    return status


def command_of(arguments: Sequence[str]) -> list[str]:
    """The command that runs this program again: the path as it was called, so that a link is followed anew."""
    program = sys.argv[0]
    if program.endswith(".py"):
        return [sys.executable, "-m", "sophia", *arguments]
    return [program, *arguments]
