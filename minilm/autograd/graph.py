"""A picture of how a tensor was computed: `t.graph()`.

    loss.graph()                                        # in a notebook: the drawing
    loss.graph(names=model).save("loss.svg")            # parameters by name; .dot is Graphviz's text

Blue boxes are operations with the shape of their result and the line that called them, green ones
are leaves, whose gradients backward fills in. Arrows point forward, the way values went; gradients
go back along them. What no gradient flows to (a constant, a mask) is not on the tape, nor here.
"""

from __future__ import annotations

import heapq
import html
import os
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilm.autograd.layout import Point, layered
from minilm.files import written_whole
from minilm.tape import Node, site_line
from minilm.tensor import Tensor

Names = Any  # {"w": w}, pairs ("w", w), or a Module

FONT = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"
LARGE, SMALL = 13, 10  # pixels
ADVANCE = 0.62  # the width of a character of these fonts, as a share of their size
MARGIN, PADDING = 16.0, 9.0
LINE = 40  # characters of a source line that are shown; the rest is in the tooltip
STYLES = {  # of a box: fill, border
    "operation": ("#e8f1fb", "#4b7bb5"),
    "leaf": ("#e6f4e4", "#4f9150"),
    "cut": ("#ffffff", "#999999"),
}


@dataclass
class Box:
    """What is written into one box of the picture.

    Attributes:
        kind: "operation", "leaf", or "cut" for what max_nodes left out.
        title: the operation's or leaf's name.
        shape: of what it gives, as text.
        source: "model.py:12  x = self.fc(x)", shortened; "" for leaves.
        full: the tooltip: the whole path and source line.
    """

    kind: str
    title: str
    shape: str = ""
    source: str = ""
    full: str = ""

    @property
    def size(self) -> tuple[float, float]:
        """Width and height that hold the text, in pixels."""
        first = _columns(f"{self.title}  {self.shape}" if self.shape else self.title) * LARGE
        width = max(first, _columns(self.source) * SMALL) * ADVANCE + 2 * PADDING
        return width, (2 * LARGE + SMALL if self.source else LARGE) + 2 * PADDING - 4


@dataclass
class Arrow:
    """One arrow: between which boxes, and what stands beside it (`[1]`: output 1; `x2`: twice an input)."""

    source: int
    target: int
    output: int | None = None
    times: int = 1

    @property
    def label(self) -> str:
        """The text beside the arrow, mostly none."""
        parts = ([] if self.output is None else [f"[{self.output}]"]) + ([f"x{self.times}"] if self.times > 1 else [])
        return " ".join(parts)


