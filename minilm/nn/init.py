"""Initial values. Each function overwrites a tensor, outside of any graph, and returns it."""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from minilm import random
from minilm.errors import ConfigError, ShapeError
from minilm.modes import no_grad
from minilm.tensor import Tensor

_drawing: contextvars.ContextVar[bool] = contextvars.ContextVar("drawing", default=True)


@contextlib.contextmanager
def undrawn() -> Iterator[None]:
    """Within, `uniform_` and `normal_` leave tensors as they are: for a model whose weights come from a file."""
    token = _drawing.set(False)
    try:
        yield
    finally:
        _drawing.reset(token)


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform from a up to b. Errors: ConfigError if a is above b."""
    if not a <= b:
        raise ConfigError(f"uniform_: from {a} to {b} there is nothing")
    if not _drawing.get():
        return tensor
    drawn = random.rand(*tensor.shape, dtype=tensor.dtype, generator=generator)
    drawn.array *= b - a
    drawn.array += a
    return _set(tensor, drawn)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with this mean and standard deviation. Errors: ConfigError for a negative std."""
    if not std >= 0:
        raise ConfigError(f"normal_: std must be at least 0, not {std}")
    if not _drawing.get():
        return tensor
    drawn = random.randn(*tensor.shape, dtype=tensor.dtype, generator=generator)
    drawn.array *= std
    drawn.array += mean
    return _set(tensor, drawn)


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: Any = None
) -> Tensor:
    """Normal with this mean and standard deviation, but only from a to b: what lies outside is drawn again.

    Errors: ConfigError for a negative std, or an interval that less than one in a thousand would hit.
    """
    inside = _below((b - mean) / std) - _below((a - mean) / std) if std > 0 else 0.0
    if not inside >= 1e-3:
        raise ConfigError(f"trunc_normal_: from {a} to {b} lies too little of a normal with mean {mean}, std {std}")
    drawn = tensor.detach().clone()
    normal_(drawn, mean, std, generator)
    while (outside := (drawn.array < a) | (drawn.array > b)).any():
        again = random.randn(int(outside.sum()), dtype=tensor.dtype, generator=generator)
        drawn.array[outside] = again.array * std + mean
    return _set(tensor, drawn)


def _below(x: float) -> float:
    """The share of the normal distribution below x."""
    return (1 + math.erf(x / math.sqrt(2))) / 2


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Rows (or columns, if there are fewer) of length `gain` at right angles: Saxe, McClelland & Ganguli 2014.

    The axes behind the first count as one. Errors: ShapeError for a vector.
    """
    if tensor.ndim < 2 or not tensor.numel():
        raise ShapeError(f"orthogonal_: a tensor of two axes or more with elements was expected, not {tensor.shape}")
    rows = tensor.shape[0]
    drawn = random.randn(rows, tensor.numel() // rows, generator=generator, dtype=np.float64).array
    q, r = np.linalg.qr(drawn if drawn.shape[0] >= drawn.shape[1] else drawn.T)
    q *= np.sign(np.diag(r))  # else not every rotation would be as likely
    q = q if drawn.shape[0] >= drawn.shape[1] else q.T
    return _set(tensor, Tensor((gain * q).astype(tensor.dtype).reshape(tensor.shape)))


def eye_(tensor: Tensor) -> Tensor:
    """Ones on the diagonal of a matrix, zeros elsewhere. Errors: ShapeError for other axes."""
    if tensor.ndim != 2:
        raise ShapeError(f"eye_: a matrix was expected, not {tensor.shape}")
    return _set(tensor, Tensor(np.eye(*tensor.shape, dtype=tensor.dtype)))


def constant_(tensor: Tensor, val: float) -> Tensor:
    """`val` everywhere."""
    with no_grad():
        return tensor.fill_(val)


def zeros_(tensor: Tensor) -> Tensor:
    """0 everywhere."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """1 everywhere."""
    return constant_(tensor, 1.0)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform in +-gain sqrt(6 / (fan_in + fan_out)): Glorot & Bengio 2010, equation 16."""
    fan_in, fan_out = _fans(tensor)
    bound = gain * math.sqrt(6 / (fan_in + fan_out))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with standard deviation gain sqrt(2 / (fan_in + fan_out)): Glorot & Bengio 2010, equation 12."""
    fan_in, fan_out = _fans(tensor)
    return normal_(tensor, 0.0, gain * math.sqrt(2 / (fan_in + fan_out)), generator)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:
    """Uniform in +-gain sqrt(3 / fan): He, Zhang, Ren & Sun 2015, equation 10.

    Args:
        a: the negative slope, if the non-linearity that follows is leaky_relu.
        mode: "fan_in" keeps the size of values on the way forward, "fan_out" of gradients on the way back.
    """
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:
    """Normal with standard deviation gain / sqrt(fan): see kaiming_uniform_."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that makes up for what a non-linearity takes from the size of values.

    Errors: ConfigError for one that is not known.
    """
    slope = 0.01 if param is None else param
    gains = {
        "linear": 1.0,
        "sigmoid": 1.0,
        "tanh": 5.0 / 3,
        "relu": math.sqrt(2.0),
        "leaky_relu": math.sqrt(2.0 / (1 + slope**2)),
        "selu": 3.0 / 4,
    }
    if nonlinearity not in gains:
        raise ConfigError(f"calculate_gain knows {', '.join(gains)}, not {nonlinearity!r}")
    return gains[nonlinearity]


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ConfigError(f"mode is 'fan_in' or 'fan_out', not {mode!r}")
    fan_in, fan_out = _fans(tensor)
    return calculate_gain(nonlinearity, a) / math.sqrt(fan_in if mode == "fan_in" else fan_out)


def _fans(tensor: Tensor) -> tuple[int, int]:
    """How many inputs one output has, and how many outputs one input: (out, in, ...) is a weight's shape."""
    if tensor.ndim < 2 or not tensor.numel():
        raise ShapeError(f"fan in and fan out need a tensor of two axes or more with elements, not {tensor.shape}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _set(tensor: Tensor, values: Tensor) -> Tensor:
    with no_grad():
        return tensor.copy_(values)
