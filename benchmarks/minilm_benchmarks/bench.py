"""The driver: the chip, then each case with all peers in turn, then the table, the JSON file and the picture.

Every peer has a process of its own, since the threads of OpenBLAS, OpenMP and our own pool go on spinning for a
while after work and would disturb whoever is measured next. A round is one turn of every peer, after a pause in
which spinning threads fall asleep, so that a change of the machine's clock or load meets all alike.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from minilm.display import Display, time_left
from minilm.errors import MinilmError
from minilm.kernels.threads import available_cpus
from minilm_benchmarks import data, imports, judge, readme, report, roofline, table
from minilm_benchmarks.cases import (
    COMPILED,
    JAX,
    MINILM,
    NUMPY,
    TINY_GPT,
    TORCH,
    WORKLOADS,
    Case,
    cases,
    gpt_parameters,
)
from minilm_benchmarks.judge import Result, Row
from minilm_benchmarks.peers import PACKAGE, Peer, PeerError, installed

AGAINST = {"torch": (TORCH, COMPILED), "jax": (JAX,), "numpy": (NUMPY,)}
PAUSE = 0.15  # seconds before a turn: OpenBLAS's threads spin for some 30 ms
TURN = 0.3  # seconds of a turn, or one call if that takes longer
CALLS = 200  # in a turn at most
LOSSES = 5  # steps whose losses are compared


class BenchError(MinilmError):
    """The command was called with a workload or a library that is not there."""


@dataclass(frozen=True)
class Options:
    """What to measure and where to leave it."""

    peers: tuple[str, ...]
    only: tuple[str, ...]
    rounds: int
    threads: int
    brief: bool = False

    @classmethod
    def parse(
        cls, against: str | None, only: str | None, rounds: int | None, threads: int | None, brief: bool
    ) -> Options:
        """From what the command line says. Errors: BenchError in one line."""
        workloads = _names(only, WORKLOADS, "workload") if only is not None else tuple(WORKLOADS)
        rounds = rounds if rounds is not None else (1 if brief else 5)
        threads = threads if threads is not None else available_cpus()
        for name, value in (("rounds", rounds), ("threads", threads)):
            if value < 1:
                raise BenchError(f"{name} must be at least 1, not {value}")
        if threads > available_cpus():
            raise BenchError(f"threads must be at most {available_cpus()}, the CPUs that this process may use")
        named = _names(against, AGAINST, "library") if against is not None else tuple(AGAINST)
        peers = [MINILM]
        for library in named:
            there = [peer for peer in AGAINST[library] if installed(peer)]
            if not there and against is not None:
                raise BenchError(f"{library} is not installed for {sys.executable}")
            peers += [peer for peer in there if not (brief and peer == COMPILED)]  # compiling alone takes a minute
        return cls(tuple(peers), workloads, rounds, threads, brief)


def _names(text: str, known: Any, what: str) -> tuple[str, ...]:
    """The comma-separated names, in the order of `known`."""
    given = [name.strip() for name in text.split(",") if name.strip()]
    for name in given:
        if name not in known:
            raise BenchError(f"there is no {what} {name!r}: {', '.join(known)}")
    if not given and what == "workload":
        raise BenchError(f"--only names no workload: {', '.join(known)}")
    return tuple(name for name in known if name in given)


def run(
    options: Options, json_file: Path | None = None, picture: Path | None = None, write_readme: bool = False
) -> int:
    """Measure, print, write; 1 if a figure was refused or losses differ, else 0. Errors: MinilmError, OSError."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    picture = picture or (json_file.with_suffix(".png") if json_file else None)
    for path in filter(None, (json_file, picture)):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise BenchError(f"{path}: this is a folder, and a file is to be written")
    if write_readme:
        readme.parts()  # half an hour is not spent before the page is known to take the table
    found = measure(options, console)
    console.print(table.rich_table(found))
    for line in table.summaries(found):
        console.print(line)
    if json_file is not None:
        report.write(found, json_file)
    if picture is not None and not roofline.draw(found, picture):
        console.print("no picture: matplotlib is not installed (pip install matplotlib)")
    if write_readme:
        console.print(f"the table is in {readme.write(found)}")
    failed = table.failures(found)
    console.file.flush()
    for line in failed:
        print(f"minilm bench: {line}", file=sys.stderr)
    return int(bool(failed))


def measure(options: Options, console: Console) -> dict[str, Any]:
    """All cases, as a report in plain dicts."""
    with contextlib.ExitStack() as stack:
        peers = {name: stack.enter_context(Peer(name, options.threads)) for name in options.peers}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="minilm-bench-")))
        display = stack.enter_context(Display(console))
        began, todo = time.monotonic(), list(cases(options.only, options.brief))
        display.move(0, len(todo), "the chip")
        chip, versions = measure_chip(peers[MINILM], options.brief), _versions(peers)
        rows: list[Row] = []
        for number, case in enumerate(todo):
            if rows and rows[-1].case.workload != case.workload:
                _measure_again(chip, peers[MINILM], options.brief)
            left = time_left(began, number, len(todo))
            display.move(number, len(todo), f"{case.workload}  {case.name}  {left}")
            taking = {name: peer for name, peer in peers.items() if name in case.peers}
            rows.append(measure_case(case, taking, options, folder / "data.npz"))
            if not options.brief:  # half an hour without a word would be long
                display.say(table.progress(rows[-1]))
        _measure_again(chip, peers[MINILM], options.brief)
    for row in rows:
        judge.refuse_impossible(row, chip)
    return report.report(rows, chip, versions, options.threads, options.rounds, options.brief)


