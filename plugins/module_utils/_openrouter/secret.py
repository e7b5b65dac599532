# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""The two key slots and the rotation's journal in one Kubernetes Secret, which the gateways mount.

::

    data.primary        the key requests are made with
    data.secondary      the key waiting, or the one leaving; empty where there is none, never missing once it was there,
                        because a Pod that mounts it by name would not start without
    data.previous       the old key, kept for a rollback; no gateway reads it
    metadata.annotations["platform.sophia/rotation"]   the journal, no secret in it
    Lease <name>-rotation                              held while a rotation runs

Every write is a merge patch with the ``resourceVersion`` that was read before, so a write by anybody else in between is
noticed and never overwritten. Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#patch-and-update.
The lease is taken from a run that was killed once it was not renewed for its duration, by the clock of the one who waits
(as client-go's leader election does it), so clocks that differ do no harm.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._errors import (
    ApiError,
    Conflict,
    InvalidInput,
    NotFound,
    StateConflict,
)
from ansible_collections.sophia.platform.plugins.module_utils._http import Client, segment
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.model import Secret
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.slots import PLACES, SECONDARY, journal_of

JOURNAL = "platform.sophia/rotation"
LEASE_SECONDS = 15
RENEW_SECONDS = 5.0
LOOK_SECONDS = 1.0
WRITES = 5
_MERGE = {"Content-Type": "application/merge-patch+json"}


class SecretSlots:
    """Slots in the Secret ``name`` of ``namespace``, which must exist. ``identity`` names this run among others."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        *,
        identity: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._name = name
        self._path = f"/api/v1/namespaces/{segment(namespace)}/secrets/{segment(name)}"
        self._lease = _Lease(
            client, namespace, f"{name}-rotation", identity or f"{socket.gethostname()}_{os.getpid()}_{secrets.token_hex(4)}",
            clock, wall, sleep,
        )  # fmt: skip
        self._seen: dict[str, Any] | None = None

    def check(self) -> None:
        """Raise :class:`InvalidInput` where there is no such Secret."""
        try:
            self._read()
        except NotFound:
            raise InvalidInput(f"kubernetes: there is no Secret {self._name} in its namespace") from None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lease for one rotation. Raises :class:`StateConflict` where another run keeps renewing it."""
        self._lease.take()
        try:
            yield
        finally:
            self._lease.give_up()

    def hold(self) -> None:
        """Renew the lease. Raises :class:`StateConflict` where another run took it."""
        self._lease.renew()

    def get(self, place: str) -> Secret | None:
        """Return what the place held at the last look, see :meth:`load_journal`."""
        text = _decode((self._last().get("data") or {}).get(place, ""))
        return Secret(text.strip()) if text.strip() else None

    def put(self, place: str, secret: Secret) -> None:
        self._write({"data": {place: _encode(secret.reveal())}})

    def clear(self, place: str) -> None:
        if place in (self._last().get("data") or {}):
            self._write({"data": {place: "" if place == SECONDARY else None}})

    def load_journal(self) -> dict[str, Any]:
        """Look at the Secret anew, and return the journal in it."""
        self._lease.renew()
        return journal_of(self._annotations(self._read()).get(JOURNAL), f"the annotation {JOURNAL} of {self._name}")

    def save_journal(self, journal: dict[str, Any]) -> None:
        self._write({"metadata": {"annotations": {JOURNAL: json.dumps(journal, sort_keys=True)}}})

    def _last(self) -> dict[str, Any]:
        return self._seen if self._seen is not None else self._read()

    def _read(self) -> dict[str, Any]:
        self._seen = self._client.get(self._path).body
        return self._seen

    def _write(self, change: dict[str, Any]) -> None:
        """Apply a merge patch to the Secret as it was last seen.

        After an answer that was lost, and after a conflict, it is looked whether the change is there. Somebody else's
        change to anything but slots and journal is none of ours, so the patch is tried again upon it.
        """
        for attempt in range(1, WRITES + 1):
            before = self._last()
            meta = {**change.get("metadata", {}), "resourceVersion": before["metadata"]["resourceVersion"]}
            try:
                self._seen = self._client.request("PATCH", self._path, body={**change, "metadata": meta}, headers=_MERGE).body
                return
            except ApiError as error:
                if not (isinstance(error, Conflict) or error.ambiguous) or attempt == WRITES:
                    raise
            now = self._read()
            if _holds(now, change):
                return
            if self._ours(now) != self._ours(before):
                raise StateConflict(f"somebody else changed the slots or the journal in {self._name}", code="locked", retryable=True)

    def _ours(self, secret: dict[str, Any]) -> tuple[Any, ...]:
        data = secret.get("data") or {}
        return (*(data.get(place) for place in PLACES), self._annotations(secret).get(JOURNAL))

    @staticmethod
    def _annotations(secret: dict[str, Any]) -> dict[str, str]:
        return secret["metadata"].get("annotations") or {}


