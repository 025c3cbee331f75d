"""Two runs lined up: the rows of a report, from what was recorded on either side."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minilm.testing.same import RTOL, difference
from minilm.testing.twins.calls import Array
from minilm.testing.twins.explaining import enclosing
from minilm.testing.twins.report import Report, Row
from minilm.testing.twins.tracing import Recording, Visit

Values = dict[str, Array]  # of parameters or their gradients, by name

# Gradients are sums over a batch, and steps follow from them: they lose more than one operation's rounding.
OF_SUMS = 5


def forward_rows(report: Report, ours: Recording, theirs: Recording, rtol: float | None) -> None:
    """Rows of all modules that both sides called, in the order in which ours came back."""
    other = {(v.name, v.number): v for v in theirs.visits}
    here = {(v.name, v.number) for v in ours.visits}
    report.only_ours = [v.title for v in ours.visits if (v.name, v.number) not in other]
    report.only_theirs = [v.title for v in theirs.visits if (v.name, v.number) not in here]
    for visit in ours.visits:
        twin = other.get((visit.name, visit.number))
        if twin is None:
            continue
        if called_differently(visit, twin):
            report.differently.append(visit.title)
            continue
        found = list(_of_visit("forward", visit.title, visit.outputs, twin.outputs, rtol))
        if report.first is None and not all(row.agrees for row in found):
            report.rows += _inputs_that_differ(ours, visit, other, rtol)
        report.rows += found


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


def gradient_rows(report: Report, ours: Values, theirs: Values, rtol: float | None) -> None:
    """Rows of the parameters' gradients, the last parameter's first, in the order of the backward pass."""
    first, second = (dict(reversed(gradients.items())) for gradients in (ours, theirs))
    report.rows += pairs("gradient", first, second, rtol, largest(second))


def step_rows(
    report: Report,
    step: int,
    parameters: tuple[Values, Values],
    gradients: tuple[list[Values], list[Values]],
    rtol: float | None,
) -> None:
    """Rows of the parameters after a step, but for elements whose gradients were only rounding errors so far."""
    here, there = parameters
    report.rows += pairs(f"step {step}", evened(here, there, gradients, rtol), there, rtol, 0.0)


def evened(ours: Values, theirs: Values, gradients: tuple[list[Values], list[Values]], rtol: float | None) -> Values:
    """Our parameters, with PyTorch's value in each element whose gradients so far were rounding errors on both sides.

    Adam divides a gradient by its own size: of a rounding error it makes a step of full length in a direction that
    means nothing. Elements without any gradient stay as they are.
    """
    found = dict(ours)
    for name in ours.keys() & theirs.keys():
        heard = np.zeros(ours[name].shape, bool)
        for both in zip(*gradients):
            floor = largest(both[1]) * tolerance(ours[name], rtol)
            for side in both:
                if name in side:
                    heard |= np.abs(side[name]) > floor
        moved = any(name in side for both in zip(*gradients) for side in both)
        found[name] = np.where(heard | (not moved), ours[name], theirs[name])
    return found


def pairs(
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
