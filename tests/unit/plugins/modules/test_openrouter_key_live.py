# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rotations by real processes that are really killed, with gateways under traffic; and a search for secrets."""

from __future__ import annotations

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

MODULE = "ansible_collections.sophia.platform.plugins.modules.openrouter_key"
# The arguments come by standard input, as Ansible gives them with pipelining: nothing of them is on the command line.
RUNNER = f"""
import json, sys
from ansible.module_utils.testing import patch_module_args
from {MODULE} import main
with patch_module_args(json.load(sys.stdin)):
    main()
"""
ROTATIONS = 4
HASTE = {"quiet": 0, "soak": 0, "wait_sleep": 0.05, "wait_timeout": 20, "api_retries": 2}


class Commands(threading.Thread):
    """Reads the command line of every process, over and over."""

    def __init__(self):
        super().__init__(daemon=True)
        self.seen = set()
        self.ended = threading.Event()

    def run(self):
        while not self.ended.wait(0.05):
            for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes())
                except OSError:
                    continue

    def stop(self):
        self.ended.set()
        self.join()
        return b"\n".join(self.seen)


@pytest.fixture
def start(sandbox, tmp_path):
    """Start the module in a process of its own."""
    running = []

    def begin(urls, **args):
        given = {
            "name": "production", "state": "rotated", "slots": str(tmp_path), "gateways": urls, "api_url": sandbox.url,
            **HASTE, **args, "_ansible_diff": True, "_ansible_verbosity": 4, "_ansible_remote_tmp": "/tmp",
        }  # fmt: skip
        env = {**os.environ, "OPENROUTER_MANAGEMENT_KEY": sandbox.management_key, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(
            [sys.executable, "-c", RUNNER], env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        running.append(process)
        process.stdin.write(json.dumps(given))
        process.stdin.close()
        process.stdin = None
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def tally(url):
    with urllib.request.urlopen(url + "/tally", timeout=5) as answer:
        return json.load(answer)


def test_rotations_killed_at_random_fail_no_request_and_show_no_secret(sandbox, replica, start, tmp_path):
    chance = random.Random(20261124)
    urls = [replica(tmp_path, pause=0.005) for _number in range(2)]
    pages = [url + "/metrics" for url in urls]
    commands = Commands()
    commands.start()
    written = []
    secrets = {sandbox.management_key}
    kills = 0

    def finish(process):
        out, err = process.communicate(timeout=60)
        written.append(out + err)
        secrets.update(path.read_text(encoding="utf-8") for path in tmp_path.iterdir() if path.name in ("primary", "secondary", ".previous"))
        return process.returncode

    began = time.monotonic()
    assert finish(start(pages)) == 0, written
    whole = time.monotonic() - began
    for _rotation in range(ROTATIONS):
        (before,) = sandbox.keys()
        state = chance.choice(["rotated", "rotated", "rolled_back"])
        process = start(pages)
        # As parts of a whole run, so that a kill strikes on a quick machine as on a slow one.
        time.sleep(whole * chance.uniform(0.2, 1.0))
        process.send_signal(signal.SIGKILL)
        kills += finish(process) == -signal.SIGKILL
        live = [key for key in sandbox.keys() if not key["disabled"]]
        assert len(live) <= 2
        assert finish(start(pages, state=state, max_age=3600 if len(live) == 1 else 0)) in (0, 1), written[-1]
        assert finish(start(pages, max_age=3600)) == 0, written[-1]
        (after,) = sandbox.keys()
        assert not after["disabled"] and after["name"] == "production"
        assert state == "rolled_back" or after["hash"] != before["hash"] or len(live) == 1
    assert kills >= 1
    told = [tally(url) for url in urls]
    assert [report["troubles"] for report in told] == [[], []]
    assert all(set(report["tally"]) == {"200"} and report["tally"]["200"] > 100 for report in told)
    truth = sandbox.call("GET", "/_sandbox/truth?summary=1")
    assert truth["disabled_key_requests"] == 0
    assert len(secrets) > 1
    shown = "\n".join(written) + commands.stop().decode(errors="replace") + tmp_path.joinpath("journal.json").read_text(encoding="utf-8")
    assert not [secret for secret in secrets if secret in shown]
    assert "openrouter_key" in shown and sys.executable in shown
