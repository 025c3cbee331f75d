"""A module beside its PyTorch twin: the same weights by name, the same inputs, the same gradient from above."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm.testing import assert_same

# float64 is the proof; in float32 the two round differently.
TOLERANCE = {"float64": 1e-11, "float32": 1e-4}


def give_weights(ours: Any, theirs: Any, torch: Any, rng: np.random.Generator) -> None:
    """Random values for all of our state, then the same for theirs: `strict` refuses a name that differs."""
    for tensor in ours.state_dict().values():
        tensor.copy_(ml.Tensor((0.5 * rng.standard_normal(tensor.shape)).astype(tensor.dtype)))
    state = {name: torch.from_numpy(tensor.array.copy()) for name, tensor in ours.state_dict().items()}
    theirs.load_state_dict(state, strict=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())


def outputs_of(result: Any) -> list[Any]:
    """All tensors of a result, also of tuples inside tuples, as an LSTM gives them."""
    if isinstance(result, tuple):
        return [y for part in result for y in outputs_of(part)]
    return [] if result is None else [result]


def run_beside(
    torch: Any, ours: Any, theirs: Any, inputs: Any, named: Any, rng: np.random.Generator, dtype: str
) -> list[Any]:
    """Our outputs, after both modules gave the same outputs and gradients; each output gets a random one from above."""
    rtol = TOLERANCE[dtype]
    ours.to(dtype)
    theirs.to(getattr(torch, dtype))
    give_weights(ours, theirs, torch, rng)
    before = [a.copy() for a in inputs]
    # An array that is given twice becomes one tensor that is given twice: attention treats that on its own.
    mine = {id(a): ml.Tensor(a, requires_grad=a.dtype.kind == "f") for a in inputs}
    other = {id(a): torch.from_numpy(a.copy()).requires_grad_(a.dtype.kind == "f") for a in inputs}
    options = _converted(named, ml.Tensor)
    first = outputs_of(ours(*(mine[id(a)] for a in inputs), **options))
    second = outputs_of(theirs(*(other[id(a)] for a in inputs), **_converted(named, torch.from_numpy)))
    assert len(first) == len(second)
    for i, (y, expected) in enumerate(zip(first, second)):
        assert_same(y, expected, rtol=rtol, name=f"output {i}")
    above = [rng.standard_normal(y.shape).astype(dtype) for y in first]
    ml.autograd.backward(first, [ml.Tensor(g) for g in above])
    torch.autograd.backward(second, [torch.from_numpy(g) for g in above])
    for i, a in enumerate(inputs):
        _same_gradient(mine[id(a)].grad, other[id(a)].grad, rtol, f"gradient of input {i}")
    theirs_by_name = dict(theirs.named_parameters())
    assert list(theirs_by_name) == [name for name, _ in ours.named_parameters()]
    for name, parameter in ours.named_parameters():
        _same_gradient(parameter.grad, theirs_by_name[name].grad, rtol, f"gradient of {name}")
    for a, old in zip(inputs, before):
        assert np.array_equal(a, old), "an input was changed"
    for name, given in named.items():
        kept = options[name].array if isinstance(given, np.ndarray) else options[name]
        assert np.array_equal(kept, given), f"{name} was changed"
    return first


def _converted(named: dict[str, Any], convert: Callable[[Any], Any]) -> dict[str, Any]:
    return {name: convert(v.copy()) if isinstance(v, np.ndarray) else v for name, v in named.items()}


def _same_gradient(ours: Any, theirs: Any, rtol: float, name: str) -> None:
    assert (ours is None) == (theirs is None), f"{name}: {ours} beside {theirs}"
    if ours is not None:
        assert_same(ours, theirs, rtol=rtol, name=name)


@pytest.fixture
def beside(torch: ModuleType) -> Callable[..., list[Any]]:
    """`beside(ours, theirs, *arrays, **named)`: the comparison above, in the type of the first floating array."""

    def compare(ours: Any, theirs: Any, *inputs: Any, dtype: str | None = None, **named: Any) -> Any:
        rng = np.random.default_rng(0)
        kinds = [a.dtype.name for a in inputs if a.dtype.kind == "f"]
        return run_beside(torch, ours, theirs, inputs, named, rng, dtype or kinds[0])

    return compare
