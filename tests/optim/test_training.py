"""A small network trained beside PyTorch's: after every step the weights are still the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import nn
from minilm.optim import SGD, AdamW, clip_grad_norm_

STEPS, B, C, V = 20, 13, 7, 5

CASES = [
    (AdamW, {"lr": 1e-2, "betas": (0.9, 0.99), "weight_decay": 0.1}),
    (SGD, {"lr": 0.1, "momentum": 0.9}),
    (SGD, {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01}),
]


def network(library: Any) -> Any:
    return library.Sequential(
        library.Linear(C, 17),
        library.GELU(),
        library.LayerNorm(17),
        library.Linear(17, 11, bias=False),
        library.Tanh(),
        library.Linear(11, V),
    )


def largest_error(ours: Any, theirs: Any) -> float:
    """Over all weights, relative to the largest of each tensor."""
    known = theirs.state_dict()
    return max(
        float(np.abs(t.array - known[name].numpy()).max() / np.abs(known[name].numpy()).max())
        for name, t in ours.state_dict().items()
    )


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_twenty_steps_stay_with_torch(torch: Any, kind: Any, settings: dict[str, Any], clip: float | None) -> None:
    rng = np.random.default_rng(1)
    ours, theirs = network(nn).to(ml.float64), network(torch.nn).to(torch.float64)
    theirs.load_state_dict({n: torch.from_numpy(t.array.copy()) for n, t in ours.state_dict().items()})
    start = {name: t.array.copy() for name, t in ours.state_dict().items()}
    first = kind(ours.parameters(), **settings)
    second = getattr(torch.optim, kind.__name__)(theirs.parameters(), **settings)
    loss, same_loss = nn.CrossEntropyLoss(label_smoothing=0.1), torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    for step in range(STEPS):
        x, target = rng.standard_normal((B, C)), rng.integers(0, V, B)
        first.zero_grad()
        second.zero_grad()
        mine, other = (
            loss(ours(ml.Tensor(x)), ml.Tensor(target)),
            same_loss(theirs(torch.from_numpy(x)), torch.from_numpy(target)),
        )
        mine.backward()
        other.backward()
        if clip is not None:
            norm = clip_grad_norm_(ours.parameters(), clip).item()
            assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip)), rel=1e-9)
        first.step()
        second.step()
        assert mine.item() == pytest.approx(other.item(), rel=1e-6)
        assert largest_error(ours, theirs) < 1e-6, f"after step {step + 1}"
    # The steps were worth comparing: every weight has moved by more than the tolerance, many times over.
    for name, t in ours.state_dict().items():
        assert np.abs(t.array - start[name]).max() > 1e-3, name


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_it_learns(kind: Any, settings: dict[str, Any]) -> None:
    ml.manual_seed(1)
    rng = np.random.default_rng(2)
    x = rng.standard_normal((40, C))
    target = (x @ rng.standard_normal((C, V))).argmax(-1)
    model, loss = network(nn).to(ml.float64), nn.CrossEntropyLoss()
    optimizer = kind(model.parameters(), **settings)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        value = loss(model(ml.Tensor(x)), ml.Tensor(target))
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert losses[0] > 1.2
    assert losses[-1] < 0.3 * losses[0]
