"""Chapter 11. Tagging: a label for each word. Which words of a sentence are names, if nobody writes capitals?

    python examples/11_tagging.py [FOLDER]

The text is Shakespeare's: within a sentence a capital letter marks a name, and the model does not see it, for its
tokenizer makes all letters small. FOLDER holds a pretrained BERT; without one a very small one begins from nothing.
"""

import re
import sys

import numpy as np

import minilm as ml
from minilm import BertConfig, BertForTokenClassification, BertTokenizer
from minilm.data import LabelMap, TaggedSentence, corpora, tag_windows, word_tags
from minilm.evaluation import tagging_measures
from minilm.optim import AdamW

ml.manual_seed(0)
WORDS = re.compile(r"[A-Za-z]+(?:'[a-z]+)?|[.,;:!?]")
NEVER = {"I", "O", "Lord", "Sir", "Exeunt", "Enter"}  # capitals for another reason

print("1. The tag of each word: B-NAME where a name begins, I-NAME where it goes on, O elsewhere")
text = re.sub(r"\[[^]]*\]|\n[A-Z .]+\n", " ", corpora.shakespeare()[1_000_000:1_600_000])
sentences = []
for found in re.split(r"(?<=[.!?])\s+", " ".join(text.split())):
    words = WORDS.findall(found)
    if not 6 <= len(words) <= 30 or found.isupper():
        continue
    tags, inside = [], False
    for i, word in enumerate(words):
        name = i > 0 and word[0].isupper() and not word.isupper() and word not in NEVER and words[i - 1].isalpha()
        tags.append("I-NAME" if name and inside else "B-NAME" if name else "O")
        inside = name
    if "B-NAME" in tags:
        sentences.append(TaggedSentence(tuple(words), tuple(tags), tuple(range(1, len(words) + 1)), "Shakespeare"))
sentences = sentences[:1500]
train, unseen = sentences[:1200], sentences[1200:]
labels = LabelMap.of(tag for sentence in train for tag in sentence.tags)
print(f"   {len(train)} to learn from, {len(unseen)} to test on; one of them:")
print("   " + " ".join(f"{word}/{tag}" if tag != "O" else word for word, tag in zip(train[1].words, train[1].tags)))

print("\n2. Words become pieces; the tag stands at the first, -100, which no loss counts, at the others")
small = len(sys.argv) == 1
if small:
    tokenizer = BertTokenizer.train([" ".join(sentence.words) for sentence in train], vocab_size=1500)
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    model = BertForTokenClassification(
        BertConfig(vocab_size=len(tokenizer), num_labels=len(labels), max_position_embeddings=128, **shape)
    )
else:
    tokenizer = BertTokenizer.from_pretrained(sys.argv[1])
    model = BertForTokenClassification.from_pretrained(sys.argv[1], num_labels=len(labels))
windows, tests = (tag_windows(tokenizer, part, labels, max_length=100) for part in (train, unseen))
row = windows.rows[1]
assert row["input_ids"].shape == row["labels"].shape
assert sum(int((row["labels"] >= 0).sum()) for row in windows.rows) == sum(len(s.words) for s in train)
pieces = tokenizer.convert_ids_to_tokens(row["input_ids"])
print("   " + " ".join(f"{piece}:{label}" for piece, label in zip(pieces, row["labels"]))[:90] + " ...")

print("\n3. Three epochs")
optimizer = AdamW(model.parameters(), lr=2e-3 if small else 5e-5)
order = np.random.default_rng(0)
B, losses = 16, []
for epoch in range(3):
    model.train()
    numbers = order.permutation(len(windows.rows))
    for at in range(0, len(numbers), B):
        batch = tokenizer.pad([windows.rows[i] for i in numbers[at : at + B]], return_tensors="ml")
        optimizer.zero_grad()
        loss = model.loss(batch.input_ids, batch.token_type_ids, batch.attention_mask, batch.labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"   epoch {epoch + 1}: loss {np.mean(losses[-20:]):.3f}")
assert np.mean(losses[-20:]) < np.mean(losses[:20])

print("\n4. Sentences that it has not seen")
model.eval()
guesses = []
with ml.no_grad():
    for at in range(0, len(tests.rows), 64):
        batch = tokenizer.pad(tests.rows[at : at + 64], return_tensors="ml")
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        guesses += list(model(**inputs).logits.argmax(-1).numpy())
said = word_tags(guesses, tests, unseen, labels)
assert [len(tags) for tags in said] == [len(sentence.words) for sentence in unseen]
told = [list(sentence.tags) for sentence in unseen]
for sentence, tags in list(zip(unseen, said))[3:5]:
    print("   " + " ".join(f"{word}/{tag}" if tag != "O" else word for word, tag in zip(sentence.words, tags)))
right = np.mean([a == b for x, y in zip(said, told) for a, b in zip(x, y)])
never = np.mean([b == "O" for y in told for b in y])
print(f"   right: {right:.1%} of the words, where saying O to all gives {never:.1%}")
assert right > never
try:
    measures = tagging_measures(told, said, resamples=200)
except ml.errors.MissingExtraError as error:
    print(f"   {error}")
else:
    print(f"   whole names: precision {measures['precision'].value:.2f}, recall {measures['recall'].value:.2f}")
