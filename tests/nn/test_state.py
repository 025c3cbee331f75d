"""state_dict and load_state_dict: PyTorch's names, everything or nothing, and ties that hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import nn
from minilm.errors import ModuleError


def block(library: Any, tensor: Any) -> Any:
    class Block(library.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = library.MultiheadAttention(6, 2)
            self.register_buffer("scratch", tensor([1.0]), persistent=False)
            self.layers = library.ModuleList([library.LayerNorm(6), library.Linear(6, 6, bias=False)])
            self.register_buffer("steps", tensor([1, 2]))
            self.scale = library.Parameter(tensor([2.0]))
            self.register_parameter("absent", None)

    return Block()


def model(library: Any, tensor: Any) -> Any:
    class Model(library.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = library.Embedding(5, 6)
            self.blocks = library.Sequential(block(library, tensor), block(library, tensor))
            self.head = library.Linear(6, 5, bias=False)
            self.head.weight = self.tokens.weight
            self.norm = library.ModuleDict({"final": library.RMSNorm(6)})

    return Model()


def ours() -> Any:
    return model(nn, ml.tensor)


def arrays(module: Any) -> dict[str, Any]:
    return {name: t.array.copy() for name, t in module.state_dict().items()}


def unchanged(module: Any, before: dict[str, Any]) -> bool:
    return all(np.array_equal(t.array, before[name]) for name, t in module.state_dict().items())


def test_names_shapes_types_and_order_are_those_of_torch(torch: Any) -> None:
    def described(state: Any) -> list[Any]:
        return [(name, tuple(t.shape), str(t.dtype).replace("torch.", "")) for name, t in state.items()]

    theirs = model(torch.nn, torch.tensor)
    assert described(ours().state_dict()) == described(theirs.state_dict())
    assert described(ours().state_dict(prefix="m.")) == described(theirs.state_dict(prefix="m."))
    assert "blocks.0.scratch" not in ours().state_dict()
    assert "blocks.0.steps" in ours().state_dict()


def test_the_state_shares_memory_and_has_no_history() -> None:
    m = ours()
    state = m.state_dict()
    for name, tensor in state.items():
        assert not tensor.requires_grad, name
    m.blocks[0].scale.detach().fill_(7)
    assert state["blocks.0.scale"].tolist() == [7]
    assert m.state_dict(keep_vars=True)["blocks.0.scale"] is m.blocks[0].scale
    assert type(state["blocks.0.scale"]) is ml.Tensor


def test_states_travel_to_torch_and_back(torch: Any) -> None:
    m, theirs = ours(), model(torch.nn, torch.tensor)
    theirs.load_state_dict({n: torch.from_numpy(a) for n, a in arrays(m).items()}, strict=True)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 1
    result = m.load_state_dict({n: t.numpy() for n, t in theirs.state_dict().items()})
    assert result == ([], [])
    for name, tensor in theirs.state_dict().items():
        assert np.array_equal(m.state_dict()[name].array, tensor.numpy()), name


def test_the_state_of_a_torch_model_is_taken_as_it_is(torch: Any) -> None:
    m, theirs = ours(), model(torch.nn, torch.tensor)
    m.load_state_dict(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        assert np.array_equal(m.state_dict()[name].array, tensor.numpy()), name
    before = arrays(m)
    with pytest.raises(ModuleError, match=r"norm\.final\.weight: .*Tensor of torch\.bfloat16"):
        m.load_state_dict({**theirs.state_dict(), "norm.final.weight": torch.zeros(6, dtype=torch.bfloat16)})
    assert unchanged(m, before)


def test_what_is_loaded_is_copied_into_the_same_parameters() -> None:
    m, source = ours(), ours()
    parameters = dict(m.named_parameters())
    state = source.state_dict()
    m.load_state_dict(state)
    assert all(now is parameters[name] for name, now in m.named_parameters())
    assert unchanged(m, arrays(source))
    state["blocks.0.scale"].fill_(9)
    assert m.blocks[0].scale.tolist() == [2]
    assert all(p.requires_grad for p in m.parameters())


def test_what_is_loaded_takes_the_element_types_of_the_module() -> None:
    m = ours()
    wide = {n: a.astype("float64") if a.dtype.kind == "f" else a.astype("int32") for n, a in arrays(ours()).items()}
    m.load_state_dict(wide)
    assert {str(t.dtype) for t in m.state_dict().values()} == {"float32", "int64"}
    assert all(np.array_equal(t.array, wide[n].astype(t.dtype)) for n, t in m.state_dict().items())


def test_a_graph_that_needs_the_old_weights_finds_out() -> None:
    m = nn.Linear(3, 2)
    x = ml.ones(2, 3, requires_grad=True)
    y = m(x)
    m.load_state_dict(nn.Linear(3, 2).state_dict())
    with pytest.raises(ml.errors.AutogradError, match="copy_"):
        y.sum().backward()


def test_missing_and_unexpected_names_are_all_listed_and_nothing_changes() -> None:
    m = ours()
    before = arrays(m)
    state = {name: np.zeros_like(a) for name, a in before.items()}
    del state["blocks.1.steps"], state["tokens.weight"]
    state["blocks.2.scale"] = np.ones(1)
    with pytest.raises(ModuleError) as caught:
        m.load_state_dict(state)
    message = str(caught.value)
    assert "Model" in message
    assert "missing: tokens.weight, blocks.1.steps" in message
    assert "unexpected: blocks.2.scale" in message
    assert "nothing was changed" in message
    assert unchanged(m, before)


def test_not_strict_passes_over_them_and_says_which() -> None:
    m = ours()
    before = arrays(m)
    result = m.load_state_dict({"blocks.0.scale": np.array([5.0]), "other": np.ones(1)}, strict=False)
    assert result.unexpected_keys == ["other"]
    assert result.missing_keys == [name for name in before if name != "blocks.0.scale"]
    assert m.blocks[0].scale.tolist() == [5]
    before["blocks.0.scale"][:] = 5
    assert unchanged(m, before)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("norm.final.weight", np.ones(7), ["(7,)", "(6,)"]),
        ("norm.final.weight", np.ones((1, 6)), ["(1, 6)", "(6,)"]),
        ("norm.final.weight", [1.0] * 6, ["list"]),
        ("norm.final.weight", None, ["NoneType"]),
        ("norm.final.weight", np.array(["a"] * 6), ["<U1"]),
        ("norm.final.weight", np.ones(6, dtype="complex64"), ["complex64"]),
        ("blocks.1.steps", np.array([1.5, 2.5]), ["float64", "int64"]),
    ],
)
def test_values_that_do_not_fit_are_refused_and_nothing_changes(
    name: str, value: Any, words: list[str], strict: bool
) -> None:
    m = ours()
    before = arrays(m)
    state = {**{n: np.zeros_like(a) for n, a in before.items()}, name: value}
    with pytest.raises(ModuleError) as caught:
        m.load_state_dict(state, strict=strict)
    assert all(word in str(caught.value) for word in [*words, name])
    assert unchanged(m, before)


def test_several_misfits_are_told_at_once() -> None:
    m = ours()
    state = arrays(m) | {"norm.final.weight": np.ones(7), "blocks.0.scale": np.ones(2)}
    del state["head.weight"]
    with pytest.raises(ModuleError, match=r"(?s)missing: head\.weight\n.*blocks\.0\.scale.*\n.*norm\.final\.weight"):
        m.load_state_dict(state)


def test_read_only_memory_is_seen_before_anything_is_written() -> None:
    m = ours()
    m.norm["final"].weight.array.setflags(write=False)
    before = arrays(m)
    with pytest.raises(ModuleError, match=r"norm\.final\.weight.*read-only"):
        m.load_state_dict({n: np.zeros_like(a) for n, a in before.items()})
    assert unchanged(m, before)


@pytest.mark.parametrize("state", [[("a", 1)], None, "weights.safetensors"])
def test_what_is_no_mapping_is_refused(state: Any) -> None:
    with pytest.raises(ModuleError, match=type(state).__name__):
        ours().load_state_dict(state)


def test_tied_weights_stand_under_both_names_and_stay_tied() -> None:
    m = ours()
    state = m.state_dict()
    assert np.shares_memory(state["tokens.weight"].array, state["head.weight"].array)
    assert sum(1 for name, _ in m.named_parameters() if name in ("tokens.weight", "head.weight")) == 1
    m.load_state_dict(arrays(ours()))
    assert m.head.weight is m.tokens.weight
    m.to(ml.float64)
    assert m.head.weight is m.tokens.weight
    m.head(m.tokens(ml.tensor([1, 3]))).sum().backward()
    held = m.tokens.weight.grad.array
    assert (held != 0).all()  # from the head to every row, from the tokens to two more
    assert m.head.weight.grad.array is held
    m.load_state_dict({"head.weight": np.full((5, 6), 3.0)}, strict=False)
    assert m.tokens.weight.array.min() == m.tokens.weight.array.max() == 3


def test_tied_weights_get_the_gradient_of_torch(beside: Any, torch: Any) -> None:
    def tied(library: Any) -> Any:
        class Tied(library.Module):
            def __init__(self) -> None:
                super().__init__()
                self.tokens = library.Embedding(5, 3)
                self.head = library.Linear(3, 5, bias=False)
                self.head.weight = self.tokens.weight

            def forward(self, x: Any) -> Any:
                return self.head(self.tokens(x))

        return Tied()

    beside(tied(nn), tied(torch.nn), np.array([[1, 4, 1], [0, 1, 3]]), dtype="float64")
