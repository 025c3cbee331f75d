"""What an operation is, and the register of all of them.

An operation is one class: what it computes, how it is differentiated, which shapes it takes, where
it comes from and the samples that exercise it. Defining the class registers it; its tests, its
gradient check, its comparison with PyTorch and its page in the reference follow from the register.

    class Square(Primitive, shapes="(...) -> (...)", dtypes="promote"):
        "x * x"

        def forward(ctx, x):            # arrays in, array out
            ctx.save(x)
            return x * x

        def backward(ctx, dz):          # operations and Python's operators only
            (x,) = ctx.saved
            return 2 * x * dz

    square = Square.apply

The functions of such a class are static: the base class makes them so.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from minilm.errors import AutogradError
from minilm.ops.call import caller, numpy_names
from minilm.ops.shapes import Signature
from minilm.tape import Node

Array = Any
_register: dict[str, type[Operation]] = {}


@dataclass(frozen=True)
class Sample:
    """One case that exercises an operation.

    Attributes:
        options: the operation's options, by name.
        shapes: a shape for each tensor input (None leaves an optional input out);
            by default they are drawn from the operation's signature.
        domain: how each input's values are drawn (see `Operation.domain`); None: the operation's.
    """

    options: dict[str, Any] = field(default_factory=dict)
    shapes: tuple[tuple[int, ...] | None, ...] | None = None
    domain: tuple[str, ...] | None = None


def options(**choices: list[Any]) -> list[Sample]:
    """Samples with every combination of the given options, on shapes drawn from the signature."""
    names = list(choices)
    return [Sample(dict(zip(names, values))) for values in itertools.product(*choices.values())]


def sample(*shapes: tuple[int, ...] | None, domain: tuple[str, ...] | None = None, **chosen: Any) -> Sample:
    """One sample with explicit shapes, one for each tensor input."""
    return Sample(chosen, shapes, domain)


class Operation:
    """Base of all operations. Class arguments:

    Args:
        shapes: the signature, as in "(..., N, K), (..., K, M) -> (..., N, M)": a named axis has one
            size wherever it occurs; several `...` broadcast against each other; `?` is any shape
            that follows from the options. `(...)*` takes any number of inputs.
        dtypes: "promote" (inputs take one common type), "float" (and integers become floating),
            "keep" (each input keeps its own).
        constants: names of inputs that no gradient flows to and promotion leaves alone (an index, a mask).
        differentiable: False where no output has a gradient (comparisons, argmax).
        smooth: False where second derivatives are zero or undefined by nature (relu, floor, sort).
        view: True where the result may share its input's memory.
        method: whether (or under which names) Tensor gets it as a method.
        inplace: whether Tensor also gets the method with a trailing underscore.
        fresh: True where every gradient that backward returns is a new array in memory of its own, which the walk may
            then add to in place.
        spread: whether the method takes its one option in pieces too, `x.permute(2, 0, 1)`.
        title: the name that errors, the tape and drawings say, where users call it by another than the
            register's: `matmul` for matrix_product, which serves it.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    signature: ClassVar[Signature]
    inputs: ClassVar[tuple[str, ...]]
    constants: ClassVar[frozenset[str]]
    dtypes: ClassVar[str]
    differentiable: ClassVar[bool]
    smooth: ClassVar[bool]
    view: ClassVar[bool]
    methods: ClassVar[tuple[str, ...]]
    inplace: ClassVar[bool]
    fresh: ClassVar[bool]
    spread: ClassVar[bool]

    samples: ClassVar[list[Sample]] = [Sample()]
    # How values are drawn, one word for all inputs or a tuple with one for each: "normal", "positive",
    # "unit" (inside (-1, 1)), "nonzero", "distinct" (no ties), "bool", "probability", "index:N" (0 ... N-1).
    domain: ClassVar[str | tuple[str, ...]] = "normal"
    # A named tuple for operations with several results, as PyTorch has it (`.values`, `.indices`).
    result: ClassVar[Callable[..., Any] | None] = None
    # PyTorch's counterpart: `torch(torch, x, ...)`. By default the function of the same name.
    torch: ClassVar[Callable[..., Any] | None] = None

    forward: ClassVar[Callable[..., Any]]
    backward: ClassVar[Callable[..., Any] | None] = None
    definition: ClassVar[Callable[..., Any] | None] = None
    backward_definition: ClassVar[Callable[..., Any] | None] = None
    # `remake(ctx, *saved)`: the output once more, the same bits, where that is cheap (see tape.Remade), from those
    # of the saved values that it reads.
    remake: ClassVar[Callable[..., Any] | None] = None
    remake_reads: ClassVar[slice] = slice(None)
    remakes: ClassVar[int] = 0  # which of the outputs
    apply: ClassVar[Callable[..., Any]]

    def __init_subclass__(
        cls,
        shapes: str | None = None,
        dtypes: str = "promote",
        constants: Iterable[str] = (),
        differentiable: bool = True,
        smooth: bool = True,
        view: bool = False,
        method: bool | str | tuple[str, ...] = True,
        inplace: bool = False,
        fresh: bool = False,
        spread: bool = False,
        name: str | None = None,
        title: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        if shapes is None:  # a base class between Operation and the operations
            return
        for key in ("forward", "backward", "definition", "backward_definition", "remake", "torch"):
            function = cls.__dict__.get(key)
            if inspect.isfunction(function):
                setattr(cls, key, staticmethod(function))
        cls.name = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower().rstrip("_")
        cls.title = title or cls.name
        cls.signature = Signature(shapes)
        composed = issubclass(cls, Composite)
        first = cls.definition if composed else cls.forward
        assert first is not None
        if composed:  # it is what users call: `help(cross_entropy)` must say what the class says
            first.__name__ = first.__qualname__ = cls.name
            first.__doc__ = cls.__doc__
        parameters = list(inspect.signature(first).parameters)[0 if composed else 1 :]
        cls.inputs = () if cls.signature.variadic else tuple(parameters[: len(cls.signature.inputs)])
        cls.constants = frozenset(constants)
        cls.dtypes, cls.smooth, cls.view = dtypes, smooth, view
        cls.inplace, cls.fresh, cls.spread = inplace, fresh, spread
        cls.differentiable = differentiable and (composed or cls.backward is not None)
        cls.methods = (cls.name,) if method is True else (method,) if isinstance(method, str) else method or ()
        if not composed:
            cls.apply = staticmethod(caller(cls))
        else:
            cls.apply = staticmethod(numpy_names(first) if {"dim", "keepdim"} & set(parameters) else first)
        if cls.name in _register:
            raise AutogradError(f"there are two operations called {cls.name!r}")
        _register[cls.name] = cls

    @classmethod
    def gradients(cls, node: Node, received: list[Any]) -> tuple[Any, ...]:
        """The engine's entry: from the gradients of the outputs those of the inputs."""
        raise NotImplementedError

    @classmethod
    def domains(cls) -> tuple[str, ...]:
        """The domain of each input's values."""
        if isinstance(cls.domain, tuple):
            return cls.domain
        return (cls.domain,) * max(len(cls.inputs), 1)


class Primitive(Operation):
    """An operation whose backward is made of operations, so that it can itself be differentiated."""

    @classmethod
    def gradients(cls, node: Node, received: list[Any]) -> tuple[Any, ...]:
        """Call backward, then sum each gradient over the axes that its input was broadcast along."""
        assert cls.backward is not None
        results = cls.backward(node, *received)
        if not isinstance(results, tuple):
            results = (results,)
        if node.shapes is None:
            return results
        return tuple(
            g if g is None or shape is None or g.shape == shape else _sum_to(g, shape)
            for g, shape in zip(results, node.shapes)
        )


class Fused(Operation):
    """An operation whose forward and backward are kernels; `definition` says the same in primitives.

    Second derivatives differentiate the definition, unless `backward_definition(ctx, dy)` writes the
    backward in operations (for one that saves only its output, as softmax does).
    """

    @classmethod
    def gradients(cls, node: Node, received: list[Any]) -> tuple[Any, ...]:
        """Kernels for arrays; operations where the walk itself is recorded."""
        from minilm.modes import state

        if not state.create_graph:
            assert cls.backward is not None
            results = cls.backward(node, *received)
        elif cls.backward_definition is not None:
            results = cls.backward_definition(node, *received)
        else:
            results = _differentiate_definition(cls, node, received)
        return results if isinstance(results, tuple) else (results,)


class Composite(Operation):
    """An operation that is only a name for others: its `definition` is all there is, and leaves no node.

    class Outer(Composite, shapes="(N), (M) -> (N, M)"):
        def definition(x, y):
            return unsqueeze(x, 1) * unsqueeze(y, 0)
    """


def _differentiate_definition(cls: type[Operation], node: Node, received: list[Any]) -> tuple[Any, ...]:
    """The gradients of a fused operation, in the graph, by differentiating its definition.

    The definition runs on stand-ins: aliases of the saved inputs, connected to the graph behind
    them, at which the inner walk stops. An input that was not saved cannot matter to the gradient;
    zeros take its place.
    """
    from minilm.autograd.engine import grad
    from minilm.ops.shape import alias
    from minilm.tensor import wrap

    if cls.definition is None:
        raise AutogradError(f"{cls.name}: second derivatives are not defined")
    metas, rest, chosen = node.call  # type: ignore[attr-defined]
    saved = {origin[0]: i for i, origin in enumerate(node._origins) if origin is not None}
    values = node.saved
    stand_ins: list[Any] = []
    for position, meta in enumerate(metas):
        if meta is None:
            stand_ins.append(None)
            continue
        if position in saved:
            value = values[saved[position]]
        else:
            xp, shape, dtype = meta
            value = wrap(xp.zeros(shape, dtype))
            value._requires_grad = node.needs[position]
        stand_ins.append(alias(value) if node.needs[position] else value)
    result = cls.definition(*stand_ins, *rest, **chosen)
    wanted = [s for s, need in zip(stand_ins, node.needs) if need]
    found = iter(grad(result, wanted, list(received), create_graph=True, allow_unused=True))
    return tuple(next(found) if need else None for need in node.needs)


def _sum_to(gradient: Any, shape: tuple[int, ...]) -> Any:
    """Sum `gradient` over the axes along which an input of `shape` was broadcast."""
    from minilm.ops.reduction import sum_to_size

    return sum_to_size(gradient, shape)


def all() -> Iterator[type[Operation]]:
    """Every registered operation, by name."""
    return iter(sorted(_register.values(), key=lambda op: op.name))


def get(name: str) -> type[Operation]:
    """The operation called `name`. Errors: KeyError."""
    return _register[name]
