"""Products of matrices."""

from __future__ import annotations

import math
from typing import Any

from minilm import kernels
from minilm.autograd.partial import PartialGradient
from minilm.errors import DtypeError, ShapeError
from minilm.kernels.constants import Constants as Constants
from minilm.modes import state
from minilm.ops.activation import check_approximate, gelu
from minilm.ops.reduction import sum  # noqa: A004
from minilm.ops.registry import Composite, Fused, Primitive, options, sample
from minilm.ops.selection import relu
from minilm.ops.shape import permute, reshape


def transposed(x: Any) -> Any:
    """The last two axes exchanged: (..., N, K) to (..., K, N)."""
    return permute(x, (*range(len(x.shape) - 2), -1, -2))


class MatrixProduct(
    Primitive,
    shapes="(..., N, K), (..., K, M) -> (..., N, M)",
    method=False,
    fresh=True,
    name="matrix_product",
    title="matmul",
):
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
        for operand in (x, y):
            if not hasattr(operand, "shape"):
                raise DtypeError(
                    f"matmul: a tensor or an array was expected, not {type(operand).__name__}: {operand!r}"
                )
        column, row = len(y.shape) == 1, len(x.shape) == 1
        a = reshape(x, (1, *x.shape)) if row else x
        b = reshape(y, (*y.shape, 1)) if column else y
        z = matrix_product(a, b)
        if row:
            z = reshape(z, (*z.shape[:-2], z.shape[-1]))
        return reshape(z, z.shape[:-1]) if column else z


matmul = Matmul.apply


class ProductGradient(PartialGradient):
    """A gradient dz W, of rows dz (N, O) and weight (O, I), that is computed when the walk knows what to add to it.

    Where a residual stream parts, the gradient of its other way is there already: the product adds it to each of its
    tiles while that is in the cache.
    """

    def __init__(self, rows: Any, weight: Any, shape: tuple[int, ...]) -> None:
        self.array, self.weight, self.shape = rows, weight, shape

    def dense(self) -> Any:
        """dz W"""
        return kernels.matmul(self.array, self.weight).reshape(self.shape)

    def plus(self, gradient: Any, own: bool) -> Any:
        """dz W + gradient"""
        return kernels.linear(self.array, self.weight.T, None, _rows(gradient)).reshape(self.shape)


class Linear(Primitive, shapes="(..., I), (O, I), (O) -> (..., O)", method=False, fresh=True):
    """z = x W^T + b, the map of every layer: one product of matrices, however many axes lead.

    dx = dz W,  dW = dz^T x summed over the leading axes,  db = the sum of dz over them
    """

    samples = [
        sample((2, 3, 5), (7, 5), (7,)),
        sample((3, 5), (7, 5), None),
        sample((5,), (7, 5), (7,)),
        sample((0, 5), (7, 5), (7,)),
    ]

    def forward(ctx, x, weight, bias=None):
        ctx.save(x, weight)
        ctx.bias = bias is not None
        return kernels.linear(_rows(x), weight, bias).reshape(*x.shape[:-1], weight.shape[0])

    def backward(ctx, dz):
        x, weight = ctx.saved
        rows = reshape(dz, (math.prod(dz.shape[:-1]), dz.shape[-1]))
        dx = dweight = dbias = None
        if ctx.needs[0]:
            dx = reshape(matrix_product(rows, weight), x.shape) if state.create_graph else _waiting(rows, weight, x)
        if ctx.needs[1]:
            dweight = matrix_product(transposed(rows), reshape(x, (rows.shape[0], x.shape[-1])))
        if ctx.bias and ctx.needs[2]:
            dbias = sum(rows, 0)
        return dx, dweight, dbias

    def torch(torch, x, weight, bias=None):
        return torch.nn.functional.linear(x, weight, bias)


linear = Linear.apply


class LinearGelu(Fused, shapes="(..., I), (O, I), (O) -> (..., O)", dtypes="float", method=False, fresh=True):
    """z = gelu(x W^T + b): a linear map and the activation behind it, computed while its result is in the cache.

    Source: Hendrycks & Gimpel 2016, section 2, for `approximate` see `gelu`.
    """

    samples = [
        *options(approximate=["none", "tanh"]),
        sample((2, 3, 5), (7, 5), None),
        sample((5,), (7, 5), (7,)),
        sample((0, 5), (7, 5), (7,)),
    ]

    def definition(x, weight, bias=None, approximate="none"):
        return gelu(linear(x, weight, bias), approximate)

    def forward(ctx, x, weight, bias=None, approximate="none"):
        check_approximate(approximate)
        y, h = kernels.linear_gelu(_rows(x), weight, bias, approximate)
        ctx.save(x, weight, bias, h)
        ctx.approximate = approximate
        return y.reshape(*x.shape[:-1], weight.shape[0])

    remake_reads = slice(3, 4)

    def remake(ctx, h):
        return kernels.gelu(h, ctx.approximate).reshape(ctx.output_shape)

    def backward(ctx, dy):
        *inputs, h = ctx.saved
        return _of_the_map(ctx.needs, *inputs, kernels.gelu_backward(dy.reshape(h.shape), h, ctx.approximate))

    def torch(torch, x, weight, bias=None, approximate="none"):
        return torch.nn.functional.gelu(torch.nn.functional.linear(x, weight, bias), approximate=approximate)


