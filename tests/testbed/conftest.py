# SPDX-License-Identifier: GPL-3.0-or-later
"""The bed for its own tests: the running one, else one that these tests bring up and take down again."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.testbed import bed
from tests.testbed.addons import ADDONS, ordered
from tests.testbed.kube import Kubectl
from tests.testbed.layout import Layout
from tests.testbed.progress import Progress
from tests.testbed.snapshot import snapshot


class Bed:
    """`ours`: these tests brought it up, on a machine whose state was `before`."""

    def __init__(self, layout: Layout, before: dict[str, list[str]] | None) -> None:
        self.layout, self.before = layout, before
        self.status = bed.status(layout)
        self.kubectl = Kubectl(layout.programs / "kubectl", layout.kubeconfig)

    @property
    def ours(self) -> bool:
        return self.before is not None


@pytest.fixture(scope="session")
def running() -> Iterator[Bed]:
    layout = Layout.of(os.environ)
    before = None if bed.status(layout)["up"] else snapshot()
    bed.up(layout, ordered(ADDONS), Progress())
    yield Bed(layout, before)
    if before is not None:
        bed.down(layout, Progress())


@pytest.fixture
def kubectl(running: Bed) -> Kubectl:
    return running.kubectl


class Space:
    """A namespace of one test."""

    def __init__(self, kubectl: Kubectl, name: str) -> None:
        self.kubectl, self.name = kubectl, name

    def __call__(self, *argv: str) -> str:
        return self.kubectl(f"--namespace={self.name}", *argv)

    def apply(self, *objects: dict[str, Any]) -> None:
        texts = [yaml.safe_dump({**item, "metadata": {"namespace": self.name, **item["metadata"]}}) for item in objects]
        self.kubectl.apply("---\n".join(texts))

    def ready(self, *pods: str, seconds: int = 90) -> None:
        self("wait", "--for=condition=Ready", *(f"pod/{pod}" for pod in pods), f"--timeout={seconds}s")

    def get(self, *argv: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("get", *argv, "--output=json"))
        return found


@pytest.fixture
def space(kubectl: Kubectl) -> Iterator[Space]:
    name = f"bed-test-{secrets.token_hex(3)}"
    kubectl("create", "namespace", name)
    yield Space(kubectl, name)
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def python(running: Bed) -> str:
    """The reference of an image with a Python."""
    return str(running.status["images"]["python"])


def curl(*argv: str | Path) -> str:
    return subprocess.run(["curl", "--silent", "--show-error", "--max-time", "5", *map(str, argv)], check=True, capture_output=True, text=True).stdout
