"""Tensor itself: what it tells, how it meets Python, NumPy and PyTorch. Its gradients: tests/autograd."""

from __future__ import annotations

import copy
import math
import pickle
import sys

import numpy as np
import pytest

import minilm as ml
from minilm.device import Device
from minilm.errors import AutogradError, DeviceError, DtypeError, ShapeError
from minilm.tensor import Tensor

DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]


# --- DLPack: the same memory under two names -------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 5), (0, 3)])
def test_dlpack_to_pytorch_shares_memory(torch, dtype, shape):
    ours = ml.tensor(np.arange(math.prod(shape)).reshape(shape) % 2, dtype=dtype)
    theirs = torch.from_dlpack(ours)
    assert str(theirs.dtype) == f"torch.{dtype}"
    assert tuple(theirs.shape) == shape
    assert theirs.data_ptr() == ours.array.ctypes.data or not ours.numel()
    if ours.numel():
        theirs.reshape(-1)[-1] = 1
        theirs.reshape(-1)[0] = 0
        assert ours.array.reshape(-1)[-1] == (1 if ours.numel() > 1 else 0)
        ours.array[...] = 1
        assert bool((theirs == 1).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 5), (0, 3)])
def test_dlpack_from_pytorch_shares_memory(torch, dtype, shape):
    theirs = torch.zeros(shape, dtype=getattr(torch, dtype))
    ours = ml.from_dlpack(theirs)
    assert ours.dtype == dtype
    assert ours.shape == shape
    assert ours.array.ctypes.data == theirs.data_ptr() or not ours.numel()
    ours.fill_(1)
    assert bool((theirs == 1).all())
    theirs.zero_()
    assert not ours.array.any()


def test_dlpack_keeps_strides(torch):
    theirs = torch.arange(30.0).reshape(5, 6)[1::2, ::3].T
    ours = ml.from_dlpack(theirs)
    assert ours.tolist() == theirs.tolist()
    assert not ours.is_contiguous()
    back = torch.from_dlpack(ours)
    assert back.stride() == theirs.stride()
    assert back.data_ptr() == theirs.data_ptr()


def test_dlpack_outlives_its_source(torch):
    theirs = torch.from_dlpack(ml.tensor([1.0, 2.0]) * 3)
    ours = ml.from_dlpack(torch.tensor([1.0, 2.0]) * 5)
    assert theirs.tolist() == [3.0, 6.0]
    assert ours.tolist() == [5.0, 10.0]


def test_dlpack_with_numpy():
    ours = ml.tensor([[1.0, 2.0], [3.0, 4.0]])
    array = np.from_dlpack(ours)
    assert array.ctypes.data == ours.array.ctypes.data
    back = ml.from_dlpack(array)
    back.add_(1.0)
    assert ours.tolist() == [[2.0, 3.0], [4.0, 5.0]]
    assert ours.__dlpack_device__() == (1, 0)
    assert ml.from_dlpack(ours).array.ctypes.data == ours.array.ctypes.data


def test_dlpack_of_read_only_memory_stays_read_only():
    array = np.arange(3.0)
    array.flags.writeable = False
    ours = ml.from_dlpack(array)
    assert not ours.array.flags.writeable
    assert not np.from_dlpack(ours).flags.writeable
    with pytest.raises(AutogradError, match="read-only"):
        ours.add_(1.0)
    with pytest.raises(BufferError):
        ours.__dlpack__()  # a taker of the old protocol, which cannot say "read-only"
    assert array.tolist() == [0.0, 1.0, 2.0]


def test_dlpack_of_a_tensor_that_requires_a_gradient(torch):
    x = ml.ones(3, requires_grad=True)
    for take in (torch.from_dlpack, np.from_dlpack, ml.from_dlpack):
        with pytest.raises(AutogradError, match=r"dlpack: .* requires a gradient.*t\.detach\(\)"):
            take(x)
        with pytest.raises(AutogradError):
            take(x * 2)
        assert take(x.detach()).tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(BufferError):
        ml.from_dlpack(torch.ones(3, requires_grad=True))


def test_from_dlpack_names_what_cannot_be_taken(torch):
    for source, words in [
        ([1.0], "not list"),
        (torch.ones(2, dtype=torch.bfloat16), "torch.bfloat16"),
        (torch.ones(2, dtype=torch.complex64), "complex64"),
        (np.ones(2, np.uint32), "uint32"),
    ]:
        with pytest.raises(DtypeError, match=words):
            ml.from_dlpack(source)

    class OnAGpu:
        def __dlpack_device__(self):
            return (2, 0)

        def __dlpack__(self, **kwargs):
            raise AssertionError("must not be asked")

    with pytest.raises(DeviceError, match="on a GPU"):
        ml.from_dlpack(OnAGpu())


# --- NumPy -----------------------------------------------------------------------------------------


def test_numpy_shares_memory():
    array = np.arange(6.0).reshape(2, 3)
    t = ml.from_numpy(array)
    assert t.array is array
    assert np.shares_memory(t.numpy(), array)
    assert np.shares_memory(np.asarray(t), array)
    assert not np.shares_memory(ml.tensor(array).array, array)
    t.mul_(2.0)
    assert array[1, 2] == 10.0
    with pytest.raises(DtypeError, match="not list"):
        ml.from_numpy([1.0])


