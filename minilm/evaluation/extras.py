"""Packages that measures come from, loaded when one is asked for."""

from __future__ import annotations

import importlib
from typing import Any

from minilm.errors import MissingExtraError


def needed(module: str, what: str) -> Any:
    """A module of the extra "eval". Errors: MissingExtraError, which says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.split(".")[0]
        package = {"sklearn": "scikit-learn", "rouge_score": "rouge-score"}.get(name, name)
        raise MissingExtraError(f"{what} needs {package}: pip install 'minilm[eval]'") from None
