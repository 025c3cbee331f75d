"""What may be wrong with a gradient, told from the two Jacobians: the engine's and the function's.

Each `Suspicion` looks for the trace that one mistake leaves. A guess, not a proof: another mistake may leave the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minilm.testing.checked import Checked
from minilm.testing.differences import Differences

Array = Any


class Suspicion(str):
    """A sentence; the class says of which kind, so that two can be told to be the same."""


class NotFinite(Suspicion):
    """The gradient is infinite or not a number."""


class SinglePrecision(Suspicion):
    """The function rounds to float32 on its way."""


class Kink(Suspicion):
    """The function has no slope at this point."""


class Detached(Suspicion):
    """No gradient arrives where one should."""


class Sign(Suspicion):
    """The gradient points the other way."""


class Factor(Suspicion):
    """The gradient is off by one number."""


class Swapped(Suspicion):
    """The gradient is another input's."""


class Rearranged(Suspicion):
    """The gradient's elements stand in other places."""


class MissingSum(Suspicion):
    """One slice's gradient in place of the sum over a broadcast axis."""


class Partial(Suspicion):
    """Right in some places, zero in the others."""


def guess(
    checked: Checked, analytic: dict[int, Array], numeric: dict[int, Array], slopes: Differences
) -> Suspicion | str:
    """The first suspicion that fits, or "".

    Args:
        analytic, numeric: for each active input its Jacobian, (elements of all outputs, elements of the input).
        slopes: where the function can be moved further.
    """
    for position in checked.active:
        a, n = analytic[position], numeric[position]
        if _same(a, n):
            continue
        if not np.isfinite(a).all():
            return NotFinite("the gradient is not finite: a division by zero, or 0 times infinity, in the backward")
        if _rounds_to_float32(checked, position, slopes):
            return SinglePrecision("the function computes in float32 inside, which leaves a slope two digits at most")
        kink = _kink(checked, position, a, n, slopes)
        if kink:
            return kink
        shape = checked.values[position].shape
        for suspect in _SUSPECTS:
            found = suspect(checked, position, shape, analytic, numeric)
            if found:
                return found
    return ""


def _same(a: Array, b: Array) -> bool:
    """Equal as far as central differences can tell."""
    scale = max(1.0, float(np.abs(b).max(initial=0)))
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-5, atol=1e-6 * scale))


def _rounds_to_float32(checked: Checked, position: int, slopes: Differences) -> bool:
    """Whether a move of 1e-10, which float64 would notice, changes nothing, and one of 1e-4 does."""
    direction = np.asarray(np.random.default_rng(0).uniform(0.5, 1.0, checked.values[position].shape))
    changes = []
    for step in (1e-10, 1e-4):
        values = list(checked.values)
        values[position] = values[position] * (1.0 + step * direction)
        changes.append(not np.array_equal(checked.numbers(values), slopes.at))
    return changes == [False, True]


def _kink(checked: Checked, position: int, a: Array, n: Array, slopes: Differences) -> Kink | str:
    """A kink at the element that is most in error: the slopes before and behind it are two."""
    row, column = np.unravel_index(int(np.abs(a - n).argmax()), a.shape)
    direction = np.zeros(checked.values[position].shape)
    direction.reshape(-1)[column] = 1.0
    before, behind = (float(side[row]) for side in slopes.one_sided({position: direction}))
    if abs(before - behind) <= 1e-3 * max(1.0, abs(before), abs(behind)):
        return ""
    return Kink(
        f"the function has a kink or a jump there: the slope is {before:.6g} before and {behind:.6g} behind; check "
        "gradients away from such points"
    )


# --- the traces that mistakes leave ----------------------------------------------------------------------


def _detached(checked: Checked, position: int, shape: Any, analytic: Any, numeric: Any) -> str:
    if analytic[position].any():
        return ""
    return Detached(
        "no gradient arrives: the path to this input is detached (.detach(), .array, .item(), no_grad), or its "
        "backward gives None or zeros"
    )


