# SPDX-License-Identifier: GPL-3.0-or-later
"""The API does what its OpenAPI document says, whatever it is sent (schemathesis)."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

from conftest import Cache, no_match
from sophia.gateway.admin import Services, create_admin
from sophia.stores.audit import Actor
from sophia.stores.database import open_database
from sophia.stores.model import Flag
from sophia.stores.registry import Key, Organization, Team, User, digest, new_secret
from sophia.stores.schema import migrate
from tenants import Tenants, open_tenants


@dataclass(frozen=True)
class Running:
    """The API with one resource of every kind, by the name of its path parameter."""

    tenants: Tenants
    known: dict[str, str]


async def _start(folder: Path) -> Running:
    database = open_database(f"sqlite:///{folder / 'gateway.db'}")
    await migrate(database)
    tenants = await open_tenants(database, folder)
    actor, registry = Actor("key_test"), tenants.registry
    organization = await registry.create(actor, Organization, name="acme")
    team = await registry.create(actor, Team, organization=organization.id, name="core")
    user = await registry.create(actor, User, organization=organization.id, name="ada")
    fields = {"organization": organization.id, "user": user.id, "scopes": frozenset({"chat"})}
    key = await registry.create(actor, Key, name="k", prefix="", digest=digest(new_secret()), **fields)
    await tenants.flags.put(actor, Flag("new"), 0)
    known = {"organization_id": organization.id, "team_id": team.id, "user_id": user.id, "key_id": key.id}
    return Running(tenants, known | {"flag_name": "new"})


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("openapi")
    found = asyncio.run(_start(folder))
    yield found
    asyncio.run(found.tenants.database.close())


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.mark.parametrize(
    ("existing", "mode"),
    [(False, GenerationMode.POSITIVE), (True, GenerationMode.POSITIVE), (True, GenerationMode.NEGATIVE)],
    ids=["any identifiers", "existing identifiers", "what the document forbids"],
)
def test_every_operation_keeps_to_its_document(running: Running, existing: bool, mode: GenerationMode) -> None:
    tenants = running.tenants
    app = create_admin(
        Services(
            tenants.database, tenants.registry, tenants.tenancy, tenants.flags, tenants.audit, Cache().purge, no_match
        )
    )
    schema = schemathesis.openapi.from_asgi("/admin/v1/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 35
    headers = {"authorization": f"Bearer {tenants.admin_secret}"}
    answers: Counter[int] = Counter()
    for operation in operations:
        if existing and ("{" not in operation.path or operation.method == "delete"):
            continue  # what exists must stay so for the cases that follow

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        def check(case: Case) -> None:
            if existing:
                named = set(case.path_parameters) & set(running.known)
                case.path_parameters.update({name: running.known[name] for name in named})
            answers[case.call_and_validate(headers=headers, checks=CHECKS).status_code] += 1

        with contextlib.suppress(Unsatisfiable):  # where the document forbids nothing
            check()
    assert answers.total() > 100
    # Leaving the key out is one of the things that the document forbids.
    forbidden = {401} if mode is GenerationMode.NEGATIVE else set()
    assert {200, 400} <= set(answers) <= {200, 201, 204, 400, 404, 409} | forbidden
