"""Chapter 7. Gradients one can prove: checks, invented inputs, and what no check can see.

    d f / d x_i  ~  (f(x + h e_i) - f(x - h e_i)) / 2h      for every input element i and every output element

The right side needs no calculus, so it can judge the left. The operation under test is one of our own: logits held
below a cap (Gemma Team 2024, section 2), with a cap for each channel.  B batch, C channels.
"""

import sys
import textwrap

import numpy as np

import minilm as ml
from minilm.autograd import Function
from minilm.nn import functional as F
from minilm.testing import GradientError, assert_same, gradcheck, gradgradcheck

try:
    from hypothesis import given, settings
    from hypothesis import strategies as st

    from minilm.testing import strategies
except ImportError:
    sys.exit("This chapter lets hypothesis invent inputs: pip install 'minilm[test]'")


def refusal(check, function, inputs):
    """The error with which a check refuses the function."""
    try:
        check(function, inputs)
    except GradientError as error:
        return error
    raise SystemExit("this should not have passed")


def show(error):
    """Print a refusal, wrapped for the screen."""
    for line in str(error).splitlines():
        print(textwrap.fill(line, 96, initial_indent="   ", subsequent_indent="            "))


rng = np.random.default_rng(0)
x, cap = rng.standard_normal((2, 3)), 1 + rng.random(3)  # (B, C), (C)


class SoftCap(Function):
    """y = cap tanh(x / cap): about x where x is small, never beyond the cap."""

    @staticmethod
    def forward(ctx, x, cap):
        """Compute, and keep what backward needs."""
        t = (x / cap).tanh()
        ctx.save_for_backward(x, cap, t)
        return cap * t

    @staticmethod
    def backward(ctx, dy):
        """With t = tanh(x / cap): dx = dy (1 - t^2), dcap = sum over rows of dy (t - (1 - t^2) x / cap)."""
        x, cap, t = ctx.saved_tensors
        slope = 1 - t * t
        return dy * slope, (dy * (t - slope * x / cap)).sum(0)


print("1. The derivative by hand is held against the function itself")
assert gradcheck(SoftCap.apply, [x, cap])
print("   SoftCap passes: all 6 x 6 and 6 x 3 slopes agree.")


class Forgetful(SoftCap):
    """The same, but its backward takes tanh's slope for 1 - t."""

    @staticmethod
    def backward(ctx, dy):
        """Wrong: the square is missing."""
        x, cap, t = ctx.saved_tensors
        return dy * (1 - t), (dy * (t - (1 - t) * x / cap)).sum(0)


print("\n2. A mistake is refused, with both values and the smallest input that shows it")
error = refusal(gradcheck, Forgetful.apply, [x, cap])
show(error)
assert error.input == 0
assert error.smallest[0].shape == (1, 1)


class OneRow(SoftCap):
    """The same, but its backward forgets that every row of x was divided by the one cap."""

    @staticmethod
    def backward(ctx, dy):
        """Wrong: the first row in place of the sum over all of them."""
        dx, _ = SoftCap.backward(ctx, dy)
        x, cap, t = ctx.saved_tensors
        return dx, (dy * (t - (1 - t * t) * x / cap))[:1].sum(0)


print("\n3. Mistakes of well-known kinds are called by their names")
error = refusal(gradcheck, OneRow.apply, [x, cap])
show(error)
assert "sum over the axes" in error.cause

print("\n4. With one row it would have passed: which inputs does one think of? Let a machine invent them")
assert gradcheck(OneRow.apply, [x[:1], cap])
shapes = []


def prove(function):
    """The gradient of `function` is right for every x (B, 3), B from 0 to 3, however it lies in memory."""

    @settings(max_examples=50, database=None, derandomize=True, deadline=None)
    @given(strategies.arrays(st.tuples(st.integers(0, 3), st.just(3)), specials=()))
    def holds(x):
        shapes.append(x.shape)
        gradcheck(function, [x, cap], fast=True, allow_independent=True, shrink=False)

    holds()


prove(SoftCap.apply)
print(f"   SoftCap passes on {len(shapes)} inputs of the shapes {', '.join(map(str, sorted(set(shapes))))}.")
assert len(set(shapes)) == 4
try:
    prove(OneRow.apply)
    raise SystemExit("this should not have passed")
except GradientError:
    print(f"   OneRow does not, and the smallest input found has the shape {shapes[-1]}: two rows to be summed.")
    assert shapes[-1] == (2, 3)

print("\n5. Second derivatives: a backward that works on detached numbers is right once, and wrong twice")


class Detached(Function):
    """y = x^3."""

    @staticmethod
    def forward(ctx, x):
        """Compute; what is kept has lost its history."""
        ctx.x = x.detach()
        return x * x * x

    @staticmethod
    def backward(ctx, dy):
        """3 x^2 dy, with an x that the second walk cannot follow."""
        return 3 * ctx.x * ctx.x * dy


assert gradcheck(Detached.apply, [x])
assert refusal(gradgradcheck, Detached.apply, [x]).input == 0
print("   gradcheck passes, gradgradcheck refuses. Gradient penalties and Hessians need the second.")

print("\n6. What no such check can see: a forward that is wrong, with a backward that fits it")


def layer_norm(x):
    """Looks like layer normalisation, but divides by C - 1 under the root."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().sum(-1, keepdim=True) / (x.shape[-1] - 1) + 1e-5).sqrt()


assert gradcheck(layer_norm, [x])
assert gradgradcheck(layer_norm, [x])
print("   Both checks pass: the gradient is that of the function, and the function is another one.")
refused = ""
try:
    assert_same(layer_norm(ml.tensor(x)), F.layer_norm(ml.tensor(x), (3,)), name="layer_norm")
except AssertionError as error:
    refused = str(error)
    show(error)
assert "worst at" in refused
print("   Only another source can tell: a definition, a paper's numbers, PyTorch (chapter 8).")
