"""Hooks on tensors, and gradients that are retained: PyTorch's semantics."""

from __future__ import annotations

from minilm.creation import tensor


def leaf(m, *values):
    return m.tensor(list(values), dtype=m.float64, requires_grad=True)


def test_hooks_run_in_order_and_replace(both):
    def story(m):
        x = leaf(m, 2.0)
        y = x * 3
        seen = []
        y.register_hook(lambda g: seen.append(("first", g.item())))
        y.register_hook(lambda g: g * 10)
        removed = y.register_hook(lambda g: g * 1000)
        y.register_hook(lambda g: seen.append(("last", g.item())))
        removed.remove()
        removed.remove()
        x.register_hook(lambda g: g + 1)
        (y * y).backward()
        return [[list(s) for s in seen], x.grad]

    both(story)


def test_a_leafs_hook_sees_the_whole_gradient_once(both):
    def story(m):
        x = leaf(m, 2.0)
        seen = []
        x.register_hook(lambda g: seen.append(g.item()))
        (x * x + x * 5).backward()
        return [seen, x.grad]

    both(story)


def test_a_gradient_kept_by_a_hook_stays_as_it_was(both):
    """The next pass adds into `.grad`, not into what somebody else holds."""

    def story(m):
        x, y = leaf(m, 2.0), leaf(m, 5.0)
        kept = []
        x.register_hook(kept.append)
        z = x + y
        z.register_hook(kept.append)
        z.backward()
        z = x + y
        z.backward(m.tensor([100.0], dtype=m.float64))
        return [[g.item() for g in kept], x.grad, y.grad]

    both(story)


def test_a_constant_returned_by_a_hook_stays_the_users(both):
    def story(m):
        x = leaf(m, 2.0)
        constant = m.tensor([7.0], dtype=m.float64)
        x.register_hook(lambda g: constant)
        for _ in range(2):
            (x * 3).backward()
        return [constant, x.grad]

    both(story)


def test_hooks_in_grad(both):
    """grad runs the hooks on its way, also on what it returns, and no others."""

    def story(m):
        x, w = leaf(m, 2.0), leaf(m, 3.0)
        seen = []
        x.register_hook(lambda g: g * 2)
        w.register_hook(lambda g: seen.append("w"))
        y = x * w
        y.register_hook(lambda g: g * 10)
        (dx,) = m.autograd.grad(y * y, x, retain_graph=True)
        (dy,) = m.autograd.grad(y * y, y)
        return [dx, dy, seen]

    both(story)


def test_hooks_are_recorded_with_create_graph(both):
    def story(m):
        x = leaf(m, 2.0)
        x.register_hook(lambda g: g * g)
        (dx,) = m.autograd.grad(x * x * x, x, create_graph=True)
        return [dx.detach(), m.autograd.grad(dx, x)[0]]

    both(story)


def test_a_hook_of_the_wrong_shape_is_refused(both, refused):
    def story(m):
        x = leaf(m, 2.0, 3.0)
        x.register_hook(lambda g: g.sum())
        return [refused((x * 2).sum().backward), x.grad]

    both(story)


def test_retain_grad(both):
    def story(m):
        x = leaf(m, 2.0)
        y = x * x
        y.retain_grad()
        y.retain_grad()
        x.retain_grad()
        (y * 3).backward(retain_graph=True)
        first = y.grad.clone()
        (y * 5).backward()
        return [first, y.grad, x.grad]

    both(story)


def test_retained_gradients_come_after_all_hooks(both):
    def story(m):
        x = leaf(m, 2.0)
        y = x * x
        y.retain_grad()
        y.register_hook(lambda g: g * 10)
        (y * 3).backward()
        return [y.grad, x.grad]

    both(story)


def test_retained_gradients_in_grad(both):
    def story(m):
        x = leaf(m, 2.0)
        y = x * x
        y.retain_grad()
        m.autograd.grad(y * 3, x)
        return [y.grad, x.grad]

    both(story)


def test_a_retained_tensor_may_die_first():
    x = tensor([2.0], requires_grad=True)
    y = x * x
    y.retain_grad()
    z = y * 3
    del y
    z.backward()
    assert x.grad.tolist() == [12.0]


def test_hooks_need_a_gradient(both, refused):
    def story(m):
        constant = m.tensor([1.0])
        return [refused(constant.register_hook, print), refused(constant.retain_grad)]

    both(story)
