"""The usual causes of a difference between two implementations, one class each.

A cause looks at one operation (`Site`) of one side and says what its result would be with one thing changed.
`explaining` puts that in the result's place, runs the rest of the module again, and sees whether the difference is
gone. To add one, write a class with `name`, `applies` and `variants`, and put it into `CAUSES`:

    class Leak(Cause):
        "The slope of leaky ReLU below 0: 0.01 in PyTorch, 0.2 in many papers."

        name = "leaky ReLU's slope"

        def applies(self, site):
            return site.call.op == "leaky_relu"

        def variants(self, site):
            x = site.call.array("x")
            for slope in (0.01, 0.1, 0.2):
                yield site.variant(f"slope {slope}", np.where(x > 0, x, slope * x))

All compute in float64. docs/compare.md lists the formulas; the causes of an optimiser are in `optimizer_causes`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilm.kernels.special import erf
from minilm.testing.twins.calls import Array, Call, Rewrite, Widened

EPSILONS = (1e-5, 1e-6, 1e-8, 1e-12, 1e-3, float(np.finfo(np.float32).eps))
NORMS = ("layer_norm", "rms_norm")
HIDDEN = -1e4  # a score of so little is a mask's
LARGEST_EPSILON = 0.01  # a smaller number that is added is taken for an epsilon


@dataclass(frozen=True)
class Variant:
    """One thing changed: `label` completes "with ..."; `rewrite` gives the changed result of the call it is about."""

    label: str
    rewrite: Rewrite


@dataclass(frozen=True)
class Site:
    """One operation of one side, among all those of its module; `others` are the other side's."""

    call: Call
    calls: list[Call]
    others: list[Call]

    def variant(self, label: str, values: Any) -> Variant:
        """The variant in which this one call results in `values`."""
        return Variant(label, lambda call: values if call.index == self.call.index else None)


class Cause:
    """Base of all: see the module's text. `name` is what a report says."""

    name: str

    def applies(self, site: Site) -> bool:
        """Whether this can be the matter with the site's call."""
        raise NotImplementedError

    def variants(self, site: Site) -> Iterator[Variant]:
        """What the call would give with one thing changed, in each way in which it is usually changed."""
        raise NotImplementedError


class Epsilon(Cause):
    """Another epsilon: layer_norm, rms_norm and a bare `x + 1e-5`.

    y = (x - mean) / sqrt(var + eps)       eps = 1e-5 in PyTorch's LayerNorm, 1e-6 in T5 and LLaMA, 1e-12 in BERT
    """

    name = "epsilon"

    def applies(self, site: Site) -> bool:
        """See the class."""
        return site.call.op in NORMS or is_epsilon_added(site.call)

    def variants(self, site: Site) -> Iterator[Variant]:
        """See the class."""
        call = site.call
        here = epsilon_of(call)
        there = [epsilon_of(other) for other in site.others if other.op in NORMS or is_epsilon_added(other)]
        for eps in dict.fromkeys([*there, *EPSILONS]):  # where several fit, the one that is there is meant
            if math.isclose(eps, here):
                continue
            values = call.array("x") + eps if call.op == "add" else normalised(call, eps)
            yield site.variant(f"eps {eps:.6g} instead of {here:.6g}", values)


class EpsilonPlace(Cause):
    """Epsilon outside of the square root: y = (x - mean) / (sqrt(var) + eps) beside / sqrt(var + eps).

    A bare `v + eps` is changed so that the root that follows gives sqrt(v) + eps, and a bare `sqrt(v) + eps` into
    sqrt(v + eps).
    """

    name = "epsilon's place"

    def applies(self, site: Site) -> bool:
        """See the class."""
        return site.call.op in NORMS or is_epsilon_added(site.call)

    def variants(self, site: Site) -> Iterator[Variant]:
        """See the class."""
        call, outside = site.call, "eps outside of the square root"
        if call.op != "add":
            yield site.variant(outside, normalised(call, epsilon_of(call), outside=True))
            return
        x, eps = call.array("x"), epsilon_of(call)
        if (x >= 0).all():
            yield site.variant(outside, (np.sqrt(x) + eps) ** 2)
            yield site.variant("eps inside of the square root", np.sqrt(x**2 + eps))


