"""The kernels in C: values, every layout in memory, and bits that depend on neither threads nor batch."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from minilm import kernels
from minilm.errors import BackendError
from minilm.kernels import reference, sources

pytestmark = pytest.mark.usefixtures("native")

# The fixture `native` is the module itself: there is nothing to set up anew for each example.
thorough = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])

DTYPES = ("float32", "float64")
# Beyond each limit at which gemm.c takes another way: tile, K block, few rows, enough work for two threads.
SIZES = (1, 2, 3, 5, 7, 13, 14, 15, 29, 31, 32, 33, 65, 97, 193, 385, 513, 769)


def random(shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


LAYOUTS = {
    "plain": lambda x: x,
    "Fortran order": lambda x: np.asfortranarray(x),
    "every other column": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "every third row": lambda x: np.repeat(x, 3, axis=-2)[..., ::3, :],
    "columns backwards": lambda x: x[..., ::-1].copy()[..., ::-1],
    "rows backwards": lambda x: x[..., ::-1, :].copy()[..., ::-1, :],
    "transposed": lambda x: x.swapaxes(-1, -2).copy().swapaxes(-1, -2),
    "unaligned": lambda x: _unaligned(x),
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "read-only": lambda x: _read_only(x),
}
NEEDS_ROWS = ("every third row", "rows backwards", "transposed")


def _unaligned(x):
    memory = np.zeros(x.nbytes + 1, "uint8")
    y = np.frombuffer(memory.data, x.dtype, x.size, offset=1).reshape(x.shape)
    y.flags.writeable = True
    y[...] = x
    return y


def _read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def assert_product(product, a, b):
    """|error| <= K eps |a| |b|: what rounding can do at most (Higham 2002, section 3.5), NumPy's own for float64."""
    wide = [x.astype("float64") for x in (a, b)]
    bound = 2 * (a.shape[-1] + 1) * np.finfo(a.dtype).eps * (abs(wide[0]) @ abs(wide[1]))
    assert product.dtype == a.dtype.newbyteorder("=")
    assert (abs(product - wide[0] @ wide[1]) <= bound).all()


# --- matmul -----------------------------------------------------------------------------------------


@st.composite
def products(draw):
    """Two matrices, or batches that broadcast, of any layout."""
    size = st.one_of(st.integers(0, 40), st.sampled_from(SIZES))
    m, k, n = draw(size), draw(size), draw(size)
    lead = draw(st.lists(st.sampled_from([0, 1, 2, 3]), max_size=3))
    leads = [[draw(st.sampled_from([1, size])) for size in lead][draw(st.integers(0, len(lead))) :] for _ in "ab"]
    dtype, seed = draw(st.sampled_from(DTYPES)), draw(st.integers(0, 99))
    a, b = (random((*lead, *matrix), dtype, seed) for lead, matrix in zip(leads, [(m, k), (k, n)]))
    return [LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))](x) for x in (a, b)]


@thorough
@given(products())
@example([random((769, 385)), random((385, 97))])
@example([random((385, 769)).T, random((97, 385)).T])
@example([random((3, 5, 7, 385), "float64"), random((385, 33), "float64")])
@example([random((5000, 3)), random((3, 5))])
@example([random((2, 3)), random((3, 9001))])
def test_matmul(native, arrays):
    a, b = arrays
    before = a.copy(), b.copy()
    product = native.matmul(a, b)
    assert product.shape == np.matmul(a, b).shape
    assert_product(product, a, b)
    np.testing.assert_array_equal(a, before[0])
    np.testing.assert_array_equal(b, before[1])

    out = random(product.shape, a.dtype.newbyteorder("="), 1)
    start = out.copy()
    assert native.matmul(a, b, out=out, accumulate=True) is out
    eps = np.finfo(a.dtype).eps
    size = abs(start) + abs(a).astype(out.dtype) @ abs(b).astype(out.dtype)
    assert (abs(out - (start + product)) <= (a.shape[-1] + 3) * eps * size).all()
    native.matmul(a, b, out)
    np.testing.assert_array_equal(out, product)


