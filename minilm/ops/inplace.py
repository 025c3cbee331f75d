"""In-place operations: `x.add_(y)`, `x += y`, `x[i] = y`, `x.zero_()`.

There is one mechanism. The operation computes its result elsewhere, as always; then the result is
written over the tensor's memory, the memory's version rises, and the tensor takes the result's
place in the graph. What an earlier operation saved of the old value is guarded by the version.

A view that is written to changes its base: the base's new history is "the old base, with the part
that the view shows replaced" (`ViewWrite`), and all views of that base take their history from
there when they are next asked for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minilm import dtypes
from minilm.device import array_module
from minilm.errors import AutogradError, DtypeError, ShapeError
from minilm.modes import state
from minilm.ops.registry import Primitive, sample
from minilm.tape import Node, Version
from minilm.tensor import Tensor, wrap


def follow(base: Any, steps: Any) -> Any:
    """Apply a view's `steps` to `base`, a Tensor or an array."""
    for op, rest, options, output in steps:
        base = op.apply(base, *rest, **options)
        if output is not None:
            base = base[output]
    return base


class Copy(Primitive, shapes="(...), (...) -> (...)", dtypes="keep", method=False, name="copy"):
    """The values of `source` in the shape of `x`: what `x.copy_(source)` leaves in x.

    The gradient goes to `source` alone; x's old value no longer matters.
    """

    samples = [sample((2, 3, 5), (2, 3, 5)), sample((2, 3, 5), (3, 1)), sample((3,), ())]

    def forward(ctx, x, source):
        xp = array_module(x)
        result = xp.empty_like(x)
        result[...] = source
        return result

    def backward(ctx, dz):
        return None, dz if ctx.needs[1] else None

    def torch(torch, x, source):
        return x.clone().copy_(source)


class ViewWrite(Primitive, shapes="(?), (?) -> (?)", dtypes="keep", method=False, name="view_write"):
    """The base `x` with the part that a view shows replaced by `value`.

    dx = dz, but zero where the view lies;    dvalue = dz where the view lies
    """

    samples = []  # exercised through views: tests/ops/test_inplace.py

    def forward(ctx, x, value, steps):
        ctx.steps = steps
        ctx.order = _axis_order(x)
        return x

    def backward(ctx, dz):
        dvalue = follow(dz, ctx.steps) if ctx.needs[1] else None
        if not ctx.needs[0]:
            return None, dvalue
        if isinstance(dz, Tensor):
            rest = dz.clone()
            follow(rest, ctx.steps).zero_()
            return rest, dvalue
        rest = _laid_out_like(dz, ctx.order)
        follow(rest, ctx.steps)[...] = 0
        return rest, dvalue


def _axis_order(x: Any) -> list[int]:
    """x's axes from the farthest apart in memory to the nearest."""
    return sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))


def _laid_out_like(dz: Any, order: list[int]) -> Any:
    """A copy of dz with its axes in memory in that order: then each step that was a view is one again."""
    copy = array_module(dz).ascontiguousarray(dz.transpose(order)).reshape([dz.shape[a] for a in order])
    if np.shares_memory(copy, dz) if isinstance(dz, np.ndarray) else copy is dz:
        copy = copy.copy()
    return copy.transpose(np.argsort(order))


def overwrite(tensor: Tensor, value: Tensor, name: str) -> Tensor:
    """Write `value` over `tensor`, in memory and in the graph; `name` is the in-place operation's.

    Errors, before anything changes: AutogradError for a leaf that requires a gradient, ShapeError
    and DtypeError for a value that does not fit, AutogradError for memory shared between elements.
    """
    check_writable(tensor, name)
    if value.shape != tensor.shape:
        raise ShapeError(f"{name}: a result of shape {value.shape} does not fit into {tensor.shape}")
    if value.dtype != tensor.dtype:
        if not _castable(value.dtype, tensor.dtype):
            raise DtypeError(f"{name}: a result of {value.dtype} cannot be written into {tensor.dtype}")
        value = value.to(tensor.dtype)
    base = tensor._base
    before = wrap(base.array, base.node, base._index) if base is not None else None
    if base is not None and before is not None:
        before._requires_grad = base.requires_grad
    tensor.array[...] = value.array
    if tensor._version is not None:
        tensor._version.bump(name)
    if not state.recording or not (value.requires_grad or (base is not None and base.requires_grad)):
        return tensor
    if base is None or before is None:
        # The tensor itself may be a base: its views must look again.
        _take_place(tensor, value)
        return tensor
    _take_place(base, ViewWrite.apply(before, value, tensor._steps))
    return tensor


