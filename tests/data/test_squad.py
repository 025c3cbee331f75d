"""SQuAD's files: versions 1.1 and 2.0, and all that may be wrong in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.data import Answer, read_squad
from minilm.data.squad import line_of
from minilm.errors import DataError

CONTEXT = "The Norman  kings\u00a0ruled. Norman kings built."


def answer(text: str, start: int) -> dict[str, Any]:
    return {"text": text, "answer_start": start}


def question(**fields: Any) -> dict[str, Any]:
    return {"id": "q1", "question": "Who?", "answers": [answer("The Norman", 0)]} | fields


def file_of(*questions: dict[str, Any], context: str = CONTEXT) -> dict[str, Any]:
    paragraphs = [{"context": context, "qas": list(questions)}]
    return {"version": "v2.0", "data": [{"title": "Normans", "paragraphs": paragraphs}]}


def written(folder: Path, data: Any, indent: int | None = 1) -> Path:
    path = folder / "dev.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data, indent=indent), "utf-8")
    return path


def test_both_versions(tmp_path: Path) -> None:
    none = question(id="q2", is_impossible=True, answers=[], plausible_answers=[answer("ruled", 18)])
    bare = {"id": 3, "question": "Why?", "is_impossible": True}
    several = question(id="q4", is_impossible=False, answers=[answer("ruled", 18), answer("built", 38)])
    read = read_squad(written(tmp_path, file_of(question(), none, bare, several)))
    assert [q.id for q in read.questions] == ["q1", "q2", "3", "q4"]
    assert [q.answers for q in read.questions] == [
        (Answer("The Norman", 0),), (), (), (Answer("ruled", 18), Answer("built", 38)),
    ]  # fmt: skip
    assert read.has_unanswerable
    assert read.repaired == 0
    first = read.questions[0]
    assert (first.question, first.context, first.title) == ("Who?", CONTEXT, "Normans")
    assert first.where == f"{tmp_path}/dev.json: data[0].paragraphs[0].qas[0] (id 'q1')"
    assert not read_squad(written(tmp_path, file_of(question()))).has_unanswerable


@pytest.mark.parametrize(
    ("text", "start", "moved"),
    [
        (" Norman", 3, Answer("Norman", 4)),  # a blank in front that is there
        (" Norman", 4, Answer("Norman", 4)),
        ("kings ", 12, Answer("kings", 12)),  # a blank behind that is none of the context's
        ("Norman kings", 4, Answer("Norman  kings", 4)),  # two blanks in the context
        ("kings ruled", 12, Answer("kings\u00a0ruled", 12)),  # another blank
        ("kings", 11, Answer("kings", 12)),  # one blank too early
        ("Norman kings", 25, Answer("Norman kings", 25)),  # as it stands, not as the first one stands
    ],
)
def test_blanks_are_repaired_and_counted(tmp_path: Path, text: str, start: int, moved: Answer) -> None:
    read = read_squad(written(tmp_path, file_of(question(answers=[answer(text, start)]))))
    assert read.questions[0].answers == (moved,)
    assert read.repaired == int((text, start) != (moved.text, moved.start))
    assert CONTEXT[moved.start :].startswith(moved.text)


AT = r"data\[0\]\.paragraphs\[0\]\.qas\[1\]"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"answers": [answer("Norman", 5)]}, r": {AT}\.answers\[0\]: the answer 'Norman' .* at 5; it stands at 4"),
        ({"answers": [answer("Saxon", 0)]}, r"the answer 'Saxon' is not in its context at 0, nor anywhere in it"),
        ({"answers": [answer("The", 0), answer("The", -1)]}, r"\.answers\[1\]: the answer 'The' is not .* at -1"),
        ({"answers": [answer("built", 900)]}, "is not in its context at 900; it stands at 38"),
        ({"answers": [answer("the norman", 0)]}, "nor anywhere"),
        ({"answers": [answer(" ", 3)]}, "the text is empty"),
        ({"answers": [{"text": "The"}]}, r"\.answers\[0\]: there is no 'answer_start'"),
        ({"answers": [answer("The", 0) | {"answer_start": "0"}]}, "'answer_start' is \"0\", not int"),
        ({"answers": [answer("The", 0) | {"answer_start": True}]}, "'answer_start' is true, not int"),
        ({"answers": ["The"]}, r"\.answers\[0\]: is \"The\", not a JSON object"),
        ({"answers": {"text": ["The"], "answer_start": [0]}}, "'answers' is .* not list"),
        ({"answers": []}, "there is no answer, and is_impossible is not true"),
        ({"is_impossible": True}, "is_impossible is true, and there are answers"),
        ({"is_impossible": "no"}, 'is_impossible is "no", not true or false'),
        ({"question": " "}, "the question is empty"),
        ({"question": "a\ud800"}, r"the question: U\+D800 at position 1 is a lone surrogate"),
        ({"question": None}, "'question' is null, not str"),
        ({"id": "q1"}, r"the id 'q1' is that of data\[0\]\.paragraphs\[0\]\.qas\[0\], too"),
        ({"id": None}, "'id' is null, not str or int"),
    ],
)  # fmt: skip
def test_refused_with_line_and_place(tmp_path: Path, fields: dict[str, Any], why: str) -> None:
    data = file_of(question(), question(**({"id": "q2"} | fields)))
    path = written(tmp_path, data)
    with pytest.raises(DataError, match=why.replace("{AT}", AT)) as caught:
        read_squad(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: line ")
    lines = path.read_text("utf-8").split("\n")
    named = int(message.removeprefix(f"{path}: line ").split(":")[0])
    second = [i for i, line in enumerate(lines, 1) if line == " " * 6 + "{"][1]
    assert named >= second
    assert lines[named - 1].strip()[0] in '{"'


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ('{"data": [\n{"paragraphs": [}\n]}', r"line 2: is not JSON \(Expecting value, column 17\)"),
        ("[" * 100_000, "is not JSON for a question file"),
        ([], "line 1: the whole: is list, not a JSON object"),
        ({"version": "1"}, "the whole: there is no 'data'"),
        ({"data": [{"paragraphs": []}]}, "there is no question"),
        ({"data": [{"paragraphs": [{"qas": []}]}]}, r"data\[0\]\.paragraphs\[0\]: there is no 'context'"),
        ({"data": [{"paragraphs": [{"context": " ", "qas": []}]}]}, "the context is empty"),
        ({"data": [{"title": "no paragraphs"}]}, r"data\[0\]: there is no 'paragraphs'"),
        ("", "is empty"),
    ],
)
def test_files_that_are_none(tmp_path: Path, data: Any, why: str) -> None:
    with pytest.raises(DataError, match=why):
        read_squad(written(tmp_path, data))


def test_offsets_are_counted_in_characters(tmp_path: Path) -> None:
    """Not in bytes, nor in UTF-16's halves, and no accent is composed: as Python counts, and SQuAD does."""
    context = "\U0001f600 na\u00efve e\u0301t\u00e9 \u6771\u4eac in \U00020000 Rome"
    for text in ("na\u00efve", "e\u0301t\u00e9", "\u6771\u4eac", "\U00020000", "Rome"):
        data = file_of(question(answers=[answer(text, context.index(text))]), context=context)
        for written_as in (data, json.dumps(data, ensure_ascii=False)):
            read = read_squad(written(tmp_path, written_as))
            assert read.questions[0].answers == (Answer(text, context.index(text)),)
            assert read.repaired == 0
    composed = file_of(question(answers=[answer("\u00e9t\u00e9", 8)]), context=context)
    with pytest.raises(DataError, match="nor anywhere in it"):
        read_squad(written(tmp_path, composed))


