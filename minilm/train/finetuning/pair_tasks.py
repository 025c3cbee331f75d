"""The two tasks that make one text of another: translations, and summaries."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from minilm.data.pair_batches import EncodedPairs
from minilm.data.pairs import TextPair, read_pairs
from minilm.errors import DataError
from minilm.evaluation.translation import lead, rouge_measures, rouge_scores, translation_scores
from minilm.generation import Sampling
from minilm.models.translator import AnySeq2Seq, Translator, Written
from minilm.modes import no_grad
from minilm.tensor import Tensor
from minilm.text.pair_tokenizer import PairTokenizer
from minilm.train.batches import targets_in
from minilm.train.finetuning.examples import Progress

Array = Any
GREEDY = Sampling(temperature=0.0)


@dataclass
class Sides:
    """Pairs as the model sees them.

    Attributes:
        examples: what is batched. sources: the tokens of each source.
    """

    examples: EncodedPairs
    sources: list[Array]

    @classmethod
    def of(cls, sources: list[Array], targets: list[Array]) -> Sides:
        """Of the tokens of both."""
        return cls(EncodedPairs(sources, targets), sources)


class PairTask(ABC):
    """How pairs become tokens, and what the texts that a model writes are worth.

    Attributes:
        config: the run's. tokenizer: the model's. labels: none. cut: how many sources were cut so far.
    """

    MODEL: ClassVar[Any] = AnySeq2Seq
    TOKENIZER: ClassVar[Any] = PairTokenizer
    LABELLED: ClassVar[bool] = False

    def __init__(self, config: Any, tokenizer: PairTokenizer, labels: None = None) -> None:
        self.config, self.tokenizer, self.labels, self.cut = config, tokenizer, labels, 0

    @staticmethod
    def read(path: Path, config: Any, labelled: bool = True, **options: Any) -> list[TextPair]:
        """The pairs of a file; `options` as `read_pairs` takes them. Errors: DataError with file and line."""
        return read_pairs(path, labelled=labelled, **options)

    @staticmethod
    def original(values: dict[str, Any]) -> TextPair:
        """A pair, of what `dataclasses.asdict` made of it."""
        return TextPair(**values)

    def tokens(self, originals: Sequence[TextPair], labelled: bool = True) -> tuple[list[Array], list[Array]]:
        """Both sides of each pair; with `truncate`, long sources are cut before their end, and counted in `cut`.

        Errors: DataError with file and line for a side that cannot be encoded.
        """
        sides = [[pair.source for pair in originals], [pair.target for pair in originals] if labelled else []]
        try:
            sources, targets = (self.tokenizer.encode(side, target) for side, target in zip(sides, (False, True)))
        except DataError as error:
            raise DataError(f"{originals[getattr(error, 'index', 0)].where}: {error}") from None
        most = self.config.max_source
        if self.config.truncate:
            self.cut += sum(len(row) > most for row in sources)
            sources = [row if len(row) <= most else np.append(row[: most - 1], row[-1]) for row in sources]
        return sources, targets if labelled else [np.zeros(0, np.int64)] * len(sources)

    def encode(self, originals: Sequence[TextPair], labelled: bool = True, progress: Progress = None) -> Sides:
        """All pairs as tokens, at once, so that progress is called at the end alone.

        Errors: DataError as `tokens`, and for more tokens than the model has positions.
        """
        sources, targets = self.tokens(originals, labelled)
        known = getattr(self.config.model, "max_position_embeddings", None)
        for pair, *rows in zip(originals, sources, targets):
            length = max(map(len, rows))
            if known is not None and length > known:
                raise DataError(
                    f"{pair.where}: has {length} tokens on a side, and the model knows {known} positions; "
                    "truncate=true cuts sources"
                )
        if progress is not None:
            progress(len(originals), len(originals))
        return Sides.of(sources, targets)

    def loss(self, model: Any, examples: EncodedPairs, batches: Iterable[Array]) -> float:
        """The mean loss over all targets of the examples with the numbers in `batches`, without smoothing."""
        total, count = 0.0, 0
        with no_grad():
            for numbers in batches:
                batch = examples.gather(numbers, self.tokenizer.pad_token_id)
                found = targets_in(batch)
                total, count = total + model.loss(*map(Tensor, batch)).item() * found, count + found
        return total / count if count else math.nan

    def predicted(
        self,
        model: Any,
        encoded: Sides,
        originals: Sequence[TextPair],
        labelled: bool = True,
        progress: Progress = None,
    ) -> tuple[float, list[Written]]:
        """The mean loss over all targets (NaN without), and the best output for each source, by beam search.

        progress: called with (sources done, sources) as it goes.
        """
        batches = encoded.examples.by_length(self.config.batch_size)
        loss = self.loss(model, encoded.examples, batches) if labelled else math.nan
        c, translator = self.config, Translator(model, self.tokenizer)
        search = translator.search(
            num_beams=c.num_beams, length_penalty=c.length_penalty, max_new_tokens=2 * c.max_target
        )
        return loss, [best[0] for best in translator.written(encoded.sources, search, c.batch_size, progress)]

    def greedy(self, model: Any, encoded: Sides) -> list[Written]:
        """An output for each source, of the likeliest token each time."""
        length, size = 2 * self.config.max_target, self.config.batch_size
        return Translator(model, self.tokenizer).drawn(encoded.sources, GREEDY, length, size)

    def measured(self, predictions: list[Written], originals: Sequence[TextPair]) -> dict[str, float]:
        """How good outputs are. Errors: MissingExtraError."""
        return self.scores([p.text for p in predictions], [pair.target for pair in originals])

    @abstractmethod
    def scores(self, texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """How like the references texts are, by the names of the config's METRICS. Errors: MissingExtraError."""

    @abstractmethod
    def described(self, predictions: list[Written], originals: Sequence[TextPair]) -> dict[str, str]:
        """The same for a report, with how it was taken, and what it is to be compared with. Errors: as `scores`."""

    def rows(self, predictions: list[Written], originals: Sequence[TextPair]) -> Iterable[dict[str, Any]]:
        """Each source with what was written."""
        for written, pair in zip(predictions, originals):
            told = {"target": pair.target} if pair.target else {}
            yield {"source": pair.source, **told, "predicted": written.text, "score": written.score}

    def choices(self, examples: EncodedPairs) -> int:
        """Among how many tokens a model chooses that knows nothing."""
        return self.tokenizer.vocab_size


