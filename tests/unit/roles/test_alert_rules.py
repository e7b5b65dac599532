# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The monitoring role's alert rules, with its defaults, under promtool (`promtool test rules`, Prometheus' own evaluator)."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
from typing import Any

import jinja2
import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[3]
ROLE = ROOT / "roles/monitoring"
CASES = sorted((pathlib.Path(__file__).parent / "rules").glob("*.yml"))


def rendered() -> str:
    """The rules as the role writes them: the template's first line names its delimiters (ansible.builtin.template)."""
    header, body = (ROLE / "templates/rules.yml.j2").read_text(encoding="utf-8").split("\n", 1)
    start, end = re.findall(r"'([^']+)'", header)
    environment = jinja2.Environment(variable_start_string=start, variable_end_string=end, undefined=jinja2.StrictUndefined)
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
    return environment.from_string(body).render(defaults)


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(rendered())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian's package prometheus has it)")
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def rules(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "rules.yml"
    path.write_text(rendered(), encoding="utf-8")
    return path


def test_prometheus_accepts_the_rules(rules: pathlib.Path) -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(rules))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_rule(case: pathlib.Path, rules: pathlib.Path) -> None:
    copy = rules.parent / case.name
    shutil.copy(case, copy)
    done = promtool("test", "rules", str(copy))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    fires, silent = set(), set()
    for case in CASES:
        for test in yaml.safe_load(case.read_text(encoding="utf-8"))["tests"]:
            for moment in test.get("alert_rule_test", []):
                (fires if moment.get("exp_alerts") else silent).add(moment["alertname"])
    assert fires == silent == set(alerts())


def test_every_alert_has_a_runbook_in_the_docs() -> None:
    headings = re.findall(r"^## (\S+)$", (ROOT / "docs/alerts.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(alerts())
    for name, rule in alerts().items():
        assert rule["annotations"]["runbook_url"].endswith(f"/docs/alerts.md#{name.lower()}")


def test_alerts_read_metrics_that_are_documented() -> None:
    documented = (ROOT / "docs/metrics.md").read_text(encoding="utf-8") + (ROOT / "docs/alerts.md").read_text(encoding="utf-8")
    used = set(re.findall(r"\b(?:openrouter|sophia|kubelet)_[a-z_]+\b", rendered()))
    assert used
    for name in used:
        assert re.sub(r"_bucket$", "", name) in documented, name
