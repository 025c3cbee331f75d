"""Chapter 15. Encoder and decoder: masks, positions, attention from one sequence to another, and a model that reverses.

    python examples/15_transformer.py

Sources: Vaswani et al. 2017, "Attention is all you need"; docs/transformer.md.
"""

import numpy as np

import minilm as ml
from minilm import MarianConfig, MarianMTModel, nn, optim
from minilm.nn import functional as F
from minilm.optim.lr_scheduler import LambdaLR

ml.manual_seed(0)
rng = np.random.default_rng(0)

print("1. Three kinds of attention are one operation, and differ in who may look where")
print("   a group for each that looks, a # for each that it may look at:")
S, T, C = 5, 4, 8
source, target = ml.randn(1, S, C), ml.randn(1, T, C)
padding = ml.tensor([[True, True, True, False, False]])  # three words, and padding
causal = ml.tensor(np.tri(T, dtype=bool))


def attention(queries, keys, visible):
    """softmax(q k^T / sqrt(C)) over the keys that are visible, and the mixture of them that it makes."""
    scores = queries @ keys.transpose(-2, -1) / C**0.5
    weights = F.softmax(scores.masked_fill(~visible, -float("inf")), -1)
    return weights, weights @ keys


for name, queries, keys, visible in (
    ("source to source", source, source, padding),
    ("target to itself", target, target, causal),
    ("target to source", target, source, padding),
):
    weights, mixture = attention(queries, keys, visible)
    fused = F.scaled_dot_product_attention(queries, keys, keys, visible)
    assert np.allclose(mixture.array, fused.array, atol=1e-6)
    assert not weights.array[0][~np.broadcast_to(visible.array, weights.shape[1:])].any()
    rows = ["".join("#" if w > 0 else "." for w in row) for row in weights[0].tolist()]
    print(f"   {name}: {'  '.join(rows)}")

print("\n2. Without positions the order of words is lost: a reordered source gives the reordered memory")
layer = nn.TransformerEncoderLayer(C, 2, 16, dropout=0.0, batch_first=True)
order = np.array([4, 2, 0, 3, 1])
positions = nn.SinusoidalPositions(S, C)(ml.tensor(np.arange(S)))


def gap(added):
    """How far the memory of the reordered source is from the reordered memory."""
    return np.abs(layer(source + added).array[:, order] - layer(source[:, order] + added).array).max()


without, along = gap(0.0), gap(positions)
print(f"   largest difference without positions: {without:.6f}, with them: {along:.6f}")
assert without < 1e-5
assert along > 0.1

print("\n3. What comes later does not change what came before, and the source changes all")
both = nn.Transformer(C, 2, 1, 1, 16, dropout=0.0, batch_first=True)
mask = nn.Transformer.generate_square_subsequent_mask(T)
before = both(source, target, tgt_mask=mask).array
other = target.array.copy()
other[0, 2] += 1.0
after = both(source, ml.tensor(other), tgt_mask=mask).array
moved_by = np.abs(after - before).max(-1)[0]
print(f"   target word 2 changed; the outputs move by {', '.join(f'{m:.2f}' for m in moved_by)}")
assert not moved_by[:2].any()
assert moved_by[2] > 0.1
assert (np.abs(both(source * 2, target, tgt_mask=mask).array - before).max(-1) > 1e-3).all()

print("\n4. A task for which one must look elsewhere: say the letters of a word from the end")
LETTERS, LONGEST, PAD, END = "abcdefgh", 6, 0, 1


def encoded(words):
    """Words as numbers (B, S), and where there is no padding."""
    rows = [[LETTERS.index(c) + 2 for c in word] + [END] for word in words]
    ids = np.array([row + [PAD] * (LONGEST + 1 - len(row)) for row in rows])
    return ids, (ids != PAD).astype(np.int64)


def drawn(count):
    """Words of letters by chance."""
    return ["".join(rng.choice(list(LETTERS), rng.integers(2, LONGEST + 1))) for _ in range(count)]


def batch(words):
    """Sources, their masks, and labels: the words reversed, -100 for padding."""
    ids, visible = encoded(words)
    wanted, real = encoded([word[::-1] for word in words])
    return ml.tensor(ids), ml.tensor(visible), ml.tensor(np.where(real == 1, wanted, -100))


STEPS, C = 300, 64
model = MarianMTModel(
    MarianConfig(
        vocab_size=len(LETTERS) + 2, d_model=C, max_position_embeddings=LONGEST + 1, dropout=0.0,
        encoder_layers=1, encoder_attention_heads=4, encoder_ffn_dim=2 * C,
        decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=2 * C,
        activation_function="relu", init_std=C**-0.5,
        pad_token_id=PAD, eos_token_id=END, forced_eos_token_id=END, decoder_start_token_id=PAD,
    )
)  # fmt: skip
optimizer = optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.98), weight_decay=0.0)
scheduler = LambdaLR(optimizer, optim.warmup_inverse_sqrt(50))
for step in range(1, STEPS + 1):
    loss = model.loss(*batch(drawn(64)), label_smoothing=0.1)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    if step in (1, 50, 100, 200, STEPS):
        print(f"   step {step:3}: loss {loss.item():.2f}")
V = len(LETTERS) + 2
certain, others = 0.9 + 0.1 / V, 0.1 / V
floor = -certain * np.log(certain) - (V - 1) * others * np.log(others)
print(f"   no model gets below {floor:.2f}: a tenth of each label is spread over all {V} tokens")
assert loss.item() > floor - 1e-4

print("\n5. Decoding: the source is read once, and a step costs one token, since the cache keeps the rest")
model.eval()
words = drawn(100)
ids, visible = encoded(words)
with ml.no_grad():
    memory = model.encode(ml.tensor(ids), ml.tensor(visible))
    cache = model.new_cache(memory)
    said = np.full((len(words), 1), PAD)  # what the decoder begins with
    for _ in range(LONGEST + 1):
        scores = model.decode(ml.tensor(said[:, -1:]), cache=cache)
        assert np.allclose(scores.array, model.decode(ml.tensor(said), memory).array, atol=1e-4)
        said = np.concatenate([said, scores.array.argmax(-1)[:, None]], 1)
answers = ["".join(LETTERS[i - 2] if i > 1 else "." for i in row[1:]).split(".")[0] for row in said.tolist()]
right = sum(answer == word[::-1] for answer, word in zip(answers, words))
for word, answer in list(zip(words, answers))[:3]:
    print(f"   {word:>6} -> {answer}")
print(f"   {right} of {len(words)} words that it was not taught are right")
assert right >= 90

print("\n6. Where it looks: the attention of the target's letters (rows) to the source's (columns)")
word = "abcdef"
weights = model(*batch([word]), output_attentions=True).cross_attentions[0].array[0]  # (H, T, S)
head = max(weights, key=lambda w: sum(w[t, len(word) - 1 - t] for t in range(len(word))))
print("        " + "    ".join(word) + "  end")
for t, letter in enumerate(word[::-1]):
    print(f"   {letter}  " + " ".join(f"{w:4.2f}" if w >= 0.005 else "   ." for w in head[t]))
share = np.mean([head[t, len(word) - 1 - t] for t in range(len(word))])
print(f"   on average {share:.0%} of its attention is on the letter that it says")
assert share > 0.3
