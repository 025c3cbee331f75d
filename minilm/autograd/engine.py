"""The backward walk: `Tensor.backward` and `autograd.grad`.

Every node has a number, nodes point only at older nodes, so taking the highest number first visits
each node after everything that used its results: a topological order without sorting and without
recursion. A heap holds the nodes that have received gradients and wait for their turn.

Nothing is written to any `.grad` before the walk is over, so that an interrupt or an error inside
it leaves all gradients as they were.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence, Set
from itertools import chain, repeat
from typing import Any

import numpy as np

from minilm.autograd import anomaly
from minilm.autograd.partial import PartialGradient
from minilm.device import array_module
from minilm.errors import AutogradError, ShapeError
from minilm.modes import state
from minilm.tape import Node
from minilm.tensor import Tensor, wrap

Array = Any
Gradient = Any  # an array, or a Tensor while the walk itself is recorded


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Add the gradient of `tensors` into the `.grad` of every leaf that they depend on.

    Args:
        tensors: what to differentiate.
        grad_tensors: for each a gradient of its shape; may be left out for one-element tensors (1).
        retain_graph: keep saved values for another walk; by default only if `create_graph`.
        create_graph: record the walk, so that the gradients can be differentiated again.
        inputs: add into these tensors' `.grad` only; by default into every leaf's.

    Errors: AutogradError where there is no graph, or it was freed or overwritten.
    """
    roots = _roots(tensors, grad_tensors, create_graph, copy=False)
    given = {id(gradient) for _, _, gradient in roots}  # the caller's own arrays, which no leaf may adopt
    keep = create_graph if retain_graph is None else retain_graph
    wanted = None if inputs is None else _wanted("backward", inputs)
    walk = _Walk(keep, create_graph, wanted)
    walk.run(roots)
    if wanted is None:
        walk.deliver(walk.leaves.values(), given)
    else:
        walk.deliver([(t, g) for t, g in zip(wanted, walk.captured()) if g is not None], given)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
    materialize_grads: bool = False,
) -> tuple[Any, ...]:
    """The gradients of `outputs` with respect to `inputs`, as Tensors; no leaf's `.grad` is touched.

    The walk visits only what lies between the two. An input that the outputs do not depend on is an
    error, unless `allow_unused` (None comes back for it) or `materialize_grads` (zeros come back).
    Shapes: each result has its input's shape.
    """
    roots = _roots(outputs, grad_outputs, create_graph, copy=True)  # what comes back may be what was given
    wanted = _wanted("grad", inputs)
    walk = _Walk(create_graph if retain_graph is None else retain_graph, create_graph, wanted)
    walk.run(roots)
    found = tuple(
        _result(tensor, gradient, position, allow_unused, materialize_grads)
        for position, (tensor, gradient) in enumerate(zip(wanted, walk.captured()))
    )
    walk.deliver(())
    return found


def _result(tensor: Tensor, gradient: Gradient, position: int, unused: bool, zeros: bool) -> Tensor | None:
    if gradient is not None:
        return gradient if isinstance(gradient, Tensor) else wrap(gradient)
    if zeros:
        return wrap(array_module(tensor.array).zeros_like(tensor.array))
    if unused:
        return None
    raise AutogradError(
        f"grad: the outputs do not depend on input {position} of shape {tensor.shape}; "
        "allow_unused=True gives None for it"
    )


