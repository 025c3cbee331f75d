"""Chapter 14. Recurrent networks: a state that is carried from token to token, and how it learns.

The layers are minilm/nn/recurrent.py, the equations minilm/ops/recurrent.py, the models minilm/models/recurrent.py
and feed_forward.py. B sequences, T times, C channels in, H channels of the state, V vocabulary.
"""

import numpy as np

import minilm as ml
from minilm import nn, optim
from minilm.data import CausalBlocks, corpora, train_validation_split
from minilm.generation import generate_text
from minilm.models import FeedForwardConfig, FeedForwardLM, RecurrentConfig, RecurrentLM
from minilm.nn.utils.rnn import pack_sequence, pad_sequence, unpack_sequence
from minilm.text import CharTokenizer
from minilm.train.batches import Streams

ml.manual_seed(0)
ml.set_num_threads(1)  # so small a model gains little from a second one

print("1. An LSTM is four gates around a cell: by hand, and by the layer")
T, B, C, H = 6, 2, 3, 4
layer = nn.LSTM(C, H, dtype=ml.float64)
x = ml.randn(T, B, C, dtype=ml.float64)
h = c = ml.zeros(B, H, dtype=ml.float64)
outputs = []
for x_t in x:
    total = x_t @ layer.weight_ih_l0.T + layer.bias_ih_l0 + h @ layer.weight_hh_l0.T + layer.bias_hh_l0
    i, f, g, o = total.chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()  # keep some, write some
    h = o.sigmoid() * c.tanh()  # show some
    outputs.append(h)
y, (last_h, last_c) = layer(x)
assert ml.allclose(y, ml.stack(outputs))
assert ml.allclose(last_c[0], c)
print(f"   outputs (T, B, H) = {y.shape}, the same to 1e-8; the last state is h {last_h.shape} and c {last_c.shape}")

print("\n2. How far back does a gradient reach? d (the last output) / d (the input k steps before)")
T, H, reach = 60, 32, {}
for kind in (nn.RNN, nn.LSTM):
    layer = kind(C, H)
    if kind is nn.LSTM:
        layer.bias_ih_l0.array[H : 2 * H] = 3  # the gate f, which keeps the cell, stands open
    x = ml.randn(T, 1, C, requires_grad=True)
    layer(x)[0][-1].sum().backward()
    norms = np.linalg.norm(x.grad.numpy()[:, 0], axis=-1)
    reach[kind.__name__] = norms / norms[-1]
    print(
        f"   {kind.__name__:<5}" + "".join(f"  k {k:>2}: {norms[T - 1 - k] / norms[-1]:.0e}" for k in (0, 10, 20, 40))
    )
assert reach["RNN"][-41] < 1e-6 < 1e-3 < reach["LSTM"][-41]
print("   through tanh and a matrix it fades at each step; through an open gate it is handed on")

print("\n3. Sequences of different lengths: packed, nothing is computed for padding")
lengths = [5, 2, 4]
sequences = [ml.randn(n, C) for n in lengths]
packed = pack_sequence(sequences, enforce_sorted=False)
padded = pad_sequence(sequences)
layer = nn.GRU(C, 4, bidirectional=True)
found = unpack_sequence(layer(packed)[0])
for sequence, y in zip(sequences, found):
    assert ml.allclose(layer(sequence)[0], y, atol=1e-6)
assert len(packed.data) == sum(lengths) < padded.shape[0] * padded.shape[1]
print(
    f"   lengths {lengths}: {len(packed.data)} rows, {packed.batch_sizes.tolist()} at the times 0 to 4; padded, there"
)
print(f"   would be {padded.shape[0] * padded.shape[1]}. Each sequence gives what it gives alone, in both directions")

print("\n4. Truncated back-propagation: gradients go back T tokens, the state goes on")
text = corpora.shakespeare()
tokenizer = CharTokenizer.train(text)
V = tokenizer.vocab_size
train_tokens, validation_tokens = train_validation_split(tokenizer.encode_array(text), 0.9)
B, T, STEPS = 16, 32, 400
data = Streams(CausalBlocks(train_tokens, T, stride=1), CausalBlocks(validation_tokens, T, stride=1), B)
first, second = data.batch(0), data.batch(1)
assert (first[2][:, -1] == second[0][:, 0]).all()
print(f"   {B} streams of {data.length:,} characters; each batch goes on where the one before it ended:")
print(f"      {tokenizer.decode(first[0][0])!r}")
print(f"      {tokenizer.decode(second[0][0])!r}")

model = RecurrentLM(RecurrentConfig("lstm", V, T, n_layer=1, n_embd=64, n_hidden=128))
optimizer = optim.AdamW(model.parameters(), lr=5e-3)
state, losses = None, []
for step in range(STEPS):
    tokens, _, targets = (ml.Tensor(array) for array in data.batch(step))
    optimizer.zero_grad()
    loss, state = model.loss_and_state(tokens, targets, state)
    loss.backward()
    optim.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    state = tuple(part.detach() for part in state)  # the numbers stay, their history goes
    losses.append(loss.item())
    if step in (0, 100, 200, STEPS - 1):
        print(f"   step {step:>3}   loss {losses[-1]:.3f}")
assert np.mean(losses[-10:]) < losses[0] - 1.5
with ml.no_grad():
    gains = []
    for step in range(STEPS, STEPS + 10):
        tokens, _, targets = (ml.Tensor(array) for array in data.batch(step))
        known, following = model.loss_and_state(tokens, targets, state)
        gains.append(model.loss(tokens, targets).item() - known.item())
        state = following
assert np.mean(gains) > 0
print(f"   with the state of what came before, the loss is lower by {np.mean(gains):.3f} than from zeros")

print("\n5. Before all of this: Bengio's network, which sees the last n - 1 tokens and no more")
ancestor = FeedForwardLM(FeedForwardConfig(V, context=8, block_size=T, n_embd=16, n_hidden=128))
optimizer = optim.AdamW(ancestor.parameters(), lr=5e-3)
for step in range(STEPS // 2):
    tokens, _, targets = (ml.Tensor(array) for array in data.batch(step))
    optimizer.zero_grad()
    ancestor.loss(tokens, targets).backward()
    optimizer.step()
with ml.no_grad():
    tokens, _, targets = (ml.Tensor(array) for array in data.validation(0))
    scores = {"LSTM": model.loss(tokens, targets).item(), "feed-forward": ancestor.loss(tokens, targets).item()}
    window = ancestor(tokens[:, -8:])[:, -1]
    assert ml.allclose(window, ancestor(tokens)[:, -1], atol=1e-5)
assert max(scores.values()) < np.log(V) - 1
print("   on unseen text: " + ", ".join(f"{name} {score:.3f}" for name, score in scores.items()))

print("\n6. Writing: the state is all that the next character needs")
prompt = tokenizer.decode(validation_tokens[:200])
written = "".join(generate_text(model, tokenizer, prompt, 120, temperature=0.6, seed=1))
again = "".join(generate_text(model, tokenizer, prompt, 120, temperature=0.6, seed=1, use_cache=False))
assert written == again
for line in (prompt[-40:] + written).splitlines():
    print(f"   | {line[:90]}")
