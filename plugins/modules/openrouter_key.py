#!/usr/bin/python
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: openrouter_key
short_description: Create, change, rotate and remove OpenRouter API keys
version_added: 0.1.0
description:
  - Manages API keys of an OpenRouter account as resources. A key is found by O(name); disabled and expired keys are found too.
  - OpenRouter shows the secret of a key once, in the answer to its creation. This module writes it to O(dest) or into a slot
    before the key counts as made, and deletes a key whose secret was lost on the way.
  - With O(state=rotated) a key is replaced without a failed request. The new key is created, distributed to the gateways by
    the secondary slot, verified, promoted to the primary slot, and when no gateway uses the old key and its usage at
    OpenRouter stands still, the old one is disabled and then deleted. A run that was killed is continued by the next one.
author:
  - The sophia.platform authors (@sophia-platform)
extends_documentation_fragment:
  - sophia.platform._attributes
  - sophia.platform._attributes.actiongroup_openrouter
  - sophia.platform._openrouter
attributes:
  check_mode:
    support: full
    details:
      - A rotation in check mode looks at OpenRouter, slots and gateways and returns the steps that would be taken.
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - O(state=rotated) rotates each time, unless O(max_age) says when a key is old enough.
options:
  name:
    description:
      - Name of the key. OpenRouter does not keep names unique; if several keys have it, O(hash) must say which is meant.
      - During a rotation the new key is called C(NAME [incoming ID]) until it is promoted, the old one C(NAME [outgoing ID]) from then on.
    type: str
    required: true
  hash:
    description:
      - OpenRouter's identifier of the key. If given, the key is found by it, and renamed if it is not called O(name).
    type: str
  state:
    description:
      - V(present) makes the key exist with the settings given. What is not given is left as it is.
      - V(absent) deletes it, and removes O(dest).
      - V(rotated) replaces it by a new key with the same settings, save those given here. Without a key of that name the
        first one is made.
      - V(rolled_back) undoes a rotation under way, in whichever phase it is, until the old key is deleted. Without one it
        does nothing.
    type: str
    choices: [present, absent, rotated, rolled_back]
    default: present
  limit:
    description:
      - What may be spent with the key, in USD, or V(unlimited). V(0) is a limit too.
    type: str
  limit_reset:
    description:
      - When the amount spent starts from zero again, at midnight UTC.
    type: str
    choices: [daily, weekly, monthly, never]
  include_byok_in_limit:
    description:
      - Whether usage that is paid with an own provider key counts towards O(limit).
    type: bool
  disabled:
    description:
      - Whether the key is switched off. Not for O(state=rotated).
      - OpenRouter cannot make a disabled key; it is made and disabled at once, and deleted if that fails.
    type: bool
  expires_at:
    description:
      - When the key ends, as an ISO 8601 time with its zone. It cannot be changed once the key exists; O(state=rotated) replaces the key.
    type: str
  workspace_id:
    description:
      - The workspace in which the key is looked for and made, if not the default one.
    type: str
  guardrail_id:
    description:
      - The guardrail the key is under, an empty text for none. A key has at most one.
      - If not given, it is left as it is, and copied by a rotation.
    type: str
  dest:
    description:
      - File that the secret of a new key is written to, mode 0600, atomically and flushed to the disk. Its directory must
        exist; the file belongs to the directory's owner.
      - If not given, O(state=present) returns the secret of a new key as RV(key), which the task must hide by C(no_log).
    type: path
  slots:
    description:
      - Directory of the slot files C(primary) and C(secondary), which gateways read again whenever they change, and of the
        rotation's journal. O(state=rotated) and O(state=rolled_back) need either this or O(kubernetes).
    type: path
  slot_prefix:
    description:
      - What the names of the files in O(slots) begin with, as V(openrouter_) for C(openrouter_primary).
    type: str
    default: ""
  kubernetes:
    description:
      - The Secret whose entries C(primary) and C(secondary) are the slots, and which has the rotation's journal in an annotation.
      - A rotation reads and writes the Secret, renews a Lease called like it with C(-rotation) behind, lists Pods, and reads
        their metrics through the API server. The account needs these rights (C(get), C(patch) of the Secret; C(get), C(create)
        and C(update) of Leases; C(list) of Pods; C(get) of C(pods/proxy)).
    type: dict
    suboptions:
      host:
        description: URL of the API server.
        type: str
        required: true
      api_key:
        description: A bearer token for it.
        type: str
      ca_cert:
        description: Certificates to trust, as PEM text. The system's by default.
        type: str
      client_cert:
        description: A client certificate, as PEM text.
        type: str
      client_key:
        description: The key of O(kubernetes.client_cert), as PEM text.
        type: str
      validate_certs:
        description: Whether to verify the API server's certificate.
        type: bool
        default: true
      namespace:
        description: The namespace of Secret and gateways.
        type: str
        required: true
      secret:
        description: Name of the Secret, which must exist.
        type: str
        default: openrouter-secrets
      selector:
        description: Label selector of the gateways' Pods. Each has to report what O(gateways) says.
        type: str
        default: app.kubernetes.io/name=gateway,app.kubernetes.io/part-of=sophia
      ports:
        description: Ports of the metrics of each Pod; worker C(n) of several has one of its own.
        type: list
        elements: int
        default: [9090]
      min_pods:
        description: How many Pods there have to be, so that a wrong O(kubernetes.selector) does not pass for gateways without keys.
        type: int
        default: 1
  gateways:
    description:
      - URLs of the metrics page of every gateway that reads O(slots), which needs them. Each has to report C(openrouter_key_loaded{slot,hash})
        and C(openrouter_key_in_flight{hash}), C(hash) being the first 12 hex digits of the SHA-256 of the key.
      - A gateway that does not answer holds the rotation up.
    type: list
    elements: str
  max_age:
    description:
      - Rotate only a key that is at least so many seconds old, disabled, expired, or has another O(expires_at).
    type: int
  quiet:
    description:
      - Seconds for which the old key's usage at OpenRouter must stand still before it is disabled.
    type: int
    default: 30
  soak:
    description:
      - Seconds from disabling the old key, which can be undone, to deleting it, which cannot.
    type: int
    default: 60
  emergency:
    description:
      - Disable the old key first of all, for a key that leaked. Requests fail until the new key is in the primary slot.
    type: bool
    default: false
  probe_model:
    description:
      - A model to ask for one token with the new key before it is promoted. If not given, the key only has to authenticate.
    type: str
  wait:
    description:
      - Whether to wait for gateways and delays. If not, a run goes as far as it can and the next one goes on.
    type: bool
    default: true
  wait_timeout:
    description:
      - Seconds that each phase may wait.
    type: int
    default: 300
  wait_sleep:
    description:
      - Seconds between two looks.
    type: float
    default: 2.0
