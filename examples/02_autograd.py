"""Chapter 2. Autograd: the machine that applies the chain rule for you.

While operations compute, a tape notes what was done; walked backwards, it gives the derivative of
the result with respect to everything that went in. Each section shows one thing that it does, or
refuses to do; the last one fits a curve, which is all that training is.
"""

import math

import numpy as np

import minilm as ml
from minilm import nn, optim
from minilm.nn import functional as F
from minilm.testing import gradcheck

print("1. The tape of y = exp(w * x) + w, at w = 0.5 and x = 2")
w, x = ml.tensor(0.5, requires_grad=True), ml.tensor(2.0, requires_grad=True)
y = (w * x).exp() + w


def show_tape(source, depth=3):
    """Print a node and, indented below it, where its inputs came from: other nodes, or leaf tensors."""
    if source is w or source is x:
        print(" " * depth + f"leaf {'w' if source is w else 'x'}")
        return
    print(" " * depth + source.name)
    for before, _ in source.next_functions:
        show_tape(before, depth + 4)


show_tape(y.node)
assert y.node.name == "add"
assert y.node.next_functions[0][0].name == "exp"
assert y.node.next_functions[1][0] is w

print("\n2. Its gradient: by the chain rule on paper, by the tape, and by moving the input a little")
y.backward()
h = 1e-6
for leaf, formula, paper, above, below in [
    (w, "dy/dw = x exp(w x) + 1", 2 * math.e + 1, math.exp((0.5 + h) * 2) + h, math.exp((0.5 - h) * 2) - h),
    (x, "dy/dx = w exp(w x)", 0.5 * math.e, math.exp(0.5 * (2 + h)), math.exp(0.5 * (2 - h))),
]:
    moved = (above - below) / (2 * h)
    assert math.isclose(leaf.grad.item(), paper, rel_tol=1e-6)
    assert math.isclose(moved, paper, rel_tol=1e-6)
    print(f"   {formula:<22}   paper {paper:.6f}   tape {leaf.grad.item():.6f}   moved {moved:.6f}")
assert gradcheck(lambda w, x: (w * x).exp() + w, [w, x])
print("   gradcheck(function, inputs) compares so for any function of tensors: here it agrees, too.")

print("\n3. Gradients add up until they are cleared")
w.grad, found = None, []
for _ in range(3):
    (w * 7).backward()
    found.append(w.grad.item())
assert found == [7, 14, 21]
w.grad = None
(w * 7).backward()
assert w.grad.item() == 7
print(f"   w.grad after each of three times (w * 7).backward(): {found}")
print(f"   and cleared before a fourth: {w.grad.item()}. An optimiser's zero_grad() clears at each step.")

print("\n4. Within no_grad() nothing is noted")
with ml.no_grad():
    quiet = w * 7
assert quiet.node is None
assert not quiet.requires_grad
print(f"   w * 7 outside has the node {(w * 7).node.name!r}, inside {quiet.node}: nothing to walk, and no memory held.")

print("\n5. The derivative of a derivative: with create_graph=True the walk back is noted as well")
t = ml.tensor(2.0, requires_grad=True)
values = [t**4]
for _ in range(3):
    values.extend(ml.autograd.grad(values[-1], t, create_graph=True))
assert [v.item() for v in values] == [16, 32, 48, 48]
print("   at t = 2:  t^4 = {:g},  4 t^3 = {:g},  12 t^2 = {:g},  24 t = {:g}".format(*[v.item() for v in values]))

print("\n6. To overwrite what a derivative needs is an error, not a wrong answer")
v = w * x
u = v * v  # its derivative is 2 v
v.add_(1)
refusal = ""
try:
    u.backward()
except ml.MinilmError as error:
    refusal = str(error)
assert "overwritten since by add_" in refusal
print("   " + refusal.replace("\n", "\n   "))

print("\n7. detect_anomaly() stops where a NaN is born, not where it is noticed")
report = ""
try:
    with np.errstate(invalid="ignore"), ml.autograd.detect_anomaly():  # NumPy's own warning kept quiet
        risk = ml.tensor([4.0, 1.0, -1.0])
        root = risk.sqrt()
        loss = (root * 3).mean()
except ml.MinilmError as error:
    report = str(error)
assert report.startswith("sqrt: NaN was born")
print("   " + report.replace("\n", "\n   "))

print("\n8. An operation of your own: say how to compute it, and how to go back")


class Cube(ml.autograd.Function):
    """y = x^3, dx = 3 x^2 dy."""

    @staticmethod
    def forward(ctx, x):
        """Compute, and keep what backward will need."""
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx, dy):
        """From the gradient of the result, that of the input."""
        (x,) = ctx.saved_tensors
        return 3 * x * x * dy


(slope,) = ml.autograd.grad(Cube.apply(t), t)
assert slope.item() == 12
assert gradcheck(Cube.apply, [t])
print(f"   Cube.apply(t) at t = 2 has the slope 3 * 2^2 = {slope.item():g}, and gradcheck agrees.")

print("\n9. All together: AdamW fits a small network to 20 points of a sine")
ml.manual_seed(0)
at = ml.linspace(-math.pi, math.pi, 20).reshape(20, 1)
sine = at.sin()
model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
optimizer = optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.0)
losses = []
for step in range(401):
    loss = F.mse_loss(model(at), sine)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    if step % 100 == 0:
        print(f"   step {step:3}   mean squared error {losses[-1]:.6f}")
assert losses[-1] < 1e-3 < 0.1 < losses[0]
fitted = model(at).detach()
worst = (fitted - sine).abs().max().item()
assert worst < 0.1
for level in range(4, -5, -2):
    print("   " + "".join("  o" if round(2 * value) * 2 == level else "  ." for value in fitted.flatten().tolist()))
print(f"   The largest miss is {worst:.3f}. A language model is trained in the same five lines: chapter 4.")
