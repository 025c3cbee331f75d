"""PyTorch's own database of operators and their sample inputs, run through ours: values and gradients.

PyTorch's tests draw their inputs from it (torch.testing._internal.common_methods_invocations.op_db, which needs the
package expecttest). Each registered operation is called with all samples of the entry of its name. What ours does not
take is listed in NOT_OURS with the reason, and refused; everything else must agree. Every tenth sample in float64 in
every run, all of them in `make test-deep`, whose last lines say how many of them agree.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

import minilm as ml
from minilm import ops
from minilm.errors import MinilmError
from minilm.testing.pytorch import assert_near, to_numpy

ALL = settings.default.max_examples > 1000  # the deep profile
PREFIX = "nn.functional."
SAMPLES = "PyTorch's samples: "  # as tests/conftest.py reads it
pytestmark = pytest.mark.filterwarnings("ignore")

# Operations under another name in the database, or in none.
OTHER_NAME = {
    "attention": "scaled_dot_product_attention",
    "getitem": "__getitem__",
    "unfold": "nn.functional.unfold",  # `unfold` alone is a Tensor's windows
}
NO_ENTRY = {
    "add_layer_norm": "PyTorch has no such function",
    "add_rms_norm": "PyTorch has no such function",
    "alias": "an engine's own part: the same values as another node",
    "binary_entropy": "a part of binary_cross_entropy, which has an entry",
    "cached_attention": "attention to keys in a cache, by a table of places; PyTorch has no such function",
    "cast": "Tensor.to, of which the database says nothing but devices and memory formats",
    "copy": "Tensor.copy_ changes its input; the database has none that does: tests/ops/test_inplace.py",
    "cross_entropy_rows": "the kernel under cross_entropy, which has an entry",
    "diagonal_scatter_zeros": "the backward of diagonal, which has an entry",
    "drop_rows": "dropout by the numbers of rows, of our own streams",
    "euclidean_norm": "a part of norm, which has an entry",
    "fold": "the database has none; it is the backward of unfold, which has an entry",
    "index_scatter": "the backward of getitem, which has an entry",
    "gru_layer": "a part of GRU, a module, of which the database has none",
    "largest": "what a search asks for: the first of topk in each row, without a gradient",
    "linear_gelu": "PyTorch has no such function",
    "linear_relu": "PyTorch has no such function",
    "lstm_layer": "a part of LSTM, a module",
    "matrix_product": "a part of matmul, which has an entry",
    "packed_self_attention": "self_attention without padding, for which PyTorch has nested tensors",
    "rnn_layer": "a part of RNN, a module",
    "self_attention": "the part of MultiheadAttention between its projections",
    "swapaxes": "NumPy's name for transpose, which has an entry",
    "view_write": "an engine's own part: what a change through a view does to its base",
}


def _pool(name: str) -> Callable[..., Any]:
    """The samples say everything that PyTorch's function takes, at its default too."""

    def pool(x: Any, kernel_size: Any, *, ceil_mode: bool = False, return_indices: bool = False, **rest: Any) -> Any:
        others = {"ceil_mode": ceil_mode, "return_indices": return_indices}
        refused = {key: value for key, value in others.items() if value}
        return getattr(ml.nn.functional, name)(x, kernel_size, **rest, **refused)

    return pool


def _mean_pool(name: str) -> Callable[..., Any]:
    def pool(
        x: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: Any = None,
    ) -> Any:
        others = {"ceil_mode": ceil_mode, "count_include_pad": not count_include_pad, "divisor": divisor_override}
        refused = {key: value for key, value in others.items() if value}
        return getattr(ml.nn.functional, name)(x, kernel_size, stride, padding, **refused)

    return pool


# Where the database's call is another than the operation's.
ADAPTED: dict[str, Callable[..., Any]] = {
    "getitem": lambda x, index: x[index],
    "einsum": lambda tensors, equation: ml.einsum(equation, *tensors),
    "where": lambda x, condition, other: ml.where(condition, x, other),
    "embedding": lambda weight, indices, **options: ml.nn.functional.embedding(indices.detach(), weight, **options),
    **{name: _pool(name) for name in ("max_pool1d", "max_pool2d")},
    "avg_pool1d": _mean_pool("avg_pool1d"),
    "avg_pool2d": _mean_pool("avg_pool2d"),
    # PyTorch's options say into which pieces it is cut; ours finds that out.
    "linear_cross_entropy": lambda *inputs, options=None, **rest: ml.nn.functional.linear_cross_entropy(
        *inputs, **rest
    ),
    "index_put": lambda x, index, values, accumulate: ops.get("index_put").apply(
        x, values, tuple(part.array for part in index), **({"accumulate": True} if accumulate else {})
    ),
}


@dataclass(frozen=True)
class Rule:
    """Samples that ours does not take.

    Attributes:
        op: the operation's name, "*" for any.
        when: which of its samples.
        why: the reason.
        refused: whether ours answers with an error; random results are only never compared.
    """

    op: str
    when: Callable[[Any], bool]
    why: str
    refused: bool = True


