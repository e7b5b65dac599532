# SPDX-License-Identifier: GPL-3.0-or-later
"""Server-sent events, as a stream of bytes becomes them (WHATWG HTML, "Server-sent events").

Only what is needed to relay: an event's raw bytes are kept, so that what is not understood passes unchanged.
"""

from __future__ import annotations

import msgspec

__all__ = ["Event", "Parser", "encode"]

_MAX_EVENT = 8 * 1024 * 1024


class Event(msgspec.Struct, frozen=True):
    """One event: its raw bytes with the blank line, its `data` (lines joined by a newline), its `event` name.

    A comment (keep-alive) has `data` None.
    """

    raw: bytes
    data: bytes | None
    name: str | None = None


class Parser:
    """Cuts arriving chunks into events; an event may be spread over any number of chunks."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[Event]:
        """The events completed by `chunk`.

        Raises:
            ValueError: an event grows beyond 8 MiB.
        """
        data = self._rest + chunk if self._rest else chunk
        if b"\r" in data:
            data, held = (data[:-1], b"\r") if data.endswith(b"\r") else (data, b"")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
        *blocks, self._rest = data.split(b"\n\n")
        if len(self._rest) > _MAX_EVENT:
            raise ValueError("an event is larger than 8 MiB")
        return [_event(block) for block in blocks if block.strip(b"\n")]

    @property
    def unfinished(self) -> bool:
        """Whether the bytes so far end inside an event."""
        return bool(self._rest.strip())


def _event(block: bytes) -> Event:
    if block.startswith(b"data: ") and b"\n" not in block:
        return Event(block + b"\n\n", block[6:])
    data: list[bytes] = []
    name: str | None = None
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
    return Event(block + b"\n\n", b"\n".join(data) if data else None, name)


def encode(data: bytes, name: str | None = None) -> bytes:
    """An event on the wire; `data` must hold no line break (as JSON does not)."""
    if name is None:
        return b"data: " + data + b"\n\n"
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