class Graph:
    """The operations behind a tensor, as a drawing. What it shows is noted when it is made.

    Args:
        tensor: where the graph ends. Also after `backward`, which frees values but not the history.
        names: names for leaves and computed tensors: `{"w": w}`, pairs `("w", w)` as
            `model.named_parameters()` gives them, or a Module.
        max_nodes: how many operations to show at most, the last ones; the picture says what is left out.

    Attributes:
        boxes, arrows: what is drawn, in the order of computation.
        note: a remark below the picture, such as how much was left out; mostly "".
    """

    def __init__(self, tensor: Tensor, names: Names = None, max_nodes: int = 300) -> None:
        if max_nodes < 1:
            raise ValueError(f"graph: max_nodes must be at least 1, not {max_nodes}")
        self.boxes: list[Box] = []
        self.arrows: list[Arrow] = []
        self.note = ""
        leaves, computed = _named(names)
        if tensor.node is None:
            self.boxes.append(_leaf_box(tensor, leaves))
            self.note = "no recorded operation made this tensor"
            return
        shown, count = _newest(tensor.node, max_nodes)
        if count > len(shown):
            self.note = f"the last {len(shown):,} of {count:,} operations; graph(max_nodes={count}) shows all"
        self._draw(sorted(shown, key=lambda node: node.number), leaves, computed)

    def _draw(self, nodes: list[Node], leaves: dict[int, str], computed: dict[tuple[int, int], str]) -> None:
        """Enter the boxes, each leaf just before its first use, and the arrows."""
        place: dict[int, int] = {}
        shown = {id(node) for node in nodes}
        for node in nodes:
            arrows: dict[tuple[int, int | None], Arrow] = {}
            cut = None
            for edge in node.edges:
                if edge is None:
                    continue
                origin, index = edge
                if isinstance(origin, Node) and id(origin) not in shown:
                    if cut is None:
                        cut = self._enter(Box("cut", "..."))
                    start, output = cut, None
                else:
                    if id(origin) not in place:  # a leaf; operations come in the order of their numbers
                        place[id(origin)] = self._enter(_leaf_box(origin, leaves))
                    start = place[id(origin)]
                    output = index if isinstance(origin, Node) and origin.outputs is not None else None
                if (start, output) in arrows:
                    arrows[start, output].times += 1
                else:
                    arrows[start, output] = Arrow(start, -1, output)
            place[id(node)] = self._enter(_operation_box(node, computed))
            for arrow in arrows.values():
                arrow.target = place[id(node)]
                self.arrows.append(arrow)

    def _enter(self, box: Box) -> int:
        self.boxes.append(box)
        return len(self.boxes) - 1

    def __repr__(self) -> str:
        count = {kind: sum(box.kind == kind for box in self.boxes) for kind in STYLES}
        return f"<Graph of {count['operation']} operations and {count['leaf']} leaves; .save('graph.svg') draws it>"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the drawing to `path`: an .svg picture, or a .dot text for Graphviz.

        Errors: ValueError for another ending; OSError where the file cannot be written.
        """
        ending = Path(path).suffix.lower()
        if ending not in (".svg", ".dot"):
            raise ValueError(f"graph: save writes .svg and .dot, not {ending or 'a name without ending'!r}: {path}")
        with written_whole(path, "w") as file:
            file.write(self._repr_svg_() if ending == ".svg" else self.dot)

    # --- Graphviz ---------------------------------------------------------------------------------

    @property
    def dot(self) -> str:
        """The graph in Graphviz's language, for its own tools and layouts."""
        lines = ["digraph {", '  node [shape=box style=filled fontname="monospace"]']
        for i, box in enumerate(self.boxes):
            fill, border = STYLES[box.kind]
            label = "\\n".join(_quoted(text) for text in (f"{box.title}  {box.shape}".rstrip(), box.source) if text)
            lines.append(f'  n{i} [label="{label}" fillcolor="{fill}" color="{border}" tooltip="{_quoted(box.full)}"]')
        for arrow in self.arrows:
            label = f' [label="{arrow.label}"]' if arrow.label else ""
            lines.append(f"  n{arrow.source} -> n{arrow.target}{label}")
        if self.note:
            lines.append(f'  label="{_quoted(self.note)}"')
        return "\n".join([*lines, "}"]) + "\n"

    # --- SVG --------------------------------------------------------------------------------------

    def _repr_svg_(self) -> str:
        """The drawing as SVG; notebooks call this."""
        sizes = [box.size for box in self.boxes]
        # Leaves hang at the side of the way that the values take, which runs straight.
        pulls = [1.0 if self.boxes[arrow.source].kind == "operation" else 0.005 for arrow in self.arrows]
        layout = layered(sizes, [(arrow.source, arrow.target) for arrow in self.arrows], pulls)
        below = 2 * SMALL if self.note else 0
        width = max(layout.width, _columns(self.note) * SMALL * ADVANCE) + 2 * MARGIN
        height = layout.height + below + 2 * MARGIN
        shift = (width - layout.width) / 2
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.1f} {height:.1f}" font-family="{FONT}">',
            '<rect width="100%" height="100%" fill="white"/>',
            f'<g transform="translate({shift:.1f} {MARGIN})">',
        ]
        for arrow, points in zip(self.arrows, layout.arrows):
            parts += _arrow(arrow, points)
        last = len(self.boxes) - 1
        for i, (box, centre) in enumerate(zip(self.boxes, layout.centres)):
            parts += _box(box, centre, result=i == last)
        parts.append("</g>")
        if self.note:
            parts.append(_text(self.note, width / 2, height - MARGIN / 2, SMALL, "#a04000"))
        return "\n".join([*parts, "</svg>"]) + "\n"


# --- what is shown -------------------------------------------------------------------------------


def _newest(root: Node, limit: int) -> tuple[list[Node], int]:
    """The `limit` last operations before and with `root`, newest first, and how many there are in all."""
    queue, seen, count = [(-root.number, root)], {root.number}, 0
    shown: list[Node] = []
    while queue:
        _, node = heapq.heappop(queue)
        count += 1
        if len(shown) < limit:
            shown.append(node)
        for edge in node.edges:
            if edge is not None and isinstance(edge[0], Node) and edge[0].number not in seen:
                seen.add(edge[0].number)
                heapq.heappush(queue, (-edge[0].number, edge[0]))
    return shown, count


def _named(names: Names) -> tuple[dict[int, str], dict[tuple[int, int], str]]:
    """The names of leaves by identity, and of computed tensors by node and output."""
    if names is None:
        return {}, {}
    if hasattr(names, "named_parameters"):
        names = names.named_parameters()
    pairs: Iterable[Any] = names.items() if isinstance(names, Mapping) else names
    leaves: dict[int, str] = {}
    computed: dict[tuple[int, int], str] = {}
    for name, tensor in pairs:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"graph: names must lead to tensors, and {name!r} leads to {type(tensor).__name__}")
        if tensor.node is None:
            leaves[id(tensor)] = str(name)
        else:
            computed[id(tensor.node), tensor._index] = str(name)
    return leaves, computed


