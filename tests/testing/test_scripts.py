"""`minilm compare SCRIPT`: one script on both engines, made equal, and a fault planted on one of them."""

from __future__ import annotations

import random as python_random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm import nn, optim, random
from minilm.compat import ScriptError
from minilm.errors import ConfigError
from minilm.testing.twins.script_report import compare_script, run_compare
from minilm.testing.twins.scripts import Forest

SCRIPT = """
import random
import sys
import numpy as np
import torch
from torch import nn, randn
import torch.nn.functional as F

ON_TORCH = type(torch).__name__ == "module"
torch.manual_seed(3)
X = torch.randn(40, 8) + torch.tensor(np.random.rand(40, 8)).float() * random.random()
Y = torch.randint(0, 4, (40,))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8, eps=EPS)
        self.l1 = nn.Linear(8, 16)
        self.drop = nn.Dropout(0.2)
        self.l2 = nn.Linear(16, 4)

    def forward(self, x):
        return self.l2(self.drop(F.gelu(self.l1(self.norm(x) * SCALE))))

EPS = 1e-5
SCALE = 1.0
LR = 1e-3
DECAY = 0.1
def before(step):
    pass
kind = torch.optim.AdamW
CHANGE
model = Net()
nn.init.normal_(model.l1.weight, std=0.5)
optimizer = kind(model.parameters(), lr=LR, weight_decay=DECAY)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=10, shuffle=True)
criterion = nn.CrossEntropyLoss()
step = 0
for epoch in range(2):
    for x, y in loader:
        step += 1
        before(step)
        loss = criterion(model(0.1 * (x + randn(10, 8))), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(step, loss.item())
"""


@pytest.fixture
def script(tmp_path: Path, torch: Any) -> Any:
    """`script(change)`: the script above, with lines put in before the model is made."""

    def write(change: str = "", text: str = SCRIPT) -> Path:
        path = tmp_path / "script.py"
        path.write_text(text.replace("CHANGE", change), "utf-8")
        return path

    return write


def test_both_engines_go_the_same_way(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    report = compare_script(script(), steps=6)
    assert report.agrees, report.conclusion
    names = [row.name for row in report.rows if row.kind == "forward"]
    one = ["model.norm", "model.l1", "model.drop", "model.l2", "model", "criterion"]
    assert names == one + [f"{name}@{step}" for step in range(2, 7) for name in one]
    assert [row.kind for row in report.rows].count("loss") == 6
    assert len([row for row in report.rows if row.kind == "step 6"]) == 6
    assert capsys.readouterr().out == ""


def test_a_script_may_end_before_its_steps(script: Any) -> None:
    report = compare_script(script(), steps=100)
    assert report.agrees
    assert report.rows[-1].kind == "step 8"


@pytest.mark.parametrize(
    ("change", "cause", "row"),
    [
        ("EPS = 1e-12 if ON_TORCH else 1e-5", "epsilon", "model.norm"),
        ("EPS = 1e-5 if ON_TORCH else 1e-3", "epsilon", "model.norm"),
        ("kind = torch.optim.AdamW if ON_TORCH else torch.optim.Adam", "form of weight decay", "model.norm.weight"),
        ("LR = 2e-3 if ON_TORCH else 1e-3", "lr", "model.norm.weight"),
        ("before = lambda step: model.eval() if ON_TORCH else None", "dropout left on", "model.drop"),
        (
            "def before(step):\n    if step == 3 and ON_TORCH: model.norm.eps = 1e-2",
            "epsilon",
            "model.norm@3",
        ),
    ],
)
def test_a_planted_fault_is_named(script: Any, change: str, cause: str, row: str) -> None:
    report = compare_script(script(change), steps=4)
    assert report.explanation.cause == cause, report.conclusion
    assert report.first.name == row
    assert report.explanation.others == ()


def test_what_has_no_known_cause(script: Any) -> None:
    report = compare_script(script("SCALE = 1.5 if ON_TORCH else 1.0"))
    assert report.explanation.cause == ""
    assert report.explanation.text.startswith("what model.l1 is given, computed in model, differs first")


def test_a_loss_is_recorded_once(script: Any) -> None:
    """Also where PyTorch's backward is watched, and several losses go before a step."""
    text = SCRIPT.replace("loss.backward()", "loss.backward(retain_graph=True)\n        (3 * loss).backward()")
    report = compare_script(script(text=text), steps=2)
    assert report.agrees, report.conclusion
    assert len([row for row in report.rows if row.kind == "loss"]) == 4


def test_steps_of_rounding_errors_are_no_difference(script: Any) -> None:
    """The second bias adds one number to a whole row of scores, which softmax does not see."""
    forward = "return self.l2(self.drop(F.gelu(self.l1(self.norm(x) * SCALE))))"
    seen = "h = F.gelu(self.l1(x)); k = self.k(h); return self.l2(F.softmax(h @ k.t(), -1) @ h)"
    text = SCRIPT.replace(forward, seen).replace("self.l2 = nn", "self.k = nn.Linear(16, 16)\n        self.l2 = nn")
    report = compare_script(script("LR = 0.1", text), steps=5)
    assert report.agrees, report.conclusion


def test_a_loss_that_the_script_computes(script: Any) -> None:
    text = SCRIPT.replace("loss.backward()", "loss = loss * (2 if ON_TORCH else 1)\n        loss.backward()")
    report = compare_script(script(text=text))
    assert report.first.kind == "loss"
    assert "the script computes it by itself" in report.explanation.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("if not ON_TORCH: torch.rand(3)", "on minilm the script draws torch.rand, on PyTorch randn"),
        ("if ON_TORCH: raise ValueError('no')", r"script\.py:\d+ on PyTorch: ValueError: no"),
        ("if not ON_TORCH: raise KeyError('no')", r"script\.py:\d+ on minilm: KeyError: 'no'"),
        ("if not ON_TORCH: sys.exit('stop')", "on minilm: the script ended itself with 'stop'"),
        ("torch.no_such_function", "no_such_function"),
    ],
)
def test_scripts_that_cannot_be_compared(script: Any, change: str, words: str) -> None:
    with pytest.raises(ScriptError, match=words):
        compare_script(script(change), steps=2)


