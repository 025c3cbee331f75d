"""An encoder-decoder Transformer that learns to turn sequences around, with label smoothing and Noam's schedule."""

import math
from copy import deepcopy

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.autograd import Variable

PAD, BOS, VOCAB, LENGTH = 0, 1, 14, 6


def clones(module, n):
    return nn.ModuleList([deepcopy(module) for _ in range(n)])


def subsequent_mask(size):
    return torch.triu(torch.ones((1, size, size)), diagonal=1).type(torch.uint8) == 0


def attention(query, key, value, mask=None, dropout=None):
    scores = torch.matmul(query, key.transpose(-2, -1)) / math.sqrt(query.size(-1))
    if mask is not None:
        scores = scores.masked_fill(mask == 0, -1e9)
    p_attn = scores.softmax(dim=-1)
    if dropout is not None:
        p_attn = dropout(p_attn)
    return torch.matmul(p_attn, value), p_attn


class MultiHeadedAttention(nn.Module):
    def __init__(self, h, d_model, dropout=0.0):
        super().__init__()
        self.d_k, self.h, self.attn = d_model // h, h, None
        self.linears = clones(nn.Linear(d_model, d_model), 4)
        self.dropout = nn.Dropout(p=dropout)

    def forward(self, query, key, value, mask=None):
        if mask is not None:
            mask = mask.unsqueeze(1)
        n = query.size(0)
        query, key, value = [
            lin(x).view(n, -1, self.h, self.d_k).transpose(1, 2) for lin, x in zip(self.linears, (query, key, value))
        ]
        x, self.attn = attention(query, key, value, mask=mask, dropout=self.dropout)
        return self.linears[-1](x.transpose(1, 2).contiguous().view(n, -1, self.h * self.d_k))


class LayerNorm(nn.Module):
    def __init__(self, features, eps=1e-6):
        super().__init__()
        self.a_2, self.b_2, self.eps = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features)), eps

    def forward(self, x):
        mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        return self.a_2 * (x - mean) / (std + self.eps) + self.b_2


class SublayerConnection(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.norm = LayerNorm(size)

    def forward(self, x, sublayer):
        return x + sublayer(self.norm(x))


class Layer(nn.Module):
    """Of the encoder with one attention, of the decoder with two."""

    def __init__(self, size, attentions):
        super().__init__()
        self.attns = clones(MultiHeadedAttention(2, size), attentions)
        self.feed_forward = nn.Sequential(nn.Linear(size, 2 * size), nn.ReLU(), nn.Linear(2 * size, size))
        self.sublayer = clones(SublayerConnection(size), attentions + 1)

    def forward(self, x, mask, memory=None, src_mask=None):
        x = self.sublayer[0](x, lambda x: self.attns[0](x, x, x, mask))
        if memory is not None:
            x = self.sublayer[1](x, lambda x: self.attns[1](x, memory, memory, src_mask))
        return self.sublayer[-1](x, self.feed_forward)


class PositionalEncoding(nn.Module):
    def __init__(self, d_model, max_len=50):
        super().__init__()
        pe = torch.zeros(max_len, d_model)
        position = torch.arange(0, max_len).unsqueeze(1)
        div_term = torch.exp(torch.arange(0, d_model, 2) * -(math.log(10000.0) / d_model))
        pe[:, 0::2] = torch.sin(position * div_term)
        pe[:, 1::2] = torch.cos(position * div_term)
        self.register_buffer("pe", pe.unsqueeze(0))

    def forward(self, x):
        return x + self.pe[:, : x.size(1)].requires_grad_(False)


class EncoderDecoder(nn.Module):
    def __init__(self, d_model=16, n=2):
        super().__init__()
        self.d_model = d_model
        self.encoder, self.decoder = clones(Layer(d_model, 1), n), clones(Layer(d_model, 2), n)
        self.embeds = nn.ModuleDict({side: nn.Embedding(VOCAB, d_model) for side in ("src", "tgt")})
        self.pos, self.norm, self.generator = PositionalEncoding(d_model), LayerNorm(d_model), nn.Linear(d_model, VOCAB)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)

    def encode(self, src, mask):
        x = self.pos(self.embeds["src"](src) * math.sqrt(self.d_model))
        for layer in self.encoder:
            x = layer(x, mask)
        return x

    def decode(self, memory, src_mask, tgt, tgt_mask):
        x = self.pos(self.embeds["tgt"](tgt) * math.sqrt(self.d_model))
        for layer in self.decoder:
            x = layer(x, tgt_mask, memory, src_mask)
        return F.log_softmax(self.generator(self.norm(x)), dim=-1)


class LabelSmoothing(nn.Module):
    def __init__(self, size, padding_idx, smoothing=0.0):
        super().__init__()
        self.criterion = nn.KLDivLoss(reduction="sum")
        self.padding_idx, self.smoothing, self.size = padding_idx, smoothing, size

    def forward(self, x, target):
        true_dist = x.data.clone()
        true_dist.fill_(self.smoothing / (self.size - 2))
        true_dist.scatter_(1, target.data.unsqueeze(1), 1.0 - self.smoothing)
        true_dist[:, self.padding_idx] = 0
        mask = torch.nonzero(target.data == self.padding_idx)
        if mask.dim() > 0:
            true_dist.index_fill_(0, mask.squeeze(), 0.0)
        return self.criterion(x, true_dist.clone().detach())


def rate(step, model_size, factor, warmup):
    step = max(step, 1)
    return factor * (model_size ** (-0.5) * min(step ** (-0.5), step * warmup ** (-1.5)))


def batches(rng, count, size=16):
    for _ in range(count):
        data = rng.randint(2, VOCAB, size=(size, LENGTH))
        data[:2, -2:] = PAD
        src = Variable(torch.from_numpy(data.astype(np.int64)), requires_grad=False)
        tgt = torch.cat([torch.full((size, 1), BOS, dtype=torch.int64), src.flip(1)], dim=1)
        tgt_y = tgt[:, 1:]
        yield src, (src != PAD).unsqueeze(-2), tgt[:, :-1], tgt_y, (tgt_y != PAD).data.sum()


model, rng = EncoderDecoder(), np.random.RandomState(3)
with torch.no_grad():
    for p in filter(lambda p: p.dim() > 1, model.parameters()):
        p[:] = torch.tensor(rng.uniform(-0.3, 0.3, size=p.size()), dtype=torch.float32)
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            nn.init.constant_(p, 0.01)
criterion = LabelSmoothing(size=VOCAB, padding_idx=PAD, smoothing=0.1)
optimizer = torch.optim.Adam(model.parameters(), lr=1.0, betas=(0.9, 0.98), eps=1e-9)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer=optimizer, lr_lambda=lambda s: rate(s, 16, 0.5, 20))
model.train()
total = 0.0
for step, (src, src_mask, tgt, tgt_y, ntokens) in enumerate(batches(rng, 40)):
    tgt_mask = (tgt != PAD).unsqueeze(-2) & subsequent_mask(tgt.size(-1)).type_as(src_mask)
    out = model.decode(model.encode(src, src_mask), src_mask, tgt, tgt_mask)
    loss = criterion(out.contiguous().view(-1, VOCAB), tgt_y.contiguous().view(-1)) / ntokens
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    scheduler.step()
    total += loss.item()
    if step % 10 == 9:
        print("Step: %3d | Loss: %7.4f | LR: %.2e" % (step + 1, total / 10, optimizer.param_groups[0]["lr"]))
        total = 0.0
