"""Products of matrices."""

from __future__ import annotations

from typing import Any

from minilm import kernels
from minilm.ops.registry import Composite, Primitive, sample
from minilm.ops.shape import permute, reshape


def transposed(x: Any) -> Any:
    """The last two axes exchanged: (..., N, K) to (..., K, N)."""
    return permute(x, (*range(len(x.shape) - 2), -1, -2))


class MatrixProduct(Primitive, shapes="(..., N, K), (..., K, M) -> (..., N, M)", method=False, name="matrix_product"):
    """z = x y, batched:  dx = dz y^T,  dy = x^T dz"""

    def forward(ctx, x, y):
        ctx.save(x if ctx.needs[1] else None, y if ctx.needs[0] else None)
        return kernels.matmul(x, y)

    def backward(ctx, dz):
        x, y = ctx.saved
        return (
            None if y is None else matrix_product(dz, transposed(y)),
            None if x is None else matrix_product(transposed(x), dz),
        )

    def torch(torch, x, y):
        return torch.matmul(x, y)


matrix_product = MatrixProduct.apply


class Matmul(Composite, shapes="(?), (?) -> (?)"):
    """z = x y: (N, K) x (K, M), batches (..., N, K) x (..., K, M), and vectors on either side.

    Errors: ShapeError with both shapes and the two sizes that differ.
    """

    samples = [
        sample((2, 3), (3, 5)),
        sample((3,), (3,)),
        sample((2, 3), (3,)),
        sample((3,), (7, 3, 5)),
        sample((7, 2, 3), (3, 5)),
        sample((7, 1, 2, 3), (5, 3, 2)),
        sample((2, 0), (0, 3)),
    ]

    def definition(x, y):
        column, row = len(y.shape) == 1, len(x.shape) == 1
        a = reshape(x, (1, *x.shape)) if row else x
        b = reshape(y, (*y.shape, 1)) if column else y
        z = matrix_product(a, b)
        if row:
            z = reshape(z, (*z.shape[:-2], z.shape[-1]))
        return reshape(z, z.shape[:-1]) if column else z


matmul = Matmul.apply
