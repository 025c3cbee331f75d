"""In-place changes: every method, through every kind of view, and values that were needed still."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import minilm as ml
from minilm import ops
from minilm.errors import AutogradError
from minilm.testing.samples import draw, seeded

# From a base of shape (4, 6) to a part of its memory. PyTorch refuses to change what split, chunk and unbind
# give ("multiple views"), so it takes another way to the same part.
VIEWS = {
    "itself": lambda y: y,
    "rows": lambda y: y[1:],
    "one row": lambda y: y[-2],
    "every second column": lambda y: y[:, 1::2],
    "new axis": lambda y: y[None, :, 2],
    "one element": lambda y: y[3, 4],
    "transposed": lambda y: y.transpose(0, 1),
    "reshaped": lambda y: y.reshape(2, 12)[1],
    "viewed": lambda y: y.view(-1),
    "split": lambda y: y.split(3, 1)[1] if isinstance(y, ml.Tensor) else y[:, 3:],
    "chunk": lambda y: y.chunk(2)[0] if isinstance(y, ml.Tensor) else y[:2],
    "unbound": lambda y: y.unbind(1)[5] if isinstance(y, ml.Tensor) else y[:, 5],
    "diagonal": lambda y: y.diagonal(1),
    "squeezed": lambda y: y[2:3].squeeze(0),
    "view of a view of a view": lambda y: y.transpose(0, 1)[1:5].reshape(2, 2, 4)[:, 1].diagonal(),
    "nothing": lambda y: y[4:],
}
every_view = pytest.mark.parametrize("view", list(VIEWS))
IN_PLACE = [op for op in ops.all() if op.inplace]


def leaf(m, values):
    return m.tensor(np.asarray(values, "float64").tolist(), dtype=m.float64, requires_grad=True)


def walked(m, tensors, leaves, name):
    """The gradients of a weighed sum of `tensors`; the weights are the same for minilm and PyTorch."""
    rng, total = seeded(name), 0.0
    for t in tensors:
        weights = rng.standard_normal(tuple(t.shape))
        total = total + (t * m.tensor(weights.tolist(), dtype=m.float64).reshape(tuple(t.shape))).sum()
    return [*tensors, *m.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)]


# --- every method ----------------------------------------------------------------------------------------


@every_view
@pytest.mark.parametrize("op", IN_PLACE, ids=lambda op: op.name)
def test_every_method_through_every_view(op, view, both):
    """The changed view, its base, a sister view, and the gradients of all that went in."""
    rng, domains = seeded(op.name), op.domains()
    shape = VIEWS[view](ml.zeros(4, 6)).shape
    first = draw(domains[0], (4, 6), rng, np.float64)
    others = [draw(d, shape, rng, np.float64, i + 1) for i, d in enumerate(domains[1 : len(op.inputs)])]
    options = op.samples[0].options

    def story(m):
        x = leaf(m, first)
        rest = [leaf(m, o).reshape(shape) if o.dtype.kind == "f" else leaf(m, o).reshape(shape) > 0 for o in others]
        leaves = [x, *(r for r in rest if r.requires_grad)]
        y = x * 1
        sister, part = y[0], VIEWS[view](y)
        # PyTorch has some of them (leaky_relu_) as functions only, and silu_ as silu(inplace=True)
        method = getattr(part, op.name + "_", None) or functools.partial(
            getattr(m.nn.functional, op.name), part, inplace=True
        )
        assert method(*rest, **options) is part
        return walked(m, [y, part, sister], leaves, op.name)

    both(story)


@every_view
@pytest.mark.parametrize(
    "change", ["copy_", "copy_ broadcast", "fill_", "fill_ tensor", "zero_", "+=", "-=", "*=", "/=", "**="]
)
def test_what_is_no_operation_of_its_own(change, view, both):
    rng = seeded(change)
    shape = VIEWS[view](ml.zeros(4, 6)).shape
    first, other = rng.uniform(0.5, 2, (4, 6)), rng.uniform(0.5, 2, shape)

    def story(m):
        x, w, number = leaf(m, first), leaf(m, other).reshape(shape), leaf(m, 1.25)
        y = x * 1
        part = VIEWS[view](y)
        if change == "copy_":
            part.copy_(w)
        elif change == "copy_ broadcast":
            part.copy_(number)
        elif change == "fill_":
            part.fill_(2.5)
        elif change == "fill_ tensor":
            part.fill_(number)
        elif change == "zero_":
            part.zero_()
        elif change == "+=":
            part += w
        elif change == "-=":
            part -= w
        elif change == "*=":
            part *= w
        elif change == "/=":
            part /= w
        else:
            part **= w
        return walked(m, [y, part], [x, w, number], change)

    both(story)


def test_the_gradient_through_a_changed_part():
    """The example of the documentation."""
    x = ml.ones(3, requires_grad=True)
    y = x * 2
    y[1:].mul_(3)
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 6.0, 6.0]


INDICES = {
    "integer": 1,
    "negative integer": -1,
    "slice": slice(1, 3),
    "step": (slice(None), slice(0, 5, 2)),
    "ellipsis": (..., 2),
    "none": (None, 0),
    "one element": (2, 3),
    "everything": ...,
    "list": [2, 0],
    "mask": np.arange(24).reshape(4, 6) % 5 == 1,
    "row mask": np.array([True, False, False, True]),
    "column mask": (slice(None), np.array([True, False, False, True, False, True])),
    "array": np.array([[3], [1]]),
    "two arrays": (np.array([3, 1, 0]), np.array([5, 0, 2])),
    "slice and array": (slice(1, 4), np.array([4, 0])),
    "integer and array": (2, np.array([4, 0])),
    "array, none, array": (np.array([1, 2]), None, np.array([4, 0])),
    "no rows": slice(4, 4),
    "mask of nothing": np.zeros((4, 6), bool),
}


def index_for(m, index):
    if isinstance(index, tuple):
        return tuple(index_for(m, part) for part in index)
    return m.tensor(index.tolist()) if isinstance(index, np.ndarray) else index


@pytest.mark.parametrize("value", ["tensor", "one number", "broadcast", "leading ones", "number", "numpy"])
@pytest.mark.parametrize("kind", list(INDICES))
def test_assignment(kind, value, both):
    index = INDICES[kind]
    shape = np.zeros((4, 6))[index].shape
    whole, given = seeded(kind).standard_normal((4, 6)), seeded(value).standard_normal(shape)

    def story(m):
        x = leaf(m, whole)
        w = leaf(m, given).reshape(shape)
        values = {
            "tensor": w,
            "one number": w.sum(),
            "broadcast": w.sum(0, keepdim=True) if shape else w,
            "leading ones": w.reshape((1, 1, *shape)),
            "number": 2.5,
            "numpy": m.tensor(given.tolist(), dtype=m.float64).reshape(shape),
        }
        y = x * 1
        part = y[1:]
        if m is ml and value == "numpy":
            values["numpy"] = given
        y[index_for(m, index)] = values[value]
        return walked(m, [y, part], [x, w], kind)

    both(story)


@pytest.mark.parametrize("kind", list(INDICES))
def test_assignment_without_a_tape(kind, both):
    """The short way, where nothing is recorded, does the same; also through a view, and into integers."""
    index = INDICES[kind]
    whole = np.arange(24.0).reshape(4, 6)

    def story(m):
        x = m.tensor(whole.tolist(), dtype=m.float64).transpose(0, 1).contiguous().transpose(0, 1)
        x[index_for(m, index)] = 2.75
        n = m.tensor(whole.astype(int).tolist())
        n[index_for(m, index)] = 2.75
        with m.no_grad():
            w = leaf(m, whole)
            w[index_for(m, index)] = w[index_for(m, index)] * 2
        return [x, n, w, w.is_leaf]

    both(story)


def test_an_augmented_assignment_to_a_part(both):
    """`y[i] += w` is getitem, add_ and setitem."""

    def story(m):
        x, w = leaf(m, np.arange(1, 7).reshape(2, 3)), leaf(m, [1, 2, 3])
        y = x * 1
        y[1] += w
        y[:, 0] *= w[:2]
        y[:, [1, 2]] -= w[1:]
        return walked(m, [y], [x, w], "augmented")

    both(story)


# --- histories --------------------------------------------------------------------------------------------


def test_a_chain_of_changes_by_turns(both):
    """Base and views change by turns; each sees what the others did."""

    def story(m):
        x, w = leaf(m, np.arange(1, 13).reshape(3, 4)), leaf(m, [2, 3, 4, 5])
        y = x * 1
        rows, column = y[1:], y[:, 1]
        corner = rows[:, 2:]
        rows.mul_(2)
        column.add_(w[:3])
        y.mul_(w)
        corner.copy_(corner + column[1:].reshape(2, 1))
        rows[0].sub_(w)
        y.diagonal().mul_(w[1:])
        return walked(m, [y, rows, column, corner], [x, w], "chain")

    both(story)


def test_a_base_without_a_gradient_gets_one_through_its_view(both):
    def story(m):
        x = leaf(m, [1, 2, 3])
        base = m.zeros(2, 3, dtype=m.float64)
        before, row = base[:, 1], base[0]
        row.copy_(x * x)
        base[1] = x
        seen = [base.requires_grad, before.requires_grad, base.is_leaf]
        return [seen, *walked(m, [base, before, row], [x], "base")]

    both(story)


def test_a_view_of_a_base_that_changed_before(both):
    def story(m):
        x = leaf(m, [1, 2, 3, 4])
        y = x * 1
        y.mul_(2)
        part = y[1:]
        part.mul_(x[:3])
        y.add_(1)
        return walked(m, [y, part], [x], "later")

    both(story)


def test_a_non_contiguous_base(both):
    def story(m):
        x = leaf(m, np.arange(1, 25).reshape(2, 3, 4))
        y = (x * 1).permute(2, 0, 1)[1:]
        y.transpose(0, 2)[:, :, 1].mul_(5)
        flat = y.reshape(-1)  # a copy: it must not know of later changes
        y[0] = 7.0
        return walked(m, [y, flat], [x], "strided")

    both(story)


def test_a_copy_is_no_view(both):
    def story(m):
        x = leaf(m, np.arange(1, 7).reshape(2, 3))
        y = x * 1
        picked, cloned, turned = y[[0, 1]], y.clone(), y.transpose(0, 1).contiguous()
        for other in (picked, cloned, turned):
            other.mul_(3)
        return walked(m, [y, picked, cloned, turned], [x], "copies")

    both(story)


def test_second_derivatives_through_changes(both):
    def story(m):
        x = leaf(m, [0.3, 0.7, -0.4])
        y = x.sin()
        y[1:].mul_(x[:2])
        y[0] = y[1] + y[2]
        y.add_(1)
        y.pow_(3)
        (first,) = m.autograd.grad(y.sum(), x, create_graph=True)
        (second,) = m.autograd.grad((first * first).sum(), x)
        return [y, first, second]

    both(story)


def test_gradients_retained_are_those_of_the_value_that_is_there(both):
    def story(m):
        x = leaf(m, [1, 2, 3])
        y, z = x * 2, x * 3
        y.retain_grad()
        z.retain_grad()
        y.mul_(3)
        z[1:].mul_(5)
        (y * y + z * z).sum().backward()
        return [y.grad, z.grad, x.grad]

    both(story)


def test_hooks_stay_with_the_value_they_were_put_on(both):
    def story(m):
        x, seen = leaf(m, [1, 2]), []
        y = x * 2
        y.register_hook(lambda g: seen.append(g.tolist()))
        y.mul_(3)
        y.sum().backward()
        return [seen, x.grad]

    both(story)


def test_an_operand_that_is_the_tensor_itself(both):
    """Also where PyTorch forbids the backward: it keeps the old value of the first operand alone."""

    def story(m):
        x = leaf(m, [1, 2, 3])
        y = x * 1
        y = y.mul_(y) if m is ml else y * y
        y.add_(y, alpha=2)
        y[1:].mul_(y[:-1].clone())
        y.abs_().sqrt_()
        return walked(m, [y], [x], "itself")

    both(story)


# --- overwritten values ----------------------------------------------------------------------------------


def here(offset=0):
    import sys

    return sys._getframe(1).f_lineno + offset


def test_the_error_names_both_operations_and_their_lines():
    x = ml.ones(3, requires_grad=True)
    y, saved = x.exp(), here()
    y.add_(1.0)
    overwritten = here(-1)
    with pytest.raises(AutogradError) as caught:
        y.sum().backward()
    text = str(caught.value)
    assert "exp needs its result" in text
    assert f"saved by exp at tests/ops/test_inplace.py:{saved}: y, saved = x.exp(), here()" in text
    assert f"overwritten by add_ at tests/ops/test_inplace.py:{overwritten}: y.add_(1.0)" in text
    assert "version 0 was saved, version 1" in text


CHANGES = {
    "add_": lambda w: w.add_(1),
    "mul_": lambda w: w[1:].mul_(2),
    "copy_": lambda w: w.transpose(0, 1).copy_(ml.zeros(3, 3)),
    "fill_": lambda w: w.fill_(3.0),
    "zero_": lambda w: w.diagonal().zero_(),
    "sub_": lambda w: w.__isub__(1),
    "uniform_": lambda w: w.uniform_(),
    "x[index] = value": lambda w: w.__setitem__(np.array([1]), 2.0),
    "clamp_": lambda w: w.detach().clamp_(0.0, 1.0),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_every_way_to_overwrite_is_noticed(name):
    """A constant that mul saved, changed by itself, through a view, or through detach()."""
    x, w = ml.ones(3, 3, requires_grad=True), ml.ones(3, 3)
    y = x * w
    CHANGES[name](w)
    with pytest.raises(AutogradError, match=r"mul needs its input 1.*\n.*saved by mul at") as caught:
        y.sum().backward()
    assert f"overwritten by {name} at tests/ops/test_inplace.py" in str(caught.value).replace("\n", " ")
    assert x.grad is None


def test_a_change_before_it_was_saved_and_one_of_what_nobody_saved(both, refused):
    def story(m):
        x, w = leaf(m, [1, 2]), m.tensor([3.0, 4.0], dtype=m.float64)
        w.mul_(2)
        y = x * w
        z = x + w
        (dx,) = m.autograd.grad(y.sum(), x, retain_graph=True)
        w.mul_(2)
        z.mul_(5)
        return [dx, refused(y.sum().backward), refused(z.sum().backward), x.grad]

    both(story)


def test_a_change_of_a_sister_view_is_noticed(both, refused):
    def story(m):
        x, w = leaf(m, [1, 2]), m.ones(2, 2, dtype=m.float64)
        y = x * w[0]
        w[1].mul_(5)  # other memory, but one version for all views, in PyTorch too
        return [refused(y.sum().backward)]

    both(story)


# --- other ways ------------------------------------------------------------------------------------------


def test_inference_tensors_change_without_a_count():
    with ml.inference_mode():
        x = ml.ones(3) * 2
        x.add_(1)
        x[0] = 9.0
    assert x.tolist() == [9.0, 3.0, 3.0]


@pytest.mark.parametrize(
    "change",
    [
        lambda m, y: y.tril_(),
        lambda m, y: y.triu_(1),
        lambda m, y: y.scatter_(1, m.tensor([[1], [2], [0]]), 5.0),
        lambda m, y: y.scatter_add_(1, m.tensor([[1], [2], [0]]), m.tensor([[1.0], [2.0], [3.0]], dtype=m.float64)),
        lambda m, y: y.index_add_(0, m.tensor([0, 0]), m.ones(2, 4, dtype=m.float64)),
        lambda m, y: y.index_fill_(1, m.tensor([1, 3]), -2.0),
    ],
)
def test_functions_written_over_their_input(both, change):
    """The changed tensor, which is the one that was called, and the gradient of what it was made of."""
    values = np.random.default_rng(1).standard_normal((3, 4))

    def story(m):
        x = leaf(m, values)
        y = x * 2
        assert change(m, y) is y
        return walked(m, [y], [x], "written over")

    both(story)
