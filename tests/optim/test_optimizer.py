"""Groups of parameters, their checks, and the state of an optimiser."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm.errors import AutogradError, CheckpointError, ConfigError, DtypeError, ShapeError
from minilm.optim import SGD, Adam, AdamW

SHAPES = [(2, 3), (5,), ()]


def leaves(seed: int = 0, dtype: str = "float64") -> list[Any]:
    rng = np.random.default_rng(seed)
    return [ml.Tensor(rng.standard_normal(shape).astype(dtype), requires_grad=True) for shape in SHAPES]


def give_gradients(parameters: list[Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    for p in parameters:
        p.grad = ml.Tensor(rng.standard_normal(p.shape).astype(p.dtype))


def values(parameters: list[Any]) -> list[Any]:
    return [p.array.copy() for p in parameters]


def test_groups_fill_in_the_defaults() -> None:
    a, b, c = leaves()
    optimizer = AdamW([{"params": [a], "lr": 0.25}, {"params": b, "weight_decay": 0.0}], lr=0.5, weight_decay=0.125)
    optimizer.add_param_group({"params": (c,), "betas": (0.5, 0.75)})
    assert [g["lr"] for g in optimizer.param_groups] == [0.25, 0.5, 0.5]
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.125, 0.0, 0.125]
    assert [g["betas"] for g in optimizer.param_groups] == [(0.9, 0.999), (0.9, 0.999), (0.5, 0.75)]
    assert [len(g["params"]) for g in optimizer.param_groups] == [1, 1, 1]
    assert optimizer.param_groups[1]["params"][0] is b


def test_a_parameter_belongs_to_one_group() -> None:
    a, b, c = leaves()
    optimizer = SGD([a, b])
    for group in ({"params": [c, a]}, {"params": [c, c]}):
        with pytest.raises(ConfigError, match="in the optimiser already"):
            optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 1
    with pytest.raises(ConfigError):
        SGD([a, a])


def test_what_cannot_be_optimised_is_refused() -> None:
    (a, *_) = leaves()
    with pytest.raises(ConfigError, match="empty"):
        SGD([])
    with pytest.raises(TypeError, match="not one tensor"):
        SGD(a)
    with pytest.raises(TypeError, match="ndarray"):
        SGD([a.array])
    with pytest.raises(ConfigError, match="computed"):
        SGD([a * 2])
    with pytest.raises(ConfigError, match="int64"):
        SGD([ml.tensor([1, 2])])
    with pytest.raises(ConfigError, match="'params'"):
        SGD([{"lr": 0.1}])


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (AdamW, {"lr": -0.1}),
        (AdamW, {"lr": float("nan")}),
        (AdamW, {"lr": float("inf")}),
        (AdamW, {"lr": "0.1"}),
        (AdamW, {"eps": -1e-8}),
        (AdamW, {"weight_decay": -0.1}),
        (AdamW, {"betas": (1.0, 0.9)}),
        (AdamW, {"betas": (0.9, -0.1)}),
        (AdamW, {"betas": (0.9,)}),
        (Adam, {"lr": -0.1}),
        (SGD, {"lr": float("nan")}),
        (SGD, {"momentum": -0.5}),
        (SGD, {"dampening": float("inf")}),
        (SGD, {"nesterov": True}),
        (SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}),
    ],
)
def test_impossible_settings_are_refused(kind: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings)).rstrip("s")):
        kind(leaves(), **settings)
    with pytest.raises(ConfigError):
        kind([{"params": leaves(), **settings}])


@pytest.mark.parametrize("kind", [AdamW, SGD])
def test_a_bad_step_changes_nothing(kind: Any) -> None:
    def after(spoil: Any, error: type[Exception]) -> None:
        parameters = leaves()
        optimizer = kind(parameters, lr=0.1)
        give_gradients(parameters, 1)
        spoil(parameters, optimizer)
        before = values(parameters)
        with pytest.raises(error):
            optimizer.step()
        assert all(np.array_equal(p.array, old) for p, old in zip(parameters, before))
        assert not optimizer.state

    after(lambda ps, opt: opt.param_groups[0].update(lr=float("nan")), ConfigError)
    after(lambda ps, opt: setattr(ps[2], "grad", ml.zeros(3, dtype="float64")), ShapeError)
    after(lambda ps, opt: setattr(ps[2], "grad", ml.zeros((), dtype="float32")), DtypeError)
    after(lambda ps, opt: ps[2].array.setflags(write=False), AutogradError)


@pytest.mark.parametrize("kind", [AdamW, SGD])
def test_a_graph_that_needs_the_old_weight_finds_out(kind: Any) -> None:
    w, *_ = leaves()
    optimizer = kind([w], lr=0.1)
    loss = (w * w).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(AutogradError, match=f"{kind.__name__}.step"):
        loss.backward()


def test_parameters_without_gradient_are_left_alone() -> None:
    parameters = leaves()
    give_gradients(parameters, 1)
    parameters[1].grad = None
    before = values(parameters)
    optimizer = AdamW(parameters, lr=0.1)
    optimizer.step()
    moved = [not np.array_equal(p.array, old) for p, old in zip(parameters, before)]
    assert moved == [True, False, True]
    assert parameters[1] not in optimizer.state


def test_zero_grad() -> None:
    parameters = leaves()
    give_gradients(parameters, 1)
    parameters[1].grad = None
    optimizer = SGD(parameters)
    first = parameters[0].grad
    optimizer.zero_grad(set_to_none=False)
    assert parameters[0].grad is first
    assert not first.array.any()
    assert parameters[1].grad is None
    optimizer.zero_grad()
    assert [p.grad for p in parameters] == [None] * 3


def test_a_closure_computes_the_loss_with_a_tape() -> None:
    w, *_ = leaves()
    optimizer = SGD([w], lr=0.25)
    old = w.array.copy()

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        return loss

    with ml.autograd.no_grad():
        loss = optimizer.step(closure)
    assert loss.item() == pytest.approx((old**2).sum())
    np.testing.assert_allclose(w.array, old / 2)


@pytest.mark.parametrize("settings", [{"kind": AdamW}, {"kind": SGD, "momentum": 0.9}, {"kind": SGD}])
def test_a_resumed_run_is_the_same_run_to_the_bit(settings: dict[str, Any]) -> None:
    kind = settings.pop("kind")

    def run(parameters: list[Any], optimizer: Any, steps: range) -> None:
        for step in steps:
            give_gradients(parameters, step)
            optimizer.step()

    whole = leaves()
    through = kind(whole, lr=0.1, **settings)
    run(whole, through, range(7))
    first = leaves()
    stopped = kind(first, lr=0.1, **settings)
    run(first, stopped, range(3))
    state = copy.deepcopy(stopped.state_dict())
    second = [ml.Tensor(p.array.copy(), requires_grad=True) for p in first]
    resumed = kind(second, lr=0.7)
    resumed.load_state_dict(state)
    run(second, resumed, range(3, 7))
    run(first, stopped, range(3, 7))  # going on must not reach the copy
    for a, b, c in zip(whole, second, first):
        assert np.array_equal(a.array, b.array)
        assert np.array_equal(a.array, c.array)
    assert resumed.param_groups[0]["lr"] == 0.1


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    def trained() -> Any:
        parameters = leaves()
        optimizer = AdamW([{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.5}])
        give_gradients(parameters, 1)
        optimizer.step()
        return optimizer

    def damage(spoil: Any) -> None:
        optimizer = trained()
        state = copy.deepcopy(optimizer.state_dict())
        state["param_groups"][0]["lr"] = 0.03
        state["state"][0]["step"] = 99
        spoil(state)
        groups, memory = optimizer.param_groups, optimizer.state
        with pytest.raises((CheckpointError, ConfigError)):
            optimizer.load_state_dict(state)
        assert optimizer.param_groups is groups
        assert optimizer.state is memory
        assert groups[0]["lr"] == 1e-3
        assert [s["step"] for s in memory.values()] == [1, 1, 1]

    damage(lambda s: s["param_groups"].pop())
    damage(lambda s: s["param_groups"][1]["params"].append(3))
    damage(lambda s: s["param_groups"][1].pop("betas"))
    damage(lambda s: s["param_groups"][1].update(lr=-1.0))
    damage(lambda s: s["state"][1].pop("exp_avg"))
    damage(lambda s: s["state"][2].update(exp_avg=ml.zeros(3)))
    damage(lambda s: s["state"].update({7: s["state"][0]}))
    damage(lambda s: s.pop("state"))
    optimizer = trained()
    with pytest.raises(CheckpointError):
        optimizer.load_state_dict([])


def test_states_travel_from_torch(torch: Any) -> None:
    arrays = [p.array for p in leaves()]
    theirs = [torch.tensor(a.copy(), requires_grad=True) for a in arrays]
    torch_optimizer = torch.optim.AdamW(theirs, lr=0.1)
    ours = leaves()
    optimizer = AdamW(ours)
    for step in range(3):
        give_gradients(ours, step)
        for p, q in zip(ours, theirs):
            q.grad = torch.tensor(p.grad.array)
        torch_optimizer.step()
    for p, q in zip(ours, theirs):
        p.array[...] = q.detach().numpy()
    optimizer.load_state_dict(torch_optimizer.state_dict())
    torch_optimizer.step()
    optimizer.step()
    for p, q in zip(ours, theirs):
        np.testing.assert_allclose(p.array, q.detach().numpy(), rtol=1e-12)
