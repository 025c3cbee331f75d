"""The ladder: models of one size, one split and one question for all, and what is written."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import minilm as ml
from minilm.errors import ConfigError, DataError
from minilm.models import GPT, NGram
from minilm.models.feed_forward import FeedForwardLM
from minilm.models.recurrent import RecurrentLM
from minilm.text import BPETokenizer, CharTokenizer
from minilm.train import ladder
from minilm.train.checkpoint import load_run
from minilm.train.ladder import RUNGS, HeldOut, LadderConfig, Rung, climb, longest_order, sized
from minilm.train.ladder_report import HEADINGS, best, cells, markdown, remarks
from minilm.train.observers import Observer
from minilm.train.tasks import task
from minilm.train.trainer import precision

NETWORKS = RUNGS[1:]
TINY = {"parameters": 9000, "steps": 4, "batch_size": 4, "block_size": 8, "held_out": 150}


@pytest.fixture
def corpus_file(tmp_path):
    path = tmp_path / "cats.txt"
    path.write_text("".join(f"the cat {word} on mat {i}.\n" for i in range(60) for word in ("sat", "ate")), "utf-8")
    return path


# --- models of one size ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("budget", [20_000, 300_000])
def test_each_network_is_as_wide_as_the_budget_allows(kind, budget):
    config = LadderConfig(parameters=budget, steps=1)
    run = sized(config.run(kind), budget, 84)

    def count(run):
        return sum(p.numel() for p in task(kind).model(run.model).parameters())

    name = {"ffnn": "n_hidden", "gpt": "n_embd"}.get(kind, "n_hidden")
    wider = run.from_dict({**run.to_dict(), "model": {**run.model.to_dict(), name: getattr(run.model, name) + 4}})
    assert count(run) <= budget < count(wider)
    assert count(run) > 0.6 * budget


def test_the_default_budget_is_used_to_two_per_cent_or_as_heads_allow():
    config = LadderConfig()
    for kind in NETWORKS:
        run = sized(config.run(kind), config.parameters, 84)
        count = sum(p.numel() for p in task(kind).model(run.model).parameters())
        least = 0.93 if kind == "gpt" else 0.98  # the next width that its heads divide is too wide
        assert least * config.parameters < count <= config.parameters, kind


def test_a_budget_that_is_too_small_is_refused():
    config = LadderConfig(parameters=100, steps=1)
    with pytest.raises(ConfigError, match=r"parameters must be at least [\d,]+ for GPT, not 100"):
        sized(config.run("gpt"), 100, 84)


def test_the_order_follows_from_the_budget():
    ids = np.random.default_rng(0).integers(0, 5, 300)
    sizes = [NGram.fit(ids, 5, order).numel() for order in range(1, 7)]
    for order, size in enumerate(sizes, 1):
        assert longest_order(ids, 5, size) == order
        assert longest_order(ids, 5, size - 1) == max(order - 1, 1)


# --- the same question for all -----------------------------------------------------------------------


def held_out(first, end, V=7, seed=1):
    tokens = np.random.default_rng(seed).integers(0, V, end)
    return HeldOut(tokens, first, end, end - first)


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def network(kind):
    ml.manual_seed(3)
    config = LadderConfig(parameters=9000, steps=1, block_size=8)
    run = sized(config.run(kind), 9000, 7)
    model = task(kind).model(run.model)
    for p in model.parameters():
        p.array[...] *= 3  # so that what lies before matters
    return model


def test_a_gpt_foretells_each_token_from_half_a_block_at_least():
    model, held = network("gpt"), held_out(20, 61)
    assert isinstance(model, GPT)
    total = 0.0
    for place in range(held.first, held.end):
        start = held.first + (place - held.first) // 4 * 4 - 4  # windows of 8 begin 4 before, every 4
        seen = ml.Tensor(held.tokens[start - 1 : place][None])
        total -= log_softmax(model(seen).array[0, -1])[held.tokens[place]]
    assert held.by_network(model, 8) == pytest.approx(total / 41, rel=1e-5)
    assert not model.training


@pytest.mark.parametrize("kind", ["ffnn", "rnn", "lstm", "gru"])
@pytest.mark.parametrize("end", [61, 36 + 16 * 13])
def test_what_reads_on_foretells_each_token_once_from_all_that_its_stream_has_read(kind, end):
    model, held = network(kind), held_out(36, end)
    assert isinstance(model, (FeedForwardLM, RecurrentLM))
    length, total = -(-(end - 36) // 16), 0.0
    for place in range(held.first, held.end):
        start = held.first + (place - held.first) // length * length - 8
        seen = ml.Tensor(held.tokens[start - 1 : place][None])
        total -= log_softmax(model(seen).array[0, -1])[held.tokens[place]]
    assert held.by_network(model, 8) == pytest.approx(total / (end - 36), rel=1e-5)


def test_an_ngram_model_sees_what_stands_before():
    held = held_out(20, 61)
    model = NGram.fit(held.tokens[:20], 7, 3)
    assert held.by_ngram(model) == pytest.approx(-model.log_probs(held.tokens)[20:].mean(), rel=1e-12)


def test_a_network_that_knows_nothing_needs_the_logarithm_of_the_vocabulary():
    for kind in NETWORKS:
        model = network(kind)
        for p in model.parameters():
            p.array[...] = 0
        assert held_out(36, 137).by_network(model, 8) == pytest.approx(math.log(7), rel=1e-5)


# --- climbing ----------------------------------------------------------------------------------------


@pytest.fixture
def climbed(call, corpus_file, tmp_path):
    options = [f"{name}={value}" for name, value in TINY.items() if name not in ("parameters", "steps")]
    sets = [part for option in options for part in ("--set", option)]
    code, out, err = call("ladder", corpus_file, "--parameters", 9000, "--steps", 4, "--out", "l", *sets)
    assert (code, err) == (0, "")
    return out, tmp_path / "l"


def test_one_table_and_one_picture(climbed, corpus_file, call):
    pytest.importorskip("matplotlib")
    out, folder = climbed
    found = json.loads((folder / "ladder.json").read_text("utf-8"))
    models = found["models"]
    assert [model["kind"] for model in models] == list(RUNGS)
    text = corpus_file.read_text("utf-8")
    tokenizer = CharTokenizer.train(text)
    ids = tokenizer.encode_array(text)
    cut = int(len(ids) * 0.9)
    assert found["train_tokens"] == cut
    for model in models:
        assert model["parameters"] <= 9000 or model["shape"] == "order 1"
        if model["kind"] in NETWORKS:
            run = sized(LadderConfig(**TINY).run(model["kind"]), 9000, tokenizer.vocab_size)
            network = task(model["kind"]).model(run.model)
            assert model["parameters"] == sum(p.numel() for p in network.parameters()), model["kind"]
        assert model["bits_per_character"] == pytest.approx(model["nats"] / math.log(2))
        assert model["perplexity"] == pytest.approx(math.exp(model["nats"]))
    assert [model["tokens"] for model in models] == [cut, *[4 * 4 * 8] * 5]
    order = int(models[0]["shape"].split()[-1])
    ngram = NGram.fit(ids[:cut], tokenizer.vocab_size, order)
    assert models[0]["nats"] == pytest.approx(-ngram.log_probs(ids[: cut + 150])[cut:].mean())
    page = (folder / "ladder.md").read_text("utf-8")
    assert page.count("\n| ") == 2 + len(RUNGS)
    table = out[out.index("model") :].splitlines()[:7]
    for line, title in zip(table[1:], ("n-gram", "feed-forward", "RNN", "LSTM", "GRU", "GPT")):
        assert line.startswith(title)
        assert len(line) <= 80
    assert "Best: " in out
    assert (folder / "ladder.png").read_bytes().startswith(b"\x89PNG")
    assert "ladder.png" in out


def test_each_network_is_a_run_that_goes_on_and_writes(climbed, call):
    _, folder = climbed
    for kind in NETWORKS:
        code, out, err = call("generate", folder / kind, "--prompt", "the", "--tokens", 3)
        assert (code, err) == (0, ""), kind
        assert out.startswith("the")


def test_bits_are_per_character_where_tokens_are_longer(corpus_file, tmp_path):
    """Byte pairs: the bits of the held-out tokens over the characters that these stand for."""
    config = LadderConfig(**{**TINY, "held_out": 40, "tokenizer": "bpe", "bpe_vocab_size": 290})
    (rung,), cut = climb(corpus_file, tmp_path / "l", config, ["ngram"])
    tokenizer = BPETokenizer.load(tmp_path / "l")
    ids = tokenizer.encode_array(corpus_file.read_text("utf-8"))
    characters = len(tokenizer.decode(ids[cut : cut + 40]))
    assert cut == int(len(ids) * 0.9)
    assert characters > 60
    assert rung.bits_per_character == pytest.approx(rung.nats / math.log(2) * 40 / characters)


def test_a_network_is_asked_in_the_precision_that_it_learnt_in(corpus_file, tmp_path):
    (rung,), cut = climb(corpus_file, tmp_path / "l", LadderConfig(**TINY), ["gru"])
    model, tokenizer = load_run(tmp_path / "l" / "gru")
    ids = tokenizer.encode_array(corpus_file.read_text("utf-8")).astype(np.int64)
    held = HeldOut(ids[: cut + 150], cut, cut + 150, 150)
    with precision("bf16"):  # in float32 it is another number, on processors that multiply bfloat16
        assert rung.nats == held.by_network(model, 8)


class Interrupting(Observer):
    """Asks to end at the second step."""

    def stepped(self, trainer):
        trainer.interrupted = trainer.progress.step == 2


def test_an_interrupted_run_ends_the_climb(corpus_file, tmp_path):
    said = []
    with pytest.raises(KeyboardInterrupt):
        climb(
            corpus_file, tmp_path / "l", LadderConfig(**TINY), ["rnn", "gru"], lambda _: [Interrupting()], said.append
        )
    assert len(said) == 1
    assert said[0].startswith("RNN: ")
    assert not (tmp_path / "l" / "gru").exists()


def test_it_is_repeatable(corpus_file, tmp_path):
    found = [climb(corpus_file, tmp_path / name, LadderConfig(**TINY))[0] for name in ("a", "b")]
    assert [rung.nats for rung in found[0]] == [rung.nats for rung in found[1]]


def test_seconds_become_steps(corpus_file, tmp_path, monkeypatch):
    clock = [0.0]

    def gradients(trainer, batch):
        clock[0] += 0.01
        return original(trainer, batch)

    original = ladder.Trainer._gradients
    monkeypatch.setattr(ladder.Trainer, "_gradients", gradients)
    monkeypatch.setattr(ladder.time, "perf_counter", lambda: clock[0])
    config = LadderConfig(**{**TINY, "steps": 0, "seconds": 0.3})
    (rung,), _ = climb(corpus_file, tmp_path / "l", config, ["ffnn"])
    assert rung.tokens == 30 * 4 * 8


def test_learning_shows(corpus_file, tmp_path):
    config = LadderConfig(**{**TINY, "steps": 40, "parameters": 20_000})
    rungs, _ = climb(corpus_file, tmp_path / "l", config, ["ffnn", "lstm", "gpt"])
    for rung in rungs:
        assert rung.nats < math.log(20), rung.kind


REFUSED = {
    ("--steps", "3", "--seconds", "2"): "not both",
    ("--models", "ngram,bert"): "the models are ngram, ffnn, rnn, lstm, gru, gpt, not bert",
    ("--parameters", "50", "--steps", "1"): "parameters must be at least",
    ("--parameters", "0"): "parameters must be at least 1, not 0",
    ("--seconds", "0"): "seconds must be above 0",
    ("--set", "block_size=1"): "block_size must be at least 2",
    ("--set", "width=3"): "unknown key 'width'",
    ("--set", "precision=half"): "precision must be",
    ("--out", "cats.txt"): "is there already",
}


@pytest.mark.parametrize("options", REFUSED, ids=" ".join)
def test_mistakes_end_in_one_line_and_leave_nothing(call, corpus_file, tmp_path, options):
    code, _, err = call("ladder", corpus_file, *options)
    assert code == 2
    assert REFUSED[options] in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [corpus_file]


def test_a_ladder_is_not_overwritten(climbed, corpus_file, call):
    before = (climbed[1] / "ladder.md").read_bytes()
    code, _, err = call("ladder", corpus_file, "--out", "l", "--steps", 1)
    assert code == 2
    assert "stays as it is" in err
    assert (climbed[1] / "ladder.md").read_bytes() == before


def test_texts_that_are_none_or_too_short(call, tmp_path):
    assert "none.txt: there is no such file" in call("ladder", "none.txt")[2]
    (tmp_path / "short.txt").write_text("abcdefgh" * 4)
    code, _, err = call("ladder", "short.txt", "--steps", 1)
    assert code == 2
    assert "short.txt: is too short" in err
    with pytest.raises(DataError, match="too short"):
        HeldOut.of(type("Corpus", (), {"tokens": np.arange(1), "train_fraction": 0.9, "name": "x"})(), 5)


# --- what is said ------------------------------------------------------------------------------------


def rung(kind, nats, tokens=1000):
    return Rung(kind, "a shape", 500, 2.0, tokens, nats, nats / math.log(2))


def test_the_best_is_named_and_what_to_know_if_it_is_not_the_gpt():
    ngram, gpt = rung("ngram", 1.5), rung("gpt", 1.4)
    assert best([ngram, gpt]) is gpt
    assert remarks([ngram, gpt], 4000) == ["Best: GPT."]
    ngram = rung("ngram", 1.3)
    said = remarks([ngram, gpt], 4000)
    assert said[0] == "Best: n-gram, 0.144 bits per character ahead of GPT."
    assert "GPT read 1,000 tokens, 0.25 passes of the text, in 2 s" in said[1]
    assert remarks([gpt, ngram], 4000) == ["Best: n-gram."]
    assert cells(gpt) == ["GPT", "a shape", "500", "2.0 s", "1,000", "500", "4.055", "2.020"]
    page = markdown([ngram, gpt], LadderConfig(), 4000)
    assert f"| {' | '.join(HEADINGS)} |" in page
    assert said[0] in page
