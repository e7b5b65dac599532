# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The quickstart as a new user runs it: a fresh copy, an empty home, twice, and down again.

`SOPHIA_TREE` names the copy of the tracked files that is tried.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

PREFERENCES = ("fast", "quality", "code", "balanced")
RECAP = re.compile(r"localhost +: ok=\d+ +changed=(\d+) +unreachable=0 +failed=0 ")


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _number in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@dataclass
class Machine:
    """A fresh clone in a folder of its own, whose ports collide with nothing that runs here."""

    folder: Path
    home: Path
    port: int
    settings: dict[str, str]

    def make(self, target: str, **settings: str) -> subprocess.CompletedProcess[str]:
        arguments = " ".join(f"-e {name}={value}" for name, value in (self.settings | settings).items())
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "OPENROUTER_"))}
        done = subprocess.run(
            ["make", target, f"ARGS={arguments}"],
            cwd=self.folder,
            env=environment | {"HOME": str(self.home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(done.stdout)
        return done

    def processes(self) -> list[str]:
        """The command lines of everything that runs from the folder."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(self.folder) in command and int(entry.parent.name) != os.getpid():
                found.append(command)
        return found


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("clone") / "platform"
    shutil.copytree(os.environ["SOPHIA_TREE"], folder, ignore=shutil.ignore_patterns(".sophia", ".ansible", "output"))
    home = tmp_path_factory.mktemp("home")
    port, metrics, sandbox = free_ports(3)
    settings = {
        "quickstart_listen": f"127.0.0.1:{port}",
        "quickstart_metrics_listen": f"127.0.0.1:{metrics}",
        "quickstart_sandbox_port": str(sandbox),
    }
    made = Machine(folder, home, port, settings)
    yield made
    made.make("down")


@pytest.fixture(scope="module")
def first_run(machine: Machine) -> subprocess.CompletedProcess[str]:
    return machine.make("quickstart")


def test_a_taken_port_is_named_with_its_setting_before_anything_is_made(machine: Machine) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        number = squatter.getsockname()[1]
        done = machine.make("quickstart", quickstart_listen=f"127.0.0.1:{number}")
    assert done.returncode != 0
    assert f"127.0.0.1:{number} cannot be listened on" in done.stdout
    assert "quickstart_listen" in done.stdout
    assert not (machine.folder / ".sophia/gateway").exists()


def test_an_old_python_is_refused_with_the_way_out(machine: Machine, tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\n[ \"$1\" = --version ] && echo 'Python 3.9.2'\nexit 1\n")
    old.chmod(0o755)
    script = [machine.folder / "scripts/environment", tmp_path / "environment", machine.folder / "requirements/control.lock"]
    path = f"{tmp_path}:/usr/bin:/bin"
    done = subprocess.run(script, env={"PATH": path, "PYTHON": str(old)}, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr
    assert "PYTHON=" in done.stderr


def test_first_run_answers_every_preference(first_run: subprocess.CompletedProcess[str], machine: Machine) -> None:
    assert first_run.returncode == 0
    assert int(RECAP.search(first_run.stdout).group(1)) > 0
    shown = first_run.stdout[first_run.stdout.index("Show the answers") :]
    for preference in PREFERENCES:
        assert preference in shown
    assert "sophia chat" in shown
    assert "make down" in shown


def test_keys_are_for_their_owner_only(first_run: subprocess.CompletedProcess[str], machine: Machine) -> None:
    for name in ("key", "admin_key"):
        secret = machine.folder / ".sophia" / name
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        assert secret.read_text().strip() not in first_run.stdout


def test_gateway_is_ready(first_run: subprocess.CompletedProcess[str], machine: Machine) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{machine.port}/health/ready", timeout=5) as answer:
        assert answer.status == 200


def test_check_mode_foretells_no_change(first_run: subprocess.CompletedProcess[str], machine: Machine) -> None:
    done = subprocess.run(
        ["make", "quickstart", "ARGS=--check --diff " + " ".join(f"-e {name}={value}" for name, value in machine.settings.items())],
        cwd=machine.folder,
        env={"PATH": os.environ["PATH"], "HOME": str(machine.home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert int(RECAP.search(done.stdout).group(1)) == 0


def test_second_run_changes_nothing(first_run: subprocess.CompletedProcess[str], machine: Machine) -> None:
    done = machine.make("quickstart")
    assert done.returncode == 0
    assert int(RECAP.search(done.stdout).group(1)) == 0


def test_down_leaves_no_process(first_run: subprocess.CompletedProcess[str], machine: Machine) -> None:
    assert machine.processes()
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        done = machine.make("down")
        assert done.returncode == 0
        assert machine.processes() == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    again = machine.make("down")
    assert int(RECAP.search(again.stdout).group(1)) == 0
