"""The kernels in C that are not products: values, layouts in memory, and bits that depend on neither threads nor batch.

One table of calls, which every test walks.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from minilm import kernels
from minilm.kernels import reference

pytestmark = pytest.mark.usefixtures("native")

DTYPES = ("float32", "float64")
SHAPES = [(1, 1), (7, 3), (2, 3, 17), (131, 33), (67, 97), (3, 1031), (200, 5)]
LARGE = (1031, 97)  # enough for several threads, and for blocks of rows of which the last is not whole


class Draw:
    """Arrays of one type for arguments, in one layout."""

    def __init__(self, dtype, layout="plain", seed=0):
        self.dtype, self.layout, self.rng = dtype, LAYOUTS[layout], np.random.default_rng(seed)

    def __call__(self, *shape, scale=1.0):
        return self.layout((self.rng.normal(size=shape) * scale).astype(self.dtype))

    def positive(self, *shape):
        return self.layout(self.rng.uniform(0.5, 2, size=shape).astype(self.dtype))

    def index(self, count, below):
        return self.rng.integers(0, below, size=count)


def _read_only(x):
    x.flags.writeable = False
    return x


def _unaligned(x):
    memory = np.zeros(x.nbytes + 1, "uint8")
    y = memory[1:].view(x.dtype).reshape(x.shape)
    y[...] = x
    return y


LAYOUTS = {
    "plain": lambda x: x,
    "every other column": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "rows apart": lambda x: np.concatenate([x, x], -1)[..., : x.shape[-1]],
    "backwards": lambda x: x[::-1, ..., ::-1].copy()[::-1, ..., ::-1] if x.ndim > 1 else x[::-1].copy()[::-1],
    "Fortran order": np.asfortranarray,
    "read-only": _read_only,
    "unaligned": _unaligned,
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
}


def scores(draw, shape):
    """x (N, V), a target of which some are ignored, and weights."""
    N, V = int(np.prod(shape[:-1])), shape[-1]
    target = draw.index(N, V)
    target[::5] = -100
    return draw(N, V, scale=3.0), target, draw.positive(V)


def scatter(draw, shape):
    return draw(*shape), draw.index(shape[0], max(1, shape[0] // 3)), max(1, shape[0] // 3) + 2


def loss_backward(weighted, smoothing):
    def arguments(draw, shape):
        x, target, weight = scores(draw, shape)
        weight = weight if weighted else None
        lse = reference.cross_entropy(np.array(x, "float64", order="C"), target, weight, -100, smoothing)[1]
        return draw(len(x)), x, target, weight, lse, -100, smoothing

    return arguments


def loss(weighted, smoothing):
    def arguments(draw, shape):
        x, target, weight = scores(draw, shape)
        return x, target, weight if weighted else None, -100, smoothing

    return arguments


# name of the kernel, what it is called with for x of a shape
CALLS = {
    "softmax": ("softmax", lambda draw, s: (draw(*s),)),
    "softmax_backward": ("softmax_backward", lambda draw, s: (draw(*s), draw.positive(*s))),
    "log_softmax": ("log_softmax", lambda draw, s: (draw(*s, scale=5.0),)),
    "log_softmax_backward": ("log_softmax_backward", lambda draw, s: (draw(*s), -draw.positive(*s))),
    "layer_norm": ("layer_norm", lambda draw, s: (draw(*s), draw(s[-1]), draw(s[-1]), 1e-5)),
    "layer_norm without": ("layer_norm", lambda draw, s: (draw(*s), None, None, 1e-1)),
    "layer_norm_backward": (
        "layer_norm_backward",
        lambda draw, s: (draw(*s), draw(*s), draw(s[-1]), draw(*s[:-1], 1), draw.positive(*s[:-1], 1)),
    ),
    "layer_norm_backward without": (
        "layer_norm_backward",
        lambda draw, s: (draw(*s), draw(*s), None, draw(*s[:-1], 1), draw.positive(*s[:-1], 1)),
    ),
    "layer_norm_backward and around": (
        "layer_norm_backward",
        lambda draw, s: (draw(*s), draw(*s), draw(s[-1]), draw(*s[:-1], 1), draw.positive(*s[:-1], 1), draw(*s)),
    ),
    "add_layer_norm": ("add_layer_norm", lambda draw, s: (draw(*s), draw(*s), draw(s[-1]), draw(s[-1]), 1e-5)),
    "add_layer_norm without": ("add_layer_norm", lambda draw, s: (draw(*s), draw(*s), None, None, 1e-1)),
    "add_rms_norm": ("add_rms_norm", lambda draw, s: (draw(*s), draw(*s), draw(s[-1]), 1e-5)),
    "rms_norm_backward and around": (
        "rms_norm_backward",
        lambda draw, s: (draw(*s), draw(*s), draw(s[-1]), draw.positive(*s[:-1], 1), draw(*s)),
    ),
    "rms_norm": ("rms_norm", lambda draw, s: (draw(*s), draw(s[-1]), 1e-5)),
    "rms_norm without": ("rms_norm", lambda draw, s: (draw(*s), None, 1e-5)),
    "rms_norm_backward": (
        "rms_norm_backward",
        lambda draw, s: (draw(*s), draw(*s), draw(s[-1]), draw.positive(*s[:-1], 1)),
    ),
    "rms_norm_backward without": (
        "rms_norm_backward",
        lambda draw, s: (draw(*s), draw(*s), None, draw.positive(*s[:-1], 1)),
    ),
    "sum_rows": ("sum_rows", lambda draw, s: (draw(*s),)),
    "scatter_rows": ("scatter_rows", scatter),
    "cross_entropy": ("cross_entropy", loss(False, 0.0)),
    "cross_entropy weighted and smoothed": ("cross_entropy", loss(True, 0.1)),
    "cross_entropy smoothed": ("cross_entropy", loss(False, 0.3)),
    "cross_entropy_backward": ("cross_entropy_backward", loss_backward(False, 0.0)),
    "cross_entropy_backward weighted": ("cross_entropy_backward", loss_backward(True, 0.0)),
    "cross_entropy_backward weighted and smoothed": ("cross_entropy_backward", loss_backward(True, 0.1)),
    "cross_entropy_backward smoothed": ("cross_entropy_backward", loss_backward(False, 0.3)),
    **{name: (name, lambda draw, s: (draw(*s, scale=2.0),)) for name in ("exp", "tanh", "sigmoid", "erf")},
    "gelu": ("gelu", lambda draw, s: (draw(*s, scale=2.0),)),
    "gelu by tanh": ("gelu", lambda draw, s: (draw(*s, scale=2.0), "tanh")),
    "gelu_backward": ("gelu_backward", lambda draw, s: (draw(*s), draw(*s, scale=2.0))),
    "relu": ("relu", lambda draw, s: (draw(*s, scale=2.0),)),
    "relu_backward": ("relu_backward", lambda draw, s: (draw(*s), draw(*s, scale=2.0))),
    "gelu_backward by tanh": ("gelu_backward", lambda draw, s: (draw(*s), draw(*s, scale=2.0), "tanh")),
}
ROW_BY_ROW = ("softmax", "log_softmax", "layer_norm", "add_layer_norm", "rms_norm", "cross_entropy")
ROW_BY_ROW += ("exp", "tanh", "erf", "gelu", "relu")


def results(function, arguments):
    found = function(*arguments)
    return found if isinstance(found, tuple) else (found,)


def widened(arguments):
    return [a.astype("float64") if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in arguments]


def copied(arguments):
    return [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]


def assert_close(found, wide, dtype, arguments):
    """Within rounding of the exact result: every sum here has terms of the size of what goes in."""
    elements = [abs(a).max(initial=1) for a in arguments if isinstance(a, np.ndarray) and a.dtype.kind == "f"]
    rows = next(a for a in arguments if isinstance(a, np.ndarray)).size
    tolerance = 8 * np.finfo(dtype).eps * np.prod(elements[:3]) * (1 + np.sqrt(rows) / 8)
    assert len(found) == len(wide)
    for ours, exact in zip(found, wide):
        assert ours.shape == exact.shape
        np.testing.assert_allclose(ours, exact, rtol=0, atol=tolerance * (1 + abs(exact).max(initial=0)) / 2)


# --- values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("call", sorted(CALLS))
def test_values_of_any_layout(native, call, layout, dtype):
    name, make = CALLS[call]
    for seed, shape in enumerate(SHAPES):
        arguments = make(Draw(dtype, layout, seed), shape)
        before = copied(arguments)
        found = results(getattr(native, name), arguments)
        assert_close(found, results(getattr(reference, name), widened(arguments)), dtype, arguments)
        assert found[0].dtype == np.dtype(dtype)
        assert found[0].dtype.isnative
        for now, was in zip(arguments, before):
            np.testing.assert_array_equal(now, was)
        plain = results(getattr(native, name), make(Draw(dtype, "plain", seed), shape))
        for ours, same in zip(found, plain):  # where an element lies does not change what is computed
            np.testing.assert_array_equal(ours, same)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (2, 0, 3), (0, 0)], ids=str)
@pytest.mark.parametrize("call", sorted(CALLS))
def test_no_elements(native, call, shape, dtype):
    name, make = CALLS[call]
    if name.startswith("cross_entropy") and shape[-1] == 0:
        return  # no class can be the right one
    arguments = make(Draw(dtype), shape)
    with np.errstate(all="ignore"):
        found, expected = (results(getattr(m, name), arguments) for m in (native, reference))
    for ours, theirs in zip(found, expected):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid", "erf", "gelu"])
def test_elements_without_an_axis(native, name):
    x = np.array(0.5, "float32")
    y = getattr(native, name)(x)
    assert y.shape == ()
    np.testing.assert_allclose(y, getattr(reference, name)(x), rtol=1e-6)


def test_a_result_lies_in_memory_as_its_argument_does(native):
    x = np.asfortranarray(np.ones((5, 7), "float32"))
    assert native.gelu(x).flags.f_contiguous
    assert native.gelu_backward(x, x).flags.f_contiguous
    assert native.exp(x[:, ::2].T[:, ::2]).flags.c_contiguous


def test_mean_and_variance_of_rows_far_from_zero(native):
    x = (np.random.default_rng(0).normal(size=(3, 1031)) + 1000).astype("float32")
    y, _, _ = native.layer_norm(x, None, None, 1e-5)
    np.testing.assert_allclose(y, reference.layer_norm(x.astype("float64"), None, None, 1e-5)[0], atol=3e-4)


@pytest.mark.parametrize("module", ["native", "reference"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_of_large_scores_keep_their_digits(native, module, smoothing):
    kernel = {"native": native, "reference": reference}[module]
    x = (np.random.default_rng(0).normal(size=(7, 31)) + 10000).astype("float32")
    target = np.arange(7)
    wide = reference.cross_entropy(x.astype("float64"), target, None, -100, smoothing)
    losses, lse = kernel.cross_entropy(x, target, None, -100, smoothing)
    np.testing.assert_allclose(losses, wide[0], rtol=1e-6)
    dx = kernel.cross_entropy_backward(np.ones(7, "float32"), x, target, None, lse, -100, smoothing)
    exact = reference.cross_entropy_backward(np.ones(7), x.astype("float64"), target, None, wide[1], -100, smoothing)
    np.testing.assert_allclose(dx, exact, atol=3e-7)


def test_infinite_scores_are_numpys(native):
    inf, nan = np.inf, np.nan
    x = np.array([[-inf, 0, 1], [inf, 0, 0], [nan, 0, 0], [0, 0, nan], [88, -88, 3e38], [0, -inf, -inf]], "float32")
    target = np.array([1, 1, 1, 1, 0, 0])
    with np.errstate(all="ignore"):
        for ours, theirs in [
            (native.log_softmax(x), reference.log_softmax(x)),
            *zip(native.cross_entropy(x, target, None, -100, 0.0), reference.cross_entropy(x, target, None, -100, 0.0)),
        ]:
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_ignored_rows_have_no_gradient_whatever_is_in_them(native):
    x = np.full((2, 5), np.nan, "float32")
    target = np.full(2, -100)
    losses, lse = native.cross_entropy(x, target, None, -100, 0.1)
    assert not losses.any()
    assert not native.cross_entropy_backward(np.ones(2, "float32"), x, target, None, lse, -100, 0.1).any()


def test_targets_of_any_integer_type(native):
    x = np.random.default_rng(0).normal(size=(5, 7))
    for dtype in ("int8", "uint8", "int32", ">i4", "uint64"):
        target = np.array([0, 6, 3, 3, 2], dtype)
        found = native.cross_entropy(x, target, None, -100, 0.0)[0]
        np.testing.assert_allclose(found, reference.cross_entropy(x, target, None, -100, 0.0)[0], rtol=1e-12)


def test_equal_numbers_are_added_in_their_order(native):
    rows = np.array([[1e8], [1.0], [-1e8], [1.0]], "float32")
    assert native.scatter_rows(rows, np.zeros(4, "int64"), 1)[0, 0] == 1
    assert native.scatter_rows(rows[[0, 2, 1, 3]], np.zeros(4, "int64"), 1)[0, 0] == 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("every_backend")
def test_rows_are_added_into_an_array_that_is_there(dtype):
    draw = Draw(dtype, "plain", 5)
    rows, index = draw(64, 7), draw.index(64, 9)
    added = np.zeros((9, 7), dtype)
    np.add.at(added, index, rows)
    for there in (draw(9, 7), np.asfortranarray(draw(9, 7)), draw(18, 7)[::2]):
        before = there.copy()
        assert kernels.scatter_rows(rows, index, 9, there) is there
        np.testing.assert_allclose(there, before + added, rtol=1e-5, atol=1e-5)
    there = draw(9, 7)
    before = there.copy()
    kernels.scatter_rows(rows[:0], index[:0], 9, there)
    np.testing.assert_array_equal(there, before)


def test_rows_are_not_added_into_an_array_of_another_shape_or_type(native):
    rows, index = np.ones((2, 3)), np.zeros(2, int)
    for there in (np.ones((4, 3)), np.ones((5, 3), "float32")):
        before = there.copy()
        with pytest.raises(ValueError, match="into is"):
            native.scatter_rows(rows, index, 5, there)
        np.testing.assert_array_equal(there, before)


# --- what is refused ----------------------------------------------------------------------------------

ONES = np.ones((2, 3))


@pytest.mark.parametrize(
    ("kernel", "arguments", "error", "message"),
    [
        ("log_softmax", [np.array(1.0)], ValueError, "no axis"),
        ("log_softmax", [np.arange(3)], ValueError, "int64"),
        ("log_softmax_backward", [ONES, ONES.T], ValueError, r"dy \(2, 3\) and y \(3, 2\)"),
        ("layer_norm", [ONES, np.ones(2), None, 1e-5], ValueError, r"weight is \(2,\), not \(3,\)"),
        ("layer_norm", [ONES, None, np.ones(3, "float32"), 1e-5], ValueError, "float64 and float32"),
        ("layer_norm_backward", [ONES, ONES, None, np.ones(2), ONES[:, :1]], ValueError, r"mean is \(2,\), not"),
        ("add_layer_norm", [ONES, np.ones(3), None, None, 1e-5], ValueError, r"residual is \(3,\), x is \(2, 3\)"),
        ("add_rms_norm", [ONES, np.ones((2, 3), "float32"), None, 1e-5], ValueError, "float64 and float32"),
        (
            "rms_norm_backward",
            [ONES, ONES, None, ONES[:, :1], ONES[:1]],
            ValueError,
            r"dy \(1, 3\) and x \(2, 3\)",
        ),
        ("rms_norm_backward", [ONES, ONES, None, np.ones((1, 1))], ValueError, r"rrms is \(1, 1\), not \(2, 1\)"),
        ("sum_rows", [np.array(1.0)], ValueError, "no axis"),
        ("scatter_rows", [ONES, np.arange(3), 5], ValueError, r"index is int64 \(3,\), not integers \(2,\)"),
        ("scatter_rows", [ONES, np.ones(2), 5], ValueError, "index is float64"),
        ("scatter_rows", [ONES, np.array([0, 5]), 5], IndexError, "from 0 to 5, the rows to 4"),
        ("scatter_rows", [ONES, np.array([-1, 0]), 5], IndexError, "from -1 to 0"),
        ("cross_entropy", [ONES, np.arange(3), None, -100, 0.0], ValueError, r"x \(2, 3\) and target \(3,\)"),
        ("cross_entropy", [ONES, np.ones(2), None, -100, 0.0], ValueError, "integers, not float64"),
        ("cross_entropy", [ONES, np.array([0, 3]), None, -100, 0.0], IndexError, "target 3 is none of the 3 classes"),
        ("cross_entropy", [ONES, np.array([0, -1]), None, -100, 0.0], IndexError, "target -1 is none"),
        ("cross_entropy", [ONES, np.arange(2), np.ones(2), -100, 0.0], ValueError, r"weight is \(2,\), not \(3,\)"),
        (
            "cross_entropy_backward",
            [np.ones(3), ONES, np.arange(2), None, np.ones(2), -100, 0.0],
            ValueError,
            r"dloss \(3,\) and lse \(2,\) must be \(N,\): x is \(2, 3\)",
        ),
        ("gelu", [ONES, "sigmoid"], ValueError, "approximate is 'sigmoid'"),
        ("gelu", [np.arange(3)], ValueError, "int64"),
        ("gelu_backward", [ONES, ONES.T], ValueError, r"dy \(2, 3\) and x \(3, 2\)"),
        ("gelu_backward", [ONES.astype("float32"), ONES], ValueError, "float32 and float64"),
        ("relu_backward", [ONES, ONES.T], ValueError, r"dy \(2, 3\) and x \(3, 2\)"),
    ],
)  # fmt: skip
def test_what_is_refused(native, kernel, arguments, error, message):
    with pytest.raises(error, match=message):
        getattr(native, kernel)(*arguments)


# --- bits -------------------------------------------------------------------------------------------


@pytest.fixture
def threads(native):
    """Sets the number of threads, for this test only."""
    before = native.get_num_threads()
    yield native.set_num_threads
    native.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("call", sorted(CALLS))
def test_bits_do_not_depend_on_threads(native, threads, call, dtype):
    name, make = CALLS[call]
    for shape in [LARGE, (17000, 3), (67, 2500)]:
        arguments = make(Draw(dtype), shape)
        threads(1)
        alone = results(getattr(native, name), arguments)
        assert_close(alone, results(getattr(reference, name), widened(arguments)), dtype, arguments)
        for count in (2, 3, 5, 8):
            threads(count)
            for one, other in zip(alone, results(getattr(native, name), arguments)):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "call", sorted(call for call in CALLS if CALLS[call][0].removesuffix("_backward") in ROW_BY_ROW)
)
def test_a_row_has_the_same_bits_alone_and_among_others(native, call, dtype):
    name, make = CALLS[call]
    together = make(Draw(dtype), LARGE)
    whole = results(getattr(native, name), together)
    for begin, end in [(0, 1), (1030, 1031), (5, 19), (100, 700)]:
        part = [a[begin:end] if isinstance(a, np.ndarray) and len(a) == LARGE[0] else a for a in together]
        for one, other in zip(results(getattr(native, name), part), whole):
            if len(other) == LARGE[0]:  # not what is summed over rows
                np.testing.assert_array_equal(one, other[begin:end])


# --- memory and instruction sets ----------------------------------------------------------------------


def _run(code, **env):
    return subprocess.run([sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
def test_nothing_is_read_or_written_behind_the_end_of_an_array():
    """Arrays that end where a page ends, with a page behind them that nobody may touch."""
    code = f"""
