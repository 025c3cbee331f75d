"""PyTorch's operations seen from outside: a TorchFunctionMode that records, replaces, and shares dropout's draws."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np

from minilm import random
from minilm.ops import registry
from minilm.ops.attention import Attention, drop_weights
from minilm.ops.random import dropout_key, keep_mask
from minilm.pytorch import as_array, is_torch_tensor, to_numpy
from minilm.tensor import Tensor
from minilm.testing.twins.calls import Call, Rewrite, Widened

LOSS = ("x", "target", "weight", "size_average", "ignore_index", "reduce", "reduction", "label_smoothing")

# The arguments of PyTorch's functions in their order, under the names that `Call.inputs` has, where they are not
# those of the operation of the same name in minilm.
SIGNATURES = {
    "cross_entropy": LOSS,
    "dropout": ("x", "p", "training", "inplace"),
    "layer_norm": ("x", "normalized_shape", "weight", "bias", "eps"),
    "mse_loss": ("x", "target", "size_average", "reduce", "reduction"),
    "nll_loss": LOSS,
    "rms_norm": ("x", "normalized_shape", "weight", "eps"),
    "scaled_dot_product_attention": ("q", "k", "v", "mask", "p", "causal", "scale"),
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "cross_entropy": {"reduction": "mean", "ignore_index": -100},
    "dropout": {"p": 0.5, "training": True, "inplace": False},
    "gelu": {"approximate": "none"},
    "layer_norm": {"eps": 1e-5},
    "mse_loss": {"reduction": "mean"},
    "nll_loss": {"reduction": "mean", "ignore_index": -100},
    "scaled_dot_product_attention": {"p": 0.0, "causal": False},
}
NAMES = {"bmm": "matmul", "mm": "matmul", "__matmul__": "matmul", "scaled_dot_product_attention": "attention"}
NAMES |= dict.fromkeys(("to", "type", "float", "double", "half", "bfloat16"), "cast")
KEYWORDS = {"input": "x", "other": "y", "query": "q", "key": "k", "value": "v", "mat2": "y", "self": "x"}
KEYWORDS |= {"attn_mask": "mask", "dropout_p": "p", "is_causal": "causal"}
SILENT = ("__get__", "__set__", "detach", "clone")  # attributes, and what changes nothing


def plain_name(name: str) -> str:
    """The name of a function without the underscore of its in-place form: `add_` is `add`, `__eq__` itself."""
    return name if name.startswith("__") else name.rstrip("_")


@functools.cache
def _arguments_of_ours(name: str) -> tuple[str, ...] | None:
    """The arguments of minilm's operation of this name; None if there is none, or it takes any number."""
    try:
        op = registry.get(name)
    except KeyError:
        return None
    composed = issubclass(op, registry.Composite)
    names = tuple(inspect.signature(op.apply if composed else op.forward).parameters)
    return None if op.signature.variadic else names[0 if composed else 1 :]


def inputs_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of PyTorch's function `name` under the names that `Call.inputs` has, tensors as they are."""
    order = SIGNATURES.get(name) or _arguments_of_ours("matmul" if NAMES.get(name) == "matmul" else name)
    places = order if order is not None and len(args) <= len(order) else tuple(f"x{i}" for i in range(len(args)))
    if NAMES.get(name) == "cast":
        places = ("x", *places[1:])
    keywords = {"value": "value"} if name == "masked_fill" else {}
    named = {{**KEYWORDS, **keywords}.get(key, key): value for key, value in kwargs.items()}
    return {**DEFAULTS.get(name, {}), **dict(zip(places, args)), **named}


def watching(
    torch: Any,
    generator: random.Generator,
    calls: list[Call] | None,
    rewrite: Rewrite | None,
    place: Callable[[], str],
) -> Any:
    """A mode in which dropout draws from `generator`, and functions are added to `calls` unless that is None."""
    functional = torch.nn.functional

    inside: list[str] = []  # the functions of PyTorch's that are taken apart just now

    class Watching(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            name = getattr(function, "__name__", "")
            if function is functional.multi_head_attention_forward and hasattr(functional, "has_torch_function"):
                # It would be handed to us as a whole, again and again. Told that nobody watches, it runs its body,
                # whose functions come here one by one.
                inside.append(name)
                try:
                    with mock.patch.object(functional, "has_torch_function", return_value=False), self:
                        return function(*args, **kwargs)
                finally:
                    inside.pop()
            inputs = inputs_of(plain_name(name), args, kwargs)
            result = _drawn(torch, generator, name, inputs, bool(inside))
            result = function(*args, **kwargs) if result is None else result
            if calls is None or name in SILENT or not _has_tensor((args, kwargs)):  # made of nothing: a constant
                return result
            return _recorded(torch, calls, rewrite, place(), name, inputs, result)

    return Watching()


def _has_tensor(value: Any) -> bool:
    """Whether a tensor is in the arguments."""
    if isinstance(value, dict):
        value = tuple(value.values())
    return any(map(_has_tensor, value)) if isinstance(value, (tuple, list)) else is_torch_tensor(value)


def _drawn(torch: Any, generator: random.Generator, name: str, inputs: dict[str, Any], of_weights: bool) -> Any:
    """The result of a function that drops elements, with draws from minilm's generator; None for any other.

    `of_weights`: attention's weights, which minilm's MultiheadAttention drops by a rule of their own.
    """
    p = inputs.get("p", 0.0)
    if name == "dropout" and inputs["training"] and p:
        x = inputs["x"]
        shape, scale = tuple(x.shape), 0.0 if p == 1 else 1 / (1 - p)
        if of_weights:
            factor = as_array(drop_weights(Tensor(np.ones(shape, np.float32)), p, generator))
        else:
            factor = as_array(keep_mask(shape, p, generator)) * scale
        factor = torch.from_numpy(factor).to(x.dtype)
        return x.mul_(factor) if inputs["inplace"] else x * factor
    if name == "scaled_dot_product_attention" and p:
        mask = inputs.get("mask")
        q, k, v, causal, scale = inputs["q"], inputs["k"], inputs["v"], inputs["causal"], inputs.get("scale")
        if mask is not None and mask.dtype != torch.bool:
            return None  # PyTorch draws by itself: the formula that shares draws has no mask that is added
        if causal:
            below = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
            mask = below if mask is None else mask & below
        return Attention.torch(torch, q, k, v, None, mask, False, scale, p, dropout_key(p, generator))
    return None


def _recorded(
    torch: Any,
    calls: list[Call],
    rewrite: Rewrite | None,
    module: str,
    name: str,
    inputs: dict[str, Any],
    result: Any,
) -> Any:
    """The result, or what takes its place, after the call was noted."""
    first = result[0] if isinstance(result, (tuple, list)) and result else result
    in_place = plain_name(name) != name
    op = NAMES.get(plain_name(name), plain_name(name))
    if not is_torch_tensor(first) or (op == "dropout" and not inputs.get("training", True)):
        return result
    if op == "cast" and not first.is_floating_point():
        op = name
    inputs = {key: to_numpy(value).copy() if is_torch_tensor(value) else value for key, value in inputs.items()}
    dtype = str(first.dtype).removeprefix("torch.")
    call = Call(op, "PyTorch", inputs, to_numpy(first).copy(), dtype, len(calls), module)
    calls.append(call)
    values = None if rewrite is None else rewrite(call)
    if values is None:
        return result
    wide = isinstance(values, Widened)
    made = torch.from_numpy(np.array(values.values if wide else values, order="C"))
    if in_place:
        return first.copy_(made)
    made = made if wide else made.to(first.dtype)
    return made if first is result else type(result)((made, *result[1:]))
