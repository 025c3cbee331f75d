"""A text made ready for training: its tokenizer, and its tokens in a file that may be larger than memory."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minilm.data import CausalBlocks, ShardedTokens, TokenFile, corpora, tokenize_file
from minilm.data.blocks import split_at
from minilm.data.tokenfile import write_tokens
from minilm.errors import ConfigError, DataError
from minilm.files import checksum, written_whole
from minilm.text import BPETokenizer, CharTokenizer, load_tokenizer
from minilm.text.reading import read_chunks
from minilm.text.tokenizer import FILE_NAME, Tokenizer
from minilm.train.batches import Data, Mixture, RandomBlocks, Streams
from minilm.train.config import TextConfig
from minilm.train.observers import Observer, Samples

TOKENS = "tokens.bin"
SHARDS = "shards.json"  # in place of TOKENS, where they are

Places = Sequence[tuple["str | os.PathLike[str]", float]]  # folders of shards and their weights


@dataclass
class Corpus:
    """A tokenizer and the tokens that it made of a text, split to train and to validate; `name` is for errors."""

    tokenizer: Tokenizer
    tokens: TokenFile | ShardedTokens
    train_fraction: float
    name: str = "the corpus"

    def blocks(self, block_size: int) -> tuple[CausalBlocks, CausalBlocks]:
        """All blocks of `block_size` tokens: to train, and to validate.

        Errors: DataError for a text too short for a single block in either part.
        """
        cut = int(len(self.tokens) * self.train_fraction)
        parts = train, validation = split_at(self.tokens, cut)
        for name, part in zip(("training", "validation"), parts):
            if len(part) < block_size + 1:
                raise DataError(
                    f"{self.name}: is too short: {len(self.tokens)} tokens, of which {len(part)} are the "
                    f"{name} part; a context of {block_size} needs at least {block_size + 1}. "
                    f"Give more text, or a smaller model.block_size"
                )
        return CausalBlocks(train, block_size, stride=1), CausalBlocks(validation, block_size, stride=1)

    def __len__(self) -> int:
        """How many tokens."""
        return len(self.tokens)

    def data(self, config: TextConfig) -> Data:
        """What a Trainer learns from. Errors: those of `blocks` and `Streams`."""
        train, validate = self.blocks(config.model.block_size)
        if not config.in_streams:
            return RandomBlocks(train, validate, config.batch_size, config.seed)
        try:
            return Streams(train, validate, config.batch_size)
        except DataError as error:
            raise DataError(f"{self.name}: is too short: {error}") from None

    def completed(self, config: TextConfig) -> TextConfig:
        """The configuration with what follows from the corpus: the model's vocabulary."""
        return replace(config, model=replace(config.model, vocab_size=self.tokenizer.vocab_size))

    def guessing(self) -> tuple[str, float]:
        """The loss of a model to which all tokens are alike, in words and in nats."""
        V = self.tokenizer.vocab_size
        return f"ln {V}", math.log(V)

    def observers(self, show: Callable[[int, str], None]) -> list[Observer]:
        """The model writes now and then: `show(step, text)`."""
        first = self.tokenizer.decode(self.tokens[:1])
        return [Samples(self.tokenizer, show, "\n" if "\n" in self._beginning() else first)]

    def result(self, folder: Path, minilm: str) -> tuple[str, str]:
        """The command with which the run in `folder` writes; `minilm` is how this program is called."""
        return "let it write", f"{minilm} generate {shlex.quote(str(folder))} --prompt {self._prompt()}"

    def _beginning(self) -> str:
        return self.tokenizer.decode(self.tokens[:2000])

    def _prompt(self) -> str:
        """Something that the model can go on with, quoted for a shell: not every text has these letters."""
        try:
            self.tokenizer.encode("To be")
        except DataError:
            return shlex.quote(self._beginning().split("\n")[0][:8] or self._beginning()[0])
        return '"To be"'

    def checksum(self) -> str:
        """SHA-256 of the tokens: all of them are read. Errors: DataError for a damaged shard; OSError."""
        return self.tokens.verify() if isinstance(self.tokens, ShardedTokens) else checksum(self.tokens.path)

    @classmethod
    def prepare(
        cls,
        source: str | os.PathLike[str] | Places | None,
        folder: Path,
        config: TextConfig,
        progress: Callable[[int, int], None] | None = None,
    ) -> Corpus:
        """Learn a tokenizer from a UTF-8 file (None: the Shakespeare that ships) and write its tokens to `folder`.

        The file is read piece by piece. Of a folder that `minilm tokenize` made, or of several with weights, the
        tokenizer is taken, and the tokens stay where they are: `folder` gets a file that says where.

        Errors: DataError, naming the file, if it is missing, empty or no UTF-8, or a shard is damaged.
        """
        if isinstance(source, Sequence) and not isinstance(source, str):
            return MixedCorpus.of_folders(source, folder, config)
        if source is not None and Path(source).is_dir():
            return MixedCorpus.of_folders([(source, 1.0)], folder, config)
        if source is None:
            text = corpora.shakespeare()
            tokenizer = _learn(iter([text]), config)
            tokens = write_tokens(
                folder / TOKENS, [tokenizer.encode_array(text)], tokenizer.vocab_size, tokenizer.fingerprint
            )
        else:
            try:
                tokenizer = _learn(read_chunks(source), config)
            except DataError as error:
                raise error if str(source) in str(error) else DataError(f"{source}: {error}") from None
            tokens = tokenize_file(source, folder / TOKENS, tokenizer, progress=progress)
        tokenizer.save(folder / FILE_NAME)
        return cls(tokenizer, tokens, config.train_fraction, "the Shakespeare" if source is None else str(source))

    @classmethod
    def load(cls, folder: Path, config: TextConfig) -> Corpus:
        """What `prepare` left in `folder`. Errors: DataError if something is missing or does not fit together."""
        if (folder / SHARDS).exists():
            return MixedCorpus.of(_places(folder / SHARDS), config)
        tokenizer, tokens = load_tokenizer(folder / FILE_NAME), TokenFile(folder / TOKENS)
        tokens.check_tokenizer(tokenizer)
        return cls(tokenizer, tokens, config.train_fraction, str(tokens.path))


