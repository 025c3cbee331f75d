"""Sentence embeddings against transformers, and the command that makes them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import minilm as ml
from minilm.cli import app
from minilm.errors import CheckpointError, DataError
from minilm.models import hub
from minilm.models.sentence import SentenceEncoder, mean_pooled
from minilm.testing import gradcheck

SENTENCES = [
    "A man is eating food.",
    "A man is eating a piece of bread, and he has been at it for more than an hour, as his neighbours will tell you.",
    "",
    "The girl is carrying a baby.",
    "Two men pushed carts through the woods. " * 40,
]


@pytest.fixture
def encoder(real_bert):
    return SentenceEncoder.from_pretrained(real_bert)


@pytest.fixture
def run(capsys):
    """`run(*arguments)`: what the command shows. Its errors come as they are."""

    def call(*arguments):
        app([str(argument) for argument in arguments], standalone_mode=False)
        return capsys.readouterr().out

    return call


def test_vectors_equal_transformers(torch, transformers, encoder, real_bert):
    tokenizer = transformers.AutoTokenizer.from_pretrained(real_bert)
    theirs = transformers.AutoModel.from_pretrained(real_bert).eval()
    inputs = tokenizer(SENTENCES, padding=True, truncation=True, max_length=256, return_tensors="pt")
    assert inputs["input_ids"].shape[1] == 256  # one is truncated, as sentence_bert_config.json says
    with torch.no_grad():
        states = theirs(**inputs).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1).float()
    expected = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1).numpy()
    found = encoder(SENTENCES, batch_size=2)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-6
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6


def test_like_meanings_lie_closer(encoder):
    food, bread, baby = encoder([SENTENCES[0], "Somebody eats bread.", SENTENCES[3]])
    assert food @ bread > food @ baby + 0.2


def test_batches_and_order_change_nothing(encoder):
    together = encoder(SENTENCES)
    assert np.abs(encoder(SENTENCES[::-1], batch_size=1)[::-1] - together).max() < 1e-6
    assert encoder([]).shape == (0, 384)
    with pytest.raises(DataError, match="a list of texts"):
        encoder("one text")


def test_mean_pooling_is_a_mean_over_tokens():
    states = np.arange(30.0).reshape(2, 3, 5)
    mask = ml.tensor([[1, 1, 0], [0, 0, 0]])
    found = mean_pooled(ml.tensor(states), mask)
    np.testing.assert_allclose(found.array, [states[0, :2].mean(0), np.zeros(5)])
    assert gradcheck(lambda x: mean_pooled(x, mask), [ml.tensor(states / 30, requires_grad=True)])


def test_folders_that_ask_for_other_things_are_refused(real_bert, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(real_bert, folder)
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    changed = {**pooling, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(changed))
    with pytest.raises(CheckpointError, match="only the mean over tokens is known, not pooling_mode_cls_token"):
        SentenceEncoder.from_pretrained(folder)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Pooling"}]))
    raw = SentenceEncoder.from_pretrained(folder)(["A text."])[0]
    unit = SentenceEncoder.from_pretrained(real_bert)(["A text."])[0]
    assert np.abs(raw / np.linalg.norm(raw) - unit).max() < 1e-6
    assert abs(np.linalg.norm(raw) - 1) > 0.1
    (folder / "modules.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"modules\.json: it cannot be read"):
        SentenceEncoder.from_pretrained(folder)
    (folder / "modules.json").unlink()
    with (folder / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("onemore\n")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="has 30523 tokens, and the model knows 30522"):
        SentenceEncoder.from_pretrained(folder)


# --- the command --------------------------------------------------------------------------------------


def test_the_command_shows_texts_with_their_vectors(run, encoder, real_bert):
    lines = [json.loads(line) for line in run("embed", "--model", real_bert, *SENTENCES[:2]).splitlines()]
    assert [line["text"] for line in lines] == SENTENCES[:2]
    found = np.array([line["embedding"] for line in lines], np.float32)
    assert np.array_equal(found, encoder(SENTENCES[:2]))


def test_the_command_writes_the_vectors_of_a_files_lines(run, encoder, real_bert, tmp_path):
    text = tmp_path / "lines.txt"
    text.write_text("é one\n\nthree\n", encoding="utf-8")
    expected = encoder(["é one", "", "three"])
    assert "3 vectors of 384 numbers" in run("embed", "--model", real_bert, text, "--out", tmp_path / "x.npy")
    assert np.array_equal(np.load(tmp_path / "x.npy"), expected)
    run("embed", "--model", real_bert, text, "--out", tmp_path / "x.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["text"] for line in lines] == ["é one", "", "three"]
    assert np.array_equal(np.array([line["embedding"] for line in lines], np.float32), expected)


def test_the_models_name_finds_the_package_that_carries_it(real_bert):
    assert hub.found("sentence-transformers/all-MiniLM-L6-v2") == real_bert


def test_the_commands_mistakes_are_one_line_and_write_nothing(tmp_path, real_bert, capsys, monkeypatch):
    from minilm import cli

    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    (tmp_path / "empty").write_bytes(b"")
    cut = tmp_path / "cut"
    shutil.copytree(real_bert, cut)
    with (cut / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    for arguments, message in (
        (["A text.", "--out", tmp_path / "x.csv"], "written as .npy or .jsonl, not as .csv"),
        (["A text.", "--batch-size", "0"], "batch-size must be at least 1"),
        ([tmp_path / "latin"], "is no UTF-8 text"),
        ([tmp_path / "empty"], "is empty"),
        (["A text.", "--model", tmp_path / "absent"], "there is no such folder"),
        (["A text.", "--model", cut, "--out", tmp_path / "x.npy"], "cannot be read as safetensors"),
    ):
        monkeypatch.setattr("sys.argv", ["minilm", "embed", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        shown = capsys.readouterr().err
        assert message in shown
        assert shown.count("\n") == 1
    assert not list(tmp_path.glob("x.*"))
