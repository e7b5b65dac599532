# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read Kubernetes' quantities."""

from __future__ import annotations

DOCUMENTATION = r"""
name: quantity
short_description: A Kubernetes quantity as a number
version_added: 0.1.0
description:
  - Returns a quantity in its base unit, so that two of them can be compared.
  - Unlike P(ansible.builtin.human_to_bytes#filter) it knows C(Ki), C(Mi), C(Gi) and C(m), and that C(M) is a million.
author:
  - The sophia.platform authors (@sophia-platform)
options:
  _input:
    description: A quantity as the API of Kubernetes writes it.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Require that a claim does not shrink
  ansible.builtin.assert:
    that: wanted_size | sophia.platform.quantity >= claim.spec.resources.requests.storage | sophia.platform.quantity
"""

RETURN = r"""
_value:
  description: Bytes, cores or pieces.
  type: float
  sample: 536870912000.0
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.sophia.platform.plugins.module_utils._cluster import quantities


def quantity(text: Any) -> float:
    try:
        return float(quantities.quantity(text))
    except ValueError as error:
        raise AnsibleFilterError(f"sophia.platform.quantity: {error}") from error


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., float]]:
        return {"quantity": quantity}
