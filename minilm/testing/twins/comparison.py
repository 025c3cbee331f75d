"""A model beside its PyTorch twin: forward values, gradients and optimiser steps lined up, module by module."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minilm import optim, random
from minilm.errors import ConfigError
from minilm.pytorch import as_array, import_torch, is_tensor, to_torch
from minilm.tensor import Tensor
from minilm.testing.same import RTOL, difference
from minilm.testing.twins.calls import Array
from minilm.testing.twins.explaining import Explainer, enclosing
from minilm.testing.twins.report import Report, Row
from minilm.testing.twins.tracing import Ours, Recording, Side, Theirs, Visit

# Gradients are sums over a batch, and steps follow from them: they lose more than one operation's rounding.
OF_SUMS = 5


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
        torch_model.load_state_dict(model.to_torch(), strict=True)
    else:
        rows += _pairs("weight", _parameters(model), _parameters(torch_model), rtol, 0.0)
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
        _forward(report, sides[0], sides[1], rtol)
        _backward(report, sides[0], sides[1], rtol)
        for step in range(1, steps + 1):
            _step(report, step, sides[0], sides[1], rtol)
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
        self.initial = _parameters(self.model)
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
        self.parameters.append(_parameters(self.model))

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
        with self.side.without_gradients():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(self.convert(self.initial[name]))
        self.model.zero_grad()


def _forward(report: Report, ours: _Run, theirs: _Run, rtol: float | None) -> None:
    """Rows of all modules that both sides called, in the order in which ours came back; then the loss."""
    other = {(v.name, v.number): v for v in theirs.recording.visits}
    here = {(v.name, v.number) for v in ours.recording.visits}
    report.only_ours = [v.title for v in ours.recording.visits if (v.name, v.number) not in other]
    report.only_theirs = [v.title for v in theirs.recording.visits if (v.name, v.number) not in here]
    for visit in ours.recording.visits:
        twin = other.get((visit.name, visit.number))
        if twin is None:
            continue
        if called_differently(visit, twin):
            report.differently.append(visit.title)
            continue
        found = list(_of_visit("forward", visit.title, visit.outputs, twin.outputs, rtol))
        if report.first is None and not all(row.agrees for row in found):
            report.rows += _inputs_that_differ(ours.recording, visit, other, rtol)
        report.rows += found
    mine, other_loss = (as_array(run.losses.result.detach()) for run in (ours, theirs))
    report.rows.append(Row.of("loss", "", difference(mine, other_loss, rtol)))


def called_differently(visit: Visit, twin: Visit) -> bool:
    """Whether both what a module was given and what it gave have other parts than its twin's."""
    return visit.inputs.keys() != twin.inputs.keys() and visit.outputs.keys() != twin.outputs.keys()


def _inputs_that_differ(
    recording: Recording, visit: Visit, other: dict[tuple[str, int], Visit], rtol: float | None
) -> Iterator[Row]:
    """The inputs of the outermost module around `visit`, itself included, that was given different ones."""
    for outer in enclosing(recording, visit):
        twin = other.get((outer.name, outer.number))
        if twin is None or called_differently(outer, twin):
            continue
        both = {place: twin.inputs[place] for place in outer.inputs if place in twin.inputs}
        rows = list(_of_visit("input", outer.title, {place: outer.inputs[place] for place in both}, both, rtol))
        if not all(row.agrees for row in rows):
            yield from (row for row in rows if not row.agrees)
            return


def _of_visit(
    kind: str, name: str, ours: dict[str, Array], theirs: dict[str, Array], rtol: float | None
) -> Iterator[Row]:
    """A row for each array that a module was given or gave."""
    for place in dict.fromkeys([*ours, *theirs]):
        title = f"{name} [{place}]" if place else name
        if place in ours and place in theirs:
            yield Row.of(kind, title, difference(ours[place], theirs[place], rtol))
        else:
            here = ours.get(place)
            array = theirs[place] if here is None else here
            yield Row.missing(kind, title, array.shape, f"only {'PyTorch' if here is None else 'minilm'} has it")


def _backward(report: Report, ours: _Run, theirs: _Run, rtol: float | None) -> None:
    """Rows of the parameters' gradients, the last parameter's first."""
    first, second = (dict(reversed(run.gradients[0].items())) for run in (ours, theirs))
    report.rows += _pairs("gradient", first, second, rtol, largest(second))


def _step(report: Report, step: int, ours: _Run, theirs: _Run, rtol: float | None) -> None:
    """Rows of the parameters after a step, but for elements whose gradients were rounding errors so far."""
    for run in (ours, theirs):
        run.step()
    here, there = dict(ours.parameters[-1]), dict(theirs.parameters[-1])
    for name in here:
        if name not in there:
            continue
        heard = np.zeros(here[name].shape, bool)
        for mine, other in zip(ours.gradients, theirs.gradients):
            floor = largest(other) * tolerance(here[name], rtol)
            for gradients in (mine, other):
                if name in gradients:
                    heard |= np.abs(gradients[name]) > floor
        moved = name in ours.gradients[0] or name in theirs.gradients[0]
        here[name] = np.where(heard | (not moved), here[name], there[name])
    report.rows += _pairs(f"step {step}", here, there, rtol, 0.0)


def _pairs(
    kind: str, ours: dict[str, Array], theirs: dict[str, Array], rtol: float | None, scale: float
) -> Iterator[Row]:
    """A row for each parameter; `scale` is the size of which the tolerance is a share, 0 for the tensor's own."""
    for name in dict.fromkeys([*ours, *theirs]):
        if name not in ours or name not in theirs:
            side, array = ("minilm", ours[name]) if name in ours else ("PyTorch", theirs[name])
            yield Row.missing(kind, name, array.shape, f"only {side} has one")
            continue
        share = tolerance(ours[name], rtol)
        atol = share * scale if scale else None
        yield Row.of(kind, name, difference(ours[name], theirs[name], share, atol))


def tolerance(array: Array, rtol: float | None) -> float:
    """The relative tolerance of gradients and parameters of this type."""
    return OF_SUMS * RTOL.get(array.dtype, 0.0) if rtol is None else rtol


def largest(arrays: dict[str, Array]) -> float:
    """The largest magnitude in all of them."""
    return max((float(np.abs(a).max(initial=0.0)) for a in arrays.values()), default=0.0)


def _parameters(model: Any) -> dict[str, Array]:
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
