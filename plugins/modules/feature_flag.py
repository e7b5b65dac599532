#!/usr/bin/python
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: feature_flag
short_description: Change one feature flag of the gateway
version_added: 0.1.0
description:
  - Makes one flag of a Sophia gateway be what is asked for. No other flag is ever touched, and a change that somebody else
    made at the same time is not overwritten but looked at again.
  - A flag is on for the organisations that O(organizations) says, and else for the share O(percentage) of subjects. A
    subject stays on its side, and a larger share keeps everybody who was in.
  - A change is in force in every gateway in less than a second.
author:
  - The sophia.platform authors (@sophia-platform)
extends_documentation_fragment:
  - sophia.platform._attributes
  - sophia.platform._attributes.actiongroup_gateway
  - sophia.platform._gateway
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  name:
    description:
      - Name of the flag. Flags of the gateway's file cannot be changed here.
    type: str
    required: true
  state:
    description:
      - Whether the flag shall exist. One that does not is off.
    type: str
    choices: [present, absent]
    default: present
  enabled:
    description:
      - Whether the flag is on at all. A new flag is off.
    type: bool
  percentage:
    description:
      - For which share of subjects it is on, from 0 to 100. A new flag has 100.
    type: float
  organizations:
    description:
      - Organisations for which the flag is on (V(true)) or off (V(false)) whatever the share, by name or identifier.
      - If given, it replaces all of them.
    type: dict
  values:
    description:
      - Parameters of the flag, as the models that C(disable_model) disables. If given, it replaces all of them.
    type: list
    elements: str
  description:
    description:
      - What the flag is for.
    type: str
seealso:
  - module: sophia.platform.feature_flag_info
  - module: sophia.platform.tenancy
"""

EXAMPLES = r"""
- name: Take a model out of service
  sophia.platform.feature_flag:
    name: disable_model
    enabled: true
    values: [openai/gpt-4o]

- name: Try something new with a tenth of all, and with one organisation as a whole
  sophia.platform.feature_flag:
    name: new_router
    enabled: true
    percentage: 10
    organizations:
      acme: true
    description: Try the new router

- name: Widen it
  sophia.platform.feature_flag:
    name: new_router
    percentage: 25

- name: Remove it
  sophia.platform.feature_flag:
    name: new_router
    state: absent
"""

RETURN = r"""
feature_flag:
  description: The flag as it is now, or would be; empty if there is none.
  returned: success
  type: dict
  sample:
    name: new_router
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
    code: flag_read_only
    details: {param: null, type: conflict_error}
    message: "PUT 127.0.0.1:8080/admin/v1/flags/disable_model: HTTP 409: the flag 'disable_model' comes from the flags file; change it there"
    request_id: null
    retryable: false
    status: 409
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.sophia.platform.plugins.module_utils._errors import Conflict, InvalidInput
from ansible_collections.sophia.platform.plugins.module_utils._gateway.api import Api
from ansible_collections.sophia.platform.plugins.module_utils._gateway.options import EXCLUSIVE, api_of, argument_spec
from ansible_collections.sophia.platform.plugins.module_utils._gateway.plan import FLAG_SETTINGS, FlagPlan, plan_flag
from ansible_collections.sophia.platform.plugins.module_utils._module import run

TRIES = 5


def overrides(api: Api, given: dict[str, Any] | None) -> dict[str, bool] | None:
    """Return the option `organizations` by identifier. Raises InvalidInput for a name that is not known."""
    if not given:
        return given
    ids = {record["name"]: record["id"] for record in api.list("organization")}
    known = set(ids.values())
    found: dict[str, bool] = {}
    for name, value in given.items():
        if name not in ids and name not in known:
            raise InvalidInput(f"organizations: there is no organisation {name!r}")
        try:
            found[ids.get(name, name)] = boolean(value)
        except TypeError:
            raise InvalidInput(f"organizations: {name}: {value!r} is neither true nor false") from None
    return found


def converge(module: AnsibleModule) -> dict[str, Any]:
    """Make the flag be as wanted, from what it is when the gateway accepts the change."""
    params = module.params
    api = api_of(module)
    given = {name: params[name] for name in FLAG_SETTINGS}
    given["organizations"] = overrides(api, params["organizations"])
    for attempt in range(1, TRIES + 1):
        flag = api.flag(params["name"])
        todo = plan_flag(params["state"] == "present", given, flag)
        try:
            shown = _apply(api, params["name"], todo, flag, module.check_mode)
        except Conflict as error:
            if error.code != "version_conflict" or attempt == TRIES:
                raise
            continue
        break
    result: dict[str, Any] = {"changed": todo.changed, "feature_flag": shown}
    if module._diff:
        result["diff"] = {"before": todo.before, "after": todo.after}
    return result


def _apply(api: Api, name: str, todo: FlagPlan, flag: dict[str, Any] | None, check: bool) -> dict[str, Any]:
    if todo.action == "none":
        return flag or {}
    if check:
        return {**(flag or {"name": name}), **todo.after} if todo.after else {}
    if todo.action == "delete":
        api.delete_flag(name, todo.version)
        return {}
    return api.put_flag(name, todo.body())


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(
            name={"type": "str", "required": True},
            state={"type": "str", "default": "present", "choices": ["present", "absent"]},
            enabled={"type": "bool"},
            percentage={"type": "float"},
            organizations={"type": "dict"},
            values={"type": "list", "elements": "str"},
            description={"type": "str"},
        ),
        mutually_exclusive=EXCLUSIVE,
        supports_check_mode=True,
    )
    run(module, converge)


if __name__ == "__main__":
    main()
