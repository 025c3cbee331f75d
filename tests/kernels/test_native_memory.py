"""Memory for results: blocks that are dropped serve again, up to a cap, and never two arrays at once."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import minilm as ml
from minilm import kernels
from minilm.generation import LayerCache


@pytest.fixture
def pool(native):
    """The pool's functions, emptied before; its cap is restored."""
    cap = native.memory()["cap"]
    native.trim_memory()
    yield native
    native.set_memory_cap(cap)


def fresh(pool):
    """Blocks that came from the system so far."""
    return pool.memory()["given"] - pool.memory()["reused"]


def waits(pool):
    """Whether anything may wait at all: under AddressSanitizer nothing does."""
    x = pool.empty((1 << 18,), "float32")
    del x
    return pool.memory()["held"] > 0


def test_a_dropped_block_serves_the_next_array_of_its_size(pool):
    if not waits(pool):
        pytest.skip("this build gives every block back, so that overruns are seen")
    before = fresh(pool)
    for _ in range(10):
        x = pool.empty((1 << 18,), "float32")
        x[...] = 1
        del x
    assert fresh(pool) == before


def test_an_array_in_use_keeps_its_block(pool):
    x = pool.empty((300, 300), "float64")
    x[...] = 7
    view = x[1:, ::2]
    del x
    others = [pool.empty((300, 300), "float64") for _ in range(5)]
    for other in others:
        other[...] = 1
    assert (view == 7).all()
    places = {other.ctypes.data for other in others}
    assert len(places) == 5


def test_nothing_waits_beyond_the_cap(pool):
    pool.set_memory_cap(0)
    x = pool.empty((1 << 20,), "float32")
    del x
    assert pool.memory()["held"] == 0
    pool.set_memory_cap(6 << 20)
    blocks = [pool.empty((1 << 20,), "float32") for _ in range(3)]
    del blocks
    assert pool.memory()["held"] <= 6 << 20
    with pytest.raises(ValueError, match="negative"):
        pool.set_memory_cap(-1)


def test_trim_gives_all_back(pool):
    x = pool.empty((1 << 20,), "float32")
    del x
    pool.trim_memory()
    assert pool.memory()["held"] == 0


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 5), (5,), (1 << 14,), (1 << 14, 1), (127, 1031)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arrays_are_ordinary(pool, shape, dtype):
    x = pool.empty(shape, dtype)
    assert (x.shape, x.dtype) == (shape, dtype)
    assert x.flags.carray
    x[...] = 3
    assert (x == 3).all()


def test_sizes_that_no_memory_has_are_refused(pool):
    for shape in ((2**62,), (2**40, 2**40), (2**46,)):
        with pytest.raises((MemoryError, ValueError)):
            pool.empty(shape, "float32")


def test_threads_never_share_a_block(pool):
    wrong = []

    def work(number):
        for _ in range(200):
            x = pool.empty((1 << 15,), "float32")
            x[...] = number
            if not (x == number).all():
                wrong.append(number)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_gradient_is_adopted_from_the_pool(pool):
    w = ml.ones(300, 400, requires_grad=True)
    x = ml.ones(500, 300)
    (x @ w).sum().backward()
    assert isinstance(w.grad.array.base, pool.Block)  # not a copy in NumPy's memory
    first = w.grad.array.ctypes.data
    (x @ w).sum().backward()
    assert w.grad.array.ctypes.data == first
    assert (w.grad.array == 1000).all()


@pytest.mark.parametrize("backend", kernels.BACKENDS)
def test_empty_arrays_have_their_shape_and_type(backend):
    if kernels.why_not(backend):
        pytest.skip(kernels.why_not(backend))
    with kernels.use(backend):
        for dtype in (np.float32, np.float64, np.int64, bool):
            for shape in ((), (0, 3), (300, 401)):
                x = kernels.empty(shape, dtype)
                assert (x.shape, x.dtype) == (shape, dtype)
                assert x.flags.c_contiguous
                assert x.flags.writeable


def test_relu_and_a_cache_of_decoding_use_memory_again(pool):
    if not waits(pool):
        pytest.skip("this build gives every block back, so that overruns are seen")
    with kernels.use("native"), ml.no_grad():
        x = ml.Tensor(np.linspace(-1, 1, 1 << 18, dtype=np.float32))

        def use():
            cache = LayerCache(5, 2, 100, 64, np.float32)
            assert cache._keys.shape == cache._values.shape == (5, 100, 2, 64)
            np.testing.assert_array_equal(ml.nn.functional.relu(x).array, np.maximum(x.array, 0))

        use()
        before, given = fresh(pool), pool.memory()["given"]
        for _ in range(3):
            use()
        assert pool.memory()["given"] == given + 3 * 3  # keys, values, and relu's result
        assert fresh(pool) == before