"""

EXAMPLES = r"""
- name: Make a key for the gateway and keep its secret on this host
  sophia.platform.openrouter_key:
    name: production
    limit: 250.50
    limit_reset: monthly
    dest: "{{ openrouter_slots }}/primary"

- name: Lower its limit
  sophia.platform.openrouter_key:
    name: production
    limit: 100

- name: Replace it when it is 30 days old, without a failed request
  sophia.platform.openrouter_key:
    name: production
    state: rotated
    slots: "{{ openrouter_slots }}"
    gateways: "{{ openrouter_gateways }}"
    max_age: 2592000

- name: Replace it now because it leaked
  sophia.platform.openrouter_key:
    name: production
    state: rotated
    slots: "{{ openrouter_slots }}"
    gateways: "{{ openrouter_gateways }}"
    emergency: true
    soak: 0

- name: Go back if a rotation is under way
  sophia.platform.openrouter_key:
    name: production
    state: rolled_back
    slots: "{{ openrouter_slots }}"
    gateways: "{{ openrouter_gateways }}"

- name: Make a key that is handed to somebody else
  sophia.platform.openrouter_key:
    name: analytics
    limit: 5
    expires_at: "2099-12-31T23:59:59Z"
  register: analytics_key
  no_log: true

- name: Remove it
  sophia.platform.openrouter_key:
    name: analytics
    state: absent
