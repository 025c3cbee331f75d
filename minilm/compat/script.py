"""Running somebody's script as `python SCRIPT` would, with whatever `torch` is installed at that time."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from minilm.compat.check import ScriptError, check_script, parsed
from minilm.compat.install import torch_names

__all__ = ["ScriptError", "run_script", "run_torch"]


def run_script(path: str | Path, argv: Sequence[str] = ()) -> dict[str, Any]:
    """Run the script as the main program with the arguments `argv`, and return its global names.

    Its own folder comes first on `sys.path`, `sys.argv` holds the script and the arguments, `__name__` is "__main__";
    all of this, `sys.modules["__main__"]` and modules that were loaded from the script's folder are put back at the
    end. `import torch` gives what stands in `sys.modules` by then: PyTorch, or inside `torch_names()` minilm.

    Errors: ScriptError for a file that is not there or no Python; whatever the script itself raises, SystemExit too.
    """
    path = Path(path)
    code = compile(parsed(path), str(path), "exec")
    main = ModuleType("__main__")
    main.__file__ = str(path)
    with _as_main_program(main, path, argv):
        exec(code, main.__dict__)
    return main.__dict__


@contextlib.contextmanager
def _as_main_program(main: ModuleType, path: Path, argv: Sequence[str]) -> Iterator[None]:
    """What `python SCRIPT` sets up, put back at the end."""
    folder = str(path.resolve().parent)
    before = sys.argv, sys.path[:], sys.modules.get("__main__"), set(sys.modules)
    sys.argv = [str(path), *argv]
    sys.path.insert(0, folder)
    sys.modules["__main__"] = main
    try:
        yield
    finally:
        sys.argv, sys.path[:], old_main, loaded = before
        if old_main is not None:
            sys.modules["__main__"] = old_main
        for name in set(sys.modules) - loaded:  # the script's neighbours hold the torch of this run
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(folder + os.sep):
                del sys.modules[name]


def run_torch(path: str | Path, argv: Sequence[str] = ()) -> int:
    """The command `minilm run-torch`: check the script, run it on minilm, and return the exit code.

    0 at the end, 1 after an exception of the script's, whose traceback shows the script's lines, 2 for a script that
    cannot be run. SystemExit is the script's own affair and passes.
    """
    try:
        check_script(path)
    except ScriptError as error:
        print(f"minilm: {error}", file=sys.stderr)
        return 2
    with torch_names():
        try:
            run_script(path, argv)
        except BrokenPipeError:
            raise
        except Exception as error:
            with contextlib.suppress(BrokenPipeError):
                sys.stdout.flush()
            traceback.print_exception(type(error), error, _from_script(error.__traceback__, str(path)))
            return 1
    return 0


def _from_script(trace: TracebackType | None, path: str) -> TracebackType | None:
    """The traceback from the script's first line on; all of it if the script is not in it."""
    at = trace
    while at is not None and at.tb_frame.f_code.co_filename != path:
        at = at.tb_next
    return at if at is not None else trace