def test_numpy_refuses_what_requires_a_gradient():
    x = ml.ones(3, requires_grad=True)
    for t in (x, x * 2):
        with pytest.raises(AutogradError, match=r"t\.detach\(\)\.numpy\(\)"):
            t.numpy()
        assert t.detach().numpy().tolist() == t.tolist()


# --- as numbers --------------------------------------------------------------------------------------


def test_item():
    for value in (2.5, 3, True):
        for t in (ml.tensor(value), ml.tensor([[value]])):
            assert t.item() == value
            assert type(t.item()) is type(value)
    assert ml.tensor(2.5, requires_grad=True).item() == 2.5
    for t in (ml.ones(2, 3), ml.ones(0)):
        with pytest.raises(ShapeError, match=rf"item: .*{t.numel()} elements"):
            t.item()


def test_tolist():
    assert ml.tensor([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert ml.tensor(1.5, requires_grad=True).tolist() == 1.5
    assert ml.zeros(2, 0).tolist() == [[], []]


def test_conversions_to_pythons_numbers():
    t = ml.tensor(2.75)
    assert (float(t), int(t), complex(t), math.floor(t), math.sqrt(ml.tensor([4.0]))) == (2.75, 2, 2.75 + 0j, 2, 2.0)
    with pytest.raises(ShapeError):
        float(ml.ones(2))


def test_as_an_index(torch):
    names = ["a", "b", "c"]
    for m in (ml, torch):
        assert names[m.tensor(1)] == "b"
        assert names[m.tensor([2])] == "c"
        assert names[m.tensor(True)] == "b"
        assert list(range(m.tensor(3))) == [0, 1, 2]
        with pytest.raises(TypeError):
            names[m.tensor(1.0)]
    with pytest.raises(TypeError, match="only an integer tensor can be an index, and this one is float32"):
        names[ml.tensor(1.0)]


def test_truth():
    assert ml.tensor([[3.0]])
    assert not ml.tensor(0)
    for t in (ml.ones(2), ml.zeros(0)):
        with pytest.raises(ShapeError, match=r"ambiguous; use \.any\(\) or \.all\(\)"):
            bool(t)


# --- as a container ----------------------------------------------------------------------------------


def test_len_iter_contains():
    x = ml.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], requires_grad=True)
    assert len(x) == 3
    rows = list(x)
    assert [row.tolist() for row in rows] == x.tolist()
    (rows[1] * 10).sum().backward()
    assert x.grad.tolist() == [[0.0, 0.0], [10.0, 10.0], [0.0, 0.0]]
    *_, last = x
    assert last.tolist() == [5.0, 6.0]
    assert 4.0 in x
    assert 7.0 not in x
    assert ml.tensor(4.0) in x
    scalar = ml.tensor(1.0)
    with pytest.raises(TypeError, match="without axes"):
        len(scalar)
    with pytest.raises(TypeError, match=r"without axes.*\.item\(\)"):
        iter(scalar)


def test_hash_and_equality_with_anything(torch):
    for m in (ml, torch):
        x, y = m.ones(2), m.ones(2)
        assert len({x, y, x}) == 2
        assert {x: "x"}[x] == "x"
        assert (x == y).tolist() == [True, True]
        assert (x == None) is False  # noqa: E711
        assert (x != None) is True  # noqa: E711
        assert (x == "one") is False
        assert ("one" != x) is True  # noqa: SIM300
        assert x in [None, "one", x]
        assert (x == 1).tolist() == [True, True]
        assert (x != np.float32(1.0)).tolist() == [False, False]


# --- as text -----------------------------------------------------------------------------------------


def test_repr():
    x = ml.tensor([1.0, 2.5], requires_grad=True)
    for t, text in [
        (ml.tensor([[1.0, 2.0], [3.0, 4.5]]), "tensor([[1. , 2. ],\n        [3. , 4.5]])"),
        (ml.tensor(3), "tensor(3)"),
        (ml.tensor([True, False]), "tensor([ True, False])"),
        (ml.tensor([1, 2], dtype=ml.int32), "tensor([1, 2], dtype=int32)"),
        (ml.tensor(1.0, dtype=ml.float64), "tensor(1., dtype=float64)"),
        (ml.zeros(2, 0), "tensor([], shape=(2, 0))"),
        (ml.tensor([math.nan, -math.inf]), "tensor([ nan, -inf])"),
        (x, "tensor([1. , 2.5], requires_grad=True)"),
        (x * 2, "tensor([2., 5.], grad_fn=<mul>)"),
        (x.detach().double(), "tensor([1. , 2.5], dtype=float64)"),
    ]:
        assert repr(t) == str(t) == text
    assert len(repr(ml.zeros(1000, 1000))) < 1000
    ml.set_default_dtype(ml.float64)
    try:
        assert repr(ml.tensor(1.0)) == "tensor(1.)"
        assert repr(x.detach()) == "tensor([1. , 2.5], dtype=float32)"
    finally:
        ml.set_default_dtype(ml.float32)


