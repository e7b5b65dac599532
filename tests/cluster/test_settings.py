# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every wrong setting of the table is named by preflight in one line, and nothing is applied.

Cases are hosts of one inventory, so that one run of the playbook judges them all against the same real cluster. Those that do not get in each other's way
share a host: every one of them has to be named at once.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from .platform import ROOT, Cluster, bed_status, playbook
from .settings import CASES, Wrong, together

NAMESPACE = "sophia-settings"
DENIED = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "default-deny", "namespace": NAMESPACE},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
}
# What preflight might have made if it did more than look.
LOOKED_AT = "deployments,statefulsets,services,configmaps,secrets,networkpolicies,serviceaccounts,roles,rolebindings,persistentvolumeclaims"
CLUSTER_WIDE = "namespaces,storageclasses,clusterroles,clusterrolebindings,validatingadmissionpolicies,priorityclasses"
MODELS = {"models": {"nobody/no-model": {}}}
HOSTS = together(CASES)


def merged(cases: list[Wrong]) -> dict[str, Any]:
    return {name: value for case in cases for name, value in case.variables.items()}


@dataclass
class Seen:
    """What came of one run: reports by case, the playbook's output, and the cluster before and after."""

    reports: dict[str, dict[str, list[str]]]
    output: str
    before: str
    after: str


def versions(cluster: Cluster) -> str:
    """Kind, name and generation or version of everything that could have been touched."""
    columns = "-o=custom-columns=K:.kind,N:.metadata.name,U:.metadata.uid,G:.metadata.generation"
    return cluster("get", LOOKED_AT, columns) + cluster("get", CLUSTER_WIDE, columns)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if not bed_status()["up"]:
        pytest.skip("no test bed is up (make cluster)")
    reached = Cluster.of({"SOPHIA_NAMESPACE": NAMESPACE})
    for item in ({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, DENIED):
        reached("apply", "--filename=-", stdin=json.dumps(item))
    yield reached
    reached("delete", "namespace", NAMESPACE, "--timeout=120s")


@pytest.fixture(scope="module")
def openrouter() -> Iterator[str]:
    """The stand-in for OpenRouter, whose list of models is compared with."""
    program = shutil.which("sophia")
    command = [program, "sandbox", "openrouter"] if program else [sys.executable, "-m", "sophia.sandbox.openrouter"]
    environment = os.environ | ({} if program else {"PYTHONPATH": str(ROOT / "gateway_src/src")})
    process = subprocess.Popen([*command, "--port", "0"], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("listening on "), f"the stand-in did not start: {line!r}"
    yield f"{line.split()[-1]}/api/v1"
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture(scope="module")
def seen(cluster: Cluster, openrouter: str, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("settings")
    (folder / "models.yml").write_text(json.dumps(MODELS), encoding="utf-8")
    # Variables of hosts, which go over those of the inventory's group_vars.
    common = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "sophia_namespace": NAMESPACE,
        # Not that of a platform which runs here: a field that cannot be changed would hide what else is wrong.
        "sophia_monitoring_namespace": NAMESPACE,
        "settings_folder": str(folder),
        "settings_openrouter": openrouter,
        "preflight_report": f"{folder}/{{{{ inventory_hostname }}}}.json",
    }
    hosts = {"good": common} | {host: {**common, **merged(cases)} for host, cases in HOSTS.items()}
    inventory = {"all": {"children": {"platform": {"children": {"settings": {"hosts": hosts}}}}}}
    (folder / "hosts.yml").write_text(json.dumps(inventory), encoding="utf-8")
    before = versions(cluster)
    arguments = ["-i", str(folder / "hosts.yml"), "-e", "site_hosts=settings", "--tags", "preflight", "--forks", "3"]
    _, output = playbook(*arguments, "playbooks/site.yml")
    reports = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}
    assert reports, output[-4000:]
    return Seen(reports, output, before, versions(cluster))


def test_good_settings_pass(seen: Seen) -> None:
    assert seen.reports["good"]["errors"] == []


@pytest.mark.parametrize(("host", "case"), [(host, case) for host, cases in HOSTS.items() for case in cases], ids=lambda value: getattr(value, "name", ""))
def test_wrong_setting_is_named_in_one_line(host: str, case: Wrong, seen: Seen) -> None:
    lines = seen.reports[host]["errors"]
    assert [line for line in lines if case.line in line], lines
    assert all("\n" not in line and len(line) < 400 for line in lines)


def test_the_table_has_thirty_cases() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 30


def test_nothing_is_applied(seen: Seen) -> None:
    assert re.findall(r"^(\S+) +: ok=\d+ +changed=([1-9]\d*)", seen.output, re.MULTILINE) == []
    assert seen.after == seen.before


def test_every_wrong_host_stops_and_none_goes_on(seen: Seen) -> None:
    recap = dict(re.findall(r"^(\S+) +: ok=\d+ .*failed=(\d+)", seen.output, re.MULTILINE))
    assert recap == {**dict.fromkeys(HOSTS, "1"), "good": "0"}
