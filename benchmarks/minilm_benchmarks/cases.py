"""What is measured: each case with its sizes, its arithmetic and its least traffic of memory.

Arithmetic counts what cannot be avoided: 2 for each multiply-add of a product, and of causal attention only
the pairs that may see each other. So a share of the chip's limit is never flattered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from minilm_benchmarks import translation

MINILM, TORCH, COMPILED, JAX, NUMPY = "minilm", "torch", "torch.compile", "jax", "numpy"
PEERS = (MINILM, TORCH, COMPILED, JAX, NUMPY)

WORKLOADS = {
    "W1": "a step of a GPT with 4 layers, 4 heads, 128 channels",
    "W2": "a step of a GPT with 6 layers, 6 heads, 384 channels; also with products in bfloat16",
    "W3": "a step of GPT-2's smallest model",
    "W4": "a step of an encoder of BERT-base's sizes; also with products in bfloat16",
    "W5": "products of matrices, of all the shapes in W1 to W4, and squares",
    "W6": "causal attention, forward and backward",
    "W7": "softmax, layer_norm, gelu, cross_entropy (forward and backward), AdamW",
    "W8": "10,000 additions and multiplications of 4x4 tensors in one chain, forward and backward",
    "W9": "the memory of a step beyond weights, gradients and the optimiser's state",
    "W10": "the import",
    "W11": "a step of a language model with 2 recurrent layers: LSTM on characters and on words; GRU, RNN",
    "W12": "a step of a model that translates, on sentences of many lengths; also with products in bfloat16",
    "W13": "its beam search, against transformers' `generate`",
}

# T positions, B sequences, V vocabulary.
GPTS = {
    "W1": {"n_layer": 4, "n_head": 4, "n_embd": 128, "T": 64, "B": 12, "V": 65},
    "W2": {"n_layer": 6, "n_head": 6, "n_embd": 384, "T": 256, "B": 16, "V": 65},
    "W3": {"n_layer": 12, "n_head": 12, "n_embd": 768, "T": 256, "B": 1, "V": 50304},
}
ENCODER = {"n_layer": 12, "n_head": 12, "n_embd": 768, "n_hidden": 3072, "T": 128, "B": 8, "V": 30522, "classes": 2}
CHARACTERS = {"n_layer": 2, "n_embd": 512, "n_hidden": 512, "T": 64, "B": 32, "V": 65}
RECURRENT = {  # a row of the table each
    "LSTM": {"kind": "lstm", **CHARACTERS},
    "LSTM of words": {"kind": "lstm", **CHARACTERS, "V": 10000},
    "GRU": {"kind": "gru", **CHARACTERS},
    "RNN": {"kind": "rnn", **CHARACTERS},
}
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
SQUARES = (128, 256, 512, 1024, 2048)
ATTENTION = ((256, 64, 8), (1024, 64, 8), (4096, 64, 8))  # T, D, H
GPT2_PARAMETERS = 124_475_904

TINY_GPT = {"n_layer": 1, "n_head": 2, "n_embd": 8, "T": 8, "B": 2, "V": 11}
TINY_RECURRENT = {"n_layer": 2, "n_embd": 6, "n_hidden": 8, "T": 8, "B": 3, "V": 11}
TINY_ENCODER = {"n_layer": 1, "n_head": 2, "n_embd": 8, "n_hidden": 32, "T": 8, "B": 2, "V": 11, "classes": 2}


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        kind: which of a peer's builders makes it: "gpt", "encoder", "gemm", "attention", ...
        flops: the arithmetic of one call. traffic: the bytes that one call must move at least.
        bound: what limits it: "flops", "bytes", or "" for neither.
        tensor_bytes: the size of its tensors, which says whether a cache may hold them.
    """

    workload: str
    name: str
    kind: str
    sizes: dict[str, Any] = field(default_factory=dict)
    peers: tuple[str, ...] = (MINILM,)
    flops: float = 0.0
    traffic: float = 0.0
    bound: str = ""
    tensor_bytes: int = 0
    precision: str = "float32"

    def as_dict(self) -> dict[str, Any]:
        """For the pipe to a worker, and for the JSON file."""
        return asdict(self)

    @property
    def trains(self) -> bool:
        """Whether it is a whole step of training, with a loss."""
        return self.kind in ("gpt", "encoder", "recurrent", "translation")


def cases(only: Iterable[str], brief: bool = False) -> Iterator[Case]:
    """The cases of the workloads in `only`, in order; with `brief` they are tiny."""
    wanted = set(only)
    for workload in WORKLOADS:
        if workload in wanted:
            yield from _MAKERS[workload](workload, brief)


# --- training ---------------------------------------------------------------------------------------


