"""A model beside its PyTorch twin: forward values, gradients and optimiser steps lined up, module by module."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minilm import optim, random
from minilm.errors import ConfigError, ModuleError
from minilm.pytorch import as_array, import_torch, is_tensor, to_torch
from minilm.tensor import Tensor
from minilm.testing.same import difference
from minilm.testing.twins.calls import Array
from minilm.testing.twins.explaining import Explainer
from minilm.testing.twins.report import Report, Row
from minilm.testing.twins.rows import Values, forward_rows, gradient_rows, pairs, step_rows
from minilm.testing.twins.tracing import Ours, Side, Theirs


def compare(
    model: Any,
    torch_model: Any,
    batch: Any,
    loss: Any = None,
    *,
    targets: Any = (),
    steps: int = 0,
    optimizer: tuple[Any, Any] | None = None,
    weights: str | None = "theirs",
    seed: int = 0,
    rtol: float | None = None,
    explain: bool = True,
) -> Report:
    """Run a model and its PyTorch twin on one batch, and say where they part first, and why.

        losses = minilm.nn.functional.cross_entropy, torch.nn.functional.cross_entropy
        print(compare(model, torch_model, x, losses, targets=classes))     # a table, and the explanation

    Args:
        model, torch_model: modules whose parts have equal names; each in train() or eval() as it was left.
        batch: an array, a tuple of arrays (the arguments) or a dict (the arguments by name).
        loss: `loss(output, *targets)` gives a scalar; one function for both, or a pair (ours, theirs). By default the
            output itself if it is a scalar, else its sum weighted with fixed random numbers.
        targets: an array, or a tuple of arrays.
        steps: how many optimiser steps to take, all on this batch.
        optimizer: a pair of functions (ours, theirs) that make an optimiser from parameters; by default AdamW of both.
        weights: "theirs" copies PyTorch's into the model first, "ours" the other way; None compares them as they are.
        seed: of both libraries' generators, and of dropout, which draws the same on both sides.
        rtol: the relative tolerance; by default that of `assert_same` for the element type, five times that for
            gradients and steps. Gradients count as equal that differ by less than it leaves of the largest one in the
            model, and so do parameters' elements that only ever had such gradients: Adam makes steps of full length of
            rounding errors.
        explain: whether to look for the cause.

    Both models are left with the weights that they started from and without gradients.
    Errors: MissingTorchError without PyTorch; ModuleError where the weights do not fit; ConfigError for an impossible
    argument.
    """
    torch = import_torch("compare()")
    if weights not in ("theirs", "ours", None) or steps < 0:
        raise ConfigError(
            f"compare: weights are 'theirs', 'ours' or None and steps 0 or more, not {weights!r}, {steps}"
        )
    pair = loss if isinstance(loss, tuple) else (loss, loss)
    rows: list[Row] = []
    if weights == "theirs":
        model.load_torch(torch_model)
    elif weights == "ours":
        try:
            torch_model.load_state_dict(model.to_torch(), strict=True)
        except RuntimeError as error:
            raise ModuleError(f"compare: {error}") from None
    else:
        rows += pairs("weight", parameters_of(model), parameters_of(torch_model), rtol, 0.0)
    makers = optimizer or (optim.AdamW, torch.optim.AdamW)
    ours, theirs = Ours(model), Theirs(torch_model, torch)
    sides = [
        _Run(side, convert, batch, targets, function, maker if steps else None)
        for side, convert, function, maker in zip((ours, theirs), (_to_ours, _to_theirs(torch)), pair, makers)
    ]
    with _seeded(torch, theirs, seed), contextlib.ExitStack() as cleanup:
        for run in sides:
            cleanup.callback(run.restore)
            run.start()
        report = Report(rows)
        forward_rows(report, sides[0].recording, sides[1].recording, rtol)
        mine, other = (as_array(run.losses.result.detach()) for run in sides)
        report.rows.append(Row.of("loss", "", difference(mine, other, rtol)))
        gradient_rows(report, sides[0].gradients[0], sides[1].gradients[0], rtol)
        for step in range(1, steps + 1):
            for run in sides:
                run.step()
            after = sides[0].parameters[-1], sides[1].parameters[-1]
            history = sides[0].gradients, sides[1].gradients
            step_rows(report, step, after, history, rtol)
        if explain and report.first is not None:
            for run in sides:
                run.restore()  # modules run again with the weights that they ran with
            report.explanation = Explainer(sides[0], sides[1]).explain(report.first)
    return report


class _Run:
    """One side's run: what goes in, what was recorded, and gradients and parameters step by step."""

    def __init__(
        self, side: Side, convert: Callable[[Any], Any], batch: Any, targets: Any, loss: Any, maker: Any
    ) -> None:
        self.side, self.model, self.loss_function = side, side.model, loss
        given = batch if isinstance(batch, (tuple, dict)) else (batch,)
        self.args = convert(given) if isinstance(given, tuple) else ()
        self.kwargs = convert(given) if isinstance(given, dict) else {}
        self.targets = convert(targets if isinstance(targets, tuple) else (targets,))
        self.convert = convert
        self.initial = parameters_of(self.model)
        self.optimizer: Any = maker(self.model.parameters()) if maker else None
        self.gradients: list[dict[str, Array]] = []
        self.parameters: list[dict[str, Array]] = [self.initial]

    def start(self) -> None:
        """The first forward and backward pass, recorded."""
        self.recording = self.side.record(lambda: self.model(*self.args, **self.kwargs))
        self.output = self.recording.result
        self.losses = self.side.record(lambda: self.loss(self.output))
        self._backward(self.losses.result)

    def step(self) -> None:
        """One step of the optimiser, with the gradients that are there or new ones."""
        if len(self.gradients) < len(self.parameters):
            self._backward(self.side.record(lambda: self.loss(self.model(*self.args, **self.kwargs))).result)
        self.optimizer.step()
        self.parameters.append(parameters_of(self.model))

    def optimizer_of(self, parameter: Any) -> Any:
        """The optimiser that changes a parameter."""
        return self.optimizer

    def loss(self, output: Any) -> Any:
        """The scalar that the gradients are of."""
        if self.loss_function is not None:
            return self.loss_function(output, *self.targets)
        first = output
        while not is_tensor(first):  # the first tensor in what the model returns
            first = next(iter(first.values() if isinstance(first, dict) else first))
        if first.ndim == 0:
            return first
        shape = tuple(first.shape)
        share = np.random.default_rng(0).standard_normal(shape).astype(as_array(first).dtype)
        return (first * self.convert(share)).sum()

    def _backward(self, loss: Any) -> None:
        self.model.zero_grad()
        if loss.requires_grad:  # else there is nothing to learn
            loss.backward()
        grads = {name: p.grad for name, p in self.model.named_parameters()}
        self.gradients.append({name: as_array(g).copy() for name, g in grads.items() if g is not None})

    def restore(self) -> None:
        """The weights that it started from, and no gradients."""
        self.take(self.initial)
        self.model.zero_grad()

    def take(self, values: Values) -> None:
        """Write these values into the parameters."""
        with self.side.without_gradients():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(self.convert(values[name]))


