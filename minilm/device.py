"""Where an array lives, and which module computes with it.

Everything asks the array itself: NumPy arrays are computed by NumPy, CuPy arrays by CuPy, and no
code above this file names either.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

import numpy as np

from minilm.errors import DeviceError


def available_cpus() -> int:
    """The CPUs that this process may use, which in a container are fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def array_module(array: Any) -> ModuleType:
    """The module whose functions take `array`: numpy, or cupy for an array on a GPU."""
    if isinstance(array, (np.ndarray, np.generic)):
        return np
    cupy = sys.modules.get("cupy")  # an array of CuPy exists only where CuPy is loaded already
    if cupy is not None and isinstance(array, cupy.ndarray):
        return cupy
    return np


class Device:
    """The name of a place for arrays: `Device("cpu")`, `Device("cuda")`, `Device("cuda:1")`; None is the CPU.

    Errors: DeviceError for a name that means nothing here.
    """

    __slots__ = ("index", "type")

    def __init__(self, name: str | Device | None) -> None:
        kind, _, index = ("cpu" if name is None else str(name)).partition(":")
        if kind not in ("cpu", "cuda") or not (index == "" or index.isdecimal()):
            raise DeviceError(f"there is no device {str(name)!r}: the devices are 'cpu', 'cuda' and 'cuda:N'")
        self.type = kind
        self.index = int(index) if index else (0 if kind == "cuda" else None)

    @classmethod
    def of(cls, array: Any) -> Device:
        """The device that holds `array`."""
        if array_module(array) is np:
            return CPU
        return cls(f"cuda:{array.device.id}")

    def receive(self, array: Any) -> Any:
        """`array` as an array on this device; the same object if it is there already.

        Errors: DeviceError that says what is missing, CuPy or the GPU.
        """
        if Device.of(array) == self:
            return array
        if self.type == "cpu":
            return array.get()
        return _cupy_on(self).asarray(array)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return str(self) == other or self.type == other
        return isinstance(other, Device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        return f"device(type={self.type!r})" if self.index is None else f"device({str(self)!r})"


CPU = Device("cpu")


def _cupy_on(device: Device) -> Any:
    """CuPy with `device` selected, or the reason why not."""
    try:
        import cupy  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise DeviceError(
            f"device {str(device)!r} needs the package CuPy, which is not installed here "
            "(pip install cupy-cuda12x); the CPU serves everything: t.to('cpu')"
        ) from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DeviceError(f"device {str(device)!r}: CuPy is installed but finds no GPU ({error})") from None
    if device.index is not None and device.index >= count:
        raise DeviceError(f"device {str(device)!r}: this machine has {count} GPU(s), numbered from 0")
    cupy.cuda.Device(device.index).use()
    return cupy
