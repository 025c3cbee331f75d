"""A function under a gradient check: its values and Jacobian on given inputs, and what makes a check meaningless."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minilm import kernels
from minilm.autograd import grad
from minilm.errors import MinilmError
from minilm.modes import no_grad
from minilm.tensor import Tensor, wrap

Array = Any
Function = Callable[..., Any]


class GradientError(MinilmError, AssertionError):
    """The engine's derivative is not the function's, or there is nothing to compare.

    Attributes, for a wrong gradient:
        input: the position of the input.
        index, place: which element of it, or which random direction; which element of the outputs.
        analytic, numeric: the engine's value and the slope.
        cause: what may be wrong, as a sentence; "" if nothing is known.
        smallest: the smallest inputs found that fail too, None if none was looked for.
    """

    input: int | None = None
    shape: tuple[int, ...] = ()
    index = place = cause = ""
    analytic = numeric = float("nan")
    smallest: list[Any] | None = None

    def __str__(self) -> str:
        if self.input is None:
            return super().__str__()
        ratio = f"{self.analytic / self.numeric:.9g}" if self.numeric else "undefined"
        lines = [
            f"gradcheck: input {self.input} of shape {self.shape}, {self.index}; {self.place}:",
            f"  analytic {self.analytic + 0.0:.12g}",  # + 0.0: no minus before a zero
            f"  numeric  {self.numeric + 0.0:.12g}",
            f"  ratio    {ratio}",
        ]
        if self.cause:
            lines.append(f"  perhaps  {self.cause}")
        if self.smallest is not None:
            lines.append("  the smallest failing input found:")
            lines += [f"    {i}: {_one_line(x)}" for i, x in enumerate(self.smallest)]
        return "\n".join(lines)


class Checked:
    """A function and the inputs on which it is checked.

    Args:
        function: from Tensors to a Tensor or a tuple of them.
        inputs: Tensors, arrays, or anything else, which is passed on as it is.
        active: the positions of the inputs to differentiate; by default those that are floating and require a gradient.

    Errors: GradientError if there is no such input, or no floating output that requires a gradient.
    """

    def __init__(self, function: Function, inputs: Sequence[Any], active: list[int] | None = None) -> None:
        self.function = function
        self.values = [_wide(x.array if isinstance(x, Tensor) else x) for x in inputs]
        self.raw = [i for i, x in enumerate(inputs) if isinstance(x, np.ndarray) and x.dtype.kind in "iu"]
        self.active = _active(inputs) if active is None else active
        if not self.active:
            also = "; integers have none: pass floating arrays" if self.raw else ""
            raise GradientError(f"gradcheck: no input is floating and requires a gradient{also}")
        self.picked: list[int] | None = None
        self.picked = [i for i, y in enumerate(_listed(self._call(self.values))) if _differentiable(y)]
        if not self.picked:
            raise GradientError("gradcheck: no floating output requires a gradient, so there is nothing to check")

    def chosen(self, result: Any) -> list[Tensor]:
        """Those of the function's results that are compared."""
        results = _listed(result)
        return [results[i] for i in self.picked or ()]

    def outputs(self) -> list[Tensor]:
        """The outputs that are compared, on the tape."""
        return self.chosen(self._call(self.values))

    def numbers(self, values: list[Any]) -> Array:
        """The same, other values given, all elements in one row; complex numbers go through the reference backend."""
        if not any(isinstance(v, np.ndarray) and v.dtype.kind == "c" for v in values):
            return _flat([y.array for y in self.chosen(self._call(values))])
        with kernels.use("reference"), no_grad():
            tensors = [wrap(v) if isinstance(v, np.ndarray) else v for v in values]
            return _flat([y.array for y in self.chosen(self.function(*tensors))])

    def jacobian(self, cotangents: Array | None) -> dict[int, tuple[Array, bool]]:
        """For each active input the gradients of c^T f, a row for each row c of `cotangents` (None: for each output).

        Beside it, whether a gradient arrives at the input at all.

        Errors: GradientError for a gradient of a wrong shape or dtype.
        """
        total = sum(y.numel() for y in self.outputs())
        rows = range(total) if cotangents is None else cotangents
        found: dict[int, list[Array]] = {i: [] for i in self.active}
        arrives = dict.fromkeys(self.active, False)
        for row in rows:
            for position, gradient in self.gradients(_unit(row, total) if cotangents is None else row).items():
                arrives[position] |= gradient is not None
                zero = np.zeros(self.values[position].size)
                found[position].append(zero if gradient is None else gradient.ravel())
        return {i: (np.stack(g) if g else np.zeros((0, self.values[i].size)), arrives[i]) for i, g in found.items()}

    def gradients(self, cotangent: Array) -> dict[int, Array | None]:
        """The engine's gradient of c^T f for each active input, None where nothing arrives."""
        tensors = self._tensors(self.values)
        outputs = self.chosen(self.function(*tensors))
        parts, at = [], 0
        for y in outputs:
            parts.append(cotangent[at : at + y.numel()].reshape(y.shape))
            at += y.numel()
        found = grad(outputs, [tensors[i] for i in self.active], parts, allow_unused=True)
        for position, gradient in zip(self.active, found):
            x = self.values[position]
            if gradient is not None and (gradient.shape != x.shape or gradient.dtype != x.dtype):
                raise GradientError(
                    f"gradcheck: input {position} is {x.shape} {x.dtype}, its gradient {gradient.shape} "
                    f"{gradient.dtype}{_wrong_shape(gradient.shape, x.shape)}"
                )
        return {i: None if g is None else g.array for i, g in zip(self.active, found)}

    def refuse_what_cannot_be_compared(self) -> None:
        """Errors: GradientError for outputs not in float64 or different at each call, and for forgotten integers."""
        for y in self.outputs():
            if y.dtype != np.float64:
                raise GradientError(
                    f"gradcheck: slopes need float64, and an output is {y.dtype}; float32 numbers carry seven digits, "
                    "of which a difference leaves one or two"
                )
        self._refuse_randomness()
        self._refuse_integers_taken_for_numbers()

    def failure(self, position: int, index: str, place: str, analytic: float, numeric: float) -> GradientError:
        """The error that says what was found."""
        error = GradientError()
        error.input, error.shape, error.index, error.place = position, self.values[position].shape, index, place
        error.analytic, error.numeric = analytic, numeric
        return error

    def _tensors(self, values: list[Any]) -> list[Any]:
        return [
            Tensor(v.copy(), requires_grad=i in self.active) if isinstance(v, np.ndarray) else v
            for i, v in enumerate(values)
        ]

    def _call(self, values: list[Any]) -> Any:
        return self.function(*self._tensors(values))

    def _refuse_randomness(self) -> None:
        one, two = self.numbers(self.values), self.numbers(self.values)
        if one.shape != two.shape or not np.array_equal(one, two, equal_nan=True):
            far = "" if one.shape != two.shape else f", {np.nanmax(np.abs(one - two)):.3g} apart"
            raise GradientError(
                f"gradcheck: the function gives another value each time{far}, so it has no slope. Is dropout on, or "
                "does it draw random numbers? Call eval(), or seed inside of the function"
            )
        c = np.random.default_rng(0).standard_normal(one.size)
        first, second = self.gradients(c), self.gradients(c)
        for position in self.active:
            a, b = first[position], second[position]
            if (a is None) != (b is None) or not np.array_equal(_or_zero(a), _or_zero(b), equal_nan=True):
                raise GradientError(
                    f"gradcheck: the gradient of input {position} is another each time, for equal values. Does the "
                    "backward draw random numbers, or change what the forward saved?"
                )

    def _refuse_integers_taken_for_numbers(self) -> None:
        """An array of integers where floats would do as well was hardly meant to be held constant."""
        before = self.numbers(self.values)
        for position in self.raw:
            values = list(self.values)
            values[position] = values[position].astype(np.float64)
            try:
                after = self.numbers(values)
                moved = self.numbers([*values[:position], values[position] + 0.5, *values[position + 1 :]])
            except Exception:
                continue
            if np.array_equal(before, after, equal_nan=True) and not np.array_equal(before, moved, equal_nan=True):
                raise GradientError(
                    f"gradcheck: input {position} is an array of integers, which have no gradient, but the function "
                    "takes floats there too. Pass floats to check its gradient, or a Tensor to hold it constant"
                )


