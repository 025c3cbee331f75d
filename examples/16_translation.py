"""Chapter 16. Translating: byte pairs of two languages, batches by length, beam search, and BLEU.

    python examples/16_translation.py

681 short verses of the Bible in English and Spanish ship with minilm. So few teach no language, but a small model can
learn them by heart, and all of the way is there. `minilm finetune translate` does the same at any size.
"""

import time

import numpy as np

import minilm as ml
from minilm.data import corpora
from minilm.data.pair_batches import EncodedPairs, TokenBatches
from minilm.data.pairs import held_out
from minilm.models import MarianConfig, MarianMTModel
from minilm.models.translator import Translator
from minilm.optim import AdamW, clip_grad_norm_
from minilm.optim.schedule import warmup_inverse_sqrt
from minilm.text.pair_tokenizer import PairTokenizer

ml.manual_seed(0)

print("1. Pairs of texts, every 50th held out")
pairs, tests = held_out(corpora.verses(), 50)
print(f"   {len(pairs)} to learn from, {len(tests)} to test on; one of them:")
print(f"   {pairs[2].source}  |  {pairs[2].target}")
assert (len(pairs), len(tests)) == (668, 13)

print("\n2. Byte pairs of both sides together: names have the same tokens in both")
tokenizer = PairTokenizer.train((text for pair in pairs for text in (pair.source, pair.target)), 800)
encoded = EncodedPairs(*(tokenizer.encode([getattr(pair, side) for pair in pairs]) for side in ("source", "target")))
shown = [tokenizer.pieces(ids) for ids in tokenizer.encode([pairs[2].source, pairs[2].target])]
for pieces in shown:
    print("   " + "|".join(pieces))
assert all(pieces[-1] == "</s>" for pieces in shown)

print("\n3. Batches of like lengths, of at most 600 tokens a side")
data = TokenBatches(encoded, encoded, 600, seed=0, padding=tokenizer.pad_token_id, assess=lambda model: (0.0, {}))
ids, mask, labels = data.batch(0)
waste = [1 - data.batch(step)[1].mean() for step in range(data.steps)]
print(f"   the first: sources {ids.shape}, targets {labels.shape}; {data.steps} in an epoch")
print(f"   padding in the sources of an epoch: {np.mean(waste):.0%}")
assert max(ids.size, labels.size) <= 600
assert sum(len(data.batch(step)[0]) for step in range(data.steps)) == len(pairs)

print("\n4. A Transformer of encoder and decoder")
sizes = {"layers": 2, "attention_heads": 4, "ffn_dim": 384}
config = MarianConfig(
    vocab_size=tokenizer.vocab_size,
    d_model=96,
    **{f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in sizes.items()},
    activation_function="relu",
    dropout=0.0,
    scale_embedding=True,
    max_position_embeddings=64,
    pad_token_id=tokenizer.pad_token_id,
    decoder_start_token_id=tokenizer.pad_token_id,
    eos_token_id=tokenizer.eos_token_id,
    forced_eos_token_id=tokenizer.eos_token_id,
)
model = MarianMTModel(config)
model.label_smoothing = 0.1
print(f"   {sum(p.numel() for p in model.parameters()):,} parameters")

print("\n5. Learning: the rate rises, then falls as 1 / sqrt(step)")
optimizer, rate = AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98)), warmup_inverse_sqrt(60)
began, losses, kept = time.perf_counter(), [], []
model.train()
epochs = 24
for step in range(epochs * data.steps):
    for group in optimizer.param_groups:
        group["lr"] = 3e-3 * rate(step)
    optimizer.zero_grad()
    loss = model.loss(*map(ml.tensor, data.batch(step)))
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    losses.append(loss.item())
    if (step + 1) % data.steps == 0:
        epoch = (step + 1) // data.steps
        if epoch > epochs - 3:
            kept.append({name: x.numpy().copy() for name, x in model.state_dict().items()})
        if epoch % 6 == 0:
            seconds = time.perf_counter() - began
            print(f"   epoch {epoch:>2}: loss {np.mean(losses[-data.steps :]):.3f}, {seconds:4.1f} s")
assert np.mean(losses[-data.steps :]) < losses[0] / 2

print("\n6. The mean of the weights of the last three epochs")
for name, tensor in model.state_dict().items():
    tensor.array[...] = np.mean([weights[name] for weights in kept], 0)
model.eval()
with ml.no_grad():
    after = np.mean([model.loss(*map(ml.tensor, data.batch(step))).item() for step in range(data.steps)])
print(f"   its loss, without smoothing: {after:.3f}")
assert after < np.mean(losses[-data.steps :])

print("\n7. Beam search: more beginnings at a time find outputs that are likelier")
translator = Translator(model, tokenizer)
sources = translator.encode([pair.source for pair in pairs[:200]])
totals = {}
for beams in (1, 5):
    began = time.perf_counter()
    found = translator.written(sources, translator.search(num_beams=beams, length_penalty=0.0, max_new_tokens=40))
    totals[beams] = np.mean([best[0].score for best in found])
    right = np.mean([best[0].text == pair.target for best, pair in zip(found, pairs)])
    print(f"   a beam of {beams}: mean score {totals[beams]:.3f}, {right:.0%} as in the Bible, ", end="")
    print(f"{time.perf_counter() - began:.1f} s")
assert totals[5] >= totals[1]
for written in translator([pairs[3].source], translator.search(num_beams=4, num_return_sequences=3))[0]:
    print(f"   {written.score:7.3f}  {written.text}")

print("\n8. Where it looked as it wrote: of each token the likeliest three in the source")
source = translator.encode([pairs[2].source])[0]
output = translator.written([source])[0][0].tokens
weights = translator.alignment(source, output)
names = tokenizer.pieces(source)
for piece, row in list(zip(tokenizer.pieces(output), weights))[:8]:
    best = np.argsort(-row)[:3]
    print(f"   {piece!r:>12}: " + ", ".join(f"{names[i]!r} {row[i]:.2f}" for i in best))
assert np.allclose(weights.sum(1), 1, atol=1e-4)

print("\n9. What it was never told")
for pair, best in list(zip(tests, translator([pair.source for pair in tests])))[:4]:
    print(f"   {pair.source}\n      {best[0].text[:90]}")
try:
    from minilm.evaluation import translation_scores

    texts = [best[0].text for best in translator([pair.source for pair in tests])]
    for name, score in translation_scores(texts, [pair.target for pair in tests]).items():
        print(f"   {name} {score}")
except ml.errors.MissingExtraError as error:
    print(f"   {error}")
