"""The report as Markdown, made anew from the figures of all sections that are there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_sections.machine import BUSY
from bert_sections.pictures import draw_losses, draw_seconds
from bert_sections.sections import SECTIONS
from bert_sections.turns import MINILM, PYTORCH
from minilm.files import written_whole
from minilm.train.tasks import task

NAME = "report.md"
BOTH = (MINILM, PYTORCH)
Figures = Mapping[str, Any]


def write(out: Path, records: Mapping[str, dict[str, Any]], missing: Mapping[str, str], here: Figures) -> Path:
    """Write OUT/report.md with its pictures, whole.

    records: of the sections that were measured. missing: what the others lack. here: this machine, as `described`.
    """
    lines = ["# BERT beside PyTorch", "", *_machine(here), "", *READING, ""]
    for section in SECTIONS:
        record = records.get(section.name)
        if record is None:
            continue
        figures = record["figures"]
        lines += [f"## {section.title}", "", *WORDS[section.name](figures), ""]
        if "losses" in figures and section.name != "agreement":
            picture = draw_losses(figures["losses"], section.title, out / f"{section.name}.png")
            lines += [f"![The losses of both]({picture.name})", ""] if picture else []
        lines += [_measured(record, here), ""]
    seconds = {name: seconds_of(record["figures"]) for name, record in records.items() if name != "agreement"}
    if seconds and (picture := draw_seconds(seconds, out / "seconds.png")):
        lines += ["## Seconds", "", f"![The seconds of both]({picture.name})", ""]
    absent = [f"- {name}: {why}" for name, why in missing.items() if name not in records]
    if absent:
        lines += ["## Not measured", "", *absent, ""]
    path = out / NAME
    with written_whole(path, "w") as file:
        file.write("\n".join(lines))
    return path


READING = (
    "Both libraries begin with the same weights and take the same steps on the same batches, in turn, on all CPUs. A",
    "share is minilm's time by PyTorch's: below 1 minilm is the faster. Intervals are of 95 % and say what is to be",
    "expected of other texts of the same kind; dropout draws differ between the two. `figures/` holds every number,",
    "with the losses of all steps.",
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table: the first column in words, the others figures. A | in a cell would end it."""
    cells = [list(head), ["---", *["---:"] * (len(head) - 1)], *map(list, rows)]
    return [f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in cells]


def _machine(here: Figures) -> list[str]:
    threads = ", ".join(f"{name} {count}" for name, count in here["threads"].items())
    rows = {
        "processor": f"{here['cpu']} ({' '.join(here['features'])})",
        "CPUs": f"{here['cpus']}, of which {here['cpus_usable']} may be used; threads: {threads}",
        "system": f"{here['system']}, {here['machine']}; Python {here['python']}",
        "versions": ", ".join(f"{name} {version}" for name, version in here["versions"].items()),
        "kernels": here["backend"],
        "written": here["date"],
    }
    return table(("machine", ""), rows.items())


def _measured(record: Figures, here: Figures) -> str:
    """When a section was measured, in what company and, if not on this machine and with these versions, where."""
    measured = record["measured"]
    words = [f"Measured on {measured['date']}, in {measured['seconds'] / 60:.1f} minutes"]
    others = measured["others"]
    if others is not None:
        words.append(f"other processes took {others:.0%} of the CPUs")
        if others >= BUSY:
            words.append("**busy: the seconds here, and their shares, are not to be relied on**")
    for key in ("cpu", "cpus", "system", "versions", "threads"):
        if measured[key] != here[key]:
            words.append(f"other {key} than above: {measured[key]}")
    if record["settings"].get("quick"):
        words.append("**quick: a few steps, the figures mean nothing**")
    return f"{'; '.join(words)}."


# --- sections -----------------------------------------------------------------------------------------


def agreement(figures: Figures) -> list[str]:
    """The largest differences."""
    states, losses = figures["states"], figures["losses"]
    apart = [abs(a - b) for a, b in zip(losses[MINILM], losses[PYTORCH])]
    rows = [("hidden states at tokens, all layers", f"{max(states):.1e}")]
    rows += [("sentences' vectors of length 1", f"{figures['embeddings']:.1e}")]
    for name, found in figures["gradients"].items():
        rows += [(f"{name}: loss", f"{found['loss']:.1e}")]
        rows += [(f"{name}: all gradients, by each one's largest", f"{found['gradients']:.1e}")]
    for writer, found in figures["exchanged"].items():
        reader = PYTORCH if writer == MINILM else MINILM
        equal = "all equal" if found["weights_equal"] else "**not equal**"
        rows += [(f"written by {writer}, read by {reader}: weights", equal)]
        rows += [(f"written by {writer}, read by {reader}: hidden states", f"{found['states']:.1e}")]
    rows += [(f"losses over {len(apart)} steps of the usual lines of fine-tuning", f"{max(apart):.1e}")]
    words = "Five sentences with padding, in float32; of the losses batches of 8 texts, AdamW, without dropout."
    return [words, "", *table(("largest difference", ""), rows)]