def has(*names: str) -> Callable[[Any], bool]:
    """Samples that give one of these keyword arguments."""
    return lambda sample: any(name in sample.kwargs for name in names)


def has_true(name: str) -> Callable[[Any], bool]:
    """Samples in which this keyword argument is true."""
    return lambda sample: bool(sample.kwargs.get(name, False))


def mode(sample: Any) -> str:
    return sample.args[1] if len(sample.args) > 1 else "constant"


def twice_the_same(sample: Any) -> bool:
    """Samples of index_fill whose index names a place twice, and whose value wants a gradient."""
    _, index, value = sample.args
    return getattr(value, "requires_grad", False) and index.unique().numel() < index.numel()


def pools(option: str, place: int, default: Any) -> Callable[[Any], bool]:
    """Samples of a pool that give this option, by name or by place, another value than its default."""

    def when(sample: Any) -> bool:
        by_place = sample.args[place] if len(sample.args) > place else default
        return bool(sample.kwargs.get(option, by_place) != default)

    return when


NOT_OURS = [
    Rule("*", has("dtype"), "no result type beside a computation: x.to(dtype) before it says where rounding happens"),
    Rule("div", has("rounding_mode"), "floor_divide is the name for it"),
    Rule("round", has("decimals"), "rounding is to whole numbers"),
    Rule("nonzero", has("as_tuple"), "one form only, (N, axes)"),
    Rule("norm", lambda s: "nuc" in s.args, "the nuclear norm needs singular values"),
    Rule("linear_cross_entropy", lambda s: s.args[0].ndim > 2, "weight is (V, C): one class a position"),
    Rule("pad", lambda s: mode(s) != "constant", "constant padding only"),
    Rule("pad", lambda s: min(s.args[0]) < 0 and mode(s) == "constant", "a negative size would cut; slices do that"),
    Rule(
        "clamp",
        lambda s: any(getattr(a, "requires_grad", False) for a in s.args),
        "no gradient to the bounds; minimum and maximum have one",
    ),
    Rule(
        "masked_fill", lambda s: getattr(s.args[1], "requires_grad", False), "no gradient to the value; `where` has one"
    ),
    *(
        Rule(name, lambda s: getattr(s.args[0], "requires_grad", False), "no gradient to the bound; see clamp")
        for name in ("clamp_min", "clamp_max")
    ),
    *(
        Rule(name, pools("ceil_mode", 3, False), "windows that lie partly beyond the padding are left out")
        for name in ("max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d")
    ),
    *(
        Rule(name, has_true("return_indices"), "values only; unfold and max give the places")
        for name in ("max_pool1d", "max_pool2d")
    ),
    Rule("avg_pool2d", pools("divisor_override", 5, None), "a mean divides by the number of elements"),
    Rule("batch_norm", lambda s: s.input.ndim < 2, "(B, C, ...) has at least two axes"),
    Rule(
        "index_fill", twice_the_same, "a value's gradient counts each place once, also one that is named twice", False
    ),
    Rule("index_fill", lambda s: s.input.ndim == 0, "a 0-d tensor has no axis to fill along"),
    Rule("index_put", lambda s: s.kwargs.get("accumulate", False), "accumulating is index_add and scatter_add"),
    Rule(
        "cat", lambda s: len({t.ndim for t in s.input}) > 1, "PyTorch's older days: an empty 1-d tensor fits anything"
    ),
    Rule(
        "gather",
        lambda s: s.args[1].ndim != s.input.ndim,
        "index and x have as many axes, also where both are empty or 0-d",
    ),
    Rule("index_add", lambda s: s.input.ndim == 0, "a 0-d tensor has no axis to add along"),
    Rule("index_select", lambda s: s.input.ndim == 0, "a 0-d tensor has no axis to select from"),
    Rule("dropout", lambda s: 0 < s.kwargs.get("p", 0.5) < 1 and s.kwargs.get("training", True), "random", False),
    Rule("attention", lambda s: s.kwargs.get("dropout_p", 0) > 0, "random", False),
    Rule("multinomial", lambda s: True, "random: tests/ops/test_random.py", False),
]


# --- one sample on both sides ------------------------------------------------------------------------------------


def function_of(name: str) -> Callable[..., Any]:
    """What users call for the operation: its adapter, the function in minilm or in functional, or the method."""
    if name in ADAPTED:
        return ADAPTED[name]
    public = OTHER_NAME.get(name, name)
    for place in (ml, ml.nn.functional):
        if public in place.__all__:
            return getattr(place, public)
    return getattr(ml.Tensor, public, None) or ops.get(name).apply


def ours_of(value: Any) -> Any:
    """PyTorch's tensors and dtypes as ours, in the same memory layout; the rest as it is."""
    if hasattr(value, "detach"):
        return ml.Tensor(value.detach().numpy().copy("K"), requires_grad=value.requires_grad)
    if type(value).__name__ == "dtype":
        return np.dtype(str(value).removeprefix("torch."))
    if isinstance(value, (tuple, list)):
        return (list if isinstance(value, list) else tuple)(ours_of(v) for v in value)
    if isinstance(value, dict):
        return {key: ours_of(v) for key, v in value.items()}
    return value


