"""Convolutions as modules: Conv1d over sequences, Conv2d over images."""

from __future__ import annotations

import math
from typing import Any

from minilm.creation import empty
from minilm.errors import ConfigError
from minilm.nn import functional as F
from minilm.nn import init
from minilm.nn.module import Module
from minilm.nn.parameter import Parameter
from minilm.tensor import Tensor


class _Conv(Module):
    """Base: the kernels of `axes` axes, and how they slide."""

    axes = 0

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        device: Any = "cpu",
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ConfigError(
                f"{type(self).__name__}: {in_channels} channels in and {out_channels} out cannot be dealt into "
                f"{groups} groups"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride = self._sizes(kernel_size), self._sizes(stride)
        self.padding = padding if isinstance(padding, str) else self._sizes(padding)
        self.dilation = self._sizes(dilation)
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = Parameter(empty(shape, dtype=dtype, device=device))
        self.register_parameter("bias", Parameter(empty(out_channels, dtype=dtype, device=device)) if bias else None)
        self.reset_parameters()

    def _sizes(self, size: Any) -> tuple[int, ...]:
        return (size,) * self.axes if isinstance(size, int) else tuple(size)

    def reset_parameters(self) -> None:
        """Draw new initial values, uniform in +-1 / sqrt(in_channels / groups times the kernel's area)."""
        fan_in = math.prod(self.weight.shape[1:])
        bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * self.axes:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self.axes:
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        return text if self.bias is not None else text + ", bias=False"


class Conv2d(_Conv):
    """Kernels that slide over an image: (B, in_channels, H, W) -> (B, out_channels, oH, oW).

    Args: kernel_size, stride, padding, dilation: a number, or one for each axis; see `ops.conv.Conv2d`.

    Attributes:
        weight: (out_channels, in_channels / groups, kH, kW), at first uniform in +-1 / sqrt of its fan in.
        bias: (out_channels), at first the same, or None.

    Source: LeCun, Bottou, Bengio & Haffner 1998. Errors: ConfigError for channels that groups do not divide.
    """

    axes = 2

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Conv1d(_Conv):
    """Kernels that slide over a sequence: (B, in_channels, T) -> (B, out_channels, oT). See Conv2d."""

    axes = 1

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.conv1d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
