"""How far ours and transformers' numbers are apart on the same weights, read and written by either.

Differences are the largest in magnitude; states are compared at tokens, since padding's mean nothing.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

import minilm as ml
from bert_sections.article import losses_of_both, some_texts
from bert_sections.turns import MINILM, PYTORCH
from minilm import models
from minilm.models.sentence import SentenceEncoder
from minilm.text import BertTokenizer

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "Yes.",
    "In 1905 Einstein published four papers, on light, on atoms, on moving bodies and on the inertia of energy, "
    "each of which would have made the name of somebody else.",
    "Was it a café?",
    "She sells sea shells by the sea shore; the shells that she sells are surely seashells.",
]
INPUTS = ("input_ids", "token_type_ids", "attention_mask")
Array = Any


def loaded(library: Any, name: str, folder: Path, **settings: Any) -> Any:
    """A model of either library, in evaluation mode; a head that is new or left over is no news here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(library, name).from_pretrained(folder, **settings).eval()


def encoded(folder: Path) -> dict[str, Array]:
    """The sentences as arrays (B, T), with padding."""
    batch: dict[str, Array] = BertTokenizer.from_pretrained(folder)(SENTENCES, padding=True, return_tensors="np")
    return {name: np.asarray(batch[name]) for name in INPUTS}


def both(inputs: dict[str, Array]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays as tensors of ours and of PyTorch's."""
    import torch

    ours = {name: ml.tensor(array) for name, array in inputs.items()}
    return ours, {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}


def furthest(ours: Array, theirs: Array) -> float:
    """The largest difference."""
    return float(np.abs(ours - theirs).max())


def states(folder: Path) -> list[float]:
    """Of the hidden states at tokens after the embeddings and after each layer, of what both read from a folder."""
    import torch
    import transformers

    inputs = encoded(folder)
    mask = inputs["attention_mask"].astype(bool)
    ours, theirs = (loaded(library, "BertModel", folder) for library in (models, transformers))
    mine, other = both(inputs)
    with torch.no_grad(), ml.no_grad():
        found, expected = ours(**mine, output_hidden_states=True), theirs(**other, output_hidden_states=True)
    pairs = zip(found.hidden_states, expected.hidden_states, strict=True)
    return [furthest(a.numpy()[mask], b.numpy()[mask]) for a, b in pairs]


def gradients(folder: Path, name: str, place: Path) -> dict[str, float]:
    """Of the loss, and of all parameters' gradients by each one's largest; `place` is for the model with a new head.

    The keys' biases add a constant to all scores of a query: their gradients are rounding alone, and left out.
    """
    import torch
    import transformers

    inputs = encoded(folder)
    ours = loaded(models, name, folder)
    ours.save_pretrained(place)
    theirs = loaded(transformers, name, place)
    labels = np.arange(len(SENTENCES)) % 2
    if name == "BertForMaskedLM":
        chosen = (np.random.default_rng(0).random(inputs["input_ids"].shape) < 0.15) & (inputs["attention_mask"] == 1)
        labels = np.where(chosen, inputs["input_ids"], -100)
    loss = ours.loss(*(ml.tensor(inputs[key]) for key in INPUTS), ml.tensor(labels))
    expected = theirs(**both(inputs)[1], labels=torch.from_numpy(labels)).loss
    loss.backward()
    expected.backward()
    others, worst = dict(theirs.named_parameters()), 0.0
    for key, parameter in ours.named_parameters():
        if not key.endswith("key.bias"):
            gradient = others[key].grad.numpy()
            largest = float(np.abs(gradient).max()) or 1.0  # all zeros: the difference itself
            worst = max(worst, furthest(parameter.grad.numpy(), gradient) / largest)
    return {"loss": abs(loss.item() - expected.item()), "gradients": worst}


def embeddings(folder: Path) -> float:
    """Of the sentences' vectors of length 1: the mean of the last states over tokens."""
    import torch
    import transformers

    texts = [*SENTENCES, "", "Two men pushed carts through the woods. " * 40]
    encoder = SentenceEncoder.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs = loaded(transformers, "BertModel", folder)
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=encoder.max_length, return_tensors="pt")
    with torch.no_grad():
        last = theirs(**inputs).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1).float()
    expected = torch.nn.functional.normalize((last * mask).sum(1) / mask.sum(1), dim=-1).numpy()
    found = encoder(texts)
    return furthest(found / np.linalg.norm(found, axis=-1, keepdims=True), expected)


def exchanged(folder: Path, place: Path) -> dict[str, Any]:
    """What one library writes and the other reads: the states of all layers, at most, and whether weights are equal.

    Weights are changed before they are written (each by 1 % of its own spread), so that nothing else can be read.
    """
    import transformers

    found: dict[str, Any] = {}
    tokenizer = BertTokenizer.from_pretrained(folder)
    for name, writer, reader in ((MINILM, models, transformers), (PYTORCH, transformers, models)):
        model, target, rng = loaded(writer, "BertModel", folder), place / name, np.random.default_rng(0)
        for parameter in model.parameters():
            array = parameter.array if name == MINILM else parameter.detach().numpy()
            array += (0.01 * array.std() * rng.standard_normal(array.shape)).astype(array.dtype)
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
        written, read = (dict(x.named_parameters()) for x in (model, loaded(reader, "BertModel", target)))
        equal = set(written) == set(read) and all(
            np.array_equal(plain(written[key]), plain(read[key])) for key in written
        )
        found[name] = {"weights_equal": equal, "states": max(states(target))}
    return found


def plain(parameter: Any) -> Array:
    """A parameter of either library as an array."""
    return parameter.array if isinstance(parameter, ml.Tensor) else parameter.detach().numpy()


def article(folder: Path, place: Path, count: int = 136) -> dict[str, list[float]]:
    """The losses of the article's lines on the folder's weights, without dropout; 51 steps for 136 texts."""
    dropout = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
    loaded(models, "BertForSequenceClassification", folder, num_labels=2, **dropout).save_pretrained(place)
    BertTokenizer.from_pretrained(folder).save_pretrained(place)
    return losses_of_both(place, some_texts(count))
