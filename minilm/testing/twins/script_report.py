"""`minilm compare SCRIPT`: a script's two runs lined up step by step, and the first difference explained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minilm.compat.check import check_script
from minilm.errors import ConfigError
from minilm.pytorch import import_torch, to_torch
from minilm.tensor import Tensor
from minilm.testing.same import difference
from minilm.testing.twins.calls import Array
from minilm.testing.twins.explaining import Explainer
from minilm.testing.twins.report import Report, Row
from minilm.testing.twins.rows import Values, forward_rows, gradient_rows, step_rows
from minilm.testing.twins.scripts import OurRun, Run, TorchRun


def compare_script(
    path: str | Path, arguments: Sequence[str] = (), steps: int = 1, rtol: float | None = None, explain: bool = True
) -> Report:
    """Run a script on PyTorch and on minilm (`scripts` says how they are made equal) and say where they part first.

    Args:
        path, arguments: the script, and what it finds in `sys.argv`. It runs twice, without its output, and what it
            writes to files is written twice.
        steps: how many steps of its optimisers are compared; then the run is ended.
        rtol: as in `compare`.

    Rows of the second step on carry its number: `model.norm@2`.
    Errors: MissingTorchError without PyTorch; ScriptError for a script that is not there, uses what minilm has not, or
    goes another way on minilm; ConfigError for steps below 1, and for a script that calls no module.
    """
    torch = import_torch("compare")
    if steps < 1:
        raise ConfigError(f"compare: at least one step is compared, not {steps}")
    check_script(path)
    theirs = TorchRun(steps, torch)
    theirs.run(Path(path), arguments)
    ours = OurRun(steps, theirs, rtol)
    ours.run(Path(path), arguments)
    if not theirs.steps:
        raise ConfigError(f"compare: {path} calls no module, so there is nothing to compare")
    report = Report()
    for step in range(1, min(len(ours.steps), len(theirs.steps)) + 1):
        agreed = report.agrees
        _rows_of(report, step, ours, theirs, rtol)
        if explain and agreed and not report.agrees:
            report.explanation = _explained(report, step, ours, theirs, torch)
    return report


def run_compare(path: Path, arguments: Sequence[str], steps: int, rtol: float | None) -> int:
    """The command: print the report, and return 0 if all agrees, 1 if not."""
    report = compare_script(path, arguments, steps, rtol)
    report.show()
    return 0 if report.agrees else 1


def _rows_of(report: Report, step: int, ours: Run, theirs: Run, rtol: float | None) -> None:
    """What happened up to one step, then the gradients, then the parameters."""
    here, there = ours.steps[step - 1], theirs.steps[step - 1]
    part = Report()
    forward_rows(part, here.recording, there.recording, rtol)
    for mine, other in zip(here.losses, there.losses):
        part.rows.append(Row.of("loss", "", difference(mine, other, rtol)))
    if here.gradients or there.gradients:
        gradient_rows(part, here.gradients, there.gradients, rtol)
        history = [[s.gradients for s in run.steps[:step]] for run in (ours, theirs)]
        step_rows(part, step, (here.parameters, there.parameters), (history[0], history[1]), rtol)
    report.rows += [row if step == 1 or row.kind.startswith("step") else row.at_step(step) for row in part.rows]
    for whole, new in (
        (report.only_ours, part.only_ours),
        (report.only_theirs, part.only_theirs),
        (report.differently, part.differently),
    ):
        whole += [name for name in new if name not in whole]


def _explained(report: Report, step: int, ours: Run, theirs: Run, torch: Any) -> Any:
    """The explanation of the first difference, with all parameters as they were before that step."""
    first = report.first
    assert first is not None
    moments = [_Moment(ours, step, Tensor), _Moment(theirs, step, lambda array: to_torch(array, torch))]
    for moment in moments:
        moment.restore()
    return Explainer(*moments).explain(first)


class _Moment:
    """A run at the time of one step, as the explainer asks for it."""

    loss = None  # the script computes it where nobody can run it again

    def __init__(self, run: Run, step: int, convert: Any) -> None:
        self.side, self.model, self._convert = run.side, run.forest, convert
        self._optimizers = run.optimizers
        self.recording = run.steps[step - 1].recording
        self.gradients = [s.gradients for s in run.steps[:step]]
        self.initial = run.initial
        self.parameters: list[Values] = [self.initial, *(s.parameters for s in run.steps)]
        self._before = self.parameters[step - 1]

    def optimizer_of(self, parameter: Any) -> Any:
        """The optimiser that changes a parameter; any other if none does."""
        for optimizer in self._optimizers:
            if any(parameter is p for group in optimizer.param_groups for p in group["params"]):
                return optimizer
        return self._optimizers[0]

    def restore(self) -> None:
        """The parameters as they were before the step."""
        with self.side.without_gradients():
            for name, parameter in self.model.named_parameters():
                value: Array | None = self._before.get(name)
                if value is not None:
                    parameter.copy_(self._convert(np.array(value)))
