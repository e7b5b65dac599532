# SPDX-License-Identifier: GPL-3.0-or-later
"""What operators rely on: metrics, logs without secrets, reload, key slots, flags, a management API with documents."""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from sophia.gateway.rules import shipped_rules
from sophia.gateway.slots import fingerprint
from tests.e2e.bed import Bed

PROMPT = "My secret word is Rumpelstilzchen; what is its length?"


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    folder = tmp_path_factory.mktemp("operations")
    (folder / "flags.yml").write_text("flags: {}\n")
    bed = Bed(
        folder,
        log_level="info",
        flags_file="flags.yml",
        upstream={"key_files": {"primary": "primary.key", "secondary": "secondary.key"}},
    )
    bed.start_sandbox()
    bed.start_gateway()
    yield bed
    bed.close()


@pytest.fixture(scope="module")
def key(bed: Bed) -> str:
    return bed.tenant("operators")


def ask(bed: Bed, key: str, **body: object) -> httpx.Response:
    question = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": PROMPT}]} | body
    return httpx.post(
        f"{bed.url}/v1/chat/completions", json=question, headers={"authorization": f"Bearer {key}"}, timeout=60
    )


def metrics(bed: Bed) -> str:
    return httpx.get(f"http://127.0.0.1:{bed.metrics_port}/metrics", timeout=30).text


def until(good: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not good():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


def test_metrics_have_their_names(bed: Bed, key: str) -> None:
    assert ask(bed, key).status_code == 200
    assert ask(bed, key, stream=True).status_code == 200
    assert ask(bed, key, model="nobody/nothing").status_code == 404
    page = metrics(bed)
    for expected in (
        'openrouter_requests_total{model="openai/gpt-4o-mini",status="200",tenant="operators"}',
        'openrouter_response_duration_seconds_bucket{le="0.05",model="openai/gpt-4o-mini"}',
        'openrouter_cost_dollars_total{model="openai/gpt-4o-mini",tenant="operators"}',
        'openrouter_quality_score{model="openai/gpt-4o-mini",task="code"}',
        'sophia_overhead_seconds_count{stage="budget"}',
        'sophia_cache_requests_total{result="off"}',
        'sophia_ledger_unsettled{state="open"} 0.0',
        'sophia_refused_total{code="model_not_found"}',
        'sophia_first_token_seconds_count{model="openai/gpt-4o-mini"}',
        "sophia_reservation_overrun_dollars_total 0.0",
        f'openrouter_key_loaded{{hash="{fingerprint(bed.upstream_key)}",slot="primary"}} 1.0',
        f'openrouter_key_in_flight{{hash="{fingerprint(bed.upstream_key)}"}} 0.0',
    ):
        assert expected in page


def test_logs_and_state_hold_no_secrets_and_no_prompts(bed: Bed, key: str) -> None:
    for headers in ({"authorization": f"Bearer {key}x"}, {"x-api-key": key}):
        httpx.post(f"{bed.url}/v1/messages", json={"messages": PROMPT}, headers=headers, timeout=30)
    leak = {"kind": "status", "status": 401, "message": f"no {bed.upstream_key}"}
    bed.faults([{"match": {"times": 2}, "fault": leak}])
    ask(bed, key)
    bed.faults([])
    log = (bed.folder / "gateway.log").read_text()
    for line in log.splitlines():
        json.loads(line)
    hidden = [key, bed.upstream_key, bed.management_key, bed.admin_key, "Rumpelstilzchen"]
    for path in [bed.folder / "gateway.log", *(path for path in (bed.folder / "state").rglob("*") if path.is_file())]:
        content = path.read_bytes()
        assert not [secret for secret in hidden if secret.encode() in content], path
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        assert not [secret for secret in hidden if secret.encode() in command]


def test_a_new_key_in_a_slot_is_used_without_a_restart(bed: Bed, key: str) -> None:
    fresh = "sk-or-v1-" + secrets.token_hex(32)
    bed.call("POST", f"{bed.sandbox_url}/_sandbox/seed", {"keys": [{"key": fresh, "name": "fresh"}]})
    part = bed.folder / "secondary.part"
    part.touch(mode=0o600)
    part.write_text(fresh)
    part.rename(bed.folder / "secondary.key")
    until(lambda: f'hash="{fingerprint(fresh)}",slot="secondary"}} 1.0' in metrics(bed))
    match = {"key_hash": next(name for name, each in bed.truth()["keys"].items() if each["name"] == "sandbox")}
    bed.faults([{"match": match, "fault": {"kind": "status", "status": 401}}])
    assert ask(bed, key).status_code == 200
    bed.faults([])


def test_flags_from_the_file_apply_and_touch_no_other(bed: Bed, key: str) -> None:
    bed.admin("PUT", "/flags/other", {"enabled": True, "percentage": 40, "version": 0})
    (bed.folder / "flags.yml").write_text("flags: {disable_model: {enabled: true, values: [openai/gpt-4o-mini]}}\n")
    until(lambda: ask(bed, key).headers.get("x-sophia-model") != "openai/gpt-4o-mini")
    with pytest.raises(urllib.error.HTTPError) as caught:
        bed.admin("PUT", "/flags/disable_model", {"enabled": False, "version": 1})
    assert caught.value.code == 409
    (bed.folder / "flags.yml").write_text("flags: {}\n")
    until(lambda: ask(bed, key).headers.get("x-sophia-model") == "openai/gpt-4o-mini")
    assert bed.admin("GET", "/flags/other")["percentage"] == 40


def test_sighup_puts_another_models_file_in_force(bed: Bed, key: str, tmp_path: Path) -> None:
    assert shipped_rules().aliases["gpt-4"]
    assert ask(bed, key, model="our-model").status_code == 404
    shipped = Path(__file__).parents[2] / "gateway_src/src/sophia/gateway/data/models.yml"
    text = shipped.read_text().replace("\naliases:\n", "\naliases:\n  our-model: openai/gpt-4o-mini\n")
    (bed.folder / "models.yml").write_text(text)
    bed.config.write_text(bed.config.read_text() + "models_file: models.yml\n")
    assert bed.gateway is not None
    os.kill(bed.gateway.pid, signal.SIGHUP)
    until(lambda: ask(bed, key, model="our-model").status_code == 200)


def test_health_and_documents(bed: Bed) -> None:
    assert httpx.get(f"{bed.url}/health/live", timeout=30).json() == {"status": "live"}
    assert httpx.get(f"{bed.url}/health/ready", timeout=30).json() == {"status": "ready", "problems": {}}
    assert httpx.get(f"{bed.url}/admin/v1/openapi.json", timeout=30).json()["openapi"].startswith("3.")
    page = httpx.get(f"{bed.url}/admin/v1/docs", timeout=30, follow_redirects=True)
    assert page.status_code == 200
    assert "://" not in page.text.replace("http://www.w3.org", "")


def test_the_audit_chain_holds(bed: Bed) -> None:
    assert bed.admin("GET", "/audit/verify")["ok"] is True
