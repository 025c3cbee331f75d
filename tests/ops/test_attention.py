"""Attention at its edges: blind queries, NaN, dropout by a seed, T and S that differ, no keys."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minilm as ml
from minilm.errors import DtypeError, ShapeError
from minilm.testing import assert_same, gradcheck, strategies
from minilm.testing.samples import seeded

attention = ml.nn.functional.scaled_dot_product_attention


def qkv(T=3, S=5, D=2, E=7, lead=(2,)):
    rng = seeded("attention")
    return [ml.Tensor(rng.standard_normal((*lead, *shape)), requires_grad=True) for shape in ((T, D), (S, D), (S, E))]


def gradients(y, leaves):
    return ml.autograd.grad(y, leaves, seeded("c").standard_normal(y.shape))


def mask_with_blind_rows(kind):
    """Query 1 may look nowhere."""
    allowed = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0]], bool)
    return ml.Tensor(allowed if kind == "boolean" else np.where(allowed, 0.5, -np.inf))


@pytest.mark.parametrize("kind", ["boolean", "additive"])
def test_a_query_that_may_look_nowhere_gets_zeros_and_gives_zeros(kind):
    q, k, v = qkv()
    y = attention(q, k, v, mask_with_blind_rows(kind))
    dq, dk, dv = gradients(y, [q, k, v])
    assert not y.array[:, 1].any()
    assert not dq.array[:, 1].any()
    assert y.array[:, 0].all()
    assert dq.array[:, 0].all()
    assert not dk.array[:, 1].any(), "key 1 is seen by nobody"
    assert not dv.array[:, 4].any(), "value 4 is seen by nobody"
    others = [ml.Tensor(t.array[:, [0, 2]] if t is q else t.array, requires_grad=True) for t in (q, k, v)]
    without = attention(*others, ml.Tensor(mask_with_blind_rows(kind).array[[0, 2]]))
    assert_same(y.array[:, [0, 2]], without.array)


def test_everything_masked_gives_zeros_everywhere():
    q, k, v = qkv()
    for mask in (np.zeros((3, 5), bool), np.full((3, 5), -np.inf)):
        y = attention(q, k, v, ml.Tensor(mask))
        assert not y.array.any()
        for g in gradients(y, [q, k, v]):
            assert not g.array.any()


def test_second_derivatives_beside_blind_rows_are_finite():
    q, k, v = qkv()
    y = attention(q, k, v, mask_with_blind_rows("boolean"))
    first = ml.autograd.grad(y.sin().sum(), [q, k, v], create_graph=True)
    second = ml.autograd.grad(sum((g * g).sum() for g in first), [q, k, v])
    assert all(np.isfinite(g.array).all() for g in second)
    assert not second[0].array[:, 1].any()


def test_nan_stays_nan_and_where_it_belongs():
    q, k, v = qkv()
    q.array[0, 2, 0] = np.nan
    y = attention(q, k, v)
    assert np.isnan(y.array[0, 2]).all()
    assert np.isfinite(y.array[0, :2]).all()
    assert np.isfinite(y.array[1]).all()
    q, k, v = qkv()
    k.array[1, 4] = np.nan
    y = attention(q, k, v)
    assert np.isnan(y.array[1]).all(), "a key with NaN reaches all queries"
    assert np.isfinite(y.array[0]).all()
    q, k, v = qkv()
    v.array[0, 3, 6] = np.nan
    y = attention(q, k, v)
    assert np.isnan(y.array[0, :, 6]).all()
    assert np.isfinite(y.array[0, :, :6]).all()


def test_a_mask_hides_a_key_with_nan():
    """As padding does, whose keys may hold anything; the values must be finite, since 0 NaN is NaN."""
    q, k, v = qkv()
    k.array[:, 4] = np.nan
    mask = ml.Tensor(np.array([True] * 4 + [False]))
    assert_same(attention(q, k, v, mask), attention(q, k[:, :4], v[:, :4]))


@pytest.mark.parametrize(("T", "S"), [(3, 5), (5, 3), (1, 5), (5, 1), (4, 4)])
def test_causal_with_t_and_s_that_differ(T, S, torch):
    """Query t sees keys 0 ... t, counted from the first, as in PyTorch."""
    q, k, v = qkv(T, S)
    y = attention(q, k, v, is_causal=True)
    twins = [torch.from_numpy(t.array.copy()).requires_grad_() for t in (q, k, v)]
    z = torch.nn.functional.scaled_dot_product_attention(*twins, is_causal=True)
    assert_same(y, z.detach().numpy())
    c = torch.from_numpy(seeded("c").standard_normal(tuple(z.shape)))
    for g, h in zip(gradients(y, [q, k, v]), torch.autograd.grad(z, twins, c)):
        # dw - dy y, which is 0 where there is one key only, is rounded before it cancels
        assert_same(g, h.numpy(), atol=1e-14)
    moved = k.array.copy()
    moved[:, 1:] += 100.0
    later = attention(q, ml.Tensor(moved), v, is_causal=True)
    assert_same(later.array[:, 0], y.array[:, 0])


@pytest.mark.parametrize("sizes", [{"S": 0}, {"T": 0}, {"lead": (0,)}, {"E": 0}, {"S": 0, "lead": ()}])
@pytest.mark.parametrize("causal", [False, True])
def test_nothing_to_look_at(sizes, causal):
    q, k, v = qkv(**sizes)
    y = attention(q, k, v, is_causal=causal)
    assert y.shape == (*q.shape[:-1], v.shape[-1])
    assert not y.array.any() or y.numel() == 0
    for t, g in zip((q, k, v), gradients(y, [q, k, v])):
        assert g.shape == t.shape
        assert not g.array.any()


def test_without_channels_all_keys_count_alike():
    q, k, v = qkv(D=0)
    assert_same(attention(q, k, v), np.broadcast_to(v.array.mean(-2, keepdims=True), (*q.shape[:-1], v.shape[-1])))


@settings(max_examples=60)
@given(strategies.arrays_BHTD(specials=()), st.booleans(), st.data())
def test_any_shape_and_mask_equals_pytorch(torch, arrays, causal, data):
    q, k = arrays[:2]
    T, S = q.shape[-2], k.shape[-2]
    mask = None
    if not causal and data.draw(st.booleans()):
        mask = np.random.default_rng(data.draw(st.integers(0, 99))).random((T, S)) < 0.6
    if not S or not T or not q.shape[0]:
        return  # PyTorch's answers differ from backend to backend; ours: test_nothing_to_look_at
    y = attention(*map(ml.Tensor, arrays), None if mask is None else ml.Tensor(mask), is_causal=causal)
    twins = [torch.from_numpy(a.copy()) for a in arrays]
    z = torch.nn.functional.scaled_dot_product_attention(
        *twins, None if mask is None else torch.from_numpy(mask), is_causal=causal
    )
    assert_same(y, np.nan_to_num(z.numpy()))


# --- dropout --------------------------------------------------------------------------------------------------


def test_dropout_follows_its_seed():
    q, k, v = qkv(7, 11, lead=(2, 3))
    one, two = (attention(q, k, v, dropout_p=0.5, generator=ml.Generator(7)) for _ in range(2))
    other = attention(q, k, v, dropout_p=0.5, generator=ml.Generator(8))
    assert np.array_equal(one.array, two.array)
    assert not np.array_equal(one.array, other.array)
    ml.manual_seed(7)
    assert np.array_equal(attention(q, k, v, dropout_p=0.5).array, one.array)


def test_dropout_is_applied_to_the_weights():
    """With the identity for values the output is the weights: each is dropped or divided by 1 - p."""
    q, k, _ = qkv(64, 32, lead=(4,))
    weights = attention(q, k, ml.eye(32, dtype=ml.float64)).array
    kept = attention(q, k, ml.eye(32, dtype=ml.float64), dropout_p=0.25, generator=ml.Generator(1)).array
    dropped = kept == 0
    assert_same(kept[~dropped], weights[~dropped] / 0.75)
    assert abs(dropped.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / dropped.size)


def test_dropout_has_the_gradient_of_what_it_kept():
    q, k, v = qkv()

    def function(q, k, v):
        return attention(q, k, v, dropout_p=0.4, generator=ml.Generator(3))

    assert gradcheck(function, [q, k, v])


def test_dropout_of_everything():
    q, k, v = qkv()
    y = attention(q, k, v, dropout_p=1.0)
    assert not y.array.any()
    assert not any(g.array.any() for g in gradients(y, [q, k, v]))


# --- errors ------------------------------------------------------------------------------------------------------


def test_what_is_refused():
    q, k, v = qkv()
    with pytest.raises(ShapeError, match=r"a mask of shape \(5, 3\) does not fit \(3, 5\) scores"):
        attention(q, k, v, ml.ones(5, 3) > 0)
    with pytest.raises(DtypeError, match="a mask is boolean or floating, not int64"):
        attention(q, k, v, ml.ones(3, 5, dtype=ml.int64))
    with pytest.raises(ShapeError, match=r"attention: .*D is 2 in q and 3 in k"):
        attention(q, ml.ones(2, 5, 3), v)
    with pytest.raises(ShapeError, match=r"attention: .*S is 5 in k and 4 in v"):
        attention(q, k, ml.ones(2, 4, 7))
    with pytest.raises(ValueError, match="a probability"):
        attention(q, k, v, dropout_p=1.5)


def test_vectors_are_refused():
    with pytest.raises(ShapeError, match=r"query \(3,\), .* need two axes each"):
        ml.nn.functional.scaled_dot_product_attention(ml.randn(3), ml.randn(3), ml.randn(3))


# --- a bias beside a mask ---------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
def test_a_bias_beside_a_boolean_mask_gets_its_gradient(torch, causal):
    rng = seeded("bias")
    leaves = [*qkv(T=5, S=5, lead=(3, 2)), ml.Tensor(rng.standard_normal((1, 2, 5, 5)), requires_grad=True)]
    q, k, v, bias = leaves
    mask = np.ones((3, 1, 1, 5), bool)
    mask[1, ..., 3:] = False
    y = attention(q, k, v, ml.Tensor(mask), is_causal=causal, scale=1.0, bias=bias)
    twins = [torch.tensor(x.array, requires_grad=True) for x in leaves]
    seen = mask & np.tri(5, dtype=bool) if causal else mask
    added = twins[3] + torch.from_numpy(np.where(seen, 0.0, -np.inf))
    z = torch.nn.functional.scaled_dot_product_attention(*twins[:3], added, scale=1.0)
    assert_same(y, z)
    above = seeded("c").standard_normal(y.shape)
    z.backward(torch.from_numpy(above))
    for ours, theirs in zip(ml.autograd.grad(y, leaves, above), twins):
        assert_same(ours, theirs.grad)


def test_a_bias_is_added_to_a_floating_mask_in_both_functions():
    q, k, v = qkv(T=3, S=3, D=4, E=4)
    rng = seeded("sum")
    a, b = (ml.Tensor(rng.standard_normal((3, 3))) for _ in range(2))
    assert_same(attention(q, k, v, a, bias=b), attention(q, k, v, a + b))
    together = ml.nn.functional.self_attention(ml.cat([q, k, v], -1), 1, a, bias=b)
    assert_same(together, attention(q, k, v, a + b))
    with pytest.raises(DtypeError, match="a bias is floating, not bool"):
        attention(q, k, v, bias=a > 0)
    with pytest.raises(ShapeError, match=r"a bias of shape \(4,\) does not fit \(3, 3\)"):
        attention(q, k, v, bias=ml.ones(4))
