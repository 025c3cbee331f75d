"""`minilm finetune` and `minilm predict` as typed: what they print, leave behind, and refuse with one line."""

from __future__ import annotations

import json

import pytest

from minilm import random
from minilm.models import BertConfig, BertModel
from minilm.text import BertTokenizer

ROWS = "text\tlabel\n" + "a good day\tgood\nno bad day\tbad\n" * 10


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    tokenizer = BertTokenizer.train([ROWS] * 2, 100, min_frequency=1, model_max_length=16)
    tokenizer.save_pretrained(folder)
    random.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=16, **shape)).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def days(tmp_path):
    (tmp_path / "days.tsv").write_text(ROWS)


SMALL = ("--set", "max_length=16", "--set", "epochs=1", "--set", "batch_size=4", "--set", "learning_rate=0.01")


def test_from_a_file_to_predictions(call, pretrained, tmp_path):
    code, out, err = call("finetune", "classify", "--model", pretrained, "--train", "days.tsv", *SMALL)
    assert (code, err) == (0, "")
    assert "accuracy" in out
    assert "minilm predict runs/days/model FILE" in out
    assert (tmp_path / "runs/days/report.md").read_text().startswith("# classify: days")
    (tmp_path / "new.tsv").write_text("text\nbad bad day\nthe good\n")
    code, out, err = call("predict", "runs/days", "new.tsv", "-o", "said.jsonl")
    assert (code, out, err) == (0, "said.jsonl: 2 predictions\n", "")
    rows = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == ["bad bad day", "the good"]
    assert all(row["predicted"] in ("good", "bad") and 0.5 <= row["probability"] <= 1 for row in rows)
    code, out, err = call("predict", "runs/days/model", "new.tsv")
    assert [json.loads(line) for line in out.splitlines()] == rows
    code, out, err = call("finetune", "classify", "--resume", "runs/days", "--set", "steps=7")
    assert (code, err) == (0, "")
    code, out, err = call("runs", "runs")
    assert "7" in out
    assert "finished" in out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("classify",), "minilm finetune classify --model FOLDER --train FILE (or --resume RUN)"),
        (("tag", "--model", "PRE", "--train", "none.conllu"), "none.conllu"),
        (
            ("classify", "--model", "PRE", "--train", "days.tsv", "--set", "epochs=0"),
            "epochs must be at least 1, not 0",
        ),
        (("classify", "--model", "PRE", "--train", "days.tsv", "--set", "epoch=2"), "did you mean 'epochs'?"),
        (
            ("classify", "--model", "PRE", "--train", "days.tsv", "--text-column", "words"),
            "the column 'words' is not among",
        ),
        (("classify", "--resume", "runs/days", "--train", "days.tsv"), "--resume takes everything from the run itself"),
        (("qa", "--model", "PRE", "--train", "bad.json"), "bad.json: line 2: is not JSON"),
        (("classify", "--model", "no/where", "--train", "days.tsv"), "no/where"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(call, pretrained, tmp_path, args, said):
    (tmp_path / "bad.json").write_text('{"data": [\n{,}]}')
    code, _, err = call("finetune", *(str(pretrained) if arg == "PRE" else arg for arg in args))
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_what_is_no_model_is_said(call, tmp_path):
    code, _, err = call("predict", ".", "days.tsv")
    assert code == 2
    assert "there is no config.json in it" in err
