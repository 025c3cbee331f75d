"""Scripts in the manner of those that are published print the same on PyTorch and on minilm.

Weights and data come from NumPy, so both engines begin with the same numbers; what is printed must then agree to four
digits, and to the letter where it is no number.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from minilm.compat import check_script, run_script, torch_names

FOLDER = Path(__file__).parent / "scripts"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py"))
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")


@pytest.fixture
def alone(torch):
    """PyTorch with one thread and its usual element type, as they were at the end."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)


def printed(capsys, name: str) -> str:
    capsys.readouterr()
    run_script(FOLDER / name, [])
    return capsys.readouterr().out


def test_there_are_scripts():
    assert len(SCRIPTS) >= 5


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_prints_the_same_on_both(name, alone, capsys):
    theirs = printed(capsys, name)
    check_script(FOLDER / name)
    with torch_names():
        ours = printed(capsys, name)
    assert NUMBER.sub("#", ours) == NUMBER.sub("#", theirs)
    numbers, expected = NUMBER.findall(ours), NUMBER.findall(theirs)
    assert len(expected) >= 10
    assert [float(n) for n in numbers] == pytest.approx([float(n) for n in expected], rel=2e-4, abs=2e-4)


def test_the_losses_fall(capsys):
    """Equal numbers prove little if nothing is learnt."""
    with torch_names():
        lines = printed(capsys, "gpt.py").splitlines()
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in lines if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]


def test_the_command_runs_a_script_with_its_arguments():
    program = "from minilm_command import main; main()"
    command = [sys.executable, "-W", "error", "-c", program, "run-torch", str(FOLDER / "gpt.py"), "--steps", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split(":")[0] for line in done.stdout.splitlines()[1:-1]] == ["step 0", "step 2"]
