"""What is minimised: a mean over targets, or a sum of such means, and how parts of a batch share in it.

    loss = sum over k of  mean over the N_k targets of the k-th part

as in BERT's pre-training, masked language model plus next sentence. A micro-batch with n_k of the targets contributes
n_k / N_k of its own means, so that any split of a batch adds up to the same loss. One without targets contributes
nothing: its mean would be 0 / 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from minilm.errors import DataError
from minilm.tensor import Tensor
from minilm.train.batches import Batch, targets_in


def parts_of(loss: Any, batch: Batch) -> list[tuple[int, Tensor]]:
    """What `model.loss(*batch)` gave, as pairs of the number of the array with the targets (from -1 down) and the loss.

    A Tensor belongs to the batch's last array, the k-th of a tuple of n to the k-th of its last n.
    Errors: DataError for more parts than arrays, or none.
    """
    parts = loss if isinstance(loss, tuple) else (loss,)
    if not 1 <= len(parts) <= len(batch):
        raise DataError(
            f"the model's loss has {len(parts)} parts, each with its own targets; the batch {len(batch)} arrays"
        )
    return [(k - len(parts), part) for k, part in enumerate(parts)]


def shared(loss: Any, micro: Batch, batch: Batch) -> tuple[Tensor | None, int]:
    """A micro-batch's share of its batch's loss, None without any target, and how many targets it has in all parts.

    Args:
        loss: what `model.loss(*micro)` gave. batch: the whole, of which `micro` is a part.
    """
    total, targets = None, 0
    for k, part in parts_of(loss, micro):
        if count := targets_in(micro, k):
            share, targets = count / targets_in(batch, k), targets + count
            part = part if share == 1 else part * share
            total = part if total is None else total + part
    return total, targets


def mean_loss(model: Any, batches: Iterable[Batch]) -> float:
    """The model's loss over batches taken as one: each part's mean over all of its targets, summed.

    Errors: DataError for a part without targets in any batch.
    """
    sums: dict[int, float] = {}
    counts: dict[int, int] = {}
    for batch in batches:
        for k, part in parts_of(model.loss(*map(Tensor, batch)), batch):
            count = targets_in(batch, k)
            counts[k] = counts.get(k, 0) + count
            sums[k] = sums.get(k, 0.0) + (part.item() * count if count else 0.0)
    for k, count in counts.items():
        if not count:
            raise DataError(f"the validation batches have no targets in array {k}: all are to be ignored")
    return sum(sums[k] / counts[k] for k in sums)


def means(measuring: Sequence[Any], batches: Iterable[Batch]) -> dict[str, float]:
    """Named means over batches taken as one, as an accuracy.

    Args:
        measuring: what has `measures(*batch)`, which gives for each name a sum over the batch, and over how many.
    """
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    if measuring:
        for batch in batches:
            for source in measuring:
                for name, (total, count) in source.measures(*map(Tensor, batch)).items():
                    sums[name], counts[name] = sums.get(name, 0.0) + float(total), counts.get(name, 0) + int(count)
    return {name: sums[name] / counts[name] for name in sums if counts[name]}