class GeluForm(Cause):
    """The exact GELU, x Phi(x), beside x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), as in GPT-2."""

    name = "GELU's form"

    def applies(self, site: Site) -> bool:
        """See the class."""
        return site.call.op == "gelu"

    def variants(self, site: Site) -> Iterator[Variant]:
        """See the class."""
        x = site.call.array("x")
        if site.call.inputs.get("approximate", "none") == "none":
            inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
            yield site.variant("the tanh approximation of GELU instead of the exact one", x / 2 * (1 + np.tanh(inner)))
        else:
            exact = x / 2 * (1 + erf(x / math.sqrt(2)))
            yield site.variant("the exact GELU instead of the tanh approximation", exact)


class TransposedWeight(Cause):
    """A square matrix the other way around: y = x W beside y = x W^T, GPT-2's Conv1D beside Linear."""

    name = "transposed weight"

    def applies(self, site: Site) -> bool:
        """See the class."""
        name = {"linear": "weight", "matmul": "y"}.get(site.call.op)
        shape = () if name is None else np.shape(site.call.inputs[name])
        return len(shape) == 2 and len(set(shape)) == 1

    def variants(self, site: Site) -> Iterator[Variant]:
        """See the class."""
        call = site.call
        if call.op == "linear":
            bias = call.optional("bias")
            values = call.array("x") @ call.array("weight") + (0 if bias is None else bias)
        else:
            values = call.array("x") @ call.array("y").T
        yield site.variant("the weight transposed", values)


class Scale(Cause):
    """Scores of attention without 1 / sqrt(D), or with another D: q k^T / sqrt(D) beside q k^T or q k^T / sqrt(C).

    Of a bare softmax the scale is seen from its input and the product of matrices before it.
    """

    name = "scale of the scores"

    def applies(self, site: Site) -> bool:
        """See the class."""
        return site.call.op == "attention" or (site.call.op == "softmax" and _product_before(site) is not None)

    def variants(self, site: Site) -> Iterator[Variant]:
        """See the class."""
        call = site.call
        if call.op == "attention":
            D, H = call.inputs["q"].shape[-1], _heads(call.inputs["q"])
            given = call.inputs.get("scale")
            here = 1 / math.sqrt(D) if given is None else given
            for words, scale in _scales(D, H).items():
                if not math.isclose(scale, here):
                    yield site.variant(f"{words} instead of {here:.4g}", attended(call, scale=scale))
            return
        product = _product_before(site)
        assert product is not None
        x, here = call.array("x"), _ratio(call.array("x"), product.output)
        for words, scale in _scales(product.inputs["x"].shape[-1], _heads(product.output)).items():
            if here and not math.isclose(scale, here, rel_tol=1e-3):
                yield site.variant(f"{words} instead of {here:.4g}", softmax(x * (scale / here), call.inputs["dim"]))


class Mask(Cause):
    """A mask's meaning or shape: True for attend or for hidden, causal or not, transposed."""

    name = "mask"

    def applies(self, site: Site) -> bool:
        """See the class."""
        call = site.call
        if call.op == "softmax":
            return call.output.ndim >= 2 and call.output.shape[-1] == call.output.shape[-2]
        if call.op == "add":
            return _is_additive_mask(call.inputs.get("y")) and not call.is_number("x")
        if call.op == "where":
            return any(call.is_number(name) and call.inputs[name] <= HIDDEN for name in ("x", "y"))
        return call.op == "attention" or (call.op == "masked_fill" and call.is_number("value"))

    def variants(self, site: Site) -> Iterator[Variant]:
        """See the class."""
        call = site.call
        if call.op == "attention":
            for label, mask, causal in _masks(call):
                yield site.variant(label, attended(call, mask=mask, causal=causal))
        elif call.op == "softmax":
            yield site.variant("a causal mask", softmax(_causal(call.array("x")), call.inputs["dim"]))
        elif call.op == "add":
            for label, mask in _turned(call.inputs["y"] == 0):
                yield site.variant(label, call.array("x") + np.where(mask, 0.0, -np.inf))
            yield site.variant("no mask", call.array("x"))
        elif call.op == "where":
            x, y = call.array("x"), call.array("y")
            for label, mask in _turned(np.asarray(call.inputs["condition"], bool)):
                yield site.variant(label, np.where(mask, x, y))
            yield site.variant("no mask", np.broadcast_to(y if call.is_number("x") else x, call.output.shape))
        else:
            x, value = call.array("x"), call.inputs["value"]
            for label, mask in _turned(call.inputs["mask"].astype(bool)):
                yield site.variant(label, np.where(mask, value, x))
            yield site.variant("no mask", x)


