"""Pooling as modules: the maximum or the mean of what each window shows."""

from __future__ import annotations

from typing import Any

from minilm.nn import functional as F
from minilm.nn.module import Module
from minilm.tensor import Tensor


class _Pool(Module):
    """Base: the windows and how they slide; by default side by side."""

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()
        self.kernel_size, self.padding = kernel_size, padding
        self.stride = kernel_size if stride is None else stride

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _MaxPool(_Pool):
    """Base: windows with holes too."""

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1) -> None:
        super().__init__(kernel_size, stride, padding)
        self.dilation = dilation

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        return f"{super().extra_repr()}, dilation={self.dilation}, ceil_mode=False"


class MaxPool2d(_MaxPool):
    """The largest number of each window: (B, C, H, W) -> (B, C, oH, oW). See `ops.conv.MaxPool2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation)


class MaxPool1d(_MaxPool):
    """The largest number of each window: (B, C, T) -> (B, C, oT)."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.max_pool1d(x, self.kernel_size, self.stride, self.padding, self.dilation)


class AvgPool2d(_Pool):
    """The mean of each window: (B, C, H, W) -> (B, C, oH, oW)."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding)


class AvgPool1d(_Pool):
    """The mean of each window: (B, C, T) -> (B, C, oT)."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.avg_pool1d(x, self.kernel_size, self.stride, self.padding)


class _Adaptive(Module):
    """Base: as many windows as are wanted."""

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        return f"output_size={self.output_size}"


class AdaptiveAvgPool2d(_Adaptive):
    """Means over `output_size` windows: (B, C, H, W) -> (B, C, *output_size); 1 averages over the whole image."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.adaptive_avg_pool2d(x, self.output_size)


class AdaptiveAvgPool1d(_Adaptive):
    """Means over `output_size` windows: (B, C, T) -> (B, C, output_size)."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.adaptive_avg_pool1d(x, self.output_size)
