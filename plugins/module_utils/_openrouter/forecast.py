# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""What a rotation would do, for check mode: the machine of ``rotation`` run on a world where every step succeeds."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from decimal import Decimal

from ansible_collections.sophia.platform.plugins.module_utils._openrouter.gateway import Replica
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.model import Key
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.rotation import (
    Observed,
    Policy,
    Step,
    new_settings,
    next_step,
)
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.slots import PRIMARY, SECONDARY

NEW = "(new)"
_MOST_STEPS = 100


def forecast(o: Observed, want: Policy) -> tuple[list[Step], Observed]:
    """Return the steps from ``o`` on and the world after them. Raises what :func:`next_step` raises."""
    steps: list[Step] = []
    while len(steps) < _MOST_STEPS:
        step = next_step(o, want)
        if step.do == "done":
            return steps, o
        steps.append(step)
        o = effect(o, step, want)
        if step.do == "finish" and step.why == want.state:
            return steps, o
    raise AssertionError(f"a rotation of more than {_MOST_STEPS} steps: {steps[-3:]}")


def effect(o: Observed, step: Step, want: Policy) -> Observed:
    """Return the world after a step that succeeded."""
    j = o.journal
    if step.do == "begin":
        return dataclasses.replace(o, journal=dataclasses.replace(step.journal, rotation=NEW))
    if step.do == "note":
        return dataclasses.replace(o, journal=step.journal)
    if step.do == "create":
        made = _new_key(o, step.value or "", want)
        slots = {**o.slots, SECONDARY: NEW}
        return dataclasses.replace(
            o, keys=(*o.keys, made), slots=slots, journal=dataclasses.replace(j, new=NEW, new_id=NEW)
        )
    if step.do == "delete":
        return dataclasses.replace(o, keys=tuple(key for key in o.keys if key.hash != step.hash))
    if step.do == "assign":
        return dataclasses.replace(o, journal=dataclasses.replace(j, guarded=True))
    if step.do == "verify":
        return dataclasses.replace(o, journal=dataclasses.replace(j, verified=True))
    if step.do in ("write", "clear"):
        held = o.slot(step.value) if step.do == "write" else None
        return dataclasses.replace(o, slots={**o.slots, step.place: held})
    if step.do in ("enable", "disable", "rename"):
        return dataclasses.replace(o, keys=tuple(_changed(key, step) for key in o.keys))
    if step.do == "wait":
        return _waited(o, want)
    if step.do == "finish":
        return dataclasses.replace(o, journal=None, last_rotation=j.rotation)
    raise AssertionError(f"no effect is known of {step.do}")


def _changed(key: Key, step: Step) -> Key:
    if key.hash != step.hash:
        return key
    if step.do == "rename":
        return dataclasses.replace(key, name=step.value)
    return dataclasses.replace(key, disabled=step.do == "disable")


def _waited(o: Observed, want: Policy) -> Observed:
    """Every gateway has read the slots and finished what it was doing, and every delay has passed."""
    loaded = tuple((slot, o.slot(slot)) for slot in (PRIMARY, SECONDARY) if o.slot(slot))
    later = max(want.quiet, want.soak) + 1
    return dataclasses.replace(
        o,
        replicas=tuple(Replica(replica.url, loaded) for replica in o.replicas),
        now=o.now + later,
        today=o.today + timedelta(seconds=later),
    )


def _new_key(o: Observed, name: str, want: Policy) -> Key:
    settings = new_settings(o.key(o.journal.old), o, want)
    return Key(
        hash=NEW,
        name=name,
        label=NEW,
        disabled=False,
        limit=settings.get("limit"),
        limit_reset=settings.get("limit_reset"),
        include_byok_in_limit=settings.get("include_byok_in_limit", False),
        usage=Decimal(0),
        created_at=o.today,
        expires_at=settings.get("expires_at"),
        last_used_at=None,
        workspace_id=None,
    )
