"""Pieces of work side by side: one thread for each, in the modes of whoever asked, and in order."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import minilm as ml
from minilm import kernels, parallel
from minilm.kernels.constants import Constants
from minilm.models import translator
from minilm.modes import state
from minilm.ops.joining import joined
from minilm.parallel import side_by_side, threads_side_by_side


@pytest.fixture
def three_threads():
    if kernels.why_not("native"):
        pytest.skip("only native kernels are called by several threads")
    before = ml.get_num_threads()
    ml.set_num_threads(3)
    with kernels.use("native"):
        yield
    ml.set_num_threads(before)


def where(number):
    from minilm.kernels import native

    return number, native.get_num_threads(), threading.get_ident(), state.recording


def test_each_piece_has_one_thread_and_the_modes_of_its_caller(three_threads):
    meeting = threading.Barrier(3, timeout=60)

    def piece(number):
        meeting.wait()  # passes if three are computed at the same time
        return where(number)

    with ml.no_grad():
        found = list(side_by_side(piece, range(6)))
    assert [f[:2] for f in found] == [(number, 1) for number in range(6)]
    assert {f[3] for f in found} == {False}
    assert len({f[2] for f in found} - {threading.get_ident()}) == 3
    assert where(0)[1:] == (3, threading.get_ident(), True)


def test_a_single_piece_has_all_threads(three_threads):
    assert list(side_by_side(where, [5])) == [(5, 3, threading.get_ident(), True)]
    assert list(side_by_side(where, [])) == []


def test_other_kernels_are_called_by_one_thread(three_threads):
    assert threads_side_by_side() == 3
    with kernels.use("reference"):
        assert threads_side_by_side() == 1
        assert {threading.get_ident()} == set(side_by_side(lambda _: threading.get_ident(), range(4)))
    ml.set_num_threads(1000)
    assert threads_side_by_side() == parallel.MOST


def test_what_a_piece_raises_ends_the_rest(three_threads):
    begun = []

    def piece(number):
        begun.append(number)
        if number == 1:
            raise ValueError("piece 1")
        threading.Event().wait(0.05)

    with pytest.raises(ValueError, match="piece 1"):
        list(side_by_side(piece, range(100)))
    assert len(begun) < 50


def test_products_of_pieces_are_those_of_all_threads(three_threads):
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((300, 200)).astype(np.float32)
    rows = [rng.standard_normal((n, 200)).astype(np.float32) for n in (1, 40, 333)]
    constants = Constants([weight])

    def product(x):
        with constants:
            return kernels.linear(x, weight, None)

    for got, x in zip(side_by_side(product, rows * 5), rows * 5):
        np.testing.assert_array_equal(got, kernels.linear(x, weight, None))


def test_joined_parameters_are_kept_with_the_constants():
    parts = [ml.tensor(np.full((2, 3), n, np.float32), requires_grad=True) for n in (1, 2)]
    wanted = np.concatenate([part.array for part in parts])
    constants = Constants([part.array for part in parts])
    with ml.no_grad(), constants:
        first = joined(parts)
        np.testing.assert_array_equal(first.array, wanted)
        assert joined(parts) is first
        np.testing.assert_array_equal(joined(parts[::-1]).array, wanted[[2, 3, 0, 1]])
        np.testing.assert_array_equal(joined([first, first]).array, np.concatenate([wanted, wanted]))  # a constant, too
        stranger = ml.tensor(np.zeros((2, 3), np.float32))
        assert joined([parts[0], stranger]) is not joined([parts[0], stranger])
    with ml.no_grad():
        assert joined(parts) is not first
    with constants:  # recorded: each use of the parameters has its own place on the tape
        z = joined(parts)
        assert z is not first
        z.sum().backward()
    np.testing.assert_array_equal(parts[0].grad.array, np.ones((2, 3)))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 16, 32])
@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 64, 96, 97, 200])
def test_batches_of_sources_are_whole_and_even(count, size, threads):
    batches = translator._batches(list(range(count)), size, threads)
    assert sorted(number for batch in batches for number in batch) == list(range(count))
    assert all(0 < len(batch) <= size for batch in batches)
    if 1 < len(batches) <= threads:  # one for each thread: as many sources, of all lengths
        means = [np.mean(batch) for batch in batches]
        assert max(means) - min(means) <= len(batches)
