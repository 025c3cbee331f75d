"""A running average of the weights, which is often better than where the weights are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from minilm.errors import ConfigError
from minilm.tensor import Tensor

Array = Any


class WeightAverage:
    """The exponential moving average of parameters: average = decay average + (1 - decay) parameter, after each step.

    Source: Polyak & Juditsky 1992, and Tarvainen & Valpola 2017 for the exponential form. The first steps count for
    more: the decay at step t is at most (1 + t) / (10 + t), so that the initial values are soon forgotten.

    Args:
        parameters: what is averaged. decay: from 0 to below 1; 0.999 looks back over some thousand steps.

    Errors: ConfigError for another decay.
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"the average's decay must be at least 0 and below 1, not {decay}")
        self.parameters, self.decay, self.updates = list(parameters), decay, 0
        self.values: list[Array] = [p.array.copy() for p in self.parameters]

    def update(self) -> None:
        """Take the parameters as they are now into the average."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for value, parameter in zip(self.values, self.parameters):
            value += (1 - decay) * (parameter.array - value)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within, the parameters are the averaged ones."""
        own = [p.array.copy() for p in self.parameters]
        try:
            for parameter, value in zip(self.parameters, self.values):
                parameter.array[...] = value
            yield
        finally:
            for parameter, value in zip(self.parameters, own):
                parameter.array[...] = value
