# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances: list, read, rename, launch, restart, terminate."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from .catalogue import IMAGES, REGIONS, Image
from .errors import CloudError
from .faults import Faults, Subject
from .records import Instance, region, shape
from .state import State
from .wire import Answer, Request

__all__ = ["instance_types", "launch", "listed", "read", "rename", "restart", "terminate"]

Name = Annotated[str, Meta(max_length=64)]


class ImageId(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`{"id"}` or `{"family"}`."""

    id: str | None = None
    family: str | None = None


class Tag(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tag; keys and values as the vendor's schema limits them."""

    key: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-:]+$", max_length=55)]
    value: Annotated[str, Meta(max_length=128)]


class Mount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a file system goes."""

    mount_point: Annotated[str, Meta(pattern=r"^(/home|/lambda/nfs|/data)[//a-zA-Z0-9-]*$", max_length=256)]
    file_system_id: str


class Id(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reference."""

    id: str


class Launch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /instance-operations/launch`. `quantity`, which older clients send, is not in it."""

    region_name: str
    instance_type_name: str
    ssh_key_names: Annotated[list[str], Meta(min_length=1, max_length=1)]
    name: Name | None = None
    hostname: Annotated[str, Meta(pattern=r"^[a-z0-9][0-9a-z-]{0,62}$")] | None = None
    image: ImageId | None = None
    user_data: Annotated[str, Meta(max_length=1_000_000)] | None = None
    tags: list[Tag] = []
    file_system_names: list[str] = []
    file_system_mounts: list[Mount] = []
    firewall_rulesets: list[Id] = []


class Ids(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of restart and terminate."""

    instance_ids: Annotated[list[str], Meta(min_length=1)]


class Rename(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /instances/{id}`."""

    name: Name | None = None


def listed(state: State, faults: Faults, request: Request) -> Answer:
    """`GET /instances`: in the order of their launch; older than now under the fault `stale`."""
    stale = faults.find("during", Subject(request.path, request.method), "stale")
    moment = state.now() - (stale.seconds if stale else 0.0)
    rows = [row for item in state.instances.values() if (row := item.view(moment, state.config.linger_seconds))]
    size = state.config.page_size
    if not size:
        return Answer.of({"data": rows})
    token = request.query.get("page_token", "0")
    if not token.isdigit():
        raise CloudError("global/invalid-parameters")
    start = int(token)
    page: dict[str, Any] = {"data": rows[start : start + size]}
    if start + size < len(rows):
        page["page_token"] = str(start + size)
    return Answer.of(page)


def read(state: State, faults: Faults, request: Request, instance_id: str) -> Answer:
    """`GET /instances/{id}`: never stale."""
    return Answer.of({"data": _view(state, _find(state, instance_id))})


def rename(state: State, faults: Faults, request: Request, instance_id: str) -> Answer:
    """`POST /instances/{id}`: a new name, and nothing else."""
    instance = _find(state, instance_id)
    instance.name = request.read(Rename).name
    return Answer.of({"data": _view(state, instance)})


def instance_types(state: State, faults: Faults, request: Request) -> Answer:
    """`GET /instance-types`: a map, not a list."""
    return Answer.of(
        {
            "data": {
                kind.name: {
                    "instance_type": shape(kind),
                    "regions_with_capacity_available": [region(name) for name in state.regions_of(kind)],
                }
                for kind in state.types.values()
            }
        }
    )


def launch(state: State, faults: Faults, request: Request) -> Answer:
    """`POST /instance-operations/launch`: one instance."""
    body = request.read(Launch)
    subject = Subject(request.path, request.method, body.region_name, body.instance_type_name)
    kind = state.types.get(body.instance_type_name)
    if body.region_name not in REGIONS or kind is None:
        raise CloudError("global/invalid-parameters", "No such region or instance type.")
    systems, mounts = _systems(state, body)
    _check_references(state, body)
    image = _image(body.image, body.region_name, kind.arm)
    if len(state.alive()) >= state.quota:
        raise CloudError("global/quota-exceeded")
    lied = faults.find("during", subject, "insufficient_capacity") is not None
    if lied or not state.room(kind.name, body.region_name):
        raise CloudError("instance-operations/launch/insufficient-capacity")
    shortest, longest = state.config.boot_seconds if kind.gpus <= 2 else state.config.boot_seconds_large
    slow = faults.find("during", subject, "slow_boot")
    number = len(state.instances) + 1
    instance = Instance(
        id=state.new_id(),
        launched=state.now(),
        boots_in=state.random.uniform(shortest, longest) + (slow.seconds if slow else 0.0),
        healthy=faults.find("during", subject, "unhealthy") is None,
        kind=kind,
        region=body.region_name,
        ip=state.address(),
        private_ip=f"10.19.{number // 250 % 250}.{1 + number % 250}",
        token=state.new_id(),
        name=body.name,
        hostname=body.hostname,
        ssh_keys=body.ssh_key_names,
        file_systems=systems,
        mounts=mounts,
        tags=[{"key": tag.key, "value": tag.value} for tag in body.tags],
        rulesets=[item.id for item in body.firewall_rulesets],
        image=image.id,
        user_data=body.user_data,
    )
    state.instances[instance.id] = instance
    return Answer.of({"data": {"instance_ids": [instance.id]}})


def terminate(state: State, faults: Faults, request: Request) -> Answer:
    """`POST /instance-operations/terminate`: says yes, and takes its time."""
    found = [_find(state, item) for item in request.read(Ids).instance_ids]
    now = state.now()
    subject = Subject(request.path, request.method)
    for instance in found:
        if faults.find("during", subject, "ignore_terminate") is not None:
            continue
        slow = faults.find("during", subject, "slow_terminate")
        state.end(instance, now, slow.seconds if slow else 0.0)
    return Answer.of({"data": {"terminated_instances": [_view(state, item) for item in found]}})


def restart(state: State, faults: Faults, request: Request) -> Answer:
    """`POST /instance-operations/restart`: boots again; 409 for what is not up."""
    found = [_find(state, item) for item in request.read(Ids).instance_ids]
    now = state.now()
    if any(item.status(now, 0.0) not in ("active", "unhealthy") for item in found):
        raise CloudError("global/conflict")
    for instance in found:
        instance.boots_in = now - instance.launched + 60.0
        instance.became = None
    return Answer.of({"data": {"restarted_instances": [_view(state, item) for item in found]}})


def _find(state: State, instance_id: str) -> Instance:
    instance = state.instances.get(instance_id)
    if instance is None or instance.status(state.now(), state.config.linger_seconds) is None:
        raise CloudError("global/object-does-not-exist", "Specified instance does not exist.")
    return instance


def _view(state: State, instance: Instance) -> dict[str, Any]:
    return instance.view(state.now(), state.config.linger_seconds) or {}


def _missing(what: str) -> CloudError:
    # The launch answers 400 for what is 404 everywhere else.
    return CloudError("global/object-does-not-exist", f"Specified {what} does not exist.", status=400)


def _systems(state: State, body: Launch) -> tuple[list[str], list[dict[str, str]]]:
    by_name = {item.name: item for item in state.file_systems.values()}
    found = []
    mounts = []
    for name in body.file_system_names:
        if name not in by_name:
            raise _missing("file system")
        found.append(by_name[name])
        mounts.append({"mount_point": f"/lambda/nfs/{name}", "file_system_id": by_name[name].id})
    for mount in body.file_system_mounts:
        system = state.file_systems.get(mount.file_system_id)
        if system is None:
            raise _missing("file system")
        found.append(system)
        mounts = [item for item in mounts if item["file_system_id"] != system.id]
        mounts.append({"mount_point": mount.mount_point, "file_system_id": system.id})
    if any(item.region != body.region_name for item in found):
        raise CloudError("instance-operations/launch/file-system-in-wrong-region")
    return list(dict.fromkeys(item.name for item in found)), mounts


def _check_references(state: State, body: Launch) -> None:
    names = {key.name for key in state.ssh_keys.values()}
    if not names.issuperset(body.ssh_key_names):
        raise _missing("SSH key")
    for item in body.firewall_rulesets:
        ruleset = state.rulesets.get(item.id)
        if ruleset is None or ruleset.region != body.region_name:
            raise _missing("firewall ruleset")


def _image(wanted: ImageId | None, region_name: str, arm: bool) -> Image:
    """The image of a launch: by id, or the newest of a family; the vendor's own stack if none is named."""
    architecture = "arm64" if arm else "x86_64"
    if wanted is not None and (wanted.id is None) == (wanted.family is None):
        raise CloudError("global/invalid-parameters", "image: either id or family.")
    if wanted is not None and wanted.id is not None:
        image = IMAGES.get(wanted.id)
        if image is None:
            raise _missing("image")
        return image
    family = "lambda-stack-22-04" if wanted is None else wanted.family
    found = [item for item in IMAGES.values() if item.family == family and item.region == region_name]
    # The stand-in has one architecture a region; the vendor sells x86 beside arm in some.
    found = [item for item in found if item.architecture == architecture] or found
    if not found:
        raise _missing("image")
    return max(found, key=lambda item: item.version)
