"""ARPA files: read again to the bit as they were written; other tools' files; bad ones, refused by line."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minilm.errors import ConfigError, DataError
from minilm.models.arpa import read_arpa, write_arpa
from minilm.models.ngram import NGram

# As SRILM writes: tabs, no weight where none is needed, <s> with -99, text before the head; p(a | b) = 10^(-0.1 - 0.3).
SRILM = r"""
some words that a tool left here

\data\
ngram 1=4
ngram 2=3
ngram 3=1

\1-grams:
-0.5	</s>
-99	<s>	-0.2
-0.3	a	-0.4
-0.7	b	-0.1

\2-grams:
-0.25	<s> a	-0.15
-0.6	a b
-0.35	b </s>

\3-grams:
-0.05	<s> a b

\end\
"""

# As KenLM's lmplz writes: <unk> first, a weight of 0 wherever nothing follows, and <s> with probability 1.
KENLM = """\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-0.8573325\t<unk>\t0
0\t<s>\t-0.30103
-0.60206\t</s>\t0
-0.39794\tfaçade\t-0.1760913

\\2-grams:
-0.1\t<s> façade
-0.2\tfaçade </s>

\\end\\
"""


def written(tmp_path, content):
    path = tmp_path / "model.arpa"
    path.write_text(content, "utf-8")
    return path


def log10(file, context, token):
    ids = {name: i for i, name in enumerate(file.names)} | {"<s>": len(file.names)}
    contexts = np.array([[ids[name] for name in context]], np.int64).reshape(1, len(context))
    return file.model.log_distribution(contexts)[0, ids[token]] / math.log(10)


@pytest.mark.parametrize(
    ("context", "token", "expected"),
    [
        ([], "a", -0.3),
        (["<s>"], "a", -0.25),
        (["<s>"], "b", -0.2 - 0.7),
        (["<s>", "a"], "b", -0.05),
        (["<s>", "a"], "a", -0.15 - 0.4 - 0.3),
        (["a", "b"], "</s>", -0.35),  # a b has no weight, and nothing follows it: 1
        (["a", "b"], "a", -0.1 - 0.3),
        (["b", "b", "a"], "b", -0.6),
    ],
)
def test_a_file_in_the_manner_of_srilm(tmp_path, context, token, expected):
    file = read_arpa(written(tmp_path, SRILM))
    assert file.names == ["</s>", "a", "b"]
    assert file.model.eos == 0
    assert math.isclose(log10(file, context, token), expected, rel_tol=1e-12)


def test_a_file_in_the_manner_of_kenlm(tmp_path):
    file = read_arpa(written(tmp_path, KENLM))
    assert file.names == ["<unk>", "</s>", "façade"]
    assert math.isclose(log10(file, ["<s>"], "<unk>"), -0.30103 - 0.8573325, rel_tol=1e-12)
    assert math.isclose(log10(file, ["façade"], "</s>"), -0.2, rel_tol=1e-12)
    assert len(file.model.distribution([[3]])[0]) == 3  # <s> is never predicted, though its line says 1
    assert file.model.levels[0].log_prob[3] == -np.inf
    text = np.array([2, 1, 2, 1])  # each sentence begins behind <s>
    np.testing.assert_allclose(file.model.log_probs(text) / math.log(10), [-0.1, -0.2] * 2)


def test_carriage_returns_and_spaces_are_blanks(tmp_path):
    path = tmp_path / "model.arpa"
    path.write_bytes(KENLM.replace("\t", "  ").replace("\n", "\r\n").encode())
    assert read_arpa(path).names == ["<unk>", "</s>", "façade"]


@given(st.data())
def test_round_trip_to_the_bit(tmp_path_factory, data):
    V = data.draw(st.integers(1, 6))
    ids = data.draw(st.lists(st.integers(0, V - 1), min_size=1, max_size=40))
    eos = data.draw(st.sampled_from([None, V - 1]))
    uniform = data.draw(st.booleans())
    assume(uniform or eos is None or eos in ids)  # a </s> that has the probability 0 is not read as a token
    model = NGram.fit(
        ids,
        V,
        data.draw(st.integers(1, 6)),
        data.draw(st.sampled_from(["kneser-ney", "witten-bell"])),
        uniform=uniform,
        eos=eos,
    )
    names = ["é\u00a0", "\u2028x", "#", "\\data\\", "-1"][: V - 1]
    names.append("</s>" if eos is not None else "y")
    path = tmp_path_factory.mktemp("arpa") / "model.arpa"
    write_arpa(path, model, names, ["one remark", "ngram 1=7"])
    file = read_arpa(path)
    assert (file.names, file.remarks) == (names, ["one remark", "ngram 1=7"])
    assert (file.model.eos, file.model.order) == (eos, model.order)
    for ours, read in zip(model.levels, file.model.levels):
        for name in ("keys", "log_prob", "backoff", "bounds"):
            a, b = getattr(ours, name), getattr(read, name)
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_array_equal(a, b, err_msg=name)
    again = path.with_name("again.arpa")
    write_arpa(again, file.model, file.names, file.remarks)
    assert again.read_bytes() == path.read_bytes()


def test_a_running_text_has_an_end_for_tools_that_want_one(tmp_path):
    model = NGram.fit([0, 1, 0], 2, 2)
    path = tmp_path / "model.arpa"
    write_arpa(path, model, ["a", "b"])
    assert "-99\t</s>\t0\n" in path.read_text("utf-8")
    assert "ngram 1=4\n" in path.read_text("utf-8")  # a, b, <s>, </s>


BAD = {
    "fewer than announced": (("ngram 2=3", "ngram 2=4"), "line 6: 4 2-grams are announced, and 3 are there"),
    "more than announced": (("ngram 1=4", "ngram 1=3"), "line 5: 3 1-grams are announced, and 4 are there"),
    "an order too few": (
        ("ngram 3=1\n", ""),
        "line 15: a 2-gram should have 3 columns, there being no 3-grams; this has 4",
    ),
    "an order too many": (("ngram 3=1", "ngram 3=1\nngram 4=1"), r"'\\4-grams:' should come, not '\\end\\'"),
    "orders that leap": (("ngram 2=3", "ngram 4=3"), r"line 6: 'ngram 2=...' should come, not 'ngram 4=3'"),
    "no number in the head": (("ngram 2=3", "ngram 2=x"), "line 6: 'ngram 2=...' should come"),
    "nothing announced": (("ngram 1=4\nngram 2=3\nngram 3=1\n", ""), "n-grams of 0 orders are announced"),
    "too many orders": (
        ("ngram 3=1", "\n".join(f"ngram {m}=1" for m in range(3, 8))),
        "n-grams of 7 orders are announced; minilm reads 1 to 6",
    ),
    "no head": (("\\data\\", "data"), r"the file ends, and \\data\\ should come"),
    "no end": (("\\end\\", ""), r"line \d+: the file ends, and '\\end\\' should come"),
    "a section too many": (("\\end\\", "\\4-grams:"), r"line 23: '\\end\\' should come, not '\\4-grams:'"),
    "cut off": (("\n\\3-grams:\n-0.05\t<s> a b\n\n\\end\\", ""), r"the file ends, and '\\end\\' should come"),
    "another section": (("\\2-grams:", "\\2grams:"), r"line 15: '\\2-grams:' should come, not '\\2grams:'"),
    "a missing weight": (
        ("-0.25\t<s> a\t-0.15", "-0.25\t<s> a"),
        "line 16: this 2-gram has no back-off weight, and is the context of the 3-gram in line 21",
    ),
    "a missing weight of a word": (
        ("-0.7\tb\t-0.1", "-0.7\tb"),
        "line 13: this 1-gram has no back-off weight, and is the context of the 2-gram in line 18",
    ),
    "a weight at the highest order": (
        ("-0.05\t<s> a b", "-0.05\t<s> a b\t-1"),
        "line 21: a 3-gram should have 4 columns",
    ),
    "a token too few": (
        ("-0.6\ta b", "-0.6\ta"),
        "line 17: a 2-gram should have 3 or 4 columns; this has 2: '-0.6\ta'",
    ),
    "no number": (("-0.6\ta b", "x\ta b"), "line 17: 'x' is not log10 of a probability"),
    "not a number": (("-0.6\ta b", "nan\ta b"), "line 17: 'nan' is not log10 of a probability"),
    "more than 1": (("-0.6\ta b", "0.6\ta b"), "line 17: '0.6' is not log10 of a probability, a number of at most 0"),
    "no weight": (("b\t-0.1", "b\tinf"), "line 13: 'inf' is not log10 of a back-off weight"),
    "an unknown token": (("-0.6\ta b", "-0.6\ta c"), "line 17: the token 'c' is no 1-gram"),
    "a token twice": (("-0.7\tb\t-0.1", "-0.7\ta\t-0.1"), "line 13: the 1-gram 'a' stands here for the second time"),
    "an n-gram twice": (("-0.6\ta b", "-0.6\t<s> a\t-1"), "line 17: this 2-gram stands in line 16 already"),
    "a context that is missing": (("<s> a b", "a a b"), "line 21: the context of this 3-gram is no 2-gram"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_with_file_and_line(tmp_path, case):
    (before, after), said = BAD[case]
    assert before in SRILM
    path = written(tmp_path, SRILM.replace(before, after, 1))
    with pytest.raises(DataError, match=said) as caught:
        read_arpa(path)
    assert str(caught.value).startswith(f"{path}, line ")


@pytest.mark.parametrize("line", range(1, SRILM.count("\n")))
def test_a_file_that_ends_early_is_never_read(tmp_path, line):
    with pytest.raises(DataError, match=r"model\.arpa, line \d+: "):
        read_arpa(written(tmp_path, "\n".join(SRILM.split("\n")[:line])))


def test_files_that_are_none(tmp_path):
    with pytest.raises(DataError, match=r"none\.arpa: there is no such file"):
        read_arpa(tmp_path / "none.arpa")
    with pytest.raises(DataError, match="this is a folder"):
        read_arpa(tmp_path)
    path = tmp_path / "latin1.arpa"
    path.write_bytes(KENLM.encode("latin-1"))
    with pytest.raises(DataError, match=r"latin1\.arpa, line 9: b'fa\\xe7ade' is no UTF-8"):
        read_arpa(path)


MODEL = NGram.fit([0, 1, 0], 2, 2)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a"], "1 names came for a vocabulary of 2"),
        (["a", "a"], "the same name"),
        (["a", ""], "'' cannot name a token"),
        (["a", "b c"], "'b c' cannot name a token"),
        (["a", "b\0"], "cannot name a token"),
        (["a", "<s>"], "<s> and </s> name"),
        (["a", "</s>"], "<s> and </s> name"),
    ],
)
def test_names_that_a_file_cannot_hold_leave_it_as_it_was(tmp_path, names, said):
    path = written(tmp_path, "what stood here")
    with pytest.raises(DataError, match=said):
        write_arpa(path, MODEL, names)
    assert path.read_text("utf-8") == "what stood here"
    assert list(tmp_path.iterdir()) == [path]


def test_the_end_of_a_sentence_must_have_its_name(tmp_path):
    with pytest.raises(DataError, match="<s> and </s> name the beginning and the end of a sentence"):
        write_arpa(tmp_path / "model.arpa", NGram.fit([0, 1], 2, 2, eos=1), ["a", "b"])
    assert list(tmp_path.iterdir()) == []


def test_add_k_has_no_such_file(tmp_path):
    with pytest.raises(ConfigError, match="add-k does not"):
        write_arpa(tmp_path / "model.arpa", NGram.fit([0, 1], 2, 2, "add-k"), ["a", "b"])
    assert list(tmp_path.iterdir()) == []


def test_a_failure_halfway_leaves_what_stood_there(tmp_path, monkeypatch):
    path = written(tmp_path, "what stood here")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minilm.models.arpa._lines", full)
    with pytest.raises(OSError, match="No space left"):
        write_arpa(path, MODEL, ["a", "b"])
    assert path.read_text("utf-8") == "what stood here"
    assert list(tmp_path.iterdir()) == [path]
