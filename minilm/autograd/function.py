"""`autograd.Function`: an operation of the user's own, written as in PyTorch.

    class Cube(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x * x

        @staticmethod
        def backward(ctx, dy):
            (x,) = ctx.saved_tensors
            return 3 * x * x * dy

    y = Cube.apply(x)

The `ctx` is a node of the tape, the same thing that minilm's own operations are given.
"""

from __future__ import annotations

from typing import Any

from minilm.autograd import anomaly
from minilm.errors import AutogradError, ShapeError
from minilm.modes import no_grad, state
from minilm.tape import Node
from minilm.tensor import Tensor, wrap


class Context(Node):
    """A node with PyTorch's names on it; forward may also set attributes of its own choosing."""

    __slots__ = ("_dirty", "_no_gradient", "inputs_meta", "materialize")

    def __init__(self, op: Any, needs: tuple[bool, ...]) -> None:
        super().__init__(op, needs)
        self._dirty: tuple[Tensor, ...] = ()
        self._no_gradient: tuple[Tensor, ...] = ()
        self.materialize = True
        self.inputs_meta: tuple[Any, ...] = ()

    @property
    def needs_input_grad(self) -> tuple[bool, ...]:
        """For each argument of forward, whether it wants a gradient."""
        return self.needs

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for backward, guarded against in-place changes in the meantime."""
        self.save(*(None if t is None else t.array for t in tensors))

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What `save_for_backward` was given."""
        return tuple(v if v is None or isinstance(v, Tensor) else wrap(v) for v in self.saved)

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Say that forward changed these inputs in place (and returns them)."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Say that these outputs have no gradient."""
        self._no_gradient = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """False: backward is given None, not zeros, for outputs that nothing used."""
        self.materialize = value


class Function:
    """Base class: give it `forward(ctx, *args)` and `backward(ctx, *gradients)`, then call `apply`."""

    name = "Function"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = cls.__name__

    @staticmethod
    def forward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        """Compute the result from Tensors (nothing is recorded inside)."""
        raise AutogradError("a Function needs a static method forward(ctx, ...)")

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """From each output's gradient, the gradient of each argument of forward (None for the others)."""
        raise AutogradError("this Function has no static method backward(ctx, ...)")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run forward and, where an argument requires a gradient, record it."""
        needs = tuple(isinstance(a, Tensor) and a.requires_grad for a in args)
        ctx = Context(cls, needs)
        inputs = [a if isinstance(a, Tensor) else None for a in args]
        with no_grad():
            result = cls.forward(ctx, *args, **kwargs)
        results = result if isinstance(result, tuple) else (result,)
        if not all(isinstance(r, Tensor) for r in results):
            raise AutogradError(f"{cls.name}.forward must return a Tensor or a tuple of Tensors, not {result!r}")
        if state.anomaly:
            anomaly.check_forward(cls, inputs, results)
        for tensor in ctx._dirty:
            tensor._versioned().bump(cls.name)
        if not (state.recording and any(needs)):
            return result
        # A fresh Tensor for each output, unless forward gave back an input that it marked dirty.
        outputs = tuple(r if any(r is d for d in ctx._dirty) else wrap(r.array) for r in results)
        quiet = [any(r is n for n in ctx._no_gradient) for r in results]
        ctx.inputs_meta = tuple(None if t is None else t.shape for t in inputs)
        ctx.connect(inputs, outputs)
        if len(outputs) > 1:
            ctx.outputs = tuple((o.shape, o.dtype) for o in outputs)
        else:
            ctx.output_shape = outputs[0].shape
        for index, output in enumerate(outputs):
            if output.dtype.kind == "f" and not quiet[index]:
                output._node, output._index, output._requires_grad = ctx, index, True
        return outputs if isinstance(result, tuple) else outputs[0]

    @classmethod
    def gradients(cls, node: Context, received: list[Any]) -> tuple[Any, ...]:
        """The engine's entry: backward sees Tensors whatever the walk carries."""
        shown = [g if g is None or isinstance(g, Tensor) else wrap(g) for g in received]
        results = cls.backward(node, *shown)
        results = results if isinstance(results, tuple) else (results,)
        if len(results) != len(node.edges):
            raise AutogradError(
                f"{cls.name}.backward returned {len(results)} gradients for {len(node.edges)} arguments of forward"
            )
        saved = () if state.create_graph else node._saved
        return tuple(
            None if edge is None else _checked(cls, position, g, node.inputs_meta[position], saved)
            for position, (g, edge) in enumerate(zip(results, node.edges))
        )


def _checked(cls: Any, position: int, gradient: Any, shape: Any, saved: tuple[Any, ...]) -> Any:
    """A user's gradient, held against its input's shape and cut loose from what was saved."""
    if gradient is None:
        return None
    if not isinstance(gradient, Tensor):
        raise AutogradError(f"{cls.name}.backward: gradient {position} is no Tensor but {gradient!r}")
    if gradient.shape != shape:
        raise ShapeError(f"{cls.name}.backward: gradient {position} has shape {gradient.shape}, its input {shape}")
    if state.create_graph:
        return gradient
    array = gradient.array
    return array.copy() if any(array is value for value in saved) else array
