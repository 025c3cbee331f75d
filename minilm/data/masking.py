"""Masked language modelling: some tokens are hidden, and a model guesses them from what stands on both sides.

Source: Devlin et al. 2019 (BERT), section 3.1, task 1, and appendix A.1; whole words: the authors' release of May 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.errors import DataError
from minilm.text.tokenizer import Tokenizer

Array = NDArray[Any]
IGNORED = -100  # the label of a token that was not chosen, as in cross_entropy
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class Masking:
    """Chooses 15% of a sequence's tokens: 80% of them become [MASK], 10% a random token, 10% stay as they are.

    The model must guess the original of all that were chosen. Because a token that it sees may be a random one, or
    one to be guessed although it is there, it has to make something of every token, also where there is no [MASK],
    as in fine-tuning.

    Attributes:
        mask_id, cls_id, sep_id, pad_id: the ids of [MASK], [CLS], [SEP] and [PAD].
        special: (V,) bool, the ids that are never chosen and never drawn as a random token.
        continues: (V,) bool, the ids that continue a word ("##ing").
        probability: the share of the tokens that are not special.
        whole_words: whether all tokens of a word are chosen, or none; otherwise each for itself.
        masked, random: the shares of the chosen that become [MASK], and a random token.

    Errors: DataError for shares outside 0 .. 1, a vocabulary without [MASK], or with special tokens only.
    """

    mask_id: int
    cls_id: int
    sep_id: int
    pad_id: int
    special: Array
    continues: Array
    probability: float = 0.15
    whole_words: bool = False
    masked: float = 0.8
    random: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise DataError(f"Masking: probability is {self.probability}; it must be above 0 and at most 1")
        if min(self.masked, self.random) < 0 or self.masked + self.random > 1:
            raise DataError(f"Masking: shares of {self.masked} masked and {self.random} random; together at most 1")
        if self.special.shape != self.continues.shape or self.special.all():
            raise DataError("Masking: special and continues are (V,) bool each, and some token is not special")

    @classmethod
    def of(cls, tokenizer: Tokenizer, probability: float = 0.15, whole_words: bool = False) -> Masking:
        """For a WordPiece tokenizer. Errors: DataError for one without BERT's special tokens."""
        found = {token: tokenizer.token_to_id(token) for token in SPECIAL}
        ids = {token: index for token, index in found.items() if index is not None}
        if len(ids) < len(SPECIAL):
            missing = ", ".join(token for token in SPECIAL if token not in ids)
            raise DataError(f"Masking: the tokenizer has no {missing}; a WordPiece tokenizer is needed")
        special = np.zeros(tokenizer.vocab_size, bool)
        special[list(ids.values())] = True
        pieces = [tokenizer.id_to_token(index) or "" for index in range(tokenizer.vocab_size)]
        continues = np.array([piece.startswith("##") for piece in pieces])
        mask, start, end, pad = (ids[token] for token in ("[MASK]", "[CLS]", "[SEP]", "[PAD]"))
        return cls(mask, start, end, pad, special, continues, probability, whole_words)

    def __call__(self, tokens: Array, draws: np.random.Generator) -> tuple[Array, Array]:
        """What the model sees and what it must guess, of tokens (B, T): (B, T) each, the second mostly IGNORED.

        Of n tokens in a row of `tokens` that are not special, `probability` * n are chosen, rounded, and at least one;
        of whole words about so many.
        """
        chosen = self.chosen(tokens, draws)
        labels = np.where(chosen, tokens, IGNORED)
        how = draws.random(tokens.shape)
        ordinary = np.flatnonzero(~self.special)
        others = ordinary[draws.integers(len(ordinary), size=tokens.shape)]
        seen = np.where(how < self.masked, self.mask_id, np.where(how < self.masked + self.random, others, tokens))
        return np.where(chosen, seen, tokens), labels

    def chosen(self, tokens: Array, draws: np.random.Generator) -> Array:
        """Which of the tokens (B, T) must be guessed, (B, T) bool.

        The words of a row are put into a random order, and those come in whose middle lies within the quota.
        """
        rows = np.arange(len(tokens))[:, None]
        possible = ~self.special[tokens]
        words = self._words(tokens, possible)
        keys = np.where(possible, draws.random(tokens.shape)[rows, words], 2.0)  # a word's tokens share its key
        order = np.argsort(keys, axis=1, kind="stable")
        sizes = np.zeros(tokens.shape, np.int64)
        np.add.at(sizes, (np.broadcast_to(rows, tokens.shape), words), possible)
        first = (words == np.arange(tokens.shape[1])) & possible
        through = np.cumsum((sizes * first)[rows, order], axis=1)  # tokens of the words up to this one, it included
        quota = np.maximum(np.round(self.probability * possible.sum(1, keepdims=True)), 1)
        size = sizes[rows, words[rows, order]]
        taken = (through - size / 2 <= quota) | (through == size)
        chosen = np.zeros(tokens.shape, bool)
        chosen[rows, order] = taken & possible[rows, order]
        return chosen

    def _words(self, tokens: Array, possible: Array) -> Array:
        """(B, T): where the word begins that a token is of; the token itself, unless whole words count."""
        positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
        if not self.whole_words:
            return positions
        behind = np.zeros(tokens.shape, bool)  # a special token ends a word
        behind[:, 1:] = self.continues[tokens[:, 1:]] & possible[:, :-1]
        return np.maximum.accumulate(np.where(behind & possible, 0, positions), axis=1)
