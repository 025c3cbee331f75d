"""Chapter 3. Attention: each position looks at others and brings back a mixture of what they hold.

    attention(q, k, v) = softmax(q k^T / sqrt(D)) v        Vaswani et al. 2017, equation 1

Taken apart and put together again by hand, then trained on a task that cannot be done without it.
B batch, T time (positions), C channels, H heads, D = C / H channels of a head, V vocabulary.
"""

import math

import minilm as ml
from minilm import nn, optim
from minilm.nn import functional as F

ml.manual_seed(0)
ml.set_num_threads(1)  # so small a model gains little from a second one

print("1. Softmax turns scores into shares: positive, and 1 in all")
scores = ml.tensor([2.0, 1.0, 0.0, -1.0])
shares = scores.exp() / scores.exp().sum()
assert math.isclose(shares.sum().item(), 1, rel_tol=1e-6)
assert ml.allclose(shares, F.softmax(scores, -1))
assert ml.allclose(shares, F.softmax(scores + 50, -1), atol=1e-6)
print(f"   scores {scores.tolist()} -> shares " + ", ".join(f"{s:.3f}" for s in shares.tolist()))
ratio = (shares[0] / shares[1]).item()
assert math.isclose(ratio, math.e, rel_tol=1e-5)
print(f"   One point more is e = {ratio:.3f} times the share; 50 points more for all change nothing.")

print("\n2. One query, step by step: compare with each key, take shares, mix the values")
T, D = 5, 4
q, k, v = ml.randn(T, D), ml.randn(T, D), ml.randn(T, D)
t = 2  # the position that looks
points = ml.stack([(q[t] * k[s]).sum() / math.sqrt(D) for s in range(T)])
shares = F.softmax(points, -1)
mixture = ml.zeros(D)
for s in range(T):
    print(f"   position {t} scores position {s} at {points[s].item():6.3f}: {shares[s].item():6.1%} of its value")
    mixture += shares[s] * v[s]
everybody = F.softmax(q @ k.transpose(-2, -1) / math.sqrt(D), -1) @ v  # (T, T) @ (T, D) -> (T, D)
assert ml.allclose(everybody[t], mixture, atol=1e-6)
print("   softmax(q k^T / sqrt(D)) v is that for all positions at once; its row 2 is the same.")

print("\n3. Why sqrt(D)? q.k is a sum of D products: the larger D, the larger the scores")
print("               variance of q.k   largest share   variance of q.k / sqrt(D)   largest share")
for D in (4, 64, 1024):
    raw = ml.randn(500, D) @ ml.randn(D, 16)  # 500 queries, 16 keys
    scaled = raw / math.sqrt(D)
    wide, narrow = raw.var().item(), scaled.var().item()
    sharp, blunt = (F.softmax(points, -1).amax(-1).mean().item() for points in (raw, scaled))
    assert 0.75 * D < wide < 1.25 * D
    assert blunt < 0.35
    print(f"      D {D:4}   {wide:15.1f}   {sharp:13.2f}   {narrow:25.2f}   {blunt:13.2f}")
assert sharp > 0.9
print("   Unscaled, each query sees one key alone, and a softmax that is sure of itself learns no more.")

print("\n4. The causal mask: a score of minus infinity is a share of nothing, so nobody sees the future")
later = ml.ones(T, T, dtype=ml.bool_).triu(1)
weights = F.softmax((q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).masked_fill(later, -math.inf), -1)
by_hand = weights @ v
assert weights[later].sum().item() == 0
assert ml.allclose(by_hand, F.scaled_dot_product_attention(q, k, v, is_causal=True), atol=1e-6)
for row in weights.tolist():
    print("      " + "  ".join(f"{share:.2f}" if share else "   ." for share in row))
