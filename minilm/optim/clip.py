"""Gradients kept small, against steps that throw a model off."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from minilm import kernels
from minilm.device import array_module
from minilm.errors import AutogradError, ConfigError
from minilm.tensor import Tensor


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients by min(1, max_norm / (norm + 1e-6)), where norm is that of all of them together.

    Args:
        norm_type: p of the p-norm (sum |g|^p)^(1/p); infinity for the largest |g|.
        error_if_nonfinite: refuse a norm that is NaN or infinite; nothing is scaled then. Otherwise
            a NaN spreads to all gradients, as in PyTorch.

    Returns: the norm before scaling, a Tensor without axes.
    Errors: ConfigError for an impossible max_norm or norm_type, AutogradError for a norm that is not
    finite. Source: Pascanu, Mikolov & Bengio 2013, algorithm 1.
    """
    _check_limit("max_norm", max_norm)
    if not norm_type > 0:
        raise ConfigError(f"norm_type must be above 0, not {norm_type!r}")
    gradients = _gradients(parameters)
    total = _norm([g.array for g in gradients], float(norm_type))
    if error_if_nonfinite and not math.isfinite(total):
        raise AutogradError(f"clip_grad_norm_: the norm of the gradients is {total}; none was scaled")
    scale = max_norm / (total + 1e-6)
    if not scale >= 1:  # also where it is NaN
        for gradient in gradients:
            gradient.array *= scale
            _count_change(gradient, "clip_grad_norm_")
    return Tensor(np.asarray(total, gradients[0].dtype if gradients else np.float32))


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Cut every element of every gradient to lie between -clip_value and clip_value."""
    _check_limit("clip_value", clip_value)
    for gradient in _gradients(parameters):
        array_module(gradient.array).clip(gradient.array, -clip_value, clip_value, out=gradient.array)
        _count_change(gradient, "clip_grad_value_")


def _norm(arrays: list[Any], p: float) -> float:
    """The p-norm of all elements of all arrays, accumulated in float64."""
    if p == 2:
        return math.sqrt(kernels.square_sum(arrays))
    sizes = [array_module(array).abs(array) for array in arrays if array.size]
    if p == math.inf:
        peaks = [float(size.max()) for size in sizes]
        return math.nan if any(map(math.isnan, peaks)) else max(peaks, default=0.0)
    return float(sum(float((size.astype("float64") ** p).sum()) for size in sizes) ** (1 / p))


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    """The gradients that are there, each once."""
    listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return list({id(p.grad): p.grad for p in listed if p.grad is not None}.values())


def _check_limit(name: str, value: Any) -> None:
    if not value >= 0:
        raise ConfigError(f"{name} must be at least 0, not {value!r}")


def _count_change(gradient: Tensor, writer: str) -> None:
    """Let a graph that saved this gradient (of a walk that was itself recorded) know of the change."""
    if gradient._version is not None:
        gradient._version.bump(writer)
