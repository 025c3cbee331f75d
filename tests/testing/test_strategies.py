"""The strategies themselves: what they reach, what fits what, and what a failing example shrinks to."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

import minilm as ml
from minilm import nn, ops
from minilm.testing import LAYOUTS, assert_same, gradcheck, strategies
from minilm.testing.strategies.operations import _resized

thorough = settings(max_examples=2000, database=None, deadline=None, suppress_health_check=list(HealthCheck))


def smallest(strategy, condition=lambda value: True, settings=thorough):
    return find(strategy, condition, settings=settings, random=random.Random(0))  # the same search every time


# --- what a failing example shrinks to --------------------------------------------------------------------------


def test_an_array_shrinks_to_one_two_three():
    assert smallest(strategies.arrays()).shape == ()
    assert smallest(strategies.arrays(), lambda x: x.size > 2).tolist() == [1.0, 2.0, 3.0]


def test_an_array_shrinks_to_c_order():
    x = smallest(strategies.arrays(), lambda x: x.ndim == 2 and x.size >= 4)
    assert x.tolist() == [[1.0, 2.0], [3.0, 4.0]] or x.tolist() == [[1.0, 2.0, 3.0, 4.0]]
    assert x.flags.c_contiguous
    assert x.flags.writeable


def test_a_special_value_stays_alone():
    """A failure that needs one NaN shows one, at the first place, among plain numbers."""
    x = smallest(strategies.arrays((4,), specials=strategies.NOT_FINITE), lambda x: np.isnan(x).any())
    assert_same(x, np.array([np.nan, 2.0, 3.0, 4.0]))


def test_a_planted_failure_shrinks_to_the_least_shapes_that_show_it():
    """An addition that forgets to broadcast an axis of size 1 against 2."""
    x, y = smallest(strategies.broadcastable(2), lambda pair: pair[0].shape != pair[1].shape and pair[0].size > 1)
    assert {x.size, y.size} == {1, 2}
    assert max(x.ndim, y.ndim) <= 2


def test_modules_shrink_to_one_layer_of_size_one():
    module, x = smallest(strategies.modules(), lambda drawn: not drawn[1].requires_grad)
    assert repr(module) == "Embedding(1, 1)"
    assert x.tolist() == [[0]]
    module, x = smallest(
        strategies.modules(), lambda drawn: drawn[1].requires_grad and len(list(drawn[0].parameters())) > 0
    )
    assert sum(p.numel() for p in module.parameters()) == 1
    assert x.tolist() == [[[1.0]]]
    module, _ = smallest(strategies.modules(), lambda drawn: isinstance(drawn[0], nn.Sequential))
    assert len(module) == 2


def test_an_operation_case_shrinks_to_small_shapes_in_c_order():
    drawn = smallest(strategies.operation_cases(ops.get("add"), specials=[np.nan]), lambda d: d.arrays[0].size > 1)
    assert drawn.case.sample == ops.get("add").samples[0]
    assert drawn.case.shapes == ((2,), (2,))
    assert all(x.flags.c_contiguous and np.isfinite(x).all() and x.dtype == np.float64 for x in drawn.arrays)
    drawn = smallest(strategies.operation_cases(ops.get("sum")), lambda d: d.arrays[0].dtype == np.float32)
    assert drawn.case.id == "sum[dim=None, keepdim=False] ()"


def test_masks_and_tokens_shrink_to_what_hides_nothing():
    assert smallest(strategies.masks((2, 3))).all()
    assert smallest(strategies.masks((2, 2)), lambda mask: not mask.all()).tolist() == [[True, False], [True, True]]
    assert smallest(strategies.token_batches()).tolist() == [[0]]
    assert smallest(strategies.token_batches(padding=0), lambda batch: batch.size > 1).tolist() in (
        [[1, 1]],
        [[1], [1]],
    )


# --- what they reach --------------------------------------------------------------------------------------------


def unaligned(x):
    return not x.flags.aligned


KINDS = {
    "0-d": lambda x: x.ndim == 0,
    "0-sized": lambda x: x.size == 0,
    "with gaps": lambda x: not x.flags.forc and all(s >= 0 for s in x.strides) and 0 not in x.strides,
    "Fortran order": lambda x: x.flags.f_contiguous and not x.flags.c_contiguous,
    "negative strides": lambda x: any(s < 0 for s in x.strides),
    "zero strides": lambda x: 0 in x.strides and x.size > 1,
    "read-only": lambda x: not x.flags.writeable and 0 not in x.strides,
    "unaligned": unaligned,
    "infinity": lambda x: np.isinf(x).any(),
    "NaN": lambda x: np.isnan(x).any(),
    "huge": lambda x: (np.abs(x[np.isfinite(x)]) > 1e29).any(),
    "tiny": lambda x: ((x != 0) & (np.abs(x) < 1e-29)).any(),
}
EVERYTHING = (*strategies.NOT_FINITE, *strategies.HUGE, *strategies.TINY)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", strategies.FLOATS)
def test_arrays_reach(kind, dtype):
    x = smallest(strategies.arrays(dtype=dtype, specials=EVERYTHING, repeated=True), KINDS[kind])
    assert x.dtype == dtype


def test_nothing_special_unless_asked_for():
    some = settings(thorough, max_examples=200)
    with pytest.raises(NoSuchExample):
        smallest(strategies.arrays(specials=()), lambda x: not np.isfinite(x).all() or (np.abs(x) > 100).any(), some)
    with pytest.raises(NoSuchExample):
        smallest(strategies.arrays(), lambda x: 0 in x.strides and x.size > 1, some)


@pytest.mark.parametrize("name", LAYOUTS)
@given(data=st.data())
def test_a_layout_changes_no_value(name, data):
    x = data.draw(strategies.arrays(specials=EVERYTHING, laid_out=False))
    y = LAYOUTS[name](x)
    assert_same(y, x)
    assert name != "unaligned" or unaligned(y) or not y.size or y.itemsize == 1


@given(strategies.broadcastable_shapes(3))
def test_shapes_broadcast(shapes):
    np.broadcast_shapes(*shapes)


@given(strategies.matmul_operands(repeated=True))
def test_operands_have_a_product(operands):
    x, y = operands
    assert_same(ml.Tensor(x) @ ml.Tensor(y), np.matmul(x, y))


@given(strategies.tensors(dtype="float32"))
def test_tensors_are_leaves(x):
    assert isinstance(x, ml.Tensor)
    assert x.requires_grad
    assert x.is_leaf
    assert x.dtype == np.float32


@given(strategies.masks((2, 3, 4), open_rows=True))
def test_open_rows_are_open(mask):
    assert mask.shape == (2, 3, 4)
    assert mask.dtype == bool
    assert mask.any(-1).all()


def test_masks_reach_closed_rows_unless_asked_otherwise():
    assert not smallest(strategies.masks((2, 3)), lambda mask: not mask.any(-1).all()).any(-1).all()


@given(strategies.token_batches(vocabulary=5, padding=2))
def test_padding_stands_at_the_end_only(batch):
    assert batch.min() >= 0
    assert batch.max() < 5
    padded = batch == 2
    assert not padded[:, 0].any()
    assert (padded == np.maximum.accumulate(padded, axis=1)).all()


def test_a_vocabulary_of_padding_alone_is_refused():
    with pytest.raises(ValueError, match="a vocabulary of 1 without the token 0 has none to draw"):
        smallest(strategies.token_batches(vocabulary=1, padding=0))


# --- modules and operations ----------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(strategies.modules())
def test_modules_fit_their_input_and_pass_a_gradient_check(drawn):
    module, x = drawn
    parameters = list(module.parameters())
    assert module.training
    assert all(p.array.any() for p in parameters)
    if x.requires_grad or parameters:
        names = [name for name, _ in module.named_parameters()]

        def function(*tensors):
            given = dict(zip(names, tensors))
            return called_with(module, given, tensors[-1] if x.requires_grad else x)

        gradcheck(function, [*parameters, *([x] if x.requires_grad else [])], limit=12, allow_independent=True)


def called_with(module, parameters, x):
    """The module's output with other tensors in the places of its parameters."""
    for name, tensor in parameters.items():
        *path, last = name.split(".")
        owner = module
        for part in path:
            owner = getattr(owner, part)
        object.__setattr__(owner, last, tensor)
    return module(x)


