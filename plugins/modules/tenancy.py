#!/usr/bin/python
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tenancy
short_description: Make organisations, teams, users and keys of the gateway what they shall be
version_added: 0.1.0
description:
  - Manages the tenants of a Sophia gateway with their budgets, limits, models and keys, as one tree.
  - A resource is found by its name within its parent. What exists and is not listed is left alone, unless O(purge) is set.
  - The gateway shows the secret of a key once, in the answer to its creation.
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
  organizations:
    description:
      - The organisations. What is not given of one is left as it is, and organisations that are not listed are left alone.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Its name, by which it is known.
        type: str
        required: true
      teams:
        description:
          - The organisation's teams.
        type: list
        elements: dict
        suboptions:
          name:
            description:
              - Its name, by which it is known in the organisation.
            type: str
            required: true
          users:
            description:
              - The users of the team, as those of the organisation.
            type: list
            elements: dict
            suboptions:
              name:
                description:
                  - Its name, by which it is known in the organisation.
                type: str
                required: true
              email:
                description:
                  - The user's address. An empty text takes it away.
                type: str
              role:
                description:
                  - What the user's keys with the scope V(admin) may do. A new user is a V(member).
                type: str
                choices: [member, organization_admin, platform_admin]
              keys:
                description:
                  - The user's keys.
                type: list
                elements: dict
                suboptions:
                  name:
                    description:
                      - Its name, by which it is known among the user's keys.
                    type: str
                    required: true
                  dest:
                    description:
                      - File that the secret of a new key is written to, mode 0600, atomically and flushed to the disk. Its directory must
                        exist; the file belongs to the directory's owner.
                      - If not given, the secret of a new key is returned in RV(secrets), which the task must hide by C(no_log).
                      - A key that exists is left alone if the file is missing, with a warning. Only a key whose secret was lost on
                        the way by an earlier run is given a new secret.
                    type: path
                  scopes:
                    description:
                      - What the key may be used for. If not given, a new key has all but V(admin).
                    type: list
                    elements: str
                    choices: [chat, embeddings, models, admin]
                  expires_at:
                    description:
                      - When the key ends, as an ISO 8601 time with its zone. An empty text takes the end away.
                    type: str
                  budgets:
                    description:
                      - What may be spent in a period, in USD. Days begin at midnight UTC, weeks on Monday.
                      - A period that is not given is left as it is. V(unlimited) takes the cap away, and V(0) is a cap too.
                    type: dict
                    suboptions:
                      day:
                        description: The cap of a day.
                        type: str
                      week:
                        description: The cap of a week.
                        type: str
                      month:
                        description: The cap of a month.
                        type: str
                  limits:
                    description:
                      - What may be asked for in a minute. V(0) takes the limit away.
                    type: dict
                    suboptions:
                      requests_per_minute:
                        description: Requests.
                        type: int
                      tokens_per_minute:
                        description: Tokens, as estimated before a request is sent.
                        type: int
                  models:
                    description:
                      - The models that may be used, as identifiers or as beginnings that end in V(*). V([*]) allows all.
                      - What every level allows is allowed.
                    type: list
                    elements: str
                  disabled:
                    description:
                      - Whether everything below is switched off.
                    type: bool
                  state:
                    description:
                      - Whether it shall exist.
                    type: str
                    choices: [present, absent]
                    default: present
              budgets:
                description:
                  - What may be spent in a period, in USD. Days begin at midnight UTC, weeks on Monday.
                  - A period that is not given is left as it is. V(unlimited) takes the cap away, and V(0) is a cap too.
                type: dict
                suboptions:
                  day:
                    description: The cap of a day.
                    type: str
                  week:
                    description: The cap of a week.
                    type: str
                  month:
                    description: The cap of a month.
                    type: str
              limits:
                description:
                  - What may be asked for in a minute. V(0) takes the limit away.
                type: dict
                suboptions:
                  requests_per_minute:
                    description: Requests.
                    type: int
                  tokens_per_minute:
                    description: Tokens, as estimated before a request is sent.
                    type: int
              models:
                description:
                  - The models that may be used, as identifiers or as beginnings that end in V(*). V([*]) allows all.
                  - What every level allows is allowed.
                type: list
                elements: str
              disabled:
                description:
                  - Whether everything below is switched off.
                type: bool
              state:
                description:
                  - Whether it shall exist.
                type: str
                choices: [present, absent]
                default: present
          budgets:
            description:
              - What may be spent in a period, in USD. Days begin at midnight UTC, weeks on Monday.
              - A period that is not given is left as it is. V(unlimited) takes the cap away, and V(0) is a cap too.
            type: dict
            suboptions:
              day:
                description: The cap of a day.
                type: str
              week:
                description: The cap of a week.
                type: str
              month:
                description: The cap of a month.
                type: str
          limits:
            description:
              - What may be asked for in a minute. V(0) takes the limit away.
            type: dict
            suboptions:
              requests_per_minute:
                description: Requests.
                type: int
              tokens_per_minute:
                description: Tokens, as estimated before a request is sent.
                type: int
          models:
            description:
              - The models that may be used, as identifiers or as beginnings that end in V(*). V([*]) allows all.
              - What every level allows is allowed.
            type: list
            elements: str
          disabled:
            description:
              - Whether everything below is switched off.
            type: bool
          state:
            description:
              - Whether it shall exist.
            type: str
            choices: [present, absent]
            default: present
      users:
        description:
          - Users of the organisation, in a team or in none.
        type: list
        elements: dict
        suboptions:
          name:
            description:
              - Its name, by which it is known in the organisation.
            type: str
            required: true
          team:
            description:
              - The team the user is in. An empty text takes the user out of the team.
            type: str
          email:
            description:
              - The user's address. An empty text takes it away.
            type: str
          role:
            description:
              - What the user's keys with the scope V(admin) may do. A new user is a V(member).
            type: str
            choices: [member, organization_admin, platform_admin]
          keys:
            description:
              - The user's keys.
            type: list
            elements: dict
            suboptions:
              name:
                description:
                  - Its name, by which it is known among the user's keys.
                type: str
                required: true
              dest:
                description:
                  - File that the secret of a new key is written to, mode 0600, atomically and flushed to the disk. Its directory must
                    exist; the file belongs to the directory's owner.
                  - If not given, the secret of a new key is returned in RV(secrets), which the task must hide by C(no_log).
                  - A key that exists is left alone if the file is missing, with a warning. Only a key whose secret was lost on
                    the way by an earlier run is given a new secret.
                type: path
              scopes:
                description:
                  - What the key may be used for. If not given, a new key has all but V(admin).
                type: list
                elements: str
                choices: [chat, embeddings, models, admin]
              expires_at:
                description:
                  - When the key ends, as an ISO 8601 time with its zone. An empty text takes the end away.
                type: str
              budgets:
                description:
                  - What may be spent in a period, in USD. Days begin at midnight UTC, weeks on Monday.
                  - A period that is not given is left as it is. V(unlimited) takes the cap away, and V(0) is a cap too.
                type: dict
                suboptions:
                  day:
                    description: The cap of a day.
                    type: str
                  week:
                    description: The cap of a week.
                    type: str
                  month:
                    description: The cap of a month.
                    type: str
              limits:
                description:
                  - What may be asked for in a minute. V(0) takes the limit away.
                type: dict
                suboptions:
                  requests_per_minute:
                    description: Requests.
                    type: int
                  tokens_per_minute:
                    description: Tokens, as estimated before a request is sent.
                    type: int
              models:
                description:
                  - The models that may be used, as identifiers or as beginnings that end in V(*). V([*]) allows all.
                  - What every level allows is allowed.
                type: list
                elements: str
              disabled:
                description:
                  - Whether everything below is switched off.
                type: bool
              state:
                description:
                  - Whether it shall exist.
                type: str
                choices: [present, absent]
                default: present
          budgets:
            description:
              - What may be spent in a period, in USD. Days begin at midnight UTC, weeks on Monday.
              - A period that is not given is left as it is. V(unlimited) takes the cap away, and V(0) is a cap too.
            type: dict
            suboptions:
              day:
                description: The cap of a day.
                type: str
              week:
                description: The cap of a week.
                type: str
              month:
                description: The cap of a month.
                type: str
          limits:
            description:
              - What may be asked for in a minute. V(0) takes the limit away.
            type: dict
            suboptions:
              requests_per_minute:
                description: Requests.
                type: int
              tokens_per_minute:
                description: Tokens, as estimated before a request is sent.
                type: int
          models:
            description:
              - The models that may be used, as identifiers or as beginnings that end in V(*). V([*]) allows all.
              - What every level allows is allowed.
            type: list
            elements: str
          disabled:
            description:
              - Whether everything below is switched off.
            type: bool
          state:
            description:
              - Whether it shall exist.
            type: str
            choices: [present, absent]
            default: present
      zero_data_retention:
        description:
          - Whether requests go only to providers that keep no data.
        type: bool
      regions:
        description:
          - The regions in which requests may be answered.
        type: list
        elements: str
      budgets:
        description:
          - What may be spent in a period, in USD. Days begin at midnight UTC, weeks on Monday.
          - A period that is not given is left as it is. V(unlimited) takes the cap away, and V(0) is a cap too.
        type: dict
        suboptions:
          day:
            description: The cap of a day.
            type: str
          week:
            description: The cap of a week.
            type: str
          month:
            description: The cap of a month.
            type: str
      limits:
        description:
          - What may be asked for in a minute. V(0) takes the limit away.
        type: dict
        suboptions:
          requests_per_minute:
            description: Requests.
            type: int
          tokens_per_minute:
            description: Tokens, as estimated before a request is sent.
            type: int
      models:
        description:
          - The models that may be used, as identifiers or as beginnings that end in V(*). V([*]) allows all.
          - What every level allows is allowed.
        type: list
        elements: str
      disabled:
        description:
          - Whether everything below is switched off.
        type: bool
      state:
        description:
          - Whether it shall exist.
        type: str
        choices: [present, absent]
        default: present
  state:
    description:
      - V(absent) removes the organisations with everything in them. Their spend stays on record.
    type: str
    choices: [present, absent]
    default: present
  purge:
    description:
      - Whether to remove teams, users and keys that are not listed. Only lists that are given count, so without
        O(organizations[].users) no user is removed. Organisations are never removed by this.
    type: bool
    default: false