def _gpt(workload: str, brief: bool) -> Iterator[Case]:
    sizes = TINY_GPT if brief else GPTS[workload]
    name = "GPT {n_layer} x {n_embd}, T {T}, B {B}, V {V}".format(**sizes)
    work: dict[str, Any] = {"flops": gpt_flops(sizes), "traffic": step_traffic(gpt_parameters(sizes)), "bound": "flops"}
    yield Case(workload, name, "gpt", sizes, (MINILM, TORCH, COMPILED, JAX), **work)
    if workload == "W2":
        yield Case(workload, f"{name}, bf16", "gpt", sizes, (MINILM, TORCH, COMPILED), precision="bfloat16", **work)


def _encoder(workload: str, brief: bool) -> Iterator[Case]:
    sizes = TINY_ENCODER if brief else ENCODER
    name = "encoder {n_layer} x {n_embd}, T {T}, B {B}".format(**sizes)
    peers = (MINILM, TORCH, COMPILED)
    work: dict[str, Any] = {
        "flops": encoder_flops(sizes),
        "traffic": step_traffic(encoder_parameters(sizes)),
        "bound": "flops",
    }
    yield Case(workload, name, "encoder", sizes, peers, **work)
    yield Case(workload, f"{name}, bf16", "encoder", sizes, peers, precision="bfloat16", **work)


def _recurrent(workload: str, brief: bool) -> Iterator[Case]:
    for title, whole in RECURRENT.items():
        sizes = {**whole, **TINY_RECURRENT} if brief else whole
        name = f"{title} {{n_layer}} x {{n_hidden}}, T {{T}}, B {{B}}, V {{V}}".format(**sizes)
        work: dict[str, Any] = {
            "flops": recurrent_flops(sizes),
            "traffic": step_traffic(recurrent_parameters(sizes)),
            "bound": "flops",
        }
        yield Case(workload, name, "recurrent", sizes, (MINILM, TORCH), **work)


def recurrent_matrices(s: dict[str, Any]) -> int:
    """How many numbers of a recurrent language model stand in products."""
    G, E, H, L = GATES[s["kind"]], s["n_embd"], s["n_hidden"], s["n_layer"]
    return G * H * (E + H + (L - 1) * 2 * H) + s["V"] * H


def recurrent_parameters(s: dict[str, Any]) -> int:
    """How many numbers it learns: with the table of embeddings, and two biases for each gate."""
    biases = s["n_layer"] * 2 * GATES[s["kind"]] * s["n_hidden"]
    return recurrent_matrices(s) + biases + s["V"] * s["n_embd"]


def recurrent_flops(s: dict[str, Any]) -> float:
    """A step: 6 for each number in a product and token; what the gates cost beside is left out.

    The first layer's product with the input need not be made more than once for each of the V tokens.
    """
    tokens, first = s["B"] * s["T"], GATES[s["kind"]] * s["n_hidden"] * s["n_embd"]
    return 6.0 * (tokens * (recurrent_matrices(s) - first) + min(tokens, s["V"]) * first)


def gpt_parameters(s: dict[str, int]) -> int:
    """How many numbers a GPT of these sizes learns (with biases, and one matrix for both ends)."""
    L, C = s["n_layer"], s["n_embd"]
    return s["V"] * C + s["T"] * C + L * (12 * C * C + 13 * C) + 2 * C


def encoder_parameters(s: dict[str, int]) -> int:
    """How many numbers the encoder learns."""
    L, C, hidden = s["n_layer"], s["n_embd"], s["n_hidden"]
    layer = 4 * C * C + 4 * C + 2 * C * hidden + hidden + C + 4 * C
    return (s["V"] + s["T"]) * C + 2 * C + L * layer + s["classes"] * (C + 1)


def gpt_flops(s: dict[str, int]) -> float:
    """A step: 6 for each number in a product and token, and 12 C for each pair of positions that see each other."""
    L, C, T, B = s["n_layer"], s["n_embd"], s["T"], s["B"]
    return 6.0 * B * T * (12 * L * C * C + s["V"] * C) + 12.0 * L * B * C * T * (T + 1) / 2


def encoder_flops(s: dict[str, int]) -> float:
    """The same where all positions see each other; the classifier sees one position of each sequence."""
    L, C, T, B = s["n_layer"], s["n_embd"], s["T"], s["B"]
    products = B * T * L * (4 * C * C + 2 * C * s["n_hidden"]) + B * C * s["classes"]
    return 6.0 * products + 12.0 * L * B * C * T * T


def step_traffic(parameters: int) -> float:
    """The least traffic of a step, in bytes; activations, which a cache may hold, are left out.

    Each weight is read forward and backward, each gradient written and read, and AdamW reads and writes the
    weight and both means.
    """
    return 4.0 * parameters * (2 + 2 + 6)


# --- products -----------------------------------------------------------------------------------------


