"""Datasets, loaders, token files and corpora."""

from minilm.data import corpora
from minilm.data.blocks import CausalBlocks, train_validation_split
from minilm.data.classification import TextExample, label_ids, label_numbers, read_classification
from minilm.data.collate import default_collate
from minilm.data.dataset import ConcatDataset, Dataset, Subset, TensorDataset, random_split
from minilm.data.labels import LabelMap, class_weights
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
from minilm.data.squad import Answer, Question, SquadFile, read_squad
from minilm.data.tagging import TaggedSentence, read_conll, read_conllu
from minilm.data.tokenfile import TokenFile, tokenize_file, write_tokens

__all__ = [
    "Answer",
    "BatchSampler",
    "CausalBlocks",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "LabelMap",
    "Permutation",
    "Question",
    "RandomBatchSampler",
    "RandomSampler",
    "SequentialSampler",
    "ShardedTokens",
    "SquadFile",
    "Subset",
    "TaggedSentence",
    "TensorDataset",
    "TextExample",
    "TokenFile",
    "class_weights",
    "corpora",
    "default_collate",
    "label_ids",
    "label_numbers",
    "random_split",
    "read_classification",
    "read_conll",
    "read_conllu",
    "read_squad",
    "tokenize_file",
    "tokenize_files",
    "train_validation_split",
    "write_tokens",
]