def test_format():
    x = ml.tensor(1.23456, requires_grad=True)
    assert f"{x:.2f}" == "1.23"
    assert f"{ml.tensor(7):>4}" == "   7"
    assert f"{ml.tensor([1.0, 2.0])}" == "tensor([1., 2.])"
    with pytest.raises(ShapeError, match=r"'\.2f' is for one number.*\(2,\)"):
        f"{ml.tensor([1.0, 2.0]):.2f}"


# --- copies ------------------------------------------------------------------------------------------


def test_deepcopy():
    x = ml.tensor([1.0, 2.0], requires_grad=True)
    (x * 3).sum().backward()
    pair = copy.deepcopy([x, x])
    assert pair[0] is pair[1]
    y = pair[0]
    assert y.requires_grad
    assert y.is_leaf
    assert y.grad.tolist() == [3.0, 3.0]
    assert not np.shares_memory(y.array, x.array)
    assert not np.shares_memory(y.grad.array, x.grad.array)
    with pytest.raises(AutogradError, match="only leaf tensors"):
        copy.deepcopy(x * 2)
    parameter = copy.deepcopy(ml.nn.Parameter(x.detach()))
    assert isinstance(parameter, ml.nn.Parameter)
    assert parameter.requires_grad


def test_shallow_copy(torch):
    for m in (ml, torch):
        x = m.ones(2, requires_grad=True)
        y = copy.copy(x)
        assert y is not x
        assert y.requires_grad
        with m.no_grad():
            y.add_(1.0)
        assert x.tolist() == [2.0, 2.0]
    saved = ml.ones(2)
    z = saved * ml.ones(2, requires_grad=True)
    copy.copy(saved).add_(1.0)
    with pytest.raises(AutogradError, match="overwritten"):
        z.sum().backward()
    with pytest.raises(AutogradError, match="only leaf tensors"):
        copy.copy(z)


def test_pickle_is_refused():
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match=r"minilm\.save"):
            pickle.dumps(ml.ones(2), protocol)


# --- types and devices -------------------------------------------------------------------------------


def test_to_a_type_or_device_that_is_none():
    x = ml.ones(2)
    for target in ("tpu", "float31"):
        with pytest.raises(DtypeError, match=f"there is no element type '{target}'.*float32"):
            x.to(target)
    with pytest.raises(DtypeError, match="complex128 is none of these"):
        x.to(complex)
    with pytest.raises(DeviceError, match="there is no device 'cuda:x'"):
        x.to("cuda:x")


def test_the_cpu_is_here():
    x = ml.ones(2, requires_grad=True)
    assert x.to("cpu") is x
    assert x.cpu() is x
    assert x.to(Device("cpu")) is x
    assert x.device == "cpu"
    assert x.device == ml.device("cpu")
    assert x.device != "cuda"
    assert str(x.device) == "cpu"


@pytest.mark.parametrize("target", ["cuda", "cuda:1"])
def test_a_gpu_without_cupy(monkeypatch, target):
    monkeypatch.setitem(sys.modules, "cupy", None)  # as if it were not installed
    for ask in (
        lambda: ml.ones(2).to(target),
        lambda: ml.ones(2).to(ml.device(target)),
        lambda: ml.zeros(2, device=target),
        lambda: ml.tensor([1.0], device=target),
    ):
        with pytest.raises(DeviceError, match=r"'cuda:\d' needs the package CuPy, .*pip install cupy"):
            ask()
    with pytest.raises(DeviceError, match="CuPy"):
        ml.ones(2).cuda()


# --- what else it tells ------------------------------------------------------------------------------


def test_sizes(torch):
    for m in (ml, torch):
        x = m.zeros((2, 3, 5))
        assert tuple(x.shape) == tuple(x.size()) == (2, 3, 5)
        assert (x.size(1), x.size(-1), x.dim(), x.ndim, x.numel(), x.element_size()) == (3, 5, 3, 3, 30, 4)
        assert x.is_contiguous()
        assert not x.transpose(0, 1).is_contiguous()
        assert x.is_floating_point()
        assert not (x > 0).is_floating_point()


def test_a_tensor_has_no_room_for_more():
    x = ml.ones(2)
    with pytest.raises(AttributeError):
        x.foo = 1
    with pytest.raises(AttributeError):
        x.shape = (2, 1)
    with pytest.raises(ShapeError, match=r"data: the tensor has shape \(2,\), the new data \(3,\)"):
        x.data = np.ones(3)


def test_data_that_is_no_numbers():
    for data, error, words in [
        ("abc", DtypeError, "numbers were expected, not str"),
        (None, DtypeError, "NoneType"),
        ([[1.0, 2.0], [3.0]], ShapeError, "rows differ in length"),
        (np.ones(2, complex), DtypeError, "complex128"),
    ]:
        with pytest.raises(error, match=words):
            Tensor(data)
    x = ml.tensor([ml.tensor(1.0), 2.0])
    assert x.tolist() == [1.0, 2.0]
