"""PyTorch's tensors and ours, both ways: the one place where values cross over.

PyTorch is never imported when this module is; what needs it imports it when called, or is given it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from minilm.errors import MissingTorchError
from minilm.tensor import Tensor


def import_torch(what: str) -> ModuleType:
    """The module torch, for `what`. Errors: MissingTorchError, which says how to install it."""
    try:
        import torch
    except ImportError as error:
        raise MissingTorchError(
            f"{what} needs PyTorch, which is not installed ({error}): pip install torch, or pip install minilm[torch]"
        ) from None
    return torch


def to_torch(value: Any, torch: Any, requires_grad: bool = False) -> Any:
    """Arrays, Tensors and dtypes, also inside tuples, lists and dicts, as PyTorch's; the rest as it is.

    Values are copied: a later change on one side does not reach the other.
    """
    if isinstance(value, Tensor):
        value = value.array
    if isinstance(value, np.ndarray):
        tensor = torch.from_numpy(value.copy())
        return tensor.requires_grad_() if requires_grad and value.dtype.kind == "f" else tensor
    if isinstance(value, np.dtype):
        return getattr(torch, value.name)
    if isinstance(value, (tuple, list)):
        return type(value)(to_torch(v, torch) for v in value)
    if isinstance(value, dict):
        return {key: to_torch(v, torch) for key, v in value.items()}
    return value


def to_numpy(tensor: Any) -> np.ndarray[Any, Any]:
    """A PyTorch tensor's values; bfloat16, which NumPy lacks, as float32, exactly. It may share memory."""
    tensor = tensor.detach()
    if is_bfloat16(tensor):
        tensor = tensor.float()
    return tensor.cpu().resolve_conj().resolve_neg().numpy()


def is_torch_tensor(value: Any) -> bool:
    """Whether `value` is a tensor of PyTorch's; asks without importing it."""
    return not isinstance(value, Tensor) and type(value).__module__.split(".")[0] == "torch" and hasattr(value, "dtype")


def is_bfloat16(tensor: Any) -> bool:
    """Whether a PyTorch tensor holds bfloat16: the upper half of a float32."""
    return str(tensor.dtype) == "torch.bfloat16"


def state_of(module_or_state: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The state of a PyTorch module, or a state_dict of one, as arrays by name.

    Errors: TypeError for what is neither, or holds something else than tensors.
    """
    state = module_or_state
    if not isinstance(state, Mapping) and callable(getattr(state, "state_dict", None)):
        state = state.state_dict()
    if not isinstance(state, Mapping):
        raise TypeError(f"a PyTorch module or its state_dict was expected, not {type(module_or_state).__name__}")
    strange = [f"{name} ({type(value).__name__})" for name, value in state.items() if not is_tensor(value)]
    if strange:
        raise TypeError(f"a state_dict holds tensors by name, and these are none: {', '.join(strange)}")
    return {name: value if isinstance(value, np.ndarray) else as_array(value) for name, value in state.items()}


def is_tensor(value: Any) -> bool:
    """Whether `value` is a tensor of either library, or an array."""
    return isinstance(value, (Tensor, np.ndarray)) or is_torch_tensor(value)


def as_array(value: Any) -> np.ndarray[Any, Any]:
    """The values of a tensor of either library, an array or a number, as an array that may share its memory."""
    if isinstance(value, Tensor):
        return np.asarray(value.array)
    return to_numpy(value) if is_torch_tensor(value) else np.asarray(value)
