# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""What the modules of the action group ``gateway`` have in common: options, client, ways to end."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule, env_fallback

from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput
from ansible_collections.sophia.platform.plugins.module_utils._gateway.api import Api
from ansible_collections.sophia.platform.plugins.module_utils._http import Backoff, Client
from ansible_collections.sophia.platform.plugins.module_utils._module import warn_once

URL = "http://127.0.0.1:8080"
EXCLUSIVE = [("admin_key", "admin_key_file")]


def argument_spec(**own: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the common options with a module's own; documented in the fragment ``_gateway``."""
    return {
        "url": {"type": "str", "default": URL},
        "admin_key": {"type": "str", "no_log": True, "fallback": (env_fallback, ["SOPHIA_ADMIN_KEY"])},
        "admin_key_file": {"type": "path", "no_log": False, "fallback": (env_fallback, ["SOPHIA_ADMIN_KEY_FILE"])},
        "api_timeout": {"type": "int", "default": 30},
        "api_retries": {"type": "int", "default": 4},
        "validate_certs": {"type": "bool", "default": True},
        "ca_path": {"type": "path"},
        **own,
    }


def api_of(module: AnsibleModule) -> Api:
    """Return the API that the module's options describe."""
    params = module.params
    key = _key(params["admin_key"], params["admin_key_file"])
    module.no_log_values.add(key)
    client = Client(
        params["url"].rstrip("/") + "/admin/v1",
        headers={"Authorization": f"Bearer {key}"},
        secrets=[key],
        timeout=params["api_timeout"],
        backoff=Backoff(tries=1 + max(0, params["api_retries"])),
        validate_certs=params["validate_certs"],
        ca_path=params["ca_path"],
        on_retry=warn_once(module.warn),
    )
    return Api(client)


def _key(key: str | None, path: str | None) -> str:
    if path:
        try:
            with open(path, encoding="utf-8") as file:
                lines = file.read(4096).split()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"admin_key_file: {path} cannot be read: {getattr(error, 'strerror', None) or 'not text'}") from None
        key = lines[0] if lines else None
    if not (key or "").strip():
        raise InvalidInput("no administrator's key: give admin_key_file or admin_key")
    return str(key).strip()
