"""minilm: language models you can read all the way down."""

from minilm import autograd, ops
from minilm.creation import arange, tensor, zeros, ones
from minilm.tensor import Tensor