@pytest.mark.parametrize("layout", ["columns apart", "rows apart", "backwards", "transposed", "overlaps a"])
@pytest.mark.parametrize("accumulate", [False, True])
def test_matmul_into_any_out(native, layout, accumulate):
    shared = random((3, 5, 5))
    a, b = shared[:2], random((2, 5, 5), seed=1)
    memory = random((2, 10, 10), seed=2)
    out = {
        "columns apart": memory[:, :5, ::2],
        "rows apart": memory[:, ::2, :5],
        "backwards": memory[:, 4::-1, 4::-1],
        "transposed": memory[:, :5, :5].swapaxes(1, 2),
        "overlaps a": shared[1:],  # the first product is written where the second factor still has to be read
    }[layout]
    untouched = memory.copy()
    expected = a @ b + (out if accumulate else 0)
    assert native.matmul(a, b, out, accumulate) is out
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    if layout == "rows apart":  # nothing is written beside it
        np.testing.assert_array_equal(memory[:, 1::2], untouched[:, 1::2])
        np.testing.assert_array_equal(memory[:, :, 5:], untouched[:, :, 5:])


def test_what_lies_beside_the_inputs_stays_out_of_the_product(native):
    """What lies around a and b in memory is NaN: one element of it would show."""
    for m, k, n in [(3, 7, 5), (1, 385, 33), (14, 3, 31), (97, 31, 65)]:
        arrays = []
        for rows, columns in [(m, k), (k, n)]:
            memory = np.full((rows + 2, columns + 40), np.nan, "float32")
            memory[1:-1, 20:-20] = random((rows, columns))
            arrays.append(memory[1:-1, 20:-20])
        assert np.isfinite(native.matmul(*arrays)).all()


def test_matmul_of_infinities(native):
    a, b = np.array([[np.inf, 1], [0, 1]], "float32"), np.array([[1, 0], [2, 3]], "float32")
    np.testing.assert_array_equal(native.matmul(a, b), [[np.inf, np.nan], [2, 3]])


@pytest.mark.parametrize(
    ("a", "b", "out", "message"),
    [
        (np.ones((2, 3)), np.ones((5, 7)), None, r"a \(2, 3\) and b \(5, 7\) do not fit: 3 is not 5"),
        (np.ones(3), np.ones((3, 2)), None, r"a \(3,\) and b \(3, 2\) must be matrices"),
        (np.ones((2, 5, 3)), np.ones((7, 3, 2)), None, "leading axes .* do not broadcast"),
        (np.ones((2, 3)), np.ones((3, 2), "float32"), None, "float64 and float32: both must be"),
        (np.ones((2, 3)), np.ones((3, 2)), np.ones((2, 5)), r"out is float64 \(2, 5\), the product float64 \(2, 2\)"),
        (np.ones((2, 3)), np.ones((3, 2)), np.ones((2, 2), "float32"), "out is float32"),
        (np.ones((2, 3)), np.ones((3, 2)), _read_only(np.ones((2, 2))), "out is read-only"),
    ],
)
def test_what_matmul_refuses(native, a, b, out, message):
    with pytest.raises(ValueError, match=message):
        native.matmul(a, b, out)


def test_accumulate_needs_an_out(native):
    with pytest.raises(ValueError, match="needs an `out`"):
        native.matmul(np.ones((2, 3)), np.ones((3, 2)), accumulate=True)


def test_a_product_too_large_for_memory_is_refused(native):
    a, b = as_strided(np.ones(1), (2**40, 1), (0, 0)), as_strided(np.ones(1), (1, 2**40), (0, 0))
    with pytest.raises((MemoryError, ValueError)):
        native.matmul(a, b)


# --- softmax ----------------------------------------------------------------------------------------


