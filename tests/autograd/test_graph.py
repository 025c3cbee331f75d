"""The drawn graph: what it says, that it can be read, and that it is a file that programs can read."""

from __future__ import annotations

import re
import weakref
import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm import nn
from minilm.autograd import Function
from minilm.autograd.graph import LINE, Graph
from minilm.autograd.layout import layered
from minilm.creation import ones, tensor
from minilm.ops.joining import split
from minilm.random import randn

SVG = "{http://www.w3.org/2000/svg}"


def leaf(*shape):
    return randn(*shape, requires_grad=True)


def texts(graph):
    """Every text in the picture."""
    return ["".join(t.itertext()) for t in ET.fromstring(graph._repr_svg_()).iter(f"{SVG}text")]


def boxes(graph, kind):
    return [(box.title, box.shape) for box in graph.boxes if box.kind == kind]


# --- what it says --------------------------------------------------------------------------------


def test_operations_have_name_shape_and_source_line():
    x, w = leaf(2, 3), leaf(3, 5)
    y = x @ w
    z = y.exp().sum()  # the line that called exp and sum
    graph = z.graph()
    assert boxes(graph, "operation") == [("matmul", "(2, 5)"), ("exp", "(2, 5)"), ("sum", "()")]
    assert boxes(graph, "leaf") == [("Tensor", "(2, 3)"), ("Tensor", "(3, 5)")]
    line = test_operations_have_name_shape_and_source_line.__code__.co_firstlineno + 3
    assert graph.boxes[-1].source == f"test_graph.py:{line}  z = y.exp().sum()  # "[: LINE - 3].rstrip() + "..."
    assert "z = y.exp().sum()  # the line that called exp and sum" in graph.boxes[-1].full
    assert {"matmul", "(2, 5)", "exp", "sum", "()", "(3, 5)", graph.boxes[-1].source} <= set(texts(graph))


def test_arrows_go_forward_from_what_was_used():
    x, w = leaf(3), leaf(3)
    graph = ((x * w).exp() + x).graph(names={"x": x, "w": w})
    named = [(graph.boxes[a.source].title, graph.boxes[a.target].title) for a in graph.arrows]
    assert named == [("x", "mul"), ("w", "mul"), ("mul", "exp"), ("exp", "add"), ("x", "add")]
    assert all(a.source < a.target for a in graph.arrows)


def test_names_from_a_dict_from_pairs_and_from_a_module():
    model = nn.Sequential(nn.Linear(3, 5), nn.GELU(), nn.Linear(5, 2))
    y = model(ones(7, 3))
    expected = ["0.weight", "0.bias", "2.weight", "2.bias"]
    for names in (model, model.named_parameters(), dict(model.named_parameters())):
        assert [title for title, _ in boxes(y.graph(names=names), "leaf")] == expected
    assert [title for title, _ in boxes(y.graph(), "leaf")] == ["Parameter"] * 4


def test_a_computed_tensor_can_be_named_too():
    x = leaf(4, 3)
    a, b = split(x, [1, 3])
    h = b.exp()
    graph = (h.sum() + a.sum()).graph(names={"h": h, "b": b})
    assert [t for t, _ in boxes(graph, "operation")] == ["b = split", "h = exp", "sum", "sum", "add"]


def test_several_outputs_and_repeated_inputs():
    a, b, c = (leaf(4, 3) * 2).split([1, 1, 2])
    graph = ((a * a + b).sum() + c.sum()).graph()
    assert ("split", "(1, 3), (1, 3), (2, 3)") in boxes(graph, "operation")
    assert [arrow.label for arrow in graph.arrows if arrow.label] == ["[0] x2", "[1]", "[2]"]
    assert ("split", "3 of (1, 3)") in boxes(leaf(3, 3).split(1)[1].graph(), "operation")


def test_what_needs_no_gradient_is_not_there():
    x = leaf(3)
    graph = (x * ones(3) + (x > 0)).graph()
    assert boxes(graph, "operation") == [("mul", "(3,)"), ("add", "(3,)")]
    assert len(boxes(graph, "leaf")) == 1


