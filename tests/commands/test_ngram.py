"""`minilm ngram`: learning, measuring, writing a file and reading it, samples, and what it refuses."""

from __future__ import annotations

import re

import pytest

from minilm.models.ngram_text import TextNGram

RHYME = "the cat sat\non the mat\nthe cat ate\n" * 20


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "rhyme.txt"
    path.write_text(RHYME, "utf-8")
    return path


def perplexity(out):
    return float(re.search(r"perplexity +([\d.,]+) per", out)[1].replace(",", ""))


@pytest.mark.parametrize("level", ["char", "word"])
@pytest.mark.parametrize("smoothing", ["kneser-ney", "witten-bell"])
def test_learn_write_read_and_measure(call, corpus, tmp_path, level, smoothing):
    code, out, err = call(
        "ngram", corpus, "--level", level, "--smoothing", smoothing, "--order", 3, "--valid", corpus, "-o", "m.arpa"
    )
    assert (code, err) == (0, "")
    expected = TextNGram.train(RHYME, 3, smoothing, level=level).score(RHYME)
    assert f"{expected.perplexity:.3f} per {'word' if level == 'word' else 'character'}" in out
    assert f"{expected.bits_per_character:.3f} bits" in out
    code, again, err = call("ngram", "--load", "m.arpa", "--score", corpus)
    assert (code, err) == (0, "")
    assert perplexity(again) == perplexity(out)
    assert f"3-gram model of {'words' if level == 'word' else 'characters'}, from m.arpa" in again


def test_the_last_part_is_held_out(call, corpus):
    _, out, _ = call("ngram", corpus, "--valid-fraction", 0.25, "--order", 2)
    assert f"learnt from {int(len(RHYME) * 0.75):,} characters" in out
    assert f"measured on  {len(RHYME) - int(len(RHYME) * 0.75):,} characters, 0 of them unknown" in out
    _, out, _ = call("ngram", corpus, "--level", "word", "--valid-fraction", 0.26)
    assert int(re.search(r"learnt from ([\d,]+)", out)[1].replace(",", "")) in {
        m.end() for m in re.finditer("\n", RHYME)
    }  # whole lines
    _, out, _ = call("ngram", corpus, "--valid-fraction", 0)
    assert "perplexity" not in out
    assert "measured" not in out


def test_add_k_and_cutoffs(call, corpus):
    code, out, _ = call("ngram", corpus, "--smoothing", "add-k", "--k", 0.1, "--valid", corpus, "--order", 2)
    expected = TextNGram.train(RHYME, 2, "add-k", k=0.1).score(RHYME)
    assert (code, perplexity(out)) == (0, round(expected.perplexity, 3))
    _, out, _ = call("ngram", corpus, "--level", "word", "--cutoff", 30, "--valid", corpus)
    assert "vocabulary   4 tokens" in out  # the, cat, </s>, <unk>
    assert "note         order 5: too few counts for discounts of its own" in out
    assert "240 words and line ends, 80 of them unknown" in out


def test_samples(call, corpus):
    args = ("ngram", corpus, "--sample", 20, "--prompt", "the c", "--seed", 3)
    (_, first, _), (_, second, _) = call(*args), call(*args)
    text = first.split("\n\n", 1)[1]
    assert text == second.split("\n\n", 1)[1]
    assert text.startswith("the c")
    assert len(text) == len("the c") + 20 + 1
    _, cold, _ = call("ngram", corpus, "--level", "word", "--sample", 3, "--prompt", "on the", "--temperature", 0)
    assert cold.split("\n\n", 1)[1].startswith("on the ")


REFUSED = {
    ("--order", "0"): "from 1 to 6, not 0",
    ("--order", "7"): "from 1 to 6, not 7",
    ("--smoothing", "add-k", "--k", "0"): "above 0, not 0.0",
    ("--smoothing", "good-turing"): "kneser-ney, witten-bell, add-k",
    ("--smoothing", "add-k", "-o", "m.arpa"): "add-k does not",
    ("--level", "line"): "char or word",
    ("--cutoff", "0"): "cutoff",
    ("--valid-fraction", "1"): "valid-fraction must be at least 0 and below 1",
    ("--valid", "none.txt"): "none.txt: there is no such file",
    ("--valid", "rhyme.txt", "--valid-fraction", "0.2"): "not both",
    ("-o", "none/m.arpa"): "none/m.arpa: cannot be written",
    ("-o", "."): "this is a folder",
    ("--sample", "-1"): "sample must be at least 0",
    ("--seed", "-1", "--sample", "1"): "seed",
    ("--temperature", "-1"): "temperature",
    ("--load", "m.arpa", "--score", "rhyme.txt"): "CORPUS cannot be given beside it",
}


@pytest.mark.parametrize("options", REFUSED, ids=" ".join)
def test_mistakes_end_in_one_line(call, corpus, tmp_path, options):
    code, out, err = call("ngram", corpus, *options)
    assert (code, out) == (2, "")
    assert REFUSED[options] in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [corpus]


def test_mistakes_with_a_loaded_model(call, corpus, tmp_path):
    call("ngram", corpus, "-o", "m.arpa")
    for options, said in (
        ((), "--score TEXT, --sample N or --out FILE"),
        (("--score", "rhyme.txt", "--order", 3), "order cannot be given beside it"),
        (("--score", "rhyme.txt", "--valid-fraction", 0.5), "valid-fraction cannot"),
    ):
        code, _, err = call("ngram", "--load", "m.arpa", *options)
        assert code == 2
        assert said in err
    content = (tmp_path / "m.arpa").read_text("utf-8")
    (tmp_path / "m.arpa").write_text(content.replace("ngram 2=", "ngram 2=1"), "utf-8")
    code, _, err = call("ngram", "--load", "m.arpa", "--score", "rhyme.txt")
    assert code == 2
    assert "m.arpa, line 4: " in err
    assert "are announced, and" in err


def test_an_empty_corpus(call, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.txt").write_text("\n \n")
    assert "empty.txt: the file is empty" in call("ngram", "empty.txt")[2]
    assert "blank.txt: the corpus is empty: there is no word in it" in call("ngram", "blank.txt", "--level", "word")[2]
