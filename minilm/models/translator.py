"""Texts written of other texts by a model of encoder and decoder: translations, summaries."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minilm import random
from minilm.beam import BeamSearch, Hypothesis, beam_search, sample
from minilm.errors import ConfigError, DataError
from minilm.generation import Sampling, constant_weights
from minilm.models.generation_config import GenerationConfig
from minilm.models.hub import found
from minilm.models.pretrained import CONFIG, read_json
from minilm.modes import no_grad
from minilm.ops.matmul import Constants
from minilm.parallel import side_by_side, threads_side_by_side
from minilm.tensor import Tensor
from minilm.text.pair_tokenizer import PairTokenizer

Array = Any
LEAST_SHARE = 16  # sources of a batch of its own: with fewer, what Python does for a step would outweigh the step


@dataclass(frozen=True)
class Written:
    """A text that a model wrote, its score (NaN where it was drawn), and its tokens, the end included."""

    text: str
    score: float
    tokens: Array


def numbered(number: int) -> str:
    """What errors call a text by default."""
    return f"text {number + 1}"


class CachedDecoder:
    """A model's decoder over some sources, whose keys and values are kept: the Decoder that a search needs.

    Args:
        model: a Seq2SeqModel. input_ids, attention_mask: (B, S). length: the most tokens of an output.
        constants: the model's `constant_weights`, if several decoders share them.
    """

    def __init__(
        self, model: Any, input_ids: Array, attention_mask: Array, length: int, constants: Constants | None = None
    ) -> None:
        self.model, self.constants = model, constants or constant_weights(model)
        with no_grad(), self.constants:
            memory = model.encode(Tensor(input_ids), Tensor(attention_mask))
            self.cache = model.new_cache(memory, length)

    def __call__(self, tokens: Array) -> Array:
        """See `beam.Decoder`."""
        with no_grad(), self.constants:
            return self.model.decode(Tensor(tokens), cache=self.cache).numpy()

    def reorder(self, rows: Array) -> None:
        """See `beam.Decoder`."""
        self.cache.reorder(rows)


class AnySeq2Seq:
    """A model of encoder and decoder, of the kind that its configuration is of."""

    def __new__(cls, config: Any) -> Any:
        """A fresh one."""
        return _kind(str(config.to_dict()["model_type"]))(config)

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str]) -> Any:
        """That of a folder or the hub; see PretrainedModel. Errors: ConfigError for another kind."""
        place = found(name)
        return _kind(str(read_json(place / CONFIG).get("model_type"))).from_pretrained(place)


def _kind(model_type: str) -> Any:
    if "marian" in model_type:
        from minilm.models.marian import MarianMTModel

        return MarianMTModel
    if model_type == "t5":
        from minilm.models.t5 import T5ForConditionalGeneration

        return T5ForConditionalGeneration
    raise ConfigError(f"a model of the kind {model_type!r} writes no text of another; known are marian and t5")


class Translator:
    """A model and its tokenizer; call it with texts.

        translator = Translator.from_pretrained("runs/en-es/model")
        translator(["In the beginning"])[0][0].text

    Args:
        model: a Seq2SeqModel, in evaluation mode.
        generation: what ends outputs and never stands in them; by default as the model's configuration has it.
    """

    def __init__(self, model: Any, tokenizer: PairTokenizer, generation: GenerationConfig | None = None) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.generation = generation or GenerationConfig.of(model.config)
        if tokenizer.vocab_size > model.config.vocab_size:
            raise ConfigError(
                f"the tokenizer has {tokenizer.vocab_size} tokens, the model only {model.config.vocab_size}"
            )

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Translator:
        """Those of a folder: config.json, model.safetensors, tokenizer.json, and generation_config.json if it is there.

        Errors: CheckpointError, DataError; ConfigError for a configuration that asks for what is not known here.
        """
        place = found(folder)
        model = AnySeq2Seq.from_pretrained(place)
        generation = GenerationConfig.from_pretrained(place, model.config)
        return cls(model, PairTokenizer.from_pretrained(place), generation)

    def search(self, **settings: Any) -> BeamSearch:
        """How outputs are searched, with what `generation` says of ends and of tokens that never come."""
        return BeamSearch(**{**vars(self.generation), **settings})

    def encode(self, texts: Sequence[str], where: Callable[[int], str] = numbered) -> list[Array]:
        """The tokens of each text.

        Args:
            where: what an error says of the text with that number.
        Errors: DataError for an empty text, one that cannot be encoded, and one longer than the model can read.
        """
        for number, text in enumerate(texts):
            if not text.strip():
                raise DataError(f"{where(number)}: is empty, and there is nothing to be read in it")
        try:
            rows = self.tokenizer.encode(texts)
        except DataError as error:
            raise DataError(f"{where(getattr(error, 'index', 0))}: {error}") from None
        known = self.model.max_positions
        for number, ids in enumerate(rows):
            if known is not None and len(ids) > known:
                raise DataError(f"{where(number)}: has {len(ids)} tokens, and the model reads {known}")
        return rows

    def __call__(
        self,
        texts: Sequence[str],
        search: BeamSearch | None = None,
        batch_size: int = 32,
        where: Callable[[int], str] = numbered,
    ) -> list[list[Written]]:
        """The best outputs for each text. Errors: see `encode` and `beam_search`."""
        return self.written(self.encode(texts, where), search, batch_size)

    def written(
        self,
        sources: Sequence[Array],
        search: BeamSearch | None = None,
        batch_size: int = 32,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[list[Written]]:
        """The same of texts as tokens; those of like length are computed together, up to `batch_size`, by each thread.

        progress: called with (texts done, texts) as it goes.
        """
        found = searched(self.model, sources, search or self.search(), batch_size, progress)
        return [[self._text(h.tokens, h.score) for h in group] for group in found]

    def drawn(
        self,
        sources: Sequence[Array],
        sampling: Sampling,
        max_new_tokens: int = 128,
        batch_size: int = 32,
        seed: int | None = None,
    ) -> list[Written]:
        """One output for each source, drawn token by token; with temperature 0 the likeliest each time (greedy)."""
        wanted = _within(self.model, self.search(max_new_tokens=max_new_tokens))
        source = random.default_generator if seed is None else random.Generator(seed)

        def some(decoder: CachedDecoder, start: Array) -> list[Array]:
            return sample(
                decoder, start, sampling, wanted.max_new_tokens, wanted.eos_token_id, wanted.suppress_tokens, source
            )

        # Draws come from one generator, batch after batch, so that a seed gives the same.
        apart = sampling.temperature == 0
        outputs = _batched(self.model, sources, batch_size, wanted.max_new_tokens, some, apart)
        return [self._text(tokens, float("nan")) for tokens in outputs]

    def alignment(self, source: Array, output: Array) -> Array:
        """Where the decoder looked in the source as it wrote each token: (T, S), rows that add up to 1.

        The mean over the heads of the last layer but one, which says best what a word is a translation of.
        Source: Garg et al. 2019, "Jointly learning to align and translate", section 4.1.
        """
        c = self.model.config
        shifted = np.concatenate([[c.decoder_start_token_id], output[:-1]])[None]
        with no_grad():
            result = self.model(Tensor(source[None]), None, Tensor(shifted), output_attentions=True)
        layers = result.cross_attentions
        return layers[max(len(layers) - 2, 0)].numpy()[0].mean(0)

    def _text(self, tokens: Array, score: float) -> Written:
        return Written(self.tokenizer.decode(tokens), score, tokens)


def searched(
    model: Any,
    sources: Sequence[Array],
    search: BeamSearch,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[Hypothesis]]:
    """The best outputs of a Seq2SeqModel for each source, the best first.

    Args:
        sources: tokens, (S) each. batch_size, progress: as in `Translator.written`.
    """
    wanted = _within(model, search)

    def some(decoder: CachedDecoder, start: Array) -> list[list[Hypothesis]]:
        return beam_search(decoder, start, wanted)

    return _batched(model, sources, batch_size, wanted.max_new_tokens, some, True, progress)


def _within(model: Any, search: BeamSearch) -> BeamSearch:
    """Outputs no longer than the model's positions."""
    known = model.max_positions
    if known is None or search.max_new_tokens <= known:
        return search
    return replace(search, max_new_tokens=known, min_new_tokens=min(search.min_new_tokens, known))


