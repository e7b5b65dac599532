# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""The rotation of a key, as a pure function from what is observed to the next step.

::

    forward   create -> distribute -> verify -> promote -> drain -> disable -> delete
    back      promote the old one -> drain the new one -> disable -> delete

There is no counter of steps to lose: :func:`next_step` looks at the slots, the keys at OpenRouter, what the gateways
report and the journal, and names the one thing to do now. A run killed anywhere is continued by asking again. The
journal holds only what cannot be seen: which key is which, what was proven of it, and since when it has been quiet.

Kept at every step, except between the first two steps of an emergency (``tests/unit`` tries them on random histories):

* the primary slot holds a key that OpenRouter lets in;
* at most two keys are live;
* a key is disabled only when no gateway holds it and no request is under way with it.

``keep`` is the key that stays in the end and ``drop`` the one that goes: going back only swaps the two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._errors import StateConflict
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.gateway import Replica, missing
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.model import Key, stamp
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.plan import find
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.slots import PREVIOUS, PRIMARY, SECONDARY

FORWARD = "forward"
BACK = "back"


@dataclass(frozen=True)
class Journal:
    """A rotation under way. Hashes are OpenRouter's names of the keys, ids the gateway's; times are Unix seconds."""

    rotation: str
    name: str
    started: float
    old: str | None = None
    old_id: str | None = None
    new: str | None = None
    new_id: str | None = None
    direction: str = FORWARD
    emergency: bool = False
    guardrail: str | None = None
    guarded: bool = False
    verified: bool = False
    quiet_mark: str | None = None
    quiet_since: float | None = None
    disabled_at: float | None = None

    @property
    def incoming(self) -> str:
        """The new key's name until it is promoted; no other key has it."""
        return incoming(self.name, self.rotation)

    @property
    def outgoing(self) -> str:
        return f"{self.name} [outgoing {self.rotation}]"


def incoming(name: str, rotation: str) -> str:
    return f"{name} [incoming {rotation}]"


@dataclass(frozen=True)
class Policy:
    """What the user wants of the rotation; seconds."""

    name: str
    state: str = "rotated"
    hash: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    guardrail_id: str | None = None
    max_age: int | None = None
    quiet: int = 30
    soak: int = 60
    emergency: bool = False


@dataclass(frozen=True)
class Observed:
    """What was seen in one look. ``slots`` maps place to key id. ``primary_label`` is the label OpenRouter gives the
    key in the primary slot, None where it does not let it in; it is looked up only when no rotation is under way."""

    now: float
    today: datetime
    keys: tuple[Key, ...] = ()
    slots: Mapping[str, str | None] = field(default_factory=dict)
    replicas: tuple[Replica, ...] = ()
    guardrails: Mapping[str, str] = field(default_factory=dict)
    primary_label: str | None = None
    journal: Journal | None = None
    last_rotation: str | None = None

    def key(self, hash: str | None) -> Key | None:
        return next((key for key in self.keys if key.hash == hash), None)

    def slot(self, place: str) -> str | None:
        return self.slots.get(place)

    def where(self, id: str | None) -> str | None:
        """Return a place that holds the key ``id``."""
        return next((place for place, held in self.slots.items() if id is not None and held == id), None)


@dataclass(frozen=True)
class Step:
    """One thing to do. ``do`` is the verb; the other fields are its objects, as the verb needs them.

    begin journal · note journal · create name · delete hash · assign hash value · verify hash place ·
    write place from value · clear place · enable hash · disable hash · rename hash value · wait · finish · done
    """

    do: str
    phase: str
    why: str
    hash: str | None = None
    place: str | None = None
    value: str | None = None
    journal: Journal | None = None


