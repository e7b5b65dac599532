#!/usr/bin/env python
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway's own management API alone, over stores of its own: what the modules of the group `gateway` talk to.

usage: admin.py FOLDER

FOLDER gets the database; it must hold ``admin_key``, and ``flags.yml`` if flags shall come from a file. Says where it
listens in its first line.
"""

from __future__ import annotations

import asyncio
import pathlib
import socket
import sys
from datetime import date

import uvicorn

from sophia.errors import BadRequest
from sophia.gateway.admin import Services, create_admin
from sophia.gateway.match import Match
from sophia.stores.audit import Audit
from sophia.stores.changes import Changes
from sophia.stores.database import open_database
from sophia.stores.flags import Flags
from sophia.stores.registry import Registry
from sophia.stores.schema import migrate
from sophia.stores.tenancy import Tenancy


async def match(day: date | None) -> Match:
    raise BadRequest("management_key_missing", "there is no OpenRouter behind this API")


async def purge(**criteria: str | None) -> int:
    return 0


async def serve(folder: pathlib.Path) -> None:
    database = open_database(f"sqlite:///{folder / 'gateway.db'}")
    await migrate(database)
    flags_file = folder / "flags.yml"
    audit = Audit(database)
    changes = Changes(database)
    tenancy = Tenancy(database, admin_key_file=folder / "admin_key")
    flags = Flags(database, audit, changes, flags_file if flags_file.exists() else None)
    changes.follow(tenancy.refresh)
    changes.follow(flags.refresh)
    await tenancy.load()
    await flags.load()
    app = create_admin(Services(database, Registry(database, audit, changes), tenancy, flags, audit, purge, match))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        await server.serve(sockets=[listener])
    await database.close()


if __name__ == "__main__":
    asyncio.run(serve(pathlib.Path(sys.argv[1])))
