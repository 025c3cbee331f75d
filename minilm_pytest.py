"""The pytest plugin: gradient checks for `@differentiable` functions, and suites run on each backend.

    pytest --minilm-backend=reference           every test on that backend
    pytest --minilm-backend=native,numba        every test twice, `[native]` and `[numba]`
    pytest --minilm-backend=all                 on each backend that is there

It lies beside the package, since pytest loads it wherever minilm is installed, also for suites that have
nothing to do with it: minilm itself is imported only when it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

OPTION = "--minilm-backend"
PARAMETER = "minilm_backend_of_this_run"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --minilm-backend."""
    parser.getgroup("minilm").addoption(
        OPTION,
        metavar="NAMES",
        default=None,
        help="run every test on each of these backends of minilm: native, numba, reference, or all that are there",
    )


def _backends(config: pytest.Config) -> list[str]:
    """The backends that were asked for. Errors: UsageError for one that is unknown or not there."""
    given = config.getoption(OPTION)
    if given is None:
        return []
    from minilm import kernels
    from minilm.errors import BackendError

    if given == "all":
        return [name for name in kernels.BACKENDS if not kernels.why_not(name)]
    names = [name.strip() for name in given.split(",") if name.strip()]
    if not names:
        raise pytest.UsageError(f"{OPTION} names no backend: {', '.join(kernels.BACKENDS)} or all")
    for name in names:
        try:
            missing = kernels.why_not(name)
        except BackendError as error:
            raise pytest.UsageError(f"{OPTION}: {error}, or all") from None
        if missing:
            raise pytest.UsageError(f"{OPTION}: the backend {name!r} cannot serve: {missing}")
    return names


def pytest_configure(config: pytest.Config) -> None:
    """Refuse wrong names before anything runs."""
    _backends(config)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say which backends serve."""
    names = _backends(config)
    return [f"minilm backends: {', '.join(names)}"] if names else []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test once per backend."""
    names = _backends(metafunc.config)
    if names:
        metafunc.fixturenames.append(PARAMETER)
        metafunc.parametrize(PARAMETER, names)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Let the item's backend serve, fixtures included. What cannot be run several times (unittest) gets the first."""
    names = _backends(item.config)
    if not names:
        yield
        return
    from minilm import kernels

    chosen = getattr(getattr(item, "callspec", None), "params", {}).get(PARAMETER)
    with kernels.use(chosen or getattr(item, "backend", None) or names[0]):
        yield


# --- functions under @differentiable ------------------------------------------------------------------


class GradientItem(pytest.Item):
    """One gradient check of one function."""

    def __init__(self, *, target: Any, check: str, backend: str | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target, self.check, self.backend = target, check, backend

    def runtest(self) -> None:
        """Run the check."""
        self.target.__differentiable__.run(self.check, self.target)

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """A wrong gradient needs no traceback: the message says all."""
        from minilm.testing import GradientError

        if isinstance(excinfo.value, GradientError):
            notes = getattr(excinfo.value, "__notes__", [])  # hypothesis's falsifying example
            return "\n".join([str(excinfo.value), *notes])
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """Where the function stands."""
        code = getattr(self.target, "__code__", None)
        return self.path, None if code is None else code.co_firstlineno - 1, self.name


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: Any, name: str, obj: Any) -> list[pytest.Item] | None:
    """A function under @differentiable is tests, whatever its name."""
    requirement = getattr(obj, "__dict__", {}).get("__differentiable__")
    if requirement is None:
        return None
    return [
        GradientItem.from_parent(
            collector,
            name=f"{name}[{'-'.join(filter(None, (check, backend)))}]",
            target=obj,
            check=check,
            backend=backend,
        )
        for check in requirement.checks
        for backend in (*_backends(collector.config),) or (None,)
    ]
