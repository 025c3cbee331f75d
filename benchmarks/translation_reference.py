"""Does translating reach the BLEU that it reaches in PyTorch, and what share of its time does it take?

    python benchmarks/translation_reference.py --train en-es.tsv.gz
    python benchmarks/translation_reference.py --train en-es.tsv.gz --steps 40        shorter, for the times
    python benchmarks/translation_reference.py --train en-es.tsv.gz --only torch      one alone, as for two nights

Both begin with the same weights, see the same batches in the same order and take the same steps of AdamW, with the same
rates, decay, label smoothing and clipping, by transformers' MarianMTModel; dropout draws differ. Both average the
weights after the last epochs and translate what is held out by a beam search (ours here, transformers' `generate`
there); sacrebleu compares. They take turns, epoch by epoch or, with --steps, ten steps at a time; the shares are of the
seconds of steps, and of translating, and say something only where nothing else runs. `--set key=value` changes the
recipe as in `minilm finetune translate`; with precision=bf16 PyTorch computes under autocast in bfloat16.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from minilm.evaluation.translation import translation_scores
from minilm.models.translator import Translator
from minilm.train.config import parse_setting
from minilm.train.finetuning.corpus import Source
from minilm.train.finetuning.pair_config import TranslateConfig
from minilm.train.run import new_run
from minilm.train.trainer import precision

# Some 33 minutes on two cores; `minilm finetune translate --train FILE` with these settings is the same run.
RECIPE: dict[str, Any] = {
    "precision": "bf16",
    "vocabulary": 4000,
    "epochs": 10,
    "decay": "linear",
    "learning_rate": 1e-3,
    "warmup_steps": 800,
    "batch_tokens": 2000,
    "model.dropout": 0.1,
    "average": 3,
}


class Ours:
    """The run in minilm."""

    def __init__(self, trainer: Any, corpus: Any) -> None:
        self.trainer, self.corpus, self.seconds = trainer, corpus, 0.0
        self.kept: list[dict[str, Any]] = []

    def steps(self, first: int, end: int) -> None:
        """The steps first ... end - 1."""
        self.trainer.model.train()
        with precision(self.trainer.config.precision):
            for step in range(first, end):
                self.trainer.step(self.trainer.data.batch(step))

    def keep(self) -> None:
        """Remember the weights, for their mean."""
        self.kept.append({name: x.array.copy() for name, x in self.trainer.model.state_dict().items()})

    def average(self, count: int) -> None:
        """Give the model the mean of the last weights that were kept."""
        for name, tensor in self.trainer.model.state_dict().items():
            tensor.array[...] = np.mean([weights[name] for weights in self.kept[-count:]], 0)

    def translations(self) -> list[str]:
        """What it makes of the held-out sources."""
        c, model = self.trainer.config, self.trainer.model.eval()
        translator = Translator(model, self.corpus.tokenizer)
        search = translator.search(num_beams=c.num_beams, length_penalty=c.length_penalty, max_new_tokens=c.max_target)
        return [best[0].text for best in translator.written(self.corpus.encoded.sources, search, c.batch_size)]


class Theirs:
    """The same run in PyTorch."""

    def __init__(self, trainer: Any, corpus: Any, folder: Path) -> None:
        import torch
        import transformers

        transformers.logging.set_verbosity_error()
        self.trainer, self.corpus, self.torch, self.seconds = trainer, corpus, torch, 0.0
        trainer.model.save_pretrained(folder)
        self.model = transformers.MarianMTModel.from_pretrained(folder)
        config = trainer.config
        learning = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in learning if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
        ]
        betas = config.beta1, config.beta2
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=True)
        self.learning, self.kept = learning, []

    def loss(self, batch: Any) -> Any:
        """Of a batch, labels smoothed."""
        torch, c = self.torch, self.trainer.config
        ids, mask, labels = (torch.from_numpy(np.ascontiguousarray(x)) for x in batch)
        start = torch.full_like(labels[:, :1], c.model.decoder_start_token_id)
        before = torch.cat([start, labels[:, :-1].clamp(min=c.model.pad_token_id)], 1)
        fast = c.precision == "bf16"
        with torch.autocast("cpu", torch.bfloat16) if fast else contextlib.nullcontext():
            logits = self.model(ids, attention_mask=mask, decoder_input_ids=before, use_cache=False).logits
        return torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), label_smoothing=c.label_smoothing
        )

    def steps(self, first: int, end: int) -> None:
        """The steps first ... end - 1."""
        config, schedule = self.trainer.config, self.trainer.config.schedule()
        self.model.train()
        for step in range(first, end):
            for group in self.optimizer.param_groups:
                group["lr"] = config.learning_rate * schedule(step)
            self.optimizer.zero_grad()
            self.loss(self.trainer.data.batch(step)).backward()
            self.torch.nn.utils.clip_grad_norm_(self.learning, config.grad_clip or float("inf"))
            self.optimizer.step()

    def keep(self) -> None:
        """Remember the weights, for their mean."""
        self.kept.append([p.detach().clone() for p in self.learning])

    def average(self, count: int) -> None:
        """Give the model the mean of the last weights that were kept."""
        with self.torch.no_grad():
            for parameter, *values in zip(self.learning, *self.kept[-count:]):
                parameter.copy_(self.torch.stack(values).mean(0))

    def translations(self) -> list[str]:
        """What it makes of the held-out sources, by transformers' `generate`."""
        c, tokenizer, torch = self.trainer.config, self.corpus.tokenizer, self.torch
        self.model.eval()
        sources = self.corpus.encoded.sources
        texts: list[str] = [""] * len(sources)
        options = {"num_beams": c.num_beams, "length_penalty": c.length_penalty, "max_new_tokens": c.max_target}
        for numbers in self.corpus.encoded.examples.by_length(c.batch_size):
            ids, mask, _ = map(torch.from_numpy, self.corpus.encoded.examples.gather(numbers, tokenizer.pad_token_id))
            rows = self.model.generate(
                ids, attention_mask=mask, do_sample=False, bad_words_ids=[[tokenizer.pad_token_id]], **options
            )
            for number, row in zip(numbers, rows):
                texts[number] = tokenizer.decode(row)
        return texts


