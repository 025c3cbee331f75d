"""First and second derivatives, held against the slopes of the function itself in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from minilm.autograd import grad
from minilm.ops.joining import stack
from minilm.tensor import Tensor
from minilm.testing.causes import Kink, guess
from minilm.testing.checked import Checked, GradientError
from minilm.testing.differences import Differences
from minilm.testing.shrinking import smallest

Array = Any
Function = Callable[..., Any]

LARGEST = 20_000_000  # elements of a Jacobian: beyond that memory, and patience, end
TOLERANCES = {"complex": (1e-9, 1e-11), "central": (1e-6, 1e-8)}  # rtol, atol: some ten times what the slopes miss


def gradcheck(
    function: Function,
    inputs: Sequence[Any],
    *,
    eps: float = 1e-6,
    rtol: float | None = None,
    atol: float | None = None,
    method: str = "auto",
    fast: bool = False,
    limit: int | None = None,
    allow_independent: bool = False,
    shrink: bool = True,
    seed: int = 0,
) -> bool:
    """Hold the engine's gradients of `function` against its slopes; True, or an error.

    The whole Jacobian is compared: for every element o of the outputs and i of the inputs

        d f_o / d x_i  ~  Im f_o(x + i h e_i) / h                              where f is analytic, else
                       ~  (f_o(x + h e_i) - f_o(x - h e_i)) / 2h,              h = eps max(1, |x_i|)

    Args:
        function: from Tensors to a Tensor or a tuple of them, such as `MyFunction.apply`; it must give the same value
            each time. Outputs that require no gradient are left out.
        inputs: Tensors or arrays. Floating ones are differentiated, in float64, except Tensors that do not require a
            gradient. Integers and bools are constants.
        rtol, atol: an error of atol max(1, |the input's largest slope|) + rtol |slope| is allowed; by default 1e-9 and
            1e-11 for complex steps, 1e-6 and 1e-8 for central differences.
        method: "auto", "complex" or "central"; see `differences.Differences`.
        fast: compare only c^T J d for two random cotangents c and two random directions d of each input: for large
            inputs. It sees nearly every fault, and says less about it.
        limit: the middle way: beyond `limit` elements of output random cotangents, beyond `limit` elements of an input
            that many of them and random directions.
        allow_independent: whether outputs that do not depend on an input are right; else that is an error, since such
            a check proves nothing.
        shrink: whether to look for a smaller input that fails too.

    Errors: GradientError. For a wrong gradient it says which input and index, both values, their ratio, what may be the
    cause, and the smallest failing input found. It is also raised where there is nothing to compare, or where a
    comparison would mean nothing: a function that gives another value each time, outputs in float32, no dependence.
    """
    checked = Checked(function, inputs)
    checked.refuse_what_cannot_be_compared()
    limit = 0 if fast else limit
    settings: dict[str, Any] = {"eps": eps, "rtol": rtol, "atol": atol, "method": method, "limit": limit, "seed": seed}
    found = _disagreement(checked, allow_independent=allow_independent, **settings)
    if found is None:
        return True
    cause = _cause(checked, eps)
    found.cause = str(cause)
    if shrink and not isinstance(cause, Kink):
        found.smallest = smallest(lambda values: _fails(checked, values, cause, settings), checked.values)
    raise found


def gradgradcheck(function: Function, inputs: Sequence[Any], **settings: Any) -> bool:
    """Hold the engine's second derivatives of `function` against the slopes of its first; True, or an error.

    What is differentiated is the gradient of sum c sin(f(x)), c random: beneath the sine, a second
    derivative also needs that the first walk kept its connection to x. A backward that works on
    detached copies passes without it.

    Args and errors: see `gradcheck`; rtol is 1e-5 and atol 1e-7 by default, and the slopes are central differences (a
    complex number has no gradient).
    """
    checked = Checked(function, inputs)
    checked.refuse_what_cannot_be_compared()
    rng = np.random.default_rng(settings.get("seed", 0) + 1)
    weights = [np.asarray(rng.standard_normal(y.shape)) for y in checked.outputs()]

    def first_derivatives(*tensors: Any) -> tuple[Tensor, ...]:
        terms = [(y.sin() * Tensor(c)).sum() for y, c in zip(checked.chosen(function(*tensors)), weights)]
        total = stack(terms).sum()
        wanted = [tensors[i] for i in checked.active]
        return grad(total, wanted, create_graph=True, allow_unused=True, materialize_grads=True)

    defaults = {"rtol": 1e-5, "atol": 1e-7, "method": "central"}
    return gradcheck(first_derivatives, inputs, **{**defaults, **settings})


def _disagreement(
    checked: Checked,
    eps: float,
    rtol: float | None,
    atol: float | None,
    method: str,
    limit: int | None,
    seed: int,
    allow_independent: bool = False,
) -> GradientError | None:
    """The worst disagreement of gradients and slopes, if one is not allowed."""
    rng = np.random.default_rng(seed)
    outputs = checked.outputs()
    total = sum(y.numel() for y in outputs)
    sampled = limit is not None and total > limit
    cotangents = rng.standard_normal((2, total)) if sampled else np.eye(0)
    rows = 2 if sampled else total
    _refuse_too_large(checked, rows, limit)
    analytic = checked.jacobian(cotangents if sampled else None)
    slopes = Differences(checked.numbers, checked.values, checked.active, eps, method)
    default_rtol, default_atol = TOLERANCES[slopes.method]
    rtol, atol = default_rtol if rtol is None else rtol, default_atol if atol is None else atol
    for position in checked.active:
        jacobian, arrives = analytic[position]
        found, numeric, labels, widths = _columns(slopes, position, jacobian, limit, rng)
        numeric = cotangents @ numeric if sampled else numeric
        if numeric.size and not numeric.any() and not found.any() and not allow_independent:
            raise GradientError(_independent(position, arrives))
        scale = max(1.0, float(np.abs(jacobian).max(initial=0.0)))
        excess = np.abs(found - numeric) / (atol * scale * np.array(widths) + rtol * np.abs(numeric))
        excess = np.where(np.isnan(excess), np.inf, excess)
        if (excess > 1).any():
            row, column = _worst(excess)
            place = f"random cotangent {row}" if sampled else _output_place(outputs, row)
            both = float(found[row, column]), float(numeric[row, column])
            return checked.failure(position, labels[column], place, *both)
    return None


def _columns(
    slopes: Differences, position: int, jacobian: Array, limit: int | None, rng: np.random.Generator
) -> tuple[Array, Array, list[str], list[float]]:
    """For each direction of an input the gradients along it, the slopes of all outputs, its name, and its size."""
    found, numeric, labels, widths = [], [], [], []
    for label, element, direction in _directions(slopes.values[position].shape, limit, rng):
        found.append(jacobian @ direction.ravel() if element is None else jacobian[:, element])
        numeric.append(slopes.along({position: direction}))
        labels.append(label)
        widths.append(max(1.0, float(np.abs(direction).sum()) ** 0.5))
    if not labels:
        return np.zeros((len(jacobian), 0)), np.zeros((slopes.at.size, 0)), labels, widths
    return np.stack(found, 1), np.stack(numeric, 1), labels, widths


def _cause(checked: Checked, eps: float) -> Any:
    """What may be wrong (see `causes.guess`), from whole Jacobians where they are not too large."""
    total = sum(y.numel() for y in checked.outputs())
    if total * max(checked.values[i].size for i in checked.active) > 1_000_000:
        return ""
    analytic = {position: found for position, (found, _) in checked.jacobian(None).items()}
    slopes = Differences(checked.numbers, checked.values, checked.active, eps, "central")
    rng = np.random.default_rng(0)
    numeric = {p: _columns(slopes, p, analytic[p], None, rng)[1] for p in checked.active}
    return guess(checked, analytic, numeric, slopes)


def _fails(checked: Checked, values: list[Any], cause: Any, settings: dict[str, Any]) -> bool:
    """Whether these values fail as the first ones did: with the same suspected cause."""
    other = Checked(checked.function, values, active=checked.active)
    if _disagreement(other, **settings, allow_independent=True) is None:
        return False
    found = _cause(other, settings["eps"])
    return type(found) is type(cause) if cause else not isinstance(found, Kink)


# --- cotangents and directions -----------------------------------------------------------------------


def _directions(
    shape: tuple[int, ...], limit: int | None, rng: np.random.Generator
) -> Iterator[tuple[str, int | None, Array]]:
    """Where to move an input: along each element or some of them, then (element None) along random directions."""
    size = int(np.prod(shape))
    every = limit is None or size <= limit
    for element in range(size) if every else sorted(rng.choice(size, limit or 0, replace=False).tolist()):
        direction = np.zeros(shape)
        direction.reshape(-1)[element] = 1.0
        yield f"index {_index(element, shape)}", element, direction
    if not every:
        for k in range(2):
            yield f"random direction {k}", None, np.asarray(rng.standard_normal(shape))


def _refuse_too_large(checked: Checked, rows: int, limit: int | None) -> None:
    elements = max(checked.values[i].size for i in checked.active)
    if rows * elements > LARGEST:
        raise GradientError(
            f"gradcheck: a Jacobian of {rows:,} by {elements:,} elements is too large to be compared whole: "
            "use a smaller input, which proves as much, or fast=True"
        )


def _worst(excess: Array) -> tuple[int, int]:
    """Where the error is largest: the first of those that are nearly so, input by input."""
    by_input = excess.T
    column, row = np.argwhere(by_input >= 0.99 * min(by_input.max(), 1e300))[0]
    return int(row), int(column)


def _index(element: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(element, shape))


def _output_place(outputs: list[Tensor], number: int) -> str:
    """Which element of which output a row of the Jacobian belongs to."""
    for position, y in enumerate(outputs):
        if number < y.numel():
            return f"output {position} at {_index(number, y.shape)}"
        number -= y.numel()
    raise IndexError(number)


def _independent(position: int, arrives: bool) -> str:
    how = (
        "its gradient and its slopes are all zero" if arrives else "no gradient arrives, and moving it changes nothing"
    )
    return (
        f"gradcheck: no output depends on input {position}: {how}. Such a check proves nothing: pass that input as "
        "a Tensor that requires no gradient, or say allow_independent=True"
    )
