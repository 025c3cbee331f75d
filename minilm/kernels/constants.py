"""Matrices that do not change for a while, such as a model's weights while it writes: what is packed of them is kept.

A product of a few rows with a large matrix takes about as long as packing the matrix for it (see csrc/gemm.c). Where
one token after the other is computed with the same weights, they need to be packed once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

Array = Any


class _Open(threading.local):
    def __init__(self) -> None:
        self.held: list[dict[Any, Any]] = []  # of the thread's `with` blocks, the innermost last


_open = _Open()


class Constants:
    """Matrices that nobody changes while `with constants:` is open, however often: what is kept of them stays between.

    It is open for the threads that open it. Backends that pack nothing take no notice.
    """

    def __init__(self, matrices: Iterable[Array]) -> None:
        self._matrices = list(matrices)  # alive as long as their numbers stand for them
        self._held: dict[Any, Any] = {id(matrix): None for matrix in self._matrices}

    def __enter__(self) -> None:
        _open.held.append(self._held)

    def __exit__(self, *_: object) -> None:
        _open.held.pop()


def held_now() -> dict[Any, Any] | None:
    """What the calling thread keeps of matrices: how each is packed, by its `id`, None if it was not used yet; and
    several that were joined, by the tuple of theirs."""
    return _open.held[-1] if _open.held else None
