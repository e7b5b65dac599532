# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""What a gate remembers: the bins it has seen and the last samples. A verdict is computed from it, never stored in it.

The file is replaced atomically, carries a checksum, and belongs to one configuration.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._canary.engines import Counts
from ansible_collections.sophia.platform.plugins.module_utils._canary.model import NOTHING, Reading, Stage
from ansible_collections.sophia.platform.plugins.module_utils._canary.series import Track
from ansible_collections.sophia.platform.plugins.module_utils._errors import StateConflict

FORMAT = 1


@dataclass
class Memory:
    """``tracks`` are by arm and selector; ``cursor`` is the edge up to which samples were read, ``unreachable_since``
    the time (Unix, this machine's clock) from which on Prometheus has not answered."""

    config: str
    stages: list[Stage] = field(default_factory=list)
    tracks: dict[str, Track] = field(default_factory=dict)
    cursor: int | None = None
    unreachable_since: float | None = None


def dump(memory: Memory) -> str:
    """Return the text of a state file."""
    body = {
        "format": FORMAT,
        "config": memory.config,
        "stages": [
            {"percent": stage.percent, "origin": stage.origin, "bins": [[_pack(item) for item in row] for row in stage.bins]}
            for stage in memory.stages
        ],
        "tracks": {
            name: [track.trouble, {key: [time, None if math.isnan(value) else value] for key, (time, value) in track.last.items()}]
            for name, track in memory.tracks.items()
        },
        "cursor": memory.cursor,
        "unreachable_since": memory.unreachable_since,
    }
    return json.dumps({"checksum": _checksum(body), "state": body}, sort_keys=True, separators=(",", ":")) + "\n"


def load(text: str, config: str, where: str = "the state") -> Memory:
    """Return what a state file holds; raise :class:`StateConflict` if it is damaged or of another configuration."""
    try:
        whole = json.loads(text)
        body = whole["state"]
        if whole["checksum"] != _checksum(body):
            raise StateConflict(f"{where} is damaged: its checksum is wrong", code="state_damaged")
        if body["format"] != FORMAT:
            raise StateConflict(f"{where} has format {body['format']}, not {FORMAT}", code="state_format")
        if body["config"] != config:
            raise StateConflict(
                f"{where} belongs to another configuration: its evidence cannot be carried over",
                code="state_config",
                details={"state": body["config"], "config": config},
            )
        return _unpack_memory(body)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise StateConflict(f"{where} is damaged: not a state of canary_gate", code="state_damaged") from None


def read(path: str, config: str) -> Memory | None:
    """Return what the file at ``path`` holds, None where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return load(file.read(), config, path)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StateConflict(f"{path} cannot be read: {error}", code="state_unreadable") from None


def write(path: str, text: str) -> None:
    """Replace the file at ``path`` by ``text``, wholly or not at all; it is on disk when this returns."""
    folder = os.path.dirname(os.path.abspath(path))
    try:
        handle, temporary = tempfile.mkstemp(prefix=".canary-", dir=folder)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StateConflict(f"{path} cannot be written: {error}", code="state_unwritable") from None


def _checksum(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _pack(reading: Reading) -> list[Any]:
    packed: list[Any] = [reading.status]
    if reading.counts != NOTHING or reading.reason:
        packed += reading.counts
    if reading.reason:
        packed.append(reading.reason)
    return packed


def _unpack(packed: list[Any]) -> Reading:
    counts = Counts(*map(float, packed[1:5])) if len(packed) > 1 else NOTHING
    return Reading(packed[0], counts, packed[5] if len(packed) > 5 else "")


def _unpack_memory(body: dict[str, Any]) -> Memory:
    return Memory(
        config=body["config"],
        stages=[
            Stage(int(item["percent"]), int(item["origin"]), tuple(tuple(_unpack(packed) for packed in row) for row in item["bins"]))
            for item in body["stages"]
        ],
        tracks={
            name: Track({key: (float(time), math.nan if value is None else float(value)) for key, (time, value) in last.items()}, trouble)
            for name, (trouble, last) in body["tracks"].items()
        },
        cursor=body["cursor"],
        unreachable_since=body["unreachable_since"],
    )
