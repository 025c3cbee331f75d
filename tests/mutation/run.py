"""The mutation score of the test suite: faults are planted in gradients, one at a time, and the tests must see them.

    python tests/mutation/run.py --count 300 --jobs 2

Each fault is planted in a copy of the package, and the tests that look at its place run there, nearest first, until
one fails. docs/mutation.md says what was found, and how to read it.

The tests of a fault take seconds because this process has loaded NumPy, Numba, PyTorch and pytest, and forks for
each run; minilm itself is loaded in the child. Needs a system with fork.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from c_faults import NativeBuild, c_faults
from faults import Fault, choose
from places import ROOT, Stage, Suite, python_faults

LIMIT = 300.0  # seconds without a test's end; a fault that makes a test hang is a fault that is seen
EQUIVALENT = Path(__file__).with_name("equivalent.json")
OPTIONS = ["-x", "-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin"]
OPTIONS += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]


LIBRARIES = ("numpy", "numba", "torch", "hypothesis.strategies", "_hypothesis_pytestplugin")


def load(libraries: tuple[str, ...]) -> None:
    """What every child needs, loaded once; before that, what these libraries read from the environment."""
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # what else is installed has no part in it
    os.environ["MINILM_REQUIRE"] = "torch,native"  # a missing oracle fails; the same examples are tried each time
    for name in libraries:
        with contextlib.suppress(ImportError):  # its tests will say so
            importlib.import_module(name)


# --- in the child: run tests, and say what failed first -----------------------------------------------------


class Listener:
    """Keeps only the wanted operations' cases; remembers the first failure."""

    def __init__(self, ops: frozenset[str] | None) -> None:
        self.ops = ops
        self.failed: list[dict[str, str]] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Before the cases become tests, leave out those of other operations."""
        for mark in metafunc.definition.iter_markers("parametrize"):
            if self.ops is not None and mark.args[0] == "case" and isinstance(mark.args[1], list):
                mark.args[1][:] = [c for c in mark.args[1] if not hasattr(c, "op") or c.op.name in self.ops]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test has ended."""
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file has been read."""
        self._note(report)

    def _note(self, report: Any) -> None:
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            text = str(report.longrepr)
            message = crash.message if crash else text
            reason = "" if "numba.core.errors" not in text else "Numba does not compile it"
            self.failed.append({"test": report.nodeid, "message": message[:300], "cannot": reason})


def run_here(root: Path, stage: Stage, results: Path, options: list[str]) -> None:
    """In a child process: the tests of a stage, in the copy at `root`; what failed goes to a file. Does not return."""
    code = 3
    try:
        os.setpgid(0, 0)
        os.chdir(root)
        sys.path[:] = [str(root), *(p for p in sys.path if p != str(Path(__file__).parent))]
        os.environ["PYTHONPATH"] = str(root)
        with open(results.with_suffix(".log"), "w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        listener = Listener(stage.ops)
        chosen = [*options, *(["-k", stage.k] if stage.k else []), *stage.files]
        code = int(pytest.main(chosen, plugins=[listener]))
        import minilm

        if not Path(minilm.__file__).is_relative_to(root):
            code = 3
        results.write_text(json.dumps({"code": code, "failed": listener.failed}))
    finally:
        sys.stdout.flush()
        os._exit(code)


def start(root: Path, stage: Stage, results: Path, options: list[str] = OPTIONS) -> int:
    """Fork; the child's number."""
    results.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        run_here(root, stage, results, options)
    return pid


# --- a copy of the package -----------------------------------------------------------------------------------


def copy_of(root: Path, to: Path) -> Path:
    """The package and its tests, with what Numba has compiled so far."""
    skipped = (".git", ".venv*", "build", ".*_cache", ".hypothesis", "runs", "*.egg-info")
    shutil.copytree(root, to, ignore=shutil.ignore_patterns(*skipped), symlinks=True)
    return to


