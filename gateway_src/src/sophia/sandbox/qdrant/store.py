# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything the stand-in keeps: collections, aliases, snapshots."""

from __future__ import annotations

import datetime
import hashlib
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import orjson

from .collection import Collection
from .config import Config
from .errors import ServiceError, no_collection, wrong
from .files import write
from .schema import CreateCollection, initial

__all__ = ["Store"]

Json = dict[str, Any]


class Store:
    """The folder `config.storage`, open. What a kill left half done is removed at start."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._root = config.storage / "collections"
        self._snapshots = config.storage / "snapshots"
        self._aliases_file = config.storage / "aliases.json"
        for folder in (self._root, self._snapshots):
            folder.mkdir(parents=True, exist_ok=True)
        for left in [*self._root.glob(".*"), *self._snapshots.glob("*/.*")]:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        self.collections: dict[str, Collection] = {}
        for folder in sorted(self._root.iterdir()):
            found = Collection(folder, optimize=config.optimize)
            self.collections[found.name] = found
        self.aliases: dict[str, str] = {}
        if self._aliases_file.exists():
            known = orjson.loads(self._aliases_file.read_bytes())
            self.aliases = {alias: name for alias, name in known.items() if name in self.collections}

    def get(self, name: str) -> Collection:
        """A collection by its name or an alias. Raises `ServiceError` 404."""
        found = self.collections.get(self.aliases.get(name, name))
        if found is None:
            raise no_collection(name)
        return found

    def create(self, name: str, body: CreateCollection) -> None:
        """Make a collection. Raises `ServiceError` 409 for a name that is taken, 400."""
        if name in self.collections:
            raise ServiceError(409, f"Wrong input: Collection `{name}` already exists!")
        if name in self.aliases:
            raise wrong(f"Can't create collection with name {name}. Alias with the same name already exists")
        if not name or len(name) > 255 or any(c in '<>:"/\\|?*\0' for c in name):
            raise ServiceError(422, "Validation error in path parameters: collection name")
        Collection.create(self._folder(name), name, initial(body))
        self.collections[name] = Collection(self._folder(name), optimize=self.config.optimize)

    async def delete(self, name: str) -> bool:
        """Remove a collection and its aliases; return whether it was there."""
        found = self.collections.get(name)
        if found is None:
            return False
        await found.settle()
        if self.collections.pop(name, None) is None:
            return False
        self._set_aliases({alias: target for alias, target in self.aliases.items() if target != name})
        found.close()
        trash = self._root / (".trash-" + found.folder.name)
        found.folder.rename(trash)
        shutil.rmtree(trash)
        return True

    def change_aliases(self, actions: list[Json]) -> None:
        """Apply all actions in their order, or none. Raises `ServiceError`."""
        after = dict(self.aliases)
        for action in actions:
            match action:
                case {"create_alias": {"collection_name": name, "alias_name": alias}}:
                    if alias in self.collections:
                        raise ServiceError(409, f"Wrong input: Collection with the same name as alias {alias} exists")
                    if name not in self.collections:
                        raise no_collection(name)
                    after[alias] = name
                case {"delete_alias": {"alias_name": alias}}:
                    after.pop(alias, None)
                case {"rename_alias": {"old_alias_name": old, "new_alias_name": new}}:
                    if old not in after:
                        raise ServiceError(404, f"Not found: Alias {old} does not exists!")
                    after[new] = after.pop(old)
                case _:
                    raise ServiceError(400, "Format error in JSON body: unknown alias operation")
        self._set_aliases(after)

    def aliases_of(self, name: str | None = None) -> list[Json]:
        """The aliases, of one collection or all."""
        return [
            {"alias_name": alias, "collection_name": target}
            for alias, target in sorted(self.aliases.items())
            if name is None or target == name
        ]

    def reset(self) -> None:
        """Forget everything. The indexes must be at rest."""
        for found in self.collections.values():
            found.close()
        self.collections = {}
        self._set_aliases({})
        for folder in (self._root, self._snapshots):
            shutil.rmtree(folder)
            folder.mkdir()

    def close(self) -> None:
        """Flush and close everything. The indexes must be at rest."""
        for found in self.collections.values():
            found.close()

    def snapshot(self, name: str) -> Json:
        """Make a snapshot of a collection: a compressed tar of its folder, flushed. Not the server's format."""
        found = self.get(name)
        found.flush()
        now = datetime.datetime.now(datetime.UTC)
        label = f"{found.name}-{now:%Y-%m-%d-%H-%M-%S-%f}.snapshot"
        folder = self._snapshots / quote(found.name, safe="")
        folder.mkdir(exist_ok=True)
        fresh = folder / ("." + quote(label, safe=""))
        with tarfile.open(fresh, "w:gz", compresslevel=1) as tar:
            tar.add(found.folder, arcname=".")
        with fresh.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        path = folder / quote(label, safe="")
        write(path.with_suffix(".sha256"), digest.encode())
        fresh.rename(path)
        return _described(path, label)

    def snapshots(self, name: str) -> list[Json]:
        """The snapshots of a collection, the oldest first."""
        folder = self._snapshots / quote(self.get(name).name, safe="")
        return [_described(path, path.name) for path in sorted(folder.glob("*.snapshot"))]

    def snapshot_file(self, name: str, label: str) -> Path:
        """Where a snapshot lies. Raises `ServiceError` 404."""
        path = self._snapshots / quote(self.get(name).name, safe="") / quote(label, safe="")
        if not path.is_file() or path.suffix != ".snapshot":
            raise ServiceError(404, f"Not found: Snapshot {label} not found")
        return path

    def delete_snapshot(self, name: str, label: str) -> None:
        """Remove a snapshot. Raises `ServiceError` 404."""
        path = self.snapshot_file(name, label)
        path.unlink()
        path.with_suffix(".sha256").unlink(missing_ok=True)

    async def recover(self, name: str, tar: Path, checksum: str | None) -> None:
        """Replace a collection by what a snapshot holds. Raises `ServiceError` 400 for what is none, or is another."""
        digest = _digest(tar)
        if checksum is not None and checksum != digest:
            raise wrong(f"Snapshot checksum mismatch: expected {checksum}, got {digest}")
        with tempfile.TemporaryDirectory(dir=self._root, prefix=".recover-") as folder:
            fresh = Path(folder) / "collection"
            try:
                with tarfile.open(tar) as archive:
                    _extract(archive, fresh)
                document = orjson.loads((fresh / "collection.json").read_bytes())
            except (tarfile.TarError, OSError, orjson.JSONDecodeError) as error:
                raise wrong(f"not a snapshot of this stand-in: {error}") from error
            write(fresh / "collection.json", orjson.dumps({**document, "name": name}))
            kept = {alias for alias, target in self.aliases.items() if target == name}
            await self.delete(name)
            fresh.rename(self._folder(name))
        self.collections[name] = Collection(self._folder(name), optimize=self.config.optimize)
        self._set_aliases(self.aliases | dict.fromkeys(kept, name))

    def _folder(self, name: str) -> Path:
        return self._root / quote(name, safe="").replace(".", "%2E")

    def _set_aliases(self, aliases: dict[str, str]) -> None:
        if aliases != self.aliases:
            write(self._aliases_file, orjson.dumps(aliases))
            self.aliases = aliases


def _extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Unpack plain files and folders, and nothing that would be outside. Raises `tarfile.TarError`.

    Python before 3.11.4 has no filters (PEP 706), which do the same and more where they are.
    """
    members = archive.getmembers()
    for member in members:
        path = PurePosixPath(member.name)
        if not (member.isreg() or member.isdir()) or path.is_absolute() or ".." in path.parts:
            raise tarfile.TarError(f"{member.name} is no plain file")
    if hasattr(tarfile, "data_filter"):
        archive.extraction_filter = tarfile.data_filter
    archive.extractall(folder, members)  # noqa: S202 - looked through above


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise wrong(f"Snapshot file {path}: {error.strerror}") from error


def _described(path: Path, label: str) -> Json:
    stat = path.stat()
    created = datetime.datetime.fromtimestamp(stat.st_mtime, datetime.UTC)
    return {
        "name": label,
        "creation_time": created.strftime("%Y-%m-%dT%H:%M:%S"),
        "size": stat.st_size,
        "checksum": path.with_suffix(".sha256").read_text(),
    }
