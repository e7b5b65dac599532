#!/usr/bin/python
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_nodepool
short_description: Keep a pool of GPU hosts at Lambda Cloud as it should be
version_added: 0.1.0
description:
  - Launches, replaces and terminates Lambda Cloud instances until a pool has as many hosts of the asked kind as it should.
  - A host is called C(NAME-ORDINAL-SPEC), where C(SPEC) digests what an instance cannot change, and is tagged as the pool's.
    An ordinal never has two hosts. A launch whose outcome is unknown is looked for by its tag before anything else is
    launched in its place, so no host is paid for that nobody knows of.
  - O(max_price_per_hour) and O(budget_usd_per_hour) hold at every moment, hosts that are ending included.
  - Lambda Cloud has no spot instances and cannot stop an instance. Scaling in terminates hosts, with the data on their disks.
author:
  - The sophia.platform authors (@sophia-platform)
extends_documentation_fragment:
  - sophia.platform._attributes
  - sophia.platform._attributes.actiongroup_lambda
  - sophia.platform._lambda_cloud
  - sophia.platform._lambda_cloud.failure
attributes:
  check_mode:
    support: full
    details:
      - RV(plan) has every step with its price, by the same rules that are followed outside check mode.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  name:
    description:
      - Name of the pool, at most 40 lower case letters, digits and hyphens.
    type: str
    required: true
  state:
    description:
      - V(present) makes the pool have O(count) hosts, V(absent) none.
    type: str
    choices: [present, absent]
    default: present
  count:
    description:
      - How many hosts the pool has. Required for O(state=present).
    type: int
  min_count:
    description:
      - A lower O(count) is refused without O(force).
    type: int
    default: 0
  instance_types:
    description:
      - Names of the instance types a host may have, the preferred one first. Required for O(state=present).
    type: list
    elements: str
    default: []
  regions:
    description:
      - Names of the regions a host may be in, the preferred one first. Without any, every region will do.
    type: list
    elements: str
    default: []
  strategy:
    description:
      - Which of the types and regions with capacity is tried first.
      - V(cheapest) goes by price, then by rank; V(ranked) by the rank of the type, then of the region; V(spread) takes the region
        with the fewest hosts of the pool, then the cheapest type.
    type: str
    choices: [cheapest, ranked, spread]
    default: cheapest
  max_price_per_hour:
    description:
      - The most that one host may cost, in USD an hour.
    type: str
  budget_usd_per_hour:
    description:
      - The most that all hosts of the pool may cost together, in USD an hour, on the way too.
      - A replacement that does not fit in beside the host it replaces needs O(max_unavailable).
    type: str
  ssh_key:
    description:
      - Name of the SSH key of the account that may log in. Required for O(state=present).
    type: str
  filesystems:
    description:
      - Names of file systems to attach. Hosts are launched only in their region.
    type: list
    elements: str
    default: []
  image:
    description:
      - The image to boot. Without it, the vendor's current Lambda Stack.
    type: dict
    suboptions:
      family:
        description: The newest image of this family.
        type: str
      id:
        description: This image, which is in one region.
        type: str
  user_data:
    description:
      - Data for cloud-init.
    type: str
  ssh_host_key:
    description:
      - The SSH host key that all hosts of the pool get at their first boot, so that RV(known_hosts) is known before the first
        connection.
    type: dict
    suboptions:
      private_key:
        description: The private key in OpenSSH's format.
        type: str
        required: true
      public_key:
        description: The public key.
        type: str
        required: true
  firewall_rulesets:
    description:
      - Names of firewall rulesets. Hosts are launched only in regions that have a ruleset of each name.
    type: list
    elements: str
    default: []
  tags:
    description:
      - Tags of the hosts. They can be set at launch only; a change replaces hosts.
    type: dict
    default: {}
  max_surge:
    description:
      - How many hosts more than O(count) there may be while drifted ones are replaced.
    type: int
    default: 1
  max_unavailable:
    description:
      - How many hosts fewer than O(count) may be active while drifted ones are replaced.
    type: int
    default: 0
  drain_required:
    description:
      - Delete an active host only if it is in O(drained). What has to be drained first is returned as RV(to_drain).
    type: bool
    default: false
  drained:
    description:
      - Names of hosts that have been drained.
    type: list
    elements: str
    default: []
  protected:
    description:
      - Names of hosts that are never deleted.
    type: list
    elements: str
    default: []
  replace_unhealthy:
    description:
      - Replace hosts that are unhealthy, preempted, or still booting after O(boot_timeout).
    type: bool
    default: true
  broken:
    description:
      - Identifiers of active hosts that are of no use, such as those on which CUDA does not initialise. They are replaced as unhealthy ones are.
      - It takes identifiers because the host that comes in the place of another may have its name.
    type: list
    elements: str
    default: []
  replace_drifted:
    description:
      - Replace hosts that are not what would be launched now, in type, region, image, SSH key, file systems, rulesets, user
        data, host key or tags.
    type: bool
    default: true
  max_deletions:
    description:
      - More hosts than this are not deleted in one run without O(force). Hosts that the run itself launched do not count.
    type: int
    default: 1
  max_relaunches:
    description:
      - How many hosts that the run itself launched and that did not come up it may replace.
    type: int
    default: 3
  force:
    description:
      - Delete any number of hosts, and go below O(min_count).
    type: bool
    default: false
  allow_partial:
    description:
      - Succeed with a RV(shortfall) where there is no capacity within O(wait_timeout), or the budget does not allow more.
    type: bool
    default: false
  wait:
    description:
      - Whether to wait until launched hosts are active and have an address. That SSH answers is not waited for.
    type: bool
    default: true
  wait_timeout:
    description:
      - Seconds for the whole run.
    type: int
    default: 1800
  wait_sleep:
    description:
      - Seconds between two looks.
    type: float
    default: 10.0
  reconcile_timeout:
    description:
      - Seconds for which a launch of unknown outcome is looked for before it counts as not made, and for which the list of
        instances is not trusted to show a new host.
    type: float
    default: 120.0
  boot_timeout:
    description:
      - Seconds after which a host that still boots counts as unhealthy.
    type: int
    default: 1800
