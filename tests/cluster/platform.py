# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The platform that site.yml has put on a cluster, as a client and an operator see it."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import ssl
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "Cluster", "CommandFailed", "Platform", "bed_status", "collection", "playbook"]

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "sophia-local"
ORGANIZATION = "cluster-load"


class CommandFailed(Exception):
    """A program ended with an error; the text is what it said."""


def bed_status() -> dict[str, Any]:
    """What the test bed says of itself; `up` is false where there is none."""
    done = subprocess.run([sys.executable, "-m", "tests.testbed", "status"], cwd=ROOT, capture_output=True, text=True, check=False)
    found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {"up": False}
    return found


def collection() -> Path:
    """Where Ansible finds the collection by its name: this tree, or a link to it that the caller's environment names."""
    for folder in os.environ.get("ANSIBLE_COLLECTIONS_PATH", "").split(":"):
        if (found := Path(folder, "ansible_collections/sophia/platform")).exists():
            return found
    return ROOT


def playbook(*arguments: str) -> tuple[int, str]:
    """Run ansible-playbook from this interpreter's environment; its exit status and all that it said."""
    environment = os.environ | {"ANSIBLE_PIPELINING": "true", "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml"}
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventories/local", *arguments]
    done = subprocess.run(command, cwd=collection(), env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@dataclass(frozen=True)
class Cluster:
    """kubectl on one cluster and one namespace."""

    command: tuple[str, ...]
    namespace: str

    @classmethod
    def of(cls, environ: Mapping[str, str] = os.environ) -> Cluster:
        """The cluster of KUBECONFIG, else the test bed's; the namespace is SOPHIA_NAMESPACE's, else that of inventories/local.

        Raises CommandFailed where there is neither.
        """
        bed = bed_status()
        kubeconfig = environ.get("KUBECONFIG") or (bed["kubeconfig"] if bed["up"] else "")
        if not kubeconfig:
            raise CommandFailed("no test bed is up (make cluster), and KUBECONFIG names no cluster")
        own = Path(bed.get("programs", "")) / "kubectl"
        program = str(own) if own.exists() else shutil.which("kubectl") or "kubectl"
        return cls((program, "--kubeconfig", kubeconfig), environ.get("SOPHIA_NAMESPACE", NAMESPACE))

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            [*self.command, "--namespace", self.namespace, *arguments], input=stdin, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise CommandFailed(f"kubectl {' '.join(arguments[:4])}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def get(self, *arguments: str) -> Any:
        return json.loads(self("get", *arguments, "--output=json"))

    def secret(self, name: str, key: str) -> str:
        return base64.b64decode(self.get(f"secret/{name}")["data"][key]).decode()

    def pods(self, name: str) -> list[dict[str, Any]]:
        """The pods of one service that are not on their way out."""
        found = self.get("pods", f"--selector=app.kubernetes.io/name={name},app.kubernetes.io/part-of=sophia")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


@dataclass(frozen=True)
class Platform:
    """The way in: the Gateway's address, the name that its certificate is for, and the authority that signed it."""

    cluster: Cluster
    address: str
    host: str
    tls: ssl.SSLContext

    @classmethod
    def of(cls, cluster: Cluster, gateway: str = "sophia") -> Platform:
        """Raises CommandFailed where the stages network or core are not there."""
        found = cluster.get(f"gateway/{gateway}")
        hosts = [listener["hostname"] for listener in found["spec"]["listeners"] if listener.get("hostname", "").startswith("api.")]
        if not hosts or not found["status"].get("addresses"):
            raise CommandFailed(f"gateway/{gateway} has no listener for an API's name or no address")
        tls = ssl.create_default_context(cadata=cluster.secret(f"{gateway}-tls", "ca.crt"))
        return cls(cluster, found["status"]["addresses"][0]["value"], hosts[0], tls)

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """One call of the management API, from inside a gateway's pod: from outside it may have no route.

        Raises CommandFailed where it refuses.
        """
        code = (
            "import json,sys,urllib.request as u\n"
            "method,path,body=json.load(sys.stdin)\n"
            "key=open('/secrets/admin/admin_key').readline().strip()\n"
            "data=None if body is None else json.dumps(body).encode()\n"
            "head={'authorization':'Bearer '+key,'content-type':'application/json'}\n"
            "print(u.urlopen(u.Request('http://127.0.0.1:8080/admin/v1'+path,data,head,method=method),timeout=60).read().decode())"
        )
        pod = self.cluster.pods("gateway")[0]["metadata"]["name"]
        out = self.cluster("exec", "--stdin", pod, "--container=gateway", "--", "python3", "-c", code, stdin=json.dumps([method, path, body]))
        return json.loads(out) if out.strip() else None

    def key(self) -> str:
        """A new key that no limit holds back, in an organisation whose budget has to be kept."""
        found = self.admin("GET", f"/organizations?name={ORGANIZATION}")["data"]
        organization = found[0] if found else self.admin("POST", "/organizations", {"name": ORGANIZATION, "budgets": {"month": "10000"}})
        number = secrets.token_hex(4)
        person = {"name": f"load-{number}", "email": f"load-{number}@{ORGANIZATION}.test", "organization": organization["id"]}
        user = self.admin("POST", "/users", person)["id"]
        made = self.admin("POST", "/keys", {"name": f"load-{number}", "user": user, "limits": {"requests_per_minute": 1_000_000}})
        secret: str = made["secret"]
        return secret
