"""The functions under PyTorch's names: its argument order, and what is written here and nowhere else."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import kernels, nn
from minilm.errors import ShapeError
from minilm.nn import functional as F
from minilm.testing import assert_same

rng = np.random.default_rng(1)
X = rng.standard_normal((2, 3, 5))
W, ROW, BIAS = rng.standard_normal((7, 5)), rng.standard_normal(5), rng.standard_normal(7)
Q, K, MASK = rng.standard_normal((2, 3, 5)), rng.standard_normal((2, 7, 5)), rng.standard_normal((3, 7))
TOKENS, CLASSES = rng.integers(0, 7, (2, 3)), rng.integers(0, 3, (2, 5))
SHARES = rng.uniform(0, 1, X.shape)
IMAGE, COLUMNS = rng.standard_normal((2, 4, 7, 6)), rng.standard_normal((2, 12, 12))
KERNELS, KERNELS_1D = rng.standard_normal((6, 2, 3, 2)), rng.standard_normal((6, 1, 3))
CHANNEL, SIX = rng.uniform(0.5, 2, 3), rng.standard_normal(6)

# Arguments by position, as a PyTorch program gives them: another order gives another number.
CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("linear", (X, W, BIAS)),
    ("linear", (X, W)),
    ("linear_cross_entropy", (X[0], W, TOKENS[0])),
    ("embedding", (TOKENS, W)),
    ("embedding", (TOKENS, W, 3)),
    ("layer_norm", (X, (5,), ROW, ROW + 1, 0.1)),
    ("layer_norm", (X, (3, 5))),
    ("rms_norm", (X, (5,), ROW, 0.1)),
    ("rms_norm", (X, (3, 5))),
    ("relu", (X,)),
    ("leaky_relu", (X, 0.3)),
    ("gelu", (X,)),
    ("silu", (X,)),
    ("tanh", (X,)),
    ("sigmoid", (X,)),
    ("softplus", (X, 1.7, 0.9)),
    ("softmax", (X, 1)),
    ("log_softmax", (X, 0)),
    ("dropout", (X, 0.7, False)),
    ("dropout", (X, 1.0)),
    ("scaled_dot_product_attention", (Q, K, K)),
    ("scaled_dot_product_attention", (Q, K, K, MASK)),
    ("scaled_dot_product_attention", (Q, K, K, MASK > 0)),
    ("scaled_dot_product_attention", (Q, Q, Q, None, 0.0, True)),
    ("cross_entropy", (X, CLASSES)),
    ("cross_entropy", (X, CLASSES, SHARES[0, :, 0])),
    ("nll_loss", (X, CLASSES, SHARES[0, :, 0])),
    ("mse_loss", (X, SHARES)),
    ("binary_cross_entropy_with_logits", (X, SHARES, SHARES[0])),
    ("pad", (X, (1, 2, 0, 3), "constant", 4.0)),
    ("one_hot", (CLASSES, 4)),
    ("one_hot", (CLASSES,)),
    ("conv1d", (X, KERNELS_1D, SIX, 1, 2, 2, 3)),
    ("conv2d", (IMAGE, KERNELS, SIX, (2, 1), (1, 0), (1, 2), 2)),
    ("unfold", (IMAGE, (2, 3), (2, 1), (1, 0), (1, 2))),
    ("fold", (COLUMNS, (7, 4), (2, 3), (1, 1), (0, 1), (2, 1))),
    ("max_pool1d", (X, 3, 2, 1, 1)),
    ("max_pool2d", (IMAGE, (3, 2), (2, 1), (1, 0), (1, 2))),
    ("avg_pool1d", (X, 3, 2, 1)),
    ("avg_pool2d", (IMAGE, (3, 2), (2, 1), (1, 0))),
    ("adaptive_avg_pool1d", (X, 2)),
    ("adaptive_avg_pool2d", (IMAGE, (3, 4))),
    ("batch_norm", (X, CHANNEL, CHANNEL + 1, CHANNEL, CHANNEL - 1, False, 0.3, 0.1)),
    ("batch_norm", (X, CHANNEL.copy(), CHANNEL + 1, CHANNEL, CHANNEL - 1, True, 0.3, 0.1)),
    ("batch_norm", (X, None, None, None, None, True)),
    ("group_norm", (X, 3, CHANNEL, CHANNEL - 1, 0.1)),
    ("elu", (X, 0.3)),
    ("glu", (IMAGE, 1)),
    ("logsigmoid", (X,)),
    ("normalize", (X, 1.0, 2, 0.1)),
    ("cosine_similarity", (X, SHARES, 2, 0.1)),
    ("l1_loss", (X, SHARES)),
    ("smooth_l1_loss", (X, SHARES)),
    ("kl_div", (X, SHARES)),
    ("binary_cross_entropy", (SHARES, SHARES[::-1].copy(), SHARES[0])),
]

NAMED: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("gelu", (X,), {"approximate": "tanh"}),
    ("softmax", (X,), {"dim": -1}),
    ("linear", (X,), {"weight": W, "bias": BIAS}),
    ("linear_cross_entropy", (X[0], W, TOKENS[0]), {"linear_bias": BIAS, "label_smoothing": 0.1}),
    ("linear_cross_entropy", (X[0], W, TOKENS[0]), {"reduction": "none", "ignore_index": 3}),
    ("linear_cross_entropy", (X[0], W, TOKENS[0]), {"label_smoothing": 0.3}),
    ("layer_norm", (X,), {"normalized_shape": [5], "weight": ROW, "eps": 0.3}),
    ("embedding", (TOKENS,), {"weight": W, "padding_idx": -2}),
    ("scaled_dot_product_attention", (Q, K, K), {"attn_mask": MASK, "scale": 0.3}),
    ("scaled_dot_product_attention", (Q, Q, Q), {"is_causal": True, "scale": 0.7}),
    ("cross_entropy", (X, CLASSES), {"ignore_index": 2, "reduction": "sum", "label_smoothing": 0.2}),
    ("mse_loss", (X, SHARES), {"reduction": "none"}),
    ("kl_div", (X, SHARES), {"reduction": "batchmean", "log_target": True}),
    ("smooth_l1_loss", (X, SHARES), {"reduction": "sum", "beta": 0.3}),
    ("conv2d", (IMAGE, KERNELS), {"padding": "same", "groups": 2}),
    ("binary_cross_entropy_with_logits", (X, SHARES), {"pos_weight": SHARES[0], "reduction": "none"}),
    ("leaky_relu", (X,), {"negative_slope": 0.2}),
    ("one_hot", (CLASSES,), {"num_classes": 7}),
]


@pytest.mark.filterwarnings("ignore:reduction. 'mean'", "ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(("name", "args", "named"), [*[(n, a, {}) for n, a in CALLS], *NAMED])
def test_a_call_written_for_torch_gives_the_same(torch: Any, name: str, args: Any, named: Any) -> None:
    def converted(value: Any, tensor: Any) -> Any:
        return tensor(value.copy()) if isinstance(value, np.ndarray) else value

    def mine(array: Any) -> Any:
        return ml.Tensor(array, requires_grad=array is not None and array.dtype.kind == "f" and array.shape == X.shape)

    ours = [converted(a, mine) for a in args]
    theirs = [converted(a, torch.tensor) for a in args]
    for a, b in zip(ours, theirs):
        if isinstance(a, ml.Tensor):
            b.requires_grad_(a.requires_grad)
    result = getattr(F, name)(*ours, **{k: converted(v, ml.Tensor) for k, v in named.items()})
    expected = getattr(torch.nn.functional, name)(*theirs, **{k: converted(v, torch.tensor) for k, v in named.items()})
    assert_same(result, expected)
    assert result.requires_grad == expected.requires_grad
    if result.requires_grad:
        above = np.random.default_rng(2).standard_normal(result.shape)
        result.backward(ml.Tensor(above))
        expected.backward(torch.tensor(above))
        for i, (a, b) in enumerate(zip(ours, theirs)):
            if isinstance(a, ml.Tensor) and a.requires_grad:
                assert_same(a.grad, b.grad, name=f"gradient of argument {i}")


# Fused operations that PyTorch has no function for; the walks over the register hold them against PyTorch.
OURS = {"add_layer_norm", "add_rms_norm", "linear_gelu", "linear_relu", "packed_self_attention", "self_attention"}


def test_every_function_is_called_here() -> None:
    assert set(F.__all__) - OURS == {name for name, _ in CALLS}
    assert all(callable(getattr(F, name)) for name in F.__all__)


@pytest.mark.parametrize("name", F.__all__)
def test_every_function_is_torchs_and_documented(torch: Any, name: str) -> None:
    assert hasattr(torch.nn.functional, name) == (name not in OURS)
    assert len(inspect.getdoc(getattr(F, name)) or "") > 20


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
@pytest.mark.parametrize("sizes", [(3,), (5, 3), (2, 2, 3, 5), (), 4])
def test_the_norms_refuse_what_x_does_not_end_in(name: str, sizes: Any) -> None:
    with pytest.raises(ShapeError, match=r"\(2, 3, 5\)") as caught:
        getattr(F, name)(ml.Tensor(X), sizes)
    assert str((sizes,) if isinstance(sizes, int) else sizes) in str(caught.value)


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_the_norms_refuse_a_weight_of_another_shape(name: str) -> None:
    with pytest.raises(ShapeError, match=r"weight \(15,\).*\(3, 5\)"):
        getattr(F, name)(ml.Tensor(X), (3, 5), ml.ones(15, dtype=ml.float64))
    with pytest.raises(ShapeError, match=r"bias \(3,\).*\(5,\)"):
        F.layer_norm(ml.Tensor(X), 5, None, ml.ones(3, dtype=ml.float64))


def test_layers_and_functions_are_the_same() -> None:
    layer = nn.LayerNorm(5, dtype=ml.float64)
    assert np.array_equal(layer(ml.Tensor(X)).array, F.layer_norm(ml.Tensor(X), 5, layer.weight, layer.bias).array)


@pytest.mark.parametrize("backend", ["native", "numba", "reference"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("ignore_index", [-100, 3])
def test_smoothed_losses_of_scores_that_are_never_whole_are_torchs(
    torch: Any, monkeypatch: pytest.MonkeyPatch, backend: str, reduction: str, ignore_index: int
) -> None:
    if kernels.why_not(backend):
        pytest.skip(kernels.why_not(backend))
    rng = np.random.default_rng(3)
    arrays = rng.standard_normal((5, 3)), rng.standard_normal((7, 3))
    target, options = np.array([1, 3, 6, 3, 0]), {"reduction": reduction, "ignore_index": ignore_index}
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    expected = torch.nn.functional.cross_entropy(
        theirs[0] @ theirs[1].T, torch.tensor(target), label_smoothing=0.2, **options
    )
    (expected * 1.7).backward()
    ours = [ml.Tensor(a, requires_grad=True) for a in arrays]
    monkeypatch.setattr(F, "cross_entropy", None)  # which would need the scores
    with kernels.use(backend):
        loss = F.linear_cross_entropy(*ours, ml.Tensor(target), label_smoothing=0.2, **options)
        (loss * 1.7).backward()
    assert_same(loss, expected)
    for a, b in zip(ours, theirs):
        assert_same(a.grad, b.grad)


def test_a_mean_of_no_rows_is_nan_with_smoothing_too() -> None:
    loss = F.linear_cross_entropy(ml.ones(2, 3), ml.ones(7, 3), ml.tensor([4, 4]), ignore_index=4, label_smoothing=0.1)
    assert np.isnan(loss.item())
    with pytest.raises(ValueError, match="between 0 and 1, not -1"):
        F.linear_cross_entropy(ml.ones(2, 3), ml.ones(7, 3), ml.tensor([4, 4]), label_smoothing=-1)


def test_every_operation_is_here_by_its_name():
    from minilm import ops

    x = ml.tensor([1.0, 4.0])
    assert F.sqrt(x).tolist() == [1, 2]
    assert F.sum(x).item() == 5
    assert F.getitem(x, 1).item() == 4
    for op in ops.all():
        assert callable(getattr(F, op.name)), op.name
    with pytest.raises(AttributeError, match="no 'sqroot'"):
        F.sqroot  # noqa: B018 - the access is what is tested


def test_where_is_a_method_too():
    x, y = ml.tensor([1.0, 2.0]), ml.tensor([3.0, 4.0])
    assert x.where(ml.tensor([True, False]), y).tolist() == [1, 4]
