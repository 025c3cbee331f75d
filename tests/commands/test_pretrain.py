"""`minilm pretrain-bert`: from a text to a folder, and on from there."""

from __future__ import annotations

import json

import pytest

from minilm.models import BertForPreTraining

TEXT = "".join(f"The cat {i} sat. It was number {i % 7}.\n" for i in range(300))
TINY = {
    "model": {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 16,
    },
    "vocab_size": 80,
    "batch_size": 2,
    "steps": 3,
    "eval_batches": 1,
}


@pytest.fixture
def text(tmp_path):
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    path = tmp_path / "cats.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_pretrain_show_resume_and_refuse(call, text, tmp_path):
    code, out, err = call("pretrain-bert", text, "--config", "tiny.json", "--set", "whole_words=true")
    assert (code, err) == (0, "")
    for wanted in ("a BERT learns from", "3 steps of 32 tokens", "masked accuracy", "next sentence accuracy"):
        assert wanted in out
    assert "accuracy by frequency" in out
    assert "pretrained    runs/bert-cats/pretrained" in out
    assert json.loads((tmp_path / "runs/bert-cats/config.json").read_text())["whole_words"] is True
    BertForPreTraining.from_pretrained(tmp_path / "runs/bert-cats/pretrained")

    for command in ("train", "pretrain-bert"):
        steps = {"train": 4, "pretrain-bert": 5}[command]
        code, out, err = call(command, "--resume", "runs/bert-cats", "--set", f"steps={steps}")
        assert (code, err) == (0, "")
        assert f"done: {steps} steps" in out
    code, out, _ = call("runs", "runs")
    assert code == 0
    assert "5/5" in out
    code, out, _ = call("replay", "runs/bert-cats", "--step", "4")
    assert code == 0
    assert "[MASK]" in out
    code, out, _ = call("plot", "runs/bert-cats", "--out", "loss.svg")
    assert code == 0
    code, out, err = call("generate", "runs/bert-cats")
    assert (code, out) == (2, "")
    assert "is a run of the kind bert; needed is one of gpt, ffnn, rnn, lstm, gru" in err


def test_mistakes_are_one_line(call, text):
    for args, message in [
        (["nothing.txt"], "nothing.txt: there is no such file"),
        (["cats.txt", "--set", "whole_word=true"], "did you mean 'whole_words'?"),
        (["cats.txt", "--config", "gone.json"], "gone.json: cannot be read"),
        (["cats.txt", "--resume", "runs/x"], "--resume takes everything from the run itself"),
        (["--resume", "runs/x"], "runs/x: there is no such folder"),
    ]:
        code, out, err = call("pretrain-bert", *args)
        assert code == 2, args
        assert out in ("", "minilm: a BERT learns from cats.txt\n", "minilm: going on with runs/x\n"), args
        assert message in err
        assert err.count("\n") == 1
