"""BERT and its heads against Hugging Face's, with the same weights; packed against padded; what must be refused."""

from __future__ import annotations

import numpy as np
import pytest

import minilm as ml
from minilm import models, optim, random
from minilm.errors import ConfigError, DtypeError, ShapeError
from minilm.testing import assert_same

HEADS = (
    "BertModel", "BertForPreTraining", "BertForMaskedLM", "BertForNextSentencePrediction",
    "BertForSequenceClassification", "BertForTokenClassification", "BertForQuestionAnswering",
)  # fmt: skip
PER_TOKEN = {"last_hidden_state", "prediction_logits"}


def backward_of(output):
    """A scalar that all results of an output go into, unless there is a loss."""
    if output.get("loss") is not None:
        return output["loss"]
    return (output["last_hidden_state"] ** 2).mean() + (output["pooler_output"] ** 3).mean()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", HEADS)
def test_results_loss_and_every_gradient_equal_hugging_faces(torch, transformers, bert, tmp_path, name, dtype):
    ours = bert.build(name, dtype)
    theirs = bert.beside(transformers, ours, tmp_path)
    inputs = bert.batch()
    inputs |= bert.labels_of(name, inputs["attention_mask"])
    mine, other = ours(**bert.tensors(inputs)), theirs(**bert.tensors(inputs, torch))
    assert set(mine) == set(other)
    rtol = 1e-10 if dtype == "float64" else 2e-5
    for key in other:
        assert_same(mine[key], other[key].detach().numpy(), rtol=rtol, name=key)
    backward_of(mine).backward()
    backward_of(other).backward()
    theirs_by_name = dict(theirs.named_parameters())
    names = [key for key, _ in ours.named_parameters()]
    assert sorted(names) == sorted(theirs_by_name)
    for key, parameter in ours.named_parameters():
        gradient = theirs_by_name[key].grad
        assert (parameter.grad is None) == (gradient is None), key
        if gradient is not None:
            largest = max(float(gradient.abs().max()), 1e-3)  # the keys' biases have none but for rounding
            rtol = 1e-8 if dtype == "float64" else 1e-4
            assert_same(parameter.grad, gradient.numpy(), rtol=rtol, atol=rtol * largest, name=key)


