"""Runs over pairs of texts: from a file to a model that transformers reads and that writes what it writes."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

import minilm as ml
from minilm.beam import BeamSearch
from minilm.errors import CheckpointError, ConfigError, DataError, MissingExtraError
from minilm.generation import Sampling
from minilm.models import T5Config, T5ForConditionalGeneration
from minilm.models.translator import Translator
from minilm.text.pair_tokenizer import PairTokenizer
from minilm.train.averaging import averaged_weights
from minilm.train.checkpoint import checkpoints, read_checkpoint
from minilm.train.display import TrainingDisplay
from minilm.train.finetuning.corpus import Source
from minilm.train.finetuning.pair_config import SummarizeConfig, TranslateConfig
from minilm.train.finetuning.results import load_model
from minilm.train.observers import LogFile, read_log
from minilm.train.replay import render, replay
from minilm.train.run import continued_run, new_run

WORDS = {
    "the": "le", "a": "un", "old": "vieux", "red": "rouge", "big": "grand", "cat": "chat", "dog": "chien",
    "hen": "poule", "fox": "renard", "saw": "vit", "met": "trouva", "and": "et", "in": "dans", "barn": "grange",
}  # fmt: skip
MODEL = {"encoder_layers": 1, "decoder_layers": 2, "d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
MODEL |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "dropout": 0.05, "max_position_embeddings": 64}
SETTINGS = {"vocabulary": 420, "batch_tokens": 200, "max_source": 40, "max_target": 40, "warmup_steps": 20, "seed": 5}
SETTINGS |= {"learning_rate": 5e-3, "log_every": 1, "held_out": 10, "average": 3, "batch_size": 16}


def sentences(count, seed):
    """Sentences of a small language, and word for word in another, adjectives behind their nouns."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        source, target = [], []
        for part in range(rng.integers(1, 3)):
            if part:
                link = str(rng.choice(["saw", "met", "and", "in"]))
                source, target = [*source, link], [*target, WORDS[link]]
            article, noun = str(rng.choice(["the", "a"])), str(rng.choice(["cat", "dog", "hen", "fox", "barn"]))
            adjectives = [str(x) for x in rng.choice(["old", "red", "big"], rng.integers(0, 2))]
            source += [article, *adjectives, noun]
            target += [WORDS[x] for x in (article, noun, *adjectives)]
        yield " ".join(source), " ".join(target)


def config(kind=TranslateConfig, **settings):
    model = {**kind().model.to_dict(), **MODEL}
    return kind.from_dict({**SETTINGS, "model": model, **settings})


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "words.tsv"
    path.write_text("".join(f"{s}\t{t}\n" for s, t in sentences(400, 0)))
    return path


@pytest.fixture(scope="module")
def run(file, tmp_path_factory):
    """A run that has learnt the language well enough to be sure of most words."""
    folder = tmp_path_factory.mktemp("runs") / "words"
    trainer, corpus = new_run(Source(file), folder, config(epochs=30))
    trainer.observers = corpus.observers(lambda step, text: None)
    trainer.train()
    return trainer, corpus


def test_it_learns_and_leaves_what_it_can_do(run, eval_extra):
    trainer, corpus = run
    folder = trainer.folder
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 40 == len(corpus.validation)
    assert np.mean([row["predicted"] == row["target"] for row in rows]) > 0.8
    report = (folder / "report.md").read_text()
    assert float(re.search(r"BLEU \| ([\d.]+)", report)[1]) > 80
    for said in ("tok:13a", "nc:6", "360 learnt from, 40 tested on", "- written: ", "| weights | "):
        assert said in report


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_return_sequences": 4, "length_penalty": 0.6, "early_stopping": True},
        {"num_return_sequences": 3, "length_penalty": 2.0, "early_stopping": "never", "num_beams": 4},
        {"no_repeat_ngram_size": 2, "min_new_tokens": 9},
        {"num_beams": 1},
    ],
    ids=["usual", "early", "never", "n-grams", "greedy"],
)
def test_two_hundred_sentences_as_transformers_writes_them(run, torch, transformers, settings):
    """Equal hypotheses, in the same order, on the same weights."""
    folder = run[0].folder / "model"
    translator, theirs = Translator.from_pretrained(folder), transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    sources = translator.encode([source for source, _ in sentences(200, 7)])
    options = {"num_beams": 5, "length_penalty": 1.0, "early_stopping": False, "max_new_tokens": 30, **settings}
    count = options.get("num_return_sequences", 1)
    ours = [h.tokens.tolist() for group in translator.written(sources, translator.search(**options)) for h in group]
    found = []
    for first in range(0, 200, 50):
        part = sources[first : first + 50]
        mask = np.arange(max(map(len, part))) < np.array([[len(x)] for x in part])
        ids = np.zeros(mask.shape, np.int64)
        ids[mask] = np.concatenate(part)
        told = options if options["num_beams"] > 1 else {"num_beams": 1, "max_new_tokens": 30}
        rows = theirs.generate(torch.tensor(ids), attention_mask=torch.tensor(mask), do_sample=False, **told)
        found += [row[1:].tolist() for row in rows]
    assert len(ours) == len(found) == 200 * count
    unequal = [n for n, (a, b) in enumerate(zip(ours, found)) if a != b[: len(a)] or set(b[len(a) :]) - {0, 1}]
    assert unequal == []


