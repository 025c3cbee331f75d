"""Chapter 8. Where two models part: a port with four mistakes, and how to find each by comparing.

    report = minilm.testing.compare(ours, theirs, batch, loss, steps=...)

A model was rewritten from PyTorch, it trains, and it is a little worse than the original: something is different.
`compare` gives both the same weights, the same batch and the same seeds, lines up their values module by module,
and stops at the first place where they differ. There it changes one thing at a time, until the difference vanishes.
B batch, T time, C channels, H heads, V vocabulary. docs/compare.md says how it works.
"""

import math
import sys
import textwrap

import numpy as np

import minilm as ml
from minilm.nn import functional as F
from minilm.testing import CAUSES, Cause, compare

try:
    import torch
except ImportError:
    print("This chapter compares with PyTorch, which is not installed: pip install torch")
    sys.exit()

B, T, C, H, V = 4, 8, 16, 2, 27
rng = np.random.default_rng(0)
tokens, targets = rng.integers(0, V, (B, T)), rng.integers(0, V, (B, T))


def said(report):
    """Print what a report concludes, in lines that fit a screen."""
    print(textwrap.fill(report.conclusion, 96, initial_indent="   ", subsequent_indent="   "))


print("1. The original, in PyTorch: a block of a Transformer between an embedding and a head")


class Original(torch.nn.Module):
    """Scores (B, T, V) of each next token, from tokens (B, T)."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(V, C)
        self.norm = torch.nn.LayerNorm(C, eps=1e-12)
        self.qkv = torch.nn.Linear(C, 3 * C)
        self.out = torch.nn.Linear(C, C)
        self.up = torch.nn.Linear(C, 4 * C)
        self.gelu = torch.nn.GELU(approximate="tanh")
        self.down = torch.nn.Linear(4 * C, C)
        self.head = torch.nn.Linear(C, V)

    def forward(self, tokens):
        """See the class."""
        x = self.embed(tokens)
        q, k, v = (part.reshape(B, T, H, C // H).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1))
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, C))
        return self.head(x + self.down(self.gelu(self.up(x))))


def torch_loss(scores, targets):
    """The mean cross-entropy of the next tokens."""
    return torch.nn.functional.cross_entropy(scores.reshape(B * T, V), targets.reshape(B * T))


torch.manual_seed(0)
original = Original()
with torch.no_grad():
    original.embed.weight *= 0.02  # as small as GPT-2's
print(f"   {sum(p.numel() for p in original.parameters()):,} parameters")

print("\n2. The port to minilm, with what goes wrong in ports: each mistake can be mended by its name")


class Port(ml.nn.Module):
    """The same model; `mended` names the mistakes that it does not make."""

    def __init__(self, mended=()):
        super().__init__()
        self.mended = mended
        self.embed = ml.nn.Embedding(V, C)
        self.norm = ml.nn.LayerNorm(C, eps=1e-12 if "epsilon" in mended else 1e-5)
        self.qkv = ml.nn.Linear(C, 3 * C)
        self.out = ml.nn.Linear(C, C)
        self.up = ml.nn.Linear(C, 4 * C)
        self.gelu = ml.nn.GELU("tanh" if "GELU's form" in mended else "none")
        self.down = ml.nn.Linear(4 * C, C)
        self.head = ml.nn.Linear(C, V)

    def forward(self, tokens):
        """See the class."""
        x = self.embed(tokens)
        q, k, v = (part.reshape(B, T, H, C // H).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1))
        D = C // H if "scale of the scores" in self.mended else C
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(D)
        scores = scores.masked_fill(ml.tensor(~np.tri(T, dtype=bool)), -math.inf)
        x = x + self.out((F.softmax(scores, -1) @ v).transpose(1, 2).reshape(B, T, C))
        return self.head(x + self.down(self.gelu(self.up(x))))


def loss(scores, targets):
    """The mean cross-entropy of the next tokens."""
    return F.cross_entropy(scores.reshape(B * T, V), targets.reshape(B * T))


def optimisers(mended):
    """How each side makes its optimiser: the port took Adam, whose weight decay is another one than AdamW's."""
    kind = ml.optim.AdamW if "form of weight decay" in mended else ml.optim.Adam
    return (
        lambda parameters: kind(parameters, lr=1e-3, weight_decay=0.1),
        lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1),
    )


def beside(mended):
    """The port with these mistakes mended, beside the original: values, gradients, and three steps."""
    makers = optimisers(mended)
    return compare(Port(mended), original, tokens, (loss, torch_loss), targets=targets, steps=3, optimizer=makers)


report = beside(())
print("   the first rows of the table; `ulp` counts the floating numbers that lie between the two values:")
print(textwrap.indent("\n".join(str(report).splitlines()[:8]), "   "))
assert report.first.name == "norm"
assert report.explanation.cause == "epsilon"

print("\n3. Mend what it names, and compare again")
mended = []
while not report.agrees:
    print(f"   -- {report.explanation.cause}")
    said(report)
    mended.append(report.explanation.cause)
    report = beside(mended)
print("   -- and now")
said(report)
assert mended == ["epsilon", "scale of the scores", "GELU's form", "form of weight decay"]
last = [row for row in report.rows if row.kind == "step 3"]
assert len(last) == len(list(original.parameters()))
print(f"   After three steps the parameters differ by {max(row.error for row in last):.0e} of their size at most.")

print("\n4. Weights travel by name, both ways")
port = Port(mended)
port.load_torch(original)
ours, theirs = port(ml.tensor(tokens)).detach().numpy(), original(torch.from_numpy(tokens)).detach().numpy()
assert np.allclose(ours, theirs, atol=1e-5)
original.load_state_dict(port.to_torch(), strict=True)
apart = abs(ours - theirs).max()
print(f"   load_torch() and to_torch(), {len(port.state_dict())} tensors: the scores differ by {apart:.0e}.")

print("\n5. A cause that is not in the list yet: the usual ones say so, and yours is a class of ten lines")


class Slope(Cause):
    """The slope of leaky ReLU below 0: 0.01 in PyTorch, 0.2 in many papers."""

    name = "leaky ReLU's slope"

    def applies(self, site):
        """To every leaky ReLU."""
        return site.call.op == "leaky_relu"

    def variants(self, site):
        """The slopes that occur."""
        x = site.call.array("x")
        for slope in (0.01, 0.1, 0.2):
            yield site.variant(f"slope {slope}", np.where(x > 0, x, slope * x))


mine = ml.nn.Sequential(ml.nn.Linear(C, C), ml.nn.LeakyReLU(0.2))
other = torch.nn.Sequential(torch.nn.Linear(C, C), torch.nn.LeakyReLU())
x = rng.standard_normal((B, C)).astype(np.float32)
said(unknown := compare(mine, other, x))
assert unknown.explanation.cause == ""
CAUSES.append(Slope())
said(known := compare(mine, other, x))
assert known.explanation.cause == "leaky ReLU's slope"
