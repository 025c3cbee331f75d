"""Non-linear functions as modules."""

from __future__ import annotations

from minilm.errors import ConfigError
from minilm.nn import functional as F
from minilm.nn.module import Module
from minilm.tensor import Tensor


class ReLU(Module):
    """y = max(x, 0): (...) -> (...), written over x if `inplace`. Nair & Hinton 2010."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return x.relu_() if self.inplace else F.relu(x)

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        return "inplace=True" if self.inplace else ""


class LeakyReLU(Module):
    """y = x where x > 0, else negative_slope x: (...) -> (...). Maas, Hannun & Ng 2013."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """y = x where x > 0, else alpha (e^x - 1): (...) -> (...). Clevert, Unterthiner & Hochreiter 2016."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.elu(x, self.alpha)

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        return f"alpha={self.alpha}"


class LogSigmoid(Module):
    """y = log sigmoid(x): (...) -> (...)."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.logsigmoid(x)


class GELU(Module):
    """y = x times the normal distribution's share below x: (...) -> (...). Hendrycks & Gimpel 2016.

    Args:
        approximate: "none" for the exact one (erf), "tanh" for the approximation that GPT-2 uses.
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        if approximate not in ("none", "tanh"):
            raise ConfigError(f"GELU: approximate is 'none' or 'tanh', not {approximate!r}")
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.gelu(x, approximate=self.approximate)

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """y = x sigmoid(x): (...) -> (...). Hendrycks & Gimpel 2016; Ramachandran, Zoph & Le 2017 (swish)."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.silu(x)


class Tanh(Module):
    """y = tanh(x): (...) -> (...)."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.tanh(x)


class Sigmoid(Module):
    """y = 1 / (1 + e^-x): (...) -> (...)."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.sigmoid(x)


class Softplus(Module):
    """y = log(1 + e^(beta x)) / beta, and x itself where beta x > threshold: (...) -> (...)."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.softplus(x, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        return f"beta={self.beta}, threshold={self.threshold}"


class Softmax(Module):
    """y_j = e^(x_j) / sum_k e^(x_k) along `dim`: (...) -> (...)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.softmax(x, self.dim)

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """y_j = x_j - log sum_k e^(x_k) along `dim`: (...) -> (...)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.log_softmax(x, self.dim)

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        return f"dim={self.dim}"
