# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""What a run has to do, decided from what was seen. Nothing here talks to a server or to the disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput, NotFound, StateConflict
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.journal import Story
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.model import (
    Collection,
    Difference,
    config_hash,
    differences,
    index_or_none,
    schema_differences,
)

FORWARD = ("copied", "verified", "switched")


@dataclass(frozen=True)
class Wanted:
    """What the user asked for."""

    state: str
    source: str
    target: str
    alias: str | None = None
    adopt: bool = False
    delete: bool = False


@dataclass(frozen=True)
class Seen:
    """What is there."""

    source: Collection | None
    target: Collection | None
    target_names: tuple[str, ...]
    target_aliases: dict[str, str]
    story: Story | None
    same_server: bool = False


@dataclass(frozen=True)
class Plan:
    """Steps in their order. ``check`` says that whether points differ decides, which only reading them tells."""

    steps: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    shard_keys: tuple[Any, ...] = ()
    differences: tuple[Difference, ...] = ()
    created: bool = False
    check: bool = False
    alias_from: str | None = None
    alias_to: str | None = None
    delete: tuple[str, ...] = field(default=())


def plan(wanted: Wanted, seen: Seen) -> Plan:
    """Return what is to be done. Raises :class:`InvalidInput`, :class:`NotFound` and :class:`StateConflict`."""
    if seen.same_server and wanted.source == wanted.target:
        raise InvalidInput("source and target are the same collection")
    if wanted.alias and wanted.alias in seen.target_names:
        raise InvalidInput(f"alias: there is a collection called {wanted.alias!r} on the target")
    if wanted.state in FORWARD:
        return _forward(wanted, seen)
    return _finalize(wanted, seen) if wanted.state == "finalized" else _back(wanted, seen)


def switched(wanted: Wanted, seen: Seen) -> bool:
    """Return whether the alias means the target already."""
    return bool(wanted.alias) and seen.target_aliases.get(wanted.alias or "") == wanted.target


def _forward(wanted: Wanted, seen: Seen) -> Plan:
    if switched(wanted, seen):
        if seen.story and not seen.story.at_least("verified"):
            raise StateConflict(f"the alias {wanted.alias!r} means the target already, whose copy is not finished", code="switched_early")
        return Plan()
    if seen.source is None:
        raise NotFound(f"there is no collection {wanted.source!r} at the source (an alias does not count)", code="no_source")
    steps = _to_copied(wanted, seen, seen.source)
    if wanted.state == "copied":
        return steps
    more = ["verify"]
    if wanted.state == "switched":
        more.append("switch")
    return Plan(
        steps=(*steps.steps, *more),
        indexes=steps.indexes,
        shard_keys=steps.shard_keys,
        differences=steps.differences,
        created=steps.created,
        check=steps.check,
        alias_from=seen.target_aliases.get(wanted.alias or "") if wanted.state == "switched" else None,
        alias_to=wanted.target if wanted.state == "switched" else None,
    )


def _to_copied(wanted: Wanted, seen: Seen, source: Collection) -> Plan:
    target, story = seen.target, seen.story
    if target is None:
        indexes = tuple(sorted(source.schema))
        keys = source.shard_keys
        return Plan(("create", *(["index"] if indexes else []), "copy", "restore", "delta"), indexes, keys, created=True)
    ours = story is not None and story.created
    finished = story is not None and story.at_least("copied")
    found = tuple(differences(source, target, copying=ours))
    surplus = [item for item in schema_differences(source, target) if item.target is not None]
    if not wanted.adopt:
        if found:
            raise StateConflict(
                f"the collection {wanted.target!r} exists and is configured otherwise: {', '.join(sorted(item.path for item in found)[:5])}",
                code="target_differs",
                details={"differences": [item.as_result() for item in found]},
            )
        if surplus:
            raise StateConflict(
                f"the collection {wanted.target!r} exists and has other payload indexes: {', '.join(item.path for item in surplus[:5])}",
                code="target_differs",
                details={"differences": [item.as_result() for item in surplus]},
            )
        if story is not None and story.config != config_hash(source):
            raise StateConflict(
                "the configuration of the source has changed since the migration began", code="source_changed"
            )
    missing = tuple(name for name in sorted(source.schema) if index_or_none(target, name) is None)
    keys = tuple(key for key in source.shard_keys if key not in target.shard_keys)
    steps = ["index"] if missing else []
    # A target that nobody wrote down may be equal already: then there is nothing to copy, and nothing to adopt.
    unknown = story is None and target.points > 0
    if not finished and not unknown:
        steps.append("copy")
    if ours and target.indexing_threshold == 0 and source.indexing_threshold != 0:
        steps.append("restore")
    steps.append("delta")
    return Plan(tuple(steps), missing, keys, (*found, *surplus), created=ours, check=unknown and not wanted.adopt)


def _finalize(wanted: Wanted, seen: Seen) -> Plan:
    if wanted.alias and not switched(wanted, seen):
        raise StateConflict(f"the alias {wanted.alias!r} does not mean {wanted.target!r}: nothing is final yet", code="not_switched")
    if seen.target is None:
        raise StateConflict(f"there is no collection {wanted.target!r} at the target", code="not_switched")
    if not wanted.alias and seen.story is not None and not seen.story.at_least("verified"):
        raise StateConflict("the copy is not verified: nothing is final yet", code="not_verified")
    doomed = wanted.delete and seen.source is not None
    if doomed and seen.source is not None:
        others = [alias for alias in seen.source.aliases if not (seen.same_server and alias == wanted.alias)]
        if seen.same_server and others:
            raise StateConflict(f"the source is still meant by the alias {others[0]!r}", code="in_use")
        if seen.story is None:
            raise StateConflict("there is no journal here that proves the copy: the source is not deleted", code="not_verified")
    steps = [*(["delete"] if doomed else []), *(["forget"] if seen.story else [])]
    return Plan(tuple(steps), delete=(wanted.source,) if doomed else ())


def _back(wanted: Wanted, seen: Seen) -> Plan:
    story = seen.story
    flipped = switched(wanted, seen)
    if flipped and story is None:
        raise StateConflict("there is no journal here that says what the alias meant before", code="nothing_to_roll_back")
    if story is None:
        return Plan()
    steps = ["switch"] if flipped else []
    ours = story.created and seen.target is not None
    # A copy that nobody was switched to holds nothing of its own. One that was may hold writes that exist nowhere else.
    doomed = ours and (wanted.delete or not (flipped or story.at_least("switched")))
    if doomed:
        steps.append("delete")
    return Plan(
        (*steps, "forget"),
        alias_from=wanted.target if flipped else None,
        alias_to=story.switched_from if flipped else None,
        delete=(wanted.target,) if doomed else (),
    )