@pytest.mark.parametrize("name", HEADS[1:])
def test_loss_is_that_of_forward_and_of_its_gradients(bert, name):
    model, inputs = bert.build(name), bert.batch()
    labels = bert.labels_of(name, inputs["attention_mask"])
    if name == "BertForQuestionAnswering":  # positions that are there: then both means have as many
        labels = {key: np.clip(value, 0, bert.T - 1) for key, value in labels.items()}
    expected = model(**bert.tensors(inputs | labels))["loss"]
    expected.backward()
    gradients = {key: p.grad.array.copy() for key, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    if name == "BertForQuestionAnswering":
        labels = {"both": np.stack(list(labels.values()), 1)}
    batch = [inputs["input_ids"], inputs["token_type_ids"], inputs["attention_mask"], *labels.values()]
    loss = model.loss(*map(ml.tensor, batch))
    if name == "BertForPreTraining":
        assert isinstance(loss, tuple)
        loss = loss[0] + loss[1]
    assert_same(loss, expected.array, rtol=1e-12)
    loss.backward()
    for key, p in model.named_parameters():
        assert (p.grad is not None) == (key in gradients), key
        if key in gradients:
            assert_same(p.grad, gradients[key], rtol=1e-9, atol=1e-12, name=key)


@pytest.mark.parametrize("name", ["BertForMaskedLM", "BertForTokenClassification", "BertForPreTraining"])
def test_labels_at_padding_count_as_they_do_in_hugging_faces(bert, name):
    model, inputs = bert.build(name), bert.batch()
    labels = bert.labels_of(name, inputs["attention_mask"])
    labels["labels"][2, 4:7] = 2
    expected = model(**bert.tensors(inputs | labels), pack=False)["loss"]
    batch = [inputs["input_ids"], inputs["token_type_ids"], inputs["attention_mask"], *labels.values()]
    loss = model.loss(*map(ml.tensor, batch))
    assert_same(loss[0] + loss[1] if isinstance(loss, tuple) else loss, expected.array, rtol=1e-12)


@pytest.mark.parametrize("left", [False, True], ids=["behind", "before"])
@pytest.mark.parametrize("name", HEADS)
def test_packing_changes_nothing_but_padding(bert, name, left):
    model, inputs = bert.build(name, num_labels=2), bert.batch(left=left)
    padded = model(**bert.tensors(inputs), pack=False)
    packed = model(**bert.tensors(inputs), pack=True)
    mask = inputs["attention_mask"].astype(bool)
    assert set(padded) == set(packed)
    for key in padded:
        ours, full = packed[key].array, padded[key].array
        if full.shape[:2] == mask.shape:
            assert_same(ours[mask], full[mask], rtol=1e-12, name=key)
            nowhere = ~mask
            nowhere[:, 0] = False  # the first position is computed always
            assert not ours[nowhere].any()
        else:
            assert_same(ours, full, rtol=1e-12, name=key)


def test_packing_saves_the_rows_of_padding(bert):
    inputs = bert.tensors(bert.batch())
    positions = models.bert.Positions((bert.B, bert.T), inputs["attention_mask"], pack=True)
    assert positions.rows(inputs["input_ids"]).shape == (sum(bert.LENGTHS),)
    assert models.bert.Positions((bert.B, bert.T), inputs["attention_mask"]).places is None


@pytest.mark.parametrize("name", HEADS)
def test_padding_changes_nothing(bert, name):
    model, inputs = bert.build(name, num_labels=2), bert.batch()
    together = model(**bert.tensors(inputs), pack=False)
    for row, length in enumerate(bert.LENGTHS):
        alone = {key: value[row : row + 1, :length] for key, value in inputs.items() if key != "attention_mask"}
        for key, value in model(**bert.tensors(alone)).items():
            expected = together[key].array[row : row + 1]
            expected = expected[:, :length] if expected.shape[1:2] == (bert.T,) else expected
            assert_same(value, expected, rtol=1e-10, name=f"{key} of sentence {row}")


def test_what_stands_at_padding_moves_nothing(bert):
    model, inputs = bert.build("BertModel"), bert.batch()
    mask = inputs["attention_mask"].astype(bool)
    before = model(**bert.tensors(inputs))
    changed = {**inputs, "input_ids": np.where(mask, inputs["input_ids"], 7)}
    after = model(**bert.tensors(changed))
    assert np.array_equal(before["last_hidden_state"].array[mask], after["last_hidden_state"].array[mask])
    assert not np.array_equal(before["last_hidden_state"].array, after["last_hidden_state"].array)
    assert np.array_equal(before["pooler_output"].array, after["pooler_output"].array)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu"])
def test_every_activation_equals_hugging_faces(torch, transformers, bert, tmp_path, activation):
    ours = bert.build("BertForMaskedLM", hidden_act=activation)
    theirs = bert.beside(transformers, ours, tmp_path)
    inputs = bert.batch()
    expected = theirs(**bert.tensors(inputs, torch)).logits.detach().numpy()
    assert_same(ours(**bert.tensors(inputs)).logits, expected, rtol=1e-10)


def test_untied_scores_equal_hugging_faces(torch, transformers, bert, tmp_path):
    ours = bert.build("BertForMaskedLM", tie_word_embeddings=False)
    assert ours.cls["predictions"].decoder.weight is not ours.bert.embeddings.word_embeddings.weight
    theirs = bert.beside(transformers, ours, tmp_path)
    inputs = bert.batch()
    assert_same(
        ours(**bert.tensors(inputs)).logits, theirs(**bert.tensors(inputs, torch)).logits.detach().numpy(), rtol=1e-10
    )


@pytest.mark.parametrize(
    ("settings", "labels"),
    [
        ({"num_labels": 1}, np.array([0.5, -1.0, 2.0, 0.0, 1.0])),
        ({"num_labels": 3, "problem_type": "regression"}, np.arange(15.0).reshape(5, 3)),
        ({"num_labels": 3}, np.arange(15).reshape(5, 3) % 2 * 1.0),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, np.arange(15).reshape(5, 3) % 2 * 1.0),
        ({"num_labels": 3, "problem_type": "single_label_classification"}, np.array([0, 2, 1, -100, 1])),
    ],
    ids=str,
)
def test_every_kind_of_problem_has_hugging_faces_loss(torch, transformers, bert, tmp_path, settings, labels):
    ours = bert.build("BertForSequenceClassification", **settings)
    theirs = bert.beside(transformers, ours, tmp_path)
    inputs = bert.batch() | {"labels": labels}
    expected = theirs(**bert.tensors(inputs, torch)).loss.detach().numpy()
    assert_same(ours(**bert.tensors(inputs)).loss, expected, rtol=1e-11)


