# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rollout does next, and what a canary and its route look like: decided here, done by the role progressive_rollout.

The state of a rollout is kept where the traffic is shifted (an annotation of the HTTPRoute, a file beside the balancer)::

    version   what is rolled out                        phase    canary, stage, promote, done or rolled_back
    percent   the share that the new version has now    passed   stages that were judged good
    began     Unix time at which each stage began       holder, updated   whose run it is, and its last sign
    reason    why it went back
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from ansible.errors import AnsibleFilterError

ACTIVE = ("canary", "stage", "promote")
NAME = "app.kubernetes.io/name"
ROLLOUT = "platform.sophia/rollout-of"
_KEPT = ("labels", "annotations")
_FOREIGN = ("deployment.kubernetes.io/revision", "kubectl.kubernetes.io/last-applied-configuration")


def rollout_plan(
    state: Mapping[str, Any],
    version: str,
    stages: Iterable[int],
    now: float,
    holder: str,
    *,
    lock_seconds: float = 10_800,
    take_over: bool = False,
    again: bool = False,
    freeze: Iterable[Mapping[str, Any]] = (),
    until: int = 100,
) -> dict[str, Any]:
    """Return what this run has to do: ``do`` is nothing, begin, restart, resume or refuse; ``stages`` are those still to pass."""
    wanted = [int(stage) for stage in stages]
    if not wanted or wanted != sorted(set(wanted)) or wanted[-1] != 100 or wanted[0] < 1:
        raise AnsibleFilterError(f"the stages of a rollout rise to 100, which {wanted} do not")
    active = state.get("phase") in ACTIVE
    same = state.get("version") == version
    if state.get("phase") == "done" and same:
        return _answer("nothing", "this version serves already")
    frozen = frozen_by(freeze, now)
    if frozen:
        return _answer("refuse", f"frozen: {frozen}")
    other = state.get("holder")
    if active and other and other != holder and not take_over and now - float(state.get("updated", 0)) < lock_seconds:
        return _answer("refuse", f"the run {other} holds this rollout; if it is dead, take over (progressive_rollout_take_over)")
    if state.get("phase") == "rolled_back" and same and not again:
        return _answer("refuse", f"this version was rolled back ({state.get('reason', '')}); to try it again, set progressive_rollout_again")
    passed = [stage for stage in state.get("passed", []) if stage in wanted] if active and same else []
    todo = [stage for stage in wanted if stage not in passed and stage <= int(until)]
    if active and same:
        return _answer("resume", f"stopped in phase {state['phase']} at {state.get('percent', 0)} %", todo, passed)
    if active:
        return _answer("restart", f"{state['version']} was on its way: a new version begins from the start", todo)
    return _answer("begin", "a new version", todo)


def _answer(do: str, why: str, stages: Iterable[int] = (), passed: Iterable[int] = ()) -> dict[str, Any]:
    return {"do": do, "why": why, "stages": list(stages), "passed": list(passed)}


def frozen_by(windows: Iterable[Mapping[str, Any]], now: float) -> str:
    """Return the reason of the window that ``now`` (Unix time) is in, empty where there is none.

    A window has ``days`` (mon to sun, every day if missing), ``start`` and ``end`` (HH:MM in UTC; an end before the start
    is on the next day) and a ``reason``.
    """
    at = datetime.fromtimestamp(now, timezone.utc)
    days = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    minute = at.hour * 60 + at.minute
    for window in windows:
        start, end = _minutes(window.get("start", "00:00")), _minutes(window.get("end", "24:00"))
        chosen = [str(day).lower()[:3] for day in window.get("days", days)]
        if not set(chosen) <= set(days):
            raise AnsibleFilterError(f"a freeze window's days are among {', '.join(days)}, not {', '.join(chosen)}")
        today, yesterday = days[at.weekday()] in chosen, days[at.weekday() - 1] in chosen
        whole = start < end
        if (today and start <= minute < end) if whole else (today and minute >= start) or (yesterday and minute < end):
            return str(window.get("reason", "a freeze window"))
    return ""


