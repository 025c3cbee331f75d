"""A model that translates: its cases, what they are made of, and both sides' builders (minilm's, and transformers')."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minilm_benchmarks.settings import ADAMW, CLIP, Unavailable

Arrays = dict[str, Any]
Run = Callable[[], Any]

SIZES = {"layers": 3, "heads": 4, "C": 256, "hidden": 1024, "V": 8000, "B": 64, "S": 40, "T": 40, "beams": 5}
TINY = {"layers": 1, "heads": 2, "C": 8, "hidden": 16, "V": 31, "B": 3, "S": 6, "T": 5, "beams": 2}
SMOOTHING = 0.1


def shape(s: dict[str, int], dropout: float = 0.0) -> dict[str, Any]:
    """The model's configuration, for both."""
    sides = {"layers": s["layers"], "attention_heads": s["heads"], "ffn_dim": s["hidden"]}
    return {
        "vocab_size": s["V"],
        "d_model": s["C"],
        **{f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in sides.items()},
        "max_position_embeddings": 64,
        "activation_function": "relu",
        "dropout": dropout,
        "scale_embedding": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        "forced_eos_token_id": 1,
    }


def draw(rng: Any, s: dict[str, int]) -> Arrays:
    """Weights, and a batch whose sentences have from half to all of the longest's tokens."""
    C, V = s["C"], s["V"]
    shapes: dict[str, tuple[int, ...]] = {"model.shared.weight": (V, C)}
    for side in ("encoder", "decoder"):
        for layer in range(s["layers"]):
            at = f"model.{side}.layers.{layer}"
            for look in ("self_attn", "encoder_attn")[: 1 + (side == "decoder")]:
                for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    shapes |= {f"{at}.{look}.{part}.weight": (C, C), f"{at}.{look}.{part}.bias": (C,)}
                shapes |= {f"{at}.{look}_layer_norm.{name}": (C,) for name in ("weight", "bias")}
            shapes |= {f"{at}.fc1.weight": (s["hidden"], C), f"{at}.fc1.bias": (s["hidden"],)}
            shapes |= {f"{at}.fc2.weight": (C, s["hidden"]), f"{at}.fc2.bias": (C,)}
            shapes |= {f"{at}.final_layer_norm.{name}": (C,) for name in ("weight", "bias")}
    drawn = {}
    for name, size in shapes.items():
        if len(size) == 2:
            drawn[f"weight:{name}"] = rng.standard_normal(size, dtype=np.float32) * np.float32(0.02)
        else:
            drawn[f"weight:{name}"] = (np.ones if name.endswith("norm.weight") else np.zeros)(size, np.float32)
    tokens = rng.integers(2, V, (2, s["B"], max(s["S"], s["T"])))
    real = [np.arange(n) < np.linspace(n / 2, n, s["B"]).round()[:, None] for n in (s["S"], s["T"])]
    ids, labels = np.where(real[0], tokens[0, :, : s["S"]], 0), np.where(real[1], tokens[1, :, : s["T"]], -100)
    return {**drawn, "input_ids": ids, "attention_mask": real[0].astype(np.int64), "labels": labels}


def cases(workload: str, brief: bool, case: Any, peers: tuple[str, ...]) -> Iterator[Any]:
    """The workload's cases: a step in both precisions, or the search.

    Two searches: outputs that all have T tokens, and outputs that end behind as many tokens as their source has, from
    half of T to all of it, as those of a trained model end at different times.
    """
    s = TINY if brief else SIZES
    name = "{layers} + {layers} x {C}, B {B}, up to {T} tokens, V {V}".format(**s)
    if workload == "W13":
        for ends, words in enumerate(("all written to the end", "each as long as its source")):
            yield case(workload, f"beam {s['beams']}, {name}, {words}", "beam", {**s, "ends": ends}, peers)
        return
    traffic = 4.0 * parameters(s) * (2 + 2 + 6)
    for precision in ("float32", "bfloat16"):
        ending = "" if precision == "float32" else ", bf16"
        yield case(
            workload, f"translation {name}{ending}", "translation", s, peers, flops(s), traffic, "flops",
            precision=precision,
        )  # fmt: skip


def parameters(s: dict[str, int]) -> int:
    """How many numbers the model learns."""
    C, hidden = s["C"], s["hidden"]
    look, forward = 4 * C * (C + 1) + 2 * C, 2 * C * hidden + hidden + C + 2 * C
    return s["V"] * C + s["layers"] * (3 * look + 2 * forward)


def flops(s: dict[str, int]) -> float:
    """A step, without padding: 6 for each number in a product and token, 12 C for each pair that sees the other."""
    C, hidden, L = s["C"], s["hidden"], s["layers"]
    source, target = (np.linspace(n / 2, n, s["B"]).round() for n in (s["S"], s["T"]))
    encoder = source.sum() * (4 * C * C + 2 * C * hidden)
    decoder = target.sum() * (6 * C * C + 2 * C * hidden) + source.sum() * 2 * C * C
    pairs = (source * source + target * (target + 1) / 2 + source * target).sum()
    return float(6 * (L * (encoder + decoder) + target.sum() * C * s["V"]) + 12 * L * C * pairs)


# --- minilm's ---------------------------------------------------------------------------------------


