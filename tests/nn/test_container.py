"""Sequential, ModuleList and ModuleDict: lists and dicts of modules, with PyTorch's names for the parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import nn
from minilm.errors import ModuleError


def test_a_chain_is_that_of_torch(beside: Any, torch: Any) -> None:
    def chain(library: Any) -> Any:
        inner = library.Sequential(library.Linear(7, 3), library.GELU())
        return library.Sequential(library.Linear(5, 7), library.Tanh(), inner, library.LayerNorm(3))

    x = np.random.default_rng(1).standard_normal((2, 3, 5))
    beside(chain(nn), chain(torch.nn), x)
    named = nn.Sequential({"into": nn.Linear(5, 7), "out": nn.Linear(7, 3)})
    theirs = torch.nn.Sequential()
    theirs.add_module("into", torch.nn.Linear(5, 7))
    theirs.add_module("out", torch.nn.Linear(7, 3))
    beside(named, theirs, x)
    assert named.out is named[1]
    nothing = ml.ones(2)
    assert nn.Sequential()(nothing) is nothing


def part(library: Any, n: int) -> Any:
    return library.Linear(n, 1)


def names(m: Any) -> list[Any]:
    """What every change may move: the parts' names, in order, with their sizes."""
    return [(name, p.in_features) for name, p in m.named_children()]


CHANGES: list[tuple[str, Callable[[Any, Any], Any]]] = [
    ("append", lambda m, new: m.append(new)),
    ("extend", lambda m, new: m.extend([new])),
    ("insert at the front", lambda m, new: m.insert(0, new)),
    ("insert in the middle", lambda m, new: m.insert(2, new)),
    ("insert at the end", lambda m, new: m.insert(4, new)),
    ("pop", lambda m, new: m.pop(-1)),
    ("pop the first", lambda m, new: m.pop(0)),
    ("set", lambda m, new: m.__setitem__(1, new)),
    ("set from behind", lambda m, new: m.__setitem__(-1, new)),
    ("delete", lambda m, new: m.__delitem__(1)),
    ("delete from behind", lambda m, new: m.__delitem__(-2)),
    ("delete a slice", lambda m, new: m.__delitem__(slice(1, 3))),
    ("delete every other", lambda m, new: m.__delitem__(slice(None, None, 2))),
    ("delete all", lambda m, new: m.__delitem__(slice(None))),
]


@pytest.mark.parametrize("kind", ["Sequential", "ModuleList"])
@pytest.mark.parametrize(("name", "change"), CHANGES)
def test_every_change_of_a_list_is_that_of_torch(torch: Any, name: str, change: Any, kind: str) -> None:
    made = []
    for library in (nn, torch.nn):
        parts = [part(library, n) for n in (2, 3, 5, 7)]
        m = library.Sequential(*parts) if kind == "Sequential" else library.ModuleList(parts)
        result = change(m, part(library, 11))
        returned = "itself" if result is m else getattr(result, "in_features", None)
        made.append((names(m), len(m), [p.in_features for p in m], returned))
    if made[1][-1] is None:  # where PyTorch returns nothing, we may return the list
        made = [row[:-1] for row in made]
    assert made[0] == made[1]
    assert made[0][0] != [(str(i), n) for i, n in enumerate((2, 3, 5, 7))]


@pytest.mark.parametrize("kind", ["Sequential", "ModuleList"])
@pytest.mark.parametrize(
    "index", [0, 2, -1, -4, slice(1, 3), slice(None), slice(None, None, -1), slice(0, 4, 3), slice(9, 9)]
)
def test_every_index_is_that_of_torch(torch: Any, kind: str, index: Any) -> None:
    found = []
    for library in (nn, torch.nn):
        parts = [part(library, n) for n in (2, 3, 5, 7)]
        m = library.Sequential(*parts) if kind == "Sequential" else library.ModuleList(parts)
        taken = m[index]
        found.append(names(taken) if isinstance(index, slice) else taken.in_features)
        assert not isinstance(index, slice) or type(taken) is type(m)
        assert all(p in list(m) for p in (taken if isinstance(index, slice) else [taken]))
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", [nn.Sequential, nn.ModuleList])
@pytest.mark.parametrize("index", [2, -3, 99])
def test_numbers_that_no_part_has_are_refused(kind: Any, index: int) -> None:
    m = kind(nn.Tanh(), nn.ReLU()) if kind is nn.Sequential else kind([nn.Tanh(), nn.ReLU()])
    for use in (lambda: m[index], lambda: m.pop(index), lambda: m.__setitem__(index, nn.GELU())):
        with pytest.raises(IndexError, match=f"{kind.__name__}.*{index}.* 2"):
            use()
    with pytest.raises(IndexError, match=f"{kind.__name__}.*{index}.* 2"):
        m.__delitem__(index)
    assert [type(p).__name__ for p in m] == ["Tanh", "ReLU"]


