"""Hugging Face's directories: read, written, in older layouts and types of numbers, in shards, and damaged."""

from __future__ import annotations

import json
import struct
import warnings

import numpy as np
import pytest
import safetensors.numpy

import minilm as ml
from minilm import models, serialization
from minilm.errors import CheckpointError, ConfigError
from minilm.models import hub
from minilm.models.pretrained import PretrainedWarning
from minilm.testing import assert_same

CLASSIFIER = "BertForSequenceClassification"


@pytest.fixture
def saved(bert, tmp_path):
    """A classifier and the folder it was saved to."""
    model = bert.build(CLASSIFIER, "float32")
    model.save_pretrained(tmp_path / "model")
    return model, tmp_path / "model"


def weights_of(folder):
    return safetensors.numpy.load_file(folder / "model.safetensors")


def rewrite(folder, change):
    """Write the folder's weights anew, changed: `change` gives name and array for name and array, or None."""
    changed = [change(name, array) for name, array in weights_of(folder).items()]
    safetensors.numpy.save_file(dict(pair for pair in changed if pair is not None), folder / "model.safetensors")


def same_logits(bert, a, b, rtol=0.0):
    inputs = bert.tensors(bert.batch())
    assert_same(a(**inputs).logits, b(**inputs).logits.array, rtol=rtol)


def names_of(report):
    return set(report.missing_keys), set(report.unexpected_keys), {name for name, *_ in report.mismatched_keys}


def test_a_model_comes_back_to_the_bit_in_evaluation_mode(bert, saved):
    model, folder = saved
    again, report = models.BertForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert names_of(report) == (set(), set(), set())
    assert not again.training
    assert again.config.to_dict() == {**model.config.to_dict(), "architectures": [CLASSIFIER], "dtype": "float32"}
    same_logits(bert, again, model)
    again.save_pretrained(folder)
    same_logits(bert, models.BertForSequenceClassification.from_pretrained(str(folder)), model)


@pytest.mark.parametrize("kind", ["BertForPreTraining", "BertForMaskedLM", CLASSIFIER, "BertForTokenClassification"])
def test_what_transformers_writes_is_read_with_identical_outputs(torch, transformers, bert, tmp_path, kind):
    torch.manual_seed(0)
    shape = {**bert.SHAPE, "id2label": {0: "a", 1: "b", 2: "c"}}
    shape.pop("num_labels")
    theirs = getattr(transformers, kind)(transformers.BertConfig(**shape)).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    theirs.save_pretrained(tmp_path)
    ours, report = getattr(models, kind).from_pretrained(tmp_path, output_loading_info=True)
    assert names_of(report) == (set(), set(), set())
    assert ours.config.id2label == {0: "a", 1: "b", 2: "c"}
    inputs = bert.batch()
    mine, other = ours(**bert.tensors(inputs)), theirs(**bert.tensors(inputs, torch))
    mask = inputs["attention_mask"].astype(bool)
    for key in other:
        a, b = mine[key].array, other[key].detach().numpy()
        a, b = (a[mask], b[mask]) if a.shape[:2] == mask.shape else (a, b)
        assert_same(a, b, rtol=0, atol=1e-6 * max(1, np.abs(b).max()), name=key)


def test_tied_weights_are_written_once(bert, tmp_path):
    model = bert.build("BertForPreTraining", "float32")
    model.save_pretrained(tmp_path)
    names = set(weights_of(tmp_path))
    assert "bert.embeddings.word_embeddings.weight" in names
    assert "cls.predictions.bias" in names
    assert not any(name.startswith("cls.predictions.decoder") for name in names)
    again = models.BertForPreTraining.from_pretrained(tmp_path)
    assert again.cls["predictions"].decoder.weight is again.bert.embeddings.word_embeddings.weight
    assert again.cls["predictions"].decoder.bias is again.cls["predictions"].bias
    inputs = bert.tensors(bert.batch())
    assert_same(again(**inputs).prediction_logits, model(**inputs).prediction_logits.array, rtol=0)


# --- layouts and types --------------------------------------------------------------------------------


def test_gamma_and_beta_of_older_files_are_read(bert, saved):
    model, folder = saved
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def change(name, array):
        for new, former in old.items():
            name = name.replace(new, former)
        return name, array

    rewrite(folder, change)
    assert any(name.endswith("gamma") for name in weights_of(folder))
    same_logits(bert, models.BertForSequenceClassification.from_pretrained(folder), model)


