# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Whether settings' values are what they have to be. No I/O."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._cluster.quantities import quantity
from ansible_collections.sophia.platform.plugins.module_utils._preflight.judge import ERROR, Finding

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?=.{{1,253}}$)(?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?")
_NAME = re.compile(_LABEL)
# github.com/distribution/reference: domain and path, then a tag or a digest.
_IMAGE = re.compile(r"(?:[a-zA-Z0-9.-]+(?::[0-9]+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::[\w][\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?")
_WORLD = ("0.0.0.0/0", "::/0")


def _domain(value: Any) -> str | None:
    if not _DOMAIN.fullmatch(str(value)):
        return "is not a domain name"
    return "is a name for examples, which nobody can reach" if re.search(r"(^|\.)example(\.(com|net|org))?$", str(value)) else None


def _name(value: Any) -> str | None:
    return None if _NAME.fullmatch(str(value)) else "is not a name that Kubernetes takes (a-z, 0-9 and -, at most 63)"


def _image(value: Any) -> str | None:
    if not _IMAGE.fullmatch(str(value)):
        return "is not the name of an image"
    if "@sha256:" not in str(value) and ":" not in str(value).rpartition("/")[2]:
        return "has neither a tag nor a digest, so nobody knows what it will be"
    return "has the tag latest, so nobody knows what it will be" if str(value).endswith(":latest") else None


def _url(value: Any) -> str | None:
    parts = urllib.parse.urlsplit(str(value))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "is not an http or https URL"
    return "carries a password; secrets have settings of their own" if parts.password else None


def _ranges(value: Any) -> str | None:
    for item in value if isinstance(value, (list, tuple)) else [value]:
        try:
            ipaddress.ip_network(str(item))
        except ValueError:
            return f"has {item!s}, which is not a CIDR"
    return None


def _closed(value: Any) -> str | None:
    open_to_all = [item for item in value if item in _WORLD] if isinstance(value, (list, tuple)) else []
    return _ranges(value) or (f"has {open_to_all[0]}, which lets in the whole internet; set network_open if that is meant" if open_to_all else None)


def _quantity(value: Any) -> str | None:
    try:
        return None if quantity(value) > 0 else "is not more than nothing"
    except ValueError:
        return "is not a quantity, as 500m, 2 or 512Mi"


def _count(value: Any) -> str | None:
    try:
        return None if int(str(value)) >= 0 else "is less than 0"
    except ValueError:
        return "is not a number"


def _positive(value: Any) -> str | None:
    return _count(value) or ("is 0" if int(str(value)) == 0 else None)


def _weights(value: Any) -> str | None:
    if not isinstance(value, Mapping) or not value:
        return "is not a list of services with their weights"
    wrong = [name for name, weight in value.items() if _count(weight)]
    if wrong:
        return f"gives {wrong[0]} a weight that is not a number of 0 or more"
    return None if sum(int(str(weight)) for weight in value.values()) else "gives no service any weight"


KINDS: Mapping[str, Callable[[Any], str | None]] = {
    "closed_ranges": _closed,
    "count": _count,
    "domain": _domain,
    "image": _image,
    "name": _name,
    "positive": _positive,
    "quantity": _quantity,
    "ranges": _ranges,
    "url": _url,
    "weights": _weights,
}


def judge_values(settings: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """Settings with name, kind and value; an empty value that may be empty is good."""
    for setting in settings:
        value = setting.get("value")
        hint = setting.get("hint", "")
        if value in (None, "", [], {}):
            if setting.get("required", True):
                yield Finding(ERROR, "setting", f"{setting['name']} is not set", hint)
            continue
        reason = KINDS[setting["kind"]](value)
        if reason:
            yield Finding(ERROR, "setting", f"{setting['name']}: {_shown(value)} {reason}", hint)


def _shown(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple, Mapping)) else str(value)
    return text if len(text) <= 80 else text[:79] + "…"
