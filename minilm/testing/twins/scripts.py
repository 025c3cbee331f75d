"""One script run on both engines: PyTorch first, then minilm under PyTorch's names, beginning with the same numbers.

How the two runs are made equal, all of it taken from PyTorch's run and given to minilm's:

- the weights of each module that the script calls from outside of any other are those it had when it was first called;
- what the script draws by `torch.randn`, `randint` ... (`DRAWS`) is the same, call by call, and so is the order in
  which a `DataLoader` with shuffle goes through its data;
- dropout on both sides draws from minilm's generator, which stands at the same place whenever a module is called from
  outside. NumPy's and Python's generators begin both runs with the same seed.

A run ends after the number of optimiser steps that are compared.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import random as python_random
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from minilm import random
from minilm.compat import ScriptError, run_script, torch_names
from minilm.data import sampler
from minilm.nn import Module
from minilm.optim import Optimizer
from minilm.pytorch import as_array, state_of
from minilm.tensor import Tensor
from minilm.testing.twins.calls import Array
from minilm.testing.twins.rows import Values, evened
from minilm.testing.twins.tracing import Ours, Recorder, Recording, Theirs

# The functions of torch whose results minilm's run takes over.
DRAWS = ("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "normal", "bernoulli", "multinomial")


class _EnoughError(BaseException):
    """Ends a script after its last step; no `except Exception` of the script's catches it."""


class Forest:
    """All modules that a script calls from outside, as parts of one: their names begin with the variable's."""

    def __init__(self) -> None:
        self.roots: dict[str, Any] = {}

    def add(self, module: Any) -> None:
        """One more, under the name of the script's global variable, or of its class."""
        variables = vars(sys.modules["__main__"])
        name = next((n for n, value in variables.items() if value is module), type(module).__name__)
        free = name
        while free in self.roots:
            free = f"{name}_{len(self.roots)}"
        self.roots[free] = module

    def named_modules(self) -> Iterator[tuple[str, Any]]:
        """All modules with their names."""
        for root, module in self.roots.items():
            for name, part in module.named_modules():
                yield f"{root}.{name}" if name else root, part

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        """All parameters with their names, each once."""
        seen: set[int] = set()
        for root, module in self.roots.items():
            for name, parameter in module.named_parameters():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield f"{root}.{name}", parameter

    def values(self) -> Values:
        """All parameters' values, copies."""
        return {name: as_array(p.detach()).copy() for name, p in self.named_parameters()}

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for _, parameter in self.named_parameters():
            parameter.grad = None


@dataclass
class Step:
    """What happened up to one step of an optimiser: modules' values, losses, gradients, the parameters after it."""

    recording: Recording
    losses: list[Array]
    gradients: Values = field(default_factory=dict)
    parameters: Values = field(default_factory=dict)


