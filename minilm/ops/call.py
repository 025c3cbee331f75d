"""How an operation is called: the way from Tensors to its forward and onto the tape.

This is the hot path of the engine: every operation of every model goes through one such function.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from minilm import dtypes
from minilm.device import array_module
from minilm.errors import AutogradError, DtypeError
from minilm.modes import state
from minilm.ops.shapes import broadcast_error
from minilm.tape import NO_TAPE, Node
from minilm.tensor import INFERENCE, Tensor, wrap

Array = Any


def caller(op: Any) -> Callable[..., Any]:
    """The function that users call for `op`: Tensors (or numbers) in, Tensors out.

    Called on plain arrays it computes plainly and gives arrays: a backward written with operations
    runs at full speed on arrays and is recorded on Tensors.
    """
    forward, variadic, arity = op.forward, op.signature.variadic, len(op.inputs)
    names = frozenset(op.inputs)
    constant = tuple(name in op.constants for name in op.inputs)
    promote, fused = op.dtypes != "keep", op.definition is not None
    named, broadcasts = op.signature.named, op.signature.broadcasts

    def apply(*args: Any, **options: Any) -> Any:
        if options:
            if not NUMPY_NAMES.keys().isdisjoint(options):
                options = renamed(options)
            if not names.isdisjoint(options):
                args = _by_position(op, args, options)
        inputs, rest = (args, ()) if variadic else (args[:arity], args[arity:])
        for x in inputs:
            if isinstance(x, Tensor):
                break
        else:
            return _plain(forward(NO_TAPE, *args, **options))
        inputs = _as_tensors(op, inputs)
        if promote and not _same_dtype(op, inputs, constant):
            inputs = _promoted(op, inputs, constant)
        arrays = [x.array if isinstance(x, Tensor) else x for x in inputs]
        if named:
            op.signature.check(op.title, op.inputs, [None if a is None else _shape(a) for a in arrays])
        needs: tuple[bool, ...] = ()
        ctx: Any = NO_TAPE
        if state.recording and op.differentiable:
            needs = tuple([isinstance(x, Tensor) and x.requires_grad for x in inputs])
            if constant and True in constant:
                _refuse_gradients_of_constants(op, needs, constant)
            if True in needs:
                ctx = Node(op, needs)
        try:
            result = forward(ctx, *arrays, *rest, **options)
        except (ValueError, TypeError) as error:
            raise _in_our_words(op, arrays, error) from error
        results = result if type(result) is tuple else (result,)
        for r in results:
            if type(r) is not np.ndarray:
                results = _arrays_of(results, ctx)
                break
        for watch in state.watchers:
            results = watch(op, arrays, results, rest, options) or results
        outputs = tuple([wrap(r) for r in results])
        if ctx is not NO_TAPE:
            _record(ctx, inputs, outputs, broadcasts)
            if fused:
                ctx.call = ([_meta(a) for a in arrays], rest, options)
        elif state.inference:
            for output in outputs:
                output._version = INFERENCE
        if op.view:
            for index, output in enumerate(outputs):
                output._link_view(inputs[0], op, rest, options, index if type(result) is tuple else None)
        if type(result) is tuple:
            return outputs if op.result is None else op.result(*outputs)
        return outputs[0]

    apply.__name__ = apply.__qualname__ = op.name
    apply.__doc__ = op.__doc__
    apply.__module__ = op.__module__
    return apply


# NumPy's names for options, which PyTorch takes too.
NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim"}


def renamed(options: dict[str, Any]) -> dict[str, Any]:
    """Options under PyTorch's names. Errors: TypeError for one that is given under both."""
    found = {NUMPY_NAMES.get(name, name): value for name, value in options.items()}
    if len(found) < len(options):
        raise TypeError(f"one option under two names: {', '.join(options)}")
    return found


