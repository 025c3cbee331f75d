"""A script runs as the main program, and everything is as before afterwards."""

from __future__ import annotations

import sys

import pytest

import minilm as ml
from minilm.compat import ScriptError, run_script, torch_names
from minilm.compat.script import run_torch


@pytest.fixture
def script(tmp_path):
    """`script(source, name)`: the path of a script with this source."""

    def write(source: str, name: str = "script.py"):
        path = tmp_path / name
        path.write_text(source, encoding="utf-8")
        return path

    return write


def test_it_is_the_main_program_in_its_own_folder(script):
    script("VALUE = 41\n", "neighbour_of_script.py")
    path = script(
        "import sys, pickle\nimport neighbour_of_script\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Config:\n    n: int = neighbour_of_script.VALUE\n"
        "again = pickle.loads(pickle.dumps(Config(3)))\n"
        "argv, name, first, file = sys.argv, __name__, sys.path[0], __file__\n"
    )
    before = sys.argv, sys.path[:], sys.modules["__main__"]
    told = run_script(path, ["--lr", "3"])
    assert told["argv"] == [str(path), "--lr", "3"]
    assert (told["name"], told["first"], told["file"]) == ("__main__", str(path.parent), str(path))
    assert told["again"].n == 3
    assert told["Config"]().n == 41
    assert (sys.argv, sys.path, sys.modules["__main__"]) == before
    assert "neighbour_of_script" not in sys.modules


def test_it_meets_the_torch_that_is_installed_at_that_time(script, torch):
    path = script("import torch\nx = torch.ones(3).sum()\n")
    assert isinstance(run_script(path)["x"], torch.Tensor)
    with torch_names():
        assert isinstance(run_script(path)["x"], ml.Tensor)
    assert isinstance(run_script(path)["x"], torch.Tensor)


def test_everything_is_put_back_after_an_error_too(script):
    path = script("import sys\nsys.argv.append(1)\nsys.path.append('qux')\nraise SystemExit(3)\n")
    before = sys.argv[:], sys.path[:], sys.modules["__main__"]
    with pytest.raises(SystemExit) as caught:
        run_script(path)
    assert caught.value.code == 3
    assert (sys.argv, sys.path, sys.modules["__main__"]) == before


def test_no_script_is_an_error_of_its_own(tmp_path, script):
    with pytest.raises(ScriptError, match="no such file"):
        run_script(tmp_path / "gone.py")
    with pytest.raises(ScriptError, match="line 1"):
        run_script(script("def f(:\n"))


# --- the command ----------------------------------------------------------------------------------


def test_an_error_shows_the_lines_of_the_script_alone(script, capsys):
    path = script("import torch\nprint('so far')\ndef f(x):\n    return x @ torch.ones(4, 5)\nf(torch.ones(2, 3))\n")
    assert run_torch(path) == 1
    out, err = capsys.readouterr()
    assert out == "so far\n"
    first, second = (line for line in err.splitlines() if f'"{path}"' in line)
    assert "line 5, in <module>" in first
    assert "line 4, in f" in second
    assert "return x @ torch.ones(4, 5)" in err
    assert "run_script" not in err
    assert "ShapeError: matmul" in err


def test_missing_names_are_listed_and_nothing_runs(script, capsys):
    path = script("print('runs')\nimport torch\ntorch.fft.fft(1)\ntorch.nn.Lineer\n")
    assert run_torch(path) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[1:] == [
        "  line 3: minilm has no torch.fft",
        "  line 4: minilm has no torch.nn.Lineer (nearest: torch.nn.Linear)",
    ]


def test_a_guarded_name_is_refused_when_it_is_reached(script, capsys):
    path = script("import torch\nif 'cuda' != 'cpu':\n    torch.fft\n")
    assert run_torch(path) == 1
    assert "line 3" in (err := capsys.readouterr().err)
    assert "minilm has no torch.fft" in err


def test_a_script_may_do_without_what_it_tried(script, capsys):
    path = script("try:\n    from torch import fft\nexcept ImportError as e:\n    print(e)\n")
    assert run_torch(path) == 0
    assert capsys.readouterr().out == "minilm has no torch.fft\n"


@pytest.mark.parametrize(("source", "code"), [("raise SystemExit(7)", 7), ("import sys; sys.exit()", None)])
def test_the_exit_code_is_the_scripts(script, source, code):
    with pytest.raises(SystemExit) as caught:
        run_torch(script(source))
    assert caught.value.code == code
    assert "torch" not in sys.modules or sys.modules["torch"].__doc__ != "minilm under PyTorch's names."


def test_a_missing_file_is_one_line(tmp_path, capsys):
    assert run_torch(tmp_path / "gone.py") == 2
    assert capsys.readouterr().err == f"minilm: {tmp_path / 'gone.py'}: there is no such file\n"
