"""Where a run stands: what a checkpoint must hold beside the tensors."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: steps done. steps: steps in all.
        examples, partial_loss: of the step in hand, how many examples were worked off, and their share of its loss.
        loss: the mean training loss of the last `log_every` steps, in nats per target. recent: those since then.
        validation_loss: as last measured; None before. best_validation_loss: the least so far.
        best_worth: the largest so far of what is to be large, minus the loss or a measure.
        measures: what else was measured with it, by name, such as an accuracy.
        evaluated_at: the step at which it was measured. best_checkpoint: the step of the best one that was saved.
        seconds_to_target: the seconds that were spent when the target loss was first reached; None before.
        worse: evaluations in a row without a new best. stopped: whether these were so many that training ended.
        learning_rate: of the last step. gradient_norm: of the last step, before clipping.
        skipped: steps that changed nothing: the loss or gradient was no finite number, or the batch had no target.
        targets: learnt from so far, in all parts of the loss. tokens: read so far, padding included.
        tokens_per_second: over the last steps, without evaluations and samples.
        seconds: spent in steps so far, over all sessions of the run.
    """

    step: int = 0
    steps: int = 0
    examples: int = 0
    partial_loss: float = 0.0
    loss: float = math.nan
    validation_loss: float | None = None
    best_validation_loss: float = math.inf
    best_worth: float = -math.inf
    measures: dict[str, float] = field(default_factory=dict)
    evaluated_at: int | None = None
    best_checkpoint: int | None = None
    seconds_to_target: float | None = None
    worse: int = 0
    stopped: bool = False
    learning_rate: float = 0.0
    gradient_norm: float = 0.0
    skipped: int = 0
    targets: int = 0
    tokens: int = 0
    tokens_per_second: float = 0.0
    seconds: float = 0.0
    recent: list[float] = field(default_factory=list, repr=False)

    @property
    def at_the_beginning(self) -> bool:
        """Whether nothing was done yet."""
        return self.step == 0 and self.examples == 0

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.step >= self.steps or self.stopped

    @property
    def seconds_left(self) -> float:
        """At the speed so far; infinite before the first step."""
        return self.seconds / self.step * (self.steps - self.step) if self.step else math.inf

    def stepped(self, tokens: int, seconds: float) -> None:
        """A step was done, on so many tokens, in the time since its last interruption."""
        self.step += 1
        self.examples, self.partial_loss = 0, 0.0
        self.tokens += tokens
        speed = tokens / seconds
        self.tokens_per_second += (speed - self.tokens_per_second) * (0.1 if self.tokens_per_second else 1)

    def evaluated(self, loss: float, patience: int, target: float, measure: float | None = None) -> None:
        """The validation loss was measured; `patience` of them in a row that are no better (0: any) end the run.

        Args:
            measure: what is to be as large as possible; by default the loss is to be small.
        """
        if loss <= target and self.seconds_to_target is None:
            self.seconds_to_target = self.seconds
        self.validation_loss, self.evaluated_at = loss, self.step
        self.best_validation_loss = min(loss, self.best_validation_loss)
        worth = -loss if measure is None else measure
        self.worse = 0 if worth > self.best_worth else self.worse + 1
        self.best_worth = max(worth, self.best_worth)
        self.stopped = bool(patience) and self.worse >= patience

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has neither NaN nor infinity: None in their place."""
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any], steps: int) -> Progress:
        """What `to_dict` gave, for a run of `steps` steps. Errors: KeyError, TypeError, ValueError for another dict."""
        found = cls(**{**values, "steps": steps})
        found.step, found.examples = int(values["step"]), int(values["examples"])
        found.recent = list(values["recent"])
        found.loss = math.nan if found.loss is None else float(found.loss)
        found.best_validation_loss = math.inf if found.best_validation_loss is None else found.best_validation_loss
        if values.get("best_worth") is None:  # nothing was measured yet, or an older minilm's
            found.best_worth = -found.best_validation_loss
        return found
