# SPDX-License-Identifier: GPL-3.0-or-later
"""The measured parts as Markdown, CSV and a plot."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sophia.gateway.learn import upper_limit

from .model import THRESHOLDS
from .trial import DELTA
from .worlds import WORLDS

__all__ = ["write"]

Parts = dict[str, Any]
Cells = list[list[str]]


def write(work: Path, output: Path, names: list[str]) -> int:
    """Write cache.md, .csv and .svg of the parts that were measured; 1 where a promise of the cache is not kept."""
    parts = {name: json.loads(path.read_text()) for name in names if (path := work / f"{name}.json").exists()}
    rules = [row for name, part in parts.items() if name.startswith("rule ") for row in part["figures"]]
    output.mkdir(parents=True, exist_ok=True)
    lines = (line.rstrip() for line in _markdown(parts, rules))
    (output / "cache.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (output / "cache.csv").write_text(_csv(parts, rules), encoding="utf-8")
    (output / "cache.svg").write_text(_svg(rules), encoding="utf-8")
    broken = list(_broken(parts))
    for line in broken:
        print(f"not kept: {line}")
    return 1 if broken else 0


def _broken(parts: Parts) -> Iterator[str]:
    guards = parts.get("guards")
    if guards and guards["figures"]["at_most"] > 0.001:
        yield f"false hits may be as many as {guards['figures']['at_most']:.3%}"
    tenants = parts.get("tenants")
    if tenants and tenants["figures"]["hits"]:
        yield f"{tenants['figures']['hits']} hits across tenants"


def _markdown(parts: Parts, rules: list[dict[str, Any]]) -> Iterator[str]:
    yield "# The semantic cache, measured"
    yield ""
    yield "Made by `make bench-cache` (`python -m tests.bench.cache`); do not edit. What the words mean, and what none of this promises: [cache](../cache.md)."
    yield ""
    yield f"{os.cpu_count()} cores ({_processor()}), {platform.system()} {platform.release()}, Python {platform.python_version()}, "
    yield f"numpy {version('numpy')}, this tree. Other work ran on the machine; the load average at each part's end is given with it."
    for name, section in (("guards", _guards), ("model", _model), ("index", _index), ("tenants", _tenants), ("trace", _trace)):
        if name == "index" and rules:
            yield from _rules(parts, rules)
        if name in parts and parts[name]["figures"] is not None:
            yield ""
            yield from section(parts[name]["figures"])
            yield ""
            yield _when(parts[name])


def _when(part: dict[str, Any]) -> str:
    return f"{part['at']}, load average {part['load']:.1f}."


def _table(head: list[str], rows: Cells, left: int = 1) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * left + "---:|" * (len(head) - left)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _guards(found: dict[str, Any]) -> Iterator[str]:
    yield "## Guards"
    yield ""
    yield f"{found['pairs']:,} pairs of look-alikes that need different answers, each taken as if its similarity were 1, so that the guards"
    yield f"alone decide: **{found['false']} false hits; at most {found['at_most']:.3%}** (one-sided 95 % Clopper-Pearson limit, as if the pairs were"
    yield "drawn independently; they come from templates of ours, and the guards were completed on this very set, so the limit is of this set"
    yield "and not of what users write)."
    yield ""
    yield f"A second set of {found['heldout']} pairs was written after the guards were finished, as a test of that: everyday questions of other forms with"
    yield f"one slot changed, and 60 odd traps. At its first run {found['heldout_first']} passed ({found['heldout_first'] / found['heldout']:.1%}, at most"
    yield f"{upper_limit(found['heldout'], found['heldout_first']):.1%}), all of them traps; the guards were tightened on what it showed, and now"
    pairs = "; ".join(f'"{one}" for "{other}"' for one, other in found["heldout_now"])
    yield f"{len(found['heldout_now'])} pass: {pairs}."
    yield "So guards alone do not keep a bound; they make the learned one reachable."
    yield ""
    yield f"Of {found['paraphrases']} pairs that ask the same, the guards let **{found['passed'] / found['paraphrases']:.1%}** pass; read it by kind."
    yield ""
    yield from _table(["paraphrases", "pairs", "pass"], [[kind, str(of), str(count)] for kind, (of, count) in found["same_kinds"].items()])
    yield ""
    yield from _table(["look-alikes", "pairs", "false hits"], [[kind, str(of), str(count)] for kind, (of, count) in found["kinds"].items()])


def _model(found: dict[str, Any]) -> Iterator[str]:
    yield "## A real model's similarities"
    yield ""
    yield f"`{found['name']}` on {found['different']} of the look-alikes and on all {found['same']} paraphrases, in the form that the cache embeds."
    yield "No threshold parts the two; what would be served is the last row."
    yield ""
    head = ["at or above", *(f"{threshold:.2f}" for threshold in THRESHOLDS)]
    rows = [
        ["look-alikes", *(f"{share:.1%}" for share in found["different_at"])],
        ["paraphrases", *(f"{share:.1%}" for share in found["same_at"])],
        ["paraphrases that the guards let pass, too", *(f"{share:.1%}" for share in found["served_at"])],
    ]
    yield from _table(head, rows)


def _rules(parts: Parts, rules: list[dict[str, Any]]) -> Iterator[str]:
    yield ""
    yield "## The rule, beside others"
    yield ""
    yield f"Simulated: {rules[0]['runs']:,} partitions a world, {rules[0]['length']:,} requests that a near entry could answer in each, delta {DELTA:.0%}. "
    yield "`wrong of served` is pooled, with half the width of a 95 % interval of the mean over partitions; `above` counts partitions whose "
    yield "share of wrong answers among those served is above delta with 95 % confidence, with the 95 % upper limit of such partitions' share. "
    yield "Under a rule that keeps the bound exactly, up to 5 % of them are there by chance."
    for world in WORLDS:
        rows = [row for row in rules if row["world"] == world.name]
        if not rows:
            continue
        yield ""
        yield f"**{world.name}**: {world.text}."
        yield ""
        yield from _table(
            ["rule", "served", "wrong of served", "wrong of all", "above"],
            [
                [
                    row["rule"],
                    f"{row['hits']:.1%}",
                    f"{row['wrong_of_served']:.2%} ± {row['half']:.2%}" if row["hits"] else "-",
                    f"{row['wrong_of_all']:.2%}",
                    f"{row['above']} (≤ {upper_limit(row['runs'], row['above']):.1%})",
                ]
                for row in rows
            ],
        )
    yield ""
    yield "; ".join(f"{name.removeprefix('rule ')}: {_when(part)[:-1]}" for name, part in parts.items() if name.startswith("rule ")) + "."


def _index(found: list[dict[str, float]]) -> Iterator[str]:
    yield "## The index"
    yield ""
    yield "384 dimensions, 8 neighbours, near-duplicates of kept vectors (cosine "
    yield f"{min(row['lowest_cosine'] for row in found):.2f} to 1), without the embedding, one thread on one core. `processor` is the thread's own time,"
    yield "which waiting for a processor does not lengthen (crowded caches do); `clock` is what a caller waited on this machine as it was, beside"
    yield "other work. Memory is what the process grew by. Wanted are p99 of 1 ms at 100,000, and 2 ms in 450 MB at 1,000,000."
    yield ""
    head = ["vectors", "partitions", "clock p50, p99 (ms)", "processor p50, p99 (ms)", "found first", "memory (MB)", "filled in (s)", "one more p99 (ms)"]
    yield from _table(
        head,
        [
            [
                f"{row['size']:,}",
                f"{row['partitions']:,}",
                f"{row['wall_p50_ms']:.2f}, {row['wall_p99_ms']:.2f}",
                f"{row['cpu_p50_ms']:.2f}, {row['cpu_p99_ms']:.2f}",
                f"{row['recall']:.1%}",
                f"{row['memory_mb']:.0f}",
                f"{row['build_s']:.0f}",
                f"{row['add_p99_ms']:.2f}",
            ]
            for row in found
        ],
        left=0,
    )


def _tenants(found: dict[str, Any]) -> Iterator[str]:
    yield "## Walls between tenants"
    yield ""
    yield f"**{found['hits']} hits in {found['probes']:,} probes**: callers of other organisations, and of the same one outside the entry's scope,"
    yield "under the same names of users, teams and keys, ask what others were answered, word for word or reworded, with an embedding that puts"
    yield f"every text at similarity 1 and no threshold. In between {found['own']:,} owners asked and were answered from the cache;"
    yield f"{found['searched']:,} neighbours of probers' own were looked at. {found['seconds']:.0f} s."


def _trace(found: list[dict[str, Any]]) -> Iterator[str]:
    yield "## A repeat-heavy trace"
    yield ""
    yield f"{found[0]['requests']:,} requests: 1,200 intents by Zipf (exponent 1), nine wordings, four organisations that share within themselves,"
    yield "upstream odd in one answer of 500; the embedding is a stand-in that counts words (`tests/bench/cache/trace.py`)."
    yield "A semantic hit counts as wrong where it is not the intent's usual answer."
    yield ""
    yield from _table(
        ["decision", "hits", "exact", "semantic", "wrong", "wrong of semantic, at most", "checks", "told apart by guards"],
        [
            [
                row["name"],
                f"**{(row['exact'] + row['semantic']) / row['requests']:.1%}**",
                f"{row['exact']:,}",
                f"{row['semantic']:,}",
                f"{row['wrong']:,}",
                f"{upper_limit(row['semantic'], row['wrong']):.2%}" if row["semantic"] else "-",
                f"{row['checks']:,}",
                f"{row['objections']:,}",
            ]
            for row in found
        ],
    )


def _csv(parts: Parts, rules: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["part", "case", "figure", "value"])
    for name, part in parts.items():
        figures = part["figures"]
        if name == "guards":
            for group in ("kinds", "same_kinds"):
                for kind, (of, count) in figures[group].items():
                    writer.writerow([name, kind, "pairs", of])
                    writer.writerow([name, kind, "passed", count])
        elif name == "model" and figures is not None:
            for row in ("different_at", "same_at", "served_at"):
                for threshold, share in zip(THRESHOLDS, figures[row], strict=True):
                    writer.writerow([name, row, threshold, f"{share:.4f}"])
        elif name == "tenants":
            writer.writerows([name, "", figure, value] for figure, value in figures.items())
        elif name in ("index", "trace"):
            for row in figures:
                case = row.get("name") or f"{row['size']} in {row['partitions']}"
                writer.writerows([name, case, figure, value] for figure, value in row.items() if figure != "name")
    for row in rules:
        case = f"{row['world']} / {row['rule']}"
        writer.writerows(["rule", case, figure, row[figure]] for figure in ("runs", "length", "hits", "wrong_of_served", "half", "wrong_of_all", "above"))
    return out.getvalue()


_COLORS = {"ours": "#1a7f37", "vCache's rule": "#cf222e"}


def _svg(rules: list[dict[str, Any]]) -> str:
    """A panel a world: the share served against the share of wrong answers among them, on a logarithmic scale; the line is delta."""
    worlds = [world.name for world in WORLDS if any(row["world"] == world.name for row in rules)]
    width, height = 300, 280
    panels = [
        _panel(place * width, width, height, name, [row for row in rules if row["world"] == name]) for place, name in enumerate(worlds)
    ]
    size = f'width="{width * max(1, len(panels))}" height="{height + 30}"'
    ours, theirs = _COLORS["ours"], _COLORS["vCache's rule"]
    legend = (
        f'<text x="20" y="{height + 18}" fill="{ours}">● ours</text>'
        f'<text x="90" y="{height + 18}" fill="{theirs}">● the rule of vCache</text>'
        f'<text x="210" y="{height + 18}" fill="#57606a">● a fixed similarity (0.80 to 0.95)</text>'
        f'<text x="470" y="{height + 18}">dashed: delta; at the bottom: no wrong answer</text>'
    )
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>', *panels, legend, "</svg>", "",
    ])


def _panel(left: int, width: int, height: int, title: str, rows: list[dict[str, Any]]) -> str:
    from math import log10

    def x(share: float) -> float:
        return left + 50 + share * (width - 70)

    def y(share: float) -> float:
        return height - 45 - (log10(max(share, 1e-4)) + 4) / 4 * (height - 85)

    parts = [f'<text x="{left + 50}" y="22" font-weight="bold">{title}</text>']
    for share in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        parts.append(f'<line x1="{left + 50}" x2="{left + width - 20}" y1="{y(share):.1f}" y2="{y(share):.1f}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{left + 45}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.2%}</text>')
    parts.append(f'<line x1="{left + 50}" x2="{left + width - 20}" y1="{y(DELTA):.1f}" y2="{y(DELTA):.1f}" stroke="black" stroke-dasharray="4 3"/>')
    parts += [f'<text x="{x(share):.1f}" y="{height - 28}" text-anchor="middle">{share:.0%}</text>' for share in (0.0, 0.5, 1.0)]
    parts.append(f'<text x="{x(0.5):.1f}" y="{height - 10}" text-anchor="middle">served</text>')
    for row in rows:
        color = _COLORS.get(row["rule"], "#57606a")
        parts.append(f'<circle cx="{x(row["hits"]):.1f}" cy="{y(row["wrong_of_served"]):.1f}" r="5" fill="{color}"/>')
    return "\n".join(parts)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
