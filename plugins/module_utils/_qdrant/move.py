# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""A migration, run: looks, lets :mod:`plan` decide, and does it step by step.

Every step may be cut off anywhere and done again. What is not known to be done is looked at, or repeated where repeating
changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._errors import ApiError, Conflict, StateConflict
from ansible_collections.sophia.platform.plugins.module_utils._qdrant import model, verify
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.api import Api
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.compare import Comparison, Tally
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.copying import Copy, lay, range_size
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.journal import Identity, Journal, Range, Story
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.model import Collection
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.plan import FORWARD, Plan, Seen, Wanted, plan, switched
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.work import Pace, Progress
from ansible_collections.sophia.platform.plugins.module_utils._wait import wait_until

SAMPLED_POINTS = 200
MAKE_TRIES = 3


@dataclass(frozen=True)
class Tuning:
    """How a migration goes about it; bytes, points a second, seconds."""

    workers: int = 4
    batch_bytes: int = 2 * 1024 * 1024
    rate: float = 0.0
    max_lag: int = 0
    max_passes: int = 10
    samples: int = 20
    digests: bool = False
    wait: bool = True
    wait_timeout: float = 3600.0
    wait_sleep: float = 2.0


@dataclass
class Report:
    """What a run did, or would do."""

    phase: str = "none"
    changed: bool = False
    steps: list[str] = field(default_factory=list)
    copied: int = 0
    seconds_copying: float = 0.0
    passes: list[dict[str, Any]] = field(default_factory=list)
    examples: list[Any] = field(default_factory=list)
    differences: list[dict[str, Any]] = field(default_factory=list)
    verified: dict[str, Any] = field(default_factory=dict)
    estimate: dict[str, Any] = field(default_factory=dict)
    progress_file: str = ""
    elapsed: float = 0.0

    def as_result(self) -> dict[str, Any]:
        rate = self.copied / self.seconds_copying if self.seconds_copying else None
        shown = {name: value for name, value in vars(self).items() if name not in ("changed", "seconds_copying")}
        return {**shown, "elapsed": round(self.elapsed, 3), "points_per_second": None if rate is None else round(rate, 1)}