class _Walk:
    """One walk from the roots back to the leaves, or to the tensors that were asked for.

    Attributes:
        leaves: for each leaf reached, by identity: the tensor and its gradient so far.
        retained: for non-leaf tensors that asked to keep theirs: the tensor and its gradient.
    """

    def __init__(self, retain: bool, create_graph: bool, wanted: Sequence[Tensor] | None = None) -> None:
        self.retain = retain
        self.create_graph = create_graph
        self.wanted = wanted
        self.leaves: dict[int, tuple[Tensor, Gradient]] = {}
        self.retained: list[tuple[Tensor, Gradient]] = []
        self._pending: dict[Node, list[Gradient]] = {}
        self._queue: list[tuple[int, Node]] = []
        self._own: set[int] = set()  # waiting arrays that nobody else holds: the walk may add into them
        self._caught: dict[tuple[int, int], Gradient] = {}
        self._targets: dict[Node, set[int]] = {}
        self._useful: set[Node] | None = None
        self._leaves = None if wanted is None else {id(t) for t in wanted if t.node is None}

    def run(self, roots: list[tuple[Any, int, Gradient]]) -> None:
        """Push the roots' gradients back until no node waits."""
        if self.wanted is not None:
            for tensor in self.wanted:
                node = tensor.node
                if node is not None:
                    self._targets.setdefault(node, set()).add(tensor._index)
            self._useful = self._on_the_way(roots)
        before = state.recording, state.create_graph
        try:
            state.recording = state.create_graph = self.create_graph
            for target, index, gradient in roots:
                self._send((target, index), gradient)
            while self._queue:
                _, node = heapq.heappop(self._queue)
                gradients = self._pending.pop(node)
                self._own.difference_update(map(id, gradients))
                self._visit(node, gradients)
            self.leaves = {key: (t, _leaf_hooks(t, g)) for key, (t, g) in self.leaves.items()}
        finally:
            state.recording, state.create_graph = before

    def _visit(self, node: Node, gradients: list[Gradient]) -> None:
        """Turn the gradients of a node's outputs into those of its inputs, and send them on."""
        if node.outputs is not None and node.materialize:
            gradients = [_zeros(meta, gradients) if g is None else g for g, meta in zip(gradients, node.outputs)]
        if node.hooks is not None:
            self._run_hooks(node, gradients)
        for index in self._targets.get(node, ()):
            self._caught[id(node), index] = gradients[index]
        if self._useful is not None and node not in self._useful:
            return
        results = node.op.gradients(node, gradients)
        if state.anomaly:
            anomaly.check_backward(node, gradients, results)
        fresh = not self.create_graph and getattr(node.op, "fresh", False)  # a user's Function does not say
        for edge, gradient in zip(node.edges, results):
            if edge is not None and gradient is not None:
                self._send(edge, gradient, fresh)
        if not self.retain:
            node.release()

    def _send(self, edge: tuple[Any, int], gradient: Gradient, fresh: bool = False) -> None:
        """Add `gradient` to what waits at the end of an edge; the first one to come is adopted as it is.

        Args:
            fresh: nobody else holds the gradient's memory.
        """
        target, index = edge
        if isinstance(gradient, np.generic):  # NumPy turns 0-d arrays into scalars; they are arrays here
            gradient = np.asarray(gradient)
        if isinstance(target, Node):
            if self._useful is not None and target not in self._useful and target not in self._targets:
                return
            waiting = self._pending.get(target)
            if waiting is None:
                waiting = [None] * (1 if target.outputs is None else len(target.outputs))
                self._pending[target] = waiting
                heapq.heappush(self._queue, (-target.number, target))
            known = waiting[index]
            waiting[index] = self._add(known, gradient, fresh)
            return
        if self._leaves is not None and id(target) not in self._leaves:
            return
        _, known = self.leaves.get(id(target), (target, None))
        self.leaves[id(target)] = (target, self._add(known, gradient, fresh))

    def _add(self, known: Gradient | None, gradient: Gradient, fresh: bool) -> Gradient:
        """The sum, made in one of the two arrays if nobody else holds it (then as good as freshly allocated)."""
        if isinstance(gradient, PartialGradient):
            if known is not None and known.dtype == gradient.array.dtype:
                total = gradient.plus(known, id(known) in self._own)
                self._own.discard(id(known))
                self._own.add(id(total))
                return total
            gradient, fresh = gradient.dense(), True
        if known is None:
            if fresh:
                self._own.add(id(gradient))
            return gradient
        if self.create_graph:
            return known + gradient
        same = known.dtype == gradient.dtype
        if same and id(known) in self._own:
            known += gradient
            return known
        if same and fresh:
            gradient += known
            total = gradient
        else:
            total = known + gradient
            total = total if hasattr(total, "base") and not isinstance(total, np.generic) else np.asarray(total)
            self._own.discard(id(known))
        self._own.add(id(total))
        return total

    def _run_hooks(self, node: Node, gradients: list[Gradient]) -> None:
        """Show each output's gradient to its hooks; what a hook returns takes its place."""
        assert node.hooks is not None
        for index, hooks in node.hooks.items():
            if gradients[index] is None:
                continue
            owners = [hook.retains_for for hook in hooks.values() if hasattr(hook, "retains_for")]
            for hook in list(hooks.values()):
                if not hasattr(hook, "retains_for"):
                    gradients[index] = _call_hook(hook, gradients[index])
            for tensor in [owner() for owner in owners]:  # what is retained is what leaves the last hook
                if tensor is not None:
                    self.retained.append((tensor, gradients[index]))

    def _on_the_way(self, roots: list[tuple[Any, int, Gradient]]) -> set[Node]:
        """The nodes from which a wanted tensor can be reached: only their backward is worth running."""
        leaves = self._leaves or set()
        # Edges lead to older nodes only: behind the oldest wanted node there is nothing to find.
        oldest = -1 if leaves else min(node.number for node in self._targets)
        reachable: dict[int, Node] = {}
        stack = [target for target, _, _ in roots if isinstance(target, Node)]
        while stack:
            node = stack.pop()
            if node.number > oldest and node.number not in reachable:
                reachable[node.number] = node
                stack.extend(e[0] for e in node.edges if e is not None and isinstance(e[0], Node))
        useful: set[Node] = set()
        for number in sorted(reachable):  # oldest first, so that a node's inputs are judged before it
            node = reachable[number]
            for edge in node.edges:
                if edge is None:
                    continue
                target = edge[0]
                if id(target) in leaves or target in useful or target in self._targets:
                    useful.add(node)
                    break
        return useful

    def captured(self) -> list[Gradient]:
        """The gradients of the wanted tensors, None where nothing arrived."""
        found: list[Gradient] = []
        for tensor in self.wanted or ():
            if tensor.node is None:
                found.append(self.leaves.get(id(tensor), (tensor, None))[1])
            else:
                found.append(self._caught.get((id(tensor.node), tensor._index)))
        return found

    def deliver(self, leaves: Any, given: Set[int] = frozenset()) -> None:
        """Write the gradients to the `.grad` of the leaves and of those that retain theirs, each once.

        Args:
            given: the identities of arrays that are the caller's own.
        """
        everything = {id(tensor): (tensor, gradient) for tensor, gradient in (*self.retained, *leaves)}
        _deliver(list(everything.values()), given)


