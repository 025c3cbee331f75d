"""NumPy's functions on Tensors: each goes to the operation of that meaning, or says why not.

    np.exp(t), np.add(array, t), array * t, np.sum(t, axis=0), np.concatenate([t, array])

give Tensors, with the gradient that `t.exp()`, `t.sum(0)` and so on have. Without this, NumPy would
compute on the bare numbers and the gradient would be gone without a word.

NumPy asks in two ways (NEP 13 and NEP 18): `Tensor.__array_ufunc__` for element-wise functions
(ufuncs: exp, add; also `array * t`, since that is np.multiply), `Tensor.__array_function__` for the
others (sum, reshape, concatenate). NumPy's conventions hold: `axis` and `keepdims`, a variance that
divides by N, `np.transpose` that turns all axes around.

What has no counterpart here raises: AutogradError where a gradient would be lost, TypeError where
there is none; on numbers alone it is `np.f(t.detach().numpy())`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from minilm.errors import AutogradError
from minilm.ops import reduction, shape
from minilm.ops.numpy_functions import FUNCTIONS, REDUCTIONS, UFUNCS, WITHOUT_SLOPE, _tensor
from minilm.tensor import Tensor, wrap


def call_ufunc(ufunc: Any, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What NumPy's `ufunc` gives on `inputs`, at least one of which is a Tensor, or to be written into one.

    Args:
        ufunc: np.add, np.exp ...
        method: "__call__", or "reduce" for np.add.reduce(t), "accumulate", "outer", "at", "reduceat".
        inputs: what it was called with: Tensors, arrays, numbers.
        kwargs: its options; None means not given.

    Errors: AutogradError or TypeError where minilm has no counterpart, see the head of this file.
    """
    name = f"np.{ufunc.__name__}" if method == "__call__" else f"np.{ufunc.__name__}.{method}"
    options = {key: value for key, value in kwargs.items() if value is not None}
    if "out" in options:
        return _write_into(name, getattr(ufunc, method), inputs, options)
    if options.get("where") is True:
        del options["where"]
    if method == "reduce" and ufunc in REDUCTIONS:
        options.setdefault("axis", kwargs.get("axis", 0))  # ufuncs reduce the first axis where functions take all
        return _bound(name, REDUCTIONS[ufunc], inputs, options)
    if method == "accumulate" and ufunc is np.add:
        return _bound(name, lambda array, axis=0: reduction.cumsum(array, axis), inputs, options)
    operation = UFUNCS.get(ufunc)
    if operation is None or options or method not in ("__call__", "outer"):
        raise _no_counterpart(name, inputs, kwargs, f"the option {', '.join(options)}" if options else "")
    tensors = [Tensor(x) if isinstance(x, (list, tuple)) else x for x in inputs]
    if method == "outer":
        x, y = (_tensor(x) for x in tensors)
        return operation(shape.reshape(x, x.shape + (1,) * y.ndim), y)
    return operation(*tensors)


def _write_into(name: str, function: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """`array += t` and `np.add(a, t, out=array)`: plain numbers into a plain array, if no gradient is lost by it."""
    out = options["out"]
    targets = [x for x in (out if isinstance(out, tuple) else (out,)) if x is not None]
    if any(isinstance(x, Tensor) for x in targets):
        raise TypeError(
            f"{name}: out= cannot be a Tensor, whose history NumPy does not know; "
            "use t.copy_(...), t[...] = ... or the in-place method, as t.add_(x)"
        )
    if _requires_grad(inputs):
        raise AutogradError(
            f"{name}: an array of NumPy (out=, or on the left of += and the like) cannot hold a gradient, and an "
            "input requires one; write array = array + t for a Tensor, array += t.detach() for the numbers alone"
        )
    return function(*(_plain(x) for x in inputs), **{key: _plain(value) for key, value in options.items()})


def call_function(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What NumPy's `function` gives on arguments among which there is a Tensor.

    Errors: AutogradError or TypeError where minilm has no counterpart, see the head of this file.
    """
    name = f"{function.__module__}.{function.__name__}".replace("numpy", "np", 1)
    if function in WITHOUT_SLOPE:
        return _tensors(function(*_plain(args), **_plain(kwargs)))
    counterpart = FUNCTIONS.get(function)
    if counterpart is None:
        raise _no_counterpart(name, args, kwargs)
    options = {key: value for key, value in kwargs.items() if value is not np._NoValue}
    if options.get("out", 0) is None:
        del options["out"]
    return _bound(name, counterpart, args, options)


def _bound(name: str, counterpart: Callable[..., Any], args: Any, options: dict[str, Any]) -> Any:
    """Call `counterpart`, unless it does not know an option that was given."""
    signature = inspect.signature(counterpart)
    try:
        signature.bind(*args, **options)
    except TypeError as error:
        raise _no_counterpart(name, args, options, f"these arguments ({error})") from None
    return counterpart(*args, **options)


def _no_counterpart(name: str, args: Any, kwargs: Any, what: str = "") -> Exception:
    """The error for what NumPy can do and minilm cannot."""
    about = f"{name}: minilm has no counterpart" + (f" with {what}" if what else "")
    if _requires_grad((args, kwargs)):
        return AutogradError(
            f"{about}, and NumPy's own would drop the gradient without a word; "
            "if you want that, give it t.detach().numpy()"
        )
    return TypeError(f"{about}; on the numbers alone it works: give it t.numpy()")


def _requires_grad(value: Any) -> bool:
    """Whether a Tensor anywhere in `value` requires a gradient."""
    if isinstance(value, Tensor):
        return value.requires_grad
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, (list, tuple)) and any(_requires_grad(x) for x in value)


def _plain(value: Any) -> Any:
    """`value` with the Tensors in it as arrays; used only where no gradient is lost."""
    if isinstance(value, Tensor):
        return value.detach().numpy()
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(x) for x in value)
    return {key: _plain(x) for key, x in value.items()} if type(value) is dict else value


def _tensors(value: Any) -> Any:
    return wrap(value) if isinstance(value, np.ndarray) else value
