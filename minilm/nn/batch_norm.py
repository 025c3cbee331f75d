"""Normalisation of each channel over a batch: BatchNorm1d and BatchNorm2d."""

from __future__ import annotations

from typing import Any

from minilm.creation import empty, ones, tensor, zeros
from minilm.dtypes import int64
from minilm.errors import ShapeError
from minilm.modes import no_grad
from minilm.nn import functional as F
from minilm.nn import init
from minilm.nn.module import Module
from minilm.nn.parameter import Parameter
from minilm.tensor import Tensor


class _BatchNorm(Module):
    """Base: what a channel's scale, shift and running statistics are."""

    ndims: tuple[int, ...] = ()

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = "cpu",
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats

        def row() -> Parameter | None:
            return Parameter(empty(num_features, dtype=dtype, device=device)) if affine else None

        self.register_parameter("weight", row())
        self.register_parameter("bias", row())
        kept = track_running_stats
        self.register_buffer("running_mean", zeros(num_features, dtype=dtype, device=device) if kept else None)
        self.register_buffer("running_var", ones(num_features, dtype=dtype, device=device) if kept else None)
        self.register_buffer("num_batches_tracked", tensor(0, dtype=int64) if kept else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Mean 0, variance 1, and no batch seen."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Weight 1, bias 0, and no batch seen."""
        self.reset_running_stats()
        if self.affine:
            init.ones_(self.weight)
            init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if x.ndim not in self.ndims:
            wanted = " or ".join(map(str, self.ndims))
            raise ShapeError(f"{type(self).__name__}: an input of {wanted} axes was expected, not {x.shape}")
        share = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats:
            with no_grad():
                self.num_batches_tracked.add_(1)
            if self.momentum is None:  # the plain mean over all batches
                share = 1 / float(self.num_batches_tracked.item())
        own = self.training or not self.track_running_stats
        mean, var = (self.running_mean, self.running_var) if self.track_running_stats else (None, None)
        return F.batch_norm(x, mean, var, self.weight, self.bias, own, share, self.eps)

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """y = (x - mean) / sqrt(var + eps) * weight + bias for each channel C: (B, C) or (B, C, T) -> the same.

    In training mean and var (divided by N) are those of the batch, and the running ones move towards them:
    running = (1 - momentum) running + momentum new, where the new variance is divided by N - 1. In evaluation
    the running ones serve.

    Args:
        momentum: None for the plain mean over all batches seen.
        track_running_stats: False for the batch's own statistics in evaluation too.

    Source: Ioffe & Szegedy 2015, algorithms 1 and 2. Errors: ShapeError for other axes or channels, or one value only.
    """

    ndims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """BatchNorm1d for images: (B, C, H, W) -> the same."""

    ndims = (4,)
