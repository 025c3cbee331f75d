"""The base of configurations that stand in Hugging Face's config.json, with keys that this library does not know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from minilm.errors import ConfigError
from minilm.models.config import Config

P = TypeVar("P", bound="PretrainedConfig")


@dataclass
class PretrainedConfig(Config):
    """A configuration of which each key that is not its own is kept, and written back.

    Attributes:
        others: what else stood in config.json.
        model_type: the model's name there.
        refused: keys that make another model of it, and the values with which they do not.
    Errors: ConfigError for a key that asks for what the model is not.
    """

    others: dict = field(default_factory=dict, kw_only=True)

    model_type: ClassVar[str] = ""
    refused: ClassVar[dict[str, tuple[Any, ...]]] = {}

    def check(self) -> None:
        """Raise ConfigError for a key that asks for what the model is not."""
        for key, harmless in {"model_type": (self.model_type, "", None), **self.refused}.items():
            if key in self.others and self.others[key] not in harmless:
                raise ConfigError(
                    f"{key} {self.others[key]!r} is not supported: this {type(self).__name__.removesuffix('Config')} "
                    f"knows {harmless[0]!r} only"
                )

    def to_dict(self) -> dict[str, Any]:
        """As config.json has it: the keys above, and the others beside them."""
        values = super().to_dict()
        others = values.pop("others")
        return {**others, **values, "model_type": self.model_type}

    @classmethod
    def from_dict(cls: type[P], values: Mapping[str, Any]) -> P:
        """Of what config.json holds. Keys that change nothing are kept in `others`.

        Errors: ConfigError for a wrong type, an impossible value, and what makes another model of it.
        """
        known = {f.name for f in fields(cls)} - {"others"}
        others = {key: value for key, value in values.items() if key not in known}
        return cls(**{key: value for key, value in values.items() if key in known}, others=others)
