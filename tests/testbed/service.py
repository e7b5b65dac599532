# SPDX-License-Identifier: GPL-3.0-or-later
"""The project's own image, from `gateway_src/Containerfile`, built by buildah on the bed's Python base and pushed."""

from __future__ import annotations

from pathlib import Path

from . import packages
from .errors import CommandFailed
from .layout import Layout
from .progress import Progress
from .registry import Registry
from .shell import run

__all__ = ["build"]

SOURCE = Path(__file__).parents[2] / "gateway_src"
# What pip on this machine needs to reach its index, as far as there is any.
_SETTINGS = (Path("/etc/pip.conf"), Path("/etc/ssl/certs/ca-certificates.crt"))


def command(context: Path, base: str, reference: str, mounts: list[Path]) -> list[str]:
    """buildah-build(1): chroot isolation, since this machine need not be able to make containers."""
    return [
        "build", "--quiet", "--isolation=chroot", "--network=host", "--tls-verify=false", "--format=oci", "--layers=true", f"--build-arg=BASE={base}",
        *(f"--volume={path}:{path}:ro" for path in mounts),
        f"--tag={reference}", f"--file={context}/Containerfile", str(context),
    ]


def build(layout: Layout, registry: Registry, progress: Progress, tag: str = "local", source: Path = SOURCE) -> str:
    """Build and push `sophia:TAG`; return its reference by digest.

    Raises CommandFailed where the build fails, or the base is not in the registry (`up` stocks it).
    """
    packages.install(("buildah",))
    base = registry.digest("python", "1")
    if base is None:
        raise CommandFailed("the registry has no Python base: run `up` first")
    reference = f"{registry.address}/sophia:{tag}"
    buildah = ["buildah", f"--root={layout.cache}/buildah", f"--runroot={layout.cache}/buildah-run", "--storage-driver=overlay"]
    mounts = [path for path in _SETTINGS if path.exists()]
    with progress.slow_step("image sophia"):
        run(*buildah, *command(source, f"{registry.address}/python@{base}", reference, mounts))
        run(*buildah, "push", "--quiet", "--tls-verify=false", reference, f"docker://{reference}")
    digest = registry.digest("sophia", tag)
    if digest is None:
        raise CommandFailed(f"{reference} was pushed, but the registry does not know it")
    return f"{registry.address}/sophia@{digest}"
