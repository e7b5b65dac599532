# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stand-in sells: instance types, regions, images.

Prices are the vendor's of 2026-05-28, in cents an hour for the whole instance, as third parties saw them; the vendor
changes them. Where a type has capacity is made up.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

__all__ = ["IMAGES", "REGIONS", "TYPES", "Image", "Type"]

REGIONS = {
    "us-east-1": "Virginia, USA",
    "us-east-3": "Washington D.C., USA",
    "us-west-1": "California, USA",
    "us-west-2": "Arizona, USA",
    "us-south-1": "Texas, USA",
    "us-midwest-1": "Illinois, USA",
    "europe-central-1": "Germany",
    "asia-south-1": "India",
    "asia-northeast-1": "Osaka, Japan",
    "me-west-1": "Israel",
}
_GH200 = ("us-east-3",)
_COMMON = ("us-east-1", "us-west-1", "us-west-2", "us-south-1", "us-midwest-1", "europe-central-1", "asia-south-1")


@dataclass(frozen=True, slots=True)
class Type:
    """An instance type; memory and storage in GiB, price in cents an hour."""

    name: str
    description: str
    gpu: str
    cents: int
    vcpus: int
    memory: int
    storage: int
    gpus: int
    regions: tuple[str, ...] = _COMMON
    arm: bool = False


def _type(name: str, gpu: str, cents: int, size: tuple[int, int, int], regions: tuple[str, ...] = _COMMON) -> Type:
    gpus = 0 if name.startswith("cpu_") else int(name.split("_")[1].removesuffix("x"))
    description = f"{gpus}x {gpu}" if gpus else "4x CPU General"
    return Type(name, description, gpu if gpus else "N/A", cents, *size, gpus, regions, arm="gh200" in name)


TYPES = {
    item.name: item
    for item in (
        _type("cpu_4x_general", "N/A", 20, (4, 16, 100)),
        _type("gpu_1x_rtx6000", "RTX 6000 (24 GB)", 69, (14, 46, 512)),
        _type("gpu_1x_a6000", "A6000 (48 GB)", 109, (14, 100, 200)),
        _type("gpu_1x_a10", "A10 (24 GB PCIe)", 129, (30, 200, 1400)),
        _type("gpu_1x_a100", "A100 (40 GB PCIe)", 199, (30, 200, 512)),
        _type("gpu_1x_a100_sxm4", "A100 (40 GB SXM4)", 199, (30, 200, 512)),
        _type("gpu_1x_gh200", "GH200 (96 GB)", 229, (64, 432, 4096), _GH200),
        _type("gpu_1x_h100_pcie", "H100 (80 GB PCIe)", 329, (26, 200, 1024)),
        _type("gpu_1x_h100_sxm5", "H100 (80 GB SXM5)", 429, (26, 225, 2816)),
        _type("gpu_1x_b200_sxm6", "B200 (180 GB SXM6)", 699, (26, 360, 2816)),
        _type("gpu_2x_a6000", "A6000 (48 GB)", 218, (28, 200, 1024)),
        _type("gpu_2x_a100", "A100 (40 GB PCIe)", 398, (60, 400, 1024)),
        _type("gpu_2x_h100_sxm5", "H100 (80 GB SXM5)", 838, (52, 450, 5632)),
        _type("gpu_4x_a6000", "A6000 (48 GB)", 436, (56, 400, 1024)),
        _type("gpu_4x_a100", "A100 (40 GB PCIe)", 796, (120, 800, 1024)),
        _type("gpu_4x_h100_sxm5", "H100 (80 GB SXM5)", 1636, (104, 900, 11264)),
        _type("gpu_8x_a100", "A100 (40 GB SXM4)", 1592, (124, 1800, 6144)),
        _type("gpu_8x_a100_80gb_sxm4", "A100 (80 GB SXM4)", 2232, (240, 1800, 19456)),
        _type("gpu_8x_h100_sxm5", "H100 (80 GB SXM5)", 3192, (208, 1800, 22528)),
        _type("gpu_8x_b200_sxm6", "B200 (180 GB SXM6)", 5352, (208, 2900, 22528)),
        _type("gpu_8x_v100", "V100 (16 GB)", 632, (88, 448, 6041)),
    )
}


@dataclass(frozen=True, slots=True)
class Image:
    """A machine image in one region."""

    id: str
    name: str
    family: str
    version: str
    architecture: str
    region: str


def _images() -> dict[str, Image]:
    made: dict[str, Image] = {}
    for family, name in (("lambda-stack-22-04", "Lambda Stack 22.04"), ("gpu-base-24-04", "GPU Base 24.04")):
        for region in REGIONS:
            for version in ("22.4.1", "22.4.2") if family.startswith("lambda") else ("24.4.1",):
                architecture = "arm64" if region in _GH200 else "x86_64"
                image_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{family}/{version}/{region}/{architecture}"))
                made[image_id] = Image(image_id, name, family, version, architecture, region)
    return made


IMAGES = _images()
