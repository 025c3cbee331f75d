"""Every benchmark runs, briefly: a benchmark that nobody runs no longer works when it is wanted."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

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
OTHERS = {"bert_finetuning_reference.py", "translation_reference.py"}


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


def test_the_twin_takes_the_same_steps(torch, transformers, tmp_path):
    """Two steps of both: equal losses, since weights, batches and learning rates are."""
    options = ["--steps", "2", "--batches", "2", "--precision", "float32"]
    done = subprocess.run(
        [sys.executable, str(FOLDER / "bert_pretraining_reference.py"), *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent)},
    )
    ours, theirs = done.stdout.splitlines()[-2:]
    assert (ours.split()[0], theirs.split()[0]) == ("minilm", "PyTorch")
    assert ours.split("loss ")[1].split()[0] == theirs.split("loss ")[1].split()[0]


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
    assert list(dict.fromkeys(row["workload"] for row in rows)) == [f"W{number}" for number in range(1, 13)]
    for row in rows:
        for peer, result in row["results"].items():
            assert result["seconds"] or result["bytes"] or result["error"] in SKIPS, f"{row['name']}, {peer}"
    libraries = {peer for row in rows for peer in row["results"]}
    assert libraries >= {"minilm", "numpy"} | ({"torch"} if importlib.util.find_spec("torch") else set())