def test_every_way_onto_the_tape_notes_the_shape():
    class Twice(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.shape = "my own"
            return x * 2

        @staticmethod
        def backward(ctx, dy):
            return dy * 2

    class Both(Twice):
        @staticmethod
        def forward(ctx, x):
            return x * 2, x * 3

    x = leaf(5, 3)
    y = x * 1
    y[1:].mul_(3)  # a view written in place
    for t in (Twice.apply(x), x + leaf(2, 1, 3), x.T, x.sum(0), x.amax(), x[1:], y, x.relu()):
        assert t.node.output_shape == t.shape
        assert t.graph().boxes[-1].shape == str(t.shape)
    assert Both.apply(x)[1].graph().boxes[-1].shape == "2 of (5, 3)"
    Twice.apply(x).sum().backward()
    assert x.grad.tolist() == [[2.0] * 3] * 5


def test_a_leaf_alone_and_a_constant():
    for t in (leaf(2, 3), ones(2, 3)):
        graph = t.graph(names={"x": t})
        assert [(b.kind, b.title, b.shape) for b in graph.boxes] == [("leaf", "x", "(2, 3)")]
        assert graph.note == "no recorded operation made this tensor"
        assert graph.note in texts(graph)


def test_after_backward_it_is_the_same():
    x, w = leaf(3), leaf(3)
    loss = (x * w).exp().sum()
    before = loss.graph()
    loss.backward()
    after = loss.graph()
    assert loss.node.edges[0][0].freed
    assert before.dot == after.dot
    assert before._repr_svg_() == after._repr_svg_()


def test_it_keeps_nothing_alive():
    x = leaf(3)
    y = x.exp()
    node, saved = weakref.ref(y.node), weakref.ref(y)
    graph = (y * 2).graph()
    del x, y
    assert node() is None
    assert saved() is None
    assert "exp" in texts(graph)


def test_repr():
    x = leaf(3)
    assert repr((x * x).exp().graph()) == "<Graph of 2 operations and 1 leaves; .save('graph.svg') draws it>"


# --- graphs too large to draw --------------------------------------------------------------------


def test_a_large_graph_is_cut_and_says_so():
    x = y = leaf(3)
    for _ in range(20):
        y = y * x
    graph = y.graph(max_nodes=5)
    assert len(boxes(graph, "operation")) == 5
    assert graph.note == "the last 5 of 20 operations; graph(max_nodes=20) shows all"
    assert graph.note in texts(graph)
    assert graph.note in graph.dot
    assert len(boxes(graph, "cut")) == 1  # where the oldest of the five had its input
    assert not y.graph(max_nodes=20).note
    assert len(boxes(y.graph(max_nodes=20), "operation")) == 20
    with pytest.raises(ValueError, match="max_nodes must be at least 1, not 0"):
        y.graph(max_nodes=0)


def test_a_deep_graph():
    y = leaf(1)
    for _ in range(30_000):
        y = y * 0.5
    graph = y.graph()
    assert graph.note.startswith("the last 300 of 30,000 operations")
    assert len(graph._repr_svg_()) < 400_000


# --- programs can read it ------------------------------------------------------------------------

NASTY = 'a<b> & "c" \\n \x0c \x00 é 中文 {|}'


def test_texts_are_escaped():
    x = leaf(3)
    y = x.exp()  # <b>&amp;</b> "quoted" \n
    graph = (y * 2).graph(names={NASTY: x, "<&>": y})
    shown = texts(graph)
    assert "<&> = exp" in shown
    assert 'a<b> & "c" \\n     é 中文 {|}' in shown
    assert any('&amp;</b> "quoted" \\n' in "".join(t.itertext()) for t in ET.fromstring(graph._repr_svg_()).iter())
    labels = re.findall(r'label="((?:[^"\\]|\\.)*)" fillcolor', graph.dot)
    assert len(labels) == 3
    assert labels[0].startswith('a<b> & \\"c\\" \\\\n')
    assert graph.dot.count("->") == 2
    for line in graph.dot.splitlines()[1:-1]:  # outside of quotes only Graphviz's own words are left
        assert re.fullmatch(r"\s*\w*( -> \w+)?\s*(\[[\w =]*\])?\s*(label=)?", re.sub(r'"(?:[^"\\]|\\.)*"', "", line))


def test_save(tmp_path):
    graph = (leaf(3) * 2).graph()
    (tmp_path / "a.svg").write_text("old")
    graph.save(tmp_path / "a.svg")
    graph.save(str(tmp_path / "b.DOT"))
    assert ET.parse(tmp_path / "a.svg").getroot().tag == f"{SVG}svg"
    assert (tmp_path / "b.DOT").read_text(encoding="utf-8") == graph.dot
    for name in ("a.png", "a", ".svg"):
        with pytest.raises(ValueError, match=r"graph: save writes \.svg and \.dot, not"):
            graph.save(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        graph.save(tmp_path / "no such folder" / "a.svg")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.svg", "b.DOT"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "a.svg"
    target.write_text("old")
    monkeypatch.setattr("minilm.files.os.fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        (leaf(3) * 2).graph().save(target)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.svg", "old")]


def test_names_that_are_no_names():
    with pytest.raises(TypeError, match="names must lead to tensors, and 'x' leads to ndarray"):
        leaf(3).graph(names={"x": np.ones(3)})


# --- people can read it --------------------------------------------------------------------------


def rectangles(graph):
    """The boxes as drawn: (left, top, right, bottom); the first rectangle is the background."""
    found = []
    for r in list(ET.fromstring(graph._repr_svg_()).iter(f"{SVG}rect"))[1:]:
        x, y, w, h = (float(r.get(key)) for key in ("x", "y", "width", "height"))
        found.append((x, y, x + w, y + h))
    return found


def blocks(count):
    model = nn.ModuleList([nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 24), nn.GELU(), nn.Linear(24, 6))] * count)
    x = leaf(5, 6)
    for block in model:
        x = x + block(x)
    return x.sum().graph(names=model)


