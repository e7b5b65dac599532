# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings: every problem at once, secrets only from files that others cannot read, environment over file."""

from __future__ import annotations

from pathlib import Path

import pytest

from sophia.settings import SettingsError, load


def secret(folder: Path, name: str = "primary", mode: int = 0o600, content: str = "sk-or-v1-x") -> Path:
    path = folder / name
    path.write_text(content)
    path.chmod(mode)
    return path


def write(folder: Path, text: str) -> Path:
    path = folder / "gateway.yml"
    path.write_text(text)
    return path


def problems(path: Path, **environment: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(path, environment)
    return [problem.removeprefix(f"{path}: ") for problem in caught.value.problems]


def test_a_small_file_is_enough(tmp_path: Path) -> None:
    secret(tmp_path)
    settings = load(write(tmp_path, "upstream: {key_files: {primary: primary}}"), {})
    assert settings.listen == "127.0.0.1:8080"
    assert settings.upstream.key_files.primary == tmp_path / "primary"
    assert settings.stores.database == f"sqlite:///{tmp_path / 'state' / 'gateway.db'}"


def test_every_problem_is_listed(tmp_path: Path) -> None:
    secret(tmp_path, mode=0o644)
    path = write(
        tmp_path,
        """
listen: nowhere
workers: 4
log_level: loud
admin_key_file: missing
upstream: {base_url: "ftp://x", key_files: {primary: primary}, client: curl}
stores: {database: "mysql://x", redis: "http://x"}
cache: {similarity: 2, embedder: cloud}
""",
    )
    found = "\n".join(problems(path))
    for expected in (
        "listen: must be HOST:PORT",
        "workers: 4 workers need shared stores",
        "log_level:",
        "admin_key_file:",
        "upstream.base_url:",
        "upstream.client:",
        "upstream.key_files.primary:",
        "can be read by others",
        "stores.database:",
        "stores.redis:",
        "cache.similarity:",
        "cache.embedder:",
    ):
        assert expected in found


def test_wrong_types_and_unknown_names_are_listed_together(tmp_path: Path) -> None:
    path = write(tmp_path, "listen: 1\nupstreem: {}\nupstream: {connections: many, colour: red}\ndrain: soon")
    found = problems(path)
    assert len(found) == 5
    assert any(problem.startswith("upstreem: unknown setting") for problem in found)
    assert any(problem.startswith("upstream.colour: unknown setting") for problem in found)


def test_the_environment_goes_over_the_file(tmp_path: Path) -> None:
    secret(tmp_path)
    path = write(tmp_path, "upstream: {key_files: {primary: primary}}\nlisten: 127.0.0.1:1")
    settings = load(path, {"SOPHIA_LISTEN": "127.0.0.1:2", "SOPHIA_CACHE__TTL": "60", "UNRELATED": "x"})
    assert settings.listen == "127.0.0.1:2"
    assert settings.cache.ttl == 60
    assert "SOPHIA_CACHE__TLT" in problems(path, SOPHIA_CACHE__TLT="1")[0]


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "'x'"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert problems(write(tmp_path, text))


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    assert "--config" in problems(tmp_path / "none.yml")[0]
