"""Freeze PyTorch's values: inputs, cotangents, outputs and gradients of every operation and sample.

    python tests/reference/make.py          (needs torch; run it when operations or samples change)

One .npz a module of minilm/ops: all numbers in one float32 array, and a JSON text that says which
case, shape and dtype they belong to. PyTorch computes in float64; inputs and cotangents are numbers
that float32 can hold. tests/ops/test_reference.py compares.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from minilm import ops
from minilm.files import written_whole
from minilm.testing import Case, cases
from minilm.testing.pytorch import counterpart, run, to_numpy

HERE = Path(__file__).parent


def frozen(case: Case, torch) -> dict[str, list]:
    """What PyTorch makes of the case, as arrays."""
    inputs = case.inputs()
    outputs, gradients = run(case, torch, inputs)
    flowing = [to_numpy(y) for y in outputs if y.requires_grad]
    return {
        "inputs": list(inputs),
        "cotangents": case.cotangents(flowing),
        "outputs": [to_numpy(y) for y in outputs],
        "gradients": [None if g is None else to_numpy(g) for g in gradients],
    }


def load() -> dict[str, dict[str, list]]:
    """Every frozen case by its name."""
    found: dict[str, dict[str, list]] = {}
    for path in sorted(HERE.glob("*.npz")):
        with np.load(path) as file:
            layout, values = json.loads(str(file["layout"])), file["values"]
        at = 0
        for name, parts in layout.items():
            found[name] = {}
            for part, metas in parts.items():
                arrays = []
                for meta in metas:
                    if meta is None:
                        arrays.append(None)
                        continue
                    shape, dtype = meta
                    size = int(np.prod(shape))
                    arrays.append(values[at : at + size].astype(dtype).reshape(shape))
                    at += size
                found[name][part] = arrays
        assert at == len(values), f"{path.name} does not fit its own layout"
    return found


def main() -> None:
    """Write all files anew."""
    import torch

    modules: dict[str, list[Case]] = {}
    for op in ops.all():
        if counterpart(op, torch) is not None:
            modules.setdefault(op.__module__.rpartition(".")[2], []).extend(cases(op))
    for module, found in sorted(modules.items()):
        layout: dict[str, dict[str, list]] = {}
        numbers = []
        for case in found:
            parts = frozen(case, torch)
            layout[case.id] = {
                part: [None if a is None else [list(a.shape), str(a.dtype)] for a in arrays]
                for part, arrays in parts.items()
            }
            numbers += [np.ravel(a).astype(np.float32) for arrays in parts.values() for a in arrays if a is not None]
        path = HERE / f"{module}.npz"
        text = json.dumps(layout, separators=(",", ":"))
        with written_whole(path) as file:
            np.savez_compressed(file, layout=np.array(text), values=np.concatenate(numbers))
        print(f"{path.name}: {len(found)} cases, {path.stat().st_size / 1024:.0f} KiB")
    for path in HERE.glob("*.npz"):
        if path.stem not in modules:
            path.unlink()


if __name__ == "__main__":
    main()