def _take_place(tensor: Tensor, value: Tensor) -> None:
    """Give `tensor` the history of `value`; a gradient that it retains is that of the new value from now on."""
    old, index = tensor._node, tensor._index
    tensor._node, tensor._index, tensor._requires_grad = value.node, value._index, True
    tensor._generation += 1
    kept = (old.hooks or {}).get(index, {}) if old is not None else {}
    for key, hook in list(kept.items()):
        if hasattr(hook, "retains_for") and hook.retains_for() is tensor:
            del kept[key]
            tensor.retain_grad()


def check_writable(tensor: Tensor, name: str) -> None:
    """Raise unless `tensor` may be changed in place."""
    base = tensor._base if tensor._base is not None else tensor
    if state.recording and base.node is None and base._requires_grad:
        what = "a leaf" if base is tensor else "a view of a leaf"
        raise AutogradError(
            f"{name}: {what} that requires a gradient cannot be changed in place, since its gradient would "
            "belong to a value that is gone; change it under no_grad(), or work on x.clone()"
        )
    if not tensor.array.flags.writeable:
        raise AutogradError(f"{name}: the memory of this tensor of shape {tensor.shape} is read-only")
    if tensor.array.size and any(stride == 0 and size > 1 for stride, size in zip(tensor.array.strides, tensor.shape)):
        raise AutogradError(
            f"{name}: in this expanded tensor of shape {tensor.shape} several elements share one place in "
            "memory; use x.clone() first"
        )


def _castable(source: np.dtype[Any], target: np.dtype[Any]) -> bool:
    """PyTorch's rule: a result may lose precision but not its kind."""
    return dtypes._KIND[source.kind] <= dtypes._KIND[target.kind]


def _keep_old_value(node: Node, array: Any) -> None:
    """Where `node` saved the very array that is about to be overwritten by it, let it keep a copy.

    `y.mul_(w)` needs the old y for w's gradient; without the copy it would forbid its own backward.
    """
    positions = [i for i, value in enumerate(node._saved) if value is array]
    if not positions:
        return
    copy, saved, origins = array.copy(), list(node._saved), list(node._origins)
    for i in positions:
        saved[i], origins[i] = copy, origins[i] and (origins[i][0], Version(), 0)
    node._saved, node._origins = tuple(saved), tuple(origins)


def in_place(op: Any) -> Any:
    """The method `name_` for the operation `name`."""
    name = op.name + "_"

    def method(self: Tensor, *args: Any, **options: Any) -> Tensor:
        check_writable(self, name)
        result = op.apply(self, *args, **options)
        if result._node is not None:
            _keep_old_value(result._node, self.array)
        return overwrite(self, result, name)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"`{op.name}`, written over this tensor. Errors: see minilm.ops.inplace.overwrite."
    return method


def copy_(self: Tensor, source: Any) -> Tensor:
    """Take the values of `source`, broadcast to this shape and converted to this type."""
    check_writable(self, "copy_")
    given = source if isinstance(source, Tensor) else Tensor(source)
    if not _broadcasts_to(given.shape, self.shape):
        raise ShapeError(f"copy_: a source of shape {given.shape} does not broadcast to {self.shape}")
    return overwrite(self, Copy.apply(self, given.to(self.dtype)), "copy_")


def _broadcasts_to(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether an array of `shape` can be repeated to `target`."""
    lead = len(target) - len(shape)
    return lead >= 0 and all(n in (1, m) for n, m in zip(shape, target[lead:]))


def fill_(self: Tensor, value: Any) -> Tensor:
    """Set every element to `value`."""
    check_writable(self, "fill_")
    number = value if isinstance(value, Tensor) else wrap(array_module(self.array).asarray(value).astype(self.dtype))
    if number.ndim:
        raise ShapeError(f"fill_: one number was expected, and the value has the shape {number.shape}")
    return overwrite(self, Copy.apply(self, number.to(self.dtype)), "fill_")


def zero_(self: Tensor) -> Tensor:
    """Set every element to 0."""
    check_writable(self, "zero_")
    zero = wrap(array_module(self.array).zeros((), self.dtype))
    return overwrite(self, Copy.apply(self, zero), "zero_")


def by_function(function: Any) -> Any:
    """The method `name_` for a function `name(x, ...)` that is no operation of its own, such as `scatter`."""
    name = function.__name__ + "_"

    def method(self: Tensor, *args: Any, **options: Any) -> Tensor:
        check_writable(self, name)
        return overwrite(self, function(self, *args, **options), name)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"`{function.__name__}`, written over this tensor. Errors: see minilm.ops.inplace.overwrite."
    return method
