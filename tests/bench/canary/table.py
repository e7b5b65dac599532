# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the rows as CSV, as Markdown and as a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from itertools import groupby

from .trial import OURS, Row, Share

COLORS = {
    OURS: "#1a7f37", "Flagger": "#cf222e", "Argo Rollouts": "#bc4c00", "Kayenta": "#8250df", "z-test, peeking": "#57606a",
    "counts": "#0969da", "counts / dispersion": "#54aeff", "asymptotic": "#d4a72c", "by dispersion": "#bf3989",
}


def as_csv(rows: Iterable[Row]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([
        "group", "cell", "truth", "rule", "runs", "rolled_back", "promoted", "ever_rolled_back", "ever_rolled_back_low", "ever_rolled_back_high",
        "ever_promoted", "ever_promoted_low", "ever_promoted_high", "median_seconds_when_right", "claimed", "holds",
    ])
    for row in rows:
        ever = [f"{value:.4f}" for share in (row.ever_rollback, row.ever_promote) for value in (share.value, *share.limits)]
        writer.writerow([
            row.cell.group, row.cell.name, row.cell.truth, row.rule, row.rollback.runs, f"{row.rollback.value:.4f}", f"{row.promote.value:.4f}",
            *ever, "" if row.seconds is None else f"{row.seconds:.0f}", "yes" if claimed(row) else "no", "yes" if row.holds else "no",
        ])
    return out.getvalue()


def as_markdown(rows: list[Row], runs: int, seed: int) -> str:
    mine = [row for row in rows if claimed(row)]
    lines = [
        "# The canary rules, measured", "",
        f"Written by `python -m tests.bench.canary` ({runs} runs a cell, seed {seed}); do not edit. Meanings are in [canary.md](../canary.md).", "",
        f"`{OURS}` claims its bounds (5 % each) in {len(mine)} cells and keeps them, with the upper 95 % Clopper-Pearson limit, in "
        f"{sum(row.holds for row in mine)} of them.", "",
    ]
    for group, members in groupby(rows, key=lambda row: row.cell.group):
        lines += [
            f"## {group}", "",
            "| cell | truth | rule | rolled back | promoted | undecided | wrong rate (95 % limits) | median s when right |",
            "|---|---|---|---:|---:|---:|---|---:|",
        ]
        lines += [_line(row) for row in members]
        lines.append("")
    return "\n".join(lines)


def claimed(row: Row) -> bool:
    return row.rule == OURS and not row.cell.unclaimed


def _line(row: Row) -> str:
    undecided = 1 - row.rollback.value - row.promote.value
    wrong = " and ".join(_with_limits(share) for share in row.wrong) or "-"
    mark = "" if row.holds else " **above 5 %**" if any(share.limits[0] > 0.05 for share in row.wrong) else " not shown below 5 %"
    note = f" (no claim: {row.cell.unclaimed})" if row.rule == OURS and row.cell.unclaimed else ""
    seconds = "-" if row.seconds is None else f"{row.seconds:.0f}"
    return (
        f"| {row.cell.name} | {row.cell.truth} | {row.rule} | {_percent(row.rollback.value)} | {_percent(row.promote.value)} "
        f"| {_percent(abs(undecided))} | {wrong}{mark}{note} | {seconds} |"
    )


def _with_limits(share: Share) -> str:
    low, high = share.limits
    return f"{_percent(share.value)} ({_percent(low)} to {_percent(high)})"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def as_svg(rows: list[Row]) -> str:
    """Plot the wrong rates by burst: rollback of an equal canary, and promotion of one that is 2 and 4 times worse."""
    width, height = 330, 300
    parts = []
    for place, (ratio, title) in enumerate(((1, "An equal canary rolled back"), (2, "A 2x worse canary promoted"), (4, "A 4x worse canary promoted"))):
        parts.append(_panel(place * width, width, height, title, [row for row in rows if row.cell.tags.get("ratio") == ratio]))
    legend = [
        f'<rect x="{20 + 240 * (index % 4)}" y="{height + 8 + 18 * (index // 4)}" width="12" height="12" fill="{color}"/>'
        f'<text x="{38 + 240 * (index % 4)}" y="{height + 18 + 18 * (index // 4)}">{name}</text>'
        for index, (name, color) in enumerate(COLORS.items())
    ]
    size = f'width="{3 * width}" height="{height + 70}" viewBox="0 0 {3 * width} {height + 70}"'
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>', *parts, *legend, "</svg>", "",
    ])


def _panel(left: int, width: int, height: int, title: str, rows: list[Row]) -> str:
    bursts = sorted({row.cell.tags["burst"] for row in rows})

    def x(burst: float) -> float:
        return left + 45 + bursts.index(burst) * (width - 70) / (len(bursts) - 1)

    def y(rate: float) -> float:
        return height - 40 - rate * (height - 80)

    parts = [f'<text x="{left + 45}" y="22" font-weight="bold">{title}</text>']
    for rate in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<line x1="{left + 45}" x2="{left + width - 25}" y1="{y(rate):.1f}" y2="{y(rate):.1f}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{left + 38}" y="{y(rate) + 4:.1f}" text-anchor="end">{100 * rate:.0f} %</text>')
    parts.append(f'<line x1="{left + 45}" x2="{left + width - 25}" y1="{y(0.05):.1f}" y2="{y(0.05):.1f}" stroke="black" stroke-dasharray="4 3"/>')
    parts += [f'<text x="{x(burst):.1f}" y="{height - 22}" text-anchor="middle">{burst:g}</text>' for burst in bursts]
    parts.append(f'<text x="{left + width / 2:.1f}" y="{height - 6}" text-anchor="middle">mean burst</text>')
    for rule, color in COLORS.items():
        points = [(row.cell.tags["burst"], (row.rollback if row.cell.truth == "good" else row.promote).value) for row in rows if row.rule == rule]
        line = " ".join(f"{x(burst):.1f},{y(rate):.1f}" for burst, rate in sorted(points))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="{3 if rule == OURS else 1.5}"/>')
    return "\n".join(parts)
