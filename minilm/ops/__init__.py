"""Every differentiable operation, each written once; `ops.all()` lists them."""

from minilm.ops import (
    activation,
    arrange,
    attach,
    attention,
    conv,
    einsum,
    embedding,
    indexing,
    inplace,
    joining,
    loss,
    matmul,
    norm,
    pointwise,
    random,
    reduction,
    selection,
    shape,
    softmax,
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
    "attention",
    "conv",
    "einsum",
    "embedding",
    "get",
    "indexing",
    "inplace",
    "joining",
    "loss",
    "matmul",
    "norm",
    "pointwise",
    "random",
    "reduction",
    "selection",
    "shape",
    "softmax",
]
