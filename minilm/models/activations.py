"""The activations that pretrained models name, each together with the linear map before it."""

from __future__ import annotations

from minilm.nn import functional as F
from minilm.tensor import Tensor

# Hugging Face's names: what each is here.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


def linear_activation(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    """f(x W^T + b), as one operation where there is one: (N, I), (O, I), (O) -> (N, O).

    Args:
        activation: one of the values of ACTIVATIONS.
    """
    if activation == "relu":
        return F.linear_relu(x, weight, bias)
    if activation in ("gelu", "gelu_tanh"):
        return F.linear_gelu(x, weight, bias, "tanh" if activation == "gelu_tanh" else "none")
    return getattr(F, activation)(F.linear(x, weight, bias))
