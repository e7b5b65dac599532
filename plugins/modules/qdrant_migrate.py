#!/usr/bin/python
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: qdrant_migrate
short_description: Move a Qdrant collection, prove that nothing is missing, and switch to it
version_added: 0.1.0
description:
  - Copies a collection to another name or another server while it is in use, repairs what changed meanwhile, deletions included,
    proves both equal, and switches an alias in one call. Going back is one call too.
  - The target takes over vectors of every kind, HNSW, quantization, optimizers, write-ahead log, strict mode, sharding method
    and shard keys, replication, and the payload indexes with their parameters. Its index is off during the copy.
  - Points are copied by ranges of ids that are laid once and written to a journal on the host that runs the module. A run that
    was killed at any time is continued by the next one. Nothing is left on the servers but the collection.
  - A run that writes to neither server takes one reading of both, unless the alias has been switched already.
author:
  - The sophia.platform authors (@sophia-platform)
extends_documentation_fragment:
  - sophia.platform._attributes
  - sophia.platform._attributes.actiongroup_qdrant
  - sophia.platform._qdrant
attributes:
  check_mode:
    support: full
    details:
      - Returns the steps and an estimate. A target that was copied already is compared, so that the prediction is exact.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  source_url:
    description:
      - Base URL of the REST API of the server that has the collection.
    type: str
    required: true
  source_api_key:
    description:
      - Its API key. One that may only read is enough, except for O(state=finalized) with O(delete=true).
      - If not set, the environment variable E(QDRANT_SOURCE_API_KEY) and then E(QDRANT_API_KEY) are read.
    type: str
  target_url:
    description:
      - Base URL of the REST API of the server that gets the collection. If not given, it is O(source_url).
    type: str
  target_api_key:
    description:
      - Its API key.
      - If not set, the environment variable E(QDRANT_TARGET_API_KEY) and then E(QDRANT_API_KEY) are read.
    type: str
  collection:
    description:
      - The collection to move, by its own name and not by an alias.
    type: str
    required: true
  target_collection:
    description:
      - What it is called on the target. If not given, it keeps its name.
    type: str
  alias:
    description:
      - The alias on the target that is to mean O(target_collection). Whatever it means before is what O(state=rolled_back) goes back to.
      - Once it means the target, writes go there, and the module copies nothing over them any more.
    type: str
  state:
    description:
      - V(copied) makes the target, copies, and repairs what changed during the copy, until no more than O(max_lag) points
        differ or O(max_passes) passes were made.
      - V(verified) does that too, with nothing to differ, and proves both equal; it fails while something writes to the source.
      - V(switched) does that too, and then makes O(alias) mean the target.
      - V(finalized) ends a migration after which nothing goes back. The source is deleted with O(delete=true) only.
      - V(rolled_back) ends a migration the other way. O(alias) means again what it did before. A copy that was never
        switched to is deleted; one that was is deleted with O(delete=true) only, for it may hold newer points.
    type: str
    choices: [copied, verified, switched, finalized, rolled_back]
    default: verified
  adopt:
    description:
      - Whether to use a target that exists and is not equal. Its configuration stays as it is, missing payload indexes are
        made, and its points are made equal to those of the source, B(which deletes those that the source does not have).
    type: bool
    default: false
  delete:
    description:
      - Whether to delete the collection that is no longer used, which is the source for O(state=finalized) and a target made by
        this migration for O(state=rolled_back).
    type: bool
    default: false
  journal:
    description:
      - Directory for the journal and the progress file, on the host that runs the module. It must still be there in the next run.
      - Nothing in it is secret.
    type: path
    default: ~/.local/state/sophia/qdrant_migrate
  workers:
    description:
      - How many ranges are worked on at the same time. Each takes the memory of about three batches.
    type: int
    default: 4
  batch_bytes:
    description:
      - About how large a batch of points is, in bytes of JSON, at most 16777216. Batches become smaller by themselves where a
        server finds them too large or too slow.
    type: int
    default: 2097152
  rate_limit:
    description:
      - How many points a second are read at most, V(0) for as many as go.
    type: int
    default: 0
  max_lag:
    description:
      - How many points may differ in the last pass of O(state=copied), which is what is left to a later run.
    type: int
    default: 0
  max_passes:
    description:
      - How many passes are made at most.
    type: int
    default: 5
  samples:
    description:
      - About how many points are searched for on both sides before they count as equal, once for each vector that they have.
    type: int
    default: 20
  digests:
    description:
      - Whether each pass adds up the digests of all points of both sides, for the record. Otherwise points that both servers
        write with the same bytes are equal without further ado, which takes a quarter of the time.
    type: bool
    default: false
  wait:
    description:
      - Whether to wait until the target's index is built.
    type: bool
    default: true
  wait_timeout:
    description:
      - Seconds that this may take.
    type: int
    default: 3600
  wait_sleep:
    description:
      - Seconds between two looks.
    type: float
    default: 2.0
