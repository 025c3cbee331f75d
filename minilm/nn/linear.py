"""Linear maps, and two modules that compute nothing."""

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


class Linear(Module):
    """y = x weight^T + bias: (..., in_features) -> (..., out_features).

    Attributes:
        weight: (out_features, in_features), at first uniform in +-1 / sqrt(in_features).
        bias: (out_features), at first the same, or None.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = "cpu", dtype: Any = None
    ) -> None:
        super().__init__()
        if in_features < 0 or out_features < 0:
            raise ConfigError(f"Linear: sizes cannot be negative: {in_features} and {out_features}")
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(empty(out_features, in_features, dtype=dtype, device=device))
        self.register_parameter("bias", Parameter(empty(out_features, dtype=dtype, device=device)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values, as PyTorch does."""
        bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Identity(Module):
    """y = x; takes any arguments and forgets them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, x: Any) -> Any:
        """See the class."""
        return x


class Flatten(Module):
    """The axes from `start_dim` to `end_dim` as one: (B, ...) -> (B, N)."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return x.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """The axis `dim` as several: (B, N) -> (B, *unflattened_size)."""

    def __init__(self, dim: int, unflattened_size: tuple[int, ...]) -> None:
        super().__init__()
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return x.unflatten(self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
