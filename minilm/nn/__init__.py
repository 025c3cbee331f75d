"""Layers, losses and the Module they are made of, under PyTorch's names."""

from minilm.nn import functional, init
from minilm.nn.activation import GELU, LeakyReLU, LogSoftmax, ReLU, Sigmoid, SiLU, Softmax, Softplus, Tanh
from minilm.nn.attention import MultiheadAttention
from minilm.nn.container import ModuleDict, ModuleList, Sequential
from minilm.nn.dropout import Dropout
from minilm.nn.embedding import Embedding
from minilm.nn.linear import Flatten, Identity, Linear
from minilm.nn.loss import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss, NLLLoss
from minilm.nn.module import Module
from minilm.nn.norm import LayerNorm, RMSNorm
from minilm.nn.parameter import Parameter

__all__ = [
    "GELU",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "Flatten",
    "Identity",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "Module",
    "ModuleDict",
    "ModuleList",
    "MultiheadAttention",
    "NLLLoss",
    "Parameter",
    "RMSNorm",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "functional",
    "init",
]
