"""From counts to probabilities: modified Kneser-Ney, Witten-Bell and add-k.

c(hw) is how often token w follows the context h, c(h.) the sum of that over all w, h' is h without its first token,
and V the number of tokens that can be predicted. Kneser-Ney and Witten-Bell interpolate each order with the one below:

    p(w | h) = (what is left of c(hw)) / c(h.) + backoff(h) p(w | h')

so for a w that never followed h only the second term is there. That is also the form of an ARPA file: log p of the
n-grams that occurred, and backoff of their contexts. The recursion ends with the uniform distribution, 1 / V.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minilm.errors import ConfigError
from minilm.models.ngram_counts import NGramCounts, child_bounds

Array = Any

SMOOTHINGS = ("kneser-ney", "witten-bell", "add-k")
FALLBACK = (0.5, 1.0, 1.5)  # discounts where the counts of counts give none; those of KenLM's --discount_fallback


@dataclass(frozen=True)
class Smoothing:
    """How counts become probabilities.

    Attributes:
        name: "kneser-ney", "witten-bell" or "add-k".
        k: what add-k adds to each count; 1 is Laplace's rule.
        discount: for Kneser-Ney: one discount for all counts (Kneser & Ney 1995) in place of the three of the
            modified form.
        uniform: whether the recursion ends with 1 / V; otherwise with the undiscounted unigrams, as in nltk.lm, and a
            token that never occurred has the probability 0. add-k has no recursion.
    Errors: ConfigError for an unknown name, k <= 0, or a discount outside 0 ... 1.
    """

    name: str = "kneser-ney"
    k: float = 1.0
    discount: float | None = None
    uniform: bool = True

    def __post_init__(self) -> None:
        if self.name not in SMOOTHINGS:
            raise ConfigError(f"smoothing must be one of {', '.join(SMOOTHINGS)}, not {self.name!r}")
        if not 0 < self.k < np.inf:
            raise ConfigError(f"k, which add-k adds to each count, must be above 0, not {self.k!r}")
        if self.discount is not None and not 0 < self.discount <= 1:
            raise ConfigError(f"the discount must be above 0 and at most 1, not {self.discount!r}")


@dataclass
class Level:
    """The n-grams of one order with their probabilities.

    Attributes:
        keys: (n,) sorted; see minilm/models/ngram_counts.py.
        log_prob: (n,) float64, log10 p(last token | the others), -infinity for 0.
        backoff: (n,) float64, log10 of the weight of the shorter context where a token never followed this one; with
            add-k log10 of that token's probability. None at the highest order.
        bounds: (n + 1,) which n-grams of the next order follow each; None at the highest order.
    """

    keys: Array
    log_prob: Array
    backoff: Array | None = None
    bounds: Array | None = None


@dataclass
class Estimate:
    """What estimation gives: the levels, and the discounts of each order with whether they are the fallback."""

    levels: list[Level]
    discounts: list[tuple[float, ...]] = field(default_factory=list)
    fallback: list[int] = field(default_factory=list)


def estimate(counts: NGramCounts, smoothing: Smoothing) -> Estimate:
    """Probabilities of all n-grams that were counted."""
    result = Estimate([])
    V, width = counts.vocab_size, counts.width
    below = np.full(V, 1 / V)  # p(w | h') of each n-gram
    for m, grams in enumerate(counts.grams, 1):
        c = (counts.continuations(m) if smoothing.name == "kneser-ney" else grams.counts).astype(np.float64)
        predicted = grams.keys if m > 1 else grams.keys[:V]  # <s> is not
        context = predicted // width  # of order 1: the empty one, number 0
        contexts = len(counts.grams[m - 2].keys) if m > 1 else 1
        share, weight = _shares(c[: len(predicted)], context, contexts, smoothing, V, result, m)
        if smoothing.name == "add-k":
            p = share
        elif m == 1 and not smoothing.uniform:
            p = c[:V] / c[:V].sum()
        else:
            p = share + weight[context] * below
        level = Level(grams.keys, np.full(len(grams.keys), -np.inf))
        level.log_prob[: len(p)] = _log10(p)
        if result.levels:
            result.levels[-1].backoff = _log10(weight)
            result.levels[-1].bounds = child_bounds(grams.keys, contexts, width)
        result.levels.append(level)
        if m < counts.order:
            below = 10 ** level.log_prob[counts.grams[m].suffix]
    return result


def _shares(
    c: Array, context: Array, contexts: int, smoothing: Smoothing, V: int, result: Estimate, m: int
) -> tuple[Array, Array]:
    """The first term of each n-gram's probability, and the weight of what is below for each context.

    A context that nothing followed has the weight 1: there all is left to the shorter one.
    """
    total = np.bincount(context, weights=c, minlength=contexts)
    followed = total > 0
    per_context = np.where(followed, total, 1)
    if smoothing.name == "add-k":
        # Lidstone's rule, Chen & Goodman 1998, section 2.1:  p = (c(hw) + k) / (c(h.) + k V)
        return (c + smoothing.k) / (total + smoothing.k * V)[context], smoothing.k / (total + smoothing.k * V)
    if smoothing.name == "witten-bell":
        # Witten & Bell 1991, method C; interpolated as in Chen & Goodman 1998, section 2.5, with N1+(h.) the number
        # of different tokens behind h:  p = (c(hw) + N1+(h.) p(w | h')) / (c(h.) + N1+(h.))
        kinds = np.bincount(context, weights=c > 0, minlength=contexts)
        return c / (per_context + kinds)[context], np.where(followed, kinds / (per_context + kinds), 1)
    # Chen & Goodman 1998, section 3, with D(c) = 0, D1, D2, D3+ for c = 0, 1, 2, 3 and more:
    #     p = (c(hw) - D(c(hw))) / c(h.) + backoff(h) p(w | h'),  backoff(h) = sum over w of D(c(hw)) / c(h.)
    D = _discounts(c, smoothing.discount, result, m)
    taken = np.minimum(np.array([0.0, *D])[np.minimum(c, 3).astype(np.int64)], c)
    freed = np.bincount(context, weights=taken, minlength=contexts)
    return (c - taken) / per_context[context], np.where(followed, freed / per_context, 1)


def _discounts(c: Array, discount: float | None, result: Estimate, m: int) -> tuple[float, ...]:
    """D1, D2, D3+ of one order; Chen & Goodman 1998, section 3, with n_j the number of n-grams that occurred j times.

        Y = n1 / (n1 + 2 n2),   D1 = 1 - 2 Y n2 / n1,   D2 = 2 - 3 Y n3 / n2,   D3+ = 3 - 4 Y n4 / n3

    These need n1, n2 and n3 above 0. Where they are not (a small text, or characters, all of which are frequent), or
    where a discount would not lie in 0 ... j, the order has 0.5, 1 and 1.5.
    """
    if discount is not None:
        D: tuple[float, ...] = (discount,) * 3
    else:
        n = np.bincount(np.minimum(c, 5).astype(np.int64), minlength=6)[:5].tolist()
        D = FALLBACK
        if n[1] and n[2] and n[3]:
            Y = n[1] / (n[1] + 2 * n[2])
            closed = tuple(j - (j + 1) * Y * n[j + 1] / n[j] for j in (1, 2, 3))
            if all(0 < d <= j for j, d in enumerate(closed, 1)):
                D = closed
        if D is FALLBACK:
            result.fallback.append(m)
    result.discounts.append(D)
    return D


def _log10(p: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.log10(p)