def numpy_names(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` that takes `axis` for `dim` and `keepdims` for `keepdim`, as PyTorch's functions do."""

    @functools.wraps(function)
    def either(*args: Any, **options: Any) -> Any:
        if options and not NUMPY_NAMES.keys().isdisjoint(options):
            options = renamed(options)
        return function(*args, **options)

    return either


def _record(node: Node, inputs: Any, outputs: tuple[Tensor, ...], broadcasts: bool) -> None:
    """Join the new node to what made the inputs, and the outputs to the node."""
    node.connect([x if isinstance(x, Tensor) else None for x in inputs], outputs)
    if len(outputs) == 1:
        (output,) = outputs
        array = output.array
        node.output_shape = shape = array.shape
        if broadcasts:
            shapes = tuple([x.array.shape if isinstance(x, Tensor) else None for x in inputs])
            for s in shapes:
                if s is not None and s != shape:
                    node.shapes = shapes
                    break
        if array.dtype.kind == "f":
            output._node, output._requires_grad = node, True
        return
    node.outputs = tuple((o.array.shape, o.array.dtype) for o in outputs)
    for index, output in enumerate(outputs):
        if output.array.dtype.kind == "f":
            output._node, output._index, output._requires_grad = node, index, True


def _refuse_gradients_of_constants(op: Any, needs: tuple[bool, ...], constant: tuple[bool, ...]) -> None:
    """An input that no gradient can flow to must not ask for one: it would be dropped without a word."""
    for need, fixed, name in zip(needs, constant, op.inputs):
        if need and fixed:
            raise AutogradError(f"{op.title}: no gradient flows to {name}, and it requires one; use {name}.detach()")


def _same_dtype(op: Any, inputs: Any, constant: tuple[bool, ...]) -> bool:
    """True where nothing needs converting: one floating type (or, if allowed, one type) everywhere."""
    dtype = None
    for position, x in enumerate(inputs):
        if x is None or (constant and constant[position]):
            continue
        if isinstance(x, Tensor):
            if dtype is None:
                dtype = x.array.dtype
            elif x.array.dtype is not dtype:
                return False
        elif type(x) is not float and type(x) is not int:
            return False
        elif dtype is None:
            return False  # a number before the first tensor: let the careful way look at it
    if dtype is None or dtype.kind in dtypes.REAL_OR_COMPLEX:
        return True
    return op.dtypes != "float" and all(isinstance(x, Tensor) for x in inputs)


def _promoted(op: Any, inputs: Any, constant: tuple[bool, ...]) -> tuple[Any, ...]:
    """The inputs in their common type; a conversion is itself an operation on the tape.

    Python numbers stay what they are where the common type is floating (NumPy then takes the
    array's type); beside integers they become 0-d arrays.
    """
    taking_part = [
        x.array if isinstance(x, Tensor) else x
        for position, x in enumerate(inputs)
        if x is not None and not (constant and constant[position])
    ]
    if not taking_part:
        return tuple(inputs)
    dtype = dtypes.result_type(taking_part)
    if op.dtypes == "float":
        dtype = dtypes.floating(dtype)
    converted = []
    for position, x in enumerate(inputs):
        if x is None or (constant and constant[position]):
            converted.append(x)
        elif isinstance(x, Tensor):
            converted.append(x if x.array.dtype == dtype or dtype.kind == "c" else x.to(dtype))
        else:
            converted.append(x if dtype.kind in dtypes.REAL_OR_COMPLEX else np.asarray(x).astype(dtype))
    return tuple(converted)


def _as_tensors(op: Any, inputs: Any) -> Any:
    """Arrays among the inputs become Tensors; numbers and None stay; anything else is refused."""
    for x in inputs:
        if not (isinstance(x, Tensor) or x is None or type(x) in (float, int, bool)):
            break
    else:
        return inputs
    return tuple(_as_tensor(op, x) for x in inputs)


def _as_tensor(op: Any, x: Any) -> Any:
    if isinstance(x, Tensor) or x is None or type(x) in (float, int, bool):
        return x
    if isinstance(x, np.generic):
        return x.item()
    if isinstance(x, np.ndarray) or hasattr(x, "__cuda_array_interface__"):
        return Tensor(x)
    raise DtypeError(f"{op.title}: a tensor, an array or a number was expected, not {type(x).__name__}: {x!r}")


def _shape(x: Any) -> tuple[int, ...]:
    """np.shape(x), which takes its time to find out that x is an array."""
    return x.shape if type(x) is np.ndarray else np.shape(x)


def _plain(result: Any) -> Any:
    """A forward's result with NumPy's scalars turned back into 0-d arrays."""
    if isinstance(result, tuple):
        return tuple(_plain(r) for r in result)
    if isinstance(result, np.generic) or not hasattr(result, "dtype"):
        return np.asarray(result)
    return result


def _arrays_of(results: tuple[Any, ...], ctx: Any) -> tuple[Any, ...]:
    """The results as arrays, also where forward saved one: NumPy makes scalars of 0-d arrays.

    A saved result is known by identity; left a scalar, it would be a constant to second derivatives.
    """
    arrays = tuple(_plain(r) for r in results)
    if ctx is not NO_TAPE:
        known = {id(r): a for r, a in zip(results, arrays)}
        ctx._saved = tuple(known.get(id(value), value) for value in ctx._saved)
    return arrays


def _meta(array: Any) -> Any:
    return None if array is None else (array_module(array), np.shape(array), array.dtype)


def _in_our_words(op: Any, arrays: Any, error: Exception) -> Exception:
    """NumPy's complaint about broadcasting and Python's about arguments, under the operation's name; else as it is."""
    if type(error) is TypeError:
        return TypeError(str(error).replace(f"{op.__name__}.forward()", op.title))
    if type(error) is not ValueError or op.signature.variadic or not op.signature.broadcasts:
        return error
    return broadcast_error(op.title, op.inputs, [None if a is None else np.shape(a) for a in arrays]) or error


def _by_position(op: Any, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, ...]:
    """Tensor inputs given by keyword, moved to their places; inputs left out before them are None."""
    placed = list(args)
    for position, name in enumerate(op.inputs):
        if name in options:
            if position < len(args):
                raise TypeError(f"{op.title}: {name} was given twice")
            placed.extend([None] * (position + 1 - len(placed)))
            placed[position] = options.pop(name)
    return tuple(placed)
