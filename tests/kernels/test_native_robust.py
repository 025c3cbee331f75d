"""What every kernel in C withstands: arrays of no elements, of any place in memory, of impossible sizes; processes
that fork and threads that call at once.

A new kernel joins by one line in CASES; the first test fails until it has one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from minilm import kernels
from minilm.kernels import reference

pytestmark = pytest.mark.usefixtures("native")

DTYPES = ("float32", "float64")

# A kernel and what it is called with: real(*shape) gives numbers, whole(high, *shape) integers below `high`, for N
# rows of C columns. Those of the reference that are not in C yet wait here for it.


def _cut(N):
    """Where two sequences of N rows in all begin, and the longest length."""
    return np.array([0, N // 3, N]), N


def _attended_packed(real, N, C):
    shapes = [(2, N, C), (2, N, 5), (2, N, 5), (2, N, C), (2, N, C), (2, N)]  # dy, q, k, v, y, lse
    return (*(real(*shape) for shape in shapes), *_cut(N), True, 0.4)


def _attended(real, N, C):
    q, k, v, settings = real(2, N, C), real(2, N, C), real(2, N, 5), (None, None, True, 0.4)
    return (real(2, N, 5), q, k, v, *reference.attention(q, k, v, *settings), *settings)


def _recurrent(real, N, C, gates, states, reverse):
    """What is given, weights, and a first state, for two times, of which the second has fewer sequences."""
    return real(N, gates * C), 0.2 * real(gates * C, C), *real(states, N - N // 2, C), (N - N // 2, N // 2), reverse


def _recurrent_back(real, N, C, gates, states, reverse):
    """The gradients of outputs and last state, weights, gates, cells, outputs and a first state for the same."""
    _, weight, *first, sizes, reverse = _recurrent(real, N, C, gates, states, reverse)
    gradients = real(N, C), *real(states, N - N // 2, C)
    return (
        *gradients,
        weight,
        *([real(N, gates * C), real(N, C)] if gates > 1 else []),
        real(N, C),
        *first,
        sizes,
        reverse,
    )


def _with_bias(bias, given, weight, *rest):
    return (given, weight, bias, *rest)


CASES = [
    ("matmul", lambda real, whole, N, C: (real(N, C), real(C, 41))),
    ("matmul", lambda real, whole, N, C: (real(7, N, C), real(7, C, 5))),
    ("softmax", lambda real, whole, N, C: (real(3, N, C),)),
    ("softmax_backward", lambda real, whole, N, C: (real(N, C), real(N, C))),
    *[(name, lambda real, whole, N, C: (real(N, C),)) for name in ("exp", "tanh", "sigmoid", "erf", "sum_rows")],
    ("philox", lambda real, whole, N, C: (3, 5, 7, N * C)),
    ("keep_rows", lambda real, whole, N, C: (3, 5, N, C, 0.3)),
    ("linear", lambda real, whole, N, C: (real(N, C), real(41, C), real(41), real(N, 41))),
    ("linear_gelu", lambda real, whole, N, C: (real(N, C), real(41, C), None)),
    ("linear_relu", lambda real, whole, N, C: (real(N, C), real(41, C), real(41))),
    ("linear_gelu", lambda real, whole, N, C: (real(N, C), real(41, C), real(41), "tanh")),
    ("attention", lambda real, whole, N, C: (real(2, N, 5), real(2, N, 5), real(2, N, C), None, None, True, 0.4)),
    ("attention", lambda real, whole, N, C: (real(N, C), real(3, 7, C), real(7, 5), real(N, 7), None, False, 0.4)),
    ("attention", lambda real, whole, N, C: (real(N, C), real(7, C), real(7, 5), None, None, False, 0.4, 0.3, 5)),
    ("attention_backward", lambda real, whole, N, C: _attended(real, N, C)),
    ("packed_attention", lambda real, whole, N, C: (real(2, N, 5), real(2, N, 5), real(2, N, C), *_cut(N), True, 0.4)),
    ("packed_attention_backward", lambda real, whole, N, C: _attended_packed(real, N, C)),
    (
        "cached_attention",
        lambda real, whole, N, C: (
            real(N, 2, C),
            real(3, 7, 2, C),
            real(3, 7, 2, 5),
            whole(4, N, 7) - 1,
            real(2, 7),
            0.4,
        ),
    ),
    (
        "cached_attention",
        lambda real, whole, N, C: (real(N, 2, 5), real(3, 7, 2, 5), real(3, 7, 2, C), whole(3, N, 6), None, 0.4),
    ),
    ("largest", lambda real, whole, N, C: (real(N, C), min(C, 3))),
    ("drop_rows", lambda real, whole, N, C: (real(N, C), 3, 5, 0.3)),
    ("drop_rows", lambda real, whole, N, C: (real(N, C), 3, 5, 0.3, whole(11, N))),
    ("log_softmax", lambda real, whole, N, C: (real(3, N, C),)),
    ("log_softmax_backward", lambda real, whole, N, C: (real(N, C), real(N, C))),
    ("gelu", lambda real, whole, N, C: (real(N, C),)),
    ("gelu", lambda real, whole, N, C: (real(N, C), "tanh")),
    ("gelu_backward", lambda real, whole, N, C: (real(N, C), real(N, C))),
    ("relu", lambda real, whole, N, C: (real(N, C),)),
    ("relu_backward", lambda real, whole, N, C: (real(N, C), real(N, C))),
    ("gelu_backward", lambda real, whole, N, C: (real(N, C), real(N, C), "tanh")),
    ("layer_norm", lambda real, whole, N, C: (real(3, N, C), real(C), real(C), 1e-5)),
    ("layer_norm", lambda real, whole, N, C: (real(N, C), None, None, 1e-5)),
    ("add_layer_norm", lambda real, whole, N, C: (real(N, C), real(N, C), real(C), real(C), 1e-5)),
    ("add_rms_norm", lambda real, whole, N, C: (real(3, N, C), real(3, N, C), real(C), 1e-5)),
    ("layer_norm_backward", lambda real, whole, N, C: (real(N, C), real(N, C), real(C), real(N, 1), real(N, 1))),
    ("rms_norm", lambda real, whole, N, C: (real(3, N, C), real(C), 1e-5)),
    ("rms_norm_backward", lambda real, whole, N, C: (real(N, C), real(N, C), real(C), real(N, 1))),
    ("cross_entropy", lambda real, whole, N, C: (real(N, C), whole(C, N), real(C), -100, 0.1)),
    ("cross_entropy", lambda real, whole, N, C: (real(N, C), whole(C, N), None, 0, 0.0)),
    ("linear_cross_entropy", lambda real, whole, N, C: (real(N, 7), real(C, 7), whole(C, N), 0, 0.3)),
    (
        "cross_entropy_backward",
        lambda real, whole, N, C: (real(N), real(N, C), whole(C, N), real(C), real(N) + 5, -100, 0.1),
    ),
    ("scatter_rows", lambda real, whole, N, C: (real(N, C), whole(11, N), 11)),
    (
        "adamw",
        lambda real, whole, N, C: (*(abs(real(N, C)) for _ in range(4)), 1e-2, 0.9, 0.95, 1e-8, 0.1, 3),
    ),
    ("square_sum", lambda real, whole, N, C: (real(N, C),)),
    *[("rnn_layer", lambda real, whole, N, C, r=r: (*_recurrent(real, N, C, 1, 1, r), not r)) for r in (False, True)],
    *[("lstm_layer", lambda real, whole, N, C, r=r: _recurrent(real, N, C, 4, 2, r)) for r in (False, True)],
    ("gru_layer", lambda real, whole, N, C: _with_bias(real(3 * C), *_recurrent(real, N, C, 3, 1, False))),
    ("gru_layer", lambda real, whole, N, C: _with_bias(None, *_recurrent(real, N, C, 3, 1, True))),
    *[
        ("rnn_layer_backward", lambda real, whole, N, C, r=r: (*_recurrent_back(real, N, C, 1, 1, r), not r))
        for r in (False, True)
    ],
    *[("lstm_layer_backward", lambda real, whole, N, C, r=r: _recurrent_back(real, N, C, 4, 2, r)) for r in (0, 1)],
    *[("gru_layer_backward", lambda real, whole, N, C, r=r: _recurrent_back(real, N, C, 3, 1, r)) for r in (0, 1)],
]
OVERWRITTEN = {"adamw": (0, 2, 3)}  # arguments that a kernel changes; every other one stays as it is
# Of any number of rows the result is small: a kernel would begin with 2^48 of them, and be at it for years.
SMALL_RESULT = {"scatter_rows", "square_sum", "sum_rows", "linear_cross_entropy"}


def in_c(names=None):
    """The cases whose kernel is there, as parameters of a test."""
    served = kernels._COMPILED["native"]
    found = [case for case in CASES if case[0] in served and (names is None or names(case[0]))]
    return pytest.mark.parametrize(("name", "make"), found, ids=[name for name, _ in found])


def arguments(make, dtype, N, C, seed=0):
    rng = np.random.default_rng(seed)
    return make(
        lambda *shape: rng.normal(size=shape).astype(dtype), lambda high, *shape: rng.integers(high, size=shape), N, C
    )


def call(backend, name, args):
    """What the kernel gives, or has made of the arguments that it overwrites: always a list of arrays."""
    args = [x.copy() if i in OVERWRITTEN.get(name, ()) else x for i, x in enumerate(args)]
    with np.errstate(all="ignore"):
        result = getattr(backend, name)(*args)
    if name in OVERWRITTEN:
        result = tuple(args[i] for i in OVERWRITTEN[name])
    return [np.asarray(x) for x in (result if isinstance(result, tuple) else (result,)) if x is not None]


def assert_same_bits(results, expected):
    assert len(results) == len(expected)
    for one, other in zip(results, expected):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_every_kernel_is_among_the_cases():
    missing = set(kernels._COMPILED["native"]) - {name for name, _ in CASES}
    assert not missing, f"a line in CASES is missing for {', '.join(sorted(missing))}"


# --- arrays -----------------------------------------------------------------------------------------


def _unaligned(x):
    memory = np.zeros(x.nbytes + 1, "uint8")
    y = np.frombuffer(memory.data, x.dtype, x.size, offset=1).reshape(x.shape)
    y[...] = x
    return y


def _read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def _far_apart(x):
    """x with strides from which no address must be computed: along an axis of 1, or where there is nothing."""
    x = np.repeat(x, 2, axis=-1)[..., ::2]  # were it contiguous, NumPy would not show them to C
    far = 2**62 // x.itemsize * x.itemsize
    return as_strided(x, x.shape, [far if n == 1 or x.size == 0 else s for n, s in zip(x.shape, x.strides)])


PLACES = {"unaligned": _unaligned, "read-only": _read_only, "far apart": _far_apart}


def place_all(name, args, place):
    """The arguments at other places, but for those that are overwritten."""
    kept = OVERWRITTEN.get(name, ())
    return [x if i in kept or not isinstance(x, np.ndarray) else PLACES[place](x) for i, x in enumerate(args)]


@in_c()
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("N", "C"), [(37, 29), (1, 29), (37, 1), (1, 1)])
def test_bits_do_not_depend_on_the_place_in_memory(native, name, make, dtype, place, N, C):
    args = arguments(make, dtype, N, C)
    expected = call(native, name, args)
    for result, slow in zip(expected, call(reference, name, args)):
        tolerance = 1e-4 if dtype == "float32" else 1e-10
        np.testing.assert_allclose(result, slow, rtol=tolerance, atol=10 * tolerance)
    placed = place_all(name, args, place)
    assert_same_bits(call(native, name, placed), expected)
    for x, before in zip(placed, args):
        np.testing.assert_array_equal(x, before)


@in_c()
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", [None, *PLACES])
@pytest.mark.parametrize(("N", "C"), [(0, 29), (37, 0), (0, 0)])
def test_nothing_comes_of_nothing(native, name, make, dtype, place, N, C):
    """Where an axis is 0, the shapes are the reference's, and so are sums of nothing."""
    try:
        args = arguments(make, dtype, N, C)
    except ValueError:
        pytest.skip("there is no integer below 0")
    placed = place_all(name, args, place) if place else args
    for result, slow in zip(call(native, name, placed), call(reference, name, args)):
        assert (result.shape, result.dtype) == (slow.shape, slow.dtype)
        rtol, atol = (1e-5, 1e-6) if dtype == "float32" else (1e-12, 1e-14)  # sums of a few numbers of size 1
        np.testing.assert_allclose(result, slow, rtol, atol)