def test_what_makes_no_sense_is_refused(script: Any) -> None:
    with pytest.raises(ConfigError, match="at least one step"):
        compare_script(script(), steps=0)
    with pytest.raises(ConfigError, match="calls no module"):
        compare_script(script(text="import torch\nprint(torch.ones(3))"))


@pytest.mark.parametrize("change", ["", "if not ON_TORCH: raise KeyError('no')", "if ON_TORCH: raise KeyError('no')"])
def test_everything_is_put_back(script: Any, torch: Any, change: str) -> None:
    def state() -> list[Any]:
        places = [(torch.nn.Module, "__call__"), (torch.Tensor, "backward"), (torch, "randn"), (nn.Module, "__call__")]
        places += [(optim.Optimizer, "step"), (torch.utils.data.RandomSampler, "__iter__")]
        generators = [python_random.getstate(), np.random.get_state()[1].tolist(), random.get_rng_state()]
        return [[getattr(where, name) for where, name in places], *generators, torch.get_rng_state().tolist()]

    before = state()
    try:
        compare_script(script(change), steps=2)
    except ScriptError:
        assert change
    assert state() == before
    assert sys.modules["torch"] is torch
    assert not torch.optim.Optimizer.__init__.__globals__["_global_optimizer_pre_hooks"]


def test_the_command(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_compare(script(), (), 2, None) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("values agree")
    assert run_compare(script("EPS = 1e-12 if ON_TORCH else 1e-5"), (), 1, None) == 1
    assert "eps 1e-12 instead of 1e-05 in minilm's layer_norm" in capsys.readouterr().out.replace("\n", " ")


def test_the_command_from_a_shell(script: Any) -> None:
    path = script("assert sys.argv[1:] == ['--epochs', '3']")
    command = [sys.executable, "-m", "minilm.cli", "compare", "--steps", "2", str(path), "--epochs", "3"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].split()[:3] == ["what", "name", "shape"]
    done = subprocess.run([*command[:4], "nowhere.py"], capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_modules_have_their_variables_names() -> None:
    forest = Forest()
    for module in (nn.Linear(2, 2), nn.Linear(2, 2)):
        forest.add(module)
    assert [name for name, _ in forest.named_modules()] == ["Linear", "Linear_1"]
    assert [name for name, _ in forest.named_parameters()][:2] == ["Linear.weight", "Linear.bias"]
    forest.zero_grad()
    assert set(forest.values()) == {"Linear.weight", "Linear.bias", "Linear_1.weight", "Linear_1.bias"}
