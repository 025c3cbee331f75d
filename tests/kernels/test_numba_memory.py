"""Memory for the results of Numba's kernels: used again, up to a cap, never by two arrays at once."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

import minilm as ml
from minilm import kernels

jit_memory = pytest.importorskip("minilm.kernels.jit_memory")

SHAPE = (1024, 512)  # 2 MB of float32


@pytest.fixture
def shelf(monkeypatch):
    """An empty shelf in place of everybody's."""
    monkeypatch.setattr(jit_memory, "shelf", jit_memory.Shelf(1 << 26))
    return jit_memory.shelf


def made(value=0.0, shape=SHAPE):
    x = jit_memory.empty(shape, "float32")
    x[...] = value
    return x


def test_a_dropped_block_serves_the_next_array_of_its_size(shelf):
    place = made().ctypes.data
    assert shelf.held() >= 1 << 21
    x = made()
    assert x.ctypes.data == place
    assert not shelf.held()


def test_an_array_in_use_keeps_its_block(shelf):
    x = made(7)
    view = x[1:, ::2]
    del x
    others = [made(1) for _ in range(5)]
    assert (view == 7).all()
    assert len({other.ctypes.data for other in others}) == 5


def test_nothing_waits_beyond_the_cap(shelf):
    shelf.cap = (1 << 21) - 1
    made()
    assert not shelf.held()
    shelf.cap = 5 << 20
    arrays = [made(), made(), made()]
    del arrays
    assert 0 < shelf.held() <= shelf.cap


def test_what_no_longer_serves_makes_room(shelf):
    shelf.cap = 5 << 20
    both = [made(), made()]
    del both
    made(shape=(1024, 1024))
    assert {size: len(blocks) for size, blocks in shelf.waiting.items()} == {4 << 20: 1}


def test_small_arrays_are_numpys_own(shelf):
    assert jit_memory.empty((3, 0, 1 << 40), "float64").size == 0
    x = jit_memory.empty((4, 5), "float64")
    assert x.base is None
    assert x.shape == (4, 5)
    assert x.dtype == np.float64


def test_a_large_array_is_a_plain_one_that_owns_its_block(shelf):
    x = jit_memory.empty((3, 1 << 18), "float64")
    assert x.shape == (3, 1 << 18)
    assert x.dtype == np.float64
    assert x.flags.carray
    assert not isinstance(x.base, np.ndarray)  # the engine adopts such a gradient without a copy


def test_blocks_come_back_from_many_threads_and_cycles(shelf):
    def work(seed):
        for i in range(200):
            cycle = [made(seed * 1000 + i)]
            cycle.append(cycle)
            assert (cycle[0] == seed * 1000 + i).all()
            if i % 20 == 0:
                gc.collect()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert 0 < shelf.held() <= shelf.cap


def test_a_training_step_finds_its_memory_again(shelf):
    with kernels.use("numba"):
        weight = ml.ones(1024, requires_grad=True)
        for _ in range(2):
            x = ml.ones(1024, 1024, requires_grad=True)
            ml.nn.functional.layer_norm(x, (1024,), weight).softmax(-1).sum().backward()
            del x
            waiting = shelf.held()
        assert waiting
        first = {size: len(blocks) for size, blocks in shelf.waiting.items()}
        x = ml.ones(1024, 1024, requires_grad=True)
        ml.nn.functional.layer_norm(x, (1024,), weight).softmax(-1).sum().backward()
        del x
        assert {size: len(blocks) for size, blocks in shelf.waiting.items()} == first
