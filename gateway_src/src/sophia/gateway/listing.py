# SPDX-License-Identifier: GPL-3.0-or-later
"""`GET /v1/models`: what the key may use, in the form that both OpenAI's and OpenRouter's clients read."""

from __future__ import annotations

from typing import Any

import msgspec

from sophia.errors import NotFound
from sophia.gateway.catalogue import Catalogue, Shelf
from sophia.stores.model import Principal

__all__ = ["Listing"]


class Listing:
    """Renders the catalogue; one rendering per policy and snapshot is kept."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._snapshot: Catalogue | None = None
        self._rendered: dict[Any, bytes] = {}

    def render(self, principal: Principal, name: str) -> bytes:
        """The list, or one model where `name` is not empty.

        Raises:
            NotFound: there is no such model, or policy keeps it from the key.
        """
        catalogue = self._shelf.current
        if catalogue is not self._snapshot:
            self._snapshot = catalogue
            self._rendered = {}
        if name:
            found = catalogue.find(name)
            if found is None or catalogue.refusal(found.model, principal) is not None:
                raise NotFound("model_not_found", f"No model {name!r} for this key.", param="model")
            return msgspec.json.encode(_entry(found.model.raw, found.model.id))
        key = (principal.models, principal.zero_data_retention, principal.regions)
        body = self._rendered.get(key)
        if body is None:
            body = self._rendered[key] = _render(catalogue, principal)
        return body


def _render(catalogue: Catalogue, principal: Principal) -> bytes:
    data = [
        _entry(model.raw, model.id)
        for model in catalogue.models.values()
        if catalogue.refusal(model, principal) is None
    ]
    return msgspec.json.encode({"object": "list", "data": data, "total_count": len(data), "links": {"next": None}})


def _entry(raw: bytes, identifier: str) -> dict[str, Any]:
    """OpenRouter's object with the members that OpenAI's clients expect."""
    entry = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    owner = identifier.partition("/")[0].lstrip("~")
    return {**entry, "object": "model", "owned_by": owner}
