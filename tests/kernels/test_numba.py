"""Numba's kernels: values against the reference in float64, bits whatever the number of threads, the disk."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest

from minilm import kernels
from minilm.kernels import reference, threads

jit = pytest.importorskip("minilm.kernels.jit")
from minilm.kernels import jit_compiled  # noqa: E402

# What one call of a kernel needs: `made(*shape)` gives an array of numbers of the type under test, laid out as the
# test wants it, `plain` one that is contiguous. N rows of C; V classes; each size another prime.


def _attention(made, plain, backward=False, shapes=((2, 3, 67, 5), (2, 3, 71, 5), (2, 3, 71, 7)), **options):
    q, k, v = (made(*shape) for shape in shapes)
    bias = made(*options["bias"]) if "bias" in options else None
    mask = plain(*options["mask"]) > -0.5 if "mask" in options else None
    args = bias, mask, options.get("causal", False), 0.4, options.get("p", 0.0), 2**63 + 12345
    if not backward:
        return q, k, v, *args
    with np.errstate(invalid="ignore"):
        y, lse = reference.attention(*_wide((q, k, v, *args)))
    return made(*y.shape), q, k, v, y.astype(q.dtype), lse.astype(q.dtype), *args


ATTENTIONS = {
    "plain": {},
    "causal": {"causal": True},
    "more queries than keys": {"causal": True, "shapes": ((131, 3), (2, 67, 3), (2, 67, 2))},
    "dropout": {"p": 0.3},
    "several wide tiles": {"causal": True, "shapes": ((2, 331, 5), (2, 599, 5), (2, 599, 6)), "bias": (331, 599)},
    "all of them dropped from": {"p": 0.3, "shapes": ((523, 4), (2, 277, 4), (2, 277, 3)), "mask": (2, 523, 277)},
    "causal and dropped from": {"causal": True, "p": 0.2, "shapes": ((2, 530, 4), (530, 4), (530, 3))},
    "nothing kept": {"p": 1.0},
    "bias": {"bias": (3, 67, 71), "causal": True},
    "wide bias": {"bias": (5, 1, 1, 1, 71)},
    "mask": {"mask": (2, 1, 67, 71), "p": 0.3},
    "blind": {"mask": (2, 1, 67, 1)},
    "broadcast": {"shapes": ((5, 1, 2, 3, 4), (2, 7, 4), (3, 1, 7, 6)), "p": 0.2},
    "whole tiles": {"shapes": ((2, 64, 4), (2, 16, 4), (2, 16, 8)), "bias": (64, 16)},
    "one query": {"shapes": ((2, 3, 1, 64), (2, 3, 130, 64), (2, 3, 130, 64))},
}


def _adamw(made, plain):
    shapes = [(3, 5), (), (8209,), (0, 2)]
    return (
        [plain(*s) for s in shapes],
        [made(*s) for s in shapes],
        [plain(*s) for s in shapes],
        [abs(plain(*s)) for s in shapes],
        *(0.01, 0.9, 0.99, 1e-8, 0.1, 3),
    )


def _classes(V, N=5, ignored=3):
    at = np.random.default_rng(1).integers(0, V, N)
    at[:1] = ignored
    return at


CASES = {
    **{
        f"{name} {shape}": (name, lambda made, plain, shape=shape, count=count: [made(*shape) for _ in range(count)])
        for name, count in {
            **{"softmax": 1, "softmax_backward": 2, "log_softmax": 1, "log_softmax_backward": 2},
            **{"exp": 1, "sigmoid": 1, "erf": 1, "relu": 1, "relu_backward": 2},
        }.items()
        for shape in [(7,), (2, 3, 131), (2, 0, 3), (3, 0)]
    },
    **{
        f"{name} {shape} {approximate}": (
            name,
            lambda made, plain, shape=shape, count=count, how=approximate: [*(made(*shape) for _ in range(count)), how],
        )
        for name, count in {"gelu": 1, "gelu_backward": 2}.items()
        for shape in [(), (7,), (3, 2731), (3, 0)]
        for approximate in ("none", "tanh")
    },
    **{
        f"linear_gelu {N} {bias} {how}": (
            "linear_gelu",
            lambda made, plain, N=N, bias=bias, how=how: (made(N, 5), made(7, 5), made(7) if bias else None, how),
        )
        for N in (0, 11)
        for bias in (True, False)
        for how in ("none", "tanh")
    },
    **{
        f"layer_norm {shape} {has}": (
            "layer_norm",
            lambda made, plain, shape=shape, has=has: (
                made(*shape),
                *(made(shape[-1]) if has else None for _ in range(2)),
                1e-5,
            ),
        )
        for shape in [(7,), (2, 67, 131), (0, 3), (3, 0)]
        for has in (True, False)
    },
    **{
        f"layer_norm_backward {shape} {has}": (
            "layer_norm_backward",
            lambda made, plain, shape=shape, has=has: (
                *(made(*shape) for _ in range(2)),
                made(shape[-1]) if has else None,
                *(made(*shape[:-1], 1) for _ in range(2)),
            ),
        )
        for shape in [(7,), (2, 67, 131), (0, 3), (3, 0)]
        for has in (True, False)
    },
    **{
        f"{name} {shape} {has}": (
            name,
            lambda made, plain, shape=shape, has=has, channels=channels: (
                *(made(*shape) for _ in range(2)),
                *(made(shape[-1]) if has else None for _ in range(channels)),
                1e-5,
            ),
        )
        for name, channels in (("add_layer_norm", 2), ("add_rms_norm", 1))
        for shape in [(7,), (2, 67, 131), (0, 3), (3, 0)]
        for has in (True, False)
    },
    **{
        f"{name} {shape} and around": (
            name,
            lambda made, plain, shape=shape, numbers=numbers: (
                *(made(*shape) for _ in range(2)),
                made(shape[-1]),
                *(made(*shape[:-1], 1) for _ in range(numbers)),
                made(*shape),
            ),
        )
        for name, numbers in (("layer_norm_backward", 2), ("rms_norm_backward", 1))
        for shape in [(7,), (2, 67, 131), (0, 3), (3, 0)]
    },
    **{
        f"rms_norm {shape} {has}": (
            "rms_norm",
            lambda made, plain, shape=shape, has=has: (made(*shape), made(shape[-1]) if has else None, 1e-5),
        )
        for shape in [(7,), (2, 67, 131), (0, 3), (3, 0)]
        for has in (True, False)
    },
    **{
        f"rms_norm_backward {shape} {has}": (
            "rms_norm_backward",
            lambda made, plain, shape=shape, has=has: (
                *(made(*shape) for _ in range(2)),
                made(shape[-1]) if has else None,
                made(*shape[:-1], 1),
            ),
        )
        for shape in [(7,), (2, 67, 131), (0, 3), (3, 0)]
        for has in (True, False)
    },
    **{
        f"cross_entropy {V} {has} {smoothing}": (
            "cross_entropy",
            lambda made, plain, V=V, has=has, smoothing=smoothing: (
                made(5, V),
                _classes(V),
                abs(plain(V)) if has else None,
                3,
                smoothing,
            ),
        )
        for V in (7, 131)
        for has in (True, False)
        for smoothing in (0.0, 0.2)
    },
    **{
        f"cross_entropy_backward {V} {has} {smoothing}": (
            "cross_entropy_backward",
            lambda made, plain, V=V, has=has, smoothing=smoothing: (
                made(5),
                made(5, V),
                _classes(V),
                abs(plain(V)) if has else None,
                made(5) + 3,
                3,
                smoothing,
            ),
        )
        for V in (7, 131)
        for has in (True, False)
        for smoothing in (0.0, 0.2)
    },
    "cross_entropy of nothing": ("cross_entropy", lambda made, plain: (made(0, 7), _classes(7, 0), None, 3, 0.0)),
    **{
        f"linear_cross_entropy {N} {scale}": (
            "linear_cross_entropy",
            lambda made, plain, N=N, scale=scale: (made(N, 3), made(11, 3), _classes(11, N), 3, scale),
        )
        for N in (0, 5)
        for scale in (None, 0.3)
    },
    "scatter_rows": ("scatter_rows", lambda made, plain: (made(31, 131), np.arange(31) * 7 % 11, 13)),
    "scatter_rows of nothing": ("scatter_rows", lambda made, plain: (made(0, 3), np.zeros(0, int), 5)),
    **{
        f"{name} {reverse}": (
            name,
            lambda made, plain, recurrent=recurrent, reverse=reverse: (*recurrent(made), (5, 3, 3, 1), reverse),
        )
        for name, recurrent in {
            "lstm_layer": lambda made: (made(12, 28), 0.3 * made(28, 7), made(5, 7), made(5, 7)),
            "lstm_layer_backward": lambda made: (
                *(made(12, 7), made(5, 7), made(5, 7), 0.3 * made(28, 7)),
                *(made(12, 28), made(12, 7), made(12, 7), made(5, 7), made(5, 7)),
            ),
            "gru_layer": lambda made: (made(12, 21), 0.3 * made(21, 7), made(21), made(5, 7)),
            "gru_layer_backward": lambda made: (
                *(made(12, 7), made(5, 7), 0.3 * made(21, 7)),
                *(made(12, 21), made(12, 7), made(12, 7), made(5, 7)),
            ),
        }.items()
        for reverse in (False, True)
    },
    "gru_layer without a bias": (
        "gru_layer",
        lambda made, plain: (made(12, 21), 0.3 * made(21, 7), None, made(5, 7), (5, 3, 3, 1), False),
    ),
    "adamw": ("adamw", _adamw),
    "square_sum": ("square_sum", lambda made, plain: ([made(3, 2741), made(), made(0, 2)],)),
    **{
        f"{name}, {title}": (
            name,
            lambda made, plain, backward=name == "attention_backward", options=options: _attention(
                made, plain, backward, **options
            ),
        )
        for name in ("attention", "attention_backward")
        for title, options in ATTENTIONS.items()
    },
}


def _laid_out(x, layout):
    if x.ndim and layout == "strided":
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    if x.ndim and layout == "reversed":
        return x[..., ::-1].copy()[..., ::-1]
    if layout == "read-only":
        x.flags.writeable = False
    return x


def _arguments(case, dtype, layout="plain"):
    rng = np.random.default_rng(0)
    name, arguments = CASES[case]

    def plain(*shape):
        return np.array(rng.normal(size=shape), dtype)

    return name, tuple(arguments(lambda *shape: _laid_out(plain(*shape), layout), plain))


def _each(value, change):
    """`change` applied to all arrays in tuples and lists."""
    if isinstance(value, (tuple, list)):
        return type(value)(_each(v, change) for v in value)
    return change(value) if isinstance(value, np.ndarray) else value


def _wide(value):
    return _each(value, lambda a: a.astype("float64") if a.dtype.kind == "f" else a)


def _results(name, arguments, table):
    result = getattr(table, name)(*arguments)
    return arguments[:4] if result is None else result if isinstance(result, tuple) else (result,)


def test_all_kernels_are_tested():
    alone = {"matmul", "philox", "keep_rows"}
    alone |= {"drop_rows", "packed_attention", "packed_attention_backward"}  # in test_philox, test_packed_attention
    assert {name for name, _ in CASES.values()} | alone == set(kernels._COMPILED["numba"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", ["plain", "strided", "reversed", "read-only"])
@pytest.mark.parametrize("case", CASES)
def test_values_are_the_references(case, layout, dtype):
    name, arguments = _arguments(case, dtype, layout)
    before, wide = _each(arguments, np.copy), _wide(arguments)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = _results(name, wide, reference)
        results = _results(name, arguments, jit)
    if name == "adamw":
        results, expected = (_flat(lists) for lists in (results, expected))
    else:
        for given, as_before in zip(_flat(arguments), _flat(before)):
            np.testing.assert_array_equal(given, as_before)
    assert len(results) == len(expected)
    for i, (ours, theirs) in enumerate(zip(results, expected)):
        if theirs is None:
            assert ours is None
            continue
        if isinstance(theirs, np.ndarray):
            assert ours.dtype == ("float64" if name == "cross_entropy" and i == 1 else dtype)  # lse
            assert ours.shape == theirs.shape
        # sums of at most 134 terms of size 1 or so, each rounded; exponentials of differences of such sums
        scale = 1 + np.max(np.abs(theirs), initial=0, where=np.isfinite(theirs))
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=60 * np.finfo(dtype).eps * scale, err_msg=name)


def _flat(value):
    """All arrays in tuples and lists."""
    if isinstance(value, (tuple, list)):
        return [a for v in value for a in _flat(v)]
    return [value] if isinstance(value, np.ndarray) else []


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", [c for c in CASES if "linear" not in c])  # those hold a product by OpenBLAS
def test_bits_do_not_depend_on_the_number_of_threads(case, dtype, monkeypatch):
    monkeypatch.setattr(jit_compiled, "WORTH_SHARING", 0)
    found = []
    for count in (1, 2, 3):
        monkeypatch.setattr(threads, "get_num_threads", lambda count=count: count)
        name, arguments = _arguments(case, dtype)
        result = _results(name, arguments, jit)
        found.append([np.asarray(a).tobytes() for a in result if a is not None and not isinstance(a, list)])
        found[-1] += [a.tobytes() for a in _flat([a for a in result if isinstance(a, list)])]
    assert found[0]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_no_finite_number(dtype):
    inf, nan = np.inf, np.nan
    rows = [[-inf, 0, 1], [-inf] * 3, [inf, 0, 0], [nan, 0, 0], [0, 0, nan], [nan] * 3, [88, -88, 3e38]]
    x = np.array(rows, dtype)
    one = np.ones((7, 3), dtype)
    at = np.array([1, 0, 1, 1, 2, 0, 2])
    calls = [
        *(("softmax", (x,)), ("log_softmax", (x,)), ("sigmoid", (x,)), ("erf", (x,)), ("exp", (x,))),
        *((name, (x, how)) for name in ("gelu",) for how in ("none", "tanh")),
        *(("gelu_backward", (np.ones_like(x), x, how)) for how in ("none", "tanh")),
        *(("relu", (x,)), ("relu_backward", (np.ones_like(x), x))),
        *(("layer_norm", (x, None, None, 1e-5)), ("rms_norm", (x, None, 1e-5))),
        *(("cross_entropy", (x, at, None, -100, smoothing)) for smoothing in (0.0, 0.1)),
        ("cross_entropy_backward", (x[:, 0].copy(), x, at, None, x[:, 1].copy(), 1, 0.1)),
        *(("attention", (x, x, x, bias, None, False, 1.0)) for bias in (None, np.full((7, 7), -inf, dtype))),
        ("attention", (one, one, one, x[:, :1].copy(), None, True, 1.0)),
    ]
    for name, arguments in calls:
        with np.errstate(all="ignore"):
            expected = _results(name, arguments, reference)
        for ours, theirs in zip(_results(name, arguments, jit), expected):
            np.testing.assert_allclose(ours, theirs, rtol=3e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 2), ("float32", 2)])
def test_exponentials_in_units_of_the_last_place(dtype, bound):
    """Through softmax's two scores 0 and x: e^x / (1 + e^x), which is e^x where e^x is small."""
    low = {"float32": -103, "float64": -745}[dtype]
    x = np.linspace(low, 0, 20011).astype(dtype)
    ours = jit.log_softmax_backward(np.ones((x.size, 1), dtype), x[:, None])[:, 0]  # 1 - e^x
    wide = np.exp(x.astype("longdouble"))
    assert np.abs(ours - (1 - wide)).max() <= bound * np.finfo(dtype).eps
    pair = np.stack([np.zeros_like(x), x], 1)
    small = jit.softmax(pair)[:, 1]
    expected = wide / (1 + wide)
    off = np.abs(small - expected) / np.spacing(expected.astype(dtype))
    assert off.max() <= bound + 1


