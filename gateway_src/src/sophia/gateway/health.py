# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan needs to know of the models' health: a snapshot taken by `breaker.Breakers`, pure data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

__all__ = ["WELL", "Condition", "Health"]

State = Literal["closed", "open", "half_open"]


class Condition(msgspec.Struct, frozen=True):
    """One model's condition. `failing` is the share of recent attempts that failed, `retry_after` seconds until the
    breaker lets a probe through (0 unless open)."""

    state: State = "closed"
    failing: float = 0.0
    retry_after: float = 0.0

    @property
    def good(self) -> bool:
        """Closed, and fewer than one in twenty attempts failing."""
        return self.state == "closed" and self.failing < 0.05


_GOOD = Condition()


class Health(msgspec.Struct, frozen=True):
    """The models that are not in perfect health, by identifier; all others are."""

    models: Mapping[str, Condition] = {}

    def of(self, model: str) -> Condition:
        """A model's condition."""
        return self.models.get(model, _GOOD)


WELL = Health()
