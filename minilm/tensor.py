"""Tensor: an array, its gradient, and the node of the tape that made it.

The arithmetic is not here: each operation stands in minilm/ops and attaches itself as a method.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from minilm import dtypes
from minilm.device import Device, array_module
from minilm.errors import AutogradError, DtypeError, ShapeError
from minilm.modes import state
from minilm.tape import Node, Version

if TYPE_CHECKING:  # a stub, made from the register of operations, tells editors the methods
    from minilm.tensor_methods import TensorMethods
else:
    TensorMethods = object

Array = Any


class _Inference(Version):
    """The version of tensors made in inference_mode: they may not be saved for a backward pass."""

    def bump(self, name: str) -> None:
        """Changes need no count, since nothing may be saved."""


INFERENCE = _Inference()


class Tensor(TensorMethods):
    """An array of one element type, which can remember how it was computed.

    Args:
        data: an array (kept without a copy), a Tensor, a number, or nested lists of numbers.
        requires_grad: whether operations on it are recorded, for `backward()` to fill `.grad`.
        dtype: the element type; by default the array's own, float32 for Python floats.

    Attributes:
        array: the NumPy array (or CuPy array on a GPU) itself, no copy. Writing into it is not seen
            by the tape; `t.copy_()`, `t[i] = x` and the other in-place operations are.
        grad: the gradient that backward passes added up, a Tensor of the same shape, or None.
    """

    __slots__ = (
        "__weakref__",
        "_base",
        "_generation",
        "_hooks",
        "_index",
        "_node",
        "_requires_grad",
        "_steps",
        "_version",
        "array",
        "grad",
    )

    def __init__(self, data: Any, requires_grad: bool = False, dtype: Any = None) -> None:
        self.array = _to_array(data, dtype)
        self.grad: Tensor | None = None
        self._node: Node | None = None  # what made it; None for a leaf
        self._index = 0  # which of the node's outputs it is
        self._version: Version | None = None  # made when somebody first needs to count
        self._base: Tensor | None = None  # a view: the tensor whose memory it shares, and
        self._steps: tuple[Any, ...] = ()  # the operations that lead from there to here
        self._generation = 0  # a base: how often its history was rewritten; a view: which one it knows
        self._hooks: dict[int, Any] | None = None
        self._requires_grad = False
        if requires_grad:
            self.requires_grad = True

    # --- what it is -------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of its axes."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type, a NumPy dtype: `ml.float32` and so on."""
        return self.array.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.array.ndim

    @property
    def device(self) -> Device:
        """Where the array lives; compares with "cpu" and "cuda"."""
        return Device.of(self.array)

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of one axis (PyTorch's method; NumPy's `.size` is `numel()`)."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """The number of axes."""
        return self.ndim

    def numel(self) -> int:
        """The number of elements."""
        return int(self.array.size)

    def element_size(self) -> int:
        """Bytes for one element."""
        return int(self.array.itemsize)

    def is_floating_point(self) -> bool:
        """True for float16, float32 and float64, the types that can have a gradient."""
        return self.array.dtype.kind == "f"

    def is_contiguous(self) -> bool:
        """True where the elements lie in memory in the order in which they are counted."""
        return bool(self.array.flags.c_contiguous)

    # --- its history ------------------------------------------------------------------------------

    @property
    def node(self) -> Node | None:
        """The node that made it, None for a leaf; PyTorch's name is `grad_fn`."""
        if self._base is not None and self._generation != self._base._generation:
            self._replay()
        return self._node

    grad_fn = node

    @property
    def requires_grad(self) -> bool:
        """Whether operations on it are recorded."""
        if self._base is not None and self._generation != self._base._generation:
            self._replay()
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if not value and self.node is not None:
            raise AutogradError("requires_grad of a computed tensor cannot be switched off; use t.detach()")
        if value and not self.is_floating_point():
            raise AutogradError(f"only floating tensors can require a gradient, and this one is {self.dtype}")
        self._requires_grad = bool(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set `requires_grad` and return the tensor."""
        self.requires_grad = requires_grad
        return self

    @property
    def is_leaf(self) -> bool:
        """True where no recorded operation made it: its gradient ends up in `.grad`."""
        return self.node is None

    def backward(
        self,
        gradient: Any = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """Add the gradient of this tensor into the `.grad` of every leaf it depends on.

        Args and errors: see `autograd.backward`.
        """
        from minilm.autograd.engine import backward

        backward(self, None if gradient is None else [gradient], retain_graph, create_graph, inputs)

    def detach(self) -> Tensor:
        """The same memory without the history: gradients do not flow through it."""
        result = wrap(self.array)
        result._version = self._versioned()
        return result

    def detach_(self) -> Tensor:
        """Forget the history of this very tensor."""
        self._node, self._index, self._requires_grad, self._base = None, 0, False, None
        return self

    @property
    def data(self) -> Tensor:
        """The same memory without the history and without the guard against changes, as in PyTorch."""
        return wrap(self.array)

    @data.setter
    def data(self, value: Any) -> None:
        array = _to_array(value, None)
        if array.shape != self.shape:
            raise ShapeError(f"data: the tensor has shape {self.shape}, the new data {array.shape}")
        self.array = array
        if self._node is not None:  # no longer what the operation made: whoever saves it must keep it
            self._version = Version()
            self._version.bump("data")

    def retain_grad(self) -> None:
        """Ask that the next backward passes keep this computed tensor's gradient in `.grad`."""
        node = self.node
        if not self.requires_grad:
            raise AutogradError("retain_grad: this tensor does not require a gradient")
        if node is None:
            return  # a leaf keeps its own anyway
        hooks = (node.hooks or {}).get(self._index, {})
        if any(hook.retains_for() is self for hook in hooks.values() if hasattr(hook, "retains_for")):
            return
        owner = weakref.ref(self)

        def keep(gradient: Tensor) -> None:
            """Recognised by the engine, which delivers the gradient with those of the leaves."""

        keep.retains_for = owner  # type: ignore[attr-defined]
        _add_hook(node, self._index, keep)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Removable:
        """Call `hook(gradient)` whenever this tensor's gradient is known; what it returns replaces it."""
        if not self.requires_grad:
            raise AutogradError("register_hook: this tensor does not require a gradient")
        node = self.node
        if node is not None:
            return _add_hook(node, self._index, hook)
        self._hooks = {} if self._hooks is None else self._hooks
        return Removable(self._hooks, hook)

    def graph(self, **options: Any) -> Any:
        """The graph that computed this tensor, as a drawing: `_repr_svg_`, `.dot`, `.save(path)`.

        Args: `names` (a dict, pairs or a Module) and `max_nodes`, see `autograd.graph.Graph`.
        """
        from minilm.autograd.graph import Graph

        return Graph(self, **options)

    # --- its values -------------------------------------------------------------------------------

    def item(self) -> Any:
        """The only element, as a Python number. Errors: ShapeError if there are several."""
        if self.array.size != 1:
            raise ShapeError(f"item: a tensor of shape {self.shape} has {self.array.size} elements, not one")
        return self.array.item()

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        return self.array.tolist()

    def numpy(self) -> np.ndarray[Any, Any]:
        """The NumPy array, sharing memory. Errors: AutogradError if it requires a gradient."""
        self._refuse_gradient("numpy", "NumPy", "t.detach().numpy()")
        return Device("cpu").receive(self.array)

    def _refuse_gradient(self, name: str, taker: str, instead: str) -> None:
        if self.requires_grad:
            raise AutogradError(
                f"{name}: this tensor requires a gradient, which {taker} would drop without a word; "
                f"say that you want that: {instead}"
            )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from minilm.ops.numpy_bridge import call_ufunc

        return call_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        from minilm.ops.numpy_bridge import call_function

        return call_function(function, args, kwargs)

    def __dlpack__(self, **kwargs: Any) -> Any:
        self._refuse_gradient("dlpack", "its taker", "t.detach()")
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()

    def cpu(self) -> Tensor:
        """On the CPU; itself if it is there."""
        return self.to("cpu")

    def cuda(self) -> Tensor:
        """On the GPU. Errors: DeviceError that says what is missing."""
        return self.to("cuda")

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of a tensor without axes")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.ndim:
            raise TypeError("a tensor without axes cannot be iterated over; .item() gives its value")
        return (self[i] for i in range(self.shape[0]))

    def __bool__(self) -> bool:
        if self.array.size != 1:
            raise ShapeError(f"the truth of a tensor of shape {self.shape} is ambiguous; use .any() or .all()")
        return bool(self.array.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iub":
            raise TypeError(f"only an integer tensor can be an index, and this one is {self.dtype}")
        return int(self.item())

    def __contains__(self, value: Any) -> bool:
        return bool((self.array == (value.array if isinstance(value, Tensor) else value)).any())

    def __format__(self, spec: str) -> str:
        if not self.ndim:
            return format(self.item(), spec)
        try:
            return format(str(self), spec)
        except ValueError:
            raise ShapeError(
                f"the format {spec!r} is for one number, and this tensor has shape {self.shape}; format t.item()"
            ) from None

    def __hash__(self) -> int:
        return id(self)

    def __copy__(self) -> Tensor:
        if self.node is not None:
            raise AutogradError("only leaf tensors can be copied; use t.detach() or t.clone()")
        result = self.__class__.__new__(type(self))
        Tensor.__init__(result, self.array, self._requires_grad)
        result.grad = self.grad
        result._version = self._versioned()
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self.node is not None:
            raise AutogradError("only leaf tensors can be copied deeply; use t.detach() or t.clone()")
        result = self.__class__.__new__(type(self))
        Tensor.__init__(result, self.array.copy(), self._requires_grad)
        result.grad = None if self.grad is None else wrap(self.grad.array.copy())
        memo[id(self)] = result
        return result

    def __reduce__(self) -> Any:
        raise TypeError("tensors are not pickled: minilm.save and minilm.load keep them as safetensors")

    def __repr__(self) -> str:
        body = np.array2string(
            Device("cpu").receive(self.array), separator=", ", precision=4, prefix="tensor(", threshold=1000
        )
        notes = []
        if self.dtype not in (dtypes.get_default_dtype(), dtypes.int64, dtypes.bool_):
            notes.append(f"dtype={self.dtype}")
        if self.array.size == 0 and self.ndim > 1:
            notes.append(f"shape={self.shape}")
        if self.device != "cpu":
            notes.append(f"device={str(self.device)!r}")
        node = self.node
        if node is not None:
            notes.append(f"grad_fn=<{node.name}>")
        elif self._requires_grad:
            notes.append("requires_grad=True")
        return ", ".join([f"tensor({body}", *notes]) + ")"

    # --- for the engine ---------------------------------------------------------------------------

    def _versioned(self) -> Version:
        """The count of changes to its memory, which views share."""
        if self._version is None:
            self._version = Version()
        elif self._version is INFERENCE and state.recording:
            raise AutogradError(
                "a tensor made in inference_mode() cannot be saved for a backward pass; use its clone()"
            )
        return self._version

    def _link_view(self, source: Any, op: Any, rest: Any, options: Any, output: int | None) -> None:
        """If this result of a view operation shares `source`'s memory, remember the way from its base."""
        xp = array_module(self.array)
        if not isinstance(source, Tensor) or not xp.may_share_memory(self.array, source.array):
            return
        base = source._base if source._base is not None else source
        self._base = base
        self._steps = (*source._steps, (op, rest, options, output))
        self._generation = base._generation
        self._version = base._versioned() if base._version is not INFERENCE else INFERENCE

    def _replay(self) -> None:
        """The base was changed in place: take this view's history from there anew."""
        from minilm.modes import enable_grad
        from minilm.ops.inplace import follow

        base = self._base
        assert base is not None
        self._generation = base._generation
        with enable_grad():
            fresh = follow(base, self._steps)
        self._node, self._index, self._requires_grad = fresh._node, fresh._index, fresh._requires_grad


_new = object.__new__


def wrap(array: Array, node: Node | None = None, index: int = 0) -> Tensor:
    """A Tensor around `array`, unchecked: the engine's own way, kept short."""
    t = _new(Tensor)
    t.array = array
    t.grad = None
    t._node = node
    t._index = index
    t._version = None
    t._base = None
    t._steps = ()
    t._generation = 0
    t._hooks = None
    t._requires_grad = node is not None
    return t


class Removable:
    """What `register_hook` returns: `remove()` takes the hook away again."""

    _next = 0

    def __init__(self, hooks: dict[int, Any], hook: Any) -> None:
        Removable._next += 1
        self.id = Removable._next
        self._hooks = hooks
        hooks[self.id] = hook

    def remove(self) -> None:
        """Take the hook away; a second call does nothing."""
        self._hooks.pop(self.id, None)

    def __enter__(self) -> Removable:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def _add_hook(node: Node, index: int, hook: Any) -> Removable:
    if node.hooks is None:
        node.hooks = {}
    return Removable(node.hooks.setdefault(index, {}), hook)


def _to_array(data: Any, dtype: Any) -> Array:
    """`data` as an array of a supported type; arrays are taken without a copy where the type fits."""
    if isinstance(data, Tensor):
        data = data.array
    if isinstance(data, np.ndarray) or hasattr(data, "__cuda_array_interface__"):
        wanted = dtypes.checked(data.dtype if dtype is None else dtype)
        array = data if type(data) is np.ndarray or not isinstance(data, np.ndarray) else np.asarray(data)
        return array if array.dtype == wanted else array.astype(wanted)
    if isinstance(data, (list, tuple)):
        data = _unwrapped(data)
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ShapeError(f"tensor: the rows differ in length ({error})") from None
    if array.dtype.kind not in "biuf":
        raise DtypeError(f"tensor: numbers were expected, not {type(data).__name__} of {array.dtype}")
    if dtype is None:
        # Python's floats become the default type; NumPy's scalars keep theirs.
        if array.dtype == np.float64 and not isinstance(data, np.generic):
            dtype = dtypes.get_default_dtype()
        else:
            dtype = array.dtype
    return array.astype(dtypes.checked(dtype), copy=False)


def _unwrapped(data: Any) -> Any:
    """Nested lists with the Tensors in them as plain numbers and lists."""
    if isinstance(data, (list, tuple)):
        return [_unwrapped(item) for item in data]
    return data.tolist() if isinstance(data, Tensor) else data
