# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""From what is wanted and what was seen to findings. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

ERROR = "error"
WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """One thing that stands in the way (error) or may surprise (warning), and what to do about it."""

    severity: str
    check: str
    message: str
    hint: str = ""

    def as_result(self) -> dict[str, str]:
        fields = {name: value for name, value in asdict(self).items() if name != "severity"}
        return {**fields, "line": self.as_line()}

    def as_line(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


def version_of(text: str) -> tuple[int, ...] | None:
    """Return the first dotted number in what a tool prints about itself; None where there is none."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(int(part) for part in found.group().split(".")) if found else None


def judge_tool(tool: Mapping[str, Any], printed: str | None) -> Iterable[Finding]:
    """``printed`` is the tool's answer, None where it does not run."""
    severity = ERROR if tool["required"] else WARNING
    if printed is None:
        yield Finding(severity, "tool", f"{tool['name']} is not there", tool["hint"])
    elif tool["minimum"]:
        version = version_of(printed)
        if version is None or version < (version_of(tool["minimum"]) or ()):
            seen = ".".join(map(str, version)) if version else "of no known version"
            yield Finding(severity, "tool", f"{tool['name']} is {seen}, needed is {tool['minimum']}", tool["hint"])


def judge_port(port: Mapping[str, Any], reason: str | None) -> Iterable[Finding]:
    """``reason`` is why the port cannot be listened on, None where it can. One's own service may hold it."""
    if reason is not None and not port["ours"]:
        where = f"{port['address']}:{port['port']}"
        yield Finding(ERROR, "port", f"{where} cannot be listened on: {reason}", f"free it or set {port['setting']}")


def judge_setting(setting: Mapping[str, Any]) -> Iterable[Finding]:
    if not setting["given"]:
        severity = ERROR if setting["required"] else WARNING
        yield Finding(severity, "setting", f"{setting['name']} is not set", setting["hint"])


def judge_store(store: Mapping[str, Any], reason: str | None) -> Iterable[Finding]:
    if reason is not None:
        yield Finding(ERROR, "store", f"{store['kind']} does not answer: {reason}", f"check {store['setting']}")


def judge_space(space: Mapping[str, Any], free: int | None) -> Iterable[Finding]:
    """``free`` in bytes, None where the folder can be neither used nor made."""
    if free is None:
        yield Finding(ERROR, "space", f"{space['path']} cannot be written", f"choose another with {space['setting']}")
    elif free < space["megabytes"] << 20:
        message = f"{space['path']} has {free >> 20} MB free, needed are {space['megabytes']}"
        yield Finding(ERROR, "space", message, f"make room or set {space['setting']}")


def judge_models(models: Iterable[str], parameters: Iterable[str], offered: Iterable[Mapping[str, Any]]) -> Iterable[Finding]:
    """``offered`` is `data` of OpenRouter's ``GET /models`` (https://openrouter.ai/docs/api-reference/list-available-models)."""
    known = {str(model.get("id")): model for model in offered}
    for name in sorted(set(models)):
        if name not in known:
            yield Finding(ERROR, "model", f"OpenRouter does not offer {name}", "remove it from the models file or correct its name")
            continue
        # Models that do not write text, as those for embeddings, list no parameters.
        supported = known[name].get("supported_parameters") or []
        lacking = sorted(set(parameters) - set(supported)) if supported else []
        if lacking:
            yield Finding(WARNING, "model", f"{name} does not know {', '.join(lacking)}", "requests that use it are routed elsewhere")
