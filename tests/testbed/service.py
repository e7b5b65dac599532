# SPDX-License-Identifier: GPL-3.0-or-later
"""The project's own images, built by buildah from their Containerfiles and pushed.

`sophia` is `gateway_src/Containerfile` on the bed's Python base; `sophia-sandbox` is that image with what its stand-ins need.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from . import packages
from .errors import CommandFailed
from .layout import Layout
from .progress import Progress
from .registry import Registry
from .shell import run

__all__ = ["build", "build_sandbox", "pinned"]

ROOT = Path(__file__).parents[2]
SANDBOX = Path(__file__).parent / "sandbox"
# The extra `qdrant-sandbox` of the distribution.
SANDBOX_REQUIREMENTS = ("orjson", "qdrant-edge-py")
# What pip on this machine needs to reach its index, as far as there is any.
_SETTINGS = (Path("/etc/pip.conf"), Path("/etc/ssl/certs/ca-certificates.crt"))


def command(context: Path, base: str, reference: str, mounts: list[Path]) -> list[str]:
    """buildah-build(1): chroot isolation, since this machine need not be able to make containers."""
    return [
        "build", "--quiet", "--isolation=chroot", "--network=host", "--tls-verify=false", "--format=oci", "--layers=true", f"--build-arg=BASE={base}",
        *(f"--volume={path}:{path}:ro" for path in mounts),
        f"--tag={reference}", f"--file={context}/Containerfile", str(context),
    ]


def pinned(lock: str, names: tuple[str, ...]) -> str:
    """The entries of a lock file (pip's requirements with hashes) for some packages; CommandFailed where one is missing."""
    entries = re.findall(r"^[^\s#].*?(?=^[^\s#]|\Z)", lock, re.MULTILINE | re.DOTALL)
    found = {entry.partition("==")[0].strip().lower(): entry for entry in entries}
    if absent := [name for name in names if name not in found]:
        raise CommandFailed(f"the lock does not pin {', '.join(absent)}")
    return "".join(found[name] for name in names)


def build(layout: Layout, registry: Registry, progress: Progress, tag: str = "local") -> str:
    """Build and push `sophia:TAG`; return its reference by digest.

    Raises CommandFailed where the build fails, or the base is not in the registry (`up` stocks it).
    """
    return _build("sophia", ROOT / "gateway_src", ("python", "1"), layout, registry, progress, tag)


def build_sandbox(layout: Layout, registry: Registry, progress: Progress, tag: str = "local") -> str:
    """As `build`, for `sophia-sandbox:TAG` on `sophia:TAG`."""
    context = layout.cache / "sandbox"
    context.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(SANDBOX / "Containerfile", context / "Containerfile")
    (context / "requirements.lock").write_text(pinned((ROOT / "requirements/gateway.lock").read_text(), SANDBOX_REQUIREMENTS))
    return _build("sophia-sandbox", context, ("sophia", tag), layout, registry, progress, tag)


def _build(name: str, context: Path, base: tuple[str, str], layout: Layout, registry: Registry, progress: Progress, tag: str) -> str:
    packages.install(("buildah",))
    if (digest := registry.digest(*base)) is None:
        raise CommandFailed(f"the registry has no {':'.join(base)} to build {name} on")
    reference = f"{registry.address}/{name}:{tag}"
    buildah = ["buildah", f"--root={layout.cache}/buildah", f"--runroot={layout.cache}/buildah-run", "--storage-driver=overlay"]
    mounts = [path for path in _SETTINGS if path.exists()]
    with progress.slow_step(f"image {name}"):
        run(*buildah, *command(context, f"{registry.address}/{base[0]}@{digest}", reference, mounts))
        run(*buildah, "push", "--quiet", "--tls-verify=false", reference, f"docker://{reference}")
    if (digest := registry.digest(name, tag)) is None:
        raise CommandFailed(f"{reference} was pushed, but the registry does not know it")
    return f"{registry.address}/{name}@{digest}"