def next_step(o: Observed, want: Policy) -> Step:
    """Return the next step. Raises :class:`StateConflict` where going on would destroy what nobody asked to destroy."""
    j = o.journal
    if j is None:
        return _idle(o, want)
    if j.name != want.name:
        raise StateConflict(
            f"these slots are in the middle of a rotation of {j.name!r}, not of {want.name!r}", code="other_rotation"
        )
    if want.state == "rolled_back" and j.direction == FORWARD:
        return _turn_back(o, j)
    orphan = next((key for key in o.keys if key.name == j.incoming and key.hash != j.new), None)
    if orphan is not None:
        return Step("delete", "create", "its secret was lost with the answer to its creation", hash=orphan.hash)
    if j.direction == BACK:
        return _back(o, j, want)
    return _forward(o, j, want)


def _idle(o: Observed, want: Policy) -> Step:
    if want.state == "rolled_back":
        return Step("done", "idle", "no rotation is under way")
    if o.slot(PREVIOUS):
        return Step("clear", "create", "left over from a rotation that ended", place=PREVIOUS)
    for key in o.keys:
        if o.last_rotation and key.name == incoming(want.name, o.last_rotation):
            return Step("delete", "create", "its secret was lost with the answer to its creation", hash=key.hash)
    strays = [key.hash for key in o.keys if key.name.startswith((f"{want.name} [incoming ", f"{want.name} [outgoing "))]
    if strays:
        raise StateConflict(
            f"there are keys of a rotation of {want.name!r} that no journal knows: restore the journal or delete them",
            code="lost_journal",
            details={"hashes": sorted(strays)},
        )
    old = find(o.keys, want.name, want.hash)
    _check_slots(o, old)
    reason = _due(o, old, want)
    if reason is None:
        return Step("done", "idle", "the key is not due")
    journal = Journal(
        rotation="",
        name=want.name,
        started=o.now,
        old=old.hash if old else None,
        old_id=o.slot(PRIMARY) if old else None,
        emergency=want.emergency,
        guardrail=_guardrail(o, old, want),
    )
    return Step("begin", "create", reason, journal=journal)


def _check_slots(o: Observed, old: Key | None) -> None:
    """Refuse slots that hold what this rotation did not put there and would throw away."""
    if o.slot(SECONDARY) and o.slot(SECONDARY) != o.slot(PRIMARY):
        raise StateConflict("the secondary slot holds a key that no journal knows: remove it", code="foreign_slot")
    alive = old is not None and old.live(o.today)
    if o.primary_label is not None and not (old and o.primary_label == old.label):
        raise StateConflict(
            "the primary slot holds a valid key, but not the one of this name"
            + (f": its label is {o.primary_label}" if o.primary_label else ""),
            code="foreign_slot",
        )
    if o.primary_label is None and o.slot(PRIMARY) and alive:
        raise StateConflict(
            f"{old.name!r} is live, but OpenRouter does not let in the key in the primary slot: it is another",
            code="foreign_slot",
        )


def _due(o: Observed, old: Key | None, want: Policy) -> str | None:
    if old is None:
        return "there is no key yet"
    if want.emergency:
        return "emergency"
    if not old.live(o.today):
        return "the key is disabled or expired"
    if o.slot(PRIMARY) is None:
        return "the primary slot is empty"
    expires = want.settings.get("expires_at")
    if expires is not None and expires != old.expires_at:
        return f"it is to expire at {stamp(expires)}"
    if want.max_age is None:
        return "asked for"
    age = (o.today - old.created_at).total_seconds() if old.created_at else float("inf")
    return f"it is older than {want.max_age} s" if age >= want.max_age else None


def _guardrail(o: Observed, old: Key | None, want: Policy) -> str | None:
    if want.guardrail_id is not None:
        return want.guardrail_id or None
    return o.guardrails.get(old.hash) if old else None


def _turn_back(o: Observed, j: Journal) -> Step:
    if j.old is not None:
        if o.key(j.old) is None:
            raise StateConflict(
                "the old key is deleted already: there is nothing to go back to; rotate again", code="no_way_back"
            )
        if j.old_id is not None and o.where(j.old_id) is None:
            raise StateConflict("the old key's secret is in no slot any more: rotate again", code="no_way_back")
        if o.key(j.old).expired(o.today):
            raise StateConflict("the old key has expired: rotate again", code="no_way_back")
    turned = dataclasses.replace(j, direction=BACK, quiet_mark=None, quiet_since=None, disabled_at=None)
    return Step("note", "promote", "asked to go back", journal=turned)


