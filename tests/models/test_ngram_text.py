"""N-gram models of text: characters and words, cut-offs, what is unknown, perplexity, samples and files."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minilm.errors import ConfigError, DataError
from minilm.models.ngram_text import Characters, TextNGram, Words

RHYME = "the cat sat\non the mat\n\n  the cat  ate\n"


def test_words_are_cut_at_blanks_and_lines_are_sentences():
    words = Words.learn(RHYME, 1)
    assert words.names == ["ate", "cat", "mat", "on", "sat", "the", "</s>", "<unk>"]
    named = [words.names[i] for i in words.encode("the cat\n\nsaw the mat")]
    assert named == ["the", "cat", "</s>", "<unk>", "the", "mat", "</s>"]


def test_what_occurs_less_often_than_the_cutoff_is_unknown():
    assert Words.learn(RHYME, 2).names == ["cat", "the", "</s>", "<unk>"]
    assert Characters.learn("aab", 2).names == ["a", "<unk>"]
    np.testing.assert_array_equal(Characters.learn("aab", 2).encode("abc"), [0, 1, 1])
    model = TextNGram.train(RHYME, 2, level="word", cutoff=2)
    assert model.model.vocab_size == 4
    score = model.score("the dog sat")
    assert (score.tokens, score.unknown) == (4, 2)


def test_characters_are_all_characters_of_the_text():
    characters = Characters.learn("a b\né\t", 1)
    assert characters.names == ["<U+0009>", "<U+000A>", "<U+0020>", "a", "b", "é", "<unk>"]
    ids = characters.encode("é a\n")
    assert "".join(characters.shown(iter(ids.tolist()))) == "é a\n"


@pytest.mark.parametrize("level", ["char", "word"])
def test_perplexity_and_bits_are_those_of_the_probabilities(level):
    model = TextNGram.train(RHYME, 3, level=level)
    score = model.score("the mat ate\n")
    ids = model.vocabulary.encode("the mat ate\n")
    mean = -model.model.log_probs(ids).mean()
    assert score.tokens == len(ids) == {"char": 12, "word": 4}[level]
    assert score.characters == 12
    assert math.isclose(score.perplexity, math.exp(mean))
    assert math.isclose(score.bits_per_token, mean / math.log(2))
    assert math.isclose(score.bits_per_character, len(ids) * mean / math.log(2) / 12)


def test_a_character_that_was_never_seen_has_a_probability():
    model = TextNGram.train(RHYME, 3)
    score = model.score("Ω")
    assert (score.tokens, score.unknown) == (1, 1)
    assert 1 < score.perplexity < math.inf


def test_words_are_written_as_lines():
    model = TextNGram.train("the cat sat\n" * 9, 3, level="word")
    assert "".join(model.sample(8, temperature=0)) == "the cat sat\nthe cat sat\n"


def test_a_prompt_is_gone_on_with_in_its_line():
    model = TextNGram.train("the cat sat\n" * 9, 3, level="word")
    assert "".join(model.sample(3, "the", temperature=0)) == " cat sat\n"
    assert "".join(model.sample(3, "the ", temperature=0)) == "cat sat\n"
    assert "".join(model.sample(2, "the cat sat\n", temperature=0)) == "the cat"


def test_the_same_seed_writes_the_same():
    model = TextNGram.train(RHYME, 3)
    texts = [list(model.sample(50, "the", seed=seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[0]) == 50


@given(st.text(min_size=1, max_size=60), st.sampled_from(["char", "word"]))
def test_any_text_is_learnt_written_read_and_scored_alike(tmp_path_factory, text, level):
    assume(level == "char" or (text.split() and "\0" not in text))  # no name in a file has a NUL
    model = TextNGram.train(text, 3, level=level)
    path = tmp_path_factory.mktemp("text") / "model.arpa"
    model.save(path)
    read = TextNGram.load(path)
    assert read.level == level
    assert read.vocabulary.names == model.vocabulary.names
    assert read.score(text) == model.score(text)
    assert read.model.log_probs(read.vocabulary.encode(text)).shape == (model.score(text).tokens,)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"order": 0}, "from 1 to 6, not 0"),
        ({"order": 7}, "from 1 to 6, not 7"),
        ({"smoothing": "add-k", "k": 0.0}, "above 0"),
        ({"level": "line"}, "char or word"),
        ({"cutoff": 0}, "cutoff"),
    ],
)
def test_impossible_settings(settings, said):
    with pytest.raises(ConfigError, match=said):
        TextNGram.train(RHYME, **settings)


def test_texts_without_a_token():
    with pytest.raises(DataError, match="no character"):
        TextNGram.train("")
    with pytest.raises(DataError, match="no word"):
        TextNGram.train(" \n \n", level="word")
    with pytest.raises(DataError, match="nothing to score"):
        TextNGram.train(RHYME, level="word").score("\n")


def test_marks_of_sentences_are_no_words():
    with pytest.raises(DataError, match="line 2: <s> marks"):
        TextNGram.train("a b\nc <s>\n", level="word")
    model = TextNGram.train("a <unk>\nx<s>y z", level="word")  # within a word they are nothing special
    assert "x<s>y" in model.vocabulary.names


OTHERS = """\\data\\
ngram 1=4
\\1-grams:
-99\t<s>
-0.4\t</s>
-0.5\tb
-0.6\ta
\\end\\
"""


def test_a_file_of_another_tool_without_unk_names_the_word_it_lacks(tmp_path):
    path = tmp_path / "model.arpa"
    path.write_text(OTHERS, "utf-8")
    model = TextNGram.load(path)
    assert model.score("a b").unknown == 0
    with pytest.raises(DataError, match="line 2: the model has no token 'dog', and no <unk>"):
        model.score("a b\na dog")
    with pytest.raises(DataError, match="line 1: </s> marks"):
        model.score("</s>")
    with pytest.raises(DataError, match="'</s>' is no character"):
        TextNGram.load(path, level="char")
    path.write_text(OTHERS.replace("-0.4\t</s>", "-99\t</s>"), "utf-8")  # no token: a running text
    model = TextNGram.load(path, level="char")
    assert model.score("abba").tokens == 4
    with pytest.raises(DataError, match="line 1: the model has no token 'c', and no <unk>"):
        model.score("abc")


@pytest.mark.parametrize(
    ("remarks", "level"),
    [
        ("", "word"),
        ("# minilm, level char\n", "char"),
        ("# minilm, level word\n", "word"),
        ("# made of another\n# minilm, level char\n", "word"),
    ],
)
def test_the_first_remark_says_what_the_tokens_are(tmp_path, remarks, level):
    path = tmp_path / "model.arpa"
    path.write_text(remarks + OTHERS.lstrip().replace("-0.4\t</s>", "-99\t</s>"), "utf-8")
    assert TextNGram.load(path).level == level


def test_what_is_no_code_point_is_a_name(tmp_path):
    """A file of words may hold what looks like an escaped character."""
    path = tmp_path / "model.arpa"
    path.write_text(OTHERS.replace("\ta\n", "\t<U+FFFFFF>\n"), "utf-8")
    assert TextNGram.load(path).vocabulary.names[-1] == "<U+FFFFFF>"
    with pytest.raises(DataError, match="is no character, so this is no model of characters"):
        TextNGram.load(path, level="char")
