# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""site.yml on the test bed, whole: it ends with an answer through the Gateway, changes nothing again, and shows a change before it is made."""

from __future__ import annotations

import json
import re

import pytest

from .platform import bed_status, playbook

IMAGES = ("sophia:local", "sophia-sandbox:local")


def site(*arguments: str) -> tuple[int, str]:
    return playbook("playbooks/site.yml", *arguments)


def changed(output: str) -> int:
    found = re.search(r"^testbed +: ok=\d+ +changed=(\d+) ", output, re.MULTILINE)
    assert found, output[-4000:]
    return int(found.group(1))


@pytest.fixture(scope="module", autouse=True)
def bed() -> None:
    status = bed_status()
    if not status["up"]:
        pytest.skip("no test bed is up (make cluster)")
    if missing := [name for name in IMAGES if name not in status["images"]]:
        pytest.fail(f"the bed's registry has no {', '.join(missing)}: python -m tests.testbed image --sandbox")


def test_the_platform_answers_through_the_gateway_over_tls() -> None:
    code, output = site()
    assert code == 0, output[-6000:]
    assert re.search(r"https://api\.\S+ at \S+: \S+ answered .+ for \$0\.\d+ in \d", " ".join(output.split()))


def test_the_second_run_changes_nothing() -> None:
    code, output = site()
    assert code == 0, output[-6000:]
    assert changed(output) == 0, "\n".join(re.findall(r"^(?:TASK .*|changed: .*)$", output, re.MULTILINE))


def test_a_changed_variable_is_shown_alone_before_it_is_made() -> None:
    code, output = site("--check", "--diff", "--extra-vars", json.dumps({"network_rate_limit": {"requests": 999, "unit": "Second"}}))
    assert code == 0, output[-6000:]
    shown = {line[0] + line[1:].strip() for line in output.splitlines() if re.match(r"[-+] *\S", line) and not line.startswith(("---", "+++"))}
    assert shown == {"-requests: 1000", "+requests: 999"}
    assert changed(output) == 1
    # It was only shown.
    code, output = site("--tags", "network")
    assert (code, changed(output)) == (0, 0), output[-4000:]
