"""Special functions that NumPy lacks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_scalar_erf = np.frompyfunc(math.erf, 1, 1)


def erf(x: Any) -> Any:
    """The error function of an array, in its own type."""
    return np.asarray(_scalar_erf(x)).astype(x.dtype)
