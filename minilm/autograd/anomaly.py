"""`detect_anomaly()`: stop where a NaN or an infinity is born, and say where that is.

A value is *born* in an operation whose result has it while its inputs do not: a mask filled with
minus infinity on purpose is no anomaly, the softmax of a row with nothing else in it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from minilm.device import array_module
from minilm.errors import AnomalyError
from minilm.modes import Watcher, state
from minilm.tape import Node, call_site, describe_site

_NONE: Mapping[str, Any] = MappingProxyType({})


class detect_anomaly:  # noqa: N801 - PyTorch's name
    """Inside, every operation's results are searched, forward and backward.

    Errors: AnomalyError naming the operation, the source line that called it and its inputs' ranges.
    NumPy's warnings about the same are silent meanwhile. Slow: each result is read once more.
    """

    def __init__(self) -> None:
        self._before: list[tuple[bool, tuple[Watcher, ...], np.errstate]] = []

    def __enter__(self) -> None:
        quiet = np.errstate(divide="ignore", over="ignore", invalid="ignore")
        quiet.__enter__()
        self._before.append((state.anomaly, state.watchers, quiet))
        state.anomaly = True
        state.watchers = (*state.watchers, check_forward)

    def __exit__(self, *_: object) -> None:
        state.anomaly, state.watchers, quiet = self._before.pop()
        quiet.__exit__(None, None, None)


def check_forward(op: Any, inputs: Any, outputs: Any, rest: Any = (), options: Mapping[str, Any] = _NONE) -> None:
    """Raise if one of the `outputs` (arrays) has a NaN or infinity that no input and no option had."""
    born = _born([*inputs, *rest, *options.values()], outputs)
    if born:
        name = getattr(op, "title", op.name)
        raise AnomalyError(
            f"{name}: {born} was born in its forward pass, called at {describe_site(call_site())}\n"
            + "\n".join(f"  input {i}: {_range(x)}" for i, x in enumerate(inputs) if x is not None)
        )


def check_backward(node: Node, received: Any, results: Any) -> None:
    """Raise if a gradient made by `node` has a NaN or infinity that the one it received had not."""
    born = _born(received, results)
    if born:
        saved = [value for value in (() if node.freed else node._saved) if hasattr(value, "dtype")]
        raise AnomalyError(
            f"{node.name}: {born} was born in its backward pass; it was recorded at {node.where}\n"
            + "\n".join(f"  gradient received {i}: {_range(g)}" for i, g in enumerate(received))
            + "".join(f"\n  saved value {i}: {_range(value)}" for i, value in enumerate(saved))
        )


def _born(inputs: Any, outputs: Any) -> str:
    """'NaN' or 'infinity' if an output has one that the inputs have not, else ''."""
    for what, test in (("NaN", "isnan"), ("infinity", "isinf")):
        if any(_has(test, y) for y in outputs) and not any(_has(test, x) for x in inputs):
            if what == "infinity" and any(_has("isnan", x) for x in inputs):
                continue
            return what
    return ""


def _has(test: str, value: Any) -> bool:
    array = getattr(value, "array", value)
    if isinstance(array, (int, float)):
        return bool(getattr(array_module(array), test)(array))
    if getattr(getattr(array, "dtype", None), "kind", "") != "f":
        return False
    return bool(getattr(array_module(array), test)(array).any())


def _range(value: Any) -> str:
    """Shape, type and extent of an input: `(2, 3) float32 from -1.5 to 4, with 1 NaN`."""
    array = getattr(value, "array", value)
    if not hasattr(array, "dtype"):
        return repr(array)
    text = f"{tuple(array.shape)} {array.dtype}"
    if not array.size:
        return f"{text}, empty"
    if array.dtype.kind != "f":
        return f"{text} from {array.min()} to {array.max()}"
    xp = array_module(array)
    finite = array[xp.isfinite(array)]
    text += f" from {finite.min():.6g} to {finite.max():.6g}" if finite.size else ", nothing finite"
    nans, infinities = int(xp.isnan(array).sum()), int(xp.isinf(array).sum())
    return text + (f", with {nans} NaN" if nans else "") + (f", with {infinities} infinite" if infinities else "")
