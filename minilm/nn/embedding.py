"""Embedding: a vector for every token."""

from __future__ import annotations

from typing import Any

from minilm.creation import empty
from minilm.errors import ConfigError, ShapeError
from minilm.modes import no_grad
from minilm.nn import functional as F
from minilm.nn import init
from minilm.nn.module import Module
from minilm.nn.parameter import Parameter
from minilm.tensor import Tensor


class Embedding(Module):
    """y = weight[indices]: whole numbers (...) -> (..., embedding_dim).

    Args:
        padding_idx: the row of the padding token: zeros at first, and no gradient reaches it.

    Attributes:
        weight: (num_embeddings, embedding_dim), at first normal with mean 0 and deviation 1.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        device: Any = "cpu",
        dtype: Any = None,
        *,
        _weight: Tensor | None = None,
    ) -> None:
        super().__init__()
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ConfigError(f"Embedding: padding_idx {padding_idx} is none of {num_embeddings} rows")
            padding_idx %= num_embeddings
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        if _weight is not None:
            self.weight = Parameter(_weight)
            return
        self.weight = Parameter(empty(num_embeddings, embedding_dim, dtype=dtype, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values, as PyTorch does."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None) -> Embedding:
        """An embedding around given vectors (num_embeddings, embedding_dim), which it shares."""
        if embeddings.ndim != 2:
            raise ShapeError(f"from_pretrained: vectors are (num_embeddings, embedding_dim), not {embeddings.shape}")
        rows, columns = embeddings.shape
        module = cls(rows, columns, padding_idx=padding_idx, _weight=embeddings)
        module.weight.requires_grad = not freeze
        return module

    def forward(self, indices: Tensor) -> Tensor:
        """See the class. Errors: IndexError for an index outside the table."""
        return F.embedding(indices, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