import ctypes, mmap, sys
import numpy as np
sys.path.insert(0, {os.path.dirname(__file__)!r})
import test_native_rows as table
from minilm.kernels import native
libc = ctypes.CDLL(None)

def at_the_end(x):
    size = max(1, -(-x.nbytes // mmap.PAGESIZE)) * mmap.PAGESIZE
    memory = np.frombuffer(mmap.mmap(-1, size + mmap.PAGESIZE), "uint8")
    address = memory.ctypes.data + size
    assert libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    y = memory[size - x.nbytes : size].view(x.dtype).reshape(x.shape)
    y[...] = x
    return y

table.LAYOUTS["at the end"] = at_the_end
for name, make in table.CALLS.values():
    for dtype in table.DTYPES:
        for shape in [(1, 1), (2, 3), (3, 17), (3, 31)]:
            getattr(native, name)(*make(table.Draw(dtype, "at the end"), shape))
for dtype in table.DTYPES:
    lists = [[at_the_end(np.ones(n, dtype)) for n in (1, 3, 17, 31)] for _ in range(4)]
    native.adamw(*lists, 0.1, 0.9, 0.99, 1e-8, 0.1, 1)
    native.square_sum(lists[0])
"""
    run = _run(code)
    assert not run.returncode, run.stderr


def test_every_instruction_set_computes(native):
    here = os.path.dirname(__file__)
    names = ("rows", "pointwise", "optimizer", "epilogues", "attention")
    files = [os.path.join(here, f"test_native_{name}.py") for name in names]
    files += [os.path.join(here, f"test_{name}.py") for name in ("packed_attention", "philox")]
    tests = "test_values or test_bits or test_a_row or accurate or adamw or square_sum or philox or keep or linear"
    tests += " or rows_drop"
    code = f"""
import sys, pytest
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *{files!r}, "-k", {tests!r}]))
"""
    for name in native.instruction_sets():
        if name == native.instruction_set():
            continue
        run = _run(code, MINILM_CPU=name)
        assert not run.returncode, f"{name}:\n{run.stdout[-3000:]}"


def test_these_are_the_kernels_that_the_table_serves(native):
    elsewhere = {
        "matmul",
        "linear",
        "linear_gelu",
        "linear_relu",
        "linear_cross_entropy",
        "attention",
        "attention_backward",
    }
    elsewhere |= {"adamw", "square_sum", "philox", "keep_rows", "drop_rows"}
    elsewhere |= {"packed_attention", "packed_attention_backward", "cached_attention", "largest"}
    elsewhere |= {f"{cell}_layer{way}" for cell in ("rnn", "lstm", "gru") for way in ("", "_backward")}
    assert {name for name, _ in CALLS.values()} == set(kernels._COMPILED["native"]) - elsewhere
