# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""What every host of a pool is launched with, and the regions in which that can be had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.api import Api
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.model import Offer, Place, spec_of


@dataclass
class Template:
    """The part of a launch that is the same for all hosts."""

    ssh_key: str
    file_systems: tuple[str, ...] = ()
    rulesets: tuple[str, ...] = ()
    image: Mapping[str, str] = field(default_factory=dict)
    user_data: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    # Regions that have all of it, None for any; the ids of the rulesets in each.
    _regions: frozenset[str] | None = None
    _ruleset_ids: dict[str, list[str]] = field(default_factory=dict)

    def spec(self) -> str:
        """Return the digest that is part of a host's name."""
        return spec_of(
            {
                "ssh_key": self.ssh_key,
                "file_systems": sorted(self.file_systems),
                "rulesets": sorted(self.rulesets),
                "image": dict(self.image),
                "user_data": self.user_data,
                "tags": dict(self.tags),
            }
        )

    def resolve(self, api: Api) -> None:
        """Find the regions of file systems and rulesets. Raises :class:`InvalidInput` where there is none for all."""
        allowed: list[frozenset[str]] = []
        if self.file_systems:
            allowed.append(_regions(self.file_systems, api.file_systems(), "filesystems"))
        if self.rulesets:
            known = api.rulesets()
            regions = _regions(self.rulesets, known, "firewall_rulesets")
            allowed.append(regions)
            self._ruleset_ids = {
                region: [place.id for place in known if place.region == region and place.name in self.rulesets]
                for region in regions
            }
        if allowed:
            self._regions = frozenset.intersection(*allowed)
            if not self._regions:
                raise InvalidInput("filesystems and firewall_rulesets: no region has all of them")

    def allowed(self, offer: Offer) -> Offer:
        """Return an offer without the regions that lack something."""
        if self._regions is None:
            return offer
        return replace(offer, regions=tuple(region for region in offer.regions if region in self._regions))

    def body(self, kind: str, region: str) -> dict[str, Any]:
        """Return the launch's fields that are not the host's own."""
        body: dict[str, Any] = {"ssh_key_names": [self.ssh_key]}
        if self.file_systems:
            body["file_system_names"] = list(self.file_systems)
        if self.rulesets:
            body["firewall_rulesets"] = [{"id": item} for item in self._ruleset_ids[region]]
        if self.image:
            body["image"] = dict(self.image)
        if self.user_data is not None:
            body["user_data"] = self.user_data
        return body


def _regions(names: Sequence[str], places: Sequence[Place], option: str) -> frozenset[str]:
    """Return the regions that have something of every name."""
    of_each = []
    for name in names:
        regions = frozenset(place.region for place in places if place.name == name)
        if not regions:
            raise InvalidInput(f"{option}: there is none called {name!r}")
        of_each.append(regions)
    return frozenset.intersection(*of_each)
