"""`@differentiable`: a function that brings its gradient check along.

    @differentiable((3, 4), (4, 5))
    def similarity(q, k):
        return (q @ k).tanh()

In a test file pytest then runs `similarity[gradcheck]` and `similarity[gradgradcheck]`; anywhere else
`check_gradients(similarity)` does. The function itself stays what it was.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from minilm.tensor import Tensor
from minilm.testing.gradients import gradcheck, gradgradcheck
from minilm.testing.samples import draw

F = TypeVar("F")
ATTRIBUTE = "__differentiable__"


@dataclass(frozen=True)
class Requirement:
    """On what inputs a function is checked, and how; see `differentiable`."""

    inputs: tuple[Any, ...]
    second: bool
    domain: str
    examples: int
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def checks(self) -> dict[str, Callable[..., bool]]:
        """The checks by name."""
        return {"gradcheck": gradcheck, **({"gradgradcheck": gradgradcheck} if self.second else {})}

    def run(self, name: str, target: Any) -> None:
        """Run one of the checks on a function or an autograd.Function. Errors: GradientError."""
        function, check = getattr(target, "apply", target), self.checks[name]
        if not any(_is_strategy(x) for x in self.inputs):
            rng = np.random.default_rng(zlib.crc32(getattr(target, "__name__", "").encode()))
            check(function, [self._made(x, rng, i) for i, x in enumerate(self.inputs)], **self.settings)
            return
        from hypothesis import HealthCheck, given, settings
        from hypothesis import strategies as st

        drawn = st.tuples(*(x if _is_strategy(x) else st.just(x) for x in self.inputs))

        @settings(max_examples=self.examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(drawn)
        def each(values: tuple[Any, ...]) -> None:
            inputs = [v for value in values for v in (value if isinstance(value, (tuple, list)) else (value,))]
            # A smaller example is hypothesis's to find; a drawn input may well be empty.
            check(function, inputs, **{"shrink": False, "allow_independent": True, **self.settings})

        each()

    def _made(self, described: Any, rng: np.random.Generator, position: int) -> Any:
        return draw(self.domain, described, rng, np.float64, position) if _is_shape(described) else described


def differentiable(
    *inputs: Any, second: bool = True, domain: str = "normal", examples: int = 20, **settings: Any
) -> Callable[[F], F]:
    """Say on which inputs a function's gradients are to be checked.

    Args:
        inputs: for each of the function's parameters a shape (a tuple of ints), an array, a Tensor (held constant
            unless it requires a gradient), or a hypothesis strategy for arrays or tuples of them, such as
            `strategies.broadcastable(2)`.
        second: whether second derivatives are checked too.
        domain: how the values of shapes are drawn: "normal", "positive", "unit" (inside (-1, 1)), "nonzero",
            "distinct" (no ties), "probability".
        examples: how many examples of a strategy.
        settings: those of `gradcheck`.

    Errors: TypeError for an input that is none of these, at once.
    """
    if not inputs:
        raise TypeError("differentiable: name a shape, an array or a strategy for each input: @differentiable((3, 4))")
    for position, x in enumerate(inputs):
        if not (_is_shape(x) or isinstance(x, (np.ndarray, Tensor)) or _is_strategy(x)):
            raise TypeError(
                f"differentiable: input {position} is {x!r}; a shape, an array, a Tensor or a strategy was expected"
            )
    draw(domain, (1,), np.random.default_rng(0), np.float64)  # a domain that is not there is said now

    def decorate(target: F) -> F:
        setattr(target, ATTRIBUTE, Requirement(inputs, second, domain, examples, settings))
        return target

    return decorate


def check_gradients(target: Any) -> bool:
    """Run the checks of a function or autograd.Function under `@differentiable`; True, or GradientError.

    Errors: TypeError for one that is not decorated.
    """
    requirement = getattr(target, ATTRIBUTE, None)
    if requirement is None:
        raise TypeError(f"check_gradients: {target!r} is not decorated with @differentiable")
    for name in requirement.checks:
        requirement.run(name, target)
    return True


def _is_shape(x: Any) -> bool:
    return isinstance(x, tuple) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in x)


def _is_strategy(x: Any) -> bool:
    """Whether x is one of hypothesis's, which is not imported for that."""
    return any(base.__name__ == "SearchStrategy" for base in type(x).__mro__)
