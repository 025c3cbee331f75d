"""Normalisation of each row: LayerNorm and RMSNorm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minilm.creation import empty, ones, zeros
from minilm.errors import ConfigError
from minilm.nn import functional as F
from minilm.nn import init
from minilm.nn.module import Module
from minilm.nn.parameter import Parameter
from minilm.tensor import Tensor


class LayerNorm(Module):
    """y = (x - mean) / sqrt(var + eps) * weight + bias over the last axes: (..., *normalized_shape) -> the same.

    Args:
        normalized_shape: the sizes of the axes that are normalised together; usually one number, C.
        elementwise_affine: False leaves weight and bias out.
        bias: False leaves bias out.

    Source: Ba, Kiros & Hinton 2016, equations 3 and 4.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = "cpu",
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = _sizes(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine

        def row(wanted: bool) -> Parameter | None:
            return Parameter(empty(self.normalized_shape, dtype=dtype, device=device)) if wanted else None

        self.register_parameter("weight", row(elementwise_affine))
        self.register_parameter("bias", row(elementwise_affine and bias))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight 1 and bias 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Any:
        """See the class. With a residual of x's shape: the sum x + residual, and its norm, made in one pass."""
        if residual is None:
            return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return F.add_layer_norm(x, residual, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class RMSNorm(Module):
    """y = x / sqrt(mean(x^2) + eps) * weight over the last axes: (..., *normalized_shape) -> the same.

    Args:
        eps: None for the distance from 1 to the next number of x's type, as in PyTorch.

    Source: Zhang & Sennrich 2019, equation 4.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = "cpu",
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = _sizes(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        weight = Parameter(empty(self.normalized_shape, dtype=dtype, device=device)) if elementwise_affine else None
        self.register_parameter("weight", weight)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Any:
        """See the class. With a residual of x's shape: the sum x + residual, and its norm, made in one pass."""
        if residual is None:
            return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)
        return F.add_rms_norm(x, residual, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(Module):
    """y = (x - mean) / sqrt(var + eps) * weight + bias over each group of channels: (B, C, ...) -> the same.

    Args:
        num_groups, num_channels: into how many groups how many channels are dealt.
        affine: False leaves weight and bias (C) out.

    Source: Wu & He 2018. Errors: ConfigError for channels that cannot be dealt into the groups.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = "cpu",
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ConfigError(f"GroupNorm: {num_channels} channels cannot be dealt into {num_groups} groups")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        place = {"dtype": dtype, "device": device}
        for name, filled in (("weight", ones), ("bias", zeros)):
            self.register_parameter(name, Parameter(filled(num_channels, **place)) if affine else None)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


def _sizes(shape: int | Sequence[int]) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)
