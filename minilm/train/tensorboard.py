"""A run's curves for TensorBoard: minilm train ... --tensorboard, then tensorboard --logdir runs."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minilm.errors import ConfigError
from minilm.train.observers import LOG, TENSORBOARD, TIMING, Observer, log_line, read_log, timing_line

if TYPE_CHECKING:
    from minilm.train.trainer import Trainer

TAGS = {
    "loss": "loss/training",
    "validation_loss": "loss/validation",
    "learning_rate": "learning_rate",
    "gradient_norm": "gradient_norm",
    "tokens_per_second": "tokens_per_second",
}  # what else the logs hold goes to measures/, but for
NO_CURVES = ("step", "tokens", "seconds", "peak_memory", "skipped", "diverged")


def summary_writer() -> Any:
    """tensorboardX's SummaryWriter. Errors: ConfigError where it is not installed."""
    # It imports PyTorch where that is installed, 150 MB in five seconds, and needs it for nothing that is written here.
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise ConfigError("TensorBoard's files need tensorboardX: pip install 'minilm[tensorboard]'") from None
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter


class TensorBoard(Observer):
    """Writes RUN/tensorboard, what log.jsonl and timing.jsonl say, as the event files that TensorBoard shows.

    At the start what is there is replaced by what the logs hold, so that a run that was stopped, or written down
    without this before, has one curve in which each step stands once. It belongs behind `LogFile`, which removes the
    lines of steps that are done again. Time along the axis is time in training.

    Errors: ConfigError where tensorboardX is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._open = folder, summary_writer()
        self._writer: Any = None
        self._began = 0.0

    def started(self, trainer: Trainer) -> None:
        """Write down what was done before."""
        place = self.folder / TENSORBOARD
        for path in place.glob("events.out.tfevents.*"):
            path.unlink()
        self._writer = self._open(str(place))
        self._began = time.time() - trainer.progress.seconds
        timing = {line["step"]: line for line in read_log(self.folder / TIMING)}
        for line in read_log(self.folder / LOG):
            self._write({**timing.get(line["step"], {}), **line})

    def stepped(self, trainer: Trainer) -> None:
        """Write the figures that the log gets, if it gets any."""
        line = log_line(trainer)
        if line is not None:
            self._write({**timing_line(trainer), **line})

    def saved(self, trainer: Trainer) -> None:
        """Bring to the file what waits."""
        if self._writer is not None:  # a first checkpoint may come before anything else
            self._writer.flush()

    def ended(self, trainer: Trainer) -> None:
        """Close the file."""
        self.close()

    def diverged(self, trainer: Trainer, why: str) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file, also after an error."""
        if self._writer is not None:
            with contextlib.suppress(OSError):  # the log has it all
                self._writer.close()
            self._writer = None

    def _write(self, line: dict[str, Any]) -> None:
        walltime = self._began + line.get("seconds", 0.0)
        for name, value in line.items():
            if name not in NO_CURVES and value is not None:
                self._writer.add_scalar(TAGS.get(name, f"measures/{name}"), value, line["step"], walltime=walltime)
