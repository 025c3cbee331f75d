"""The training loop.

    for each step:  batch -> loss -> gradients -> clip -> AdamW

A batch may be worked off in micro-batches, whose gradients add up to the batch's. What happens around the loop (the
display, the log, samples, the picture) is done by observers. Everything random is a function of the seed and the step,
so a run that is interrupted and resumed, also in the middle of a batch, computes what it would have computed.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minilm import optim, random
from minilm.errors import MinilmError
from minilm.files import locked
from minilm.kernels.precision import get_float32_matmul_precision, set_float32_matmul_precision
from minilm.modes import no_grad
from minilm.tensor import Tensor
from minilm.train.batches import Batch, Data, step_seed, tokens_in
from minilm.train.config import RunConfig
from minilm.train.objective import shared
from minilm.train.progress import Progress
from minilm.train.signals import ending_when_asked
from minilm.train.tidying import tidy
from minilm.train.validation import assess, evaluate

if TYPE_CHECKING:
    from minilm.train.observers import Observer


class DivergedError(MinilmError, ArithmeticError):
    """The loss became NaN or infinite."""


class Trainer:
    """Trains a model.

    Args:
        model: a Module with `loss(*batch)`: a mean over the batch's targets, or a tuple of such means (`objective.py`).
        data: what to learn from and what to test on; `data.batch(step)` is a function of the step alone.
        config: the settings of the run.
        folder: where checkpoints go; None for nowhere.
        observers: told of every step, evaluation and checkpoint, in this order.

    Attributes:
        progress: where the run stands. optimizer: AdamW over two groups, of which matrices decay.
        average: the running average of the weights, if `config.ema_decay` asks for one.
        interrupted: whether somebody asked to end: set it, and training ends after the micro-batch in hand.
    """

    def __init__(
        self,
        model: Any,
        data: Data,
        config: RunConfig,
        folder: Path | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.model, self.data, self.config, self.folder = model, data, config, folder
        self.observers = list(observers)
        groups = optim.decay_groups(model.parameters(), config.weight_decay)
        self.optimizer = optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2))
        self.average = optim.WeightAverage(model.parameters(), config.ema_decay) if config.ema_decay else None
        self.schedule = config.schedule()
        model.recompute = config.recompute
        self.progress = Progress(steps=config.steps)
        self.interrupted = False
        self.data_checksum = ""  # of what the data are made of, where a checkpoint is to know it

    def train(self) -> Progress:
        """Train to the last step, or until Ctrl-C or SIGTERM, which end the micro-batch in hand first.

        The end and every `checkpoint_every` steps leave a checkpoint in `folder`; so does an interrupt. A second Ctrl-C
        ends at once, back at the last checkpoint.

        Errors: DivergedError when a loss or a gradient is no finite number; the last checkpoint stays. LockedError if
        another process trains this run.
        """
        self.interrupted = False
        with self._alone(), ending_when_asked(self._ask_to_end), precision(self.config.precision):
            self._tell("started")
            try:
                if self.progress.at_the_beginning:
                    self._checkpoint()
                with np.errstate(all="ignore"):  # what overflows is seen by _finite, which says it in words
                    self._loop()
                if self.interrupted:
                    self._checkpoint()
            except DivergedError as error:
                self._tell("diverged", str(error))
                raise
            self._tell("ended")
        return self.progress

    def _loop(self) -> None:
        progress, config = self.progress, self.config
        self.model.train()
        while not progress.done and not self.interrupted:
            if not self.step(self.data.batch(progress.step)):
                return
            if progress.step % config.log_every == 0 or progress.done:
                progress.loss = sum(progress.recent) / len(progress.recent) if progress.recent else math.nan
            if progress.step % config.eval_every == 0 or progress.done:
                loss, progress.measures = assess(self)
                loss = self._finite("the validation loss", loss)
                progress.evaluated(loss, config.patience, config.target_loss, progress.measures.get(config.metric))
            self._tell("stepped")
            if progress.step % config.log_every == 0:
                progress.recent.clear()
            if progress.step % config.checkpoint_every == 0 or progress.done:
                self._checkpoint()

    def step(self, batch: Batch) -> bool:
        """One step of gradient descent; False if it was interrupted between micro-batches. Errors: DivergedError."""
        progress, began = self.progress, time.perf_counter()
        try:
            whole = self._gradients(batch)
            if whole and all(p.grad is None for p in self.model.parameters()):  # all targets are to be ignored
                progress.skipped += 1
            elif whole:
                self._update()
        except DivergedError:
            if self.config.on_nan != "skip":
                raise
            progress.skipped += 1
            whole = True
        spent = time.perf_counter() - began
        progress.seconds += spent
        if whole:
            progress.stepped(getattr(self.model, "tokens_in", tokens_in)(batch), spent)
        return whole

    def _gradients(self, batch: Batch) -> bool:
        """The gradient of the batch's loss, summed over micro-batches; False if it was interrupted between two."""
        progress, config = self.progress, self.config
        if not progress.examples:
            self.optimizer.zero_grad()
        total, size = len(batch[0]), config.micro_batch_size or len(batch[0])
        while progress.examples < total:
            if self.interrupted:
                return False
            first, end = progress.examples, min(progress.examples + size, total)
            micro = tuple(x[first:end] for x in batch)
            random.manual_seed(step_seed(config.seed, progress.step))  # dropout's
            with random.examples(first, end - first, total):
                loss, targets = shared(self.model.loss(*map(Tensor, micro)), micro, batch)
                if loss is not None:
                    progress.partial_loss += self._finite("the loss", loss.item(), progress.step + 1, micro)
                    loss.backward()
            progress.targets += targets
            progress.examples = end
        return True

    def _update(self) -> None:
        """Clip the gradient and let AdamW change the weights."""
        progress = self.progress
        rate = self.config.learning_rate * self.schedule(progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        limit = self.config.grad_clip or math.inf
        norm = float(optim.clip_grad_norm_(self.model.parameters(), limit))
        # Refused before the optimiser spoils the weights with it.
        progress.gradient_norm = self._finite("the gradient's norm", norm, progress.step + 1)
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        progress.learning_rate = rate
        progress.recent.append(progress.partial_loss)

    def _finite(self, what: str, value: float, step: int | None = None, micro: Batch | None = None) -> float:
        """`value`, if it is a finite number. Errors: DivergedError, with where a NaN was born in `micro`."""
        if math.isfinite(value):
            return value
        born = "" if micro is None else self._birthplace(micro)
        raise DivergedError(
            f"{what} is {value} at step {self.progress.step if step is None else step}: the run diverged. "
            f"A smaller learning_rate (now {self.config.learning_rate}) or a longer warm-up usually helps{born}"
        )

    def _birthplace(self, micro: Batch) -> str:
        """Which operation made the first NaN or infinity of this micro-batch."""
        from minilm.autograd import detect_anomaly

        try:
            with detect_anomaly(), no_grad():
                self.model.loss(*map(Tensor, micro))
        except MinilmError as error:
            return f". {str(error).splitlines()[0]}"
        return ""

    def evaluate(self, batches: int | None = None, seed: int = 0) -> float:
        """The mean validation loss, see `validation.evaluate`."""
        return evaluate(self, batches, seed)

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Within, the model has its averaged weights, if there are any."""
        return self.average.applied() if self.average else contextlib.nullcontext()

    def _checkpoint(self) -> None:
        if self.folder is not None:
            from minilm.train.checkpoint import save_checkpoint

            save_checkpoint(self, self.folder, progress=lambda share: self._tell("saving", share))
            self._tell("saved")
            tidy()

    def _ask_to_end(self) -> None:
        self.interrupted = True
        self._tell("interrupted")

    def _tell(self, event: str, *more: Any) -> None:
        for observer in self.observers:
            getattr(observer, event)(self, *more)

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.folder is None else locked(self.folder)


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Products of matrices in bfloat16 for the while, if `name` is "bf16"."""
    before = get_float32_matmul_precision()
    set_float32_matmul_precision("medium" if name == "bf16" else before)
    try:
        yield
    finally:
        set_float32_matmul_precision(before)
