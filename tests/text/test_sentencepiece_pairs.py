"""Marian's and T5's folders with models of SentencePiece: the ids and texts of transformers' tokenizers."""

from __future__ import annotations

import importlib
import io
import json
import random
import sys
import warnings

import numpy as np
import pytest

from minilm.data.corpora import verses
from minilm.errors import DataError, MissingExtraError
from minilm.models import MarianConfig, MarianMTModel
from minilm.models.translator import Translator
from minilm.text.pair_tokenizer import PairTokenizer
from minilm.text.sentencepiece_pairs import SentencePiecePairs
from minilm.train.finetuning.corpus import Source
from minilm.train.finetuning.pair_config import TranslateConfig
from minilm.train.run import new_run

ODD = [
    "two  blanks", " before", "behind ", "a\ttab", "a\nline", "", "ünïcode ☃ 漢字", "ﬁne ﬀ ½ ＡＢＣ", "a <unk> b",
    "<unk>", ">>es<< In the beginning", ">>xx<< In", "a >>es<< b", ">>es<<", ">>es no", "\u2581 \u2581a",
    "don't -- stop... «sí»", "\u200b\xa0",
]  # fmt: skip


@pytest.fixture(scope="module")
def spm():
    return pytest.importorskip("sentencepiece")


def trained(spm, texts, size, **settings):
    """A tiny model of SentencePiece, as the bytes of its file."""
    file = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=file, vocab_size=size, minloglevel=2, num_threads=1, **settings
    )
    return file.getvalue()


@pytest.fixture(scope="module")
def pairs():
    return verses()


@pytest.fixture(scope="module")
def marian(spm, pairs, tmp_path_factory):
    """A folder as Hugging Face ships Marian's: two models, and numbers for the pieces of both, but for a few."""
    folder = tmp_path_factory.mktemp("marian")
    pieces = {}
    for name, texts, size in (
        ("source.spm", [pair.source for pair in pairs], 300),
        ("target.spm", [pair.target for pair in pairs], 350),
    ):
        (folder / name).write_bytes(trained(spm, texts, size))
        processor = spm.SentencePieceProcessor(model_file=str(folder / name))
        pieces.update(dict.fromkeys(map(processor.id_to_piece, range(processor.get_piece_size()))))
    kept = [piece for piece in pieces if piece not in ("<unk>", "<s>", "</s>", "\u2581and", "\u2581y")]
    random.Random(0).shuffle(kept)
    numbers = {piece: index for index, piece in enumerate(["</s>", "<unk>", *kept, ">>es<<", "<pad>"])}
    (folder / "vocab.json").write_text(json.dumps(numbers))
    (folder / "tokenizer_config.json").write_text(json.dumps({"source_lang": "en", "target_lang": "es"}))
    return folder


