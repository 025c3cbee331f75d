"""Where to draw the boxes and arrows of a graph without cycles: in layers, arrows pointing down.

The classical way in four steps (Sugiyama, Tagawa & Toda 1981):

    1. layers    each box one below the lowest of the boxes that point at it;
    2. bends     an arrow over several layers gets an invisible point in each of those between;
    3. order     within a layer by the mean place of the neighbours, down and up a few times,
                 which undoes most crossings;
    4. places    each box as near as possible under its neighbours without touching the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

GAP_X, GAP_Y = 26.0, 44.0  # between boxes side by side, between layers, in pixels
BEND = 10.0  # the width that an arrow passing through a layer claims there
SWEEPS = 12
STRAIGHT = 8.0

Point = tuple[float, float]
Neighbours = list[list[tuple[int, float]]]  # of each vertex: the neighbours and how strongly they pull


@dataclass(frozen=True)
class Layout:
    """The picture's measures, in pixels.

    Attributes:
        centres: of each box.
        arrows: for each edge the points that it passes, from the bottom of one box to the top of another.
        width, height: of the whole.
    """

    centres: list[Point]
    arrows: list[list[Point]]
    width: float
    height: float


def layered(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]], pulls: Sequence[float]) -> Layout:
    """Places for boxes of `sizes` (width, height) with arrows between them.

    Args:
        sizes: of the boxes; box i must not point at a box before it (a topological order).
        edges: pairs (from, to) of box numbers.
        pulls: how strongly each edge wants to run straight.
    """
    layer = _layers(len(sizes), edges)
    widths, heights = [w for w, _ in sizes], [h for _, h in sizes]
    paths = []  # each edge as the vertices it passes: box, bends, box
    for source, target in edges:
        bends = []
        for between in range(layer[source] + 1, layer[target]):
            bends.append(len(widths))
            layer.append(between)
            widths.append(BEND)
        paths.append([source, *bends, target])
    rows: list[list[int]] = [[] for _ in range(max(layer, default=-1) + 1)]
    for vertex, row in enumerate(layer):
        rows[row].append(vertex)
    above: Neighbours = [[] for _ in widths]
    below: Neighbours = [[] for _ in widths]
    for path, pull in zip(paths, pulls):
        for a, b in pairwise(path):
            # Bends pull harder on each other, so that a long arrow runs straight where it can.
            strength = pull * (STRAIGHT if a >= len(sizes) and b >= len(sizes) else 1.0)
            below[a].append((b, strength))
            above[b].append((a, strength))
    _order(rows, above, below)
    x = _places(rows, above, below, widths)
    left = min((x[v] - widths[v] / 2 for v in range(len(widths))), default=0.0)
    x = [place - left for place in x]
    tops, tall, at = [], [], 0.0
    for line in rows:
        tops.append(at)
        tall.append(max((heights[v] for v in line if v < len(sizes)), default=0.0))
        at += tall[-1] + GAP_Y
    middles = [top + height / 2 for top, height in zip(tops, tall)]
    centres = [(x[v], middles[layer[v]]) for v in range(len(sizes))]
    arrows = []
    for path in paths:
        source, target = path[0], path[-1]
        points = [(x[source], centres[source][1] + heights[source] / 2)]
        for v in path[1:-1]:  # straight through the height of a layer, so that no box is cut
            points += [(x[v], tops[layer[v]]), (x[v], tops[layer[v]] + tall[layer[v]])]
        arrows.append([*points, (x[target], centres[target][1] - heights[target] / 2)])
    width = max((x[v] + widths[v] / 2 for v in range(len(widths))), default=0.0)
    return Layout(centres, arrows, width, max(at - GAP_Y, 0.0))


def _layers(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The layer of each box: one below the lowest that points at it; what nothing points at, just above its use."""
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for source, target in edges:
        before[target].append(source)
        after[source].append(target)
    layer = [0] * count
    for v in range(count):
        layer[v] = max((layer[u] + 1 for u in before[v]), default=0)
    for v in reversed(range(count)):
        if not before[v] and after[v]:
            layer[v] = min(layer[u] for u in after[v]) - 1
    return layer


def _order(rows: list[list[int]], above: Neighbours, below: Neighbours) -> None:
    """Sort each layer by the mean place of its neighbours; keep the order with the fewest crossings seen."""
    rank = {v: i for row in rows for i, v in enumerate(row)}
    best, fewest = [list(row) for row in rows], _crossings(rows, below, rank)
    for sweep in range(SWEEPS):
        downwards = sweep % 2 == 0
        for row in rows if downwards else reversed(rows):
            neighbours = above if downwards else below

            def mean(v: int, neighbours: Neighbours = neighbours) -> float:
                near = [rank[u] for u, _ in neighbours[v]]
                return sum(near) / len(near) if near else float(rank[v])

            row.sort(key=mean)
            rank.update({v: i for i, v in enumerate(row)})
        crossings = _crossings(rows, below, rank)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    rows[:] = best


def _crossings(rows: list[list[int]], below: Neighbours, rank: dict[int, int]) -> int:
    """How many pairs of arrows between neighbouring layers cross."""
    total = 0
    for row in rows:
        ends = [end for v in row for end in sorted(rank[u] for u, _ in below[v])]
        total += sum(a > b for i, a in enumerate(ends) for b in ends[i + 1 :])
    return total


def _places(rows: list[list[int]], above: Neighbours, below: Neighbours, widths: list[float]) -> list[float]:
    """The x of each vertex: near the mean of its neighbours, order kept, nothing touching."""
    x = [0.0] * len(widths)
    for row in rows:
        at = 0.0
        for v in row:
            x[v] = at + widths[v] / 2
            at += widths[v] + GAP_X
        for v in row:
            x[v] -= (at - GAP_X) / 2
    for sweep in range(6 * SWEEPS):
        both = sweep >= SWEEPS
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wishes, weights = [], []
            for v in row:
                near = above[v] + below[v] if both else (above[v] if sweep % 2 == 0 else below[v])
                total = sum(pull for _, pull in near)
                wishes.append(sum(pull * x[u] for u, pull in near) / total if near else x[v])
                weights.append(total if near else 0.1)
            gaps = [(widths[a] + widths[b]) / 2 + GAP_X for a, b in pairwise(row)]
            for v, place in zip(row, _apart(wishes, weights, gaps)):
                x[v] = place
    return x


def _apart(wishes: list[float], weights: list[float], gaps: list[float]) -> list[float]:
    """The places nearest to the `wishes` (weighted squares) that leave at least `gaps` between neighbours.

    Measured from where the gaps alone would put each, the places may only rise: this is isotonic
    regression, solved by joining neighbours that are out of order into blocks (Barlow et al. 1972).
    """
    offsets = [0.0]
    for gap in gaps:
        offsets.append(offsets[-1] + gap)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, how many
    for wish, weight, offset in zip(wishes, weights, offsets):
        block = (wish - offset, weight, 1)
        while blocks and blocks[-1][0] > block[0]:
            mean, heavy, count = blocks.pop()
            total = heavy + block[1]
            block = ((mean * heavy + block[0] * block[1]) / total, total, count + block[2])
        blocks.append(block)
    means = [mean for mean, _, count in blocks for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets)]
