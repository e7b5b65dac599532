# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that stay: started once, found again by their id's file, all in one cgroup so that none can be forgotten."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from . import cgroups
from .errors import NotReady

__all__ = ["Daemon", "stop_all"]

_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Daemon:
    """A program that stays. `run` and `logs` are folders; `namespace` is a network namespace's name."""

    name: str
    argv: tuple[str, ...]
    run: Path
    logs: Path
    namespace: str

    @property
    def _pid_file(self) -> Path:
        return self.run / f"{self.name}.pid"

    @property
    def log(self) -> Path:
        return self.logs / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """The process id where it runs; an id that another program got since then, or a zombie's, does not count."""
        try:
            pid = int(self._pid_file.read_text())
            # proc(5): the state follows the command in parentheses, which may hold parentheses itself.
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, ValueError):
            return None
        return pid if state != "Z" and cgroups.holds(pid) else None

    def start(self) -> bool:
        """Start it where it does not run; say whether that was needed."""
        if self.pid is not None:
            return False
        for folder in (self.run, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        # nsenter executes the program in its own place, so the id stays. `ip netns exec` would hide /sys/fs/cgroup.
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.namespace}", *self.argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, cwd="/",
            )
        cgroups.adopt(process.pid)
        self._pid_file.write_text(f"{process.pid}\n")
        return True

    def check(self) -> None:
        """NotReady, with its last lines, where it has ended."""
        if self.pid is None:
            lines = self.log.read_text(errors="replace").splitlines()[-10:] if self.log.exists() else []
            raise NotReady("\n".join([f"{self.name} has ended; {self.log}:", *lines]))

    def stop(self) -> None:
        """Ask it to end, then make it."""
        if (pid := self.pid) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            limit = time.monotonic() + _STOP_SECONDS
            while self.pid is not None and time.monotonic() < limit:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
                time.sleep(0.05)
            if self.pid is not None:
                os.kill(pid, signal.SIGKILL)
        self._pid_file.unlink(missing_ok=True)


def stop_all(seconds: float = 20.0) -> None:
    """Kill whatever is left in the bed's cgroups: daemons, shims, containers."""
    limit = time.monotonic() + seconds
    while pids := cgroups.members():
        if time.monotonic() > limit:
            raise NotReady(f"processes that do not end: {sorted(pids)}")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
