"""The kernel table: who serves, what a choice by hand does, and that all backends say the same."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys

import numpy as np
import pytest

from minilm import kernels
from minilm.errors import BackendError
from minilm.kernels import info, reference, threads

BACKENDS = [name for name in kernels.BACKENDS if not kernels.why_not(name)]
FAST = [name for name in BACKENDS if name != "reference"]


@pytest.fixture(params=FAST)
def backend(request):
    with kernels.use(request.param):
        yield request.param


def test_the_compiled_backends_are_tested(native):
    assert BACKENDS == ["native", "numba", "reference"]


def test_signatures_are_the_same_in_all_backends(backend):
    module = importlib.import_module(f"minilm.kernels.{'jit' if backend == 'numba' else backend}")
    for name in kernels._COMPILED[backend]:
        theirs = inspect.signature(getattr(module, name)).parameters
        ours = inspect.signature(getattr(reference, name)).parameters
        assert [(p.name, p.default) for p in theirs.values()] == [(p.name, p.default) for p in ours.values()], name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(), (7,), (2, 3), (2, 0, 3), (3, 0)], ids=str)
@pytest.mark.parametrize("layout", ["plain", "strided", "reversed", "read-only"])
def test_softmax(backend, dtype, shape, layout):
    rng = np.random.default_rng(0)
    x, dy = (_laid_out(rng.normal(size=(*shape, 11)).astype(dtype), layout) for _ in range(2))
    before = x.copy(), dy.copy()
    y = kernels.softmax(x)
    dx = kernels.softmax_backward(dy, reference.softmax(x))
    wide = reference.softmax(x.astype("float64"))
    # each of the 11 terms of a sum, the exponential and the division are rounded once
    tolerance = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(y, wide, rtol=tolerance)
    np.testing.assert_allclose(
        dx, reference.softmax_backward(dy.astype("float64"), wide), atol=tolerance * np.abs(dy).max(initial=1)
    )
    assert y.dtype == dx.dtype == dtype
    assert y.shape == dx.shape == x.shape
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(dy, before[1])


def test_softmax_of_infinities_is_numpys(backend):
    inf, nan = np.inf, np.nan
    x = np.array([[-inf, 0, 1], [-inf, -inf, -inf], [inf, 0, 0], [nan, 0, 0], [0, 0, nan], [88, -88, 3e38]], "float32")
    with np.errstate(invalid="ignore"):
        expected = reference.softmax(x)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(kernels.softmax(x), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((2, 3), (3, 5)),
        ((7, 2, 3), (3, 5)),
        ((7, 1, 2, 3), (5, 3, 2)),
        ((0, 3), (3, 2)),
        ((2, 0), (0, 3)),
        ((67, 71), (71, 73)),
    ],
    ids=str,
)
@pytest.mark.parametrize("layout", ["plain", "strided", "reversed", "transposed", "read-only"])
def test_matmul(backend, dtype, a, b, layout):
    rng = np.random.default_rng(1)
    a, b = (_laid_out(rng.normal(size=shape).astype(dtype), layout) for shape in (a, b))
    expected = a.astype("float64") @ b.astype("float64")
    tolerance = 2 * max(a.shape[-1], 1) * np.finfo(dtype).eps * 4
    np.testing.assert_allclose(kernels.matmul(a, b), expected, atol=tolerance)
    out = np.ones(expected.shape, dtype)
    assert kernels.matmul(a, b, out=out) is out
    np.testing.assert_allclose(out, expected, atol=tolerance)
    kernels.matmul(a, b, out=out, accumulate=True)
    np.testing.assert_allclose(out, 2 * expected, atol=2 * tolerance)


@pytest.mark.parametrize("dtype", ["float16", "int64"])
def test_other_types_are_served_by_the_reference(backend, dtype):
    a = np.arange(6).reshape(2, 3).astype(dtype)
    product = kernels.matmul(a, a.T)
    assert product.dtype == dtype
    np.testing.assert_array_equal(product, [[5, 14], [14, 50]])


def test_arrays_in_files_are_served_like_others(backend, tmp_path):
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(5, 7))
    x[...] = np.arange(35).reshape(5, 7)
    module = importlib.import_module(f"minilm.kernels.{'jit' if backend == 'numba' else backend}")
    np.testing.assert_array_equal(kernels.softmax(x), module.softmax(np.array(x)))


def test_numbas_loops_multiply():
    from minilm.kernels import jit

    a, b = np.random.default_rng(2).normal(size=(2, 7, 5)), np.random.default_rng(3).normal(size=(5, 3))
    np.testing.assert_allclose(jit.matmul_loops(a, b), a @ b, rtol=1e-12)


def _laid_out(x, layout):
    """x's values in another place in memory."""
    if layout == "strided":
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    if layout == "reversed":
        return x[..., ::-1].copy()[..., ::-1]
    if layout == "transposed":
        return np.swapaxes(np.swapaxes(x, -1, -2).copy(), -1, -2)
    if layout == "read-only":
        x.flags.writeable = False
    return x


