# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs built from pinned Go modules, kept outside the repository by what they were built from.

A folder under `modules/` is one module graph, pinned by its go.mod and go.sum; what its programs have in common compiles once. A group is
some of a graph's programs that are wanted together. What is kept of a build are its stripped programs and the files it lists (charts, manifests).
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import toolchain
from .errors import CommandFailed
from .layout import Layout
from .progress import Progress
from .shell import output, run

__all__ = ["GROUPS", "Group", "Programs", "build", "forget_compiler", "key", "program_of"]

MODULES = Path(__file__).parent / "modules"
_KUBERNETES = "1.34.4"


@dataclass(frozen=True)
class Group:
    """`packages`: a program's name to its Go package. `files`: name to keep to (module, path in it). `tags` are build constraints."""

    name: str
    module: str
    packages: Mapping[str, str]
    flags: str = "-s -w"
    tags: str = ""
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return MODULES / self.module


GROUPS = {
    group.name: group
    for group in (
        Group(
            "kubernetes", "kubernetes",
            {"etcd": "go.etcd.io/etcd/server/v3"} | {
                name: f"k8s.io/kubernetes/cmd/{name}"
                for name in ("kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet")
            },
            flags=f"-s -w -X k8s.io/component-base/version.gitVersion=v{_KUBERNETES}"
                  " -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34",
        ),
        Group("registry", "addons", {"registry": "github.com/distribution/distribution/v3/cmd/registry"}),
        Group("dns", "addons", {"coredns": "github.com/coredns/coredns"}),
        # Alone, since it writes the import path of logrus in the old way, and Go takes no two spellings of a path in one command.
        Group("storage", "addons", {"local-path-provisioner": "github.com/rancher/local-path-provisioner"}),
        Group(
            "gateway", "addons", {"envoy-gateway": "github.com/envoyproxy/gateway/cmd/envoy-gateway", "helm": "helm.sh/helm/v3/cmd/helm"},
            files={
                "gateway-helm": ("github.com/envoyproxy/gateway", "charts/gateway-helm"),
                "gateway-crds-helm": ("github.com/envoyproxy/gateway", "charts/gateway-crds-helm"),
            },
        ),
        Group(
            "metrics", "addons", {"metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server"},
            files={"manifests": ("sigs.k8s.io/metrics-server", "manifests/base")},
        ),
        # Of Prometheus' kinds of discovery, Kubernetes' alone: the others would bring every cloud's library.
        Group(
            "monitoring", "monitoring", {name: f"github.com/prometheus/prometheus/cmd/{name}" for name in ("prometheus", "promtool")},
            tags="remove_all_sd,enable_kubernetes_sd",
        ),
        Group(
            "certificates", "certificates", {"cert-manager": "github.com/cert-manager/cert-manager/cmd/controller"},
            files={"crds": ("github.com/cert-manager/cert-manager", "deploy/crds")},
        ),
        Group(
            "keda", "keda", {"keda": "github.com/kedacore/keda/v2/cmd/operator", "keda-adapter": "github.com/kedacore/keda/v2/cmd/adapter"},
            files={"config": ("github.com/kedacore/keda/v2", "config")},
        ),
    )
}


@dataclass(frozen=True)
class Programs:
    """A group that is built: folders of its programs and its files."""

    folder: Path

    @property
    def programs(self) -> Path:
        return self.folder / "bin"

    @property
    def files(self) -> Path:
        return self.folder / "files"


def program_of(package: str) -> str:
    """The name that Go gives a package's program: the last element of its path that is no major version."""
    *_, parent, last = package.split("/")
    return parent if re.fullmatch(r"v[2-9]\d*", last) else last


def key(group: Group, go: str) -> str:
    """What a build depends on: the module files, the Go, the flags, and what is kept."""
    parts = [(group.folder / name).read_text() for name in ("go.mod", "go.sum")]
    parts += [go, group.flags, group.tags, repr(sorted(group.packages.items())), repr(sorted(group.files.items()))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def build(names: list[str], layout: Layout, progress: Progress) -> dict[str, Programs]:
    """Build the groups that are not kept yet, in the given order; the compiler's cache is shared by them and stays for the next call.

    One call builds at a time; another waits for it and finds its programs. Raises CommandFailed with the compiler's last lines.
    """
    wanted = toolchain.needed([(group.folder / "go.mod").read_text() for group in GROUPS.values()])
    go, version = toolchain.find(wanted, layout.cache)
    built = {name: Programs(layout.cache / "builds" / f"{name}-{key(GROUPS[name], version)}") for name in names}
    if not all(programs.folder.exists() for programs in built.values()):
        with _alone(layout):
            for name, programs in built.items():
                if not programs.folder.exists():
                    with progress.slow_step(f"build {name} with {version}"):
                        _build(GROUPS[name], go, layout.cache, programs.folder)
    return built


@contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    layout.cache.mkdir(parents=True, exist_ok=True)
    with (layout.cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(group: Group, go: str, cache: Path, target: Path) -> None:
    """Build into a folder beside the target and move it there when it is whole."""
    environ = {
        "GOCACHE": str(cache / "go/build"), "GOMODCACHE": str(cache / "go/modules"), "GOTOOLCHAIN": "local", "CGO_ENABLED": "0",
        "GOFLAGS": "-buildvcs=false -mod=readonly",
    }
    part = target.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "bin").mkdir(parents=True)
    # One command for all of them, so that one program is linked while another still compiles.
    packages = [*group.packages.values()]
    run(go, "build", "-trimpath", "-ldflags", group.flags, "-tags", group.tags, "-o", f"{part / 'bin'}/", *packages, environ=environ, cwd=group.folder)
    for name, package in group.packages.items():
        if (own := program_of(package)) != name:
            (part / "bin" / own).rename(part / "bin" / name)
    for name, (module, path) in group.files.items():
        source = output(go, "list", "-m", "-f", "{{.Dir}}", module, environ=environ, cwd=group.folder).strip()
        if not source:
            raise CommandFailed(f"{module} is not in {group.name}'s module graph")
        shutil.copytree(Path(source) / path, part / "files" / name, copy_function=_copy)
    _writable(part)
    part.rename(target)


def _copy(source: str, target: str) -> None:
    shutil.copyfile(source, target)


def _writable(folder: Path) -> None:
    """The module cache's folders are read-only, and copies of them take that along."""
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)


def forget_compiler(layout: Layout) -> None:
    """Remove the compiler's cache (several GB); the programs stay."""
    go = layout.cache / "go"
    with _alone(layout):
        # Asked for when it is this call's turn: the one before may have removed it.
        if go.exists():
            for path in (go, *(path for path in go.rglob("*") if path.is_dir() and not path.is_symlink())):
                path.chmod(0o755)
            shutil.rmtree(go)
