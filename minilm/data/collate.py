"""From a list of items to one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minilm.device import array_module
from minilm.errors import DataError, ShapeError
from minilm.ops.joining import stack
from minilm.tensor import Tensor


def default_collate(items: Sequence[Any]) -> Any:
    """Put B items together along a new first axis, as torch.utils.data.default_collate does.

    - Tensors and NumPy arrays of shape (...) give a Tensor (B, ...) of the same dtype;
    - numbers give a Tensor (B,): bool, int64, or float64 for Python's floats;
    - mappings give a mapping of the same keys, named tuples a named tuple, other tuples and lists
      a list: each of collated fields;
    - strings and bytes stay as they are.

    Gradients flow through the batch to Tensors that require them.

    Errors: ShapeError if shapes or lengths differ; DataError for what cannot be collated, or no items.
    """
    if not items:
        raise DataError("default_collate: there are no items")
    first = items[0]
    if isinstance(first, str | bytes):
        return items
    if isinstance(first, Mapping):
        return _like(first, {key: default_collate([d[key] for d in items]) for key in first})
    if isinstance(first, tuple | list):
        return _collate_sequences(items)
    if isinstance(first, np.ndarray | np.generic | bool | int | float):
        return Tensor(_stacked([np.asarray(item) for item in items]))
    if isinstance(first, Tensor):
        return _collate_tensors(items)
    raise DataError(
        f"default_collate: items are {type(first).__name__}; it takes Tensors, arrays, numbers, "
        "strings, mappings, tuples and lists. Give a collate_fn for anything else"
    )


def _collate_sequences(items: Sequence[Any]) -> Any:
    lengths = [len(item) for item in items]
    if len(set(lengths)) != 1:
        raise ShapeError(f"default_collate: items have different lengths {sorted(set(lengths))}")
    fields = [default_collate(field) for field in zip(*items, strict=True)]
    first = items[0]
    return type(first)(*fields) if hasattr(first, "_fields") else fields


def _collate_tensors(items: Sequence[Any]) -> Any:
    if any(item.requires_grad for item in items):
        return stack(items)
    return Tensor(_stacked([item.array for item in items]))


def _stacked(arrays: Sequence[Any]) -> Any:
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) != 1:
        raise ShapeError(
            f"default_collate: items have different shapes {', '.join(map(str, shapes))}; "
            "a collate_fn that pads them is needed"
        )
    return array_module(arrays[0]).stack(arrays)


def _like(first: Mapping[Any, Any], fields: dict[Any, Any]) -> Any:
    if type(first) is dict:
        return fields
    try:
        return type(first)(fields)  # type: ignore[call-arg]
    except TypeError:
        return fields
