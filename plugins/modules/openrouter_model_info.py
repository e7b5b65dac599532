#!/usr/bin/python
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: openrouter_model_info
short_description: List the models OpenRouter offers, with their prices
version_added: 0.1.0
description:
  - Returns models with prices, context lengths, supported parameters and whether some provider serves them without keeping data.
  - Prices are exact decimal strings in USD per token, as OpenRouter gives them; a price of V(-1) belongs to a router, whose
    price is that of the model it picks.
author:
  - The sophia.platform authors (@sophia-platform)
extends_documentation_fragment:
  - sophia.platform._attributes
  - sophia.platform._attributes.info_module
  - sophia.platform._attributes.idempotent_not_modify_state
  - sophia.platform._attributes.actiongroup_openrouter
  - sophia.platform._openrouter
options:
  ids:
    description:
      - Return only these models. One that is not on offer is named in RV(missing).
    type: list
    elements: str
  search:
    description:
      - Return only models whose name or identifier has this text.
    type: str
  parameters:
    description:
      - Return only models that support all of these request parameters, such as V(tools) or V(structured_outputs).
    type: list
    elements: str
  input_modalities:
    description:
      - Return only models that take all of these kinds of input.
    type: list
    elements: str
  output_modalities:
    description:
      - Return models that give one of these kinds of output. OpenRouter's default is V(text); V(all) is every kind.
    type: list
    elements: str
  min_context:
    description:
      - Return only models with at least so many tokens of context.
    type: int
  max_prompt_price:
    description:
      - Return only models whose prompt costs at most so many USD per million tokens. Routers have no price and are left out.
    type: str
  max_completion_price:
    description:
      - Return only models whose completion costs at most so many USD per million tokens. Routers have no price and are left out.
    type: str
  zdr:
    description:
      - Return only models that some provider serves with zero data retention (V(true)), or that none does (V(false)).
    type: bool
"""

EXAMPLES = r"""
- name: Check that every model that is configured is on offer
  sophia.platform.openrouter_model_info:
    ids:
      - anthropic/claude-sonnet-4.5
      - openai/gpt-4o-mini
  register: configured
  failed_when: configured.missing | length > 0

- name: Find cheap models that take tools and do not keep data
  sophia.platform.openrouter_model_info:
    parameters: [tools]
    min_context: 100000
    max_prompt_price: 0.50
    max_completion_price: 2
    zdr: true
  register: cheap

- name: Find every model of a family
  sophia.platform.openrouter_model_info:
    search: claude
  register: claude
"""

RETURN = r"""
openrouter_models:
  description: The models, as OpenRouter describes them, sorted by identifier.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: What a request names the model by.
      type: str
      sample: openai/gpt-4o-mini
    name:
      description: Its name for people.
      type: str
      sample: "OpenAI: GPT-4o-mini"
    context_length:
      description: Tokens of context.
      type: int
      sample: 128000
    pricing:
      description: Prices in USD per token, request or image, as decimal strings.
      type: dict
      sample:
        prompt: "0.00000015"
        completion: "0.0000006"
    supported_parameters:
      description: Request parameters it understands.
      type: list
      elements: str
      sample: [max_tokens, temperature, tools]
    zdr:
      description: Whether some provider serves it with zero data retention.
      type: bool
      sample: true
missing:
  description: Which of O(ids) are not on offer, or do not pass the other filters.
  returned: success
  type: list
  elements: str
  sample: []
failure:
  description: What went wrong, as data.
  returned: failure
  type: dict
  sample:
    code: timeout
    details: {}
    message: "GET openrouter.ai/api/v1/models: no answer within 30 s"
    request_id: null
    retryable: true
    status: null
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.sophia.platform.plugins.module_utils._module import run
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.catalogue import Filter, chosen, described
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.options import api_of, argument_spec


def gather(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    wanted = Filter.of(params)
    api = api_of(module, key_required=False)
    output = ",".join(params["output_modalities"]) if params["output_modalities"] else None
    zdr = api.zdr_models()
    models = [described(model, zdr) for model in api.models({"output_modalities": output})]
    found = sorted((model for model in models if chosen(model, wanted)), key=lambda model: model["id"])
    ids = {model["id"] for model in found}
    missing = [id for id in params["ids"] or [] if id not in ids]
    return {"changed": False, "openrouter_models": found, "missing": missing}


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(
            ids={"type": "list", "elements": "str"},
            search={"type": "str"},
            parameters={"type": "list", "elements": "str"},
            input_modalities={"type": "list", "elements": "str"},
            output_modalities={"type": "list", "elements": "str"},
            min_context={"type": "int"},
            max_prompt_price={"type": "str"},
            max_completion_price={"type": "str"},
            zdr={"type": "bool"},
        ),
        supports_check_mode=True,
    )
    run(module, gather)


if __name__ == "__main__":
    main()
