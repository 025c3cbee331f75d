"""The stub that tells editors Tensor's methods: fresh, complete, and believed by mypy."""

from __future__ import annotations

import ast
import importlib.util
import inspect
from pathlib import Path

import pytest

import minilm
from minilm.ops import stubs
from minilm.tensor import Tensor


def stubbed():
    """The methods in the stub, by name."""
    tree = ast.parse(stubs.PATH.read_text(encoding="utf-8"))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef))
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}


def written_out():
    """The attributes that stand in the source of the class itself."""
    source = Path(inspect.getfile(Tensor)).read_text(encoding="utf-8")
    (body,) = (n.body for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == "Tensor")
    names = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    return names | {t.id for node in body if isinstance(node, ast.Assign) for t in node.targets}


def test_it_is_fresh(capsys):
    assert stubs.main(["--check"]) == 0, "run: python -m minilm.ops.stubs"
    assert "up to date" in capsys.readouterr().out


def test_a_stale_file_is_noticed(tmp_path, monkeypatch, capsys):
    path = tmp_path / "tensor_methods.pyi"
    monkeypatch.setattr(stubs, "PATH", path)
    assert stubs.main(["--check"]) == 1
    assert stubs.main([]) == 0
    assert stubs.main(["--check"]) == 0
    path.write_text(path.read_text(encoding="utf-8").replace("def exp(", "def exq("), encoding="utf-8")
    assert stubs.main(["--check"]) == 1
    assert "stale" in capsys.readouterr().out


def test_it_lists_every_attached_method_and_no_other():
    attached = {name for name in vars(Tensor) if not name.startswith("_") or name.startswith("__")}
    attached -= {"__module__", "__doc__", "__slots__", "__weakref__", "__qualname__", "__hash__", "__annotations__"}
    attached -= {"__static_attributes__", "__firstlineno__", "array", "grad"}  # slots, and what CPython adds
    assert attached - written_out() == set(stubbed())


def test_parameters_are_those_of_the_methods():
    """The stub names a method's parameters as the operation does, so that keywords are known."""
    for name, keywords in {"sum": ["dim", "keepdim", "dtype"], "topk": ["k", "dim", "largest", "sorted"]}.items():
        assert [a.arg for a in stubbed()[name].args.args][1:] == keywords
    assert stubbed()["permute"].args.vararg.arg == "dims"
    assert all(ast.get_docstring(node) for node in stubbed().values())
    assert max(map(len, stubs.stub().splitlines())) <= stubs.WIDTH


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_mypy_knows_the_methods(tmp_path):
    from mypy import api

    program = tmp_path / "program.py"
    program.write_text(
        "import minilm as ml\n"
        "x = ml.ones(2, 3)\n"
        "reveal_type(x.exp().sum(0, keepdim=True).T)\n"
        "reveal_type((2 * x + x @ x.mT - x[0] ** 2).split(1)[0])\n"
        "reveal_type(x.topk(2).indices)\n"
        "x.add_(1).permute(1, 0).expand(-1, 2)\n"
        "x.expp()\n"
        "x.sum(keepdims=True)\n",
        encoding="utf-8",
    )
    settings = tmp_path / "mypy.ini"
    settings.write_text("[mypy]\nfollow_imports = silent\nignore_missing_imports = True\n", encoding="utf-8")
    root = Path(minilm.__file__).parents[1]
    arguments = [str(program), "--config-file", str(settings), f"--cache-dir={tmp_path}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYPYPATH", str(root))
        found, _, _ = api.run(arguments)
    assert found.count('Revealed type is "minilm.tensor.Tensor"') == 2, found
    assert '"Tensor" has no attribute "expp"' in found
    assert 'Unexpected keyword argument "keepdims"' in found
    assert found.count("error:") == 2, found
