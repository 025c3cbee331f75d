"""BERT's pre-training as a run: a text becomes segment pairs with masked tokens, and at the end a folder to fine-tune.

    RUN/tokens.bin               the text as WordPiece tokens
    RUN/sentences.safetensors    where sentences and documents begin
    RUN/pretrained/              what Hugging Face's library reads: config.json, model.safetensors, vocab.txt, ...

Source: Devlin et al. 2019, section 3.1.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from minilm.data import TokenFile, corpora, write_tokens
from minilm.data.masking import SPECIAL, Masking
from minilm.data.sentence_pairs import SentencePairs
from minilm.data.sentences import Documents, sentences
from minilm.errors import CheckpointError, ConfigError, DataError
from minilm.files import checksum
from minilm.models.bert_config import BertConfig
from minilm.models.bert_heads import BertForPreTraining
from minilm.serialization import load, save
from minilm.tensor import Tensor
from minilm.text.reading import read_chunks
from minilm.text.tokenizer import FILE_NAME
from minilm.text.wordpiece import BertTokenizer
from minilm.train.batches import Batch
from minilm.train.bert_matching import match_segments
from minilm.train.config import RunConfig
from minilm.train.corpus import TOKENS
from minilm.train.observers import Observer

SENTENCES, PRETRAINED = "sentences.safetensors", "pretrained"
AT_A_TIME = 4096  # sentences that the tokenizer gets at once

Array = NDArray[Any]


def _small_bert() -> BertConfig:
    return BertConfig(
        vocab_size=len(SPECIAL),
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        hidden_dropout_prob=0.0,  # ten minutes pass few texts often
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=256,
        initializer_range=0.035,  # BERT's 0.02 is for 768 channels; for 256 it is larger by the root of 3
    )


@dataclass
class PretrainConfig(RunConfig):
    """A run that pre-trains a BERT on a text, with settings for some ten minutes on two cores.

    Attributes:
        model: the model's shape; its vocab_size follows from the tokenizer. max_position_embeddings is T, the tokens of
            a pair.
        vocab_size: how many tokens the WordPiece tokenizer learns. lowercase: whether upper and lower case are alike.
        document_gap: so many blank lines, or more, end a document; 0: the text is one document. A text as BERT's own
            tools read it, a sentence a line and a blank line between documents, has 1.
        mask_probability: the share of tokens that are to be guessed in training. measured_mask_probability: the same
            in what validates; BERT's 15%, so that runs compare. whole_words: whether words are masked whole.
        short_probability: the share of pairs with a random length, below T.
        split_documents: whether the last part of each document validates, so that what is asked for is of works that
            are known; otherwise the last part of the text, works that are not.
    """

    TASK: ClassVar[str] = "bert"
    METRICS: ClassVar[tuple[str, ...]] = ("masked_accuracy", "next_sentence_accuracy")
    VOCABULARY: ClassVar[str] = "set vocab_size, without model."

    model: BertConfig = field(default_factory=_small_bert)
    task: str = TASK
    vocab_size: int = 2048
    lowercase: bool = True
    document_gap: int = 4
    mask_probability: float = 0.3
    measured_mask_probability: float = 0.15
    whole_words: bool = False
    short_probability: float = 0.1
    split_documents: bool = True
    batch_size: int = 16
    steps: int = 1200
    learning_rate: float = 5e-4
    min_learning_rate: float = 1e-5
    warmup_steps: int = 150
    beta2: float = 0.98
    weight_decay: float = 0.01
    precision: str = "bf16"
    log_every: int = 20

    def check(self) -> None:
        """Raise ConfigError for a run that makes no sense."""
        self.require("vocab_size", self.vocab_size > len(SPECIAL), f"more than the {len(SPECIAL)} special tokens")
        self.require("document_gap", self.document_gap >= 0, "at least 0")
        for name in ("mask_probability", "measured_mask_probability"):
            self.require(name, 0 < getattr(self, name) <= 1, "above 0 and at most 1")
        self.require("short_probability", 0 <= self.short_probability <= 1, "from 0 to 1")
        unknown = set(self.model.others) - {"model_type"}
        if unknown:
            raise ConfigError(f"unknown key {min(unknown)!r} in model; a BertConfig has Hugging Face's names")
        if self.model.max_position_embeddings < 5 or self.model.type_vocab_size < 2:
            raise ConfigError("the model needs at least 5 positions and 2 types: two segments, and three tokens around")
        super().check()

    @property
    def sequence_length(self) -> int:
        """T, the tokens of an example."""
        return self.model.max_position_embeddings


class SegmentPairs:
    """What a Trainer learns BERT's two tasks from: `SentencePairs` of a training and a validation part.

    Attributes:
        train, validate: the pairs. seed: of the draws.
        counts: (V,) how often each token is in the training part, 0 for special ones. commonest: the most frequent,
            which is what would be predicted by word frequency alone.
    """

    def __init__(self, train: SentencePairs, validate: SentencePairs, seed: int) -> None:
        self.train, self.validate, self.seed = train, validate, seed
        special = train.masking.special
        counts = np.zeros(len(special), np.int64)
        tokens = train.documents.tokens
        for first in range(0, len(tokens), 1 << 20):  # in parts, since bincount copies into int64
            counts += np.bincount(tokens[first : first + (1 << 20)], minlength=len(special))
        self.counts = np.where(special, 0, counts)
        self.commonest = int(self.counts.argmax())

    def batch(self, step: int) -> Batch:
        """input_ids, token_type_ids, attention_mask, labels (B, T) and next_sentence_label (B,) of that step."""
        return self.train.batch(self.seed, step)

    def validation(self, index: int, seed: int = 0) -> Batch:
        """The same of text that is not learnt from."""
        return self.validate.batch(seed, index)

    def measures(self, *batch: Tensor) -> dict[str, tuple[int, int]]:
        """How many masked tokens one guesses that always says the commonest, and of how many."""
        labels = batch[3].array
        return {"accuracy_by_frequency": (int((labels == self.commonest).sum()), int((labels >= 0).sum()))}


@dataclass
class PretrainCorpus:
    """A tokenizer, and the documents of sentences that it made of a text; `name` is for errors."""

    tokenizer: BertTokenizer
    tokens: TokenFile
    documents: Documents
    config: PretrainConfig
    name: str

    @classmethod
    def prepare(
        cls,
        source: str | os.PathLike[str] | None,
        folder: Path,
        config: PretrainConfig,
        progress: Callable[[int, int], None] | None = None,
    ) -> PretrainCorpus:
        """Learn a vocabulary from a UTF-8 file (None: the Shakespeare that ships) and write its tokens to `folder`.

        Errors: DataError, naming the file, if it is missing, empty, no UTF-8 or too short.
        """
        name = "the Shakespeare" if source is None else str(source)
        if source is not None and Path(source).is_dir():
            raise DataError(f"{name}: is a folder; pre-training needs the text itself, for sentences and documents")
        try:
            if source is None:
                tokenizer = BertTokenizer.train(corpora.shakespeare(), config.vocab_size, config.lowercase)
            else:
                tokenizer = BertTokenizer.train_files(source, config.vocab_size, config.lowercase)
            chunks = iter([corpora.shakespeare()]) if source is None else read_chunks(source, progress=progress)
            bounds: dict[str, list[int]] = {"sentences": [0], "documents": [0]}
            arrays = _encoded(sentences(chunks, config.document_gap), tokenizer, bounds)
            write_tokens(folder / TOKENS, arrays, tokenizer.vocab_size, tokenizer.fingerprint)
        except DataError as error:
            raise error if name in str(error) else DataError(f"{name}: {error}") from None
        save({key: np.array(value, np.int64) for key, value in bounds.items()}, folder / SENTENCES)
        tokenizer.save(folder / FILE_NAME)
        return cls.load(folder, config, name)

    @classmethod
    def load(cls, folder: Path, config: PretrainConfig, name: str | None = None) -> PretrainCorpus:
        """What `prepare` left in `folder`. Errors: DataError if something is missing or does not fit together."""
        tokenizer, tokens = BertTokenizer.load(folder / FILE_NAME), TokenFile(folder / TOKENS)
        tokenizer.model_max_length = config.sequence_length
        tokens.check_tokenizer(tokenizer)
        try:
            bounds = load(folder / SENTENCES)
            documents = Documents(tokens.tokens, *(bounds[key].numpy() for key in ("sentences", "documents")))
        except (CheckpointError, KeyError, DataError) as error:
            raise DataError(f"{folder / SENTENCES}: does not go with {TOKENS} ({error})") from None
        return cls(tokenizer, tokens, documents, config, name or str(tokens.path))

    def data(self, config: PretrainConfig) -> SegmentPairs:
        """Segment pairs, for a Trainer. Errors: DataError for too short a text."""
        masking = Masking.of(self.tokenizer, config.mask_probability, config.whole_words)
        measured = replace(masking, probability=config.measured_mask_probability)
        T, B, short = config.sequence_length, config.batch_size, config.short_probability
        try:
            parts = self.documents.split(config.train_fraction, config.split_documents)
            train, validate = (SentencePairs(part, T, B, how, short) for part, how in zip(parts, (masking, measured)))
        except DataError as error:
            raise DataError(f"{self.name}: is too short: {error}") from None
        return SegmentPairs(train, validate, config.seed)

    def __len__(self) -> int:
        """How many tokens."""
        return len(self.tokens)

    def completed(self, config: PretrainConfig) -> PretrainConfig:
        """The configuration with what follows from the corpus: the model's vocabulary."""
        return replace(config, model=replace(config.model, vocab_size=self.tokenizer.vocab_size))

    def start(self, model: BertForPreTraining) -> None:
        """A fresh model's heads that match segments, and its scores: logarithms of frequencies in the training part.

        The bias moves by no more than about the learning rate in a step, and these lie 8 apart. Beginning at 0, it lets
        all hidden states learn to say them first, alike whatever the text, and at higher rates they remain so.
        """
        counts, special = self.data(self.config).counts, self.tokenizer
        match_segments(model, counts, special.cls_token_id, special.sep_token_id)
        model.cls["predictions"].bias.array[...] = np.log((counts + 0.5) / (counts + 0.5).sum())

    def guessing(self) -> tuple[str, float]:
        """The loss of a model to which all tokens are alike, and both answers, in words and in nats."""
        V = self.tokenizer.vocab_size
        return f"ln {V} + ln 2", math.log(V) + math.log(2)

    def observers(self, show: Callable[[int, str], None]) -> list[Observer]:
        """The pretrained model is written at the end."""
        return [SavePretrained(self.tokenizer)]

    def result(self, folder: Path, minilm: str) -> tuple[str, str]:
        """Where the pretrained model is."""
        return "pretrained", str(folder / PRETRAINED)

    def checksum(self) -> str:
        """SHA-256 of the tokens and of where sentences begin: all is read. Errors: OSError."""
        parts = checksum(self.tokens.path) + checksum(self.tokens.path.parent / SENTENCES)
        return hashlib.sha256(parts.encode()).hexdigest()


