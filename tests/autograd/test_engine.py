"""backward and grad: PyTorch's semantics, and our errors' words."""

from __future__ import annotations

import numpy as np
import pytest

from minilm import autograd
from minilm.creation import tensor
from minilm.errors import AutogradError, ShapeError
from minilm.tensor import Tensor


def leaf(m, *values):
    return m.tensor(list(values), dtype=m.float64, requires_grad=True)


# --- accumulation ----------------------------------------------------------------------------------


def test_gradients_accumulate(both):
    def story(m):
        x, w = leaf(m, 1.0, 2.0), leaf(m, 3.0, -1.0)
        seen = []
        for scale in (1.0, 10.0, 100.0):
            ((x * w + x).sum() * scale).backward()
            seen += [x.grad.clone(), w.grad.clone()]
        return seen

    both(story)


def test_one_tensor_used_many_times(both):
    def story(m):
        x = leaf(m, 1.5, -2.0)
        y = x * x + x * 3 - x / x
        y = y * y + x
        y.sum().backward()
        return [y, x.grad]

    both(story)


def test_accumulation_adds_into_the_same_memory(both):
    """An optimizer may hold on to `.grad`: it is the same tensor after the second pass."""

    def story(m):
        x = leaf(m, 1.0, 2.0)
        (x * 2).sum().backward()
        first = x.grad
        (x * 5).sum().backward()
        return [x.grad is first, first]

    both(story)


def test_two_leaves_do_not_share_a_gradient(both):
    def story(m):
        x, y = leaf(m, 1.0, 2.0), leaf(m, 3.0, 4.0)
        (x + y).backward(m.ones(2, dtype=m.float64))
        x.grad.add_(10.0)
        return [x.grad, y.grad]

    both(story)


def test_the_gradient_given_is_not_adopted(both):
    def story(m):
        x = leaf(m, 1.0, 2.0)
        given = m.tensor([3.0, 4.0], dtype=m.float64)
        (x + 0).backward(given)
        x.grad.add_(1.0)
        return [given, x.grad]

    both(story)


def test_a_leaf_is_its_own_root(both):
    def story(m):
        x = leaf(m, 3.0)
        x.backward(m.tensor([7.0], dtype=m.float64))
        return [x.grad, x.is_leaf]

    both(story)


def test_several_roots(both):
    def story(m):
        x = leaf(m, 1.0, 2.0)
        y, z = x * x, x * 3
        weights = [m.tensor([1.0, 10.0], dtype=m.float64), m.tensor([5.0, 7.0], dtype=m.float64)]
        m.autograd.backward([y, z], weights)
        return x.grad

    both(story)


def test_a_root_inside_the_graph_of_another(both):
    def story(m):
        x = leaf(m, 2.0)
        y = x * x
        z = y * 3
        m.autograd.backward([z.sum(), y.sum()])
        return x.grad

    both(story)


def test_the_gradient_has_the_tensors_own_type():
    x = Tensor(np.ones(2, np.float32), requires_grad=True)
    (x * 2).backward(np.ones(2, np.float64))
    assert x.grad.dtype == np.float32


# --- retain_graph, create_graph -----------------------------------------------------------------------


def test_retain_graph(both, refused):
    def story(m):
        x = leaf(m, 2.0, 3.0)
        y = (x * x).sum()
        y.backward(retain_graph=True)
        first = x.grad.clone()
        y.backward()
        return [first, x.grad.clone(), refused(y.backward), x.grad]

    both(story)


def test_a_graph_that_saved_nothing_can_be_walked_twice(both, refused):
    def story(m):
        x = leaf(m, 2.0)
        y = x + 1
        y.backward()
        return [refused(y.backward), x.grad]

    both(story)


def test_the_error_of_a_second_backward():
    x = tensor([2.0], requires_grad=True)
    y = x * x
    y.backward()
    with pytest.raises(AutogradError) as error:
        y.backward()
    text = str(error.value)
    assert "mul: its saved values were freed by an earlier backward pass" in text
    assert "retain_graph=True" in text
    assert "test_engine.py" in text
    assert "y = x * x" in text
    assert x.grad.tolist() == [4.0]


def test_half_of_a_shared_graph_is_freed(both, refused):
    def story(m):
        x = leaf(m, 2.0)
        y = x * x
        a, b = y * 3, y * y
        a.backward()
        return [refused(b.backward), x.grad]

    both(story)