"""

RETURN = r"""
openrouter_key:
  description:
    - The key as OpenRouter describes it, amounts in USD as strings. Empty if there is none.
    - In check mode, as it would be; what only OpenRouter knows is missing from a key not made yet.
  returned: success, O(state=present) and O(state=absent)
  type: dict
  sample:
    created_at: "2026-11-24T05:00:00Z"
    disabled: false
    expires_at: null
    guardrail_id: null
    hash: f01d52606dc8f0a8303a7b5cc3fa07109c2e346cec7c0a16b40de462992ce943
    include_byok_in_limit: false
    label: sk-or-v1-0e6...1c96
    last_used_at: null
    limit: "250.5"
    limit_remaining: "250.5"
    limit_reset: monthly
    name: production
    usage: "0"
key:
  description:
    - The secret of a key that this run made. It is returned once, and only without O(dest).
    - It is not hidden from logs by itself; use C(no_log) on the task.
  returned: when a key was made, without O(dest)
  type: str
  sample: sk-or-v1-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
dest_present:
  description: Whether there is a file at O(dest).
  returned: success, O(state=present) with O(dest)
  type: bool
  sample: true
orphans:
  description: Hashes of keys that an earlier run made without anybody getting their secret, and that were deleted.
  returned: success, O(state=present)
  type: list
  elements: str
  sample: []
rotation:
  description: What the rotation did, or would do.
  returned: O(state=rotated) and O(state=rolled_back), after a failure too
  type: dict
  contains:
    id:
      description: Its identifier, which is part of the names of the keys while it lasts.
      type: str
      sample: 20261124T053000Z-9f86d081
    phase:
      description: Where it stands, one of V(idle), V(create), V(distribute), V(verify), V(promote), V(drain), V(disable) and V(delete).
      type: str
      sample: delete
    outcome:
      description: V(rotated) or V(rolled_back) if it ended in this run.
      type: str
      sample: rotated
    finished:
      description: Whether nothing is left to do.
      type: bool
      sample: true
    waiting_for:
      description: What the run was waiting for when it ended.
      type: str
      sample: null
    steps:
      description: The steps, in order.
      type: list
      elements: dict
      sample:
        - {do: create, phase: create, why: the new key, hash: null, place: null}
    elapsed:
      description: Seconds the run took.
      type: float
      sample: 41.7
failure:
  description: What went wrong, as data.
  returned: failure
  type: dict
  sample:
    code: key_limit_exceeded
    details: {}
    message: "GET openrouter.ai/api/v1/key: HTTP 403: Key limit exceeded (total limit)."
    request_id: null
    retryable: false
    status: 403