class Bench:
    """A copy in which one fault at a time is planted and tested.

    Attributes:
        outcome: what became of the last fault; None while its tests run.
    """

    def __init__(self, root: Path, native: NativeBuild | None = None) -> None:
        self.root, self.native = root, native
        self.results = root / "result.json"
        self.outcome: dict[str, Any] | None = None
        self.undo: Callable[[], None] | None = None

    def begin(self, fault: Fault, stages: list[Stage]) -> None:
        """Plant a fault, and start its first tests."""
        self.fault, self.outcome, self.began = fault, None, time.monotonic()
        self.waiting = list(stages)
        self.kept = {str(p) for p in self.root.glob("minilm/**/__pycache__/*")}
        if fault.file.startswith("csrc/"):
            assert self.native is not None
            self.undo = functools.partial(self.native.restore, self.root)
            try:
                self.native.compile(fault, self.root)
            except subprocess.CalledProcessError as error:
                self._end("not planted", how="the C compiler refuses it", message=error.stderr.decode()[:300])
                return
        else:
            path = self.root / fault.file
            source = path.read_bytes()
            self.undo = functools.partial(self._write, path, source)
            self._write(path, fault.planted(source))
        self._next()

    def _write(self, path: Path, source: bytes) -> None:
        """A file's new text; Python must not take the old one's compiled form for it."""
        path.write_bytes(source)
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            compiled.unlink()

    def _next(self) -> None:
        self.stage = self.waiting.pop(0)
        self.pid, self.since, self.size = start(self.root, self.stage, self.results), time.monotonic(), -1

    def look(self) -> bool:
        """Whether the fault's fate is known; starts the next tests if these have not seen it."""
        if self.outcome is not None:
            return True
        done, status = os.waitpid(self.pid, os.WNOHANG)
        if not done:
            log = self.results.with_suffix(".log")
            size = log.stat().st_size if log.exists() else 0
            if size != self.size:
                self.size, self.since = size, time.monotonic()
            if time.monotonic() - self.since < LIMIT:
                return False
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            return self._end("caught", how="timed out")
        if os.WIFSIGNALED(status):
            return self._end("caught", how=f"killed by {signal.Signals(os.WTERMSIG(status)).name}")
        found = json.loads(self.results.read_text()) if self.results.exists() else {"code": 3, "failed": []}
        if found["failed"]:
            first = found["failed"][0]
            if first["cannot"]:
                return self._end("not planted", how=first["cannot"], test=first["test"], message=first["message"])
            return self._end("caught", how=kind_of(first["message"]), test=first["test"], message=first["message"])
        if found["code"] not in (0, 5):  # passed; no test chosen
            log = self.results.with_suffix(".log").read_text()[-2000:]
            raise RuntimeError(f"{self.fault.id}: pytest could not run ({found['code']})\n{log}")
        if self.waiting:
            self._next()
            return False
        return self._end("survived")

    def _end(self, status: str, **how: str) -> bool:
        assert self.undo is not None
        self.undo()
        if self.fault.file.startswith("minilm/kernels/"):  # what Numba compiled of faulty kernels
            for path in self.root.glob("minilm/**/__pycache__/*.nb?"):
                if str(path) not in self.kept:
                    path.unlink()
        seconds = round(time.monotonic() - self.began, 1)
        self.outcome = {"id": self.fault.id, "status": status, "seconds": seconds, **how, **asdict(self.fault)}
        return True


def kind_of(message: str) -> str:
    """The error's class, from the first word of its message."""
    word = message.split(":")[0].split("\n")[0].strip().rpartition(".")[2]
    return "AssertionError" if word.startswith("assert") else word if word.isidentifier() else "other error"


# --- all together ----------------------------------------------------------------------------------------------