"""

EXAMPLES = r"""
- name: See what three hosts would cost
  sophia.platform.gpu_nodepool:
    name: serving
    count: 3
    instance_types: [gpu_1x_a10, gpu_1x_a6000]
    ssh_key: "{{ lambda_ssh_key }}"
  check_mode: true
  diff: true

- name: Have three hosts within a budget, in whichever region has them
  sophia.platform.gpu_nodepool:
    name: serving
    count: 3
    instance_types: [gpu_1x_a10, gpu_1x_a6000]
    max_price_per_hour: 1.50
    budget_usd_per_hour: 6
    ssh_key: "{{ lambda_ssh_key }}"
    ssh_host_key:
      private_key: "{{ gpu_host_key.private }}"
      public_key: "{{ gpu_host_key.public }}"
  register: serving

- name: Spread two hosts over regions, and take what can be had
  sophia.platform.gpu_nodepool:
    name: batch
    count: 2
    instance_types: [gpu_1x_a100_sxm4, gpu_1x_a100]
    regions: [us-west-1, us-east-1]
    strategy: spread
    ssh_key: "{{ lambda_ssh_key }}"
    tags:
      cost-centre: research
    allow_partial: true
    wait: false

- name: Ask which hosts have to be drained to scale to one
  sophia.platform.gpu_nodepool:
    name: serving
    count: 1
    instance_types: [gpu_1x_a10, gpu_1x_a6000]
    max_price_per_hour: 1.50
    budget_usd_per_hour: 6
    ssh_key: "{{ lambda_ssh_key }}"
    ssh_host_key:
      private_key: "{{ gpu_host_key.private }}"
      public_key: "{{ gpu_host_key.public }}"
    drain_required: true
    max_deletions: 2
  register: leaving

- name: Scale to one once they are drained
  sophia.platform.gpu_nodepool:
    name: serving
    count: 1
    instance_types: [gpu_1x_a10, gpu_1x_a6000]
    max_price_per_hour: 1.50
    budget_usd_per_hour: 6
    ssh_key: "{{ lambda_ssh_key }}"
    ssh_host_key:
      private_key: "{{ gpu_host_key.private }}"
      public_key: "{{ gpu_host_key.public }}"
    drain_required: true
    drained: "{{ leaving.to_drain }}"
    max_deletions: 2

- name: Give the whole pool up
  sophia.platform.gpu_nodepool:
    name: batch
    state: absent
    force: true
"""

RETURN = r"""
instances:
  description: The hosts of the pool as they were seen last, in order of their ordinals, without the secrets of the notebook server.
  returned: success, and after a failure on the way
  type: list
  elements: dict
  sample:
    - filesystems: []
      gpus: 1
      hostname: serving-0-5f3c9a1e
      id: 0920582c7ff041399e34823a0be62549
      instance_type: gpu_1x_a6000
      ip: 203.0.113.1
      name: serving-0-5f3c9a1e
      price_per_hour: "1.09"
      private_ip: 10.19.0.2
      region: us-east-1
      ssh_keys: [ops]
      status: active
      tags: {sophia-ordinal: "0", sophia-pool: serving, sophia-spec: 5f3c9a1e}
