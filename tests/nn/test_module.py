"""Module: what becomes a part of it, under which names and in which order, and what it does with its parts."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import nn
from minilm.errors import DeviceError, DtypeError, ModuleError


def tree(library: Any, tensor: Any) -> Any:
    """One module tree for both libraries: nested, with buffers, empty places, a shared part and a shared weight."""

    class Inner(library.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = library.Linear(3, 2)
            self.register_buffer("seen", tensor([1.0, 2.0]))
            self.scale = library.Parameter(tensor([4.0]))
            self.register_buffer("scratch", tensor([3.0]), persistent=False)
            self.register_parameter("absent", None)
            self.register_buffer("nothing", None)
            self.second = library.Linear(2, 3, bias=False)

    class Outer(library.Module):
        def __init__(self) -> None:
            super().__init__()
            self.zero = library.Parameter(tensor([0.5, 0.25]))
            self.inner = Inner()
            self.blocks = library.ModuleList([library.Linear(2, 2), Inner(), library.ReLU()])
            self.named = library.ModuleDict({"b": library.LayerNorm(2), "a": library.Embedding(3, 2)})
            self.again = self.inner
            self.chain = library.Sequential(library.Linear(2, 2), self.blocks[0])
            self.empty = None
            self.count = 7
            self.register_module("gone", None)
            self.head = library.Linear(2, 3, bias=False)
            self.head.weight = self.named["a"].weight

    return Outer()


@pytest.fixture
def both(torch: Any) -> tuple[Any, Any]:
    return tree(nn, ml.tensor), tree(torch.nn, torch.tensor)


ORDERS = [
    ("named_parameters", {}),
    ("named_parameters", {"prefix": "p"}),
    ("named_parameters", {"recurse": False}),
    ("named_parameters", {"remove_duplicate": False}),
    ("named_buffers", {}),
    ("named_buffers", {"remove_duplicate": False}),
    ("named_buffers", {"prefix": "p", "recurse": False}),
    ("named_modules", {}),
    ("named_modules", {"prefix": "p"}),
    ("named_modules", {"remove_duplicate": False}),
    ("named_children", {}),
]


@pytest.mark.parametrize(("method", "options"), ORDERS)
def test_names_come_in_the_order_of_torch(both: Any, method: str, options: Any) -> None:
    ours, theirs = ([name for root in (m, m.inner) for name, _ in getattr(root, method)(**options)] for m in both)
    assert ours == theirs
    assert len(ours) > 1


def test_the_same_without_names(both: Any) -> None:
    ours, theirs = both
    for method in ("parameters", "buffers"):
        assert [tuple(t.shape) for t in getattr(ours, method)()] == [tuple(t.shape) for t in getattr(theirs, method)()]
    for method in ("modules", "children"):
        assert [type(m).__name__ for m in getattr(ours, method)()] == [
            type(m).__name__ for m in getattr(theirs, method)()
        ]


def test_parts_are_found_by_name(both: Any) -> None:
    ours, _ = both
    assert ours.get_submodule("blocks.1.first") is ours.blocks[1].first
    assert ours.get_submodule("") is ours
    assert ours.get_parameter("blocks.1.first.weight") is ours.blocks[1].first.weight
    assert ours.get_parameter("zero") is ours.zero
    with pytest.raises(AttributeError, match=r"blocks.*'4'.*'0', '1', '2'"):
        ours.get_submodule("blocks.4.first")
    with pytest.raises(AttributeError, match="'gone'"):
        ours.get_submodule("gone")
    for name in ("inner.seen", "inner.absent", "inner.weight"):
        with pytest.raises(AttributeError, match=name):
            ours.get_parameter(name)


def test_attributes_are_what_was_assigned() -> None:
    m = nn.Module()
    weight, part = nn.Parameter(ml.ones(2)), nn.Linear(2, 2)
    m.weight, m.part, m.plain = weight, part, ml.ones(3)
    assert m.weight is weight
    assert m.part is part
    assert [n for n, _ in m.named_parameters()] == ["weight", "part.weight", "part.bias"]
    assert not list(m.buffers())
    assert {"weight", "part", "plain"} <= set(dir(m))
    m.weight = None
    assert m.weight is None
    assert [n for n, _ in m.named_parameters()] == ["part.weight", "part.bias"]
    m.weight = weight
    assert next(m.named_parameters())[0] == "weight"
    del m.weight, m.part
    assert not hasattr(m, "weight")
    assert not list(m.named_parameters())
    with pytest.raises(AttributeError, match="'Module' object has no attribute 'weight'"):
        m.weight  # noqa: B018
    with pytest.raises(AttributeError):
        del m.weight


def test_one_name_stands_for_one_thing() -> None:
    m = nn.Module()
    m.x = 3
    m.x = nn.Parameter(ml.ones(2))
    assert [n for n, _ in m.named_parameters()] == ["x"]
    m.x = nn.Linear(2, 2)
    assert [n for n, _ in m.named_parameters()] == ["x.weight", "x.bias"]
    m.x = nn.Parameter(ml.ones(2))
    assert not list(m.children())
    assert [n for n, _ in m.named_parameters()] == ["x"]
    m.register_buffer("held", ml.ones(2), persistent=False)
    m.held = nn.Parameter(ml.ones(2))
    assert not list(m.buffers())
    assert "held" in m.state_dict()


def test_a_place_takes_its_own_kind_only() -> None:
    m = nn.Module()
    m.weight, m.part = nn.Parameter(ml.ones(2)), nn.Linear(2, 2)
    m.register_buffer("seen", ml.ones(2))
    for name, value, kind in [("weight", ml.ones(2), "Parameter"), ("part", 3, "Module"), ("seen", 3, "Tensor")]:
        before = getattr(m, name)
        with pytest.raises(TypeError, match=f"{name}.*{kind}.*{type(value).__name__}"):
            setattr(m, name, value)
        assert getattr(m, name) is before
    m.seen = ml.zeros(3)
    assert m.state_dict()["seen"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["", "a.b", 3, None])
def test_names_that_cannot_be_are_refused(name: Any) -> None:
    m = nn.Module()
    for register, value in [
        (m.register_parameter, nn.Parameter(ml.ones(1))),
        (m.register_buffer, ml.ones(1)),
        (m.add_module, nn.ReLU()),
        (m.register_module, nn.ReLU()),
    ]:
        with pytest.raises(ModuleError, match=repr(name).replace(".", r"\.")):
            register(name, value)
    assert not m.state_dict()


def test_names_that_are_taken_and_things_of_another_kind_are_refused() -> None:
    m = nn.Module()
    m.taken = 1
    for register, value in [
        (m.register_parameter, nn.Parameter(ml.ones(1))),
        (m.register_buffer, ml.ones(1)),
        (m.add_module, nn.ReLU()),
    ]:
        for name in ("taken", "forward", "training"):
            with pytest.raises(ModuleError, match=f"Module.*'{name}'"):
                register(name, value)
    with pytest.raises(TypeError, match=r"'w' .* Parameter or None, not Tensor"):
        m.register_parameter("w", ml.ones(1))
    with pytest.raises(TypeError, match="ndarray"):
        m.register_buffer("b", np.ones(1))
    with pytest.raises(TypeError, match=r"'m' .* Module or None, not function"):
        m.add_module("m", lambda x: x)
    assert m.taken == 1


def test_a_forgotten_super_init_is_said_plainly() -> None:
    class Late(nn.Module):
        def __init__(self, value: Any) -> None:
            self.value = value
            super().__init__()

    assert Late(3).value == 3
    for value in (nn.Linear(2, 2), nn.Parameter(ml.ones(1))):
        with pytest.raises(AttributeError, match=r"Late.*'value'.*super\(\).__init__\(\) first"):
            Late(value)

    class Never(nn.Module):
        def __init__(self) -> None:
            self.register_buffer("b", None)

    with pytest.raises(AttributeError, match=r"super\(\).__init__\(\) first"):
        Never()


def test_a_module_without_forward_says_so() -> None:
    class Lazy(nn.Module):
        pass

    with pytest.raises(NotImplementedError, match="Lazy"):
        Lazy()(1)


def test_train_and_eval_reach_every_part(both: Any) -> None:
    ours, _ = both
    assert all(m.training for m in ours.modules())
    assert ours.eval() is ours
    assert not any(m.training for m in ours.modules())
    ours.inner.train()
    assert [n for n, m in ours.named_modules() if m.training] == ["inner", "inner.first", "inner.second"]
    assert ours.train() is ours
    assert all(m.training for m in ours.modules())
    assert not ours.train(False).blocks[1].first.training


def test_apply_comes_to_the_parts_first(both: Any) -> None:
    seen: tuple[list[str], list[str]] = ([], [])
    for m, names in zip(both, seen):
        assert m.apply(lambda part, names=names: names.append(type(part).__name__)) is m
    assert seen[0] == seen[1]
    assert seen[0][-1] == "Outer"


def test_freezing(both: Any) -> None:
    ours, _ = both
    assert ours.inner.requires_grad_(False) is ours.inner
    frozen = {n for n, p in ours.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in ours.named_parameters() if n.startswith("inner.")}
    ours.requires_grad_()
    assert all(p.requires_grad for p in ours.parameters())


def test_zero_grad() -> None:
    m = nn.Linear(3, 2)
    m(ml.ones(5, 3)).sum().backward()
    held = m.weight.grad
    m.zero_grad(set_to_none=False)
    assert m.weight.grad is held
    assert not held.array.any()
    m.weight.grad = None
    m.zero_grad(set_to_none=False)
    assert m.weight.grad is None
    m.zero_grad()
    assert m.bias.grad is None


def test_to_changes_the_type_of_what_floats_and_nothing_else(both: Any) -> None:
    ours, _ = both
    ours.register_buffer("whole", ml.tensor([1, 2]))
    parameters = dict(ours.named_parameters())
    ours.blocks[0](ml.ones(1, 2)).sum().backward()
    assert ours.to(ml.float64) is ours
    now = dict(ours.named_parameters())
    assert all(now[n] is p and p.dtype == ml.float64 and p.requires_grad for n, p in parameters.items())
    assert ours.blocks[0].weight.grad.dtype == ml.float64
    assert ours.blocks[0].weight.grad.tolist() == [[1, 1], [1, 1]]
    assert ours.inner.seen.dtype == ours.inner.scratch.dtype == ml.float64
    assert ours.whole.dtype == ml.int64
    assert ours.blocks[0](ml.ones(1, 2, dtype=ml.float64)).dtype == ml.float64
    assert ours.float().zero.dtype == ml.float32
    assert ours.double().zero.dtype == ml.float64
    assert ours.half().zero.dtype == ml.float16
    assert ours.to("cpu", ml.float32).zero.dtype == ml.float32
    assert ours.to(ml.zeros(1, dtype=ml.float64)).zero.dtype == ml.float64
    assert ours.to(device="cpu", dtype="float32").zero.dtype == ml.float32
    assert ours.head.weight is ours.named["a"].weight


def test_to_what_cannot_be_changes_nothing() -> None:
    m = nn.Linear(3, 2)
    before = m.weight.array
    for args, named, error, words in [
        ((ml.int64,), {}, DtypeError, "int64"),
        (("cuda", ml.float64), {}, DeviceError, "CuPy|cupy|GPU"),
        ((), {"memory": 1}, TypeError, "memory"),
    ]:
        with pytest.raises(error, match=words):
            m.to(*args, **named)
        assert m.weight.array is before


def test_to_narrower_numbers_rounds_them() -> None:
    m = nn.Linear(3, 2, dtype=ml.float64)
    exact = m.weight.array.copy()
    assert np.array_equal(m.to(ml.float32).weight.array, exact.astype("float32"))


def test_a_deep_copy_has_its_own_memory_and_keeps_its_ties(both: Any) -> None:
    ours, _ = both
    ours.head(ml.ones(1, 2)).sum().backward()
    twin = copy.deepcopy(ours)
    assert list(twin.state_dict()) == list(ours.state_dict())
    assert repr(twin) == repr(ours)
    for (name, a), b in zip(ours.state_dict().items(), twin.state_dict().values()):
        assert np.array_equal(a.array, b.array), name
        assert not np.shares_memory(a.array, b.array), name
    assert twin.head.weight is twin.named["a"].weight
    assert twin.again is twin.inner
    assert type(twin.zero) is nn.Parameter
    assert twin.zero.requires_grad
    assert twin.head.weight.grad.tolist() == ours.head.weight.grad.tolist()
    assert twin.head.weight.grad is not ours.head.weight.grad
    twin.zero.detach().fill_(9)
    assert ours.zero.tolist() == [0.5, 0.25]
    assert "scratch" in dict(twin.inner.named_buffers())
    assert "inner.scratch" not in twin.state_dict()
