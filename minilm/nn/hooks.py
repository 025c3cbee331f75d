"""Functions of the user's that run before and after a module's forward, and in its backward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minilm.autograd.function import Function
from minilm.errors import ModuleError
from minilm.modes import is_grad_enabled, state
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
            if changed is not None:
                args, kwargs = _both(module, changed)
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


def _both(module: Module, changed: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a hook with named arguments returned. Errors: TypeError unless it is (args, kwargs)."""
    if not (isinstance(changed, tuple) and len(changed) == 2 and isinstance(changed[1], dict)):
        raise TypeError(
            f"{type(module).__name__}: a forward pre-hook with with_kwargs returns (args, kwargs) or None, "
            f"not {changed!r}"
        )
    args, kwargs = changed
    return args if isinstance(args, tuple) else (args,), kwargs


class _Passage:
    """One call of a module with backward hooks: a gate before its forward, another one behind it.

    The backward walk comes through the second gate first, which notes the gradients of the outputs,
    and then through the first one, where those of the inputs are known and the hooks are called.
    """

    def __init__(self, module: Module) -> None:
        self.module = module
        self.has_entry = False
        self.grad_output: tuple[Tensor | None, ...] | None = None  # known between the two gates

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
        outputs = result if isinstance(result, (tuple, list)) else (result,)
        self.outputs = [i for i, y in enumerate(outputs) if isinstance(y, Tensor)]
        self.output_count = len(outputs)
        if not self.outputs:
            return result
        passed = iter(_Exit.apply(self, *(outputs[i] for i in self.outputs)))
        mixed = [next(passed) if isinstance(y, Tensor) else y for y in outputs]
        if outputs is not result:
            return mixed[0]
        return mixed if isinstance(result, list) else tuple(mixed)

    def note_outputs(self, gradients: tuple[Any, ...]) -> None:
        """Keep the gradients of the outputs for the hooks."""
        shown: list[Any] = [None] * self.output_count
        for position, gradient in zip(self.outputs, gradients):
            shown[position] = _to_keep(gradient)
        self.grad_output = tuple(shown)

    def call_hooks(self, gradients: tuple[Any, ...]) -> tuple[Any, ...]:
        """Show the gradients to the hooks, in their order; what a hook returns takes their place."""
        if self.grad_output is None:  # second derivatives: the walk came to the inputs, but not by the outputs
            return gradients
        grad_output, self.grad_output = self.grad_output, None
        shown: list[Any] = [None] * self.count
        for position, gradient in zip(self.positions, gradients):
            shown[position] = _to_keep(gradient)
        grad_input = tuple(shown)
        for hook in list(self.module._backward_hooks.values()):
            changed = hook(self.module, grad_input, grad_output)
            if changed is None:
                continue
            grad_input = changed if isinstance(changed, tuple) else (changed,)
            if len(grad_input) != self.count:
                raise ModuleError(
                    f"{type(self.module).__name__}: a backward hook returned {len(grad_input)} gradients "
                    f"for {self.count} inputs"
                )
        return tuple(_to_keep(grad_input[position]) for position in self.positions)


def _to_keep(gradient: Tensor | None) -> Tensor | None:
    """A copy: the walk hands gradients on to leaves, whose `.grad` later passes change in place."""
    return gradient if gradient is None or state.create_graph else gradient.clone()


def _copies(ctx: Any, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Copies of the tensors, of which those require a gradient whose originals do."""
    copies = tuple(t.clone() for t in tensors)
    ctx.mark_non_differentiable(*(copy for t, copy in zip(tensors, copies) if not t.requires_grad))
    return copies


class _Entry(Function):
    """The gate before forward. Copies, so that an in-place change inside cannot reach around it."""

    @staticmethod
    def forward(ctx: Any, passage: _Passage, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.passage = passage
        return _copies(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        return (None, *ctx.passage.call_hooks(gradients))


class _Exit(Function):
    """The gate behind forward; where no input requires a gradient, the hooks are called here."""

    @staticmethod
    def forward(ctx: Any, passage: _Passage, *outputs: Tensor) -> tuple[Tensor, ...]:
        ctx.passage = passage
        ctx.set_materialize_grads(False)
        return _copies(ctx, outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        ctx.passage.note_outputs(gradients)
        if not ctx.passage.has_entry:
            ctx.passage.call_hooks(())
        return (None, *gradients)