@pytest.fixture(scope="module")
def t5(spm, pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("t5")
    settings = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    (folder / "spiece.model").write_bytes(trained(spm, [pair.source for pair in pairs], 400, **settings))
    return folder


def theirs(transformers, name, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Recommended: pip install sacremoses", which it does not use then
        return getattr(transformers, name).from_pretrained(folder)


def assert_equal(ours, other, texts, target):
    told = {"text_target": texts} if target else {"text": texts}
    expected, found = other(**told)["input_ids"], ours.encode(texts, target)
    for text, a, b in zip(texts, found, expected, strict=True):
        assert a.tolist() == b, text
        assert ours.decode(a) == other.decode(b, skip_special_tokens=True).strip(), text


@pytest.mark.parametrize("target", [False, True], ids=["sources", "targets"])
def test_marians_ids_and_texts_are_transformers(transformers, marian, pairs, target):
    ours, other = PairTokenizer.from_pretrained(marian), theirs(transformers, "MarianTokenizer", marian)
    assert (ours.pad_token_id, ours.eos_token_id) == (other.pad_token_id, other.eos_token_id)
    assert ours.vocab_size == len(other)
    texts = [pair.source for pair in pairs[:300]] + [pair.target for pair in pairs[:300]] + ODD
    assert_equal(ours, other, texts, target)
    some = ours.encode(texts[:300])
    assert [x.tolist() for x in some] != [x.tolist() for x in ours.encode(texts[:300], target=True)]
    assert any(1 in row for row in some), "a piece without a number"
    rng = np.random.default_rng(0)
    for _ in range(100):  # what a model may write
        ids = rng.integers(0, ours.vocab_size, 12)
        assert ours.decode(ids) == other.decode(ids.tolist(), skip_special_tokens=True)


def test_t5s_ids_and_texts_are_transformers(transformers, t5, pairs):
    ours, other = PairTokenizer.from_pretrained(t5), theirs(transformers, "T5Tokenizer", t5)
    assert ours.vocab_size == len(other) == 500
    assert (ours.pad_token_id, ours.eos_token_id) == (0, 1)
    gaps = ["a <extra_id_0> b<extra_id_99> c", "<extra_id_7>"]
    assert_equal(ours, other, [pair.source for pair in pairs[:300]] + ODD + gaps, target=False)


def test_the_same_files_are_written(marian, t5, tmp_path):
    for folder, text in ((marian, "In the beginning"), (t5, "a <extra_id_3> b")):
        tokenizer, place = PairTokenizer.from_pretrained(folder), tmp_path / folder.name
        place.mkdir()
        tokenizer.save_pretrained(place)
        for path in folder.iterdir():
            assert (place / path.name).read_bytes() == path.read_bytes()
        again = PairTokenizer.from_pretrained(place)
        assert isinstance(again, SentencePiecePairs)
        assert again.encode([text])[0].tolist() == tokenizer.encode([text])[0].tolist()
    assert json.loads((tmp_path / t5.name / "tokenizer_config.json").read_text())["tokenizer_class"] == "T5Tokenizer"


def test_a_tokenizer_json_goes_first(marian, tmp_path):
    PairTokenizer.train(["the cat sat on the mat"] * 3, 262).save_pretrained(tmp_path)
    (tmp_path / "source.spm").write_bytes((marian / "source.spm").read_bytes())
    assert PairTokenizer.from_pretrained(tmp_path).vocab_size == 262


def test_pieces_are_the_texts_parts(marian):
    tokenizer = PairTokenizer.from_pretrained(marian)
    ids = tokenizer.encode(["In the beginning God created"])[0]
    assert "".join(tokenizer.pieces(ids)) == " In the beginning God created</s>"


def test_a_run_goes_on_from_such_a_folder(marian, pairs, tmp_path):
    """Sources and targets are cut by their own models, and the files go along."""
    folder = tmp_path / "pretrained"
    tokenizer = PairTokenizer.from_pretrained(marian)
    V, pad = tokenizer.vocab_size, tokenizer.pad_token_id
    sizes = {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    config = MarianConfig(
        V, d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, pad_token_id=pad, decoder_start_token_id=pad, **sizes
    )
    MarianMTModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    rows = [f"{pair.source}\t{pair.target}\n" for pair in pairs[:40]]
    (tmp_path / "verses.tsv").write_text("".join(rows))
    shape = json.loads((folder / "config.json").read_text())
    made = TranslateConfig.build(None, {"pretrained": str(folder), "model": shape, "steps": 1, "held_out": 20})
    trainer, corpus = new_run(Source(tmp_path / "verses.tsv"), tmp_path / "run", made)
    assert corpus.learnt.sources[3].tolist() == tokenizer.encode([corpus.train[3].source])[0].tolist()
    labels = corpus.learnt.examples.gather(np.array([3]), pad)[2][0]
    assert labels[labels >= 0].tolist() == tokenizer.encode([corpus.train[3].target], target=True)[0].tolist()
    trainer.observers = corpus.observers(print)
    trainer.train()
    translator = Translator.from_pretrained(tmp_path / "run" / "model")
    assert isinstance(translator.tokenizer, SentencePiecePairs)
    assert len(translator(["In the beginning"], translator.search(max_new_tokens=5))[0][0].tokens) <= 5


@pytest.mark.parametrize(
    ("text", "said"), [("a </s> b", "</s> stands in the text"), ("<pad>", "<pad> stands"), ("\ud800", "lone surrogate")]
)
def test_what_cannot_be_encoded(marian, text, said):
    with pytest.raises(DataError, match=said) as caught:
        PairTokenizer.from_pretrained(marian).encode(["fine", text])
    assert caught.value.index == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("target.spm", None, r"target\.spm: there is no such file"),
        ("source.spm", b"nothing", r"source\.spm: is no model of SentencePiece"),
        ("vocab.json", None, r"vocab\.json: it cannot be read as JSON"),
        ("vocab.json", b"{", r"vocab\.json: it cannot be read as JSON"),
        ("vocab.json", b"[]", r"vocab\.json: a JSON object was expected, not list"),
        ("vocab.json", b'{"a": "b"}', r"vocab\.json: pieces and their numbers were expected"),
        ("vocab.json", b'{"a": 0, "</s>": 1, "<unk>": 2}', r"vocab\.json: has no token <pad>"),
        ("tokenizer_config.json", b"[]", r"tokenizer_config\.json: a JSON object was expected"),
        ("tokenizer_config.json", b'{"separate_vocabs": true}', "separate_vocabs is not supported"),
    ],
)
def test_damaged_folders(marian, tmp_path, name, content, said):
    for path in marian.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        PairTokenizer.from_pretrained(tmp_path)


def test_without_the_library_it_is_said_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / "source.spm").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ImportError):
        importlib.import_module("sentencepiece")
    with pytest.raises(
        MissingExtraError, match=r"source\.spm needs sentencepiece: pip install 'minilm\[sentencepiece\]'"
    ):
        PairTokenizer.from_pretrained(tmp_path)
