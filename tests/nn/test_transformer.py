"""The Transformer's layers, stacks and whole, beside PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import nn
from minilm.errors import ConfigError
from minilm.testing import assert_same

rng = np.random.default_rng(1)
SRC, TGT = rng.standard_normal((7, 2, 6)), rng.standard_normal((5, 2, 6))
CAUSAL = np.triu(np.full((5, 5), -np.inf), 1)
PADDING = np.array([[False] * 7, [False] * 5 + [True] * 2])
OPTIONS = [
    {},
    {"norm_first": True, "activation": "gelu"},
    {"bias": False, "layer_norm_eps": 0.1},
    {"batch_first": True},
]
FIXED = {"dim_feedforward": 11, "dropout": 0.0}


def turned(x: np.ndarray, options: Any) -> np.ndarray:
    return x.swapaxes(0, 1).copy() if options.get("batch_first") else x


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_an_encoder_layer_is_that_of_torch(beside: Any, torch: Any, options: Any, dtype: str) -> None:
    ours = nn.TransformerEncoderLayer(6, 2, **FIXED, **options)
    theirs = torch.nn.TransformerEncoderLayer(6, 2, **FIXED, **options)
    x = turned(SRC, options).astype(dtype)
    beside(ours, theirs, x)
    beside(ours, theirs, x, src_key_padding_mask=PADDING)
    beside(ours, theirs, turned(TGT, options).astype(dtype), src_mask=CAUSAL.astype(dtype))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_decoder_layer_is_that_of_torch(beside: Any, torch: Any, options: Any) -> None:
    ours = nn.TransformerDecoderLayer(6, 2, **FIXED, **options)
    theirs = torch.nn.TransformerDecoderLayer(6, 2, **FIXED, **options)
    masks = {"tgt_mask": CAUSAL, "memory_key_padding_mask": np.where(PADDING, -np.inf, 0.0)}
    beside(ours, theirs, turned(TGT, options), turned(SRC, options))
    beside(ours, theirs, turned(TGT, options), turned(SRC, options), **masks)
    beside(ours, theirs, turned(TGT, options), turned(SRC, options), memory_mask=rng.random((5, 7)) < 0.3)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_the_whole_is_that_of_torch(beside: Any, torch: Any, options: Any) -> None:
    layers = {"num_encoder_layers": 2, "num_decoder_layers": 3}
    ours, theirs = (
        nn.Transformer(6, 2, **layers, **FIXED, **options),
        torch.nn.Transformer(6, 2, **layers, **FIXED, **options),
    )
    beside(ours, theirs, turned(SRC, options), turned(TGT, options), tgt_mask=CAUSAL)
    padding = {"src_key_padding_mask": PADDING, "memory_key_padding_mask": PADDING}
    late = np.array([[False] * 5, [False] * 3 + [True] * 2])
    masks = {**padding, "tgt_key_padding_mask": late, "tgt_mask": np.isneginf(CAUSAL)}
    beside(ours, theirs, turned(SRC, options), turned(TGT, options), **masks)


@pytest.mark.parametrize("norm_first", [False, True], ids=["post-norm", "pre-norm"])
@pytest.mark.parametrize("learnt", [False, True], ids=["sinusoidal", "learnt"])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_a_model_with_tied_embeddings_and_smoothed_labels_is_that_of_torch(
    torch: Any, norm_first: bool, learnt: bool
) -> None:
    V, C = 11, 6
    sizes = {"num_encoder_layers": 2, "num_decoder_layers": 2, "batch_first": True, "norm_first": norm_first}

    def parts(nn: Any) -> Any:
        modules = {
            "words": nn.Embedding(V, C),
            "places": nn.Embedding(7, C),
            "both": nn.Transformer(C, 2, **sizes, **FIXED),
        }
        return nn.ModuleDict(modules)

    def loss_of(model: Any, tensor: Any, waves: Any, smooth: Any) -> Any:
        def embedded(ids: Any) -> Any:
            places = model["places"](tensor(np.arange(ids.shape[1]))) if learnt else waves[: ids.shape[1]]
            return model["words"](tensor(ids)) * C**0.5 + places

        y = model["both"](
            embedded(source), embedded(target[:, :-1]), tgt_mask=tensor(np.isneginf(CAUSAL)),
            src_key_padding_mask=tensor(PADDING), memory_key_padding_mask=tensor(PADDING),
        )  # fmt: skip
        return smooth(y.reshape(-1, C), model["words"].weight, tensor(target[:, 1:].reshape(-1)))

    source, target = rng.integers(0, V, (2, 7)), rng.integers(0, V, (2, 6))
    ours, theirs = parts(nn).to("float64"), parts(torch.nn).double()
    for tensor in ours.state_dict().values():
        tensor.copy_(ml.Tensor(0.5 * rng.standard_normal(tensor.shape)))
    theirs.load_state_dict({name: torch.from_numpy(t.array.copy()) for name, t in ours.state_dict().items()})
    waves = nn.SinusoidalPositions(7, C, dtype="float64").weight
    options = {"label_smoothing": 0.1, "ignore_index": 3}
    mine = loss_of(ours, ml.tensor, waves, lambda *a: nn.functional.linear_cross_entropy(*a, **options))
    other = loss_of(
        theirs, torch.tensor, torch.from_numpy(waves.array),
        lambda y, weight, labels: torch.nn.functional.cross_entropy(y @ weight.T, labels, **options),
    )  # fmt: skip
    assert_same(mine, other)
    mine.backward()
    other.backward()
    for (name, parameter), (same, expected) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == same
        assert (parameter.grad is None) == (expected.grad is None), name
        if expected.grad is not None:
            assert_same(parameter.grad, expected.grad, name=name, atol=1e-12)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_stacks_begin_with_the_same_values_in_each_layer_and_take_a_norm(beside: Any, torch: Any) -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, **FIXED), 2, nn.LayerNorm(6))
    first, second = encoder.layers
    assert ml.equal(first.linear1.weight, second.linear1.weight)
    assert first.linear1.weight is not second.linear1.weight
    layer = torch.nn.TransformerEncoderLayer(6, 2, **FIXED)
    beside(encoder, torch.nn.TransformerEncoder(layer, 2, torch.nn.LayerNorm(6)), SRC)


def test_the_mask_of_later_positions_is_that_of_torch(torch: Any) -> None:
    ours = nn.Transformer.generate_square_subsequent_mask(4)
    theirs = torch.nn.Transformer.generate_square_subsequent_mask(4)
    assert ours.tolist() == theirs.tolist()


def test_a_causal_encoder_sees_no_later_position() -> None:
    ml.manual_seed(1)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, **FIXED, dtype=ml.float64), 2)
    x = ml.Tensor(SRC)
    whole, part = encoder(x, is_causal=True), encoder(x[:4], is_causal=True)
    np.testing.assert_allclose(whole[:4].detach().numpy(), part.detach().numpy(), rtol=1e-12)


def test_dropout_is_in_every_sublayer_and_only_in_training() -> None:
    ml.manual_seed(1)
    layer = nn.TransformerDecoderLayer(6, 2, 11, dropout=0.5)
    assert [m.p for m in layer.modules() if isinstance(m, nn.Dropout)] == [0.5] * 4
    x, memory = ml.Tensor(TGT.astype("float32")), ml.Tensor(SRC.astype("float32"))
    assert not ml.equal(layer(x, memory), layer(x, memory))
    layer.eval()
    assert ml.equal(layer(x, memory), layer(x, memory))


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ConfigError, match="'swish'"):
        nn.TransformerEncoderLayer(6, 2, activation="swish")
