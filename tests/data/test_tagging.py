"""Tagged sentences: CoNLL's columns and CoNLL-U."""

from __future__ import annotations

from pathlib import Path

import pytest

from minilm.data import TaggedSentence, read_conll, read_conllu
from minilm.errors import DataError

NER = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\n \t\n# NN O O\n"
UD = """\
# sent_id = 1
1-2\tdel\t_\t_\t_\t_\t_\t_\t_\t_
1\tde\tde\tADP\tIN\t_\t3\tcase\t_\t_
2\tel\tel\tDET\tDT\tGender=Masc\t3\tdet\t_\t_
3\tmar y sol\tmar\tNOUN\tNN\t_\t0\troot\t_\t_
3.1\tnada\tnada\tPRON\t_\t_\t_\t_\t0:root\tCopyOf=3

# sent_id = 2
1\t_\t_\tPUNCT\t_\t_\t0\troot\t_\t_"""


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "file"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def parts(sentences: list[TaggedSentence]) -> list[tuple[str, str, tuple[int, ...]]]:
    return [("|".join(s.words), "|".join(s.tags), s.lines) for s in sentences]


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        (NER, {}, [("EU|rejects", "B-ORG|O", (3, 4)), ("#", "O", (8,))]),
        (NER, {"tag_column": 2}, [("EU|rejects", "NNP|VBZ", (3, 4)), ("#", "NN", (8,))]),
        (NER, {"word_column": -3, "tag_column": 1}, [("NNP|VBZ", "EU|rejects", (3, 4)), ("NN", "#", (8,))]),
        (NER, {"comment": "# "}, [("EU|rejects", "B-ORG|O", (3, 4))]),
        (NER, {"labelled": False}, [("EU|rejects", "", (3, 4)), ("#", "", (8,))]),
        ("one word\tO\r\nx\u00a0y\tB-X\r\n\r\nz\tO", {}, [("one word|x\u00a0y", "O|B-X", (1, 2)), ("z", "O", (4,))]),
        ("\ufeffa\u2028b  O\n", {}, [("a\u2028b", "O", (1,))]),
        ("a\tO\n\u00a0\tO", {}, [("a|\u00a0", "O|O", (1, 2))]),
        ("a\nb\n", {"labelled": False}, [("a|b", "", (1, 2))]),
    ],
)
def test_columns(tmp_path: Path, content: str, options: dict, expected: list) -> None:
    path = written(tmp_path, content)
    read = read_conll(path, **options)
    assert parts(read) == expected
    assert read[0].where(0) == f"{path}: line {expected[0][2][0]}"


@pytest.mark.parametrize(
    ("content", "options", "why"),
    [
        ("a O\nb B-X O\n", {}, "line 2: 3 columns where line 1 has 2"),
        ("a O\n\nb\n", {}, "line 3: 1 columns where line 1 has 2"),
        ("a\tO\n\tO\n", {}, "line 2: the word is empty"),
        ("a\tO\nb\t\n", {}, "line 2: the tag is empty"),
        ("a\nb\n", {}, "line 1: word and tag would be the same of 1 columns"),
        ("a O\n", {"tag_column": 3}, "line 1: there is no column 3 for the tag among 2"),
        ("a O\n", {"word_column": 0}, "line 1: there is no column 0 for the word"),
        ("a O\n", {"word_column": 2}, "would be the same"),
        ("\n\n-DOCSTART- O\n", {}, "there is no sentence"),
        ("", {}, "is empty"),
        (b"a O\nb\xff O\n", {}, "line 2, is not valid UTF-8"),
    ],
)
def test_columns_refused(tmp_path: Path, content: str, options: dict, why: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(DataError, match=why) as caught:
        read_conll(path, **options)
    assert str(caught.value).startswith(str(path))


def test_conllu_words_are_the_numbered_ones(tmp_path: Path) -> None:
    path = written(tmp_path, UD)
    expected = [("de|el|mar y sol", "ADP|DET|NOUN", (3, 4, 5)), ("_", "PUNCT", (9,))]
    assert parts(read_conllu(path)) == expected
    assert parts(read_conllu(path, "deprel"))[0][1] == "case|det|root"
    assert parts(read_conllu(path, "feats"))[0][1] == "_|Gender=Masc|_"
    assert parts(read_conllu(path, labelled=False))[1] == ("_", "", (9,))
    assert parts(read_conllu(written(tmp_path, UD.replace("\n", "\r\n")))) == expected


@pytest.mark.parametrize(
    ("old", "new", "column", "why"),
    [
        ("\n3\tmar", "\n4\tmar", "upos", "line 5: the word's number is '4' where 3 has its turn"),
        ("\n3\tmar", "\nx\tmar", "upos", "line 5: the word's number is 'x' where 3"),
        ("1-2\tdel", "2-3\tdel", "upos", "line 2: the word's number is '2-3' where 1"),
        ("1-2\tdel", "1-0\tdel", "upos", "line 2: the word's number is '1-0'"),
        ("\t3\tdet\t_", "\t3\tdet", "upos", "line 4: 9 columns .* where CoNLL-U has 10"),
        ("2\tel\tel\tDET", "2\tel\tel\t_", "upos", "line 4: the word 'el' has no upos"),
        ("2\tel\tel\tDET", "2\t\tel\tDET", "upos", "line 4: the word is empty"),
        ("", "", "xpos", "line 9: the word '_' has no xpos"),
        ("", "", "pos", "the column is 'pos'; CoNLL-U has form, lemma, upos"),
        ("", "", "id", "the column is 'id'"),
        (UD, "# only\n\n# comments\n", "upos", "there is no sentence"),
        ("\n# sent_id = 2", "# sent_id = 2", "upos", "line 8: the word's number is '1' where 4"),
    ],
)
def test_conllu_refused(tmp_path: Path, old: str, new: str, column: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        read_conllu(written(tmp_path, UD.replace(old, new, 1)), column)
