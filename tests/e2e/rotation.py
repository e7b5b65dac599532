# SPDX-License-Identifier: GPL-3.0-or-later
"""Key rotations, each killed on its way, under requests to three gateways: nobody may notice.

Three gateways serve 200 requests a second from the same slots, before the stand-in for OpenRouter. Every rotation is
killed with SIGKILL at a boundary between two phases (each in its turn) or, every eighth time, at a random moment, and then
gone on with, or sometimes rolled back and begun anew. In the end no request may have failed, none may have been sent with a
key that was disabled or gone, there must never have been more than two live keys, and no byte of a key may be found in any
output, log or command line. Every fifth run is the playbook, the others are the module as the playbook calls it.

    python -m tests.e2e.rotation --runs 100 --seed 1

`ansible-playbook` is looked for on the path, and has to find the collection.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.e2e.bed import Bed
from tests.e2e.load import Steady

__all__ = ["Report", "run"]

GATEWAYS = 3
RATE = 200.0
OPEN = 300
PLAYBOOK_EVERY = 5
RANDOM_EVERY = 8
HASTE = {"quiet": 1, "soak": 1, "wait_sleep": 0.2, "wait_timeout": 60}
_KEY = re.compile(rb"sk-or-v1-[0-9a-f]{64}")
_INVENTORY = Path(__file__).parents[2] / "inventories" / "local"
_MODULE = "ansible_collections.sophia.platform.plugins.modules.openrouter_key"
# The arguments come by standard input, as Ansible gives them with pipelining: nothing of them is on the command line.
_RUNNER = f"""
import json, sys
from ansible.module_utils.testing import patch_module_args
from {_MODULE} import main
with patch_module_args(json.load(sys.stdin)):
    main()
"""


@dataclass
class Report:
    """What came of it."""

    rotations: int = 0
    rolled_back: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    rate: float = 0.0
    most_live: int = 0
    searched: int = 0
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Slots:
    """The slots on the disk and the journal beside them, as far as a watcher needs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def text(self, name: str) -> str:
        with suppress(OSError):
            return (self.folder / name).read_text()
        return ""

    def active(self) -> dict[str, Any]:
        with suppress(ValueError):
            return json.loads(self.text("openrouter_journal.json") or "{}").get("active") or {}
        return {}

    def secrets(self) -> set[str]:
        names = ("openrouter_primary", "openrouter_secondary", ".openrouter_previous")
        return {text for name in names if (text := self.text(name).strip())}


def boundaries(slots: Slots) -> dict[str, Callable[[], bool]]:
    """The moment after each step of a rotation that has not begun yet, by what can be seen of it."""
    old = slots.text("openrouter_primary")

    def promoted() -> bool:
        return slots.text("openrouter_primary") != old

    return {
        "begun": lambda: bool(slots.active()),
        "created": lambda: slots.active().get("new") is not None,
        "distributed": lambda: slots.text("openrouter_secondary") not in ("", old),
        "verified": lambda: bool(slots.active().get("verified")),
        "promoted": promoted,
        "draining": lambda: promoted() and slots.text("openrouter_secondary") == old,
        "drained": lambda: promoted() and slots.active().get("quiet_since") is not None,
        "taken out": lambda: promoted() and slots.text("openrouter_secondary") == "",
        "disabled": lambda: slots.active().get("disabled_at") is not None,
    }


class Requests:
    """To every gateway in turn, one in four of them a stream, each counted by how it ended."""

    def __init__(self, targets: list[tuple[Bed, str]], report: Report) -> None:
        self._targets = targets
        self._report = report

    async def ask(self, session: aiohttp.ClientSession, number: int) -> None:
        bed, key = self._targets[number % len(self._targets)]
        body = {
            "model": "openai/gpt-4o-mini",
            "stream": number % 4 == 0,
            "max_tokens": 5,
            "messages": [{"role": "user", "content": f"Say {number}."}],
        }
        url, headers = f"{bed.url}/v1/chat/completions", {"authorization": f"Bearer {key}"}
        try:
            async with session.post(url, json=body, headers=headers) as answer:
                text = await answer.text()
                whole = answer.status != 200 or not body["stream"] or "data: [DONE]" in text
                self._report.answers[str(answer.status) if whole else "stream without an end"] += 1
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._report.answers[type(error).__name__] += 1


class Watch:
    """Looks, over and over, at the live keys of the account and at the command line of every process."""

    def __init__(self, bed: Bed, report: Report) -> None:
        self._bed = bed
        self._report = report
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.commands: set[bytes] = set()

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            with suppress(OSError):
                self._report.most_live = max(self._report.most_live, len(live(self._bed)))
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    self.commands.add(path.read_bytes())


