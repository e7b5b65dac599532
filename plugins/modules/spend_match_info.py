#!/usr/bin/python
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: spend_match_info
short_description: Compare a day's spend ledger with OpenRouter's account
version_added: 0.1.0
description:
  - Has the gateway compare what it booked on a UTC day with what OpenRouter billed, generation by generation, and both with a recount of the tokens at list price.
  - It does not fail where they differ; test RV(match.ok).
  - The gateway needs OpenRouter's management key for it.
author:
  - The sophia.platform authors (@sophia-platform)
extends_documentation_fragment:
  - sophia.platform._attributes
  - sophia.platform._attributes.info_module
  - sophia.platform._attributes.idempotent_not_modify_state
  - sophia.platform._attributes.actiongroup_gateway
  - sophia.platform._gateway
options:
  day:
    description:
      - The UTC day, as V(2026-08-01); yesterday if not given.
      - A day that is not over yet is compared as far as OpenRouter's records are complete.
    type: str
seealso:
  - module: sophia.platform.tenancy_info
"""

EXAMPLES = r"""
- name: Compare yesterday's books
  sophia.platform.spend_match_info:
    api_timeout: 600
  register: books

- name: Raise the alarm where they differ
  ansible.builtin.assert:
    that: books.match.ok
    fail_msg: "{{ books.match.different }} generations are not booked as they were billed: USD {{ books.match.drift }}"
"""

RETURN = r"""
match:
  description:
    - What came of it. Amounts are decimal strings in USD.
    - RV(match.differences) has the first 200 of RV(match.different); each is V(not_booked), V(not_billed), V(cost) or V(tokens).
    - RV(match.foreign) counts generations that others made with the account, RV(match.unexamined) those that could not be told.
  returned: success
  type: dict
  sample:
    day: "2026-11-23"
    ok: true
    over: true
    generations: 160
    booked: "0.01180689"
    billed: "0.01180689"
    drift: "0"
    unsettled: 0
    foreign: 0
    foreign_cost: "0"
    unexamined: 0
    activity: "0.01180689"
    account: "0.02199639"
    ledger: "0.02199639"
    different: 0
    models:
      - model: openai/gpt-4o-mini
        generations: 160
        booked: "0.01180689"
        billed: "0.01180689"
        recounted: "0.01180689"
    differences: []
failure:
  description: What went wrong, as data.
  returned: failure
  type: dict
  sample:
    code: management_key_missing
    details: {param: null, type: invalid_request_error}
    message: "GET 127.0.0.1:8080/admin/v1/spend/match: HTTP 400: OpenRouter's account is read with a management key: set upstream.management_key_file"
    request_id: null
    retryable: false
    status: 400
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.sophia.platform.plugins.module_utils._gateway.options import EXCLUSIVE, api_of, argument_spec
from ansible_collections.sophia.platform.plugins.module_utils._module import run


def gather(module: AnsibleModule) -> dict[str, Any]:
    return {"changed": False, "match": api_of(module).match(module.params["day"])}


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(day={"type": "str"}),
        mutually_exclusive=EXCLUSIVE,
        supports_check_mode=True,
    )
    run(module, gather)


if __name__ == "__main__":
    main()