class Migration:
    """One migration of one collection."""

    def __init__(
        self,
        source: Api,
        target: Api,
        wanted: Wanted,
        folder: str,
        tuning: Tuning = Tuning(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._target = target
        self._wanted = wanted
        self._names = (wanted.source, wanted.target)
        self._tuning = tuning
        self._clock = clock
        self._journal = Journal(folder, Identity(source.url, wanted.source, target.url, wanted.target))
        self._progress = Progress(None)
        self._pace = Pace(tuning.rate)
        self.report = Report(progress_file=str(self._journal.progress_path))
        self.before: dict[str, Any] = {}
        self.after: dict[str, Any] = {}

    def run(self, check: bool) -> Report:
        """Do what is to be done; in check mode only say it. Raises a leaf of ``PlatformError``."""
        began = self._clock()
        try:
            if check:
                self._act(check=True)
            else:
                with self._journal.locked():
                    self._progress = Progress(self._journal.progress_path)
                    self._act(check=False)
        finally:
            self.report.elapsed = self._clock() - began
        return self.report

    def _act(self, *, check: bool) -> None:
        seen = self._look()
        todo = plan(self._wanted, seen)
        self.report.steps = list(todo.steps)
        self.report.differences = [item.as_result() for item in todo.differences]
        self.report.phase = _phase(self._wanted, seen)
        self.before = self._shown(seen)
        if self._wanted.state in FORWARD and seen.source is not None and todo.steps:
            (self._foretell if check else self._forward)(todo, seen, seen.source)
        elif todo.steps:
            self.report.changed = True
            self.after = self._predicted(todo, seen)
            if not check:
                self._end(todo)
        if not self.after:
            self.after = self._predicted(todo, seen)

    def _look(self) -> Seen:
        same = self._source.url == self._target.url
        aliases = self._target.aliases()
        source_aliases = aliases if same else self._source.aliases()
        return Seen(
            source=self._read(self._source, self._wanted.source, source_aliases),
            target=self._read(self._target, self._wanted.target, aliases),
            target_names=tuple(self._target.collections()),
            target_aliases=aliases,
            story=self._journal.read(),
            same_server=same,
        )

    def _read(self, api: Api, name: str, aliases: dict[str, str]) -> Collection | None:
        # An alias is answered like the collection it means; whoever names one would migrate something that moves.
        info = None if name in aliases else api.info(name)
        if info is None:
            return None
        custom = info["config"]["params"].get("sharding_method") == "custom"
        return model.read(name, info, api.shard_keys(name) if custom else [], api.count(name), aliases)

    def _foretell(self, todo: Plan, seen: Seen, source: Collection) -> None:
        """Say what would happen, reading no more than that takes."""
        began = self._clock()
        page = self._source.scroll(source.name, None, SAMPLED_POINTS, source.parts[0]) if source.points and source.parts else None
        seconds = max(1e-6, self._clock() - began)
        points = page.count(SAMPLED_POINTS) if page else 0
        each = len(page.raw) // points if page and points else 0
        left = source.points
        if seen.story and seen.story.ranges:
            left = sum(item.count for number, item in enumerate(seen.story.ranges) if number not in seen.story.done)
        left = left if "copy" in todo.steps else 0
        rate = points / seconds if points else 0.0
        rate = min(rate, self._tuning.rate) if self._tuning.rate else rate
        self.report.estimate = {
            "points": left,
            "bytes": left * each,
            "seconds": round(left / rate, 1) if rate and left else 0.0,
        }
        self.report.changed = bool({"create", "index", "copy", "restore", "switch"} & set(todo.steps))
        if seen.target is not None and "copy" not in todo.steps:
            ranges = seen.story.ranges if seen.story and seen.story.ranges else self._lay(source)
            self._compare(ranges, todo, write=False)
            self.report.changed = self.report.changed or bool(self.report.passes[-1]["differing"])
        self.after = self._predicted(todo, seen)

    def _forward(self, todo: Plan, seen: Seen, source: Collection) -> None:
        story = seen.story
        if story is None or (seen.target is None and todo.created):
            if todo.check:
                self._compare(self._lay(source), todo, write=False)
            story = self._journal.begin(created=todo.created, config=model.config_hash(source))
        if "create" in todo.steps:
            self._create(source)
        for key in todo.shard_keys:
            self._create_key(key)
        for name in todo.indexes:
            self._target.create_index(self._wanted.target, name, model.index_schema(source.schema[name]))
            self.report.changed = True
        if not story.ranges:
            self._journal.note(story, ranges=[vars(item) for item in self._lay(source)], phase="copy")
        if "copy" in todo.steps:
            self._copy(story)
        if "restore" in todo.steps or (story.created and "copy" in todo.steps):
            self._restore(source)
        if not story.at_least("copied"):
            self._journal.note(story, phase="copied")
        self.report.phase = story.phase
        if not todo.check:
            self._delta(story, todo)
        if "verify" in todo.steps:
            self._verify(story, source)
            if not story.at_least("verified"):
                self._journal.note(story, phase="verified")
        if "switch" in todo.steps:
            self._switch(story, todo)
        self.report.phase = story.phase
        self.after = self._shown(self._look())

    def _create(self, source: Collection) -> None:
        """Make the target; after an unknown outcome look whether it was made."""
        for tries in range(1, MAKE_TRIES + 1):
            try:
                self._target.create(self._wanted.target, model.creation(source))
                break
            except ApiError as error:
                if not (error.ambiguous or isinstance(error, Conflict)):
                    raise
                if self._target.info(self._wanted.target) is not None:
                    break
                if tries == MAKE_TRIES:
                    raise
        self.report.changed = True
        params = model.later(source)
        if params:
            self._target.update(self._wanted.target, {"params": params})

    def _create_key(self, key: Any) -> None:
        for tries in range(1, MAKE_TRIES + 1):
            try:
                self._target.create_shard_key(self._wanted.target, key)
                break
            except ApiError as error:
                if key in self._target.shard_keys(self._wanted.target):
                    break
                if not error.ambiguous or tries == MAKE_TRIES:
                    raise
        self.report.changed = True

    def _lay(self, source: Collection) -> list[Range]:
        return lay(self._source, source, range_size(source.points, self._tuning.workers))

    def _copy(self, story: Story) -> None:
        began = self._clock()
        job = Copy(
            self._source,
            self._target,
            self._names,
            self._journal,
            story,
            batch_bytes=self._tuning.batch_bytes,
            pace=self._pace,
            progress=self._progress,
        )
        try:
            job.run(self._tuning.workers)
        finally:
            self.report.copied = job.copied
            self.report.seconds_copying = self._clock() - began
            self.report.changed = self.report.changed or bool(job.copied)

    def _restore(self, source: Collection) -> None:
        """Switch the index on again, and wait until it is built."""
        info = self._target.info(self._wanted.target) or {}
        now = model.read(self._wanted.target, info, [], 0, {}).indexing_threshold
        if now != source.indexing_threshold:
            change = {"optimizers_config": {"indexing_threshold": source.indexing_threshold}}
            self._target.update(self._wanted.target, change)
            self.report.changed = True
        if not self._tuning.wait:
            return
        with self._progress.phase("index", 0):
            wait_until(
                lambda: (self._target.info(self._wanted.target) or {}).get("status"),
                lambda status: status == "green",
                what=f"the index of {self._wanted.target}",
                timeout=self._tuning.wait_timeout,
                interval=self._tuning.wait_sleep,
            )

    def _compare(self, ranges: list[Range], todo: Plan, *, write: bool) -> Tally:
        job = Comparison(
            self._source,
            self._target,
            self._names,
            batch_bytes=self._tuning.batch_bytes,
            pace=self._pace,
            progress=self._progress,
            write=write,
            digests=self._tuning.digests,
        )
        tally = job.run(ranges, self._tuning.workers, "delta" if write else "compare")
        self.report.passes.append({**tally.as_result(self._tuning.digests), "differing": tally.differing})
        self.report.examples = [str(item) for item in tally.examples]
        if todo.check and tally.differing:
            raise StateConflict(
                f"the collection {self._wanted.target!r} exists and differs in {tally.differing} points",
                code="target_differs",
                details={"examples": self.report.examples},
            )
        return tally

    def _delta(self, story: Story, todo: Plan) -> None:
        """Make the target equal, pass by pass, until nothing differs, or no more than may."""
        lag = self._tuning.max_lag if self._wanted.state == "copied" else 0
        while True:
            tally = self._compare(story.ranges, todo, write=True)
            self.report.changed = self.report.changed or bool(tally.differing)
            if tally.differing <= lag or len(self.report.passes) >= self._tuning.max_passes:
                break
        if tally.differing and self._wanted.state != "copied":
            raise StateConflict(
                f"after {len(self.report.passes)} passes {tally.differing} points still differed: something writes to the source",
                code="not_quiet",
                details={"examples": self.report.examples},
            )

    def _verify(self, story: Story, source: Collection) -> None:
        aliases = self._target.aliases()
        now = self._read(self._source, self._wanted.source, {})
        made = self._read(self._target, self._wanted.target, aliases)
        if now is None or made is None:
            raise StateConflict("a collection has gone while it was verified", code="not_equal")
        problems = [] if self._wanted.adopt else [*model.differences(now, made), *model.schema_differences(now, made)]
        counts = {"source": now.points, "target": made.points}
        names = model.vectors(source).names
        places = verify.sample(story.ranges, self._tuning.samples)
        overlap = verify.overlap(
            self._source, self._target, now, self._wanted.target, names, places, self._tuning.samples, self._tuning.workers
        )
        self.report.verified = {
            "points": counts,
            "differences": [item.as_result() for item in problems],
            "neighbours": overlap.as_result(),
        }
        if counts["source"] != counts["target"] or problems or overlap.exact < 1.0:
            raise StateConflict(
                "source and target are not equal, so nothing is switched", code="not_equal", details=self.report.verified
            )

    def _switch(self, story: Story, todo: Plan) -> None:
        alias = str(self._wanted.alias)
        self._journal.note(story, switching=todo.alias_from)
        self._target.switch(alias, self._wanted.target, existing=todo.alias_from is not None)
        self._journal.note(story, phase="switched")
        self.report.changed = True

    def _end(self, todo: Plan) -> None:
        """Finalize or roll back."""
        if "switch" in todo.steps:
            self._target.switch(str(self._wanted.alias), todo.alias_to, existing=True)
        api = self._source if self._wanted.state == "finalized" else self._target
        for name in todo.delete:
            api.delete(name)
        if "forget" in todo.steps:
            self._journal.remove()
        self.report.phase = self._wanted.state

    def _shown(self, seen: Seen) -> dict[str, Any]:
        """Return what a diff shows of the target."""
        target = seen.target
        shown: dict[str, Any] = {"collection": None}
        if target is not None:
            shown = {"collection": target.name, "points": target.points, "config": target.config, "payload_schema": target.schema}
        if self._wanted.alias:
            shown["alias"] = {self._wanted.alias: seen.target_aliases.get(self._wanted.alias)}
        return shown

    def _predicted(self, todo: Plan, seen: Seen) -> dict[str, Any]:
        """Return what a diff would show afterwards."""
        after = self._shown(seen)
        if seen.source is not None and todo.steps and self._wanted.state in FORWARD:
            config = seen.source.config if todo.created else after.get("config")
            schema = {**after.get("payload_schema", {}), **{name: seen.source.schema[name] for name in todo.indexes}}
            after.update(collection=self._wanted.target, points=seen.source.points, config=config, payload_schema=schema)
        if self._wanted.alias and "switch" in todo.steps:
            after["alias"] = {self._wanted.alias: todo.alias_to}
        if self._wanted.target in todo.delete and self._wanted.state == "rolled_back":
            after = {"collection": None, **({"alias": after["alias"]} if "alias" in after else {})}
        return after


def _phase(wanted: Wanted, seen: Seen) -> str:
    if switched(wanted, seen):
        return "switched"
    return seen.story.phase if seen.story else "none"
