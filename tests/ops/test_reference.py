"""Every operation against PyTorch's values, frozen in tests/reference: no torch needed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from minilm import ops
from minilm.testing import assert_same, cases

_path = Path(__file__).parents[1] / "reference" / "make.py"
_spec = importlib.util.spec_from_file_location("reference_make", _path)
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)

FROZEN = make.load()
CASES = [case for op in ops.all() for case in cases(op)]


def test_every_frozen_case_is_a_case_still():
    gone = sorted(set(FROZEN) - {case.id for case in CASES})
    assert not gone, f"run tests/reference/make.py: {gone[:5]}"


def test_every_case_is_frozen(torch):
    """With torch at hand: a case that PyTorch knows must be in the files."""
    known = {case.id for case in CASES if make.counterpart(case.op, torch) is not None}
    missing = sorted(known - set(FROZEN))
    assert not missing, f"run tests/reference/make.py: {len(missing)} cases are missing, such as {missing[:5]}"


@pytest.mark.parametrize("case", [c for c in CASES if c.id in FROZEN], ids=lambda case: case.id)
def test_equals_frozen_values(case):
    frozen = FROZEN[case.id]
    outputs, gradients = case.run(frozen["inputs"], frozen["cotangents"])
    for number, (y, expected) in enumerate(zip(outputs, frozen["outputs"], strict=True)):
        assert_same(y, expected, rtol=1e-6, name=f"output {number}")
    for number, (g, expected) in enumerate(zip(gradients, frozen["gradients"], strict=True)):
        if g is None or expected is None:
            assert g is None or not g.array.any()
            assert expected is None or not np.any(expected)
        else:
            assert_same(g, expected, rtol=1e-6, name=f"gradient of input {number}")