def _forward(o: Observed, j: Journal, want: Policy) -> Step:
    old, new = o.key(j.old), o.key(j.new)
    if want.emergency and not j.emergency:
        return Step("note", "disable", "emergency", journal=dataclasses.replace(j, emergency=True))
    if j.emergency and old is not None and not old.disabled:
        return Step("disable", "disable", "emergency: nobody may use the old key from now on", hash=old.hash)
    return _make(o, j, new) or _promote(o, j, old, new) or _retire(o, j, want, drop=old, drop_id=j.old_id)


def _make(o: Observed, j: Journal, new: Key | None) -> Step | None:
    """Bring the new key about: made, its secret in a slot, guarded, in every gateway, proven."""
    if j.new is None:
        return Step("create", "create", "the new key", value=j.incoming)
    forgotten = dataclasses.replace(j, new=None, new_id=None, guarded=False, verified=False)
    if new is None:
        return Step("note", "create", "the new key is gone from OpenRouter", journal=forgotten)
    if o.where(j.new_id) is None:
        if any(replica.holds(PRIMARY, j.new_id or "") for replica in o.replicas):
            raise StateConflict("the new key's secret is in no slot, but gateways use it", code="lost_slot")
        return Step("delete", "create", "its secret is in no slot", hash=new.hash)
    if not new.live(o.today):
        raise StateConflict("somebody disabled the new key: enable it, or go back", code="new_key_dead")
    if j.guardrail and not j.guarded:
        return Step("assign", "create", "its guardrail", hash=new.hash, value=j.guardrail)
    if o.slot(PRIMARY) != j.new_id and not j.emergency:
        late = missing(o.replicas, lambda replica: replica.holds_anywhere(j.new_id))
        if late:
            return Step("wait", "distribute", f"gateways without the new key: {late}")
    if not j.verified:
        return Step("verify", "verify", "OpenRouter has to let it in", hash=new.hash, place=o.where(j.new_id))
    return None


def _promote(o: Observed, j: Journal, old: Key | None, new: Key) -> Step | None:
    """Make the new key the primary one, with the old one behind it as long as that is good."""
    if o.slot(PRIMARY) != j.new_id:
        if j.old_id is not None and o.slot(PRIMARY) == j.old_id and o.slot(PREVIOUS) != j.old_id:
            return Step("write", "promote", "kept for a rollback", place=PREVIOUS, value=PRIMARY)
        return Step("write", "promote", "requests go out with the new key", place=PRIMARY, value=o.where(j.new_id))
    if o.slot(SECONDARY) == j.new_id:
        if old is not None and old.live(o.today) and o.slot(PREVIOUS) == j.old_id and j.old_id is not None:
            return Step("write", "promote", "the old key stands behind the new one", place=SECONDARY, value=PREVIOUS)
        return Step("clear", "promote", "the old key is of no use", place=SECONDARY)
    late = missing(o.replicas, lambda replica: replica.holds(PRIMARY, j.new_id))
    if late:
        return Step("wait", "promote", f"gateways that do not use the new key: {late}")
    return _name(new, j.name, old, j.outgoing)


def _name(keep: Key, name: str, drop: Key | None, aside: str) -> Step | None:
    # In this order the name is never free: two keys of a name are refused by every other run, none would be made anew.
    if keep.name != name:
        return Step("rename", "promote", "it bears the name now", hash=keep.hash, value=name)
    if drop is not None and drop.name != aside:
        return Step("rename", "promote", "it is on its way out", hash=drop.hash, value=aside)
    return None


