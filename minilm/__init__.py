"""minilm: language models you can read all the way down."""

from minilm import autograd, ops
from minilm.creation import arange, ones, tensor, zeros
from minilm.tensor import Tensor
