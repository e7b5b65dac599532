# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster's API by kubectl."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from .errors import CommandFailed
from .shell import output, succeeds, wait_for

__all__ = ["Kubectl", "manifest"]

MANIFESTS = Path(__file__).parent / "manifests"


def manifest(name: str, **values: str) -> str:
    """A manifest of the test bed with its `${NAME}`s filled in; a name without a value is a KeyError."""
    return Template((MANIFESTS / f"{name}.yaml").read_text()).substitute(values)


@dataclass(frozen=True)
class Kubectl:
    """`program` is kubectl; `kubeconfig` names the cluster."""

    program: Path | str
    kubeconfig: Path

    def __call__(self, *argv: str, stdin: str | None = None) -> str:
        return output(self.program, "--kubeconfig", self.kubeconfig, *argv, stdin=stdin)

    def succeeds(self, *argv: str) -> bool:
        return succeeds(self.program, "--kubeconfig", self.kubeconfig, *argv)

    def apply(self, documents: str) -> None:
        """Server-side apply: idempotent, and large definitions need no annotation."""
        self("apply", "--server-side", "--force-conflicts", "--field-manager=sophia-testbed", "--filename=-", stdin=documents)

    def get(self, *argv: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("get", *argv, "--output=json"))
        return found

    def rolled_out(self, kind_and_name: str, namespace: str, seconds: int = 120) -> None:
        """Wait for a rollout; on failure the namespace's events say why."""
        try:
            self("rollout", "status", kind_and_name, f"--namespace={namespace}", f"--timeout={seconds}s")
        except CommandFailed as error:
            events = self("events", f"--namespace={namespace}", "--types=Warning")
            raise CommandFailed(f"{error}\n" + "\n".join(events.splitlines()[-10:])) from error

    def patch_status(self, kind_and_name: str, patch: Mapping[str, Any]) -> None:
        self("patch", kind_and_name, "--subresource=status", "--type=merge", f"--patch={json.dumps(patch)}")

    def wait_for_condition(self, what: str, condition: str, seconds: float, *argv: str) -> None:
        """Wait for a condition of an object that may not exist yet."""
        wait_for(what, lambda: self.succeeds("wait", f"--for={condition}", what, "--timeout=1s", *argv), seconds)
