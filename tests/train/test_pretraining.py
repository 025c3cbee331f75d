"""BERT's pre-training as a run: the same promises as a GPT's, and at the end a folder that others read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from minilm.errors import CheckpointError, ConfigError, DataError
from minilm.models import BertForPreTraining
from minilm.modes import no_grad
from minilm.serialization import load
from minilm.tensor import Tensor
from minilm.text import BertTokenizer
from minilm.train import LogFile, TrainConfig, load_run
from minilm.train.checkpoint import checkpoints
from minilm.train.pretraining import PRETRAINED, SENTENCES, PretrainConfig, PretrainCorpus
from minilm.train.replay import replay
from minilm.train.run import continued_run, new_run
from minilm.train.tasks import config_from, task
from minilm.train.validation import measure

WORDS = ["king", "queen", "fool", "storm", "sea", "ship", "night", "crown", "sword", "letter", "ghost", "forest"]
SMALL = {
    "model.hidden_size": 16,
    "model.num_hidden_layers": 1,
    "model.num_attention_heads": 2,
    "model.intermediate_size": 32,
    "model.max_position_embeddings": 24,
    "vocab_size": 120,
    "document_gap": 2,
    "batch_size": 5,
    "steps": 12,
    "warmup_steps": 3,
    "eval_every": 4,
    "eval_batches": 3,
    "log_every": 1,
    "checkpoint_every": 5,
}


@pytest.fixture
def plays(tmp_path):
    """A file with a text of seven documents."""
    draws = np.random.default_rng(0)
    plays = []
    for name in WORDS[:7]:
        lines = [
            f"The {name} and the {' '.join(draws.choice(WORDS, 4))}. Then {draws.choice(WORDS)}!" for _ in range(40)
        ]
        plays.append("\n".join(lines))
    path = tmp_path / "plays.txt"
    path.write_text("\n\n\n".join(plays), encoding="utf-8")
    return path


@pytest.fixture
def begin(plays, tmp_path):
    """begin("name", steps=5): the trainer of a small new run, with all that it writes, and its corpus."""

    def begin(name="run", **settings):
        trainer, corpus = new_run(plays, tmp_path / name, PretrainConfig.build(None, {**SMALL, **settings}))
        return observed(trainer, corpus), corpus

    return begin


def observed(trainer, corpus):
    trainer.observers = [LogFile(trainer.folder), *corpus.observers(lambda step, text: None)]
    return trainer


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def weights(trainer):
    return {name: tensor.numpy() for name, tensor in trainer.model.state_dict().items()}


def same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_the_tokens_are_the_text_and_documents_end_where_it_says(begin, plays):
    _, corpus = begin()
    text = plays.read_text()
    assert corpus.tokenizer.vocab_size <= 120
    np.testing.assert_array_equal(corpus.tokens[:], corpus.tokenizer.encode_array(text))
    starts = corpus.documents.sentences[corpus.documents.documents[:-1]]
    assert len(starts) == 7
    for start, play in zip(starts, text.split("\n\n\n")):
        length = len(corpus.tokenizer.encode_array(play))
        np.testing.assert_array_equal(corpus.tokens[start : start + length], corpus.tokenizer.encode_array(play))
    assert np.diff(corpus.documents.documents).tolist() == [80] * 7  # two sentences a line


def test_it_learns(begin):
    trainer, _ = begin(steps=60, learning_rate=1e-2)
    before = trainer.evaluate()
    trainer.train()
    assert trainer.evaluate() < before - 0.3  # below what the frequencies alone give


def test_resumed_is_as_never_stopped_and_a_step_is_replayed_to_the_bit(begin):
    straight, _ = begin("straight")
    straight.train()
    stopped, _ = begin("stopped", steps=7)
    stopped.train()
    observed(*continued_run(stopped.folder, {"steps": 12})).train()
    # The learning rate falls towards the last step, so the runs are alike with the same `steps` only.
    halted, _ = begin("halted")
    halted.observers.append(Stop(at=7))
    halted.train()
    resumed = observed(*continued_run(halted.folder, {}))
    assert resumed.progress.step == 7
    resumed.train()
    same(weights(straight), weights(resumed))
    assert log(straight.folder) == log(halted.folder)
    assert replay(straight.folder, 9).loss == pytest.approx(log(straight.folder)[8]["loss"], abs=1e-6)


class Stop(LogFile):
    """Interrupts after so many steps."""

    def __init__(self, at):
        self.at = at

    def started(self, trainer):
        pass

    def stepped(self, trainer):
        trainer.interrupted = trainer.progress.step == self.at


def test_any_split_of_a_batch_gives_the_same_steps(begin):
    whole, _ = begin("whole", precision="float32")
    whole.train()
    parts, _ = begin("parts", micro_batch_size=2, precision="float32")
    parts.train()
    for a, b in zip(log(whole.folder), log(parts.folder)):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-3)


def test_an_evaluation_measures_both_accuracies_and_that_of_frequency(begin):
    trainer, corpus = begin()
    trainer.train()
    lines = log(trainer.folder)
    names = {"masked_accuracy", "next_sentence_accuracy", "accuracy_by_frequency"}
    assert [line["step"] for line in lines if names <= line.keys()] == [4, 8, 12]
    assert not any(names & line.keys() for line in lines if "validation_loss" not in line)

    batches = [trainer.data.validation(index) for index in range(3)]
    trainer.model.eval()
    right, asked, follows, common = 0, 0, 0, 0
    counts = np.bincount(trainer.data.train.documents.tokens, minlength=corpus.tokenizer.vocab_size)
    counts[:5] = 0
    for ids, types, present, labels, label in batches:
        with no_grad():
            out = trainer.model(Tensor(ids), Tensor(present), Tensor(types))
        hidden = labels >= 0
        right += (out.prediction_logits.numpy().argmax(-1) == labels)[hidden].sum()
        common += (labels == counts.argmax()).sum()
        asked += hidden.sum()
        follows += (out.seq_relationship_logits.numpy().argmax(-1) == label).sum()
    assert measure(trainer) == {
        "masked_accuracy": right / asked,
        "next_sentence_accuracy": follows / 15,
        "accuracy_by_frequency": common / asked,
    }
    assert {name: lines[-1][name] for name in names} == trainer.progress.measures
    again = continued_run(trainer.folder, {"steps": 13})[0]
    assert again.progress.measures == trainer.progress.measures


def test_the_end_leaves_a_folder_for_fine_tuning(begin):
    trainer, corpus = begin(ema_decay=0.5)
    trainer.train()
    folder = trainer.folder / PRETRAINED
    model, tokenizer = BertForPreTraining.from_pretrained(folder), BertTokenizer.from_pretrained(folder)
    ids, types, present, *_ = trainer.data.validation(0)
    model.eval()
    trainer.model.eval()
    with trainer.averaged(), no_grad():
        ours = trainer.model(Tensor(ids), Tensor(present), Tensor(types))
    with no_grad():
        found = model(Tensor(ids), Tensor(present), Tensor(types))
    np.testing.assert_array_equal(found.prediction_logits.numpy(), ours.prediction_logits.numpy())
    text = "The king, the queen: the fool!"
    assert tokenizer(text)["input_ids"] == corpus.tokenizer(text)["input_ids"]
    assert tokenizer.model_max_length == 24
    same(load_run(trainer.folder)[0].state_dict(), {name: t.numpy() for name, t in model.state_dict().items()})


def test_transformers_reads_that_folder(begin, torch, transformers):
    trainer, corpus = begin()
    trainer.train()
    folder = trainer.folder / PRETRAINED
    theirs = transformers.BertForPreTraining.from_pretrained(folder).eval()
    tokenizer = transformers.BertTokenizerFast.from_pretrained(folder)
    pair = ("the king and the queen", "then a storm!")
    assert tokenizer(*pair)["input_ids"] == corpus.tokenizer(*pair)["input_ids"]
    ids, types, present, *_ = trainer.data.validation(0)
    trainer.model.eval()
    with no_grad():
        ours = trainer.model(Tensor(ids), Tensor(present), Tensor(types))
    with torch.no_grad():
        out = theirs(torch.tensor(ids), attention_mask=torch.tensor(present), token_type_ids=torch.tensor(types))
    np.testing.assert_allclose(
        ours.prediction_logits.numpy()[present > 0], out.prediction_logits[present > 0], atol=1e-4
    )
    np.testing.assert_allclose(ours.seq_relationship_logits.numpy(), out.seq_relationship_logits, atol=1e-5)


def test_a_new_model_begins_at_the_frequencies_and_its_positions_as_waves(begin):
    trainer, corpus = begin(precision="float32")
    bias = trainer.model.cls["predictions"].bias.detach().numpy()
    tokens = trainer.data.train.documents.tokens
    counts = np.bincount(tokens, minlength=corpus.tokenizer.vocab_size) + 0.5
    counts[:5] = 0.5
    np.testing.assert_allclose(bias, np.log(counts / counts.sum()), rtol=1e-5)
    p = counts[5:] / counts[5:].sum()
    expected = -(p * np.log(p)).sum() + np.log(2)  # the entropy of a token, and of a coin
    assert trainer.evaluate(batches=20) == pytest.approx(expected, abs=0.15)
    positions = trainer.model.bert.embeddings.position_embeddings.weight.detach().numpy()
    assert np.sqrt((positions**2).mean()) == pytest.approx(trainer.config.model.initializer_range, rel=1e-3)
    waves = positions / positions.std()
    alike = waves @ waves.T
    np.testing.assert_allclose(np.diag(alike, 3), alike[0, 3], rtol=1e-3)  # by distance alone
    again = continued_run(trainer.folder, {})[0]
    np.testing.assert_array_equal(again.model.cls["predictions"].bias.detach().numpy(), bias)


def test_an_interrupted_run_leaves_no_pretrained_folder(begin):
    trainer, _ = begin()
    trainer.observers.append(Stop(at=2))
    trainer.train()
    assert not (trainer.folder / PRETRAINED).exists()


def test_whole_words_and_letter_case_are_settings(begin):
    trainer, corpus = begin(whole_words=True, lowercase=False)
    assert trainer.data.train.masking.whole_words
    assert corpus.tokenizer.token_to_id("The") is not None


def test_what_validates_is_masked_at_a_rate_of_its_own(begin):
    trainer, _ = begin(mask_probability=0.4, measured_mask_probability=0.2, batch_size=50)
    for batch, share in ((trainer.data.batch(0), 0.4), (trainer.data.validation(0), 0.2)):
        ids, labels = batch[0], batch[3]
        asked = labels >= 0
        tokens = np.where(asked, labels, ids)
        assert asked.sum() / (tokens >= 5).sum() == pytest.approx(share, abs=0.02)  # special tokens are 0 to 4


def test_a_run_knows_its_kind_and_older_configurations_load(begin):
    trainer, _ = begin()
    values = json.loads((trainer.folder / "config.json").read_text())
    assert values["task"] == "bert"
    assert config_from(values) == trainer.config
    older = TrainConfig().to_dict()
    del older["task"]
    assert config_from(older) == TrainConfig()
    with pytest.raises(ConfigError, match=r"task must be one of gpt, .*bert, .*, not 'elmo'"):
        task("elmo")
    with pytest.raises(ConfigError, match="task must be 'bert', not 'gpt'"):
        PretrainConfig.build(None, {"task": "gpt"})
    with pytest.raises(CheckpointError, match="is a run of the kind bert; needed is one of gpt"):
        load_run(trainer.folder, ("gpt",))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model.hidden_sizes": 3}, "unknown key 'hidden_sizes' in model"),
        ({"vocab_sizes": 3}, "unknown key 'vocab_sizes' .did you mean 'vocab_size'"),
        ({"model.vocab_size": 300}, "model.vocab_size follows from the tokenizer; set vocab_size, without model"),
        ({"vocab_size": 5}, "vocab_size must be more than the 5 special tokens, not 5"),
        ({"mask_probability": 0}, "^mask_probability must be above 0 and at most 1"),
        ({"measured_mask_probability": 1.5}, "measured_mask_probability must be above 0 and at most 1, not 1.5"),
        ({"short_probability": 1.5}, "short_probability must be from 0 to 1"),
        ({"document_gap": -1}, "document_gap must be at least 0"),
        ({"model.max_position_embeddings": 4}, "at least 5 positions"),
        ({"model.type_vocab_size": 1}, "2 types"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        PretrainConfig.build(None, settings)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n \n\n", "the text is empty"),
        (b"one sentence", "is too short: 1 sentences"),
        (b"a b. c d.\n" * 3, "is too short: .* tokens in a single document are too few"),
        (b"bad \xff byte", "is not valid UTF-8"),
    ],
    ids=["empty", "blank", "one", "short", "bytes"],
)
def test_a_text_that_cannot_be_used_is_named_and_leaves_nothing(tmp_path, content, message):
    path = tmp_path / "x.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        new_run(path, tmp_path / "run", PretrainConfig.build(None, SMALL))
    assert str(caught.value).startswith(str(path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.txt"]


def test_a_folder_is_refused_and_damage_is_named(begin, tmp_path):
    with pytest.raises(DataError, match="is a folder; pre-training needs the text itself"):
        new_run(tmp_path, tmp_path / "run", PretrainConfig.build(None, SMALL))
    trainer, _ = begin()
    path = trainer.folder / SENTENCES
    bounds = {name: tensor.numpy() for name, tensor in load(path).items()}
    from minilm.serialization import save

    save({**bounds, "documents": bounds["documents"][:-1]}, path)
    with pytest.raises(DataError, match=r"sentences.safetensors: does not go with tokens.bin"):
        PretrainCorpus.load(trainer.folder, trainer.config)
    shifted = bounds["sentences"].copy()
    shifted[1] += 1
    save({**bounds, "sentences": shifted}, path)
    with pytest.raises(CheckpointError, match="is not what the run learnt from"):
        continued_run(trainer.folder, {})
    path.unlink()
    with pytest.raises(DataError, match=r"sentences.safetensors"):
        PretrainCorpus.load(trainer.folder, trainer.config)
    assert checkpoints(trainer.folder)
