"""Datasets, loaders, token files and corpora."""

from minilm.data import corpora
from minilm.data.blocks import CausalBlocks, train_validation_split
from minilm.data.collate import default_collate
from minilm.data.dataset import ConcatDataset, Dataset, Subset, TensorDataset, random_split
from minilm.data.loader import DataLoader
from minilm.data.permutation import Permutation
from minilm.data.sampler import (
    BatchSampler,
    RandomBatchSampler,
    RandomSampler,
    SequentialSampler,
)
from minilm.data.sharding import tokenize_files
from minilm.data.shards import ShardedTokens
from minilm.data.tokenfile import TokenFile, tokenize_file, write_tokens

__all__ = [
    "BatchSampler",
    "CausalBlocks",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "Permutation",
    "RandomBatchSampler",
    "RandomSampler",
    "SequentialSampler",
    "ShardedTokens",
    "Subset",
    "TensorDataset",
    "TokenFile",
    "corpora",
    "default_collate",
    "random_split",
    "tokenize_file",
    "tokenize_files",
    "train_validation_split",
    "write_tokens",
]
