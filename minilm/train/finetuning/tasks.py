"""BERT's three tasks: classes of texts, tags of words, answers in texts; and all tasks by their names."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from minilm.data.answer_inputs import Prediction, answer_windows, best_answers
from minilm.data.classification import TextExample, label_ids, read_classification
from minilm.data.labels import LabelMap
from minilm.data.squad import Answer, Question, read_squad
from minilm.data.tag_inputs import tag_windows, word_tags
from minilm.data.tagging import TaggedSentence, read_conll, read_conllu
from minilm.data.text_inputs import text_rows
from minilm.errors import MissingExtraError
from minilm.evaluation.classification import classification_measures, confusion_matrix, measures_of_confusion
from minilm.evaluation.intervals import Measure
from minilm.evaluation.squad import squad_measures, squad_scores
from minilm.evaluation.tagging import tagging_measures
from minilm.models.bert_heads import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from minilm.modes import no_grad
from minilm.tensor import Tensor
from minilm.text.wordpiece import BertTokenizer
from minilm.train.batches import targets_in
from minilm.train.finetuning.examples import Examples, Progress
from minilm.train.finetuning.pair_tasks import Summarization, Translation

Array = Any


@dataclass
class Encoded:
    """Originals as the model sees them.

    Attributes:
        examples: what is batched. windows: what they were made of, to go back from scores to originals.
    """

    examples: Examples
    windows: Any = None


class BertTask(ABC):
    """How a file is read, how originals (texts, sentences, questions) become examples, and what a model's scores mean.

    Attributes:
        config: the run's, of which max_length and the like matter here. tokenizer: the model's.
        labels: the classes; None where there are none.
    """

    MODEL: ClassVar[Any]
    TOKENIZER: ClassVar[Any] = BertTokenizer
    PACK: ClassVar[bool] = True  # whether padding needs no scores
    LABELLED: ClassVar[bool] = True  # whether there are classes

    def __init__(self, config: Any, tokenizer: BertTokenizer, labels: LabelMap | None = None) -> None:
        self.config, self.tokenizer, self.labels = config, tokenizer, labels

    @staticmethod
    @abstractmethod
    def read(path: Path, config: Any, labelled: bool = True, **options: Any) -> list[Any]:
        """The originals in a file. Errors: DataError with file and line."""

    @staticmethod
    @abstractmethod
    def original(values: dict[str, Any]) -> Any:
        """An original, of what `dataclasses.asdict` made of it. Errors: KeyError, TypeError for something else."""

    @staticmethod
    def labels_of(originals: Sequence[Any]) -> LabelMap | None:
        """The classes."""
        return None

    @abstractmethod
    def encode(self, originals: Sequence[Any], labelled: bool = True, progress: Progress = None) -> Encoded:
        """The examples that the model sees. Errors: DataError, as for a label that is none of training's."""

    @abstractmethod
    def interpreted(self, scores: list[Array], encoded: Encoded, originals: Sequence[Any]) -> list[Any]:
        """What the model's scores, an array for each example, say of each original."""

    @abstractmethod
    def measured(self, predictions: list[Any], originals: Sequence[Any]) -> dict[str, float]:
        """How good predictions are."""

    @abstractmethod
    def judged(self, predictions: list[Any], originals: Sequence[Any]) -> tuple[dict[str, Measure], Array | None]:
        """The measures with confidence intervals, and how often each class was taken for which (None: no classes).

        Errors: MissingExtraError without the packages that the measures come from.
        """

    @abstractmethod
    def rows(self, predictions: list[Any], originals: Sequence[Any]) -> Iterable[dict[str, Any]]:
        """Predictions as they are written to a file, an object each."""

    def scores(self, output: Any) -> Array:
        """The scores in a model's output, an example each along the first axis."""
        return output.logits.numpy()

    def named(self, targets: Array) -> dict[str, Tensor]:
        """Targets as the model's call takes them."""
        return {"labels": Tensor(targets)}

    def choices(self, examples: Examples) -> int:
        """Among how many a model chooses that knows nothing."""
        return 1 if self.labels is None else len(self.labels)

    def predicted(
        self,
        model: Any,
        encoded: Encoded,
        originals: Sequence[Any],
        labelled: bool = True,
        progress: Progress = None,
    ) -> tuple[float, list[Any]]:
        """The mean loss over all targets (NaN without labels), and a prediction for each original.

        progress: called with (examples done, examples) as it goes; an original may be several.
        """
        examples = encoded.examples
        scores: list[Array] = [None] * len(examples)
        total, count, done = 0.0, 0, 0
        with no_grad():
            for numbers in examples.by_length(self.config.batch_size):
                ids, types, mask, targets = examples.gather(numbers, self.tokenizer.pad_token_id)
                labels = self.named(targets) if labelled else {}
                output = model(*map(Tensor, (ids, mask, types)), **labels, pack=self.PACK)
                if labelled:
                    found = targets_in((targets,))
                    total, count = total + output.loss.item() * found, count + found
                for number, row in zip(numbers, self.scores(output)):
                    scores[number] = row
                done += len(numbers)
                if progress is not None:
                    progress(done, len(examples))
        return total / count if count else math.nan, self.interpreted(scores, encoded, originals)