def parameters_of(model: Any) -> dict[str, Array]:
    """Copies of all parameters, by name."""
    return {name: as_array(p.detach()).copy() for name, p in model.named_parameters()}


def _to_ours(value: Any) -> Any:
    """Arrays as minilm's tensors, also in tuples and dicts."""
    if isinstance(value, tuple):
        return tuple(_to_ours(v) for v in value)
    if isinstance(value, dict):
        return {key: _to_ours(v) for key, v in value.items()}
    return Tensor(as_array(value).copy()) if is_tensor(value) else value


def _to_theirs(torch: Any) -> Callable[[Any], Any]:
    """The same for PyTorch's."""

    def convert(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(convert(v) for v in value)
        if isinstance(value, dict):
            return {key: convert(v) for key, v in value.items()}
        return to_torch(as_array(value), torch) if is_tensor(value) else value

    return convert


@contextlib.contextmanager
def _seeded(torch: Any, theirs: Theirs, seed: int) -> Iterator[None]:
    """Both libraries' generators begin with `seed`, and go on afterwards where they were."""
    ours_before, theirs_before = random.get_rng_state(), torch.get_rng_state()
    random.manual_seed(seed)
    torch.manual_seed(seed)
    theirs.generator.manual_seed(seed)
    try:
        yield
    finally:
        random.set_rng_state(ours_before)
        torch.set_rng_state(theirs_before)
