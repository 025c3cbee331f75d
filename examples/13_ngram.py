"""Chapter 13. N-grams: counting what follows what, and what to do about all that was never seen.

The language models that came before neural ones, and still the measure of them. The code is in
minilm/models/: ngram_counts.py, ngram_smoothing.py, ngram.py; files in arpa.py.
B contexts, V vocabulary.
"""

import math
import tempfile
import time
from pathlib import Path

import numpy as np

from minilm.data import corpora, train_validation_split
from minilm.models.ngram import NGram
from minilm.models.ngram_counts import NGramCounts
from minilm.models.ngram_text import TextNGram
from minilm.text import CharTokenizer

print("1. Counting: what follows a context is the whole model")
small = "a cat and a cap and a can"
tokenizer = CharTokenizer.train(small)
V = tokenizer.vocab_size
counts = NGramCounts(tokenizer.encode_array(small), V, order=3)
bigrams = counts.grams[1]
following = {}
for key, count in zip(bigrams.keys.tolist(), bigrams.counts.tolist()):
    context, last = divmod(key, V + 1)  # V is <s>, the beginning of the text
    if context < V:
        following.setdefault(tokenizer.decode([context]), {})[tokenizer.decode([last])] = count
assert following["c"] == {"a": 3}
assert following["n"] == {"d": 2}
for context in "acn":
    print(f"   behind {context!r} came {following[context]}")

print("\n2. Counts over their sum would give 0 to all that was not seen; smoothing shares out")
ids = tokenizer.encode_array(small)
context = np.array([tokenizer.encode("ca")])  # behind it came t, p and n
print("   p( . | 'ca')   " + "".join(f"{c!r:>7}" for c in "tpnd "))
for name in ("add-k", "witten-bell", "kneser-ney"):
    p = NGram.fit(ids, V, 3, name).distribution(context)[0]
    assert math.isclose(p.sum(), 1, abs_tol=1e-9)
    assert (p > 0).all()
    print(f"   {name:<14} " + "".join(f"{p[tokenizer.encode(c)[0]]:7.3f}" for c in "tpnd "))
print("   add-k gives the unseen 'd' and ' ' the same; the others ask the shorter context, 'a'.")

print("\n3. Kneser-Ney's idea: not how often a token came, but behind how many different ones")
# 'York' is frequent and comes behind 'New' alone; 'fish' is rarer, and comes behind everything.
words = ("New York " * 6 + "red fish blue fish old fish dead fish ").replace(" ", "\n").split()
names = sorted(set(words))
numbers = [names.index(word) for word in words]
york, fish = names.index("York"), names.index("fish")
for name in ("witten-bell", "kneser-ney"):
    p = NGram.fit(numbers, len(names), 2, name).distribution(np.zeros((1, 0), np.int64))[0]
    print(f"   {name:<12} p(York) = {p[york]:.3f}   p(fish) = {p[fish]:.3f}   where the context is unknown")
assert p[fish] > p[york]

print("\n4. Shakespeare by characters: perplexity on a tenth that was not counted")
text = corpora.shakespeare()
tokenizer = CharTokenizer.train(text)
V = tokenizer.vocab_size
train_tokens, unseen = train_validation_split(tokenizer.encode_array(text), 0.9)
part = train_tokens[-400_000:]
print("   400,000 characters        1        2        3        4        5        6   = order")
table = {}
for name in ("add-k", "witten-bell", "kneser-ney"):
    table[name] = [NGram.fit(part, V, order, name).perplexity(unseen) for order in range(1, 7)]
    print(f"   {name:<17}" + "".join(f"{perplexity:9.2f}" for perplexity in table[name]))
best = {name: min(row) for name, row in table.items()}
assert best["kneser-ney"] < best["witten-bell"] < best["add-k"] < V
print(f"   Longer contexts are seen less often: add-k is best at order {1 + np.argmin(table['add-k'])},")
print("   and Kneser-Ney knows how much to trust each.")

began = time.perf_counter()
model = NGram.fit(train_tokens, V, order=6)
seconds = time.perf_counter() - began
perplexity = model.perplexity(unseen)
assert perplexity < best["kneser-ney"]
print(f"   All {len(train_tokens):,} characters, order 6, in {seconds:.0f} s: {perplexity:.2f},")
print(f"   {math.log2(perplexity):.2f} bits a character; {model.numel():,} numbers, all of them counts at heart.")

print("\n5. Modified Kneser-Ney takes something off each count; how much, the counts of counts say")
for order, (d1, d2, d3) in enumerate(model.discounts, 1):
    print(f"   order {order}: {d1:.2f} off a count of 1, {d2:.2f} off 2, {d3:.2f} off 3 and more")
assert all(0 < d1 <= 1 and 0 < d2 <= 2 and 0 < d3 <= 3 for d1, d2, d3 in model.discounts)

print("\n6. Writing: the longer the context, the more it is Shakespeare's and not the model's")
for order in (1, 3, 6):
    shorter = NGram.fit(part, V, order)
    written = tokenizer.decode(list(shorter.sample(tokenizer.encode("KING "), 60, seed=3)))
    assert len(written) == 60
    print(f"   {order}: {written!r}")

print("\n7. Words: lines are sentences, rare words are <unk>, and a file that other tools read")
sentences = TextNGram.train(text[:1_500_000], order=3, level="word", cutoff=2)
score = sentences.score(text[1_500_000:1_600_000])
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "shakespeare.arpa"
    sentences.save(path)
    again = TextNGram.load(path)
    lines = path.read_text("utf-8").splitlines()
assert again.score(text[1_500_000:1_600_000]) == score
print(f"   perplexity {score.perplexity:.0f} a word; {score.unknown} of {score.tokens} words were unknown")
print(f"   the ARPA file has {len(lines):,} lines, and gives the same model; a 3-gram of it:")
print(f"      {next(line for line in lines if 'my good lord' in line)!r}")
print("   written by it: " + repr("".join(again.sample(12, "I", seed=4, temperature=0.7))))
