"""Chapter 9. BERT's pre-training: guess hidden words from both sides, and whether two pieces of text belong together.

The text is made up, so that seconds are enough: little tales, each of one country and one hero. The pieces are those of
`minilm pretrain-bert`, the training loop stands below in full.
B batch, T time (positions), V vocabulary.
"""

import random
import time
from textwrap import shorten

import numpy as np

import minilm as ml
from minilm import optim
from minilm.data.masking import IGNORED, Masking
from minilm.data.sentence_pairs import IS_NEXT, SentencePairs
from minilm.data.sentences import Documents, sentences
from minilm.models import BertConfig
from minilm.text import BertTokenizer
from minilm.train.bert_start import new_bert

ml.manual_seed(0)
ml.set_num_threads(1)  # so small a model gains little from a second one

print("1. A text: documents of sentences")
CITIES = {
    "france": "paris",
    "spain": "madrid",
    "denmark": "copenhagen",
    "austria": "vienna",
    "portugal": "lisbon",
    "poland": "warsaw",
    "norway": "oslo",
    "ireland": "dublin",
}
HEROES = ["fool", "soldier", "merchant", "poet", "captain", "painter"]
SENTENCES = [
    "the king of {land} lives in {city}.",
    "in {city} the {hero} waits for the king.",
    "the {hero} knows the road from {city} to the sea.",
    "the {hero} leaves {city}, and all {land} weeps.",
    "a letter comes to the {hero} from the queen of {land}.",
]
draws = random.Random(0)


def tale():
    """Twelve sentences about one country and one hero."""
    land, hero = draws.choice(list(CITIES)), draws.choice(HEROES)
    return "\n".join(draws.choice(SENTENCES).format(land=land, city=CITIES[land], hero=hero) for _ in range(12))


text = "\n\n".join(tale() for _ in range(300))
cut = list(sentences([text], blank_lines=1))  # None where a document ends
assert cut.count(None) == 300
assert cut.index(None) == 12
for line in cut[:3]:
    print(f"   {line}")
print(f"   ... {len(cut) - 300:,} sentences in {cut.count(None)} documents")

print("\n2. WordPiece: frequent words are one token, others are cut into pieces; ## goes on a word")
tokenizer = BertTokenizer.train(text, vocab_size=150)
V = tokenizer.vocab_size
pieces = tokenizer.tokenize("the captain leaves copenhagen, alone")
assert any(piece.startswith("##") for piece in pieces)
print(f"   V = {V}: {pieces}")
tokens, starts, documents = [], [0], [0]
for line in cut:
    if line is None:
        documents.append(len(starts) - 1)
    else:
        tokens.extend(tokenizer.encode_array(line))
        starts.append(len(tokens))
everything = Documents(np.array(tokens, tokenizer.dtype), np.array(starts), np.array(documents))
learnt_from, held_out = everything.split(0.9)

print("\n3. Pairs: [CLS] A [SEP] B [SEP]. In half of them B follows A, else it is from another document")
B, T = 32, 43  # room for 40 tokens, and for three special ones
masking = Masking.of(tokenizer)
train, unseen = SentencePairs(learnt_from, T, B, masking), SentencePairs(held_out, T, B, masking)
ids, types, present, labels, is_next = train.batch(seed=0, step=0)
original = np.where(labels == IGNORED, ids, labels)
assert ids.shape == types.shape == present.shape == labels.shape == (B, T)
for kind, answer in (("IS_NEXT", IS_NEXT), ("NOT_NEXT", 1 - IS_NEXT)):
    row = original[is_next == answer][0]
    first = int(np.flatnonzero(row == masking.sep_id)[0]) + 1
    segments = tokenizer.decode(row[:first]), tokenizer.decode(row[first:][row[first:] != masking.pad_id])
    print(f"   {kind + ':':<9} {shorten(segments[0], 80)}\n             {shorten(segments[1], 80)}")

print("\n4. Masks: 15% of the tokens must be guessed: 80% hidden, 10% another token, 10% as they are")
sizes = {"hidden": 0, "another": 0, "as it is": 0}
asked = real = 0
for step in range(200):
    ids, types, present, labels, is_next = train.batch(seed=0, step=step)
    chosen = labels != IGNORED
    asked, real = asked + chosen.sum(), real + (~masking.special[np.where(chosen, labels, ids)]).sum()
    sizes["hidden"] += (ids[chosen] == masking.mask_id).sum()
    sizes["as it is"] += (ids[chosen] == labels[chosen]).sum()
