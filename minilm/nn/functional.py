"""Operations as plain functions, under PyTorch's names and with its argument orders.

Most are the operations themselves (minilm/ops), named again here; only what differs is written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minilm.errors import ShapeError
from minilm.ops.attention import scaled_dot_product_attention
from minilm.ops.embedding import embedding, one_hot
from minilm.ops.loss import binary_cross_entropy_with_logits, cross_entropy, mse_loss, nll_loss
from minilm.ops.matmul import linear
from minilm.ops.norm import layer_norm as _layer_norm
from minilm.ops.norm import rms_norm as _rms_norm
from minilm.ops.pointwise import sigmoid, tanh
from minilm.ops.random import dropout
from minilm.ops.selection import leaky_relu, relu
from minilm.ops.shape import pad
from minilm.ops.softmax import log_softmax, softmax
from minilm.tensor import Tensor