def test_texts_lie_inside_their_boxes():
    root = ET.fromstring(blocks(3)._repr_svg_())
    for group in root.iter(f"{SVG}g"):
        rect = group.find(f"{SVG}rect")
        if rect is None:
            continue
        left, width = float(rect.get("x")), float(rect.get("width"))
        lines = {}
        for t in group.findall(f"{SVG}text"):
            wide = len(t.text) * float(t.get("font-size")) * 0.61  # the widest of the fonts asked for
            start = float(t.get("x")) - wide * {"start": 0, "middle": 0.5, "end": 1}[t.get("text-anchor")]
            assert left <= start
            assert start + wide <= left + width
            lines.setdefault(t.get("y"), []).append((start, start + wide))
        for spans in lines.values():
            spans.sort()
            assert all(a[1] <= b[0] for a, b in pairwise(spans))


def test_boxes_lie_in_the_picture_and_apart():
    graph = blocks(4)
    width, height = re.search(r'viewBox="0 0 (\S+) (\S+)"', graph._repr_svg_()).groups()
    found = rectangles(graph)
    assert len(found) == len(graph.boxes) > 25
    for left, top, right, bottom in found:
        assert 0 <= left < right <= float(width)
        assert 0 <= top < bottom <= float(height)
    assert_apart(found)


def assert_apart(rectangles):
    for i, a in enumerate(rectangles):
        for b in rectangles[i + 1 :]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], f"{a} and {b} overlap"


@st.composite
def pictures(draw):
    count = draw(st.integers(1, 14))
    sizes = draw(st.lists(st.tuples(st.floats(20, 300), st.floats(20, 60)), min_size=count, max_size=count))
    pairs = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda p: p[0] < p[1])
    return sizes, draw(st.lists(pairs, max_size=30)) if count > 1 else []


@given(pictures())
def test_layouts_of_any_graph(picture):
    """No box touches another, every arrow points down, and no arrow runs through a box that is not its own."""
    sizes, edges = picture
    layout = layered(sizes, edges, [1.0] * len(edges))
    found = [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for (x, y), (w, h) in zip(layout.centres, sizes)]
    assert_apart(found)
    assert min(r[0] for r in found) >= -1e-6
    assert max(r[2] for r in found) <= layout.width + 1e-6
    for (source, target), points in zip(edges, layout.arrows):
        assert points[0] == pytest.approx((layout.centres[source][0], found[source][3]))
        assert points[-1] == pytest.approx((layout.centres[target][0], found[target][1]))
        assert all(a[1] <= b[1] + 1e-6 for a, b in pairwise(points))
        for (ax, ay), (bx, by) in zip(points[1:-1:2], points[2:-1:2]):  # the straight parts, through a layer each
            assert ax == bx
            for left, top, right, bottom in found:
                assert by <= top or bottom <= ay or ax <= left or right <= ax


def test_a_chain_is_straight_and_a_crossing_is_undone():
    chain = layered([(100.0, 20.0)] * 5, [(i, i + 1) for i in range(4)], [1.0] * 4)
    assert len({round(x, 3) for x, _ in chain.centres}) == 1
    crossed = layered([(50.0, 20.0)] * 4, [(0, 3), (1, 2)], [1.0, 1.0])
    x = [place for place, _ in crossed.centres]
    assert (x[0] < x[1]) == (x[3] < x[2])


def test_graph_is_what_a_notebook_shows():
    assert Graph(tensor([1.0], requires_grad=True) * 2)._repr_svg_().startswith("<svg ")
