"""What a run shows while it goes: a line that moves in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from minilm.kernels import measure_peak
from minilm.train.observers import Observer, memory

if TYPE_CHECKING:
    from minilm.train.trainer import Trainer


class Display(Observer):
    """Shows step, loss, validation loss, tokens/s, the share of the chip's peak and the time left.

    In a terminal also the learning rate, the gradient's norm and the memory, beneath. Samples come as text between the
    lines, through `sample`.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._peak = 0.0
        self._live: Progress | None = None

    def started(self, trainer: Trainer) -> None:
        """Measure the chip and open the moving line."""
        self._peak = measure_peak() * 1e9
        if self.console.is_terminal:
            self._live = Progress(
                BarColumn(bar_width=16),
                TextColumn("{task.description}"),
                console=self.console,
                transient=True,
            )
            self._task = self._live.add_task("starting", total=trainer.config.steps, completed=trainer.progress.step)
            self._live.start()

    def stepped(self, trainer: Trainer) -> None:
        """Move the line; a line that stays for each evaluation."""
        p, config = trainer.progress, trainer.config
        if self._live is not None and p.step % config.log_every == 0:
            more = (
                f"learning rate {p.learning_rate:.2g}  gradient norm {p.gradient_norm:.3g}  "
                f"memory {memory() / 2**20:,.0f} MiB"
            )
            self._live.update(self._task, completed=p.step, description=f"{self._line(trainer)}\n{more}")
        if p.step % config.eval_every == 0 or p.step == config.steps:
            self.console.print(Text(self._line(trainer)), highlight=False)
            if p.measures:
                found = (f"{name.replace('_', ' ')} {value:.1%}" for name, value in p.measures.items())
                self.console.print(Text(f"{' ' * (2 * len(str(p.steps)) + 8)}{'  '.join(found)}"), highlight=False)

    def interrupted(self, trainer: Trainer) -> None:
        """Say that it was heard, and what a second one would do."""
        self.console.print(Text("finishing this step; another Ctrl-C ends at once, back at the last checkpoint"))

    def ended(self, trainer: Trainer) -> None:
        """Take the moving line away."""
        self.close()

    def close(self) -> None:
        """Take the moving line away, also after an error."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def sample(self, step: int, text: str) -> None:
        """Show what the model writes after so many steps."""
        self.console.print(Text(f"\n── after {step} steps ──", style="bold"))
        self.console.print(Text(text, style="cyan"))
        self.console.print()

    def _line(self, trainer: Trainer) -> str:
        p = trainer.progress
        validation = "  -  " if p.validation_loss is None else f"{p.validation_loss:.3f}"
        loss = "  -  " if math.isnan(p.loss) else f"{p.loss:.3f}"
        share = p.tokens_per_second * trainer.model.flops_per_token() / self._peak if self._peak else 0.0
        return (
            f"step {p.step:>{len(str(p.steps))}}/{p.steps}  loss {loss}  validation {validation}  "
            f"{p.tokens_per_second:>7,.0f} tokens/s  {share:4.0%} of peak  {clock(p.seconds_left)} left"
        )


def clock(seconds: float) -> str:
    """Seconds as 1:05, or 2:01:05; "--:--" where they are not known."""
    if not math.isfinite(seconds):
        return "--:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
