# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""canary_gate as a module, against a server that speaks Prometheus' query API and, where it is installed, the real Prometheus."""

from __future__ import annotations

import http.server
import importlib.util
import json
import math
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from xml.etree import ElementTree

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.sophia.platform.plugins.modules import canary_gate

TARGET = pathlib.Path(__file__).resolve().parents[3] / "integration/targets/canary_gate/files/prometheus.py"
spec = importlib.util.spec_from_file_location("canary_stand_in", TARGET)
stand_in = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = stand_in
spec.loader.exec_module(stand_in)

SECRET = "tok-5e1c8b0a97d24c3f"
START = 1_700_000_010 // 15 * 15
PROMETHEUS = os.environ.get("PROMETHEUS") or shutil.which("prometheus")
PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")

ERRORS = {"name": "errors", "kind": "counter_ratio", "bad": 'requests_total{status="500"}', "total": "requests_total"}
SLOW = {"name": "slow", "kind": "histogram_slow", "histogram": "duration_seconds", "threshold": 2}
COST = {"name": "cost", "kind": "mean", "sum": "cost_dollars_total", "count": "duration_seconds_count", "ratio": 1.5, "largest": 0.2}


def call(capsys, **args):
    """Run the module; return its result. Options that a test does not name make one quick look at history."""
    defaults = {
        "baseline": 'version="v1"', "canary": 'version="v2"', "stage": 20, "stages": [20], "metrics": [ERRORS], "start": START, "wait": False,
        "sum_series": True, "max_duration": 3600, "api_retries": 0, "lag": 0, "fail_on": [],
    }
    with patch_module_args({**defaults, **args}), pytest.raises(SystemExit):
        canary_gate.main()
    out = capsys.readouterr().out
    assert SECRET not in out
    return json.loads(out)


def series(name, values, version="v2", phase=0.0, **labels):
    """Return a counter scraped every 15 s, five minutes before START first; None is a scrape that is missing."""
    samples = [(START - 300 + 15 * index + phase, float(value)) for index, value in enumerate(values) if value is not None]
    return stand_in.Counter({"__name__": name, "version": version, "instance": version, **labels}, samples)


def traffic(version, requests, errors, slow=0.0, cost=0.02, scrapes=262):
    """Return the series of one arm with steady rates (per scrape)."""
    return [
        series("requests_total", [math.floor(requests * i) for i in range(scrapes)], version, status="200"),
        series("requests_total", [math.floor(errors * i + 0.5) for i in range(scrapes)], version, status="500"),
        series("duration_seconds_count", [math.floor(requests * i) for i in range(scrapes)], version),
        series("duration_seconds_bucket", [math.floor((requests - slow) * i) for i in range(scrapes)], version, le="2.0"),
        series("duration_seconds_bucket", [math.floor(requests * i) for i in range(scrapes)], version, le="+Inf"),
        series("cost_dollars_total", [requests * cost * i for i in range(scrapes)], version),
    ]


@pytest.fixture
def world():
    return stand_in.World([], lambda: START + 3600.0)


