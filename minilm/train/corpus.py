"""A text made ready for training: its tokenizer, and its tokens in a file that may be larger than memory."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilm.data import CausalBlocks, ShardedTokens, TokenFile, corpora, tokenize_file
from minilm.data.blocks import split_at
from minilm.data.tokenfile import write_tokens
from minilm.errors import DataError
from minilm.files import checksum, written_whole
from minilm.text import BPETokenizer, CharTokenizer, load_tokenizer
from minilm.text.reading import read_chunks
from minilm.text.tokenizer import FILE_NAME, Tokenizer
from minilm.train.batches import RandomBlocks
from minilm.train.config import TrainConfig
from minilm.train.observers import Observer, Samples

TOKENS = "tokens.bin"
SHARDS = "shards.json"  # in place of TOKENS, where they are


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

    def data(self, config: TrainConfig) -> RandomBlocks:
        """Random windows, for a Trainer. Errors: as `blocks`."""
        train, validate = self.blocks(config.model.block_size)
        return RandomBlocks(train, validate, config.batch_size, config.seed)

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
        source: str | os.PathLike[str] | None,
        folder: Path,
        config: TrainConfig,
        progress: Callable[[int, int], None] | None = None,
    ) -> Corpus:
        """Learn a tokenizer from a UTF-8 file (None: the Shakespeare that ships) and write its tokens to `folder`.

        The file is read piece by piece. Of a folder that `minilm tokenize` made the tokenizer is taken, and the
        tokens stay where they are: `folder` gets a file that says where.

        Errors: DataError, naming the file, if it is missing, empty or no UTF-8, or a shard is damaged.
        """
        if source is not None and Path(source).is_dir():
            return cls._of_shards(ShardedTokens(source), folder, config)
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
    def load(cls, folder: Path, config: TrainConfig) -> Corpus:
        """What `prepare` left in `folder`. Errors: DataError if something is missing or does not fit together."""
        if (folder / SHARDS).exists():
            shards = ShardedTokens(_place(folder / SHARDS))
            return cls(shards.tokenizer(), shards, config.train_fraction, str(shards.path))
        tokenizer, tokens = load_tokenizer(folder / FILE_NAME), TokenFile(folder / TOKENS)
        tokens.check_tokenizer(tokenizer)
        return cls(tokenizer, tokens, config.train_fraction, str(tokens.path))

    @classmethod
    def _of_shards(cls, shards: ShardedTokens, folder: Path, config: TrainConfig) -> Corpus:
        tokenizer = shards.tokenizer()
        content = {"folder": str(shards.path.resolve()), "sha256": shards.verify()}
        with written_whole(folder / SHARDS) as file:
            file.write(json.dumps(content, ensure_ascii=False).encode())
        tokenizer.save(folder / FILE_NAME)
        return cls(tokenizer, shards, config.train_fraction, str(shards.path))


def _place(path: Path) -> str:
    try:
        return str(json.loads(path.read_bytes())["folder"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: does not say where the shards are ({error!r})") from None


def _learn(chunks: Any, config: TrainConfig) -> Tokenizer:
    if config.tokenizer == "char":
        return CharTokenizer.train(chunks)
    return BPETokenizer.train(chunks, config.bpe_vocab_size)
