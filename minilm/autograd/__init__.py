"""Gradients: the backward walk, the modes that switch recording, functions of the user's own."""

from minilm.autograd.anomaly import detect_anomaly
from minilm.autograd.engine import backward, grad
from minilm.autograd.function import Function
from minilm.modes import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from minilm.tape import Node

__all__ = [
    "Function",
    "Node",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "grad",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "set_grad_enabled",
]
