# SPDX-License-Identifier: GPL-3.0-or-later
"""How a stand-in is set up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

__all__ = ["INFERENCE_KEY", "MANAGEMENT_KEY", "Config"]

INFERENCE_KEY = "sk-or-v1-" + "5a0db0c0" * 8
MANAGEMENT_KEY = "sk-or-v1-" + "5a0dba5e" * 8


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of `create_app`.

    - `latency_scale`: 1 paces answers as the real models do, 0 (the default) answers at once.
    - `seed`: of generation ids and of faults by probability.
    - `state_file`: an append-only journal; what it holds is restored at start.
    - `inference_key`, `management_key`: the keys that exist at start; None for none.
    - `credits`: USD that the account has bought.
    - `generation_delay`: seconds for which `GET /generation` answers 404 after a generation has ended.
    - `history`: how many generations are kept; older ones stay in the totals only.
    - `free_rpm`: requests a minute for `:free` models.
    - `clock`: seconds since the epoch.
    """

    latency_scale: float = 0.0
    seed: int = 0
    state_file: Path | None = None
    inference_key: str | None = INFERENCE_KEY
    management_key: str | None = MANAGEMENT_KEY
    credits: Decimal = Decimal(10_000)
    generation_delay: float = 0.5
    history: int = 200_000
    free_rpm: int = 20
    max_body: int = 64 << 20
    clock: Callable[[], float] = time.time
