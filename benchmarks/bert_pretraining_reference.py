"""Does BERT's pre-training reach what the same model reaches in PyTorch, and how long do both take?

    python benchmarks/bert_pretraining_reference.py                 as `minilm pretrain-bert` by default
    python benchmarks/bert_pretraining_reference.py --steps 300     shorter: the schedule is that of so many steps

Both begin with the same weights, see the same batches in the same order (the Shakespeare that ships, its last tenth
held out) and take the same steps of AdamW, with the same learning rates, decay and clipping. The twin is
transformers' BertForPreTraining, its scores computed for the masked tokens alone, as ours are; in "bf16" its products
run under autocast. Accuracies are over the same held-out batches. Seconds are of the steps alone; they compare only
where nothing else runs on the machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from minilm.train.pretraining import PretrainConfig
from minilm.train.run import new_run
from minilm.train.validation import measure


def scores(torch: Any, model: Any, batch: Any, precision: str) -> tuple[Any, Any, Any, Any]:
    """The twin's scores of masked tokens (n, V) and of pairs (B, 2), each with its labels."""
    ids, types, present, labels, label = (torch.from_numpy(np.ascontiguousarray(x)) for x in batch)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        states = model.bert(ids, attention_mask=present, token_type_ids=types)
        masked = labels >= 0
        tokens = model.cls.predictions(states.last_hidden_state[masked])
        pairs = model.cls.seq_relationship(states.pooler_output)
    return tokens.float(), labels[masked], pairs.float(), label


def train_twin(model: Any, trainer: Any) -> float:
    """The steps of a run of `trainer`'s, in PyTorch; the seconds that they took."""
    import torch

    config, schedule = trainer.config, trainer.config.schedule()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True)
    seconds = 0.0
    model.train()
    for step in range(config.steps):
        batch = trainer.data.batch(step)
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule(step)
        tokens, labels, pairs, label = scores(torch, model, batch, config.precision)
        loss = torch.nn.functional.cross_entropy(tokens, labels) + torch.nn.functional.cross_entropy(pairs, label)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
        seconds += time.perf_counter() - began
    return seconds


def measure_twin(model: Any, trainer: Any, batches: int) -> dict[str, float]:
    """Its accuracies and its loss on so many held-out batches."""
    import torch

    sums = np.zeros(6)
    model.eval()
    with torch.no_grad():
        for index in range(batches):
            tokens, labels, pairs, label = scores(
                torch, model, trainer.data.validation(index), trainer.config.precision
            )
            for at, (found, wanted) in enumerate(((tokens, labels), (pairs, label))):
                loss = torch.nn.functional.cross_entropy(found, wanted, reduction="sum")
                sums[3 * at : 3 * at + 3] += ((found.argmax(-1) == wanted).sum(), loss, len(wanted))
    masked, following = sums[:3], sums[3:]
    return {
        "masked_accuracy": masked[0] / masked[2],
        "next_sentence_accuracy": following[0] / following[2],
        "loss": masked[1] / masked[2] + following[1] / following[2],
    }


def line(name: str, found: dict[str, float], baseline: float, seconds: float, steps: int) -> str:
    """A library's results in words."""
    return (
        f"{name:<8} masked {found['masked_accuracy']:.1%} ({found['masked_accuracy'] / baseline:.2f} times "
        f"{baseline:.1%} by frequency)  next sentence {found['next_sentence_accuracy']:.1%}  loss {found['loss']:.3f}  "
        f"{seconds:.0f} s, {seconds / steps * 1000:.0f} ms a step"
    )


def main() -> int:
    """Train both and print how far each came; exit code 1 if ours is below three times the baseline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=PretrainConfig().steps)
    parser.add_argument("--seed", type=int, default=PretrainConfig().seed)
    parser.add_argument("--precision", choices=("bf16", "float32"), default=PretrainConfig().precision)
    parser.add_argument("--batches", type=int, default=200, help="held-out ones, to measure on")
    parser.add_argument("--only", choices=("minilm", "PyTorch"))
    arguments = parser.parse_args()
    steps = arguments.steps
    settings = {
        "steps": steps,
        "seed": arguments.seed,
        "precision": arguments.precision,
        "eval_every": steps,
        "eval_batches": 1,
    }
    config = PretrainConfig.build(None, {**settings, "warmup_steps": min(PretrainConfig().warmup_steps, steps // 10)})
    with tempfile.TemporaryDirectory() as place:
        trainer, _ = new_run(None, Path(place) / "run", config)
        trainer.model.save_pretrained(Path(place) / "initial")
        baseline = measure(trainer, arguments.batches)["accuracy_by_frequency"]
        reached = True
        if arguments.only != "PyTorch":
            trainer.train()
            found = {**measure(trainer, arguments.batches), "loss": trainer.evaluate(arguments.batches)}
            reached = found["masked_accuracy"] >= 3 * baseline
            print(line("minilm", found, baseline, trainer.progress.seconds, steps), flush=True)
        if arguments.only != "minilm":
            from transformers import BertForPreTraining as Twin

            twin = Twin.from_pretrained(Path(place) / "initial")
            seconds = train_twin(twin, trainer)
            print(line("PyTorch", measure_twin(twin, trainer, arguments.batches), baseline, seconds, steps), flush=True)
    return int(not reached)


if __name__ == "__main__":
    sys.exit(main())
