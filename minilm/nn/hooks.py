"""Functions of the user's that run before and after a module's forward, and in its backward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minilm.autograd.function import Function
from minilm.modes import is_grad_enabled
from minilm.tensor import Removable, Tensor

if TYPE_CHECKING:
    from minilm.nn.module import Module

Hooks = dict[int, Any]


def add_hook(hooks: Hooks, hook: Any, prepend: bool) -> Removable:
    """Put `hook` behind those that are there, or with `prepend` before them."""
    later = dict(hooks) if prepend else {}
    if prepend:
        hooks.clear()
    handle = Removable(hooks, hook)
    hooks.update(later)
    return handle


def call_with_hooks(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the hooks and, between them, `module.forward`; what a hook returns takes its subject's place."""
    for hook, with_kwargs in list(module._forward_pre_hooks.values()):
        if with_kwargs:
            changed = hook(module, args, kwargs)
            args, kwargs = (args, kwargs) if changed is None else changed
        else:
            changed = hook(module, args)
            args = args if changed is None else changed if isinstance(changed, tuple) else (changed,)
    passage = _Passage(module) if module._backward_hooks and is_grad_enabled() else None
    if passage is not None:
        args = passage.enter(args)
    result = module.forward(*args, **kwargs)
    for hook, with_kwargs in list(module._forward_hooks.values()):
        changed = hook(module, args, kwargs, result) if with_kwargs else hook(module, args, result)
        result = result if changed is None else changed
    return result if passage is None else passage.leave(result)


class _Passage:
    """One call of a module with backward hooks: a gate before its forward, another one behind it.

    The backward walk comes through the second gate first, which notes the gradients of the outputs,
    and then through the first one, where those of the inputs are known and the hooks are called.
    """

    def __init__(self, module: Module) -> None:
        self.module = module
        self.has_entry = False
        self.grad_output: tuple[Tensor | None, ...] = ()

    def enter(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, with the tensors led through the first gate."""
        self.positions = [i for i, a in enumerate(args) if isinstance(a, Tensor) and a.is_floating_point()]
        self.count = len(args)
        self.has_entry = any(args[i].requires_grad for i in self.positions)
        if not self.has_entry:
            return args
        passed = iter(_Entry.apply(self, *(args[i] for i in self.positions)))
        return tuple(next(passed) if i in self.positions else a for i, a in enumerate(args))

    def leave(self, result: Any) -> Any:
        """The result (a tensor, or a tuple or list with tensors in it), led through the second gate."""
        if isinstance(result, Tensor):
            return _Exit.apply(self, result)[0]
        if not isinstance(result, (tuple, list)) or not any(isinstance(r, Tensor) for r in result):
            return result
        passed = iter(_Exit.apply(self, *(r for r in result if isinstance(r, Tensor))))
        mixed = [next(passed) if isinstance(r, Tensor) else r for r in result]
        return mixed if isinstance(result, list) else tuple(mixed)

    def call_hooks(self, gradients: tuple[Any, ...]) -> tuple[Any, ...]:
        """Show the gradients to the hooks, in their order; what a hook returns takes their place."""
        shown: list[Any] = [None] * self.count
        for position, gradient in zip(self.positions, gradients):
            shown[position] = gradient
        grad_input = tuple(shown)
        for hook in list(self.module._backward_hooks.values()):
            changed = hook(self.module, grad_input, self.grad_output)
            if changed is not None:
                grad_input = changed if isinstance(changed, tuple) else (changed,)
        return tuple(grad_input[position] for position in self.positions)


class _Entry(Function):
    """The gate before forward. Copies, so that an in-place change inside cannot reach around it."""

    @staticmethod
    def forward(ctx: Any, passage: _Passage, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.passage = passage
        ctx.set_materialize_grads(False)
        return tuple(x.clone() for x in inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        return (None, *ctx.passage.call_hooks(gradients))


class _Exit(Function):
    """The gate behind forward; where no input requires a gradient, the hooks are called here."""

    @staticmethod
    def forward(ctx: Any, passage: _Passage, *outputs: Tensor) -> tuple[Tensor, ...]:
        ctx.passage = passage
        ctx.set_materialize_grads(False)
        return tuple(y.clone() for y in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        ctx.passage.grad_output = gradients
        if not ctx.passage.has_entry:
            ctx.passage.call_hooks(())
        return (None, *gradients)