def _gemm(workload: str, brief: bool) -> Iterator[Case]:
    if brief:
        yield _product(workload, "X W^T", 24, 16, 8, "NT")
        yield _product(workload, "dW", 16, 8, 24, "TN")
        return
    seen = set()
    for rows, inputs, outputs in _layers():
        for what, M, N, K, layout in (
            ("X W^T", rows, outputs, inputs, "NT"),
            ("dX = dY W", rows, inputs, outputs, "NN"),
            ("dW = dY^T X", outputs, inputs, rows, "TN"),
        ):
            if (M, N, K, layout) not in seen:
                seen.add((M, N, K, layout))
                yield _product(workload, what, M, N, K, layout)
    for size in SQUARES:
        yield _product(workload, "X Y", size, size, size, "NN")


def _layers() -> Iterator[tuple[int, int, int]]:
    """The linear layers in W1 to W4: rows, inputs, outputs."""
    for s in GPTS.values():
        rows, C = s["B"] * s["T"], s["n_embd"]
        yield from ((rows, C, 3 * C), (rows, C, C), (rows, C, 4 * C), (rows, 4 * C, C), (rows, C, s["V"]))
    rows, C, hidden = ENCODER["B"] * ENCODER["T"], ENCODER["n_embd"], ENCODER["n_hidden"]
    yield from ((rows, C, 3 * C), (rows, C, C), (rows, C, hidden), (rows, hidden, C))


def _product(workload: str, what: str, M: int, N: int, K: int, layout: str) -> Case:
    """(M, K) times (K, N); the layout says which of the two lies transposed in memory (T) or plainly (N)."""
    sizes = {"M": M, "N": N, "K": K, "layout": layout}
    traffic = 4.0 * (M * K + K * N + M * N)
    name, peers = f"{what}  {M} x {K} x {N}", (MINILM, TORCH, JAX, NUMPY)
    return Case(workload, name, "gemm", sizes, peers, 2.0 * M * N * K, traffic, "flops")


# --- single operations --------------------------------------------------------------------------------


def _attention(workload: str, brief: bool) -> Iterator[Case]:
    for T, D, H in ((8, 4, 2),) if brief else ATTENTION:
        flops = 12.0 * D * H * T * (T + 1) / 2
        traffic = 4.0 * H * T * D * (4 + 5 + 3)  # q, k, v, y forward; q, k, v, y, dy and dq, dk, dv backward
        sizes = {"T": T, "D": D, "H": H}
        yield Case(
            workload, f"attention H {H}, D {D}, T {T}", "attention", sizes, (MINILM, TORCH), flops, traffic, "flops"
        )


def _rows(workload: str, brief: bool) -> Iterator[Case]:
    rows, columns = (8, 16) if brief else (4096, 1536)
    peers, count = (MINILM, TORCH, COMPILED), rows * columns
    # Operations on an element, forward and backward, roughly: they only place the point in the picture.
    for kind, operations in (("softmax", 9), ("layer_norm", 17), ("gelu", 30)):
        sizes = {"rows": rows, "columns": columns}
        # Forward reads x and writes y; backward reads dy and one of them, and writes dx.
        yield Case(
            workload, f"{kind} {rows} x {columns}", kind, sizes, peers,
            float(operations * count), 4.0 * 5 * count, "bytes", 4 * count,
        )  # fmt: skip
    rows, columns = (4, 16) if brief else (256, 50304)
    count = rows * columns
    yield Case(
        workload, f"cross_entropy {rows} x {columns}", "cross_entropy", {"rows": rows, "columns": columns}, peers,
        8.0 * count, 4.0 * 3 * count, "bytes", 4 * count,
    )  # fmt: skip
    count = 100 if brief else GPT2_PARAMETERS
    for fused in (False, True):
        yield Case(
            workload, f"AdamW {count:,} (torch: {'fused' if fused else 'foreach'})", "adamw",
            {"count": count, "fused": fused}, (MINILM, TORCH), 14.0 * count, 4.0 * 7 * count, "bytes", 4 * count,
        )  # fmt: skip


def _chain(workload: str, brief: bool) -> Iterator[Case]:
    steps = 20 if brief else 10_000
    yield Case(workload, f"{steps:,} operations on 4 x 4", "chain", {"steps": steps}, (MINILM, TORCH))


def _memory(workload: str, brief: bool) -> Iterator[Case]:
    for of in ("W2",) if brief else ("W2", "W3"):
        sizes = TINY_GPT if brief else GPTS[of]
        yield Case(workload, f"memory of {of}", "memory", sizes, (MINILM, TORCH))


def _import(workload: str, brief: bool) -> Iterator[Case]:
    yield Case(workload, "import", "import", {"times": 1 if brief else 5}, (MINILM, TORCH, JAX, NUMPY))


def _translation(workload: str, brief: bool) -> Iterator[Case]:
    yield from translation.cases(workload, brief, Case, (MINILM, TORCH))


_MAKERS = {
    "W1": _gpt, "W2": _gpt, "W3": _gpt, "W4": _encoder, "W5": _gemm,
    "W6": _attention, "W7": _rows, "W8": _chain, "W9": _memory, "W10": _import, "W11": _recurrent,
    "W12": _translation, "W13": _translation,
}  # fmt: skip
