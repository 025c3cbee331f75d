"""Whether operations are recorded: `no_grad`, `enable_grad`, `inference_mode`.

The state belongs to the thread, as in PyTorch: one thread may train while another generates.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

# `watcher(op, arrays, results, rest, options)` sees an operation, its inputs, its results (a tuple of arrays) and its
# options by position and by name. It returns None, or what shall take the results' place in the forward pass.
Watcher = Callable[..., Any]


class _State(threading.local):
    recording = True  # are operations put on the tape?
    inference = False  # are new tensors barred from the tape for good?
    create_graph = False  # is a backward walk itself being recorded?
    anomaly = False  # are results searched for NaN and infinity?
    watchers: tuple[Watcher, ...] = ()  # who is shown every operation's results


state = _State()


def is_grad_enabled() -> bool:
    """True where operations on tensors that require a gradient are recorded."""
    return state.recording


def is_inference_mode_enabled() -> bool:
    """True inside `inference_mode()`."""
    return state.inference


def as_here(function: F) -> F:
    """`function` for another thread, in which the modes shall be as they are in this one."""
    here = dict(vars(state))

    @functools.wraps(function)
    def there(*args: Any, **kwargs: Any) -> Any:
        vars(state).update(here)
        return function(*args, **kwargs)

    return there  # type: ignore[return-value]


class _Mode:
    """A context manager, a decorator, and (like PyTorch's) usable again and again."""

    _recording: bool | None = None
    _inference: bool | None = None

    def __init__(self) -> None:
        self._before: list[tuple[bool, bool]] = []

    def __enter__(self) -> None:
        self._before.append((state.recording, state.inference))
        if self._recording is not None:
            state.recording = self._recording
        if self._inference is not None:
            state.inference = self._inference

    def __exit__(self, *_: object) -> None:
        state.recording, state.inference = self._before.pop()

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with type(self)():
                return function(*args, **kwargs)

        return inside  # type: ignore[return-value]

    def __new__(cls, function: Any = None) -> Any:
        """`@no_grad` without parentheses decorates too."""
        mode = super().__new__(cls)
        if callable(function):
            mode.__init__()  # type: ignore[misc]
            return mode(function)
        return mode


class no_grad(_Mode):  # noqa: N801 - PyTorch's name
    """Inside, nothing is recorded: results do not require a gradient, and no memory is kept for one."""

    _recording = False


class enable_grad(_Mode):  # noqa: N801
    """Inside, recording is on again, whatever surrounds it."""

    _recording = True


class inference_mode(_Mode):  # noqa: N801
    """Like `no_grad`; besides, what is made inside can never be saved for a backward pass."""

    _recording = False
    _inference = True


class set_grad_enabled:  # noqa: N801
    """Recording on or off: at once, and until the `with` block (if any) ends."""

    def __init__(self, mode: bool) -> None:
        self._before = state.recording
        state.recording = bool(mode)

    def __enter__(self) -> None:
        """The mode is set already."""

    def __exit__(self, *_: object) -> None:
        state.recording = self._before
