"""Optimisers, schedules of their learning rates, and gradient clipping, under PyTorch's names."""

from minilm.optim import lr_scheduler, schedule
from minilm.optim.adamw import Adam, AdamW, decay_groups
from minilm.optim.adaptive import Adadelta, Adagrad, RMSprop
from minilm.optim.average import WeightAverage
from minilm.optim.clip import clip_grad_norm_, clip_grad_value_
from minilm.optim.optimizer import Optimizer
from minilm.optim.schedule import noam, warmup_constant, warmup_cosine, warmup_inverse_sqrt, warmup_linear
from minilm.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "WeightAverage",
    "clip_grad_norm_",
    "clip_grad_value_",
    "decay_groups",
    "lr_scheduler",
    "noam",
    "schedule",
    "warmup_constant",
    "warmup_cosine",
    "warmup_inverse_sqrt",
    "warmup_linear",
]
