# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module against the server that QDRANT_URL names, with QDRANT_API_KEY if it asks for one. Collected only then."""

from __future__ import annotations

import os
import random
import uuid

from ansible_collections.sophia.platform.plugins.modules import qdrant_collection_info, qdrant_migrate
from tests.bench.vectors.servers import Connection, point

# Read by pytest: without a server there is nothing here to collect, whoever names this file.
__test__ = bool(os.environ.get("QDRANT_URL"))


def test_a_migration_within_the_server(run_module, real_server, tmp_path):
    url, key = real_server
    name = f"sophia-test-{uuid.uuid4().hex[:12]}"
    alias = name + "-live"
    connection = Connection(url, {"api-key": key} if key else {})
    rng = random.Random(1)
    try:
        connection.call("PUT", f"/collections/{name}", {"vectors": {"size": 8, "distance": "Cosine"}, "hnsw_config": {"m": 8}})
        schema = {"type": "integer", "lookup": True, "range": True}
        connection.call("PUT", f"/collections/{name}/index?wait=true", {"field_name": "number", "field_schema": schema})
        points = [point(rng, number, 8) for number in range(2_000)]
        connection.call("PUT", f"/collections/{name}/points?wait=true", {"points": points})
        common = {"source_url": url, "source_api_key": key, "collection": name, "target_collection": name + "-2", "alias": alias}
        args = {**common, "journal": str(tmp_path), "batch_bytes": 50_000}
        done = run_module(qdrant_migrate, state="switched", **args)
        assert not done.failed, done.result
        assert done.result["migration"]["passes"][0]["differing"] == 0
        assert not run_module(qdrant_migrate, state="switched", **args).result["changed"]
        infos = [run_module(qdrant_collection_info, url=url, api_key=key, name=one, digest=True).result for one in (name, alias)]
        one, other = (info["qdrant_collections"][0] for info in infos)
        for member in ("digest", "points", "config", "payload_schema"):
            assert one[member] == other[member]
        assert run_module(qdrant_migrate, state="rolled_back", delete=True, **args).result["changed"]
    finally:
        for left in (name, name + "-2"):
            connection.send("DELETE", f"/collections/{left}")
        connection.close()
