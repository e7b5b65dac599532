# SPDX-License-Identifier: GPL-3.0-or-later
"""How a stand-in is set up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["VERSION", "Config"]

# What `GET /` says: the version of the server whose API this follows. Its `commit` says that this is not the server.
VERSION = "1.20.0"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of `create_app`.

    - `storage`: the folder that holds everything; it is made if missing.
    - `api_key`: callers must send it as `api-key` or as a bearer token; None asks for none.
    - `seed`: of faults by probability.
    - `max_body`: bytes of a request, as the server's `max_request_size_mb`.
    - `optimize`: whether indexes are built in the background.
    """

    storage: Path
    api_key: str | None = None
    seed: int = 0
    max_body: int = 32 << 20
    optimize: bool = True
