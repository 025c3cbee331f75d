"""Chapter 4. A GPT, from characters to text: it learns to guess the next one, and then it writes.

The model is minilm/models/gpt.py, the text is Shakespeare's, the training loop stands below in full.
B batch, T time (positions), C channels, H heads, V vocabulary, L layers.
"""

import math
import time

import minilm as ml
from minilm import optim
from minilm.data import CausalBlocks, corpora, train_validation_split
from minilm.generation import generate_text
from minilm.models import GPT, GPTConfig
from minilm.text import CharTokenizer

ml.manual_seed(0)
ml.set_num_threads(1)  # so small a model gains little from a second one

print("1. Text becomes numbers: here each character is a token")
text = corpora.shakespeare()
tokenizer = CharTokenizer.train(text)
V = tokenizer.vocab_size
ids = tokenizer.encode("To be")
assert tokenizer.decode(ids) == "To be"
assert len(set(text)) == V
print(f"   {len(text):,} characters, {V} different ones; 'To be' is {list(ids)}")

print("\n2. Blocks: T tokens in, and at each position the answer is the token after it")
train_tokens, validation_tokens = train_validation_split(tokenizer.encode_array(text), 0.9)
B, T = 16, 32
blocks, unseen = CausalBlocks(train_tokens, T, stride=1), CausalBlocks(validation_tokens, T, stride=1)
x, y = blocks.random_batch(B, seed=0, step=0)
assert x.shape == y.shape == (B, T)
assert (x[:, 1:] == y[:, :-1]).all()
print(f"   a batch (B, T) = {x.shape} asks {B * T} questions; some of those that the first block asks:")
first, answers = blocks[0]
for t in range(4, 8):
    before, after = tokenizer.decode(first[: t + 1]), tokenizer.decode(answers[t : t + 1])
    assert text.startswith(before + after)
    print(f"      after {before!r:<11} comes {after!r}")

print("\n3. The model, and where its parameters are")
L, H, C = 2, 4, 96
model = GPT(GPTConfig(vocab_size=V, block_size=T, n_layer=L, n_head=H, n_embd=C, bias=False))
counts = {
    "token embedding      V C": V * C,  # used a second time to score the next token
    "position embedding   T C": T * C,
    "attention         L 4 C^2": L * 4 * C * C,  # queries, keys, values and the way back
    "MLP               L 8 C^2": L * 8 * C * C,  # C to 4 C and back
    "norms         (2 L + 1) C": (2 * L + 1) * C,
}
for name, count in counts.items():
    print(f"   {name:<25} {count:>8,}")
total = sum(parameter.numel() for parameter in model.parameters())
assert total == sum(counts.values())
print(f"   {'in all':<25} {total:>8,}   (the smallest GPT-2 has 124,439,808)")


def validation_loss():
    """The mean loss over the same 10 batches of text that is not trained on, in nats per token."""
    with ml.no_grad():
        batches = [unseen.random_batch(B, seed=1, step=step) for step in range(10)]
        return sum(model.loss(ml.tensor(x), ml.tensor(y)).item() for x, y in batches) / len(batches)


print("\n4. Knowing nothing, every token is as likely as another: the loss is ln V")
untrained = validation_loss()
assert abs(untrained - math.log(V)) < 0.1
print(f"   ln {V} = {math.log(V):.3f}; the untrained model's loss is {untrained:.3f}")

print("\n5. Training: guess, measure, walk back, step")
STEPS = 400
optimizer = optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=0.1)
schedule = optim.lr_scheduler.LambdaLR(optimizer, optim.schedule.warmup_cosine(50, STEPS))
began, recent = time.perf_counter(), []
for step in range(1, STEPS + 1):
    x, y = blocks.random_batch(B, seed=0, step=step)
    loss = model.loss(ml.tensor(x), ml.tensor(y))
    optimizer.zero_grad()
    loss.backward()
    optim.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    recent.append(loss.item())
    if step % 100 == 0:
        mean = sum(recent[-100:]) / 100
        print(f"   step {step:3}   loss {mean:.3f}   {'#' * round(mean * 15)}")
seconds = time.perf_counter() - began
trained = validation_loss()
assert trained < 2.5 < untrained
print(f"   {STEPS} steps in {seconds:.0f} s, {STEPS * B * T / seconds:,.0f} tokens a second")
choices = math.exp(trained)
print(f"   on unseen text {untrained:.3f} -> {trained:.3f}: as unsure as between {choices:.1f} characters, not {V}")

print("\n6. Writing: draw the next character, append it, ask again. A low temperature plays safe")
for temperature in (0.01, 0.5, 1.0):
    written = "".join(generate_text(model, tokenizer, "KING HENRY.\n", 60, temperature=temperature, seed=2))
    assert len(written) == 60
    print(f"   {temperature:4}: {written!r}")
print("   Its words begin to look like English; `minilm demo` trains longer, and it shows.")

print("\n7. The cache: keys and values of earlier tokens do not change, so they need not be computed anew")
prompts = ml.arange(64).reshape(64, 1)  # 64 texts at once, each begun with another character
timings, texts = [], []
for use_cache in (False, True):
    began = time.perf_counter()
    texts.append(model.generate(prompts, T - 1, temperature=0, use_cache=use_cache))
    timings.append(time.perf_counter() - began)
assert ml.equal(texts[0], texts[1])
assert timings[1] < timings[0]
fed = sum(range(1, T))  # without a cache: 1 token, then 2, then 3 ...
print(f"   {T - 1} more tokens for each of 64 texts; the model is fed")
print(f"      without a cache {64 * fed:>6,} tokens, in {timings[0]:.2f} s")
print(f"      with a cache    {64 * (T - 1):>6,} tokens, in {timings[1]:.2f} s")
print(f"   That is {timings[0] / timings[1]:.1f} times as fast, and the texts are the same, to the token.")
