"""Our BERT beside Hugging Face's: the same weights, and batches for both."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import models

SHAPE = {
    "vocab_size": 31, "hidden_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 28,
    "max_position_embeddings": 13, "type_vocab_size": 3, "num_labels": 3,
}  # fmt: skip
B, T = 5, 11
LENGTHS = (11, 3, 1, 7, 5)


def build(name: str, dtype: str = "float64", seed: int = 0, **settings: Any) -> Any:
    """One of our models with random weights that are far from round, without dropout."""
    ml.manual_seed(seed)
    shape = {**SHAPE, **({"num_labels": 2} if name == "BertForQuestionAnswering" else {}), **settings}
    model = getattr(models, name)(models.BertConfig(**shape))
    rng = np.random.default_rng(seed)
    for parameter in model.parameters():
        parameter.array[...] += 0.3 * rng.standard_normal(parameter.shape)
    return model.to(dtype).eval()


def beside(transformers: Any, model: Any, folder: Path) -> Any:
    """Hugging Face's model of the folder that ours was saved to; nothing may be missing or left over."""
    model.save_pretrained(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twin, report = getattr(transformers, type(model).__name__).from_pretrained(
            folder, output_loading_info=True, dtype=str(next(model.parameters()).dtype)
        )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    return twin.eval()


def batch(seed: int = 0, left: bool = False) -> dict[str, Any]:
    """Sentences of several lengths with padding behind them, or before them."""
    rng = np.random.default_rng(seed)
    mask = (np.arange(T) < np.array(LENGTHS)[:, None]).astype(np.int64)
    mask = mask[:, ::-1].copy() if left else mask
    ids = rng.integers(1, SHAPE["vocab_size"], (B, T)) * mask
    return {"input_ids": ids, "token_type_ids": rng.integers(0, 3, (B, T)), "attention_mask": mask}


def labels_of(name: str, mask: Any, seed: int = 0) -> dict[str, Any]:
    """Labels as the model wants them, by its names."""
    rng = np.random.default_rng(seed + 1)
    tokens = np.where(mask.astype(bool) & (rng.random((B, T)) < 0.6), rng.integers(0, 3, (B, T)), -100)
    sentences = rng.integers(0, 2, B)
    return {
        "BertModel": {},
        "BertForPreTraining": {"labels": tokens, "next_sentence_label": sentences},
        "BertForMaskedLM": {"labels": tokens},
        "BertForNextSentencePrediction": {"labels": sentences},
        "BertForSequenceClassification": {"labels": rng.integers(0, 3, B)},
        "BertForTokenClassification": {"labels": tokens},
        "BertForQuestionAnswering": {
            "start_positions": np.array([1, 2, 0, 20, 3]), "end_positions": np.array([4, 2, 0, 3, 20])
        },
    }[name]  # fmt: skip


def tensors(arrays: dict[str, Any], torch: Any = None) -> dict[str, Any]:
    """Arrays as our tensors, or PyTorch's."""
    return {name: ml.tensor(a) if torch is None else torch.from_numpy(a.copy()) for name, a in arrays.items()}


@pytest.fixture
def bert() -> SimpleNamespace:
    """The functions above, and the sizes."""
    functions = {"build": build, "beside": beside, "batch": batch, "labels_of": labels_of, "tensors": tensors}
    return SimpleNamespace(**functions, SHAPE=SHAPE, B=B, T=T, LENGTHS=LENGTHS)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test looks into the net, or into somebody's cache."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "no-cache"))