@st.composite
def rows_of_numbers(draw):
    """Rows of any length, whose numbers may be far apart or infinite."""
    shape = (
        *draw(st.lists(st.integers(0, 5), max_size=3)),
        draw(st.one_of(st.integers(0, 70), st.sampled_from(SIZES))),
    )
    dtype, seed = draw(st.sampled_from(DTYPES)), draw(st.integers(0, 99))
    x = random(shape, dtype, seed) * draw(st.sampled_from([0, 1, 30, 300, 1e30]))
    if x.size and draw(st.booleans()):
        x.flat[draw(st.integers(0, x.size - 1))] = draw(st.sampled_from([-np.inf, np.inf, np.nan]))
    fitting = [name for name in LAYOUTS if x.ndim > 1 or name not in NEEDS_ROWS]
    return LAYOUTS[draw(st.sampled_from(sorted(fitting)))](x)


@thorough
@given(rows_of_numbers())
@example(np.full((2, 37), -np.inf, "float32"))
@example(-np.arange(120, dtype="float32")[:, None] * np.array([0, 1], "float32"))
@example(-np.arange(760, dtype="float64")[:, None] * np.array([0, 1], "float64"))
@example(np.broadcast_to(random((1, 33)), (7, 33)))
def test_softmax(native, x):
    before = x.copy()
    y = native.softmax(x)
    with np.errstate(invalid="ignore"):
        exact = reference.softmax(x.astype("longdouble"))
    # exponential, difference and scale are rounded once each, a sum of one sign once per level and lane
    info = np.finfo(x.dtype)
    tolerance = (8 + x.shape[-1] / 64) * info.eps
    if x.size and x.shape[-1]:  # the difference x - max is rounded before the exponential magnifies it
        with np.errstate(invalid="ignore", over="ignore"):
            spread = np.nan_to_num(x.max(-1, keepdims=True) - x, nan=0, posinf=0)
        tolerance = tolerance + np.minimum(spread, -np.log(info.smallest_subnormal) + 1) * info.eps
    assert y.dtype == x.dtype.newbyteorder("=")
    assert y.shape == x.shape
    np.testing.assert_array_equal(np.isnan(y), np.isnan(exact))
    good = ~np.isnan(exact)
    assert (abs(y - exact) <= tolerance * exact + 2 * info.smallest_subnormal)[good].all()
    np.testing.assert_array_equal(x, before)


@thorough
@given(rows_of_numbers(), st.sampled_from(sorted(LAYOUTS)))
def test_softmax_backward(native, x, layout):
    with np.errstate(invalid="ignore"):
        y = reference.softmax(x).astype(x.dtype)
    dy = random(y.shape, x.dtype.newbyteorder("="), 5)
    if y.ndim > 1:
        dy = LAYOUTS[layout](dy)
    before = dy.copy()
    dx = native.softmax_backward(dy, y)
    exact = reference.softmax_backward(dy.astype("longdouble"), y.astype("longdouble"))
    bound = (y.shape[-1] + 4) * np.finfo(y.dtype).eps * abs(y) * (abs(dy) + abs(dy * y).sum(-1, keepdims=True))
    np.testing.assert_array_equal(np.isnan(dx), np.isnan(exact))
    good = ~np.isnan(exact)
    assert (abs(dx - exact) <= bound + 2 * np.finfo(y.dtype).smallest_subnormal)[good].all()
    np.testing.assert_array_equal(dy, before)


def test_exponential_is_accurate_to_two_units_in_the_last_place(native):
    """softmax of (0, x) for very negative x is e^x, with nothing added but the 1 below the line."""
    for dtype, lowest in [("float32", -110), ("float64", -760)]:
        x = np.linspace(lowest, -40, 20011).astype(dtype)
        y = native.softmax(np.stack([np.zeros_like(x), x], -1))[:, 1]
        exact = np.exp(x.astype("longdouble"))
        assert (abs(y - exact) <= 2 * np.spacing(exact.astype(dtype))).all()


def test_what_softmax_refuses(native):
    with pytest.raises(ValueError, match="no axis"):
        native.softmax(np.array(1.0))
    with pytest.raises(ValueError, match="int64"):
        native.softmax(np.arange(3))
    with pytest.raises(ValueError, match=r"dy \(2, 3\) and y \(3, 2\)"):
        native.softmax_backward(np.ones((2, 3)), np.ones((3, 2)))


