"""The report as a table: for the terminal (rich) and for the README (Markdown)."""

from __future__ import annotations

import math
from typing import Any

from rich.table import Table

from minilm_benchmarks.cases import MINILM, PEERS, WORKLOADS
from minilm_benchmarks.judge import Row

Report = dict[str, Any]
LEGEND = (
    "x: how many times longer than minilm takes (or more memory); above 1 minilm is ahead. %: of the chip's limit. "
    "~: the rounds differ by more than 20%."
)
BUSY = (
    "BUSY: the CPUs together are slower than each alone. Either others compute too, and then what is measured is "
    "noise, or two of them share a core: then --threads with the number of cores."
)


def chip_line(found: Report) -> str:
    """What the machine can do, in a sentence."""
    c = found["chip"]
    how = "" if c["exact"] else " (by NumPy's product of matrices: less than the chip can do)"
    return (
        f"{c['gflops_one']:.0f} GFLOP/s on one core, {c['gflops_all']:.0f} on {found['threads']}{how}; reads "
        f"{c['gbs_large_one']:.0f} and {c['gbs_large_all']:.0f} GB/s from memory, {c['gbs_small_one']:.0f} and "
        f"{c['gbs_small_all']:.0f} GB/s again from {c['small_bytes'] / 2**20:.0f} MiB; "
        f"bfloat16 at most {c['bf16_factor']:g} times float32"
    )


def heading(found: Report) -> str:
    """Where, when and with what."""
    m = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    brief = "; BRIEF: tiny sizes, the figures mean nothing" if found["brief"] else ""
    where = f"{m['cpu']}, {found['threads']} of {m['cpus']} CPUs, {m['system']}"
    return f"{where}; Python {found['python']}, {versions}; {found['date']}{brief}"


def legend(found: Report) -> str:
    """How to read a cell, and a warning where the machine was not idle."""
    return f"{LEGEND}\n{BUSY}" if found["busy"] else LEGEND


def rich_table(found: Report) -> Table:
    """The table on the terminal."""
    peers = _peers(found)
    table = Table(title=heading(found), caption=f"{chip_line(found)}\n{legend(found)}", caption_justify="left")
    table.add_column("")
    table.add_column("case")
    for peer in peers:
        table.add_column(peer, justify="right", overflow="fold")
    last = ""
    for row in found["rows"]:
        if last and row["workload"] != last:
            table.add_section()
        table.add_row(row["workload"], row["name"], *(cell(row, peer) for peer in peers))
        last = row["workload"]
    return table


def markdown(found: Report) -> str:
    """The same for the README, with the summary of the products under it."""
    peers = _peers(found)
    lines = [heading(found) + ".", "", f"The chip: {chip_line(found)}.", ""]
    lines += [f"| | case | {' | '.join(peers)} |", "|---|---|" + "---:|" * len(peers)]
    for row in found["rows"]:
        cells = (cell(row, peer).replace("|", "\\|") for peer in peers)
        lines.append(f"| {row['workload']} | {row['name']} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", legend(found), *(f"\n{line}" for line in summaries(found))])


def cell(row: dict[str, Any], peer: str) -> str:
    """One peer's figure for one case: time or memory, ratio, share; or the reason why there is none."""
    result = row["results"].get(peer)
    if result is None:
        return ""
    if result["error"] or result["refused"]:
        return ("REFUSED: " if result["refused"] else "") + (result["refused"] or result["error"])
    held, about = result["bytes"], "~" if result["spread"] > 0.2 else ""
    parts = [about + duration(result["seconds"]) if held is None else f"{held / 2**20:.1f} MiB"]
    if result["ratio"] is not None and peer != MINILM:
        parts.append(f"{result['ratio']:.2f}x")
    if result["share"] is not None:
        parts.append(f"{result['share']:.0%}")
    return "  ".join(parts)


def progress(row: Row) -> str:
    """A case that is done, in a line; not judged yet."""
    parts = []
    for peer, result in row.results.items():
        ratio = row.ratio(peer)
        figure = f"{result.bytes / 2**20:.1f} MiB" if result.bytes is not None else ""
        figure = figure or (duration(result.seconds) if result.seconds else result.error)
        parts.append(f"{peer} {figure}{'' if ratio is None else f' ({ratio:.2f}x)'}")
    return f"{row.case.workload} {row.case.name}: {', '.join(parts)}"


def duration(seconds: float) -> str:
    """Three digits with the unit that fits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size or unit == "µs":
            value = seconds / size
            return f"{value:.{max(0, 2 - int(math.log10(max(value, 1))))}f} {unit}"
    raise AssertionError


def summaries(found: Report) -> list[str]:
    """For each workload of many cases and each peer: the geometric mean of the ratios and the worst of them."""
    lines = []
    for workload in WORKLOADS:
        rows = [row for row in found["rows"] if row["workload"] == workload]
        for peer in _peers(found)[1:]:
            ratios = [r for row in rows if (r := row["results"].get(peer, {}).get("ratio"))]
            if len(ratios) > 2:
                mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
                lines.append(
                    f"{workload} against {peer}: {mean:.2f}x in the geometric mean, {min(ratios):.2f}x at worst"
                )
    return lines


def failures(found: Report) -> list[str]:
    """What makes the whole run fail: figures refused, and losses that differ."""
    failed = []
    for row in found["rows"]:
        for peer, result in row["results"].items():
            reason = result["refused"] or (result["error"] if "not equal within" in result["error"] else "")
            if reason:
                failed.append(f"{row['workload']} {row['name']}, {peer}: {reason}")
    return failed


def _peers(found: Report) -> list[str]:
    return [peer for peer in PEERS if any(peer in row["results"] for row in found["rows"])]