@pytest.mark.filterwarnings("ignore:Using backward:UserWarning")  # PyTorch's own
def test_create_graph_keeps_the_graph(both, refused):
    def story(m):
        x = leaf(m, 2.0)
        y = x * x * x
        y.backward(create_graph=True)
        gradient = x.grad
        seen = [gradient.requires_grad, gradient.detach()]
        (second,) = m.autograd.grad(gradient, x)
        return [*seen, second]

    both(story)


@pytest.mark.parametrize("name", ["sin", "exp", "tanh", "log", "sqrt", "sigmoid", "cube", "quotient"])
def test_third_derivatives(both, name):
    def story(m):
        x = leaf(m, 0.3, 1.7)
        functions = {"cube": lambda x: x * x * x + x**3, "quotient": lambda x: x / (1 + x * x)}
        y = functions.get(name, lambda x: getattr(x, name)())(x)
        seen = []
        for order in range(3):
            (y,) = m.autograd.grad(y.sum(), x, create_graph=order < 2)
            seen.append(y.detach())
        return seen

    both(story)


def test_gradient_penalty(both):
    """The gradient of a gradient's norm, as in a penalty, accumulated into weights."""

    def story(m):
        x, w = leaf(m, 0.5, -1.0), leaf(m, 2.0, 0.7)
        y = ((x * w).tanh() * x).sum()
        (dx,) = m.autograd.grad(y, x, create_graph=True)
        (y + (dx * dx).sum()).backward()
        return [x.grad, w.grad]

    both(story)


@pytest.mark.filterwarnings("ignore:Using backward:UserWarning")
def test_create_graph_accumulates_twice(both):
    def story(m):
        x = leaf(m, 2.0)
        (x * x * x).backward(create_graph=True)
        (x * x).backward(create_graph=True)
        return [x.grad.detach(), x.grad.requires_grad, m.autograd.grad(x.grad, x)[0]]

    both(story)


# --- grad ---------------------------------------------------------------------------------------------------


def test_grad_touches_no_grad(both):
    def story(m):
        x, w = leaf(m, 2.0), leaf(m, 5.0)
        y = x * w
        found = m.autograd.grad(y, [x, w])
        return [list(found), x.grad, w.grad]

    both(story)


def test_grad_of_what_is_no_leaf(both):
    def story(m):
        x = leaf(m, 2.0, 3.0)
        y = x * x
        z = y * y + y
        (dy,) = m.autograd.grad(z.sum(), y, retain_graph=True)
        dy2, dx = m.autograd.grad(z.sum(), [y, x], retain_graph=True)
        (itself,) = m.autograd.grad(z.sum(), z, retain_graph=True)
        (root,) = m.autograd.grad(z, z, m.ones(2, dtype=m.float64))
        return [dy, dy2, dx, itself, root]

    both(story)


def test_grad_walks_only_what_lies_between(both, refused):
    """Nodes off the way keep their saved values: another walk can still use them."""

    def story(m):
        x, w = leaf(m, 2.0), leaf(m, 3.0)
        left, right = x * x, w * w
        z = left + right
        (dx,) = m.autograd.grad(z, x)
        return [dx, refused(right.backward), w.grad, refused(left.backward)]

    both(story)


def test_unused_inputs(both, refused):
    def story(m):
        x, w = leaf(m, 2.0), leaf(m, 3.0, 4.0)
        y = x * x
        seen = [refused(m.autograd.grad, y, [x, w], retain_graph=True)]
        seen += m.autograd.grad(y, [x, w], allow_unused=True, retain_graph=True)
        seen += m.autograd.grad(y, [x, w], materialize_grads=True, allow_unused=True)
        return seen

    both(story)


def test_the_error_for_an_unused_input():
    x, w = tensor([2.0], requires_grad=True), tensor([3.0, 4.0], requires_grad=True)
    with pytest.raises(AutogradError, match=r"do not depend on input 1 of shape \(2,\).*allow_unused=True"):
        autograd.grad(x * x, [x, w])


def test_inputs_of_backward(both, refused):
    def story(m):
        x, w = leaf(m, 2.0), leaf(m, 3.0)
        y = x * w
        z = y * y
        z.backward(inputs=[x], retain_graph=True)
        seen = [x.grad.clone(), w.grad]
        z.backward(inputs=w, retain_graph=True)
        seen += [x.grad.clone(), w.grad.clone()]
        y.retain_grad()
        z.backward(inputs=[y], retain_graph=True)
        return [*seen, y.grad, x.grad, refused(z.backward, inputs=[])]

    both(story)


