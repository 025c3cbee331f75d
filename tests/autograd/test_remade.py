"""What is made again instead of kept, and gradients that the walk adds into in place."""

import gc
import weakref

import numpy as np
import pytest

import minilm as ml
from minilm import kernels, nn, tape
from minilm.autograd import Function, grad
from minilm.autograd.partial import PartialGradient
from minilm.errors import AutogradError
from minilm.nn import functional as F


@pytest.fixture(params=[1, 1 << 60], ids=["made again", "kept"])
def limit(request, monkeypatch):
    monkeypatch.setattr(tape, "WORTH_REMAKING", request.param)
    return request.param


def weights(*shape, seed=0):
    return ml.tensor(np.random.default_rng(seed).normal(size=shape).astype("float32"), requires_grad=True)


MAKERS = {
    "layer_norm": lambda x: F.layer_norm(x, (8,), weights(8), weights(8, seed=1)),
    "layer_norm without bias": lambda x: F.layer_norm(x, (8,), weights(8), None, 0.1),
    "rms_norm": lambda x: F.rms_norm(x, (8,), weights(8), 1e-2),
    "add_layer_norm": lambda x: F.add_layer_norm(x, x * 0.5, (8,), weights(8), weights(8, seed=1))[1],
    "add_rms_norm": lambda x: F.add_rms_norm(x, x * 0.5, (8,), weights(8), 1e-2)[1],
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "linear_gelu": lambda x: F.linear_gelu(x, weights(16, 8), weights(16)),
    "linear_gelu tanh": lambda x: F.linear_gelu(x, weights(16, 8), weights(16), "tanh"),
}


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
@pytest.mark.usefixtures("every_backend")
def test_gradients_have_the_same_bits_made_again_or_kept(maker, monkeypatch):
    found = []
    for limit in (1, 1 << 60):
        monkeypatch.setattr(tape, "WORTH_REMAKING", limit)
        x = weights(2, 37, 8)
        y = maker(x)
        w = weights(5, y.shape[-1], seed=2)
        z = F.linear(y, w)
        assert any(type(v) is tape.Remade for v in z.node._saved) == (limit == 1)
        z.square().sum().backward()
        found.append((x.grad.numpy(), w.grad.numpy()))
    for again, kept in zip(*found):
        np.testing.assert_array_equal(again, kept)


def test_the_memory_of_what_is_made_again_goes_with_its_last_user(limit):
    x, w = weights(4, 8), weights(3, 8)
    h = F.gelu(x)
    z = F.linear(h, w)
    memory = weakref.ref(h.array)
    del h
    gc.collect()
    assert (memory() is None) == (limit == 1)
    z.sum().backward()


def test_of_two_in_a_row_each_is_made_from_what_is_there(monkeypatch):
    """linear_gelu needs only its own sums, though its input is made again; gelu would need its input: it is kept."""
    monkeypatch.setattr(tape, "WORTH_REMAKING", 1)
    x = weights(4, 8)
    h = F.linear_gelu(F.layer_norm(x, (8,)), weights(16, 8))
    z = F.linear(h, weights(3, 16))
    assert type(h.node._saved[0]) is type(z.node._saved[0]) is tape.Remade
    h = F.gelu(F.layer_norm(x, (8,)))
    z = F.linear(h, weights(3, 8))
    assert type(h.node._saved[0]) is tape.Remade
    assert z.node._saved[0] is h.array


def test_the_sum_beside_a_norm_is_kept_and_the_norm_made_again(monkeypatch):
    monkeypatch.setattr(tape, "WORTH_REMAKING", 1)
    x, y = F.add_layer_norm(weights(4, 8), weights(4, 8, seed=1), (8,))
    of_sum, of_norm = F.linear(x, weights(3, 8)), F.linear(y, weights(3, 8))
    assert of_sum.node._saved[0] is x.array
    assert type(of_norm.node._saved[0]) is tape.Remade


def test_three_who_saved_it_make_it_once(limit, monkeypatch):
    made = []
    remake = ml.ops.registry.get("layer_norm").remake
    monkeypatch.setattr(
        ml.ops.registry.get("layer_norm"), "remake", staticmethod(lambda *a: made.append(1) or remake(*a))
    )
    x = weights(4, 8)
    h = F.layer_norm(x, (8,))
    loss = sum(F.linear(h, weights(8, 8, seed=s)).sum() for s in range(3))
    loss.backward(retain_graph=True)
    assert len(made) == (1 if limit == 1 else 0)
    first = x.grad.numpy().copy()
    loss.backward()
    assert len(made) == (2 if limit == 1 else 0)
    np.testing.assert_array_equal(x.grad.numpy(), first + first)


