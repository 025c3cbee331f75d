"""Every differentiable operation, each written once; `ops.all()` lists them."""

from minilm.ops import (
    activation,
    arrange,
    attach,
    einsum,
    indexing,
    inplace,
    joining,
    matmul,
    pointwise,
    reduction,
    selection,
    shape,
)
from minilm.ops.registry import Composite, Fused, Operation, Primitive, Sample, all, get  # noqa: A004

attach.attach_all()

__all__ = [
    "Composite",
    "Fused",
    "Operation",
    "Primitive",
    "Sample",
    "activation",
    "all",
    "arrange",
    "einsum",
    "get",
    "indexing",
    "inplace",
    "joining",
    "matmul",
    "pointwise",
    "reduction",
    "selection",
    "shape",
]
