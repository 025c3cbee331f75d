"""Fine-tuning: three tasks from a file to a model that transformers reads, exact resume, and what must be refused."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import minilm as ml
from minilm import random
from minilm.errors import CheckpointError, ConfigError, DataError
from minilm.models import BertConfig, BertForSequenceClassification, BertModel
from minilm.models.pretrained import PretrainedWarning
from minilm.text import BertTokenizer
from minilm.train.finetuning.config import AnswerConfig, ClassifyConfig, FinetuneConfig, TagConfig
from minilm.train.finetuning.corpus import Source
from minilm.train.finetuning.examples import Epochs, Examples
from minilm.train.finetuning.results import load_model
from minilm.train.observers import LogFile, Observer
from minilm.train.replay import render, replay
from minilm.train.run import continued_run, new_run, restored_run

ANIMALS, TOOLS, PLACES = ("cat", "dog", "hen", "owl", "fox"), ("saw", "axe", "nail", "file"), ("barn", "shed", "yard")
TEXT = " ".join((*ANIMALS, *TOOLS, *PLACES, "the a is in lies sleeps where what who old red big ? ."))
SETTINGS = {"max_length": 24, "batch_size": 8, "learning_rate": 1e-2, "log_every": 1, "seed": 3}


def config_of(kind: type[FinetuneConfig], pretrained, **settings) -> FinetuneConfig:
    shape = json.loads((pretrained / "config.json").read_text())
    return kind.build(None, {"pretrained": str(pretrained), "model": shape_keys(shape), **SETTINGS, **settings})


def shape_keys(shape):
    return BertConfig.from_dict(shape).to_dict()


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A folder with a small BERT that knows nothing, and a tokenizer that knows TEXT."""
    folder = tmp_path_factory.mktemp("pretrained")
    tokenizer = BertTokenizer.train([TEXT] * 3, 300, min_frequency=1, model_max_length=32)
    tokenizer.save_pretrained(folder)
    random.manual_seed(0)
    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    config = BertConfig(vocab_size=tokenizer.vocab_size, max_position_embeddings=32, initializer_range=0.1, **shape)
    BertModel(config).save_pretrained(folder)
    return folder