# --- bits -------------------------------------------------------------------------------------------


@pytest.fixture
def threads(native):
    """Sets the number of threads, for this test only."""
    before = native.get_num_threads()
    yield native.set_num_threads
    native.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("m", "k", "n"), [(769, 128, 97), (97, 769, 128), (5, 385, 769), (1, 1537, 769), (4099, 31, 65)]
)
def test_bits_do_not_depend_on_threads(native, threads, dtype, m, k, n):
    a, b, x = random((m, k), dtype), random((k, n), dtype), random((m, n), dtype)
    batch = random((37, 65, 31), dtype)
    results = []
    for count in (1, 2, 3, 7):
        threads(count)
        y = native.softmax(x)
        results.append(
            [native.matmul(a, b), native.matmul(batch, batch.swapaxes(1, 2)), y, native.softmax_backward(x, y)]
        )
    for result in results[1:]:
        for one, other in zip(results[0], result):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["plain", "transposed"])
@pytest.mark.parametrize(("k", "n"), [(128, 97), (769, 33), (3, 1), (385, 1000)])
def test_a_row_has_the_same_bits_alone_and_among_others(native, dtype, layout, k, n):
    a, b = random((131, k), dtype), LAYOUTS[layout](random((k, n), dtype))
    together = native.matmul(a, b)
    softmaxed = native.softmax(together)
    for begin, end in [(0, 1), (130, 131), (5, 19), (100, 131), (29, 58), (0, 28), (0, 30)]:
        np.testing.assert_array_equal(native.matmul(a[begin:end], b), together[begin:end])
        np.testing.assert_array_equal(native.softmax(together[begin:end]), softmaxed[begin:end])
    np.testing.assert_array_equal(native.matmul(a.reshape(1, 131, 1, k), b), together.reshape(1, 131, 1, n))
    np.testing.assert_array_equal(native.matmul(np.stack([a[:65], a[66:]]), b)[1], together[66:])
    stacked = native.matmul(a[None], np.stack([b, b]))  # another b for each: no longer one product
    np.testing.assert_array_equal(stacked[1], together)


# --- threads and processes --------------------------------------------------------------------------


def _run(code, **env):
    run = subprocess.run([sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True)
    assert not run.returncode, run.stderr
    return run.stdout


WORK = """
import os, warnings
import numpy as np
from minilm.kernels import native
native.set_num_threads(3)
a, b = (np.random.default_rng(i).normal(size=s).astype("float32") for i, s in enumerate([(401, 302), (302, 203)]))
expected = native.matmul(a, b)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_process_computes_too():
    code = """
warnings.simplefilter("ignore")  # Python 3.12 warns of a fork beside threads: that is what is tried here
for _ in range(3):  # a child of a child of a child
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status))
    for _ in range(20):
        assert (native.matmul(a, b) == expected).all()
threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 3
os._exit(0 if threads >= 3 else 7)  # it has workers of its own
"""
    _run(WORK + code)


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
def test_nothing_is_read_or_written_behind_the_end_of_an_array():
    """Arrays that end where a page ends, with a page behind them that nobody may touch."""
    code = """
import ctypes, mmap, itertools
libc = ctypes.CDLL(None)

