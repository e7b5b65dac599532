# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Kubernetes' quantities, and what pods request (API reference, "Quantity"; concepts, "Resource management")."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

Resources = dict[str, Decimal]

_QUANTITY = re.compile(r"([+-]?[0-9]+(?:\.[0-9]*)?|[+-]?\.[0-9]+)(?:([eE][+-]?[0-9]+)|(m|k|[KMGTPE]i?|u|n))?")
_SUFFIX = {
    None: Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10**3),
    **{letter: Decimal(10 ** (3 * power)) for power, letter in enumerate("MGTPE", start=2)},
    **{f"{letter}i": Decimal(2 ** (10 * power)) for power, letter in enumerate("KMGTPE", start=1)},
}


def quantity(text: Any) -> Decimal:
    """Return a quantity in its base unit (cores, bytes, pieces). Raises ValueError where it is none."""
    found = _QUANTITY.fullmatch(str(text).strip())
    if found is None or found.group(3) == "K":
        raise ValueError(f"not a quantity: {text!r}; write 500m, 2, 512Mi or 1e3")
    number, exponent, suffix = found.groups()
    return Decimal(number + (exponent or "")) * _SUFFIX[suffix]


def shown(resource: str, amount: Decimal) -> str:
    """Return an amount as people write it: cores with one decimal, bytes in GiB, the rest as it is."""
    if resource in ("memory", "storage", "ephemeral-storage"):
        return f"{amount / 2**30:.1f} GiB"
    return f"{amount.normalize():f}" if amount == amount.to_integral() else f"{amount:.2f}"


def added(parts: Iterable[Mapping[str, Decimal]]) -> Resources:
    total: Resources = {}
    for part in parts:
        for resource, amount in part.items():
            total[resource] = total.get(resource, Decimal(0)) + amount
    return total


def largest(parts: Iterable[Mapping[str, Decimal]]) -> Resources:
    most: Resources = {}
    for part in parts:
        for resource, amount in part.items():
            most[resource] = max(most.get(resource, amount), amount)
    return most


def requested(container: Mapping[str, Any]) -> Resources:
    """What one container requests; a limit without a request is a request (the API server's default)."""
    resources = container.get("resources") or {}
    given = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {resource: quantity(amount) for resource, amount in given.items()}


def pod_requests(spec: Mapping[str, Any]) -> Resources:
    """What the scheduler counts for a pod: containers and sidecars together, or the largest init container, and overhead."""
    init = spec.get("initContainers") or []
    sidecars = [container for container in init if container.get("restartPolicy") == "Always"]
    running = added(requested(container) for container in [*(spec.get("containers") or []), *sidecars])
    starting = [requested(container) for container in init if container.get("restartPolicy") != "Always"]
    total = largest([running, *starting])
    total.update(requested(spec))
    overhead = {resource: quantity(amount) for resource, amount in (spec.get("overhead") or {}).items()}
    return added([total, overhead, {"pods": Decimal(1)}])