def test_hidden_states_and_attentions_equal_hugging_faces(torch, transformers, bert, tmp_path):
    ours = bert.build("BertForSequenceClassification")
    theirs = bert.beside(transformers, ours, tmp_path)
    theirs.set_attn_implementation("eager")
    inputs, asked = bert.batch(), {"output_hidden_states": True, "output_attentions": True}
    mine, other = ours(**bert.tensors(inputs), **asked), theirs(**bert.tensors(inputs, torch), **asked)
    assert len(mine.hidden_states) == 3
    assert len(mine.attentions) == 2
    for key in ("hidden_states", "attentions"):
        for layer, (a, b) in enumerate(zip(mine[key], other[key], strict=True)):
            assert_same(a, b.detach().numpy(), rtol=1e-10, name=f"{key}[{layer}]")
    assert_same(mine.logits, other.logits.detach().numpy(), rtol=1e-10)
    plain = ours(**bert.tensors(inputs))
    assert_same(mine.logits, plain.logits.array, rtol=1e-10)
    assert plain.hidden_states is None
    assert "hidden_states" not in plain
    assert mine[0] is mine["logits"]
    with pytest.raises(AttributeError, match="no 'nothing'"):
        _ = mine.nothing


def test_positions_of_ones_own_equal_hugging_faces(torch, transformers, bert, tmp_path):
    ours = bert.build("BertModel")
    theirs = bert.beside(transformers, ours, tmp_path)
    inputs = bert.batch() | {"position_ids": np.arange(bert.T)[None, ::-1] + 1}
    expected = theirs(**bert.tensors(inputs, torch)).last_hidden_state.detach().numpy()
    assert_same(ours(**bert.tensors(inputs)).last_hidden_state, expected, rtol=1e-10)


# --- training ---------------------------------------------------------------------------------------


def training_batch(bert, name):
    inputs = bert.batch()
    labels = bert.labels_of(name, inputs["attention_mask"])
    return [inputs["input_ids"], inputs["token_type_ids"], inputs["attention_mask"], *labels.values()]


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "BertForTokenClassification"])
def test_with_dropout_packed_equals_padded(bert, name, monkeypatch):
    model = bert.build(name, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2).train()
    batch = training_batch(bert, name)

    def gradients():
        ml.manual_seed(3)
        model.zero_grad()
        loss = model.loss(*map(ml.tensor, batch))
        loss.backward()
        return loss.item(), {key: p.grad.array.copy() for key, p in model.named_parameters()}

    loss, packed = gradients()
    init = models.bert.Positions.__init__
    monkeypatch.setattr(
        models.bert.Positions, "__init__", lambda self, shape, mask, pack=False, also=None: init(self, shape, mask)
    )
    padded_loss, padded = gradients()
    assert loss == pytest.approx(padded_loss, rel=1e-12)
    for key in packed:
        assert_same(packed[key], padded[key], rtol=1e-9, atol=1e-12, name=key)
    model.eval()
    assert gradients()[0] != pytest.approx(loss, rel=1e-3)  # something was dropped