@pytest.mark.parametrize("start", [0, 2**32 - 3, 2**64 - 2])
def test_random_numbers_are_the_references(start):
    for count in (0, 1, 7, 1000):
        np.testing.assert_array_equal(
            jit.philox(2**64 - 3, 2**40 + 1, start, count), reference.philox(2**64 - 3, 2**40 + 1, start, count)
        )
    for columns in (0, 1, 3, 4, 131):
        for p in (0.0, 0.1, 0.5, 1.0):
            args = 2**63 + 1, start % 2**33, 5, columns, p
            np.testing.assert_array_equal(jit.keep_rows(*args), reference.keep_rows(*args))


@pytest.mark.parametrize("whole", [True, False])
def test_attention_writes_where_it_is_told(whole):
    """Into heads that lie side by side, and into gradients of broadcast arrays."""
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(2, 5, 3, 3, 7)).transpose(2, 0, 3, 1, 4)  # (B, H, T, D) of (B, T, 3, H, D)
    if not whole:
        k = k[:, :1]
    settings = None, None, True, 0.4
    place = np.full((2, 5, 3, 7), 7.0)
    y, lse = jit.attention(q, k, v, *settings, out=place.transpose(0, 2, 1, 3))
    np.testing.assert_allclose(place.transpose(0, 2, 1, 3), reference.attention(q, k, v, *settings)[0], rtol=1e-12)
    assert np.shares_memory(y, place)
    dy = rng.normal(size=y.shape)
    out = tuple(np.full((*x.shape, 2), 7.0)[..., 0] for x in (q, k, v))
    gradients = jit.attention_backward(dy, q, k, v, y, lse, *settings, out=out)
    expected = reference.attention_backward(dy, q, k, v, y, lse, *settings)
    for got, place, wanted in zip(gradients, out, expected):
        assert got is place
        np.testing.assert_allclose(place, wanted, atol=1e-12)