def _batches(order: list[int], size: int, threads: int) -> list[list[int]]:
    """The numbers of sources, which stand longest first, in batches of at most `size`.

    Where a thread gets one batch at most, each has of all lengths, so that none waits for another; of more, the long
    ones come first, and a thread that is done takes the next.
    """
    count = max(min(threads, len(order) // LEAST_SHARE), -(-len(order) // size))
    if count > threads:
        return [order[first : first + size] for first in range(0, len(order), size)]
    return [order[first::count] for first in range(count)]


def _batched(
    model: Any,
    sources: Sequence[Array],
    batch_size: int,
    length: int,
    some: Callable[[CachedDecoder, Array], list[Any]],
    apart: bool,
    progress: Callable[[int, int], None] | None = None,
) -> list[Any]:
    """What `some` makes of batches of sources, longest first, in the sources' order.

    Args:
        length: the most tokens of an output. some: is given a decoder over a batch, and what outputs begin with.
        apart: whether batches need nothing of each other: then each thread takes one.
    """
    order = sorted(range(len(sources)), key=lambda number: -len(sources[number]))
    batches = _batches(order, batch_size, threads_side_by_side() if apart else 1)
    c, constants = model.config, constant_weights(model)

    def computed(numbers: list[int]) -> list[Any]:
        lengths = np.array([len(sources[number]) for number in numbers])
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(mask.shape, c.pad_token_id, np.int64)
        ids[mask] = np.concatenate([sources[number] for number in numbers])
        decoder = CachedDecoder(model, ids, mask.astype(np.int64), length, constants)
        return some(decoder, np.full((len(ids), 1), c.decoder_start_token_id))

    results: list[Any] = [None] * len(sources)
    done = 0
    for outputs, numbers in zip((side_by_side if apart else map)(computed, batches), batches):
        for number, output in zip(numbers, outputs):
            results[number] = output
        done += len(numbers)
        if progress is not None:
            progress(done, len(order))
    return results
