"""Dropout."""

from __future__ import annotations

from minilm.errors import ConfigError
from minilm.nn import functional as F
from minilm.nn.module import Module
from minilm.tensor import Tensor


class Dropout(Module):
    """In training each element is 0 with probability p, and otherwise divided by 1 - p: (...) -> (...).

    In evaluation y = x. Source: Srivastava et al. 2014, with the scaling moved to training.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if inplace:
            raise ConfigError("Dropout: there is no inplace=True; what it would save, the graph keeps anyway")
        if not 0 <= p <= 1:
            raise ConfigError(f"Dropout: p must lie between 0 and 1, not {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        return f"p={self.p}"
