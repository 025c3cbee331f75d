"""The pairs of a run that learns to translate or to summarise, and what is around them in its folder.

RUN/train.jsonl, validation.jsonl    the pairs as they were read, so that the run needs no other file
RUN/tokenizer.json                   the byte pairs of both sides, or the pretrained model's
RUN/model/                           in the end, the best model, as Hugging Face's library reads it
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from minilm.data.pair_batches import TokenBatches
from minilm.data.pairs import TextPair, held_out
from minilm.errors import ConfigError, DataError
from minilm.files import written_whole
from minilm.models.hub import found
from minilm.models.pretrained import fill, read_weights
from minilm.text.pair_tokenizer import PairTokenizer
from minilm.train.finetuning.corpus import TRAIN, VALIDATION, FinetuneCorpus, Source
from minilm.train.finetuning.pair_tasks import PairTask, Sides
from minilm.train.finetuning.tasks import TASKS
from minilm.train.observers import Observer

SHOWN = 3  # of the pairs that are too long, how many are named


class PairCorpus(FinetuneCorpus):
    """Pairs around a task (`pair_tasks.py`); see FinetuneCorpus.

    Attributes:
        notes: what was left out or cut, in words.
    """

    def __init__(self, task: PairTask, train: Sequence[Any], validation: Sequence[Any], place: Path) -> None:
        self.config, self.task, self.place = task.config, task, place
        self.notes: list[str] = []
        self.train, self.learnt = self._short(train)
        self.validation, self.encoded = validation, task.encode(validation)
        if task.cut:
            self.notes.append(f"{task.cut:,} sources are cut at {self.config.max_source} tokens (max_source)")

    def _short(self, pairs: Sequence[TextPair]) -> tuple[list[TextPair], Sides]:
        """The pairs to learn from that are not too long, and as tokens; the others are counted."""
        c, (sources, targets) = self.config, self.task.tokens(pairs)
        kept = [n for n in range(len(pairs)) if len(sources[n]) <= c.max_source and len(targets[n]) <= c.max_target]
        if len(kept) < len(pairs):
            rest = set(range(len(pairs))) - set(kept)
            which = [pairs[n].where for n in sorted(rest)[:SHOWN]]
            limits = f"longer than {c.max_source} tokens (max_source) or {c.max_target} (max_target)"
            if not kept:
                raise DataError(f"{which[0]}: this pair and all others are {limits}, so there is nothing to learn from")
            self.notes.append(
                f"{len(rest):,} of {len(pairs):,} pairs are {limits} and not learnt from: "
                f"{', '.join(which)}{', ...' * (len(rest) > SHOWN)}"
            )
        return [pairs[n] for n in kept], Sides.of([sources[n] for n in kept], [targets[n] for n in kept])

    @classmethod
    def prepare(
        cls, source: Source, folder: Path, config: Any, progress: Callable[[int, int], None] | None = None
    ) -> Any:
        """Read the pairs, learn a vocabulary from those to learn from, and put all into the run's folder.

        Errors: DataError with file and line, ConfigError; MissingExtraError where a run is to go by a measure whose
        package is missing.
        """
        kind = TASKS[config.task]
        train = kind.read(source.train, config, **source.options)
        if source.validate is None:
            train, validation = held_out(train, config.held_out)
        else:
            validation = kind.read(source.validate, config, **source.options)
        if config.pretrained:
            tokenizer = PairTokenizer.from_pretrained(found(config.pretrained))
        else:
            tokenizer = PairTokenizer.train((text for p in train for text in (p.source, p.target)), config.vocabulary)
        task = kind(config, tokenizer)
        if config.metric != "loss":
            task.scores(["a"], ["a"])
        corpus = cls(task, train, validation, folder)
        for name, originals in ((TRAIN, train), (VALIDATION, validation)):
            with written_whole(folder / name, "w") as file:
                for original in originals:
                    file.write(json.dumps(dataclasses.asdict(original), ensure_ascii=False) + "\n")
        tokenizer.save_pretrained(folder)
        return corpus

    def completed(self, config: Any) -> Any:
        """The configuration with what follows from the pairs: the vocabulary, steps, evaluations."""
        data, V = self.data(config), self.tokenizer.vocab_size
        model = config.model
        if not config.pretrained:
            model = replace(model, vocab_size=V, decoder_vocab_size=None)
        elif model.vocab_size < V:
            raise ConfigError(f"{config.pretrained}: the tokenizer has {V} tokens, the model {model.vocab_size}")
        every = math.ceil(data.steps / config.evaluations)
        self.config = self.task.config = replace(
            config,
            model=model,
            steps=min(config.steps, config.epochs * data.steps),
            eval_every=every,
            checkpoint_every=every,
            eval_batches=data.evaluations,
        )
        return self.config

    def __len__(self) -> int:
        """How many tokens are learnt from, of both sides."""
        return self.learnt.examples.tokens

    def start(self, model: Any) -> None:
        """Give a fresh model the pretrained weights, if there are any. Errors: CheckpointError."""
        if self.config.pretrained:
            folder = found(self.config.pretrained)
            fill(model, read_weights(folder), str(folder), ignore_mismatched=False)

    def prepared(self, model: Any) -> None:
        """What is no weight and yet part of the model, when a run begins or goes on: how labels are smoothed."""
        model.label_smoothing = self.config.label_smoothing
        examples = self.learnt.examples
        model.usual_lengths = float(examples.source_lengths.mean()), float(examples.target_lengths.mean())

    def data(self, config: Any) -> TokenBatches:
        """The pairs, for a Trainer."""
        examples = self.learnt.examples, self.encoded.examples
        return TokenBatches(*examples, config.batch_tokens, config.seed, self.tokenizer.pad_token_id, self.assess)

    def assess(self, model: Any) -> tuple[float, dict[str, float]]:
        """The mean loss over all validation pairs, and the measures of greedy outputs where a run goes by one."""
        batches = self.encoded.examples.by_length(self.config.batch_size)
        loss = self.task.loss(model, self.encoded.examples, batches)
        if self.config.metric == "loss":
            return loss, {}
        return loss, self.task.measured(self.task.greedy(model, self.encoded), self.validation)

    def observers(self, show: Callable[[int, str], None]) -> list[Observer]:
        """The best model is written at the end, with its outputs and a report."""
        from minilm.train.finetuning.pair_results import PairResults

        return [PairResults(self)]

    def result(self, folder: Path, minilm: str) -> tuple[str, str]:
        """How the model is used."""
        return self.config.task, f"{minilm} translate {folder} TEXT (or FILE)"
