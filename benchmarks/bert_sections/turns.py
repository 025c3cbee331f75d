"""A run of ours and the same in PyTorch: equal weights, batches, rates, decay and clipping, step for step, in turn.

What the twin does follows from our Trainer, its groups of parameters and its configuration, whatever these are: nothing
is said twice. Dropout draws differ.
"""

from __future__ import annotations

import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minilm.errors import ConfigError
from minilm.train.trainer import precision
from minilm.train.validation import evaluating

MINILM, PYTORCH = "minilm", "PyTorch"
AT_A_TIME = 20  # steps in a turn
PAUSE = 0.15  # seconds before a turn, in which the threads of the other library fall asleep

Moved = Callable[[int, int, str], None]


class Side(ABC):
    """One of the two: steps on given batches, and predictions.

    Attributes:
        losses: of each step. seconds: of all steps; testing: of predictions.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.seconds = self.testing = 0.0

    @abstractmethod
    def step(self, batch: Any) -> float:
        """One step; its loss."""

    @abstractmethod
    def ready(self) -> contextlib.AbstractContextManager[Any]:
        """Within, the model learns."""

    @abstractmethod
    def tested(self) -> contextlib.AbstractContextManager[Any]:
        """Within, the model does not learn; it gives what a task calls to predict."""

    def steps(self, batches: list[Any]) -> None:
        """Steps on these batches, timed."""
        time.sleep(PAUSE)
        began = time.perf_counter()
        with self.ready():
            self.losses += [self.step(batch) for batch in batches]
        self.seconds += time.perf_counter() - began

    def predictions(self, corpus: Any) -> list[Any]:
        """What it says of a fine-tuning corpus's held-out examples, timed."""
        time.sleep(PAUSE)
        began = time.perf_counter()
        with self.tested() as model:
            found: list[Any] = corpus.task.predicted(model, corpus.encoded, corpus.validation)[1]
        self.testing += time.perf_counter() - began
        return found


class Ours(Side):
    """Our Trainer."""

    def __init__(self, trainer: Any) -> None:
        super().__init__()
        self.trainer = trainer

    def step(self, batch: Any) -> float:
        """See `Trainer.step`."""
        self.trainer.step(batch)
        return float(self.trainer.progress.recent[-1])

    @contextlib.contextmanager
    def ready(self) -> Any:
        """As within `Trainer.train`."""
        self.trainer.model.train()
        with precision(self.trainer.config.precision), np.errstate(all="ignore"):
            yield

    @contextlib.contextmanager
    def tested(self) -> Any:
        """As within `Trainer.train`."""
        with precision(self.trainer.config.precision), evaluating(self.trainer):
            yield self.trainer.model


class Twin(Side):
    """The same run in PyTorch, by transformers' model of the same name.

    trainer: ours, before its first step. folder: where its weights are put for the other to read.
    loss: of the twin and a batch. Errors: ConfigError for what the twin cannot do.
    """

    def __init__(self, trainer: Any, folder: Path, loss: Callable[[Twin, Any], Any]) -> None:
        import torch
        import transformers

        super().__init__()
        config = trainer.config
        for name in ("ema_decay", "class_weights"):
            if getattr(config, name, 0):
                raise ConfigError(f"{name} is {getattr(config, name)}, which the comparison with PyTorch does not know")
        self.torch, self.config, self.loss = torch, config, loss
        trainer.model.save_pretrained(folder)
        self.model = getattr(transformers, type(trainer.model).__name__).from_pretrained(folder)
        self.schedule, self.done = config.schedule(), 0
        names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
        theirs = dict(self.model.named_parameters())
        groups = [
            {
                "params": [theirs[names[id(parameter)]] for parameter in group["params"]],
                **{key: group[key] for key in ("betas", "eps", "weight_decay")},
            }
            for group in trainer.optimizer.param_groups
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)

    def step(self, batch: Any) -> float:
        """Forward, backward, clipping, AdamW."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self.schedule(self.done)
        self.optimizer.zero_grad()
        with self.autocast():  # anew in each step: it keeps the weights that it has converted as long as it lasts
            loss = self.loss(self, batch)
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip or math.inf)
        self.optimizer.step()
        self.done += 1
        return float(loss.item())

    def tensors(self, arrays: Iterable[Any]) -> list[Any]:
        """Arrays as PyTorch's tensors."""
        return [self.torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]

    def called(self, ids: Any, mask: Any, types: Any, pack: bool = False, **labels: Any) -> Any:
        """Its output for our tensors, as our model is called."""
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, **labels}
        return self.model(**dict(zip(given, self.tensors(tensor.array for tensor in given.values()))))

    def ready(self) -> Any:
        """Nothing but its training mode; products are in bfloat16 where ours are, see `step`."""
        self.model.train()
        return contextlib.nullcontext()

    def autocast(self) -> Any:
        """Within, products of matrices are in bfloat16 if the configuration says so."""
        return self.torch.autocast("cpu", self.torch.bfloat16, enabled=self.config.precision == "bf16")

    @contextlib.contextmanager
    def tested(self) -> Any:
        """The model, called as ours is."""
        self.model.eval()
        with self.torch.no_grad(), self.autocast():
            yield self.called


def take_turns(sides: Mapping[str, Side], data: Any, first: int, end: int, moved: Moved | None = None) -> None:
    """The steps first ... end - 1 of all, in turn, each on the same batches, which are made before."""
    for at in range(first, end, AT_A_TIME):
        batches = [data.batch(step) for step in range(at, min(at + AT_A_TIME, end))]
        for side in sides.values():
            side.steps(batches)
        if moved is not None:
            losses = ", ".join(f"{name} {np.mean(side.losses[-AT_A_TIME:]):.3f}" for name, side in sides.items())
            moved(at + len(batches), end, f"step {at + len(batches)} of {end}, loss {losses}")


def share(sides: Mapping[str, Side]) -> float | None:
    """Our time by PyTorch's, of steps and tests together."""
    totals = {name: side.seconds + side.testing for name, side in sides.items()}
    return totals[MINILM] / totals[PYTORCH] if len(totals) == 2 else None
