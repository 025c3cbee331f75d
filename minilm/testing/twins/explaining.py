"""From the first difference to its cause: narrow it down to a module, then change one thing at a time and look.

1. The *site* is the innermost module around the difference whose inputs agree: the fault is inside. Where the
   output of a module differs and its inputs do not, that is this module; where its inputs differ already, it is one
   of those around it.
2. The module runs once more on the recorded inputs, on both sides, with all operations written down. Those whose
   results occur on the other side too are innocent.
3. For every other operation each usual cause (`causes.CAUSES`) says what the result would be with one thing changed.
   That takes the result's place, the module runs again, and if the difference is gone, the cause is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilm.testing.same import RTOL, Difference, difference
from minilm.testing.twins import optimizer_causes
from minilm.testing.twins.calls import Array, Call, Rewrite
from minilm.testing.twins.causes import CAUSES, Cause, Site
from minilm.testing.twins.report import Explanation, Row
from minilm.testing.twins.tracing import Key, Recording, Visit, leaves

MOST_TRIALS = 400  # how often a module is run again at most

Again = Callable[["Rewrite | None"], Recording]
Pick = Callable[[Recording], "tuple[Array | None, int]"]  # the values that differ, and how many operations ran by then


@dataclass(frozen=True)
class Trial:
    """One thing changed on one side, and the difference that was left."""

    cause: Cause
    label: str
    call: Call
    left: Difference

    def place(self, site_name: str) -> str:
        """In which operation: `PyTorch's softmax in attention`."""
        inside = f" in {self.call.module}" if self.call.module not in ("", site_name) else ""
        return f"{self.call.side}'s {self.call.op}{inside}"


class Explainer:
    """Explains a row by the two runs that it is from (`comparison._Run`)."""

    def __init__(self, ours: Any, theirs: Any) -> None:
        self.ours, self.theirs = ours, theirs
        self.runs = (ours, theirs)

    def explain(self, row: Row) -> Explanation:
        """Why this row, the first that differs, does."""
        if row.kind in ("forward", "input"):
            return self._forward(row)
        if row.kind == "loss":
            return self._loss(row)
        if row.kind.startswith("step"):
            return self._step(row)
        if row.kind == "weight":
            return self._weight(row)
        return Explanation(
            f"the gradient of {row.name} differs first{_size(row)}, while all values of the forward pass agree; "
            "the usual causes change the forward pass too, so none of them can explain it"
        )

    # --- forward ------------------------------------------------------------------------------------

    def _forward(self, row: Row) -> Explanation:
        title, _, place = row.name.partition("@")[0].partition(" [")
        place = place.rstrip("]")
        visit = next(v for v in self.ours.recording.visits if v.title == title)
        given = row.kind == "input"
        rtol = None if row.difference is None else row.difference.rtol
        found = self._site(visit, given, rtol)
        subject = f"what {title} is given" if given else row.name
        if given and len(visit.inputs) > 1:
            subject += f" as argument {place}"
        if found is None:
            return Explanation(f"{subject} differs first{_size(row)}; nothing around it has equal inputs to run it on")
        site, twin = found
        key = (visit.name, visit.number, "input" if given else "output", place)
        agains = [_module_again(run, at) for run, at in zip(self.runs, (site, twin))]
        picks = [_picker(run.recording, at, key) for run, at in zip(self.runs, (site, twin))]
        if site is not visit:
            subject += f", computed in {site.title},"
        return explained(f"{subject} differs first{_size(row)}", site.name, agains, picks, row)

    def _site(self, visit: Visit, inside: bool, rtol: float | None) -> tuple[Visit, Visit] | None:
        """The innermost module around whose inputs agree, on both sides; not `visit` itself if `inside` of another."""
        other = {(v.name, v.number): v for v in self.theirs.recording.visits}
        for outer in reversed(enclosing(self.ours.recording, visit)):
            twin = other.get((outer.name, outer.number))
            if twin is None or (inside and outer is visit):
                continue
            places = outer.inputs.keys() & twin.inputs.keys()
            if all(difference(outer.inputs[p], twin.inputs[p], rtol).agrees for p in places):
                return outer, twin
        return None

    def _loss(self, row: Row) -> Explanation:
        if self.ours.loss is None:
            text = f"the loss differs first{_size(row)}; the script computes it by itself, beside all modules"
            return Explanation(text)
        agains: list[Again] = [_loss_again(run) for run in self.runs]

        def picked(recording: Recording) -> tuple[Array | None, int]:
            return leaves(recording.result).get(""), len(recording.calls)

        subject = f"the loss differs first{_size(row)}, while the outputs of the model agree"
        return explained(subject, "", agains, [picked, picked], row)

    # --- weights and steps ----------------------------------------------------------------------------

    def _weight(self, row: Row) -> Explanation:
        ours, theirs = (run.initial.get(row.name) for run in self.runs)
        subject = f"the weight {row.name} differs before anything is computed{_size(row)}"
        if ours is not None and theirs is not None and ours.ndim == 2 and difference(ours, theirs.T).agrees:
            text = f"{subject}; with the weight transposed the difference vanishes"
            return Explanation(text, "transposed weight", "the weight transposed", remaining=0.0)
        return Explanation(f"{subject}; copy the weights from one side to the other, or load them the same way")

    def _step(self, row: Row) -> Explanation:
        """Take the recorded gradients, and the optimiser's formula with one thing changed at a time."""
        count = int(row.kind.split()[1])
        subject = f"{row.name} differs first after {row.kind}{_size(row)}"
        subject += ", while its gradients agree" if count == 1 else ""
        if row.difference is None or not row.difference.shapes_agree:
            return Explanation(subject)
        trials = [trial for side in (0, 1) for trial in self._steps_of(side, row.name, count, row.difference.rtol)]
        gone = [trial for trial in trials if trial[0].agrees]
        if not gone:
            return Explanation(f"{subject}; {_nothing_found([(left, label, at) for left, _, label, at in trials])}")
        left, name, label, place = min(gone, key=lambda trial: trial[0].error)
        text = f"{subject}; with {label} in {place} the difference vanishes ({left.error:.0e})"
        others = _names(trial[1] for trial in gone if trial[1] != name and trial[0].error <= 10 * left.error)
        side = place.partition("'")[0]
        return Explanation(text + _so_do(others), name, label, side, "optimiser", left.error, others)

    def _steps_of(self, side: int, name: str, count: int, rtol: float) -> Iterator[tuple[Difference, str, str, str]]:
        """Each change of one side's optimiser: the difference that is left, the cause, its words, and where."""
        run, other = self.runs[side], self.runs[1 - side]
        adams = [optimizer_causes.adam_of(r.optimizer_of(p), p) for r in (run, other) for p in [_parameter(r, name)]]
        if adams[0] is None or any(name not in gradients for gradients in run.gradients[:count]):
            return
        gradients = [gradients[name] for gradients in run.gradients[:count]]
        start, own, goal = run.initial[name], run.parameters[count][name], other.parameters[count][name]
        if not difference(adams[0].steps(start, gradients).astype(own.dtype), own, rtol).agrees:
            return  # this side is no Adam as the formula has it: the other may be
        for cause, label, changed in optimizer_causes.variants(adams[0], adams[1]):
            made = changed.steps(start, gradients).astype(own.dtype)
            yield difference(made, goal, rtol), cause, label, f"{run.side.name}'s optimiser"


