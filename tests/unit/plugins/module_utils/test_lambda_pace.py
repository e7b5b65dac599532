# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pace that processes share, and what is sent to cloud-init."""

from __future__ import annotations

import concurrent.futures
import email
import json
import multiprocessing
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.pace import Pace, key_name
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.userdata import compose

PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2rRk1l me"
PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----"


def walk(folder, launches, queue):
    """Make requests and launches as a process of its own would; report when each was let through."""
    pace = Pace(folder, request_interval=0.02, launch_interval=0.1)
    for number in range(6):
        if launches and number % 2:
            pace.launch()
            queue.put(("launch", time.time()))
        else:
            pace.request()
            queue.put(("request", time.time()))


def paced(moments, interval):
    """Return whether the moments lie as far apart as they should; a late wake-up shortens a gap, not the whole."""
    ordered = sorted(moments)
    return ordered[-1] - ordered[0] >= (len(ordered) - 1) * interval - 0.05


def test_processes_share_one_pace(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=walk, args=(tmp_path, number < 2, queue)) for number in range(4)]
    for worker in workers:
        worker.start()
    seen = [queue.get(timeout=60) for _number in range(24)]
    for worker in workers:
        worker.join()
    launches = [moment for kind, moment in seen if kind == "launch"]
    assert len(launches) == 6 and paced(launches, 0.1)
    assert paced([moment for _kind, moment in seen], 0.02)


def test_taken_moments_never_meet(clock, tmp_path):
    pace = Pace(tmp_path, request_interval=1.0, launch_interval=12.0, wall=clock, sleep=clock.sleep)
    taken = []
    for launching in [False, True, False, True, True, False]:
        (pace.launch if launching else pace.request)()
        taken.append((clock(), launching))
    assert all(later - earlier >= 1.0 for (earlier, _kind), (later, _next) in zip(taken, taken[1:]))
    launches = [moment for moment, launching in taken if launching]
    assert all(later - earlier >= 12.0 for earlier, later in zip(launches, launches[1:]))


def test_a_hold_is_for_everybody(clock, tmp_path):
    one, other = (Pace(tmp_path, request_interval=1.0, launch_interval=12.0, wall=clock, sleep=clock.sleep) for _number in range(2))
    one.hold(30.0)
    other.request()
    assert clock.slept == [30.0]


def test_a_clock_set_back_stops_nobody_for_long(clock, tmp_path):
    pace = Pace(tmp_path, request_interval=1.0, launch_interval=12.0, wall=clock, sleep=clock.sleep)
    pace.request()
    clock.now -= 100_000.0
    pace.request()
    assert sum(clock.slept) <= 300.0


def test_a_damaged_file_is_begun_anew(clock, tmp_path):
    (tmp_path / "pace.json").write_text('{"request": 1e', encoding="utf-8")
    pace = Pace(tmp_path, request_interval=1.0, launch_interval=12.0, wall=clock, sleep=clock.sleep)
    pace.request()
    assert json.loads((tmp_path / "pace.json").read_text(encoding="utf-8"))["request"] == clock() + 1.0


def test_threads_share_it_too(tmp_path):
    pace = Pace(tmp_path, request_interval=0.01, launch_interval=0.0)
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _number: pace.request(), range(20)))
    assert time.monotonic() - started >= 0.15 and threading.active_count() >= 1


def test_the_name_of_a_key_tells_nothing_of_it():
    assert "secret" not in key_name("secret_a.b") and key_name("a") != key_name("b") and len(key_name("a")) == 16


def test_a_host_key_alone_is_a_cloud_config():
    text = compose(None, PRIVATE, PUBLIC)
    assert text.startswith("#cloud-config\n")
    keys = json.loads(text.split("ssh_keys: ")[1])
    assert keys == {"ed25519_private": PRIVATE + "\n", "ed25519_public": " ".join(PUBLIC.split()[:2])}


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r", exclude_categories=["Cs"])))
def test_both_arrive_as_they_were(rest):
    script = "#!/bin/sh\n" + rest
    whole = email.message_from_string(compose(script, PRIVATE, PUBLIC))
    kinds = [(part.get_content_type(), part.get_payload(decode=True).decode()) for part in whole.walk() if not part.is_multipart()]
    assert [kind for kind, _text in kinds] == ["text/cloud-config", "text/x-shellscript"]
    assert kinds[1][1] == script and "ed25519_private" in kinds[0][1]
    assert compose(script, PRIVATE, PUBLIC) == compose(script, PRIVATE, PUBLIC)


def test_what_cloud_init_would_not_take():
    assert compose("anything", None, None) == "anything"
    for bad in ("anything", "x" * 1_000_001):
        with pytest.raises(InvalidInput):
            compose(bad, PRIVATE, PUBLIC)
