# SPDX-License-Identifier: GPL-3.0-or-later
"""A durable journal of spend: what is appended with `durable` is on the disk before the call returns.

One process writes one folder, which it holds by a lock that dies with it (flock(2)); a folder whose lock is free
belongs to nobody living and is taken over by whoever finds it. Records are framed as ``length | crc32 | payload``
(little-endian 32-bit each, payload MessagePack), so a tail torn by a crash or a full disk is recognised and cut.
Writers share syncs: all records that arrive while one fdatasync runs go out with the next (group commit).

::

    JournalError       the journal cannot be written; `__cause__` is the OSError
    JournalLocked      the folder belongs to a living process
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sophia.stores.model import Intent, Settlement

__all__ = ["Journal", "JournalError", "JournalLocked", "Record", "abandoned", "read", "remove"]

Record = Intent | Settlement

_FRAME = struct.Struct("<II")
_SEGMENT_BYTES = 16 * 1024 * 1024
_MAX_RECORD = 1024 * 1024
_SHARED = 16
_DELAY = 0.002


class JournalError(Exception):
    """The journal cannot be written."""


class JournalLocked(Exception):
    """The journal's folder belongs to a living process."""


class Journal:
    """The append side. Create it inside the running loop; `close` flushes and ends the writer thread."""

    def __init__(self, folder: Path, segment_bytes: int = _SEGMENT_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self._lock = _take(folder)
        self._segment_bytes = segment_bytes
        self._loop = asyncio.get_running_loop()
        self._encoder = msgspec.msgpack.Encoder()
        self._wake = threading.Condition()
        self._pending = bytearray()
        self._records = 0
        self._batch: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._wanted = False
        self._closing = False
        self._broken = False
        self._number = max((_number(path) for path in _segments(folder)), default=0) + 1
        self._size = 0
        self._file = self._open_segment()
        self._thread = threading.Thread(target=self._write_forever, name="journal", daemon=True)
        self._thread.start()

    @property
    def segment(self) -> int:
        """The number of the segment that is being written."""
        return self._number

    def append(self, record: Record, waiter: asyncio.Future[None] | None = None, *, patient: bool = False) -> None:
        """Queue a record; `waiter` is done once it is on the disk.

        Without a waiter it goes out with the next that has one, or at the next `nudge`: that saves half of all syncs.
        With `patient` it waits up to 2 ms for others to share its sync (PostgreSQL's `commit_delay`): a thread's turn
        and a sync for each record cost a busy core more than that.
        """
        payload = self._encoder.encode(record)
        with self._wake:
            self._pending += _FRAME.pack(len(payload), zlib.crc32(payload))
            self._pending += payload
            if waiter is not None:
                self._batch.append(waiter)
                if not patient or len(self._batch) >= _SHARED:
                    self._want()
                elif self._timer is None:
                    self._timer = self._loop.call_later(_DELAY, self.nudge)

    def nudge(self) -> None:
        """Write what is queued, soon."""
        self._timer = None
        with self._wake:
            if self._pending:
                self._want()

    def _want(self) -> None:
        if not self._wanted:
            self._wanted = True
            self._wake.notify()

    async def append_durable(self, record: Record, *, patient: bool = False) -> None:
        """Append a record and wait until it is on the disk.

        Raises:
            JournalError: it could not be written (disk full, I/O error); nothing may be sent upstream then.
        """
        waiter = self._loop.create_future()
        self.append(record, waiter, patient=patient)
        await waiter

    def discard(self, through: int) -> None:
        """Delete whole segments up to number `through`: everything in them has reached the ledger."""
        for path in _segments(self.folder):
            if _number(path) <= through and _number(path) < self._number:
                path.unlink(missing_ok=True)

    async def close(self, *, empty: bool = False) -> None:
        """Flush, end the writer, release the folder; `empty` says that the ledger holds everything."""
        with self._wake:
            self._closing = True
            self._wanted = bool(self._pending)
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)
        self._file.close()
        if empty and not self._broken:
            remove(self.folder)
        os.close(self._lock)

    def _open_segment(self) -> _Segment:
        return _Segment(self.folder / f"{self._number:010d}.journal")

    def _write_forever(self) -> None:
        while True:
            with self._wake:
                while not self._wanted and not self._closing:
                    self._wake.wait()
                if not self._wanted:
                    return
                data, self._pending = self._pending, bytearray()
                self._wanted = False
                batch, self._batch = self._batch, []
                full = self._size >= self._segment_bytes
                self._size = 0 if full else self._size + len(data)
                if full:
                    self._number += 1
            error = self._write(data, full)
            if batch:
                self._loop.call_soon_threadsafe(_finish, batch, error)

    def _write(self, data: bytearray, new_segment: bool) -> OSError | None:
        try:
            if new_segment:
                self._file.close()
                self._file = self._open_segment()
            self._file.write(data)
        except OSError as error:
            self._broken = True
            return error
        self._broken = False
        return None


class _Segment:
    """One file. A write that fails half-way is cut off again, so that what follows can be read."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._end = os.fstat(self._descriptor).st_size
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def write(self, data: bytearray) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fdatasync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self._end)
            raise
        self._end += len(data)

    def close(self) -> None:
        os.close(self._descriptor)


def _finish(batch: list[asyncio.Future[None]], error: OSError | None) -> None:
    for waiter in batch:
        if waiter.done():
            continue  # cancelled
        if error is None:
            waiter.set_result(None)
        else:
            failure = JournalError(f"the spend journal cannot be written: {error.strerror}")
            failure.__cause__ = error
            waiter.set_exception(failure)


def _take(folder: Path) -> int:
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise JournalLocked(f"{folder} is in use by another process") from error
    return descriptor


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.journal"))


def _number(path: Path) -> int:
    return int(path.stem)


def read(folder: Path) -> Iterator[Record]:
    """All whole records of a folder in the order written. Reading stops in a segment at its first torn record."""
    decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)
    for path in _segments(folder):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue
        offset = 0
        while offset + _FRAME.size <= len(data):
            length, checksum = _FRAME.unpack_from(data, offset)
            payload = data[offset + _FRAME.size : offset + _FRAME.size + length]
            if length > _MAX_RECORD or len(payload) < length or zlib.crc32(payload) != checksum:
                break
            yield decoder.decode(payload)
            offset += _FRAME.size + length


def abandoned(root: Path, own: Path) -> Iterator[tuple[Path, int]]:
    """The folders under `root` whose owner is dead, each with the descriptor of the lock now held on it.

    The caller replays the folder, calls `remove`, and closes the descriptor.
    """
    if not root.is_dir():
        return
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and path != own):
        try:
            yield folder, _take(folder)
        except (JournalLocked, FileNotFoundError):
            continue


def remove(folder: Path) -> None:
    """Delete a folder whose records have all reached the ledger; its lock must be held."""
    for path in [*_segments(folder), folder / "lock"]:
        path.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        folder.rmdir()
