"""minilm's side: for each kind of case, a function without arguments that runs it once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import minilm as ml
from minilm import kernels
from minilm.nn import functional as F
from minilm_benchmarks import translation
from minilm_benchmarks.cases import Case
from minilm_benchmarks.data import Arrays, weights
from minilm_benchmarks.settings import ADAMW, CLIP, Unavailable

Run = Callable[[], Any]


def version() -> str:
    """What was measured."""
    return ml.__version__


def set_threads(threads: int) -> None:
    """Compute with so many threads."""
    ml.set_num_threads(threads)


def build(case: Case, arrays: Arrays) -> Run:
    """One call of `case`. Errors: Unavailable with the reason."""
    _set_precision(case.precision)
    return _BUILDERS[case.kind](case, arrays)


def _set_precision(precision: str) -> None:
    choose = getattr(ml, "set_float32_matmul_precision", None)
    if choose is not None:
        choose("medium" if precision == "bfloat16" else "highest")
    elif precision == "bfloat16":
        raise Unavailable("this minilm has no set_float32_matmul_precision")


def training_step(model: Any, arrays: Arrays) -> Run:
    """Forward, backward, clipping, AdamW; returns the loss before the step."""
    learnt = dict(weights(arrays))
    for name, parameter in model.named_parameters():
        parameter.array[...] = learnt.pop(name)
    if learnt:
        raise Unavailable(f"the model lacks {', '.join(learnt)}")
    tokens, targets = ml.tensor(arrays["tokens"]), ml.tensor(arrays["targets"])
    optimizer = ml.optim.AdamW(model.parameters(), **ADAMW)
    parameters = list(model.parameters())

    def step() -> float:
        optimizer.zero_grad()
        loss = model.loss(tokens, targets)
        loss.backward()
        ml.optim.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        return float(loss.item())

    return step


def gpt(case: Case, arrays: Arrays) -> Run:
    """minilm.models.GPT."""
    s = case.sizes
    config = ml.models.GPTConfig(
        vocab_size=s["V"], block_size=s["T"], n_layer=s["n_layer"], n_head=s["n_head"], n_embd=s["n_embd"]
    )
    return training_step(ml.models.GPT(config), arrays)


def encoder(case: Case, arrays: Arrays) -> Run:
    """The encoder in ours_models.py."""
    from minilm_benchmarks.ours_models import Encoder

    return training_step(Encoder(case.sizes), arrays)


def recurrent(case: Case, arrays: Arrays) -> Run:
    """minilm.models.RecurrentLM."""
    s = case.sizes
    config = ml.models.RecurrentConfig(s["kind"], s["V"], s["T"], s["n_layer"], s["n_embd"], s["n_hidden"])
    return training_step(ml.models.RecurrentLM(config), arrays)


def gemm(case: Case, arrays: Arrays) -> Run:
    """The kernel itself, on views that are transposed as in a layer's forward and backward."""
    a = arrays["a"].T if case.sizes["layout"][0] == "T" else arrays["a"]
    b = arrays["b"].T if case.sizes["layout"][1] == "T" else arrays["b"]
    return lambda: kernels.matmul(a, b)


def attention(case: Case, arrays: Arrays) -> Run:
    """Causal, with all three gradients."""
    del case
    inputs = [ml.Tensor(arrays[name], requires_grad=True) for name in "qkv"]
    return forward_backward(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), inputs, arrays)


def softmax(case: Case, arrays: Arrays) -> Run:
    """Over the columns."""
    del case
    return forward_backward(lambda x: F.softmax(x, -1), [ml.Tensor(arrays["x"], requires_grad=True)], arrays)


def layer_norm(case: Case, arrays: Arrays) -> Run:
    """With weight and bias, and their gradients."""
    inputs = [ml.Tensor(arrays[name], requires_grad=True) for name in ("x", "weight", "bias")]
    columns = case.sizes["columns"]
    return forward_backward(lambda x, w, b: F.layer_norm(x, columns, w, b), inputs, arrays)


def gelu(case: Case, arrays: Arrays) -> Run:
    """The exact one."""
    del case
    return forward_backward(F.gelu, [ml.Tensor(arrays["x"], requires_grad=True)], arrays)


def cross_entropy(case: Case, arrays: Arrays) -> Run:
    """The mean over rows."""
    del case
    targets = ml.tensor(arrays["targets"])
    x = ml.Tensor(arrays["x"], requires_grad=True)
    return forward_backward(lambda x: F.cross_entropy(x, targets), [x], {"dy": np.float32(1)})


def forward_backward(function: Callable[..., Any], inputs: list[Any], arrays: Arrays) -> Run:
    """Call the function and go back with the gradient dy; every input gets a fresh gradient."""
    dy = ml.tensor(arrays["dy"])

    def run() -> None:
        for x in inputs:
            x.grad = None
        function(*inputs).backward(dy)

    return run


def adamw(case: Case, arrays: Arrays) -> Run:
    """The optimiser's step alone."""
    del case
    parameters = []
    for name, array in weights(arrays):
        parameter = ml.nn.Parameter(ml.Tensor(array))
        parameter.grad = ml.Tensor(arrays[f"gradient:{name}"])
        parameters.append(parameter)
    return ml.optim.AdamW(parameters, **ADAMW).step


def chain(case: Case, arrays: Arrays) -> Run:
    """Multiplications and additions in turn, each on the result of the last."""
    x, a, b = (ml.Tensor(arrays[name], requires_grad=True) for name in "xab")
    pairs = case.sizes["steps"] // 2

    def run() -> None:
        for leaf in (x, a, b):
            leaf.grad = None
        y = x
        for _ in range(pairs):
            y = y * a
            y = y + b
        y.sum().backward()

    return run


_BUILDERS: dict[str, Callable[[Case, Arrays], Run]] = {
    "gpt": gpt, "memory": gpt, "encoder": encoder, "recurrent": recurrent, "gemm": gemm,
    "attention": attention, "softmax": softmax,
    "layer_norm": layer_norm, "gelu": gelu, "cross_entropy": cross_entropy, "adamw": adamw, "chain": chain,
    "translation": translation.ours, "beam": translation.ours,
}  # fmt: skip
