"""Inputs for a registered operation, drawn from its signature, its samples and its domain.

Sizes are different primes, so that no swapped axis can pass; no value lies near a kink.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilm.autograd import grad
from minilm.ops.registry import Operation, Primitive, Sample
from minilm.tensor import Tensor

Array = Any
Shapes = tuple[tuple[int, ...] | None, ...]

ALONE = (2, 3, 5)  # `...` where no axis has a name
BESIDE = (2, 3)  # `...` beside named axes, which are then:
NAMED = (5, 7, 11, 13, 17, 19)

# What the several `...` of a broadcasting operation become, besides all alike.
_VARIANTS = (((2, 3, 5), (3, 1)), ((5,), (2, 3, 5)), ((), (2, 3)), ((2, 1, 5), (3, 1)))


@dataclass(frozen=True)
class Case:
    """One operation, one of its samples, one set of shapes: what a single test exercises."""

    op: type[Operation]
    sample: Sample
    shapes: Shapes

    @property
    def id(self) -> str:
        """A name for people: `sum[dim=0, keepdim=True] (2,3,5)`."""
        chosen = ", ".join(f"{key}={_short(value)}" for key, value in self.sample.options.items())
        shapes = " ".join("-" if s is None else f"({','.join(map(str, s))})" for s in self.shapes)
        return f"{self.op.name}[{chosen}] {shapes}" if chosen else f"{self.op.name} {shapes}"

    def inputs(self, dtype: Any = np.float64) -> tuple[Array, ...]:
        """Arrays for the case's inputs, the same ones at every call."""
        return inputs_for(self.op, self.sample, seeded(self.id), dtype, self.shapes)

    def cotangents(self, outputs: Any) -> list[Array]:
        """A random gradient for each output, the same ones at every call."""
        rng = seeded(self.id + " cotangents")
        return [np.asarray(rng.standard_normal(y.shape)).astype(np.float32).astype(y.dtype) for y in outputs]

    def __call__(self, *inputs: Any) -> list[Tensor]:
        """The operation's outputs on `inputs`, with the sample's options."""
        result = self.op.apply(*inputs, **self.sample.options)
        return list(result) if isinstance(result, (tuple, list)) else [result]

    def varies(self, inputs: Any) -> list[bool]:
        """For each input whether a gradient flows to it: it is floating and none of the operation's constants."""
        names = self.op.inputs or ("",) * len(inputs)
        return [
            x is not None and x.dtype.kind == "f" and name not in self.op.constants for x, name in zip(inputs, names)
        ]

    def leaves(self, inputs: Any) -> list[Any]:
        """Tensors around arrays; those that a gradient flows to require one."""
        return [None if x is None else Tensor(x, requires_grad=v) for x, v in zip(inputs, self.varies(inputs))]

    def run(self, inputs: Any, cotangents: list[Array] | None = None) -> tuple[list[Tensor], list[Tensor | None]]:
        """The outputs, and for each floating input the gradient (None where nothing arrives)."""
        tensors = self.leaves(inputs)
        outputs = self(*tensors)
        flowing = [y for y in outputs if y.requires_grad]
        gradients: list[Tensor | None] = [None] * len(tensors)
        active = [i for i, t in enumerate(tensors) if t is not None and t.requires_grad]
        if flowing:
            given = self.cotangents(flowing) if cotangents is None else cotangents
            for i, gradient in zip(active, grad(flowing, [tensors[i] for i in active], given, allow_unused=True)):
                gradients[i] = gradient
        return outputs, gradients

    def hessian_vector_product(self, inputs: Any) -> list[Array]:
        """H v of sum c sin(y) for the outputs y, c and v random, by a backward walk through a backward walk.

        One array for each input that varies. Beneath the sine it matters that the first walk kept its connection to
        the inputs (see `gradgradcheck`).
        """
        tensors = self.leaves(inputs)
        flowing = [y for y in self(*tensors) if y.requires_grad]
        c, v = self.second_cotangents(flowing, inputs)
        wanted = [(t, d) for t, d in zip(tensors, v) if d is not None]
        total: Any = sum((y.sin() * Tensor(w)).sum() for y, w in zip(flowing, c))
        first = grad(total, [t for t, _ in wanted], create_graph=True, allow_unused=True, materialize_grads=True)
        along = sum((g * Tensor(d)).sum() for g, (_, d) in zip(first, wanted))
        if not along.requires_grad:
            return [np.zeros(t.shape) for t, _ in wanted]
        found = grad(along, [t for t, _ in wanted], allow_unused=True, materialize_grads=True)
        return [g.array for g in found]

    def second_cotangents(self, outputs: Any, inputs: Any) -> tuple[list[Array], list[Array | None]]:
        """The c for each output and the v for each input that varies, the same ones at every call."""
        rng = seeded(self.id + " second")
        c = [np.asarray(rng.standard_normal(y.shape)) for y in outputs]
        v = [
            np.asarray(rng.standard_normal(x.shape)) if moves else None for x, moves in zip(inputs, self.varies(inputs))
        ]
        return c, v


