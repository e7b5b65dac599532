# SPDX-License-Identifier: GPL-3.0-or-later
"""`/admin/v1/audit`: the log of every change, and the proof that it is whole."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Router, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from sophia.errors import BadRequest
from sophia.gateway.admin.paging import FilterId, Limit
from sophia.gateway.admin.policy import Action, Resource
from sophia.gateway.admin.services import Call
from sophia.gateway.admin.views import AuditPage, AuditView, moment
from sophia.stores.audit import Entry, Head, Verification

__all__ = ["router"]

Sequence = Annotated[int | None, QueryParameter(ge=1, le=2**53)]
Before = Annotated[int | None, QueryParameter(ge=1, le=2**53, description="`next` of the page before")]
Hash = Annotated[str | None, QueryParameter(pattern="^[0-9a-f]{64}$")]
Named = Annotated[str | None, QueryParameter(pattern="^[0-9a-z_]{1,64}$")]


@get("/")
async def list_audit(
    call: NamedDependency[Call],
    limit: Limit = 50,
    cursor: Before = None,
    organization: FilterId = None,
    resource: Named = None,
    actor: Named = None,
) -> AuditPage:
    """Entries that the caller may see, the newest first. `actor` is the identifier of a key."""
    filters = await call.narrow(Action.AUDIT_READ, organization=organization)
    found = await call.services.audit.entries(
        limit=limit + 1, before=cursor, organization=filters["organization"], resource=resource, actor=actor
    )
    following = str(found[limit - 1].sequence) if len(found) > limit else None
    return AuditPage([_view(entry) for entry in found[:limit]], following)


@get("/verify")
async def verify_audit(call: NamedDependency[Call], sequence: Sequence = None, hash: Hash = None) -> Verification:
    """Walk the whole chain. With `sequence` and `hash`, an end noted earlier must still be part of it."""
    call.require(Action.AUDIT_VERIFY, Resource())
    if (sequence is None) != (hash is None):
        raise BadRequest("invalid_request", "give both `sequence` and `hash`, or neither", param="sequence")
    noted = Head(sequence, hash) if sequence is not None and hash is not None else None
    return await call.services.audit.verify(noted)


def _view(entry: Entry) -> AuditView:
    fields = msgspec.structs.asdict(entry) | {
        "at": moment(entry.at),
        "before": None if entry.before is None else msgspec.json.decode(entry.before),
        "after": None if entry.after is None else msgspec.json.decode(entry.after),
    }
    return AuditView(**fields)


router = Router("/audit", route_handlers=[list_audit, verify_audit], tags=["audit"])
