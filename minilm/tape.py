"""The tape: what an operation leaves behind so that gradients can walk back through it.

Each recorded operation leaves one Node. A node knows its operation, what that operation saved, and
its edges: for every input the node that made it, or the leaf tensor itself. Nodes point only at
older nodes and never at the tensors they made, so that a value which no backward needs is freed as
soon as the user drops it, and no cycle waits for the garbage collector.

    x (leaf) ---- mul ---- exp ---- sum          forward: left to right, nodes are numbered
    x.grad  <---- mul <--- exp <--- sum          backward: right to left, by falling number
"""

from __future__ import annotations

import itertools
import linecache
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from minilm.errors import AutogradError
from minilm.modes import state

if TYPE_CHECKING:
    from minilm.tensor import Tensor

Array = Any  # an array of NumPy or of CuPy
Edge = "tuple[Node | Tensor, int] | None"
CallSite = "tuple[CodeType, int] | None"

_numbers = itertools.count()  # one C call: safe between threads
FREED = ("freed",)


class Version:
    """How often the memory behind a tensor was overwritten, and by whom last; views share one."""

    __slots__ = ("count", "writer")

    def __init__(self) -> None:
        self.count = 0
        self.writer: tuple[str, Any] | None = None  # the operation's name and its call site

    def bump(self, name: str) -> None:
        """Note that the in-place operation `name` has just overwritten the memory."""
        self.count += 1
        self.writer = (name, call_site())


class Remade:
    """A saved value that is not kept but made again when a backward asks for it, from what its maker saved.

    The output of a normalisation or an activation is as large as its input, which its own backward needs, and one
    cheap pass over it makes the output again, bit by bit: keeping both would cost memory for nothing. Where several
    operations saved the value it is made once and kept until the last of them has read it.
    """

    __slots__ = ("_maker", "_origins", "_readers", "_reads", "_saved", "_value")

    def __init__(self, maker: Node) -> None:
        read = maker.op.remake_reads
        self._maker, self._saved, self._origins = maker, maker._saved[read], maker._origins[read]
        self._readers = self._reads = 0
        self._value: Array = None

    def saved_once_more(self) -> Remade:
        """Itself, for one more operation that saves the value."""
        self._readers += 1
        return self

    def value(self) -> Array:
        """The array. Errors: AutogradError if what it is made from was overwritten since."""
        self._maker.check(self._origins)
        array = self._maker.op.remake(self._maker, *self._saved) if self._value is None else self._value
        self._reads += 1
        self._value = None if self._reads % self._readers == 0 else array
        return array


# Below so many bytes what is saved is not worth the time of making it again.
WORTH_REMAKING = 1 << 23


