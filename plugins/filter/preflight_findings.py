# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare what a deployment asks for with what its cluster has."""

from __future__ import annotations

DOCUMENTATION = r"""
name: preflight_findings
short_description: What stands in the way of a deployment on a cluster
version_added: 0.1.0
description:
  - Compares what a deployment asks for with what its cluster was seen to have, and returns every finding at once.
  - Free capacity is what nodes can allocate less what other pods request; network paths are computed from the policies as they will be.
  - P(sophia.platform.preflight#role) collects what it needs.
author:
  - The sophia.platform authors (@sophia-platform)
options:
  _input:
    description:
      - "What was seen: C(version), C(apis) (group versions), C(objects) (of any kind, with status), C(secrets) (name and keys), C(nodes), C(pods),
        C(namespaces), C(policies), C(storage_classes), C(storage_capacities), C(claims), C(manifests) (what would be applied), C(tried) and
        C(answers) (the same in a dry run, and what M(kubernetes.core.k8s) said of each) and C(said) (problems that others have found)."
    type: dict
    required: true
  wanted:
    description:
      - "What is asked for: C(version), C(features) (name, api, required, hint), C(objects) (kind, name, namespace, setting, hint), C(secrets) (name, keys,
        given, hint), C(settings) (name, kind, value, required, hint), C(pools) (minimum free by pool), C(pool_label), C(paths) (from, to, ports, protocol),
        C(dns) and C(prometheus) (name, namespace, labels)."
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Compare
  ansible.builtin.set_fact:
    findings: "{{ seen | sophia.platform.preflight_findings(wanted) }}"
  vars:
    seen:
      version: v1.34.4
      apis: [apps/v1]
    wanted:
      version: "1.30"
      features:
        - {name: Gateway API, api: gateway.networking.k8s.io/v1, hint: install its CRDs}
"""

RETURN = r"""
_value:
  description: Every finding, with C(severity) (V(error) or V(warning)), C(check), C(message), C(hint) and all of it in one C(line).
  type: list
  elements: dict
  sample:
    - severity: error
      check: cluster
      message: the cluster has no Gateway API (gateway.networking.k8s.io/v1)
      hint: install its CRDs
      line: "the cluster has no Gateway API (gateway.networking.k8s.io/v1); install its CRDs"
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.sophia.platform.plugins.module_utils._preflight import cluster, values
from ansible_collections.sophia.platform.plugins.module_utils._preflight.judge import ERROR, Finding


def findings(seen: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[Finding]:
    def had(name: str) -> list[Any]:
        return list(seen.get(name) or [])

    def asked(name: str) -> list[Any]:
        return list(wanted.get(name) or [])

    refused = cluster.refusals(had("tried"), had("answers"))
    manifests = [manifest for number, manifest in enumerate(had("manifests")) if number not in refused]
    wrong = list(values.judge_values(asked("settings")))
    yield from wrong
    told = tuple(re.match(r"\w*", finding.message).group() for finding in wrong)
    yield from (Finding(ERROR, "setting", problem) for problem in had("said") if not (told and problem.startswith(told)))
    if not seen.get("version"):
        return
    yield from cluster.judge_version(seen["version"], wanted.get("version") or "")
    yield from cluster.judge_features(asked("features"), had("apis"))
    yield from cluster.judge_objects(asked("objects"), [*had("objects"), *had("storage_classes")])
    yield from cluster.judge_secrets(asked("secrets"), had("secrets"))
    yield from cluster.judge_claims(manifests, had("storage_classes"))
    yield from cluster.judge_storage(manifests, had("storage_capacities"), had("claims"))
    yield from cluster.judge_capacity(had("nodes"), had("pods"), manifests, wanted.get("pools") or {}, wanted.get("pool_label") or "")
    paths = asked("paths")
    if wanted.get("dns"):
        paths += cluster.dns_paths(manifests, wanted["dns"])
    if wanted.get("prometheus"):
        paths += cluster.scrape_paths(manifests, wanted["prometheus"])
    yield from cluster.judge_paths(paths, had("policies"), manifests, had("pods"), had("namespaces"))
    absent = {feature["api"] for feature in asked("features")} - set(had("apis"))
    yield from cluster.judge_dry_run(had("manifests"), refused, absent)


def preflight_findings(seen: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[dict[str, str]]:
    try:
        found = list(findings(seen, wanted))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"preflight_findings cannot read what it was given: {error!r}") from error
    # One cause may be seen from several sides; it is told once.
    unique = {(item.severity, item.as_line()): item for item in found}
    return [{"severity": item.severity, **item.as_result()} for item in unique.values()]


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"preflight_findings": preflight_findings}
