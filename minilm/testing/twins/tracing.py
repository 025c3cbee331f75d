"""What a model does, written down on either side: the modules it goes through, and the operations inside.

A `Side` runs a function of one library and records

- each call of a module: its inputs and outputs, by the hooks that both libraries have;
- if asked, each operation as a `Call` under one name and with arrays, whichever library computed it: minilm shows them
  to `modes.state.watchers`, PyTorch to a TorchFunctionMode. A function may put other values in an output's place.

Both sides draw dropout from minilm's generators, PyTorch's too: equal seeds then drop equal elements, which two
libraries with generators of their own cannot do.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minilm import random
from minilm.modes import no_grad, state
from minilm.pytorch import as_array, is_torch_tensor
from minilm.tensor import Tensor
from minilm.testing.twins import torch_calls
from minilm.testing.twins.calls import Call, Rewrite, Widened, our_call

Array = np.ndarray[Any, Any]
Key = tuple[str, int, str, str]  # module's name, which of its calls, "input" or "output", place in a tuple or dict

# Fused operations that are recorded as what they are made of, so that they line up with PyTorch's.
TAKEN_APART = {
    "linear_gelu",
    "linear_relu",
    "add_layer_norm",
    "add_rms_norm",
    "linear_cross_entropy",
    "packed_self_attention",
    "self_attention",
}


@dataclass
class Visit:
    """One call of a module.

    Attributes:
        name: the module's full name, "" for the model itself. number: which of its calls this is, from 0.
        inputs, outputs: the arrays in its arguments and in its result, by their place.
        args, kwargs: the arguments, copies, to run it again. generator: where the generator stood.
        started: how many calls had begun before; ended: how many had come back, this one included.
        before, after: how many operations were recorded when it began and when it came back.
    """

    name: str
    number: int
    inputs: dict[str, Array]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    generator: tuple[int, int]
    started: int
    outputs: dict[str, Array] = field(default_factory=dict)
    ended: int = 0
    before: int = 0
    after: int = 0

    @property
    def title(self) -> str:
        """The name for people: `blocks.0.norm`, and `blocks.0.norm#2` for its second call."""
        return (self.name or "the model") + (f"#{self.number + 1}" if self.number else "")


@dataclass
class Recording:
    """What one run did: the visits in the order in which they came back, the operations, and the result."""

    visits: list[Visit] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    result: Any = None

    def at(self, key: Key) -> tuple[Array | None, int]:
        """What a module was given or gave back at `key`, and how many operations had run by then.

        None if the module was not called so often, or has no such argument or result.
        """
        name, number, where, place = key
        for visit in self.visits:
            if visit.name == name and visit.number == number:
                if where == "input":
                    return visit.inputs.get(place), visit.before
                return visit.outputs.get(place), visit.after
        return None, len(self.calls)


class Recorder:
    """Writes visits into a `Recording` as modules are entered and left."""

    def __init__(self, side: Side) -> None:
        self.side, self.recording = side, Recording()
        self.stack: list[Visit] = []
        self._counts: dict[str, int] = {}
        self._started = 0

    def enter(self, name: str, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A module is called."""
        copies, named = self.side.copied(args), self.side.copied(kwargs)
        inputs = leaves(by_position(module.forward, copies, named))
        number = self._counts[name] = self._counts.get(name, -1) + 1
        visit = Visit(name, number, inputs, copies, named, self.side.generator.get_state(), self._started)
        visit.before = len(self.recording.calls)
        self._started += 1
        self.stack.append(visit)

    def leave(self, result: Any) -> None:
        """The module that was entered last returns."""
        visit = self.stack.pop()
        visit.outputs = leaves(result)
        self.recording.visits.append(visit)
        visit.ended, visit.after = len(self.recording.visits), len(self.recording.calls)

    def place(self) -> str:
        """The name of the module that is running."""
        return self.stack[-1].name if self.stack else ""


def _hooked(name: str, module: Any, recorder: Recorder) -> list[Any]:
    """The two hooks of a module; they change nothing."""

    def before(module: Any, args: Any, kwargs: Any) -> None:
        recorder.enter(name, module, args, kwargs)

    def after(module: Any, args: Any, kwargs: Any, result: Any) -> None:
        recorder.leave(result)

    return [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after, with_kwargs=True),
    ]


