# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cells of the table: what is true in each, and which answer is right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ansible_collections.sophia.platform.plugins.module_utils._canary.model import COUNTER_RATIO, HISTOGRAM_SLOW, MEAN, Metric, Settings

from .world import Slow, World

PEERS = "peers"
OURS = "ours"


def errors(**changes) -> Metric:
    """Return a metric for errors that is compared with the baseline only."""
    return replace(Metric("errors", COUNTER_RATIO, "requests_total", "requests_total", ratio=2.0), **changes)


def settings(*metrics: Metric, stages: tuple[int, ...] = (20,), **changes) -> Settings:
    return replace(Settings(metrics=metrics, canary="", baseline="", stages=stages), **changes)


@dataclass(frozen=True)
class Cell:
    """One situation. ``truth`` is "good" (no worse, within limits), "bad" (at or beyond what must not pass) or "between"."""

    group: str
    name: str
    truth: str
    settings: Settings
    worlds: tuple[tuple[World | Slow, ...], ...]
    rules: str = OURS
    # Why no bound is claimed here, where none is.
    unclaimed: str = ""
    tags: dict[str, float] = field(default_factory=dict)


def _truth(ratio: float, bound: float) -> str:
    return "good" if ratio <= 1 else "bad" if ratio >= bound else "between"


def relative() -> Iterator[Cell]:
    plain = settings(errors())
    for burst in (1, 2, 3, 5, 10):
        for ratio in (1, 2, 4, 10):
            world = World(burst=burst, ratio=ratio)
            yield Cell("50 rps, 20 %", f"burst {burst}, {ratio}x", _truth(ratio, 2), plain, ((world,),), PEERS,
                       tags={"burst": burst, "ratio": ratio})
    for burst in (1, 3):
        for ratio in (1, 2, 4):
            world = World(burst=burst, ratio=ratio, profile="drift")
            yield Cell("drift and spikes", f"burst {burst}, {ratio}x", _truth(ratio, 2), plain, ((world,),), PEERS)
    for rps, share in ((50, 0.05), (5, 0.2)):
        for burst in (1, 3, 10):
            for ratio in (1, 2, 4, 10):
                world = World(rps=rps, share=share, burst=burst, ratio=ratio)
                yield Cell(f"{rps} rps, {share * 100:g} %", f"burst {burst}, {ratio}x", _truth(ratio, 2), plain, ((world,),))
    for rate, ratio in ((0.005, 1), (0.005, 10), (0.05, 1)):
        world = World(rps=0.2, rate=rate, ratio=ratio)
        name = f"{rate * 100:g} % errors, {ratio}x"
        yield Cell("0.2 rps, 20 %", name, _truth(ratio, 2), plain, ((world,),), PEERS)


def awkward() -> Iterator[Cell]:
    plain = settings(errors())
    for part, burst in ((0.2, 3), (0.2, 10), (0.5, 10)):
        for ratio in (1, 2):
            world = World(burst=burst, ratio=ratio, straddle=part)
            yield Cell("bursts across bins", f"{part * 100:g} % of bursts of {burst}, {ratio}x", _truth(ratio, 2), plain, ((world,),),
                       unclaimed="a burst lies across two bins")
    for mode, largest in (("alike", 5.0), ("any", 5.0), ("any", 20.0)):
        rule = settings(errors(bursts=mode, largest=largest))
        name = f"bursts: {mode}" + (f", largest {largest:g}" if mode == "any" else "")
        why = "bursts differ between the arms" if mode == "alike" else ""
        for burst in (1, 5):
            # A geometric burst has a size-biased mean of 2 burst - 1: that is what `largest` must cover.
            beyond = mode == "any" and largest < 4 * burst - 1
            yield Cell(f"unlike bursts, {name}", f"2x by larger bursts, {burst} → {2 * burst}", "bad", rule,
                       ((World(burst=burst, ratio=2, larger=True),),), unclaimed="bursts are larger than `largest`" if beyond else why)
        for burst, canary in ((1, 5), (5, 1)):
            beyond = mode == "any" and largest < 9
            yield Cell(f"unlike bursts, {name}", f"same rate, {burst} and {canary}", "good", rule,
                       ((World(burst=burst, canary_burst=canary),),), unclaimed="bursts are larger than `largest`" if beyond else why)
    for mode in (1, 3, 10):
        for ratio in (1, 2, 4):
            largest = 5.0 if mode < 10 else 20.0
            yield Cell(f"50 rps, 20 %, bursts: any, largest {largest:g}", f"burst {mode}, {ratio}x", _truth(ratio, 2),
                       settings(errors(bursts="any", largest=largest)), ((World(burst=mode, ratio=ratio),),))
    slow = settings(replace(errors(), name="slow", kind=HISTOGRAM_SLOW))
    for ratio in (1, 2, 4):
        yield Cell("slow requests, 10 %", f"{ratio}x", _truth(ratio, 2), slow, ((Slow(ratio=ratio),),))