def _deliver(gradients: list[tuple[Tensor, Gradient]], given: Set[int]) -> None:
    """Set or increase each tensor's `.grad`, all of them or none.

    The new values are made first. The writing is one loop inside the interpreter's C code (two `map`s,
    chained, into an empty deque), which Ctrl-C cannot split.
    """
    fresh: list[tuple[Tensor, Tensor]] = []
    sums: list[tuple[Array, Array]] = []
    owned = set(given)
    for tensor, gradient in gradients:
        old = tensor.grad
        if isinstance(gradient, Tensor) or (old is not None and old.requires_grad):
            new = gradient if isinstance(gradient, Tensor) else wrap(gradient)
            fresh.append((tensor, new if old is None else old + new))
        elif old is None:
            # Adopted without a copy unless it is a view, the caller's, or already another tensor's gradient.
            # (An array whose base is none has its memory to itself, in NumPy's or in the kernels' pool.)
            if isinstance(gradient.base, np.ndarray) or id(gradient) in owned or not gradient.flags.writeable:
                gradient = gradient.copy()
            owned.add(id(gradient))
            fresh.append((tensor, wrap(gradient)))
        else:
            sums.append((old.array, gradient))
    olds, news = [old for old, _ in sums], [new for _, new in sums]
    adding = map(np.add, olds, news, olds)
    setting = map(setattr, [t for t, _ in fresh], repeat("grad"), [g for _, g in fresh])
    deque(chain(adding, setting), maxlen=0)


