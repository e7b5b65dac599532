# SPDX-License-Identifier: GPL-3.0-or-later
"""How a stand-in is set up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["API_KEY", "Config"]

API_KEY = "secret_sandbox_5a0db0c0.5a0dba5e5a0dba5e5a0dba5e5a0dba5e"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of `create_app`.

    - `seed`: of ids, boot times, flapping capacity and faults by probability.
    - `api_key`: the one key that is let in.
    - `time_scale`: cloud seconds that pass in a second of `clock`; boots, terminations and bills follow it.
    - `boot_seconds`, `boot_seconds_large`: shortest and longest boot with up to two and with more GPUs, cloud seconds.
    - `terminate_seconds`: shortest and longest time from `terminating` to `terminated`, cloud seconds.
    - `linger_seconds`: how long a terminated instance stays in lists, cloud seconds.
    - `request_interval`, `launch_interval`: what the rate limits ask for between two requests, in seconds of `clock`;
      0 for no limit. The vendor's are 1 and 12.
    - `flap`: the chance that a type has no capacity in a region for a period, 0 to 1.
    - `flap_period`: such a period, cloud seconds.
    - `quota`: how many instances the account may have at a time.
    - `page_size`: instances a page of `GET /instances`; 0 for one page, as documented.
    - `clock`: seconds since the epoch.
    """

    seed: int = 0
    api_key: str = API_KEY
    time_scale: float = 1.0
    boot_seconds: tuple[float, float] = (165.0, 300.0)
    boot_seconds_large: tuple[float, float] = (480.0, 900.0)
    terminate_seconds: tuple[float, float] = (10.0, 60.0)
    linger_seconds: float = 120.0
    request_interval: float = 1.0
    launch_interval: float = 12.0
    flap: float = 0.0
    flap_period: float = 300.0
    quota: int = 1000
    page_size: int = 0
    max_body: int = 2 << 20
    clock: Callable[[], float] = time.time
