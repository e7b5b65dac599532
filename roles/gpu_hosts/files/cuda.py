# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Initialise CUDA on every GPU, for real, and print what came of it as JSON. Exit 0 only if all of them work.

usage: cuda.py [LIBRARY]

`nvidia-smi` talks to the driver alone and is content where CUDA is not (error 802, "system not yet initialized", while the
fabric manager of an HGX board is down). So the driver's library is loaded as every program does it: a context is made on
each device, and memory is allocated, written and read back. Standard library only.
Source: https://docs.nvidia.com/cuda/cuda-driver-api/.
"""

from __future__ import annotations

import ctypes
import json
import sys

BYTES = 1 << 20
PATTERN = 0x5A
_NAME = 256


class Broken(Exception):
    """A call to the driver failed."""


class Driver:
    """The calls that are needed, each raising :class:`Broken` with the driver's own words."""

    def __init__(self, library: str) -> None:
        try:
            self._cuda = ctypes.CDLL(library)
        except OSError as error:
            raise Broken(f"{library}: {error}") from None

    def call(self, function: str, *arguments: object) -> None:
        status = getattr(self._cuda, function)(*arguments)
        if status:
            name, text = ctypes.c_char_p(), ctypes.c_char_p()
            self._cuda.cuGetErrorName(status, ctypes.byref(name))
            self._cuda.cuGetErrorString(status, ctypes.byref(text))
            raise Broken(f"{function}: {(name.value or b'?').decode()} ({status}): {(text.value or b'?').decode()}")

    def count(self) -> int:
        self.call("cuInit", 0)
        found = ctypes.c_int()
        self.call("cuDeviceGetCount", ctypes.byref(found))
        return found.value

    def version(self) -> str:
        found = ctypes.c_int()
        self.call("cuDriverGetVersion", ctypes.byref(found))
        return f"{found.value // 1000}.{found.value % 1000 // 10}"

    def name(self, device: int) -> str:
        text = ctypes.create_string_buffer(_NAME)
        self.call("cuDeviceGetName", text, _NAME, device)
        return text.value.decode()

    def try_memory(self, device: int) -> None:
        """Make a context, and write and read memory in it."""
        context, memory = ctypes.c_void_p(), ctypes.c_uint64()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        try:
            self.call("cuCtxSetCurrent", context)
            self.call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(BYTES))
            back = (ctypes.c_ubyte * BYTES)()
            self.call("cuMemsetD8_v2", memory, ctypes.c_ubyte(PATTERN), ctypes.c_size_t(BYTES))
            self.call("cuMemcpyDtoH_v2", back, memory, ctypes.c_size_t(BYTES))
            self.call("cuMemFree_v2", memory)
            if bytes(back) != bytes([PATTERN]) * BYTES:
                raise Broken("the memory does not hold what was written to it")
        finally:
            self._cuda.cuDevicePrimaryCtxRelease_v2(device)


def look(library: str) -> dict[str, object]:
    """Return what works: the version of CUDA that the driver has, the devices, and what is wrong, if anything."""
    devices: list[str] = []
    try:
        driver = Driver(library)
        found = driver.count()
        version = driver.version()
        for number in range(found):
            device = ctypes.c_int()
            driver.call("cuDeviceGet", ctypes.byref(device), number)
            driver.try_memory(device.value)
            devices.append(driver.name(device.value))
    except Broken as error:
        return {"ok": False, "devices": devices, "trouble": str(error)}
    except AttributeError as error:
        return {"ok": False, "devices": devices, "trouble": f"{library} is no CUDA driver: {error}"}
    return {"ok": bool(devices), "devices": devices, "cuda": version, "trouble": None if devices else "no device"}


def main() -> int:
    found = look(sys.argv[1] if len(sys.argv) > 1 else "libcuda.so.1")
    print(json.dumps(found))
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