@pytest.mark.parametrize("op", [op for op in ops.all() if op.samples], ids=lambda op: op.name)
def test_most_cases_of_every_operation_are_legal(op):
    """A strategy whose cases are thrown away proves nothing."""
    legal = []

    @settings(max_examples=10, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(strategies.operation_cases(op))
    def collect(drawn):
        try:
            drawn.case.run(drawn.arrays)
            legal.append(True)
        except (ValueError, IndexError, TypeError):
            legal.append(False)

    with np.errstate(all="ignore"):
        collect()
    assert np.mean(legal) > 0.5, f"{sum(legal)} of {len(legal)} cases"


@given(st.data())
def test_resizing_keeps_what_belongs_together(data):
    """Equal sizes stay equal, 1 stays 1, and a domain of indices follows the size that it counts."""
    op = ops.get("cross_entropy")
    sample, shapes = data.draw(_resized(op, op.samples[5]))  # (2, 5, 3, 7), (2, 3, 7), (5,)
    x, target, weight = shapes
    assert (x[0], x[2], x[3]) == target
    assert weight == (x[1],)
    assert sample.domain == ("normal", f"index:{x[1]}", "probability")


def test_special_values_reach_only_what_a_gradient_flows_to():
    drawn = smallest(
        strategies.operation_cases(ops.get("cross_entropy"), specials=[np.nan]),
        lambda drawn: any(x is not None and x.dtype.kind == "f" and np.isnan(x).any() for x in drawn.arrays),
    )
    assert np.isnan(drawn.arrays[0]).sum() == 1
    assert "nan" in repr(drawn)
    assert "strides" in repr(drawn)
