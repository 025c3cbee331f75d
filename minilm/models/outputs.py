"""What a model returns: several results by name."""

from __future__ import annotations

from typing import Any


class Output(dict):
    """Results by name, as attributes and as keys: `output.logits`, `output["logits"]`.

    What was not asked for is None as an attribute and absent as a key; `output[0]` is the first that is there.
    """

    def __init__(self, **results: Any) -> None:
        super().__init__({name: value for name, value in results.items() if value is not None})
        self.__dict__["_absent"] = frozenset(results) - frozenset(self)

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        if name in self.__dict__.get("_absent", ()):
            return None
        raise AttributeError(f"this output has no {name!r}, it has {', '.join(self)}")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        """The results that are there, in their order."""
        return tuple(self.values())