def test_micro_batches_drop_what_the_whole_batch_drops(bert):
    model = bert.build("BertForSequenceClassification", hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2)
    model.train()
    batch = training_batch(bert, "BertForSequenceClassification")

    def gradients(pieces):
        model.zero_grad()
        total = 0.0
        for first, end in pieces:
            ml.manual_seed(3)
            with random.examples(first, end - first, bert.B):
                loss = model.loss(*(ml.tensor(x[first:end]) for x in batch)) * ((end - first) / bert.B)
                loss.backward()
            total += loss.item()
        return total, {key: p.grad.array.copy() for key, p in model.named_parameters()}

    whole, expected = gradients([(0, 5)])
    for pieces in ([(0, 2), (2, 5)], [(0, 1), (1, 4), (4, 5)]):
        total, found = gradients(pieces)
        assert total == pytest.approx(whole, rel=1e-12)
        for key, gradient in found.items():
            assert_same(gradient, expected[key], rtol=1e-9, atol=1e-12, name=key)


def test_activations_computed_again_give_the_same_gradients(bert):
    model = bert.build("BertForMaskedLM", hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2).train()
    batch = training_batch(bert, "BertForMaskedLM")
    found = []
    for again in (False, True):
        ml.manual_seed(5)
        model.zero_grad()
        model.recompute = again
        assert model.bert.encoder.recompute is again
        model.loss(*map(ml.tensor, batch)).backward()
        found.append([p.grad.array.copy() for p in model.parameters()])
    for a, b in zip(*found):
        assert np.array_equal(a, b)


def test_ten_steps_of_adamw_equal_hugging_faces(torch, transformers, bert, tmp_path):
    name = "BertForSequenceClassification"
    ours = bert.build(name)
    theirs = bert.beside(transformers, ours, tmp_path)  # dropout is 0 in eval mode, on both sides
    optimizer = optim.AdamW(ours.parameters(), lr=1e-3, weight_decay=0.1)
    other = torch.optim.AdamW(theirs.parameters(), lr=1e-3, weight_decay=0.1)
    for step in range(10):
        inputs = bert.batch(step)
        inputs |= bert.labels_of(name, inputs["attention_mask"], step)
        loss, expected = ours(**bert.tensors(inputs)).loss, theirs(**bert.tensors(inputs, torch)).loss
        assert_same(loss, expected.detach().numpy(), rtol=1e-7, name=f"loss of step {step}")
        for opt, value in ((optimizer, loss), (other, expected)):
            opt.zero_grad()
            value.backward()
            opt.step()


@pytest.mark.parametrize("name", ["BertForMaskedLM", "BertForTokenClassification", "BertForPreTraining"])
def test_a_batch_without_a_label_costs_nothing(bert, name):
    model, inputs = bert.build(name), bert.batch()
    labels = [np.full((bert.B, bert.T), -100)] + ([np.ones(bert.B, int)] if name == "BertForPreTraining" else [])
    loss = model.loss(
        *map(ml.tensor, [inputs["input_ids"], inputs["token_type_ids"], inputs["attention_mask"], *labels])
    )
    first = loss[0] if isinstance(loss, tuple) else loss
    assert first.item() == 0
    first.backward()


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "BertForNextSentencePrediction"])
def test_the_last_layer_computes_the_first_tokens_alone(bert, name, monkeypatch):
    model, seen = bert.build(name), []
    forward = models.bert.BertDense.forward
    monkeypatch.setattr(models.bert.BertDense, "forward", lambda self, x: seen.append(x.shape[0]) or forward(self, x))
    inputs = bert.tensors(bert.batch())
    model(**inputs)
    assert seen == [sum(bert.LENGTHS), bert.B]
    seen.clear()
    model(**inputs, output_hidden_states=True)
    assert seen == [bert.B * bert.T] * 2