def test_attention_writes_into_any_strides():
    """Leading axes that cannot be made two without a copy."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 3, 5, 7, 2)) for _ in range(3))
    settings = None, None, False, 0.4
    place, *places = (np.full((3, 2, 5, 7, 2), 7.0).swapaxes(0, 1) for _ in range(4))
    y, lse = jit.attention(q, k, v, *settings, out=place)
    assert y is place
    np.testing.assert_allclose(place, reference.attention(q, k, v, *settings)[0], rtol=1e-12)
    jit.attention_backward(y, q, k, v, y, lse, *settings, out=tuple(places))
    for got, wanted in zip(places, reference.attention_backward(y, q, k, v, y, lse, *settings)):
        np.testing.assert_allclose(got, wanted, atol=1e-12)


@pytest.mark.parametrize("tile", [0, 1, 2])
def test_attention_of_large_scores_in_any_tile(tile):
    """e^300 is no float32: whatever comes before or after the largest score is taken down by it."""
    q, v = np.full((1, 1), 300, np.float32), np.arange(600, dtype=np.float32)[:, None]
    k = np.zeros((600, 1), np.float32)
    k[250 * tile + 7] = 1
    y, lse = jit.attention(q, k, v, None, None, False, 1.0)
    np.testing.assert_array_equal(y, [[250 * tile + 7]])
    np.testing.assert_array_equal(lse, [300])


def test_attention_keeps_no_matrix_of_scores():
    import tracemalloc

    q = np.zeros((1, 1, 4096, 16), np.float32)
    y, lse = jit.attention(q, q, q, None, None, True, 1.0)
    jit.attention_backward(y, q, q, q, y, lse, None, None, True, 1.0)  # compiled
    tracemalloc.start()
    jit.attention(q, q, q, None, None, True, 1.0)
    jit.attention_backward(y, q, q, q, y, lse, None, None, True, 1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * q.nbytes < q.shape[2] ** 2


def test_classes_beyond_the_row_are_refused():
    x = np.zeros((2, 3), np.float32)
    for wrong in (3, -4):
        at = np.array([0, wrong])
        with pytest.raises(IndexError, match=f"class {wrong} is out of bounds for 3 classes"):
            jit.cross_entropy(x, at, None, -100, 0.0)
        with pytest.raises(IndexError):
            jit.cross_entropy_backward(x[:, 0], x, at, None, x[:, 0], -100, 0.0)
        with pytest.raises(IndexError):
            jit.linear_cross_entropy(x, x, at, -100, 1.0)
    with pytest.raises(IndexError):
        jit.scatter_rows(x, np.array([0, 5]), 3)


def test_random_numbers_load_numba_only_when_drawn():
    code = """
import sys
import minilm
from minilm import kernels
kernels.use("numba")
assert "numba" not in sys.modules
print(kernels.keep_rows(1, 0, 2, 3, 0.5).shape, "numba" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert done.stdout == "(2, 3) True\n", done.stderr


def test_dropouts_threshold_is_the_same_comparison():
    from minilm.kernels.jit_numbers import least_kept

    for p in (0.0, 0.1, 0.3, 0.5, 1 / 3, 1.0):
        bits = np.array([max(int(least_kept(p)) - 1, 0), least_kept(p)], np.uint64)
        kept = bits.astype(np.float32) * np.float32(2.0**-24) >= np.float32(p)
        assert kept.tolist() == [p == 0, True], p
    assert math.isclose(float(least_kept(0.5)), 2**23)
