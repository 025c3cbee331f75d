"""A word-level language model: embedding, LSTM, decoder; truncated backpropagation, gradient clipping, annealed SGD."""

import math
import time

import numpy as np
import torch
import torch.nn as nn
from torch.nn.utils import clip_grad_norm_

SENTENCES = ["the cat sat on the mat", "the dog sat on the log", "a cat saw the dog run", "a dog ran to the cat"] * 12


class Dictionary:
    def __init__(self):
        self.word2idx, self.idx2word = {}, []

    def add_word(self, word):
        if word not in self.word2idx:
            self.idx2word.append(word)
            self.word2idx[word] = len(self.idx2word) - 1
        return self.word2idx[word]

    def __len__(self):
        return len(self.idx2word)


class Corpus:
    def __init__(self, sentences):
        self.dictionary = Dictionary()
        words = [w for s in sentences for w in s.split() + ["<eos>"]]
        ids = [torch.tensor([self.dictionary.add_word(w)]).type(torch.int64) for w in words]
        whole = torch.cat(ids)
        cut = whole.size(0) * 4 // 5
        self.train, self.valid = whole[:cut], whole[cut:]


class RNNModel(nn.Module):
    """Encoder, recurrent layers and decoder; the kind by its name, as in nn.LSTM."""

    def __init__(self, rnn_type, ntoken, ninp, nhid, nlayers, dropout=0.0):
        super().__init__()
        self.ntoken = ntoken
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.Embedding(ntoken, ninp)
        if rnn_type in ["LSTM", "GRU"]:
            self.rnn = getattr(nn, rnn_type)(ninp, nhid, nlayers, dropout=dropout)
        else:
            self.rnn = nn.RNN(ninp, nhid, nlayers, nonlinearity="relu", dropout=dropout)
        self.decoder = nn.Linear(nhid, ntoken)
        self.init_weights()
        self.rnn_type, self.nhid, self.nlayers = rnn_type, nhid, nlayers

    def init_weights(self):
        initrange = 0.1
        nn.init.uniform_(self.encoder.weight, -initrange, initrange)
        nn.init.zeros_(self.decoder.bias)
        self.decoder.weight.data.uniform_(-initrange, initrange)

    def forward(self, input, hidden):
        emb = self.drop(self.encoder(input))
        output, hidden = self.rnn(emb, hidden)
        decoded = self.decoder(self.drop(output)).view(-1, self.ntoken)
        return torch.nn.functional.log_softmax(decoded, dim=1), hidden

    def init_hidden(self, bsz):
        weight = next(self.parameters())
        if self.rnn_type == "LSTM":
            return (weight.new_zeros(self.nlayers, bsz, self.nhid), weight.new_zeros(self.nlayers, bsz, self.nhid))
        return weight.new_zeros(self.nlayers, bsz, self.nhid)


def batchify(data, bsz):
    nbatch = data.size(0) // bsz
    return data.narrow(0, 0, nbatch * bsz).view(bsz, -1).t().contiguous()


def repackage_hidden(h):
    """Wraps hidden states in new tensors, to detach them from their history."""
    if isinstance(h, torch.Tensor):
        return h.detach()
    return tuple(repackage_hidden(v) for v in h)


def get_batch(source, i, bptt):
    seq_len = min(bptt, len(source) - 1 - i)
    return source[i : i + seq_len], source[i + 1 : i + 1 + seq_len].view(-1)


@torch.no_grad()
def evaluate(model, criterion, source, bptt):
    model.eval()
    total, hidden = 0.0, model.init_hidden(source.size(1))
    for i in range(0, source.size(0) - 1, bptt):
        data, targets = get_batch(source, i, bptt)
        output, hidden = model(data, hidden)
        hidden = repackage_hidden(hidden)
        total += len(data) * criterion(output, targets).item()
    return total / (len(source) - 1)


def train(model, criterion, source, bptt, lr, epoch, clip=0.25):
    model.train()
    total, start, hidden = 0.0, time.time(), model.init_hidden(source.size(1))
    for batch, i in enumerate(range(0, source.size(0) - 1, bptt)):
        data, targets = get_batch(source, i, bptt)
        model.zero_grad()
        hidden = repackage_hidden(hidden)
        output, hidden = model(data, hidden)
        loss = criterion(output, targets)
        loss.backward()
        clip_grad_norm_(model.parameters(), clip)
        for p in model.parameters():
            p.data.add_(p.grad, alpha=-lr)
        total += loss.item()
    assert time.time() >= start
    print(f"| epoch {epoch:2d} | lr {lr:05.2f} | loss {total / (batch + 1):5.4f} | ppl {math.exp(loss.item()):8.3f}")


if __name__ == "__main__":
    corpus = Corpus(SENTENCES)
    ntokens = len(corpus.dictionary)
    for kind in ("LSTM", "GRU", "RNN_RELU"):
        torch.manual_seed(1111)
        model, rng = RNNModel(kind, ntokens, 12, 16, 2), np.random.RandomState(7)
        for p in model.parameters():
            p.data.copy_(torch.as_tensor(rng.uniform(-0.3, 0.3, p.size())))
        criterion, lr, best = nn.NLLLoss(), 5.0, None
        train_data, val_data = batchify(corpus.train, 4), batchify(corpus.valid, 2)
        for epoch in range(1, 5):
            train(model, criterion, train_data, 9, lr, epoch)
            val_loss = evaluate(model, criterion, val_data, 9)
            print(f"{kind} valid loss {val_loss:5.4f}")
            if not best or val_loss < best:
                best = val_loss
            else:
                lr /= 4.0
