#!/usr/bin/python
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: qdrant_collection_info
short_description: Read the collections of a Qdrant server
version_added: 0.1.0
description:
  - Lists collections with their configuration, payload indexes, aliases, shard keys and exact numbers of points.
  - Optionally computes a digest of all points, by which two collections can be proven equal wherever they are.
author:
  - The sophia.platform authors (@sophia-platform)
extends_documentation_fragment:
  - sophia.platform._attributes
  - sophia.platform._attributes.info_module
  - sophia.platform._attributes.idempotent_not_modify_state
  - sophia.platform._attributes.actiongroup_qdrant
  - sophia.platform._qdrant
options:
  url:
    description:
      - Base URL of the server's REST API.
    type: str
    default: http://localhost:6333
  api_key:
    description:
      - The server's API key, one that may only read included.
      - If not set, the environment variable E(QDRANT_API_KEY) is read.
    type: str
  name:
    description:
      - Only this collection, or the one that this alias means. An unknown name gives an empty list.
    type: str
  digest:
    description:
      - Whether to read all points and compute their digest.
      - A collection of 100,000 points of 384 dimensions is 450 MB to read and takes some ten seconds to digest.
    type: bool
    default: false
seealso:
  - module: sophia.platform.qdrant_migrate
"""

EXAMPLES = r"""
- name: List the collections of a server
  sophia.platform.qdrant_collection_info:
    url: "{{ qdrant_source_url }}"
    api_key: "{{ qdrant_source_api_key }}"
  register: before

- name: Look at the collection that an alias means
  sophia.platform.qdrant_collection_info:
    url: "{{ qdrant_source_url }}"
    api_key: "{{ qdrant_source_api_key }}"
    name: documents

- name: Compute the digest of a collection
  sophia.platform.qdrant_collection_info:
    url: "{{ qdrant_source_url }}"
    api_key: "{{ qdrant_source_api_key }}"
    name: documents_v1
    digest: true
  register: digested
"""

RETURN = r"""
version:
  description: The server's version.
  returned: success
  type: str
  sample: 1.20.0
qdrant_collections:
  description: The collections, by name.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The collection's name.
      type: str
      sample: documents_v1
    aliases:
      description: The aliases that mean it.
      type: list
      elements: str
      sample: [documents]
    status:
      description: The server's word for its state; V(green) if nothing is left to be done.
      type: str
      sample: green
    points:
      description: The exact number of points.
      type: int
      sample: 1200
    config:
      description: Its configuration as the server reports it.
      type: dict
      sample: {hnsw_config: {ef_construct: 100, m: 16}, params: {vectors: {distance: Cosine, size: 384}}}
    payload_schema:
      description: The payload indexes, without their counts.
      type: dict
      sample: {tenant: {data_type: keyword, params: {is_tenant: true, type: keyword}}}
    shard_keys:
      description: The shard keys of a collection with custom sharding.
      type: list
      elements: raw
      sample: []
    digest:
      description:
        - The number of points and the sum of their 128-bit digests modulo 2^128, in hexadecimal.
        - Equal for equal sets of points, whatever the server, its version and the order of members.
      returned: O(digest=true)
      type: str
      sample: "1200:6b6f2bb1a5c8f3a0e1f1d4f0a9c3b275"
failure:
  description: What went wrong, as data.
  returned: failure
  type: dict
  sample: {code: unauthenticated, details: {}, message: "GET localhost:6333/aliases: HTTP 401", request_id: null, retryable: false, status: 401}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule, env_fallback

from ansible_collections.sophia.platform.plugins.module_utils._module import run
from ansible_collections.sophia.platform.plugins.module_utils._qdrant import model
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.api import Api
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.compare import digest_of
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.options import api_of, argument_spec

BATCH_BYTES = 2 * 1024 * 1024


def look(module: AnsibleModule) -> dict[str, Any]:
    """Read the collections."""
    api = api_of(module, module.params["url"], module.params["api_key"])
    version = api.version()
    aliases = api.aliases()
    names = api.collections()
    if module.params["name"] is not None:
        meant = aliases.get(module.params["name"], module.params["name"])
        names = [name for name in names if name == meant]
    shown = [describe(api, name, aliases, module.params["digest"]) for name in names]
    return {"changed": False, "version": version, "qdrant_collections": [item for item in shown if item]}


def describe(api: Api, name: str, aliases: dict[str, str], digest: bool) -> dict[str, Any] | None:
    """Return what is shown of a collection; None if it has gone since it was listed."""
    info = api.info(name)
    if info is None:
        return None
    custom = info["config"]["params"].get("sharding_method") == "custom"
    found = model.read(name, info, api.shard_keys(name) if custom else [], api.count(name), aliases)
    shown: dict[str, Any] = {
        "name": name,
        "aliases": list(found.aliases),
        "status": found.status,
        "points": found.points,
        "config": found.config,
        "payload_schema": found.schema,
        "shard_keys": list(found.shard_keys),
    }
    if digest:
        shown["digest"] = str(digest_of(api, name, found.parts, BATCH_BYTES))
    return shown


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(
            url={"type": "str", "default": "http://localhost:6333"},
            api_key={"type": "str", "no_log": True, "fallback": (env_fallback, ["QDRANT_API_KEY"])},
            name={"type": "str"},
            digest={"type": "bool", "default": False},
        ),
        supports_check_mode=True,
    )
    run(module, look)


if __name__ == "__main__":
    main()