@pytest.fixture
def url(world):
    server = stand_in.serve(lambda _name: world)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def load(folder, series_list, configuration="scrape_configs: []"):
    """Make a real Prometheus' database of the series and start it; return the process and its URL."""
    lines = []
    for counter in series_list:
        labels = ",".join(f'{key}="{value}"' for key, value in counter.labels.items() if key != "__name__")
        lines += [f"{counter.labels['__name__']}{{{labels}}} {stand_in.text(value)} {at:.3f}" for at, value in counter.samples]
    text = folder / "history.om"
    text.write_text("\n".join([*lines, "# EOF"]) + "\n")
    if series_list:
        subprocess.run([PROMTOOL, "tsdb", "create-blocks-from", "openmetrics", text, folder / "data"], check=True, capture_output=True)
    config = folder / "prometheus.yml"
    config.write_text(configuration + "\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [PROMETHEUS, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
         "--storage.tsdb.retention.time=100y", "--log.level=error"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    for _try in range(300):
        try:
            urllib.request.urlopen(f"{url}/-/ready", timeout=1).close()
            return process, url
        except OSError:
            time.sleep(0.1)
    process.kill()
    process.wait()
    raise AssertionError("Prometheus did not start")


@pytest.fixture(params=["stand-in", *(["prometheus"] if PROMETHEUS and PROMTOOL else [])])
def history(request, tmp_path_factory, world):
    """Return a function that serves given series and returns the URL: once from the stand-in, once from Prometheus."""
    processes = []

    def serve(series_list):
        if request.param == "stand-in":
            world.series = series_list
            return request.getfixturevalue("url")
        process, url = load(tmp_path_factory.mktemp("prometheus"), series_list)
        processes.append(process)
        return url

    yield serve
    for process in processes:
        process.terminate()
        process.wait()


OLD = traffic("v1", 600, 3, slow=6)
WORLDS = {
    "good": (OLD + traffic("v2", 150, 0.7, slow=1.4), "promote"),
    "three times the errors": (OLD + traffic("v2", 150, 2.3, slow=1.4), "rollback"),
    "twice as slow": (OLD + traffic("v2", 150, 0.7, slow=3), "rollback"),
    "twice the cost": (OLD + traffic("v2", 150, 0.7, slow=1.4, cost=0.04), "rollback"),
}


@pytest.mark.parametrize("name", WORLDS)
def test_verdicts(name, history, capsys):
    series_list, verdict = WORLDS[name]
    result = call(capsys, api_url=history(series_list), metrics=[ERRORS, SLOW, COST])
    assert result["verdict"] == verdict, result["reason"]
    assert result["changed"] is False
    assert result["final"] is True
    assert {item["data_status"] for item in result["metrics"]} == {"ok"}
    canary = result["metrics"][0]
    assert canary["n1"] == pytest.approx(result["bins"] * 151, rel=0.03)
    assert len(result["queries"]) == 10


def test_counter_resets_and_new_instances_are_counted_once(history, capsys):
    """A restart in the middle (from 0 again) and another instance (a new series) lose nothing and add nothing."""
    restarted = [150 * i if i < 60 else 150 * (i - 60) + 40 for i in range(262)]
    replaced = [None] * 100 + [150 * i for i in range(162)]
    canary = [
        series("requests_total", restarted, status="200"),
        series("requests_total", [0] * 262, status="500"),
        series("requests_total", replaced, status="200", instance="new"),
    ]
    url = history(traffic("v1", 600, 3) + canary)
    result = call(capsys, api_url=url, max_duration=2400, min_requests=10**9)
    # From the sample at START to that 160 scrapes later: without the reset 160 x 150, less the step that fell into it.
    first = 150 * 160 - 150 + 40
    second = replaced[180]
    assert result["metrics"][0]["n1"] == first + second
    assert result["metrics"][0]["k1"] == 0


def test_a_lost_scrape_is_not_a_canary_without_requests(history, capsys):
    """With bins as short as the scrape interval, every seventh of the canary's bins has no sample of its own."""
    counted = [None if i % 7 == 3 else 150 * i for i in range(262)]
    failed = [None if i % 7 == 3 else 12 * i for i in range(262)]
    canary = [series("requests_total", counted, status="200"), series("requests_total", failed, status="500")]
    url = history(traffic("v1", 600, 3) + canary)
    result = call(capsys, api_url=url, bin=15, stale_after=60)
    assert result["verdict"] == "rollback", result["reason"]
    assert result["metrics"][0]["n1"] == pytest.approx(162 * result["bins"], abs=162)
    # Eleven bins end with one that has no sample: too little for a verdict, and no silence either.
    early = call(capsys, api_url=url, bin=15, stale_after=60, max_duration=165, min_requests=10**9, alpha_rollback=1e-100)
    assert (early["verdict"], early["metrics"][0]["data_status"]) == ("inconclusive", "too_few")


BROKEN = {
    "nothing at all": ([], "no_data", "no_data"),
    "no canary": (traffic("v1", 600, 3), "no_data", "no_data"),
    "no baseline": (traffic("v2", 150, 1), "no_data", "no_data"),
    "canary stops being scraped": (traffic("v1", 600, 3) + traffic("v2", 150, 0.7, scrapes=30), "no_data", "stale"),
    "canary has no requests": (
        [*traffic("v1", 600, 3), series("requests_total", [5] * 262, status="200"), series("requests_total", [0] * 262, status="500")],
        "no_traffic", "no_traffic",
    ),
    "not a number": (
        [*traffic("v1", 600, 3), series("requests_total", ["nan"] * 262, status="200"), series("requests_total", [0] * 262, status="500")],
        "no_data", "nan",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_bad_data_is_told_apart_and_never_decides(name, history, capsys):
    series_list, verdict, status = BROKEN[name]
    result = call(capsys, api_url=history(series_list))
    assert (result["verdict"], result["metrics"][0]["data_status"]) == (verdict, status)
    assert result["failed" if "failed" in result else "final"] is False


def test_several_series_must_be_summed_explicitly(history, capsys):
    url = history(traffic("v1", 600, 3) + traffic("v2", 150, 0.7))
    result = call(capsys, api_url=url, sum_series=False)
    assert (result["verdict"], result["metrics"][0]["data_status"]) == ("no_data", "several_series")


def test_a_missing_bucket_or_a_misspelt_label_is_not_zero(history, capsys):
    url = history(traffic("v1", 600, 3) + traffic("v2", 150, 0.7))
    wrong = {**SLOW, "threshold": 3}
    result = call(capsys, api_url=url, metrics=[wrong])
    assert (result["verdict"], result["metrics"][0]["data_status"]) == ("no_data", "partial")
    misspelt = {**ERRORS, "bad": 'requests_total{statsu="500"}'}
    result = call(capsys, api_url=url, metrics=[misspelt])
    assert (result["verdict"], result["metrics"][0]["data_status"]) == ("no_data", "partial")


def test_no_errors_yet_is_no_lack_of_data(history, capsys):
    arms = [series("requests_total", [rps * i for i in range(262)], version, status="200") for version, rps in (("v1", 600), ("v2", 150))]
    url = history(arms)
    result = call(capsys, api_url=url, metrics=[{**ERRORS, "limit": 0.02}])
    assert (result["verdict"], result["metrics"][0]["k1"]) == ("promote", 0)


def test_looks_in_between_change_nothing(world, url, capsys, tmp_path):
    """Many looks with a state file, each a task of its own, end like one look at the end."""
    world.series = WORLDS["three times the errors"][0]
    at = [START]
    world.now = lambda: at[0]
    kept = str(tmp_path / "state.json")
    verdicts = []
    for step in (7, 40, 1, 300, 15, 15, 600, 1200, 1400):
        at[0] += step
        result = call(capsys, api_url=url, state_file=kept, metrics=[ERRORS, SLOW, COST])
        verdicts.append(result["verdict"])
    assert verdicts[0] == "hold"
    assert verdicts[-1] == "rollback"
    once = call(capsys, api_url=url, metrics=[ERRORS, SLOW, COST])
    for name in ("looks", "elapsed", "invocation"):
        result.pop(name, None)
        once.pop(name, None)
    assert result == once


def test_stages_belong_together(world, url, capsys, tmp_path):
    world.series = WORLDS["good"][0]
    kept = str(tmp_path / "state.json")
    common = {"api_url": url, "state_file": kept, "stages": [20, 50], "max_duration": 1800}
    world.now = lambda: START + 1500.0
    assert call(capsys, **common)["verdict"] == "promote"
    asked = len(world.queries)
    assert call(capsys, **common)["verdict"] == "promote"
    assert len(world.queries) == asked
    world.now = lambda: START + 3500.0
    second = call(capsys, **{**common, "stage": 50, "start": START + 1500})
    assert (second["verdict"], second["stage"]) == ("promote", 50)
    back = call(capsys, **common)
    assert back["failure"]["code"] == "stage_over"
    other = call(capsys, **{**common, "stage": 50, "alpha_rollback": 0.01})
    assert other["failure"]["code"] == "state_config"
    strange = call(capsys, **{**common, "stage": 30})
    assert strange["failure"]["code"] == "invalid_input"


def test_check_mode_looks_once_and_writes_nothing(world, url, capsys, tmp_path, monkeypatch):
    world.series = WORLDS["good"][0]
    world.now = lambda: START + 60.0
    monkeypatch.setattr(canary_gate.time, "sleep", lambda _seconds: pytest.fail("check mode waited"))
    result = call(
        capsys, api_url=url, wait=True, _ansible_check_mode=True, _ansible_diff=True, state_file=str(tmp_path / "s.json"),
        reports={"markdown": str(tmp_path / "r.md")},
    )
    assert (result["verdict"], result["looks"]) == ("hold", 1)
    assert result["diff"]["before"] == {}
    assert result["diff"]["after"]["metrics"]["errors"]["e_rollback"] > 0
    assert list(tmp_path.iterdir()) == []


def test_waiting_ends_with_a_verdict_and_reports_show_the_way(world, url, capsys, tmp_path, monkeypatch):
    world.series = WORLDS["good"][0]
    at = [START + 20.0]
    world.now = lambda: at[0]
    seen = []

    def sleep(seconds):
        seen.append((tmp_path / "r.md").read_text().splitlines()[0])
        at[0] += seconds

    monkeypatch.setattr(canary_gate.time, "sleep", sleep)
    reports = {"markdown": str(tmp_path / "r.md"), "junit": str(tmp_path / "r.xml"), "svg": str(tmp_path / "r.svg")}
    result = call(capsys, api_url=url, wait=True, poll=30, reports=reports)
    assert result["verdict"] == "promote"
    assert result["looks"] == len(seen) + 1 > 5
    assert set(seen) == {"# Canary at 20 %: hold"}
    assert (tmp_path / "r.md").read_text().startswith("# Canary at 20 %: promote")
    assert ElementTree.parse(tmp_path / "r.xml").getroot().get("failures") == "0"
    assert ElementTree.parse(tmp_path / "r.svg").getroot().tag.endswith("svg")


def test_time_is_up_without_a_verdict(world, url, capsys, monkeypatch):
    world.series = traffic("v1", 6, 0) + traffic("v2", 1, 0)
    at = [START + 20.0]
    world.now = lambda: at[0]
    monkeypatch.setattr(canary_gate.time, "sleep", lambda seconds: at.__setitem__(0, at[0] + seconds))
    result = call(capsys, api_url=url, wait=True, max_duration=300, fail_on=["inconclusive"])
    assert (result["verdict"], result["failed"]) == ("inconclusive", True)
    assert result["bins"] == 20


@pytest.mark.parametrize("fault", ["503", "500", "hang up", "html"])
def test_a_server_that_fails_is_waited_for(fault, world, url, capsys, monkeypatch):
    world.series = WORLDS["good"][0]
    world.faults = [fault] * 3
    slept = []
    monkeypatch.setattr(canary_gate.time, "sleep", slept.append)
    result = call(capsys, api_url=url, wait=True)
    assert result["verdict"] == "promote"
    assert len(slept) == 3


def test_a_failure_between_two_queries_leaves_no_half_a_bin(world, url, capsys, tmp_path):
    world.series = WORLDS["good"][0]
    kept = str(tmp_path / "s.json")
    for place in range(1, 5):
        world.faults = [""] * place + ["503"]
        result = call(capsys, api_url=url, state_file=kept)
        assert (result["verdict"], result["metrics"][0]["data_status"]) == ("hold", "query_error")
    world.faults = []
    resumed = call(capsys, api_url=url, state_file=kept)
    assert resumed["metrics"] == call(capsys, api_url=url)["metrics"]


def test_a_server_that_stays_down_is_no_failure_of_the_canary(world, url, capsys, tmp_path, monkeypatch):
    world.faults = ["503"] * 1000
    clock = [1000.0]
    monkeypatch.setattr(canary_gate.time, "time", lambda: clock[0])
    monkeypatch.setattr(canary_gate.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    kept = str(tmp_path / "s.json")
    result = call(capsys, api_url=url, wait=True, state_file=kept, fail_on=["no_data"], no_data_grace=100)
    assert (result["verdict"], result["failed"]) == ("no_data", True)
    assert result["metrics"][0]["data_status"] == "query_error"
    assert "503" in result["reason"]
    assert clock[0] == pytest.approx(1000 + 105)
    # It is remembered since when, also without waiting.
    assert call(capsys, api_url=url, state_file=kept, no_data_grace=100)["verdict"] == "no_data"
    world.faults = []
    world.series = WORLDS["good"][0]
    assert call(capsys, api_url=url, state_file=kept, no_data_grace=100)["verdict"] == "promote"


def test_what_waiting_cannot_mend_fails_at_once(world, url, capsys):
    world.faults = ["401"]
    result = call(capsys, api_url=url, wait=True, api_token=SECRET)
    assert (result["failed"], result["failure"]["status"]) == (True, 401)
    refused = call(capsys, api_url=url, metrics=[{**ERRORS, "total": "rate(requests_total[5m])"}])
    assert refused["failure"]["code"] == "invalid_input"


def test_a_damaged_state_is_refused(world, url, capsys, tmp_path):
    kept = tmp_path / "s.json"
    kept.write_text('{"checksum": "0", "state": {}}')
    result = call(capsys, api_url=url, state_file=str(kept))
    assert result["failure"]["code"] == "state_damaged"
    assert kept.read_text() == '{"checksum": "0", "state": {}}'


def test_the_defaults_fail_on_everything_but_promote_and_hold():
    chosen = canary_gate.ARGUMENT_SPEC["fail_on"]["default"]
    assert set(canary_gate.VERDICTS) - set(chosen) == {"promote", "hold"}


def test_the_integration_target_runs_the_documented_examples():
    tasks = (TARGET.parents[1] / "tasks/examples.yml").read_text(encoding="utf-8")
    assert tasks.endswith(canary_gate.EXAMPLES)


class Exporter:
    """A process' metrics page: two versions at `/v1` and `/v2`, counting since it was started."""

    def __init__(self, errors):
        self.errors = errors
        self.began = time.monotonic()
        exporter = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                page = exporter.page(self.path.strip("/")).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, format, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def page(self, version):
        requests = (time.monotonic() - self.began) * {"v1": 8000, "v2": 2000}[version]
        errors = math.floor(requests * self.errors[version])
        return f'requests_total{{status="200"}} {math.floor(requests) - errors}\nrequests_total{{status="500"}} {errors}\n'

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def scraping(exporter):
    """Return a configuration that scrapes both versions every second."""
    jobs = [
        {"job_name": version, "metrics_path": f"/{version}", "static_configs": [{"targets": [exporter.address], "labels": {"version": version}}]}
        for version in ("v1", "v2")
    ]
    return json.dumps({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs})


if PROMETHEUS and PROMTOOL:

    @pytest.mark.parametrize(("canary", "verdict"), [(0.005, "promote"), (0.08, "rollback")])
    def test_a_prometheus_that_scrapes(canary, verdict, tmp_path, capsys):
        exporter = Exporter({"v1": 0.005, "v2": canary})
        process, url = load(tmp_path, [], scraping(exporter))
        quick = {
            "api_url": url, "metrics": [{**ERRORS, "limit": 0.05}], "start": None, "wait": True, "bin": 2, "poll": 1, "lag": 1, "warm_up": 2, "min_bins": 5,
            "max_duration": 60, "stale_after": 4, "no_data_grace": 12,
        }
        try:
            result = call(capsys, **quick)
            assert result["verdict"] == verdict, result["reason"]
            assert result["metrics"][0]["n0"] / result["metrics"][0]["n1"] == pytest.approx(4, rel=0.35)
            if verdict == "rollback":
                # From now on nothing is measured, and nothing is what it says.
                exporter.close()
                gone = call(capsys, **quick)
                assert (gone["verdict"], gone["metrics"][0]["data_status"]) == ("no_data", "stale")
        finally:
            exporter.close()
            process.terminate()
            process.wait()
