"""What all peers share: the optimiser's settings, and how a peer says that it cannot."""

from __future__ import annotations

from typing import Any

# The rate of BERT's fine-tuning: it moves the loss, but at ten times as much a post-norm encoder without warm-up
# throws it about, and rounding errors with it, so that equal programs would soon differ.
ADAMW: dict[str, Any] = {"lr": 3e-5, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
CLIP = 1.0  # the gradient's norm at most


class Unavailable(Exception):  # noqa: N818 - a reason, shown in the table, rather than a fault
    """A peer cannot run this case; the message says why."""
