"""Arranging elements: views and refused views, reshape, expand, T and mT, conversions."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import minilm as ml
from minilm.errors import DeviceError, DtypeError, ShapeError


def base(m):
    return m.arange(24, dtype=m.float64).reshape(2, 3, 4)


def shares(a, b):
    return np.shares_memory(a.array, b.array)


# --- views, copies, refusals ----------------------------------------------------------------------------------

SOURCES = {
    "plain": lambda x: x,
    "transposed": lambda x: x.transpose(0, 2),
    "rows": lambda x: x[:, 1:],
    "columns": lambda x: x[..., ::2],
    "expanded": lambda x: x[:1].expand(5, 3, 4),
    "0-d": lambda x: x[0, 0, 0],
    "empty": lambda x: x[:0],
}
TARGETS = [
    (24,),
    (6, 4),
    (2, 12),
    (-1,),
    (2, -1, 2),
    (3, 2, 4),
    (1, 24, 1),
    (16,),
    (4, 4),
    (8, 2),
    (),
    (0,),
    (1, 1),
    (5, 12),
]


@pytest.mark.parametrize("source", list(SOURCES))
@pytest.mark.parametrize("shape", TARGETS, ids=str)
def test_view_and_reshape_agree_with_pytorch_on_what_is_possible(source, shape, torch):
    """The same refusals, and the same answer to whether memory is shared."""
    x, t = SOURCES[source](base(ml)), SOURCES[source](base(torch))
    try:
        viewed = t.view(shape)
    except RuntimeError:
        with pytest.raises(ShapeError, match=r"view: .*(do not fit|would need a copy)"):
            x.view(shape)
    else:
        ours = x.view(shape)
        assert ours.array.tolist() == viewed.tolist()
        assert not ours.numel() or shares(ours, x)
    try:
        other = t.reshape(shape)
    except RuntimeError:
        with pytest.raises(ShapeError, match=r"reshape: .*do not fit"):
            x.reshape(shape)
    else:
        ours = x.reshape(shape)
        assert (ours.shape, ours.tolist()) == (tuple(other.shape), other.tolist())
        assert not ours.numel() or shares(ours, x) == (other.data_ptr() == t.data_ptr())


def test_a_write_through_a_view_shows_and_through_a_copy_does_not(both):
    def story(m):
        x = base(m)
        x.view(24)[0] = -1.0
        x.reshape(6, 4)[1] = -2.0
        x.transpose(0, 1).reshape(24)[2] = -3.0  # a copy
        x.contiguous()[0, 0, 3] = -4.0  # itself
        x.mT.contiguous()[0] = -5.0  # a copy
        x.flatten()[5] = -6.0
        x.squeeze().unsqueeze(0)[0, 1, 2] = -7.0
        x.clone()[:] = -8.0
        return [x]

    both(story)


def test_sizes_in_pieces_or_together(both):
    def story(m):
        x = base(m)
        seen = [x.reshape(4, 6), x.reshape((4, 6)), x.view(-1, 2), x.permute(2, 0, 1), x.permute((2, 0, 1))]
        seen += [x[:1].expand(2, -1, -1), x[:1].expand((2, 3, 4)), x.repeat(1, 2, 1), x.flip(0), x.flip((0, 2))]
        return [*seen, x.reshape(m.tensor(4), 6)]

    both(story)


def test_transposes(both):
    def story(m):
        x = base(m)
        return [x[0].T, x.mT, x.transpose(-1, 0), x.permute(-1, 0, 1), x.movedim(0, -1), x[0].mT]

    both(story)
    assert base(ml).T.shape == (4, 3, 2)
    assert ml.ones(3).T.shape == (3,)
    with pytest.raises(ShapeError, match=r"mT: a tensor of shape \(3,\) holds no matrices"):
        _ = ml.ones(3).mT


def test_several_axes_moved_at_once(both):
    def story(m):
        x = base(m)
        return [x.movedim((0, 1), (-1, 0)), x.movedim([2, 0], [0, 1]), x.movedim((), ())]

    both(story)


def test_nothing_falls_into_as_many_pieces_as_asked_for(both):
    both(lambda m: [tuple(piece.shape) for piece in m.zeros(2, 0).chunk(3, 1)])


def test_expand(both):
    def story(m):
        x = m.tensor([[1.0], [2.0]], requires_grad=True)
        y = x.expand(3, 2, 4)
        z = y * m.arange(24.0).reshape(3, 2, 4)
        return [y, x.expand(-1, 2), x[:, :0].expand(2, 0), x.broadcast_to((2, 5)), *m.autograd.grad(z.sum(), x)]

    both(story)
    x = ml.tensor([[1.0], [2.0]])
    assert shares(x.expand(2, 5), x)


def test_contiguous():
    x = base(ml)
    assert x.contiguous() is x
    assert x.mT.contiguous().is_contiguous()
    assert not x.mT.is_contiguous()
    assert x[:, :, ::2].contiguous().tolist() == x[:, :, ::2].tolist()


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda x: x.reshape(5, 5), r"reshape: 24 elements of shape \(2, 3, 4\) do not fit \(5, 5\)"),
        (lambda x: x.reshape(-1, -1), "reshape"),
        (lambda x: x.reshape(-1, 7), "reshape: 24 elements"),
        (lambda x: x.permute(0, 1), r"permute: \(0, 1\) does not name each of the 3 axes"),
        (lambda x: x.permute(0, 0, 1), "permute: .*once"),
        (lambda x: x.permute(0, 1, 3), "permute: there is no axis 3 among 3"),
        (lambda x: x.transpose(0, 3), "transpose: there is no axis 3 among 3"),
        (lambda x: x.expand(2, 3, 5), r"expand: \(2, 3, 4\) cannot be expanded to \(2, 3, 5\)"),
        (lambda x: x.expand(3, 4), "expand: .* cannot be expanded"),
        (lambda x: x.expand(-1, 2, 3, 4), "expand: .* cannot be expanded"),
        (lambda x: x.squeeze(3), "squeeze: there is no axis 3"),
        (lambda x: x.unsqueeze(4), "unsqueeze: there is no axis 4 among 4"),
        (lambda x: x.flatten(2, 1), "flatten: start_dim 2 comes after end_dim 1"),
        (lambda x: x.split([1, 2], 2), r"split: the sizes \[1, 2\] add up to 3, axis 2 of \(2, 3, 4\) has 4"),
        (lambda x: x.split(0), "split: pieces of size 0"),
        (lambda x: x.movedim((0, 1), 0), r"movedim: \(0, 1\) and 0 must be as many axes, each of them once"),
        (lambda x: x.movedim((0, 0), (1, 2)), r"movedim: \(0, 0\) and \(1, 2\) must be as many"),
        (lambda x: x.chunk(0), "chunk: 0 pieces"),
        (lambda x: x.unbind(3), "unbind: there is no axis 3"),
        (lambda x: x.flip(3), "flip: there is no axis 3"),
        (lambda x: x.repeat(2), r"repeat: 1 numbers for the 3 axes"),
        (lambda x: ml.cat([x, x[0]]), r"cat: \(2, 3, 4\) and \(3, 4\) differ"),
        (lambda x: ml.cat([x, x[:, :2]]), r"cat: .*differ elsewhere than along axis 0"),
        (lambda x: ml.stack([x, x[:1]]), r"stack: the shapes \(2, 3, 4\) and \(1, 3, 4\) differ"),
        (lambda x: ml.cat([]), "cat: the list of tensors is empty"),
        (lambda x: ml.nn.functional.pad(x, (1,)), r"pad: \(1,\) must be pairs"),
        (lambda x: ml.nn.functional.pad(x, (1, 1), mode="reflect"), "pad: the mode 'reflect' is not there"),
    ],
)
def test_what_is_refused(attempt, words):
    with pytest.raises(ShapeError, match=words):
        attempt(base(ml))


def test_pieces_are_views(both):
    def story(m):
        x = base(m)
        for part in (*x.split(2, 1), *x.chunk(2, 2), *x.unbind(0), x.diagonal(1, 1, 2)):
            part *= 2
        return [x]

    def with_narrow(m):
        """PyTorch refuses the first three only where gradients are recorded."""
        with m.no_grad():
            return story(m)

    both(with_narrow)


def test_joining_types(both):
    def story(m):
        x, n = m.ones(2, 2), m.tensor([[1, 2]])
        return [m.cat([x, n]), m.stack([n, n], 1), m.cat([n, x.double()]), m.cat([n > 1, n]), m.cat([x, x[:0]], 0)]

    both(story)


# --- element types ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["float", "double", "half", "long", "int", "bool"])
def test_conversions_by_name(name, both):
    def story(m):
        seen = []
        for x in (m.tensor([0.0, 1.75, -2.5]), m.tensor([0, 1, -2]), m.tensor([True, False])):
            seen.append(getattr(x, name)())
        same = getattr(seen[0], name)()
        return [*seen, same is seen[0]]

    both(story)


def test_to(both):
    def story(m):
        x = m.tensor([1.5, -2.5], requires_grad=True)
        seen = [x.to(m.float32) is x, x.to("cpu") is x, x.to(m.float64), x.to("cpu", m.int64), x.to(dtype=m.float16)]
        seen += [x.to(m.ones(1, dtype=m.float64)), x.type_as(m.ones(1, dtype=m.int32)), x.cpu() is x]
        y = x.to(m.float64) * x + x.half().float()
        return [*seen, y, *m.autograd.grad(y.sum(), x), x.long().requires_grad]

    both(story)


def test_what_to_refuses():
    with pytest.raises(DtypeError, match="complex64"):
        ml.ones(2).to(np.complex64)
    if importlib.util.find_spec("cupy") is None:
        with pytest.raises(DeviceError, match="CuPy"):
            ml.ones(2).to("cuda")
