"""Operations that draw: dropout, multinomial, and tensors filled with random numbers.

The draw comes first and is an input like any other; the operation itself is a plain function of it.
So a second derivative, or a layer computed twice to save memory, meets the same numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minilm import kernels, random
from minilm.device import array_module
from minilm.errors import DtypeError, ShapeError
from minilm.ops.inplace import check_writable, overwrite
from minilm.ops.registry import Primitive, options, sample
from minilm.tensor import Tensor, wrap


class Dropout(Primitive, shapes="(...), (...) -> (...)", constants=("keep",), method=False):
    """z = x / (1 - p) where `keep` holds, else 0;  dx = dz / (1 - p) there, else 0

    Source: Srivastava et al. 2014, with the scaling moved to training, so that the mean stays.
    """

    domain = ("normal", "bool")
    samples = options(p=[0.1, 0.5])

    def forward(ctx, x, keep, p):
        ctx.save(keep)
        ctx.scale = scale = 0.0 if p == 1 else 1 / (1 - p)
        return x * keep * x.dtype.type(scale)

    def backward(ctx, dz):
        (keep,) = ctx.saved
        return dz * keep * ctx.scale, None

    def torch(torch, x, keep, p):
        return x * keep / (1 - p)


class DropRows(Primitive, shapes="(N, C) -> (N, C)", dtypes="float", method=False):
    """z = x / (1 - p) where it is kept, else 0;  dx = dz / (1 - p) there, else 0

    What is kept follows from `key` and each row's number, `first` + `places` (N), or its place among the rows
    (`kernels.drop_rows`): nothing is stored for the backward, and a row drops the same whichever others are there.

    Source: Srivastava et al. 2014, with the scaling moved to training, so that the mean stays.
    """

    samples = [
        sample((3, 5), key=7, first=0, p=0.4, places=None),
        sample((3, 71), key=2**63 + 5, first=11, p=0.1, places=np.array([0, 4, 2])),
        sample((2, 3), key=7, first=0, p=1.0, places=None),
    ]

    def forward(ctx, x, key, first, p, places=None):
        ctx.drawn = key, first, p, places
        return kernels.drop_rows(x, key, first, p, places)

    def backward(ctx, dz):
        return DropRows.apply(dz, *ctx.drawn)

    def torch(torch, x, key, first, p, places=None):
        one, places = np.ones(tuple(x.shape)), None if places is None else np.asarray(places)
        return x * torch.from_numpy(kernels.drop_rows(one, key, first, p, places)).to(x.dtype)


def keep_mask(shape: tuple[int, ...], p: float, generator: random.Generator | None = None) -> Tensor:
    """A boolean tensor, each element false with probability p. Errors: ValueError for p outside 0 ... 1."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p is a probability, from 0 to 1, not {p}")
    source, part = generator or random.default_generator, random.current_part()
    if part is not None and shape and shape[0] == part.count:
        return Tensor(source.uniform_part(shape, part) >= p)
    return Tensor(source.uniform(shape) >= p)


def dropout_key(p: float, generator: random.Generator | None = None) -> int:
    """64 random bits, from which a kernel computes what dropout keeps. Errors: ValueError for p outside 0 ... 1."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p is a probability, from 0 to 1, not {p}")
    high, low = (generator or random.default_generator).bits(2)
    return int(high) << 32 | int(low)


def dropout(x: Any, p: float = 0.5, training: bool = True, generator: random.Generator | None = None) -> Any:
    """In training each element is 0 with probability p and otherwise divided by 1 - p; else x itself: (...) -> (...).

    Errors: ValueError for p outside 0 ... 1.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p is a probability, from 0 to 1, not {p}")
    return Dropout.apply(x, keep_mask(x.shape, p, generator), p) if training and p else x


def dropout_rows(x: Any, p: float, shape: tuple[int, int], places: Any = None) -> Any:
    """Dropout of rows x (N, C), which stand at `places` (N) among the B T of an array (B, T, C); None for all.

    Each row draws from a stream of its own (`kernels.keep_rows`): a row drops the same whichever others are there, and
    as in `random.examples` whichever part of the batch. Errors: ValueError for p outside 0 ... 1.
    """
    if not p:
        return x
    key, part = dropout_key(p), random.current_part()
    B, T = shape
    first = part.first * T if part is not None and part.count == B else 0
    return DropRows.apply(x, key, first, p, places)