def failing_anyway(root: Path, outcomes: list[dict[str, Any]]) -> list[str]:
    """The tests that saw a fault, run once more where there is none: those that fail all the same."""
    seen = sorted({o["test"] for o in outcomes if o["status"] == "caught" and o.get("test")})
    if not seen:
        return []
    results = root / "result.json"
    options = [option for option in OPTIONS if option != "-x"]
    _, status = os.waitpid(start(root, Stage(tuple(seen)), results, options), 0)
    found = json.loads(results.read_text()) if results.exists() else {"code": status, "failed": []}
    if found["code"] not in (0, 1):
        return [f"the tests ended with status {found['code']}", results.with_suffix(".log").read_text()[-2000:]]
    return [f"{f['test']}: {f['message']}" for f in found["failed"]]


def try_all(
    work: list[tuple[Fault, list[Stage]]], benches: list[Bench], note: Callable[[dict[str, Any]], None]
) -> None:
    """Plant every fault on some bench, and run its tests; `note` is told the outcome of each."""
    waiting = list(work)
    busy: list[Bench] = []
    while waiting or busy:
        for bench in benches:
            if bench not in busy and waiting:
                bench.begin(*waiting.pop(0))
                busy.append(bench)
        for bench in [b for b in busy if b.look()]:
            busy.remove(bench)
            assert bench.outcome is not None
            note(bench.outcome)
        time.sleep(0.02)


def explain(outcomes: list[dict[str, Any]], reasons: list[dict[str, str]]) -> None:
    """Survivors that change nothing, as the table says, become `equivalent`."""
    names = ("kind", "file", "function", "before", "after")
    table = {tuple(entry[n] for n in names): entry["reason"] for entry in reasons}
    for outcome in outcomes:
        reason = table.get(tuple(outcome[n] for n in names))
        if outcome["status"] == "survived" and reason:
            outcome.update(status="equivalent", reason=reason)


def score(outcomes: list[dict[str, Any]]) -> float:
    """The share of faults that were caught, among those that are faults."""
    counts = Counter(o["status"] for o in outcomes)
    faults = counts["caught"] + counts["survived"]
    return counts["caught"] / faults if faults else 0.0


