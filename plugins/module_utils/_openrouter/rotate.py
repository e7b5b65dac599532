# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Carry out a rotation: look, ask ``rotation`` for the next step, do it, write it down; until there is none."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._errors import (
    ApiError,
    StateConflict,
    Unauthenticated,
    WaitTimeout,
)
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.api import Api
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.forecast import forecast
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.gateway import Pages
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.model import Key, Secret
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.pods import Pods
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.rotation import (
    Journal,
    Observed,
    Policy,
    Step,
    new_settings,
    next_step,
)
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.secret import SecretSlots
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.slots import (
    PLACES,
    PRIMARY,
    SECONDARY,
    FileSlots,
)

# A create whose answer was lost is looked for this often before it counts as not done, and repeated this often.
CREATE_LOOKS = 3
CREATE_TRIES = 3
VERIFY_LOOKS = 3


@dataclass
class Report:
    """What was done, or would be. ``phase`` is where the rotation stands; ``outcome`` is None while it goes on."""

    steps: list[Step] = field(default_factory=list)
    phase: str = "idle"
    outcome: str | None = None
    rotation: str | None = None
    waiting_for: str | None = None
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    elapsed: float = 0.0

    def add(self, step: Step) -> None:
        """Note a step that was done; waiting for the same thing, or watching it, again is not another step."""
        again = step.do in ("wait", "note") and any((s.do, s.phase) == (step.do, step.phase) for s in self.steps)
        if not again:
            self.steps.append(step)

    @property
    def changed(self) -> bool:
        return any(step.do != "wait" for step in self.steps)

    def as_result(self) -> dict[str, Any]:
        return {
            "id": self.rotation,
            "phase": self.phase,
            "outcome": self.outcome,
            "finished": self.waiting_for is None,
            "waiting_for": self.waiting_for,
            "steps": [
                {"do": step.do, "phase": step.phase, "why": step.why, "hash": step.hash, "place": step.place}
                for step in self.steps
            ],
            "elapsed": round(self.elapsed, 3),
        }