def _factor(checked: Checked, position: int, shape: Any, analytic: Any, numeric: Any) -> str:
    a, n = analytic[position], numeric[position]
    factor = float((a * n).sum() / max(float((n * n).sum()), 1e-300))
    if factor == 0 or not _same(a / factor, n):
        return ""
    if abs(factor + 1) < 1e-5:
        return Sign("the sign is wrong: everywhere the gradient is the right one times -1")
    for name, value in (("2", 2.0), *_sizes(checked)):
        for text, candidate in ((name, value), (f"1 / {name}", 1 / value)):
            if value > 1 and abs(factor / candidate - 1) < 1e-5:
                hint = "" if name == "2" else ": a mean where a sum belongs, or the other way round"
                return Factor(f"the gradient is the right one times {text}{hint}")
    return Factor(f"everywhere the gradient is the right one times {factor:.6g}")


def _sizes(checked: Checked) -> list[tuple[str, float]]:
    """Numbers that a factor may be: how many elements an input, an output, or one of their axes has."""
    found = []
    shapes = [(f"input {i}", checked.values[i].shape) for i in checked.active]
    shapes += [(f"output {i}", y.shape) for i, y in enumerate(checked.outputs())]
    for name, shape in shapes:
        found += [(f"{n} (axis {axis} of {name})", float(n)) for axis, n in enumerate(shape)]
        found.append((f"{math.prod(shape)} (the elements of {name})", float(math.prod(shape))))
    return [*found, *((f"sqrt({name})", math.sqrt(value)) for name, value in found)]


def _swapped(checked: Checked, position: int, shape: Any, analytic: Any, numeric: Any) -> str:
    for other in checked.active:
        if other != position and _same(analytic[position], numeric[other]):
            return Swapped(f"this is the gradient of input {other}: the backward gives its results in another order")
    return ""


def _rearranged(checked: Checked, position: int, shape: Any, analytic: Any, numeric: Any) -> str:
    if _same(analytic[position].T, numeric[position]):
        return Rearranged("the Jacobian is transposed: the backward applies J to dy where J^T belongs")
    a, n = (x.reshape(-1, *shape) for x in (analytic[position], numeric[position]))
    axes = range(1, len(shape) + 1)
    for order in itertools.islice(itertools.permutations(axes), 1, 24):
        if _same(a.transpose(0, *order), n):
            right = tuple(axis - 1 for axis in order)
            return Rearranged(f"the gradient is transposed: with its axes in the order {right} it is right")
    for axis in axes:
        if _same(np.flip(a, axis), n):
            return Rearranged(f"the gradient is turned round along axis {axis - 1}")
        for shift in range(1, min(a.shape[axis], 4)):
            for by in (shift, -shift):
                if _same(np.roll(a, by, axis), n):
                    return Rearranged(f"the gradient is shifted by {-by} along axis {axis - 1}")
    outputs = checked.outputs()
    if len(outputs) == 1 and outputs[0].ndim == 2 and outputs[0].shape[0] == outputs[0].shape[1]:
        turned = np.arange(outputs[0].numel()).reshape(outputs[0].shape).T.ravel()
        if _same(analytic[position][turned], numeric[position]):
            return Rearranged("the gradient is the transposed output's: the backward takes dy the wrong way round")
    return ""


def _missing_sum(checked: Checked, position: int, shape: Any, analytic: Any, numeric: Any) -> str:
    """Right where it is not zero, and the input is broadcast: it has a size of 1, or fewer axes."""
    a, n = analytic[position], numeric[position]
    if not _same(a, np.where(a != 0, n, 0.0)):
        return ""
    right = f"{np.count_nonzero(a)} of {np.count_nonzero(np.abs(n) > 1e-9)} slopes are right and the others zero"
    for y in checked.outputs():
        padded = (1,) * (y.ndim - len(shape)) + tuple(shape)
        if len(padded) == y.ndim and any(small == 1 < large for small, large in zip(padded, y.shape)):
            return MissingSum(f"the sum over the axes along which the input was broadcast is missing: {right}")
    return Partial(f"{right}: a mask, an index or a slice leaves out a part, or a path is detached")


Suspect = Callable[[Checked, int, Any, Any, Any], str]
_SUSPECTS: tuple[Suspect, ...] = (_detached, _factor, _swapped, _rearranged, _missing_sum)