def test_the_share_of_the_peak_is_shown(file, tmp_path):
    """By the mean lengths of what is learnt from, also where a run goes on."""
    console = Console(file=io.StringIO(), width=200)
    trainer, corpus = new_run(Source(file), tmp_path / "run", config(steps=2))
    trainer.observers = [TrainingDisplay(console)]
    trainer.train()
    assert re.search(r"tokens/s +\d+% of peak", console.file.getvalue())
    again, _ = continued_run(trainer.folder, {"steps": 9})
    means = tuple(np.mean([len(ids) for ids in side]) for side in corpus.task.tokens(corpus.train))
    assert trainer.model.usual_lengths == again.model.usual_lengths == pytest.approx(means)
    assert trainer.model.flops_per_token() == again.model.flops_per_token() > 1e5


def test_transformers_tokenizer_reads_ours(run, transformers):
    folder = run[0].folder
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder / "model"), PairTokenizer.from_pretrained(folder)
    texts = [text for pair in sentences(20, 3) for text in pair] + ["ünïcode ☃", "two  blanks"]
    assert theirs(texts)["input_ids"] == [ids.tolist() for ids in ours.encode(texts)]
    assert (theirs.pad_token_id, theirs.eos_token_id) == (ours.pad_token_id, ours.eos_token_id) == (0, 1)
    assert [ours.decode(ids) for ids in ours.encode(texts)] == texts


