"""The training loop.

    for each step:  batch -> loss -> gradients -> clip -> AdamW

What happens around it (the display, the log, samples, the picture) is done by observers. Everything
random is a function of the seed and the step, so a run that is interrupted and resumed computes what
it would have computed.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from minilm import optim, random
from minilm.data import CausalBlocks, DataLoader, RandomBatchSampler
from minilm.data.draws import Purpose
from minilm.errors import MinilmError
from minilm.modes import no_grad
from minilm.train.config import TrainConfig

if TYPE_CHECKING:
    from minilm.models.gpt import GPT
    from minilm.tensor import Tensor
    from minilm.train.observers import Observer


class DivergedError(MinilmError, ArithmeticError):
    """The loss became NaN or infinite."""


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: steps done. steps: steps in all.
        loss: the mean training loss of the last `log_every` steps, in nats per token.
        validation_loss: as last measured; None before.
        learning_rate: of the last step. gradient_norm: of the last step, before clipping.
        tokens_per_second: over the last steps, without evaluations and samples.
        seconds: spent in steps so far, over all sessions of the run.
    """

    step: int = 0
    steps: int = 0
    loss: float = math.nan
    validation_loss: float | None = None
    learning_rate: float = 0.0
    gradient_norm: float = 0.0
    tokens_per_second: float = 0.0
    seconds: float = 0.0
    recent: list[float] = field(default_factory=list, repr=False)

    @property
    def seconds_left(self) -> float:
        """At the speed so far; infinite before the first step."""
        return self.seconds / self.step * (self.steps - self.step) if self.step else math.inf


class Trainer:
    """Trains a model on blocks of tokens.

    Args:
        model: a GPT (anything with `loss(tokens, targets)` and Module's methods).
        train_blocks, validation_blocks: what to learn from and what to test on.
        config: the settings of the run.
        folder: where checkpoints go; None for nowhere.
        observers: told of every step, evaluation and checkpoint, in this order.

    Attributes:
        progress: where the run stands; `optimizer`: AdamW over two groups, of which matrices decay.
    """

    def __init__(
        self,
        model: GPT,
        train_blocks: CausalBlocks,
        validation_blocks: CausalBlocks,
        config: TrainConfig,
        folder: Path | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.model, self.config, self.folder = model, config, folder
        self.train_blocks, self.validation_blocks = train_blocks, validation_blocks
        self.observers = list(observers)
        self.optimizer = optim.AdamW(
            _groups(model, config.weight_decay),
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
        )
        self.schedule = config.schedule()
        self.progress = Progress(steps=config.steps)
        self.interrupted = False

    def train(self) -> Progress:
        """Train to the last step, or until Ctrl-C, which ends the current step first; a second one ends at once.

        The end and every `checkpoint_every` steps leave a checkpoint in `folder`; so does an interrupt.
        Errors: DivergedError when a loss or a gradient is no finite number; the last checkpoint stays.
        """
        self.interrupted = False
        with self._finishing_steps_on_interrupt():
            self._tell("started")
            if self.progress.step == 0:
                self._checkpoint()
            with np.errstate(all="ignore"):  # what overflows is seen by _finite, which says it in words
                self._loop()
            if self.interrupted:
                self._checkpoint()
            self._tell("ended")
        return self.progress

    def _loop(self) -> None:
        progress, config = self.progress, self.config
        self.model.train()
        for tokens, targets in self._batches():
            if self.interrupted:
                return
            self._step(tokens, targets)
            done = progress.step == config.steps
            if progress.step % config.log_every == 0 or done:
                progress.loss = sum(progress.recent) / len(progress.recent)
            if progress.step % config.eval_every == 0 or done:
                progress.validation_loss = self._finite("the validation loss", self.evaluate(), progress.step)
            self._tell("stepped")
            if progress.step % config.log_every == 0:
                progress.recent.clear()
            if progress.step % config.checkpoint_every == 0 or done:
                self._checkpoint()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches (B, T) of tokens and targets from this step to the last."""
        sampler = RandomBatchSampler(
            self.train_blocks, self.config.batch_size, self.config.steps, self.config.seed, self.progress.step
        )
        return iter(DataLoader(self.train_blocks, batch_sampler=sampler))

    def _step(self, tokens: Tensor, targets: Tensor) -> None:
        """One step of gradient descent."""
        began, progress = time.perf_counter(), self.progress
        rate = self.config.learning_rate * self.schedule(progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        random.manual_seed(_step_seed(self.config.seed, progress.step))  # dropout's
        self.optimizer.zero_grad()
        loss = self.model.loss(tokens, targets)
        value = self._finite("the loss", loss.item(), progress.step + 1)
        loss.backward()
        limit = self.config.grad_clip or math.inf
        norm = float(optim.clip_grad_norm_(self.model.parameters(), limit))
        # Refused before the optimiser spoils the weights with it.
        progress.gradient_norm = self._finite("the gradient's norm", norm, progress.step + 1)
        self.optimizer.step()
        spent = time.perf_counter() - began
        progress.step += 1
        progress.seconds += spent
        progress.learning_rate = rate
        progress.recent.append(value)
        speed = tokens.numel() / spent
        progress.tokens_per_second += (speed - progress.tokens_per_second) * (0.1 if progress.tokens_per_second else 1)

    def _finite(self, what: str, value: float, step: int) -> float:
        """`value`, if it is a finite number. Errors: DivergedError."""
        if not math.isfinite(value):
            raise DivergedError(
                f"{what} is {value} at step {step}: the run diverged. A smaller learning_rate "
                f"(now {self.config.learning_rate}) or a longer warm-up usually helps"
            )
        return value

    def evaluate(self, batches: int | None = None, seed: int = 0) -> float:
        """The mean validation loss, in nats per token, over `batches` random batches, the same at every call."""
        was_training = self.model.training
        self.model.eval()
        sampler = RandomBatchSampler(
            self.validation_blocks, self.config.batch_size, batches or self.config.eval_batches, seed
        )
        try:
            with no_grad():
                losses = [
                    self.model.loss(tokens, targets).item()
                    for tokens, targets in DataLoader(self.validation_blocks, batch_sampler=sampler)
                ]
        finally:
            self.model.train(was_training)
        return sum(losses) / len(losses)

    def _checkpoint(self) -> None:
        if self.folder is not None:
            from minilm.train.checkpoint import save_checkpoint

            save_checkpoint(self, self.folder)
            self._tell("saved")

    def _tell(self, event: str) -> None:
        for observer in self.observers:
            getattr(observer, event)(self)

    @contextmanager
    def _finishing_steps_on_interrupt(self) -> Iterator[None]:
        """Within, the first Ctrl-C asks the loop to end after its step; the second raises as usual."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signals reach the main thread only
            return

        def remember(number: int, frame: FrameType | None) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True
            self._tell("interrupted")

        before = signal.signal(signal.SIGINT, remember)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def _groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases and the scales of normalisation, which are vectors, do not."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _step_seed(seed: int, step: int) -> int:
    """A seed for each step: mixed, so that neighbouring steps of neighbouring seeds are not the same."""
    from minilm.kernels.philox import philox

    high, low = philox(seed, int(Purpose.STEP) << 32, step, 2)
    return int(high) << 32 | int(low)