def test_the_prefix_may_be_there_or_not(bert, saved, tmp_path):
    model, folder = saved
    with pytest.warns(PretrainedWarning, match=r"left out: classifier\.bias, classifier\.weight"):
        encoder = models.BertModel.from_pretrained(folder)
    inputs = bert.tensors(bert.batch())
    assert_same(encoder(**inputs).pooler_output, model.bert(**inputs).pooler_output.array, rtol=0)
    encoder.save_pretrained(tmp_path / "encoder")
    assert not any(name.startswith("bert.") for name in weights_of(tmp_path / "encoder"))
    with pytest.warns(PretrainedWarning, match=r"new initial values: classifier\.weight, classifier\.bias"):
        again = models.BertForSequenceClassification.from_pretrained(tmp_path / "encoder")
    assert_same(again.bert(**inputs).pooler_output, model.bert(**inputs).pooler_output.array, rtol=0)
    assert abs(float(again.classifier.weight.array.std()) - 0.02) < 0.01
    assert not again.classifier.bias.array.any()
    again.classifier.load_state_dict(model.classifier.state_dict())
    same_logits(bert, again, model)


def test_buffers_of_older_files_are_no_weights(bert, saved):
    model, folder = saved
    content = weights_of(folder) | {"bert.embeddings.position_ids": np.arange(13)[None]}
    safetensors.numpy.save_file(content, folder / "model.safetensors")
    same_logits(bert, models.BertForSequenceClassification.from_pretrained(folder), model)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_types_of_numbers_are_read_as_float32(torch, transformers, bert, saved, dtype):
    _, folder = saved
    theirs = getattr(transformers, CLASSIFIER).from_pretrained(folder).to(getattr(torch, dtype))
    theirs.save_pretrained(folder)
    ours = models.BertForSequenceClassification.from_pretrained(folder)
    assert {p.dtype.name for p in ours.parameters()} == {"float32"}
    inputs = bert.batch()
    expected = theirs.float().eval()(**bert.tensors(inputs, torch)).logits.detach().numpy()
    assert_same(ours(**bert.tensors(inputs)).logits, expected, rtol=1e-5)


def shards(folder, parts=3):
    """The folder's weights dealt into shards with an index, in place of the one file."""
    weights = weights_of(folder)
    places = {}
    for part in range(parts):
        name = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        chosen = {key: weights[key] for key in sorted(weights)[part::parts]}
        safetensors.numpy.save_file(chosen, folder / name)
        places |= dict.fromkeys(chosen, name)
    (folder / "model.safetensors").unlink()
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def test_shards_are_read(bert, saved):
    model, folder = saved
    shards(folder)
    same_logits(bert, models.BertForSequenceClassification.from_pretrained(folder), model)


def test_shards_of_transformers_are_read(torch, transformers, bert, saved):
    model, folder = saved
    getattr(transformers, CLASSIFIER).from_pretrained(folder).save_pretrained(folder, max_shard_size="5KB")
    (folder / "model.safetensors").unlink()
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    same_logits(bert, models.BertForSequenceClassification.from_pretrained(folder), model)


# --- what does not agree is listed --------------------------------------------------------------------


def refused(folder, message, kind=models.BertForSequenceClassification, error=CheckpointError, **settings):
    with pytest.raises(error, match=message) as caught:
        kind.from_pretrained(folder, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_weights_of_the_encoder_are_an_error_that_lists_them(saved):
    _, folder = saved
    gone = {"bert.encoder.layer.1.output.dense.bias", "bert.embeddings.LayerNorm.weight"}
    rewrite(folder, lambda name, array: None if name in gone else (name, array))
    message = refused(folder, "does not fit BertForSequenceClassification: missing: ")
    assert all(name in message for name in gone)
    rewrite(folder, lambda name, array: ("x." + name, array))
    assert "unexpected: x.bert." in refused(folder, "missing: bert.embeddings.word_embeddings.weight, ")


def test_weights_of_another_shape_are_an_error_unless_asked_for(bert, saved):
    model, folder = saved
    message = refused(folder, "of another shape: ", num_labels=5)
    assert "classifier.weight (3, 20), not (5, 20), classifier.bias (3,), not (5,)" in message
    assert "ignore_mismatched_sizes=True" in message
    with pytest.warns(PretrainedWarning, match=r"of another shape: classifier\.weight"):
        again = models.BertForSequenceClassification.from_pretrained(folder, num_labels=5, ignore_mismatched_sizes=True)
    assert again.config.id2label[4] == "LABEL_4"
    inputs = bert.tensors(bert.batch())
    assert again(**inputs).logits.shape == (bert.B, 5)
    assert_same(again.bert(**inputs).pooler_output, model.bert(**inputs).pooler_output.array, rtol=0)
    assert 0 < again.classifier.weight.array.std() < 0.04


def test_a_vocabulary_of_another_size_is_refused(saved):
    _, folder = saved
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 30}))
    refused(folder, r"of another shape: bert.embeddings.word_embeddings.weight \(31, 20\), not \(30, 20\)")


