#!/usr/bin/python
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Report what stands in the way of a deployment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_info
short_description: Report what stands in the way of a deployment on this host
version_added: 0.1.0
description:
  - Looks at tools, ports, settings, stores, disk space and models, and returns every error and every warning at once.
  - Changes nothing. It does not fail because of what it finds; P(sophia.platform.preflight#role) does.
author:
  - The sophia.platform authors (@sophia-platform)
extends_documentation_fragment:
  - sophia.platform._attributes
  - sophia.platform._attributes.info_module
  - sophia.platform._attributes.idempotent_not_modify_state
  - sophia.platform._attributes.actiongroup_all
options:
  tools:
    description: Programs that have to be there.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What people call it.
        type: str
        required: true
      command:
        description: The program and arguments with which it tells its version and exits 0.
        type: list
        elements: str
        required: true
      minimum:
        description: The lowest version that will do, as V(3.11). Empty for any.
        type: str
        default: ""
      required:
        description: Whether its absence is an error, else a warning.
        type: bool
        default: true
      hint:
        description: How it is installed.
        type: str
        default: ""
  ports:
    description: Addresses that have to be free.
    type: list
    elements: dict
    default: []
    suboptions:
      address:
        description: The address to listen on.
        type: str
        default: 127.0.0.1
      port:
        description: The port's number.
        type: int
        required: true
      setting:
        description: The setting with which another is chosen.
        type: str
        required: true
      ours:
        description: Whether the service that shall listen there runs already, and so may hold it.
        type: bool
        default: false
  settings:
    description: Settings that have to be given. Only whether they are is passed, so that no secret gets here.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The setting's name.
        type: str
        required: true
      given:
        description: Whether it has a value.
        type: bool
        required: true
      required:
        description: Whether its absence is an error, else a warning.
        type: bool
        default: true
      hint:
        description: What it is for and where its value comes from.
        type: str
        default: ""
  stores:
    description: Servers that have to answer.
    type: list
    elements: dict
    default: []
    suboptions:
      kind:
        description: What has to answer there.
        type: str
        choices: [postgresql, redis]
        required: true
      url:
        description: Where, without a password.
        type: str
        required: true
      setting:
        description: The setting that names it.
        type: str
        required: true
  spaces:
    description: Folders that have to be writable with room in them; the folder itself may be missing.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The folder.
        type: path
        required: true
      megabytes:
        description: How much has to be free (MiB).
        type: int
        default: 0
      setting:
        description: The setting with which another is chosen.
        type: str
        required: true
  models:
    description: Names of the models that requests are routed to.
    type: list
    elements: str
    default: []
  parameters:
    description: Parameters of requests that every model should know.
    type: list
    elements: str
    default: []
  api_url:
    description: OpenRouter's API, which is asked for its models when O(models) has any.
    type: str
    default: https://openrouter.ai/api/v1
  api_key:
    description: Key for OpenRouter. Listing models needs none.
    type: str
  api_timeout:
    description: How long an answer may take (seconds).
    type: int
    default: 30
seealso:
  - name: OpenRouter's list of models
    description: The API that O(models) are compared with.
    link: https://openrouter.ai/docs/api-reference/list-available-models
"""

EXAMPLES = r"""
- name: Look whether Python and the port are there
  sophia.platform.preflight_info:
    tools:
      - name: Python
        command: [python3, --version]
        minimum: "3.11"
        hint: apt-get install python3
    ports:
      - port: 8080
        setting: gateway_listen
  register: preflight

- name: Look whether a setting is given and its store answers
  sophia.platform.preflight_info:
    settings:
      - name: gateway_openrouter_key
        given: "{{ gateway_openrouter_key is defined }}"
        hint: make one at openrouter.ai
    stores:
      - kind: redis
        url: redis://127.0.0.1:6379/0
        setting: gateway_redis

- name: Look whether OpenRouter offers the models
  sophia.platform.preflight_info:
    models: [openai/gpt-4o-mini]
    parameters: [max_tokens, temperature]
"""

RETURN = r"""
errors:
  description: What stands in the way.
  returned: success
  type: list
  elements: dict
  contains: &finding
    check:
      description: What was looked at, V(tool), V(port), V(setting), V(store), V(space) or V(model).
      type: str
      sample: port
    message:
      description: What is wrong.
      type: str
      sample: 127.0.0.1:8080 cannot be listened on; another program has it
    hint:
      description: What to do about it.
      type: str
      sample: free it or set gateway_listen
    line:
      description: Message and hint in one line.
      type: str
      sample: "127.0.0.1:8080 cannot be listened on: another program has it; free it or set gateway_listen"
warnings_found:
  description: What may surprise.
  returned: success
  type: list
  elements: dict
  contains: *finding
report:
  description: All of it, one line each, for people.
  returned: success
  type: list
  elements: str
  sample: ["error: 127.0.0.1:8080 cannot be listened on: another program has it; free it or set gateway_listen"]
checked:
  description: How many things were looked at.
  returned: success
  type: int
  sample: 12
"""

from collections.abc import Iterable
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.sophia.platform.plugins.module_utils._errors import ApiError, BadResponse, PlatformError
from ansible_collections.sophia.platform.plugins.module_utils._http import Backoff, Client
from ansible_collections.sophia.platform.plugins.module_utils._preflight import judge, probe

CHOICE = {"type": "str", "required": True}
TEXT = {"type": "str", "default": ""}
ARGUMENT_SPEC: dict[str, Any] = {
    "tools": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": CHOICE,
            "command": {"type": "list", "elements": "str", "required": True},
            "minimum": TEXT,
            "required": {"type": "bool", "default": True},
            "hint": TEXT,
        },
    },
    "ports": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "address": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "required": True},
            "setting": CHOICE,
            "ours": {"type": "bool", "default": False},
        },
    },
    "settings": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": CHOICE,
            "given": {"type": "bool", "required": True},
            "required": {"type": "bool", "default": True},
            "hint": TEXT,
        },
    },
    "stores": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"kind": {**CHOICE, "choices": sorted(probe.STORES)}, "url": CHOICE, "setting": CHOICE},
    },
    "spaces": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"path": {"type": "path", "required": True}, "megabytes": {"type": "int", "default": 0}, "setting": CHOICE},
    },
    "models": {"type": "list", "elements": "str", "default": []},
    "parameters": {"type": "list", "elements": "str", "default": []},
    "api_url": {"type": "str", "default": "https://openrouter.ai/api/v1"},
    "api_key": {"type": "str", "no_log": True},
    "api_timeout": {"type": "int", "default": 30},
}


def offered(params: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what OpenRouter offers. Raises ApiError."""
    key = params["api_key"]
    client = Client(
        params["api_url"],
        headers={"Authorization": f"Bearer {key}"} if key else {},
        secrets=[key] if key else [],
        timeout=params["api_timeout"],
        backoff=Backoff(tries=3, cap=5.0),
    )
    body = client.get("models", query={"output_modalities": "all"}).body
    if not isinstance(body, dict) or not isinstance(body.get("data"), list):
        raise BadResponse(f"{params['api_url']}/models: no list of models in the answer")
    return body["data"]


def findings(params: dict[str, Any], run: probe.Run) -> Iterable[judge.Finding]:
    """Look at everything that is asked for."""
    for tool in params["tools"]:
        yield from judge.judge_tool(tool, probe.tool(tool["command"], run))
    for port in params["ports"]:
        yield from judge.judge_port(port, probe.port(port["address"], port["port"]))
    for setting in params["settings"]:
        yield from judge.judge_setting(setting)
    for store in params["stores"]:
        yield from judge.judge_store(store, probe.STORES[store["kind"]](store["url"]))
    for space in params["spaces"]:
        yield from judge.judge_space(space, probe.space(space["path"]))
    if params["models"]:
        try:
            yield from judge.judge_models(params["models"], params["parameters"], offered(params))
        except ApiError as error:
            yield judge.Finding(judge.ERROR, "model", f"OpenRouter's models cannot be read: {error}", "check the API's address and the network")


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        found = list(findings(module.params, module.run_command))
    except PlatformError as error:
        module.fail_json(msg=str(error), **error.as_failure())
    module.exit_json(
        changed=False,
        errors=[finding.as_result() for finding in found if finding.severity == judge.ERROR],
        warnings_found=[finding.as_result() for finding in found if finding.severity == judge.WARNING],
        report=[f"{finding.severity}: {finding.as_line()}" for finding in found],
        checked=sum(len(module.params[name]) for name in ("tools", "ports", "settings", "stores", "spaces", "models")),
    )


if __name__ == "__main__":
    main()
