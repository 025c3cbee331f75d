"""Configurations: dataclasses that check themselves, and come from and go to plain JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from minilm.errors import ConfigError

C = TypeVar("C", bound="Config")


@dataclasses.dataclass
class Config:
    """Base of all configurations: a dataclass whose values are checked when it is made.

    A subclass says in `check` what is impossible, by raising ConfigError.
    """

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            setattr(self, field.name, _converted(f"{field.name}", getattr(self, field.name), hints[field.name]))
        self.check()

    def check(self) -> None:
        """Raise ConfigError for values that make no sense, alone or together."""

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON: numbers, texts, lists and dicts."""
        inner = {name: value.to_dict() for name, value in vars(self).items() if isinstance(value, Config)}
        return {**dataclasses.asdict(self), **inner}

    @classmethod
    def from_dict(cls: type[C], values: Mapping[str, Any]) -> C:
        """The inverse of `to_dict`; what is left out has its default.

        Errors: ConfigError for an unknown key (and the nearest known one), a wrong type, an impossible value.
        """
        hints = typing.get_type_hints(cls)
        known = [field.name for field in dataclasses.fields(cls)]
        given = {}
        for key, value in values.items():
            if key not in known:
                raise ConfigError(f"unknown key {key!r}{_nearest(key, known)}; the keys are {', '.join(known)}")
            kind = hints[key]
            if isinstance(kind, type) and issubclass(kind, Config):
                if not isinstance(value, Mapping):
                    raise ConfigError(f"{key} must be a group of keys, not {value!r}")
                try:
                    value = kind.from_dict(value)
                except ConfigError as error:
                    raise ConfigError(f"in {key}: {error}") from None
            given[key] = value
        return cls(**given)

    def require(self, name: str, possible: bool, wanted: str) -> None:
        """Raise ConfigError unless `possible`: "n_layer must be at least 1, not 0"."""
        if not possible:
            raise ConfigError(f"{name} must be {wanted}, not {getattr(self, name)!r}")


def merged(values: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with dotted `settings` ({"model.n_layer": 6}) put in their places, in a new dict."""
    result: dict[str, Any] = {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}
    for path, value in settings.items():
        *groups, last = path.split(".")
        inner = result
        for group in groups:
            inner = inner.setdefault(group, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{path}: {group} is a value, not a group of keys")
        inner[last] = value
    return result


def _nearest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


def _converted(name: str, value: Any, kind: Any) -> Any:
    """`value` as `kind`, without loss: 3 for a float is 3.0, but 3.5 for an int is an error."""
    choices = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value is None and type(None) in choices:
        return None
    for choice in choices:
        if choice is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            with contextlib.suppress(OverflowError):  # an int beyond the largest float
                return float(value)
        if choice is int and not isinstance(value, bool) and (isinstance(value, int) or _is_whole(value)):
            return int(value)
        if choice in (bool, str, dict) and isinstance(value, choice):
            return value
        if isinstance(choice, type) and issubclass(choice, Config) and isinstance(value, choice):
            return value
    words = {
        float: "a number",
        int: "a whole number",
        bool: "true or false",
        str: "a text",
        dict: "a group of keys",
        type(None): "null",
    }
    raise ConfigError(f"{name} must be {' or '.join(words.get(c, str(c)) for c in choices)}, not {value!r}")