def _retire(o: Observed, j: Journal, want: Policy, *, drop: Key | None, drop_id: str | None) -> Step:
    """Take the key ``drop`` out of use, then out of the world."""
    if drop is not None and drop.live(o.today):
        busy = _busy(o, j, want, drop, drop_id)
        if busy is not None:
            return busy
    if o.slot(SECONDARY) is not None:
        return Step("clear", "drain", "no request needs it any more", place=SECONDARY)
    if drop is not None and drop_id is not None:
        late = missing(o.replicas, lambda replica: replica.is_rid_of(drop_id))
        if late:
            return Step("wait", "drain", f"gateways that still hold the leaving key: {late}")
    if drop is not None:
        if not drop.disabled:
            return Step("disable", "disable", "nothing uses it", hash=drop.hash)
        if j.disabled_at is None or o.now < j.disabled_at:
            return Step("note", "disable", "disabled", journal=dataclasses.replace(j, disabled_at=o.now))
        soak = want.soak if j.direction == FORWARD else 0
        if o.now - j.disabled_at < soak:
            return Step("wait", "disable", f"disabled keys are kept for {soak} s")
        return Step("delete", "delete", "disabled, and missed by nobody", hash=drop.hash)
    if o.slot(PREVIOUS) is not None:
        return Step("clear", "delete", "the key it held is gone", place=PREVIOUS)
    return Step("finish", "delete", "rotated" if j.direction == FORWARD else "rolled_back")


def _busy(o: Observed, j: Journal, want: Policy, drop: Key, drop_id: str | None) -> Step | None:
    """Return what to wait for while the key is, or may be, in use."""
    if drop_id is not None:
        late = missing(o.replicas, lambda replica: not replica.requests(drop_id))
        if late:
            return Step("wait", "drain", f"requests under way with the leaving key: {late}")
    if drop.mark != j.quiet_mark or j.quiet_since is None or o.now < j.quiet_since:
        return Step(
            "note", "drain", "its use is watched from now on",
            journal=dataclasses.replace(j, quiet_mark=drop.mark, quiet_since=o.now),
        )  # fmt: skip
    if o.now - j.quiet_since < want.quiet:
        return Step("wait", "drain", f"its usage has to stand still for {want.quiet} s")
    return None


def _back(o: Observed, j: Journal, want: Policy) -> Step:
    old, new = o.key(j.old), o.key(j.new)
    if j.old is not None and old is None:
        raise StateConflict("the old key was deleted during the rollback", code="no_way_back")
    if old is not None:
        step = _restore(o, j, old, new)
        if step is not None:
            return step
    elif o.slot(PRIMARY) is not None and o.slot(PRIMARY) == j.new_id:
        return Step("clear", "promote", "there was no key before", place=PRIMARY)
    return _retire(o, j, want, drop=new, drop_id=j.new_id)


def _restore(o: Observed, j: Journal, old: Key, new: Key | None) -> Step | None:
    """Make the old key the primary one again."""
    if old.disabled:
        return Step("enable", "promote", "it is needed again", hash=old.hash)
    if j.old_id is None:
        # The old key never was in a slot: nothing to put back, only the new one to take out.
        if o.slot(PRIMARY) is not None and o.slot(PRIMARY) == j.new_id:
            return Step("clear", "promote", "the slot was empty before", place=PRIMARY)
        return _name(old, j.name, new, j.incoming)
    if o.slot(PRIMARY) != j.old_id:
        source = o.where(j.old_id)
        if source is None:
            raise StateConflict("the old key's secret is in no slot any more", code="no_way_back")
        return Step("write", "promote", "requests go out with the old key again", place=PRIMARY, value=source)
    late = missing(o.replicas, lambda replica: replica.holds(PRIMARY, j.old_id))
    if late:
        return Step("wait", "promote", f"gateways that do not use the old key: {late}")
    return _name(old, j.name, new, j.incoming)


def new_settings(old: Key | None, o: Observed, want: Policy) -> dict[str, Any]:
    """Return the new key's settings: the old key's, with what the user set in their place."""
    settings: dict[str, Any] = {}
    if old is not None:
        settings = {
            "limit": old.limit,
            "limit_reset": old.limit_reset,
            "include_byok_in_limit": old.include_byok_in_limit,
        }
        if old.expires_at is not None and old.expires_at > o.today:
            settings["expires_at"] = old.expires_at
    return {**settings, **want.settings}
