"""Files of pairs: what is read, and that what is wrong is refused with file and line."""

from __future__ import annotations

import gzip
import json

import pytest

from minilm.data.pairs import TextPair, held_out, read_pairs
from minilm.errors import ConfigError, DataError

PAIRS = [("In the beginning", "EN el principio"), ("And God said", "Y dijo Dios")]


@pytest.fixture
def written(tmp_path):
    def write(name, content):
        path = tmp_path / name
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


def sides(pairs):
    return [(pair.source, pair.target) for pair in pairs]


TSV = "".join(f"{source}\t{target}\n" for source, target in PAIRS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", TSV),
        ("a.tsv.gz", TSV),
        ("a.txt", "\ufeff" + TSV.replace("\n", "\r\n") + "\n \n"),
        ("a.tsv", "source\ttarget\n" + TSV),
        ("a.tsv", "target\tid\tsource\n" + "".join(f"{t}\t1\t{s}\n" for s, t in PAIRS)),
        ("a.jsonl", "".join(json.dumps({"text": s, "summary": t, "id": 3}) + "\n" for s, t in PAIRS)),
        ("a.jsonl.gz", "\n".join(json.dumps({"target": t, "source": f" {s} "}) for s, t in PAIRS)),
    ],
)
def test_pairs_are_read(written, name, content):
    assert sides(read_pairs(written(name, content))) == PAIRS


def test_columns_can_be_said(written):
    rows = "".join(f"{n}\t{t}\t{s}\n" for n, (s, t) in enumerate(PAIRS))
    assert sides(read_pairs(written("a.tsv", rows), 3, 2)) == PAIRS
    assert sides(read_pairs(written("b.tsv", "n\tes\ten\n" + rows), "en", "es")) == PAIRS
    objects = "".join(json.dumps({"en": s, "es": t}) + "\n" for s, t in PAIRS)
    assert sides(read_pairs(written("a.jsonl", objects), "en", "es")) == PAIRS


def test_sources_alone(written):
    assert sides(read_pairs(written("a.tsv", "one\ntwo\n"), labelled=False)) == [("one", ""), ("two", "")]
    assert sides(read_pairs(written("a.jsonl", '{"source": "one"}'), labelled=False)) == [("one", "")]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.tsv", TSV + "only one\n", "line 3: has 1 column, and the first line has 2"),
        ("a.tsv", TSV + "a\tb\tc\n", "line 3: has 3 columns, and the first line has 2"),
        ("a.tsv", TSV + "\n\tnothing\n", "line 4: the source is empty"),
        ("a.tsv", TSV + "something\t \n", "line 3: the target is empty"),
        ("a.tsv", "a\tb\tc\n", "line 1: has 3 columns; a pair is a source, a tab and a target"),
        ("a.tsv", b"one\ttwo\nthr\xffee\tfour\n", "line 2: is no UTF-8 text (byte 0xff, number 4)"),
        ("a.tsv", "source\ttarget\n", "there is no pair in this file"),
        ("a.tsv", "", "the file is empty"),
        ("a.csv", TSV, "the name ends in '.csv'"),
        ("a.jsonl", '{"source": "a", "target": "b"}\n{"source": "a"}\n', "line 2: there is no 'target' among 'source'"),
        ("a.jsonl", '{"source": "a", "target": 3}\n', "line 1: 'target' is 3, not a text"),
        ("a.jsonl", '{"source": "a", "target": ""}\n', "line 1: the target is empty"),
        ("a.jsonl", '{"source": "\\ud800", "target": "b"}\n', "line 1: 'source': U+D800"),
        ("a.jsonl", "{,}\n", "line 1: is not JSON"),
        ("a.jsonl", '{"left": "a", "right": "b"}\n', "line 1: has 'left', 'right'; say which is the source"),
    ],
)
def test_a_mistake_is_named_with_its_line(written, name, content, said):
    with pytest.raises(DataError) as caught:
        read_pairs(written(name, content))
    assert str(caught.value).startswith(str(written(name, content)))
    assert said in str(caught.value)


def test_what_cannot_be_unpacked_or_found(tmp_path):
    (tmp_path / "a.tsv.gz").write_text(TSV)
    with pytest.raises(DataError, match=r"a\.tsv\.gz: cannot be unpacked"):
        read_pairs(tmp_path / "a.tsv.gz")
    with pytest.raises(DataError, match="no such file"):
        read_pairs(tmp_path / "none.tsv")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ((1, 3), "there is no column 3 among 2"),
        (("en", "es"), "the column 'en' is not among"),
        ((1, None), "must both be said"),
        ((2, 2), "must be different columns"),
    ],
)
def test_columns_that_are_not_there(written, columns, said):
    with pytest.raises(DataError, match=said):
        read_pairs(written("a.tsv", TSV), *columns)


def test_every_third_pair_is_held_out():
    pairs = [TextPair(str(n), str(n), "a.tsv", n) for n in range(1, 8)]
    train, test = held_out(pairs, 3)
    assert [pair.line for pair in test] == [3, 6]
    assert [pair.line for pair in train] == [1, 2, 4, 5, 7]
    with pytest.raises(DataError, match="7 pairs, so none is the 8th"):
        held_out(pairs, 8)
    with pytest.raises(ConfigError, match="at least every 2nd"):
        held_out(pairs, 1)
