#!/usr/bin/python
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: openrouter_key_info
short_description: List OpenRouter API keys
version_added: 0.1.0
description:
  - Returns API keys of an OpenRouter account with limits, usage and guardrail, disabled and expired ones included.
  - The secret of a key is not among what OpenRouter tells.
author:
  - The sophia.platform authors (@sophia-platform)
extends_documentation_fragment:
  - sophia.platform._attributes
  - sophia.platform._attributes.info_module
  - sophia.platform._attributes.idempotent_not_modify_state
  - sophia.platform._attributes.actiongroup_openrouter
  - sophia.platform._openrouter
options:
  name:
    description:
      - Return only keys of this name. There may be several.
    type: str
  hash:
    description:
      - Return only the key with this identifier.
    type: str
  workspace_id:
    description:
      - The workspace whose keys are listed, if not the default one.
    type: str
  live:
    description:
      - Return only keys that are (V(true)) or are not (V(false)) let in, which is neither disabled nor expired.
    type: bool
"""

EXAMPLES = r"""
- name: List every key
  sophia.platform.openrouter_key_info:
  register: all_keys

- name: Find the keys that can still be used
  sophia.platform.openrouter_key_info:
    live: true
  register: live_keys

- name: Look at one key
  sophia.platform.openrouter_key_info:
    name: production
  register: production_key
"""

RETURN = r"""
openrouter_keys:
  description: The keys, newest first, as OpenRouter describes them, with amounts in USD as strings and the guardrail beside.
  returned: success
  type: list
  elements: dict
  contains:
    hash:
      description: Identifier of the key.
      type: str
      sample: f01d52606dc8f0a8303a7b5cc3fa07109c2e346cec7c0a16b40de462992ce943
    name:
      description: Its name.
      type: str
      sample: production
    label:
      description: Its first and last characters.
      type: str
      sample: sk-or-v1-0e6...1c96
    disabled:
      description: Whether it is switched off.
      type: bool
      sample: false
    limit:
      description: What may be spent in USD, null if unlimited.
      type: str
      sample: "250.5"
    limit_remaining:
      description: What is left of it.
      type: str
      sample: "180.25"
    limit_reset:
      description: When the amount spent starts from zero again.
      type: str
      sample: monthly
    include_byok_in_limit:
      description: Whether usage paid with an own provider key counts.
      type: bool
      sample: false
    usage:
      description: What was spent in all, in USD.
      type: str
      sample: "70.25"
    last_used_at:
      description: When it was last used.
      type: str
      sample: "2026-11-24T05:00:00Z"
    created_at:
      description: When it was made.
      type: str
      sample: "2026-08-24T10:30:00Z"
    expires_at:
      description: When it ends.
      type: str
      sample: null
    workspace_id:
      description: Its workspace.
      type: str
      sample: 0df9e665-d932-5740-b2c7-b52af166bc11
    guardrail_id:
      description: Its guardrail.
      type: str
      sample: null
failure:
  description: What went wrong, as data.
  returned: failure
  type: dict
  sample:
    code: not_a_management_key
    details: {}
    message: "GET openrouter.ai/api/v1/keys: HTTP 403: Only management keys can perform this operation"
    request_id: null
    retryable: false
    status: 403
"""

from datetime import datetime, timezone
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.sophia.platform.plugins.module_utils._module import run
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.model import Key
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.options import api_of, argument_spec


def chosen(key: Key, params: dict[str, Any], now: datetime) -> bool:
    """Return whether a key is among those asked for."""
    return (
        params["name"] in (None, key.name)
        and params["hash"] in (None, key.hash)
        and params["live"] in (None, key.live(now))
    )


def gather(module: AnsibleModule) -> dict[str, Any]:
    api = api_of(module)
    now = datetime.now(timezone.utc)
    keys = [key for key in api.keys(module.params["workspace_id"]) if chosen(key, module.params, now)]
    guardrails = api.assignments() if keys else {}
    return {"changed": False, "openrouter_keys": [key.as_result(guardrails.get(key.hash)) for key in keys]}


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(
            name={"type": "str"},
            hash={"type": "str"},
            workspace_id={"type": "str"},
            live={"type": "bool"},
        ),
        supports_check_mode=True,
    )
    run(module, gather)


if __name__ == "__main__":
    main()