@pytest.mark.usefixtures("limit")
def test_second_derivatives_through_it():
    x, w = weights(3, 8), weights(2, 8, seed=1)
    z = F.linear(F.gelu(x), w).square().sum()
    (first,) = grad(z, [x], create_graph=True)
    (second,) = grad(first.square().sum(), [w])
    x64, w64 = (t.detach().to(ml.float64).requires_grad_() for t in (x, w))
    h = x64 * (1 + ml.erf(x64 * 0.5**0.5)) * 0.5
    (first64,) = grad((h @ w64.T).square().sum(), [x64], create_graph=True)
    (second64,) = grad(first64.square().sum(), [w64])
    np.testing.assert_allclose(second.numpy(), second64.numpy(), rtol=1e-4, atol=1e-4)


def test_overwriting_what_it_is_made_from_is_an_error(monkeypatch):
    monkeypatch.setattr(tape, "WORTH_REMAKING", 1)
    x, w = weights(3, 8) * 1, weights(2, 8)
    z = F.linear(F.gelu(x), w).sum()
    x.mul_(2)
    with pytest.raises(AutogradError, match="gelu needs its input 0 for its gradient, but that value was overwritten"):
        grad(z, [w])


def test_overwriting_it_does_no_harm_and_an_overwritten_one_is_kept(monkeypatch):
    monkeypatch.setattr(tape, "WORTH_REMAKING", 1)
    x, w = weights(3, 8), weights(2, 8)
    h = F.gelu(x)
    z = F.linear(h, w).sum()
    old = h.detach().numpy().sum(0)
    with ml.no_grad():
        h.mul_(2)
    np.testing.assert_allclose(grad(z, [w], retain_graph=True)[0].numpy()[0], old, rtol=1e-5)
    z = F.linear(h, w).sum()  # gelu would make the old value
    np.testing.assert_allclose(grad(z, [w])[0].numpy()[0], 2 * old, rtol=1e-5)
    h = F.gelu(x)
    h.data = ml.ones(3, 8)
    np.testing.assert_array_equal(grad(F.linear(h, w).sum(), [w])[0].numpy(), np.full((2, 8), 3))


def test_a_users_function_keeps_what_it_saves(monkeypatch):
    monkeypatch.setattr(tape, "WORTH_REMAKING", 1)

    class Product(Function):
        @staticmethod
        def forward(ctx, x, y):
            ctx.save_for_backward(x, y)
            return x * y

        @staticmethod
        def backward(ctx, dz):
            x, y = ctx.saved_tensors
            return y, x

    h = F.gelu(weights(3, 8))
    z = Product.apply(h, weights(3, 8, seed=1))
    assert z.node._saved[0] is h.array


# --- gradients added in place -----------------------------------------------------------------------------


