"""The lines with which Hugging Face's users fine-tune BERT, run by both libraries: the imports differ, nothing else.

Their names are `path`, a folder with model and tokenizer, `train_texts`, `train_labels` and `losses`, a list that
grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bert_sections.turns import MINILM, PYTORCH
from minilm.data import corpora

IMPORTS = {
    MINILM: """
import minilm as torch
from minilm import BertTokenizer, BertForSequenceClassification
from minilm.data import DataLoader, Dataset
from minilm.optim import AdamW
""",
    PYTORCH: """
import torch
from torch.optim import AdamW
from torch.utils.data import DataLoader, Dataset
from transformers import BertTokenizerFast as BertTokenizer, BertForSequenceClassification
""",
}

LINES = """
device = "cpu"
tokenizer = BertTokenizer.from_pretrained(path)
model = BertForSequenceClassification.from_pretrained(path, num_labels=2)

train_encodings = tokenizer(train_texts, truncation=True, padding=True)

class TextDataset(Dataset):
    def __init__(self, encodings, labels):
        self.encodings, self.labels = encodings, labels

    def __getitem__(self, i):
        item = {key: torch.tensor(value[i]) for key, value in self.encodings.items()}
        item["labels"] = torch.tensor(self.labels[i])
        return item

    def __len__(self):
        return len(self.labels)

train_dataset = TextDataset(train_encodings, train_labels)
train_loader = DataLoader(train_dataset, batch_size=8)

optimizer = AdamW(model.parameters(), lr=1e-5)
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
        losses.append(loss.item())
"""


def some_texts(count: int) -> list[str]:
    """The first lines of Shakespeare that have four words or more."""
    return [line for line in corpora.shakespeare().split("\n") if len(line.split()) > 3][:count]


def losses_of_both(path: Path, texts: Sequence[str], rate: str = "1e-5") -> dict[str, list[float]]:
    """The losses of all steps, 3 epochs in batches of 8, by library.

    The folder's model has no dropout, whose draws differ, and a head for two labels, so that both begin alike. The
    labels are whether a text's length is odd, which is not to be learnt, only to be the same.
    """
    given = {"path": str(path), "train_texts": list(texts), "train_labels": [len(text) % 2 for text in texts]}
    found: dict[str, list[float]] = {}
    for name, imports in IMPORTS.items():
        found[name] = []
        exec(imports + LINES.replace("1e-5", rate), {**given, "losses": found[name], "__name__": __name__})
    return found