def table(outcomes: list[dict[str, Any]], by: str) -> str:
    """Caught, survived and equivalent faults for each value of `by`, as Markdown."""
    columns = ("caught", "survived", "equivalent", "not planted")
    lines = [f"| {by} | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for value in sorted({o[by] for o in outcomes}):
        counts = Counter(o["status"] for o in outcomes if o[by] == value)
        lines.append(f"| {value} | {' | '.join(str(counts[c]) for c in columns)} |")
    total = Counter(o["status"] for o in outcomes)
    return "\n".join([*lines, f"| all | {' | '.join(str(total[c]) for c in columns)} |"])


def report(outcomes: list[dict[str, Any]]) -> str:
    """The tables, how faults were seen, and every survivor."""
    caught = [o for o in outcomes if o["status"] == "caught"]
    how = ", ".join(f"{count} {name}" for name, count in Counter(o["how"] for o in caught).most_common())
    seconds = sum(o["seconds"] for o in outcomes) / max(len(outcomes), 1)
    lines = [table(outcomes, "kind"), "", table(outcomes, "file"), "", f"Seen by: {how}."]
    lines += [f"Seconds for a fault: {seconds:.1f}. Score: {score(outcomes):.1%}."]
    for o in outcomes:
        if o["status"] in ("survived", "equivalent"):
            lines += [f"{o['status']}: {o['id']}", f"    {o['before']}\n    {o['after']}", f"    {o.get('reason', '')}"]
    return "\n".join(lines)


def chosen_faults(root: Path, only: str, count: int, native: int, seed: int) -> list[Fault]:
    """The faults of this run: `count` in Python, `native` in C, of those that `only` lets through."""
    python, c = python_faults(root), c_faults(root)
    if only.startswith("@"):
        wanted = {o["id"] for o in json.loads(Path(only[1:]).read_text()) if o["status"] == "survived"}
        return [f for f in [*python, *c] if f.id in wanted]
    chosen = choose([f for f in python if only in f.id], count, seed)
    return chosen + choose([f for f in c if only in f.id], native, seed)


def main() -> int:
    """The command. Returns 1 where the score is too low, 2 where the tests fail without a fault."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=300, help="how many faults of Python (default 300)")
    parser.add_argument("--native", type=int, default=60, help="how many faults of C (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time, each in its own copy")
    parser.add_argument("--only", default="", help="only faults whose id contains this; @FILE: the survivors in a JSON")
    parser.add_argument("--least", type=float, default=0.98, help="the score that is demanded (default 0.98)")
    parser.add_argument("--json", type=Path, default=Path("build/mutation.json"), help="where the outcomes go")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository (default: this one)")
    parser.add_argument(
        "--near", action="store_true", help="only the nearest tests: what survives may be seen by others"
    )
    parser.add_argument("--resume", action="store_true", help="keep what the JSON says of a run that was stopped")
    parser.add_argument("--bare", action="store_true", help="load no libraries first: for a repository without them")
    parser.add_argument("--list", action="store_true", help="print the chosen faults and stop")
    arguments = parser.parse_args()

    root = arguments.root.resolve()
    chosen = chosen_faults(root, arguments.only, arguments.count, arguments.native, arguments.seed)
    if arguments.list:
        print("\n".join(f"{f.id}\n    {f.before}\n    {f.after}" for f in chosen))
        return 0
    load(() if arguments.bare else LIBRARIES)
    suite = Suite(root)
    native = NativeBuild(root, root / "build/mutation") if any(f.file.startswith("csrc/") for f in chosen) else None
    fates: dict[str, dict[str, Any]] = {}
    if arguments.resume and arguments.json.exists():
        known = {fault.id: asdict(fault) for fault in chosen}
        for outcome in json.loads(arguments.json.read_text()):
            if known.get(outcome["id"], {"": None}).items() <= outcome.items():
                fates[outcome["id"]] = outcome
    arguments.json.parent.mkdir(parents=True, exist_ok=True)

    def note(outcome: dict[str, Any]) -> None:
        fates[outcome["id"]] = outcome
        arguments.json.write_text(json.dumps(list(fates.values()), indent=1))
        number = f"{len(fates):4d}/{len(chosen)}"
        print(f"{number} {outcome['seconds']:6.1f} s  {outcome['status']:11s} {outcome['id']}", flush=True)

    with tempfile.TemporaryDirectory(prefix="mutation") as folder:
        first = copy_of(root, Path(folder, "0"))
        if native:
            native.restore(first)
        copies = [first, *(copy_of(first, Path(folder, str(i))) for i in range(1, arguments.jobs))]
        benches = [Bench(copy, native) for copy in copies]
        stages = {fault.id: suite.stages(fault) for fault in chosen}
        first_go = sorted(
            (f for f in chosen if f.id not in fates), key=lambda f: "/jit" in f.file
        )  # the slow ones last
        try_all([(f, stages[f.id][:-1] or stages[f.id]) for f in first_go], benches, note)
        # What the nearest tests do not see is shown to all the others, at the end, since those take a minute.
        left = [f for f in chosen if fates[f.id]["status"] == "survived" and len(stages[f.id]) > 1]
        try_all([] if arguments.near else [(f, stages[f.id][-1:]) for f in left], benches, note)
        outcomes = list(fates.values())
        broken = failing_anyway(first, outcomes)
        if broken:
            print("these tests fail without a fault too:", *broken, sep="\n  ")
            return 2
    explain(outcomes, json.loads(EQUIVALENT.read_text()))
    arguments.json.write_text(json.dumps(outcomes, indent=1))
    print(report(outcomes))
    return 0 if score(outcomes) >= arguments.least else 1


if __name__ == "__main__":
    sys.exit(main())
