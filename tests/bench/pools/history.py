# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One random history: a pool that is changed, killed and hit by faults, then left in peace and counted."""

from __future__ import annotations

import json
import pathlib
import random
import tempfile
from dataclasses import dataclass, field, replace

from ansible_collections.sophia.platform.plugins.module_utils._errors import PlatformError
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.journal import Journal, locked
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.plan import Desired
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.pool import Limits, Report, Run
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.template import Template
from sophia.sandbox.lambda_cloud import API_KEY, Cloud, Config, Request

from .wire import Clock, Killed, Wire, api_of

# Flushing to a real disk would be most of the time, and proves nothing where nobody pulls the plug.
MEMORY = pathlib.Path("/dev/shm")
POOL = "serving"
TYPES = {"gpu_1x_a6000": 109, "gpu_1x_a10": 129, "gpu_1x_a100": 199}
REGIONS = ("us-east-1", "us-west-1", "us-south-1", "europe-central-1")
MOST = 5
# The list is never older than this, and so a launch is looked for at least as long.
STALE = 60.0
FAULTS = (
    {"fault": {"kind": "timeout_after_success"}, "match": {"path": "/launch"}},
    {"fault": {"kind": "reset_after_success"}, "match": {"path": "/launch"}},
    {"fault": {"kind": "status_after_success", "status": 500}, "match": {"path": "/launch"}},
    {"fault": {"kind": "status_after_success", "status": 503}},
    {"fault": {"kind": "timeout"}},
    {"fault": {"kind": "reset"}},
    {"fault": {"kind": "status", "status": 500}},
    {"fault": {"kind": "status", "status": 409, "code": "global/internal-error"}},
    {"fault": {"kind": "status", "status": 503, "code": "provider/internal-unavailable"}},
    {"fault": {"kind": "status", "status": 429}},
    {"fault": {"kind": "status", "status": 429, "retry_after": 7}},
    {"fault": {"kind": "stale", "seconds": STALE}},
    {"fault": {"kind": "stale", "seconds": 20.0}},
    {"fault": {"kind": "insufficient_capacity"}},
    {"fault": {"kind": "unhealthy"}},
    {"fault": {"kind": "slow_boot", "seconds": 2000.0}},
    {"fault": {"kind": "ignore_terminate"}},
    {"fault": {"kind": "slow_terminate", "seconds": 200.0}},
    {"fault": {"kind": "timeout_after_success"}, "match": {"path": "/terminate"}},
)


@dataclass
class Tally:
    """What became of a history. ``problems`` is empty where everything held."""

    seed: int
    problems: list[str] = field(default_factory=list)
    runs: int = 0
    kills: int = 0
    failures: int = 0
    launches: int = 0
    calls: int = 0
    struck: int = 0
    runs_to_converge: int = 0
    seconds: float = 0.0


