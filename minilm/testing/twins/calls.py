"""An operation as either library called it, under one name and with arrays."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# minilm's name of an operation where it is not the one used here.
OUR_NAMES = {"matrix_product": "matmul"}


@dataclass
class Call:
    """One operation of a run.

    Attributes:
        op: its name: PyTorch's, whichever library it is.
        side: "minilm" or "PyTorch".
        inputs: arrays, numbers and options by name, those of `minilm.ops`: `x`, `weight`, `eps` ...
        output: the values of its (first) result. dtype: the element type; NumPy lacks "bfloat16", and `output` holds
            float32 then.
        index: which operation of the run this is. module: the name of the module that was running.
    """

    op: str
    side: str
    inputs: dict[str, Any]
    output: Array
    dtype: str
    index: int
    module: str

    def array(self, name: str) -> Array:
        """An input in float64, in which the causes compute."""
        return np.asarray(self.inputs[name], np.float64)

    def optional(self, name: str) -> Array | None:
        """The same for an input that may be left out."""
        return None if self.inputs.get(name) is None else self.array(name)

    def is_number(self, name: str) -> bool:
        """Whether an input is a plain number, as in `x + 1e-5`."""
        return isinstance(self.inputs.get(name), (int, float)) and not isinstance(self.inputs[name], bool)

    @property
    def casts(self) -> bool:
        """Whether it only changes the element type."""
        return self.op == "cast"


@dataclass(frozen=True)
class Widened:
    """Values for an output's place that keep their element type; plain arrays are rounded to the output's."""

    values: Array


# Given each call, the values to put in its output's place (an array or Widened), or None to leave it.
Rewrite = Callable[[Call], Any]


@functools.cache
def _parameters(op: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(op.forward).parameters)[1:]


def our_call(op: Any, arrays: Any, results: Any, rest: Any, options: Any, index: int, module: str) -> Call:
    """A call of minilm's, as `modes.Watcher` is shown it."""
    names = tuple(f"x{i}" for i in range(len(arrays))) if op.signature.variadic else _parameters(op)
    inputs = dict(zip(names, (*arrays, *rest)))
    inputs.update(options)
    if op.name == "attention":
        inputs = _attention(inputs)
    name = OUR_NAMES.get(op.name, op.name)
    inputs = {key: a.copy() if isinstance(a, np.ndarray) else a for key, a in inputs.items()}
    return Call(name, "minilm", inputs, np.array(results[0]), str(results[0].dtype), index, module)


def _attention(given: dict[str, Any]) -> dict[str, Any]:
    """Attention's inputs as PyTorch has them: one mask, boolean or to be added."""
    mask = given.get("mask") if given.get("mask") is not None else given.get("bias")
    rest = {"causal": given.get("causal", False), "scale": given.get("scale"), "p": given.get("p", 0.0)}
    return {"q": given["q"], "k": given["k"], "v": given["v"], "mask": mask, **rest}
