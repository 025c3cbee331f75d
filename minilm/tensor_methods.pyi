"""Made by `python -m minilm.ops.stubs` from the register of operations; not for editing."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minilm.ops.ordering import Sorted
from minilm.random import Generator
from minilm.tensor import Tensor

# Names of their own, since the methods float, int and bool hide Python's types in the class.
_Bool = bool
_Float = float
_Int = int
_Dim = int | Sequence[int] | None
_Ints = int | Sequence[int]
_Operand = Tensor | np.ndarray[Any, Any] | float
_Array = Tensor | np.ndarray[Any, Any]

class TensorMethods:
    """What Tensor is given by the operations."""

    @property
    def T(self) -> Tensor:
        """All axes in reverse order; of a matrix its transpose."""

    def abs(self) -> Tensor:
        """z = |x|;  dx = dz sign(x), 0 at 0"""

    def abs_(self) -> Tensor:
        """`abs`, written over this tensor."""

    def add(self, y: _Operand, alpha: _Float = 1) -> Tensor:
        """z = x + alpha y"""

    def add_(self, y: _Operand, alpha: _Float = 1) -> Tensor:
        """`add`, written over this tensor."""

    def addcdiv(self, a: _Operand, b: _Operand, value: Any = 1) -> Tensor:
        """z = x + value a / b"""

    def addcdiv_(self, a: _Operand, b: _Operand, value: Any = 1) -> Tensor:
        """`addcdiv`, written over this tensor."""

    def addcmul(self, a: _Operand, b: _Operand, value: Any = 1) -> Tensor:
        """z = x + value a b"""

    def addcmul_(self, a: _Operand, b: _Operand, value: Any = 1) -> Tensor:
        """`addcmul`, written over this tensor."""

    def addmm(self, a: _Operand, b: _Operand, beta: _Float = 1, alpha: _Float = 1) -> Tensor:
        """z = beta x + alpha a b, a product of matrices and what it is added to"""

    def all(self, dim: _Dim | None = None, keepdim: _Bool = False) -> Tensor:
        """z = whether every x is true (not 0) along `dim`"""

    def allclose(self, y: Tensor, rtol: _Float = 1e-05, atol: _Float = 1e-08, equal_nan: _Bool = False) -> _Bool:
        """Whether |x - y| <= atol + rtol |y| everywhere."""

    def amax(self, dim: _Dim | None = None, keepdim: _Bool = False) -> Tensor:
        """z = the largest x;  the gradient is shared equally among equals"""

    def amin(self, dim: _Dim | None = None, keepdim: _Bool = False) -> Tensor:
        """z = the smallest x;  the gradient is shared equally among equals"""

    def any(self, dim: _Dim | None = None, keepdim: _Bool = False) -> Tensor:
        """z = whether some x is true (not 0) along `dim`"""

    def argmax(self, dim: _Int | None = None, keepdim: _Bool = False) -> Tensor:
        """z = the index of the largest x along `dim`, of the first one among equals; in the flattened x by default"""

    def argmin(self, dim: _Int | None = None, keepdim: _Bool = False) -> Tensor:
        """z = the index of the smallest x along `dim`, of the first one among equals"""

    def argsort(self, dim: _Int = -1, descending: _Bool = False, stable: _Bool = True) -> Tensor:
        """The indices that sort x along `dim`; equals keep their order."""

    def baddbmm(self, a: _Operand, b: _Operand, beta: _Float = 1, alpha: _Float = 1) -> Tensor:
        """z_b = beta x_b + alpha a_b c_b for each of B pairs of matrices"""

    def bernoulli(self, generator: Generator | None = None) -> Tensor:
        """1 with probability x, else 0, for each element of x. Errors: ValueError for an x outside 0 ... 1."""

    def bincount(self, weights: Any = None, minlength: _Int = 0) -> Tensor:
        """How often each of 0, 1, ... occurs in x (N), or the sum of its weights. Errors: ValueError below 0."""

    def bitwise_and(self, y: _Operand) -> Tensor:
        """z = x & y, bit by bit; of bools their "and" """

    def bitwise_not(self) -> Tensor:
        """z = ~x, bit by bit; of bools the opposite"""

    def bitwise_or(self, y: _Operand) -> Tensor:
        """z = x | y, bit by bit; of bools their "or" """

    def bitwise_xor(self, y: _Operand) -> Tensor:
        """z = x ^ y, bit by bit; of bools whether just one is true"""

    def bmm(self, y: _Operand) -> Tensor:
        """z_b = x_b y_b for each of B pairs of matrices."""

    def bool(self) -> Tensor:
        """In bool; itself if it is already."""

    def broadcast_to(self, shape: _Ints) -> Tensor:
        """`expand` by NumPy's name: the axes of size 1 repeated without copying."""

    def ceil(self) -> Tensor:
        """z = the smallest whole number not below x;  dx = 0"""

    def ceil_(self) -> Tensor:
        """`ceil`, written over this tensor."""

    def chunk(self, chunks: _Int, dim: _Int = 0) -> tuple[Tensor, ...]:
        """At most `chunks` pieces of equal size along `dim`, the last perhaps shorter; of size 0, `chunks`."""

    def clamp(self, min: Any = None, max: Any = None) -> Tensor:
        """z = x, but at least `min` and at most `max`;  dx = dz where min <= x <= max, else 0"""

    def clamp_(self, min: Any = None, max: Any = None) -> Tensor:
        """`clamp`, written over this tensor."""

    def clamp_max(self, max: Any) -> Tensor:
        """z = x, but at most `max`"""

    def clamp_max_(self, max: Any) -> Tensor:
        """`clamp_max`, written over this tensor."""

    def clamp_min(self, min: Any) -> Tensor:
        """z = x, but at least `min`"""

    def clamp_min_(self, min: Any) -> Tensor:
        """`clamp_min`, written over this tensor."""

    def clone(self) -> Tensor:
        """A copy in memory of its own, through which gradients flow."""

    def contiguous(self) -> Tensor:
        """The elements in memory in the order in which they are counted; itself if they are."""

    def copy_(self, source: Any) -> Tensor:
        """Take the values of `source`, broadcast to this shape and converted to this type."""

    def cos(self) -> Tensor:
        """z = cos x;  dx = -dz sin x"""

    def cos_(self) -> Tensor:
        """`cos`, written over this tensor."""

    def count_nonzero(self, dim: _Dim | None = None) -> Tensor:
        """z = how many elements are not 0, along `dim`"""

    def cumsum(self, dim: _Int) -> Tensor:
        """z_i = x_1 + ... + x_i along `dim`;  dx = the sum of dz from i on"""

    def diag(self, diagonal: _Int = 0) -> Tensor:
        """Of a vector the matrix with it on the diagonal; of a matrix its diagonal."""

    def diagonal(self, offset: _Int = 0, dim1: _Int = 0, dim2: _Int = 1) -> Tensor:
        """The elements with index dim1 + offset = index dim2, as a new last axis."""

    def div(self, y: _Operand) -> Tensor:
        """z = x / y;  dx = dz / y, dy = -dz x / y^2"""

    def div_(self, y: _Operand) -> Tensor:
        """`div`, written over this tensor."""

    def dot(self, y: _Operand) -> Tensor:
        """z = x_1 y_1 + ... + x_K y_K"""

    def double(self) -> Tensor:
        """In float64; itself if it is already."""

    def eq(self, y: _Operand) -> Tensor:
        """z = (x == y)"""

    def equal(self, y: Tensor) -> _Bool:
        """Whether x and y have the same shape and the same elements."""

    def erf(self) -> Tensor:
        """z = 2 / sqrt(pi) * integral from 0 to x of e^(-t^2);  dx = dz 2 / sqrt(pi) e^(-x^2)"""

    def erf_(self) -> Tensor:
        """`erf`, written over this tensor."""

    def exp(self) -> Tensor:
        """z = e^x;  dx = dz z"""

    def exp_(self) -> Tensor:
        """`exp`, written over this tensor."""

    def expand(self, *shape: _Ints) -> Tensor:
        """Axes of size 1 repeated without copying, new axes in front; -1 keeps a size."""

    def expand_as(self, other: _Operand) -> Tensor:
        """x expanded to the shape of `other`."""

    def expm1(self) -> Tensor:
        """z = e^x - 1, exact near 0;  dx = dz (z + 1)"""

    def expm1_(self) -> Tensor:
        """`expm1`, written over this tensor."""

    def fill_(self, value: Any) -> Tensor:
        """Set every element to `value`."""

    def flatten(self, start_dim: _Int = 0, end_dim: _Int = -1) -> Tensor:
        """The axes from start_dim to end_dim as one."""

    def flip(self, *dims: _Ints) -> Tensor:
        """The order of the elements reversed along each of `dims`."""

    def float(self) -> Tensor:
        """In float32; itself if it is already."""

    def floor(self) -> Tensor:
        """z = the largest whole number not above x;  dx = 0"""

    def floor_(self) -> Tensor:
        """`floor`, written over this tensor."""

    def floor_divide(self, y: _Operand) -> Tensor:
        """z = floor(x / y), which has no slope; integers stay integers"""

    def gather(self, dim: _Int, index: Any) -> Tensor:
        """z[i][j] = x[i][index[i][j]] for dim = 1, and so on. Errors: IndexError for a position that is not there."""

    def ge(self, y: _Operand) -> Tensor:
        """z = (x >= y)"""

    def gelu(self, approximate: str = "none") -> Tensor:
        """z = x P(x), where P(x) is the share of the normal distribution below x."""

    def gt(self, y: _Operand) -> Tensor:
        """z = (x > y)"""

    def half(self) -> Tensor:
        """In float16; itself if it is already."""

    def index_add(self, dim: _Int, index: Any, source: Any, alpha: _Float = 1) -> Tensor:
        """x with alpha times the slices of `source` along `dim` added at the positions in `index` (N)."""

    def index_add_(self, *args: Any, **options: Any) -> Tensor:
        """`index_add`, written over this tensor. Errors: see minilm.ops.inplace.overwrite."""

    def index_fill(self, dim: _Int, index: Any, value: _Float) -> Tensor:
        """x with the slices along `dim` at the positions in `index` (N) set to `value`."""

    def index_fill_(self, *args: Any, **options: Any) -> Tensor:
        """`index_fill`, written over this tensor. Errors: see minilm.ops.inplace.overwrite."""

    def index_select(self, dim: _Int, index: Any) -> Tensor:
        """The slices of x along `dim` at the positions in `index` (N)."""

    def int(self) -> Tensor:
        """In int32; itself if it is already."""

    @property
    def is_cuda(self) -> Tensor:
        """Whether it lies on a GPU."""

    def isclose(self, y: _Operand, rtol: Any = 1e-05, atol: Any = 1e-08, equal_nan: Any = False) -> Tensor:
        """z = (|x - y| <= atol + rtol |y|)"""

    def isfinite(self) -> Tensor:
        """z = whether x is a finite number"""

    def isinf(self) -> Tensor:
        """z = whether x is infinite"""

    def isnan(self) -> Tensor:
        """z = whether x is not a number"""

    def le(self, y: _Operand) -> Tensor:
        """z = (x <= y)"""

    def leaky_relu(self, negative_slope: _Float = 0.01) -> Tensor:
        """z = x where x > 0, else negative_slope x  (Maas, Hannun & Ng 2013)"""

    def leaky_relu_(self, negative_slope: _Float = 0.01) -> Tensor:
        """`leaky_relu`, written over this tensor."""

    def lerp(self, end: _Operand, weight: _Operand) -> Tensor:
        """z = x + weight (end - x): a straight line from x at weight 0 to end at weight 1"""

    def lerp_(self, end: _Operand, weight: _Operand) -> Tensor:
        """`lerp`, written over this tensor."""

    def log(self) -> Tensor:
        """z = ln x;  dx = dz / x"""

    def log10(self) -> Tensor:
        """z = log10 x, exact for powers of 10;  dx = dz / (x ln 10)"""

    def log10_(self) -> Tensor:
        """`log10`, written over this tensor."""

    def log1p(self) -> Tensor:
        """z = ln(1 + x), exact near 0;  dx = dz / (1 + x)"""

    def log1p_(self) -> Tensor:
        """`log1p`, written over this tensor."""

    def log2(self) -> Tensor:
        """z = log2 x, exact for powers of 2;  dx = dz / (x ln 2)"""

    def log2_(self) -> Tensor:
        """`log2`, written over this tensor."""

    def log_(self) -> Tensor:
        """`log`, written over this tensor."""

    def log_softmax(self, dim: _Int) -> Tensor:
        """The logarithms of softmax's probabilities, exact where they are tiny."""

    def logical_and(self, y: _Operand) -> Tensor:
        """z = x and y, where 0 is false"""

    def logical_not(self) -> Tensor:
        """z = not x"""

    def logical_or(self, y: _Operand) -> Tensor:
        """z = x or y"""

    def logical_xor(self, y: _Operand) -> Tensor:
        """z = whether just one of x and y is true, where 0 is false"""

    def logsumexp(self, dim: _Dim, keepdim: _Bool = False) -> Tensor:
        """z = ln sum e^x along `dim`;  dx = dz e^(x - z)"""

    def long(self) -> Tensor:
        """In int64; itself if it is already."""

    def lt(self, y: _Operand) -> Tensor:
        """z = (x < y)"""

    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged: (..., N, M) to (..., M, N)."""

    def masked_fill(self, mask: _Array, value: Any) -> Tensor:
        """z = value where the mask holds, else x;  dx = dz where it does not"""

    def masked_fill_(self, mask: _Array, value: Any) -> Tensor:
        """`masked_fill`, written over this tensor."""

    def masked_select(self, mask: _Array) -> Tensor:
        """The elements where the mask holds, in one row."""

    def matmul(self, y: _Operand) -> Tensor:
        """z = x y: (N, K) x (K, M), batches (..., N, K) x (..., K, M), and vectors on either side."""

    def max(self, dim: _Int | Tensor | None = None, keepdim: _Bool = False) -> Any:
        """The largest x; along `dim` with its indices, `(values, indices)`; of two tensors, each pair's larger one."""

    def maximum(self, y: _Operand) -> Tensor:
        """z = the larger of x and y;  the gradient goes to it, half to each where they are equal"""

    def mean(self, dim: _Dim | None = None, keepdim: _Bool = False) -> Tensor:
        """z = sum of x / the number of elements"""

    def min(self, dim: _Int | Tensor | None = None, keepdim: _Bool = False) -> Any:
        """The smallest x; along `dim` with its indices, `(values, indices)`; of two tensors, each pair's ..."""

    def minimum(self, y: _Operand) -> Tensor:
        """z = the smaller of x and y;  the gradient goes to it, half to each where they are equal"""

    def mm(self, y: _Operand) -> Tensor:
        """z = x y for two matrices and nothing else."""

    def movedim(self, source: _Ints, destination: _Ints) -> Tensor:
        """The axis `source` at the place `destination`, or several, the others in their order."""

    def mul(self, y: _Operand) -> Tensor:
        """z = x y;  dx = dz y, dy = dz x"""

    def mul_(self, y: _Operand) -> Tensor:
        """`mul`, written over this tensor."""

    def multinomial(self, num_samples: _Int, replacement: _Bool = False, generator: Generator | None = None) -> Tensor:
        """`num_samples` indices from each row of x, with probabilities in proportion to its elements: (..., N) ..."""

    def mv(self, y: _Operand) -> Tensor:
        """z = x y for a matrix and a vector."""

    def narrow(self, dim: _Dim, start: Any, length: Any) -> Tensor:
        """`length` slices along `dim`, from `start` on; a view."""

    def ndimension(self) -> Tensor:
        """The number of axes."""

    def ne(self, y: _Operand) -> Tensor:
        """z = (x != y)"""

    def neg(self) -> Tensor:
        """z = -x"""

    def neg_(self) -> Tensor:
        """`neg`, written over this tensor."""

    def nelement(self) -> Tensor:
        """The number of elements."""

    def new_empty(self, *size: Any, dtype: Any = None, device: Any = None, requires_grad: _Bool = False) -> Tensor:
        """`empty` in this element type and on this device unless others are given."""

    def new_full(self, *size: Any, dtype: Any = None, device: Any = None, requires_grad: _Bool = False) -> Tensor:
        """`full` in this element type and on this device unless others are given."""

    def new_ones(self, *size: Any, dtype: Any = None, device: Any = None, requires_grad: _Bool = False) -> Tensor:
        """`ones` in this element type and on this device unless others are given."""

    def new_tensor(self, *size: Any, dtype: Any = None, device: Any = None, requires_grad: _Bool = False) -> Tensor:
        """`tensor` in this element type and on this device unless others are given."""

    def new_zeros(self, *size: Any, dtype: Any = None, device: Any = None, requires_grad: _Bool = False) -> Tensor:
        """`zeros` in this element type and on this device unless others are given."""

    def nonzero(self) -> Tensor:
        """The positions of what is not 0, one row (ndim) each."""

    def norm(self, p: _Float | str = 2, dim: _Dim | None = None, keepdim: _Bool = False) -> Tensor:
        """z = (sum of |x|^p)^(1/p) along `dim`; the largest |x| for p = infinity, the smallest for -infinity"""

    def normal_(self, mean: _Float = 0.0, std: _Float = 1.0, generator: Generator | None = None) -> Tensor:
        """Fill with normal numbers of this mean and standard deviation."""

    def outer(self, y: _Operand) -> Tensor:
        """z_ij = x_i y_j"""

    def permute(self, *dims: _Ints) -> Tensor:
        """The axes in another order."""

    def pow(self, y: _Operand) -> Tensor:
        """z = x^y;  dx = dz y x^(y-1),  dy = dz x^y log x  (0 where y is 0, or x is 0)"""

    def pow_(self, y: _Operand) -> Tensor:
        """`pow`, written over this tensor."""

    def prod(self, dim: _Int | None = None, keepdim: _Bool = False) -> Tensor:
        """z = product of x along `dim` (everything by default)"""

    def reciprocal(self) -> Tensor:
        """z = 1 / x"""

    def reciprocal_(self) -> Tensor:
        """`reciprocal`, written over this tensor."""

    def relu(self) -> Tensor:
        """z = max(x, 0);  dx = 0 where x <= 0, else dz, also at NaN  (Nair & Hinton 2010)"""

    def relu_(self) -> Tensor:
        """`relu`, written over this tensor."""

    def remainder(self, y: _Operand) -> Tensor:
        """z = x - floor(x / y) y, with the sign of y"""

    def repeat(self, *repeats: _Ints) -> Tensor:
        """The whole of x repeated along each axis, copied; more numbers than axes make new ones in front."""

    def repeat_interleave(self, repeats: _Ints, dim: _Dim | None = None, output_size: Any = None) -> Tensor:
        """Each slice along `dim` repeated in place: `repeats` times, or as often as a tensor (N) says for each."""

    def reshape(self, *shape: _Ints) -> Tensor:
        """The same elements in the same order under another shape; one size may be -1."""

    def reshape_as(self, other: _Array) -> Tensor:
        """x in the shape of `other`."""

    def roll(self, shifts: _Ints, dims: _Ints | None = None) -> Tensor:
        """The elements moved on by `shifts` along `dims`, those that fall off coming in at the front."""

    def round(self) -> Tensor:
        """z = the nearest whole number, halves to the even one;  dx = 0"""

    def round_(self) -> Tensor:
        """`round`, written over this tensor."""

    def rsqrt(self) -> Tensor:
        """z = 1 / sqrt(x);  dx = -dz z^3 / 2"""

    def rsqrt_(self) -> Tensor:
        """`rsqrt`, written over this tensor."""

    def scatter(self, dim: _Int, index: Any, src: Any) -> Tensor:
        """x with src[i][j] written to z[i][index[i][j]] for dim = 1, and so on; src may be a number."""

    def scatter_(self, *args: Any, **options: Any) -> Tensor:
        """`scatter`, written over this tensor. Errors: see minilm.ops.inplace.overwrite."""

    def scatter_add(self, dim: _Int, index: Any, src: Any) -> Tensor:
        """x with src[i][j] added at z[i][index[i][j]] for dim = 1, and so on."""

    def scatter_add_(self, *args: Any, **options: Any) -> Tensor:
        """`scatter_add`, written over this tensor. Errors: see minilm.ops.inplace.overwrite."""

    def select(self, dim: _Dim, index: Any) -> Tensor:
        """The slice number `index` along `dim`, without that axis; a view."""

    def short(self) -> Tensor:
        """In int16; itself if it is already."""

    def sigmoid(self) -> Tensor:
        """z = 1 / (1 + e^-x);  dx = dz z (1 - z)"""

    def sigmoid_(self) -> Tensor:
        """`sigmoid`, written over this tensor."""

    def sign(self) -> Tensor:
        """z = -1, 0 or 1, and 0 for NaN;  dx = 0"""

    def sign_(self) -> Tensor:
        """`sign`, written over this tensor."""

    def silu(self) -> Tensor:
        """z = x s(x) with the sigmoid s;  dx = dz (s + x s (1 - s))"""

    def silu_(self) -> Tensor:
        """`silu`, written over this tensor."""

    def sin(self) -> Tensor:
        """z = sin x;  dx = dz cos x"""

    def sin_(self) -> Tensor:
        """`sin`, written over this tensor."""

    def softmax(self, dim: _Int) -> Tensor:
        """Make each row of scores positive numbers that add up to 1."""

    def softplus(self, beta: _Float = 1.0, threshold: _Float = 20.0) -> Tensor:
        """z = ln(1 + e^(beta x)) / beta, and x itself where beta x > threshold;  dx = dz s(beta x)"""

    def sort(self, dim: _Int = -1, descending: _Bool = False, stable: _Bool = True) -> Sorted:
        """The elements in rising (or falling) order along `dim`, and where each was; equals keep their order."""

    def split(self, split_size: _Ints, dim: _Int = 0) -> tuple[Tensor, ...]:
        """Pieces of `split_size` along `dim` (the last may be shorter), or of the sizes in a list; views."""

    def sqrt(self) -> Tensor:
        """z = sqrt(x);  dx = dz / (2 z)"""

    def sqrt_(self) -> Tensor:
        """`sqrt`, written over this tensor."""

    def square(self) -> Tensor:
        """z = x^2;  dx = 2 x dz"""

    def square_(self) -> Tensor:
        """`square`, written over this tensor."""

    def squeeze(self, dim: _Dim | None = None) -> Tensor:
        """Without the axes of size 1: all of them, or those among `dim`."""

    def std(
        self, dim: _Dim | None = None, correction: _Int = 1, keepdim: _Bool = False, unbiased: _Bool | None = None
    ) -> Tensor:
        """z = sqrt(var);  where the variance is 0 the gradient is 0, not infinite, as in PyTorch"""

    def stride(self, dim: _Int | None = None) -> Tensor:
        """How many elements lie between neighbours along each axis, or along `dim`."""

    def sub(self, y: _Operand, alpha: _Float = 1) -> Tensor:
        """z = x - alpha y"""

    def sub_(self, y: _Operand, alpha: _Float = 1) -> Tensor:
        """`sub`, written over this tensor."""

    def sum(self, dim: _Dim | None = None, keepdim: _Bool = False, dtype: Any = None) -> Tensor:
        """z = sum of x along `dim` (all axes by default);  dx = dz, repeated"""

    def swapaxes(self, axis0: Any, axis1: Any) -> Tensor:
        """`transpose` by NumPy's name: the axes axis0 and axis1 exchanged."""

    def t(self) -> Tensor:
        """The transpose of a matrix; a vector as it is."""

    def take_along_dim(self, indices: _Array, dim: _Int | None = None) -> Tensor:
        """`gather` of x and an index that broadcast: NumPy's take_along_axis; without `dim`, of the flattened x."""

    def tan(self) -> Tensor:
        """z = sin x / cos x"""

    def tanh(self) -> Tensor:
        """z = tanh x;  dx = dz (1 - z^2)"""

    def tanh_(self) -> Tensor:
        """`tanh`, written over this tensor."""

    def tile(self, *dims: _Ints) -> Tensor:
        """The whole of x repeated along each axis, as `repeat` does; fewer numbers than axes mean the last axes."""

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """In another element type and/or on another device: `t.to(ml.float64)`, `t.to("cpu")`; itself if unchanged."""

    def topk(self, k: _Int, dim: _Int = -1, largest: _Bool = True, sorted: _Bool = True) -> Sorted:
        """The k largest (or smallest) elements along `dim`, in order, and where each was."""

    def trace(self) -> Tensor:
        """z = the sum of the diagonal"""

    def transpose(self, dim0: _Int, dim1: _Int) -> Tensor:
        """The axes dim0 and dim1 exchanged."""

    def tril(self, diagonal: _Int = 0) -> Tensor:
        """The lower triangle: zero where column > row + diagonal."""

    def tril_(self, *args: Any, **options: Any) -> Tensor:
        """`tril`, written over this tensor. Errors: see minilm.ops.inplace.overwrite."""

    def triu(self, diagonal: _Int = 0) -> Tensor:
        """The upper triangle: zero where column < row + diagonal."""

    def triu_(self, *args: Any, **options: Any) -> Tensor:
        """`triu`, written over this tensor. Errors: see minilm.ops.inplace.overwrite."""

    def type(self, dtype: Any) -> Tensor:
        """In another element type, as `to`; itself if it is that already."""

    def type_as(self, other: Tensor) -> Tensor:
        """In the element type of `other`."""

    def unbind(self, dim: _Int = 0) -> tuple[Tensor, ...]:
        """The slices along `dim`, without that axis; views."""

    def unflatten(self, dim: _Dim, sizes: Any) -> Tensor:
        """The axis `dim` as several of `sizes`, one of which may be -1."""

    def uniform_(self, a: _Float = 0.0, b: _Float = 1.0, generator: Generator | None = None) -> Tensor:
        """Fill with uniform numbers from a up to b."""

    def unique(self, sorted: _Bool = True, return_inverse: _Bool = False, return_counts: _Bool = False) -> Tensor:
        """The different elements of x in rising order, (N); with where each element of x went and how often it ..."""

    def unsqueeze(self, dim: _Int) -> Tensor:
        """With a new axis of size 1 at `dim`."""

    def var(
        self, dim: _Dim | None = None, correction: _Int = 1, keepdim: _Bool = False, unbiased: _Bool | None = None
    ) -> Tensor:
        """z = sum of (x - mean)^2 / (N - correction);  correction 1 (Bessel's) by default, as in PyTorch"""

    def view(self, *shape: _Ints) -> Tensor:
        """`reshape` that never copies."""

    def view_as(self, other: _Array) -> Tensor:
        """x as a view in the shape of `other`."""

    def where(self, condition: Any, other: Any) -> Tensor:
        """Its own elements where `condition` holds, else those of `other`."""

    def zero_(self) -> Tensor:
        """Set every element to 0."""

    def __abs__(self) -> Tensor:
        """z = |x|;  dx = dz sign(x), 0 at 0"""

    def __add__(self, other: _Operand) -> Tensor:
        """z = x + alpha y"""

    def __and__(self, other: _Operand) -> Tensor:
        """z = x & y, bit by bit; of bools their "and" """

    def __eq__(self, other: _Operand) -> Tensor:  # type: ignore[override]
        """z = (x == y)"""

    def __floordiv__(self, other: _Operand) -> Tensor:
        """z = floor(x / y), which has no slope; integers stay integers"""

    def __ge__(self, other: Any) -> Tensor:
        """z = (x >= y)"""

    def __getitem__(self, index: Any) -> Tensor:
        """z = x[index]: integers, slices, `...`, None (views); booleans, integer arrays, mixtures (copies)."""

    def __gt__(self, other: Any) -> Tensor:
        """z = (x > y)"""

    def __iadd__(self, other: _Operand) -> Tensor:
        """`add_`"""

    def __imul__(self, other: _Operand) -> Tensor:
        """`mul_`"""

    def __invert__(self) -> Tensor:
        """z = ~x, bit by bit; of bools the opposite"""

    def __ipow__(self, other: _Operand) -> Tensor:
        """`pow_`"""

    def __isub__(self, other: _Operand) -> Tensor:
        """`sub_`"""

    def __itruediv__(self, other: _Operand) -> Tensor:
        """`div_`"""

    def __le__(self, other: Any) -> Tensor:
        """z = (x <= y)"""

    def __lt__(self, other: Any) -> Tensor:
        """z = (x < y)"""

    def __matmul__(self, other: _Operand) -> Tensor:
        """z = x y: (N, K) x (K, M), batches (..., N, K) x (..., K, M), and vectors on either side."""

    def __mod__(self, other: _Operand) -> Tensor:
        """z = x - floor(x / y) y, with the sign of y"""

    def __mul__(self, other: _Operand) -> Tensor:
        """z = x y;  dx = dz y, dy = dz x"""

    def __ne__(self, other: _Operand) -> Tensor:  # type: ignore[override]
        """z = (x != y)"""

    def __neg__(self) -> Tensor:
        """z = -x"""

    def __or__(self, other: _Operand) -> Tensor:
        """z = x | y, bit by bit; of bools their "or" """

    def __pow__(self, other: _Operand) -> Tensor:
        """z = x^y;  dx = dz y x^(y-1),  dy = dz x^y log x  (0 where y is 0, or x is 0)"""

    def __radd__(self, other: _Operand) -> Tensor:
        """z = x + alpha y"""

    def __rand__(self, other: _Operand) -> Tensor:
        """z = x & y, bit by bit; of bools their "and" """

    def __rfloordiv__(self, other: _Operand) -> Tensor:
        """z = floor(x / y), which has no slope; integers stay integers"""

    def __rmatmul__(self, other: _Operand) -> Tensor:
        """z = x y: (N, K) x (K, M), batches (..., N, K) x (..., K, M), and vectors on either side."""

    def __rmod__(self, other: _Operand) -> Tensor:
        """z = x - floor(x / y) y, with the sign of y"""

    def __rmul__(self, other: _Operand) -> Tensor:
        """z = x y;  dx = dz y, dy = dz x"""

    def __ror__(self, other: _Operand) -> Tensor:
        """z = x | y, bit by bit; of bools their "or" """

    def __rpow__(self, other: _Operand) -> Tensor:
        """z = x^y;  dx = dz y x^(y-1),  dy = dz x^y log x  (0 where y is 0, or x is 0)"""

    def __rsub__(self, other: _Operand) -> Tensor:
        """z = x - alpha y"""

    def __rtruediv__(self, other: _Operand) -> Tensor:
        """z = x / y;  dx = dz / y, dy = -dz x / y^2"""

    def __rxor__(self, other: _Operand) -> Tensor:
        """z = x ^ y, bit by bit; of bools whether just one is true"""

    def __setitem__(self, index: Any, value: Any) -> None:
        """x[index] = value, tracked."""

    def __sub__(self, other: _Operand) -> Tensor:
        """z = x - alpha y"""

    def __truediv__(self, other: _Operand) -> Tensor:
        """z = x / y;  dx = dz / y, dy = -dz x / y^2"""

    def __xor__(self, other: _Operand) -> Tensor:
        """z = x ^ y, bit by bit; of bools whether just one is true"""
