"""Windows that slide over images and sequences: convolution and pooling.

There is one mechanism. `unfold` copies what each window shows into a column of a matrix, and `fold`, its transpose,
adds the columns back to where they came from; each is the other's gradient. A convolution is then a product of
matrices (Chellapilla, Puri & Simard 2006), and pooling a maximum or a mean over each column.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from minilm.device import array_module
from minilm.errors import ShapeError
from minilm.ops.arrange import pad, squeeze, unsqueeze
from minilm.ops.matmul import matrix_product, transposed
from minilm.ops.reduction import max, mean  # noqa: A004
from minilm.ops.registry import Composite, Primitive, sample
from minilm.ops.shape import reshape

Size = Any  # a number for both axes, or (height, width)
Pair = tuple[int, int]


# --- windows and columns --------------------------------------------------------------------------


class Unfold(Primitive, shapes="(..., C, H, W) -> (..., K, L)", dtypes="keep", method=False):
    """What each of L windows shows, as a column of K = C kH kW numbers; beyond the border lie zeros.

    L = oH oW windows in rows, with oH = (H + 2 padding - dilation (kH - 1) - 1) // stride + 1, and oW likewise.
    """

    samples = [
        sample((2, 3, 5, 7), kernel_size=(2, 3)),
        sample((2, 3, 5, 7), kernel_size=(2, 3), dilation=(1, 2), padding=(1, 0), stride=(2, 1)),
        sample((3, 5, 7), kernel_size=2, stride=3),
        sample((0, 3, 5, 7), kernel_size=3),
    ]

    def forward(ctx, x, kernel_size, dilation=1, padding=0, stride=1):
        ctx.size, ctx.windows = x.shape[-2:], (kernel_size, dilation, padding, stride)
        kernel, pads, window = _pair("kernel_size", kernel_size), _pair("padding", padding, 0), x.shape[:-2]
        out = _windows("unfold", x.shape[-2:], kernel_size, dilation, padding, stride)
        wide = array_module(x).pad(x, [(0, 0)] * len(window) + [(p, p) for p in pads])
        columns = array_module(x).empty((*window, *kernel, *out), x.dtype)
        for i, j, rows, cols in _places(kernel, dilation, stride, out):
            columns[..., i, j, :, :] = wide[..., rows, cols]
        return columns.reshape(*window[:-1], window[-1] * math.prod(kernel), math.prod(out))

    def backward(ctx, dz):
        return fold(dz, ctx.size, *ctx.windows)

    def torch(torch, x, kernel_size, dilation=1, padding=0, stride=1):
        if not x.numel():  # which PyTorch refuses
            L = torch.nn.functional.unfold(torch.zeros(1, *x.shape[1:]), kernel_size, dilation, padding, stride)
            return x.reshape(0, *L.shape[1:])
        return torch.nn.functional.unfold(x, kernel_size, dilation, padding, stride)


class Fold(Primitive, shapes="(..., K, L) -> (?)", dtypes="keep", method=False):
    """The columns of `unfold` added to where their windows lie: (..., C kH kW, L) -> (..., C, H, W)."""

    samples = [
        sample((2, 18, 24), output_size=(5, 8), kernel_size=(2, 3)),
        sample((2, 18, 15), output_size=(8, 7), kernel_size=(2, 3), dilation=(1, 2), padding=(1, 0), stride=(2, 1)),
        sample((18, 4), output_size=(5, 7), kernel_size=(3, 2), dilation=1, padding=(0, 1), stride=(2, 4)),
    ]

    def forward(ctx, columns, output_size, kernel_size, dilation=1, padding=0, stride=1):
        ctx.windows = (kernel_size, dilation, padding, stride)
        kernel, pads = _pair("kernel_size", kernel_size), _pair("padding", padding, 0)
        size = _pair("output_size", output_size)
        out = _windows("fold", size, kernel_size, dilation, padding, stride)
        lead, K, L = columns.shape[:-2], columns.shape[-2], columns.shape[-1]
        if K % math.prod(kernel) or math.prod(out) != L:
            raise ShapeError(
                f"fold: {columns.shape} holds {L} windows of {K} numbers; kernels {kernel} over {size} make "
                f"{math.prod(out)} windows of a multiple of {math.prod(kernel)}"
            )
        window = (*lead, K // math.prod(kernel))
        columns = columns.reshape(*window, *kernel, *out)
        wide = array_module(columns).zeros((*window, *(n + 2 * p for n, p in zip(size, pads))), columns.dtype)
        for i, j, rows, cols in _places(kernel, dilation, stride, out):
            wide[..., rows, cols] += columns[..., i, j, :, :]
        (top, left), (H, W) = pads, size
        return array_module(columns).ascontiguousarray(wide[..., top : top + H, left : left + W])

    def backward(ctx, dz):
        return unfold(dz, *ctx.windows)

    def torch(torch, columns, output_size, kernel_size, dilation=1, padding=0, stride=1):
        return torch.nn.functional.fold(columns, output_size, kernel_size, dilation, padding, stride)


unfold, fold = Unfold.apply, Fold.apply


def _places(kernel: Pair, dilation: Size, stride: Size, out: Pair) -> Iterator[tuple[int, int, slice, slice]]:
    """For each place (i, j) in a window the rows and columns of the image that it meets as the window slides."""
    (dy, dx), (sy, sx) = _pair("dilation", dilation), _pair("stride", stride)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows = slice(i * dy, i * dy + sy * out[0], sy)
            yield i, j, rows, slice(j * dx, j * dx + sx * out[1], sx)


def _windows(name: str, size: Pair, kernel_size: Size, dilation: Size, padding: Size, stride: Size) -> Pair:
    """How many windows fit, down and across. Errors: ShapeError if none does."""
    settings = (_pair("kernel_size", kernel_size), _pair("dilation", dilation), _pair("padding", padding, 0))
    counts = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in zip(size, *settings, _pair("stride", stride))
    )
    if min(counts) < 1:
        raise ShapeError(f"{name}: no window of {settings[0]} fits into {tuple(size)} with padding {settings[2]}")
    return counts[0], counts[1]


def _pair(name: str, size: Size, least: int = 1) -> Pair:
    """A number for both axes, or two. Errors: ShapeError for another count, or one below `least`."""
    pair = (size, size) if isinstance(size, (int, np.integer)) else tuple(size)
    if len(pair) != 2 or min(pair) < least:
        raise ShapeError(f"{name} is a number or a pair of numbers, at least {least}, not {size}")
    return int(pair[0]), int(pair[1])


# --- convolution ----------------------------------------------------------------------------------


class Conv2d(Composite, shapes="(..., C, H, W), (O, I, KH, KW), (O) -> (?)", method=False):
    """z[o] = bias[o] + sum over c, i, j of weight[o, c, i, j] x[c, y + i, x + j] for every place (y, x) of a window.

    With `groups` the channels are dealt into as many parts that do not mix: I = C / groups.
    `padding` counts zeros on each side, or is "valid" (none) or "same" (as many rows and columns as x has).

    Source: LeCun, Bottou, Bengio & Haffner 1998, section II (no kernel is flipped, as in PyTorch).
    Errors: ShapeError for channels that do not fit, and for an image smaller than the kernel.
    """

    samples = [
        sample((2, 3, 7, 5), (4, 3, 3, 2), (4,)),
        sample((2, 3, 7, 5), (4, 3, 3, 2), None, stride=2, padding=(1, 2)),
        sample((3, 7, 5), (4, 3, 2, 2), (4,), dilation=(2, 1)),
        sample((2, 4, 7, 5), (6, 2, 3, 3), (6,), padding=1, groups=2),
        sample((2, 3, 5, 7), (3, 1, 3, 3), (3,), padding="same", groups=3),
        sample((0, 3, 5, 7), (4, 3, 3, 2), (4,)),
    ]

    def definition(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        _check_channels("conv2d", x, weight, 2, groups)
        lead, outputs, kernel = x.shape[:-3], weight.shape[0], weight.shape[2:]
        x, padding = _padded("conv2d", x, kernel, stride, padding, dilation)
        out = _windows("conv2d", x.shape[-2:], kernel, dilation, padding, stride)
        columns, rows = unfold(x, kernel, dilation, padding, stride), (outputs, math.prod(weight.shape[1:]))
        if groups > 1:
            columns = reshape(columns, (*lead, groups, columns.shape[-2] // groups, columns.shape[-1]))
            rows = (groups, outputs // groups, rows[1])
        z = reshape(matrix_product(reshape(weight, rows), columns), (*lead, outputs, *out))
        return z if bias is None else z + reshape(bias, (outputs, 1, 1))

    def torch(torch, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        return torch.nn.functional.conv2d(x, weight, bias, stride, padding, dilation, groups)


class Conv1d(Composite, shapes="(..., C, T), (O, I, K), (O) -> (?)", method=False):
    """z[o, t] = bias[o] + sum over c, i of weight[o, c, i] x[c, t + i]: conv2d over an image of one row."""

    samples = [
        sample((2, 3, 7), (4, 3, 3), (4,)),
        sample((3, 7), (4, 3, 2), None, stride=2, padding=1, dilation=2),
        sample((2, 4, 7), (6, 2, 3), (6,), padding="same", groups=2),
    ]

    def definition(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        _check_channels("conv1d", x, weight, 1, groups)
        stride, dilation = _single("stride", stride), _single("dilation", dilation)
        if not isinstance(padding, str):
            padding = (0, _single("padding", padding))
        image, kernel = unsqueeze(x, -2), unsqueeze(weight, -2)
        return squeeze(conv2d(image, kernel, bias, (1, stride), padding, (1, dilation), groups), -2)

    def torch(torch, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        return torch.nn.functional.conv1d(x, weight, bias, stride, padding, dilation, groups)


conv2d, conv1d = Conv2d.apply, Conv1d.apply


def _check_channels(name: str, x: Any, weight: Any, axes: int, groups: int) -> None:
    """Raise ShapeError unless the channels of x (..., C, ...) are those that the weight (O, C / groups, ...) takes."""
    if len(weight.shape) != axes + 2 or len(x.shape) not in (axes + 1, axes + 2):
        raise ShapeError(
            f"{name}: x of {axes + 1} or {axes + 2} axes and a weight of {axes + 2} were expected, "
            f"not {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    C, outputs = x.shape[-1 - axes], weight.shape[0]
    if groups < 1 or C % groups or outputs % groups or weight.shape[1] != C // groups:
        raise ShapeError(
            f"{name}: x {tuple(x.shape)} has {C} channels; a weight {tuple(weight.shape)} in {groups} group(s) "
            f"takes {weight.shape[1] * groups} and gives {outputs}"
        )


def _padded(name: str, x: Any, kernel: Pair, stride: Size, padding: Any, dilation: Size) -> tuple[Any, Pair]:
    """x and the zeros that are still to be put on both sides: "same" may need one more behind than before."""
    if not isinstance(padding, str):
        return x, _pair("padding", padding, 0)
    if padding not in ("valid", "same"):
        raise ShapeError(f"{name}: padding is 'valid', 'same' or numbers, not {padding!r}")
    if padding == "valid":
        return x, (0, 0)
    if _pair("stride", stride) != (1, 1):
        raise ShapeError(f"{name}: padding='same' needs a stride of 1, not {stride}")
    (down, across) = (d * (k - 1) for d, k in zip(_pair("dilation", dilation), kernel))
    return pad(x, (across // 2, across - across // 2, down // 2, down - down // 2)), (0, 0)


def _single(name: str, size: Any) -> int:
    """A number, also as the only one in a tuple."""
    if isinstance(size, (tuple, list)):
        if len(size) != 1:
            raise ShapeError(f"{name} is one number for a sequence, not {size}")
        (size,) = size
    return int(size)


# --- pooling --------------------------------------------------------------------------------------

IMAGE = "(..., H, W) -> (?)"
SEQUENCE = "(..., T) -> (?)"


class MaxPool2d(Composite, shapes=IMAGE, smooth=False, method=False):
    """The largest number that each window shows, in each channel; the gradient goes to the first of equal ones.

    The stride is by default the kernel's size. Beyond the border lie minus infinities. Source: LeCun et al. 1998.
    """

    domain = "distinct"
    samples = [
        *(sample((2, 3, 7, 5), kernel_size=k, stride=s) for k in (2, (3, 2)) for s in (None, 2, (1, 3))),
        sample((3, 7, 5), kernel_size=3, padding=1, dilation=2),
    ]

    def definition(x, kernel_size, stride=None, padding=0, dilation=1):
        (down, across) = _pool_padding("max_pool2d", kernel_size, padding)
        wide = pad(x, (across, across, down, down), value=-math.inf) if down or across else x
        columns, out = _columns("max_pool2d", wide, kernel_size, stride, 0, dilation)
        return reshape(max(columns, -2).values, out)

    def torch(torch, x, kernel_size, stride=None, padding=0, dilation=1):
        return torch.nn.functional.max_pool2d(x, kernel_size, stride, padding, dilation)


class AvgPool2d(Composite, shapes=IMAGE, method=False):
    """The mean of what each window shows, in each channel; zeros beyond the border count."""

    samples = [
        *(sample((2, 3, 7, 5), kernel_size=k, stride=s) for k in (2, (3, 2)) for s in (None, 2, (1, 3))),
        sample((3, 7, 5), kernel_size=3, padding=1),
    ]

    def definition(x, kernel_size, stride=None, padding=0):
        columns, out = _columns(
            "avg_pool2d", x, kernel_size, stride, _pool_padding("avg_pool2d", kernel_size, padding), 1
        )
        return reshape(mean(columns, -2), out)

    def torch(torch, x, kernel_size, stride=None, padding=0):
        return torch.nn.functional.avg_pool2d(x, kernel_size, stride, padding)


class MaxPool1d(Composite, shapes=SEQUENCE, smooth=False, method=False):
    """max_pool2d over an image of one row."""

    domain = "distinct"
    samples = [
        *(sample((2, 3, 7), kernel_size=k, stride=s) for k in (2, 3) for s in (None, 1)),
        sample((3, 7), kernel_size=3, padding=1),
    ]

    def definition(x, kernel_size, stride=None, padding=0, dilation=1):
        stride = kernel_size if stride is None else stride
        k, s, p, d = map(
            _single, ("kernel_size", "stride", "padding", "dilation"), (kernel_size, stride, padding, dilation)
        )
        return squeeze(max_pool2d(unsqueeze(x, -2), (1, k), (1, s), (0, p), (1, d)), -2)

    def torch(torch, x, kernel_size, stride=None, padding=0, dilation=1):
        return torch.nn.functional.max_pool1d(x, kernel_size, stride, padding, dilation)


class AvgPool1d(Composite, shapes=SEQUENCE, method=False):
    """avg_pool2d over an image of one row."""

    samples = [
        *(sample((2, 3, 7), kernel_size=k, stride=s) for k in (2, 3) for s in (None, 1)),
        sample((3, 7), kernel_size=3, padding=1),
    ]

    def definition(x, kernel_size, stride=None, padding=0):
        stride = kernel_size if stride is None else stride
        k, s, p = map(_single, ("kernel_size", "stride", "padding"), (kernel_size, stride, padding))
        return squeeze(avg_pool2d(unsqueeze(x, -2), (1, k), (1, s), (0, p)), -2)

    def torch(torch, x, kernel_size, stride=None, padding=0):
        return torch.nn.functional.avg_pool1d(x, kernel_size, stride, padding)


class AdaptiveAvgPool2d(Composite, shapes=IMAGE, method=False):
    """Means over as many windows as `output_size` says, spread evenly: z = A x B^T with the windows' shares in A and B.

    Window i of n over N numbers reaches from floor(i N / n) up to ceil((i + 1) N / n). None keeps an axis as it is.
    """

    samples = [
        *(sample((2, 3, 7, 5), output_size=size) for size in (1, (3, 2), (None, 4))),
        sample((3, 7, 5), output_size=(4, 3)),
    ]

    def definition(x, output_size):
        wanted = (output_size,) * 2 if output_size is None or isinstance(output_size, int) else tuple(output_size)
        for axis, n in zip((-2, -1), wanted):
            if n is not None and n != x.shape[axis]:
                shares = _shares("adaptive_avg_pool2d", n, x.shape[axis], x)
                x = matrix_product(shares, x) if axis == -2 else matrix_product(x, transposed(shares))
        return x

    def torch(torch, x, output_size):
        return torch.nn.functional.adaptive_avg_pool2d(x, output_size)


class AdaptiveAvgPool1d(Composite, shapes=SEQUENCE, method=False):
    """Means over `output_size` windows that are spread evenly over the last axis; see adaptive_avg_pool2d."""

    samples = [sample((2, 3, 7), output_size=size) for size in (1, 4)]

    def definition(x, output_size):
        shares = _shares("adaptive_avg_pool1d", _single("output_size", output_size), x.shape[-1], x)
        return matrix_product(x, transposed(shares))

    def torch(torch, x, output_size):
        return torch.nn.functional.adaptive_avg_pool1d(x, output_size)


max_pool2d, avg_pool2d = MaxPool2d.apply, AvgPool2d.apply
max_pool1d, avg_pool1d = MaxPool1d.apply, AvgPool1d.apply
adaptive_avg_pool2d, adaptive_avg_pool1d = AdaptiveAvgPool2d.apply, AdaptiveAvgPool1d.apply


def _columns(name: str, x: Any, kernel_size: Size, stride: Size, padding: Size, dilation: Size) -> tuple[Any, Any]:
    """What each window shows, channel by channel, (..., C, kH kW, L), and the shape of the result (..., C, oH, oW)."""
    if len(x.shape) < 3:
        raise ShapeError(f"{name}: an image (..., C, H, W) was expected, not {tuple(x.shape)}")
    stride = kernel_size if stride is None else stride
    out = _windows(name, x.shape[-2:], kernel_size, dilation, padding, stride)
    columns = unfold(x, kernel_size, dilation, padding, stride)
    area = math.prod(_pair("kernel_size", kernel_size))
    return reshape(columns, (*x.shape[:-2], area, math.prod(out))), (*x.shape[:-2], *out)


def _pool_padding(name: str, kernel_size: Size, padding: Size) -> Pair:
    """The padding as two numbers. Errors: ShapeError beyond half a kernel, where a window would show nothing."""
    pads = _pair("padding", padding, 0)
    if any(2 * p > k for p, k in zip(pads, _pair("kernel_size", kernel_size))):
        raise ShapeError(f"{name}: padding {padding} is more than half of the kernel's size {kernel_size}")
    return pads


def _shares(name: str, n: int, N: int, x: Any) -> Any:
    """(n, N): the share that each of N numbers has in each of n means."""
    if n < 1 or N < 1:
        raise ShapeError(f"{name}: {n} means of {N} numbers do not exist")
    array = getattr(x, "array", x)
    shares = array_module(array).zeros((n, N), array.dtype)
    for i in range(n):
        start, end = i * N // n, -(-(i + 1) * N // n)
        shares[i, start:end] = 1 / (end - start)
    return shares
