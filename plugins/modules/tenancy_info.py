#!/usr/bin/python
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tenancy_info
short_description: List organisations, teams, users and keys of the gateway
version_added: 0.1.0
description:
  - Returns the tenants of a Sophia gateway that the key may read, with their budgets, limits and models.
  - The secret of a key is not among what the gateway tells.
author:
  - The sophia.platform authors (@sophia-platform)
extends_documentation_fragment:
  - sophia.platform._attributes
  - sophia.platform._attributes.info_module
  - sophia.platform._attributes.idempotent_not_modify_state
  - sophia.platform._attributes.actiongroup_gateway
  - sophia.platform._gateway
options:
  organizations:
    description:
      - Return only the organisations of these names, with what is in them.
    type: list
    elements: str
seealso:
  - module: sophia.platform.tenancy
"""

EXAMPLES = r"""
- name: List every tenant
  sophia.platform.tenancy_info:
  register: everybody

- name: Look at one organisation
  sophia.platform.tenancy_info:
    organizations: [acme]
  register: acme
"""

RETURN = r"""
organizations:
  description: The organisations.
  returned: success
  type: list
  elements: dict
  sample:
    - id: org_06h0r7nqdabdjvhj8yc2e161cr
      name: acme
      budgets: {day: null, week: null, month: "500"}
      limits: {requests_per_minute: null, tokens_per_minute: null}
      models: null
      disabled: false
      zero_data_retention: false
      regions: null
      created_at: "2026-11-24T05:54:29.354156Z"
      updated_at: "2026-11-24T05:54:29.354156Z"
teams:
  description: The teams, with the identifier of their organisation.
  returned: success
  type: list
  elements: dict
  sample: []
users:
  description: The users, with the identifiers of their organisation and team.
  returned: success
  type: list
  elements: dict
  sample: []
api_keys:
  description: The keys, with the identifiers of their organisation and user.
  returned: success
  type: list
  elements: dict
  sample: []
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
from ansible_collections.sophia.platform.plugins.module_utils._gateway.tenants import read
from ansible_collections.sophia.platform.plugins.module_utils._module import run

# A template would take `result.keys` for the method of a dictionary.
RESULTS = {"organization": "organizations", "team": "teams", "user": "users", "key": "api_keys"}


def gather(module: AnsibleModule) -> dict[str, Any]:
    found = read(api_of(module), module.params["organizations"])
    result: dict[str, Any] = {name: [] for name in RESULTS.values()}
    for place, item in found.items():
        result[RESULTS[place[0]]].append(item.record)
    return {"changed": False, **result}


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(organizations={"type": "list", "elements": "str"}),
        mutually_exclusive=EXCLUSIVE,
        supports_check_mode=True,
    )
    run(module, gather)


if __name__ == "__main__":
    main()
