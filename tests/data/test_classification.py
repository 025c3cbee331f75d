"""Files of labelled texts: what is read, and the file and line of what is not."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.data import LabelMap, class_weights, label_ids, label_numbers, read_classification
from minilm.data.classification import TextExample
from minilm.errors import DataError


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def parts(examples: list[TextExample]) -> list[tuple[str, str | None, str | None, int]]:
    return [(e.text, e.label, e.pair, e.line) for e in examples]


@pytest.mark.parametrize(
    ("name", "content", "options", "expected"),
    [
        ("a.csv", "text,label\nTo be,yes\n\n or not , no \n", {},
         [("To be", "yes", None, 2), (" or not ", "no", None, 4)]),
        ("a.csv", '\ufeffLabel,Review\r\n1,"a, ""b""\r\nc"\r\n2,d\r\n', {},
         [('a, "b"\r\nc', "1", None, 2), ("d", "2", None, 4)]),
        ("a.tsv", 'label\tsource\ttext\nx\tm\t"open and, comma\n', {}, [('"open and, comma', "x", None, 2)]),
        ("a.tsv", 'text\tlabel\n"a\tb"\tx\n', {"quoted": True}, [("a\tb", "x", None, 2)]),
        ("a.csv", "text;label\na,b;x\n", {"delimiter": ";"}, [("a,b", "x", None, 2)]),
        ("a.csv", "yes,To be\nno,or not\n", {"text_column": 2, "label_column": 1},
         [("To be", "yes", None, 1), ("or not", "no", None, 2)]),
        ("a.csv", "label,body\nno,or not\n", {"text_column": 2, "label_column": 1}, [("or not", "no", None, 2)]),
        ("a.csv", "a,b\nno,or not\n", {"text_column": 2, "label_column": 1, "header": True},
         [("or not", "no", None, 2)]),
        ("a.csv", "a,b,text\nno,or not,3\n", {"text_column": "b", "label_column": "A"}, [("or not", "no", None, 2)]),
        ("a.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\t1\n", {}, [("a", "1", "b", 2)]),
        ("a.tsv", "index\tquestion\tsentence\tlabel\n0\ta\tb\t1\n", {}, [("a", "1", "b", 2)]),
        ("a.csv", "text,other,label\na,b,1\n", {"pair_column": "other"}, [("a", "1", "b", 2)]),
        ("a.csv", "text,label\na,\n", {"labelled": False}, [("a", None, None, 2)]),
        ("a.csv", "text\na\n\nb\n", {"labelled": False}, [("a", None, None, 2), ("b", None, None, 4)]),
        ("a.jsonl", '{"text": "a\u2028b", "label": 3}\r\n\n{"label": true, "text": "c", "more": [1]}',
         {}, [("a\u2028b", "3", None, 1), ("c", "True", None, 3)]),
        ("a.json", '{"premise": "a", "hypothesis": "b", "label": 0.5}', {}, [("a", "0.5", "b", 1)]),
        ("a.jsonl", '{"body": "a", "y": "x"}', {"text_column": "body", "label_column": 2}, [("a", "x", None, 1)]),
        ("a.jsonl", '{"text": "a"}\n{"text": "b", "label": "x"}', {"labelled": False},
         [("a", None, None, 1), ("b", None, None, 2)]),
    ],
)  # fmt: skip
def test_read(tmp_path: Path, name: str, content: str, options: dict, expected: list) -> None:
    assert parts(read_classification(written(tmp_path, name, content), **options)) == expected


@pytest.mark.parametrize(
    ("name", "content", "options", "why"),
    [
        ("a.csv", "text,label\na,x\nb,y,z\n", {}, r"line 3: 3 columns where the header has 2 \(text, label\)"),
        ("a.csv", "a,x\nb\n", {"text_column": 1, "label_column": 2}, "line 2: 1 columns where line 1 has 2"),
        ("a.csv", 'text,label\n"a\n",x\n  ,y\n', {}, "line 4: the text is empty"),
        ("a.csv", "text,label\na,x\n,\n", {}, "line 3: the text is empty"),
        ("a.csv", "text,label\na, \n", {}, "line 2: the label is empty"),
        ("a.csv", "sentence1,sentence2,label\na,,x\n", {}, "line 2: the text is empty"),
        ("a.csv", 'text,label\na,x\n"b,y\nc,z\n', {}, "line 3: a quotation mark is opened and not closed"),
        ("a.csv", 'text,label\na,x\n"b"c,y\n', {}, "line 3: ',' expected"),
        ("a.csv", "text,sentence,label\na,b,x\n", {}, "line 1: 'text' and 'sentence' could both be the text"),
        ("a.csv", "text,label,class\na,b,x\n", {}, "line 1: 'label' and 'class' could both be the label"),
        ("a.csv", "words,label\na,b\n", {}, "line 1: no column is named as texts are"),
        ("a.csv", "text,y\na,b\n", {}, r"line 1: no column is named as labels are .* among 'text', 'y'"),
        ("a.csv", "text,y\na,b\n", {"label_column": "z"}, "the column 'z' is not among 'text', 'y'"),
        ("a.csv", "text,y,y\na,b,c\n", {"label_column": "y"}, "the column 'y' is twice among"),
        ("a.csv", "text,y\na,b\n", {"label_column": 3}, "line 1: there is no column 3 among 2"),
        ("a.csv", "text,y\na,b\n", {"label_column": 1}, "line 1: .*no column is named as texts"),
        ("a.csv", "text,y\na,b\n", {"label_column": 1, "text_column": 1}, "must be different columns"),
        ("a.csv", "text,label\n", {}, "there is no example"),
        ("a.csv", "", {}, "the file is empty"),
        ("a.csv", b"text,label\na,x\nb\xff,y\n", {}, "line 3, is not valid UTF-8"),
        ("a.xls", "text,label\n", {}, r"the name ends in '\.xls'"),
        ("a.jsonl", '{"text": "a", "label": 1}\n\n{"text": "b", "label": }', {},
         r"line 3: is not JSON \(Expecting value"),
        ("a.jsonl", '{"text": "a", "label": 1}\n["b", 1]', {}, "line 2: is list, not a JSON object"),
        ("a.jsonl", "[" * 100_000, {}, "line 1: is not JSON"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"sentence": "b", "label": 1}', {},
         "line 2: there is no 'text' among 'sentence', 'label'"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": null, "label": 1}', {}, "line 2: 'text' is null, not a text"),
        ("a.jsonl", '{"text": "a", "label": NaN}', {}, "line 1: 'label' is NaN, not a text"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}', {}, "line 2: there is no 'label'"),
        ("a.jsonl", '{"text": " ", "label": 1}', {}, "line 1: the text is empty"),
        ("a.jsonl", r'{"text": "a\ud800", "label": 1}', {}, r"line 1: 'text': U\+D800 at position 1 is"),
    ],
)  # fmt: skip
def test_refused_with_file_and_line(tmp_path: Path, name: str, content: str, options: dict, why: str) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(DataError, match=why) as caught:
        read_classification(path, **options)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_classification(tmp_path / "a.csv")


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")).filter(lambda t: t.strip())


@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1))
def test_any_text_survives_csv_and_jsonl(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    folder = tmp_path_factory.mktemp("rows")
    with open(folder / "a.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    content = "\n".join(json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in rows)
    expected = [(text, label.strip()) for text, label in rows]
    for path in (folder / "a.csv", written(folder, "a.jsonl", content)):
        assert [(e.text, e.label) for e in read_classification(path)] == expected


def test_a_text_of_100_000_words(tmp_path: Path) -> None:
    text = "word " * 100_000
    path = written(tmp_path, "a.csv", f"text,label\n{text},x\n")
    before = csv.field_size_limit(5000)
    try:
        assert read_classification(path)[0].text == text
        assert csv.field_size_limit() == 5000
    finally:
        csv.field_size_limit(before)


# --- labels --------------------------------------------------------------------------------------------


def test_labels_are_sorted_as_what_they_are() -> None:
    assert LabelMap.of(["b", "a", "b"]).names == ("a", "b")
    assert LabelMap.of(["10", "9", "-1"]).names == ("-1", "9", "10")
    assert LabelMap.of(["1", "001", "01"]).names == ("001", "01", "1")
    assert LabelMap.of(["10", "9", "x"]).names == ("10", "9", "x")
    labels = LabelMap.of("ba")
    assert LabelMap.from_config({str(i): name for i, name in labels.id2label.items()}) == labels
    assert labels.label2id == {"a": 0, "b": 1}
    assert len(labels) == 2


def test_labels_that_training_did_not_have(tmp_path: Path) -> None:
    examples = read_classification(written(tmp_path, "a.csv", "text,label\na,x\nb,y\nc,z\n"))
    assert label_ids(examples, LabelMap(["z", "y", "x"])).tolist() == [2, 1, 0]
    with pytest.raises(DataError, match=r"a\.csv: line 4: the label 'z' is none of training's: x, y$"):
        label_ids(examples, LabelMap(["x", "y"]))
    with pytest.raises(DataError, match=r": 0, 1, .*, 19 and 80 more$"):
        label_ids(examples, LabelMap(map(str, range(100))))
    bare = read_classification(written(tmp_path, "b.csv", "text\na\n"), labelled=False)
    with pytest.raises(DataError, match=r"b\.csv: line 2: has no label"):
        label_ids(bare, LabelMap("x"))


def test_numbers_as_labels(tmp_path: Path) -> None:
    examples = read_classification(written(tmp_path, "a.csv", "text,label\na,2.5\nb,-1e1\n"))
    numbers = label_numbers(examples)
    assert numbers.tolist() == [2.5, -10.0]
    assert numbers.dtype == np.float32
    for bad in ("x", "nan", "inf"):
        with pytest.raises(DataError, match=rf"line 3: the label '{bad}' is not a number"):
            label_numbers(read_classification(written(tmp_path, "a.csv", f"text,label\na,1\nb,{bad}\n")))


def test_label_maps_that_are_refused() -> None:
    for make, why in [
        (lambda: LabelMap([]), "there are no labels"),
        (lambda: LabelMap("aba"), "a label is there twice"),
        (lambda: LabelMap.from_config({"0": "a", "2": "b"}), "does not number its labels"),
        (lambda: LabelMap.from_config({"first": "a"}), "does not number its labels"),
    ]:
        with pytest.raises(DataError, match=why):
            make()


def test_class_weights_count_each_class_alike() -> None:
    labels = LabelMap("abc")
    ids = np.array([[0, 0, 0, -100], [1, 1, 2, -100]])
    weights = class_weights(ids, labels)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, [6 / 9, 1.0, 2.0], rtol=1e-6)
    with pytest.raises(DataError, match="no example has the label 'b'"):
        class_weights([0, 2], labels)


def test_class_weights_are_scikit_learns(eval_extra: None) -> None:
    from sklearn.utils.class_weight import compute_class_weight

    ids = np.random.default_rng(3).integers(0, 5, 200) ** 2 // 4
    labels = LabelMap(map(str, range(5)))
    ids[:5] = range(5)
    np.testing.assert_allclose(
        class_weights(ids, labels), compute_class_weight("balanced", classes=np.arange(5), y=ids), rtol=1e-6
    )
