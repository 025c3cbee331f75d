"""Chapter 10. Fine-tuning BERT to classify texts, in the lines that everyone knows from Hugging Face's library.

    python examples/10_finetune_classifier.py [FOLDER]

FOLDER holds a pretrained BERT (config.json, model.safetensors, vocab.txt). Without one the chapter makes a very small
one first, which knows nothing, and so learns faster. The question: in which of two plays does a sentence stand?
In the end a convolution over tokens learns the same, from nothing.
"""

import re
import sys
import tempfile
import warnings

import minilm as ml
from minilm import BertConfig, BertForSequenceClassification, BertModel, BertTokenizer
from minilm.data import DataLoader, Dataset, corpora
from minilm.models import TextCNN, TextCNNConfig
from minilm.optim import AdamW

ml.manual_seed(0)
device = "cpu"

print("1. The texts: sentences of Macbeth (0) and of The Comedy of Errors (1)")
whole = corpora.shakespeare()


def sentences(title):
    """The sentences of a play, of six words and more, without the speakers' names, which would tell too much."""
    play = whole.split(f"{title}\n\nby William Shakespeare")[1].split("by William Shakespeare")[0]
    play = re.sub(r"\[[^]]*\]|\n[A-Z .]{3,}\n", " ", play[play.index("ACT I") :])
    found = [" ".join(sentence.split()) for sentence in re.split(r"(?<=[.!?])\s", play)]
    return [sentence for sentence in found if len(sentence.split()) >= 6]


plays = [sentences(title) for title in ("MACBETH", "THE COMEDY OF ERRORS")]
count = min(map(len, plays), default=0) // 5 * 5
train_texts = [text for play in plays for i, text in enumerate(play[:count]) if i % 5]
train_labels = [label for label, play in enumerate(plays) for i in range(count) if i % 5]
val_texts = [text for play in plays for text in play[:count:5]]
val_labels = [label for label in (0, 1) for _ in range(0, count, 5)]
assert len(train_texts) == len(train_labels) == 4 * len(val_texts)
assert set(train_labels) == set(val_labels) == {0, 1}
print(
    f"   {len(train_texts)} to learn from, {len(val_texts)} to test on; one of them:\n   {min(train_texts, key=len)!r}"
)

print("\n2. The model and its tokenizer")
small = len(sys.argv) == 1
path = tempfile.mkdtemp() if small else sys.argv[1]
if small:
    tokenizer = BertTokenizer.train(train_texts, vocab_size=2000, model_max_length=64)
    tokenizer.save_pretrained(path)
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **shape)).save_pretrained(path)

tokenizer = BertTokenizer.from_pretrained(path)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    model = BertForSequenceClassification.from_pretrained(path, num_labels=2)
print(f"   a warning, rightly: {str(said[0].message).split(': ', 1)[1]}")
print(f"   {sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer):,} tokens")

train_encodings = tokenizer(train_texts, truncation=True, padding=True)
val_encodings = tokenizer(val_texts, truncation=True, padding=True)
assert len({len(ids) for ids in train_encodings["input_ids"]}) == 1  # padded to the longest


class PlaysDataset(Dataset):
    """Encodings and labels as dicts of tensors."""

    def __init__(self, encodings, labels):
        self.encodings, self.labels = encodings, labels

    def __getitem__(self, i):
        item = {key: ml.tensor(value[i]) for key, value in self.encodings.items()}
        item["labels"] = ml.tensor(self.labels[i])
        return item

    def __len__(self):
        return len(self.labels)


train_dataset = PlaysDataset(train_encodings, train_labels)
train_loader = DataLoader(train_dataset, batch_size=8, shuffle=True)

print("\n3. Three epochs")
optimizer = AdamW(model.parameters(), lr=1e-5)
if small:
    optimizer.param_groups[0]["lr"] = 2e-3  # what has nothing to forget may take larger steps
first = last = None
for epoch in range(3):
    model.train()
    for batch in train_loader:
        optimizer.zero_grad()
        input_ids = batch["input_ids"].to(device)
        attention_mask = batch["attention_mask"].to(device)
        labels = batch["labels"].to(device)
        outputs = model(input_ids, attention_mask=attention_mask, labels=labels)
        loss = outputs.loss
        loss.backward()
        optimizer.step()
        last = loss.item() if last is None else 0.95 * last + 0.05 * loss.item()
        first = last if first is None else first
    print(f"   epoch {epoch + 1}: loss about {last:.3f}")
assert last < first

print("\n4. Sentences that it has not seen")


def count_right(model):
    """How many sentences that were kept back a model puts into their play."""
    model.eval()
    right = 0
    with ml.no_grad():
        for at in range(0, len(val_texts), 64):
            ids, mask = (ml.tensor(val_encodings[key][at : at + 64]) for key in ("input_ids", "attention_mask"))
            guesses = model(ids, attention_mask=mask).logits.argmax(-1)
            right += int((guesses == ml.tensor(val_labels[at : at + 64])).sum().item())
    return right


right = count_right(model)
accuracy = right / len(val_texts)
print(f"   {right} of {len(val_texts)} right: {accuracy:.1%}, where guessing gives 50%")
assert accuracy > 0.6

print("\n5. Without attention: a TextCNN (Kim 2014) looks for short sequences of tokens")
ml.manual_seed(0)
cnn = TextCNN(TextCNNConfig(vocab_size=len(tokenizer), num_labels=2, n_embd=64, n_filter=50, widths="2,3,4"))
print(f"   {sum(p.numel() for p in cnn.parameters()):,} parameters, all of them new")
optimizer = AdamW(cnn.parameters(), lr=1e-3)
losses = []
for epoch in range(6):
    cnn.train()
    for batch in train_loader:
        optimizer.zero_grad()
        loss = cnn(batch["input_ids"], batch["attention_mask"], batch["labels"]).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    mean = sum(losses[-len(train_loader) :]) / len(train_loader)
    print(f"   epoch {epoch + 1}: loss {mean:.3f}, {count_right(cnn) / len(val_texts):.1%} right")
assert mean < losses[0] / 2
assert count_right(cnn) / len(val_texts) > 0.6