def test_a_tied_table_gets_one_gradient_in_one_array(monkeypatch):
    """The embedding's rows are added into the gradient that the scores made: no table of zeros, no third array."""
    V, C = 11, 8
    table, tokens = weights(V, C), ml.tensor(np.array([[3, 3, 10], [0, 3, 7]]))
    calls = []
    scatter = kernels.scatter_rows
    monkeypatch.setattr(kernels, "scatter_rows", lambda *a: calls.append(len(a)) or scatter(*a))
    x = F.embedding(tokens, table)
    F.linear_cross_entropy(x.reshape(-1, C), table, tokens.reshape(-1)).backward()
    assert calls == [4]  # with `into`
    other = table.detach().to(ml.float64).requires_grad_()
    scores = other[tokens].reshape(-1, C) @ other.T
    F.cross_entropy(scores, tokens.reshape(-1)).backward()
    np.testing.assert_allclose(table.grad.numpy(), other.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_an_embeddings_gradient_never_goes_into_somebody_elses_array():
    table, tokens = weights(5, 3), ml.tensor(np.array([1, 1, 4]))
    given = np.ones((5, 3), "float32")
    kept = ml.tensor(given)
    ml.autograd.backward([table * 1, F.embedding(tokens, table)], [kept, ml.ones(3, 3)])
    np.testing.assert_array_equal(kept.numpy(), np.ones((5, 3)))
    wanted = np.ones((5, 3), "float32")
    wanted[1] += 2
    wanted[4] += 1
    np.testing.assert_array_equal(table.grad.numpy(), wanted)
    # twice, in the other order, and into a gradient that is there already
    (F.embedding(tokens, table) + F.embedding(tokens, table)).sum().backward()
    wanted[1] += 4
    wanted[4] += 2
    np.testing.assert_array_equal(table.grad.numpy(), wanted)


def test_an_embedding_of_a_computed_table_and_of_nothing():
    source = weights(5, 3)
    tokens = ml.tensor(np.array([1, 1, 4]))
    table = source * 2
    (F.embedding(tokens, table).sum() + table.sum()).backward()
    np.testing.assert_array_equal(source.grad.numpy()[:, 0], [2, 6, 2, 2, 4])
    empty = ml.zeros(5, 0, requires_grad=True)
    F.embedding(tokens, empty).sum().backward()
    assert empty.grad.shape == (5, 0)


def test_adding_in_place_changes_no_gradient_that_another_holds():
    """x + linear(norm(x)), twice, with hooks that keep what they saw, against float64 without any fusing."""

    def run(dtype, keep):
        x = weights(4, 8).detach().to(dtype).requires_grad_()
        w = weights(8, 8, seed=1).detach().to(dtype).requires_grad_()
        h = x
        for _ in range(2):
            h = h + F.linear(F.layer_norm(h, (8,)), w)
            h.retain_grad()
            keep.append(h)
        h.register_hook(lambda g: keep.append(g))
        (h * h).sum().backward(retain_graph=True)
        before = keep[0].grad.numpy().copy(), keep[-1].numpy().copy()
        (h * h).sum().backward()
        np.testing.assert_allclose(keep[0].grad.numpy(), 2 * before[0], rtol=1e-5)
        return x.grad.numpy(), w.grad.numpy(), *before

    for found, wanted in zip(run(ml.float32, []), run(ml.float64, [])):
        np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-4)


def test_every_operation_that_says_fresh_is(monkeypatch):
    """Its gradients share no memory with each other, with what came in, or with what is saved."""
    fresh = [op for op in ml.ops.registry.all() if op.fresh]
    assert {"linear", "matrix_product", "layer_norm", "self_attention", "gelu"} <= {op.name for op in fresh}
    seen = []
    for op in fresh:
        plain = op.gradients.__func__

        def watched(cls, node, received, plain=plain):
            saved = [v for v in node._saved if isinstance(v, np.ndarray)]
            results = plain(cls, node, received)
            arrays = [r.dense() if isinstance(r, PartialGradient) else r for r in results if r is not None]
            for i, a in enumerate(arrays):
                assert a.flags.writeable
                for b in (*arrays[i + 1 :], *received, *saved):
                    assert not np.shares_memory(a, b), cls.name
            seen.append(cls.name)
            return results

        monkeypatch.setattr(op, "gradients", classmethod(watched))
    x, w = weights(2, 3, 6), weights(6, 6)
    y = F.self_attention(F.linear(F.rms_norm(F.layer_norm(x, (6,)), (6,), weights(6)), weights(18, 6)), 2)
    y = F.linear_relu(F.linear_gelu(F.gelu(y), w, weights(6)), w) @ w
    y = F.packed_self_attention(F.linear(y.reshape(6, 6), weights(18, 6)), 2, [0, 2, 6], 4)
    F.linear_cross_entropy(y.reshape(6, 6), w, ml.tensor(np.arange(6))).backward()
    assert set(seen) == {op.name for op in fresh}


def test_a_model_trained_with_remaking_is_the_same_model(monkeypatch):
    found = []
    for limit in (1, 1 << 60):
        monkeypatch.setattr(tape, "WORTH_REMAKING", limit)
        ml.manual_seed(0)
        model = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8), nn.LayerNorm(8))
        optimizer = ml.optim.AdamW(model.parameters(), lr=0.01)
        x = weights(16, 8).detach()
        for _ in range(3):
            optimizer.zero_grad()
            (model(x) - x).square().mean().backward()
            optimizer.step()
        found.append([p.detach().numpy() for p in model.parameters()])
    for again, kept in zip(*found):
        np.testing.assert_array_equal(again, kept)