notes:
  - During a run C(watch cat) with the name in RV(migration.progress_file) shows phase, points done, points a second and
    seconds left. The name depends on nothing but the two URLs and names, and check mode returns it.
  - For a long copy, run O(state=copied) with C(async), and O(state=switched) once writers are stopped.
  - O(state=verified) after V(switched) changes nothing and compares nothing, for the two collections differ rightly from then on.
seealso:
  - module: sophia.platform.qdrant_collection_info
"""

EXAMPLES = r"""
- name: See what would be moved, and how long it takes
  sophia.platform.qdrant_migrate:
    source_url: "{{ qdrant_source_url }}"
    target_url: "{{ qdrant_target_url }}"
    collection: documents_v1
  check_mode: true
  register: foretold

- name: Copy while everything goes on
  sophia.platform.qdrant_migrate:
    source_url: "{{ qdrant_source_url }}"
    target_url: "{{ qdrant_target_url }}"
    collection: documents_v1
    state: copied
    max_lag: 100

- name: Catch up, prove and switch, with writers stopped
  sophia.platform.qdrant_migrate:
    source_url: "{{ qdrant_source_url }}"
    target_url: "{{ qdrant_target_url }}"
    collection: documents_v1
    alias: documents
    state: switched
  register: switched

- name: Go back
  sophia.platform.qdrant_migrate:
    source_url: "{{ qdrant_source_url }}"
    target_url: "{{ qdrant_target_url }}"
    collection: documents_v1
    alias: documents
    state: rolled_back
    delete: true

- name: Move within one server, to a new name
  sophia.platform.qdrant_migrate:
    source_url: "{{ qdrant_source_url }}"
    collection: documents_v1
    target_collection: documents_v2
    alias: documents
    state: switched

- name: Delete what it replaced
  sophia.platform.qdrant_migrate:
    source_url: "{{ qdrant_source_url }}"
    collection: documents_v1
    target_collection: documents_v2
    alias: documents
    state: finalized
    delete: true
"""

RETURN = r"""
migration:
  description: What the run did, or would do.
  returned: always, after a failure too if the migration had begun
  type: dict
  contains:
    phase:
      description:
        - How far the migration is, one of V(none), V(create), V(copy), V(copied), V(verified), V(switched), V(finalized) and V(rolled_back).
      type: str
      sample: verified
    steps:
      description: What there was to do, in order.
      type: list
      elements: str
      sample: [create, index, copy, restore, delta, verify]
    copied:
      description: How many points this run copied.
      type: int
      sample: 1200
    points_per_second:
      description: How fast that was.
      type: float
      sample: 5230.5
    passes:
      description: The passes that compared both sides, and how many points they found to differ.
      type: list
      elements: dict
      sample: [{added: 0, changed: 0, removed: 0, differing: 0, points: 1200}]
    examples:
      description: Ids of points that differed in the last pass, at most 100.
      type: list
      elements: str
      sample: []
    differences:
      description: In what an adopted target is configured otherwise.
      type: list
      elements: dict
      sample: []
    verified:
      description: What the proof found, with exact counts, other differences, and the shares of the ten nearest that both sides found.
      type: dict
      sample:
        differences: []
        neighbours: {exact: 1.0, index: 1.0, searches: 20}
        points: {source: 1200, target: 1200}
    estimate:
      description: Points and bytes to copy, and seconds at the speed at which the source was read just now.
      returned: in check mode
      type: dict
      sample: {bytes: 5412000, points: 1200, seconds: 0.4}
    progress_file:
      description: The file that says how far a run is.
      type: str
      sample: /root/.local/state/sophia/qdrant_migrate/0b1c2d3e4f5061728394a5b6.progress.json
    elapsed:
      description: Seconds the run took.
      type: float
      sample: 3.2
