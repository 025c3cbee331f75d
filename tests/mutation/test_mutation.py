"""The faults and their runner: every kind finds places, what is planted parses, and a fault's fate is told truly."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
try:
    import c_faults
    import faults
    import places
finally:
    sys.path.remove(str(HERE))

PYTHON = places.python_faults()
IN_C = c_faults.c_faults()

CODE = """
class Square:
    def forward(ctx, x):
        y = x * x
        ctx.save(x)
        return y

    def backward(ctx, dz):
        (x,) = ctx.saved
        return where(x > 0, 2 * x * dz, sum_to(x - dz, x.shape))
"""


def changed(code, kind):
    """The code with each fault of a kind, line by line what differs."""
    text = faults.Text(code.encode())
    functions = places.functions_of("minilm/ops/square.py", text.tree)
    found = [f for f in faults.faults_in("minilm/ops/square.py", text, functions) if f.kind == kind]
    before = code.splitlines()
    return [
        next(line.strip() for line, old in zip(f.planted(code.encode()).decode().splitlines(), before) if line != old)
        for f in found
    ]


# --- what is planted --------------------------------------------------------------------------------------


def test_every_kind_finds_places_in_the_sources():
    assert {fault.kind for fault in PYTHON} == set(faults.KINDS)
    assert len({fault.id for fault in PYTHON}) == len(PYTHON) > 1000
    assert len({fault.file for fault in PYTHON}) > 20


def test_every_operation_with_a_backward_of_its_own_has_faults():
    places_of_faults = {(fault.file, fault.function) for fault in PYTHON}
    without = set()
    for path in sorted(places.ROOT.glob("minilm/ops/*.py")):
        file = str(path.relative_to(places.ROOT))
        for node in ast.parse(path.read_bytes()).body:
            for function in node.body if isinstance(node, ast.ClassDef) else ():
                if (
                    getattr(function, "name", "") == "backward"
                    and (file, f"{node.name}.backward") not in places_of_faults
                ):
                    without.add(ast.unparse(function.body[-1]))
    # a slope of 0, and a kernel that has its own faults
    assert without == {"return dz * 0", "return kernels.rms_norm_backward(dy, *ctx.saved)"}


def test_planted_faults_parse_and_differ():
    trees = {}
    for fault in faults.choose(PYTHON, 120, seed=0):
        source = (places.ROOT / fault.file).read_bytes()
        if fault.file not in trees:
            trees[fault.file] = ast.dump(ast.parse(source))
        assert ast.dump(ast.parse(fault.planted(source))) != trees[fault.file], fault.id


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("dropped-term", "return where(x > 0, 2 * x * dz, sum_to((x), x.shape))"),
        ("sign", "return where(x > 0, 2 * x * dz, sum_to((x + (dz)), x.shape))"),
        ("factor", "return where(x > 0, ((2 * x * dz) * 1.001), sum_to(x - dz, x.shape))"),
        ("missing-sum", "return where(x > 0, 2 * x * dz, (x - dz))"),
        ("stale-save", "ctx.save(y)"),
        ("mask", "return where((x >= 0), 2 * x * dz, sum_to(x - dz, x.shape))"),
        ("mask", "return where(x > 0, sum_to(x - dz, x.shape), 2 * x * dz)"),
    ],
)
def test_a_kind_changes_what_it_says(kind, line):
    assert line in changed(CODE, kind)


def test_the_choice_is_the_same_for_a_seed_and_spread_over_functions():
    chosen = faults.choose(PYTHON, 200, seed=3)
    assert chosen == faults.choose(reversed(PYTHON), 200, seed=3) != faults.choose(PYTHON, 200, seed=4)
    functions = {(fault.file, fault.function) for fault in PYTHON}
    assert len({(fault.file, fault.function) for fault in chosen}) == min(200, len(functions))


def test_faults_in_c_lie_in_functions_of_gradients():
    assert len(IN_C) > 100
    assert {Path(fault.file).name for fault in IN_C} >= {"attention.c", "norm.c", "loss.c", "softmax.c", "special.h"}
    for fault in IN_C:
        source = (places.ROOT / fault.file).read_bytes()
        assert source[fault.start : fault.end].decode() == fault.before != fault.after


# --- which tests look at it -----------------------------------------------------------------------------------


def test_a_fault_is_looked_at_by_the_operations_that_reach_it():
    suite = places.Suite()
    assert suite.operations("minilm/ops/pointwise.py", "Neg.backward") == {"neg"}
    assert suite.operations("minilm/ops/pointwise.py", "_power_slope") == {"pow"}
    assert suite.operations("minilm/kernels/jit_norm.py", "_rms_norm_backward") == {"rms_norm", "add_rms_norm"}
    assert "embedding" in suite.operations("csrc/embedding.c", "add_some")


# --- the runner ---------------------------------------------------------------------------------------------

MODULE = """
def where(condition, yes, no):
    return yes if condition else no


class Ramp:
    def backward(x, dz):
        return where(x > 0, 2.0 * dz, 0.0)
"""
TESTS = """
from minilm.ops.ramp import Ramp


def test_slope():
    assert Ramp.backward(1.0, 3.0) == 6.0
    assert Ramp.backward(-1.0, 3.0) == 0.0
"""


@pytest.fixture
def repository(tmp_path):
    """A repository with one operation, and tests that do not look at its kink."""
    root = tmp_path / "repository"
    for path, text in {
        "minilm/__init__.py": "",
        "minilm/ops/__init__.py": "",
        "minilm/ops/ramp.py": MODULE,
        "tests/ops/test_ramp.py": TESTS,
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def scored(root):
    """What the runner finds in a repository: its exit code, and the status of each fault by its text."""
    results = root.parent / "results.json"
    command = [sys.executable, str(HERE / "run.py"), "--root", str(root), "--json", str(results), "--bare"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert results.exists(), run.stdout + run.stderr
    return run.returncode, {o["after"]: o["status"] for o in json.loads(results.read_text())}


def test_the_runner_tells_caught_faults_from_survivors(repository):
    before = (repository / "minilm/ops/ramp.py").read_text()
    code, fates = scored(repository)
    assert fates["((2.0 * dz) * 1.001)"] == fates["(-(2.0 * dz))"] == "caught"
    assert fates["where(x > 0, 0.0, 2.0 * dz)"] == "caught"
    assert fates["(x >= 0)"] == "survived"  # no test asks for the slope at 0
    assert code == 1
    assert (repository / "minilm/ops/ramp.py").read_text() == before

    test = repository / "tests/ops/test_ramp.py"
    test.write_text(TESTS + "    assert Ramp.backward(0.0, 3.0) == 0.0\n")
    code, fates = scored(repository)
    assert code == 0
    assert set(fates.values()) == {"caught"}


def test_tests_that_fail_without_a_fault_prove_nothing(repository):
    test = repository / "tests/ops/test_ramp.py"
    test.write_text(TESTS + "    assert False\n")
    assert scored(repository)[0] == 2