class Classification(BertTask):
    """Which class a text, or a pair of texts, is of."""

    MODEL = BertForSequenceClassification

    @staticmethod
    def original(values: dict[str, Any]) -> Any:
        """A text."""
        return TextExample(**values)

    @staticmethod
    def read(path: Path, config: Any, labelled: bool = True, **options: Any) -> list[Any]:
        """Texts of a CSV, TSV or JSON lines file; `options` as `read_classification` takes them."""
        return read_classification(path, labelled=labelled, **options)

    @staticmethod
    def labels_of(originals: Sequence[TextExample]) -> LabelMap:
        """All labels that occur."""
        return LabelMap.of(str(example.label) for example in originals)

    def encode(self, originals: Sequence[TextExample], labelled: bool = True, progress: Progress = None) -> Encoded:
        """[CLS] text [SEP], or [CLS] text [SEP] pair [SEP], cut to max_length tokens."""
        assert self.labels is not None
        ids = label_ids(originals, self.labels) if labelled else np.zeros(len(originals), np.int64)
        rows = text_rows(self.tokenizer, originals, max_length=self.config.max_length, progress=progress)
        return Encoded(Examples.of(rows.rows, ids), rows)

    def interpreted(self, scores: list[Array], encoded: Encoded, originals: Sequence[Any]) -> list[Any]:
        """The probabilities of the classes, for each text."""
        logits = np.array(scores, np.float64)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        return list(shares / shares.sum(1, keepdims=True))

    def measured(self, predictions: list[Any], originals: Sequence[TextExample]) -> dict[str, float]:
        """The share of right classes, and the mean of the classes' F1."""
        assert self.labels is not None
        right, said = label_ids(originals, self.labels), np.argmax(predictions, 1)
        matrix = confusion_matrix(right, said, len(self.labels))
        seen = matrix.any(0) | matrix.any(1)
        return {
            "accuracy": float(np.mean(right == said)),
            "f1_macro": measures_of_confusion(matrix[seen][:, seen])["f1_macro"],
        }

    def judged(self, predictions: list[Any], originals: Sequence[Any]) -> tuple[dict[str, Measure], Array | None]:
        """Accuracy, F1 and Matthews' correlation."""
        assert self.labels is not None
        right, said = label_ids(originals, self.labels), np.argmax(predictions, 1)
        return classification_measures(right, said), confusion_matrix(right, said, len(self.labels))

    def rows(self, predictions: list[Any], originals: Sequence[TextExample]) -> Iterable[dict[str, Any]]:
        """Each text with the class that was predicted, and its probability."""
        assert self.labels is not None
        for shares, example in zip(predictions, originals):
            best = int(np.argmax(shares))
            yield {
                "text": example.text,
                **({} if example.pair is None else {"pair": example.pair}),
                **({} if example.label is None else {"label": example.label}),
                "predicted": self.labels.names[best],
                "probability": float(shares[best]),
            }


