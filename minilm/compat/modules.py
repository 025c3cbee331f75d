"""The modules that stand in for PyTorch's: each finds its names in minilm, and says what is not there."""

from __future__ import annotations

import difflib
from types import ModuleType
from typing import Any

from minilm.compat.names import MODULES, Place
from minilm.errors import MinilmError


class MissingNameError(MinilmError, AttributeError):
    """A name of PyTorch's that minilm has not; the message names the nearest one that is there."""


class MissingImportError(MinilmError, ImportError):
    """The same for an import, so that a script's own `except ImportError` catches it."""


class StandIn(ModuleType):
    """The module `torch.x.y` of PyTorch's names.

    A name is looked for in the table's differences, then, where minilm has it under the same name, in the parts of
    minilm that the table gives for this module, then among the stand-ins below it (`torch.nn`). Every name is found
    when it is first asked for and kept.
    """

    __path__: list[str]

    def __init__(self, name: str, place: Place) -> None:
        super().__init__(name, place.doc)
        self.__path__ = []  # a package, so that `from torch.x import name` asks the finder and gets our message
        self.__dict__["_place"] = place

    def __getattr__(self, name: str) -> Any:
        place: Place = self.__dict__["_place"]
        if not name.startswith("__") or name in place.differences:
            try:
                value = place.find(name)
            except LookupError:
                raise MissingNameError(said(self, name)) from None
            self.__dict__[name] = value
            return value
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__["_place"].names(), *(n for n in self.__dict__ if not n.startswith("_"))})


def said(module: StandIn, name: str) -> str:
    """The sentence about a name that is not there."""
    whole = f"{module.__name__}.{name}"
    close = nearest(name, dir(module))
    return f"minilm has no {whole}" + (f" (nearest: {module.__name__}.{close})" if close else "")


def nearest(name: str, known: list[str]) -> str:
    """The most similar of the known names, empty if none is similar; capitals count only where two are alike."""
    lowered = {k.lower(): k for k in known}
    found = difflib.get_close_matches(name, known, n=1)
    if not found:
        found = [lowered[k] for k in difflib.get_close_matches(name.lower(), list(lowered), n=1)]
    return found[0] if found else ""


def build() -> dict[str, StandIn]:
    """All stand-ins by their full names, each as an attribute of the one above it."""
    made = {name: StandIn(name, place) for name, place in MODULES.items()}
    for name, module in made.items():
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(made[parent], last, module)
    return made