def test_two_values_of_a_tied_weight_are_listed(bert, tmp_path):
    model = bert.build("BertForMaskedLM", "float32")
    model.save_pretrained(tmp_path)
    tied = weights_of(tmp_path)["bert.embeddings.word_embeddings.weight"]
    for value, expected in ((tied, set()), (tied + 1, {"cls.predictions.decoder.weight"})):
        content = weights_of(tmp_path) | {"cls.predictions.decoder.weight": value}
        safetensors.numpy.save_file(content, tmp_path / "model.safetensors")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, report = models.BertForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
        assert names_of(report) == (set(), expected, set())


def test_settings_change_the_configuration(saved):
    _, folder = saved
    model = models.BertForSequenceClassification.from_pretrained(
        folder, hidden_dropout_prob=0.25, id2label={0: "x", 1: "y", 2: "z"}, problem_type="regression"
    )
    assert model.dropout.p == 0.25
    assert model.config.label2id == {"x": 0, "y": 1, "z": 2}
    refused(folder, r"config\.json: hidden_act must be", error=ConfigError, hidden_act="mish")


# --- bad files ----------------------------------------------------------------------------------------


def header_of(folder, change):
    """Rewrite the header of the folder's file."""
    place = folder / "model.safetensors"
    content = place.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    place.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])


def overlap(header):
    names = [name for name in header if name.endswith("query.bias")]
    header[names[0]]["data_offsets"] = header[names[1]]["data_offsets"]


def enlarge(header):
    header["classifier.weight"]["shape"] = [2**40, 2**40]


def stretch(header):
    begin, _ = header["classifier.weight"]["data_offsets"]
    header["classifier.weight"] = {"dtype": "F32", "shape": [2**38], "data_offsets": [begin, begin + 2**40]}


def unknown_type(header):
    header["classifier.weight"]["dtype"] = "F128"


@pytest.mark.parametrize("damage", [overlap, enlarge, stretch, unknown_type])
def test_headers_that_lie_are_refused(saved, damage):
    _, folder = saved
    header_of(folder, damage)
    refused(folder, r"model\.safetensors: it cannot be read as safetensors")


@pytest.mark.parametrize("size", [2**63, 2**64 - 1, 2**30, 0])
def test_headers_of_impossible_sizes_are_refused(saved, size):
    _, folder = saved
    place = folder / "model.safetensors"
    place.write_bytes(struct.pack("<Q", size) + place.read_bytes()[8:])
    refused(folder, r"model\.safetensors: it cannot be read as safetensors")


def test_a_file_cut_short_is_refused(saved):
    _, folder = saved
    place = folder / "model.safetensors"
    place.write_bytes(place.read_bytes()[:-100])
    refused(folder, "perhaps it was cut short")


def test_weights_that_are_no_numbers_are_refused(saved):
    _, folder = saved
    rewrite(folder, lambda name, array: (name, array * np.nan if name == "classifier.bias" else array))
    refused(folder, "the tensor classifier.bias holds NaN or infinity")


def test_bfloat16_comes_as_the_float32_that_it_is(tmp_path):
    values = np.array([[1.0, -2.5, 0.0], [3e38, 1e-40, -0.0]], np.float32)
    upper = (values.view(np.uint32) >> 16).astype("<u2")
    header = {"first": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
              "x": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [4, 16]},
              "none": {"dtype": "BF16", "shape": [0, 3], "data_offsets": [16, 16]}}  # fmt: skip
    text = json.dumps(header).encode()
    place = tmp_path / "x.safetensors"
    place.write_bytes(struct.pack("<Q", len(text)) + text + np.ones(1, "<f4").tobytes() + upper.tobytes())
    found = serialization.load(place)
    assert found["x"].dtype == ml.float32
    expected = (upper.astype(np.uint32) << 16).view(np.float32)
    assert found["x"].array.tobytes() == expected.tobytes()
    assert found["none"].shape == (0, 3)
    found["x"].array[0, 0] = 7  # what was read can be written
    place.write_bytes(place.read_bytes()[:-1] + b"\x7f")  # the last -0.0 becomes NaN's or a large number's sign
    assert serialization.load(place)["x"].array[1, 2] == np.array([0x7F00 << 16], np.uint32).view(np.float32)[0]


