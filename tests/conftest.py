"""What the whole suite shares: its oracles, and the loud count of comparisons that had none.

MINILM_REQUIRE=torch,native turns a missing oracle from a skip into a failure; CI sets it, so that
the comparisons cannot vanish without anybody noticing.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

REQUIRED = frozenset(filter(None, os.environ.get("MINILM_REQUIRE", "").split(",")))

# The machines of CI are shared: a test that waits for a processor is not wrong. Our fixtures are oracles,
# the same for every example. CI tries the same examples every time, so that a change is red for what it
# changed; everybody else's run looks for new ones.
settings.register_profile(
    "minilm",
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=bool(REQUIRED),
)
settings.load_profile("minilm")

UNKNOWN = REQUIRED - {"torch", "native"}
if UNKNOWN:
    raise pytest.UsageError(f"MINILM_REQUIRE knows torch and native, not {', '.join(sorted(UNKNOWN))}")


def missing(oracle: str, why: str) -> None:
    """Skip for want of an oracle, or fail where it is required."""
    if oracle in REQUIRED:
        pytest.fail(f"{oracle} is required (MINILM_REQUIRE) and missing: {why}", pytrace=False)
    pytest.skip(f"compared with nothing: {oracle} is missing ({why})")


@pytest.fixture
def torch() -> ModuleType:
    """PyTorch, the oracle of most comparisons."""
    try:
        module = importlib.import_module("torch")
    except ImportError as error:
        missing("torch", str(error))
        raise
    return module


@pytest.fixture
def native() -> ModuleType:
    """The compiled kernels."""
    try:
        module = importlib.import_module("minilm.kernels.native")
    except ImportError as error:
        missing("native", str(error))
        raise
    return module


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what was not compared."""
    skipped = terminalreporter.stats.get("skipped", [])
    for oracle in ("torch", "native"):
        count = sum(f"{oracle} is missing" in str(report.longrepr) for report in skipped)
        if count:
            terminalreporter.section(f"{count} COMPARISONS DID NOT RUN: {oracle} is missing", sep="!", red=True)
