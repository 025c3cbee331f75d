"""The same weights and batches for everyone, drawn by NumPy from one seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minilm_benchmarks import translation
from minilm_benchmarks.cases import GATES, Case

SEED = 20171206
WEIGHT = "weight:"  # in front of a parameter's name, beside the batch's arrays
Arrays = dict[str, Any]


def write(case: Case, path: Path) -> None:
    """Draw what `case` needs and write it for the workers to read."""
    makers = {
        "gpt": _gpt, "memory": _gpt, "encoder": _encoder, "recurrent": _recurrent, "gemm": _gemm,
        "attention": _attention, "adamw": _adamw,
        "softmax": _rows, "layer_norm": _rows, "gelu": _rows, "cross_entropy": _cross_entropy, "chain": _chain,
        "translation": translation.draw, "beam": translation.draw,
    }  # fmt: skip
    arrays = makers[case.kind](np.random.default_rng(SEED), case.sizes)
    np.savez(path, **arrays)


def read(path: str) -> Arrays:
    """All arrays of the file."""
    with np.load(path) as file:
        return dict(file)


def weights(arrays: Arrays) -> Iterator[tuple[str, Any]]:
    """The parameters among them, by name."""
    for name, array in arrays.items():
        if name.startswith(WEIGHT):
            yield name.removeprefix(WEIGHT), array


def _normal(rng: Any, *shape: int, std: float = 1.0) -> Any:
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(std)


def _parameters(rng: Any, shapes: dict[str, tuple[int, ...]], small: tuple[str, ...] = (), layers: int = 1) -> Arrays:
    """GPT-2's initial values: matrices of standard deviation 0.02, smaller where they add to the residual stream."""
    drawn = {}
    for name, shape in shapes.items():
        if len(shape) == 2:
            std = 0.02 / math.sqrt(2 * layers) if name.endswith(small) and small else 0.02
            drawn[WEIGHT + name] = _normal(rng, *shape, std=std)
        else:
            drawn[WEIGHT + name] = (np.zeros if name.endswith("bias") else np.ones)(shape, np.float32)
    return drawn


def _gpt(rng: Any, s: dict[str, int]) -> Arrays:
    C, V, T = s["n_embd"], s["V"], s["T"]
    shapes: dict[str, tuple[int, ...]] = {"transformer.wte.weight": (V, C), "transformer.wpe.weight": (T, C)}
    for layer in range(s["n_layer"]):
        parts = {"ln_1": (C,), "attn.c_attn": (3 * C, C), "attn.c_proj": (C, C), "ln_2": (C,)}
        parts |= {"mlp.c_fc": (4 * C, C), "mlp.c_proj": (C, 4 * C)}
        for part, shape in parts.items():
            shapes[f"transformer.h.{layer}.{part}.weight"] = shape
            shapes[f"transformer.h.{layer}.{part}.bias"] = shape[:1]
    shapes |= {"transformer.ln_f.weight": (C,), "transformer.ln_f.bias": (C,)}
    tokens = rng.integers(0, V, (s["B"], T + 1))
    drawn = _parameters(rng, shapes, ("c_proj.weight",), s["n_layer"])
    return {**drawn, "tokens": tokens[:, :-1].copy(), "targets": tokens[:, 1:].copy()}


def _encoder(rng: Any, s: dict[str, int]) -> Arrays:
    C, hidden = s["n_embd"], s["n_hidden"]
    shapes: dict[str, tuple[int, ...]] = {"tokens.weight": (s["V"], C), "positions.weight": (s["T"], C)}
    shapes |= {"norm.weight": (C,), "norm.bias": (C,)}
    for layer in range(s["n_layer"]):
        at = f"layers.{layer}"
        shapes |= {f"{at}.self_attn.in_proj_weight": (3 * C, C), f"{at}.self_attn.in_proj_bias": (3 * C,)}
        parts = {"self_attn.out_proj": (C, C), "linear1": (hidden, C), "linear2": (C, hidden), "norm1": (C,)}
        for part, shape in {**parts, "norm2": (C,)}.items():
            shapes |= {f"{at}.{part}.weight": shape, f"{at}.{part}.bias": shape[:1]}
    shapes |= {"classifier.weight": (s["classes"], C), "classifier.bias": (s["classes"],)}
    tokens = rng.integers(0, s["V"], (s["B"], s["T"]))
    return {**_parameters(rng, shapes), "tokens": tokens, "targets": rng.integers(0, s["classes"], s["B"])}


def _recurrent(rng: Any, s: dict[str, Any]) -> Arrays:
    G, E, H, V = GATES[s["kind"]], s["n_embd"], s["n_hidden"], s["V"]
    drawn = {"wte.weight": _normal(rng, V, E, std=0.1), "lm_head.weight": _normal(rng, V, H, std=0.1)}
    for layer in range(s["n_layer"]):
        for name, shape in {"weight_ih": (G * H, E if layer == 0 else H), "weight_hh": (G * H, H)}.items():
            drawn[f"rnn.{name}_l{layer}"] = _normal(rng, *shape, std=0.5 / math.sqrt(H))
        for name in ("bias_ih", "bias_hh"):
            drawn[f"rnn.{name}_l{layer}"] = _normal(rng, G * H, std=0.1)
    tokens = rng.integers(0, V, (s["B"], s["T"] + 1))
    batch = {"tokens": tokens[:, :-1].copy(), "targets": tokens[:, 1:].copy()}
    return {**{WEIGHT + name: array for name, array in drawn.items()}, **batch}


def _gemm(rng: Any, s: dict[str, Any]) -> Arrays:
    """a and b as they lie in memory: transposed where the layout says T."""
    M, N, K = s["M"], s["N"], s["K"]
    a = _normal(rng, *((K, M) if s["layout"][0] == "T" else (M, K)))
    b = _normal(rng, *((N, K) if s["layout"][1] == "T" else (K, N)))
    return {"a": a, "b": b}


def _attention(rng: Any, s: dict[str, int]) -> Arrays:
    return {name: _normal(rng, 1, s["H"], s["T"], s["D"]) for name in ("q", "k", "v", "dy")}


def _rows(rng: Any, s: dict[str, int]) -> Arrays:
    rows, columns = s["rows"], s["columns"]
    arrays = {name: _normal(rng, rows, columns) for name in ("x", "dy")}
    return {**arrays, "weight": _normal(rng, columns), "bias": _normal(rng, columns)}


def _cross_entropy(rng: Any, s: dict[str, int]) -> Arrays:
    return {"x": _normal(rng, s["rows"], s["columns"]), "targets": rng.integers(0, s["columns"], s["rows"])}


def _adamw(rng: Any, s: dict[str, int]) -> Arrays:
    """One parameter of each size would hide what many small ones cost; GPT-2 has 148, and so has this."""
    sizes = np.diff(np.linspace(0, s["count"], 149).astype(int))
    arrays = {}
    for number, size in enumerate(sizes[sizes > 0]):
        arrays[f"{WEIGHT}{number}"] = _normal(rng, int(size), std=0.02)
        arrays[f"gradient:{number}"] = _normal(rng, int(size), std=0.001)
    return arrays


def _chain(rng: Any, s: dict[str, int]) -> Arrays:
    del s
    x, a, b = (_normal(rng, 4, 4) for _ in range(3))
    return {"x": x, "a": 1 + np.float32(1e-4) * a, "b": np.float32(1e-3) * b}  # stays finite for 10,000 operations
