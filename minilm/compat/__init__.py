"""PyTorch's names for programs that were written for PyTorch: `import torch`, and minilm computes.

    from minilm.compat import torch_names

    with torch_names():
        import torch                    # a module that stands on minilm
        from torch import nn

The names are mapped by the table in `names.py`; `check.py` says beforehand what a script will not find, and
`minilm run-torch SCRIPT` does both. Nothing of PyTorch is needed, and a PyTorch that is loaded already is back,
unharmed, after the `with` block.
"""

from minilm.compat.check import Missing, check_script, missing_names
from minilm.compat.install import torch_names
from minilm.compat.modules import MissingImportError, MissingNameError
from minilm.compat.script import ScriptError, run_script

__all__ = [
    "Missing",
    "MissingImportError",
    "MissingNameError",
    "ScriptError",
    "check_script",
    "missing_names",
    "run_script",
    "torch_names",
]
