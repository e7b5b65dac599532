# SPDX-License-Identifier: GPL-3.0-or-later
"""Container images made of layers, without a builder: one tar a layer, a configuration, a manifest.

Format: OCI image-spec v1.1. Layers are tars without compression (they never leave this machine), so a layer's digest is also its diff id.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

__all__ = ["NOBODY", "Config", "Content", "Image", "Layer", "digest_of", "files_layer", "search_path", "static_layer"]

_CREATED = "1970-01-01T00:00:00Z"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
# The user of images that hold one program; a number, since the kubelet checks runAsNonRoot by number.
NOBODY = "65532"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def search_path(first: tuple[str, ...] = ()) -> str:
    """A PATH for an image's environment; `first` are folders before the usual ones."""
    return "PATH=" + ":".join([*first, _PATH])


def digest_of(path: Path) -> str:
    """sha256 of a file, as registries write it."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Layer:
    """A tar on disk."""

    path: Path
    digest: str
    size: int

    @classmethod
    def of(cls, path: Path) -> Layer:
        return cls(path, digest_of(path), path.stat().st_size)


@dataclass(frozen=True)
class Config:
    """What a container of the image runs (image-spec, config.md)."""

    user: str = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = (search_path(),)
    folder: str = "/"

    def document(self) -> dict[str, Any]:
        return {
            "User": self.user, "Entrypoint": list(self.entrypoint), "Cmd": list(self.command), "Env": list(self.environment),
            "WorkingDir": self.folder,
        }


@dataclass(frozen=True)
class Image:
    """Layers from the lowest up, and what runs in them."""

    layers: tuple[Layer, ...]
    config: Config = field(default_factory=Config)

    def with_layer(self, layer: Layer, **changes: Any) -> Image:
        """This image with one more layer; `changes` are fields of Config."""
        return Image((*self.layers, layer), replace(self.config, **changes))

    def config_bytes(self) -> bytes:
        return json.dumps({
            "architecture": "amd64", "os": "linux", "config": self.config.document(),
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in self.layers]},
            # Builders that go on from this image count its layers here.
            "created": _CREATED, "history": [{"created": _CREATED, "created_by": "tests.testbed"} for _ in self.layers],
        }, sort_keys=True).encode()

    def manifest_bytes(self) -> bytes:
        config = self.config_bytes()
        return json.dumps({
            "schemaVersion": 2, "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, "size": len(config), "digest": "sha256:" + hashlib.sha256(config).hexdigest()},
            "layers": [{"mediaType": _LAYER, "size": layer.size, "digest": layer.digest} for layer in self.layers],
        }, sort_keys=True).encode()

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.manifest_bytes()).hexdigest()


Content = Path | bytes


def static_layer(target: Path, files: Mapping[str, Content], links: Mapping[str, str] | None = None) -> Layer:
    """The only layer of an image that holds a few programs: `files_layer` with users root and nonroot, and /tmp."""
    users = b"root:x:0:0:root:/:/bin/sh\nnonroot:x:65532:65532::/:/bin/sh\n"
    return files_layer(target, {**files, "/etc/passwd": users}, links, folders={"tmp": 0o1777})


def files_layer(
    target: Path, files: Mapping[str, Content], links: Mapping[str, str] | None = None, folders: Mapping[str, int] | None = None,
) -> Layer:
    """Write a layer of files: path in the image to a file here, or to its content. `links` maps paths to their targets, `folders` to modes.

    Owners, times and order are fixed, so that the same files give the same digest.
    """
    links, modes = links or {}, dict(folders or {})
    for name in (*files, *links):
        for parent in Path(name.lstrip("/")).parents:
            if str(parent) != ".":
                modes.setdefault(str(parent), 0o755)
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, mode in sorted(modes.items()):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        for name, source in sorted(files.items()):
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.mode = 0o755
            entry.size = len(source) if isinstance(source, bytes) else source.stat().st_size
            with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
                tar.addfile(entry, file)
        for name, to in sorted(links.items()):
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, to, 0o777
            tar.addfile(entry)
    return Layer.of(target)