class World:
    """A cloud with a bystander in it, and a pool with its journal. All chances come from the seed."""

    def __init__(self, seed: int, folder: pathlib.Path) -> None:
        self.random = rng = random.Random(seed)
        self.folder = folder
        self.clock = Clock()
        config = Config(seed=seed, clock=self.clock, flap_period=200.0, page_size=rng.choice([0, 0, 2]), linger_seconds=rng.choice([0.0, 120.0]))
        self.cloud = Cloud(config)
        self.control("seed", {"ssh_keys": {"ops": "ssh-ed25519 AAAA ops"}})
        self.bystander = self._launch_bystander()
        self.control("seed", {"flap": rng.choice([0.0, 0.3, 0.7])})
        surge, unavailable = rng.choice([(1, 0), (0, 1), (2, 1), (1, 1)])
        ceiling = rng.choice([None, 129, 150, 199])
        dearest = max(cents for cents in TYPES.values() if ceiling is None or cents <= ceiling)
        self.starved = rng.random() < 0.1
        budget = rng.choice([None, (MOST + surge) * dearest, MOST * dearest])
        if self.starved:
            budget = 2 * min(TYPES.values()) + 50
        if budget is not None and budget < (MOST + surge) * dearest:
            unavailable = max(1, unavailable)
        types = rng.sample(sorted(TYPES), rng.randint(1, 3))
        if ceiling is not None and not any(TYPES[name] <= ceiling for name in types):
            types.append("gpu_1x_a6000")
        self.desired = Desired(
            pool=POOL,
            count=rng.randint(0, MOST),
            spec="",
            types=tuple(types),
            regions=tuple(rng.sample(REGIONS, rng.randint(0, 3))),
            strategy=rng.choice(["cheapest", "ranked", "spread"]),
            ceiling=ceiling,
            budget=budget,
            max_surge=surge,
            max_unavailable=unavailable,
        )
        self.template = Template("ops", user_data="#!/bin/sh\necho 0\n", tags={"team": "ml"})
        self.wire = Wire(self.cloud, self.clock, rng, POOL, budget, ceiling)
        self.tally = Tally(seed)

    def control(self, path: str, body: object) -> None:
        answer = self.cloud.handle(Request("POST", f"/_sandbox/{path}", body=json.dumps(body).encode()))
        assert answer.status == 200, answer.body

    def run(self, limits: Limits) -> Report | None:
        """Run the pool once, as a process of its own would; None if it was killed."""
        self.tally.runs += 1
        desired = replace(self.desired, spec=self.template.spec())
        path = self.folder / "pool.json"
        try:
            with locked(path.with_suffix(".lock")):
                journal = Journal(path)
                journal.load()
                job = Run(
                    api_of(self.wire, self.folder),
                    journal,
                    desired,
                    limits,
                    self.template.body,
                    tags=self.template.tags,
                    clock=self.clock,
                    wall=self.clock,
                    sleep=self.clock.sleep,
                    token=lambda: f"{self.random.getrandbits(128):032x}",
                )
                return job.run(check=False)
        except Killed:
            self.tally.kills += 1
            return None

    def _launch_bystander(self) -> str:
        body = {"region_name": "us-east-1", "instance_type_name": "gpu_1x_rtx6000", "ssh_key_names": ["ops"], "name": "serving"}
        headers = {"authorization": f"Bearer {API_KEY}"}
        answer = self.cloud.handle(Request("POST", "/api/v1/instance-operations/launch", headers=headers, body=json.dumps(body).encode()))
        self.clock.now += 12.0
        return json.loads(answer.body)["data"]["instance_ids"][0]


