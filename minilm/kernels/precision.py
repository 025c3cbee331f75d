"""How exact products of float32 matrices are: PyTorch's setting, under its names."""

from __future__ import annotations

import sys
from typing import Any

_precision = "highest"


def set_float32_matmul_precision(precision: str) -> None:
    """Choose what products of float32 matrices may round their inputs to; results stay float32.

    Args:
        precision: "highest" or "high" for float32 throughout; "medium" for inputs rounded to bfloat16 (8 bits of
            fraction with the leading one: a relative error of up to 2^-9 each) and sums in float32. It holds for the
            native backend on processors that multiply bfloat16 faster (`minilm info` names "bf16"); elsewhere "medium"
            changes nothing, as in PyTorch.
    Errors: ValueError for another word.
    """
    global _precision
    if precision not in ("highest", "high", "medium"):
        raise ValueError(f"set_float32_matmul_precision: 'highest', 'high' or 'medium', not {precision!r}")
    _precision = precision
    native: Any = sys.modules.get("minilm.kernels.native")
    if hasattr(native, "set_bfloat16"):  # it asks for the setting itself while it is being loaded
        native.set_bfloat16(precision == "medium")


def get_float32_matmul_precision() -> str:
    """The setting: "highest" at first."""
    return _precision
