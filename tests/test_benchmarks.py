"""Every benchmark runs, briefly: a benchmark that nobody runs no longer works when it is wanted."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minilm.models import BertConfig, BertModel
from minilm.text import BertTokenizer

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"

# Each benchmark, how it is made short, and what its last line must hold.
SHORT = {
    "shakespeare_reference.py": (["--seeds", "1", "--steps", "2"], "bound 1.895"),
    "bert_pretraining_reference.py": (["--steps", "2", "--batches", "2", "--only", "minilm"], "ms a step"),
}

# What a library may say instead of a figure.
SKIPS = (
    "this minilm has no set_float32_matmul_precision",
    "no /proc/self/status on this system",
    "transformers is not installed",
)


# What needs files: a test of its own.
OTHERS = {"bert_finetuning_reference.py", "bert_report.py", "translation_reference.py"}


@pytest.mark.parametrize("name", sorted({path.name for path in FOLDER.glob("*.py")} - OTHERS))
def test_benchmark_runs(name, tmp_path):
    options, said = SHORT[name]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(FOLDER / name), *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent)},
    )
    assert done.stderr == ""
    assert said in done.stdout.splitlines()[-1]
    assert done.returncode == 1, "two steps cannot reach the bound"


def test_fine_tuning_is_compared(torch, transformers, tmp_path):
    tokenizer = BertTokenizer.train(["good bad day night a the no"] * 2, 60, min_frequency=1, model_max_length=16)
    tokenizer.save_pretrained(tmp_path)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **shape)).save_pretrained(tmp_path)
    (tmp_path / "days.tsv").write_text("text\tlabel\n" + "a good day\tgood\nno bad day at night\tbad\n" * 50)
    done = subprocess.run(
        [sys.executable, FOLDER / "bert_finetuning_reference.py", "--model", tmp_path, "--classify", "days.tsv"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent)},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "classify: 80 examples, 6 steps of 32"
    found = [re.search(r"after step (\d): minilm ([\d.]+), PyTorch ([\d.]+)", line) for line in lines[1:3]]
    assert [match[1] for match in found if match] == ["3", "6"]
    assert re.search(r"seconds: minilm [\d.]+, PyTorch [\d.]+; share \d", lines[3])


@pytest.fixture
def tiny(tmp_path):
    """Data and a model for a report, of a few words each."""
    words = ["good", "bad", "day", "night", "a", "the", "no", "what", "is"]
    tokenizer = BertTokenizer.train([" ".join(words)] * 2, 80, min_frequency=1, model_max_length=32)
    tokenizer.save_pretrained(tmp_path / "model")
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **shape)
    BertModel(config).save_pretrained(tmp_path / "model")
    rows = "good\tx\ta good day\nbad\tx\tno bad day at night\n" * 30
    (tmp_path / "days.tsv").write_text(f"label\tsource\ttext\n{rows}")
    sentences = [["good/ADJ", "day/NOUN"], ["no/DET"], ["a/DET", "night/NOUN"]] * 10
    with (tmp_path / "days.conllu").open("w") as file:
        for sentence in sentences:
            for number, (word, tag) in enumerate((pair.split("/") for pair in sentence), 1):
                file.write(f"{number}\t{word}\t_\t{tag}\t_\t_\t0\t_\t_\t_\n")
            file.write("\n")
    rng = np.random.default_rng(0)
    texts = (" ".join(rng.choice(words, rng.integers(4, 9))).capitalize() for _ in range(2000))
    (tmp_path / "text.txt").write_text("".join(f"{text}.\n" for text in texts))
    answer = {"text": "day", "answer_start": 9}
    questions = [{"id": str(i), "question": "what is good", "answers": [answer]} for i in range(20)]
    squad = {"data": [{"title": "x", "paragraphs": [{"context": "the good day is a day", "qas": questions}]}]}
    (tmp_path / "squad.json").write_text(json.dumps(squad))
    return tmp_path


def run_report(place, *options):
    """Its lines. It is to succeed; on one thread, since machines are busy."""
    done = subprocess.run(
        [sys.executable, FOLDER / "bert_report.py", "--out", "out", "--quick", "--model", "model", *options],
        capture_output=True,
        text=True,
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent), "OMP_NUM_THREADS": "1", "MINILM_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_the_report_has_every_section_and_goes_on_where_it_was(torch, transformers, eval_extra, tiny):
    given = ["--corpus", "text.txt", "--tags", "days.conllu"]
    shown = run_report(tiny, *given, "--only", "pretraining", "--only", "tags", "--only", "answers")
    assert [line for line in shown if "left out" in line] == [
        "answers: left out, for want of data: QUESTIONS=two SQuAD files (--questions)"
    ]
    page = (tiny / "out" / "report.md").read_text("utf-8")
    assert "- answers: data: QUESTIONS=two SQuAD files (--questions)" in page
    assert "Sentiment" not in page
    before = {path.name: path.read_bytes() for path in (tiny / "out" / "figures").iterdir()}
    assert set(before) == {"pretraining.json", "tags.json"}

    with (tiny / "days.conllu").open("a") as file:  # other data: tags are measured again, the text's model is not
        file.write("1\tday\t_\tNOUN\t_\t_\t0\t_\t_\t_\n\n")
    shown = run_report(tiny, *given, "--sentiment", "days.tsv", "--questions", "squad.json", "squad.json")
    assert [line.split(":")[0] for line in shown if "measured on" in line] == ["pretraining"]
    after = {path.name: path.read_bytes() for path in (tiny / "out" / "figures").iterdir()}
    assert after["pretraining.json"] == before["pretraining.json"]
    assert after["tags.json"] != before["tags.json"]
    sections = ("agreement", "sentiment", "tags", "pretraining", "scratch", "answers")
    records = {name: json.loads(after[f"{name}.json"]) for name in sections}
    page = (tiny / "out" / "report.md").read_text("utf-8")
    assert re.findall("^## (.*)", page, re.M) == [
        "The same numbers as transformers, on the same weights",
        "Sentiment of sentences",
        "Parts of speech",
        "Pre-training from scratch",
        "Parts of speech, with weights that were pre-trained here",
        "Answers to questions",
        "Seconds",
    ]
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", page):
        assert (tiny / "out" / picture).stat().st_size > 1000
    for name in sections[1:]:
        figures = records[name]["figures"]
        ours, theirs = (figures["losses"][side] for side in ("minilm", "PyTorch"))
        assert len(ours) == len(theirs) == 4
        assert abs(ours[0] - theirs[0]) < (0.1 if name == "pretraining" else 0.3), (
            "the weights and batches are the same"
        )
        assert f"| {figures['share']:.2f} |" in page
    assert records["agreement"]["figures"]["exchanged"]["minilm"]["weights_equal"]
    assert max(records["agreement"]["figures"]["states"]) < 1e-5
    assert records["sentiment"]["figures"]["baseline"]["accuracy"]["value"] == 1


def test_the_reports_mistakes_are_one_line_before_anything_is_measured(
    torch, transformers, eval_extra, tiny, monkeypatch, capsys
):
    monkeypatch.chdir(tiny)
    monkeypatch.syspath_prepend(FOLDER)
    report = importlib.import_module("bert_report")
    (tiny / "wrong.conllu").write_text("1\tday\n\n")
    (tiny / "short.txt").write_text("A day.\n")
    (tiny / "file").write_text("")
    (tiny / "damaged" / "figures").mkdir(parents=True)
    (tiny / "damaged" / "figures" / "tags.json").write_text('{"settings": {}}')
    tags = ["--tags", "days.conllu", "--only", "tags"]
    for options, message in (
        (["--sentiment", "absent.tsv"], "absent.tsv: there is no such file"),
        (["--tags", "wrong.conllu"], "wrong.conllu: line 1"),
        (["--corpus", "short.txt"], "short.txt"),
        (["--questions", "squad.json", "days.tsv"], "days.tsv"),
        ([*tags, "--model", "absent/model/here"], "absent/model/here: there is no such folder"),
        ([*tags, "--model", "damaged"], "config.json"),
        ([*tags, "--only", "tag"], "--only tag: the sections are agreement, sentiment, tags"),
        ([*tags, "--out", "file"], "file: is a file, and the report needs a folder"),
        ([*tags, "--out", "damaged"], "tags.json: holds no figures of this report; delete it"),
        ([*tags, "--steps", "0"], "--steps is 0; it must be at least 1"),
    ):
        assert report.main(["--quick", "--out", "out", "--model", "model", *options]) == 2, options
        shown = capsys.readouterr()
        assert message in shown.err
        assert (shown.err.count("\n"), shown.out) == (1, "")
        assert not (tiny / "out").exists()
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else found(name, *rest)
    )
    assert report.main(tags) == 2
    assert "missing: pip install torch\n" in capsys.readouterr().err


def test_translating_is_compared(torch, transformers, eval_extra, tmp_path):
    (tmp_path / "pairs.tsv").write_text("the cat\tle chat\na dog met the cat\tun chien trouva le chat\n" * 15)
    small = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    settings = {"vocabulary": 270, "held_out": 6, "epochs": 2, "max_target": 20, "precision": "float32"}
    settings |= {f"model.{name}": size for name, size in {**small, "dropout": 0}.items()}
    options = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    done = subprocess.run(
        [sys.executable, FOLDER / "translation_reference.py", "--train", "pairs.tsv", *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent)},
    )
    assert done.returncode == 0, done.stderr
    ours, theirs = (re.search(rf"{name}: BLEU (.*)", done.stdout) for name in ("minilm", "PyTorch"))
    assert ours
    assert theirs
    assert ours[1] == theirs[1], "equal batches, weights and steps, so equal translations"
    assert re.search(r"translating: minilm [\d.]+ s, PyTorch [\d.]+ s; PyTorch takes [\d.]+ times", done.stdout)


@pytest.mark.parametrize(("precision", "steps", "apart"), [("float32", 2, 0.0005), ("bf16", 8, 0.02)])
def test_the_twin_takes_the_same_steps(torch, transformers, tmp_path, precision, steps, apart):
    """Some steps of both: equal losses, since weights, batches and learning rates are; in bfloat16 but for rounding.

    `apart`: in float32 less than the last digit that is printed, so that nothing may differ.
    """
    options = ["--steps", str(steps), "--batches", "2", "--precision", precision]
    done = subprocess.run(
        [sys.executable, str(FOLDER / "bert_pretraining_reference.py"), *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent)},
    )
    ours, theirs = done.stdout.splitlines()[-2:]
    assert (ours.split()[0], theirs.split()[0]) == ("minilm", "PyTorch")
    losses = [float(line.split("loss ")[1].split()[0]) for line in (ours, theirs)]
    assert abs(losses[0] - losses[1]) < apart


def test_every_workload_of_the_command_runs(tmp_path):
    """`minilm bench --brief` with every library that is installed; on one thread, since machines are busy."""
    done = subprocess.run(
        [sys.executable, "-m", "minilm.cli", "bench", "--brief", "--threads", "1", "--json", "all.json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent)},
        timeout=300,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    rows = json.loads((tmp_path / "all.json").read_text("utf-8"))["rows"]
    assert list(dict.fromkeys(row["workload"] for row in rows)) == [f"W{number}" for number in range(1, 14)]
    for row in rows:
        for peer, result in row["results"].items():
            assert result["seconds"] or result["bytes"] or result["error"] in SKIPS, f"{row['name']}, {peer}"
    libraries = {peer for row in rows for peer in row["results"]}
    assert libraries >= {"minilm", "numpy"} | ({"torch"} if importlib.util.find_spec("torch") else set())
