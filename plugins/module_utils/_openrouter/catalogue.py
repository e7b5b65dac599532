# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Choosing among the models OpenRouter offers. No I/O.

Filtering is done here and not by the API's query: it knows fewer filters and rounds none of ours.
Source: https://openrouter.ai/docs/api-reference/models (OpenAPI document of 2026-08-22).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._errors import BadResponse, InvalidInput
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.model import exact, money

_MILLION = 1_000_000


@dataclass(frozen=True)
class Filter:
    """What a model must be like; prices are USD per million tokens. None and empty ask for nothing."""

    ids: frozenset[str] = frozenset()
    search: str = ""
    parameters: frozenset[str] = frozenset()
    input_modalities: frozenset[str] = frozenset()
    min_context: int = 0
    max_prompt_price: Decimal | None = None
    max_completion_price: Decimal | None = None
    zdr: bool | None = None

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Filter:
        """Read module options. Raises :class:`InvalidInput`."""
        return cls(
            ids=frozenset(params["ids"] or ()),
            search=(params["search"] or "").lower(),
            parameters=frozenset(params["parameters"] or ()),
            input_modalities=frozenset(params["input_modalities"] or ()),
            min_context=params["min_context"] or 0,
            max_prompt_price=money(params["max_prompt_price"]),
            max_completion_price=money(params["max_completion_price"]),
            zdr=params["zdr"],
        )


def described(model: Any, zdr: frozenset[str]) -> dict[str, Any]:
    """Return a model as a module returns it: numbers exact, and ``zdr`` beside what OpenRouter says."""
    if not isinstance(model, dict) or not isinstance(model.get("id"), str):
        raise BadResponse("GET models: a model without an id")
    return {**exact(model), "zdr": model["id"] in zdr}


def chosen(model: Mapping[str, Any], wanted: Filter) -> bool:
    """Return whether a model is among those asked for."""
    name = f"{model['id']} {model.get('name') or ''}".lower()
    modalities = (model.get("architecture") or {}).get("input_modalities") or ()
    return (
        (not wanted.ids or model["id"] in wanted.ids)
        and wanted.search in name
        and wanted.parameters.issubset(model.get("supported_parameters") or ())
        and wanted.input_modalities.issubset(modalities)
        and (model.get("context_length") or 0) >= wanted.min_context
        and _affordable(model, "prompt", wanted.max_prompt_price)
        and _affordable(model, "completion", wanted.max_completion_price)
        and wanted.zdr in (None, model["zdr"])
    )


def _affordable(model: Mapping[str, Any], what: str, most: Decimal | None) -> bool:
    if most is None:
        return True
    try:
        price = money((model.get("pricing") or {}).get(what))
    except InvalidInput:
        return False
    # A router's price is -1: it is not free, it is unknown.
    return price is not None and 0 <= price * _MILLION <= most
