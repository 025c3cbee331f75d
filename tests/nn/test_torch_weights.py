"""Weights travel between minilm and PyTorch by name, directly and in safetensors files."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import nn, serialization
from minilm.errors import MissingTorchError, ModuleError
from minilm.testing import assert_same


def encoder(library: Any) -> Any:
    class Encoder(library.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = library.Embedding(7, 8)
            self.attention = library.MultiheadAttention(8, 2, batch_first=True)
            self.norm = library.LayerNorm(8)
            self.mlp = library.Sequential(library.Linear(8, 16), library.GELU(), library.Linear(16, 8))
            self.head = library.Linear(8, 7, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens: Any) -> Any:
            x = self.embed(tokens)
            x = x + self.attention(x, x, x, need_weights=False)[0]
            return self.head(x + self.mlp(self.norm(x)))

    return Encoder()


TOKENS = np.array([[1, 2, 3, 4], [6, 5, 0, 1]])


def same_outputs(ours: Any, theirs: Any, torch: Any) -> None:
    assert_same(ours(ml.tensor(TOKENS)), theirs(torch.from_numpy(TOKENS)).detach().numpy(), rtol=1e-4)


@pytest.mark.parametrize("as_state", [False, True])
def test_theirs_come_here(torch: Any, as_state: bool) -> None:
    ours, theirs = encoder(nn), encoder(torch.nn)
    found = ours.load_torch(theirs.state_dict() if as_state else theirs)
    assert found == ([], [])
    assert ours.head.weight is ours.embed.weight
    same_outputs(ours, theirs, torch)


def test_ours_go_there(torch: Any) -> None:
    ours, theirs = encoder(nn), encoder(torch.nn)
    state = ours.to_torch()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    theirs.load_state_dict(state, strict=True)
    same_outputs(ours, theirs, torch)


def test_copies_are_given_and_ties_hold(torch: Any) -> None:
    ours = encoder(nn)
    state = ours.to_torch()
    assert state["head.weight"] is state["embed.weight"]
    before = ours.norm.weight.array.copy()
    state["norm.weight"].add_(1.0)
    assert np.array_equal(ours.norm.weight.array, before)


def test_other_types_are_converted(torch: Any) -> None:
    ours, theirs = nn.Linear(3, 2), torch.nn.Linear(3, 2).to(torch.bfloat16)
    ours.load_torch(theirs)
    assert ours.weight.dtype == np.float32
    assert_same(ours.weight, theirs.weight.detach().float().numpy(), rtol=0, atol=0)
    double = torch.nn.Linear(3, 2).double()
    ours.load_torch(double)
    assert_same(ours.bias, double.bias.detach().numpy().astype(np.float32), rtol=0, atol=0)


def test_what_does_not_fit_is_listed_and_nothing_changes(torch: Any) -> None:
    ours = encoder(nn)
    state = encoder(torch.nn).state_dict()
    del state["norm.bias"]
    state["extra"] = torch.zeros(2)
    state["mlp.0.weight"] = torch.zeros(8, 16)
    before = {name: tensor.array.copy() for name, tensor in ours.state_dict().items()}
    with pytest.raises(ModuleError, match="nothing was changed") as caught:
        ours.load_torch(state)
    text = str(caught.value)
    assert "missing: norm.bias" in text
    assert "unexpected: extra" in text
    assert "mlp.0.weight: shape (8, 16) in the state, (16, 8) in the module" in text
    assert all(np.array_equal(tensor.array, before[name]) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize(
    ("source", "words"), [(3, "not int"), ({"weight": "w", "bias": None}, r"weight \(str\), bias \(NoneType\)")]
)
def test_what_is_no_state_is_refused(source: Any, words: str) -> None:
    with pytest.raises(ModuleError, match=words):
        nn.Linear(2, 2).load_torch(source)


def test_without_torch_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "torch":
            raise ImportError("No module named 'torch'")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingTorchError, match="pip install torch"):
        nn.Linear(2, 2).to_torch()


def test_files_both_ways(torch: Any, tmp_path: Any) -> None:
    from safetensors.torch import load_file, save_model

    ours, theirs = encoder(nn), encoder(torch.nn)
    serialization.save(ours.state_dict(), tmp_path / "ours.safetensors")
    theirs.load_state_dict(load_file(tmp_path / "ours.safetensors"), strict=True)
    same_outputs(ours, theirs, torch)

    fresh = encoder(torch.nn)
    fresh.head.weight = torch.nn.Parameter(fresh.embed.weight.detach().clone())  # safetensors refuses ties
    save_model(fresh, str(tmp_path / "theirs.safetensors"))
    ours.load_torch(serialization.load(tmp_path / "theirs.safetensors"))
    same_outputs(ours, fresh, torch)