failure:
  description:
    - What went wrong, as data. The codes V(target_differs), V(not_quiet), V(not_equal), V(source_changed), V(not_switched),
      V(switched_early), V(in_use), V(locked) and V(no_source) are this module's own.
  returned: failure
  type: dict
  sample:
    code: target_differs
    details: {}
    message: "the collection 'documents_v1' exists and differs in 3 points"
    request_id: null
    retryable: false
    status: null
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule, env_fallback

from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput, PlatformError
from ansible_collections.sophia.platform.plugins.module_utils._module import run
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.move import Migration, Tuning
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.options import api_of, argument_spec
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.plan import Wanted

MOST_BYTES = 16 * 1024 * 1024


def tuning_of(params: dict[str, Any]) -> Tuning:
    """Raises :class:`InvalidInput`."""
    for name, least in {"workers": 1, "batch_bytes": 1, "rate_limit": 0, "max_lag": 0, "max_passes": 1, "samples": 0}.items():
        if params[name] < least:
            raise InvalidInput(f"{name}: at least {least}")
    if params["batch_bytes"] > MOST_BYTES:
        raise InvalidInput(f"batch_bytes: at most {MOST_BYTES}")
    return Tuning(
        workers=params["workers"],
        batch_bytes=params["batch_bytes"],
        rate=params["rate_limit"],
        max_lag=params["max_lag"],
        max_passes=params["max_passes"],
        samples=params["samples"],
        digests=params["digests"],
        wait=params["wait"],
        wait_timeout=params["wait_timeout"],
        wait_sleep=params["wait_sleep"],
    )


def migrate(module: AnsibleModule) -> dict[str, Any]:
    """Take the migration to where it is wanted."""
    params = module.params
    source = api_of(module, params["source_url"], params["source_api_key"])
    target = source
    if params["target_url"] and params["target_url"].rstrip("/") != source.url:
        target = api_of(module, params["target_url"], params["target_api_key"])
    wanted = Wanted(
        state=params["state"],
        source=params["collection"],
        target=params["target_collection"] or params["collection"],
        alias=params["alias"],
        adopt=params["adopt"],
        delete=params["delete"],
    )
    job = Migration(source, target, wanted, params["journal"], tuning_of(params))
    try:
        report = job.run(module.check_mode)
    except PlatformError as error:
        module.fail_json(msg=error.message, changed=job.report.changed, migration=job.report.as_result(), **error.as_failure())
    result: dict[str, Any] = {"changed": report.changed, "migration": report.as_result()}
    if module._diff:
        result["diff"] = {"before": job.before, "after": job.after}
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(
            source_url={"type": "str", "required": True},
            source_api_key={"type": "str", "no_log": True, "fallback": (env_fallback, ["QDRANT_SOURCE_API_KEY", "QDRANT_API_KEY"])},
            target_url={"type": "str"},
            target_api_key={"type": "str", "no_log": True, "fallback": (env_fallback, ["QDRANT_TARGET_API_KEY", "QDRANT_API_KEY"])},
            collection={"type": "str", "required": True},
            target_collection={"type": "str"},
            alias={"type": "str"},
            state={"type": "str", "default": "verified", "choices": ["copied", "verified", "switched", "finalized", "rolled_back"]},
            adopt={"type": "bool", "default": False},
            delete={"type": "bool", "default": False},
            journal={"type": "path", "default": "~/.local/state/sophia/qdrant_migrate"},
            workers={"type": "int", "default": 4},
            batch_bytes={"type": "int", "default": 2 * 1024 * 1024},
            rate_limit={"type": "int", "default": 0},
            max_lag={"type": "int", "default": 0},
            max_passes={"type": "int", "default": 5, "no_log": False},
            samples={"type": "int", "default": 20},
            digests={"type": "bool", "default": False},
            wait={"type": "bool", "default": True},
            wait_timeout={"type": "int", "default": 3600},
            wait_sleep={"type": "float", "default": 2.0},
        ),
        required_if=[("state", "switched", ["alias"])],
        supports_check_mode=True,
    )
    run(module, migrate)


if __name__ == "__main__":
    main()
