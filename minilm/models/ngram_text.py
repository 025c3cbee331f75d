"""N-gram models of text: by characters or by words.

    "char"   the text as one sequence of characters, with its line breaks
    "word"   each line is a sentence, cut at blanks; </s> ends it. Lines without a word are no sentences.

Both have <unk>, the token for all that the training text has not, or less often than the cut-off says.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from minilm.errors import ConfigError, DataError
from minilm.models.arpa import BOS, EOS, UNK, read_arpa, write_arpa
from minilm.models.ngram import NGram
from minilm.models.ngram_counts import checked_order
from minilm.models.ngram_smoothing import Smoothing

Array = Any

LEVELS = ("char", "word")


class Vocabulary(Protocol):
    """Text to token ids and back."""

    names: list[str]  # of the ids, as an ARPA file has them
    eos: int | None

    def encode(self, text: str) -> Array:
        """Ids (N,). Errors: DataError for a token that is not there, if there is no <unk>."""

    def shown(self, ids: Iterator[int], begins: bool = True) -> Iterator[str]:
        """The text of ids, in pieces; `begins`: nothing, or a blank, stands before."""


class Words:
    """Words between blanks, and </s> behind each line that has any."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.ids = {name: i for i, name in enumerate(names)}
        self.eos = self.ids.get(EOS)

    @classmethod
    def learn(cls, text: str, cutoff: int) -> Words:
        """The words that occur at least `cutoff` times, in the order of their code points; </s>; <unk>."""
        counted = Counter(text.split())
        return cls([*sorted(w for w, n in counted.items() if n >= cutoff and w not in (BOS, EOS, UNK)), EOS, UNK])

    def encode(self, text: str) -> Array:
        """The ids of a text, (N,). Errors: DataError for <s> or </s> in it, or a word that is not there."""
        ids, unknown = self.ids, self.ids.get(UNK)
        found: list[int | None] = []
        for words in map(str.split, text.split("\n")):
            if words:
                found += [ids.get(word, unknown) for word in words]
                found += [self.eos] if self.eos is not None else []
        if None in found or BOS in text or EOS in text:
            self._refuse(text)
        return np.array(found, np.int64)

    def _refuse(self, text: str) -> None:
        """Errors: DataError that names the first word which cannot be encoded, and its line, if there is one."""
        for number, line in enumerate(text.split("\n"), 1):
            for word in line.split():
                if word in (BOS, EOS):
                    raise DataError(
                        f"line {number}: {word} marks where a sentence begins or ends, and cannot be a word"
                    )
                if UNK not in self.ids and word not in self.ids:
                    raise DataError(f"line {number}: the model has no token {word!r}, and no {UNK} for it")

    def shown(self, ids: Iterator[int], begins: bool = True) -> Iterator[str]:
        """Words with blanks between them, and a new line behind each </s>."""
        for i in ids:
            yield "\n" if i == self.eos else self.names[i] if begins else " " + self.names[i]
            begins = i == self.eos


class Characters:
    """The characters of a text; in a file those that would not be seen are written as <U+0020>."""

    eos: int | None = None

    def __init__(self, characters: list[str]) -> None:
        self.characters = characters
        self.names = [_escaped(c) for c in characters]
        self.unknown = characters.index(UNK) if UNK in characters else None
        codes = [ord(c) if len(c) == 1 else -1 for c in characters]
        self._id_of_code: Array = np.full(max([*codes, 0]) + 2, -1, np.int64)
        for i, code in enumerate(codes):
            if code >= 0:
                self._id_of_code[code] = i

    @classmethod
    def learn(cls, text: str, cutoff: int) -> Characters:
        """The characters that occur at least `cutoff` times, in the order of their code points; <unk>."""
        codes, counts = np.unique(_code_points(text), return_counts=True)
        return cls([*map(chr, codes[counts >= cutoff].tolist()), UNK])

    def encode(self, text: str) -> Array:
        """The ids of a text, (N,). Errors: DataError for a character that is not there."""
        codes = _code_points(text)
        ids = self._id_of_code.take(codes, mode="clip")
        if (ids < 0).any():
            at = int((ids < 0).argmax())
            if self.unknown is None:
                line = text.count("\n", 0, at) + 1
                raise DataError(f"line {line}: the model has no token {text[at]!r}, and no {UNK} for it")
            ids[ids < 0] = self.unknown
        return ids

    def shown(self, ids: Iterator[int], begins: bool = True) -> Iterator[str]:
        """The characters."""
        return (self.characters[i] for i in ids)


def _code_points(text: str) -> Array:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)


def _escaped(character: str) -> str:
    seen = len(character) > 1 or (character.isprintable() and character != " ")
    return character if seen else f"<U+{ord(character):04X}>"


def _unescaped(name: str) -> str:
    match = re.fullmatch(r"<U\+([0-9A-F]{4,6})>", name)
    return chr(int(match[1], 16)) if match and int(match[1], 16) < 0x110000 else name


