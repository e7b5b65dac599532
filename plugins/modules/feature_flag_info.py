#!/usr/bin/python
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: feature_flag_info
short_description: List feature flags of the gateway
version_added: 0.1.0
description:
  - Returns the flags in force in a Sophia gateway, those of its file included.
author:
  - The sophia.platform authors (@sophia-platform)
extends_documentation_fragment:
  - sophia.platform._attributes
  - sophia.platform._attributes.info_module
  - sophia.platform._attributes.idempotent_not_modify_state
  - sophia.platform._attributes.actiongroup_gateway
  - sophia.platform._gateway
options:
  name:
    description:
      - Return only the flag of this name.
    type: str
seealso:
  - module: sophia.platform.feature_flag
"""

EXAMPLES = r"""
- name: List every flag
  sophia.platform.feature_flag_info:
  register: all_flags

- name: Look at one flag
  sophia.platform.feature_flag_info:
    name: disable_model
  register: disable_model
"""

RETURN = r"""
feature_flags:
  description: The flags, by name.
  returned: success
  type: list
  elements: dict
  sample:
    - name: new_router
      enabled: true
      percentage: 10.0
      organizations: {org_06h0r7nqdabdjvhj8yc2e161cr: true}
      values: []
      description: Try the new router
      version: 3
      updated_at: "2026-11-24T05:54:29.354156Z"
      source: api
failure:
  description: What went wrong, as data.
  returned: failure
  type: dict
  sample:
    code: not_permitted
    details: {param: null, type: permission_error}
    message: "POST 127.0.0.1:8080/admin/v1/organizations: HTTP 403: the role member may not do this (organization.create)"
    request_id: null
    retryable: false
    status: 403
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.sophia.platform.plugins.module_utils._gateway.options import EXCLUSIVE, api_of, argument_spec
from ansible_collections.sophia.platform.plugins.module_utils._module import run


def gather(module: AnsibleModule) -> dict[str, Any]:
    name = module.params["name"]
    return {"changed": False, "feature_flags": [flag for flag in api_of(module).flags() if name in (None, flag["name"])]}


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(name={"type": "str"}),
        mutually_exclusive=EXCLUSIVE,
        supports_check_mode=True,
    )
    run(module, gather)


if __name__ == "__main__":
    main()
