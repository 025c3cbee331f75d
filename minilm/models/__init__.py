"""Models, one file each."""

from minilm.models.gpt import GPT, GPTConfig

__all__ = ["GPT", "GPTConfig"]
