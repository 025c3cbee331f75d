"""BERT's tokenizer: training, files, windows, and refusals."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minilm as ml
from minilm.data import DataLoader, corpora, default_collate
from minilm.errors import DataError
from minilm.text import BatchEncoding, BertTokenizer, load_tokenizer, reading
from minilm.text.bert_files import BertSettings

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "to", "be", ",", "or", "not", "em", "##bed", "##ding", "##s", "cafe", "是", "!"]
VOCAB = {token: i for i, token in enumerate(WORDS)}


@pytest.fixture(scope="module")
def small() -> BertTokenizer:
    return BertTokenizer(VOCAB, BertSettings(model_max_length=12))


@pytest.fixture(scope="module")
def trained() -> BertTokenizer:
    return BertTokenizer.train(corpora.shakespeare()[:200_000], vocab_size=700)


def test_longest_pieces_first(small: BertTokenizer) -> None:
    assert small.tokenize("Embeddings, Café是!") == ["em", "##bed", "##ding", "##s", ",", "cafe", "是", "!"]
    assert small.tokenize("beds to") == ["[UNK]", "to"]  # "be", and then no "##ds"
    assert small.tokenize("to [MASK] be") == ["to", "[MASK]", "be"]
    assert small.decode(small.encode("Embeddings, to be!")) == "[CLS] embeddings, to be! [SEP]"
    assert small.decode(small.encode("Embeddings, to be!"), skip_special_tokens=True) == "embeddings, to be!"


def test_one_text_and_several(small: BertTokenizer) -> None:
    one = small("to be")
    assert one == {"input_ids": [2, 5, 6, 3], "token_type_ids": [0] * 4, "attention_mask": [1] * 4}
    assert one.input_ids is one["input_ids"]
    several = small(["to be", "or"], padding=True, return_tensors="ml")
    assert several.input_ids.tolist() == [[2, 5, 6, 3], [2, 8, 3, 0]]
    assert several.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert several.input_ids.dtype == ml.int64
    assert small("to be", return_tensors="np").input_ids.shape == (1, 4)
    assert small([]) == {"input_ids": [], "token_type_ids": [], "attention_mask": []}
    with pytest.raises(AttributeError, match="no 'labels'"):
        _ = one.labels


def test_pairs_and_where_tokens_come_from(small: BertTokenizer) -> None:
    encoded = small("to embeddings", "or be", return_offsets_mapping=True)
    assert encoded.input_ids == [2, 5, 10, 11, 12, 13, 3, 8, 6, 3]
    assert encoded.token_type_ids == [0] * 7 + [1] * 3
    assert encoded.sequence_ids() == [None, 0, 0, 0, 0, 0, None, 1, 1, None]
    assert encoded.word_ids() == [None, 0, 1, 1, 1, 1, None, 0, 1, None]
    assert encoded.offset_mapping[1:4] == [(0, 2), (3, 5), (5, 8)]
    assert encoded.tokens()[2:5] == ["em", "##bed", "##ding"]
    assert encoded.char_to_token(0, 6) == 3
    assert encoded.char_to_token(0, 2) is None
    assert encoded.char_to_token(0, 3, sequence_index=1) == 8
    assert encoded.token_to_chars(0, 3) == (5, 8)
    assert encoded.token_to_chars(0, 0) is None


def test_windows_repeat_the_stride(small: BertTokenizer) -> None:
    encoded = small(
        ["or", "be"],
        ["to be or not to be", "not"],
        truncation="only_second",
        max_length=7,
        stride=1,
        padding="max_length",
        return_overflowing_tokens=True,
        return_tensors="np",
    )
    assert encoded.overflow_to_sample_mapping.tolist() == [0, 0, 0, 1]
    assert encoded.input_ids.tolist() == [
        [2, 8, 3, 5, 6, 8, 3],
        [2, 8, 3, 8, 9, 5, 3],
        [2, 8, 3, 5, 6, 3, 0],
        [2, 6, 3, 9, 3, 0, 0],
    ]
    assert encoded.word_ids(1) == [None, 0, None, 2, 3, 4, None]


def test_words_given(small: BertTokenizer) -> None:
    words = [["embeddings", "or", "be!"], ["to"]]
    encoded = small(words, is_split_into_words=True)
    assert encoded.word_ids(0) == [None, 0, 0, 0, 0, 1, 2, 2, None]
    assert encoded.word_ids(1) == [None, 0, None]
    assert small(words[0], is_split_into_words=True).input_ids == encoded.input_ids[0]
    assert small(tuple(words[0]), is_split_into_words=True).input_ids == encoded.input_ids[0]


def test_truncation_is_asked_for_or_meant(small: BertTokenizer) -> None:
    text = "to be or not " * 5
    assert len(small(text).input_ids) == 22
    assert len(small(text, truncation=True).input_ids) == 12  # model_max_length
    assert len(small(text, max_length=5).input_ids) == 5
    assert len(small(text, max_length=5, truncation=False).input_ids) == 22
    assert small("be", padding="max_length").input_ids == [2, 6, 3] + [0] * 9
    assert len(BertTokenizer(VOCAB)(text, truncation=True).input_ids) == 22  # no limit is known


def test_calls_leave_nothing_behind(small: BertTokenizer) -> None:
    small("to be or not", truncation=True, max_length=4, padding="max_length")
    assert small.encode_array("to be or not to be").tolist() == [5, 6, 8, 9, 5, 6]
    assert json.loads(small.to_json())["truncation"] is None
    small("to be or not", truncation=True, max_length=4, padding="max_length")
    assert len(small("to be or not to be").input_ids) == 8


def test_pad_equals_a_padded_call(small: BertTokenizer) -> None:
    texts = ["to be", "embeddings or not", ""]
    rows = [small(text) for text in texts]
    for options in ({}, {"padding": "max_length", "max_length": 9}, {"pad_to_multiple_of": 4}):
        expected = small(texts, **({"padding": True} | options), return_tensors="np")
        padded = small.pad(rows, **options, return_tensors="np")
        assert all(np.array_equal(padded[key], expected[key]) for key in expected)
    labelled = small.pad([{"input_ids": [2, 3], "label": 7}, {"input_ids": [3], "label": 1}], return_tensors="ml")
    assert labelled.label.tolist() == [7, 1]
    tagged = small.pad([{"input_ids": [2, 3], "labels": np.array([1, 0])}, {"input_ids": [3], "labels": [4]}])
    assert tagged.labels == [[1, 0], [4, -100]]
    assert labelled.attention_mask.tolist() == [[1, 1], [1, 0]]


def test_collated_as_dictionaries(small: BertTokenizer) -> None:
    rows = [small(text, return_tensors="np") for text in ("to be", "or not")]
    batch = default_collate([{key: value[0] for key, value in row.items()} for row in rows])
    assert batch["input_ids"].tolist() == [[2, 5, 6, 3], [2, 8, 9, 3]]
    whole = default_collate([BatchEncoding({key: value[0] for key, value in row.items()}) for row in rows])
    assert isinstance(whole, BatchEncoding)
    assert whole.input_ids.tolist() == batch["input_ids"].tolist()
    loaded = list(DataLoader([{"input_ids": np.arange(3), "label": i} for i in range(4)], batch_size=2))
    assert loaded[1]["input_ids"].shape == (2, 3)
    assert loaded[1]["label"].tolist() == [2, 3]


def test_tensors_go_to_a_device(small: BertTokenizer) -> None:
    moved = small("to be", return_tensors="ml").to("cpu")
    assert moved.input_ids.tolist() == [[2, 5, 6, 3]]
    assert moved.tokens() == ["[CLS]", "to", "be", "[SEP]"]
    small.check_fits(17, "a model")


def test_pickled(small: BertTokenizer) -> None:
    again = pickle.loads(pickle.dumps(small))
    encoded = pickle.loads(pickle.dumps(small("to be")))
    assert again("to be") == encoded
    assert encoded.tokens() == ["[CLS]", "to", "be", "[SEP]"]


# --- training ----------------------------------------------------------------------------------------


def test_trained_vocabulary(trained: BertTokenizer) -> None:
    assert trained.vocab_size == len(trained) == 700
    assert trained.convert_ids_to_tokens(range(5)) == SPECIAL
    assert trained.all_special_ids == list(map(trained.token_to_id, trained.all_special_tokens))
    assert {"the", "##ing"} <= trained.get_vocab().keys()
    text = corpora.shakespeare()[300_000:320_000]
    assert trained.unk_token_id not in trained.encode(text)
    assert len(trained.encode(text)) < 0.5 * len(text)
    words = trained.decode(trained.encode(text, add_special_tokens=False))
    assert words.replace(" ", "") == "".join(text.lower().split())


def test_training_gives_the_same_in_every_process() -> None:
    code = (
        "from minilm import BertTokenizer; from minilm.data import corpora;"
        "print(BertTokenizer.train(corpora.shakespeare()[:30_000], vocab_size=300).get_vocab() =="
        "BertTokenizer.train([corpora.shakespeare()[:30_000]], vocab_size=300).get_vocab(),"
        "BertTokenizer.train(corpora.shakespeare()[:30_000], vocab_size=300).fingerprint.hex())"
    )
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)}
    assert len(runs) == 1
    assert runs.pop().startswith("True ")


def test_trained_on_files(tmp_path: Path) -> None:
    text = corpora.shakespeare()[:50_000]
    (tmp_path / "a").write_text(text[:20_000])
    (tmp_path / "b").write_text(text[20_000:])
    files = BertTokenizer.train_files([tmp_path / "a", tmp_path / "b"], vocab_size=300, lowercase=False)
    assert files.fingerprint == BertTokenizer.train([text[:20_000], text[20_000:]], 300, lowercase=False).fingerprint
    assert "T" in files.get_vocab()


def test_training_refuses() -> None:
    with pytest.raises(DataError, match="text is empty"):
        BertTokenizer.train(["", " \n"], vocab_size=100)
    with pytest.raises(DataError, match="5 special tokens, 3 characters and 2 within words need at least 10"):
        BertTokenizer.train("abc abc", vocab_size=9)
    assert BertTokenizer.train("abc abc", vocab_size=10).vocab_size == 10
    assert "c" not in BertTokenizer.train("aab abc", vocab_size=20, limit_alphabet=2).get_vocab()


# --- files -------------------------------------------------------------------------------------------


def test_saved_and_read_again(small: BertTokenizer, tmp_path: Path) -> None:
    cased = BertTokenizer(VOCAB, BertSettings(do_lower_case=False, strip_accents=True, model_max_length=99))
    cased.save_pretrained(tmp_path)
    for again in (BertTokenizer.from_pretrained(tmp_path), BertTokenizer.from_pretrained(tmp_path / "vocab.txt")):
        assert again.fingerprint == cased.fingerprint != small.fingerprint
        assert again.model_max_length == 99
    for again in (load_tokenizer(tmp_path), load_tokenizer(tmp_path / "tokenizer.json")):
        assert again.fingerprint == cased.fingerprint
        assert again.model_max_length == 99
    data = json.loads((tmp_path / "tokenizer.json").read_text())
    del data["model"]["type"]  # as older files
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    assert isinstance(load_tokenizer(tmp_path), BertTokenizer)
    (tmp_path / "tokenizer.json").unlink()
    assert load_tokenizer(tmp_path).fingerprint == cased.fingerprint


def test_added_tokens_are_kept(tmp_path: Path) -> None:
    added = {"id": len(WORDS), "content": "<e 1>", "special": True, "normalized": False}
    tokenizer = BertTokenizer(VOCAB, BertSettings(added_tokens=[added]))
    assert tokenizer.encode("to<e 1>be") == [2, 5, len(WORDS), 6, 3]
    assert tokenizer.vocab_size == len(WORDS) + 1
    assert [i for part in tokenizer.encode_chunks(["to <e", " 1> be"]) for i in part] == [5, len(WORDS), 6]
    tokenizer.save_pretrained(tmp_path)
    for name in (".", "vocab.txt"):
        again = BertTokenizer.from_pretrained(tmp_path / name)
        assert again.encode("to<e 1>be") == tokenizer.encode("to<e 1>be")
    with pytest.raises(DataError, match="cannot have the id 50"):
        BertTokenizer(VOCAB, BertSettings(added_tokens=[added | {"id": 50}]))


def test_the_configuration_has_the_last_word(small: BertTokenizer, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"do_lower_case": False}))
    assert BertTokenizer.from_pretrained(tmp_path).tokenize("TO to") == ["[UNK]", "to"]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("vocab.txt", "\n".join([*SPECIAL, "a", "b", "a"]), "line 8: the token 'a' is on line 6 already"),
        ("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n", r"the mask_token '\[MASK\]' is not in the vocabulary of 4"),
        ("vocab.txt", "", "the file is empty"),
        ("tokenizer.json", "{", "is not JSON"),
        ("tokenizer.json", '{"model": {"type": "BPE"}}', "the model is BPE, not WordPiece"),
        ("tokenizer_config.json", "[]", "is not a JSON object"),
        ("tokenizer_config.json", '{"do_lower_case": "yes"}', "do_lower_case is 'yes'"),
        ("tokenizer_config.json", '{"cls_token": 1}', "cls_token is 1"),
        ("tokenizer_config.json", '{"cls_token": "<s>"}', "the cls_token '<s>' is not in the vocabulary"),
    ],
)
def test_files_that_are_refused(small: BertTokenizer, tmp_path: Path, name: str, content: str, why: str) -> None:
    small.save_pretrained(tmp_path)
    if name == "vocab.txt":
        (tmp_path / "tokenizer.json").unlink()
        (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=why) as caught:
        BertTokenizer.from_pretrained(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))


def test_folders_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder or file"):
        BertTokenizer.from_pretrained(tmp_path / "bert-base-uncased")
    with pytest.raises(DataError, match=r"neither tokenizer\.json nor vocab\.txt"):
        BertTokenizer.from_pretrained(tmp_path)
    with pytest.raises(DataError, match="does not number its tokens"):
        BertTokenizer(VOCAB | {"more": 90})


def test_calls_that_are_refused(small: BertTokenizer) -> None:
    for call, why in [
        (lambda: small(None), "text 0 is NoneType, not a str"),
        (lambda: small(["to", float("nan")]), "text 1 is float, not a str"),
        (lambda: small(["to"], is_split_into_words=False, text_pair="be"), "1 texts need as many in text_pair"),
        (lambda: small(["to", "be"], ["or"]), "2 texts need as many"),
        (lambda: small(["to", 3], is_split_into_words=True), "text 0 is int, not a list of words"),
        (lambda: small("to", is_split_into_words=True), "text 0 is str, not a list of words"),
        (lambda: small("to", truncation="shortest"), "truncation is 'shortest'; known are"),
        (lambda: small("to", padding="right"), "padding is 'right'; known are"),
        (lambda: small("to", max_length=1), "the special tokens alone are 2"),
        (lambda: small("to", "be", max_length=2), "the special tokens alone are 3"),
        (lambda: small("to", max_length=6, stride=4), "stride is 4: windows with room for 4"),
        (lambda: small("to", max_length=6, truncation="only_second"), "there is no text_pair"),
        (lambda: small("to be", "or not", max_length=5, truncation="only_first"), "too short"),
        (lambda: small("to be", "or not to", max_length=7, truncation="only_second", stride=3), "stride"),
        (lambda: small("to be", max_length=6, truncation=True, padding=True, pad_to_multiple_of=4), "no multiple"),
        (lambda: small(["to", "to be"], return_tensors="np"), "rows of 3 to 4 tokens make no array"),
        (lambda: small("to", return_tensors="pt"), "known are 'ml'"),
        (lambda: small("to \ud800"), r"U\+D800 at position 3 is a lone surrogate"),
        (lambda: small.encode_array("\udfff"), r"U\+DFFF at position 0"),
        (lambda: small.decode([99]), "id 99 is outside"),
        (lambda: small.convert_ids_to_tokens(-1), "id -1 is outside"),
        (lambda: small.check_fits(16, "model.safetensors"), r"17 tokens, and model\.safetensors has embeddings for 16"),
        (lambda: small.pad([]), "there are no rows"),
        (lambda: small("to").tokens(1), "there is no row 1 among 1"),
        (lambda: BatchEncoding({}).word_ids(), "do not come from the tokenizer"),
    ]:
        with pytest.raises(DataError, match=why):
            call()


# --- corpora, as every tokenizer of minilm ---------------------------------------------------------------


@given(text=st.text(st.sampled_from("abTO !.\n\t\u00e9e\u0301是是"), max_size=60), size=st.integers(1, 9))
def test_chunks_equal_the_whole(trained: BertTokenizer, text: str, size: int) -> None:
    chunks = [text[i : i + size] for i in range(0, len(text), size)]
    joined = [i for array in trained.encode_chunks(chunks) for i in array.tolist()]
    assert joined == trained.encode_array(text).tolist() == trained.encode(text, add_special_tokens=False)


def test_long_texts_are_cut_at_words(trained: BertTokenizer) -> None:
    text = corpora.shakespeare()[: 3 * reading.PIECE]
    assert trained.encode_array(text).tolist() == trained.encode(text, add_special_tokens=False)
    assert trained.encode_array(text).dtype == np.uint16


def test_a_text_of_100_000_words(small: BertTokenizer) -> None:
    encoded = small("to be " * 50_000, truncation=True)
    assert len(encoded.input_ids) == 12
    assert small("x" * 100_000).input_ids == [2, 1, 3]
