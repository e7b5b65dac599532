# SPDX-License-Identifier: GPL-3.0-or-later
"""Progressive rollouts on a host, of a good version and of bad ones, by the playbook, under requests.

Two gateways with one Postgres and one Redis stand behind a real HAProxy; a real Prometheus scrapes both. The canary's
gateway has a stand-in for OpenRouter of its own, which fails, dawdles or charges more as the case says. A good version
has to reach everybody and become the stable one, a bad one has to be rolled back by itself, a run that is killed in the
middle has to be gone on with, and no request may fail by the shifting itself.

    python -m tests.e2e.rollout                 every case
    python -m tests.e2e.rollout --case errors

`haproxy`, `prometheus` and `ansible-playbook` are looked for on the path.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from gateway_src.tests import servers
from tests.e2e.bed import Bed, free_port
from tests.e2e.load import Steady

__all__ = ["CASES", "Report", "run"]

RATE = 60.0
STAGES = [20, 50, 100]
_ROOT = Path(__file__).parents[2]


def _fault(probability: float, **fault: Any) -> dict[str, Any]:
    return {"match": {"path": "/chat/completions", "probability": probability}, "fault": fault}


@dataclass(frozen=True)
class Case:
    """What is rolled out, and what has to become of it. `faults` are those of the canary's OpenRouter.

    A `dear` version takes better models than it was asked for; a case with `kill` is killed on its way and gone on with.
    """

    good: bool
    faults: tuple[dict[str, Any], ...] = ()
    dear: bool = False
    kill: bool = False


CASES = {
    "good": Case(good=True, kill=True),
    "errors": Case(good=False, faults=(_fault(0.3, kind="status", status=500),)),
    "slow": Case(good=False, faults=(_fault(1.0, kind="slow_headers", seconds=1.2),)),
    "dear": Case(good=False, dear=True),
}
# Stricter and shorter than what is good for a day's rollout, so that a case takes a minute.
_VARIABLES = {
    "progressive_rollout_stages": STAGES,
    "progressive_rollout_error_limit": 0.1,
    "progressive_rollout_slow_seconds": 1,
    "progressive_rollout_slow_limit": 0.2,
    "progressive_rollout_cost_limit": 0.00002,
    "progressive_rollout_cost_largest": 0.0002,
    "progressive_rollout_gate": {
        "bin": 2, "poll": 1, "lag": 1, "warm_up": 2, "min_bins": 5, "min_requests": 30, "max_duration": 240,
        "no_data_grace": 30, "stale_after": 15,
    },
}  # fmt: skip


@dataclass
class Report:
    """What came of a case. `answers` are by status."""

    outcome: str = ""
    runs: int = 0
    seconds: float = 0.0
    stages: list[int] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    output: str = ""


class Requests:
    """To the balancer, each counted by its status."""

    def __init__(self, url: str, key: str, report: Report) -> None:
        self._url, self._key, self._report = url, key, report

    async def ask(self, session: aiohttp.ClientSession, number: int) -> None:
        body = {"model": "auto:fast", "max_tokens": 8, "messages": [{"role": "user", "content": f"Say {number}."}]}
        headers = {"authorization": f"Bearer {self._key}"}
        try:
            async with session.post(f"{self._url}/v1/chat/completions", json=body, headers=headers) as answer:
                content = await answer.json()
                code = content["error"]["code"] if answer.status != 200 else ""
                self._report.answers[f"{answer.status} {code}".strip()] += 1
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            self._report.answers[f"lost: {type(error).__name__}"] += 1


@dataclass
class Stage:
    """What a rollout is tried on."""

    folder: Path
    stable: Bed
    canary: Bed
    port: int
    prometheus: int
    key: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def state(self) -> dict[str, Any]:
        """Where the rollout stands, as the role has written it."""
        with suppress(OSError, ValueError):
            return dict(json.loads((self.folder / "balancer" / "rollout.json").read_text()))
        return {}


@contextmanager
def stage_of(folder: Path, case: Case) -> Iterator[Stage]:
    """Start everything; end it all."""
    with servers.postgres() as postgres, servers.redis() as redis:
        stores = {"database": f"postgresql://postgres@/postgres?host={postgres}", "redis": f"unix://{redis}"}
        common: dict[str, Any] = {
            "stores": stores,
            "cache": {"enabled": False},
            "dispatch": {"attempts": 1, "breaker_failures": 10_000},
        }
        beds = []
        for name in ("stable", "canary"):
            (folder / name).mkdir()
            beds.append(
                Bed(
                    folder / name, **common, **({"models_file": "models.yml"} if name == "canary" and case.dear else {})
                )
            )
        stable, canary = beds
        for name in ("admin", "primary", "management"):
            (canary.folder / f"{name}.key").write_text((stable.folder / f"{name}.key").read_text())
        canary.admin_key, canary.management_key = stable.admin_key, stable.management_key
        if case.dear:
            shipped = (_ROOT / "gateway_src/src/sophia/gateway/data/models.yml").read_text()
            changed = shipped.replace(
                "fast: {choose: latency, floor: 0.45, rise: 0.30}",
                "fast: {choose: quality, ceiling: {prompt: 6, completion: 30}}",
            )
            assert changed != shipped
            (canary.folder / "models.yml").write_text(changed)
        stage = Stage(folder, stable, canary, free_port(), free_port())
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for bed in beds:
                bed.start_sandbox("--latency-scale", "0.02", "--generation-delay", "0.1")
                bed.start_gateway()
            processes.append(_balancer(stage))
            processes.append(_prometheus(stage))
            stage.key = stable.tenant("rollout")
            canary.faults(list(case.faults))
            yield stage
        finally:
            for process in processes:
                process.terminate()
                process.wait()
            for bed in beds:
                bed.close()


def _start(folder: Path, name: str, command: list[str]) -> subprocess.Popen[bytes]:
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _balancer(stage: Stage) -> subprocess.Popen[bytes]:
    home = stage.folder / "balancer"
    home.mkdir()
    (home / "haproxy.cfg").write_text(
        f"""global
    stats socket {home}/admin.sock mode 600 level admin
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    retry-on conn-failure
    option redispatch