print("   times v it equals F.scaled_dot_product_attention(q, k, v, is_causal=True), which is one kernel.")
k2, v2 = k.clone(), v.clone()
k2[3], v2[3] = 0.0, 10.0  # another token at position 3
moved = (F.scaled_dot_product_attention(q, k2, v2, is_causal=True) - by_hand).abs().amax(-1)
assert moved[:3].max().item() < 1e-6
assert moved[3:].min().item() > 0.1
print("   another token at position 3 moves the results at 0 to 4 by " + ", ".join(f"{m:.2f}" for m in moved.tolist()))

print("\n5. Several heads are a reshape: each has its own D of the C channels, and its own weights")
B, H, C = 2, 3, 12
x, y, z = ml.randn(B, T, C), ml.randn(B, T, C), ml.randn(B, T, C)
heads = [part.reshape(B, T, H, C // H).transpose(1, 2) for part in (x, y, z)]  # (B, H, T, D)
joined = F.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(B, T, C)
for head in range(H):
    mine = slice(head * C // H, (head + 1) * C // H)
    alone = F.scaled_dot_product_attention(x[..., mine], y[..., mine], z[..., mine])
    assert ml.allclose(joined[..., mine], alone, atol=1e-6)
    print(f"   head {head} is attention over channels {mine.start} ... {mine.stop - 1} alone: equal")
print(f"   (B, T, C) {x.shape} -> (B, H, T, D) {heads[0].shape} -> attention -> {joined.shape}")

print("\n6. A model that must look back: which token was before this one?")
V, T, C = 10, 8, 32
later = ml.ones(T, T, dtype=ml.bool_).triu(1)


class LookBack(nn.Module):
    """One head of causal attention between an embedding and a read-out: tokens (B, T) -> (B, T, V)."""

    def __init__(self):
        super().__init__()
        self.token, self.position = nn.Embedding(V, C), nn.Embedding(T, C)
        self.qkv, self.read = nn.Linear(C, 3 * C, bias=False), nn.Linear(C, V)

    def forward(self, tokens):
        """Scores of the V possible answers at each position, and the attention weights (B, T, T)."""
        q, k, v = self.qkv(self.token(tokens) + self.position(ml.arange(T))).chunk(3, -1)
        scores = q @ k.transpose(-2, -1) / math.sqrt(C)
        weights = F.softmax(scores.masked_fill(later, -math.inf), -1)
        return self.read(weights @ v), weights


model = LookBack()
print(f"   Guessing blindly costs ln {V} = {math.log(V):.3f}.")
optimizer = optim.AdamW(model.parameters(), lr=0.01)
test = ml.randint(0, V, (200, T))


def right_answers():
    """The share of positions after the first at which the likeliest answer is the token before."""
    with ml.no_grad():
        return (model(test)[0][:, 1:].argmax(-1) == test[:, :-1]).to(ml.float32).mean().item()


def shades(weights):
    """One line for each row of weights: the darker the character, the larger the weight, from 0 to 1."""
    return ["".join(2 * " .:-=+*#%@"[min(int(weight * 10), 9)] for weight in row) for row in weights.tolist()]


def pattern():
    """The mean attention weights (T, T) over the test sequences."""
    with ml.no_grad():
        return model(test)[1].mean(0)


before, guessed = pattern(), right_answers()
for step in range(61):
    tokens = ml.randint(0, V, (32, T))
    logits, _ = model(tokens)
    loss = F.cross_entropy(logits[:, 1:].reshape(-1, V), tokens[:, :-1].reshape(-1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 15 == 0:
        print(f"   step {step:2}   loss {loss.item():.4f}")
after, known = pattern(), right_answers()
looks_back = after.diagonal(-1).mean().item()
assert guessed < 0.3
assert known > 0.98
assert looks_back > 0.9
print(f"   right answers on new sequences: {guessed:.0%} before training, {known:.0%} after")
print("   who looks (rows) where (columns): before training, and after")
for left, right in zip(shades(before), shades(after)):
    print(f"      |{left}|      |{right}|")
print(f"   Nobody told it where to look, yet position t gives {looks_back:.0%} of its weight to t - 1.")
print("   A GPT is a stack of such layers with more heads: chapter 4.")
