# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian roots as image layers, bootstrapped from the package sources that this machine itself uses.

Every root knows the user sophia (10001:10001), so that any image of the bed can run as that user: initdb, for one, refuses an id without a name.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from . import packages
from .errors import Unsupported
from .images import Config, Image, Layer, search_path
from .layout import Layout
from .progress import Progress
from .shell import run

__all__ = ["ROOTS", "USER", "Root", "image", "short_digest"]

USER = "10001"
_LEAVE_OUT = ("/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*")


@dataclass(frozen=True)
class Root:
    """A bootstrapped root with some Debian packages; `search` are further folders of its PATH."""

    name: str
    packages: tuple[str, ...]
    search: tuple[str, ...] = ()


ROOTS = {
    root.name: root
    for root in (
        Root("python", ("ca-certificates", "python3", "python3-venv")),
        # PostgreSQL's programs are on the PATH, as they are in its vendor's image.
        Root("data", ("ca-certificates", "postgresql-15", "redis-server"), search=("/usr/lib/postgresql/15/bin",)),
        Root("java", ("ca-certificates", "openjdk-17-jre-headless")),
    )
}


def short_digest(text: str) -> str:
    """A name in the cache for what is made from `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def codename(os_release: str) -> str:
    """This machine's Debian release (os-release(5))."""
    match = re.search(r"^VERSION_CODENAME=\"?([a-z]+)", os_release, re.MULTILINE)
    if not match or not re.search(r"^ID=\"?debian", os_release, re.MULTILINE):
        raise Unsupported("images are bootstrapped from this machine's own package sources, which takes a Debian")
    return match.group(1)


def command(root: Root, release: str, sources: Path, options: list[Path], target: Path) -> list[str]:
    """mmdebstrap(1) for a root; `options` are apt configuration files of this machine that its sources need."""
    return [
        "mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", f"--include={','.join(root.packages)}",
        *(f"--aptopt={path}" for path in options),
        '--aptopt=Apt::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEAVE_OUT),
        # A JRE's alternatives name manual pages and fail without the folder.
        '--essential-hook=mkdir -p "$1/usr/share/man/man1"',
        f'--customize-hook=chroot "$1" groupadd --gid {USER} sophia',
        f'--customize-hook=chroot "$1" useradd --uid {USER} --gid {USER} --home-dir /tmp --no-create-home --shell /usr/sbin/nologin sophia',
        # The package makes a database cluster of its own.
        '--customize-hook=rm -rf "$1"/var/lib/postgresql/*/main "$1"/etc/postgresql/*/main',
        '--customize-hook=rm -f "$1/etc/resolv.conf" "$1/etc/hostname" "$1"/var/log/*.log',
        release, str(target), str(sources),
    ]


def _sources() -> Path:
    for path in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        if path.exists():
            return path
    raise Unsupported("no package sources under /etc/apt")


def _options() -> list[Path]:
    """apt settings about fetching (proxies, certificates, dates), which a bootstrapped apt needs as well."""
    return sorted(path for path in Path("/etc/apt/apt.conf.d").glob("*") if "Acquire::" in path.read_text(errors="replace"))


def image(name: str, layout: Layout, progress: Progress) -> Image:
    """The image of a root, bootstrapped where the cache lacks it."""
    root, release = ROOTS[name], codename(Path("/etc/os-release").read_text())
    shape = command(root, release, Path("sources"), [], Path("target"))
    target = layout.cache / "roots" / f"{name}-{short_digest(repr(shape))}.tar"
    if not target.exists():
        packages.install(packages.ROOTS)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part.tar")
        with progress.slow_step(f"bootstrap the {name} root"):
            run(*command(root, release, _sources(), _options(), part), environ={"SOURCE_DATE_EPOCH": "0"})
        part.rename(target)
    return Image((Layer.of(target),), Config(user=USER, command=("/bin/bash",), environment=(search_path(root.search),)))
