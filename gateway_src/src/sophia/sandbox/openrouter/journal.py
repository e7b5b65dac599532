# SPDX-License-Identifier: GPL-3.0-or-later
"""The append-only state file: one record a line.

A record is written before the answer that it belongs to, with one `write` and no `fsync`: it survives the end of the
process, not of the machine. A torn last line, left by a kill in the middle of a write, is cut off at the next start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from .records import Record

__all__ = ["Journal"]


class Journal:
    """An open state file. Without a path it keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._encoder = msgspec.json.Encoder()

    def read(self) -> Iterator[Record]:
        """The records so far; then opens the file. Raises `msgspec.DecodeError` for a line that is no record."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        decoder = msgspec.json.Decoder(Record)
        whole = 0
        if self._path.exists():
            with self._path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    yield decoder.decode(line)
                    whole += len(line)
            os.truncate(self._path, whole)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._file = os.fdopen(descriptor, "wb", buffering=0)

    def write(self, record: Record) -> None:
        """Append one record."""
        if self._file is not None:
            self._file.write(self._encoder.encode(record) + b"\n")

    def close(self) -> None:
        """Close the file; writing after that is an error of the caller."""
        if self._file is not None:
            self._file.close()
            self._file = None
