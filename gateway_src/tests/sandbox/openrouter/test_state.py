# SPDX-License-Identifier: GPL-3.0-or-later
"""What survives a restart, and pacing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from sophia.sandbox.openrouter import INFERENCE_KEY, MANAGEMENT_KEY, Config, create_app

from .conftest import QUESTION, Account, Clock, client


async def fill(account: Account) -> None:
    made = (await account.manager.post("/keys", json={"name": "kept", "limit": 5})).json()
    gone = (await account.manager.post("/keys", json={"name": "gone"})).json()
    guardrail = (await account.manager.post("/guardrails", json={"name": "g", "limit_usd": 1.5})).json()["data"]
    hashes = [made["data"]["hash"], gone["data"]["hash"]]
    await account.manager.post(f"/guardrails/{guardrail['id']}/assignments/keys", json={"key_hashes": hashes})
    await account.manager.patch(f"/keys/{hashes[0]}", json={"disabled": True})
    await account.manager.delete(f"/keys/{hashes[1]}")
    await account.manager.post("/workspaces", json={"name": "W", "slug": "w"})
    for _ in range(3):
        await account.chat(user="u")


async def shown(account: Account) -> list[object]:
    paths = ("/keys?include_disabled=true", "/guardrails", "/guardrails/assignments/keys", "/workspaces", "/credits")
    answers: list[object] = [(await account.manager.get(path)).json() for path in paths]
    truth = await account.truth()
    return [*answers, truth["generations"], truth["keys"], truth["totals"]]


async def test_a_restart_changes_nothing(tmp_path: Path, clock: Clock) -> None:
    config = Config(clock=clock, state_file=tmp_path / "state.jsonl")
    before: list[object] = []
    for start in range(3):
        app = create_app(config)
        async with client(app, INFERENCE_KEY) as user, client(app, MANAGEMENT_KEY) as manager:
            account = Account(app, clock, user, manager)
            if start == 0:
                await fill(account)
                before = await shown(account)
            assert await shown(account) == before
        app.platform.state.close()
        with config.state_file.open("ab") as file:  # type: ignore[union-attr]
            file.write(b'{"type":"generation","id":"gen-torn')
    assert INFERENCE_KEY not in config.state_file.read_text()  # type: ignore[union-attr]


async def test_ids_do_not_repeat_after_a_restart(tmp_path: Path, clock: Clock) -> None:
    config = Config(clock=clock, state_file=tmp_path / "state.jsonl")
    seen: list[str] = []
    for _ in range(3):
        app = create_app(config)
        async with client(app, INFERENCE_KEY) as user, client(app, MANAGEMENT_KEY) as manager:
            account = Account(app, clock, user, manager)
            seen += [(await account.chat()).json()["id"] for _ in range(2)]
        app.platform.state.close()
    assert len(set(seen)) == 6


async def test_reset_forgets(account: Account) -> None:
    await fill(account)
    await account.user.post("http://sandbox/_sandbox/seed", json={"credits": 0})
    await account.user.post("http://sandbox/_sandbox/reset")
    assert (await account.manager.get("/credits")).json()["data"] == {"total_credits": 10_000, "total_usage": 0}
    truth = await account.truth()
    assert (truth["generations"], truth["totals"]["cost_nano"], truth["open"]) == ([], 0, [])
    assert [key["name"] for key in (await account.manager.get("/keys")).json()["data"]] == ["sandbox"]


async def test_old_generations_stay_in_the_totals(clock: Clock) -> None:
    app = create_app(Config(clock=clock, history=2))
    async with client(app, INFERENCE_KEY) as user, client(app, MANAGEMENT_KEY) as manager:
        account = Account(app, clock, user, manager)
        for _ in range(5):
            await account.chat()
        truth = await account.truth()
    assert (len(truth["generations"]), truth["dropped_generations"], truth["totals"]["requests"]) == (2, 3, 5)


async def test_truth_since(account: Account) -> None:
    ids = []
    for _ in range(4):
        ids.append((await account.chat()).json()["id"])
        account.clock.now += 10
    assert [item["id"] for item in (await account.truth(since=ids[1]))["generations"]] == ids[2:]
    assert [item["id"] for item in (await account.truth(since=account.clock.now - 20))["generations"]] == ids[2:]
    assert "generations" not in await account.truth(summary=1)


async def test_an_open_request_is_seen(clock: Clock) -> None:
    app = create_app(Config(clock=clock, latency_scale=1.0))
    async with client(app, INFERENCE_KEY) as user, client(app, MANAGEMENT_KEY) as manager:
        account = Account(app, clock, user, manager)
        task = asyncio.create_task(account.chat(model="openai/gpt-4o"))
        while not (truth := await account.truth())["open"]:  # noqa: ASYNC110 (seen from outside only)
            await asyncio.sleep(0.005)
        assert truth["open"][0]["model"] == "openai/gpt-4o"
        assert truth["totals"]["requests"] == 0
        assert (await task).status_code == 200
        assert (await account.truth())["open"] == []


def test_the_program(tmp_path: Path) -> None:
    """Started, asked, killed in the middle of things, started again: nothing that was billed is lost."""
    command = [sys.executable, "-m", "sophia.sandbox.openrouter", "--port", "0", "--state-file", str(tmp_path / "s")]
    secret = "sk-or-v1-" + "12" * 32
    environment = os.environ | {"OPENROUTER_API_KEY": secret}
    costs = []
    for _ in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            try:
                assert process.stdout is not None
                root = process.stdout.readline().removeprefix("listening on ").strip()
                with httpx.Client(base_url=root, headers={"authorization": f"Bearer {secret}"}) as http:
                    body = {"model": "openai/gpt-4o-mini", "messages": QUESTION}
                    assert http.post("/api/v1/chat/completions", json=body).status_code == 200
                    costs.append(http.get("/_sandbox/truth").json()["totals"]["cost_nano"])
            finally:
                process.send_signal(signal.SIGKILL)
    assert costs[1] == 2 * costs[0] > 0


async def test_the_transport_is_needed_to_cut(account: Account) -> None:
    account.user.headers["x-sandbox-fault"] = "reset"
    with pytest.raises(ConnectionResetError):
        await account.chat()
