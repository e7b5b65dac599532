# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The installed artefact: what is in it, and its playbooks by name in an empty folder.

`ANSIBLE_COLLECTIONS_PATH` names where it is installed; `ansible-playbook` is on the path.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_quickstart import PREFERENCES, RECAP, free_ports

INSTALLED = Path(os.environ["ANSIBLE_COLLECTIONS_PATH"]) / "ansible_collections/sophia/platform"


def play(name: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["ansible-playbook", f"sophia.platform.{name}", *arguments],
        cwd=folder,
        env=os.environ | {"HOME": str(folder / "home"), "PWD": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout)
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "home").mkdir()
    yield tmp_path
    play("down", tmp_path)


def test_the_gateway_is_in_it_and_what_tests_leave_is_not() -> None:
    assert (INSTALLED / "gateway_src/src/sophia/cli.py").is_file()
    assert (INSTALLED / "gateway_src/requirements.lock").is_file()
    names = {path.name for path in INSTALLED.rglob("*")}
    assert not names & {"__pycache__", ".git", ".work", ".sophia", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
    assert not (INSTALLED / "gateway_src/tests").exists()


def test_preflight_lists_every_error_at_once(folder: Path) -> None:
    done = play("preflight", folder, "-e", '{"gateway_settings": {"workers": 2}}', "-e", f"gateway_home={folder}/a", "-e",
                "gateway_redis=", "-e", "preflight_models=false", "-e", f"gateway_service_root={folder}/b")
    assert done.returncode != 0
    for setting in ("gateway_openrouter_key", "gateway_redis", "gateway_database"):
        assert f"{setting} is not set" in done.stdout
    assert sorted(path.name for path in folder.iterdir() if path.name in "ab") == []


def test_quickstart_runs_from_it(folder: Path) -> None:
    port, metrics, sandbox = free_ports(3)
    settings = [
        "-e", f"quickstart_listen=127.0.0.1:{port}",
        "-e", f"quickstart_metrics_listen=127.0.0.1:{metrics}",
        "-e", f"quickstart_sandbox_port={sandbox}",
    ]
    done = play("quickstart", folder, *settings)
    assert done.returncode == 0
    assert RECAP.search(done.stdout)
    shown = done.stdout[done.stdout.index("Show the answers") :]
    for preference in PREFERENCES:
        assert preference in shown
    assert (folder / ".sophia/key").is_file()
