"""`minilm questions` as typed: the files that it writes, and what it refuses with one line."""

from __future__ import annotations

import gzip
import json

import pytest

from minilm.data import corpora, read_squad


@pytest.fixture(autouse=True)
def play(tmp_path):
    text = corpora.shakespeare()[20_000:80_000]
    (tmp_path / "play.txt").write_text(text, "utf-8")
    (tmp_path / "play.txt.gz").write_bytes(gzip.compress(text.encode()))


def test_plain_and_packed_text_give_the_same_questions(call, tmp_path):
    code, out, err = call("questions", "play.txt", "--out", "plain", "--count", "100")
    assert (code, err) == (0, "")
    first, second = out.splitlines()
    assert first.startswith("plain/train.json: 80 questions, 64 with an answer, on ")
    assert second.startswith("plain/valid.json: 20 questions, 16 with an answer, on ")
    assert "the nearest to the question's words" in second
    assert call("questions", "play.txt.gz", "--out", "packed", "--count", "100")[0] == 0
    for name in ("train.json", "valid.json"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "packed" / name).read_bytes()
    assert len(read_squad(tmp_path / "plain/train.json").questions) == 80
    assert call("questions", "play.txt", "--out", "other", "--count", "100", "--seed", "1")[0] == 0
    assert json.loads((tmp_path / "other/train.json").read_text()) != json.loads(
        (tmp_path / "plain/train.json").read_text()
    )


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("none.txt",), "none.txt: there is no such file"),
        (("short.txt",), "both parts need some"),
        (("empty.txt",), "empty.txt: the file is empty"),
        (("latin.txt",), "latin.txt: byte 0xe9 at offset 1"),
        (("broken.txt.gz",), "broken.txt.gz: is not a whole .gz file"),
        (("text.gz",), "text.gz: is not a whole .gz file"),
        (("latin.gz",), "latin.gz: unpacked, it is not UTF-8"),
        (("nothing.gz",), "nothing.gz: unpacked, it is empty"),
        (("play.txt", "--count", "1"), "count must be at least 2, not 1"),
        (("play.txt", "--valid-fraction", "0"), "valid_fraction must be between 0 and 1"),
        (("play.txt", "--no-answer", "1"), "no_answer must be from 0 to below 1"),
        (("play.txt", "--length", "9"), "length must be at least 40"),
    ],
)
def test_one_line_for_what_cannot_be(call, tmp_path, args, said):
    (tmp_path / "short.txt").write_text("Anna met Otto.")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes("né le".encode("latin-1"))
    (tmp_path / "broken.txt.gz").write_bytes((tmp_path / "play.txt.gz").read_bytes()[:-900])
    (tmp_path / "text.gz").write_text("Anna met Otto.")
    (tmp_path / "latin.gz").write_bytes(gzip.compress("né le".encode("latin-1")))
    (tmp_path / "nothing.gz").write_bytes(gzip.compress(b""))
    code, out, err = call("questions", *args, "--out", "made")
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "made").exists()