class Reduction(Cause):
    """The loss as the mean over its N elements or as their sum: L = 1/N sum_i l_i beside L = sum_i l_i."""

    name = "reduction of the loss"

    def applies(self, site: Site) -> bool:
        """See the class."""
        call = site.call
        if call.output.ndim:
            return False
        if call.op == "div":
            return call.is_number("y") and np.ndim(call.inputs["x"]) == 0
        return call.op in ("mean", "sum") or call.inputs.get("reduction") in ("mean", "sum")

    def variants(self, site: Site) -> Iterator[Variant]:
        """See the class."""
        call = site.call
        value, sum_instead, mean_instead = call.output, "the sum instead of the mean", "the mean instead of the sum"
        if call.op == "div":
            yield site.variant(f"{sum_instead} of {call.inputs['y']}", call.array("x"))
            return
        counts = {np.size(call.inputs["x"])}
        if "target" in call.inputs:
            target = call.inputs["target"]
            counts = {int((target != call.inputs.get("ignore_index", -100)).sum()), target.size}
        elif call.op == "sum" and counts == {1}:
            return
        is_mean = call.op == "mean" or call.inputs.get("reduction") == "mean"
        for count in counts - {0, 1}:
            words = f"{sum_instead if is_mean else mean_instead} of {count}"
            yield site.variant(words, value * count if is_mean else value / count)


class DropoutLeftOn(Cause):
    """Dropout on one side only, which was not put into eval(): y = x keep / (1 - p) beside y = x."""

    name = "dropout left on"

    def applies(self, site: Site) -> bool:
        """See the class."""
        return site.call.op in ("dropout", "attention") and bool(site.call.inputs.get("p"))

    def variants(self, site: Site) -> Iterator[Variant]:
        """See the class."""
        call = site.call
        values = call.array("x") if call.op == "dropout" else attended(call)
        yield site.variant(f"its dropout (p = {call.inputs['p']:g}) off, as in eval()", values)


class Precision(Cause):
    """Computed in a narrower type on one side: x and W rounded to bfloat16 (or float16, float32), and the result.

    Leaves out every conversion, and computes products whose results were narrower than what went in once more.
    """

    name = "precision"

    def applies(self, site: Site) -> bool:
        """True for the first such call only: all are changed at once."""
        narrow = [call.index for call in site.calls if _narrows(call)]
        return bool(narrow) and site.call.index == narrow[0]

    def variants(self, site: Site) -> Iterator[Variant]:
        """See the class."""

        def widened(call: Call) -> Any:
            x: Any = call.inputs.get("x")
            if call.casts:
                return Widened(x) if x.dtype.kind == "f" else None
            if not _narrows(call):
                return None
            product = call.array("x") @ (call.array("weight").T if call.op == "linear" else call.array("y"))
            bias = call.optional("bias")
            return Widened((product if bias is None else product + bias).astype(x.dtype))

        yield Variant(f"no rounding to {site.call.dtype}", widened)


CAUSES: list[Cause] = [
    Epsilon(),
    EpsilonPlace(),
    GeluForm(),
    TransposedWeight(),
    Scale(),
    Mask(),
    Reduction(),
    DropoutLeftOn(),
    Precision(),
]


# --- the formulas ---------------------------------------------------------------------------------


def is_epsilon_added(call: Call) -> bool:
    """Whether a call is `x + eps` for an array x and a tiny number."""
    return call.op == "add" and call.is_number("y") and 0 < call.inputs["y"] <= LARGEST_EPSILON


def epsilon_of(call: Call) -> float:
    """The epsilon of a normalisation, or of a bare `x + eps`."""
    eps = call.inputs["y"] if call.op == "add" else call.inputs.get("eps")
    return float(np.finfo(call.output.dtype).eps) if eps is None else float(eps)