def test_what_is_no_module_is_refused_and_nothing_is_lost() -> None:
    m = nn.ModuleList([nn.Tanh()])
    for use in (lambda: m.append(3), lambda: m.extend([3]), lambda: m.__setitem__(0, 3), lambda: m.insert(0, 3)):
        with pytest.raises(TypeError, match="int"):
            use()
        assert [type(p).__name__ for p in m] == ["Tanh"]
    with pytest.raises(TypeError, match="function"):
        nn.Sequential(nn.Tanh(), lambda x: x)


def test_a_list_that_computes_nothing_says_so() -> None:
    for m in (nn.ModuleList([nn.Tanh()]), nn.ModuleDict({"a": nn.Tanh()})):
        with pytest.raises(NotImplementedError, match=type(m).__name__):
            m(ml.ones(1))


def test_a_list_extended_by_another(torch: Any) -> None:
    made = []
    for library in (nn, torch.nn):
        m = library.ModuleList([part(library, 2)])
        m += [part(library, 3)]
        m.extend(library.ModuleList([m[0], part(library, 5)]))
        made.append((names(m), len(m), list(m.state_dict())))
    assert made[0] == made[1]
    # The same part twice has two names, of which named_children gives the first.
    assert made[0][:2] == ([("0", 2), ("1", 3), ("3", 5)], 4)


def test_a_list_extended_by_itself_ends() -> None:
    m = nn.ModuleList([nn.Tanh(), nn.ReLU()])
    assert [type(p).__name__ for p in m.extend(m)] == ["Tanh", "ReLU", "Tanh", "ReLU"]


def test_parameters_in_lists_and_dicts_belong_to_the_holder() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(2))
            self.heads = nn.ModuleDict([("b", nn.Linear(2, 3)), ("a", nn.Linear(2, 1))])

    assert [n for n, _ in Holder().named_parameters()] == [
        "layers.0.weight",
        "layers.1.weight",
        "heads.b.weight",
        "heads.b.bias",
        "heads.a.weight",
        "heads.a.bias",
    ]


def test_a_dict_of_modules_is_that_of_torch(torch: Any) -> None:
    made = []
    for library in (nn, torch.nn):
        m = library.ModuleDict({"b": part(library, 2), "a": part(library, 3)})
        m["c"] = part(library, 5)
        m.update({"b": part(library, 7), "d": part(library, 11)})
        m.update([("e", part(library, 13))])
        taken = m.pop("a")
        del m["d"]
        made.append(
            [
                names(m),
                len(m),
                list(m),
                list(m.keys()),
                [p.in_features for p in m.values()],
                [(k, p.in_features) for k, p in m.items()],
                "b" in m,
                "a" in m,
                taken.in_features,
                m["c"].in_features,
            ]
        )
        m.clear()
        made[-1].append((len(m), names(m)))
    assert made[0] == made[1]


def test_a_dict_refuses_what_torch_refuses() -> None:
    m = nn.ModuleDict({"a": nn.Tanh()})
    with pytest.raises(KeyError, match="b"):
        m["b"]
    with pytest.raises(KeyError, match="b"):
        m.pop("b")
    with pytest.raises(KeyError, match="b"):
        del m["b"]
    with pytest.raises(ModuleError, match=r"'x\.y'"):
        m["x.y"] = nn.Tanh()
    with pytest.raises(TypeError, match="int"):
        m["n"] = 3
    assert list(m) == ["a"]


@pytest.mark.parametrize("name", ["keys", "pop", "training", "forward"])
def test_names_of_methods_are_taken(torch: Any, name: str) -> None:
    with pytest.raises(KeyError):
        torch.nn.ModuleDict({name: torch.nn.Tanh()})
    with pytest.raises(ModuleError, match=name):
        nn.ModuleDict({name: nn.Tanh()})
