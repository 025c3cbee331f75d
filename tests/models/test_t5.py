"""T5 alone: distances in buckets, heads that are tied or not, initial values; the rest is in test_seq2seq.py."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy

import minilm as ml
from minilm import models
from minilm.errors import CheckpointError, ConfigError
from minilm.models.t5 import buckets
from minilm.testing import assert_same

SHAPE = {
    "vocab_size": 31, "d_model": 20, "d_kv": 6, "d_ff": 28, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 9,
}  # fmt: skip
SOURCE, LABELS = np.array([[4, 5, 6, 1]]), np.array([[7, 8, 1]])


def built(seed=0, **settings):
    ml.manual_seed(seed)
    return models.T5ForConditionalGeneration(models.T5Config(**{**SHAPE, **settings})).eval()


def logits(model):
    return model(ml.tensor(SOURCE), labels=ml.tensor(LABELS)).logits


def rewritten(folder, change):
    """The folder with other weights: `change` is given all of them, and changes the dict."""
    content = safetensors.numpy.load_file(folder / "model.safetensors")
    change(content)
    safetensors.numpy.save_file(content, folder / "model.safetensors", {"format": "pt"})


def reconfigured(folder, **keys):
    config = {**json.loads((folder / "config.json").read_text("utf-8")), **keys}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}), "utf-8")


@pytest.mark.parametrize("both_sides", [True, False])
@pytest.mark.parametrize(("count", "farthest"), [(32, 128), (8, 9), (4, 5), (64, 1000), (32, 17)])
def test_buckets_are_hugging_faces(torch, transformers, count, farthest, both_sides):
    from transformers.models.t5.modeling_t5 import T5Attention

    away = np.arange(-2500, 2500)
    expected = T5Attention._relative_position_bucket(torch.from_numpy(away), both_sides, count, farthest).numpy()
    found = buckets(away, count, farthest, both_sides)
    assert found.dtype == np.int64
    assert_same(found, expected, rtol=0)
    assert set(found.tolist()) <= set(range(count))


def test_every_layer_of_a_stack_uses_the_firsts_biases():
    model = built()
    names = {name for name, _ in model.named_parameters() if "relative" in name}
    table = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    assert names == {f"encoder.{table}", f"decoder.{table}"}
    model.loss(ml.tensor(SOURCE), None, ml.tensor(LABELS)).backward()
    grads = dict(model.named_parameters())
    encoder, decoder = (grads[f"{side}.{table}"].grad.array for side in ("encoder", "decoder"))
    assert (np.abs(encoder).max(1) > 0).tolist() == [True, True, True, False, False, True, True, False]
    assert not decoder[3:].any()  # three tokens are at most two apart, and none looks behind itself
    assert (np.abs(decoder[:3]).max(1) > 0).all()


def test_a_head_of_its_own_in_the_file_is_kept_whatever_the_configuration_says(torch, transformers, tmp_path):
    built().save_pretrained(tmp_path)
    own = np.random.default_rng(0).standard_normal((31, 20)).astype("float32")
    rewritten(tmp_path, lambda content: content.update({"lm_head.weight": own}))
    model, report = models.T5ForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not str(report)
    assert_same(model.lm_head.weight, own, rtol=0)
    assert not np.array_equal(model.shared.weight.array, own)
    assert model.config.scale_decoder_outputs
    model.save_pretrained(tmp_path / "again")
    again = models.T5ForConditionalGeneration.from_pretrained(tmp_path / "again")
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "again").eval()
    expected = theirs(torch.from_numpy(SOURCE), labels=torch.from_numpy(LABELS)).logits.detach().numpy()
    assert_same(logits(again), logits(model).array, rtol=0)
    assert_same(logits(model), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_equal_matrices_under_several_names_are_one(tmp_path):
    model = built()
    model.save_pretrained(tmp_path)
    shared = model.shared.weight.array
    tied = ("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    rewritten(tmp_path, lambda content: content.update({name: shared.copy() for name in tied}))
    again, report = models.T5ForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not str(report)
    assert again.lm_head.weight is again.shared.weight is again.encoder.embed_tokens.weight


def test_files_of_version_1_1_with_a_head_or_without_are_hugging_faces(torch, transformers, tmp_path):
    built(tie_word_embeddings=False, feed_forward_proj="gated-gelu").save_pretrained(tmp_path)
    reconfigured(tmp_path, scale_decoder_outputs=None)  # as the first files were
    for has_head in (True, False):
        if not has_head:
            rewritten(tmp_path, lambda content: content.pop("lm_head.weight"))
        ours, report = models.T5ForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
        theirs = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
        assert not str(report)
        assert (ours.lm_head.weight is ours.shared.weight) == (not has_head)
        assert ours.config.scale_decoder_outputs is False
        expected = theirs(torch.from_numpy(SOURCE), labels=torch.from_numpy(LABELS)).logits.detach().numpy()
        assert_same(logits(ours), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_bias_that_older_files_hold_and_nobody_used_is_no_weight(tmp_path):
    model = built()
    model.save_pretrained(tmp_path)
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    rewritten(tmp_path, lambda content: content.update({unused: np.ones((8, 4), np.float32)}))
    again, report = models.T5ForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not str(report)
    assert_same(logits(again), logits(model).array, rtol=0)


def test_a_bias_of_distances_that_is_missing_is_an_error(tmp_path):
    built().save_pretrained(tmp_path)
    table = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    rewritten(tmp_path, lambda content: content.pop(table))
    with pytest.raises(CheckpointError, match=f"missing: {table}"):
        models.T5ForConditionalGeneration.from_pretrained(tmp_path)


@pytest.mark.parametrize("proj", ["relu", "gated-gelu"])
def test_initial_values_have_hugging_faces_deviations(torch, transformers, proj):
    shape = {
        **SHAPE, "vocab_size": 500, "d_model": 120, "d_kv": 40, "d_ff": 300, "relative_attention_num_buckets": 200,
        "relative_attention_max_distance": 300, "feed_forward_proj": proj, "initializer_factor": 0.7,
    }  # fmt: skip
    ml.manual_seed(0)
    torch.manual_seed(0)
    ours = dict(models.T5ForConditionalGeneration(models.T5Config(**shape)).named_parameters())
    theirs = dict(transformers.T5ForConditionalGeneration(transformers.T5Config(**shape)).named_parameters())
    assert sorted(ours) == sorted(theirs)
    for name, parameter in theirs.items():
        a, b = ours[name].array, parameter.detach().numpy()
        assert a.mean() == pytest.approx(b.mean(), abs=0.1 * float(b.std()) + 1e-9), name
        assert a.std() == pytest.approx(b.std(), rel=0.1), name


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1"),
        ({"num_heads": 0}, "num_heads must be at least 1"),
        ({"feed_forward_proj": "gated-tanh"}, "feed_forward_proj must be one of"),
        ({"relative_attention_num_buckets": 7}, "relative_attention_num_buckets must be even"),
        ({"relative_attention_max_distance": 4}, "relative_attention_max_distance must be above 4"),
        ({"dropout_rate": 1.0}, "dropout_rate must be at least 0 and below 1"),
        ({"decoder_start_token_id": 31}, "decoder_start_token_id must be from 0 to 30"),
        ({"others": {"model_type": "umt5"}}, "model_type 'umt5' is not supported: this T5 knows 't5' only"),
        ({"others": {"is_decoder": True}}, "is_decoder True is not supported"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_impossible_configurations_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        models.T5Config(**{**SHAPE, **settings})


def test_what_follows_from_other_keys_is_filled_in_and_written():
    config = models.T5Config.from_dict({**SHAPE, "num_decoder_layers": None, "decoder_start_token_id": None, "x": 1})
    assert (config.num_decoder_layers, config.decoder_start_token_id, config.scale_decoder_outputs) == (2, 0, True)
    written = models.T5Config(feed_forward_proj="gated-gelu", tie_word_embeddings=False).to_dict()
    assert (written["is_gated_act"], written["dense_act_fn"]) == (True, "gelu_new")
    assert written["scale_decoder_outputs"] is False
    assert models.T5Config.from_dict(written).to_dict() == written
