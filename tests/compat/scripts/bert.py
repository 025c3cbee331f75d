"""A BERT that learns to fill in masked tokens of sequences that count upwards."""

import copy
import math

import numpy as np
import torch
import torch.nn as nn
import torch.optim as optim
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset

PAD, CLS, SEP, MASK = 0, 1, 2, 3
VOCAB, MAXLEN = 20, 12
torch.set_default_dtype(torch.float64)


class MaskedSequences(Dataset):
    """Pairs (tokens, labels): 15% of the tokens are masked, random or kept; other labels are -100."""

    def __init__(self, size, seed=0):
        super().__init__()
        self.rng = np.random.RandomState(seed)
        self.items = [self.make() for _ in range(size)]

    def make(self):
        length = self.rng.randint(5, MAXLEN - 1)
        first = self.rng.randint(4, VOCAB)
        body = [4 + (first + i) % (VOCAB - 4) for i in range(length)]
        tokens, labels = list(body), [-100] * length
        for i in range(length):
            if self.rng.rand() < 0.15:
                labels[i] = body[i]
                dice = self.rng.rand()
                tokens[i] = MASK if dice < 0.8 else self.rng.randint(4, VOCAB) if dice < 0.9 else body[i]
        pad = MAXLEN - length - 2
        return [CLS, *tokens, SEP] + [PAD] * pad, [-100, *labels, -100] + [-100] * pad

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        tokens, labels = self.items[index]
        return {"tokens": torch.LongTensor(tokens), "labels": torch.tensor(labels)}


def gelu(x):
    return 0.5 * x * (1.0 + torch.erf(x / math.sqrt(2.0)))


class Attention(nn.Module):
    def __init__(self, hidden, heads, dropout):
        super().__init__()
        self.heads, self.size = heads, hidden // heads
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))
        self.output = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(p=dropout)

    def split(self, x):
        return x.view(x.shape[:-1] + (self.heads, self.size)).permute(0, 2, 1, 3)

    def forward(self, x, mask):
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = torch.einsum("bhqd,bhkd->bhqk", q, k) / math.sqrt(self.size)
        scores = scores + (1.0 - mask[:, None, None, :]) * torch.finfo(scores.dtype).min
        probs = self.dropout(nn.Softmax(dim=-1)(scores))
        context = torch.einsum("bhqk,bhkd->bhqd", probs, v).permute(0, 2, 1, 3).contiguous()
        return self.output(context.flatten(2))


class Layer(nn.Module):
    def __init__(self, hidden, heads, dropout=0.0):
        super().__init__()
        self.attention = Attention(hidden, heads, dropout)
        self.norm1, self.norm2 = nn.LayerNorm(hidden, eps=1e-12), nn.LayerNorm(hidden, eps=1e-12)
        self.intermediate, self.output = nn.Linear(hidden, hidden * 4), nn.Linear(hidden * 4, hidden)

    def forward(self, x, mask):
        x = self.norm1(x + self.attention(x, mask))
        return self.norm2(x + self.output(gelu(self.intermediate(x))))


class BertForMaskedLM(nn.Module):
    def __init__(self, hidden=24, heads=3, layers=2):
        super().__init__()
        self.word, self.position = nn.Embedding(VOCAB, hidden, padding_idx=PAD), nn.Embedding(MAXLEN, hidden)
        self.register_buffer("position_ids", torch.arange(MAXLEN).expand((1, -1)), persistent=False)
        self.norm = nn.LayerNorm(hidden)
        layer = Layer(hidden, heads)
        self.encoder = nn.ModuleList([copy.deepcopy(layer) for _ in range(layers)])
        self.transform = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.LayerNorm(hidden))
        self.bias = nn.Parameter(torch.zeros(VOCAB))

    def forward(self, tokens):
        mask = (tokens != PAD).type_as(self.bias)
        x = self.norm(self.word(tokens) + self.position(self.position_ids[:, : tokens.size(1)]))
        for layer in self.encoder:
            x = layer(x, mask)
        return self.transform(x).matmul(self.word.weight.t()) + self.bias


def evaluate(model, loader, criterion):
    model.eval()
    total, right, count = 0.0, 0, 0
    with torch.no_grad():
        for batch in loader:
            logits = model(batch["tokens"])
            chosen = batch["labels"] != -100
            right += (logits.argmax(-1) == batch["labels"])[chosen].sum().item()
            count += int(chosen.sum())
            total += criterion(logits.transpose(1, 2), batch["labels"]).item()
    model.train()
    return total / len(loader), right / count


def main():
    torch.manual_seed(0)
    model = BertForMaskedLM()
    rng = np.random.RandomState(1)
    for name, p in model.named_parameters():
        p.data = torch.tensor(rng.normal(0, 0.1, p.shape)) + (1 if "norm" in name and name.endswith("weight") else 0)
    train = DataLoader(MaskedSequences(96), batch_size=16, shuffle=False, drop_last=True)
    valid = DataLoader(MaskedSequences(32, seed=9), batch_size=16)
    criterion = nn.CrossEntropyLoss(ignore_index=-100)
    no_decay = ["bias", "norm"]
    named = list(model.named_parameters())
    optimizer = optim.AdamW(
        [
            {"params": [p for n, p in named if not any(nd in n for nd in no_decay)], "weight_decay": 0.01},
            {"params": [p for n, p in named if any(nd in n for nd in no_decay)], "weight_decay": 0.0},
        ],
        lr=5e-3,
    )
    steps = 5 * len(train)
    scheduler = LambdaLR(optimizer, lambda s: min((s + 1) / 5, max(0.0, (steps - s) / steps)))
    for epoch in range(5):
        for batch in train:
            optimizer.zero_grad()
            loss = criterion(model(batch["tokens"]).view(-1, VOCAB), batch["labels"].view(-1))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
            optimizer.step()
            scheduler.step()
        held, accuracy = evaluate(model, valid, criterion)
        print(f"epoch {epoch} | lr {scheduler.get_last_lr()[0]:.5f} | loss {loss.item():.5f} | held {held:.5f}")
    print(f"accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
