"""Observers: what is done around the training loop, each in a class of its own."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minilm.errors import CheckpointError
from minilm.files import written_whole
from minilm.generation import generate_text
from minilm.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from minilm.train.trainer import Trainer

LOG, TIMING, COSTS, TENSORBOARD = "log.jsonl", "timing.jsonl", "costs.json", "tensorboard"


class Observer:
    """Base: told of what happens, in the order in which it does; does nothing."""

    def started(self, trainer: Trainer) -> None:
        """Training begins, or goes on, at `trainer.progress.step`."""

    def stepped(self, trainer: Trainer) -> None:
        """A step was done, and its evaluation if one was due."""

    def saving(self, trainer: Trainer, share: float) -> None:
        """A checkpoint is being written, of which this share, from 0 to 1, is done: again and again."""

    def saved(self, trainer: Trainer) -> None:
        """A checkpoint was written."""

    def interrupted(self, trainer: Trainer) -> None:
        """The user pressed Ctrl-C: the step in hand is the last one; a second Ctrl-C ends at once."""

    def diverged(self, trainer: Trainer, why: str) -> None:
        """A loss, a gradient or the weights are no finite numbers, and training ends."""

    def ended(self, trainer: Trainer) -> None:
        """The last step was done, or the user interrupted (`trainer.interrupted`)."""


class LogFile(Observer):
    """Writes log.jsonl: one JSON object a line, every `log_every` steps and at each evaluation.

    A resumed run first drops the lines beyond the checkpoint: those steps are done again, and give the same lines. How
    long the steps took, which is never the same, goes to timing.jsonl.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self.timing = folder / LOG, folder / TIMING

    def started(self, trainer: Trainer) -> None:
        """Keep the lines of the steps that stay done."""
        for path in (self.path, self.timing):
            kept = [line for line in read_log(path) if line["step"] <= trainer.progress.step]
            with written_whole(path, "w") as file:
                file.writelines(json.dumps(line) + "\n" for line in kept)

    def stepped(self, trainer: Trainer) -> None:
        """Write a line if one is due."""
        line = log_line(trainer)
        if line is not None:
            self._append(line, timing_line(trainer))

    def diverged(self, trainer: Trainer, why: str) -> None:
        """Write down why the run ended; when it goes on, that line goes."""
        p = trainer.progress
        line = {"step": p.step + 1, "loss": None, "tokens": p.tokens, "diverged": why}
        self._append(line, {**timing_line(trainer), "step": p.step + 1})

    def _append(self, line: dict[str, Any], timing: dict[str, Any]) -> None:
        for path, record in ((self.path, line), (self.timing, timing)):
            with path.open("a", encoding="utf-8") as file:  # not held open: a run may end by an error
                file.write(json.dumps(record) + "\n")


def log_line(trainer: Trainer) -> dict[str, Any] | None:
    """What is to be written down of the last step: the same in every run; None if nothing is due."""
    p = trainer.progress
    evaluated = p.evaluated_at == p.step
    if not evaluated and p.step % trainer.config.log_every:
        return None
    line: dict[str, Any] = {
        "step": p.step,
        "loss": round(p.loss, 6) if math.isfinite(p.loss) else None,
        "learning_rate": p.learning_rate,
        "gradient_norm": round(p.gradient_norm, 6),
        "tokens": p.tokens,
    }
    if evaluated:
        line["validation_loss"] = p.validation_loss
        line.update(p.measures)
    if p.skipped:
        line["skipped"] = p.skipped
    return line


def timing_line(trainer: Trainer) -> dict[str, Any]:
    """What is another in every run: how long it took so far, and the most memory."""
    p = trainer.progress
    return {
        "step": p.step,
        "seconds": round(p.seconds, 3),
        "tokens_per_second": round(p.tokens_per_second, 1),
        "peak_memory": peak_memory(),
    }


class Costs(Observer):
    """Writes costs.json, what the run has cost so far, over all its sessions, with every checkpoint.

    steps, tokens, seconds; flops: multiplications and additions by the model's formula; peak_memory in bytes;
    joules: of the whole processor, where the system tells (RAPL), else null; seconds_to_target: see `target_loss`.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / COSTS
        self._meter = energy()
        self._before: dict[str, Any] = {}

    def started(self, trainer: Trainer) -> None:
        """Go on from what earlier sessions have cost."""
        with contextlib.suppress(OSError, ValueError):
            self._before = json.loads(self.path.read_text(encoding="utf-8"))
        self._meter = energy()

    def saved(self, trainer: Trainer) -> None:
        """Write them down."""
        p, now = trainer.progress, energy()
        per_token = getattr(trainer.model, "flops_per_token", None)
        joules = None if now is None or self._meter is None else max(0.0, now - self._meter)
        record = {
            "steps": p.step,
            "tokens": p.tokens,
            "seconds": round(p.seconds, 3),
            "flops": None if per_token is None else p.tokens * per_token(),
            "peak_memory": max(peak_memory(), self._before.get("peak_memory") or 0),
            "joules": None if joules is None else round(joules + (self._before.get("joules") or 0), 1),
            "seconds_to_target": p.seconds_to_target,
        }
        with written_whole(self.path, "w") as file:
            # A line each. json's own indentation leaves cycles, which pile up until the collector's rare full pass.
            lines = (f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in record.items())
            file.write("{\n" + ",\n".join(lines) + "\n}\n")


def energy() -> float | None:
    """The joules that the processors' meters show; None where there are none, or they may not be read."""
    meters = sorted(Path("/sys/class/powercap").glob("intel-rapl:[0-9]*"))
    try:
        found = [int((meter / "energy_uj").read_text()) for meter in meters if meter.name.count(":") == 1]
    except (OSError, ValueError):
        return None
    return sum(found) / 1e6 if found else None


def memory() -> int:
    """The memory that this process has now, in bytes; its peak where the system does not say more."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return peak_memory()


def peak_memory() -> int:
    """The most memory that this process has had, in bytes; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line that was cut short is left out. Errors: CheckpointError for another file."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    found = []
    for number, text in enumerate(lines):
        try:
            line = json.loads(text)
            line["step"]
        except (ValueError, KeyError, TypeError):
            if number == len(lines) - 1:  # a power cut in the middle of it
                break
            raise CheckpointError(f"{path}: line {number + 1} is no log line: {text[:60]!r}") from None
        found.append(line)
    return found


class Samples(Observer):
    """Lets the model write a text every `sample_every` steps and at the end, and shows it.

    Args:
        show: called with the number of steps and the text.
        prompt: what the texts begin with.
    """

    def __init__(self, tokenizer: Tokenizer, show: Callable[[int, str], None], prompt: str) -> None:
        self.tokenizer, self.show, self.prompt = tokenizer, show, prompt

    def stepped(self, trainer: Trainer) -> None:
        """Write a text if one is due."""
        p = trainer.progress
        config: Any = trainer.config  # a TrainConfig
        if trainer.interrupted:
            return  # nobody waits for a text now
        if config.sample_every and config.sample_length and (p.step % config.sample_every == 0 or p.step == p.steps):
            self.show(p.step, self.text(trainer))

    def text(self, trainer: Trainer) -> str:
        """A text by the model as it is now; the same one every time."""
        config: Any = trainer.config
        pieces = generate_text(
            trainer.model,
            self.tokenizer,
            self.prompt,
            config.sample_length,
            temperature=0.8,
            seed=config.seed,
        )
        return self.prompt + "".join(pieces)
