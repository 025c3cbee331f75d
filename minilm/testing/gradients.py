"""First and second derivatives, held against finite differences in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minilm.autograd import grad
from minilm.errors import MinilmError
from minilm.tensor import Tensor

Array = Any
Function = Callable[..., Any]


class GradientError(MinilmError, AssertionError):
    """The engine's derivative is not the function's; the message names input, index and both values."""


def gradcheck(
    function: Function,
    inputs: Sequence[Any],
    eps: float = 1e-6,
    rtol: float = 1e-6,
    atol: float = 1e-8,
    limit: int = 64,
    seed: int = 0,
) -> bool:
    """Hold the engine's gradients of `function` against central differences; True, or an error.

        d f_o / d x_i  ~  (f_o(x + h e_i) - f_o(x - h e_i)) / 2h,    h = eps max(1, |x_i|)

    Up to `limit` elements of output the whole Jacobian is compared, beyond that two random
    cotangents c, that is the gradients of sum c_o f_o. (The gradient of a plain sum proves little:
    for softmax it is zero.) Up to `limit` elements of an input each one is moved, beyond that
    `limit` of them chosen at random, and all together in two random directions.

    Args:
        function: from Tensors to a Tensor or a tuple of them; it must give the same value each time.
        inputs: Tensors or arrays. Floating ones are differentiated, in float64, except Tensors
            that do not require a gradient.
        rtol, atol: an error of atol max(1, |the input's largest slope|) + rtol |slope| is allowed.
            The differences themselves are good to about 1e-9.

    Errors: GradientError with the input, the index, the analytic and the numeric value, their ratio.
    """
    values, active = _arrays(inputs)
    outputs = _call(function, values, active)[1]
    if not outputs:
        raise GradientError("gradcheck: no floating output requires a gradient, so there is nothing to check")
    for y in outputs:
        if y.dtype != np.float64:
            raise GradientError(f"gradcheck: differences need float64, and an output is {y.dtype}")
    rng = np.random.default_rng(seed)
    total = sum(y.numel() for y in outputs)
    every = 0 < total <= limit
    cotangents = _every_one(outputs) if every else _random(outputs, rng, 2)
    analytic = [_gradients(function, values, active, c) for c in cotangents]
    for position in active:
        rows = np.stack([gradients[position].ravel() for gradients in analytic])  # (cotangents, elements)
        scale = max(1.0, float(np.abs(rows).max(initial=0.0)))
        for label, direction in _directions(values[position].shape, limit, rng):
            step = eps * max(1.0, float(np.abs(values[position][direction != 0]).max(initial=0.0)))
            change = _difference(function, values, active, position, direction * step) / (2 * step)
            for number, c in enumerate(cotangents):
                found = float(rows[number] @ direction.ravel())
                wanted = float(_flat(c) @ change)
                width = max(1.0, float(np.abs(direction).sum()) ** 0.5)
                if not abs(found - wanted) <= atol * scale * width + rtol * abs(wanted):
                    place = _output_place(outputs, number) if every else f"random cotangent {number}"
                    raise GradientError(_report(position, values[position].shape, label, place, found, wanted))
    return True


def gradgradcheck(function: Function, inputs: Sequence[Any], **settings: Any) -> bool:
    """Hold the engine's second derivatives of `function` against differences of its first; True, or an error.

    What is differentiated is the gradient of sum c sin(f(x)), c random: beneath the sine, a second
    derivative also needs that the first walk kept its connection to x. A backward that works on
    detached copies passes without it.

    Args and errors: see `gradcheck`.
    """
    values, active = _arrays(inputs)
    outputs = _call(function, values, active)[1]
    weights = _random(outputs, np.random.default_rng(settings.get("seed", 0) + 1), 1)[0]

    def first(*tensors: Any) -> tuple[Tensor, ...]:
        total = _weighed([y.sin() for y in _differentiable(function(*tensors))], weights)
        wanted = [tensors[i] for i in active]
        return grad(total, wanted, create_graph=True, allow_unused=True, materialize_grads=True)

    return gradcheck(first, inputs, **{"rtol": 1e-5, "atol": 1e-7, **settings})


# --- the function, called on float64 ---------------------------------------------------------------


def _arrays(inputs: Sequence[Any]) -> tuple[list[Any], list[int]]:
    """The inputs as arrays, floating ones in float64, and the positions of those to differentiate."""
    values: list[Any] = []
    active: list[int] = []
    for position, x in enumerate(inputs):
        array = x.array if isinstance(x, Tensor) else x
        if isinstance(array, np.ndarray) and array.dtype.kind == "f":
            array = array.astype(np.float64)
            if not isinstance(x, Tensor) or x.requires_grad:
                active.append(position)
        values.append(array)
    if not active:
        raise GradientError("gradcheck: no input is floating and requires a gradient")
    return values, active


def _call(function: Function, values: list[Any], active: list[int]) -> tuple[list[Any], list[Tensor]]:
    """Fresh leaves around the values, and the function's differentiable outputs on them."""
    tensors = [
        Tensor(v.copy(), requires_grad=i in active) if isinstance(v, np.ndarray) else v for i, v in enumerate(values)
    ]
    return tensors, _differentiable(function(*tensors))


def _differentiable(result: Any) -> list[Tensor]:
    outputs = result if isinstance(result, (tuple, list)) else (result,)
    return [y for y in outputs if isinstance(y, Tensor) and y.requires_grad]


def _gradients(function: Function, values: list[Any], active: list[int], cotangent: list[Array]) -> dict[int, Array]:
    """The engine's gradient of sum c y for each active input. Errors: GradientError for a wrong shape or dtype."""
    tensors, outputs = _call(function, values, active)
    found = grad(outputs, [tensors[i] for i in active], cotangent, allow_unused=True, materialize_grads=True)
    for position, gradient in zip(active, found):
        x = values[position]
        if gradient.shape != x.shape or gradient.dtype != x.dtype:
            raise GradientError(
                f"gradcheck: input {position} is {x.shape} {x.dtype}, its gradient {gradient.shape} {gradient.dtype}"
            )
    return {position: gradient.array for position, gradient in zip(active, found)}


def _difference(function: Function, values: list[Any], active: list[int], position: int, step: Array) -> Array:
    """f(x + step) - f(x - step), all outputs in one row."""
    ends = []
    for sign in (1.0, -1.0):
        moved = list(values)
        moved[position] = np.asarray(values[position] + sign * step)  # a 0-d sum is a scalar of NumPy's
        ends.append(_flat([y.array for y in _call(function, moved, active)[1]]))
    with np.errstate(invalid="ignore"):
        return np.where(ends[0] == ends[1], 0.0, ends[0] - ends[1])  # an infinity that stays is no change


def _weighed(outputs: list[Tensor], weights: list[Array]) -> Tensor:
    """sum c y over all outputs."""
    total: Any = None
    for y, c in zip(outputs, weights):
        term = (y * Tensor(c)).sum()
        total = term if total is None else total + term
    return total


# --- cotangents and directions -----------------------------------------------------------------------


def _random(outputs: list[Tensor], rng: np.random.Generator, count: int) -> list[list[Array]]:
    return [[np.asarray(rng.standard_normal(y.shape)) for y in outputs] for _ in range(count)]


def _every_one(outputs: list[Tensor]) -> list[list[Array]]:
    """For each element of each output the cotangent that is 1 there and 0 elsewhere: the Jacobian's rows."""
    cotangents = []
    for chosen, y in enumerate(outputs):
        for element in range(y.numel()):
            c = [np.zeros(other.shape) for other in outputs]
            c[chosen].reshape(-1)[element] = 1.0
            cotangents.append(c)
    return cotangents


def _directions(shape: tuple[int, ...], limit: int, rng: np.random.Generator) -> list[tuple[str, Array]]:
    """Where to move an input: along each element or some of them, then along random directions."""
    size = int(np.prod(shape))
    chosen = range(size) if size <= limit else sorted(rng.choice(size, limit, replace=False).tolist())
    found = []
    for element in chosen:
        direction = np.zeros(shape)
        direction.reshape(-1)[element] = 1.0
        found.append((f"index {_index(element, shape)}", direction))
    if size > limit:
        found += [(f"random direction {k}", rng.standard_normal(shape)) for k in range(2)]
    return found


# --- the report ----------------------------------------------------------------------------------------


def _flat(arrays: list[Array]) -> Array:
    return np.concatenate([np.ravel(a) for a in arrays])


def _index(element: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(element, shape))


def _output_place(outputs: list[Tensor], number: int) -> str:
    """Which element of which output the cotangent with that number singles out."""
    for position, y in enumerate(outputs):
        if number < y.numel():
            return f"output {position} at {_index(number, y.shape)}"
        number -= y.numel()
    raise IndexError(number)


def _report(position: int, shape: tuple[int, ...], label: str, place: str, found: float, wanted: float) -> str:
    ratio = f"{found / wanted:.9g}" if wanted else "undefined"
    return (
        f"gradcheck: input {position} of shape {shape}, {label}; {place}:\n"
        f"  analytic {found:.12g}\n  numeric  {wanted:.12g}\n  ratio    {ratio}"
    )
