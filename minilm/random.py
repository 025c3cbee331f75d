"""Random tensors, and the generators that they are drawn from.

A generator is a seed and a count of what was drawn so far: its n-th number is a function of the two
(Philox, minilm/kernels/philox.py), the same on every machine and for every backend.
"""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilm import dtypes, kernels
from minilm.creation import shape_of
from minilm.device import Device
from minilm.errors import DtypeError, ShapeError
from minilm.tensor import Tensor

Array = Any


class Generator:
    """A source of random numbers, given to functions as `generator=`.

    Args:
        seed: which sequence of numbers; the same seed gives the same ones.
    Errors: ValueError for a seed outside 0 ... 2**64 - 1.
    """

    def __init__(self, seed: int = 0) -> None:
        self._lock = threading.Lock()
        self.manual_seed(seed)

    def manual_seed(self, seed: int) -> Generator:
        """Begin anew with `seed`."""
        if not 0 <= int(seed) < 2**64:
            raise ValueError(f"manual_seed: a seed is a whole number from 0 to 2**64 - 1, not {seed}")
        with self._lock:
            self._seed, self._block = int(seed), 0
        return self

    def seed(self) -> int:
        """Begin anew with a seed that nobody can foresee, and return it."""
        self.manual_seed(secrets.randbits(63))
        return self._seed

    def initial_seed(self) -> int:
        """The seed it began with."""
        return self._seed

    def get_state(self) -> tuple[int, int]:
        """The seed and how far it has come: `set_state` continues exactly there."""
        return self._seed, self._block

    def set_state(self, state: tuple[int, int]) -> Generator:
        """Continue from a state that `get_state` gave."""
        with self._lock:
            self._seed, self._block = int(state[0]), int(state[1])
        return self

    def bits(self, count: int) -> Array:
        """`count` random uint32, (count,)."""
        with self._lock:
            start = self._block
            self._block += -(-count // 4)
        return kernels.philox(self._seed, 0, start, count)  # type: ignore[operator]  # also a module

    def uniform(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        """Uniform in [0, 1), an array: 24 random bits for each float32, 53 for each float64."""
        count = math.prod(shape)
        if np.dtype(dtype) == np.float64:
            high, low = self.bits(2 * count).reshape(2, count)
            whole = ((high >> np.uint32(5)).astype(np.uint64) << np.uint64(26)) | (low >> np.uint32(6))
            return (whole * 2.0**-53).reshape(shape)
        drawn = (self.bits(count) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
        return drawn.astype(dtype, copy=False).reshape(shape)

    def uniform_part(self, shape: tuple[int, ...], part: Part) -> Array:
        """Of the float32 numbers that `uniform` would draw for all examples those of a part, (part.count, ...)."""
        rest = math.prod(shape[1:])
        first = part.first * rest
        with self._lock:
            start = self._block
            self._block += -(-part.total * rest // 4)
        ahead = first % 4  # numbers come in blocks of four
        drawn = kernels.philox(self._seed, 0, start + first // 4, ahead + math.prod(shape))[ahead:]  # type: ignore[operator]
        return ((drawn >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)).reshape(shape)

    def normal(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        """Normal with mean 0 and standard deviation 1, an array: Box & Muller 1958, two at a time."""
        count = math.prod(shape)
        wide = np.float64 if np.dtype(dtype) == np.float64 else np.float32
        half = -(-count // 2)
        u, v = self.uniform((2, half), wide)
        radius = np.sqrt(-2 * np.log1p(-u))  # 1 - u lies in (0, 1]: its logarithm is finite
        angle = v * wide(2 * math.pi)
        both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
        return both[:count].astype(dtype, copy=False).reshape(shape)

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> Array:
        """Whole numbers from `low` up to but without `high`, int64; their probabilities differ by less than 2**-32."""
        upper, lower = self.bits(2 * math.prod(shape)).reshape(2, -1).astype(np.uint64)
        spread = np.uint64(high - low)
        if spread <= np.uint64(2**32):  # floor(64 random bits * spread / 2**64), in two halves
            drawn = (upper * spread + (lower * spread >> np.uint64(32))) >> np.uint64(32)
        else:
            drawn = (upper << np.uint64(32) | lower) % spread
        return (drawn.astype(np.int64) + low).reshape(shape)


default_generator = Generator()


@dataclass(frozen=True)
class Part:
    """Which examples of a batch are at hand: `count` of `total`, from `first` on."""

    first: int
    count: int
    total: int


_part = threading.local()


@contextmanager
def examples(first: int, count: int, total: int) -> Iterator[None]:
    """Within, dropout's numbers are those that these examples have in the whole batch.

    So a batch in several parts, each begun with the same seed, drops what it would in one. An array belongs to the
    examples if its first axis has their number.
    """
    with the_part(Part(first, count, total) if count < total else None):
        yield


@contextmanager
def the_part(part: Part | None) -> Iterator[None]:
    """The same for a part that `current_part` gave."""
    before = current_part()
    _part.now = part
    try:
        yield
    finally:
        _part.now = before


def current_part() -> Part | None:
    """The part of a batch that `examples` named; None for a whole one."""
    return getattr(_part, "now", None)


def manual_seed(seed: int) -> Generator:
    """Let everything that draws without a generator of its own begin anew with `seed`."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Begin anew with a seed that nobody can foresee, and return it."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed in use."""
    return default_generator.initial_seed()


def get_rng_state() -> tuple[int, int]:
    """Where the default generator stands."""
    return default_generator.get_state()


def set_rng_state(state: tuple[int, int]) -> None:
    """Put the default generator back to where `get_rng_state` found it."""
    default_generator.set_state(state)


def rand(
    *size: Any, dtype: Any = None, device: Any = "cpu", requires_grad: bool = False, generator: Generator | None = None
) -> Tensor:
    """Uniform in [0, 1): `rand(2, 3)` or `rand((2, 3))`."""
    drawn = (generator or default_generator).uniform(shape_of("rand", size), _floating("rand", dtype))
    return Tensor(Device(device).receive(drawn), requires_grad)


def randn(
    *size: Any, dtype: Any = None, device: Any = "cpu", requires_grad: bool = False, generator: Generator | None = None
) -> Tensor:
    """Normal with mean 0 and standard deviation 1."""
    drawn = (generator or default_generator).normal(shape_of("randn", size), _floating("randn", dtype))
    return Tensor(Device(device).receive(drawn), requires_grad)


def randint(
    low: int,
    high: Any = None,
    size: Any = None,
    dtype: Any = None,
    device: Any = "cpu",
    generator: Generator | None = None,
) -> Tensor:
    """Whole numbers from `low` up to but without `high`: `randint(10, (2, 3))` or `randint(5, 10, (2, 3))`.

    Errors: ValueError unless low < high.
    """
    if size is None:
        low, high, size = 0, low, high
    if size is None or not isinstance(high, (int, np.integer)) or low >= high:
        raise ValueError(f"randint: from {low} up to {high} in the shape {size} there is nothing to draw")
    drawn = (generator or default_generator).integers(int(low), int(high), shape_of("randint", (size,)))
    return Tensor(Device(device).receive(drawn.astype(dtypes.checked(dtype or dtypes.int64))))


def randperm(n: int, generator: Generator | None = None, device: Any = "cpu") -> Tensor:
    """The numbers 0 ... n - 1 in random order, int64, (n,)."""
    if n < 0:
        raise ShapeError(f"randperm: a size cannot be negative: {n}")
    high, low = (generator or default_generator).bits(2 * n).reshape(2, n).astype(np.uint64)
    return Tensor(Device(device).receive(np.argsort(high << np.uint64(32) | low, kind="stable")))


def rand_like(
    x: Tensor,
    generator: Generator | None = None,
    requires_grad: bool = False,
    dtype: Any = None,
    device: Any = None,
) -> Tensor:
    """Uniform in [0, 1), in x's shape and type."""
    return rand(
        x.shape,
        dtype=dtype or x.dtype,
        device=device or x.device,
        generator=generator,
        requires_grad=requires_grad,
    )


def randn_like(
    x: Tensor,
    generator: Generator | None = None,
    requires_grad: bool = False,
    dtype: Any = None,
    device: Any = None,
) -> Tensor:
    """Normal with mean 0 and standard deviation 1, in x's shape and type."""
    return randn(
        x.shape,
        dtype=dtype or x.dtype,
        device=device or x.device,
        generator=generator,
        requires_grad=requires_grad,
    )


def _floating(name: str, dtype: Any) -> np.dtype[Any]:
    wanted = dtypes.get_default_dtype() if dtype is None else dtypes.checked(dtype)
    if wanted.kind != "f":
        raise DtypeError(f"{name}: random numbers of this kind are floating, and {wanted} is not")
    return wanted
