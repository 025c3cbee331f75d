"""The examples of a fine-tuning run, and what is around them in its folder.

RUN/train.jsonl, validation.jsonl    the examples as they were read, so that the run needs no other file
RUN/tokenizer.json, vocab.txt, ...   the pretrained model's tokenizer
RUN/model/                           in the end, the best model, as Hugging Face's library reads it
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minilm.data.labels import class_weights
from minilm.errors import ConfigError, DataError
from minilm.files import checksum, written_whole
from minilm.models.hub import found
from minilm.models.pretrained import fill, read_weights
from minilm.tensor import Tensor
from minilm.text.wordpiece import BertTokenizer
from minilm.train.finetuning.examples import Epochs, Progress
from minilm.train.finetuning.tasks import TASKS, BertTask, restored
from minilm.train.observers import Observer

Array = Any

TRAIN, VALIDATION = "train.jsonl", "validation.jsonl"


@dataclass(frozen=True)
class Source:
    """Where the examples of a run come from: files, and how they are read.

    Attributes:
        train: the file to learn from. validate: that to test on; None for the last part of `train`.
        options: what the task's reader takes besides, as text_column.
    """

    train: Path
    validate: Path | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


class FinetuneCorpus:
    """The examples of a run that fine-tunes, around a task (`tasks.py`).

    Attributes:
        task: what the model learns. train, validation: the originals.
        learnt, encoded: the same as the model sees them. place: the run's folder.
    """

    task: Any  # a BertTask, or of a subclass another
    learnt: Any
    encoded: Any

    def __init__(
        self,
        task: BertTask,
        train: Sequence[Any],
        validation: Sequence[Any],
        place: Path,
        progress: Progress = None,
    ) -> None:
        self.config, self.task, self.train, self.validation, self.place = task.config, task, train, validation, place
        total = len(train) + len(validation)
        self.learnt = self.task.encode(train, progress=_part_of(total, 0, progress))
        self.encoded = self.task.encode(validation, progress=_part_of(total, len(train), progress))

    @property
    def tokenizer(self) -> BertTokenizer:
        """The pretrained model's."""
        return self.task.tokenizer

    # --- a run's corpus, as `tasks.Task` says ------------------------------------------------------------

    @classmethod
    def prepare(cls, source: Source, folder: Path, config: Any, progress: Progress = None) -> Any:
        """Read the examples, and put them and the tokenizer into the run's folder. Errors: DataError, ConfigError."""
        kind = TASKS[config.task]
        train = kind.read(source.train, config, **source.options)
        if source.validate is None:
            count = round(len(train) * config.train_fraction)
            train, validation, labels = train[:count], train[count:], kind.labels_of(train)
            if not train or not validation:
                raise DataError(f"{source.train}: too few examples to keep some for validation; give a file of them")
        else:
            validation, labels = kind.read(source.validate, config, **source.options), kind.labels_of(train)
        tokenizer = BertTokenizer.from_pretrained(found(config.pretrained))
        corpus = cls(kind(config, tokenizer, labels), train, validation, folder, progress)
        for name, originals in ((TRAIN, train), (VALIDATION, validation)):
            with written_whole(folder / name, "w") as file:
                for original in originals:
                    file.write(json.dumps(dataclasses.asdict(original), ensure_ascii=False) + "\n")
        tokenizer.save_pretrained(folder)
        return corpus

    @classmethod
    def load(cls, folder: Path, config: Any) -> Any:
        """What `prepare` left in `folder`. Errors: DataError for files that are not as they were."""
        task = restored(config, folder)
        train, validation = (_read_originals(folder / name, type(task)) for name in (TRAIN, VALIDATION))
        return cls(task, train, validation, folder)

    def completed(self, config: Any) -> Any:
        """The configuration with what follows from the examples: the classes, steps, evaluations."""
        data = self.data(config)
        model = config.model
        if self.task.labels is not None:
            names = {
                "num_labels": len(self.task.labels),
                "id2label": self.task.labels.id2label,
                "label2id": self.task.labels.label2id,
            }
            model = replace(model, **names)
        if model.vocab_size != self.tokenizer.vocab_size:
            count = self.tokenizer.vocab_size
            raise ConfigError(f"{config.pretrained}: the tokenizer has {count} tokens, the model {model.vocab_size}")
        follows: dict[str, Any] = {}
        if config.task == "qa":
            follows["no_answer"] = any(not question.answers for question in self.train)
        every = math.ceil(data.steps / config.evaluations)
        self.config = self.task.config = replace(
            config,
            model=model,
            steps=min(config.steps, config.epochs * data.steps),
            eval_every=every,
            checkpoint_every=every,
            eval_batches=data.evaluations,
            **follows,
        )
        return self.config

    def __len__(self) -> int:
        """How many tokens are learnt from."""
        return int(self.learnt.examples.starts[-1])

    @property
    def name(self) -> str:
        """The files with the examples, for errors."""
        return f"{self.place / TRAIN} or {VALIDATION}"

    def start(self, model: Any) -> None:
        """Give a fresh model the pretrained weights; its head is new. Errors: CheckpointError."""
        folder = found(self.config.pretrained)
        fill(model, read_weights(folder), str(folder), ignore_mismatched=True)

    def prepared(self, model: Any) -> None:
        """What is no weight and yet part of the model, when a run begins or goes on: how classes count."""
        model.usual_length = round(float(self.learnt.examples.lengths.mean()))
        if self.config.class_weights and self.task.labels is not None:
            model.class_weights = Tensor(class_weights(self.learnt.examples.targets, self.task.labels))

    def data(self, config: Any) -> Any:
        """The examples, for a Trainer."""
        examples = self.learnt.examples, self.encoded.examples
        return Epochs(*examples, config.batch_size, config.seed, self.tokenizer.pad_token_id, self.assess)

    def assess(self, model: Any) -> tuple[float, dict[str, float]]:
        """The mean loss over all validation examples, and the measures, of one pass."""
        loss, predictions = self.task.predicted(model, self.encoded, self.validation)
        return loss, self.task.measured(predictions, self.validation)

    def checksum(self) -> str:
        """SHA-256 of the examples. Errors: OSError."""
        parts = "".join(checksum(self.place / name) for name in (TRAIN, VALIDATION))
        return hashlib.sha256(parts.encode()).hexdigest()

    def guessing(self) -> tuple[str, float]:
        """The loss of knowing nothing, in words and in nats."""
        count = self.task.choices(self.learnt.examples)
        return f"ln {count}", math.log(count)

    def observers(self, show: Callable[[int, str], None]) -> list[Observer]:
        """The best model is written at the end, with its predictions and a report."""
        from minilm.train.finetuning.results import Results

        return [Results(self)]

    def result(self, folder: Path, minilm: str) -> tuple[str, str]:
        """How the model is used."""
        return "predict", f"{minilm} predict {folder / 'model'} FILE"


def _part_of(total: int, before: int, progress: Progress) -> Progress:
    """What shows the progress of a part of `total`, that `before` of them were done before."""
    return None if progress is None else lambda done, _: progress(before + done, total)


def _read_originals(path: Path, kind: Any) -> list[Any]:
    """What `prepare` wrote. Errors: DataError that names the file."""
    try:
        with path.open(encoding="utf-8") as file:
            return [kind.original(json.loads(line)) for line in file]
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file, so the run cannot go on") from None
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: is not as the run wrote it ({error})") from None