class _Lease:
    """One Lease object. Source: https://kubernetes.io/docs/concepts/architecture/leases/."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        identity: str,
        clock: Callable[[], float],
        wall: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._client = client
        self._name = name
        self._all = f"/apis/coordination.k8s.io/v1/namespaces/{segment(namespace)}/leases"
        self._path = f"{self._all}/{segment(name)}"
        self._identity = identity
        self._clock = clock
        self._wall = wall
        self._sleep = sleep
        self._version: str | None = None
        self._renewed = 0.0

    def take(self) -> None:
        """Take it, at once where it is free, else once its holder has not renewed it for its duration."""
        seen: tuple[Any, ...] | None = None
        since = self._clock()
        while True:
            lease = self._find()
            spec = (lease or {}).get("spec") or {}
            holder = spec.get("holderIdentity") or ""
            sign = (holder, spec.get("renewTime"))
            if seen is not None and holder and sign != seen:
                raise self._lost(holder)
            expired = seen is not None and self._clock() - since >= float(spec.get("leaseDurationSeconds") or LEASE_SECONDS)
            if not holder or holder == self._identity or expired:
                self._put(lease)
                return
            seen = sign
            self._sleep(LOOK_SECONDS)

    def renew(self) -> None:
        if self._version is None or self._clock() - self._renewed < RENEW_SECONDS:
            return
        lease = self._find()
        holder = ((lease or {}).get("spec") or {}).get("holderIdentity") or ""
        if holder != self._identity:
            raise self._lost(holder)
        self._put(lease)

    def give_up(self) -> None:
        """Free it. What prevents that is no failure of the rotation: the lease ends by itself."""
        self._version = None
        with contextlib.suppress(ApiError):
            lease = self._find()
            if lease and (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                lease["spec"]["holderIdentity"] = ""
                self._client.put(self._path, lease)

    def _find(self) -> dict[str, Any] | None:
        try:
            return self._client.get(self._path).body
        except NotFound:
            return None

    def _put(self, lease: dict[str, Any] | None) -> None:
        stamp = datetime.fromtimestamp(self._wall(), timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self._identity, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": stamp}
        try:
            if lease is None:
                made = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self._name}, "spec": spec}
                lease = self._client.post(self._all, made).body
            else:
                lease["spec"] = {**(lease.get("spec") or {}), **spec}
                lease = self._client.put(self._path, lease).body
        except Conflict:
            # A write of ours whose answer was lost and which was sent again conflicts with itself.
            lease = self._find()
            holder = ((lease or {}).get("spec") or {}).get("holderIdentity") or ""
            if lease is None or holder != self._identity:
                raise self._lost(holder) from None
        self._version = lease["metadata"]["resourceVersion"]
        self._renewed = self._clock()

    def _lost(self, holder: str) -> StateConflict:
        return StateConflict(f"another rotation holds the lease {self._name}: {holder or 'nobody any more'}", code="locked", retryable=True)


def _holds(secret: dict[str, Any], change: dict[str, Any]) -> bool:
    """Return whether a merge patch has nothing left to change."""
    data = secret.get("data") or {}
    annotations = secret["metadata"].get("annotations") or {}
    return all(data.get(name) == value for name, value in change.get("data", {}).items()) and all(
        annotations.get(name) == value for name, value in change.get("metadata", {}).get("annotations", {}).items()
    )


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _decode(text: str) -> str:
    try:
        return base64.b64decode(text or "").decode()
    except (binascii.Error, UnicodeDecodeError):
        raise StateConflict("a slot in the Secret is no text", code="foreign_slot") from None