def _encoded(found: Iterator[str | None], tokenizer: BertTokenizer, bounds: dict[str, list[int]]) -> Iterator[Array]:
    """The tokens of sentences; where sentences and documents begin is appended to `bounds`.

    What has no tokens, such as a line of control characters, is left out, and so is a document of nothing else.
    """
    starts, documents = bounds["sentences"], bounds["documents"]
    while some := list(islice(found, AT_A_TIME)):
        texts = [text for text in some if text is not None]
        rows: Iterable[list[int]] = ()
        if texts:
            rows = tokenizer(texts, add_special_tokens=False, truncation=False)["input_ids"]
        lengths = iter([len(row) for row in rows])
        for text in some:
            if text is None:
                if documents[-1] != len(starts) - 1:
                    documents.append(len(starts) - 1)
            elif length := next(lengths):
                starts.append(starts[-1] + length)
        if total := sum(map(len, rows)):
            yield np.fromiter((token for row in rows for token in row), tokenizer.dtype, total)


class SavePretrained(Observer):
    """Writes RUN/pretrained when training ends: the model and its tokenizer, for fine-tuning, here or elsewhere."""

    def __init__(self, tokenizer: BertTokenizer) -> None:
        self.tokenizer = tokenizer

    def ended(self, trainer: Any) -> None:
        """Write them, with the averaged weights, if there are any; an interrupted run does not."""
        if trainer.folder is None or trainer.interrupted:
            return
        with trainer.averaged():
            trainer.model.save_pretrained(trainer.folder / PRETRAINED)
        self.tokenizer.save_pretrained(trainer.folder / PRETRAINED)