"""

import dataclasses
from datetime import datetime, timezone
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput, PlatformError
from ansible_collections.sophia.platform.plugins.module_utils._module import run
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.api import Api
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.cluster import connect
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.gateway import Pages
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.making import Destination, make, orphans
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.model import Key, settings_of
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.options import api_of, argument_spec, client_of
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.plan import Current, Plan, Wanted, find, plan
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.pods import Pods
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.rotate import Report, Rotation
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.rotation import Policy
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.secret import SecretSlots
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.slots import FileSlots

CLUSTER = {
    "host": {"type": "str", "required": True},
    "api_key": {"type": "str", "no_log": True},
    "ca_cert": {"type": "str"},
    "client_cert": {"type": "str"},
    "client_key": {"type": "str", "no_log": True},
    "validate_certs": {"type": "bool", "default": True},
    "namespace": {"type": "str", "required": True},
    "secret": {"type": "str", "default": "openrouter-secrets", "no_log": False},
    "selector": {"type": "str", "default": "app.kubernetes.io/name=gateway,app.kubernetes.io/part-of=sophia"},
    "ports": {"type": "list", "elements": "int", "default": [9090]},
    "min_pods": {"type": "int", "default": 1},
}


def wanted_of(params: dict[str, Any]) -> Wanted:
    return Wanted(
        name=params["name"],
        state=params["state"],
        hash=params["hash"],
        workspace_id=params["workspace_id"],
        settings=settings_of(params),
        guardrail_id=params["guardrail_id"],
    )


def converge(module: AnsibleModule) -> dict[str, Any]:
    """Make the key be there as wanted, or not be there."""
    api = api_of(module)
    wanted = wanted_of(module.params)
    destination = Destination(module.params["dest"]) if module.params["dest"] else None
    if destination and wanted.state == "present":
        destination.check()
    keys = api.keys(wanted.workspace_id)
    lost = _lost(destination, keys) if wanted.state == "present" else []
    keys = [key for key in keys if key not in lost]
    key = find(keys, wanted.name, wanted.hash)
    current = Current(key, api.assignments().get(key.hash)) if key else None
    todo = plan(wanted, current, datetime.now(timezone.utc))
    if wanted.state == "absent":
        return _remove(module, api, todo, current, destination)
    result: dict[str, Any] = {
        "changed": todo.changed or bool(lost),
        "orphans": [key.hash for key in lost],
        "openrouter_key": {**(key.as_result(current.guardrail_id) if key else {}), **todo.after},
    }
    if not module.check_mode:
        _clean(api, destination, lost)
        result.update(_apply(module, api, wanted, todo, current, keys, destination))
    if destination:
        result["dest_present"] = destination.exists()
        if key and not result["dest_present"]:
            module.warn(f"the key {wanted.name!r} exists, but its secret is not at {destination.path}; it can be rotated")
    return _with_diff(module, result, todo.before, todo.after)


def _lost(destination: Destination | None, keys: list[Key]) -> list[Key]:
    intent = destination.intent() if destination else None
    return orphans(intent, keys, destination.stored_id()) if destination and intent else []


def _clean(api: Api, destination: Destination | None, lost: list[Key]) -> None:
    for key in lost:
        api.delete(key.hash)
    if destination:
        destination.forget()


def _apply(
    module: AnsibleModule,
    api: Api,
    wanted: Wanted,
    todo: Plan,
    current: Current | None,
    keys: list[Key],
    destination: Destination | None,
) -> dict[str, Any]:
    if todo.action == "none":
        return {}
    if todo.action == "create":
        known = [key.hash for key in keys if key.name == wanted.name]
        key, secret = make(api, wanted, known, destination)
        shown = {"openrouter_key": key.as_result(todo.assign)}
        if destination:
            module.no_log_values.add(secret.reveal())
            return shown
        return {**shown, "key": secret.reveal()}
    key = current.key
    if todo.assign:
        api.assign(todo.assign, key.hash)
    elif todo.unassign:
        api.unassign(todo.unassign, key.hash)
    if todo.changes:
        key = api.update(key.hash, todo.changes)
    return {"openrouter_key": key.as_result(todo.after["guardrail_id"])}


def _remove(
    module: AnsibleModule, api: Api, todo: Plan, current: Current | None, destination: Destination | None
) -> dict[str, Any]:
    changed = todo.changed or bool(destination and destination.exists())
    if not module.check_mode:
        if current:
            api.delete(current.key.hash)
        if destination:
            destination.remove()
    return _with_diff(module, {"changed": changed, "openrouter_key": {}}, todo.before, todo.after)


def rotate(module: AnsibleModule) -> dict[str, Any]:
    """Replace the key, or undo that."""
    params = module.params
    if params["disabled"] is not None:
        raise InvalidInput("disabled: a rotation ends with a key that works")
    wanted = wanted_of(params)
    policy = Policy(
        name=wanted.name,
        state=wanted.state,
        hash=wanted.hash,
        settings=wanted.settings,
        guardrail_id=wanted.guardrail_id,
        max_age=params["max_age"],
        quiet=params["quiet"],
        soak=params["soak"],
        emergency=params["emergency"],
    )
    slots, gateways = _where(module)
    job = Rotation(
        api_of(module),
        slots,
        gateways,
        policy,
        workspace_id=wanted.workspace_id,
        probe_model=params["probe_model"],
        wait=params["wait"],
        wait_timeout=params["wait_timeout"],
        wait_sleep=params["wait_sleep"],
    )
    try:
        report = job.run(module.check_mode)
    except (PlatformError, OSError) as error:
        _fail(module, error, job.report)
        raise
    result = {"changed": report.changed, "rotation": report.as_result()}
    return _with_diff(module, result, report.before, report.after)


def _where(module: AnsibleModule) -> tuple[FileSlots | SecretSlots, Pages | Pods]:
    """Return the slots and the gateways that read them."""
    params = module.params
    if params["kubernetes"] is None:
        if not params["gateways"]:
            raise InvalidInput("gateways: name the metrics page of every gateway that reads the slots")
        clients = [(url, client_of(module, url)) for url in params["gateways"]]
        return FileSlots(params["slots"], params["slot_prefix"]), Pages(clients)
    cluster = params["kubernetes"]
    client = connect(cluster, timeout=params["api_timeout"], folder=module.tmpdir)
    # A Pod that does not answer is asked again at the next look, not while the others wait.
    pages = connect(cluster, timeout=params["api_timeout"], folder=module.tmpdir, tries=1)
    pods = Pods(client, pages, cluster["namespace"], cluster["selector"], cluster["ports"], cluster["min_pods"])
    return SecretSlots(client, cluster["namespace"], cluster["secret"]), pods


def _fail(module: AnsibleModule, error: Exception, report: Report) -> None:
    """Fail with how far it got, which the next run goes on from."""
    if isinstance(error, PlatformError):
        rotation = dataclasses.replace(report, waiting_for=report.waiting_for or error.message).as_result()
        module.fail_json(msg=error.message, changed=report.changed, rotation=rotation, **error.as_failure())


def _with_diff(
    module: AnsibleModule, result: dict[str, Any], before: dict[str, Any], after: dict[str, Any]
) -> dict[str, Any]:
    if module._diff:
        result["diff"] = {"before": before, "after": after}
    return result


def main() -> None:
    rotating = ["slots", "kubernetes"]
    module = AnsibleModule(
        argument_spec=argument_spec(
            name={"type": "str", "required": True},
            hash={"type": "str"},
            state={"type": "str", "default": "present", "choices": ["present", "absent", "rotated", "rolled_back"]},
            limit={"type": "str"},
            limit_reset={"type": "str", "choices": ["daily", "weekly", "monthly", "never"]},
            include_byok_in_limit={"type": "bool"},
            disabled={"type": "bool"},
            expires_at={"type": "str"},
            workspace_id={"type": "str"},
            guardrail_id={"type": "str"},
            dest={"type": "path"},
            slots={"type": "path"},
            slot_prefix={"type": "str", "default": ""},
            kubernetes={"type": "dict", "options": CLUSTER},
            gateways={"type": "list", "elements": "str"},
            max_age={"type": "int"},
            quiet={"type": "int", "default": 30},
            soak={"type": "int", "default": 60},
            emergency={"type": "bool", "default": False},
            probe_model={"type": "str"},
            wait={"type": "bool", "default": True},
            wait_timeout={"type": "int", "default": 300},
            wait_sleep={"type": "float", "default": 2.0},
        ),
        mutually_exclusive=[("slots", "kubernetes"), ("gateways", "kubernetes")],
        required_if=[("state", "rotated", rotating, True), ("state", "rolled_back", rotating, True)],
        supports_check_mode=True,
    )
    run(module, rotate if module.params["state"] in ("rotated", "rolled_back") else converge)


if __name__ == "__main__":
    main()
