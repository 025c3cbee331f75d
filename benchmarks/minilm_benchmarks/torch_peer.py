"""PyTorch's side: for each kind of case, a function without arguments that runs it once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from minilm_benchmarks import torch_models, translation
from minilm_benchmarks.cases import Case
from minilm_benchmarks.data import Arrays, weights
from minilm_benchmarks.settings import ADAMW, CLIP, Unavailable

Run = Callable[[], Any]

compiled = False  # worker.py sets it in the process of torch.compile


def version() -> str:
    """What was measured."""
    return str(torch.__version__)


def set_threads(threads: int) -> None:
    """Compute with so many threads."""
    torch.set_num_threads(threads)


def build(case: Case, arrays: Arrays) -> Run:
    """One call of `case`."""
    if compiled:
        torch._dynamo.reset()  # or a case would inherit the recompilations of those before it
    return _BUILDERS[case.kind](case, arrays)


def maybe_compiled(function: Any) -> Any:
    """As it is, or through torch.compile."""
    return torch.compile(function) if compiled else function


def training_step(model: Any, case: Case, arrays: Arrays) -> Run:
    """Forward, backward, clipping, AdamW (the fused one, the faster); returns the loss before the step."""
    learnt = dict(weights(arrays))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(learnt.pop(name)))
    if learnt:
        raise Unavailable(f"the model lacks {', '.join(learnt)}")
    model.train()
    tokens, targets = torch.from_numpy(arrays["tokens"]), torch.from_numpy(arrays["targets"])
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, fused=True, **ADAMW)
    loss_of = maybe_compiled(model)
    bf16 = case.precision == "bfloat16"

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext():
            loss = loss_of(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        return float(loss.detach())

    return step


def gpt(case: Case, arrays: Arrays) -> Run:
    """The twin of minilm's GPT."""
    return training_step(torch_models.GPT(case.sizes), case, arrays)


def encoder(case: Case, arrays: Arrays) -> Run:
    """PyTorch's own encoder layers."""
    return training_step(torch_models.Encoder(case.sizes), case, arrays)


def recurrent(case: Case, arrays: Arrays) -> Run:
    """PyTorch's own recurrent layers."""
    return training_step(torch_models.Recurrent(case.sizes), case, arrays)


def gemm(case: Case, arrays: Arrays) -> Run:
    """torch.mm on the same views."""
    a, b = (torch.from_numpy(arrays[name]) for name in "ab")
    a = a.T if case.sizes["layout"][0] == "T" else a
    b = b.T if case.sizes["layout"][1] == "T" else b
    return lambda: torch.mm(a, b)


def attention(case: Case, arrays: Arrays) -> Run:
    """Causal, with all three gradients."""
    del case
    return forward_backward(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), leaves(arrays, "q", "k", "v"), arrays
    )


def softmax(case: Case, arrays: Arrays) -> Run:
    """Over the columns."""
    del case
    return forward_backward(lambda x: F.softmax(x, -1), leaves(arrays, "x"), arrays)


def layer_norm(case: Case, arrays: Arrays) -> Run:
    """With weight and bias, and their gradients."""
    columns = (case.sizes["columns"],)
    inputs = leaves(arrays, "x", "weight", "bias")
    return forward_backward(lambda x, w, b: F.layer_norm(x, columns, w, b), inputs, arrays)


def gelu(case: Case, arrays: Arrays) -> Run:
    """The exact one."""
    del case
    return forward_backward(lambda x: F.gelu(x), leaves(arrays, "x"), arrays)


def cross_entropy(case: Case, arrays: Arrays) -> Run:
    """The mean over rows."""
    del case
    targets = torch.from_numpy(arrays["targets"])
    return forward_backward(lambda x: F.cross_entropy(x, targets), leaves(arrays, "x"), {})


def leaves(arrays: Arrays, *names: str) -> list[Any]:
    """Tensors that want a gradient."""
    return [torch.from_numpy(arrays[name]).requires_grad_() for name in names]


def forward_backward(function: Callable[..., Any], inputs: list[Any], arrays: Arrays) -> Run:
    """Call the function and go back with the gradient dy; every input gets a fresh gradient."""
    call = maybe_compiled(function)
    dy = torch.from_numpy(arrays["dy"]) if "dy" in arrays else torch.tensor(1.0)

    def run() -> None:
        for x in inputs:
            x.grad = None
        call(*inputs).backward(dy)

    return run


def adamw(case: Case, arrays: Arrays) -> Run:
    """The optimiser's step alone."""
    parameters = []
    for name, array in weights(arrays):
        parameter = torch.nn.Parameter(torch.from_numpy(array))
        parameter.grad = torch.from_numpy(arrays[f"gradient:{name}"])
        parameters.append(parameter)
    how: dict[str, Any] = {"fused": True} if case.sizes["fused"] else {"foreach": True}
    return torch.optim.AdamW(parameters, **how, **ADAMW).step


def chain(case: Case, arrays: Arrays) -> Run:
    """Multiplications and additions in turn, each on the result of the last."""
    x, a, b = leaves(arrays, "x", "a", "b")
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


def translate(case: Case, arrays: Arrays) -> Run:
    """transformers' MarianMTModel."""
    return translation.theirs(case, arrays, maybe_compiled)


_BUILDERS: dict[str, Callable[[Case, Arrays], Run]] = {
    "gpt": gpt, "memory": gpt, "encoder": encoder, "recurrent": recurrent, "gemm": gemm,
    "attention": attention, "softmax": softmax,
    "layer_norm": layer_norm, "gelu": gelu, "cross_entropy": cross_entropy, "adamw": adamw, "chain": chain,
    "translation": translate, "beam": translate,
}  # fmt: skip
