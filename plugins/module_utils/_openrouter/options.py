# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""What the modules of the action group ``openrouter`` have in common: options, client, ways to end."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from ansible.module_utils.basic import AnsibleModule, env_fallback

from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput
from ansible_collections.sophia.platform.plugins.module_utils._http import Backoff, Client
from ansible_collections.sophia.platform.plugins.module_utils._module import in_the_clear, warn_once
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.api import Api, classify

API_URL = "https://openrouter.ai/api/v1"


def argument_spec(**own: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the common options with a module's own; documented in the fragment ``_openrouter``."""
    return {
        "api_url": {"type": "str", "default": API_URL},
        "management_key": {
            "type": "str",
            "no_log": True,
            "fallback": (env_fallback, ["OPENROUTER_MANAGEMENT_KEY", "OPENROUTER_PROVISIONING_KEY"]),
        },
        "api_timeout": {"type": "int", "default": 30},
        "api_retries": {"type": "int", "default": 4},
        "validate_certs": {"type": "bool", "default": True},
        "ca_path": {"type": "path"},
        **own,
    }


def api_of(module: AnsibleModule, *, key_required: bool = True) -> Api:
    """Return the API that the module's options describe. Raises :class:`InvalidInput`."""
    params = module.params
    key = (params["management_key"] or "").strip()
    if key_required and not key:
        raise InvalidInput("management_key is not set, nor are OPENROUTER_MANAGEMENT_KEY and OPENROUTER_PROVISIONING_KEY")
    if key and in_the_clear(params["api_url"]):
        module.warn("api_url is neither https nor loopback: the management key is sent in the clear")
    return Api(client_of(module, params["api_url"], key))


def client_of(module: AnsibleModule, url: str, key: str = "") -> Client:
    """Return a client with the module's time-outs and retries that warns, once, of having to retry."""
    params = module.params
    return Client(
        url,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        secrets=[key] if key else [],
        timeout=params["api_timeout"],
        backoff=Backoff(tries=1 + max(0, params["api_retries"])),
        validate_certs=params["validate_certs"],
        ca_path=params["ca_path"],
        parse_float=Decimal,
        classify=classify,
        on_retry=warn_once(module.warn),
    )