def limits() -> Iterator[Cell]:
    for largest in (5.0, 20.0):
        one = settings(errors(ratio=None, limit=0.01, largest=largest))
        group = f"limit 1 %, 50 rps, 20 %, largest {largest:g}"
        for burst in (1, 3, 10):
            why = "bursts are larger than `largest`" if 2 * burst - 1 > largest else ""
            for rate in (0.002, 0.005, 0.01, 0.02, 0.05):
                truth = "edge" if rate == 0.01 else "good" if rate < 0.01 else "bad"
                yield Cell(group, f"burst {burst}, {rate * 100:g} %", truth, one, ((World(burst=burst, rate=rate),),), unclaimed=why)
    both = settings(errors(limit=0.01, floor=0.005))
    for name, rate, ratio, truth in (
        ("0.1 %, 1x", 0.001, 1, "good"), ("0.1 %, 3x, under the floor", 0.001, 3, "good"), ("0.5 %, 1x", 0.005, 1, "good"),
        ("0.5 %, 2x, at the limit", 0.005, 2, "bad"), ("0.5 %, 4x", 0.005, 4, "bad"), ("0, 1x", 1e-9, 1, "good"),
    ):
        for burst in (1, 10):
            world = World(burst=burst, rate=rate, ratio=ratio)
            yield Cell("ratio 2, limit 1 %, floor 0.5 %", f"burst {burst}, {name}", truth, both, ((world,),),
                       unclaimed="bursts are larger than `largest`" if burst == 10 else "")


def means() -> Iterator[Cell]:
    for share, largest in ((0.2, 50.0), (0.05, 50.0), (0.05, 10.0)):
        cost = Metric("cost", MEAN, "c", "s", ratio=1.5, largest=largest)
        group = f"mean cost, 10 rps, {share * 100:g} %, largest {largest:g}x"
        for sigma in (0.5, 1.5):
            for ratio in (1, 1.5, 3):
                world = World(rps=10, share=share, cost=sigma, ratio=ratio, bins=240)
                yield Cell(group, f"sigma {sigma}, {ratio}x", _truth(ratio, 1.5), settings(cost), ((world,),))
    capped = Metric("cost", MEAN, "c", "s", ratio=None, limit=2.0, largest=100.0)
    for sigma in (0.5, 1.5):
        for ratio, truth in ((1, "good"), (2, "edge"), (4, "bad")):
            world = World(rps=10, cost=sigma, ratio=ratio, bins=240)
            yield Cell("mean cost, limit 2, 10 rps, 20 %", f"sigma {sigma}, mean {ratio}", truth, settings(capped), ((world,),))


def several() -> Iterator[Cell]:
    three = settings(
        errors(), replace(errors(), name="slow", kind=HISTOGRAM_SLOW), Metric("cost", MEAN, "c", "s", ratio=1.5, largest=50.0)
    )
    for name, ratios, truth in (
        ("all good", (1, 1, 1), "good"), ("errors 2x", (2, 1, 1), "bad"), ("slow 2x", (1, 2, 1), "bad"), ("cost 1.5x", (1, 1, 1.5), "bad"),
        ("errors 4x", (4, 1, 1), "bad"), ("all at their ratio", (2, 2, 1.5), "bad"),
    ):
        worlds = (
            World(rps=10, burst=3, rate=0.01, ratio=ratios[0], bins=240),
            Slow(rps=10, rate=0.05, ratio=ratios[1], bins=240),
            World(rps=10, cost=1.0, ratio=ratios[2], bins=240),
        )
        yield Cell("three metrics, 10 rps, 20 %", name, truth, three, (worlds,))


def stages() -> Iterator[Cell]:
    percents = (5, 10, 25, 50)
    plan = settings(errors(), stages=percents)
    for burst in (1, 3):
        for name, ratios, truth in (
            ("good throughout", (1, 1, 1, 1), "good"), ("2x throughout", (2, 2, 2, 2), "bad"), ("4x from 50 % on", (1, 1, 1, 4), "bad"),
        ):
            worlds = tuple(
                (World(share=percent / 100, burst=burst, ratio=ratio),) for percent, ratio in zip(percents, ratios, strict=True)
            )
            yield Cell("rollout 5-10-25-50 %, 50 rps", f"burst {burst}, {name}", truth, plan, worlds)


def all_cells() -> list[Cell]:
    return [cell for make in (relative, awkward, limits, means, several, stages) for cell in make()]