seealso:
  - module: sophia.platform.tenancy_info
  - module: sophia.platform.feature_flag
"""

EXAMPLES = r"""
- name: Make an organisation with a team, a user and a key
  sophia.platform.tenancy:
    organizations:
      - name: acme
        budgets:
          month: 500
        teams:
          - name: research
            budgets:
              day: 25.50
            users:
              - name: ada
                email: ada@example.com
                keys:
                  - name: notebook
                    dest: "{{ tenancy_folder }}/ada"
                    models: [openai/*]

- name: Make somebody the organisation's administrator, until the end of the century
  sophia.platform.tenancy:
    organizations:
      - name: acme
        users:
          - name: grace
            role: organization_admin
            keys:
              - name: administration
                dest: "{{ tenancy_folder }}/grace"
                scopes: [admin, chat, embeddings, models]
                expires_at: "2099-12-31T23:59:59Z"

- name: Stop a user at once, and take the team's daily cap away
  sophia.platform.tenancy:
    organizations:
      - name: acme
        teams:
          - name: research
            budgets:
              day: unlimited
            users:
              - name: ada
                disabled: true

- name: Make a key that is handed to somebody else
  sophia.platform.tenancy:
    organizations:
      - name: acme
        users:
          - name: grace
            keys:
              - name: partner
  register: partner_key
  no_log: true

- name: Keep only these users
  sophia.platform.tenancy:
    organizations:
      - name: acme
        users:
          - name: grace
    purge: true

- name: Remove the organisation
  sophia.platform.tenancy:
    organizations:
      - name: acme
    state: absent
"""

RETURN = r"""
steps:
  description: What was done, or would be done, in order.
  returned: success
  type: list
  elements: dict
  contains:
    do:
      description: One of V(create), V(update), V(rotate) and V(delete).
      type: str
      sample: create
    what:
      description: The kind of resource and the names that lead to it.
      type: str
      sample: user acme/ada
tenants:
  description:
    - Identifiers of what was listed and exists, by kind and name.
    - What is only foretold, in check mode, has none.
  returned: success
  type: dict
  sample:
    organization acme: org_06h0r7nqdabdjvhj8yc2e161cr
    user acme/ada: user_06h0r7nqvzrbq402r1nz4gqjr0
secrets:
  description:
    - Secrets of keys that this run made and that have no C(dest), by the names that lead to the key. They are returned once.
    - They are not hidden from logs by themselves; use C(no_log) on the task.
  returned: when such a key was made
  type: dict
  sample:
    acme/grace/partner: sk-sophia-0123456789ABCDEFGHIJabcdefghij0123456789ABCDEFGHIJab
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

from ansible_collections.sophia.platform.plugins.module_utils._gateway.model import Place, listing_of, name_of
from ansible_collections.sophia.platform.plugins.module_utils._gateway.options import EXCLUSIVE, api_of, argument_spec
from ansible_collections.sophia.platform.plugins.module_utils._gateway.plan import plan
from ansible_collections.sophia.platform.plugins.module_utils._gateway.tenants import Destination, apply, destinations, read
from ansible_collections.sophia.platform.plugins.module_utils._module import run


def _bounds() -> dict[str, Any]:
    """Return the options that every level has."""
    return {
        "name": {"type": "str", "required": True},
        "budgets": {"type": "dict", "options": {period: {"type": "str"} for period in ("day", "week", "month")}},
        "limits": {
            "type": "dict",
            "options": {"requests_per_minute": {"type": "int"}, "tokens_per_minute": {"type": "int", "no_log": False}},
        },
        "models": {"type": "list", "elements": "str"},
        "disabled": {"type": "bool"},
        "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
    }


def _users(**own: dict[str, Any]) -> dict[str, Any]:
    key = {
        **_bounds(),
        "dest": {"type": "path"},
        "scopes": {"type": "list", "elements": "str", "choices": ["chat", "embeddings", "models", "admin"]},
        "expires_at": {"type": "str"},
    }
    user = {
        **_bounds(),
        **own,
        "email": {"type": "str"},
        "role": {"type": "str", "choices": ["member", "organization_admin", "platform_admin"]},
        "keys": {"type": "list", "elements": "dict", "no_log": False, "options": key},
    }
    return {"type": "list", "elements": "dict", "options": user}


def organizations_spec() -> dict[str, Any]:
    """Return the option `organizations`."""
    organization = {
        **_bounds(),
        "zero_data_retention": {"type": "bool"},
        "regions": {"type": "list", "elements": "str"},
        "teams": {"type": "list", "elements": "dict", "options": {**_bounds(), "users": _users()}},
        "users": _users(team={"type": "str"}),
    }
    return {"type": "list", "elements": "dict", "required": True, "options": organization}


def converge(module: AnsibleModule) -> dict[str, Any]:
    """Make the tenants be as wanted."""
    listing = listing_of(module.params["organizations"], module.params["state"] == "present")
    places = destinations(listing)
    for destination in places.values():
        destination.check()
    api = api_of(module)
    names = {item.path[0] for item in listing.wanted}
    found = read(api, names)
    lost = [place for place, destination in places.items() if place in found and destination.lost()]
    todo = plan(listing, found, purge=module.params["purge"], lost=lost)
    _warn_of_missing(module, places, [place for place in places if place in found and place not in lost])
    result: dict[str, Any] = {
        "changed": todo.changed,
        "steps": [{"do": step.do, "what": name_of(step.place)} for step in todo.steps],
    }
    if module._diff:
        result["diff"] = {"before": todo.before, "after": todo.after}
    if todo.changed and not module.check_mode:
        secrets = apply(api, todo, found, places)
        # What went to a file must not come out by another door; the rest is what the caller asked for.
        module.no_log_values.update(secret for place, secret in secrets.items() if place in places)
        shown = {"/".join(place[1]): secret for place, secret in secrets.items() if place not in places}
        if shown:
            result["secrets"] = shown
        found = read(api, names)
    result["tenants"] = {name_of(item.place): found[item.place].id for item in listing.wanted if item.place in found}
    return result


def _warn_of_missing(module: AnsibleModule, places: dict[Place, Destination], existing: list[Place]) -> None:
    for place in existing:
        if not places[place].exists():
            module.warn(f"the {name_of(place)} exists, but its secret is not at {places[place].path}; it can be rotated")


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(
            organizations=organizations_spec(),
            state={"type": "str", "default": "present", "choices": ["present", "absent"]},
            purge={"type": "bool", "default": False},
        ),
        mutually_exclusive=EXCLUSIVE,
        supports_check_mode=True,
    )
    run(module, converge)


if __name__ == "__main__":
    main()
