# SPDX-License-Identifier: GPL-3.0-or-later
"""Running programs, and waiting for facts."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from .errors import CommandFailed, NotReady

__all__ = ["output", "run", "succeeds", "wait_for"]

_LINES = 20

Argument = str | Path


def _environment(environ: Mapping[str, str] | None) -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C.UTF-8", **(environ or {})}


def output(*argv: Argument, stdin: str | None = None, environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a program and return what it wrote to stdout.

    Raises CommandFailed with its last lines where it ends with an error or does not exist.
    """
    command = [str(argument) for argument in argv]
    try:
        done = subprocess.run(
            command, input=stdin if stdin is not None else "", capture_output=True, text=True, check=False,
            env=_environment(environ), cwd=cwd,
        )
    except OSError as error:
        raise CommandFailed(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-_LINES:]
        raise CommandFailed("\n".join([f"{' '.join(command[:6])} ended with {done.returncode}:", *last]))
    return done.stdout


def run(*argv: Argument, stdin: str | None = None, environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
    """As `output`, where nothing it writes is wanted."""
    output(*argv, stdin=stdin, environ=environ, cwd=cwd)


def succeeds(*argv: Argument) -> bool:
    """Whether a program ends well."""
    try:
        output(*argv)
    except CommandFailed:
        return False
    return True


def wait_for(what: str, ready: Callable[[], bool], seconds: float, pause: float = 0.2) -> None:
    """Ask `ready` until it says yes; NotReady names `what` where it does not in `seconds`."""
    limit = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > limit:
            raise NotReady(f"{what}: not ready after {seconds:.0f} s")
        time.sleep(pause)

