# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry that both nodes pull from, and pushing to it (OCI distribution-spec v1.1, "Push")."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from urllib.parse import urlsplit

from .daemons import Daemon
from .errors import ImageRefused
from .images import Image
from .layout import NODES, REGISTRY, Layout
from .shell import wait_for

__all__ = ["Registry", "daemon", "start"]

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_BLOB = "application/octet-stream"
_SECONDS = 120.0


def daemon(layout: Layout, programs: Path) -> Daemon:
    return Daemon("registry", (str(programs / "registry"), "serve", str(layout.run / "registry.json")), layout.run, layout.logs, NODES[0].namespace)


def start(layout: Layout, programs: Path) -> Registry:
    """Start it where it does not run, and wait until it answers."""
    layout.registry.mkdir(parents=True, exist_ok=True)
    layout.run.mkdir(parents=True, exist_ok=True)
    (layout.run / "registry.json").write_text(json.dumps({
        "version": 0.1, "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(layout.registry)}, "delete": {"enabled": True}},
        "http": {"addr": REGISTRY},
    }, indent=1))
    process = daemon(layout, programs)
    process.start()
    registry = Registry(REGISTRY)

    def answers() -> bool:
        process.check()
        return registry.answers()

    wait_for("registry", answers, 30)
    return registry


class Registry:
    """A registry without TLS at `address` (host:port)."""

    def __init__(self, address: str) -> None:
        self.address = address

    def _ask(self, method: str, path: str, body: bytes | Path | None = None, media: str = _BLOB) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.address, timeout=_SECONDS)
        try:
            if isinstance(body, Path):
                with body.open("rb") as file:
                    connection.request(method, path, file, {"Content-Type": media, "Content-Length": str(body.stat().st_size)})
                    response = connection.getresponse()
                    text = response.read()
            else:
                connection.request(method, path, body, {"Content-Type": media, "Accept": _MANIFEST})
                response = connection.getresponse()
                text = response.read()
        finally:
            connection.close()
        if response.status >= 400 and response.status != 404:
            raise ImageRefused(f"{method} {path}: {response.status} {text.decode(errors='replace')[:300]}")
        return response.status, {name.lower(): value for name, value in response.getheaders()}, text

    def answers(self) -> bool:
        try:
            return self._ask("GET", "/v2/")[0] == 200
        except OSError:
            return False

    def digest(self, name: str, tag: str) -> str | None:
        """What a tag stands for, if the registry has it."""
        status, headers, _ = self._ask("HEAD", f"/v2/{name}/manifests/{tag}")
        return headers.get("docker-content-digest") if status == 200 else None

    def references(self) -> dict[str, str]:
        """Every image with its reference by digest: `NAME`, and `NAME:TAG` where a name has more tags than one."""
        found = {}
        for name in json.loads(self._ask("GET", "/v2/_catalog?n=1000")[2])["repositories"]:
            tags = json.loads(self._ask("GET", f"/v2/{name}/tags/list")[2]).get("tags") or []
            for tag in tags:
                if (digest := self.digest(name, tag)) is not None:
                    found[name if len(tags) == 1 else f"{name}:{tag}"] = f"{self.address}/{name}@{digest}"
        return dict(sorted(found.items()))

    def push(self, name: str, tag: str, image: Image) -> str:
        """Push what the registry lacks of an image; return its reference by digest.

        Raises ImageRefused where the registry answers with an error.
        """
        reference = f"{self.address}/{name}@{image.digest}"
        if self.digest(name, tag) == image.digest:
            return reference
        for layer in image.layers:
            self._push_blob(name, layer.digest, layer.path)
        config = image.config_bytes()
        self._push_blob(name, json.loads(image.manifest_bytes())["config"]["digest"], config)
        self._ask("PUT", f"/v2/{name}/manifests/{tag}", image.manifest_bytes(), _MANIFEST)
        if (stored := self.digest(name, tag)) != image.digest:
            raise ImageRefused(f"{reference}: the registry holds {stored}")
        return reference

    def _push_blob(self, name: str, digest: str, content: bytes | Path) -> None:
        if self._ask("HEAD", f"/v2/{name}/blobs/{digest}")[0] == 200:
            return
        _, headers, _ = self._ask("POST", f"/v2/{name}/blobs/uploads/", b"")
        place = urlsplit(headers["location"])
        query = f"{place.query}&" if place.query else ""
        self._ask("PUT", f"{place.path}?{query}digest={digest}", content)
