"""A module's state: its parameters and persistent buffers by name, given out and taken in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minilm import pytorch
from minilm.errors import ModuleError
from minilm.modes import no_grad
from minilm.tensor import Tensor

if TYPE_CHECKING:
    from minilm.nn.module import Module


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` passed over."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def state_tensors(module: Module, prefix: str = "") -> dict[str, Tensor]:
    """Every parameter and persistent buffer under its full name, in the order of registration.

    A shared tensor stands under each of its names.
    """
    found: dict[str, Tensor] = {}
    for name, parameter in module._parameters.items():
        if parameter is not None:
            found[prefix + name] = parameter
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent:
            found[prefix + name] = buffer
    for name, child in module._modules.items():
        if child is not None:
            found.update(state_tensors(child, f"{prefix}{name}."))
    return found


def load_state(module: Module, state: Mapping[str, Any], strict: bool) -> IncompatibleKeys:
    """Copy `state` into the module. Everything is checked before anything is written.

    Errors: ModuleError that lists all that does not fit.
    """
    if not isinstance(state, Mapping):
        raise ModuleError(f"load_state_dict: a dict of tensors was expected, not {type(state).__name__}")
    own = state_tensors(module)
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    faults: list[str] = []
    if strict and missing:
        faults.append(f"missing: {', '.join(missing)}")
    if strict and unexpected:
        faults.append(f"unexpected: {', '.join(map(str, unexpected))}")
    given = {name: _readable(state[name]) for name in own if name in state}
    faults += filter(None, (_misfit(name, own[name], value) for name, value in given.items()))
    if faults:
        raise ModuleError(
            f"load_state_dict: this state does not fit {type(module).__name__}; nothing was changed\n  "
            + "\n  ".join(faults)
        )
    with no_grad():
        for name, value in given.items():
            own[name].copy_(value)
    return IncompatibleKeys(missing, unexpected)


def load_torch(module: Module, source: Any) -> IncompatibleKeys:
    """Copy the state of a PyTorch module, or a state_dict of one, into ours; see `Module.load_torch`."""
    try:
        arrays = pytorch.state_of(source)
    except TypeError as error:
        raise ModuleError(f"load_torch: {error}; nothing was changed") from None
    return load_state(module, arrays, strict=True)


def torch_state(module: Module) -> dict[str, Any]:
    """The state as PyTorch's tensors, copies, by name; tied tensors stay one tensor."""
    torch = pytorch.import_torch("to_torch()")
    made: dict[int, Any] = {}
    for tensor in state_tensors(module).values():
        if id(tensor) not in made:
            made[id(tensor)] = pytorch.to_torch(tensor, torch)
    return {name: made[id(tensor)] for name, tensor in state_tensors(module).items()}


def _readable(given: Any) -> Any:
    """`given`, or what NumPy reads of it where it is a tensor of another library, PyTorch's for one."""
    if not hasattr(given, "dtype") or hasattr(given.dtype, "kind"):
        return given
    try:
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError):  # on a device, with a gradient, of a type that NumPy lacks
        return given


def _misfit(name: str, tensor: Tensor, given: Any) -> str:
    """Why `given` cannot become the value of `tensor`; empty if it can."""
    if not hasattr(given, "shape") or not hasattr(given, "dtype"):
        return f"{name}: a tensor was expected, not {type(given).__name__}"
    if tuple(given.shape) != tensor.shape:
        return f"{name}: shape {tuple(given.shape)} in the state, {tensor.shape} in the module"
    if not hasattr(given.dtype, "kind"):
        return f"{name}: NumPy cannot read a {type(given).__name__} of {given.dtype}"
    if given.dtype.kind not in "biuf":
        return f"{name}: numbers were expected, not {given.dtype}"
    if given.dtype.kind == "f" and tensor.dtype.kind != "f":
        return f"{name}: {given.dtype} in the state would be cut to {tensor.dtype}"
    if not tensor.array.flags.writeable:
        return f"{name}: the module's memory is read-only"
    return ""