def live(bed: Bed) -> list[dict[str, Any]]:
    """The keys for inference that OpenRouter lets in."""
    keys: list[dict[str, Any]] = bed.call("GET", f"{bed.sandbox_url}/api/v1/keys", key=bed.management_key)["data"]
    return [key for key in keys if not key["disabled"]]


class Procedure:
    """Runs a rotation as a process that can be killed, and keeps what it writes."""

    def __init__(self, bed: Bed, slots: Slots, pages: list[str], name: str) -> None:
        self._bed, self._slots, self._pages, self._name = bed, slots, pages, name
        self.outputs: list[str] = []

    def start(self, *, playbook: bool, state: str = "rotated", max_age: int = 0) -> subprocess.Popen[str]:
        common = {"slots": str(self._slots.folder), "slot_prefix": "openrouter_", "gateways": self._pages}
        given = {"name": self._name, "state": state, "max_age": max_age, "api_url": f"{self._bed.sandbox_url}/api/v1"}
        given |= common | HASTE
        if playbook:
            return self._play({f"key_rotation_{name}": value for name, value in given.items()})
        arguments = given | {
            "_ansible_diff": True,
            "_ansible_verbosity": 4,
            "_ansible_remote_tmp": tempfile.gettempdir(),
        }
        process = self._process([_interpreter(), "-c", _RUNNER], stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(json.dumps(arguments))
        process.stdin.close()
        process.stdin = None
        return process

    def _play(self, variables: dict[str, Any]) -> subprocess.Popen[str]:
        path = self._bed.folder / "variables.json"
        path.write_text(json.dumps(variables))
        command = ["ansible-playbook", "-vvv", "--diff", "-i", str(_INVENTORY), "-e", f"@{path}"]
        return self._process([*command, "sophia.platform.rotate_keys"], stdin=subprocess.DEVNULL)

    def _process(self, command: list[str], stdin: int) -> subprocess.Popen[str]:
        environment = os.environ | {
            "OPENROUTER_MANAGEMENT_KEY": self._bed.management_key,
            "PYTHONPATH": os.environ.get("ANSIBLE_COLLECTIONS_PATH", "").split(os.pathsep)[0],
            "ANSIBLE_PIPELINING": "true",
        }
        output = (self._bed.folder / "output").open("w")
        with output:
            return subprocess.Popen(
                command, env=environment, text=True, stdin=stdin, stdout=output, stderr=output, start_new_session=True
            )

    def end(self, process: subprocess.Popen[str], *, kill: bool = False) -> int:
        """Wait for the process, or kill all of it; its exit status, its output kept."""
        if kill:
            for pid in _family(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        status = process.wait(timeout=300)
        self.outputs.append((self._bed.folder / "output").read_text())
        return status


def _family(pid: int) -> list[int]:
    """A process and all its descendants: what Ansible runs for a task is in a session of its own."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(path.parent.name))
    found = [pid]
    for each in found:
        found += parents.get(each, [])
    return found


def _interpreter() -> str:
    """The Python that `ansible-playbook` runs with."""
    found = shutil.which("ansible-playbook")
    if found is None:
        raise SystemExit("ansible-playbook is not on the path")
    return Path(found).read_text(errors="replace").splitlines()[0].removeprefix("#!").strip()


def _bed_of(folder: Path, slots: Path, first: Bed | None) -> Bed:
    folder.mkdir()
    keys = {name: str(slots / f"openrouter_{name}") for name in ("primary", "secondary")}
    upstream: dict[str, Any] = {"key_files": keys}
    if first is not None:
        upstream["base_url"] = f"{first.sandbox_url}/api/v1"
    bed = Bed(folder, upstream=upstream, cache={"enabled": False}, log_level="info")
    if first is not None:
        (folder / "management.key").write_text(first.management_key)
    return bed


def run(folder: Path, runs: int, seed: int, *, playbook_every: int = PLAYBOOK_EVERY, progress: bool = False) -> Report:
    """Do it."""
    luck = random.Random(seed)
    report = Report()
    started = time.monotonic()
    slots = Slots(folder / "slots")
    slots.folder.mkdir(mode=0o700)
    beds: list[Bed] = []
    try:
        for number in range(GATEWAYS):
            beds.append(_bed_of(folder / f"gateway-{number}", slots.folder, beds[0] if beds else None))
        first = beds[0]
        primary = slots.folder / "openrouter_primary"
        primary.touch(mode=0o600)
        primary.write_text(first.upstream_key)
        first.start_sandbox("--latency-scale", "0.02", "--generation-delay", "0.1")
        for bed in beds:
            bed.start_gateway()
        targets = [(bed, bed.tenant("rotation")) for bed in beds]
        pages = [f"http://127.0.0.1:{bed.metrics_port}/metrics" for bed in beds]
        procedure = Procedure(first, slots, pages, live(first)[0]["name"])
        secrets = {bed.management_key for bed in beds} | slots.secrets()
        with Watch(first, report) as watch:
            with Steady(Requests(targets, report).ask, RATE, OPEN) as load:
                for number in range(runs):
                    playbook = (number + 1) % playbook_every == 0
                    _rotate(number, procedure, slots, luck, report, secrets, playbook=playbook)
                    if progress and (number + 1) % 10 == 0:
                        print(f"{number + 1}/{runs}: {dict(report.kills)}, {dict(report.answers)}", flush=True)
            report.rate = load.reached
            _judge(first, report)
        _search(folder, slots, secrets, procedure.outputs, watch.commands, report)
    finally:
        for bed in beds:
            bed.close()
    report.seconds = time.monotonic() - started
    return report


def _rotate(
    number: int,
    procedure: Procedure,
    slots: Slots,
    luck: random.Random,
    report: Report,
    secrets: set[str],
    *,
    playbook: bool,
) -> None:
    before = slots.text("openrouter_primary")
    moments = boundaries(slots)
    moment = list(moments)[number % len(moments)]
    process = procedure.start(playbook=playbook)
    if number % RANDOM_EVERY == RANDOM_EVERY - 1:
        moment = "random"
        time.sleep(luck.uniform(0.2, 6.0 if playbook else 4.0))
    else:
        while process.poll() is None and not moments[moment]():
            time.sleep(0.001)
    killed = procedure.end(process, kill=True) == -signal.SIGKILL
    report.kills[moment if killed else f"{moment}, too late"] += 1
    secrets |= slots.secrets()
    under_way = bool(slots.active())
    if under_way and luck.random() < 0.2:
        status = procedure.end(procedure.start(playbook=playbook, state="rolled_back"))
        # Where the old key is gone already there is no way back, and the next run goes on.
        report.rolled_back += status == 0
        secrets |= slots.secrets()
    age = 3600 if slots.text("openrouter_primary") != before and not slots.active() else 0
    if procedure.end(procedure.start(playbook=playbook, max_age=age)) != 0:
        report.problems.append(f"rotation {number + 1} did not come to its end: {procedure.outputs[-1][-2000:]}")
    secrets |= slots.secrets()
    if slots.text("openrouter_primary") == before or slots.active():
        report.problems.append(f"rotation {number + 1} left the old key in place")
    else:
        report.rotations += 1


def _judge(bed: Bed, report: Report) -> None:
    failed = {what: count for what, count in report.answers.items() if what != "200"}
    if failed:
        report.problems.append(f"failed requests: {failed}")
    truth = bed.truth(summary=True)
    if truth["disabled_key_requests"] or truth["requests"]["rejected"]:
        report.problems.append(f"requests that OpenRouter refused: {truth['requests']}")
    if report.most_live > 2:
        report.problems.append(f"{report.most_live} live keys at once")
    if len(live(bed)) != 1:
        report.problems.append(f"{len(live(bed))} live keys are left")


def _search(
    folder: Path, slots: Slots, secrets: set[str], outputs: list[str], commands: set[bytes], report: Report
) -> None:
    places = {f"output {number}": text.encode() for number, text in enumerate(outputs)}
    places["command lines"] = b"\n".join(commands)
    kept = {f"{name}.key" for name in ("primary", "management")} | {"openrouter_primary"}
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in kept:
            places[str(path)] = path.read_bytes()
    report.searched = len(places)
    for place, content in places.items():
        if secrets & {found.decode() for found in _KEY.findall(content)}:
            report.problems.append(f"a key is in {place}")
    if not any("rotation" in text for text in outputs) or not all(_KEY.fullmatch(each.encode()) for each in secrets):
        report.problems.append("the search could not have found anything")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = run(Path(folder), given.runs, given.seed, progress=True)
    print(
        f"rotations  {report.rotations} of {given.runs}, {report.rolled_back} more rolled back, in {report.seconds:.0f} s"
    )
    print(f"kills      {dict(report.kills)}")
    print(f"answers    {dict(report.answers)}, {report.rate:.0f} requests a second")
    print(f"live keys  at most {report.most_live} at once")
    print(f"searched   {report.searched} outputs, files and command lines for keys")
    for problem in report.problems[:20]:
        print(f"PROBLEM    {problem}")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