@in_c(lambda name: name in OVERWRITTEN)
def test_what_is_read_only_is_not_overwritten(native, name, make):
    for i in OVERWRITTEN[name]:
        args = list(arguments(make, "float32", 5, 7))
        args[i] = _read_only(args[i])
        before = [x.copy() if isinstance(x, np.ndarray) else x for x in args]
        with pytest.raises(ValueError, match="read-only"):
            getattr(native, name)(*args)
        for x, y in zip(args, before):
            np.testing.assert_array_equal(x, y)


# --- sizes ------------------------------------------------------------------------------------------


@in_c(lambda name: name not in SMALL_RESULT | set(OVERWRITTEN))
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_result_larger_than_any_memory_is_refused(native, name, make, dtype):
    """One number in memory, seen as 2^48 rows: their bytes still count in 64 bits, but no system has them."""
    one = np.ones((), dtype)
    real, whole = (lambda *shape: np.broadcast_to(one, shape)), (lambda high, *shape: np.broadcast_to(0, shape))
    with pytest.raises((MemoryError, ValueError)):
        getattr(native, name)(*make(real, whole, 2**48, 2**8))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((2**31, 1), (1, 2**31)),  # 2^62 elements: as bytes 0 modulo 2^64
        ((2**32, 1), (1, 2**32)),  # 2^64 elements
        ((2**31, 0), (0, 2**31)),
        ((2**32, 1, 1, 1), (2**32, 1, 1)),
        ((2**21, 2**21, 1, 1), (1, 2**21)),
        ((2**40, 1, 2**10, 1), (2**13, 1, 1)),
    ],
    ids=str,
)
def test_sizes_of_products_do_not_wrap(native, dtype, a, b):
    one = np.ones((), dtype)
    with pytest.raises((MemoryError, ValueError)):
        native.matmul(np.broadcast_to(one, a), np.broadcast_to(one, b))