def test_only_the_scores_of_masked_tokens_are_computed(bert, monkeypatch):
    model, batch = bert.build("BertForMaskedLM"), training_batch(bert, "BertForMaskedLM")
    seen = []
    forward = type(model.cls["predictions"].transform).forward
    monkeypatch.setattr(
        type(model.cls["predictions"].transform), "forward", lambda self, x: seen.append(x.shape) or forward(self, x)
    )
    model.loss(*map(ml.tensor, batch))
    assert seen == [((batch[3] != -100).sum(), 20)]


# --- refusals ---------------------------------------------------------------------------------------


def test_inputs_that_do_not_fit_are_refused(bert):
    model, ok = bert.build("BertForTokenClassification"), bert.tensors(bert.batch())
    ids = ok["input_ids"]
    with pytest.raises(ShapeError, match="1 to 13 positions"):
        model(ml.tensor(np.zeros((2, 14), int)))
    with pytest.raises(ShapeError, match=r"\(B, T\) was expected"):
        model(ids[0])
    with pytest.raises(ShapeError, match=r"attention_mask has shape \(5, 10\)"):
        model(ids, ok["attention_mask"][:, 1:])
    with pytest.raises(ShapeError, match=r"token_type_ids has shape \(5, 10\)"):
        model(ids, None, ok["token_type_ids"][:, 1:])
    with pytest.raises(DtypeError, match="input_ids is a Tensor of numbers, not list"):
        model([[1, 2]])
    with pytest.raises(IndexError, match="the table has rows 0"):
        model(ml.tensor([[1, 31]]))
    with pytest.raises(TypeError, match="labels are labels, not label"):
        model(ids, label=ids)
    with pytest.raises(DtypeError, match="labels are whole numbers"):
        model(ids, labels=ids.to(ml.float32))
    with pytest.raises(ShapeError, match=r"labels have the shape \(5, 10\)"):
        model.loss(ids, ids, ids, ids[:, 1:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 21}, "hidden_size must be a multiple of num_attention_heads"),
        ({"num_attention_heads": 0}, "num_attention_heads must be at least 1"),
        ({"hidden_act": "mish"}, "hidden_act must be one of gelu"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob must be at least 0 and below 1"),
        ({"classifier_dropout": -0.1}, "classifier_dropout must be"),
        ({"pad_token_id": 31}, "pad_token_id must be from 0 to 30"),
        ({"problem_type": "ranking"}, "problem_type must be null or one of"),
        ({"num_labels": 2, "id2label": {"0": "a", "1": "b", "2": "c"}}, "num_labels is 2, and id2label names 3"),
        ({"id2label": {"1": "a"}}, "id2label must number its names from 0"),
        ({"id2label": {"x": "a"}}, "id2label must give numbers names"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key' is not supported"),
        ({"is_decoder": True}, "is_decoder True is not supported"),
        ({"add_cross_attention": True}, "add_cross_attention True is not supported"),
        ({"model_type": "roberta"}, "model_type 'roberta' is not supported"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"vocab_size": "many"}, "vocab_size must be a whole number"),
    ],
    ids=str,
)
def test_configurations_that_cannot_be_are_refused(bert, settings, message):
    shape = {key: value for key, value in bert.SHAPE.items() if key != "num_labels"}
    with pytest.raises(ConfigError, match=message):
        models.BertConfig.from_dict({**shape, **settings})


def test_answers_have_two_labels(bert):
    with pytest.raises(ConfigError, match="2 labels, not 3"):
        models.BertForQuestionAnswering(models.BertConfig(**bert.SHAPE))


def test_what_a_configuration_says_beside_comes_back(bert):
    values = {"vocab_size": 5, "id2label": {"1": "no", "0": "yes"}, "transformers_version": "4.8.2", "use_cache": True}
    config = models.BertConfig.from_dict(values)
    assert config.num_labels == 2
    assert config.label2id == {"yes": 0, "no": 1}
    again = config.to_dict()
    assert again["transformers_version"] == "4.8.2"
    assert again["use_cache"] is True
    assert again["model_type"] == "bert"
    assert models.BertConfig.from_dict(again) == models.BertConfig.from_dict({**values, "model_type": "bert"})