def draw(seed):
    rng = np.random.default_rng(seed)
    return lambda *choices: str(rng.choice(choices))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """For each task a file to learn from, and one to test on."""
    folder = tmp_path_factory.mktemp("files")
    for part, seed, count in (("train", 1, 96), ("valid", 2, 40)):
        of = draw(seed)
        rows = [(of(*group), of(*PLACES), name) for group, name in
                ((ANIMALS, "animal") if of("0", "1") == "1" else (TOOLS, "tool") for _ in range(count))]  # fmt: skip
        lines = [f"the {of('old', 'red')} {thing} is in the {place}.\t{name}" for thing, place, name in rows]
        (folder / f"{part}.tsv").write_text("text\tlabel\n" + "\n".join(lines) + "\n")
        tags = {**dict.fromkeys(ANIMALS, "B-ANIMAL"), **dict.fromkeys(TOOLS, "B-TOOL")}
        sentences = [["the", thing, "lies", "in", "the", place] for thing, place, _ in rows]
        (folder / f"{part}.conll").write_text(
            "\n\n".join("\n".join(f"{word} {tags.get(word, 'O')}" for word in words) for words in sentences) + "\n"
        )
        paragraphs = []
        for i, (thing, place, _) in enumerate(rows):
            context = f"the old {thing} is in the {place}."
            asked, at = (f"where is the {thing}?", place) if i % 2 else (f"what is in the {place}?", thing)
            answer = [{"text": at, "answer_start": context.rindex(at)}]
            paragraphs.append({"context": context, "qas": [{"id": f"{part}{i}", "question": asked, "answers": answer}]})
        (folder / f"{part}.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return folder


def run(kind, pretrained, files, folder, suffix, **settings):
    config = config_of(kind, pretrained, **settings)
    trainer, corpus = new_run(Source(files / f"train{suffix}", files / f"valid{suffix}"), folder, config)
    trainer.observers = [LogFile(folder), *corpus.observers(lambda step, text: None)]
    trainer.train()
    return trainer, corpus


@pytest.mark.parametrize(
    ("kind", "suffix", "measure", "least", "settings"),
    [
        (ClassifyConfig, ".tsv", "accuracy", 0.95, {"epochs": 4}),
        (ClassifyConfig, ".tsv", "f1_macro", 0.95, {"epochs": 4, "metric": "f1_macro", "class_weights": True}),
        (TagConfig, ".conll", "token_accuracy", 0.97, {"epochs": 4, "class_weights": True}),
        (AnswerConfig, ".json", "exact", 90, {"epochs": 12, "stride": 4}),
    ],
)
def test_a_task_is_learnt_and_the_best_model_is_written(
    eval_extra, pretrained, files, tmp_path, kind, suffix, measure, least, settings
):
    trainer, _ = run(kind, pretrained, files, tmp_path / "run", suffix, **settings)
    task, model = load_model(tmp_path / "run")
    assert type(model) is type(trainer.model)
    originals = task.read(files / f"valid{suffix}", task.config)
    _, predictions = task.predicted(model, task.encode(originals, labelled=False), originals, labelled=False)
    measured = task.measured(predictions, originals)
    assert measured[measure] >= least
    assert measured[measure] == pytest.approx(trainer.progress.best_worth)
    rows = [json.loads(line) for line in (tmp_path / "run/predictions.jsonl").read_text().splitlines()]
    assert rows == [json.loads(json.dumps(row)) for row in task.rows(predictions, originals)]
    report = (tmp_path / "run/report.md").read_text()
    assert f"| {measure} | {measured[measure]:.4f} |" in report
    assert (tmp_path / "run/confusion.png").exists() == (kind is not AnswerConfig)


def test_transformers_says_the_same(pretrained, files, tmp_path, torch, transformers):
    run(ClassifyConfig, pretrained, files, tmp_path / "run", ".tsv", epochs=2)
    place = tmp_path / "run/model"
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(place)
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    rows = [json.loads(line) for line in (tmp_path / "run/predictions.jsonl").read_text().splitlines()]
    inputs = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
    with torch.no_grad():
        shares = theirs(**inputs).logits.softmax(-1).numpy()
    names = [theirs.config.id2label[int(i)] for i in shares.argmax(-1)]
    assert names == [row["predicted"] for row in rows]
    np.testing.assert_allclose(shares.max(-1), [row["probability"] for row in rows], rtol=1e-4)


@pytest.mark.parametrize(("kind", "suffix"), [(ClassifyConfig, ".tsv"), (TagConfig, ".conll"), (AnswerConfig, ".json")])
def test_an_interrupted_run_goes_on_to_the_same_bits(pretrained, files, tmp_path, kind, suffix):
    settings = {"epochs": 2, **({"stride": 4} if kind is AnswerConfig else {"class_weights": True})}
    whole, _ = run(kind, pretrained, files, tmp_path / "whole", suffix, **settings)
    config = config_of(kind, pretrained, **settings)
    trainer, _ = new_run(Source(files / f"train{suffix}", files / f"valid{suffix}"), tmp_path / "run", config)

    class Interrupt(Observer):
        def stepped(self, trainer):
            trainer.interrupted = trainer.progress.step == 7

    trainer.observers = [Interrupt()]
    trainer.train()
    assert trainer.progress.step == 7
    assert not (tmp_path / "run/model").exists()
    again, corpus = continued_run(tmp_path / "run", {})
    again.observers = corpus.observers(lambda step, text: None)
    again.train()
    for name, tensor in whole.model.state_dict().items():
        np.testing.assert_array_equal(again.model.state_dict()[name].array, tensor.array, err_msg=name)
    assert (tmp_path / "run/predictions.jsonl").read_text() == (tmp_path / "whole/predictions.jsonl").read_text()


@pytest.mark.parametrize(("kind", "suffix"), [(ClassifyConfig, ".tsv"), (TagConfig, ".conll"), (AnswerConfig, ".json")])
def test_a_step_is_replayed_to_the_same_bits_and_shown_without_padding(pretrained, files, tmp_path, kind, suffix):
    stride = {"stride": 4} if kind is AnswerConfig else {}
    trainer, _ = run(kind, pretrained, files, tmp_path / "run", suffix, epochs=2, **stride)
    again = replay(tmp_path / "run", trainer.progress.step)
    last, _ = restored_run(tmp_path / "run")
    for name, tensor in last.model.state_dict().items():
        np.testing.assert_array_equal(again.trainer.model.state_dict()[name].array, tensor.array, err_msg=name)
    shown = render(again, examples=8)
    assert shown.count("[CLS]") == 8
    assert "[PAD]" not in shown


def test_each_epoch_has_every_example_once_and_padding_is_no_token():
    lengths = [3, 7, 5, 2, 6]
    rows = [{"input_ids": np.full(n, n), "token_type_ids": np.zeros(n, np.int64)} for n in lengths]
    examples = Examples.of(rows, list(range(5)))
    data = Epochs(examples, examples, 2, 11, 99, lambda model: (0.0, {}))
    orders = []
    for epoch in range(3):
        seen = []
        for step in range(3):
            ids, types, mask, targets = data.batch(3 * epoch + step)
            assert ids.shape == types.shape == mask.shape == (len(targets), max(lengths[t] for t in targets))
            for row, real, target in zip(ids, mask, targets):
                assert row[real == 1].tolist() == [lengths[target]] * lengths[target]
                assert (row[real == 0] == 99).all()
            seen += targets.tolist()
        assert sorted(seen) == list(range(5))
        orders.append(seen)
    assert orders[0] != orders[1] or orders[1] != orders[2]
    order = [i for numbers in examples.by_length(2) for i in numbers]
    assert [lengths[i] for i in order] == sorted(lengths, reverse=True)


def test_class_weights_count_each_class_alike_in_any_split_of_a_batch(pretrained):
    random.manual_seed(1)
    with pytest.warns(PretrainedWarning, match="classifier"):
        model = BertForSequenceClassification.from_pretrained(pretrained, num_labels=2)
    model.class_weights = ml.tensor([0.5, 2.0])
    ids = ml.tensor(np.arange(5 * 6).reshape(5, 6) % 20 + 5)
    mask, labels = ml.ones(5, 6, dtype=ml.int64), ml.tensor([0, 1, 0, 0, 1])
    whole = model.loss(ids, mask * 0, mask, labels)
    parts = [
        model.loss(*(x[a:b] for x in (ids, mask * 0, mask, labels))).item() * (b - a) / 5 for a, b in ((0, 2), (2, 5))
    ]
    assert whole.item() == pytest.approx(sum(parts), rel=1e-6)
    logits = model(ids, mask).logits.detach().numpy().astype(np.float64)
    nats = np.log(np.exp(logits).sum(1)) - logits[np.arange(5), labels.numpy()]
    assert whole.item() == pytest.approx((nats * [0.5, 2, 0.5, 0.5, 2]).mean(), rel=1e-5)


def test_the_validation_part_of_one_file_may_have_labels_of_its_own(pretrained, tmp_path):
    (tmp_path / "one.tsv").write_text("text\tlabel\n" + "a cat\tanimal\n" * 9 + "a saw\ttool\n")
    trainer, corpus = new_run(Source(tmp_path / "one.tsv"), tmp_path / "run", config_of(ClassifyConfig, pretrained))
    assert corpus.task.labels.names == ("animal", "tool")
    assert (len(corpus.train), len(corpus.validation)) == (9, 1)
    assert trainer.model.classifier.weight.shape == (2, 24)


def test_patience_ends_at_the_measure_that_was_asked_for(pretrained, files, tmp_path):
    trainer, _ = run(ClassifyConfig, pretrained, files, tmp_path / "run", ".tsv", epochs=20, patience=2)
    assert trainer.progress.stopped
    assert trainer.progress.step < 20 * 12
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    accuracies = [line["accuracy"] for line in lines if "accuracy" in line]
    assert max(accuracies) == trainer.progress.best_worth == accuracies[-3]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "text\tlabel\na cat\tanimal\na saw\tvehicle\n",
            "line 3: the label 'vehicle' is none of training's: animal, tool",
        ),
        ("text\tlabel\n \tanimal\n", "line 2: the text is empty"),
        ("words\tlabel\na cat\tanimal\n", "line 1: no column is named as texts are"),
    ],
)
def test_a_file_that_does_not_do_is_said_and_leaves_nothing(pretrained, files, tmp_path, content, said):
    (tmp_path / "bad.tsv").write_text(content)
    with pytest.raises(DataError, match=re.escape(said)):
        new_run(
            Source(files / "train.tsv", tmp_path / "bad.tsv"), tmp_path / "run", config_of(ClassifyConfig, pretrained)
        )
    assert not (tmp_path / "run").exists()