plan:
  description: What was to be done when the run began.
  returned: success, and after a failure on the way
  type: dict
  contains:
    steps:
      description: The steps in order. C(do) is V(launch), V(drain) or V(delete); C(why) is V(missing), V(surplus), V(drifted), V(duplicate) or a status.
      type: list
      elements: dict
      sample:
        - do: launch
          instance_type: gpu_1x_a6000
          name: serving-0-5f3c9a1e
          price_per_hour: "1.09"
          region: us-east-1
          why: missing
    cost_per_hour_before:
      description: What the pool cost, in USD.
      type: str
      sample: "0.00"
    cost_per_hour_after:
      description: What it would cost afterwards.
      type: str
      sample: "1.09"
    cost_per_hour_peak:
      description: The most it would cost on the way.
      type: str
      sample: "1.09"
    blocked:
      description: What the plan ends at, for example V(capacity), V(budget_usd_per_hour), V(max_price_per_hour) or V(protected).
      type: str
      sample: null
steps:
  description: What was done, as in RV(plan.steps). Empty in check mode.
  returned: success, and after a failure on the way
  type: list
  elements: dict
  sample: []
cost_per_hour:
  description: What the pool's hosts cost now, in USD. In check mode, what they would cost.
  returned: success, and after a failure on the way
  type: str
  sample: "1.09"
shortfall:
  description: How many hosts are missing.
  returned: success, and after a failure on the way
  type: int
  sample: 0
waiting_for:
  description: What the run ended at, if it is not done, as RV(plan.blocked).
  returned: success, and after a failure on the way
  type: str
  sample: null
to_drain:
  description: Names of the hosts that have to be drained for the run to go on.
  returned: success, and after a failure on the way
  type: list
  elements: str
  sample: []
known_hosts:
  description: Lines for a file of known hosts.
  returned: O(ssh_host_key) is given
  type: list
  elements: str
  sample: ["203.0.113.1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2rRk1lFzqS3mQy2l4ek7Lrx5L0n4oS1c0CqQ9dTzUk"]
elapsed:
  description: Seconds the run took.
  returned: success, and after a failure on the way
  type: float
  sample: 214.7
failure:
  description: What went wrong, as data.
  returned: failure
  type: dict
  sample:
    code: too_many_deletions
    details: {}
    message: "serving: 3 hosts would be deleted, and max_deletions is 1"
    request_id: null
    retryable: false
    status: null