def flat(value: Any) -> list[Any]:
    """The tensors and numbers in a result or in arguments, however deep."""
    if isinstance(value, dict):
        value = list(value.values())
    return [v for part in value for v in flat(part)] if isinstance(value, (tuple, list)) else [value]


def leaves(value: Any) -> list[Any]:
    return [v for v in flat(value) if getattr(v, "requires_grad", False)]


def compare(torch: Any, entry: Any, function: Callable[..., Any], sample: Any) -> None:
    """Raise AssertionError unless values and gradients of one sample agree; any other error is ours."""
    theirs, given = (sample.input, *sample.args), ours_of([sample.input, *sample.args])
    options = ours_of(sample.kwargs)
    expected = flat(entry.op(*theirs, **sample.kwargs))
    found = flat(function(*given, **options))
    assert len(found) == len(expected), f"{len(found)} results where PyTorch has {len(expected)}"
    for number, (y, t) in enumerate(zip(found, expected)):
        assert_near(y, to_numpy(t), 1.0, f"result {number}")
        assert y.requires_grad == t.requires_grad, f"result {number}: requires_grad is {y.requires_grad}"
    flowing = [(y, t) for y, t in zip(found, expected) if t.requires_grad]
    if not flowing:
        return
    rng = np.random.default_rng(0)
    cotangents = [np.asarray(rng.standard_normal(y.shape)).astype(y.dtype) for y, _ in flowing]
    wanted, ours = leaves([*theirs, sample.kwargs]), leaves([*given, options])
    settings = {"allow_unused": True, "materialize_grads": True}
    expected = torch.autograd.grad(
        [t for _, t in flowing], wanted, [torch.from_numpy(c) for c in cotangents], **settings
    )
    found = ml.autograd.grad([y for y, _ in flowing], ours, cotangents, **settings)
    for number, (g, t) in enumerate(zip(found, expected)):
        assert_near(g, to_numpy(t), 1.0, f"gradient {number}")


# --- all samples of an operation -----------------------------------------------------------------------------------

OPS = [op.name for op in ops.all() if op.name not in NO_ENTRY]


def entries_of(op_db: list[Any], name: str) -> list[Any]:
    public = OTHER_NAME.get(name, name)
    return [entry for entry in op_db if entry.name in (public, PREFIX + public)]


def element_types(torch: Any, entry: Any) -> list[Any]:
    """The two that we train in; for operations on integers and bools only, these."""
    floating = [kind for kind in (torch.float64, torch.float32) if kind in entry.dtypes]
    return floating or [kind for kind in (torch.int64, torch.bool) if kind in entry.dtypes]


def test_every_operation_has_an_entry_or_an_excuse(op_db):
    without = {op.name for op in ops.all() if not entries_of(op_db, op.name)}
    assert without == set(NO_ENTRY)
    assert {rule.op for rule in NOT_OURS} - {"*"} <= set(OPS)


@pytest.mark.parametrize("rule", [rule for rule in NOT_OURS if rule.refused], ids=lambda rule: f"{rule.op}: {rule.why}")
def test_what_is_not_taken_stands_in_the_docs(rule):
    page = (Path(__file__).parents[2] / "docs" / "pytorch.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if line.startswith("|") and rule.why in line]
    assert len(rows) == 1
    assert rule.op == "*" or f"`{rule.op}`" in rows[0].split("|")[1]


@pytest.mark.parametrize("name", OPS)
def test_pytorchs_samples_agree(name, torch, op_db, request):
    function, rules = function_of(name), [rule for rule in NOT_OURS if rule.op in (name, "*")]
    counts: collections.Counter[str] = collections.Counter()
    used, wrong = set(), []
    for entry in entries_of(op_db, name):
        for kind in element_types(torch, entry)[: None if ALL else 1]:
            torch.manual_seed(0)
            differentiable = entry.supports_autograd and kind.is_floating_point
            samples = list(entry.sample_inputs("cpu", kind, requires_grad=differentiable))
            for number, sample in enumerate(samples if ALL else samples[::10]):
                rule = next((rule for rule in rules if rule.when(sample)), None)
                known = len(wrong)
                try:
                    if rule is None or rule.refused:
                        compare(torch, entry, function, sample)
                except Exception as error:
                    if rule is None or not isinstance(error, (MinilmError, TypeError, IndexError)):
                        message = f"{type(error).__name__}: {error}"
                        wrong.append(f"{entry.name} {entry.variant_test_name} {kind}, sample {number}: {message}")
                else:
                    if rule is not None and rule.refused:
                        wrong.append(f"{entry.name} {kind}, sample {number} agrees, but NOT_OURS says: {rule.why}")
                used.add(rule)
                right = "agree" if rule is None else f"not ours: {rule.why}"
                counts[right if len(wrong) == known else "WRONG"] += 1
    request.node.user_properties.append((SAMPLES + name, dict(counts)))
    assert not wrong, f"{len(wrong)} of {counts.total()} samples:\n" + "\n".join(wrong[:20])
    if ALL:
        stale = [rule.why for rule in rules if rule.op == name and rule not in used]
        assert not stale, f"no sample is refused because of {stale}"