@dataclass
class MixedCorpus(Corpus):
    """Folders that `minilm tokenize` made, all with one tokenizer, mixed by weight; `tokens` are those of the first.

    Attributes:
        parts: pairs of a corpus, split to train and to validate by itself, and its weight.
    """

    parts: Sequence[tuple[Corpus, float]] = ()

    @classmethod
    def of(cls, places: Places, config: TextConfig) -> MixedCorpus:
        """The corpus of such folders and their weights.

        Errors: DataError for a folder without shards, one of another tokenizer, or a weight that is not above 0.
        """
        parts: list[tuple[Corpus, float]] = []
        if not places:
            raise DataError("there is no folder to learn from")
        for place, weight in places:
            if not 0 < weight < float("inf"):
                raise DataError(f"{place}: has the weight {weight}; it must be a number above 0")
            shards = ShardedTokens(place)
            parts.append((Corpus(shards.tokenizer(), shards, config.train_fraction, str(place)), weight))
        first = parts[0][0]
        for other, _ in parts:
            if other.tokenizer.fingerprint != first.tokenizer.fingerprint:
                raise DataError(
                    f"{other.name}: was made by another tokenizer than {first.name}, and one model has one: "
                    f"minilm tokenize ... --tokenizer {first.name} makes a folder that goes with it"
                )
        name = " and ".join(corpus.name for corpus, _ in parts)
        return cls(first.tokenizer, first.tokens, config.train_fraction, name, parts)

    @classmethod
    def of_folders(cls, places: Places, folder: Path, config: TextConfig) -> MixedCorpus:
        """`of`, written down in `folder` for `Corpus.load`; the tokens stay where they are. All are read once."""
        corpus = cls.of(places, config)
        content = [
            {"folder": str(Path(place).resolve()), "weight": weight, "sha256": part.checksum()}
            for (place, weight), (part, _) in zip(places, corpus.parts)
        ]
        with written_whole(folder / SHARDS) as file:
            file.write(json.dumps(content, ensure_ascii=False).encode())
        corpus.tokenizer.save(folder / FILE_NAME)
        return corpus

    def __len__(self) -> int:
        return sum(map(len, (part for part, _ in self.parts)))

    def data(self, config: TextConfig) -> Data:
        """Each example is from a folder drawn by weight: a function of the step, so that a run can go on."""
        if config.in_streams and len(self.parts) > 1:
            raise ConfigError(
                "folders that are mixed have no one order in which a state could be carried from batch to batch: "
                "set carry_state=false, or give one folder"
            )
        sources = [(part.data(config), weight) for part, weight in self.parts]
        return sources[0][0] if len(sources) == 1 else Mixture(sources, config.seed)

    def checksum(self) -> str:
        """SHA-256 of all tokens and, of several folders, their weights."""
        if len(self.parts) == 1:
            return self.parts[0][0].checksum()
        lines = [f"{part.checksum()} {weight!r}" for part, weight in self.parts]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def named(texts: Sequence[str]) -> str | Places:
    """What the arguments of a command name, for `Corpus.prepare`: one text or folder, or several as DIR or DIR:WEIGHT.

    A folder without a weight has 1. Errors: DataError for a file among several.
    """
    pairs = [_weighted(text) for text in texts]
    if len(pairs) == 1 and pairs[0][1] is None:
        return pairs[0][0]
    for place, _ in pairs:
        if Path(place).is_file():
            raise DataError(f"{place}: is a file, and only folders that `minilm tokenize` made can be mixed by weight")
    return [(place, 1.0 if weight is None else weight) for place, weight in pairs]


def _weighted(text: str) -> tuple[str, float | None]:
    place, colon, weight = text.rpartition(":")
    if colon and not Path(text).exists():
        with contextlib.suppress(ValueError):
            return place, float(weight)
    return text, None


def _places(path: Path) -> Places:
    try:
        return [(str(part["folder"]), float(part["weight"])) for part in json.loads(path.read_bytes())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: does not say where the shards are ({error!r})") from None


def _learn(chunks: Any, config: TextConfig) -> Tokenizer:
    if config.tokenizer == "char":
        return CharTokenizer.train(chunks)
    return BPETokenizer.train(chunks, config.bpe_vocab_size)
