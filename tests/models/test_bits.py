"""The native backend's bits depend neither on the threads, nor on the rest of the batch, nor on the cache.

At every instruction set that this processor can run, each in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

STORY = """
import hashlib
import numpy as np
import minilm as ml
from minilm.kernels import native
from minilm.models import GPT, GPTConfig
from minilm.optim import AdamW, clip_grad_norm_

assert ml.kernels.backend() == "native"
CONFIG = GPTConfig(vocab_size=67, block_size=75, n_layer=2, n_head=3, n_embd=87, activation=ACTIVATION)
tokens = np.random.default_rng(0).integers(0, 67, (5, 75))  # more than one tile of queries, and of keys


def model():
    ml.manual_seed(3)
    return GPT(CONFIG)


def logits(gpt, tokens):
    with ml.no_grad():
        return gpt(ml.tensor(tokens)).array


def trained():
    "All parameters after two steps, as a fingerprint."
    gpt = model()
    optimizer = AdamW(gpt.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        gpt.loss(ml.tensor(tokens[:, :-1]), ml.tensor(tokens[:, 1:])).backward()
        clip_grad_norm_(gpt.parameters(), 0.5)
        optimizer.step()
    return hashlib.sha256(b"".join(p.array.tobytes() for p in gpt.parameters())).hexdigest()


for precision in ("highest", "medium"):
    ml.set_float32_matmul_precision(precision)
    gpt, results, fingerprints = model().eval(), [], []
    for threads in (1, 2, 3, 5, 8):
        native.set_num_threads(threads)
        results.append(logits(gpt, tokens))
        fingerprints.append(trained())
    whole = results[0]
    for other in results[1:]:
        np.testing.assert_array_equal(other, whole, "threads, forward")
    assert len(set(fingerprints)) == 1, f"threads, training: {fingerprints}"

    native.set_num_threads(2)
    for i in range(len(tokens)):
        np.testing.assert_array_equal(logits(gpt, tokens[i : i + 1]), whole[i : i + 1], "alone")
    np.testing.assert_array_equal(logits(gpt, tokens[:, :41]), whole[:, :41], "what comes later")

    for rows in (5, 1):  # one new token of one sequence is a product with a single row
        parts = [(0, 33), (33, 40), *((t, t + 1) for t in range(40, 75))]
        with ml.no_grad():
            cache = gpt.new_cache(rows)
            steps = [gpt(ml.tensor(tokens[:rows, a:b]), cache).array for a, b in parts]
        np.testing.assert_array_equal(np.concatenate(steps, 1), whole[:rows], "cached")
print(native.instruction_set())
"""


def _instruction_sets():
    try:
        from minilm.kernels import native
    except ImportError:
        return ["none"]
    return native.instruction_sets()


@pytest.mark.parametrize("instruction_set", _instruction_sets())
@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
def test_bits_of_a_gpt(native, instruction_set, activation):
    run = subprocess.run(
        [sys.executable, "-c", STORY.replace("ACTIVATION", repr(activation))],
        capture_output=True,
        text=True,
        env={**os.environ, "MINILM_CPU": instruction_set, "MINILM_BACKEND": "native"},
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == instruction_set