class Node:
    """One recorded operation; at the same time the `ctx` that its forward and backward are given.

    Attributes:
        op: the operation (a class of minilm.ops, or a subclass of autograd.Function).
        edges: for each input `(node or leaf tensor, which of its outputs)`; None where no gradient flows.
        needs: for each input, whether it wants a gradient.
        number: rises with every node of the process, so falling numbers are a topological order.
        shapes: the inputs' shapes where a gradient must be summed back to them, else None.
        output_shape: the output's shape, for pictures; set once recorded, and only where there is one output.
        outputs: `(shape, dtype)` of each output where there are several, else None.
        hooks: functions to call with an output's gradient, by output.
        remade: stands for the output in the nodes that saved it, where it is made again instead of kept.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_origins",
        "_saved",
        "edges",
        "hooks",
        "needs",
        "number",
        "op",
        "output_shape",
        "outputs",
        "remade",
        "shapes",
        "site",
    )

    output_shape: tuple[int, ...]
    materialize = True  # outputs that nothing used enter backward as zeros

    def __init__(self, op: Any, needs: tuple[bool, ...]) -> None:
        self.op = op
        self.needs = needs
        self.number = next(_numbers)
        self.edges: tuple[Any, ...] = ()
        self.shapes: tuple[tuple[int, ...] | None, ...] | None = None
        self.outputs: tuple[tuple[tuple[int, ...], np.dtype[Any]], ...] | None = None
        self.hooks: dict[int, dict[int, Any]] | None = None
        self.site = call_site()
        self.remade: Remade | None = None
        self._saved: tuple[Any, ...] = ()
        self._origins: tuple[Any, ...] = ()

    def save(self, *values: Any) -> None:
        """Keep `values` (arrays or plain Python values) for the backward pass."""
        self._saved = values

    def connect(self, inputs: Any, outputs: Any) -> None:
        """Draw the edges to what made `inputs`, and note of which tensors the saved arrays are.

        A saved array that belongs to an input or an output is guarded by that tensor's version:
        reading it back after an in-place change is an error, not a wrong gradient.
        """
        self.edges = tuple(
            (None if not need else (t, 0) if t._node is None else (t._node, t._index))
            for t, need in zip(inputs, self.needs)
        )
        if self._saved:
            self._origins = tuple([_origin(value, inputs, outputs) for value in self._saved])
            for i, origin in enumerate(self._origins):
                if origin is not None and origin[0] >= 0 and self._saved[i].nbytes >= WORTH_REMAKING:
                    self._let_go(i, inputs[origin[0]])

    def _let_go(self, i: int, tensor: Tensor) -> None:
        """Keep saved value i, the input `tensor`, as what it can be made from, if its maker can make it again."""
        maker = tensor._node
        if maker is None or getattr(maker.op, "remake", None) is None or type(self) is not Node:
            return  # (a user's backward may return what it saved, or change it)
        if tensor._index != maker.op.remakes:
            return
        if maker.freed or tensor._versioned().count:
            return
        if any(type(value) is Remade for value in maker._saved[maker.op.remake_reads]):
            return  # one step back is cheap, a chain of them need not be
        maker.remade = maker.remade or Remade(maker)
        saved, origins = list(self._saved), list(self._origins)
        saved[i] = maker.remade.saved_once_more()
        origins[i] = origins[i][0], Version(), 0  # whoever overwrites the tensor overwrites no saved value
        self._saved, self._origins = tuple(saved), tuple(origins)

    @property
    def saved(self) -> tuple[Any, ...]:
        """What forward saved: arrays, or Tensors in the graph while the walk itself is recorded.

        Errors: AutogradError if the values were freed by an earlier backward, or overwritten since.
        """
        if self._saved is FREED:
            raise AutogradError(
                f"{self.name}: its saved values were freed by an earlier backward pass; to walk the "
                f"same graph twice, call the first backward with retain_graph=True\n  recorded at {self.where}"
            )
        self.check(self._origins)
        saved = self._saved
        for value in saved:
            if type(value) is Remade:
                saved = tuple([v.value() if type(v) is Remade else v for v in saved])
                break
        if not state.create_graph:
            return saved
        return tuple(
            value if origin is None else self._in_graph(value, origin[0]) for value, origin in zip(saved, self._origins)
        )

    def check(self, origins: tuple[Any, ...]) -> None:
        """Raise AutogradError if a value that this node saved was overwritten since."""
        for origin in origins:
            if origin is not None and origin[1].count != origin[2]:
                raise AutogradError(self._overwritten(origin))

    def _overwritten(self, origin: tuple[int, Version, int]) -> str:
        position, version, count = origin
        what = f"its input {position}" if position >= 0 else "its result"
        writer, site = version.writer or ("an in-place change", None)
        return (
            f"{self.name} needs {what} for its gradient, but that value was overwritten since by {writer}\n"
            f"  saved by {self.name} at {self.where}\n"
            f"  overwritten by {writer} at {describe_site(site)}\n"
            f"  (version {count} was saved, version {version.count} is there now); "
            "write to a copy instead: x.clone()"
        )

    def _in_graph(self, value: Array, position: int) -> Tensor:
        """The saved `value` as the tensor it was: with the same history, so it can be differentiated."""
        from minilm.tensor import Tensor, wrap

        if position < 0:
            return wrap(value, self, -1 - position)
        edge = self.edges[position]
        if edge is None:
            return wrap(value)
        target, index = edge
        return target if isinstance(target, Tensor) else wrap(value, target, index)

    @property
    def freed(self) -> bool:
        """True after `release`, where there was something to free."""
        return self._saved is FREED

    def release(self) -> None:
        """Drop what was saved. A node that saved no array (an addition) stays walkable, as in PyTorch."""
        if any(isinstance(v, (np.ndarray, Remade)) or hasattr(v, "__dlpack__") for v in self._saved):
            self.remade = None
            self._saved, self._origins = FREED, ()
            self.__dict__.clear()

    @property
    def name(self) -> str:
        """The operation's name, as users call it: `mul`, `layer_norm`."""
        return str(getattr(self.op, "title", self.op.name))  # a user's Function has its name only

    @property
    def where(self) -> str:
        """The line of the user's source, or of a model's, that called the operation."""
        return describe_site(self.site)

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """The edges under PyTorch's name: pairs of a node (None where no gradient flows) and an output."""
        return tuple((None, 0) if edge is None else edge for edge in self.edges)

    def __repr__(self) -> str:
        return f"<{self.op.__name__}Backward of {self.where}>"