def _parameter(run: Any, name: str) -> Any:
    return dict(run.model.named_parameters())[name]


def enclosing(recording: Recording, visit: Visit) -> list[Visit]:
    """The visits that were under way when `visit` began, the outermost first, and itself."""
    around = [v for v in recording.visits if v.started <= visit.started and v.ended >= visit.ended]
    return sorted(around, key=lambda v: v.started)


def explained(subject: str, site_name: str, agains: list[Again], picks: list[Pick], row: Row) -> Explanation:
    """Run the site with one thing changed at a time; see the module's text."""
    recordings = [again(None) for again in agains]
    (ours, count), (theirs, other_count) = (pick(recording) for pick, recording in zip(picks, recordings))
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return Explanation(f"{subject}; the two are of different shapes or one is missing, and nothing can be varied")
    rtol = None if row.difference is None else row.difference.rtol
    if difference(ours, theirs, rtol).agrees:
        return Explanation(f"{subject}; run again on the same inputs the two agree: something else changed meanwhile")
    base, calls = (ours, theirs), (recordings[0].calls[:count], recordings[1].calls[:other_count])
    suspects = [unmatched(*calls), unmatched(*reversed(calls))]
    trials: list[Trial] = []
    for side in (0, 1):
        goal = base[1 - side]
        for cause, site, variant in _variants(suspects[side], *calls[:: 1 - 2 * side]):
            if len(trials) >= MOST_TRIALS:
                break
            values, _ = picks[side](agains[side](variant.rewrite))
            if values is not None and values.shape == goal.shape:
                pair = (values, goal) if side == 0 else (goal, values)
                trials.append(Trial(cause, variant.label, site.call, difference(*pair, rtol)))
    gone = [t for t in trials if t.left.agrees]
    if not gone:
        nearest = _nothing_found([(t.left, t.label, t.place(site_name)) for t in trials])
        return Explanation(f"{subject}; {nearest}{_first_operations(suspects)}")
    best = min(gone, key=lambda t: t.left.error)
    best = next(t for t in gone if t.cause is best.cause and t.left.error <= 2 * best.left.error)
    others = _names(t.cause.name for t in gone if t.cause is not best.cause and t.left.error <= 10 * best.left.error)
    text = (
        f"{subject}; with {best.label} in {best.place(site_name)} the difference vanishes "
        f"({best.left.error:.0e}){_so_do(others)}"
    )
    return Explanation(text, best.cause.name, best.label, best.call.side, best.call.op, best.left.error, others)


