"""The mean of the weights of several checkpoints of a run, which is often better than any of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from minilm.errors import CheckpointError
from minilm.train.checkpoint import checkpoints, model_of, read_checkpoint, step_of


def averaged_weights(folder: Path, config: Any, count: int) -> tuple[list[int], dict[str, Any]]:
    """The mean weights of the last `count` checkpoints of the run in `folder`, and the steps that these are of.

    Those of the beginning, and in the middle of a batch, do not count; there may be fewer. Sums are in float64.
    Source: Vaswani et al. 2017, section 6.1; Junczys-Dowmunt et al. 2016.

    Errors: CheckpointError for none, or one that is damaged.
    """
    chosen = [path for path in checkpoints(folder) if "+" not in path.name and step_of(path)][:count]
    if not chosen:
        raise CheckpointError(f"{folder}: there is no checkpoint to be averaged")
    sums: dict[str, Any] = {}
    for path in chosen:
        model = model_of(path, config, *read_checkpoint(path))
        for name, tensor in model.state_dict().items():
            sums[name] = sums.get(name, 0) + tensor.array.astype(np.float64)
    return [step_of(path) for path in chosen][::-1], {name: total / len(chosen) for name, total in sums.items()}
