"""`import torch` gives minilm's stand-ins for as long as a `with` block lasts."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from minilm.compat.modules import MissingImportError, StandIn, build, nearest
from minilm.dtypes import get_default_dtype, set_default_dtype


class _Finder:
    """The last word on `import torch.x`: whatever is no stand-in is not there."""

    def __init__(self, modules: dict[str, StandIn]) -> None:
        self.modules = modules

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        """Raise MissingImportError for a module or name under `torch`; others are left to the finders behind."""
        if fullname.partition(".")[0] != "torch":
            return
        parent, _, name = fullname.rpartition(".")
        known = self.modules.get(parent)
        close = nearest(name, dir(known)) if known is not None else ""
        raise MissingImportError(
            f"minilm has no {fullname}" + (f" (nearest: {parent}.{close})" if close else ""), name=fullname
        )


@contextlib.contextmanager
def torch_names() -> Iterator[StandIn]:
    """Inside, `import torch` and its submodules are minilm under PyTorch's names; gives the module `torch`.

    What `sys.modules` held under these names before is put back at the end, also after an error, and so is the default
    element type, which scripts change. The change is the whole process's: other threads see it too.
    """
    before = {name: module for name, module in sys.modules.items() if _is_torch(name)}
    dtype = get_default_dtype()
    for name in before:
        del sys.modules[name]
    modules = build()
    finder = _Finder(modules)
    sys.modules.update(modules)
    sys.meta_path.insert(0, finder)
    try:
        yield modules["torch"]
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if _is_torch(name)]:
            del sys.modules[name]
        sys.modules.update(before)
        set_default_dtype(dtype)


def _is_torch(name: str) -> bool:
    return name == "torch" or name.startswith("torch.")