class Rotation:
    """One run of the machine. ``wait_timeout`` bounds each single wait, in seconds; with ``wait`` false the first
    wait ends the run, which a later one takes up."""

    def __init__(
        self,
        api: Api,
        slots: FileSlots | SecretSlots,
        gateways: Pages | Pods,
        want: Policy,
        *,
        workspace_id: str | None = None,
        probe_model: str | None = None,
        wait: bool = True,
        wait_timeout: float = 300.0,
        wait_sleep: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api = api
        self._slots = slots
        self._gateways = gateways
        self._want = want
        self._workspace_id = workspace_id
        self._probe_model = probe_model
        self._wait = wait
        self._wait_timeout = wait_timeout
        self._wait_sleep = wait_sleep
        self._clock = clock
        self._wall = wall
        self._sleep = sleep
        self._creates = 0
        self.report = Report()

    def run(self, check_mode: bool) -> Report:
        """Go as far as possible. ``self.report`` is true at any moment, after an error too."""
        self._slots.check()
        if check_mode:
            return self._foresee()
        started = self._clock()
        try:
            with self._slots.lock():
                self._go()
        finally:
            self.report.elapsed = self._clock() - started
        return self.report

    def _foresee(self) -> Report:
        o = self.observe()
        steps, after = forecast(o, self._want)
        self.report = Report(steps=steps, before=_picture(o), after=_picture(after))
        if o.journal:
            self.report.rotation = o.journal.rotation
        if steps and steps[-1].do == "finish":
            self.report.outcome = steps[-1].why
        return self.report

    def _go(self) -> None:
        waiting: str | None = None
        since = 0.0
        while True:
            o = self.observe()
            step = next_step(o, self._want)
            self._picture(o, step)
            if step.do == "done":
                return
            if step.do == "wait":
                if waiting != step.phase:
                    waiting, since = step.phase, self._clock()
                self.report.waiting_for = step.why
                self.report.add(step)
                if not self._wait:
                    return
                self._pause(step, self._clock() - since)
                continue
            # Watching the usage anew is no progress: it must not put off the time-out.
            if step.do != "note":
                waiting = None
            self._act(o, step)
            self.report.add(step)
            if step.do == "finish":
                self.report.outcome = step.why
                self.report.after = _picture(self.observe())
                # A rollback found under way is finished before a rotation that was asked for begins.
                if step.why == self._want.state:
                    return

    def _picture(self, o: Observed, step: Step) -> None:
        report = self.report
        report.before = report.before or _picture(o)
        report.after = _picture(o)
        report.phase = step.phase
        report.waiting_for = None
        if o.journal:
            report.rotation = o.journal.rotation

    def _pause(self, step: Step, elapsed: float) -> None:
        if elapsed >= self._wait_timeout:
            raise WaitTimeout(
                f"rotation of {self._want.name!r}, phase {step.phase}: {step.why} (after {elapsed:.0f} s); "
                "run again to go on, or with state=rolled_back to go back",
                last=self.report.after,
                elapsed=elapsed,
            )
        self._sleep(self._wait_sleep)

    def observe(self) -> Observed:
        """Look at everything once."""
        saved = self._slots.load_journal()
        journal = _journal(saved.get("active"))
        keys = {key.hash: key for key in self._api.keys(self._workspace_id)}
        if journal:
            # The list may lag behind a creation; a look by hash does not.
            for hash in (journal.old, journal.new):
                if hash and hash not in keys:
                    key = self._api.key(hash)
                    if key:
                        keys[hash] = key
        held = {place: self._slots.get(place) for place in PLACES}
        now = self._wall()
        return Observed(
            now=now,
            today=datetime.fromtimestamp(now, timezone.utc),
            keys=tuple(key for key in keys.values() if self._concerns(key, journal)),
            slots={place: secret.id if secret else None for place, secret in held.items()},
            replicas=self._gateways.look(),
            guardrails={} if journal else self._api.assignments(),
            primary_label=None if journal or not held[PRIMARY] else self._label(held[PRIMARY]),
            journal=journal,
            last_rotation=(saved.get("last") or {}).get("rotation"),
        )

    def _concerns(self, key: Key, journal: Journal | None) -> bool:
        if journal and key.hash in (journal.old, journal.new):
            return True
        return key.name == self._want.name or key.name.startswith(f"{self._want.name} [") or key.hash == self._want.hash

    def _label(self, secret: Secret) -> str | None:
        try:
            return self._api.verify(secret).get("label")
        except Unauthenticated:
            return None

    def _act(self, o: Observed, step: Step) -> None:
        self._slots.hold()
        if step.do == "begin":
            stamp = datetime.fromtimestamp(o.now, timezone.utc).strftime("%Y%m%dT%H%M%SZ")
            self._note(dataclasses.replace(step.journal, rotation=f"{stamp}-{secrets.token_hex(4)}"))
        elif step.do == "note":
            self._note(step.journal)
        elif step.do == "create":
            self._create(o, step)
        elif step.do == "delete":
            self._api.delete(step.hash)
        elif step.do == "assign":
            self._api.assign(step.value, step.hash)
            self._note(dataclasses.replace(o.journal, guarded=True))
        elif step.do == "verify":
            self._verify(o, step)
        elif step.do == "write":
            self._slots.put(step.place, self._slots.get(step.value))
        elif step.do == "clear":
            self._slots.clear(step.place)
        elif step.do in ("enable", "disable"):
            self._api.update(step.hash, {"disabled": step.do == "disable"})
        elif step.do == "rename":
            self._api.update(step.hash, {"name": step.value})
        elif step.do == "finish":
            self._finish(o.journal, step.why)
        else:
            raise AssertionError(f"nobody knows how to {step.do}")

    def _create(self, o: Observed, step: Step) -> None:
        """Make the new key: named in the journal before its secret is in the slot, so that the two are never mixed up.

        An answer that was lost is not an error yet: the next look finds the key by its name, which no other has, and
        deletes it, because nobody has its secret.
        """
        self._creates += 1
        settings = new_settings(o.key(o.journal.old), o, self._want)
        try:
            key, secret = self._api.create(step.value, settings, self._workspace_id)
        except ApiError as error:
            if not error.ambiguous or self._creates >= CREATE_TRIES:
                raise
            self._await_orphan(step.value)
            return
        self._note(dataclasses.replace(o.journal, new=key.hash, new_id=secret.id, guarded=False, verified=False))
        self._slots.put(SECONDARY, secret)

    def _await_orphan(self, name: str) -> None:
        for _look in range(CREATE_LOOKS):
            self._sleep(self._wait_sleep)
            if any(key.name == name for key in self._api.keys(self._workspace_id)):
                return

    def _verify(self, o: Observed, step: Step) -> None:
        secret = self._slots.get(step.place)
        label = self._let_in(secret)
        key = o.key(step.hash)
        if label != key.label:
            raise StateConflict(
                f"the slot {step.place} holds the key {label}, the new key is {key.label}", code="foreign_slot"
            )
        if self._probe_model:
            self._api.probe(secret, self._probe_model)
        self._note(dataclasses.replace(o.journal, verified=True))

    def _let_in(self, secret: Secret) -> Any:
        """Return the label of a key that authenticates itself; a new key may take a moment to be known everywhere."""
        for _look in range(VERIFY_LOOKS - 1):
            try:
                return self._api.verify(secret).get("label")
            except Unauthenticated:
                self._sleep(self._wait_sleep)
        return self._api.verify(secret).get("label")

    def _note(self, journal: Journal) -> None:
        saved = self._slots.load_journal()
        saved.update(version=1, active={**dataclasses.asdict(journal), "phase": self.report.phase})
        self._slots.save_journal(saved)

    def _finish(self, journal: Journal, outcome: str) -> None:
        last = {
            "rotation": journal.rotation,
            "outcome": outcome,
            "old": journal.old,
            "new": journal.new,
            "started": journal.started,
            "finished": self._wall(),
        }
        self._slots.save_journal({"version": 1, "active": None, "last": last})


def _journal(saved: Any) -> Journal | None:
    if not saved:
        return None
    names = {field.name for field in dataclasses.fields(Journal)}
    try:
        return Journal(**{name: value for name, value in saved.items() if name in names})
    except (AttributeError, TypeError):
        raise StateConflict("the journal's entry of the rotation under way cannot be read", code="journal") from None


def _picture(o: Observed) -> dict[str, Any]:
    """Return what a diff shows: who is where, by hash of the key at OpenRouter and id in the slots."""
    return {
        "keys": {key.hash: {"name": key.name, "disabled": key.disabled} for key in o.keys},
        "slots": {place: o.slot(place) for place in PLACES},
        "direction": o.journal.direction if o.journal else None,
    }
