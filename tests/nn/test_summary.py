"""repr and summary: the tree as PyTorch draws it, and a table whose numbers add up."""

from __future__ import annotations

from typing import Any

import pytest

import minilm as ml
from minilm import nn


def model(library: Any) -> Any:
    def mlp() -> Any:
        return library.Sequential(library.Linear(4, 16), library.GELU(), library.Linear(16, 4, bias=False))

    class Model(library.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = library.Embedding(11, 4)
            self.blocks = library.ModuleList([mlp(), mlp(), library.Tanh(), mlp()])
            self.named = library.ModuleDict({"act": library.LeakyReLU(0.1), "empty": library.ModuleList()})
            self.head = library.Linear(4, 11, bias=False)
            self.head.weight = self.tokens.weight

        def extra_repr(self) -> str:
            return "C=4"

        def forward(self, x: Any, scale: Any = 1.0) -> Any:
            x = self.tokens(x)
            for part in self.blocks:
                x = part(x)
            return self.head(self.named["act"](x)) * scale

    return Model()


def test_the_tree_is_drawn_as_by_torch(torch: Any) -> None:
    assert repr(model(nn)) == repr(model(torch.nn))
    assert "(0-1): 2 x Sequential" in repr(model(nn))
    assert repr(nn.Sequential()) == repr(torch.nn.Sequential())


def test_a_module_may_say_several_lines_of_itself(torch: Any) -> None:
    def talkative(library: Any) -> Any:
        class Talkative(library.Module):
            def extra_repr(self) -> str:
                return "first=1\nsecond=2"

        return library.Sequential(Talkative(), library.Tanh())

    assert repr(talkative(nn)) == repr(talkative(torch.nn))


def rows(table: str) -> dict[str, list[str]]:
    """Columns by the first one, the totals by "total"."""
    lines = table.split("\n")
    split = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
    return {row[0]: row[1:] for row in split[2:-2]} | {"total": [lines[-1]]}


def test_every_part_has_its_row_and_the_totals_are_right() -> None:
    m = model(nn)
    table = m.summary()
    found = rows(table)
    assert list(found)[:-1] == [name or "(whole)" for name, _ in m.named_modules()]
    assert found["tokens"] == ["Embedding", "44", "176"]
    assert found["blocks.0.0"] == ["Linear", "80", "320"]
    assert found["blocks.0.2"] == ["Linear", "64", "256"]
    assert found["head"] == ["Linear", "0", "0"]  # tied: counted at the embedding
    total = sum(p.numel() for p in m.parameters())
    assert total == 44 + 3 * (80 + 64)
    assert found["total"] == [f"{total} parameters ({total} learn), {4 * total:,} bytes"]
    assert sum(int(row[1]) for name, row in found.items() if name != "total") == total
    assert repr(table) == str(table)


def test_frozen_parameters_buffers_and_types_are_told() -> None:
    m = nn.Sequential(nn.Linear(100, 50), nn.Linear(50, 3))
    m[0].requires_grad_(False)
    m[1].register_buffer("seen", ml.zeros(7, dtype=ml.int64))
    lines = m.to(ml.float64).summary().split("\n")
    assert lines[-2] == f"5,203 parameters (153 learn), {5203 * 8:,} bytes"
    assert lines[-1] == "1 buffers, 56 bytes"


def test_with_inputs_the_output_shapes_are_shown() -> None:
    m = model(nn)
    found = rows(m.summary(ml.zeros(2, 3, dtype=ml.int64), scale=2.0))
    assert found["(whole)"] == ["Model", "(2, 3, 11)", "0", "0"]
    assert found["tokens"] == ["Embedding", "(2, 3, 4)", "44", "176"]
    assert found["blocks.3.0"] == ["Linear", "(2, 3, 16)", "80", "320"]
    assert found["blocks"] == ["ModuleList", "-", "0", "0"]  # never called itself
    several = nn.MultiheadAttention(4, 2).summary(*[ml.zeros(3, 2, 4)] * 3)
    assert rows(several)["(whole)"][1] == "(3, 2, 4), (2, 3, 3)"


def test_a_summary_leaves_no_trace() -> None:
    m = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Linear(3, 2))
    m[2].eval()
    before = [(p.array.copy(), p.grad) for p in m.parameters()]
    state = ml.random.get_rng_state()
    m.summary(ml.zeros(2, 3))
    assert [part.training for part in m.modules()] == [True, True, True, False]
    assert ml.random.get_rng_state() == state
    assert all(p.grad is g and (p.array == a).all() for p, (a, g) in zip(m.parameters(), before))
    with pytest.raises(ml.errors.ShapeError):
        m.summary(ml.zeros(2, 5))
    assert [part.training for part in m.modules()] == [True, True, True, False]
    assert not any(part._forward_hooks for part in m.modules())