class Side:
    """One library's model, and how functions are run with it. Subclasses: `Ours` and `Theirs`."""

    name: str

    def __init__(self, model: Any) -> None:
        self.model = model
        self.generator = random.Generator()  # the one that dropout draws from

    def record(self, function: Callable[[], Any], calls: bool = False, rewrite: Rewrite | None = None) -> Recording:
        """Run `function` and write down what it does; `rewrite` may replace outputs of operations (with `calls`)."""
        recorder = Recorder(self)
        recording = recorder.recording
        with contextlib.ExitStack() as cleanup:
            for name, module in self.model.named_modules():
                for handle in _hooked(name, module, recorder):
                    cleanup.callback(handle.remove)
            with self.watching(recording.calls if calls else None, rewrite, recorder.place):
                recording.result = function()
        return recording

    def again(self, visit: Visit, rewrite: Rewrite | None = None) -> Recording:
        """Run a module once more on what it was given, without gradients, with all its operations recorded."""
        module = dict(self.model.named_modules())[visit.name]
        return self.repeated(lambda: module(*self.copied(visit.args), **self.copied(visit.kwargs)), visit, rewrite)

    def repeated(self, function: Callable[[], Any], visit: Visit | None, rewrite: Rewrite | None) -> Recording:
        """Run `function` without gradients, with the generator where it stood at `visit`."""
        here = self.generator.get_state()
        if visit is not None:
            self.generator.set_state(visit.generator)
        try:
            with self.without_gradients():
                return self.record(function, True, rewrite)
        finally:
            self.generator.set_state(here)

    def copied(self, value: Any) -> Any:
        """The value with copies of the tensors in it, cut off from the graph."""
        if isinstance(value, (tuple, list)) and type(value) in (tuple, list):
            return type(value)(self.copied(v) for v in value)
        if isinstance(value, dict):
            return {key: self.copied(v) for key, v in value.items()}
        return value.detach().clone() if isinstance(value, Tensor) or is_torch_tensor(value) else value

    def watching(self, calls: list[Call] | None, rewrite: Rewrite | None, place: Callable[[], str]) -> Any:
        """A context in which operations are added to `calls` (None: not recorded) and may be rewritten."""
        raise NotImplementedError

    def without_gradients(self) -> Any:
        """The library's no_grad()."""
        raise NotImplementedError


class Ours(Side):
    """minilm's side."""

    name = "minilm"

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.generator = random.default_generator

    def without_gradients(self) -> Any:
        """See the class."""
        return no_grad()

    @contextlib.contextmanager
    def watching(self, calls: list[Call] | None, rewrite: Rewrite | None, place: Callable[[], str]) -> Iterator[None]:
        """See the class."""
        if calls is None:
            yield
            return

        def watch(op: Any, arrays: list[Any], results: tuple[Any, ...], rest: Any, options: Any) -> Any:
            if op.name in TAKEN_APART:
                made = op.definition(*(None if a is None else as_tensor(a) for a in arrays), *rest, **options)
                return tuple(t.array for t in made) if isinstance(made, tuple) else (made.array,)
            call = our_call(op, arrays, results, rest, options, len(calls), place())
            calls.append(call)
            values = None if rewrite is None else rewrite(call)
            if values is None:
                return None
            if isinstance(values, Widened):
                return (values.values, *results[1:])
            return (np.asarray(values, results[0].dtype), *results[1:])

        before = state.watchers
        state.watchers = (*before, watch)
        try:
            yield
        finally:
            state.watchers = before


class Theirs(Side):
    """PyTorch's side."""

    name = "PyTorch"

    def __init__(self, model: Any, torch: Any) -> None:
        super().__init__(model)
        self.torch = torch

    def without_gradients(self) -> Any:
        """See the class."""
        return self.torch.no_grad()

    def watching(self, calls: list[Call] | None, rewrite: Rewrite | None, place: Callable[[], str]) -> Any:
        """See the class."""
        return torch_calls.watching(self.torch, self.generator, calls, rewrite, place)


def as_tensor(value: Any) -> Any:
    """An array as a Tensor; numbers as they are."""
    return Tensor(value) if isinstance(value, np.ndarray) else value


def by_position(forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by their place in the signature, however they were given: names differ between the libraries."""
    signature = inspect.signature(forward)
    try:
        bound = signature.bind(*args, **kwargs).arguments
    except TypeError:  # the forward itself will say what is wrong
        return {**{str(i): a for i, a in enumerate(args)}, **kwargs}
    found: dict[str, Any] = {}
    for position, (name, parameter) in enumerate(signature.parameters.items()):
        if name not in bound:
            continue
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            found.update({str(position + i): a for i, a in enumerate(bound[name])})
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            found.update(bound[name])
        else:
            found[str(position)] = bound[name]
    return found


def leaves(value: Any, place: str = "") -> dict[str, Array]:
    """The arrays in a tensor, or in nested tuples, lists and dicts of tensors, by their place; copies."""
    if isinstance(value, Tensor) or is_torch_tensor(value):
        return {place: as_array(value).copy()}
    found: dict[str, Array] = {}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (tuple, list)) else ()
    for key, part in items:
        found.update(leaves(part, f"{place}.{key}" if place else str(key)))
    return found
