# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""What the modules of the action group ``qdrant`` have in common: options, client, ways to end."""

from __future__ import annotations

import urllib.parse
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.sophia.platform.plugins.module_utils._http import Backoff, Client
from ansible_collections.sophia.platform.plugins.module_utils._module import in_the_clear
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.api import Api

# A page of 16 MiB, the longest, with room for a single point that is longer than all of it.
MAX_BYTES = 64 * 1024 * 1024


def argument_spec(**own: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the common options with a module's own; documented in the fragment ``_qdrant``."""
    return {
        "api_timeout": {"type": "int", "default": 60},
        "api_retries": {"type": "int", "default": 5},
        "validate_certs": {"type": "bool", "default": True},
        "ca_path": {"type": "path"},
        **own,
    }


def api_of(module: AnsibleModule, url: str, key: str | None) -> Api:
    """Return one server. Raises :class:`InvalidInput`."""
    params = module.params
    key = (key or "").strip()
    if key and in_the_clear(url):
        module.warn(f"{urllib.parse.urlsplit(url).hostname} is reached by neither https nor loopback: the API key is sent in the clear")
    client = Client(
        url,
        headers={"api-key": key} if key else {},
        secrets=[key] if key else [],
        timeout=params["api_timeout"],
        backoff=Backoff(tries=1 + max(0, params["api_retries"])),
        max_bytes=MAX_BYTES,
        validate_certs=params["validate_certs"],
        ca_path=params["ca_path"],
    )
    return Api(client)