def test_folders_without_weights_say_what_to_do(saved, tmp_path):
    _, folder = saved
    (folder / "model.safetensors").unlink()
    refused(folder, r"there is no model\.safetensors in it")
    (folder / "bert_model.ckpt.index").write_bytes(b"")
    message = refused(folder, "a TensorFlow checkpoint. Convert it")
    assert "load_tf_weights_in_bert" in message
    (folder / "pytorch_model.bin").write_bytes(b"")
    refused(folder, r"only pytorch_model\.bin is here, a pickle")
    (folder / "config.json").unlink()
    refused(folder, r"config\.json: there is no such file")


def test_the_way_to_convert_pytorchs_file_works(torch, bert, saved, monkeypatch):
    model, folder = saved
    state = {name: torch.from_numpy(a.copy()) for name, a in weights_of(folder).items()}
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    message = refused(folder, "a pickle")
    script = message.partition('python -c "')[2].removesuffix('"')
    monkeypatch.chdir(folder)
    exec(script, {})
    same_logits(bert, models.BertForSequenceClassification.from_pretrained(folder), model)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff", "[" * 100000])
def test_configurations_that_are_no_json_are_refused(saved, text):
    _, folder = saved
    (folder / "config.json").write_text(text, encoding="latin-1")
    refused(folder, r"config\.json: ")


def test_indices_of_shards_that_lie_are_refused(saved):
    _, folder = saved
    index = shards(folder)
    place = folder / "model.safetensors.index.json"
    places = index["weight_map"]

    def write(weight_map):
        place.write_text(json.dumps({"weight_map": weight_map}))

    write({**places, "classifier.bias": "../model-00001-of-00003.safetensors"})
    refused(folder, "names a file elsewhere")
    write({**places, "more": "model-00001-of-00003.safetensors"})
    refused(folder, "its shards lack more")
    write({**places, "classifier.bias": "absent.safetensors"})
    refused(folder, r"absent\.safetensors: there is no such file")
    write([])
    refused(folder, "has no weight_map")
    write({**places, "classifier.bias": 3})
    refused(folder, "has no weight_map")
    write(places)
    (folder / "model-00002-of-00003.safetensors").write_bytes(
        (folder / "model-00001-of-00003.safetensors").read_bytes()
    )
    refused(folder, "stands in another shard too")


def test_a_failed_save_leaves_what_was_there(bert, saved, monkeypatch):
    model, folder = saved
    other = bert.build(CLASSIFIER, "float32", seed=1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        other.save_pretrained(folder)
    monkeypatch.undo()
    assert not list(folder.glob(".*"))
    same_logits(bert, models.BertForSequenceClassification.from_pretrained(folder), model)


# --- names ------------------------------------------------------------------------------------------


def into_cache(folder, cache, name, revision="abc123"):
    home = cache / ("models--" + name.replace("/", "--"))
    snapshot = home / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for file in folder.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(revision + "\n")
    return snapshot


@pytest.mark.parametrize(
    ("asked", "cached"),
    [
        ("bert-base-uncased", "bert-base-uncased"),
        ("bert-base-uncased", "google-bert/bert-base-uncased"),
        ("a/b", "a/b"),
    ],
)
@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"])
def test_a_name_is_looked_for_in_the_cache(bert, saved, tmp_path, monkeypatch, asked, cached, variable):
    model, folder = saved
    inner = {"HF_HUB_CACHE": "", "HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}[variable]
    for other in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "cache"))
    snapshot = into_cache(folder, tmp_path / "cache" / inner, cached)
    assert hub.found(asked) == snapshot
    same_logits(bert, models.BertForSequenceClassification.from_pretrained(asked), model)


def test_without_the_hub_the_error_says_how(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = refused("bert-base-uncased", "pip install huggingface_hub")
    assert "hf download google-bert/bert-base-uncased --local-dir FOLDER" in message


def test_what_the_hub_downloads_is_used_and_its_errors_are_one_line(bert, saved, monkeypatch):
    model, folder = saved

    class Hub:
        fails = False

        @classmethod
        def snapshot_download(cls, name, allow_patterns):
            assert name == "owner/model"
            assert "model.safetensors" in allow_patterns
            assert not any(pattern.endswith(".bin") for pattern in allow_patterns)
            if cls.fails:
                raise RuntimeError("offline\nfor now")
            return str(folder)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("importlib.import_module", lambda name: Hub)
    same_logits(bert, models.BertForSequenceClassification.from_pretrained("owner/model"), model)
    Hub.fails = True
    refused("owner/model", r"could not be downloaded \(offline for now\)")


@pytest.mark.parametrize("name", ["a/b/c", "../model", "no such folder", "/absent", "a/../b"])
def test_what_is_neither_folder_nor_name_is_refused(name):
    refused(name, "there is no such folder, and it is no name of a model either")
