"""The lines with which Hugging Face's users fine-tune BERT, run by both: the imports differ, the losses do not."""

from __future__ import annotations

import numpy as np
import pytest

from minilm import random
from minilm.data import corpora
from minilm.models import BertConfig, BertForSequenceClassification
from minilm.text import BertTokenizer

OURS = """
import minilm as torch
from minilm import BertTokenizer, BertForSequenceClassification
from minilm.data import DataLoader, Dataset
from minilm.optim import AdamW
"""

THEIRS = """
import torch
from torch.optim import AdamW
from torch.utils.data import DataLoader, Dataset
from transformers import BertTokenizerFast as BertTokenizer, BertForSequenceClassification
"""

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


@pytest.mark.parametrize(("rate", "atol"), [("1e-5", 1e-5), ("1e-3", 1e-4)])
def test_the_losses_of_51_steps_are_hugging_faces(torch, transformers, tmp_path, rate, atol):
    texts = [line for line in corpora.shakespeare().split("\n") if len(line.split()) > 3][:136]
    tokenizer = BertTokenizer.train(texts, vocab_size=300, model_max_length=40)
    tokenizer.save_pretrained(tmp_path)
    random.manual_seed(5)
    shape = {"hidden_size": 36, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 70}
    config = BertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=40,
        initializer_range=0.15,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=2,
        **shape,
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path)  # the classifier is to be the same
    given = {"path": str(tmp_path), "train_texts": texts, "train_labels": [len(text) % 2 for text in texts]}
    found = []
    for imports in (OURS, THEIRS):
        losses: list[float] = []
        exec(imports + LINES.replace("1e-5", rate), {**given, "losses": losses, "__name__": __name__})
        found.append(losses)
    ours, theirs = map(np.array, found)
    assert len(ours) == len(theirs) == 51
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)
    assert np.ptp(ours) > 0.1