def _variants(suspects: list[Call], calls: list[Call], others: list[Call]) -> Iterator[tuple[Cause, Site, Any]]:
    """Every usual change of every suspected operation."""
    for call in suspects:
        site = Site(call, calls, others)
        for cause in CAUSES:
            if cause.applies(site):
                for variant in cause.variants(site):
                    yield cause, site, variant


def unmatched(calls: list[Call], others: list[Call]) -> list[Call]:
    """The operations with results that no operation of the other side has, and all conversions."""
    by_shape: dict[tuple[int, ...], list[Array]] = {}
    for call in others:
        by_shape.setdefault(call.output.shape, []).append(call.output)
    return [c for c in calls if c.casts or not any(_equal(c.output, y) for y in by_shape.get(c.output.shape, ()))]


def _equal(a: Array, b: Array) -> bool:
    """Whether two results are the same but for rounding: strictly, as a wrong suspect costs only time."""
    kinds = [x.dtype for x in (a, b) if x.dtype.kind == "f"]
    rtol = max((RTOL[kind] for kind in kinds), default=0.0)
    finite = np.abs(b[np.isfinite(b)]) if b.dtype.kind == "f" else np.zeros(0)
    return difference(a, b, rtol / 10, rtol / 100 * float(finite.max(initial=0.0))).agrees


def _module_again(run: Any, visit: Visit) -> Again:
    return lambda rewrite: run.side.again(visit, rewrite)


def _loss_again(run: Any) -> Again:
    return lambda rewrite: run.side.repeated(lambda: run.loss(run.side.copied(run.output)), None, rewrite)


def _picker(recording: Recording, site: Visit, key: Key) -> Pick:
    """What `key` names in the whole run, found in a run of the site alone, whose counts begin anew."""
    name, number, where, place = key
    before = sum(v.name == name and v.started < site.started for v in recording.visits)
    return lambda again: again.at((name, number - before, where, place))


# --- words ------------------------------------------------------------------------------------------


def _size(row: Row) -> str:
    """How much it is, in parentheses."""
    if row.difference is None or not row.difference.shapes_agree:
        return f" ({row.note})"
    at = f" at {row.index}" if row.index else ""
    return f" (max error {row.difference.error:.0e}{at})"


def _nothing_found(tried: list[tuple[Difference, str, str]]) -> str:
    """That no cause is known, and which change came nearest: what it was and where."""
    if not tried:
        return "none of the usual causes applies to what is computed there"
    left, label, place = min(tried, key=lambda t: t[0].error)
    return f"none of the usual causes makes it vanish: the nearest, {label} in {place}, leaves {left.error:.0e}"


def _first_operations(suspects: list[list[Call]]) -> str:
    """The first operation on each side whose result the other has not."""
    firsts = [calls[0] for calls in suspects if calls]
    if not firsts:
        return ""
    return "; the first results that the other side has not: " + ", ".join(f"{c.side}'s {c.op}" for c in firsts)


def _names(names: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _so_do(others: tuple[str, ...]) -> str:
    return f"; so does it with another {', '.join(others)}" if others else ""