def _run(code):
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not run.returncode, run.stderr


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads its size from /proc")
@pytest.mark.skipif("address" in os.environ.get("MINILM_SANITIZE", ""), reason="the sanitizer takes all addresses")
def test_want_of_memory_is_an_error_and_passes():
    """No byte more may be had: neither the packed blocks nor the stacks of workers."""
    code = """
import resource
import numpy as np
from minilm.kernels import native
native.set_num_threads(3)
a, out = np.ones((2049, 385), "float32"), np.empty((2049, 2049), "float32")
b, before = a.T, resource.getrlimit(resource.RLIMIT_AS)
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), before[1]))
for _ in range(3):
    try:
        native.matmul(a, b, out)
    except MemoryError as error:
        assert str(error) == "matmul: no memory to pack blocks of (2049, 385) and (385, 2049)", error
    else:
        raise AssertionError("memory was had")
resource.setrlimit(resource.RLIMIT_AS, before)
assert (native.matmul(a, b, out) == 385).all()
"""
    _run(code)


# --- processes and threads --------------------------------------------------------------------------


@pytest.fixture
def threads(native):
    """Sets the number of threads, for this test only."""
    before = native.get_num_threads()
    yield native.set_num_threads
    native.set_num_threads(before)


def _work():
    """Every case once, large enough to be shared among threads: [(name, arguments)]."""
    served = kernels._COMPILED["native"]
    return [
        (name, arguments(make, dtype, 700, 129, seed))
        for seed, (name, make) in enumerate(CASES)
        if name in served
        for dtype in DTYPES
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_process_computes_the_same(native, threads):
    work = _work()
    threads(3)
    expected = [call(native, name, args) for name, args in work]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of a fork beside threads: that is what is tried here
        child = os.fork()
    if not child:  # whatever happens in here, the rest of the tests is not for the child
        try:
            for (name, args), before in zip(work, expected):
                assert_same_bits(call(native, name, args), before)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    end = time.monotonic() + 60
    while (status := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child waits for somebody who is not there")
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(status[1]) == 0


def test_python_threads_call_all_kernels_at_once(native, threads):
    """Bits are those of one thread, whatever the others are at: each begins at another kernel."""
    work = _work()
    threads(1)
    expected = [call(native, name, args) for name, args in work]
    threads(3)
    rounds, wrong = max(3, 160 // len(work)), []

    def compute(first):
        try:
            for i in [*range(first, len(work)), *range(first)] * rounds:
                name, args = work[i]
                assert_same_bits(call(native, name, args), expected[i])
        except BaseException as error:
            wrong.append(f"{name}: {error}")

    callers = [threading.Thread(target=compute, args=(i,)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong, wrong[0]