@dataclass(frozen=True)
class Score:
    """How a model found a text.

    Attributes:
        tokens: how many were scored, with each </s>; unknown: how many of them are <unk>.
        log_prob: ln p of all of them together; characters: how many the text has, with blanks and line breaks.
    """

    tokens: int
    unknown: int
    characters: int
    log_prob: float

    @property
    def perplexity(self) -> float:
        """exp(-log_prob / tokens): as unsure as between so many tokens."""
        mean = -self.log_prob / self.tokens
        return math.exp(mean) if mean < 700 else math.inf

    @property
    def bits_per_token(self) -> float:
        """log2 of the perplexity."""
        return -self.log_prob / self.tokens / math.log(2)

    @property
    def bits_per_character(self) -> float:
        """All bits over all characters. By words it leaves out what <unk> hides and how words are set apart."""
        return -self.log_prob / self.characters / math.log(2)


class TextNGram:
    """An n-gram model and the vocabulary that makes ids of text."""

    def __init__(self, model: NGram, vocabulary: Vocabulary, level: str) -> None:
        self.model, self.vocabulary, self.level = model, vocabulary, level

    @classmethod
    def train(
        cls,
        text: str,
        order: int = 5,
        smoothing: str = "kneser-ney",
        *,
        level: str = "char",
        cutoff: int = 1,
        k: float = 1.0,
        discount: float | None = None,
    ) -> TextNGram:
        """Learn from a text.

        Args:
            level: "char" or "word".
            cutoff: how often a token must occur to be one of the vocabulary; all others become <unk>.
            The others: see `minilm.models.ngram.NGram.fit`.
        Errors: ConfigError for an impossible setting, before anything is counted; DataError for a text without a token.
        """
        checked_order(order)
        Smoothing(smoothing, k, discount)
        if level not in LEVELS:
            raise ConfigError(f"level must be {' or '.join(LEVELS)}, not {level!r}")
        if not isinstance(cutoff, (int, np.integer)) or cutoff < 1:
            raise ConfigError(f"cutoff must be a whole number of at least 1, not {cutoff!r}")
        if not text or (level == "word" and not text.strip()):
            raise DataError(f"the corpus is empty: there is no {'character' if level == 'char' else 'word'} in it")
        vocabulary: Vocabulary = Words.learn(text, cutoff) if level == "word" else Characters.learn(text, cutoff)
        ids, V = vocabulary.encode(text), len(vocabulary.names)
        model = NGram.fit(ids, V, order, smoothing, k=k, discount=discount, eos=vocabulary.eos)
        return cls(model, vocabulary, level)

    def score(self, text: str, begins: bool = True) -> Score:
        """How well the model foretells a text.

        Args:
            begins: whether it begins a text, or goes on with one.
        Errors: DataError for a text without a token, or with one that the model lacks, if it has no <unk>.
        """
        ids = self.vocabulary.encode(text)
        if not ids.size:
            raise DataError("there is nothing to score: the text has no token")
        unknown = int((ids == self.vocabulary.names.index(UNK)).sum()) if UNK in self.vocabulary.names else 0
        total = float(self.model.log_probs(ids, begins).sum())
        return Score(len(ids), unknown, len(text), total)

    def sample(self, tokens: int, prompt: str = "", **settings: Any) -> Iterator[str]:
        """Yield a text of so many tokens that goes on with `prompt`, in pieces.

        Args:
            settings: temperature, top_k, top_p, seed: see `minilm.generation.stream`.
        Errors: those of `stream`, and DataError for a prompt with a token that the model lacks.
        """
        given = self.vocabulary.encode(prompt)
        if self.vocabulary.eos is not None and given.size and not prompt.endswith("\n"):
            given = given[:-1]  # the line is not at its end
        begins = not prompt or prompt[-1].isspace()
        return self.vocabulary.shown(self.model.sample(given, tokens, **settings), begins)

    def save(self, path: str | os.PathLike[str], remarks: Iterable[str] = ()) -> None:
        """Write an ARPA file, whole or not at all. Errors: ConfigError for add-k; OSError."""
        write_arpa(path, self.model, self.vocabulary.names, [f"minilm, level {self.level}", *remarks])

    @classmethod
    def load(cls, path: str | os.PathLike[str], level: str | None = None) -> TextNGram:
        """Read an ARPA file, of minilm or of another tool.

        Args:
            level: "char" or "word"; by default what the file's first remark says, and words where it says nothing.
        Errors: DataError, naming file and line.
        """
        file = read_arpa(path)
        if level is None:
            level = "char" if "minilm, level char" in file.remarks[:1] else "word"
        if level not in LEVELS:
            raise ConfigError(f"level must be {' or '.join(LEVELS)}, not {level!r}")
        if level == "word":
            return cls(file.model, Words(file.names), level)
        characters = [_unescaped(name) for name in file.names]
        for name, character in zip(file.names, characters):
            if len(character) != 1 and character != UNK:
                raise DataError(f"{path}: {name!r} is no character, so this is no model of characters")
        return cls(file.model, Characters(characters), level)
