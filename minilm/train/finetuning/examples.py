"""Encoded texts with their targets, as a Trainer reads them: in epochs, padded to the longest of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilm.data import Permutation
from minilm.errors import DataError
from minilm.train.batches import IGNORED, Batch

Array = Any
Progress = Callable[[int, int], None] | None  # called with how many originals are done, and of how many


@dataclass
class Examples:
    """N encoded texts, one behind the other.

    Attributes:
        input_ids, token_type_ids: of all texts, (sum of lengths).
        starts: (N + 1), where each begins, and the end.
        targets: for each text, (N, ...), or for each token, (sum of lengths).
        by_token: which of the two.
    """

    input_ids: Array
    token_type_ids: Array
    starts: Array
    targets: Array
    by_token: bool = False

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], targets: Any, by_token: bool = False) -> Examples:
        """Of encoded rows, and a target for each row, or an array of them for each token of it.

        Errors: DataError for no row.
        """
        if not rows:
            raise DataError("there is no example")
        ids, types = (np.concatenate([row[name] for row in rows]) for name in ("input_ids", "token_type_ids"))
        starts = np.cumsum([0, *(len(row["input_ids"]) for row in rows)])
        return cls(ids, types, starts, np.concatenate(targets) if by_token else np.asarray(targets), by_token)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> Array:
        """(N), the tokens of each."""
        return np.diff(self.starts)

    def gather(self, numbers: Array, padding: int) -> Batch:
        """input_ids, token_type_ids, attention_mask (B, T) and targets of the examples with these numbers.

        T is the length of the longest. Targets of padding are to be ignored.
        """
        lengths = self.lengths[numbers]
        columns = np.arange(lengths.max())
        real = columns < lengths[:, None]  # (B, T)
        places = np.where(real, self.starts[numbers][:, None] + columns, 0)
        ids = np.where(real, self.input_ids[places], padding).astype(np.int64)
        types = np.where(real, self.token_type_ids[places], 0).astype(np.int64)
        targets = np.where(real, self.targets[places], IGNORED) if self.by_token else self.targets[numbers]
        return ids, types, real.astype(np.int64), targets

    def by_length(self, batch_size: int) -> Iterator[Array]:
        """The numbers of all examples in batches, the longest first, so that little is padding."""
        order = np.argsort(-self.lengths, kind="stable")
        return (order[at : at + batch_size] for at in range(0, len(order), batch_size))


@dataclass
class Epochs:
    """What a Trainer learns from: all examples once in each epoch, in a new order; the last batch may be smaller.

    Attributes:
        train, validate: to learn from, and to test on. batch_size: B. seed: of the orders. padding: the id of [PAD].
        assess: the validation loss of a model, and its measures.
    """

    train: Examples
    validate: Examples
    batch_size: int
    seed: int
    padding: int
    assess: Callable[[Any], tuple[float, dict[str, float]]]

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.train) // self.batch_size)

    @property
    def evaluations(self) -> int:
        """Batches in the validation examples."""
        return -(-len(self.validate) // self.batch_size)

    def batch(self, step: int) -> Batch:
        """The batch of that step: a function of the step alone."""
        epoch, at = divmod(step, self.steps)
        first = at * self.batch_size
        numbers = np.arange(first, min(first + self.batch_size, len(self.train)))
        return self.train.gather(Permutation(len(self.train), self.seed, epoch)[numbers], self.padding)

    def validation(self, index: int, seed: int = 0) -> Batch:
        """The validation batch of that number; the longest texts are in the first."""
        order = list(self.validate.by_length(self.batch_size))
        return self.validate.gather(order[index % len(order)], self.padding)