def normalised(call: Call, eps: float, outside: bool = False) -> Array:
    """layer_norm or rms_norm with this eps, inside of the square root or outside of it."""
    x, weight, bias = call.array("x"), call.optional("weight"), call.optional("bias")
    axes = tuple(range(-len(np.atleast_1d(call.inputs.get("normalized_shape", 0))), 0))
    centred = x - x.mean(axes, keepdims=True) if call.op == "layer_norm" else x
    var = (centred**2).mean(axes, keepdims=True)
    y = centred / (np.sqrt(var) + eps if outside else np.sqrt(var + eps))
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def softmax(x: Array, dim: int) -> Array:
    """Each row positive and of sum 1; a row with nothing but minus infinity is 0."""
    with np.errstate(invalid="ignore"):
        e = np.exp(x - x.max(dim, keepdims=True))
    return np.nan_to_num(e / e.sum(dim, keepdims=True))


def attended(call: Call, scale: float | None = None, mask: Any = "as it is", causal: bool | None = None) -> Array:
    """softmax(q k^T scale + mask) v, with what is given instead of the call's own; never with dropout."""
    q, k, v = call.array("q"), call.array("k"), call.array("v")
    own = call.inputs.get("scale")
    scale = scale if scale is not None else 1 / math.sqrt(q.shape[-1]) if own is None else own
    mask = call.inputs.get("mask") if isinstance(mask, str) else mask
    scores = q @ np.swapaxes(k, -1, -2) * scale
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    if call.inputs.get("causal") if causal is None else causal:
        scores = _causal(scores)
    return softmax(scores, -1) @ v


def _causal(scores: Array) -> Array:
    T, S = scores.shape[-2:]
    return np.where(np.tri(T, S) > 0, scores, -np.inf)


def _heads(x: Array) -> int:
    return x.shape[-3] if x.ndim >= 3 else 1


def _scales(D: int, H: int) -> dict[str, float]:
    """The scales that occur, by their words: D channels of a head, C = H D of the model."""
    return {
        f"the scale 1/sqrt(D), D = {D}": 1 / math.sqrt(D),
        "no scale": 1.0,
        f"the scale 1/sqrt(C), C = {H * D}": 1 / math.sqrt(H * D),
        f"the scale 1/D, D = {D}": 1 / D,
        f"the scale sqrt(D), D = {D}": math.sqrt(D),
    }


def _product_before(site: Site) -> Call | None:
    """The last matrix product before the call whose result has the call's shape: the scores q k^T."""
    for call in reversed(site.calls[: site.call.index]):
        if call.op in ("matmul", "baddbmm") and call.output.shape == site.call.output.shape and "x" in call.inputs:
            return call
    return None


def _ratio(scores: Array, products: Array) -> float:
    """What the products were multiplied by to become the scores: the median, as some may be masked."""
    usable = np.isfinite(scores) & (products != 0)
    return float(np.median(scores[usable] / products[usable])) if usable.any() else 0.0


def _turned(mask: Array) -> Iterator[tuple[str, Array]]:
    """A boolean mask negated and transposed."""
    yield "the mask negated (True for the other)", ~mask
    if mask.ndim >= 2 and mask.shape[-1] == mask.shape[-2]:
        yield "the mask transposed", np.swapaxes(mask, -1, -2)


def _masks(call: Call) -> Iterator[tuple[str, Any, bool]]:
    """Other masks for a fused attention: what changed, the mask, whether it is causal."""
    mask, causal = call.inputs.get("mask"), bool(call.inputs.get("causal"))
    T, S = call.inputs["q"].shape[-2], call.inputs["k"].shape[-2]
    yield ("no causal mask" if causal else "a causal mask"), mask, not causal
    if causal:
        yield "the causal mask transposed", np.tri(T, S, dtype=bool).T if T == S else mask, False
    if mask is not None:
        visible = mask if mask.dtype == bool else mask == 0
        for label, turned in _turned(visible):
            yield label, turned, causal
        yield "no mask", None, causal


def _is_additive_mask(value: Any) -> bool:
    """Whether an array is 0 in some places and hugely negative in all others."""
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return False
    hidden = value <= HIDDEN
    return bool(hidden.any() and (hidden | (value == 0)).all())


def _narrows(call: Call) -> bool:
    """Whether a conversion or a product gives a narrower floating type than went in."""
    x = call.inputs.get("x")
    if not (call.casts or call.op in ("linear", "matmul")) or not isinstance(x, np.ndarray) or x.dtype.kind != "f":
        return False
    sizes = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}
    return sizes.get(call.dtype, 8) < x.dtype.itemsize