class Run:
    """A script on one engine. Subclasses: `TorchRun`, whose numbers `OurRun` takes over."""

    module_class: Any
    tensor_class: Any
    sampler_class: Any
    side: Any

    def __init__(self, steps: int) -> None:
        self.limit, self.forest = steps, Forest()
        self.steps: list[Step] = []
        self.names: dict[int, str] = {}
        self.losses: list[Array] = []
        self.optimizers: list[Any] = []
        self.initial: Values = {}  # the parameters before the first step
        self.walking = False  # is a backward pass under way?
        self.visited = 0  # how often a module was called from outside

    def run(self, path: Path, arguments: Sequence[str]) -> None:
        """Run the script until it has taken its steps, or to its end. Errors: ScriptError, and the script's own."""
        self.recorder = Recorder(self.side)
        before = python_random.getstate(), np.random.get_state(), random.get_rng_state()
        python_random.seed(0)
        np.random.seed(0)
        try:
            with contextlib.ExitStack() as patches:
                patches.enter_context(contextlib.redirect_stdout(io.StringIO()))
                for patch in self.patches():
                    patches.enter_context(patch)
                self._to_the_end(path, arguments)
        finally:
            python_random.setstate(before[0])
            np.random.set_state(before[1])
            random.set_rng_state(before[2])
        if self.recorder.recording.visits and len(self.steps) < self.limit:
            self.steps.append(Step(self.recorder.recording, self.losses))  # what came after the last step

    def _to_the_end(self, path: Path, arguments: Sequence[str]) -> None:
        """Run the script; what it raises comes back as a ScriptError that says on which engine and in which line."""
        try:
            run_script(path, arguments)
        except _EnoughError:
            return
        except ScriptError:
            raise
        except SystemExit as error:
            if error.code not in (None, 0):
                raise ScriptError(f"{path} on {self.side.name}: the script ended itself with {error.code!r}") from error
        except Exception as error:
            lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
            where = f"{path}:{lines[-1]}" if lines else str(path)
            raise ScriptError(f"{where} on {self.side.name}: {type(error).__name__}: {error}") from error

    def patches(self) -> Iterator[Any]:
        """Contexts in which the library tells this object what it does."""
        call, backward, order = self.module_class.__call__, self.tensor_class.backward, self.sampler_class.__iter__

        def called(module: Any, *args: Any, **kwargs: Any) -> Any:
            return self.called(call, module, args, kwargs)

        def walked(tensor: Any, *args: Any, **kwargs: Any) -> Any:
            if self.walking:  # PyTorch's calls itself once more where functions are watched
                return backward(tensor, *args, **kwargs)
            self.losses.append(as_array(tensor.detach()).copy())
            self.walking = True
            try:
                return backward(tensor, *args, **kwargs)
            finally:
                self.walking = False

        yield mock.patch.object(self.module_class, "__call__", called)
        yield mock.patch.object(self.tensor_class, "backward", walked)
        yield mock.patch.object(self.sampler_class, "__iter__", lambda drawn: iter(self.order(order, drawn)))

    def called(self, call: Any, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A module is called: note it, and before the first call from outside make the weights equal."""
        if not self.recorder.stack:
            if id(module) not in {id(root) for root in self.forest.roots.values()}:
                self.forest.add(module)
                self.first_called(module)
                self.initial = {**self.forest.values(), **self.initial}
                self.names = {id(part): name for name, part in self.forest.named_modules()}
            self.outside()
            self.visited += 1
        self.recorder.enter(self.names.get(id(module), type(module).__name__), module, args, kwargs)
        result = call(module, *args, **kwargs)
        self.recorder.leave(result)
        return result

    def first_called(self, module: Any) -> None:
        """Record a module's weights, or set them."""
        raise NotImplementedError

    def outside(self) -> None:
        """Record where the generator stands, or set it there."""
        raise NotImplementedError

    def evened(self) -> None:
        """What rounding errors alone moved is made equal before the next step (`rows.evened`)."""

    def order(self, original: Callable[[Any], Any], drawn: Any) -> list[int]:
        """The order of a shuffled data set: recorded, or the recorded one."""
        raise NotImplementedError

    def before_step(self, optimizer: Any) -> None:
        """An optimiser is about to change its parameters."""
        if not any(optimizer is known for known in self.optimizers):
            self.optimizers.append(optimizer)
        given = {name: p.grad for name, p in self.forest.named_parameters()}
        gradients = {name: as_array(g).copy() for name, g in given.items() if g is not None}
        self.steps.append(Step(self.recorder.recording, self.losses, gradients))
        self.recorder, self.losses = Recorder(self.side), []

    def after_step(self) -> None:
        """It has."""
        self.steps[-1].parameters = self.forest.values()
        self.evened()
        if len(self.steps) >= self.limit:
            raise _EnoughError


class TorchRun(Run):
    """PyTorch's run."""

    def __init__(self, steps: int, torch: Any) -> None:
        super().__init__(steps)
        self.torch = torch
        self.module_class, self.tensor_class = torch.nn.Module, torch.Tensor
        self.sampler_class = torch.utils.data.RandomSampler
        self.side = Theirs(self.forest, torch)
        self.states: list[Values] = []
        self.generators: list[tuple[int, int]] = []
        self.draws: list[tuple[str, Array]] = []
        self.orders: list[list[int]] = []

    def patches(self) -> Iterator[Any]:
        """See the class."""
        yield from super().patches()
        yield self.torch.random.fork_rng(devices=[])
        yield self.side.watching(None, None, self.recorder.place)
        for name in DRAWS:
            yield mock.patch.object(self.torch, name, self._drawing(name, getattr(self.torch, name)))
        hooks = importlib.import_module("torch.optim.optimizer")
        for register, function in (
            (hooks.register_optimizer_step_pre_hook, lambda optimizer, *_: self.before_step(optimizer)),
            (hooks.register_optimizer_step_post_hook, lambda *_: self.after_step()),
        ):
            yield _removed(register(function))

    def _drawing(self, name: str, original: Any) -> Any:
        def draw(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            caller = sys._getframe(1).f_globals.get("__name__", "")
            if caller.partition(".")[0] != "torch":  # PyTorch draws for itself too, initial weights for one
                self.draws.append((name, as_array(result.detach()).copy()))
            return result

        return draw

    def first_called(self, module: Any) -> None:
        """See the class."""
        self.states.append({name: array.copy() for name, array in state_of(module).items()})

    def outside(self) -> None:
        """See the class."""
        self.generators.append(self.side.generator.get_state())

    def order(self, original: Callable[[Any], Any], drawn: Any) -> list[int]:
        """See the class."""
        self.orders.append(list(original(drawn)))
        return self.orders[-1]


class OurRun(Run):
    """minilm's run, under PyTorch's names, with the numbers of PyTorch's run.

    Errors: ScriptError where it goes another way.
    """

    module_class, tensor_class, sampler_class = Module, Tensor, sampler.RandomSampler

    def __init__(self, steps: int, first: TorchRun, rtol: float | None = None) -> None:
        super().__init__(steps)
        self.first, self.rtol = first, rtol
        self.side = Ours(self.forest)
        self.draws, self.orders = iter(first.draws), iter(first.orders)

    def patches(self) -> Iterator[Any]:
        """See the class."""
        yield from super().patches()
        step = Optimizer.step

        def stepped(optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            self.before_step(optimizer)
            result = step(optimizer, *args, **kwargs)
            self.after_step()
            return result

        yield mock.patch.object(Optimizer, "step", stepped)
        yield self._names()

    @contextlib.contextmanager
    def _names(self) -> Iterator[None]:
        """`torch` stands for minilm, and its random functions give what PyTorch's gave."""
        with torch_names() as torch:
            for name in DRAWS:
                setattr(torch, name, self._replaying(name))
            try:
                yield
            finally:
                for name in DRAWS:  # a module that is run again to explain a difference draws anew
                    delattr(torch, name)

    def _replaying(self, name: str) -> Any:
        def draw(*_: Any, requires_grad: bool = False, **__: Any) -> Tensor:
            then, values = next(self.draws, ("nothing", None))
            if then != name or values is None:
                raise ScriptError(f"on minilm the script draws torch.{name}, on PyTorch {then}: it goes another way")
            return Tensor(values.copy(), requires_grad)

        return draw

    def first_called(self, module: Any) -> None:
        """See the class."""
        index = len(self.forest.roots) - 1
        if index >= len(self.first.states):
            raise ScriptError(f"the script calls a {type(module).__name__} on minilm that it did not call on PyTorch")
        module.load_torch(self.first.states[index])

    def evened(self) -> None:
        """See the class."""
        count = len(self.steps)
        if count > len(self.first.steps):
            return
        history = [s.gradients for s in self.steps], [s.gradients for s in self.first.steps[:count]]
        values = evened(self.steps[-1].parameters, self.first.steps[count - 1].parameters, history, self.rtol)
        with self.side.without_gradients():
            for name, parameter in self.forest.named_parameters():
                if name in values:
                    parameter.copy_(Tensor(values[name]))
        self.steps[-1].parameters = values

    def outside(self) -> None:
        """See the class."""
        if self.visited < len(self.first.generators):
            self.side.generator.set_state(self.first.generators[self.visited])

    def order(self, original: Callable[[Any], Any], drawn: Any) -> list[int]:
        """See the class."""
        order = next(self.orders, None)
        if order is None or len(order) != len(drawn):
            raise ScriptError("the script shuffles data on minilm that it did not shuffle on PyTorch")
        return order


@contextlib.contextmanager
def _removed(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
