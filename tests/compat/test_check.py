"""What a script asks for is found before it runs, and what it may never reach is left alone."""

from __future__ import annotations

import ast
import textwrap

import pytest

from minilm.compat import ScriptError, check_script, missing_names


def found(source: str) -> list[tuple[int, str]]:
    """Line and name of each missing name."""
    return [(m.line, m.message.split()[3]) for m in missing_names(ast.parse(textwrap.dedent(source)))]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import torch\ntorch.zeros(2)\ntorch.qux(2)", [(3, "torch.qux")]),
        ("import torch.nn as nn\nnn.Linear\nnn.Qux", [(3, "torch.nn.Qux")]),
        ("import torch.nn.functional as F\nF.relu(F.qux(1))", [(2, "torch.nn.functional.qux")]),
        ("from torch import nn as layers, optim\nlayers.Qux\noptim.Qux", [(2, "torch.nn.Qux"), (3, "torch.optim.Qux")]),
        ("from torch.nn import Linear, Qux as Q", [(1, "torch.nn.Qux")]),
        ("from torch import fft\nfft.rfft(1)", [(1, "torch.fft")]),
        ("import torch.fft", [(1, "torch.fft")]),
        ("import torch.utils.qux as q\nq.a", [(1, "torch.utils.qux")]),
        ("import torch\ntorch.fft.rfft(1)", [(2, "torch.fft")]),
        ("import torch as th\nclass A(th.nn.Qux): pass", [(2, "torch.nn.Qux")]),
        ("import torch\ndef f(x: torch.Qux = torch.inf): pass", [(2, "torch.Qux")]),
        ("def f():\n    return torch.qux\nimport torch", [(2, "torch.qux")]),
        ("import torch\ntorch.qux()\ntorch.qux()", [(2, "torch.qux")]),
        ("import torch\n@torch.qux\ndef f(): pass", [(2, "torch.qux")]),
        ("import torchvision.transforms as T\nT.Compose", [(1, "torchvision:")]),
        ("from torchvision import datasets", [(1, "torchvision:")]),
        # nothing to be said against these
        ("import torch\ntorch.backends.cudnn.benchmark = True\ntorch.qux = 1", []),
        ("import torch\ntorch.tensor([1]).qux()\ntorch.float32.qux", []),
        ("import numpy as torchy\ntorchy.qux", []),
        ("from torch import *\nfrom .torch import qux\nfrom . import torch", []),
        ("import torch, os\nos.qux\nprint(torch.__file__)", []),
    ],
)
def test_names_are_followed_through_imports_and_aliases(source, expected):
    assert found(source) == expected


@pytest.mark.parametrize(
    "guard",
    [
        "if torch.cuda.is_available():",
        "if args.cuda and torch.cuda.is_available():",
        "if use_cuda:",
        "if not torch.cuda.is_available():\n    pass\nelse:",
        "if hasattr(torch, 'qux'):",
        "if device == 'cuda':",
        "if 'cuda:0' in device:",
        "if torch.backends.mps.is_available():",
        "if torch.__version__ >= '3':",
        "if typing.TYPE_CHECKING:",
    ],
)
def test_behind_such_a_test_nothing_is_refused(guard):
    assert found(f"import torch\nuse_cuda = torch.cuda.is_available()\n{guard}\n    torch.qux()") == []


@pytest.mark.parametrize(
    "guard",
    [
        "if not torch.cuda.is_available():",
        "if torch.cuda.is_available():\n    pass\nelse:",
        "if args.fast:",
        "if hasattr(args, 'qux'):",
        "while True:",
    ],
)
def test_behind_others_it_is(guard):
    assert [name for _, name in found(f"import torch\n{guard}\n    torch.qux()")] == ["torch.qux"]


def test_conditional_expressions_are_tests_too():
    assert found("import torch\nx = torch.qux() if torch.cuda.is_available() else torch.ones(2)") == []
    assert found("import torch\nx = torch.ones(2) if torch.cuda.is_available() else torch.qux()") == [(2, "torch.qux")]


@pytest.mark.parametrize("caught", ["ImportError", "(KeyError, AttributeError)", "Exception as error", ""])
def test_what_is_tried_is_not_refused(caught):
    source = f"import torch\ntry:\n    from torch.qux import a\n    torch.quux\nexcept {caught}:\n    torch.corge"
    assert found(source) == [(6, "torch.corge")]


def test_what_is_tried_for_another_reason_is():
    assert found("import torch\ntry:\n    torch.qux\nexcept KeyError:\n    pass") == [(3, "torch.qux")]


def test_all_missing_names_are_in_one_error(tmp_path):
    path = tmp_path / "script.py"
    path.write_text("import torch\nfrom torch import nn\nnn.Lineer()\ntorch.fft.fft(1)\n")
    with pytest.raises(ScriptError) as caught:
        check_script(path)
    assert str(caught.value).splitlines() == [
        f"{path}: this script asks for what minilm has not",
        "  line 3: minilm has no torch.nn.Lineer (nearest: torch.nn.Linear)",
        "  line 4: minilm has no torch.fft",
    ]


def test_what_is_no_script_is_refused_in_one_line(tmp_path):
    bad = {
        "syntax.py": (b"x = 1\ndef f(:\n", "line 2: invalid syntax"),
        "latin.py": (b"x = '\xe9'\n", "encoding"),
        "null.py": (b"x = 1\0\n", "null"),
        "cookie.py": (b"# coding: klingon\n", "klingon"),
    }
    for name, (content, said) in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ScriptError, match=said) as caught:
            check_script(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)
    with pytest.raises(ScriptError, match="no such file"):
        check_script(tmp_path / "gone.py")
    with pytest.raises(ScriptError, match="a folder"):
        check_script(tmp_path)