def test_a_text_of_100000_words_is_cut(pretrained, files, tmp_path):
    (tmp_path / "long.tsv").write_text("text\tlabel\n" + "cat " * 100_000 + "\tanimal\n")
    source = Source(files / "train.tsv", tmp_path / "long.tsv")
    _, corpus = new_run(source, tmp_path / "run", config_of(ClassifyConfig, pretrained))
    assert corpus.encoded.examples.lengths.tolist() == [24]


def test_a_tokenizer_of_another_size_is_refused(pretrained, files, tmp_path):
    config = config_of(ClassifyConfig, pretrained)
    config.model.vocab_size += 1
    with pytest.raises(ConfigError, match=r"the tokenizer has \d+ tokens, the model \d+"):
        new_run(Source(files / "train.tsv"), tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_settings_that_make_no_sense(pretrained):
    for settings, said in (
        ({"max_length": 33}, "the model knows 32 positions"),
        ({"metric": "bleu"}, "one of loss, accuracy, f1_macro"),
        ({"epochs": 0}, "at least 1"),
    ):
        with pytest.raises(ConfigError, match=said):
            config_of(ClassifyConfig, pretrained, **settings)


def test_what_is_no_fine_tuned_model(pretrained, tmp_path):
    with pytest.raises(CheckpointError, match=r"was not fine-tuned by minilm"):
        load_model(pretrained)
    with pytest.raises(CheckpointError, match=r"no config.json"):
        load_model(tmp_path)