def test_a_computed_input_of_backward_gets_its_grad(both):
    def story(m):
        x = leaf(m, 2.0)
        y = x * x
        (y * 3).backward(inputs=[y, x])
        return [x.grad]

    both(story)


def test_the_same_input_twice(both):
    def story(m):
        x = leaf(m, 2.0)
        return list(m.autograd.grad(x * x, [x, x]))

    both(story)


def test_what_cannot_be_differentiated(both, refused):
    def story(m):
        x = leaf(m, 1.0, 2.0)
        constant = m.tensor([1.0, 2.0], dtype=m.float64)
        return [
            refused((x * 2).backward),  # two elements and no gradient
            refused(constant.sum().backward),
            refused(m.autograd.grad, x.sum(), constant),
            refused((x * 2).backward, m.ones(3, dtype=m.float64)),
            refused(m.autograd.grad, constant.sum(), x),
        ]

    both(story)


def test_the_errors_words():
    x = tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(AutogradError, match=r"shape \(2,\) has 2 elements; say which direction"):
        (x * 2).backward()
    with pytest.raises(AutogradError, match="does not require a gradient and no operation recorded it"):
        tensor([1.0]).backward()
    with pytest.raises(ShapeError, match=r"the gradient has shape \(3,\), the tensor \(2,\)"):
        (x * 2).backward(np.ones(3))
    with pytest.raises(AutogradError, match="1 tensors but 2 gradients"):
        autograd.backward([x.sum()], [None, None])
    with pytest.raises(AutogradError, match="inputs"):
        x.sum().backward(inputs=[])


# --- detach, leaves, requires_grad ----------------------------------------------------------------------------------


def test_detach_stops_the_gradient_and_shares_memory(both):
    def story(m):
        x = leaf(m, 2.0)
        y = x * x
        d = y.detach()
        (d * y).backward()
        same = d.detach()
        same.add_(1.0)
        return [x.grad, d.requires_grad, d.is_leaf, d]

    both(story)


def test_a_change_through_detach_is_noticed(both, refused):
    def story(m):
        x = leaf(m, 2.0)
        y = x.exp()
        y.detach().add_(1.0)
        z = x.exp()
        z.data.add_(1.0)  # unguarded, as in PyTorch
        return [refused(y.backward), refused(z.backward), x.grad]

    both(story)


def test_detach_in_place(both):
    def story(m):
        x = leaf(m, 2.0)
        y = x * x
        y.detach_()
        return [y.is_leaf, y.requires_grad, (y * x).requires_grad]

    both(story)


def test_requires_grad_rules(both, refused):
    def story(m):
        x = leaf(m, 2.0)
        y = x * x
        z = m.tensor([1.0])
        seen = [z.requires_grad, z.requires_grad_().requires_grad, z.requires_grad_(False).requires_grad]
        seen += [refused(setattr, y, "requires_grad", False), y.requires_grad]
        seen += [refused(m.tensor, [1], requires_grad=True), refused(m.tensor([1]).requires_grad_)]
        seen += [(m.tensor([1]) * 2).requires_grad, (x > 0).requires_grad, x.is_leaf, y.is_leaf, z.is_leaf]
        return seen

    both(story)


def test_partial_graphs(both):
    """Only the tensors that want a gradient get one; the others cost nothing."""

    def story(m):
        x, w = leaf(m, 2.0), leaf(m, 3.0)
        c = m.tensor([5.0], dtype=m.float64)
        y = x * c + w * c * c
        y.backward()
        return [x.grad, w.grad, c.grad]

    both(story)


def test_next_functions_lead_to_the_leaves(both):
    def story(m):
        x = leaf(m, 2.0)
        y = (x * 3).exp()
        (before, index), *_ = y.grad_fn.next_functions
        return [index, before is not None, len(y.grad_fn.next_functions), x.grad_fn]

    both(story)


def test_an_output_used_by_no_one_and_an_int_result(both):
    def story(m):
        x = leaf(m, 2.0, -1.0)
        mask = x > 0
        y = x * mask
        y.sum().backward()
        return [mask.requires_grad, x.grad]

    both(story)
