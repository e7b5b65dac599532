# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""The verdict for machines and people: the result object, Markdown, JUnit XML and a plot (SVG). Pure."""

from __future__ import annotations

import datetime
import math
from dataclasses import replace
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from ansible_collections.sophia.platform.plugins.module_utils._canary.model import (
    ALIKE,
    HOLD,
    MEAN,
    NO_DATA,
    NO_TRAFFIC,
    OK,
    PROMOTE,
    ROLLBACK,
    Finding,
    Judgement,
    Metric,
    Settings,
    Stage,
)
from ansible_collections.sophia.platform.plugins.module_utils._canary.plan import SLACK, interval, rate
from ansible_collections.sophia.platform.plugins.module_utils._canary.series import narrow

# e-values beyond this are of no interest to anyone and do not fit into a float.
_LARGEST = 690.0
_WIDTH, _HEIGHT = 760, 320
_MOST_POINTS = 2000


def result(settings: Settings, stages: list[Stage], judgement: Judgement) -> dict[str, Any]:
    """Return the verdict object, made of plain JSON values."""
    # What came after the decision is no part of it.
    stage = replace(stages[-1], bins=stages[-1].bins[: judgement.looks])
    metrics = [_metric(settings, item, finding, stage) for item, finding in zip(settings.metrics, judgement.findings)]
    ended = stage.origin + judgement.looks * settings.bin
    return {
        "verdict": judgement.verdict,
        "reason": judgement.reason,
        "final": judgement.final,
        "stage": judgement.stage,
        "bins": judgement.looks,
        "e_rollback": _value(judgement.log_rollback),
        "metrics": metrics,
        "bounds": {
            "alpha_rollback": settings.alpha_rollback,
            "alpha_promote": settings.alpha_promote,
            "e_needed_rollback": 1 / (SLACK * settings.alpha_rollback),
            "e_needed_promote": 1 / (SLACK * settings.alpha_promote),
        },
        "started": _iso(stage.origin),
        "ended": _iso(ended),
        "decided_at": None if judgement.decided_at is None else _iso(judgement.decided_at),
        "expected_seconds_to_promote": _expected(settings, judgement),
        "config_sha256": settings.digest(),
        "queries": queries(settings),
    }


def queries(settings: Settings) -> list[str]:
    """Return the selectors that are read, arm by arm."""
    arms = [settings.canary] if settings.baseline is None else [settings.baseline, settings.canary]
    every = [narrow(selector, arm) for arm in arms for item in settings.metrics for selector in (item.total, item.part)]
    return list(dict.fromkeys(every))


def markdown(verdict: dict[str, Any]) -> str:
    """Return a page about a verdict object."""
    lines = [
        f"# Canary at {verdict['stage']} %: {verdict['verdict']}", "",
        f"{_sentence(verdict['reason'])} {verdict['bins']} bins, {verdict['started']} to {verdict['ended']}.", "",
        "| metric | data | baseline | canary | ratio (bounds) | e for rollback | e for promotion | passed |",
        "|---|---|---:|---:|---|---:|---:|---|",
    ]
    for item in verdict["metrics"]:
        data = item["data_status"] + (f": {item['reason']}" if item["reason"] else "")
        bounds = f"{_short(item['ratio'])} ({_short(item['ci_low'])} to {_short(item['ci_high'])})"
        lines.append(
            f"| {_cell(item['name'])} | {_cell(data)} | {_short(item['rate0'])} of {item['n0']:g} | {_short(item['rate1'])} of {item['n1']:g} "
            f"| {bounds} | {_short(item['e_rollback'])} | {_short(item['e_promote'])} | {'yes' if item['passed'] else 'no'} |"
        )
    bounds = verdict["bounds"]
    lines += [
        "",
        f"Rolled back at e ≥ {bounds['e_needed_rollback']:.4g} (now {_short(verdict['e_rollback'])}), promoted when every metric has "
        f"e ≥ {bounds['e_needed_promote']:.4g}. An equal canary is rolled back with probability at most {bounds['alpha_rollback']:g} in the whole "
        f"rollout, one too bad is promoted from this stage with at most {bounds['alpha_promote']:g}, however often one looks.",
        "", f"Configuration {verdict['config_sha256']}.", "",
    ]
    lines += [f"- `{query}`" for query in verdict["queries"]]
    return "\n".join(lines) + "\n"


def junit(verdict: dict[str, Any]) -> str:
    """Return a JUnit XML report: one case a metric and one for the verdict; undecided ones are skipped."""
    cases = [_case(item["name"], *_outcome(verdict, item)) for item in verdict["metrics"]]
    kind = {PROMOTE: "", ROLLBACK: "failure", HOLD: "skipped", NO_DATA: "error", NO_TRAFFIC: "error"}.get(verdict["verdict"], "failure")
    cases.append(_case("verdict", kind, f"{verdict['verdict']}: {verdict['reason']}"))
    count = {kind: sum(f"<{kind} " in case for case in cases) for kind in ("failure", "error", "skipped")}
    return "\n".join([
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuite name="canary {verdict["stage"]} %" tests="{len(cases)}" failures="{count["failure"]}" '
        f'errors="{count["error"]}" skipped="{count["skipped"]}" timestamp={quoteattr(verdict["ended"])}>',
        *cases, "</testsuite>", "",
    ])