def play(seed: int) -> Tally:
    """Play one history and judge it."""
    with tempfile.TemporaryDirectory(prefix="pools-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        world = World(seed, pathlib.Path(folder))
        for _event in range(world.random.randint(2, 6)):
            _event_of(world)
        _calm(world)
        _judge(world)
        tally = world.tally
        tally.problems += world.wire.broken
        tally.launches = len(world.cloud.state.instances) - 1
        tally.calls = world.wire.calls
        return tally


def _event_of(world: World) -> None:
    """Let something happen: time passes, fate strikes, the user changes his mind; then run with faults."""
    rng = world.random
    world.clock.now += rng.choice([0.0, 5.0, 60.0, 1000.0])
    hosts = world.wire.hosts()
    if hosts and rng.random() < 0.4:
        world.control(f"instances/{rng.choice(hosts).id}", {"status": rng.choice(["unhealthy", "preempted", "terminated"])})
    if rng.random() < 0.5:
        world.desired = replace(world.desired, count=rng.randint(0, MOST))
    if rng.random() < 0.3:
        world.template = replace(world.template, user_data=f"#!/bin/sh\necho {rng.randint(0, 3)}\n")
    rules = [
        {"fault": rule["fault"], "match": {**rule.get("match", {}), "probability": rng.choice([0.05, 0.2, 0.5])}}
        for rule in rng.sample(FAULTS, rng.randint(0, 5))
    ]
    world.control("faults", rules)
    wire = world.wire
    wire.kill_at = wire.calls + rng.randint(1, 30) if rng.random() < 0.4 else None
    wire.kill_after = rng.random() < 0.7
    limits = Limits(
        max_deletions=rng.choice([0, 1, 3]),
        force=rng.random() < 0.5,
        allow_partial=rng.random() < 0.5,
        wait=rng.random() < 0.7,
        timeout=rng.choice([60.0, 600.0, 1800.0]),
    )
    try:
        world.run(limits)
    except PlatformError:
        # Whatever the cloud did, it ends as a typed error.
        world.tally.failures += 1
    world.tally.struck += sum(armed.struck for armed in world.cloud.faults.armed)


def _calm(world: World) -> None:
    """End all faults; the pool has three runs to get where it should be, and one more that changes nothing."""
    world.control("faults", [])
    world.control("seed", {"flap": 0.0})
    world.wire.kill_at = None
    limits = Limits(force=True, allow_partial=world.starved, timeout=7200.0)
    started = world.clock.now
    for number in range(1, 4):
        report = _peaceful(world, limits)
        if report is not None and _settled(world, report):
            world.tally.runs_to_converge = number
            break
    else:
        world.tally.problems.append("not converged in 3 runs")
        return
    world.tally.seconds = world.clock.now - started
    again = _peaceful(world, limits)
    if again is None or again.steps:
        world.tally.problems.append("a run more still changed something")


def _peaceful(world: World, limits: Limits) -> Report | None:
    try:
        return world.run(limits)
    except PlatformError as error:
        world.tally.problems.append(f"failed in peace: {error.code}: {error.message}")
        return None


def _settled(world: World, report: Report) -> bool:
    """Return whether exactly the hosts that are wanted are there, active, and not drifted."""
    hosts = world.wire.hosts()
    now = world.clock.now
    wanted = world.desired.count - report.shortfall
    return (
        len(hosts) == wanted
        and (report.shortfall == 0 or world.starved)
        and {host.id for host in hosts} == set(report.instances)
        and all(host.status(now, 0.0) == "active" for host in hosts)
        # Where the budget leaves a pool short for good, a drifted host is not taken from it.
        and (world.starved or all(host.user_data == world.template.user_data for host in hosts))
    )


def _judge(world: World) -> None:
    """What has to hold whatever happened."""
    state = world.cloud.state
    problems = world.tally.problems
    alive = {item.id for item in state.alive()}
    if world.bystander not in alive:
        problems.append("a host of somebody else was terminated")
    strangers = alive - {world.bystander} - {host.id for host in world.wire.hosts()}
    if strangers:
        problems.append(f"orphans: {sorted(strangers)}")
    if not world.tally.problems and len(world.wire.hosts()) > world.desired.count:
        problems.append("orphans: more hosts than asked for")
    if state.requests.violations or state.launches.violations:
        problems.append(f"rate limit: {state.requests.violations} requests, {state.launches.violations} launches too early")


def quiet(seed: int) -> list[tuple[list[tuple[str, ...]], list[tuple[str, ...]]]]:
    """Play a history without faults; return what each run foretold and what it did."""

    def told(steps) -> list[tuple[str, ...]]:
        return [(step.do, step.why, step.name, step.type, step.region) for step in steps]

    runs = []
    with tempfile.TemporaryDirectory(prefix="pools-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        world = World(seed, pathlib.Path(folder))
        world.control("seed", {"flap": 0.0})
        world.desired = replace(world.desired, budget=None)
        for _run in range(4):
            report = world.run(Limits(force=True, timeout=100_000.0))
            runs.append((told(report.plan.steps), told(report.steps)))
            world.desired = replace(world.desired, count=world.random.randint(0, MOST))
            if world.random.random() < 0.5:
                world.template = replace(world.template, user_data=f"#!/bin/sh\necho {len(runs)}\n")
    return runs
