"""Element types: every pair, at every rank, against PyTorch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import minilm as ml
from minilm import dtypes, ops
from minilm.errors import DtypeError
from minilm.tensor import Tensor

NAMES = [d.name for d in dtypes.SUPPORTED]
PAIRS = list(itertools.product(NAMES, NAMES))
RANKS = [(a, b) for a in (0, 1) for b in (0, 1)]
NUMBERS = [True, 2, 1.5]
OPERATIONS = ["add", "mul", "div", "maximum", "where", "eq", "lt", "ge"]


def tensor_of(name: str, rank: int, torch=None):
    """A tensor of ones with no or one axis, ours or PyTorch's."""
    array = np.ones((3,) * rank, name)
    return Tensor(array) if torch is None else torch.from_numpy(array)


def dtype_of(function, *args) -> str:
    """The name of the result's type, or that there was an error."""
    try:
        return str(function(*args).dtype).removeprefix("torch.")
    except (RuntimeError, TypeError):
        return "error"


def ours_and_theirs(name: str, torch):
    function = ops.get(name).apply
    if name == "where":
        ours, theirs = Tensor(np.array(True)), torch.tensor(True)
        return (lambda a, b: function(ours, a, b)), (lambda a, b: torch.where(theirs, a, b))
    return function, getattr(torch, name)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_pair_of_tensors(name, torch):
    """All pairs of types, both with axes, both without, and mixed."""
    ours, theirs = ours_and_theirs(name, torch)
    wrong = []
    for (a, b), (m, n) in itertools.product(PAIRS, RANKS):
        found = dtype_of(ours, tensor_of(a, m), tensor_of(b, n))
        expected = dtype_of(theirs, tensor_of(a, m, torch), tensor_of(b, n, torch))
        if found != expected:
            wrong.append(f"{a}[{m}d], {b}[{n}d]: {found}, PyTorch {expected}")
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong[:20]])


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "maximum"])
def test_every_tensor_with_a_number(name, torch):
    """Python numbers do not widen a tensor of their kind, on either side."""
    ours, theirs = ours_and_theirs(name, torch)
    wrong = []
    for a, rank, number in itertools.product(NAMES, (0, 1), NUMBERS):
        found = dtype_of(ours, tensor_of(a, rank), number)
        expected = dtype_of(theirs, tensor_of(a, rank, torch), number)
        if found != expected:
            wrong.append(f"{a}[{rank}d], {number!r}: {found}, PyTorch {expected}")
        if name in ("add", "mul", "div"):
            operator = {"add": "__radd__", "mul": "__rmul__", "div": "__rtruediv__"}[name]
            found = dtype_of(getattr(tensor_of(a, rank), operator), number)
            expected = dtype_of(getattr(tensor_of(a, rank, torch), operator), number)
            if found != expected:
                wrong.append(f"{number!r}, {a}[{rank}d]: {found}, PyTorch {expected}")
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong[:20]])


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_result_type(a, b, torch):
    for m, n in RANKS:
        x, y = tensor_of(a, m), tensor_of(b, n)
        expected = torch.result_type(tensor_of(a, m, torch), tensor_of(b, n, torch))
        assert dtypes.result_type([x.array, y.array]).name == str(expected).removeprefix("torch.")


@pytest.mark.parametrize("a", NAMES)
def test_matmul_of_every_type(a, torch):
    """PyTorch multiplies matrices of one type only; where it does, ours gives the same type."""
    theirs = dtype_of(
        torch.matmul, torch.ones(2, 3, dtype=getattr(torch, a)), torch.ones(3, 5, dtype=getattr(torch, a))
    )
    found = dtype_of(ops.get("matmul").apply, Tensor(np.ones((2, 3), a)), Tensor(np.ones((3, 5), a)))
    if theirs != "error":
        assert found == theirs


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_gradients_keep_their_inputs_types(a, b):
    """A conversion on the way does not widen, or narrow, the gradient that comes back."""
    tensors = [Tensor(np.ones(3, name), requires_grad=name.startswith("float")) for name in (a, b)]
    if not any(t.requires_grad for t in tensors):
        return
    y = tensors[0] * tensors[1]
    y.backward(np.ones(3))
    for t in tensors:
        assert t.grad is None or t.grad.dtype == t.dtype


def test_values_of_integers_divided():
    assert (ml.tensor([1, 2]) / 2).tolist() == [0.5, 1.0]
    assert (ml.tensor([1, 2]) / ml.tensor([2, 4])).dtype == dtypes.float32


def test_nothing_silently_becomes_float64():
    x = ml.tensor([1.0, 2.0])
    for y in (x + 1.5, x * np.float64(1.5), 1 / x, x**2, x**0.5, x.mean() if hasattr(x, "mean") else x, x.sum() * 0.5):
        assert y.dtype == dtypes.float32


def test_types_that_tensors_cannot_hold():
    for bad in ("complex64", "uint16", "datetime64[s]", "U3", "O"):
        with pytest.raises(DtypeError, match="none of these"):
            dtypes.checked(bad)


def test_the_default_type():
    try:
        dtypes.set_default_dtype("float64")
        assert ml.tensor(1.5).dtype == dtypes.float64
        assert (ml.tensor([1]) / 2).dtype == dtypes.float64
        assert dtypes.checked(float) == dtypes.float64
    finally:
        dtypes.set_default_dtype("float32")
    with pytest.raises(DtypeError, match="floating"):
        dtypes.set_default_dtype("int64")
