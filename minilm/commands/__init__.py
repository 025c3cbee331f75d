"""Commands of `minilm` that stand in files of their own; `minilm/cli.py` registers them."""
