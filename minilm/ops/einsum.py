"""Einstein's summation: any mixture of products, sums, transposes and diagonals, written with letters."""

from __future__ import annotations

import math
from typing import Any

from minilm.errors import ShapeError
from minilm.ops.arrange import diagonal
from minilm.ops.matmul import matrix_product
from minilm.ops.reduction import sum as total
from minilm.ops.registry import Composite, sample
from minilm.ops.shape import expand, permute, reshape

# A term is a tensor with a label for each of its axes: a letter, or a number for an axis of "...".
Term = tuple[Any, list[Any]]


class Einsum(Composite, shapes="(?)* -> (?)", method=False):
    """z = the product of the operands, summed over the letters that `equation` does not keep.

    "ij,jk->ik" is the matrix product, "bij->bji" a transpose, "ii" the trace, "...c,c->...c" broadcasts.
    Without "->" the letters that occur once are kept, in alphabetical order.
    """

    samples = [
        sample((2, 3), (3, 5), equation="ij,jk->ik"),
        sample((2, 3), equation="ij->ji"),
        sample((3, 3), equation="ii"),
        sample((3, 2, 3), equation="iji->ij"),
        sample((2, 3), (2, 3), equation="ij,ij"),
        sample((2, 7, 3), (5, 7, 3), equation="bhd,thd->hbt"),
        sample((2, 3, 5), (1, 5, 2), equation="...ij,...jk"),
        sample((2,), (3,), equation="i,j"),
        sample((2, 3), (3, 5), (5, 7), equation="ij,jk,kl->li"),
        sample((2, 3, 5), equation="i...->..."),
    ]

    def definition(*operands, equation):
        terms, output = _parse(equation, operands)
        found = _alone(*terms[0], _wanted(terms[1:], output))
        for at in range(1, len(terms)):
            later = _wanted(terms[at + 1 :], output)
            right = _alone(*terms[at], set(found[1]) | later)
            found = _product(_alone(*found, set(right[1]) | later), right, later)
        x, labels = _alone(*found, set(output))
        return permute(x, [labels.index(label) for label in output])

    def torch(torch, *operands, equation):
        return torch.einsum(equation, *operands)


def einsum(equation: str, *operands: Any) -> Any:
    """z = the product of the operands, summed over the letters that `equation` does not keep.

    Args:
        equation: as in "bhtd,bhsd->bhts": a letter for each axis, "..." for axes that broadcast.
    Errors: ShapeError for an equation that does not fit the operands.
    """
    return Einsum.apply(*operands, equation=equation)


def _parse(equation: str, operands: Any) -> tuple[list[Term], list[Any]]:
    """The operands with their labels, and the labels of the result."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    texts = left.split(",")
    if len(texts) != len(operands):
        raise ShapeError(f"einsum: {equation!r} speaks of {len(texts)} operands, {len(operands)} were given")
    terms = [(x, _labels(equation, text, len(x.shape))) for text, x in zip(texts, operands)]
    sizes: dict[Any, int] = {}
    for x, labels in terms:
        for label, size in zip(labels, x.shape):
            known = sizes.setdefault(label, size)
            if isinstance(label, int) and 1 in (known, size):
                sizes[label] = max(known, size)
            elif known != size:
                raise ShapeError(f"einsum: in {equation!r} {label!r} is {known} in one place and {size} in another")
    terms = [
        (expand(x, tuple(sizes[label] if isinstance(label, int) else -1 for label in labels)), labels)
        for x, labels in terms
    ]
    dots = sorted(label for label in sizes if isinstance(label, int))
    if arrow:
        before, _, after = right.partition("...")
        output = [*before, *(dots if "..." in right else []), *after]
    else:
        output = dots + sorted(c for c in set(left) - set(",.") if left.count(c) == 1)
    if len(set(output)) != len(output) or not set(output) <= set(sizes):
        raise ShapeError(f"einsum: {equation!r} asks for {right!r}, where each letter must occur once and on the left")
    return terms, output


def _labels(equation: str, text: str, ndim: int) -> list[Any]:
    """A label for each axis; those of "..." are numbered -1, -2, ... from the right, so that they align."""
    before, dots, after = text.partition("...")
    free = ndim - len(before) - len(after)
    if (not (before + after).isalpha() and before + after) or free < 0 or (free and not dots):
        raise ShapeError(f"einsum: {text!r} in {equation!r} does not describe an operand of {ndim} axes")
    return [*before, *range(-free, 0), *after]


def _wanted(terms: list[Term], output: list[Any]) -> set[Any]:
    """The labels that something later still needs."""
    return set(output).union(*(labels for _, labels in terms))


def _alone(x: Any, labels: list[Any], wanted: set[Any]) -> Term:
    """One term with repeated labels taken as diagonals and labels that nothing else wants summed."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            x = diagonal(x, 0, first, second)
            labels = [other for axis, other in enumerate(labels) if axis not in (first, second)] + [label]
    axes = tuple(axis for axis, label in enumerate(labels) if label not in wanted)
    return (total(x, axes) if axes else x), [label for label in labels if label in wanted]


def _product(left: Term, right: Term, later: set[Any]) -> Term:
    """Two terms as one batched product of matrices: (batch, free, summed) x (batch, summed, free)."""
    (x, a), (y, b) = left, right
    batch = [label for label in a if label in b and label in later]
    summed = [label for label in a if label in b and label not in later]
    rows = [label for label in a if label not in b]
    columns = [label for label in b if label not in a]
    size = {**dict(zip(a, x.shape)), **dict(zip(b, y.shape))}

    def count(labels: list[Any]) -> int:
        return math.prod(size[label] for label in labels)

    x = reshape(permute(x, [a.index(c) for c in batch + rows + summed]), (count(batch), count(rows), count(summed)))
    y = reshape(
        permute(y, [b.index(c) for c in batch + summed + columns]), (count(batch), count(summed), count(columns))
    )
    labels = batch + rows + columns
    return reshape(matrix_product(x, y), tuple(size[label] for label in labels)), labels
