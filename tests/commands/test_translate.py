"""`minilm finetune translate` and `minilm translate` as typed: what they print, leave, and refuse with one line."""

from __future__ import annotations

import io
import json
import sys
import types

import pytest

PAIRS = "the cat\tle chat\na dog\tun chien\nthe dog met a cat\tle chien trouva un chat\n" * 8
SMALL = ("--layers", 1, "--channels", 16, "--heads", 2, "--vocabulary", 280, "--epochs", 1, "--held-out", 6)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A place with a file of pairs, and a run that has seen it once."""
    from minilm.commands.finetune_pairs import Files, _finetune

    place = tmp_path_factory.mktemp("made")
    (place / "pairs.tsv").write_text(PAIRS)
    files = Files(place / "pairs.tsv", None, place / "run", None)
    shape = {"layers": 1, "channels": 16, "heads": 2}
    _finetune("translate", None, files, shape, {"vocabulary": 280, "epochs": 1, "held_out": 6}, {}, [], None)
    return place


def test_from_a_file_to_translations(call, made, tmp_path):
    (tmp_path / "pairs.tsv").write_text(PAIRS)
    code, out, err = call("finetune", "translate", "--train", "pairs.tsv", *SMALL, "--set", "max_source=6")
    assert (code, err) == (0, "")
    assert "note: 4 of 20 pairs are longer than 6 tokens (max_source) or 128 (max_target) and not learnt from" in out
    assert "minilm translate runs/pairs TEXT (or FILE)" in out
    assert "steps of at most 4,096 tokens" in out
    config = json.loads((tmp_path / "runs/pairs/model/config.json").read_text())
    assert (config["encoder_layers"], config["decoder_ffn_dim"], config["vocab_size"]) == (1, 64, 280)
    assert (tmp_path / "runs/pairs/report.md").read_text().startswith("# translate: pairs")
    code, out, err = call("finetune", "translate", "--resume", "runs/pairs", "--set", "steps=3")
    assert (code, err) == (0, "")


def test_texts_files_and_standard_input(call, made, tmp_path, monkeypatch):
    run = made / "run"
    code, out, err = call("translate", run, "the cat", "a dog", "--max-tokens", 5)
    assert (code, err, out.count("\n")) == (0, "", 2)
    (tmp_path / "texts.txt").write_text("the cat\r\na dog\n")
    assert call("translate", run / "model", "texts.txt", "--max-tokens", 5) == (0, out, "")
    stdin = types.SimpleNamespace(buffer=io.BytesIO(b"the cat\na dog"))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert call("translate", run, "--max-tokens", 5) == (0, out, "")
    assert call("translate", run, "texts.txt", "--max-tokens", 5, "-o", "said.txt")[1] == "said.txt: 2 texts\n"
    assert (tmp_path / "said.txt").read_text() == out


def test_several_hypotheses_drawing_and_a_picture(call, made, tmp_path):
    run = made / "run"
    code, out, err = call("translate", run, "the cat", "--n-best", 3, "--beam", 4, "--max-tokens", 5)
    assert (code, err) == (0, "")
    outputs = json.loads(out)["outputs"]
    assert len(outputs) == 3
    assert sorted((o["score"] for o in outputs), reverse=True) == [o["score"] for o in outputs]
    drawn = [call("translate", run, "the cat", "--sample", "--seed", seed)[1] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert call("translate", run, "the cat", "--alignment", "seen.png", "--max-tokens", 4)[0] == 0
    assert (tmp_path / "seen.png").read_bytes().startswith(b"\x89PNG")
    code, out, err = call("predict", run, made / "pairs.tsv", "-o", "said.jsonl")
    assert (code, out, err) == (0, "said.jsonl: 24 predictions\n", "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("RUN", "the cat", ""), "text 2: is empty"),
        (("RUN", "gap.txt"), "gap.txt: line 2: is empty"),
        (("RUN", "the </s> cat"), "the text: </s> stands in the text"),
        (("RUN", "cat " * 2000), "tokens, and the model reads 1024"),
        (
            ("RUN", "cat", "--beam", 200),
            "num_beams 200 is too wide: of each 400 tokens go on, and the vocabulary has 280",
        ),
        (("RUN", "cat", "--beam", 0), "num_beams must be at least 1, not 0"),
        (("RUN", "cat", "--n-best", 6), "num_return_sequences must be from 1 to num_beams"),
        (("RUN", "cat", "--top-k", 3), "--top-k is for drawing: it needs --sample"),
        (("RUN", "cat", "--sample", "--n-best", 2), "--n-best is of a search"),
        (("RUN", "cat", "dog", "--alignment", "a.png"), "--alignment draws one text, and there are 2"),
        (("RUN", "cat", "--alignment", "a.jpg"), "a.jpg: a picture's name ends in .png or .svg"),
        (("RUN", "cat", "--batch-size", 0), "batch-size must be at least 1"),
        (("none", "cat"), "none"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(call, made, tmp_path, options, said):
    (tmp_path / "gap.txt").write_text("the cat\n \na dog\n")
    code, out, err = call("translate", *(made / "run" if x == "RUN" else x for x in options), "-o", "out.txt")
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "minilm finetune translate --train FILE (or --resume RUN)"),
        (("--train", "bad.tsv"), "bad.tsv: line 2: the target is empty"),
        (("--train", "pairs.tsv", "--source-column", 3, "--target-column", 1), "there is no column 3 among 2"),
        (("--train", "pairs.tsv", "--channels", 30, "--heads", 4), "d_model must be a multiple of"),
        (("--train", "pairs.tsv", "--model", "none", "--layers", 2), "a pretrained model has its own shape"),
        (("--train", "pairs.tsv", "--model", "none"), "none"),
        (("--train", "pairs.tsv", "--set", "model.vocab_size=9"), "set vocabulary, without model."),
        (("--train", "pairs.tsv", "--set", "vocabular=9"), "did you mean 'vocabulary'?"),
        (("--resume", "runs/a", "--epochs", 2), "--resume takes everything from the run itself"),
    ],
)
def test_mistakes_before_a_run_leave_none(call, tmp_path, options, said):
    (tmp_path / "pairs.tsv").write_text(PAIRS)
    (tmp_path / "bad.tsv").write_text("the cat\tle chat\na dog\t\n")
    code, _, err = call("finetune", "translate", *options)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()