sizes["another"] = asked - sizes["hidden"] - sizes["as it is"]
print(
    f"   of {real:,} tokens {asked / real:.1%}; of these " + ", ".join(f"{k} {n / asked:.1%}" for k, n in sizes.items())
)
assert abs(asked / real - 0.15) < 0.01
assert abs(sizes["hidden"] / asked - 0.8) < 0.01
whole = Masking.of(tokenizer, whole_words=True)
taken = whole.chosen(original, np.random.default_rng(0))
begins = ~whole.continues[original]
assert all(taken[b, t] == taken[b, t - 1] for b, t in zip(*np.nonzero(~begins)) if t > 1)
print("   With whole_words=True all pieces of a word are chosen, or none.")

print("\n5. The model: each token sees those on both sides; the first, [CLS], stands for the pair")
shape = BertConfig(
    vocab_size=V,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=256,
    max_position_embeddings=T,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    initializer_range=0.07,  # BERT's 0.02, for a twelfth of its channels
)
model = new_bert(shape)
commonest = np.bincount(learnt_from.tokens).argmax()


def accuracies():
    """Of text that is not trained on: masked tokens, the same by always saying the commonest, and next sentences."""
    counts = np.zeros((3, 2), np.int64)
    model.eval()
    with ml.no_grad():
        for step in range(10):
            batch = unseen.batch(seed=1, step=step)
            found = model.measures(*map(ml.tensor, batch))
            masked, following = found["masked_accuracy"], found["next_sentence_accuracy"]
            counts += [masked, ((batch[3] == commonest).sum(), masked[1]), following]
    model.train()
    return counts[:, 0] / counts[:, 1]


masked, by_frequency, following = accuracies()
parameters = sum(parameter.numel() for parameter in model.parameters())
print(f"   {parameters:,} parameters; untrained: masked {masked:.0%}, next sentence {following:.0%}")

print("\n6. Training on both losses at once")
STEPS = 500
optimizer = optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.98), weight_decay=0.01)
schedule = optim.lr_scheduler.LambdaLR(optimizer, optim.schedule.warmup_cosine(50, STEPS))
began = time.perf_counter()
for step in range(1, STEPS + 1):
    masked_loss, next_loss = model.loss(*map(ml.tensor, train.batch(seed=0, step=step)))
    optimizer.zero_grad()
    (masked_loss + next_loss).backward()
    optim.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    if step % 100 == 0:
        masked, _, following = accuracies()
        print(f"   step {step}: masked {masked:.0%}   next sentence {following:.0%}")
print(f"   {STEPS} steps in {time.perf_counter() - began:.0f} s")
masked, by_frequency, following = accuracies()
print(f"   Always saying {tokenizer.decode([commonest])!r}, the commonest, is right {by_frequency:.0%} of the time.")
assert masked > 3 * by_frequency
assert following > 0.7

print("\n7. Both sides count: hide one token a pair, and then also all that stands behind it")
ids, types, present, labels, _ = (np.concatenate(part) for part in zip(*(unseen.batch(2, step) for step in range(10))))
original = np.where(labels == IGNORED, ids, labels)
places = (present.sum(1) * np.random.default_rng(0).uniform(0.2, 0.8, len(ids))).astype(int)
kept = ~masking.special[original[np.arange(len(ids)), places]]
original, types, present, places = original[kept], types[kept], present[kept], places[kept]
rows = np.arange(len(places))
hidden = original.copy()
hidden[rows, places] = masking.mask_id
shares = []
model.eval()
for seen in (present, present * (np.arange(T) <= places[:, None])):
    with ml.no_grad():
        scores = model(ml.tensor(hidden), ml.tensor(seen), ml.tensor(types)).prediction_logits.numpy()
    guessed = scores[rows, places].argmax(-1)
    shares.append((guessed == original[rows, places]).mean())
print(
    f"   of {len(rows)} hidden tokens {shares[0]:.0%} are guessed from both sides, {shares[1]:.0%} from what is before"
)
assert shares[0] > shares[1] + 0.1
print("   A GPT, which reads from left to right, has only what is before.")