class LinearRelu(
    Fused, shapes="(..., I), (O, I), (O) -> (..., O)", dtypes="float", smooth=False, method=False, fresh=True
):
    """z = max(x W^T + b, 0): a linear map and the activation behind it, computed while its result is in the cache."""

    samples = [
        sample((2, 3, 5), (7, 5), (7,)),
        sample((2, 3, 5), (7, 5), None),
        sample((5,), (7, 5), (7,)),
        sample((0, 5), (7, 5), (7,)),
    ]

    def definition(x, weight, bias=None):
        return relu(linear(x, weight, bias))

    def forward(ctx, x, weight, bias=None):
        z = kernels.linear_relu(_rows(x), weight, bias).reshape(*x.shape[:-1], weight.shape[0])
        ctx.save(x, weight, bias, z)
        return z

    def backward(ctx, dz):
        *inputs, z = ctx.saved
        dh = kernels.relu_backward(dz, z)
        return _of_the_map(ctx.needs, *inputs, _rows(dh))

    def torch(torch, x, weight, bias=None):
        return torch.relu(torch.nn.functional.linear(x, weight, bias))


linear_gelu, linear_relu = LinearGelu.apply, LinearRelu.apply


def _of_the_map(needs: Any, x: Any, weight: Any, bias: Any, dh: Any) -> tuple[Any, Any, Any]:
    """The gradients of x, weight and bias, from those of h = x W^T + b: (..., I), (O, I), (O), (N, O)."""
    dx = _waiting(dh, weight, x) if needs[0] else None
    dweight = kernels.matmul(dh.T, _rows(x)) if needs[1] else None
    return dx, dweight, kernels.sum_rows(dh) if bias is not None and needs[2] else None


def _waiting(rows: Any, weight: Any, x: Any) -> Any:
    """The gradient of x from those of the rows of x W^T; anomaly detection wants to see it now."""
    gradient = ProductGradient(rows, weight, x.shape)
    return gradient.dense() if state.anomaly else gradient


def _rows(x: Any) -> Any:
    """(..., I) as (N, I)."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


# --- the same products under names that fix the number of axes ------------------------------------


class Mm(Composite, shapes="(N, K), (K, M) -> (N, M)"):
    """z = x y for two matrices and nothing else."""

    def definition(x, y):
        _axes_are("mm", (x, 2), (y, 2))
        return matrix_product(x, y)


class Bmm(Composite, shapes="(B, N, K), (B, K, M) -> (B, N, M)"):
    """z_b = x_b y_b for each of B pairs of matrices."""

    def definition(x, y):
        _axes_are("bmm", (x, 3), (y, 3))
        if x.shape[0] != y.shape[0]:
            raise ShapeError(
                f"bmm: {tuple(x.shape)} and {tuple(y.shape)} are not as many matrices: {x.shape[0]} is not {y.shape[0]}"
            )
        return matrix_product(x, y)


class Mv(Composite, shapes="(N, K), (K) -> (N)"):
    """z = x y for a matrix and a vector."""

    def definition(x, y):
        _axes_are("mv", (x, 2), (y, 1))
        return matmul(x, y)


class Dot(Composite, shapes="(K), (K) -> ()"):
    """z = x_1 y_1 + ... + x_K y_K"""

    def definition(x, y):
        _axes_are("dot", (x, 1), (y, 1))
        return matmul(x, y)


class Outer(Composite, shapes="(N), (M) -> (N, M)"):
    """z_ij = x_i y_j"""

    def definition(x, y):
        _axes_are("outer", (x, 1), (y, 1))
        return reshape(x, (-1, 1)) * reshape(y, (1, -1))


def _axes_are(name: str, *wanted: tuple[Any, int]) -> None:
    """Raise ShapeError unless each operand has the number of axes that stands beside it."""
    for x, ndim in wanted:
        if len(x.shape) != ndim:
            raise ShapeError(f"{name}: an operand of {ndim} axes was expected, and {tuple(x.shape)} has {len(x.shape)}")


mm, bmm, mv, dot, outer = Mm.apply, Bmm.apply, Mv.apply, Dot.apply, Outer.apply