class Ending:
    """A model whose outputs end, and not before, as soon as they have as many tokens as their source."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def encode(self, ids: Any, mask: Any) -> Any:
        """The memory, and how long outputs become."""
        return self.model.encode(ids, mask), mask.numpy().sum(1)

    def new_cache(self, memory: Any, length: int) -> Any:
        """The model's, which also knows how long the output in each row becomes."""
        encoded, lengths = memory
        return EndingCache(self.model.new_cache(encoded, length), lengths)

    def decode(self, tokens: Any, cache: Any) -> Any:
        """The model's logits (N, V), in which only the end token, or all but that, can come."""
        logits = self.model.decode(tokens, cache=cache.cache)
        cache.written += 1
        only_end(logits.numpy(), cache.lengths == cache.written)
        return logits


class EndingCache:
    """The keys and values of a batch, and the length of each row's output."""

    def __init__(self, cache: Any, lengths: Any) -> None:
        self.cache, self.lengths, self.written = cache, lengths, 0

    def reorder(self, rows: Any) -> None:
        """Go on with these rows."""
        self.cache.reorder(rows)
        self.lengths = self.lengths[rows]


def only_end(logits: Any, last: Any) -> None:
    """Only token 1 may come in those rows of (N, V) whose `last` token this is, booleans (N,); in others it may not."""
    ends = logits[last, 1]
    logits[last] = -np.inf
    logits[:, 1] = -np.inf
    logits[last, 1] = ends


def ours(case: Any, arrays: Arrays) -> Run:
    """A step by minilm.models.MarianMTModel, or beam search."""
    import minilm as ml
    from minilm.models import MarianConfig, MarianMTModel
    from minilm.models.translator import searched

    model = MarianMTModel(MarianConfig(**shape(case.sizes)))
    learnt = {name.removeprefix("weight:"): x for name, x in arrays.items() if name.startswith("weight:")}
    for name, parameter in model.named_parameters():
        parameter.array[...] = learnt.pop(name)
    if learnt:
        raise Unavailable(f"the model lacks {', '.join(learnt)}")
    batch = [arrays[name] for name in ("input_ids", "attention_mask", "labels")]
    if case.kind == "beam":
        from minilm.beam import BeamSearch

        model.eval()
        T, ends = case.sizes["T"], case.sizes["ends"]
        sources = [row[:n] for row, n in zip(batch[0], batch[1].sum(1))]
        least = 0 if ends else T - 1
        search = BeamSearch(
            case.sizes["beams"], max_new_tokens=T, min_new_tokens=least, eos_token_id=1, suppress_tokens=(0,)
        )
        writer = Ending(model) if ends else model
        return lambda: searched(writer, sources, search, len(sources))
    ids, mask, labels = (ml.tensor(x) for x in batch)
    optimizer, learning = ml.optim.AdamW(model.parameters(), **ADAMW), list(model.parameters())

    def step() -> float:
        optimizer.zero_grad()
        loss = model.loss(ids, mask, labels, SMOOTHING)
        loss.backward()
        ml.optim.clip_grad_norm_(learning, CLIP)
        optimizer.step()
        return float(loss.item())

    return step


# --- PyTorch's --------------------------------------------------------------------------------------


def theirs(case: Any, arrays: Arrays, compiled: Callable[[Any], Any]) -> Run:
    """The same by transformers' MarianMTModel, and its `generate`."""
    import contextlib
    import importlib

    import torch

    try:
        transformers = importlib.import_module("transformers")
    except ImportError:
        raise Unavailable("transformers is not installed") from None
    transformers.logging.set_verbosity_error()
    model = transformers.MarianMTModel(transformers.MarianConfig(**shape(case.sizes)))
    learnt = {name.removeprefix("weight:"): torch.from_numpy(x) for name, x in arrays.items() if "weight:" in name}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(learnt.pop(name))
    if learnt:
        raise Unavailable(f"the model lacks {', '.join(learnt)}")
    ids, mask, labels = (torch.from_numpy(arrays[name]) for name in ("input_ids", "attention_mask", "labels"))
    if case.kind == "beam":
        model.eval()
        T, beams, ends = case.sizes["T"], case.sizes["beams"], case.sizes["ends"]
        options = {"num_beams": beams, "max_new_tokens": T, "bad_words_ids": [[0]]}
        model.generation_config.forced_eos_token_id = None
        if ends:
            lengths = mask.sum(1).repeat_interleave(beams).numpy()

            def ending(seen: Any, scores: Any) -> Any:
                only_end(scores.numpy(), lengths == seen.shape[1])  # the start token stands before the output
                return scores

            options["logits_processor"] = transformers.LogitsProcessorList([ending])
        else:
            options["min_new_tokens"] = T - 1
        return lambda: model.generate(ids, attention_mask=mask, do_sample=False, **options)
    before = torch.cat([torch.zeros_like(labels[:, :1]), labels[:, :-1].clamp(min=0)], 1)
    model.train()
    parameters_ = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters_, fused=True, **ADAMW)
    bf16 = case.precision == "bfloat16"

    def loss_of() -> Any:
        logits = model(ids, attention_mask=mask, decoder_input_ids=before, use_cache=False).logits
        return torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), label_smoothing=SMOOTHING
        )

    called = compiled(loss_of)

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext():
            loss = called()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters_, CLIP)
        optimizer.step()
        return float(loss.detach())

    return step