"""

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput, PlatformError, StateConflict
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.journal import Journal, locked
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.model import POOL, cents_of, check_tags, usd
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.options import api_of, argument_spec, folder_of
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.plan import Desired, Member, rows
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.pool import Limits, Report, Run
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.template import Template
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.userdata import compose, public_key
from ansible_collections.sophia.platform.plugins.module_utils._module import run


def template_of(params: dict[str, Any]) -> Template:
    """Return what every host is launched with."""
    key = params["ssh_host_key"] or {}
    return Template(
        ssh_key=params["ssh_key"] or "",
        file_systems=tuple(params["filesystems"]),
        rulesets=tuple(params["firewall_rulesets"]),
        image={name: value for name, value in (params["image"] or {}).items() if value},
        user_data=compose(params["user_data"], key.get("private_key"), key.get("public_key")),
        tags=check_tags(params["tags"]),
    )


def desired_of(params: dict[str, Any], spec: str) -> Desired:
    """Return the pool as the options describe it. Raises :class:`InvalidInput`."""
    if not POOL.fullmatch(params["name"]):
        raise InvalidInput(f"name: {params['name']!r} is not of at most 40 lower case letters, digits and inner hyphens")
    present = params["state"] == "present"
    desired = Desired(
        pool=params["name"],
        count=params["count"] if present else 0,
        spec=spec,
        types=tuple(params["instance_types"]),
        regions=tuple(params["regions"]),
        strategy=params["strategy"],
        ceiling=cents_of(params["max_price_per_hour"], "max_price_per_hour"),
        budget=cents_of(params["budget_usd_per_hour"], "budget_usd_per_hour"),
        max_surge=params["max_surge"],
        max_unavailable=params["max_unavailable"],
        protected=frozenset(params["protected"]),
        drain_required=params["drain_required"],
        drained=frozenset(params["drained"]),
        replace_unhealthy=params["replace_unhealthy"],
        replace_drifted=params["replace_drifted"],
        broken=frozenset(params["broken"]),
    )
    desired.check()
    if present and desired.count < params["min_count"] and not params["force"]:
        raise StateConflict(f"{desired.pool}: count {desired.count} is below min_count {params['min_count']}", code="below_min_count")
    return desired


def limits_of(params: dict[str, Any]) -> Limits:
    return Limits(
        max_deletions=params["max_deletions"],
        force=params["force"],
        relaunches=params["max_relaunches"],
        allow_partial=params["allow_partial"],
        wait=params["wait"],
        timeout=params["wait_timeout"],
        interval=params["wait_sleep"],
        reconcile=params["reconcile_timeout"],
        boot_timeout=params["boot_timeout"],
    )


def converge(module: AnsibleModule) -> dict[str, Any]:
    """Make the pool be as asked."""
    params = module.params
    template = template_of(params)
    desired = desired_of(params, template.spec())
    folder = folder_of(params)
    api = api_of(params, folder, module.warn)
    check = module.check_mode
    path = folder / f"pool-{desired.pool}.json"
    with nullcontext() if check else locked(path.with_suffix(".lock")):
        journal = Journal(path, read_only=check)
        journal.load()
        if desired.count:
            template.resolve(api)
        job = Run(api, journal, desired, limits_of(params), template.body, tags=template.tags, allowed=template.allowed)
        try:
            job.run(check)
        except PlatformError as error:
            result = result_of(params, job.report, check)
            module.fail_json(msg=error.message, **{**result, **error.as_failure()})
    result = result_of(params, job.report, check)
    if module._diff:
        after = job.report.plan.after_members if check and job.report.plan else job.report.members
        result["diff"] = {"before": _shown(job.report.before), "after": _shown(after)}
    return result


def result_of(params: dict[str, Any], report: Report, check: bool) -> dict[str, Any]:
    """Return what the module returns, after a failure too."""
    foretold = report.plan
    todo = foretold.steps if foretold else ()
    cost = sum(member.cents for member in report.members)
    if check and foretold:
        cost = foretold.after
    hosts = [report.instances[member.id] for member in report.members if member.id in report.instances]
    result: dict[str, Any] = {
        "changed": any(step.do != "drain" for step in (todo if check else report.steps)),
        "instances": [host.as_result() for host in hosts],
        "plan": {
            "steps": rows(todo),
            "cost_per_hour_before": usd(foretold.before if foretold else cost),
            "cost_per_hour_after": usd(foretold.after if foretold else cost),
            "cost_per_hour_peak": usd(foretold.peak if foretold else cost),
            "blocked": foretold.blocked if foretold else None,
        },
        "steps": rows(report.steps),
        "cost_per_hour": usd(cost),
        "shortfall": report.shortfall,
        "waiting_for": report.waiting_for,
        "to_drain": list(report.to_drain),
        "elapsed": round(report.elapsed, 3),
    }
    if params["ssh_host_key"]:
        key = public_key(params["ssh_host_key"]["public_key"])
        result["known_hosts"] = [f"{host.ip} {key}" for host in hosts if host.ip]
    return result


def _shown(members: Iterable[Member]) -> dict[str, Any]:
    ordered = sorted(members, key=lambda member: (member.ordinal, member.name))
    return {
        "hosts": {member.name: f"{member.type} in {member.region}, {usd(member.cents)} USD/h" for member in ordered},
        "cost_per_hour": usd(sum(member.cents for member in ordered)),
    }


def main() -> None:
    names = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec=argument_spec(
            name={"type": "str", "required": True},
            state={"type": "str", "default": "present", "choices": ["present", "absent"]},
            count={"type": "int"},
            min_count={"type": "int", "default": 0},
            instance_types=names,
            regions=names,
            strategy={"type": "str", "default": "cheapest", "choices": ["cheapest", "ranked", "spread"]},
            max_price_per_hour={"type": "str"},
            budget_usd_per_hour={"type": "str"},
            # The name of a public key.
            ssh_key={"type": "str", "no_log": False},
            filesystems=names,
            image={
                "type": "dict",
                "options": {"family": {"type": "str"}, "id": {"type": "str"}},
                "mutually_exclusive": [("family", "id")],
            },
            user_data={"type": "str", "no_log": True},
            ssh_host_key={
                "type": "dict",
                "no_log": False,
                "options": {
                    "private_key": {"type": "str", "required": True, "no_log": True},
                    "public_key": {"type": "str", "required": True, "no_log": False},
                },
            },
            firewall_rulesets=names,
            tags={"type": "dict", "default": {}},
            max_surge={"type": "int", "default": 1},
            max_unavailable={"type": "int", "default": 0},
            drain_required={"type": "bool", "default": False},
            drained=names,
            protected=names,
            replace_unhealthy={"type": "bool", "default": True},
            replace_drifted={"type": "bool", "default": True},
            broken={"type": "list", "elements": "str", "default": []},
            max_deletions={"type": "int", "default": 1},
            max_relaunches={"type": "int", "default": 3},
            force={"type": "bool", "default": False},
            allow_partial={"type": "bool", "default": False},
            wait={"type": "bool", "default": True},
            wait_timeout={"type": "int", "default": 1800},
            wait_sleep={"type": "float", "default": 10.0},
            reconcile_timeout={"type": "float", "default": 120.0},
            boot_timeout={"type": "int", "default": 1800},
        ),
        required_if=[("state", "present", ["count", "instance_types", "ssh_key"])],
        supports_check_mode=True,
    )
    run(module, converge)


if __name__ == "__main__":
    main()
