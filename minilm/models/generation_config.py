"""Which tokens outputs may have and what ends them, as Hugging Face's generation_config.json says it.

Hugging Face's `generate` goes by that file, and where a folder has none by the same keys of config.json. Marian's have
`bad_words_ids: [[<pad>]]`, so that padding is never written. T5's have none: padding is a token that a T5 may write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilm.errors import ConfigError
from minilm.models.pretrained import CONFIG, read_json

GENERATION = "generation_config.json"
# Keys that change which outputs are likely and that beam.py does not know, with the values that change nothing.
REFUSED: dict[str, tuple[Any, ...]] = {
    "forced_bos_token_id": (None,),
    "forced_decoder_ids": (None, []),
    "begin_suppress_tokens": (None, []),
    "sequence_bias": (None, {}, []),
    "exponential_decay_length_penalty": (None,),
    "encoder_no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1.0),
    "diversity_penalty": (None, 0.0),
    "num_beam_groups": (None, 1),
}


@dataclass(frozen=True)
class GenerationConfig:
    """What a search must know of a model, under the names of BeamSearch.

    Attributes:
        eos_token_id: what ends an output; None for nothing. forced_eos: whether it ends the longest ones too.
        suppress_tokens: tokens that never come: `suppress_tokens`, and those of `bad_words_ids`.
    """

    eos_token_id: int | None
    forced_eos: bool = False
    suppress_tokens: tuple[int, ...] = ()

    @classmethod
    def of(cls, config: Any) -> GenerationConfig:
        """That of a model by its own configuration, as config.json has it. Errors: ConfigError, as `read`."""
        values = config.to_dict()
        if values["model_type"] != "t5":  # a Marian; what is said nowhere else, all files of Marians say
            values = {"bad_words_ids": [[config.pad_token_id]], **values}
        return cls.read(values, _vocabulary(config))

    @classmethod
    def from_pretrained(cls, folder: Path, config: Any) -> GenerationConfig:
        """That of a model's folder. Errors: CheckpointError for a damaged file, ConfigError as `read`."""
        place = folder / GENERATION
        try:
            return cls.read(read_json(place), _vocabulary(config)) if place.is_file() else cls.of(config)
        except ConfigError as error:
            raise ConfigError(f"{place if place.is_file() else folder / CONFIG}: {error}") from None

    @classmethod
    def read(cls, values: Mapping[str, Any], vocab_size: int) -> GenerationConfig:
        """Of the keys of one of the files. Errors: ConfigError for a token that is none, and for what is not known."""
        for key, harmless in REFUSED.items():
            if values.get(key) not in harmless:
                raise ConfigError(f"{key} {values[key]!r} is not supported in a search")
        ends = _tokens(values, "eos_token_id", vocab_size)
        forced = _tokens(values, "forced_eos_token_id", vocab_size)
        words = values.get("bad_words_ids") or []
        for name, several in (("eos_token_id", len(ends) > 1), ("forced_eos_token_id", forced not in ([], ends))):
            if several:
                raise ConfigError(f"{name} {values[name]!r} is not supported: one token ends outputs, forced or not")
        if not isinstance(words, list) or not all(isinstance(word, list) and len(word) == 1 for word in words):
            raise ConfigError(f"bad_words_ids {words!r} are not supported: lists of one token each were expected")
        never = [word[0] for word in words if word != ends]  # as there, the end cannot be a bad word
        suppressed = _tokens({"bad_words_ids": never}, "bad_words_ids", vocab_size)
        suppressed += _tokens(values, "suppress_tokens", vocab_size)
        return cls(ends[0] if ends else None, bool(forced), tuple(dict.fromkeys(suppressed)))


def _vocabulary(config: Any) -> int:
    return getattr(config, "decoder_vocab_size", None) or config.vocab_size


def _tokens(values: Mapping[str, Any], key: str, vocab_size: int) -> list[int]:
    """The tokens that a key has, which may be one, several or None. Errors: ConfigError for what is none."""
    given = values.get(key)
    tokens = given if isinstance(given, list) else [] if given is None else [given]
    if not all(type(token) is int and 0 <= token < vocab_size for token in tokens):
        raise ConfigError(f"{key} must be tokens from 0 to {vocab_size - 1}, not {given!r}")
    return tokens
