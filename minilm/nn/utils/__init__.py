"""What PyTorch has under torch.nn.utils: packed sequences; clipping of gradients stands in minilm.optim."""

from minilm.nn.utils import rnn

__all__ = ["rnn"]
