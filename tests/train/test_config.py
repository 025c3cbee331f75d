"""TrainConfig: built from defaults, a file and settings, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from minilm.errors import ConfigError
from minilm.models.gpt import GPTConfig
from minilm.train import TrainConfig
from minilm.train.config import parse_setting
from minilm.train.pretraining import PretrainConfig


def test_the_defaults_are_the_reference_run():
    config = TrainConfig.build()
    m = config.model
    assert (m.n_layer, m.n_head, m.n_embd, m.block_size, m.dropout, m.bias) == (4, 4, 128, 64, 0.0, False)
    assert (config.batch_size, config.steps, config.learning_rate, config.min_learning_rate) == (12, 2000, 1e-3, 1e-4)
    assert (config.warmup_steps, config.beta2, config.weight_decay, config.grad_clip) == (100, 0.99, 0.1, 1.0)


def test_a_saved_configuration_comes_back(tmp_path):
    config = TrainConfig(
        model=GPTConfig(vocab_size=7, n_layer=3, n_embd=24, n_head=4), steps=9, tokenizer="bpe", seed=5
    )
    config.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert TrainConfig.build(tmp_path / "config.json") == config
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert json.loads((tmp_path / "config.json").read_text()) == asdict(config)


def test_settings_go_over_the_file_and_the_file_over_the_defaults(tmp_path):
    file = tmp_path / "some.json"
    file.write_text('{"steps": 7, "batch_size": 5, "model": {"n_layer": 2, "n_head": 8}}')
    config = TrainConfig.build(file, {"batch_size": 6, "model.n_layer": 3})
    assert (config.steps, config.batch_size, config.seed) == (7, 6, 1337)
    assert (config.model.n_layer, config.model.n_head, config.model.n_embd) == (3, 8, 128)
    assert TrainConfig.build() == TrainConfig()  # nothing of it stayed in the defaults


def test_numbers_take_their_fields_type():
    config = TrainConfig.build(None, {"steps": 10.0, "learning_rate": 1, "min_learning_rate": 0, "model.dropout": 0})
    assert [type(v) for v in (config.steps, config.learning_rate, config.model.dropout)] == [int, float, float]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stepz": 5}, r"unknown key 'stepz' \(did you mean 'steps'\?\); the keys are model, task, "),
        ({"model.n_layers": 5}, r"in model: unknown key 'n_layers' \(did you mean 'n_layer'\?\)"),
        ({"learnig_rate": 5}, r"did you mean 'learning_rate'"),
        ({"xyz": 5}, r"unknown key 'xyz'; the keys are"),
        ({"": 5}, "unknown key ''"),
        ({".steps": 5}, "unknown key ''"),
        ({"model.": 5}, "in model: unknown key ''"),
        ({"model": 5}, "model must be a group of keys, not 5"),
        ({"steps.x": 5}, "steps must be a whole number, not {'x': 5}"),
        ({"model.n_layer.x": 5}, "in model: n_layer must be a whole number"),
        ({"model.n_embd": 130}, r"in model: n_embd must be a multiple of n_head \(4\), not 130"),
        ({"model.vocab_size": 5}, "model.vocab_size follows from the tokenizer"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"steps": -3}, "steps must be at least 1, not -3"),
        ({"steps": 2.5}, "steps must be a whole number, not 2.5"),
        ({"steps": "many"}, "steps must be a whole number, not 'many'"),
        ({"steps": True}, "steps must be a whole number, not True"),
        ({"steps": None}, "steps must be a whole number, not None"),
        ({"steps": float("inf")}, "steps must be a whole number, not inf"),
        ({"steps": float("nan")}, "steps must be a whole number, not nan"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 2**31}, r"batch_size must be below 2\*\*31, not 2147483648"),
        ({"eval_batches": 0}, "eval_batches"),
        ({"log_every": 0}, "log_every"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0"),
        ({"grad_clip": float("nan")}, "grad_clip must be at least 0, not nan"),
        ({"learning_rate": 0}, "learning_rate must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0, not nan"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"learning_rate": 10**400}, "learning_rate must be a number"),
        ({"learning_rate": 1e-5}, r"min_learning_rate must be from 0 to the learning_rate \(1e-05\), not 0.0001"),
        ({"beta2": 1.0}, "beta2 must be at least 0 and below 1"),
        ({"train_fraction": 1.0}, "train_fraction must be between 0 and 1"),
        ({"tokenizer": "word"}, "tokenizer must be 'char' or 'bpe', not 'word'"),
        ({"tokenizer": 1}, "tokenizer must be a text, not 1"),
        ({"bpe_vocab_size": 256}, "bpe_vocab_size must be at least 257"),
        ({"seed": -1}, "seed must be from 0"),
        ({"seed": 2**64}, "seed must be from 0"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig.build(None, settings)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b'{"steps": 5', "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1, 2]", "a JSON object with the configuration's keys was expected"),
        (b'{"steps": 0}', "steps must be at least 1"),
        (b'{"model": [1]}', r"model must be a group of keys, not \[1\]"),
        (b'{"model": {"n_head": 7}}', r"n_embd must be a multiple of n_head \(7\), not 128"),
    ],
    ids=lambda v: str(v)[:20],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path, content, message):
    file = tmp_path / "some.json"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        TrainConfig.build(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_a_setting_inside_a_value_of_the_file_is_refused(tmp_path):
    (tmp_path / "some.json").write_text('{"model": 5}')
    with pytest.raises(ConfigError, match=r"model.n_layer: model is a value, not a group of keys"):
        TrainConfig.build(tmp_path / "some.json", {"model.n_layer": 2})


@pytest.mark.parametrize(("name", "message"), [("missing.json", "No such file"), (".", "directory")])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, message):
    with pytest.raises(ConfigError, match=f"cannot be read .*{message}"):
        TrainConfig.build(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model.n_layer=6", ("model.n_layer", 6)),
        ("learning_rate=1e-3", ("learning_rate", 0.001)),
        (" steps = 5 ", ("steps", 5)),
        ("model.bias=true", ("model.bias", True)),
        ("tokenizer=bpe", ("tokenizer", "bpe")),
        ('tokenizer="bpe"', ("tokenizer", "bpe")),
        ("a=b=c", ("a", "b=c")),
        ("a=", ("a", "")),
        ("a=null", ("a", None)),
    ],
)
def test_settings_are_read_as_json_where_they_are(text, expected):
    assert parse_setting(text) == expected


@pytest.mark.parametrize("text", ["steps", "", "=5", " =5"])
def test_what_is_no_setting_is_refused(text):
    with pytest.raises(ConfigError, match=r"a setting reads key=value, as in model\.n_layer=6, not"):
        parse_setting(text)


def test_the_rate_rises_to_its_highest_and_falls_to_its_lowest():
    config = TrainConfig(steps=50, warmup_steps=10, learning_rate=2e-3, min_learning_rate=5e-4)
    rates = [2e-3 * config.schedule()(step) for step in range(50)]
    assert max(rates) == pytest.approx(2e-3)
    assert rates.index(max(rates)) in (9, 10)
    assert rates[:9] == sorted(rates[:9])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(5e-4, rel=0.01)


@pytest.mark.parametrize("steps", [1, 2, 5, 100])
def test_a_run_shorter_than_its_warm_up_has_a_schedule_too(steps):
    factors = [TrainConfig(steps=steps).schedule()(step) for step in range(steps)]
    assert all(0 <= f <= 1 for f in factors)
    assert max(factors) > 0


def test_a_metric_that_the_task_does_not_measure_is_refused():
    with pytest.raises(ConfigError, match="metric must be one of loss, not 'accuracy'"):
        TrainConfig.build(None, {"metric": "accuracy"})
    assert PretrainConfig.build(None, {"metric": "masked_accuracy"}).metric == "masked_accuracy"