def at_the_end(x):
    size = -(-x.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = mmap.mmap(-1, size + mmap.PAGESIZE)
    memory = np.frombuffer(pages, "uint8")
    address = memory.ctypes.data + size
    assert libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    y = memory[size - x.nbytes : size].view(x.dtype).reshape(x.shape)
    y[...] = x
    return y

for dtype, (m, k, n) in itertools.product("fd", [(1, 7, 5), (1, 9, 301), (3, 5, 33), (13, 4, 31), (67, 31, 65)]):
    shapes = [(m, k), (k, n)]
    factors = [(at_the_end(np.ones(s, dtype)), at_the_end(np.ones(s[::-1], dtype)).T) for s in shapes]
    for x, y in itertools.product(*factors):
        out = at_the_end(np.zeros((m, n), dtype))
        native.matmul(x, y, out)
        native.matmul(x, y, out, accumulate=True)
        assert (out == 2 * k).all()
        native.softmax_backward(out, at_the_end(native.softmax(out)))
"""
    _run(WORK + code)


def test_python_threads_compute_at_once(native, threads):
    """Each thread alternates between two products of its own: what another call left behind would be wrong."""
    threads(2)
    wrong = []

    def work(seed):
        b = random((385, 193), seed=seed)
        factors = [random((769, 385), seed=seed + i) for i in (10, 20)]
        expected = [a @ b for a in factors]
        softmaxed = [reference.softmax(a) for a in factors]
        for _ in range(20):
            for i in range(2):
                out = np.full((769, 193), np.nan, "float32")
                product, y = native.matmul(factors[i], b, out), native.softmax(factors[i])
                if not np.allclose(product, expected[i], atol=1e-3) or not np.allclose(y, softmaxed[i], rtol=1e-4):
                    wrong.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_threads_may_change_at_any_time(native, threads):
    a, b = random((257, 129)), random((129, 200))
    expected = native.matmul(a, b)
    for count in [1, 5, 2, 1, 3, 64, 2] * 5:
        threads(count)
        assert native.get_num_threads() == count
        np.testing.assert_array_equal(native.matmul(a, b), expected)
    with pytest.raises(ValueError, match="at least 1 thread"):
        native.set_num_threads(0)


def test_threads_at_the_start_are_those_of_the_process():
    code = "from minilm.kernels import native, threads; print(native.get_num_threads(), threads.get_num_threads())"
    assert _run(code, MINILM_NUM_THREADS="3") == "3 3\n"


# --- instruction sets -------------------------------------------------------------------------------


def test_every_instruction_set_computes(native):
    names = native.instruction_sets()
    assert names[0] == "portable"
    assert native.instruction_set() in names
    tests = ["test_matmul", "test_softmax", "test_softmax_backward", "test_exponential", "test_bits", "test_a_row"]
    code = f"""
import sys, pytest
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", {__file__!r}, "-k", {" or ".join(tests)!r}]))
"""
    for name in names:
        if name == native.instruction_set():
            continue
        env = {**os.environ, "MINILM_CPU": name}
        run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        assert not run.returncode, f"{name}:\n{run.stdout[-3000:]}{run.stderr[:3000]}"
        chosen = _run("from minilm.kernels import native; print(native.instruction_set())", MINILM_CPU=name)
        assert chosen == f"{name}\n"


def test_an_unknown_instruction_set_is_refused_with_the_choices(native):
    code = "import minilm.kernels"
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "MINILM_CPU": "i386"}, capture_output=True, text=True
    )
    assert run.returncode
    assert BackendError.__name__ in run.stderr
    assert f"MINILM_CPU=i386: this processor can run {', '.join(native.instruction_sets())}" in run.stderr


def test_no_product_is_faster_than_the_peak(native, monkeypatch, threads):
    threads(1)
    a = random((257, 257))
    native.matmul(a, a)
    peaks, rates = [], []
    for _ in range(5):  # in turn: on a shared machine both may be slowed down
        peaks.append(kernels.measure_peak(0.02))
        start = time.perf_counter()
        native.matmul(a, a)
        rates.append(2e-9 * 257**3 / (time.perf_counter() - start))
    assert max(peaks) / 20 < max(rates) < 1.2 * max(peaks)
    monkeypatch.setattr(kernels, "why_not", lambda name: "not built")
    assert 0 < kernels.measure_peak(0.02) < 100 * max(peaks)


def test_the_binary_is_not_stale(native):
    assert len(native.source_hash()) == 64
    assert not sources.is_stale(), "csrc/ or native.pyx changed: pip install -e . (or setup.py build_ext --inplace)"