def _minutes(text: Any) -> int:
    # YAML 1.1 reads 22:30 as a number to the base of 60.
    if isinstance(text, int):
        return text
    hours, colon, minutes = str(text).partition(":")
    if not colon or not (hours.isdigit() and minutes.isdigit()) or int(hours) > 24 or int(minutes) > 59:
        raise AnsibleFilterError(f"a time of day is HH:MM, not {text}")
    return int(hours) * 60 + int(minutes)


def weighted_rules(rules: Iterable[Mapping[str, Any]], stable: str, canary: str, percent: int) -> list[dict[str, Any]]:
    """Return the rules of an HTTPRoute in which every rule that leads to ``stable`` gives ``percent`` of it to ``canary``.

    Raises :class:`AnsibleFilterError` where no rule leads there. Source: https://gateway-api.sigs.k8s.io/guides/traffic-splitting/.
    """
    shifted = []
    found = False
    for rule in rules:
        references = [dict(reference) for reference in rule.get("backendRefs", [])]
        ours = [reference for reference in references if reference.get("name") in (stable, canary)]
        if ours:
            found = True
            model = next((each for each in ours if each["name"] == stable), ours[0])
            both = [{**model, "name": stable, "weight": 100 - percent}]
            if percent or any(each["name"] == canary for each in ours):
                both.append({**model, "name": canary, "weight": percent})
            if percent == 0:
                both = both[:1]
            references = [each for each in references if each not in ours] + both
        shifted.append({**rule, "backendRefs": references} if references else dict(rule))
    if not found:
        raise AnsibleFilterError(f"no rule of the route leads to {stable}")
    return shifted


def canary_of(thing: Mapping[str, Any], stable: str, canary: str, image: str = "", replicas: int = 1) -> dict[str, Any]:
    """Return a copy of an object of the stable version that is the canary's: its name, its labels, its image.

    Whatever selects or names the stable version by its label selects the canary instead, in NetworkPolicies too.
    """
    copied = _renamed(copy.deepcopy(dict(thing)), stable, canary)
    old = thing["metadata"]
    name = canary if old["name"] == stable else f"{old['name']}-{canary}"
    metadata = {key: copied["metadata"].get(key) or {} for key in _KEPT}
    metadata["annotations"] = {key: value for key, value in metadata["annotations"].items() if key not in _FOREIGN}
    metadata["labels"] = {**metadata["labels"], ROLLOUT: stable}
    result = {key: copied[key] for key in ("apiVersion", "kind") if key in copied}
    result["metadata"] = {"name": name, "namespace": old["namespace"], **metadata}
    result["spec"] = copied["spec"]
    if thing.get("kind") == "Service":
        for field in ("clusterIP", "clusterIPs", "healthCheckNodePort"):
            result["spec"].pop(field, None)
        for port in result["spec"].get("ports", []):
            port.pop("nodePort", None)
    if thing.get("kind") == "Deployment":
        result["spec"]["replicas"] = int(replicas)
        for container in result["spec"]["template"]["spec"]["containers"]:
            if image and container["name"] == stable:
                container["image"] = image
    return result


def _renamed(value: Any, stable: str, canary: str) -> Any:
    if isinstance(value, dict):
        return {key: canary if key == NAME and item == stable else _renamed(item, stable, canary) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, stable, canary) for item in value]
    return value


def concerns(things: Iterable[Mapping[str, Any]], stable: str) -> list[Mapping[str, Any]]:
    """Return the objects that select or name the stable version by its label."""
    return [thing for thing in things if _names(thing.get("spec"), stable)]


def _names(value: Any, stable: str) -> bool:
    if isinstance(value, dict):
        return value.get(NAME) == stable or any(_names(item, stable) for item in value.values())
    return isinstance(value, list) and any(_names(item, stable) for item in value)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "rollout_plan": rollout_plan,
            "weighted_rules": weighted_rules,
            "canary_of": canary_of,
            "concerns": concerns,
        }