frontend api
    bind 127.0.0.1:{stage.port}
    default_backend gateways
backend gateways
    balance roundrobin
    option httpchk GET /health/ready
    default-server check inter 2s fall 3
    server stable 127.0.0.1:{stage.stable.port} weight 100
    server canary 127.0.0.1:{stage.canary.port} weight 0
"""
    )
    return _start(stage.folder, "haproxy", [_program("haproxy"), "-db", "-f", str(home / "haproxy.cfg")])


def _prometheus(stage: Stage) -> subprocess.Popen[bytes]:
    jobs = [
        {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{bed.metrics_port}"]}]}
        for name, bed in (("gateway", stage.stable), ("gateway-canary", stage.canary))
    ]
    configuration = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs}
    (stage.folder / "prometheus.yml").write_text(json.dumps(configuration))
    command = [
        _program("prometheus"),
        f"--config.file={stage.folder}/prometheus.yml",
        f"--storage.tsdb.path={stage.folder}/tsdb",
        f"--web.listen-address=127.0.0.1:{stage.prometheus}",
    ]
    process = _start(stage.folder, "prometheus", command)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{stage.prometheus}/-/ready", timeout=2):
            return process
        time.sleep(0.2)
    process.kill()
    raise RuntimeError("prometheus does not get ready")


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
    if found is None:
        raise SystemExit(f"{name} is not installed")
    return found


def _play(stage: Stage, name: str, **more: Any) -> subprocess.Popen[bytes]:
    variables = {
        **_VARIABLES,
        "progressive_rollout_version": "two",
        "progressive_rollout_home": str(stage.folder / "balancer"),
        "progressive_rollout_prometheus": f"http://127.0.0.1:{stage.prometheus}",
        **more,
    }
    path = stage.folder / "variables.json"
    path.write_text(json.dumps(variables))
    inventory = str(_ROOT / "inventories" / "local")
    return _start(
        stage.folder,
        "playbook",
        [_program("ansible-playbook"), "-i", inventory, "-e", f"@{path}", f"sophia.platform.{name}"],
    )


def run(folder: Path, name: str) -> Report:
    """Do one case."""
    case = CASES[name]
    report = Report()
    started = time.monotonic()
    with stage_of(folder, case) as stage:
        with Steady(Requests(stage.url, stage.key, report).ask, RATE):
            time.sleep(3)
            if case.kill:
                _kill(stage, report)
            process = _play(stage, "rollout", progressive_rollout_take_over=True)
            process.wait(timeout=900)
            report.runs += 1
            if case.good:
                _promote(stage, report)
            time.sleep(2)
        state = stage.state()
        report.outcome, report.stages = state.get("phase", "none"), state.get("passed", [])
        _judge(case, stage, report, state)
    report.output = (folder / "playbook.log").read_text(errors="replace")
    report.seconds = time.monotonic() - started
    return report


def _kill(stage: Stage, report: Report) -> None:
    """Begin, and die once the second stage has begun."""
    process = _play(stage, "rollout")
    while process.poll() is None and stage.state().get("percent") != STAGES[1]:
        time.sleep(0.05)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    report.runs += 1


def _promote(stage: Stage, report: Report) -> None:
    """The stable gateway becomes the new version; the rollout is brought to its end, and once more to see that it is."""
    if stage.state().get("phase") != "promote":
        return
    stage.stable.stop_gateway()
    stage.stable.start_gateway()
    for _ in range(2):
        _play(stage, "rollout", progressive_rollout_promoted=True, progressive_rollout_take_over=True).wait(timeout=300)
        report.runs += 1


def _judge(case: Case, stage: Stage, report: Report, state: dict[str, Any]) -> None:
    wanted = "done" if case.good else "rolled_back"
    if report.outcome != wanted:
        report.problems.append(f"the outcome is {report.outcome}, not {wanted}: {state.get('reason', '')}")
    if case.good and report.stages != STAGES:
        report.problems.append(f"passed {report.stages}")
    weights = (stage.folder / "balancer" / "servers.state").read_text()
    if " canary " not in weights:
        report.problems.append("the balancer's state was not kept")
    lost = {what: count for what, count in report.answers.items() if what.startswith(("lost", "503 "))}
    if lost:
        report.problems.append(f"failed by the shifting: {lost}")
    total = sum(report.answers.values())
    bad = total - report.answers["200"]
    if (case.good and bad) or bad > total * 0.3 * STAGES[0] / 100 + 60:
        report.problems.append(f"{bad} of {total} requests failed")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=sorted(CASES), action="append")
    given = parser.parse_args()
    failed = False
    for name in given.case or CASES:
        with tempfile.TemporaryDirectory() as folder:
            report = run(Path(folder), name)
        print(
            f"{name:<8} {report.outcome:<12} stages {report.stages}, {report.runs} runs, {report.seconds:.0f} s, {dict(report.answers)}"
        )
        for problem in report.problems:
            print(f"PROBLEM  {problem}")
        if report.problems:
            print(report.output[-6000:])
        failed |= bool(report.problems)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