def test_resumed_in_the_middle_it_is_the_same_run(file, tmp_path):
    """The log to the last digit, and the weights to the bit; also stopped between two epochs and within one."""
    whole, corpus = new_run(Source(file), tmp_path / "whole", config(epochs=2))
    whole.observers = [LogFile(whole.folder), *corpus.observers(print)]
    whole.train()
    steps = whole.config.steps
    parts, _ = new_run(Source(file), tmp_path / "parts", config(epochs=2, steps=steps // 2 + 3))
    parts.observers = [LogFile(parts.folder)]
    parts.train()
    logged = {line["step"]: line["loss"] for line in read_log(whole.folder / "log.jsonl")}
    assert replay(whole.folder, 7).loss == pytest.approx(logged[7], abs=1e-6)
    assert "loss" in render(replay(whole.folder, 2), 1)
    more, corpus = continued_run(parts.folder, {"steps": steps})
    more.observers = [LogFile(parts.folder), *corpus.observers(print)]
    more.train()
    last = [read_checkpoint(checkpoints(tmp_path / name)[0])[0] for name in ("whole", "parts")]
    assert last[0].keys() == last[1].keys()
    for name, tensor in last[0].items():
        np.testing.assert_array_equal(tensor.array, last[1][name].array, err_msg=name)


def test_checkpoints_are_averaged(run):
    trainer, _ = run
    steps, mean = averaged_weights(trainer.folder, trainer.config, 3)
    every = trainer.data.steps
    assert steps == [28 * every, 29 * every, 30 * every]
    paths = checkpoints(trainer.folder)[:3]
    name = "model.decoder.layers.1.fc1.weight"
    expected = np.mean([read_checkpoint(path)[0]["model." + name].array.astype(np.float64) for path in paths], 0)
    np.testing.assert_allclose(mean[name], expected, rtol=1e-12)
    assert "the mean of those of steps" in (trainer.folder / "report.md").read_text()
    with pytest.raises(CheckpointError, match="no checkpoint to be averaged"):
        averaged_weights(trainer.folder / "model", trainer.config, 3)


def test_a_run_goes_by_what_it_is_told(file, tmp_path, eval_extra):
    trainer, corpus = new_run(Source(file), tmp_path / "run", config(epochs=1, metric="chrf", evaluations=2))
    trainer.observers = [LogFile(trainer.folder), *corpus.observers(print)]
    trainer.train()
    lines = [json.loads(line) for line in (trainer.folder / "log.jsonl").read_text().splitlines()]
    measured = [line["chrf"] for line in lines if "chrf" in line]
    assert len(measured) == 2
    assert trainer.progress.best_worth == max(measured)
    assert re.search(r"chrf [\d.]+ and [\d.]+", (trainer.folder / "report.md").read_text())


def test_without_its_package_a_measure_is_refused(file, tmp_path, monkeypatch):
    def missing(module, what):
        raise MissingExtraError(f"{what} needs sacrebleu: pip install 'minilm[eval]'")

    monkeypatch.setattr("minilm.evaluation.translation.needed", missing)
    with pytest.raises(MissingExtraError, match="pip install"):
        new_run(Source(file), tmp_path / "run", config(metric="bleu"))
    assert not (tmp_path / "run").exists()


def test_long_pairs_are_counted_and_not_cut(tmp_path):
    rows = [*sentences(60, 0), ("the cat " * 60, "le chat"), ("the cat", "le chat " * 60)]
    (tmp_path / "long.tsv").write_text("".join(f"{s}\t{t}\n" for s, t in rows))
    trainer, corpus = new_run(Source(tmp_path / "long.tsv"), tmp_path / "run", config(held_out=7))
    assert len(corpus.train) == len(corpus.learnt.examples) == 62 - 8 - 2
    assert re.match(r"2 of 54 pairs are longer than 40 tokens .*: line 61, .*: line 62$", corpus.notes[0])
    assert max(corpus.learnt.examples.source_lengths) <= 40
    _, again = continued_run(trainer.folder, {})
    assert again.notes == corpus.notes
    _, cut = new_run(Source(tmp_path / "long.tsv"), tmp_path / "cut", config(held_out=7, truncate=True))
    assert cut.notes[0].startswith("1 of 54")
    assert cut.notes[1] == "1 sources are cut at 40 tokens (max_source)"
    longest = cut.learnt.sources[np.argmax([len(x) for x in cut.learnt.sources])]
    assert (len(longest), longest[-1]) == (40, 1)


@pytest.mark.parametrize(
    ("rows", "settings", "said"),
    [
        (["the cat\tle chat"] * 20 + ["the </s> cat\tle chat"], {}, "a.tsv: line 21: </s> stands in the text"),
        (["the cat\tle chat"] * 20 + ["the cat\t<pad>"], {}, "a.tsv: line 21: <pad> stands in the text"),
        (
            ["the cat\tle chat"] * 9 + ["cat " * 70 + "\tle chat"],
            {},
            "tokens on a side, and the model knows 64",
        ),
        (["cat " * 50 + "\tle chat"] * 20, {}, "a.tsv: line 1: this pair and all others are longer than 40"),
        (["the cat\tle chat"] * 5, {}, "has 5 pairs, so none is the 10th"),
        (["the cat\tle chat"] * 20, {"vocabulary": 200}, "vocabulary must be more than 259"),
        (["the cat\tle chat"] * 20, {"max_source": 500}, "max_source is 500, and the model knows 64 positions"),
        (["the cat\tle chat"] * 20, {"batch_tokens": 30}, "max_source is 40, and a batch has 30 tokens"),
        (["the cat\tle chat"] * 20, {"num_beams": 300}, "num_beams 300 is too wide for a vocabulary of 420"),
        (["the cat\tle chat"] * 20, {"decay": "fast"}, "decay must be one of inverse_sqrt, linear, cosine"),
        (["the cat\tle chat"] * 20, {"average": 0}, "average must be at least 1"),
        (["the cat\tle chat"] * 20, {"label_smoothing": 1}, "label_smoothing must be at least 0 and below 1"),
    ],
)
def test_bad_pairs_leave_nothing(tmp_path, rows, settings, said):
    (tmp_path / "a.tsv").write_text("\n".join(rows) + "\n")
    with pytest.raises((DataError, ConfigError)) as caught:
        new_run(Source(tmp_path / "a.tsv"), tmp_path / "run", config(**settings))
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_pretrained_model_goes_on(run, file, tmp_path):
    """From a folder in transformers' layout: its vocabulary and shape, and a loss that begins where it ended."""
    folder = run[0].folder / "model"
    shape = json.loads((folder / "config.json").read_text())
    made = TranslateConfig.build(None, {**SETTINGS, "pretrained": str(folder), "model": shape, "steps": 2})
    trainer, corpus = new_run(Source(file), tmp_path / "run", made)
    loss, _ = corpus.assess(trainer.model.eval())
    assert loss == pytest.approx(run[1].assess(run[0].model.eval())[0], rel=1e-5)
    assert corpus.tokenizer.vocab_size == run[1].tokenizer.vocab_size


def test_a_t5_learns_and_writes(run, file, tmp_path):
    """Another kind of model by the same way: relative positions, its own layout."""
    folder = tmp_path / "t5"
    shape = {"d_model": 24, "d_kv": 6, "d_ff": 48, "num_layers": 1, "num_decoder_layers": 2, "num_heads": 4}
    T5ForConditionalGeneration(T5Config(vocab_size=run[1].tokenizer.vocab_size, **shape)).save_pretrained(folder)
    run[1].tokenizer.save_pretrained(folder)
    shape = json.loads((folder / "config.json").read_text())
    made = {**SETTINGS, "pretrained": str(folder), "model": shape, "epochs": 2}
    trainer, corpus = new_run(Source(file), tmp_path / "run", TranslateConfig.build(None, made))
    trainer.observers = corpus.observers(print)
    trainer.train()
    assert trainer.progress.best_validation_loss < 5
    assert isinstance(continued_run(trainer.folder, {"steps": 99})[0].model, T5ForConditionalGeneration)
    translator = Translator.from_pretrained(trainer.folder / "model")
    said = json.loads((trainer.folder / "model" / "generation_config.json").read_text())
    assert (said["bad_words_ids"], said["forced_eos_token_id"], said["eos_token_id"]) == (None, None, 1), "of a T5"
    sources = translator.encode([source for source, _ in sentences(20, 7)])
    assert all(
        1 <= len(group[0].tokens) <= 8 for group in translator.written(sources, translator.search(max_new_tokens=8))
    )


def test_summaries_stand_beside_first_sentences(tmp_path, eval_extra):
    rng = np.random.default_rng(0)
    with (tmp_path / "news.jsonl").open("w") as file:
        for _ in range(80):
            animal, place = rng.choice(["cat", "dog", "hen", "fox"]), rng.choice(["barn", "yard", "shed"])
            text = f"It was a long day. The {animal} went to the {place}. Nobody saw it there."
            file.write(json.dumps({"text": text, "summary": f"{animal} in {place}"}) + "\n")
    made = config(SummarizeConfig, epochs=3, held_out=10, lead=1)
    trainer, corpus = new_run(Source(tmp_path / "news.jsonl"), tmp_path / "run", made)
    trainer.observers = corpus.observers(print)
    trainer.train()
    report = (trainer.folder / "report.md").read_text()
    for name in ("rouge1", "rouge2", "rougeL"):
        assert re.search(rf"\| {name} \| [\d.]+ \([\d.]+ to [\d.]+\); of lead-1, the first sentence: [\d.]+ \|", report)
    task, model = load_model(trainer.folder)
    assert task.config.task == "summarize"
    originals = task.read(tmp_path / "news.jsonl", task.config, labelled=False)[:3]
    _, written = task.predicted(model, task.encode(originals, labelled=False), originals, labelled=False)
    assert len(written) == 3


def test_drawing_and_bounds(run):
    translator = Translator.from_pretrained(run[0].folder / "model")
    sources = translator.encode([source for source, _ in sentences(20, 3)])
    first, again, other = (translator.drawn(sources, Sampling(), seed=seed) for seed in (1, 1, 2))
    assert [x.text for x in first] == [x.text for x in again]
    assert [x.text for x in first] != [x.text for x in other]
    short = translator.written(sources, translator.search(max_new_tokens=3))
    assert all(len(group[0].tokens) <= 3 for group in short)
    alone = [translator.written([source])[0][0] for source in sources]
    together = [group[0] for group in translator.written(sources)]
    assert [a.text for a in alone] == [b.text for b in together]
    assert isinstance(translator.search(), BeamSearch)


def test_each_thread_takes_a_batch_of_its_own(run):
    """Outputs and scores are the same with any number of threads; the greedy ones too."""
    translator = Translator.from_pretrained(run[0].folder / "model")
    sources = translator.encode([source for source, _ in sentences(70, 5)])
    before, found, called = ml.get_num_threads(), {}, []
    try:
        for threads in (1, 3):
            ml.set_num_threads(threads)
            written = translator.written(sources, batch_size=20, progress=lambda *done: called.append(done))
            drawn = translator.drawn(sources, Sampling(temperature=0))
            found[threads] = (
                [[(h.tokens.tolist(), h.score) for h in group] for group in written],
                [output.tokens.tolist() for output in drawn],
            )
    finally:
        ml.set_num_threads(before)
    assert found[1] == found[3]
    assert called == [(20, 70), (40, 70), (60, 70), (70, 70)] * 2


def test_where_it_looked(run):
    """Rows add up to 1, and the word for an animal looks at the animal more than at what stands around it."""
    translator = Translator.from_pretrained(run[0].folder / "model")
    source = translator.encode(["the fox saw a hen"])[0]
    output = translator.written([source])[0][0].tokens
    weights = translator.alignment(source, output)
    assert weights.shape == (len(output), len(source))
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    assert translator.tokenizer.pieces(source)[-1] == "</s>"
    with pytest.raises(DataError, match="text 2: is empty"):
        translator.encode(["the fox", "  "])
    with pytest.raises(DataError, match=r"text 1: has .* tokens, and the model reads 64"):
        translator.encode(["cat " * 70])
