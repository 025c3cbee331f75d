"""What a run shows while it goes: figures that move in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from rich.console import Console

from minilm.display import Display, clock
from minilm.kernels import measure_peak
from minilm.train.observers import Observer, memory

if TYPE_CHECKING:
    from minilm.train.trainer import Trainer

LONG = 1.0  # seconds after which the writing of a checkpoint is shown


class TrainingDisplay(Observer):
    """Shows step and time left; loss, validation loss, learning rate, gradient norm; speed, share of the peak, memory.

    The peak is what this chip reaches with nothing but multiply-adds, measured for 0.2 s at the start; the share is by
    the model's own count of operations per token. Samples come as text between, through `sample`.
    """

    def __init__(self, console: Console) -> None:
        self.display = Display(console)
        self._peak, self._peak_name = 0.0, "peak"
        self._saving_since: float | None = None

    def started(self, trainer: Trainer) -> None:
        """Measure the chip and show the bar."""
        self._peak = measure_peak() * 1e9
        if trainer.config.precision != "float32":
            self._peak_name = "float32's peak"
        self._move(trainer)

    def stepped(self, trainer: Trainer) -> None:
        """Move the bar; a line that stays for each evaluation."""
        p = trainer.progress
        self._move(trainer)
        if p.evaluated_at == p.step:
            short = self.display.console.is_terminal  # the rest stands beneath
            figures = [
                _step(trainer),
                *_losses(trainer)[: 2 if short else 4],
                *self._speed(trainer)[: 2 if short else 3],
            ]
            self.display.say("  ".join(figures if short else [*figures, _left(trainer)]))
            if p.measures:
                found = (f"{name.replace('_', ' ')} {value:.3g}" for name, value in p.measures.items())
                self.display.say(f"{' ' * (2 * len(str(p.steps)) + 8)}{'  '.join(found)}")

    def saving(self, trainer: Trainer, share: float) -> None:
        """Say how much of a checkpoint is written, if it takes long."""
        now = time.monotonic()
        self._saving_since = now if self._saving_since is None else self._saving_since
        if now - self._saving_since >= LONG:
            self._move(trainer, f"saving the checkpoint: {share:.0%}", quiet=10.0)

    def saved(self, trainer: Trainer) -> None:
        """The checkpoint is written."""
        self._saving_since = None

    def interrupted(self, trainer: Trainer) -> None:
        """Say that it was heard, and what a second one would do."""
        self.display.say("ending with a checkpoint; another Ctrl-C ends at once, back at the last one")

    def ended(self, trainer: Trainer) -> None:
        """Take the bar away."""
        self.close()

    def close(self) -> None:
        """Take the bar away, also after an error."""
        self.display.close()

    def sample(self, step: int, text: str) -> None:
        """Show what the model writes after so many steps."""
        self.display.say(f"\n── after {step} steps ──", style="bold")
        self.display.say(f"{text}\n", style="cyan")

    def _move(self, trainer: Trainer, *more: str, **settings: float) -> None:
        p = trainer.progress
        lines = (
            f"{_step(trainer)}  {_left(trainer)}",
            "  ".join(_losses(trainer)),
            "  ".join(self._speed(trainer)).lstrip(),
        )
        self.display.move(p.step, p.steps, *lines, *more, **settings)

    def _speed(self, trainer: Trainer) -> list[str]:
        """Tokens/s, share of float32's peak, which products in bfloat16 may go beyond, and memory."""
        p = trainer.progress
        per_token = getattr(trainer.model, "flops_per_token", None)
        share = f"{p.tokens_per_second * per_token() / self._peak:4.0%}" if per_token and self._peak else "  - "
        return [
            f"{p.tokens_per_second:>7,.0f} tokens/s",
            f"{share} of {self._peak_name}",
            f"memory {memory() / 2**20:,.0f} MiB",
        ]


def _step(trainer: Trainer) -> str:
    p = trainer.progress
    return f"step {p.step:>{len(str(p.steps))}}/{p.steps}"


def _left(trainer: Trainer) -> str:
    return f"{clock(trainer.progress.seconds_left)} left"


def _losses(trainer: Trainer) -> list[str]:
    """Training loss, validation loss, learning rate, the gradient's norm."""
    p = trainer.progress
    loss = "  -  " if math.isnan(p.loss) else f"{p.loss:.3f}"
    validation = "  -  " if p.validation_loss is None else f"{p.validation_loss:.3f}"
    rates = f"learning rate {p.learning_rate:.2g}", f"gradient norm {p.gradient_norm:.3g}"
    return [f"loss {loss}", f"validation {validation}", *rates]