class Multinomial(
    Primitive, shapes="(..., N), (..., U) -> (..., K)", dtypes="keep", differentiable=False, method=False
):
    """Indices drawn with probabilities in proportion to the weights in each row, from given uniform numbers.

    With replacement (U = K): the index at which the cumulated share first exceeds u. Without (U = N):
    the K largest of weight / -log u, a race in which the index of weight w wins with probability
    w / sum of w (Efraimidis & Spirakis 2006). Rows of weight 0 are never drawn.
    """

    domain = ("probability", "probability")
    samples = [
        sample((2, 7), (2, 5), num_samples=5, replacement=True),
        sample((2, 7), (2, 7), num_samples=3, replacement=False),
        sample((3,), (3,), num_samples=3, replacement=False),
    ]

    def forward(ctx, weights, uniform, num_samples, replacement):
        xp = array_module(weights)
        if replacement:
            shares = xp.cumsum(weights, -1, dtype="float64")
            drawn = uniform * shares[..., -1:]
            return (shares[..., None, :] <= drawn[..., :, None]).sum(-1)
        with np.errstate(divide="ignore"):  # u = 0 never wins the race
            times = weights / -xp.log(uniform)
        return xp.argsort(-times, -1, kind="stable")[..., :num_samples]

    def torch(torch, weights, uniform, num_samples, replacement):
        if replacement:
            shares = weights.cumsum(-1)
            return torch.searchsorted(shares, uniform * shares[..., -1:], right=True)
        return torch.topk(weights / -torch.log(uniform), num_samples, -1).indices


def multinomial(
    x: Any, num_samples: int, replacement: bool = False, generator: random.Generator | None = None
) -> Tensor:
    """`num_samples` indices from each row of x, with probabilities in proportion to its elements: (..., N) -> (..., K).

    Errors: ValueError for weights that are negative, not finite or all zero, and for more draws
    without replacement than there are positive weights.
    """
    array = x.array if isinstance(x, Tensor) else np.asarray(x)
    if array.dtype.kind != "f":
        raise DtypeError(f"multinomial: the weights must be floating, not {array.dtype}")
    if array.ndim not in (1, 2) or num_samples < 1:
        raise ShapeError(
            f"multinomial: {num_samples} draws from weights of shape {array.shape}, (N) or (B, N) expected"
        )
    if not np.isfinite(array).all() or (array < 0).any() or not (array.sum(-1) > 0).all():
        raise ValueError("multinomial: the weights of each row must be finite, not negative, and not all zero")
    if not replacement and (positive := int((array > 0).sum(-1).min())) < num_samples:
        raise ValueError(f"multinomial: {num_samples} draws without replacement from {positive} positive weights")
    U = num_samples if replacement else array.shape[-1]
    uniform = (generator or random.default_generator).uniform((*array.shape[:-1], U), np.float64)
    return Multinomial.apply(wrap(array), wrap(uniform), num_samples, replacement)


def bernoulli(x: Tensor, generator: random.Generator | None = None) -> Tensor:
    """1 with probability x, else 0, for each element of x. Errors: ValueError for an x outside 0 ... 1."""
    if not ((x.array >= 0) & (x.array <= 1)).all():
        raise ValueError("bernoulli: probabilities lie between 0 and 1")
    drawn = (generator or random.default_generator).uniform(x.shape, np.float64)
    return Tensor((drawn < x.array).astype(x.dtype))


def _uniform_(self: Tensor, a: float = 0.0, b: float = 1.0, generator: random.Generator | None = None) -> Tensor:
    """Fill with uniform numbers from a up to b."""
    return _filled(self, "uniform_", (generator or random.default_generator).uniform(self.shape, self.dtype), b - a, a)


def _normal_(self: Tensor, mean: float = 0.0, std: float = 1.0, generator: random.Generator | None = None) -> Tensor:
    """Fill with normal numbers of this mean and standard deviation."""
    drawn = (generator or random.default_generator).normal(self.shape, self.dtype)
    return _filled(self, "normal_", drawn, std, mean)


def _filled(tensor: Tensor, name: str, drawn: Any, scale: float, shift: float) -> Tensor:
    check_writable(tensor, name)
    if not tensor.is_floating_point():
        raise DtypeError(f"{name}: the tensor must be floating, not {tensor.dtype}")
    return overwrite(tensor, wrap((drawn * scale + shift).astype(tensor.dtype)), name)


METHODS = {"multinomial": multinomial, "bernoulli": bernoulli, "uniform_": _uniform_, "normal_": _normal_}
for _name, _method in METHODS.items():
    setattr(Tensor, _name, _method)