def _wanted(name: str, inputs: Any) -> list[Tensor]:
    """The tensors whose gradients were asked for. Errors: AutogradError if there are none, or one cannot have any."""
    wanted = _listed(inputs)
    if not wanted:
        raise AutogradError(f"{name}: inputs is empty; name at least one tensor")
    for position, tensor in enumerate(wanted):
        if not tensor.requires_grad:
            raise AutogradError(f"{name}: input {position} of shape {tensor.shape} does not require a gradient")
    return wanted


def _roots(tensors: Any, gradients: Any, create_graph: bool, copy: bool) -> list[tuple[Any, int, Gradient]]:
    """For each tensor where its walk starts and with what gradient."""
    outputs = _listed(tensors)
    given = [None] * len(outputs) if gradients is None else _listed(gradients)
    if len(given) != len(outputs):
        raise AutogradError(f"backward: {len(outputs)} tensors but {len(given)} gradients for them")
    roots = []
    for tensor, gradient in zip(outputs, given):
        if not tensor.requires_grad:
            raise AutogradError(
                f"backward: this tensor of shape {tensor.shape} does not require a gradient and no operation "
                "recorded it; did you forget requires_grad=True, or are you inside no_grad()?"
            )
        node = tensor.node
        roots.append((tensor if node is None else node, tensor._index, _seed(tensor, gradient, create_graph, copy)))
    return roots


def _seed(tensor: Tensor, gradient: Any, create_graph: bool, copy: bool) -> Gradient:
    """The gradient that a walk starts from: the one given (or a copy), or 1 for a tensor of one element."""
    xp = array_module(tensor.array)
    if gradient is None:
        if tensor.array.size != 1:
            raise AutogradError(
                f"backward: a tensor of shape {tensor.shape} has {tensor.array.size} elements; say which "
                "direction to differentiate in: y.backward(gradient), or reduce it first: y.sum().backward()"
            )
        gradient = wrap(xp.ones_like(tensor.array))
    elif not isinstance(gradient, Tensor):
        gradient = wrap(xp.asarray(gradient, dtype=tensor.dtype))
    if gradient.shape != tensor.shape:
        raise ShapeError(f"backward: the gradient has shape {gradient.shape}, the tensor {tensor.shape}")
    if create_graph:
        return gradient
    return gradient.array.astype(tensor.dtype, copy=copy)


def _zeros(meta: tuple[tuple[int, ...], Any], gradients: list[Gradient]) -> Gradient:
    """Zeros for an output that nothing used, of the kind (array or Tensor) of the others."""
    shape, dtype = meta
    like = next(g for g in gradients if g is not None)
    array = like.array if isinstance(like, Tensor) else like
    zeros = array_module(array).zeros(shape, dtype)
    return wrap(zeros) if isinstance(like, Tensor) else zeros


def _leaf_hooks(tensor: Tensor, gradient: Gradient) -> Gradient:
    """Show a leaf's whole gradient to its hooks."""
    for hook in list((tensor._hooks or {}).values()):
        gradient = _call_hook(hook, gradient)
    return gradient


def _call_hook(hook: Any, gradient: Gradient) -> Gradient:
    """Hooks see Tensors; a hook that returns nothing leaves the gradient as it is.

    What the hook sees and what it returns are copies: a later pass adds into `.grad` in place, and
    must not reach what the user keeps.
    """
    shown = gradient if isinstance(gradient, Tensor) else wrap(gradient.copy())
    changed = hook(shown)
    if changed is None:
        return gradient
    if not isinstance(changed, Tensor) or changed.shape != shown.shape:
        raise AutogradError(f"a hook on a gradient of shape {shown.shape} returned {changed!r}")
    return changed if isinstance(gradient, Tensor) else changed.array.copy()


def _listed(tensors: Any) -> list[Any]:
    return list(tensors) if isinstance(tensors, (list, tuple)) else [tensors]