def measure_chip(peer: Peer, brief: bool) -> dict[str, Any]:
    """See chip.py. Errors: BenchError, since nothing can be judged without it."""
    sizes = {"small": 2**20, "large": 2**22} if brief else {"small": 4096 * 1536 * 4, "large": 512 * 2**20}
    try:
        return peer.ask("chip", seconds=0.03 if brief else 0.3, **sizes)
    except PeerError as error:
        raise BenchError(f"the chip could not be measured: {error}") from None


def _measure_again(chip: dict[str, Any], peer: Peer, brief: bool) -> None:
    """Clocks wander, and others come and go: what the chip could do at one time, it can do."""
    for name, value in measure_chip(peer, brief).items():
        chip[name] = max(chip[name], value)


def _versions(peers: dict[str, Peer]) -> dict[str, str]:
    """Of every library that can be loaded; one that cannot gives its reason in each of its cases."""
    versions = {}
    for name, peer in peers.items():
        with contextlib.suppress(PeerError):
            versions[PACKAGE[name]] = peer.ask("version")["version"]
    return versions


def measure_case(case: Case, peers: dict[str, Peer], options: Options, data_file: Path) -> Row:
    """One row."""
    if case.kind == "import":
        return _imports(case, peers)
    data.write(case, data_file)
    if case.kind == "memory":
        return _memory(case, peers, options.threads, data_file)
    row = Row(case, {name: Result() for name in peers})
    for name, peer in peers.items():
        _try(row, name, lambda peer=peer: peer.ask("prepare", case=case.as_dict(), data_file=str(data_file)))
    data_file.unlink()
    if case.trains:
        _compare_losses(row, peers, 2 if options.brief else LOSSES)
    for _ in range(options.rounds):
        for name, peer in peers.items():
            if not row.results[name].error:
                time.sleep(0.0 if options.brief else PAUSE)
                _try(row, name, lambda name=name, peer=peer: _turn(row.results[name], peer, options.brief))
    for peer in peers.values():
        with contextlib.suppress(PeerError):
            peer.ask("drop")
    return row


def _turn(result: Result, peer: Peer, brief: bool) -> None:
    taken = peer.ask("time", seconds=0.0 if brief else TURN, calls=1 if brief else CALLS)["seconds"]
    result.rounds.append(statistics.median(taken))


def _try(row: Row, name: str, action: Any) -> None:
    """A peer that fails keeps its reason, and the others go on."""
    try:
        action()
    except PeerError as error:
        row.results[name].error = str(error)


def _compare_losses(row: Row, peers: dict[str, Peer], steps: int) -> None:
    """Train a few steps everywhere; a peer whose losses are not ours is not timed: it computes something else."""
    for name, peer in peers.items():
        result = row.results[name]
        if not result.error:
            _try(
                row,
                name,
                lambda result=result, peer=peer: result.losses.extend(peer.ask("losses", steps=steps)["losses"]),
            )
    ours = row.results[MINILM].losses
    for result in row.results.values():
        if ours and result.losses:
            result.error = result.error or judge.losses_differ(row.case, ours, result.losses)


def _memory(case: Case, peers: dict[str, Peer], threads: int, data_file: Path) -> Row:
    """In fresh processes, each after a tiny case has brought the library's code and threads in."""
    row = Row(case, {name: Result() for name in peers})
    tiny = data_file.with_name("tiny.npz")
    data.write(Case(case.workload, "", "memory", TINY_GPT), tiny)
    held = 4 * 4 * gpt_parameters(case.sizes)  # weights, gradients and AdamW's two means, in float32

    def measured(peer: Peer) -> float:
        peer.ask("prepare", case=Case(case.workload, "", "memory", TINY_GPT).as_dict(), data_file=str(tiny))
        peer.ask("baseline")
        peer.ask("prepare", case=case.as_dict(), data_file=str(data_file))
        return peer.ask("memory")["bytes"] - held

    for name in peers:
        with Peer(name, threads) as fresh:
            _try(row, name, lambda name=name, fresh=fresh: setattr(row.results[name], "bytes", measured(fresh)))
    return row


def _imports(case: Case, peers: dict[str, Peer]) -> Row:
    row = Row(case, {name: Result() for name in peers})
    for _ in range(case.sizes["times"]):
        for name, result in row.results.items():
            if not result.error:
                _try(row, name, lambda name=name, result=result: result.rounds.append(imports.seconds(name)))
    return row