class Tagging(BertTask):
    """A tag for each word of a sentence."""

    MODEL = BertForTokenClassification

    @staticmethod
    def original(values: dict[str, Any]) -> Any:
        """A sentence."""
        words, tags, lines = (tuple(values[name]) for name in ("words", "tags", "lines"))
        return TaggedSentence(words, tags, lines, values["file"])

    @staticmethod
    def read(path: Path, config: Any, labelled: bool = True, **options: Any) -> list[Any]:
        """Sentences of a CoNLL-U file (.conllu), or of any CoNLL file with a word and its tag in a line."""
        if path.suffix == ".conllu":
            return read_conllu(path, config.tags or "upos", labelled)
        return read_conll(path, labelled=labelled, **options)

    @staticmethod
    def labels_of(originals: Sequence[TaggedSentence]) -> LabelMap:
        """All tags that occur."""
        return LabelMap.of(tag for sentence in originals for tag in sentence.tags)

    def encode(self, originals: Sequence[TaggedSentence], labelled: bool = True, progress: Progress = None) -> Encoded:
        """Windows over the sentences; a word's tag stands at its first token."""
        labels, length = self.labels if labelled else None, self.config.max_length
        windows = tag_windows(self.tokenizer, originals, labels, length, min(32, (length - 3) // 2), progress)
        return Encoded(Examples.of(windows.rows, [row["labels"] for row in windows.rows], by_token=True), windows)

    def interpreted(self, scores: list[Array], encoded: Encoded, originals: Sequence[Any]) -> list[Any]:
        """The tags of each sentence's words."""
        assert self.labels is not None
        return word_tags([row.argmax(-1) for row in scores], encoded.windows, originals, self.labels)

    def measured(self, predictions: list[Any], originals: Sequence[TaggedSentence]) -> dict[str, float]:
        """The share of right tags and, where they mark spans, the spans' F1 (without seqeval the first alone)."""
        right = [list(sentence.tags) for sentence in originals]
        try:
            measures = tagging_measures(right, predictions, resamples=1)
        except MissingExtraError:
            same = [a == b for said, told in zip(predictions, right) for a, b in zip(said, told)]
            return {"token_accuracy": float(np.mean(same))}
        return {name: measure.value for name, measure in measures.items()}

    def judged(self, predictions: list[Any], originals: Sequence[Any]) -> tuple[dict[str, Measure], Array | None]:
        """The share of right tags, and the spans' precision, recall and F1."""
        assert self.labels is not None
        right = [list(sentence.tags) for sentence in originals]
        true, said = ([self.labels.label2id[tag] for each in tags for tag in each] for tags in (right, predictions))
        return tagging_measures(right, predictions), confusion_matrix(true, said, len(self.labels))

    def rows(self, predictions: list[Any], originals: Sequence[TaggedSentence]) -> Iterable[dict[str, Any]]:
        """Each sentence's words and the tags that were predicted."""
        for tags, sentence in zip(predictions, originals):
            told = {"tags": list(sentence.tags)} if sentence.tags else {}
            yield {"words": list(sentence.words), **told, "predicted": tags}


class Answering(BertTask):
    """Where in a text the answer to a question stands."""

    MODEL = BertForQuestionAnswering
    PACK = False  # as in training, where the loss counts padding too
    LABELLED = False

    @staticmethod
    def original(values: dict[str, Any]) -> Any:
        """A question."""
        return Question(**{**values, "answers": tuple(Answer(**answer) for answer in values["answers"])})

    @staticmethod
    def read(path: Path, config: Any, labelled: bool = True, **options: Any) -> list[Any]:
        """Questions of a SQuAD file, version 1.1 or 2.0."""
        return read_squad(path, labelled).questions

    def encode(self, originals: Sequence[Question], labelled: bool = True, progress: Progress = None) -> Encoded:
        """Windows over the contexts; the target is where the answer begins and ends."""
        windows = answer_windows(
            self.tokenizer,
            originals,
            self.config.max_length,
            self.config.stride,
            max_question_length=max(self.config.max_length // 4, 1),
            labelled=labelled,
            progress=progress,
        )
        names = "start_positions", "end_positions"
        targets = np.array([[row.get(name, 0) for name in names] for row in windows.rows], np.int64)
        return Encoded(Examples.of(windows.rows, targets), windows)

    def named(self, targets: Array) -> dict[str, Tensor]:
        """Beginnings and ends."""
        return {"start_positions": Tensor(targets[:, 0]), "end_positions": Tensor(targets[:, 1])}

    def scores(self, output: Any) -> Array:
        """(B, T, 2): of beginning and end."""
        return np.stack([output.start_logits.numpy(), output.end_logits.numpy()], -1)

    def interpreted(self, scores: list[Array], encoded: Encoded, originals: Sequence[Any]) -> list[Prediction]:
        """The best answers to each question; none where a question may have none and that is likelier."""
        start, end = ([row[:, k] for row in scores] for k in (0, 1))
        c = self.config
        return best_answers(start, end, encoded.windows, originals, c.best, c.max_answer, no_answer=c.no_answer)

    def measured(self, predictions: list[Prediction], originals: Sequence[Question]) -> dict[str, float]:
        """SQuAD's exact match and F1, in percent."""
        scores = squad_scores(originals, {prediction.id: prediction.text for prediction in predictions})
        return {"exact": 100 * float(scores.exact.mean()), "f1": 100 * float(scores.f1.mean())}

    def judged(self, predictions: list[Any], originals: Sequence[Any]) -> tuple[dict[str, Measure], Array | None]:
        """Exact match and F1, of questions with and without an answer too where there are both."""
        said = {prediction.id: prediction.text for prediction in predictions}
        return squad_measures(squad_scores(originals, said)), None

    def rows(self, predictions: list[Prediction], originals: Sequence[Question]) -> Iterable[dict[str, Any]]:
        """Each question with its answer, and how probable that is among the best."""
        for prediction, question in zip(predictions, originals):
            told = {"answers": [answer.text for answer in question.answers]} if question.answers else {}
            best = prediction.candidates[0].probability if prediction.candidates else 0.0
            yield {
                "id": question.id,
                "question": question.question,
                **told,
                "predicted": prediction.text,
                "probability": best,
            }

    def choices(self, examples: Examples) -> int:
        """The positions of a window."""
        return int(examples.lengths.max())


TASKS: dict[str, Any] = {
    "classify": Classification,
    "tag": Tagging,
    "qa": Answering,
    "translate": Translation,
    "summarize": Summarization,
}


def restored(config: Any, folder: Path) -> Any:
    """The task that a configuration is for, with the tokenizer in `folder` and the labels of `config.model`."""
    kind = TASKS[config.task]
    tokenizer = kind.TOKENIZER.from_pretrained(folder)
    return kind(config, tokenizer, LabelMap.from_config(config.model.id2label) if kind.LABELLED else None)