class Translation(PairTask):
    """A text in another language."""

    def scores(self, texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """BLEU and chrF, in percent."""
        return {name: score.value for name, score in translation_scores(texts, references).items()}

    def described(self, predictions: list[Written], originals: Sequence[TextPair]) -> dict[str, str]:
        """BLEU and chrF with their signatures."""
        found = translation_scores([p.text for p in predictions], [pair.target for pair in originals])
        return {{"bleu": "BLEU", "chrf": "chrF"}[name]: str(score) for name, score in found.items()}


class Summarization(PairTask):
    """A short text that says what a long one says."""

    def scores(self, texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """ROUGE's F1, in percent."""
        return {name: float(np.mean(values)) for name, values in rouge_scores(texts, references).items()}

    def described(self, predictions: list[Written], originals: Sequence[TextPair]) -> dict[str, str]:
        """ROUGE with its intervals, beside that of the texts' first sentences."""
        references, k = [pair.target for pair in originals], self.config.lead
        ours = rouge_measures([p.text for p in predictions], references)
        theirs = rouge_measures([lead(pair.source, k) for pair in originals], references)
        baseline = f"lead-{k}, the first {k} sentences" if k > 1 else "lead-1, the first sentence"
        return {
            name: f"{m.value:.2f} ({m.low:.2f} to {m.high:.2f}); of {baseline}: {theirs[name].value:.2f}"
            for name, m in ours.items()
        }
