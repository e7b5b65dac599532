# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The preflight checks: what is judged, and what is seen on a real host."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.sophia.platform.plugins.module_utils._preflight import judge, probe
from ansible_collections.sophia.platform.plugins.modules import preflight_info

TOOL = {"name": "Python", "command": ["python3", "--version"], "minimum": "3.11", "required": True, "hint": "install it"}
MODELS = [
    {"id": "openai/gpt-4o-mini", "supported_parameters": ["max_tokens", "temperature"]},
    {"id": "plain/model", "supported_parameters": ["max_tokens"]},
    {"id": "openai/text-embedding-3-small"},
]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server


def run_module(arguments: dict, capsys: pytest.CaptureFixture[str]) -> dict:
    with patch_module_args(arguments), pytest.raises(SystemExit):
        preflight_info.main()
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("printed", "version"),
    [("Python 3.11.7", (3, 11, 7)), ("v1.30", (1, 30)), ("git version 2.39.5 (Debian)", (2, 39, 5)), ("no number", None)],
)
def test_version_of(printed: str, version: tuple[int, ...] | None) -> None:
    assert judge.version_of(printed) == version


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        ("Python 3.11.0", None),
        ("Python 3.9.2", "Python is 3.9.2, needed is 3.11"),
        ("Python", "Python is of no known version, needed is 3.11"),
        (None, "Python is not there"),
    ],
)
def test_tool(printed: str | None, message: str | None) -> None:
    found = list(judge.judge_tool(TOOL, printed))
    assert [finding.message for finding in found] == ([message] if message else [])
    assert all(finding.severity == judge.ERROR and finding.hint == "install it" for finding in found)


def test_missing_optional_tool_is_a_warning() -> None:
    assert [finding.severity for finding in judge.judge_tool({**TOOL, "required": False}, None)] == [judge.WARNING]


def test_models_not_offered_are_errors_and_unknown_parameters_warnings() -> None:
    names = ["plain/model", "gone/model", "openai/gpt-4o-mini", "openai/text-embedding-3-small"]
    found = list(judge.judge_models(names, ["max_tokens", "temperature"], MODELS))
    assert [(finding.severity, finding.message) for finding in found] == [
        (judge.ERROR, "OpenRouter does not offer gone/model"),
        (judge.WARNING, "plain/model does not know temperature"),
    ]


def test_port_in_use_is_named_with_its_setting(listener: socket.socket) -> None:
    number = listener.getsockname()[1]
    wanted = {"address": "127.0.0.1", "port": number, "setting": "gateway_listen", "ours": False}
    (finding,) = judge.judge_port(wanted, probe.port("127.0.0.1", number))
    assert str(number) in finding.message
    assert "gateway_listen" in finding.hint
    assert not list(judge.judge_port({**wanted, "ours": True}, probe.port("127.0.0.1", number)))


def test_free_port_stays_free() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        number = server.getsockname()[1]
    assert probe.port("127.0.0.1", number) is None
    assert probe.port("127.0.0.1", number) is None


@pytest.mark.parametrize(
    ("kind", "answer", "works"),
    [
        ("redis", b"+PONG\r\n", True),
        ("redis", b"-NOAUTH Authentication required.\r\n", True),
        ("redis", b"HTTP/1.1 400 Bad Request\r\n", False),
        ("postgresql", b"N", True),
        ("postgresql", b"+PONG\r\n", False),
    ],
)
def test_store_must_speak_its_protocol(kind: str, answer: bytes, works: bool, listener: socket.socket) -> None:
    def serve() -> None:
        connection = listener.accept()[0]
        with connection:
            connection.recv(64)
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    reason = probe.STORES[kind](f"{kind}://127.0.0.1:{listener.getsockname()[1]}/0")
    thread.join()
    assert (reason is None) == works


def test_space_of_a_folder_that_would_be_made(tmp_path) -> None:
    free = probe.space(str(tmp_path / "not/yet/there"))
    assert free is not None
    assert free > 0
    (tmp_path / "file").touch()
    assert probe.space(str(tmp_path / "file/below")) is None
    assert not (tmp_path / "not").exists()


def test_every_problem_is_reported_at_once(script, listener: socket.socket, tmp_path, capsys) -> None:
    script.reply(200, json.dumps({"data": MODELS}).encode())
    (tmp_path / "file").touch()
    number = listener.getsockname()[1]
    result = run_module(
        {
            "tools": [{"name": "absent", "command": ["no-such-program-here"], "hint": "install it"}],
            "ports": [{"port": number, "setting": "gateway_listen"}],
            "settings": [
                {"name": "gateway_openrouter_key", "given": False, "hint": "make one"},
                {"name": "gateway_domain", "given": False, "required": False},
            ],
            "spaces": [{"path": str(tmp_path / "file/below"), "setting": "gateway_home"}],
            "models": ["gone/model"],
            "api_url": script.url,
            "api_key": "sk-or-v1-secret-of-the-test",
        },
        capsys,
    )
    assert [finding["check"] for finding in result["errors"]] == ["tool", "port", "setting", "space", "model"]
    assert [finding["check"] for finding in result["warnings_found"]] == ["setting"]
    assert len(result["report"]) == 6
    assert result["checked"] == 6
    assert result["changed"] is False
    assert script.seen[0].headers["authorization"] == "Bearer sk-or-v1-secret-of-the-test"
    assert "secret-of-the-test" not in json.dumps({name: value for name, value in result.items() if name != "invocation"})


def test_unreadable_models_are_one_finding(script, capsys) -> None:
    script.reply(200, b'{"models": []}')
    result = run_module({"models": ["openai/gpt-4o-mini"], "api_url": script.url}, capsys)
    assert "no list of models" in result["errors"][0]["message"]
