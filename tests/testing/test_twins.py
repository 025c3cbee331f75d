"""compare(): one fault is planted on one side of a pair of models, and exactly that one is named."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import minilm as ml
from minilm import nn, random
from minilm.errors import ConfigError, ModuleError
from minilm.testing import compare
from minilm.testing.twins.causes import CAUSES

C, H, T, B, V = 8, 2, 5, 3, 11
RNG = np.random.default_rng(7)
X = RNG.standard_normal((B, T, C)).astype(np.float32)
TOKENS = RNG.integers(0, V, (B, T))
TARGETS = RNG.integers(0, V, (B, T))


def build(m: Any, fault: str = "", kind: str = "") -> Any:
    """A model of one encoder block, or a GPT's (`kind` "gpt"), for m = minilm or torch, with a fault planted."""
    lib, F = m.nn, m.nn.functional
    eps = {"eps 1e-12": 1e-12, "eps 1e-3": 1e-3}.get(fault, 1e-5)

    def tensor(array: Any) -> Any:
        return m.tensor(array)

    class Norm(lib.Module):
        """LayerNorm, by hand where eps is in another place."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = lib.Parameter(m.ones(C))
            self.bias = lib.Parameter(m.zeros(C))

        def forward(self, x: Any) -> Any:
            centred = x - x.mean(-1, keepdim=True)
            var = (centred * centred).mean(-1, keepdim=True)
            root = var.sqrt() + eps if fault == "eps outside" else (var + eps).sqrt()
            return centred / root * self.weight + self.bias

    class Attention(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = lib.Linear(C, 3 * C)
            self.out = lib.Linear(C, C)

        def forward(self, x: Any) -> Any:
            q, k, v = (
                part.reshape(B, T, H, C // H).transpose(1, 2) for part in self.qkv(x).chunk(3, -1)
            )  # (B, H, T, D)
            y = by_hand(q, k, v) if kind == "by hand" or fault.startswith("by hand") else fused(q, k, v)
            y = y.transpose(1, 2).reshape(B, T, C)
            if fault == "transposed weight":
                return y @ self.out.weight + self.out.bias
            return self.out(y)

    allowed = np.tri(T, dtype=bool)
    allowed[3, 1] = False

    def fused(q: Any, k: Any, v: Any) -> Any:
        scale = {"no scale": 1.0, "scale of C": 1 / math.sqrt(C)}.get(fault)
        mask: Any = {"mask negated": ~allowed, "mask transposed": allowed.T.copy()}.get(fault, allowed)
        if kind == "gpt" or fault == "not causal":
            return F.scaled_dot_product_attention(q, k, v, is_causal=fault != "not causal", scale=scale)
        return F.scaled_dot_product_attention(q, k, v, tensor(mask), scale=scale)

    def by_hand(q: Any, k: Any, v: Any) -> Any:
        scores = q @ k.transpose(-2, -1)
        scores = scores if fault == "by hand no scale" else scores / math.sqrt(C // H)
        hidden = ~allowed if fault != "by hand mask negated" else allowed
        return F.softmax(scores.masked_fill(tensor(hidden), -math.inf), -1) @ v

    class Block(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            own = fault == "eps outside" or kind == "own norm"
            self.norm = Norm() if own else lib.LayerNorm(C, eps=eps)
            self.attention = Attention()
            self.drop = lib.Dropout(0.3)
            self.norm2 = lib.LayerNorm(C)
            self.up = lib.Linear(C, 4 * C)
            self.gelu = lib.GELU(approximate="tanh" if "tanh" in fault else "none")
            self.down = lib.Linear(4 * C, C)

        def forward(self, x: Any) -> Any:
            if fault == "doubled":
                x = x * 1.01
            x = x + self.drop(self.attention(self.norm(x)))
            hidden = self.up(self.norm2(x))
            if fault == "rounded":
                rounded = hidden.half() if m is ml else hidden.bfloat16()
                hidden = rounded.float()
            if fault == "strange":
                hidden = hidden + 0.01 * (3 * hidden).sin()
            return x + self.down(self.gelu(hidden))

    class Model(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = lib.Embedding(V, C)
            self.blocks = lib.ModuleList([Block()])
            self.head = lib.Linear(C, V, bias=False)

        def forward(self, tokens: Any) -> Any:
            # Small values, so that an epsilon matters.
            x = self.embed(tokens) * 0.01
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    return Model()


def losses(m: Any, fault: str = "") -> Any:
    cross_entropy = m.nn.functional.cross_entropy

    def loss(scores: Any, targets: Any) -> Any:
        return cross_entropy(scores.reshape(B * T, V), targets.reshape(B * T), reduction=fault or "mean")

    return loss


def pair(torch: Any, fault: str, side: str, kind: str = "") -> tuple[Any, Any]:
    """Two models, the fault in the one of `side`; no dropout."""
    torch.manual_seed(0)
    ours = build(ml, fault if side == "minilm" else "", kind)
    theirs = build(torch, fault if side == "PyTorch" else "", kind)
    return ours.eval(), theirs.eval()


def compared(torch: Any, ours: Any, theirs: Any, faults: tuple[str, str] = ("", ""), **options: Any) -> Any:
    loss = (losses(ml, faults[0]), losses(torch, faults[1]))
    return compare(ours, theirs, TOKENS, loss, targets=TARGETS, **options)


OUT = "what blocks.0.attention.out is given, computed in blocks.0.attention, differs"
SIDES = pytest.mark.parametrize("side", ["minilm", "PyTorch"])


@pytest.mark.parametrize("kind", ["", "gpt", "by hand", "own norm"])
def test_equal_models_agree_in_everything(torch: Any, kind: str) -> None:
    report = compared(torch, *pair(torch, "", "minilm", kind), steps=3)
    assert report.agrees, str(report)
    assert report.first is None
    assert report.explanation is None
    assert report.conclusion == f"all {len(report.rows)} values agree"
    kinds = [row.kind for row in report.rows]
    assert list(dict.fromkeys(kinds)) == ["forward", "loss", "gradient", "step 1", "step 2", "step 3"]
    parameters = len(list(pair(torch, "", "minilm", kind)[0].parameters()))
    assert kinds.count("gradient") == kinds.count("step 2") == parameters
    assert not report.only_ours
    assert not report.only_theirs


def test_dropout_draws_the_same_on_both_sides(torch: Any) -> None:
    ours, theirs = pair(torch, "", "minilm")
    assert compared(torch, ours.train(), theirs.train(), steps=2).agrees
    other = compare(ours, theirs, TOKENS, seed=1)
    assert other.agrees


# The fault, the kind of model, the cause that is to be named, where, and how the change reads that plants the fault
# in the healthy side, and the one that heals the other.
PLANTED = [
    ("eps 1e-12", "", "epsilon", "blocks.0.norm differs", "eps 1e-12 instead of 1e-05", "eps 1e-05 instead of 1e-12"),
    ("eps 1e-3", "own norm", "epsilon", "blocks.0.norm differs", "eps 0.001 instead", "eps 1e-05 instead of 0.001"),
    ("eps outside", "", "epsilon's place", "blocks.0.norm differs", "eps outside of", "eps inside of"),
    ("eps outside", "own norm", "epsilon's place", "blocks.0.norm differs", "eps outside of", "eps inside of"),
    ("tanh", "", "GELU's form", "blocks.0.gelu differs", "the tanh approximation", "the exact GELU"),
    ("transposed weight", "", "transposed weight", "blocks.0.attention differs", "transposed", "transposed"),
    ("no scale", "", "scale of the scores", OUT, "no scale instead of 0.5", "D = 4 instead of 1"),
    ("no scale", "gpt", "scale of the scores", OUT, "no scale instead of 0.5", "D = 4 instead of 1"),
    ("scale of C", "", "scale of the scores", OUT, "1/sqrt(C), C = 8 instead", "1/sqrt(D), D = 4 instead"),
    ("by hand no scale", "by hand", "scale of the scores", OUT, "no scale instead of 0.5", "D = 4 instead of 1"),
    ("by hand no scale", "", "scale of the scores", OUT, "no scale instead of 0.5", "D = 4 instead of 1"),
    ("mask negated", "", "mask", OUT, "negated", "negated"),
    ("mask transposed", "", "mask", OUT, "transposed", "transposed"),
    ("not causal", "gpt", "mask", OUT, "no causal mask", "a causal mask"),
    ("by hand mask negated", "by hand", "mask", OUT, "negated", "negated"),
    ("rounded", "", "precision", "what blocks.0.gelu is given, computed in blocks.0,", "never", "no rounding to"),
]


@SIDES
@pytest.mark.parametrize(("fault", "kind", "cause", "where", "planting", "healing"), PLANTED)
def test_a_planted_fault_is_named(
    torch: Any, fault: str, kind: str, cause: str, where: str, planting: str, healing: str, side: str
) -> None:
    report = compared(torch, *pair(torch, fault, side, kind))
    found = report.explanation
    assert found.cause == cause, str(report)
    assert found.others == ()
    assert found.text.startswith(where)
    assert f"with {found.label} in {found.side}'s {found.operation}" in found.text
    assert "the difference vanishes" in found.text
    assert (healing if found.side == side else planting) in found.label
    assert found.remaining < 1e-5 < report.first.difference.error


@SIDES
def test_the_loss_is_a_mean_or_a_sum(torch: Any, side: str) -> None:
    faults = ("sum", "mean") if side == "minilm" else ("mean", "sum")
    report = compared(torch, *pair(torch, "", side), faults)
    assert report.first.kind == "loss"
    assert report.explanation.cause == "reduction of the loss"
    assert f"of {B * T}" in report.explanation.label


@SIDES
def test_dropout_was_left_on(torch: Any, side: str) -> None:
    ours, theirs = pair(torch, "", side)
    (ours if side == "minilm" else theirs).train()
    report = compared(torch, ours, theirs)
    assert report.first.name == "blocks.0.drop"
    assert report.explanation.cause == "dropout left on"
    assert report.explanation.side == side


class Uncorrected(ml.optim.AdamW):
    """AdamW without bias corrections."""

    def update_all(self, due: Any, group: Any) -> None:
        beta1, beta2 = group["betas"]
        for w, g, state in due:
            m, v = state["exp_avg"].array, state["exp_avg_sq"].array
            m[...] = beta1 * m + (1 - beta1) * g
            v[...] = beta2 * v + (1 - beta2) * g * g
            w.array[...] *= 1 - group["lr"] * group["weight_decay"]
            w.array[...] -= group["lr"] * m / (np.sqrt(v) + group["eps"])


@pytest.mark.parametrize(
    ("cause", "ours", "theirs"),
    [
        ("bias correction", Uncorrected, "AdamW"),
        (
            "form of weight decay",
            lambda p: ml.optim.Adam(p, weight_decay=0.1),
            lambda p, o: o.AdamW(p, weight_decay=0.1),
        ),
        (
            "form of weight decay",
            lambda p: ml.optim.AdamW(p, weight_decay=0.1),
            lambda p, o: o.Adam(p, weight_decay=0.1),
        ),
        ("lr", lambda p: ml.optim.AdamW(p, lr=2e-3), lambda p, o: o.AdamW(p, lr=1e-3)),
        ("epsilon", lambda p: ml.optim.AdamW(p, eps=1e-5), lambda p, o: o.AdamW(p, eps=1e-8)),
    ],
)
def test_the_optimisers_differ(torch: Any, cause: str, ours: Any, theirs: Any) -> None:
    def make(parameters: Any) -> Any:
        return torch.optim.AdamW(parameters) if theirs == "AdamW" else theirs(parameters, torch.optim)

    report = compared(torch, *pair(torch, "", "minilm"), steps=2, optimizer=(ours, make))
    assert report.first.kind.startswith("step")
    assert report.explanation.cause == cause, str(report)
    assert report.explanation.others == ()


def test_autocast_is_a_matter_of_precision(torch: Any) -> None:
    ours, theirs = pair(torch, "", "PyTorch")
    layer = theirs.blocks[0].up
    plain = layer.forward

    def forward(x: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return plain(x).float()

    layer.forward = forward
    report = compared(torch, ours, theirs)
    assert report.first.name == "blocks.0.up"
    assert report.explanation.cause == "precision"
    assert report.explanation.label == "no rounding to bfloat16"


@SIDES
def test_in_float64_less_is_forgiven(torch: Any, side: str) -> None:
    ours, theirs = pair(torch, "", side)
    assert compared(torch, ours.double(), theirs.double(), steps=2).agrees
    norm = (ours if side == "minilm" else theirs).blocks[0].norm2
    norm.eps = 1e-8
    report = compared(torch, ours, theirs)
    assert report.explanation.cause == "epsilon"
    assert sorted(w for w in report.explanation.label.split() if w.startswith("1e")) == ["1e-05", "1e-08"]
    norm.eps = 1e-5
    gelu = (ours if side == "minilm" else theirs).blocks[0].gelu
    gelu.forward = lambda x, inner=gelu.forward: inner(x.float()).double()
    report = compared(torch, ours, theirs)
    assert report.explanation.cause == "precision"
    assert report.explanation.label == "no rounding to float32"


def test_an_unknown_cause_is_said_to_be_unknown(torch: Any) -> None:
    report = compared(torch, *pair(torch, "strange", "PyTorch"))
    assert report.explanation.cause == ""
    text = report.explanation.text
    assert text.startswith("what blocks.0.gelu is given, computed in blocks.0, differs first (max error 1e-02 at ")
    assert "none of the usual causes applies to what is computed there" in text
    assert text.endswith("the first results that the other side has not: PyTorch's mul")


def test_a_cause_that_does_not_help_is_named_as_the_nearest(torch: Any) -> None:
    ours, theirs = pair(torch, "", "PyTorch")
    theirs.blocks[0].norm.forward = lambda x: torch.nn.functional.layer_norm(x**3, (C,))
    text = compared(torch, ours, theirs).explanation.text
    assert "none of the usual causes makes it vanish: the nearest, " in text
    assert "layer_norm, leaves" in text


def test_a_difference_before_a_module_is_blamed_on_what_is_around_it(torch: Any) -> None:
    report = compared(torch, *pair(torch, "doubled", "minilm"))
    assert report.first.kind == "input"
    assert report.explanation.text.startswith("what blocks.0.norm is given, computed in blocks.0, differs first")


def test_of_two_faults_the_first_is_named_and_then_the_second(torch: Any) -> None:
    ours, theirs = pair(torch, "tanh", "PyTorch")
    theirs.blocks[0].norm.eps = 1e-12
    # Steps change weights, each side's differently here, and must not disturb the search.
    makers = (lambda p: ml.optim.Adam(p, 0.1, weight_decay=0.1), lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1))
    first = compared(torch, ours, theirs, steps=2, optimizer=makers)
    assert first.explanation.cause == "epsilon"
    theirs.blocks[0].norm.eps = 1e-5
    second = compared(torch, ours, theirs)
    assert second.explanation.cause == "GELU's form"
    theirs.blocks[0].gelu.approximate = "none"
    assert compared(torch, ours, theirs).agrees


def test_weights_that_were_not_copied_are_compared(torch: Any) -> None:
    ours, theirs = nn.Linear(C, C), torch.nn.Linear(C, C)
    ours.load_state_dict({"weight": theirs.weight.detach().numpy().T.copy(), "bias": theirs.bias.detach().numpy()})
    report = compare(ours, theirs, X, weights=None)
    assert report.first.kind == "weight"
    assert report.explanation.cause == "transposed weight"
    assert not np.array_equal(ours.weight.array, theirs.weight.detach().numpy())
    assert compare(ours, theirs, X, weights="ours").agrees
    assert compare(ours, theirs, X, weights=None).agrees


def test_models_and_generators_are_left_as_they_were(torch: Any) -> None:
    ours, theirs = pair(torch, "", "minilm")
    ours.load_torch(theirs)
    before = {name: tensor.array.copy() for name, tensor in ours.state_dict().items()}
    states = random.get_rng_state(), torch.get_rng_state()
    compared(torch, ours, theirs, steps=2)
    for name, tensor in ours.state_dict().items():
        assert np.array_equal(tensor.array, before[name])
        assert np.array_equal(theirs.state_dict()[name].numpy(), before[name])
    assert all(parameter.grad is None for parameter in [*ours.parameters(), *theirs.parameters()])
    assert random.get_rng_state() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in [*ours.modules(), *theirs.modules()])
    assert ml.modes.state.watchers == ()


def test_the_report_as_text_and_in_colours(torch: Any) -> None:
    report = compared(torch, *pair(torch, "eps 1e-12", "PyTorch"))
    text = str(report)
    row = next(words for words in map(str.split, text.splitlines()) if words[:2] == ["forward", "blocks.0.norm"])
    assert row[2] == f"({B},{T},{C})"
    assert row[-1] == "DIFFERS"
    assert text.splitlines()[-1] == report.explanation.text == report.conclusion
    plain, terminal = io.StringIO(), io.StringIO()
    report.show(Console(file=plain))
    assert plain.getvalue() == text + "\n"
    report.show(Console(file=terminal, force_terminal=True, width=200, color_system="standard"))
    assert "\x1b[1;31m" in terminal.getvalue()
    assert compared(torch, *pair(torch, "tanh", "PyTorch"), explain=False).explanation is None


@pytest.mark.parametrize("options", [{"weights": "mine"}, {"steps": -1}])
def test_impossible_arguments_are_refused(torch: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="compare:"):
        compare(nn.Linear(C, C), torch.nn.Linear(C, C), X, **options)


def test_weights_that_do_not_fit_are_refused(torch: Any) -> None:
    with pytest.raises(ModuleError, match="unexpected: bias"):
        compare(nn.Linear(C, C, bias=False), torch.nn.Linear(C, C), X)
    with pytest.raises(ModuleError, match='"bias"'):
        compare(nn.Linear(C, C, bias=False), torch.nn.Linear(C, C), X, weights="ours")


def test_every_cause_is_documented() -> None:
    assert len({cause.name for cause in CAUSES}) == len(CAUSES)
    assert all(type(cause).__doc__ for cause in CAUSES)
