# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell what objects' statuses say against them."""

from __future__ import annotations

DOCUMENTATION = r"""
name: object_problems
short_description: What Kubernetes objects' statuses say against them
version_added: 0.1.0
description:
  - Returns one readable line for everything that keeps an object from being what it should be.
  - Knows Gateways, HTTPRoutes and Envoy Gateway's policies, GatewayClasses, Deployments, StatefulSets, Pods, Jobs and PersistentVolumeClaims; of any
    other kind the condition C(Ready) is wanted.
author:
  - The sophia.platform authors (@sophia-platform)
options:
  _input:
    description: Objects, as C(kubernetes.core.k8s_info) returns them in C(resources).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Look at the routes
  kubernetes.core.k8s_info:
    api_version: gateway.networking.k8s.io/v1
    kind: HTTPRoute
    namespace: sophia-production
  register: routes

- name: Require that a gateway serves them
  ansible.builtin.assert:
    that: routes.resources | sophia.platform.object_problems | length == 0
    fail_msg: "{{ routes.resources | sophia.platform.object_problems }}"
"""

RETURN = r"""
_value:
  description: The problems, in the order of the objects.
  type: list
  elements: str
  sample: ["HTTPRoute sophia-production/api: gateway sophia: not ResolvedRefs (BackendNotFound): Service sophia-production/gateway not found"]
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.sophia.platform.plugins.module_utils._cluster import health


def object_problems(resources: Iterable[Mapping[str, Any]]) -> list[str]:
    try:
        return [problem for resource in resources for problem in health.problems(resource)]
    except (AttributeError, KeyError, TypeError) as error:
        raise AnsibleFilterError(f"object_problems needs a list of Kubernetes objects: {error!r}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"object_problems": object_problems}
