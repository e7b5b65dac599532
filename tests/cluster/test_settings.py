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
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from .settings import CASES, Wrong, together

ROOT = pathlib.Path(__file__).resolve().parents[2]
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


def status() -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "tests.testbed", "status"], cwd=ROOT, capture_output=True, text=True, check=False)
    found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {"up": False}
    return found


class Cluster:
    def __init__(self, bed: dict[str, Any]) -> None:
        folder = pathlib.Path(bed["programs"] or "/usr/bin")
        program = folder / "kubectl" if (folder / "kubectl").exists() else pathlib.Path(shutil.which("kubectl") or "kubectl")
        self.command = [str(program), "--kubeconfig", bed["kubeconfig"], "--context", bed["context"]]

    def __call__(self, *arguments: str, body: Any = None) -> str:
        command = [*self.command, *arguments]
        return subprocess.run(command, input=json.dumps(body) if body else None, capture_output=True, text=True, check=True).stdout

    def versions(self) -> str:
        """Kind, name and generation or version of everything that could have been touched."""
        columns = "-o=custom-columns=K:.kind,N:.metadata.name,U:.metadata.uid,G:.metadata.generation"
        return self("get", LOOKED_AT, "-n", NAMESPACE, columns) + self("get", CLUSTER_WIDE, columns)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    bed = status()
    if not bed.get("up"):
        pytest.skip("no test bed is up (make cluster)")
    reached = Cluster(bed)
    reached("apply", "-f", "-", body={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    reached("apply", "-f", "-", body=DENIED)
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
        "settings_folder": str(folder),
        "settings_openrouter": openrouter,
        "preflight_report": f"{folder}/{{{{ inventory_hostname }}}}.json",
    }
    hosts = {"good": common} | {host: {**common, **merged(cases)} for host, cases in HOSTS.items()}
    inventory = {"all": {"children": {"platform": {"children": {"settings": {"hosts": hosts}}}}}}
    (folder / "hosts.yml").write_text(json.dumps(inventory), encoding="utf-8")
    playbook = pathlib.Path(sys.executable).parent / "ansible-playbook"
    command = [str(playbook), "-i", "inventories/local", "-i", str(folder / "hosts.yml"), "-e", "site_hosts=settings", "--tags", "preflight", "--forks", "3"]
    before = cluster.versions()
    done = subprocess.run([*command, "playbooks/site.yml"], cwd=collection(), env=environment(), capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    reports = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}
    assert reports, output[-4000:]
    return Seen(reports, output, before, cluster.versions())


def collection() -> pathlib.Path:
    """Where Ansible finds the collection by its name: this tree, or a link to it that the caller's environment names."""
    for folder in os.environ.get("ANSIBLE_COLLECTIONS_PATH", "").split(":"):
        if (found := pathlib.Path(folder, "ansible_collections/sophia/platform")).exists():
            return found
    return ROOT


def environment() -> dict[str, str]:
    return os.environ | {"ANSIBLE_PIPELINING": "true", "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml"}


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