def seeded(name: str) -> np.random.Generator:
    """Random numbers that depend on a name alone, so that one test's do not depend on another's."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def cases(op: type[Operation]) -> Iterator[Case]:
    """Every case that the operation's samples stand for.

    A sample without shapes gets them from the signature; the first such sample of a primitive whose
    inputs broadcast also gets shapes that do.
    """
    broadcasting = op.signature.broadcasts and issubclass(op, Primitive)
    for sample in op.samples:
        if sample.shapes is not None:
            yield Case(op, sample, sample.shapes)
            continue
        yield Case(op, sample, shapes_for(op))
        if broadcasting:
            for leads in _VARIANTS:
                yield Case(op, sample, shapes_for(op, leads))
            broadcasting = False


def shapes_for(op: type[Operation], leads: tuple[tuple[int, ...], ...] = ()) -> Shapes:
    """Shapes that fit the operation's signature; `leads` are its `...`, repeated in turn."""
    signature = op.signature
    patterns = signature.inputs * 3 if signature.variadic else signature.inputs
    if any("?" in pattern for pattern in patterns):
        raise ValueError(f"{op.name}: its signature {signature} leaves shapes open, so its samples must give them")
    names = dict.fromkeys(axis for pattern in patterns for axis in pattern if axis != "...")
    sizes = dict(zip(names, NAMED))
    leads = leads or (BESIDE if names else ALONE,)
    shapes = []
    free = 0
    for pattern in patterns:
        shape: tuple[int, ...] = ()
        for axis in pattern:
            shape += leads[free % len(leads)] if axis == "..." else (sizes[axis],)
        free += "..." in pattern
        shapes.append(shape)
    return tuple(shapes)


def inputs_for(
    op: type[Operation],
    sample: Sample,
    rng: np.random.Generator,
    dtype: Any = np.float64,
    shapes: Shapes | None = None,
) -> tuple[Array, ...]:
    """An array for each input of `op` (None where the sample leaves one out).

    Values are the same for every `dtype`: all are numbers that float32 can hold. `shapes` are by
    default the sample's or the signature's.
    """
    if shapes is None:
        shapes = sample.shapes or shapes_for(op)
    domains = sample.domain or op.domains()
    domains = (*domains, *(domains[-1],) * (len(shapes) - len(domains)))
    return tuple(
        None if shape is None else draw(domain, shape, rng, dtype, position)
        for position, (domain, shape) in enumerate(zip(domains, shapes))
    )


def draw(domain: str, shape: tuple[int, ...], rng: np.random.Generator, dtype: Any, position: int = 0) -> Array:
    """An array of `shape` with values from `domain` (see `Operation.domain`)."""
    word, _, bound = domain.partition(":")
    if word == "index":
        return np.asarray(rng.integers(0, int(bound), shape))
    if word == "bool":
        return np.asarray(rng.random(shape) < 0.5)
    try:
        values = _DOMAINS[word](rng, shape, position)
    except KeyError:
        raise ValueError(f"no domain {domain!r}; there are {', '.join(_DOMAINS)}, bool and index:N") from None
    return np.asarray(values, np.float32).astype(dtype)


def _distinct(rng: np.random.Generator, shape: tuple[int, ...], position: int) -> Array:
    """Numbers in (-2, 2) at equal distances in random order; no number is in two inputs' sets."""
    size = int(np.prod(shape))
    places = rng.permutation(size) + 0.31 + 0.17 * (position % 4)
    return (places / max(size, 1) * 4 - 2).reshape(shape)


_DOMAINS: dict[str, Callable[[np.random.Generator, tuple[int, ...], int], Array]] = {
    "normal": lambda rng, shape, position: rng.standard_normal(shape),
    "positive": lambda rng, shape, position: rng.uniform(0.5, 2.5, shape),
    "unit": lambda rng, shape, position: rng.uniform(-0.9, 0.9, shape),
    "nonzero": lambda rng, shape, position: rng.uniform(0.5, 2.0, shape) * rng.choice([-1.0, 1.0], shape),
    "distinct": _distinct,
    "probability": lambda rng, shape, position: rng.uniform(0.05, 0.95, shape),
}


def _short(value: Any) -> str:
    return f"array{value.shape}" if isinstance(value, np.ndarray) else str(value).replace(" ", "")


# --- the ways in which the same values may lie in memory ------------------------------------------


def _strided(x: Array) -> Array:
    """Every second element of a larger array, along every axis."""
    wide = np.zeros([2 * n for n in x.shape], x.dtype)
    view = wide[(slice(None, None, 2),) * x.ndim] if x.ndim else wide
    view[...] = x
    return view


def _reversed(x: Array) -> Array:
    back = (slice(None, None, -1),) * x.ndim
    return x[back].copy()[back] if x.ndim else x


def _read_only(x: Array) -> Array:
    x = x.copy()
    x.flags.writeable = False
    return x


def _unaligned(x: Array) -> Array:
    """One byte beyond an address that is a multiple of the element's size, as in a packed file."""
    bytes_ = np.empty(x.nbytes + 1, np.uint8)[1:]
    view = bytes_.view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "strided": _strided,
    "fortran": lambda x: np.asfortranarray(x) if x.ndim else x,
    "reversed": _reversed,
    "read_only": _read_only,
    "unaligned": _unaligned,
}