def _active(inputs: Sequence[Any]) -> list[int]:
    found = []
    for position, x in enumerate(inputs):
        array = x.array if isinstance(x, Tensor) else x
        floating = isinstance(array, np.ndarray) and array.dtype.kind == "f"
        if floating and (not isinstance(x, Tensor) or x.requires_grad):
            found.append(position)
    return found


def _wide(value: Any) -> Any:
    floating = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    return value.astype(np.float64) if floating else value


def _listed(result: Any) -> list[Any]:
    return list(result) if isinstance(result, (tuple, list)) else [result]


def _differentiable(y: Any) -> bool:
    return isinstance(y, Tensor) and y.requires_grad


def _flat(arrays: list[Array]) -> Array:
    return np.concatenate([np.ravel(a) for a in arrays])


def _unit(position: int, size: int) -> Array:
    c = np.zeros(size)
    c[position] = 1.0
    return c


def _or_zero(gradient: Array | None) -> Array:
    return np.zeros(()) if gradient is None else gradient


def _wrong_shape(gradient: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """What a gradient of another shape suggests."""
    if gradient == shape[::-1]:
        return ": it is transposed"
    try:
        broadcast = np.broadcast_shapes(gradient, shape) == gradient
    except ValueError:
        broadcast = False
    return ": the sum over the axes along which the input was broadcast is missing" if broadcast else ""


def _one_line(x: Any) -> str:
    if not isinstance(x, np.ndarray):
        return repr(x)
    if x.size > 12:
        return f"an array of shape {x.shape}"
    return f"{x.dtype} {np.array2string(x, precision=6, separator=', ', max_line_width=10**6)}".replace("\n", "")
