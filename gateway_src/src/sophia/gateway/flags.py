# SPDX-License-Identifier: GPL-3.0-or-later
"""The operational flags, as a plan reads them: one frozen snapshot a request.

Where flags live, how they change and whom a percentage takes in is `stores.flags`. Three of them steer the plan, and
are found here with what they mean for one request; docs/flags.md says how an operator uses them.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sophia.stores.flags import is_on
from sophia.stores.model import Flag

__all__ = ["DISABLE_MODEL", "FALLBACK_MODE", "FORCE_HEALTHY", "HEDGE", "NO_SWITCHES", "FlagSet", "Switches"]

FALLBACK_MODE = "fallback_mode"
DISABLE_MODEL = "disable_model"
FORCE_HEALTHY = "force_healthy_models"
HEDGE = "hedge"


class Switches(msgspec.Struct, frozen=True):
    """The operational flags as they stand for one request.

    `fallback`: None is off; else the models or patterns that may serve, all cheap healthy ones where empty.
    `disabled`: models or patterns that must not serve. `healthy`: None is off; else the models that serve first, in
    this order, and only models in good health may follow.
    """

    fallback: tuple[str, ...] | None = None
    disabled: tuple[str, ...] = ()
    healthy: tuple[str, ...] | None = None


NO_SWITCHES = Switches()


class FlagSet(msgspec.Struct, frozen=True):
    """A snapshot of the flags in force, by name."""

    flags: Mapping[str, Flag] = {}

    def on(self, name: str, organization: str, subject: str) -> bool:
        """Whether a flag is on; a flag that does not exist is off."""
        return is_on(self.flags.get(name), organization=organization, subject=subject)

    def values(self, name: str, organization: str, subject: str) -> tuple[str, ...] | None:
        """The values of a flag that is on; None while it is off."""
        flag = self.flags.get(name)
        return flag.values if flag is not None and self.on(name, organization, subject) else None

    def switches(self, organization: str, subject: str) -> Switches:
        """The operational flags for a subject of an organisation."""
        flags = self.flags
        if FALLBACK_MODE not in flags and DISABLE_MODEL not in flags and FORCE_HEALTHY not in flags:
            return NO_SWITCHES
        return Switches(
            self.values(FALLBACK_MODE, organization, subject),
            self.values(DISABLE_MODEL, organization, subject) or (),
            self.values(FORCE_HEALTHY, organization, subject),
        )