def compare(file: Path, steps: int, only: str, settings: dict[str, Any]) -> None:
    """Train both, and print what they reach and take."""
    config = TranslateConfig.build(None, {**RECIPE, **settings})
    with tempfile.TemporaryDirectory() as place:
        trainer, corpus = new_run(Source(file), Path(place) / "run", config)
        sides: dict[str, Any] = {"minilm": Ours(trainer, corpus)} if only != "torch" else {}
        if only != "minilm":
            sides["PyTorch"] = Theirs(trainer, corpus, Path(place) / "twin")
        for note in corpus.notes:
            print(f"note: {note}")
        epoch, total = trainer.data.steps, min(steps or trainer.config.steps, trainer.config.steps)
        parameters = sum(p.numel() for p in trainer.model.parameters())
        print(f"{len(corpus.train):,} pairs, {parameters:,} parameters, {total:,} steps, {epoch:,} in an epoch")
        every = 10 if steps else epoch
        for first in range(0, total, every):
            end = min(first + every, total)
            for side in sides.values():
                began = time.perf_counter()
                side.steps(first, end)
                side.seconds += time.perf_counter() - began
                if not steps:
                    side.keep()
            print(f"  after step {end}: {spent(sides)}", flush=True)
        if not steps:
            references = [pair.target for pair in corpus.validation]
            for name, side in sides.items():
                side.average(trainer.config.average)
                trained, began = side.seconds, time.perf_counter()
                texts = side.translations()
                side.seconds = time.perf_counter() - began
                scores = translation_scores(texts, references)
                print(f"  {name}: BLEU {scores['bleu']}, chrF {scores['chrf']}")
                print(f"  {name}: {trained:,.0f} s of steps, {side.seconds:,.1f} s for {len(texts)} translations")
            print(f"  translating: {spent(sides)}")


def spent(sides: dict[str, Any]) -> str:
    """The seconds of each, and how many times as long PyTorch's are."""
    words = ", ".join(f"{name} {side.seconds:,.1f} s" for name, side in sides.items())
    if len(sides) < 2:
        return words
    return f"{words}; PyTorch takes {sides['PyTorch'].seconds / sides['minilm'].seconds:.2f} times as long"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="a TSV or JSON lines file of pairs")
    parser.add_argument("--steps", type=int, default=0, help="only so many steps, without translating; 0 for all")
    parser.add_argument("--only", choices=("minilm", "torch", ""), default="", help="one of the two alone")
    parser.add_argument("--set", action="append", default=[], help="one key of the recipe, as in epochs=2")
    given = parser.parse_args()
    compare(given.train, given.steps, given.only, dict(parse_setting(text) for text in given.set))


if __name__ == "__main__":
    main()
