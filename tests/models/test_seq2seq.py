"""Models of encoder and decoder against Hugging Face's, with the same weights; cached, packed and padded alike."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import safetensors.numpy

import minilm as ml
from minilm import models
from minilm.errors import AutogradError, CheckpointError, ConfigError, DtypeError, ShapeError
from minilm.models.pretrained import PretrainedWarning
from minilm.testing import assert_same

MARIAN = {
    "vocab_size": 31, "d_model": 20, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 28, "decoder_ffn_dim": 36, "max_position_embeddings": 13,
    "pad_token_id": 30, "eos_token_id": 0, "forced_eos_token_id": 0, "decoder_start_token_id": 30,
}  # fmt: skip
T5 = {
    "vocab_size": 31, "d_model": 20, "d_kv": 6, "d_ff": 28, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 9, "decoder_start_token_id": 0,
}  # fmt: skip
CASES = {
    "marian": ("Marian", {}),
    "marian-swish-scaled": ("Marian", {"activation_function": "swish", "scale_embedding": True}),
    "marian-two-vocabularies": (
        "Marian", {"decoder_vocab_size": 37, "share_encoder_decoder_embeddings": False, "activation_function": "relu"}
    ),
    "t5": ("T5", {}),
    "t5-1.1": ("T5", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "t5-silu": ("T5", {"feed_forward_proj": "gated-silu", "layer_norm_epsilon": 0.1}),
}  # fmt: skip
SHAPES = {"Marian": MARIAN, "T5": T5}
HEADED = {"Marian": "MarianMTModel", "T5": "T5ForConditionalGeneration"}
B, S, T = 5, 11, 7
LENGTHS = (11, 3, 1, 7, 5)
TARGETS = (4, 7, 2, 1, 5)


def built(case, dtype="float64", seed=0, name=None, **settings):
    """One of our models with random weights that are far from round, without dropout."""
    kind, own = CASES[case]
    ml.manual_seed(seed)
    config = getattr(models, f"{kind}Config")(**{**SHAPES[kind], **own, **settings})
    model = getattr(models, name or HEADED[kind])(config)
    rng = np.random.default_rng(seed)
    for parameter in model.parameters():
        parameter.array[...] += 0.3 * rng.standard_normal(parameter.shape)
    if kind == "Marian" and name is None:
        model.final_logits_bias.array[...] = rng.standard_normal(model.final_logits_bias.shape)
    return model.to(dtype).eval()


def twin(transformers, model, folder):
    """Hugging Face's model of the folder that ours was saved to; nothing may be missing or left over."""
    model.save_pretrained(folder)
    theirs, report = getattr(transformers, type(model).__name__).from_pretrained(
        folder, output_loading_info=True, dtype=str(next(model.parameters()).dtype)
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    for module in theirs.modules():
        if type(module).__name__ == "T5LayerNorm" and module.weight.dtype.itemsize == 8:
            module.forward = functools.partial(rms_norm, module)
    return theirs.eval()


def rms_norm(self, x):
    """T5LayerNorm of Hugging Face's, which rounds to float32 inside, so that float64 proves nothing."""
    return self.weight * x * (x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon).rsqrt()


def batch(seed=0, left=False):
    """Sources and labels of several lengths, with padding behind (the sources' before) them."""
    rng = np.random.default_rng(seed)
    mask = (np.arange(S) < np.array(LENGTHS)[:, None]).astype(np.int64)
    mask = mask[:, ::-1].copy() if left else mask
    labels = np.where(np.arange(T) < np.array(TARGETS)[:, None], rng.integers(0, 30, (B, T)), -100)
    labels[1, 3] = -100  # in the middle of a target
    return {"input_ids": rng.integers(1, 30, (B, S)), "attention_mask": mask, "labels": labels}


def tensors(arrays, torch=None):
    return {name: ml.tensor(a) if torch is None else torch.from_numpy(a.copy()) for name, a in arrays.items()}


def gradients(model):
    return {key: p.grad.array.copy() for key, p in model.named_parameters() if p.grad is not None}


@pytest.fixture(params=CASES)
def case(request):
    return request.param


# --- beside Hugging Face's --------------------------------------------------------------------------


@pytest.mark.parametrize("left", [False, True], ids=["behind", "before"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_results_loss_and_every_gradient_equal_hugging_faces(torch, transformers, tmp_path, case, dtype, left):
    ours = built(case, dtype)
    theirs, inputs = twin(transformers, ours, tmp_path), batch(left=left)
    asked = {"output_hidden_states": True}
    mine = ours(**tensors(inputs), **asked)
    other = theirs(**tensors(inputs, torch), **asked)
    rtol = 1e-10 if dtype == "float64" else 1e-5
    for key in ("loss", "logits", "encoder_last_hidden_state", "decoder_hidden_states", "encoder_hidden_states"):
        pairs = zip(mine[key], other[key], strict=True) if isinstance(mine[key], tuple) else [(mine[key], other[key])]
        for a, b in pairs:
            b = b.detach().numpy()
            assert_same(a, b, rtol=rtol, atol=rtol * max(1.0, float(np.abs(b).max())), name=key)
    mine.loss.backward()
    other.loss.backward()
    fixed = "embed_positions.weight"  # which transformers 5 thaws when it reads a model
    wanted = {key: p.grad.numpy() for key, p in theirs.named_parameters() if not key.endswith(fixed)}
    assert sorted(key for key, _ in ours.named_parameters()) == sorted(wanted)
    rtol = 1e-8 if dtype == "float64" else 1e-4
    for key, gradient in gradients(ours).items():
        largest = max(float(np.abs(wanted[key]).max()), 1e-3)  # the keys' biases have none but for rounding
        assert_same(gradient, wanted[key], rtol=rtol, atol=rtol * largest, name=key)


def test_attention_weights_equal_hugging_faces(torch, transformers, tmp_path, case):
    ours, inputs = built(case), batch()
    theirs = twin(transformers, ours, tmp_path)
    theirs.set_attn_implementation("eager")
    mine = ours(**tensors(inputs), output_attentions=True)
    other = theirs(**tensors(inputs, torch), output_attentions=True)
    for key in ("encoder_attentions", "decoder_attentions", "cross_attentions"):
        for a, b in zip(mine[key], other[key], strict=True):
            assert_same(a, b.detach().numpy(), rtol=1e-9, atol=1e-12, name=key)
    assert_same(mine.logits, ours(**tensors(inputs)).logits.array, rtol=1e-10, atol=1e-10)


def test_what_transformers_writes_is_read_with_equal_outputs(torch, transformers, tmp_path, case):
    kind, own = CASES[case]
    torch.manual_seed(0)
    theirs = getattr(transformers, HEADED[kind])(getattr(transformers, f"{kind}Config")(**SHAPES[kind], **own)).eval()
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    theirs.save_pretrained(tmp_path)
    ours, report = getattr(models, HEADED[kind]).from_pretrained(tmp_path, output_loading_info=True)
    assert not str(report)
    inputs = batch()
    for key in ("loss", "logits", "encoder_last_hidden_state"):
        expected = theirs(**tensors(inputs, torch))[key].detach().numpy()
        assert_same(ours(**tensors(inputs))[key], expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))


def test_a_model_comes_back_to_the_bit_with_its_configuration(tmp_path, case):
    model, inputs = built(case, "float32"), tensors(batch())
    model.save_pretrained(tmp_path)
    again, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not str(report)
    assert not again.training
    assert again.config.to_dict() == {
        **model.config.to_dict(), "architectures": [type(model).__name__], "dtype": "float32"
    }  # fmt: skip
    assert_same(again(**inputs).logits, model(**inputs).logits.array, rtol=0)


def test_the_first_token_is_that_of_the_configuration_and_nothing_else_than_hugging_faces(torch, transformers, case):
    model, labels = built(case), batch()["labels"]
    kind, own = CASES[case]
    theirs = getattr(transformers, HEADED[kind])(getattr(transformers, f"{kind}Config")(**SHAPES[kind], **own))
    expected = theirs.prepare_decoder_input_ids_from_labels(torch.from_numpy(labels)).numpy()
    assert_same(model.shifted(ml.tensor(labels)), expected, rtol=0)


# --- the same in other ways -------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_that_of_forward_with_its_gradients(case, smoothing):
    model, inputs = built(case), tensors(batch())
    if smoothing and hasattr(model, "final_logits_bias"):
        model.final_logits_bias.array[...] = 0  # then the scores never exist whole
    expected = model(**inputs, label_smoothing=smoothing).loss
    expected.backward()
    wanted = gradients(model)
    model.zero_grad()
    loss = model.loss(**inputs, label_smoothing=smoothing)
    assert_same(loss, expected.array, rtol=1e-12)
    loss.backward()
    found = gradients(model)
    assert set(found) == set(wanted)
    for key in wanted:
        assert_same(found[key], wanted[key], rtol=1e-9, atol=1e-12, name=key)


def test_loss_computes_no_padding(case, monkeypatch):
    model, inputs = built(case), tensors(batch())
    rows = []
    seen = type(model.decoder).forward
    monkeypatch.setattr(
        type(model.decoder),
        "forward",
        lambda self, *args: rows.append((args[2].shape[0], len(args[1].places))) or seen(self, *args),
    )
    model.loss(**inputs)
    assert rows == [(sum(LENGTHS), sum(TARGETS))]


@pytest.mark.parametrize("left", [False, True], ids=["behind", "before"])
def test_padding_changes_nothing(case, left):
    model, inputs = built(case), batch(left=left)
    if left and case.startswith("marian"):
        pytest.skip("absolute positions count padding that stands before a sentence")
    together = model(**tensors(inputs)).logits.array
    packed = model(**tensors(inputs), pack=True).logits
    assert_same(packed, together, rtol=1e-11, atol=1e-11)
    for row, length in enumerate(LENGTHS):
        part = inputs["input_ids"][row, -length:] if left else inputs["input_ids"][row, :length]
        alone = model(ml.tensor(part[None]), labels=ml.tensor(inputs["labels"][row : row + 1])).logits
        assert_same(alone[0], together[row], rtol=1e-9, atol=1e-11)


def test_a_later_token_changes_nothing_before_it(case):
    model, inputs = built(case), batch()
    ids = model.shifted(ml.tensor(inputs["labels"])).array
    source = tensors({key: inputs[key] for key in ("input_ids", "attention_mask")})
    before = model(**source, decoder_input_ids=ml.tensor(ids)).logits.array
    ids[:, 4] = (ids[:, 4] + 1) % 30
    after = model(**source, decoder_input_ids=ml.tensor(ids)).logits.array
    assert_same(after[:, :4], before[:, :4], rtol=0)
    assert (np.abs(after[:, 4:] - before[:, 4:]).max((1, 2)) > 1e-3).all()


def test_the_layers_activations_can_be_computed_twice(case):
    model, inputs = built(case), tensors(batch())
    model.loss(**inputs).backward()
    wanted = gradients(model)
    model.zero_grad()
    model.recompute = True
    assert model.recompute
    model.loss(**inputs).backward()
    found = gradients(model)
    assert set(found) == set(wanted)
    for key in wanted:
        assert_same(found[key], wanted[key], rtol=1e-12, atol=1e-14, name=key)


def test_dropout_is_there_in_training_only(case):
    model, inputs = built(case), tensors(batch())
    settled = [float(model.loss(**inputs).item()) for _ in range(2)]
    model.train()
    drawn = {float(model.loss(**inputs).item()) for _ in range(3)}
    assert settled[0] == settled[1]
    assert len(drawn | set(settled)) == 4


def test_dropout_stands_where_hugging_faces_does_with_the_same_shares(torch, transformers, tmp_path, case, monkeypatch):
    shares = {"dropout": 0.1, "activation_dropout": 0.2, "attention_dropout": 0.3}
    model = built(case, **(shares if case.startswith("marian") else {"dropout_rate": 0.1}))
    theirs, inputs = twin(transformers, model, tmp_path), batch()
    ours, other = [], []
    theirs.set_attn_implementation("sdpa")  # whose dropout is inside
    dropout = torch.nn.functional.dropout
    monkeypatch.setattr(
        torch.nn.functional, "dropout", lambda x, p=0.5, training=True, *a: other.append(p) or dropout(x, p, training)
    )
    theirs.train()(**tensors(inputs, torch))
    monkeypatch.setattr(models.positions.Positions, "dropout", lambda self, rows, p: ours.append(p) or rows)
    model.train().loss(**tensors(inputs))
    assert ours == other
    attentions = [module for module in model.modules() if isinstance(module, models.seq2seq.Attention)]
    assert {module.p for module in attentions} == {0.3 if case.startswith("marian") else 0.1}


# --- decoding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [False, True], ids=["behind", "before"])
@pytest.mark.parametrize("steps", [[1] * T, [3, 1, 2, 1], [T]], ids=str)
def test_cached_equals_uncached(case, steps, left):
    model, inputs = built(case), batch(left=left)
    ids = model.shifted(ml.tensor(inputs["labels"]))
    source = tensors({key: inputs[key] for key in ("input_ids", "attention_mask")})
    expected = model(**source, decoder_input_ids=ids).logits.array
    with ml.no_grad():
        memory = model.encode(**source)
        cache = model.new_cache(memory, max_length=T)
        done = 0
        for step in steps:
            scores = model.decode(ids[:, done : done + step], cache=cache)
            done += step
            assert cache.length == done
            assert_same(scores, expected[:, done - 1], rtol=1e-10, atol=1e-10)
            assert_same(model.decode(ids[:, :done], memory), expected[:, done - 1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "rows",
    [
        [0, 1, 2, 3, 4],
        [0, 0, 1, 1, 2, 2, 3, 3, 4, 4],  # two beams each
        [4, 2, 0],
        [1, 1, 1, 3, 0],  # not equally many
        [3, 1, 3, 1],  # not one after the other
        [2],
    ],
    ids=str,
)
def test_reordered_rows_go_on_as_those_that_they_were(case, rows):
    model, inputs = built(case), batch()
    ids = model.shifted(ml.tensor(inputs["labels"])).array
    with ml.no_grad():
        memory = model.encode(**tensors({key: inputs[key] for key in ("input_ids", "attention_mask")}))
        cache = model.new_cache(memory)
        model.decode(ml.tensor(ids[:, :3]), cache=cache)
        so_far, sentences = ids[:, :3], np.arange(B)
        for moved in (rows, np.arange(len(rows))[::-1]):
            cache.reorder(moved)
            so_far, sentences = so_far[moved], sentences[moved]
            new = np.arange(1, len(moved) + 1)[:, None]
            scores = model.decode(ml.tensor(new), cache=cache)
            so_far = np.concatenate([so_far, new], 1)
            expected = model.decode(ml.tensor(so_far), memory.select(sentences))
            assert_same(scores, expected.array, rtol=1e-10, atol=1e-10)


def test_beams_of_one_sentence_share_the_memorys_keys(case):
    model, inputs = built(case), tensors(batch())
    with ml.no_grad():
        cache = model.new_cache(model.encode(inputs["input_ids"], inputs["attention_mask"]))
        before = [(source.keys, source.values) for source in cache.sources]
        model.decode(ml.tensor(np.ones((B, 1), int)), cache=cache)
        cache.reorder(np.repeat(np.arange(B), 3))
        cache.reorder([2, 0, 0, 3, 5, 4, 7, 7, 7, 9, 9, 10, 12, 14, 13])
        assert len(cache) == 3 * B
        cache.reorder([3, 3, 5, 12, 14, 13])
        assert len(cache) == 6
        assert before[0][0].shape[0] == B
        for source, (keys, values) in zip(cache.sources, before):
            assert source.keys is keys
            assert source.values is values


def test_decoding_refuses_what_does_not_fit(case):
    model, inputs = built(case), tensors(batch())
    one = ml.tensor(np.ones((B, 1), int))
    with pytest.raises(AutogradError, match="no_grad"):
        model.new_cache(model.encode(inputs["input_ids"]))
    with ml.no_grad():
        memory = model.encode(inputs["input_ids"])
        cache = model.new_cache(memory, max_length=2)
        with pytest.raises(ShapeError, match="4 rows of tokens came, and the cache has 5"):
            model.decode(one[:4], cache=cache)
        with pytest.raises(ShapeError, match="4 rows of tokens came, and the memory has 5"):
            model.decode(one[:4], memory)
        with pytest.raises(ShapeError, match="decode: a memory or a cache"):
            model.decode(one)
        for wrong, error, words in (
            ([0, 5], IndexError, "rows from 0 to 5, and there are 0 ... 4"),
            ([-1], IndexError, "rows from -1"),
            ([], ShapeError, "at least one row"),
            ([0.5], ShapeError, "list"),
        ):
            with pytest.raises(error, match=words):
                cache.reorder(wrong)
        model.decode(one, cache=cache)
        model.decode(one, cache=cache)
        with pytest.raises(ShapeError, match="3 positions do not fit into the context of 2"):
            model.decode(one, cache=cache)


# --- refusals ---------------------------------------------------------------------------------------


def test_inputs_that_do_not_fit_are_refused(case):
    model, ok = built(case), tensors(batch())
    ids, labels = ok["input_ids"], ok["labels"]
    with pytest.raises(ConfigError, match="decoder_input_ids or labels are needed"):
        model(ids)
    with pytest.raises(ShapeError, match=r"input_ids of shape \(11,\)"):
        model(ids[0], labels=labels)
    with pytest.raises(ShapeError, match="5 sources came, and 4 targets"):
        model(ids, labels=labels[:4])
    with pytest.raises(ShapeError, match="5 sources came, and 4 targets"):
        model.loss(ids, None, labels[:4])
    with pytest.raises(ShapeError, match=r"labels have the shape \(5, 7\), decoder_input_ids \(5, 11\)"):
        model(ids, decoder_input_ids=ids, labels=labels)
    with pytest.raises(ShapeError, match=r"labels are a Tensor \(B, T\), not \(7,\)"):
        model.loss(ids, None, labels[0])
    with pytest.raises(ShapeError, match=r"attention_mask has shape \(5, 10\)"):
        model(ids, ok["attention_mask"][:, 1:], labels=labels)
    with pytest.raises(DtypeError, match="input_ids is a Tensor of numbers, not list"):
        model([[1]], labels=labels)
    with pytest.raises(IndexError, match="rows 0"):
        model(ids + 1000, labels=labels)
    with pytest.raises(ValueError, match="label_smoothing must lie between 0 and 1, not 2"):
        model(ids, labels=labels, label_smoothing=2)


def test_weights_that_do_not_fit_are_listed(tmp_path, case):
    model = built(case, "float32")
    model.save_pretrained(tmp_path)
    content = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    names = [name for name in content if ".layers." in name or ".block." in name]
    lost, cut = names[0], names[1]
    changed = {**content, cut: content[cut][:1], "odd": np.zeros(2, np.float32)}
    del changed[lost]
    safetensors.numpy.save_file(changed, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as found:
        type(model).from_pretrained(tmp_path)
    for words in (f"missing: {lost}", f"{cut} (1", "unexpected: odd", type(model).__name__):
        assert words in str(found.value)


# --- Marian alone -----------------------------------------------------------------------------------


def test_the_marian_model_without_a_head_is_hugging_faces(torch, transformers, tmp_path):
    ours, inputs = built("marian", name="MarianModel"), batch()
    theirs = twin(transformers, ours, tmp_path)
    del inputs["labels"]
    inputs["decoder_input_ids"] = np.random.default_rng(1).integers(0, 30, (B, T))
    inputs["decoder_attention_mask"] = (np.arange(T) < np.array(TARGETS)[:, None]).astype(np.int64)
    mine, other = ours(**tensors(inputs)), theirs(**tensors(inputs, torch))
    assert_same(mine.encoder_last_hidden_state, other.encoder_last_hidden_state.detach().numpy(), rtol=1e-10)
    assert_same(mine.last_hidden_state, other.last_hidden_state.detach().numpy(), rtol=1e-10)
    headed, report = models.MarianMTModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not str(report)
    assert_same(headed.lm_head.weight, ours.shared.weight.array.astype("float32"), rtol=0)
    headed.save_pretrained(tmp_path / "headed")
    with pytest.warns(PretrainedWarning, match="left out: final_logits_bias"):
        bare = models.MarianModel.from_pretrained(tmp_path / "headed")
    assert_same(bare.shared.weight, headed.lm_head.weight.array, rtol=0)


def test_tied_matrices_are_one_and_written_once(tmp_path):
    model = built("marian", "float32")
    parts = model.model.encoder, model.model.decoder
    assert all(part.embed_tokens.weight is model.model.shared.weight for part in parts)
    assert model.lm_head.weight is model.model.shared.weight
    model.save_pretrained(tmp_path)
    content = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    whole = [name for name, array in content.items() if array.shape == (31, 20)]
    assert whole == ["model.shared.weight"]


def test_a_head_that_is_not_tied_is_new_where_the_file_has_none(tmp_path):
    built("marian", "float32").save_pretrained(tmp_path)
    with pytest.warns(PretrainedWarning, match="new initial values: lm_head.weight"):
        model = models.MarianMTModel.from_pretrained(tmp_path, tie_word_embeddings=False)
    assert model.lm_head.weight is not model.model.shared.weight
    assert abs(float(model.lm_head.weight.array.std()) - 0.02) < 0.003


def test_positions_that_are_learnt_and_pre_norm_are_kept_in_a_layout_of_their_own(transformers, tmp_path):
    model = built("marian", "float32", normalize_before=True, static_position_embeddings=False)
    names = {name for name, _ in model.named_parameters()}
    own = {
        f"model.{side}.{part}" for side in ("encoder", "decoder") for part in ("layer_norm.weight", "layer_norm.bias")
    }
    assert own <= names
    assert "model.encoder.embed_positions.weight" in names
    inputs = tensors(batch())
    loss = model.loss(**inputs)
    loss.backward()
    assert np.abs(model.model.decoder.embed_positions.weight.grad.array[: T - 1]).max() > 0
    model.save_pretrained(tmp_path)
    again = models.MarianMTModel.from_pretrained(tmp_path)
    assert_same(again.loss(**inputs), loss.array, rtol=0)
    with pytest.raises(ValueError, match="minilm-marian"):
        transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path)


def test_pre_norm_leaves_what_comes_in_untouched_where_the_parts_give_nothing():
    """x + f(norm(x)) with f = 0 is x, and only the last norm changes it; post-norm would normalise each time."""
    model = built("marian", normalize_before=True)
    for name, parameter in model.named_parameters():
        if "out_proj" in name or "fc2" in name:
            parameter.array[...] = 0
    inputs = tensors(batch())
    states = model(**inputs, output_hidden_states=True).encoder_hidden_states
    assert_same(states[1], states[0].array, rtol=0)
    assert_same(states[2], model.encoder.layer_norm(states[0]).array, rtol=0)


def test_more_positions_than_there_are_are_refused():
    model, one = built("marian"), ml.tensor(np.ones((1, 1), int))
    long = ml.tensor(np.ones((1, 14), int))
    with pytest.raises(ShapeError, match=r"input_ids of shape .* at most 13 positions"):
        model(long, labels=one)
    with pytest.raises(ShapeError, match="at most 13 positions"):
        model.loss(one, None, long)
    with ml.no_grad():
        cache = model.new_cache(model.encode(one), max_length=20)
        model.decode(long[:, :13], cache=cache)
        with pytest.raises(ShapeError, match="behind 13 others"):
            model.decode(one, cache=cache)
