"""The pytest plugin, as its users run it: gradient checks that functions bring along, and the choice of backends."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from minilm import kernels
from minilm.tensor import Tensor
from minilm.testing import GradientError, check_gradients, differentiable

SUITE = """
import unittest

import numpy as np
import pytest
from hypothesis import strategies as st
from minilm import kernels
from minilm.autograd import Function
from minilm.testing import differentiable, strategies


@differentiable((3, 4), (4, 5))
def similarity(q, k):
    return (q @ k).tanh()


@differentiable(strategies.broadcastable(2, specials=()), second=False, examples=5)
def added(x, y):
    return x + y


@differentiable((2, 3))
class Cube(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        return dy * 3 * x * x


@differentiable((2, 3), second=False)
class Wrong(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        return dy * x


@pytest.fixture
def served():
    return kernels.backend()


def test_which(served):
    print("served by", served)
    assert kernels.backend() == served


@pytest.mark.parametrize("n", [1, 2])
def test_parametrized(n):
    assert n


class TestOld(unittest.TestCase):
    def test_old(self):
        print("old by", kernels.backend())
"""


@pytest.fixture
def suite(tmp_path):
    """Run pytest on the suite above; gives its exit code and all it said."""
    (tmp_path / "test_mine.py").write_text(SUITE)

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=short", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTEST_ADDOPTS": "", "COLUMNS": "200"},
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_functions_bring_their_checks_along(suite):
    code, said = suite("-v")
    assert code == 1
    for name in ("similarity[gradcheck]", "similarity[gradgradcheck]", "Cube[gradgradcheck]", "added[gradcheck]"):
        assert f"{name} PASSED" in said
    assert "added[gradgradcheck]" not in said
    assert "Wrong[gradcheck] FAILED" in said
    assert "the gradient is the right one times 1 / 2" in said
    assert "1 failed" in said
    assert "minilm backends" not in said


def test_a_suite_runs_on_each_backend(suite, native):
    code, said = suite("-v", "-s", "--minilm-backend=reference, numba", "--deselect", "test_mine.py::Wrong[gradcheck]")
    assert "minilm backends: reference, numba" in said
    for name in ("reference", "numba"):
        assert f"served by {name}" in said
        assert f"test_which[{name}]" in said
        assert f"similarity[gradcheck-{name}] PASSED" in said
    assert "test_parametrized[1-reference]" in said or "test_parametrized[reference-1]" in said
    assert "old by reference" in said
    assert "old by numba" not in said
    assert code == 1  # Wrong, under its new names
    assert "2 failed" in said
    assert "backends: native, numba, reference" in suite("--minilm-backend=all", "--collect-only")[1]


@pytest.mark.parametrize(
    ("given", "words"), [("cuda", "there is no backend 'cuda'"), (",", "names no backend: native, numba, reference")]
)
def test_a_wrong_backend_is_a_usage_error(suite, given, words):
    code, said = suite(f"--minilm-backend={given}")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert words in said
    assert "Traceback" not in said


def test_a_pytest_run_without_minilm_does_not_load_it(tmp_path):
    (tmp_path / "test_other.py").write_text("import sys\ndef test_nothing():\n    assert 'minilm' not in sys.modules\n")
    done = subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# --- without pytest -----------------------------------------------------------------------------------------


def test_the_checks_can_be_run_by_hand():
    before = kernels.backend()

    @differentiable((3,), domain="positive")
    def root(x):
        assert (x.array > 0).all()
        return x.sqrt()

    assert check_gradients(root)
    assert kernels.backend() == before
    assert root(Tensor(np.full(3, 4.0))).tolist() == [2.0, 2.0, 2.0]

    @differentiable((3,), second=False)
    def detached(x):
        return x * x.detach()

    with pytest.raises(GradientError, match="times 1 / 2"):
        check_gradients(detached)
    with pytest.raises(TypeError, match="not decorated"):
        check_gradients(abs)


@pytest.mark.parametrize("inputs", [(), (3,), ((2, -1),), ("normal",), ((2, 3), None)])
def test_inputs_that_are_none_are_refused_at_once(inputs):
    with pytest.raises(TypeError, match="differentiable: "):
        differentiable(*inputs)


def test_a_domain_that_is_not_there_is_refused_at_once():
    with pytest.raises(ValueError, match="no domain 'negative'"):
        differentiable((3,), domain="negative")