def _leaf_box(leaf: Tensor, names: dict[int, str]) -> Box:
    title = _printable(names.get(id(leaf), type(leaf).__name__))
    return Box("leaf", title, str(leaf.shape), full=f"{title}: leaf, {leaf.shape} {leaf.dtype}")


def _operation_box(node: Node, names: dict[tuple[int, int], str]) -> Box:
    if node.outputs is not None:
        shapes = [str(shape) for shape, _ in node.outputs]
        shape = f"{len(shapes)} of {shapes[0]}" if len(set(shapes)) == 1 else ", ".join(shapes)
    else:
        shape = str(node.output_shape)
    outputs = range(1 if node.outputs is None else len(node.outputs))
    called = ", ".join(names[id(node), i] for i in outputs if (id(node), i) in names)
    filename, line, text = site_line(node.site)
    source = f"{os.path.basename(filename)}:{line}  {text}" if node.site is not None else ""
    title = f"{called} = {node.name}" if called else node.name
    return Box(
        "operation",
        _printable(title),
        shape,
        _shortened(_printable(source)),
        f"{node.name} {shape}\n{_printable(node.where)}",
    )


def _printable(text: str) -> str:
    """Without control characters, which have no place in a picture (nor in XML)."""
    return "".join(c if c.isprintable() else " " for c in text)


def _shortened(text: str) -> str:
    return text if len(text) <= LINE else text[: LINE - 3].rstrip() + "..."


def _columns(text: str) -> int:
    """How many characters wide; Chinese, Japanese and Korean ones count two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _quoted(text: str) -> str:
    """For between Graphviz's quotes."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


# --- how it is drawn -----------------------------------------------------------------------------


def _text(text: str, x: float, y: float, size: int, colour: str, anchor: str = "middle", bold: bool = False) -> str:
    """One line of text standing on y; x is its middle, start or end."""
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"{weight} '
        f'xml:space="preserve">{html.escape(text)}</text>'
    )


def _box(box: Box, centre: Point, result: bool) -> list[str]:
    """A box with its text; the result's border is thicker."""
    (x, y), (width, height), (fill, border) = centre, box.size, STYLES[box.kind]
    dash = ' stroke-dasharray="3 3"' if box.kind == "cut" else ""
    first = y + (-SMALL / 2 if box.source else LARGE * 0.35)
    # The title begins and the shape ends where the whole line, centred, would: right in any font.
    half = _columns(f"{box.title}  {box.shape}") * LARGE * ADVANCE / 2
    title = (
        _text(box.title, x - half, first, LARGE, "#222222", "start", bold=True)
        if box.shape
        else _text(box.title, x, first, LARGE, "#222222", bold=True)
    )
    return [
        f"<g><title>{html.escape(box.full)}</title>",
        f'<rect x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" height="{height:.1f}" rx="6" '
        f'fill="{fill}" stroke="{border}" stroke-width="{2.5 if result else 1.2}"{dash}/>',
        title,
        *([_text(box.shape, x + half, first, LARGE, "#222222", "end")] if box.shape else []),
        *([_text(box.source, x, y + LARGE, SMALL, "#555555")] if box.source else []),
        "</g>",
    ]


def _arrow(arrow: Arrow, points: list[Point]) -> list[str]:
    """A smooth line through the points, leaving and arriving straight down, and its head."""
    (x, y), (end_x, end_y) = points[0], points[-1]
    head = 7.0
    path = f"M {x:.1f} {y:.1f}"
    for i, (next_x, next_y) in enumerate(points[1:], 1):
        next_y -= head if i == len(points) - 1 else 0
        half = (y + next_y) / 2
        path += f" C {x:.1f} {half:.1f} {next_x:.1f} {half:.1f} {next_x:.1f} {next_y:.1f}"
        x, y = next_x, next_y
    drawn = [
        f'<path d="{path}" fill="none" stroke="#777777" stroke-width="1.2"/>',
        f'<path d="M {end_x:.1f} {end_y:.1f} l -4 -{head} l 8 0 z" fill="#777777"/>',
    ]
    if arrow.label:
        left = points[-2][0] > end_x  # on the side that the line does not come from
        x, anchor = (end_x - 6, "end") if left else (end_x + 6, "start")
        drawn.append(_text(arrow.label, x, end_y - head + 2, SMALL, "#555555", anchor))
    return drawn
