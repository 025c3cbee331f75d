"""Products of matrices: names, vectors, einsum, empty sizes, and what their errors say."""

from __future__ import annotations

import numpy as np
import pytest

import minilm as ml
from minilm.errors import DtypeError, ShapeError
from minilm.testing.samples import seeded


def leaf(m, shape, name="x"):
    values = seeded(f"{name} {shape}").standard_normal(shape)
    return m.tensor(values.tolist(), dtype=m.float64).reshape(shape).requires_grad_()


def walked(m, z, leaves):
    c = m.tensor(seeded("c").standard_normal(tuple(z.shape)).tolist(), dtype=m.float64).reshape(tuple(z.shape))
    return [z, *m.autograd.grad((z * c).sum(), leaves)]


@pytest.mark.parametrize(
    ("name", "a", "b"),
    [
        ("mm", (2, 3), (3, 5)),
        ("mm", (0, 3), (3, 5)),
        ("mm", (2, 0), (0, 5)),
        ("bmm", (7, 2, 3), (7, 3, 5)),
        ("bmm", (0, 2, 3), (0, 3, 5)),
        ("mv", (2, 3), (3,)),
        ("mv", (2, 0), (0,)),
        ("dot", (3,), (3,)),
        ("dot", (0,), (0,)),
        ("outer", (3,), (5,)),
        ("outer", (0,), (5,)),
        ("matmul", (3,), (7, 3, 5)),
        ("matmul", (7, 1, 2, 3), (5, 3, 2)),
        ("matmul", (5, 2, 3), (3,)),
        ("matmul", (0, 2, 3), (3, 5)),
    ],
)
def test_every_name(name, a, b, both):
    def story(m):
        x, y = leaf(m, a), leaf(m, b, "y")
        method, function = getattr(x, name)(y), getattr(m, name)(x, y)
        return [method, *walked(m, function, [x, y])]

    both(story)


def test_operators_and_transposes(both):
    """Operands that lie in memory in any way; x as both operands."""

    def story(m):
        x, y = leaf(m, (3, 5)), leaf(m, (3, 2), "y")
        z = x.T @ y + (y.T @ x).mT + x[:, ::2].T[:1] @ y.expand(3, 2) + x.T @ x[:, :2]
        return walked(m, z, [x, y])

    both(story)


def test_arrays_beside_tensors():
    x, array = ml.ones(2, 3), np.full((3, 2), 2.0, "float32")
    assert (x @ array).tolist() == [[6.0, 6.0], [6.0, 6.0]]
    assert ml.matmul(array, x).tolist() == [[4.0] * 3] * 3


def test_integers_multiply_as_integers(both):
    def story(m):
        x = m.tensor([[1, 2], [3, 4]])
        return [x @ x, x.mv(m.tensor([1, -1])), m.outer(x[0], x[1])]

    both(story)


@pytest.mark.parametrize(
    ("name", "a", "b", "words"),
    [
        ("matmul", (3, 4), (5, 6), r"x \(3, 4\) and y \(5, 6\) do not fit.*4 is not 5"),
        ("matmul", (2, 3, 4), (5, 4, 6), r"leading axes \(2,\) and \(5,\) do not broadcast"),
        ("matmul", (3,), (4,), "3 is not 4"),
        ("matmul", (), (3,), "axes"),
        ("matmul", (3,), (), "axes"),
        ("mm", (2, 3, 4), (4, 5), r"mm: .*2 axes.*\(2, 3, 4\) has 3"),
        ("mm", (3, 4), (5, 6), "4 is not 5"),
        ("bmm", (2, 3), (2, 3), "bmm: .*3 axes"),
        ("bmm", (1, 2, 3), (7, 3, 5), r"bmm: \(1, 2, 3\) and \(7, 3, 5\).*1 is not 7"),
        ("mv", (2, 3), (3, 1), "mv: .*1 axes"),
        ("dot", (2, 2), (2,), "dot: .*1 axes"),
        ("outer", (2, 2), (2,), "outer: .*1 axes"),
    ],
)
def test_misfits_are_named(name, a, b, words):
    with pytest.raises(ShapeError, match=words):
        getattr(ml, name)(ml.zeros(a), ml.zeros(b))


def test_linear_refuses():
    with pytest.raises(ShapeError, match=r"linear: .*I is 4 in x and 5 in weight"):
        ml.nn.functional.linear(ml.zeros(2, 4), ml.zeros(3, 5))
    with pytest.raises(ShapeError, match=r"linear: .*O is 3 in weight and 2 in bias"):
        ml.nn.functional.linear(ml.zeros(2, 5), ml.zeros(3, 5), ml.zeros(2))


# --- einsum ---------------------------------------------------------------------------------------------------

EQUATIONS = [
    ("ij,jk", (2, 3), (3, 5)),
    ("ij,jk->ki", (2, 3), (3, 5)),
    (" i j , j k -> i k ", (2, 3), (3, 5)),
    ("ij->", (2, 3)),
    ("ii->i", (3, 3)),
    ("ii", (3, 3)),
    ("iij->j", (3, 3, 2)),
    ("ij,ij->ij", (2, 3), (2, 3)),
    ("ij,kl->", (2, 3), (5, 2)),
    ("i,j,k->kji", (2,), (3,), (5,)),
    ("bhtd,bhsd->bhts", (2, 3, 5, 7), (2, 3, 4, 7)),
    ("bhts,bhsd->bthd", (2, 3, 5, 4), (2, 3, 4, 7)),
    ("...ij,...jk->...ik", (2, 1, 3, 5), (4, 5, 2)),
    ("...ij->...ji", (2, 3, 5)),
    ("i...,i...->...", (2, 3, 5), (2, 3, 5)),
    ("...,...", (2, 3), (3,)),
    ("ab,bc,cd,de->ae", (2, 3), (3, 2), (2, 5), (5, 2)),
    ("Ij,jK", (2, 3), (3, 5)),
    ("ij,jk->ik", (0, 3), (3, 5)),
    ("ij,jk->ik", (2, 0), (0, 5)),
    (",->", (), ()),
]


@pytest.mark.parametrize(("equation", "shapes"), [(e, s) for e, *s in EQUATIONS], ids=lambda v: str(v))
def test_einsum(equation, shapes, both):
    def story(m):
        leaves = [leaf(m, shape, str(i)) for i, shape in enumerate(shapes)]
        return walked(m, m.einsum(equation, *leaves), leaves)

    both(story)


@pytest.mark.parametrize(
    ("equation", "shapes", "words"),
    [
        ("ij,jk->ik", [(2, 3)], "speaks of 2 operands, 1 were given"),
        ("ij", [(2, 3, 5)], "'ij' .* does not describe an operand of 3 axes"),
        ("ij,jk->ik", [(2, 3), (4, 5)], "'j' is 3 in one place and 4 in another"),
        ("ii", [(2, 3)], "'i' is 2 in one place and 3 in another"),
        ("ij->ik", [(2, 3)], "each letter must occur once and on the left"),
        ("ij->ii", [(2, 3)], "each letter must occur once"),
        ("i1->i", [(2, 3)], "does not describe"),
        ("...i,...i", [(2, 3), (5, 3)], "in one place"),
    ],
)
def test_einsum_refuses(equation, shapes, words):
    with pytest.raises(ShapeError, match=words):
        ml.einsum(equation, *[ml.zeros(s) for s in shapes])


def test_what_is_no_matrix():
    for other in ("x", 3.0, None):
        with pytest.raises(DtypeError, match="matmul: a tensor or an array was expected, not"):
            ml.ones(2, 2) @ other
