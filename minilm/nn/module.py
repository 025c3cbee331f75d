"""Module: a part of a model, with what it learns, what it remembers, and the parts it is made of."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from minilm import dtypes
from minilm.device import Device
from minilm.errors import DtypeError, ModuleError
from minilm.nn import hooks, state, summary
from minilm.nn.parameter import Parameter
from minilm.tensor import Removable, Tensor

M = TypeVar("M", bound="Module")


class Module:
    """Base of all layers and models, with the names and rules of PyTorch's.

    Parameters, tensors given to `register_buffer`, and other modules become part of a module by being
    assigned to an attribute. Subclasses call `super().__init__()` first and define `forward`:

        class Perceptron(Module):
            def __init__(self, C):
                super().__init__()
                self.hidden = Linear(C, 4 * C)
                self.out = Linear(4 * C, C)

            def forward(self, x):                                  # (..., C) -> (..., C)
                return self.out(functional.gelu(self.hidden(x)))

    Attributes:
        training: True after `train()`, False after `eval()`; dropout looks at it.
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _non_persistent: set[str]
    _forward_pre_hooks: hooks.Hooks
    _forward_hooks: hooks.Hooks
    _backward_hooks: hooks.Hooks

    def __init__(self) -> None:
        self.__dict__.update(
            training=True,
            _parameters={},
            _buffers={},
            _modules={},
            _non_persistent=set(),
            _forward_pre_hooks={},
            _forward_hooks={},
            _backward_hooks={},
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; subclasses say it."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward` and the hooks around it."""
        if self._forward_pre_hooks or self._forward_hooks or self._backward_hooks:
            return hooks.call_with_hooks(self, args, kwargs)
        return self.forward(*args, **kwargs)

    # --- attributes -------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if "_parameters" not in own:
            if isinstance(value, (Parameter, Module)):
                raise _no_init(self, f"{name!r} cannot be set yet")
            object.__setattr__(self, name, value)
        elif isinstance(value, Parameter):
            self._forget(name, keep=own["_parameters"])
            own["_parameters"][name] = value
        elif isinstance(value, Module):
            self._forget(name, keep=own["_modules"])
            own["_modules"][name] = value
        elif name in own["_parameters"]:
            check_kind(self, name, value, Parameter, "parameter")
            own["_parameters"][name] = value
        elif name in own["_modules"]:
            check_kind(self, name, value, Module, "module")
            own["_modules"][name] = value
        elif name in own["_buffers"]:
            check_kind(self, name, value, Tensor, "buffer")
            own["_buffers"][name] = value
        else:
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        if "_parameters" not in own:
            raise _no_init(self, f"it has no attribute {name!r}")
        for kind in ("_parameters", "_modules", "_buffers"):
            if name in own[kind]:
                return own[kind][name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for kind in (self._parameters, self._modules, self._buffers):
            if name in kind:
                del kind[name]
                self._non_persistent.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self._parameters, *self._modules, *self._buffers})

    def _forget(self, name: str, keep: dict[str, Any]) -> None:
        """Take `name` out of everything but `keep`, whose order it holds."""
        self.__dict__.pop(name, None)
        self._non_persistent.discard(name)
        for kind in (self._parameters, self._buffers, self._modules):
            if kind is not keep:
                kind.pop(name, None)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under `name`; None keeps the place empty. Errors: ModuleError, TypeError."""
        self._check_free(name, self._parameters)
        check_kind(self, name, param, Parameter, "parameter")
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is part of the state but not learnt; if not `persistent`, not of `state_dict`."""
        self._check_free(name, self._buffers)
        check_kind(self, name, tensor, Tensor, "buffer")
        self._buffers[name] = tensor
        (self._non_persistent.discard if persistent else self._non_persistent.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a part under `name`; None keeps the place empty."""
        self._check_free(name, self._modules)
        check_kind(self, name, module, Module, "module")
        self._modules[name] = module

    register_module = add_module

    def _check_free(self, name: str, kind: dict[str, Any]) -> None:
        if "_parameters" not in self.__dict__:
            raise _no_init(self, f"{name!r} cannot be registered yet")
        if not isinstance(name, str) or not name or "." in name:
            raise ModuleError(f"a name in a module is a string that is not empty and has no dot, not {name!r}")
        if name not in kind and hasattr(self, name):
            raise ModuleError(f"{type(self).__name__} has an attribute {name!r} already")

    # --- its parts --------------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct parts with their names, each once."""
        seen: set[int] = set()
        for name, module in self._modules.items():
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator[Module]:
        """The direct parts, each once."""
        return (module for _, module in self.named_children())

    def named_modules(
        self, memo: set[int] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """The module itself (named `prefix`) and all parts of parts with their full names, each once."""
        memo = set() if memo is None else memo
        if id(self) in memo:
            return
        if remove_duplicate:
            memo.add(id(self))
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """The module itself and all parts of parts, each once."""
        return (module for _, module in self.named_modules())

    def get_submodule(self, target: str) -> Module:
        """The part with the full name `target`, as in "layers.0.attention". Errors: AttributeError."""
        module: Any = self
        for depth, name in enumerate(target.split(".") if target else []):
            known = module._modules if isinstance(module, Module) else {}
            if known.get(name) is None:
                where = ".".join(target.split(".")[:depth]) or type(self).__name__
                raise AttributeError(f"get_submodule: {target!r}: {where} has no module {name!r}, only {list(known)}")
            module = known[name]
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter with the full name `target`. Errors: AttributeError."""
        path, _, name = target.rpartition(".")
        found = self.get_submodule(path)._parameters.get(name)
        if found is None:
            raise AttributeError(f"get_parameter: there is no parameter {target!r}")
        return found

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """The parameters with their full names; a shared one once, under its first name."""
        return self._named("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, each once."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """The buffers with their full names, each once."""
        return self._named("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def _named(self, kind: str, prefix: str, recurse: bool, once: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        owners = self.named_modules(prefix=prefix, remove_duplicate=once) if recurse else [(prefix, self)]
        for path, module in owners:
            for name, tensor in getattr(module, kind).items():
                if tensor is None or id(tensor) in seen:
                    continue
                if once:
                    seen.add(id(tensor))
                yield (f"{path}.{name}" if path else name), tensor

    # --- its state --------------------------------------------------------------------------------

    def state_dict(self, prefix: str = "", keep_vars: bool = False) -> dict[str, Tensor]:
        """Parameters and persistent buffers by full name, detached but sharing memory.

        A shared parameter stands under each of its names, as in PyTorch.
        """
        tensors = state.state_tensors(self, prefix)
        return tensors if keep_vars else {name: tensor.detach() for name, tensor in tensors.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> state.IncompatibleKeys:
        """Copy tensors or arrays in by name, converted to the module's element types.

        Everything is checked before anything is written. `strict` refuses missing and unexpected
        names; without it they are returned. Errors: ModuleError that lists all that does not fit.
        """
        return state.load_state(self, state_dict, strict)

    def load_torch(self, source: Any) -> state.IncompatibleKeys:
        """Copy the weights of a PyTorch module, or of its state_dict, into this one, by name.

        Names and shapes must be the same, as with `load_state_dict(strict=True)`; values are converted to the
        element types here, bfloat16 too. Errors: ModuleError that lists all that does not fit; nothing is changed.
        """
        return state.load_torch(self, source)

    def to_torch(self) -> dict[str, Any]:
        """The state as a dict of PyTorch tensors (copies), for `load_state_dict` of a PyTorch module.

        Errors: MissingTorchError where PyTorch is not installed.
        """
        return state.torch_state(self)

    def train(self: M, mode: bool = True) -> M:
        """Go into training mode, with all parts; `train(False)` is `eval()`."""
        for module in self.modules():
            module.training = builtins.bool(mode)
        return self

    def eval(self: M) -> M:
        """Go into evaluation mode: no dropout."""
        return self.train(False)

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """Call `fn` on every part, then on the module itself: to set initial weights, say."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Let all parameters learn, or freeze them."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or fill them with zeros where they are."""
        for parameter in self.parameters():
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                parameter.grad.detach_().zero_()

    def to(self: M, *args: Any, **kwargs: Any) -> M:
        """Convert floating parameters and buffers to an element type, and/or move all to a device.

        `m.to(ml.float64)`, `m.to("cpu")`, `m.to("cuda", ml.float32)`, `m.to(other_tensor)`. The
        parameters stay the same objects. Errors: DtypeError, DeviceError, before anything is changed.
        """
        device, dtype = _target(args, kwargs)

        def converted(array: Any) -> Any:
            if dtype is not None and array.dtype.kind == "f":
                array = array.astype(dtype, copy=False)
            return array if device is None else device.receive(array)

        tensors = {id(t): t for t in [*self.parameters(), *self.buffers()]}
        fresh = [
            (tensor, converted(tensor.array), None if tensor.grad is None else converted(tensor.grad.array))
            for tensor in tensors.values()
        ]
        for tensor, array, gradient in fresh:
            tensor.data = Tensor(array)
            if gradient is not None:
                tensor.grad = Tensor(gradient)
        return self

    def cpu(self: M) -> M:
        """All parameters and buffers on the CPU."""
        return self.to("cpu")

    def cuda(self: M) -> M:
        """All parameters and buffers on the GPU. Errors: DeviceError that says what is missing."""
        return self.to("cuda")

    def double(self: M) -> M:
        """Floating parameters and buffers as float64."""
        return self.to(dtypes.float64)

    def float(self: M) -> M:
        """Floating parameters and buffers as float32."""
        return self.to(dtypes.float32)

    def half(self: M) -> M:
        """Floating parameters and buffers as float16."""
        return self.to(dtypes.float16)

    # --- hooks ------------------------------------------------------------------------------------

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> Removable:
        """Call `hook(module, args)` before each forward; what it returns replaces the arguments.

        With `with_kwargs` it is `hook(module, args, kwargs)` and returns both.
        """
        return hooks.add_hook(self._forward_pre_hooks, (hook, with_kwargs), prepend)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> Removable:
        """Call `hook(module, args, output)` after each forward; what it returns replaces the output.

        With `with_kwargs` it is `hook(module, args, kwargs, output)`.
        """
        return hooks.add_hook(self._forward_hooks, (hook, with_kwargs), prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> Removable:
        """Call `hook(module, grad_input, grad_output)` when the gradients of the inputs are known.

        Both are tuples of Tensors, None where nothing flows; what it returns replaces `grad_input`.
        Only positional arguments are seen.
        """
        return hooks.add_hook(self._backward_hooks, hook, prepend)

    # --- for people -------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        return ""

    def __repr__(self) -> str:
        return summary.tree(self)

    def summary(self, *inputs: Any, **named_inputs: Any) -> summary.Table:
        """A table of all parts: name, type, output shape (if inputs are given), parameters, bytes."""
        return summary.summary(self, inputs, named_inputs)


def _no_init(module: Module, what: str) -> AttributeError:
    name = type(module).__name__
    return AttributeError(f"{name}: {what}: call super().__init__() first in {name}.__init__")


def check_kind(module: Module, name: str, value: Any, kind: type, word: str) -> None:
    """Raise TypeError unless `value` may stand in the place `name` of the module."""
    if value is not None and not isinstance(value, kind):
        raise TypeError(
            f"{type(module).__name__}: {name!r} is a {word} and takes a {kind.__name__} or None, "
            f"not {type(value).__name__}"
        )


def _target(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Device | None, np.dtype[Any] | None]:
    """The device and the element type that `to(...)` was given, None for what was not."""
    device: Device | None = None
    dtype: np.dtype[Any] | None = None
    kwargs.pop("non_blocking", None)  # to wait or not makes no difference to what comes out
    if set(kwargs) - {"device", "dtype"}:
        raise TypeError(f"to: device and dtype can be given by name, not {', '.join(kwargs)}")
    for target in (*args, *kwargs.values()):
        if target is None:
            continue
        if isinstance(target, Tensor):
            device, dtype = target.device, target.dtype
        elif isinstance(target, Device) or (isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda")):
            device = Device(target)
        else:
            dtype = dtypes.checked(target)
    if dtype is not None and dtype.kind != "f":
        raise DtypeError(f"to: a module's parameters are floating; {dtype} is not")
    return device, dtype