def fine_tuning(figures: Figures) -> list[str]:
    """What both reach after each epoch, and take."""
    c, metric = figures["config"], figures["metric"]
    scale = 1 if c["task"] == "qa" else 100  # SQuAD's measures are in percent
    data = f"{figures['examples']:,} examples to learn from, {figures['held_out']:,} to test on"
    lines = [f"Weights of {c['pretrained']}; {data}. {recipe(c)}", ""]
    rows = [
        _compared(f"{metric} after step {epoch['step']}", epoch["measures"], metric, scale)
        for epoch in figures["epochs"]
    ]
    last, others = figures["epochs"][-1]["measures"], task(c["task"]).config.METRICS[1:]
    rows += [_compared(f"{name} at the end", last, name, scale) for name in others if name in last[MINILM]]
    if "baseline" in figures:
        found = figures["baseline"]
        words = f"accuracy of a logistic regression on TF-IDF (C = {found['C']})"
        rows += [(words, _value(found["accuracy"], scale), "", "")]
    lines += table(("", *BOTH, "difference in points"), rows)
    seconds = figures["seconds"]
    spent = [(part, [seconds[name][part] for name in BOTH]) for part in ("steps", "tests")]
    spent += [("together", [sum(pair) for pair in zip(*(values for _, values in spent))])]
    return [*lines, "", *_seconds(spent)]


def pretraining(figures: Figures) -> list[str]:
    """How far both come, and what they take."""
    c, base = figures["config"], figures["baseline"]
    model = c["model"]
    about = (
        f"{figures['corpus']}: {figures['tokens']:,} tokens of {model['vocab_size']:,} kinds. "
        f"{model['num_hidden_layers']} layers, {model['hidden_size']} channels, products in {c['precision']}. "
        f"{recipe(c)}"
    )
    ours, theirs = (figures["measures"][name] for name in BOTH)
    rows: list[Sequence[str]] = [
        (f"{words}, held out", f"{ours[key]:.1%}", f"{theirs[key]:.1%}", f"{100 * (ours[key] - theirs[key]):+.1f}")
        for key, words in (("masked_accuracy", "masked tokens"), ("next_sentence_accuracy", "next sentence"))
    ]
    times = [f"{found['masked_accuracy'] / base:.2f} times" for found in (ours, theirs)]
    rows.insert(1, (f"beside {base:.1%} by frequency", *times, ""))
    rows.append(("loss, both tasks", f"{ours['loss']:.3f}", f"{theirs['loss']:.3f}", ""))
    spent = [("steps", [figures["seconds"][name] for name in BOTH])]
    batches = f"Tested on {figures['batches']} held-out batches."
    return [about, batches, "", *table(("", *BOTH, "difference in points"), rows), "", *_seconds(spent)]


WORDS: dict[str, Callable[[Figures], list[str]]] = {
    "agreement": agreement,
    "pretraining": pretraining,
    **dict.fromkeys(("sentiment", "tags", "scratch", "answers"), fine_tuning),
}


def recipe(c: Figures) -> str:
    """How a run learns, of its configuration."""
    length = c.get("max_length", c["model"]["max_position_embeddings"])
    clipped = f"gradients clipped at {c['grad_clip']:g}" if c["grad_clip"] else "gradients not clipped"
    return (
        f"{c['steps']:,} steps of {c['batch_size']}, of {length} tokens at most; AdamW at {c['learning_rate']:g}, "
        f"after {c['warmup_steps']} steps of warm-up down to {c['min_learning_rate']:g}, "
        f"weight decay {c['weight_decay']:g}, {clipped}."
    )


def seconds_of(figures: Figures) -> dict[str, float]:
    """The seconds of steps and tests of both."""
    found = figures["seconds"]
    return {name: sum(value.values()) if isinstance(value, dict) else value for name, value in found.items()}


def _compared(words: str, measures: Figures, name: str, scale: float) -> Sequence[str]:
    """A row: both values with their intervals, and the difference."""
    ours, theirs = (measures[side][name] for side in BOTH)
    return words, _value(ours, scale), _value(theirs, scale), f"{scale * (ours['value'] - theirs['value']):+.2f}"


def _value(measure: Figures, scale: float) -> str:
    value, low, high = (scale * measure[key] for key in ("value", "low", "high"))
    return f"{value:.2f} % ({low:.2f} to {high:.2f})"


def _seconds(spent: Sequence[tuple[str, Sequence[float]]]) -> list[str]:
    rows = [(part, f"{ours:.1f}", f"{theirs:.1f}", f"{ours / theirs:.2f}") for part, (ours, theirs) in spent]
    return table(("seconds", *BOTH, "share"), rows)