def test_an_id_may_not_come_twice_in_the_whole_file(tmp_path: Path) -> None:
    one, two = file_of(question(id=3)), file_of(question(id="3"))
    path = written(tmp_path, {"data": one["data"] + two["data"]})
    with pytest.raises(
        DataError, match=r"data\[1\].*: the id '3' is that of data\[0\]\.paragraphs\[0\]\.qas\[0\], too"
    ):
        read_squad(path)


def test_every_answer_must_stand_in_the_context(tmp_path: Path) -> None:
    wrong = question(answers=[answer("The Norman", 0), answer("ruled", 18), answer("ruled", 19)])
    with pytest.raises(
        DataError, match=r"answers\[2\]: the answer 'ruled' is not in its context at 19; it stands at 18"
    ):
        read_squad(written(tmp_path, file_of(wrong)))


def test_version_1_has_neither_version_nor_title_nor_is_impossible(tmp_path: Path) -> None:
    data = file_of(question())
    del data["version"], data["data"][0]["title"]
    (read,) = read_squad(written(tmp_path, data)).questions
    assert (read.title, read.answers) == ("", (Answer("The Norman", 0),))


def test_a_byte_order_mark_is_none_of_the_text(tmp_path: Path) -> None:
    path = written(tmp_path, "\ufeff" + json.dumps(file_of(question())))
    assert len(read_squad(path).questions) == 1


def test_a_file_that_is_not_utf_8_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.json"
    path.write_bytes(b'{"data": [\n"\xe9"]}')
    with pytest.raises(DataError, match=r"latin\.json: byte 0xe9 at offset 12, line 2, is not valid UTF-8"):
        read_squad(path)


def test_without_labels_answers_do_not_matter(tmp_path: Path) -> None:
    read = read_squad(written(tmp_path, file_of({"id": "a", "question": "Who?"})), labelled=False)
    assert read.questions[0].answers == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=12,
)


@given(before=JSON, after=JSON, indent=st.sampled_from([None, 0, 3]))
def test_lines_are_found_again(before: Any, after: Any, indent: int | None) -> None:
    data = {"a": before, "list": [before, {"x": after, "mark": "HERE"}, after]}
    text = json.dumps(data, indent=indent)
    expected = next(i for i, line in enumerate(text.split("\n"), 1) if "HERE" in line)
    assert line_of(text, ("list", 1, "mark")) == expected
    assert line_of("\n" + text, ()) == 2