def svg(verdict: dict[str, Any], trace: tuple[tuple[int, float, float], ...]) -> str:
    """Plot the evidence over time: e-values on a logarithmic scale, with what each needs."""
    step = max(1, math.ceil(len(trace) / _MOST_POINTS))
    points = trace[::step] + (trace[-1:] if (len(trace) - 1) % step else ())
    needed = [math.log10(verdict["bounds"][name]) for name in ("e_needed_rollback", "e_needed_promote")]
    logs = [log / math.log(10) for _time, *both in points for log in both]
    low, high = max(-6.0, min([*logs, -1.0])), min(12.0, max([*logs, *needed]) + 0.5)
    begin = points[0][0] if points else 0
    length = max((points[-1][0] - begin) if points else 1, 1)

    def x(time: float) -> float:
        return 60 + (time - begin) / length * (_WIDTH - 90)

    def y(log: float) -> float:
        return _HEIGHT - 40 - (min(max(log, low), high) - low) / (high - low) * (_HEIGHT - 80)

    title = f"Canary at {verdict['stage']} %: {verdict['verdict']}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="60" y="22" font-weight="bold">{escape(title)}</text>',
    ]
    for exponent in range(math.ceil(low), math.floor(high) + 1):
        parts.append(f'<line x1="60" x2="{_WIDTH - 30}" y1="{y(exponent):.1f}" y2="{y(exponent):.1f}" stroke="#d0d7de"/>')
        parts.append(f'<text x="52" y="{y(exponent) + 4:.1f}" text-anchor="end">1e{exponent}</text>')
    for index, (name, color) in enumerate((("rollback", "#cf222e"), ("promotion", "#1a7f37"))):
        height = y(needed[index])
        parts.append(f'<line x1="60" x2="{_WIDTH - 30}" y1="{height:.1f}" y2="{height:.1f}" stroke="{color}" stroke-dasharray="{4 + 3 * index} 4"/>')
        line = " ".join(f"{x(point[0]):.1f},{y(point[index + 1] / math.log(10)):.1f}" for point in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<text x="{_WIDTH - 250 + 110 * index}" y="22" fill="{color}">e for {name}</text>')
    for time in (begin, begin + length / 2, begin + length):
        parts.append(f'<text x="{x(time):.1f}" y="{_HEIGHT - 16}" text-anchor="middle">{_iso(int(time))[11:19] if points else ""}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _metric(settings: Settings, metric: Metric, finding: Finding, stage: Stage) -> dict[str, Any]:
    counts = finding.counts
    rates = rate(counts.k0, counts.n0), rate(counts.k1, counts.n1)
    low, high = interval(settings, metric, stage)
    return {
        "name": finding.name,
        "data_status": finding.data_status,
        "reason": finding.reason,
        "n0": counts.n0,
        "n1": counts.n1,
        "k0": counts.k0,
        "k1": counts.k1,
        "rate0": rates[0],
        "rate1": rates[1],
        "ratio": rates[1] / rates[0] if rates[0] and rates[1] is not None else None,
        "ci_low": low,
        "ci_high": high,
        "e_promote": _value(finding.log_promote),
        "e_rollback": _value(finding.log_rollback),
        "e_limit": None if finding.log_limit is None else _value(finding.log_limit),
        "p_always_valid": min(1.0, math.exp(-finding.log_rollback_max)),
        "phi": finding.phi,
        "engine": _engine(metric),
        "assumption": _assumption(metric),
        "margin": metric.ratio,
        "limit": metric.limit,
        "passed": finding.passed,
        "bins": finding.bins,
    }


def _engine(metric: Metric) -> str:
    if metric.ratio is None:
        return "limit"
    return "mean" if metric.kind == MEAN else "share" if metric.bursts == ALIKE else "capped"


def _assumption(metric: Metric) -> str:
    """Return what the bounds of a metric rest on."""
    largest = f"no more than {metric.largest:g} at once"
    if metric.kind == MEAN:
        return f"one request's value is {largest} (promotion only)"
    if metric.ratio is not None and metric.bursts == ALIKE:
        below = metric.floor is not None or metric.limit is not None
        return "bursts stay within a bin and are alike in both arms" + (f"; {largest} (limit and floor, promotion only)" if below else "")
    return f"bursts stay within a bin; {largest}" + (" (promotion only)" if metric.ratio is None else "")


def _expected(settings: Settings, judgement: Judgement) -> int | None:
    """Return how many seconds more promotion takes if the evidence goes on growing as it has; None if it does not."""
    if judgement.verdict != HOLD or not judgement.looks:
        return None
    gained = min(item.log_promote for item in judgement.findings)
    wanted = -math.log(SLACK * settings.alpha_promote) - gained
    return math.ceil(max(wanted, 0.0) / gained * judgement.looks) * settings.bin if gained > 0 else None


def _outcome(verdict: dict[str, Any], item: dict[str, Any]) -> tuple[str, str]:
    text = f"{item['data_status']}: {item['reason']}"
    if not item["reason"]:
        text = f"e for rollback {_short(item['e_rollback'])}, for promotion {_short(item['e_promote'])}"
    if verdict["verdict"] == ROLLBACK and verdict["reason"].startswith(f"{item['name']}: "):
        return "failure", verdict["reason"]
    if item["passed"] and item["data_status"] == OK:
        return "", ""
    return "skipped", text


def _case(name: str, kind: str, message: str) -> str:
    head = f'  <testcase classname="canary_gate" name={quoteattr(name)}'
    return f"{head}/>" if not kind else f"{head}><{kind} message={quoteattr(message)}/></testcase>"


def _value(log: float) -> float:
    return math.exp(max(-_LARGEST, min(log, _LARGEST)))


def _iso(time: int) -> str:
    return datetime.datetime.fromtimestamp(time, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