def _origin(value: Any, inputs: Any, outputs: Any) -> tuple[int, Version, int] | None:
    """Which tensor a saved array is: input i as i, output j as -1 - j, with its version; else None."""
    if not hasattr(value, "dtype"):
        return None
    for position, tensor in enumerate(inputs):
        if tensor is not None and tensor.array is value:
            version = tensor._versioned()
            return position, version, version.count
    for position, tensor in enumerate(outputs):
        if tensor.array is value:
            version = tensor._versioned()
            return -1 - position, version, version.count
    return None


class NoTape:
    """The `ctx` of an operation that is not recorded: takes everything and keeps nothing."""

    __slots__ = ()
    needs: tuple[bool, ...] = (False,) * 64

    def save(self, *values: Any) -> None:
        """Keep nothing."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep nothing."""


NO_TAPE = NoTape()


# --- where in the source an operation was called -------------------------------------------------

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_ENGINE = tuple(
    os.path.join(_PACKAGE, part)
    for part in ("autograd" + os.sep, "ops" + os.sep, "tape.py", "tensor.py", os.path.join("nn", "functional.py"))
)
_is_engine: dict[str, bool] = {}


def call_site() -> Any:
    """The innermost frame outside the engine as `(code, instruction)`; the line is worked out if asked."""
    frame = sys._getframe(1)
    while frame is not None:
        filename = frame.f_code.co_filename
        inside = _is_engine.get(filename)
        if inside is None:
            inside = _is_engine[filename] = filename.startswith(_ENGINE)
        if not inside:
            return frame.f_code, frame.f_lasti
        frame = frame.f_back  # type: ignore[assignment]
    return None


def site_line(site: Any) -> tuple[str, int, str]:
    """File name, line number and text of a call site."""
    if site is None:
        return "<unknown>", 0, ""
    code, instruction = site
    line = next(
        (number for start, end, number in code.co_lines() if start <= instruction < end and number),
        code.co_firstlineno,
    )
    return code.co_filename, line, linecache.getline(code.co_filename, line).strip()


def describe_site(site: Any) -> str:
    """A call site for people: `train.py:12: loss = model(x)`."""
    filename, line, text = site_line(site)
    place = f"{os.path.relpath(filename) if os.path.isabs(filename) and _near(filename) else filename}:{line}"
    return f"{place}: {text}" if text else place


def _near(filename: str) -> bool:
    """True where the path relative to the current folder is the shorter, clearer one."""
    try:
        return not os.path.relpath(filename).startswith("..")
    except (ValueError, OSError):  # another drive, or a current folder that is gone
        return False
