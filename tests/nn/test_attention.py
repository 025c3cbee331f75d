"""MultiheadAttention beside PyTorch's: every kind of mask, every option, and the query that may look at nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import nn
from minilm.errors import ConfigError, DtypeError, ShapeError

B, T, S, H, E = 2, 3, 5, 2, 14  # heads of 7 channels

# PyTorch warns of masks of two types, but adds them up as we do.
pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched")


def draw(*shape: int, dtype: str = "float64", seed: int = 1) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def inputs(kdim: int = E, vdim: int = E, dtype: str = "float64") -> tuple[Any, Any, Any]:
    return draw(T, B, E, dtype=dtype), draw(S, B, kdim, dtype=dtype, seed=2), draw(S, B, vdim, dtype=dtype, seed=3)


def masks(dtype: str = "float64") -> dict[str, dict[str, Any]]:
    """Keyword arguments by name; no row is blocked altogether, where PyTorch would give NaN."""
    rng = np.random.default_rng(4)

    def blocked(*shape: int) -> Any:
        mask = rng.random(shape) < 0.5
        mask[..., 0] = False
        return mask

    square, each = blocked(T, S), blocked(B * H, T, S)
    # The padding must not meet a mask that blocks all the rest: key 0 is open in every one.
    padding = np.arange(S) >= np.array([[4], [2]])
    added = rng.standard_normal((T, S)).astype(dtype)
    added_each = rng.standard_normal((B * H, T, S)).astype(dtype)
    forbidden = np.where(square, -np.inf, added).astype(dtype)
    soft_padding = rng.standard_normal((B, S)).astype(dtype)
    return {
        "none": {},
        "boolean": {"attn_mask": square},
        "boolean for each head": {"attn_mask": each},
        "added": {"attn_mask": added},
        "added for each head": {"attn_mask": added_each},
        "added with minus infinity": {"attn_mask": forbidden},
        "padding": {"key_padding_mask": padding},
        "added padding": {"key_padding_mask": soft_padding},
        "boolean and padding": {"attn_mask": square, "key_padding_mask": padding},
        "boolean for each head and padding": {"attn_mask": each, "key_padding_mask": padding},
        "added and padding": {"attn_mask": added, "key_padding_mask": padding},
        "added for each head and added padding": {"attn_mask": added_each, "key_padding_mask": soft_padding},
        "boolean and added padding": {"attn_mask": square, "key_padding_mask": soft_padding},
    }


def twins(torch: Any, **options: Any) -> tuple[Any, Any]:
    return nn.MultiheadAttention(E, H, **options), torch.nn.MultiheadAttention(E, H, **options)


@pytest.mark.parametrize("weights", ["none", "mean", "each head"])
@pytest.mark.parametrize("extra", [{}, {"add_bias_kv": True}, {"add_bias_kv": True, "add_zero_attn": True}])
@pytest.mark.parametrize("mask", list(masks()))
def test_every_mask_is_that_of_torch(beside: Any, torch: Any, mask: str, extra: Any, weights: str) -> None:
    named = {**masks()[mask], "need_weights": weights != "none", "average_attn_weights": weights != "each head"}
    result = beside(*twins(torch, **extra), *inputs(), **named)
    keys = S + len(extra)
    assert [r.shape for r in result[1:]] == {
        "none": [],
        "mean": [(B, T, keys)],
        "each head": [(B, H, T, keys)],
    }[weights]


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("mask", list(masks()))
def test_in_float32_too(beside: Any, torch: Any, mask: str, weights: bool) -> None:
    beside(*twins(torch), *inputs(dtype="float32"), need_weights=weights, **masks("float32")[mask])


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"kdim": 11},
        {"vdim": 13},
        {"kdim": 11, "vdim": 13},
        {"kdim": 11, "bias": False},
        {"bias": False, "add_bias_kv": True},
        {"add_zero_attn": True},
        {"kdim": 11, "vdim": 13, "add_bias_kv": True, "add_zero_attn": True},
    ],
)
def test_every_option_is_that_of_torch(beside: Any, torch: Any, options: Any, batch_first: bool, weights: bool) -> None:
    given = inputs(options.get("kdim", E), options.get("vdim", E))
    if batch_first:
        given = tuple(np.ascontiguousarray(a.swapaxes(0, 1)) for a in given)
    ours, theirs = twins(torch, batch_first=batch_first, **options)
    beside(ours, theirs, *given, need_weights=weights, **masks()["padding"])


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("same", ["all", "key and value"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_one_tensor_in_several_roles_gets_all_their_gradients(
    beside: Any, torch: Any, same: str, batch_first: bool, weights: bool
) -> None:
    x, memory = draw(B, T, E), draw(B, S, E, seed=2)
    if not batch_first:
        x, memory = (np.ascontiguousarray(a.swapaxes(0, 1)) for a in (x, memory))
    given = (x, x, x) if same == "all" else (x, memory, memory)
    beside(*twins(torch, batch_first=batch_first), *given, need_weights=weights)


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("mask", ["none", "boolean", "for each head", "padding", "boolean and padding"])
@pytest.mark.parametrize("extra", [{}, {"add_bias_kv": True, "add_zero_attn": True}])
def test_without_a_batch(beside: Any, torch: Any, mask: str, extra: Any, weights: bool) -> None:
    blocked, padding = masks()["boolean"]["attn_mask"], masks()["padding"]["key_padding_mask"][1]
    named = {
        "none": {},
        "boolean": {"attn_mask": blocked},
        "for each head": {"attn_mask": np.stack([blocked, blocked & False])},
        "padding": {"key_padding_mask": padding},
        "boolean and padding": {"attn_mask": blocked, "key_padding_mask": padding},
    }[mask]
    result = beside(*twins(torch, **extra), *(a[:, 0] for a in inputs()), need_weights=weights, **named)
    assert [r.shape for r in result] == [(T, E), (T, S + len(extra))][: 1 + weights]


def test_a_mask_that_is_added_can_be_learnt(beside: Any, torch: Any) -> None:
    def biased(library: Any) -> Any:
        class Biased(library.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = library.MultiheadAttention(E, H)

            def forward(self, x: Any, bias: Any, need_weights: bool) -> Any:
                return self.inner(x, x, x, attn_mask=bias, need_weights=need_weights)

        return Biased()

    for weights in (True, False):
        beside(biased(nn), biased(torch.nn), draw(T, B, E), draw(T, T, seed=2), need_weights=weights)


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("extra", [{}, {"add_bias_kv": True}, {"add_zero_attn": True}])
@pytest.mark.parametrize("padded", [False, True])
def test_is_causal_is_the_mask_of_later_keys(beside: Any, torch: Any, padded: bool, extra: Any, weights: bool) -> None:
    padding = {"key_padding_mask": np.array([[False] * T, [False, False, True]])} if padded else {}
    later = ~np.tri(T, dtype=bool)
    ours, theirs = twins(torch, **extra)

    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = ours

        def forward(self, x: Any, **named: Any) -> Any:
            return self.inner(x, x, x, is_causal=True, need_weights=weights, **named)

    class Masked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = theirs

        def forward(self, x: Any, **named: Any) -> Any:
            return self.inner(x, x, x, attn_mask=torch.from_numpy(later), need_weights=weights, **named)

    beside(Causal(), Masked(), draw(T, B, E), **padding)


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("kind", ["boolean", "added", "padding", "padding and added"])
def test_a_query_that_may_look_at_nothing_gets_zeros(kind: str, weights: bool) -> None:
    ml.manual_seed(0)
    layer = nn.MultiheadAttention(E, H, dtype=ml.float64)
    layer.out_proj.bias.detach().fill_(0.25)
    blocked = np.zeros((T, S), dtype=bool)
    blocked[1] = True
    everything = np.zeros((B, S), dtype=bool)
    everything[1] = True
    added = np.where(blocked, -np.inf, 0.5)
    named = {
        "boolean": {"attn_mask": ml.Tensor(blocked)},
        "added": {"attn_mask": ml.Tensor(added)},
        "padding": {"key_padding_mask": ml.Tensor(everything)},
        "padding and added": {"attn_mask": ml.Tensor(added), "key_padding_mask": ml.Tensor(everything)},
    }[kind]
    x = [ml.Tensor(a, requires_grad=True) for a in inputs()]
    y, shown = layer(*x, need_weights=weights, **named)
    dead = np.zeros((T, B), dtype=bool)
    if "padding" in kind:
        dead[:, 1] = True
    if kind in ("boolean", "added", "padding and added"):
        dead[1] = True
    assert np.array_equal(y.array[dead], np.full((dead.sum(), E), 0.25))  # out_proj of zeros: its bias
    assert (np.abs(y.array[~dead] - 0.25).max(-1) > 1e-3).all()
    if weights:
        np.testing.assert_allclose(shown.array.sum(-1), np.where(dead.T, 0.0, 1.0), atol=1e-12)
    y.backward(ml.Tensor(draw(T, B, E, seed=9)))
    assert not x[0].grad.array[dead].any()
    assert x[0].grad.array[~dead].all()
    for tensor in (*x, *layer.parameters()):
        assert np.isfinite(tensor.grad.array).all()


def test_no_gradient_reaches_a_key_that_nobody_may_see() -> None:
    layer = nn.MultiheadAttention(E, H, dtype=ml.float64)
    q, k, v = (ml.Tensor(a, requires_grad=True) for a in inputs())
    padding = ml.Tensor(np.arange(S) >= np.array([[4], [2]]))
    for weights in (True, False):
        layer(q, k, v, key_padding_mask=padding, need_weights=weights)[0].backward(ml.Tensor(draw(T, B, E, seed=9)))
        for tensor in (k, v):
            assert not tensor.grad.array[padding.array.T].any()
            assert tensor.grad.array[~padding.array.T].all()
            tensor.grad = None


def test_dropout_takes_weights_in_training_alone() -> None:
    layer = nn.MultiheadAttention(E, H, dropout=0.25, dtype=ml.float64)
    x = ml.Tensor(draw(60, 3, E))
    whole = layer.eval()(x, x, x, average_attn_weights=False)
    again = layer(x, x, x, average_attn_weights=False)
    assert np.array_equal(whole[0].array, again[0].array)
    ml.manual_seed(5)
    y, weights = layer.train()(x, x, x, average_attn_weights=False)
    kept = weights.array != 0
    assert (~kept).mean() == pytest.approx(0.25, abs=0.02)
    np.testing.assert_allclose(weights.array[kept], whole[1].array[kept] / 0.75, rtol=1e-12)
    ml.manual_seed(5)
    fused, nothing = layer(x, x, x, need_weights=False)
    assert nothing is None
    np.testing.assert_allclose(fused.array, y.array, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    "options",
    [{}, {"bias": False}, {"kdim": 5, "vdim": 3}, {"add_bias_kv": True}, {"kdim": 5, "bias": False}],
)
def test_the_state_has_the_names_of_torch(torch: Any, options: Any) -> None:
    ours, theirs = twins(torch, **options)
    assert {n: t.shape for n, t in ours.state_dict().items()} == {
        n: tuple(t.shape) for n, t in theirs.state_dict().items()
    }
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_the_maps_begin_with_xaviers_bounds_and_their_biases_at_zero() -> None:
    ml.manual_seed(0)
    layer = nn.MultiheadAttention(64, 4)
    bound = np.sqrt(6 / (64 + 3 * 64))
    assert 0.98 * bound < np.abs(layer.in_proj_weight.array).max() <= bound
    assert 0.98 / 8 < np.abs(layer.out_proj.weight.array).max() <= 1 / 8
    assert not layer.in_proj_bias.array.any()
    assert not layer.out_proj.bias.array.any()


@pytest.mark.parametrize(
    ("shapes", "numbers"),
    [
        ([(T, B, E), (S, B, E), (S, B)], ["(5, 2)"]),
        ([(T, B, 13), (S, B, E), (S, B, E)], ["13", "14"]),
        ([(T, B, E), (S, B, E), (S + 1, B, E)], ["(5, 2, 14)", "(6, 2, 14)"]),
        ([(T, B, E), (S, 3, E), (S, 3, E)], ["(3, 2, 14)", "(5, 3, 14)"]),
        ([(E,), (E,), (E,)], ["(14,)"]),
    ],
)
def test_inputs_that_do_not_fit_are_one_error_with_the_numbers(shapes: Any, numbers: Any) -> None:
    with pytest.raises(ShapeError, match="MultiheadAttention") as caught:
        nn.MultiheadAttention(E, H)(*(ml.zeros(shape) for shape in shapes))
    assert all(number in str(caught.value) for number in numbers)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["attn_mask", "key_padding_mask"])
def test_masks_that_do_not_fit_are_one_error_with_the_numbers(name: str) -> None:
    layer = nn.MultiheadAttention(E, H)
    x = [ml.Tensor(a) for a in inputs(dtype="float32")]
    expected = {"attn_mask": "(3, 5)", "key_padding_mask": "(2, 5)"}[name]
    with pytest.raises(ShapeError, match=name) as caught:
        layer(*x, **{name: ml.zeros(7, 5, dtype=bool)})
    assert "(7, 5)" in str(caught.value)
    assert expected in str(caught.value)
    with pytest.raises(ShapeError, match=name) as caught:
        layer(*x, **{name: ml.zeros(3, T, S, dtype=bool)})
    assert "(3, 3, 5)" in str(caught.value)
    fitting = (T, S) if name == "attn_mask" else (B, S)
    with pytest.raises(DtypeError, match=f"{name}.*int64"):
        layer(*x, **{name: ml.zeros(*fitting, dtype=ml.int64)})


@pytest.mark.parametrize("name", ["query", "key", "value", "attn_mask", "key_padding_mask"])
def test_what_is_no_tensor_is_refused_by_name(name: str) -> None:
    given = dict(zip(("query", "key", "value"), (ml.Tensor(a) for a in inputs(dtype="float32"))))
    given[name] = np.zeros((T, S), dtype=bool)
    with pytest.raises(TypeError, match=f"{name} .*ndarray"):
        nn.MultiheadAttention(E, H)(**given)


@pytest.mark.parametrize("weights", [True, False])
def test_nothing_to_look_at_is_nothing_found(weights: bool) -> None:
    layer = nn.MultiheadAttention(E, H)
    x, nothing = ml.Tensor(draw(T, B, E, dtype="float32")), ml.zeros(0, B, E)
    y, shown = layer(x, nothing, nothing, need_weights=weights)
    assert y.shape == (T, B, E)
    assert not y.array.any()  # out_proj of zeros: its bias, which begins at zero
    assert shown is None or shown.shape == (B, T, 0)


@pytest.mark.parametrize(("sizes", "number"), [((14, 3), "14.*3"), ((0, 1), "0"), ((14, 0), "14"), ((14, -2), "-2")])
def test_channels_that_do_not_divide_into_heads_are_refused(sizes: Any, number: str) -> None:
    with pytest.raises(ConfigError, match=number):
        nn.MultiheadAttention(*sizes)


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"1\.5"):
        nn.MultiheadAttention(14, 2, dropout=1.5)