def test_use_binds_at_once_and_restores():
    before = kernels.backend()
    with kernels.use("reference"):
        assert kernels.backend() == "reference"
        assert kernels.softmax is reference.softmax
    assert kernels.backend() == before
    with pytest.raises(RuntimeError), kernels.use("reference"):
        raise RuntimeError
    assert kernels.backend() == before


def test_an_unknown_backend_is_refused_and_nothing_changes():
    before = kernels.backend()
    with pytest.raises(BackendError, match="no backend 'fortran': the backends are native, numba, reference"):
        kernels.use("fortran")
    assert kernels.backend() == before


def test_a_backend_that_cannot_load_says_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "minilm.kernels.native", None)
    with pytest.raises(BackendError, match="'native' cannot serve: it was not built"):
        kernels.use("native")


def test_an_unknown_kernel_names_those_that_are_there():
    with pytest.raises(AttributeError, match=r"no kernel 'softmin': the kernels are .*softmax"):
        kernels.softmin  # noqa: B018


def test_report_names_a_server_for_every_kernel():
    with kernels.use("reference"):
        report = kernels.report()
    assert set(report) == set(kernels.names()) >= {"matmul", "softmax", "softmax_backward"}
    assert {server for server, _ in report.values()} == {"reference"}
    assert all(set(reasons) == {"native", "numba"} for _, reasons in report.values())


def test_info_renders_every_kernel_and_backend():
    text = info.render()
    for word in [*kernels.names(), *kernels.BACKENDS, np.__version__, "threads"]:
        assert word in text


def _run(code, **env):
    return subprocess.run([sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True)


def test_environment_chooses_the_backend():
    code = "from minilm import kernels; print(kernels.backend())"
    assert _run(code, MINILM_BACKEND="reference").stdout == "reference\n"
    refused = _run(code, MINILM_BACKEND="abacus")
    assert refused.returncode
    assert "there is no backend 'abacus'" in refused.stderr


def test_threads_set_before_numba_is_loaded_hold():
    code = """
import sys
import threading
import numpy as np
from minilm import kernels
kernels.use("numba")
assert "numba" not in sys.modules
for count in (1, 3):
    kernels.threads.set_num_threads(count)
    kernels.softmax(np.zeros((512, 512), np.float32))
    print(threading.active_count() > 1, end=" ")
"""
    assert _run(code).stdout == "False True "


def test_threads_of_the_environment_reach_openblas():
    code = """
import ctypes
from minilm.kernels import threads
setter = threads._openblas_setter()
if setter is None:
    print("another BLAS")
else:
    name = setter.__name__.replace("_set_", "_get_")
    libraries = [ctypes.CDLL(line.split()[-1].strip()) for line in open("/proc/self/maps") if "openblas" in line]
    print(getattr(libraries[0], name)())
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("finds the loaded OpenBLAS by /proc")
    assert _run(code, MINILM_NUM_THREADS="1").stdout in ("1\n", "another BLAS\n")


def test_threads_are_set_everywhere():
    code = """
from minilm.kernels import threads
import numba
threads.set_num_threads(1)
print(threads.get_num_threads(), numba.get_num_threads())
"""
    assert _run(code).stdout == "1 1\n"
    with pytest.raises(ValueError, match="at least 1 thread"):
        threads.set_num_threads(0)
