"""JAX's side: the GPT as one compiled function from state to state, and products of matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from minilm_benchmarks.cases import Case
from minilm_benchmarks.data import Arrays, weights
from minilm_benchmarks.settings import ADAMW, CLIP

Run = Callable[[], Any]


def version() -> str:
    """What was measured."""
    return str(jax.__version__)


def set_threads(threads: int) -> None:
    """XLA takes as many as the process may use CPUs: worker.py restricts these."""


def build(case: Case, arrays: Arrays) -> Run:
    """One call of `case`."""
    return {"gpt": gpt, "gemm": gemm}[case.kind](case, arrays)


def gemm(case: Case, arrays: Arrays) -> Run:
    """The transposition is part of the compiled product, so nothing is copied."""
    first, second = case.sizes["layout"]

    @jax.jit
    def product(a: Any, b: Any) -> Any:
        return jnp.matmul(a.T if first == "T" else a, b.T if second == "T" else b)

    a, b = (jnp.asarray(arrays[name]) for name in "ab")
    return lambda: product(a, b).block_until_ready()


def gpt(case: Case, arrays: Arrays) -> Run:
    """Forward, backward, clipping, AdamW; returns the loss before the step."""
    tokens, targets = jnp.asarray(arrays["tokens"]), jnp.asarray(arrays["targets"])
    learnt = {name: jnp.array(array) for name, array in weights(arrays)}
    zeros = {name: jnp.zeros_like(array) for name, array in learnt.items()}
    state = (learnt, zeros, {name: jnp.zeros_like(array) for name, array in learnt.items()}, jnp.zeros((), jnp.int32))
    L, H = case.sizes["n_layer"], case.sizes["n_head"]
    loss_and_gradient = jax.value_and_grad(lambda w: gpt_loss(w, tokens, targets, L, H))

    def update(state: Any) -> Any:
        w, m, v, t = state
        loss, gradient = loss_and_gradient(w)
        return loss, adamw(w, m, v, t + 1, clipped(gradient))

    compiled = jax.jit(update, donate_argnums=0)  # the new state takes the old one's memory

    def step() -> float:
        nonlocal state
        loss, state = compiled(state)
        jax.block_until_ready(state)
        return float(loss)

    return step


def gpt_loss(w: dict[str, Any], tokens: Any, targets: Any, L: int, H: int) -> Any:
    """minilm.models.GPT: tokens and targets (B, T) -> the mean cross-entropy."""

    def linear(name: str, x: Any) -> Any:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name: str, x: Any) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        rstd = jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return centred * rstd * w[f"{name}.weight"] + w[f"{name}.bias"]

    B, T = tokens.shape
    x = w["transformer.wte.weight"][tokens] + w["transformer.wpe.weight"][:T]  # (B, T, C)
    for layer in range(L):
        at = f"transformer.h.{layer}"
        qkv = linear(f"{at}.attn.c_attn", norm(f"{at}.ln_1", x)).reshape(B, T, 3, H, -1)
        y = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], is_causal=True)
        x = x + linear(f"{at}.attn.c_proj", y.reshape(x.shape))
        hidden = jax.nn.gelu(linear(f"{at}.mlp.c_fc", norm(f"{at}.ln_2", x)), approximate=False)
        x = x + linear(f"{at}.mlp.c_proj", hidden)
    log_p = jax.nn.log_softmax(norm("transformer.ln_f", x) @ w["transformer.wte.weight"].T)
    return -jnp.take_along_axis(log_p, targets[..., None], -1).mean()


def clipped(gradient: dict[str, Any]) -> dict[str, Any]:
    """Scaled down to CLIP where its norm is above that."""
    norm = jnp.sqrt(sum((g**2).sum() for g in gradient.values()))
    scale = jnp.minimum(1.0, CLIP / (norm + 1e-6))
    return {name: g * scale for name, g in gradient.items()}


def adamw(w: Any, m: Any, v: Any, t: Any, gradient: Any) -> Any:
    """The state after step t: see minilm.optim.AdamW for the formula."""
    lr, (beta1, beta2), eps, decay = ADAMW["lr"], ADAMW["betas"], ADAMW["eps"], ADAMW["weight_decay"]
    m = {name: beta1 * m[name] + (1 - beta1) * g for name, g in gradient.items()}
    v = {name: beta2 * v[name] + (1 - beta2) * g * g for name, g in gradient.items()}
    first, second = 1 - beta1**t, 1 - beta2**t

    def moved(name: str) -> Any:
        return w[name] * (1 - lr * decay) - lr * (m[name] / first) / (jnp.sqrt(v[name] / second) + eps)

    return {name: moved(name) for name in w}, m, v, t
