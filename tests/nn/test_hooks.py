"""Hooks: the same story told to minilm and to PyTorch must end alike."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import nn
from minilm.errors import ModuleError
from minilm.testing import assert_same

# PyTorch mentions that a backward hook fires early where no input requires a gradient; that is what we compare.
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")

X = np.random.default_rng(1).standard_normal((3, 5))
W = np.random.default_rng(2).standard_normal((2, 5))
ABOVE = np.random.default_rng(3).standard_normal((3, 2))


def plain(value: Any) -> Any:
    """Tensors of either side as arrays, and modules by the name of their class, inside tuples and dicts too."""
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if hasattr(value, "named_parameters"):
        return type(value).__name__
    if isinstance(value, ml.Tensor):
        return value.array.copy()
    return value.detach().numpy().copy() if hasattr(value, "detach") else value


def agree(ours: Any, theirs: Any, where: str = "story") -> None:
    if isinstance(theirs, list):
        assert isinstance(ours, list), f"{where}: {ours!r} where PyTorch gives {theirs!r}"
        assert len(ours) == len(theirs), f"{where}: {len(ours)} things, PyTorch {len(theirs)}: {ours} {theirs}"
        for i, (a, b) in enumerate(zip(ours, theirs)):
            agree(a, b, f"{where}[{i}]")
    elif isinstance(theirs, np.ndarray):
        assert ours is not None, f"{where}: None where PyTorch gives {theirs}"
        assert_same(ours, theirs, name=where)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs), where
        agree(list(ours.values()), list(theirs.values()), where)
    else:
        assert ours == theirs, f"{where}: {ours!r} where PyTorch gives {theirs!r}"


@pytest.fixture
def both(torch: Any) -> Callable[[Callable[[Any], Any]], None]:
    """`both(story)`: run `story(library)`, a generator of things that must be equal, with both libraries."""
    libraries = (
        SimpleNamespace(nn=nn, tensor=ml.tensor, no_grad=ml.no_grad, grad=ml.autograd.grad),
        SimpleNamespace(nn=torch.nn, tensor=torch.tensor, no_grad=torch.no_grad, grad=torch.autograd.grad),
    )

    def compare(story: Callable[[Any], Any]) -> None:
        ours, theirs = (plain(list(story(library))) for library in libraries)
        assert theirs
        agree(ours, theirs)

    return compare


def linear(library: Any) -> Any:
    layer = library.nn.Linear(5, 2, bias=False)
    layer.weight = library.nn.Parameter(library.tensor(W))
    return layer


def noting(log: list[Any], name: str, answer: Any = None) -> Callable[..., Any]:
    """A hook that writes down what it was given and returns `answer`, or what `answer` makes of its arguments."""

    def hook(*given: Any) -> Any:
        log.append([name, list(given)])
        return answer(*given) if callable(answer) else answer

    return hook


def test_forward_hooks_see_inputs_and_outputs(both: Any) -> None:
    def story(library: Any) -> Any:
        log: list[Any] = []
        layer, x = linear(library), library.tensor(X)
        layer.register_forward_pre_hook(noting(log, "before"))
        layer.register_forward_hook(noting(log, "after"))
        yield layer(x)
        yield log
        assert len(log) == 2

    both(story)


def test_what_a_hook_returns_takes_the_place(both: Any) -> None:
    def story(library: Any) -> Any:
        layer, x = linear(library), library.tensor(X)
        layer.register_forward_pre_hook(lambda m, args: args[0] * 2)
        layer.register_forward_pre_hook(lambda m, args: (args[0] + 1,))
        layer.register_forward_hook(lambda m, args, y: y * 3 + args[0].sum())
        layer.register_forward_hook(lambda m, args, y: y * y)
        yield layer(x)

    both(story)


def test_hooks_run_in_order_and_prepended_ones_first(both: Any) -> None:
    def story(library: Any) -> Any:
        log: list[Any] = []
        layer, x = linear(library), library.tensor(X)
        for name in "ab":
            layer.register_forward_pre_hook(noting(log, f"before {name}"))
            layer.register_forward_hook(noting(log, f"after {name}"))
            layer.register_full_backward_hook(noting(log, f"back {name}"))
        for name in "cd":
            layer.register_forward_pre_hook(noting(log, f"before {name}"), prepend=True)
            layer.register_forward_hook(noting(log, f"after {name}"), prepend=True)
            layer.register_full_backward_hook(noting(log, f"back {name}"), prepend=True)
        layer(x).sum().backward()
        names = [name for name, _ in log]
        assert len(names) == 12
        yield names

    both(story)


def test_a_handle_takes_its_hook_away_and_no_other(both: Any) -> None:
    def story(library: Any) -> Any:
        log: list[Any] = []
        layer, x = linear(library), library.tensor(X)
        handles = [
            register(noting(log, name), **options)
            for name, register, options in [
                ("before 1", layer.register_forward_pre_hook, {}),
                ("before 2", layer.register_forward_pre_hook, {"prepend": True}),
                ("after 1", layer.register_forward_hook, {}),
                ("after 2", layer.register_forward_hook, {}),
                ("back 1", layer.register_full_backward_hook, {}),
                ("back 2", layer.register_full_backward_hook, {}),
            ]
        ]
        for handle in [None, *handles]:
            if handle is not None:
                handle.remove()
                handle.remove()  # a second time it does nothing
            log.clear()
            layer(x).sum().backward()
            yield [name for name, _ in log]

    both(story)


def test_named_arguments_are_shown_to_who_asks(both: Any) -> None:
    def story(library: Any) -> Any:
        class Scale(library.nn.Module):
            def forward(self, x: Any, by: Any = 1, plus: Any = 0) -> Any:
                return x * by + plus

        log: list[Any] = []
        layer, x = Scale(), library.tensor(X)
        layer.register_forward_pre_hook(noting(log, "plain"))
        layer.register_forward_pre_hook(noting(log, "named"), with_kwargs=True)
        layer.register_forward_pre_hook(
            lambda m, args, named: (args, {**named, "plus": named["by"] + 1}), with_kwargs=True
        )
        layer.register_forward_hook(noting(log, "plain after"))
        layer.register_forward_hook(
            noting(log, "named after", lambda m, args, named, y: y * named["plus"]), with_kwargs=True
        )
        yield layer(x, by=3)
        yield log

    both(story)


@pytest.mark.parametrize("answer", ["args", "three"])
def test_a_hook_with_named_arguments_must_return_both(answer: str) -> None:
    layer = nn.Identity()
    wrong = {"args": (ml.ones(1),), "three": (1, 2, 3)}[answer]
    layer.register_forward_pre_hook(lambda m, args, named: wrong, with_kwargs=True)
    with pytest.raises(TypeError, match=r"Identity.*\(args, kwargs\)"):
        layer(ml.ones(2))


@pytest.mark.parametrize("learns", [True, False])
def test_backward_hooks_see_both_gradients(both: Any, learns: bool) -> None:
    def story(library: Any) -> Any:
        log: list[Any] = []
        layer, x = linear(library), library.tensor(X)
        x.requires_grad_(learns)
        layer.register_full_backward_hook(noting(log, "back"))
        y = layer(x)
        yield y
        y.backward(library.tensor(ABOVE))
        yield x.grad
        yield layer.weight.grad
        yield log
        assert len(log) == 1

    both(story)


def test_a_backward_hook_may_change_the_gradient_of_the_input_only(both: Any) -> None:
    def story(library: Any) -> Any:
        layer, x = linear(library), library.tensor(X)
        x.requires_grad_()
        log: list[Any] = []
        layer.register_full_backward_hook(lambda m, before, above: (before[0] * 2,))
        layer.register_full_backward_hook(noting(log, "second", lambda m, before, above: (before[0] + 1,)))
        layer(x).backward(library.tensor(ABOVE))
        yield x.grad
        yield layer.weight.grad
        yield log

    both(story)


def test_several_inputs_and_outputs(both: Any) -> None:
    def story(library: Any) -> Any:
        class Mixed(library.nn.Module):
            def forward(self, a: Any, n: Any, b: Any, c: Any, named: Any = None) -> Any:
                return a * b * n, "word", c * named

        log: list[Any] = []
        layer = Mixed()
        layer.register_full_backward_hook(noting(log, "back"))
        a, b, c, named = (library.tensor(X + i) for i in range(4))
        for tensor in (a, c, named):
            tensor.requires_grad_()
        first, word, second = layer(a, 3, b, c, named=named)
        yield word
        yield [first, second]
        (first.sum() + (second * second).sum()).backward()
        yield [a.grad, b.grad, c.grad, named.grad]
        yield list(log)
        log.clear()
        layer(a, 3, b, c, named=named)[2].sum().backward()
        yield [entry[1][1:] for entry in log]

    both(story)


def test_hooks_of_parts_run_from_the_outside_in_and_back(both: Any) -> None:
    def story(library: Any) -> Any:
        log: list[Any] = []
        model = library.nn.Sequential(linear(library), library.nn.Sequential(library.nn.Tanh(), library.nn.GELU()))
        for name, part in model.named_modules():
            part.register_forward_pre_hook(lambda m, args, name=name: log.append(f"into {name}"))
            part.register_forward_hook(lambda m, args, y, name=name: log.append(f"out of {name}"))
            part.register_full_backward_hook(lambda m, before, above, name=name: log.append(f"back {name}"))
        x = library.tensor(X)
        x.requires_grad_()
        model(x).sum().backward()
        yield log
        assert len(log) == 15

    both(story)


def test_each_call_fires_its_own_hook(both: Any) -> None:
    def story(library: Any) -> Any:
        log: list[Any] = []
        layer = library.nn.Tanh()
        layer.register_full_backward_hook(noting(log, "back"))
        x = library.tensor(X)
        x.requires_grad_()
        (layer(layer(x)) * library.tensor(X + 1)).sum().backward()
        yield x.grad
        yield log
        assert len(log) == 2

    both(story)


def test_no_backward_hook_without_a_graph(both: Any) -> None:
    def story(library: Any) -> Any:
        layer, x = linear(library), library.tensor(X)
        layer.register_full_backward_hook(noting([], "back"))
        with library.no_grad():
            y = layer(x)
        yield y.requires_grad
        yield y

    both(story)


def test_an_in_place_change_inside_cannot_reach_around_a_backward_hook() -> None:
    class Doubles(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.mul_(2)

    layer, seen = Doubles(), []
    layer.register_full_backward_hook(lambda m, before, above: seen.append((before[0].tolist(), above[0].tolist())))
    x = ml.tensor([1.0, 3.0], requires_grad=True)
    y = x * 5
    z = layer(y)
    assert y.tolist() == [5, 15]  # the module was given a copy
    z.backward(ml.tensor([1.0, 10.0]))
    assert seen == [([2, 20], [1, 10])]
    assert x.grad.tolist() == [10, 100]


def test_a_hook_that_fails_is_seen() -> None:
    def fails(*_: Any) -> None:
        raise KeyError("from the hook")

    for register in ("register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"):
        layer = nn.Tanh()
        getattr(layer, register)(fails)
        with pytest.raises(KeyError, match="from the hook"):
            layer(ml.ones(2, requires_grad=True)).sum().backward()


def test_what_required_no_gradient_before_a_hook_requires_none_after_it(both: Any) -> None:
    def story(library: Any) -> Any:
        class Looks(library.nn.Module):
            def forward(self, x: Any, mask: Any) -> Any:
                return x * mask, x.detach(), mask.requires_grad

        layer, x, mask = Looks(), library.tensor(X), library.tensor(X + 1)
        x.requires_grad_()
        log: list[Any] = []
        layer.register_full_backward_hook(noting(log, "back"))
        y, constant, inside = layer(x, mask)
        yield [inside, y.requires_grad, constant.requires_grad]
        (y * constant).sum().backward()
        yield [x.grad, mask.grad]
        yield log

    both(story)


def test_a_backward_hook_returns_one_gradient_for_each_input() -> None:
    layer = nn.Tanh()
    layer.register_full_backward_hook(lambda m, before, above: (before[0], before[0]))
    with pytest.raises(ModuleError, match=r"Tanh.* 2 .* 1"):
        layer(ml.ones(2, requires_grad=True)).sum().backward()


def test_second_derivatives_pass_through_a_backward_hook(both: Any) -> None:
    def story(library: Any) -> Any:
        layer, x = library.nn.Tanh(), library.tensor(X)
        x.requires_grad_()
        layer.register_full_backward_hook(lambda m, before, above: (before[0] * 2,))
        (first,) = library.grad((layer(x) * library.tensor(X + 1)).sum(), x, create_graph=True)
        yield first
        yield library.grad((first * library.tensor(X - 1)).sum(), x)[0]

    both(story)


def test_a_list_of_outputs_stays_a_list() -> None:
    class Both(nn.Module):
        def forward(self, x: Any) -> Any:
            return [x * 2, x * 3]

    layer, seen = Both(), []
    layer.register_full_backward_hook(lambda m, before, above: seen.append([g.tolist() for g in (*before, *above)]))
    x = ml.tensor([1.0], requires_grad=True)
    result = layer(x)
    assert isinstance(result, list)
    (result[0] + 10 * result[1]).sum().backward()
    assert seen == [[[32], [1], [10]]]
