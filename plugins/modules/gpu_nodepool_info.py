#!/usr/bin/python
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_nodepool_info
short_description: List pools of GPU hosts, instances, and what Lambda Cloud has on sale
version_added: 0.1.0
description:
  - Returns the instances of a Lambda Cloud account, the pools that M(sophia.platform.gpu_nodepool) made of them, and the
    instance types with their prices and the regions that have some.
  - The vendor gives no guarantee that a launch finds the capacity that is listed.
author:
  - The sophia.platform authors (@sophia-platform)
extends_documentation_fragment:
  - sophia.platform._attributes
  - sophia.platform._attributes.info_module
  - sophia.platform._attributes.idempotent_not_modify_state
  - sophia.platform._attributes.actiongroup_lambda
  - sophia.platform._lambda_cloud
  - sophia.platform._lambda_cloud.failure
options:
  name:
    description:
      - Return only this pool, and only its instances.
    type: str
  gather:
    description:
      - What to ask for. Each is one call.
    type: list
    elements: str
    choices: [instances, instance_types]
    default: [instances, instance_types]
"""

EXAMPLES = r"""
- name: Look at everything
  sophia.platform.gpu_nodepool_info:
  register: cloud

- name: Look at one pool
  sophia.platform.gpu_nodepool_info:
    name: serving
    gather: [instances]
  register: serving_pool

- name: Find the cheapest type with eight GPUs that some region has now
  sophia.platform.gpu_nodepool_info:
    gather: [instance_types]
  register: market

- name: Say what it costs
  ansible.builtin.debug:
    msg: "{{ market.instance_types | selectattr('gpus', 'eq', 8) | selectattr('regions_with_capacity') | first }}"
"""

RETURN = r"""
pools:
  description: The pools, by name.
  returned: success, V(instances) in O(gather)
  type: list
  elements: dict
  contains:
    name:
      description: Name of the pool.
      type: str
      sample: serving
    hosts:
      description: Names of its hosts, by ordinal.
      type: list
      elements: str
      sample: [serving-0-5f3c9a1e]
    statuses:
      description: How many hosts have each status.
      type: dict
      sample: {active: 1}
    cost_per_hour:
      description: What it costs, in USD.
      type: str
      sample: "1.09"
instances:
  description: The instances, as M(sophia.platform.gpu_nodepool) returns them, with the pool each belongs to, null for none.
  returned: success, V(instances) in O(gather)
  type: list
  elements: dict
  sample: []
cost_per_hour:
  description: What all these instances cost, in USD.
  returned: success, V(instances) in O(gather)
  type: str
  sample: "1.09"
instance_types:
  description: What is on sale, the cheapest first.
  returned: success, V(instance_types) in O(gather)
  type: list
  elements: dict
  contains:
    name:
      description: Name of the type.
      type: str
      sample: gpu_1x_a6000
    description:
      description: What it is.
      type: str
      sample: 1x A6000 (48 GB)
    price_per_hour:
      description: Price of the whole machine in USD.
      type: str
      sample: "1.09"
    gpus:
      description: How many GPUs it has.
      type: int
      sample: 1
    specs:
      description: Its size.
      type: dict
      sample: {gpus: 1, memory_gib: 100, storage_gib: 200, vcpus: 14}
    regions_with_capacity:
      description: Regions that say they have some.
      type: list
      elements: str
      sample: [us-east-1, us-west-1]
failure:
  description: What went wrong, as data.
  returned: failure
  type: dict
  sample:
    code: global/invalid-api-key
    details: {}
    message: "GET cloud.lambda.ai/api/v1/instances: HTTP 401: API key was invalid, expired, or deleted."
    request_id: null
    retryable: false
    status: 401
"""

from collections import Counter
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.model import Instance, identity, usd
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.options import api_of, argument_spec, folder_of
from ansible_collections.sophia.platform.plugins.module_utils._module import run


def pool_of(instance: Instance) -> str | None:
    own = identity(instance)
    return own.pool if own else None


def summary(name: str, instances: list[Instance]) -> dict[str, Any]:
    """Return what a pool is in short."""

    def place(instance: Instance) -> tuple[int, str]:
        own = identity(instance)
        return (own.ordinal if own else 0, instance.name)

    hosts = sorted((item for item in instances if pool_of(item) == name), key=place)
    return {
        "name": name,
        "hosts": [host.name for host in hosts],
        "statuses": dict(sorted(Counter(host.status for host in hosts).items())),
        "cost_per_hour": usd(sum(host.cents for host in hosts)),
    }


def gather(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    api = api_of(params, folder_of(params), module.warn)
    result: dict[str, Any] = {"changed": False}
    if "instances" in params["gather"]:
        instances = [item for item in api.instances() if item.status != "terminated" and params["name"] in (None, pool_of(item))]
        names = sorted({name for item in instances if (name := pool_of(item))})
        result["pools"] = [summary(name, instances) for name in names]
        result["instances"] = [{**item.as_result(), "pool": pool_of(item)} for item in instances]
        result["cost_per_hour"] = usd(sum(item.cents for item in instances))
    if "instance_types" in params["gather"]:
        offers = sorted(api.offers(), key=lambda offer: (offer.cents, offer.type))
        result["instance_types"] = [offer.as_result() for offer in offers]
    return result


def main() -> None:
    kinds = ["instances", "instance_types"]
    module = AnsibleModule(
        argument_spec=argument_spec(
            name={"type": "str"},
            gather={"type": "list", "elements": "str", "choices": kinds, "default": kinds},
        ),
        supports_check_mode=True,
    )
    run(module, gather)


if __name__ == "__main__":
    main()
