"""Datasets, loaders, token files and corpora."""

from minilm.data import corpora
from minilm.data.answer_inputs import AnswerWindows, answer_windows, best_answers
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
from minilm.data.tag_inputs import TagWindows, align_labels, tag_windows, word_tags
from minilm.data.tagging import TaggedSentence, read_conll, read_conllu
from minilm.data.text_inputs import TextRows, text_rows
from minilm.data.tokenfile import TokenFile, tokenize_file, write_tokens

__all__ = [
    "Answer",
    "AnswerWindows",
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
    "TagWindows",
    "TaggedSentence",
    "TensorDataset",
    "TextExample",
    "TextRows",
    "TokenFile",
    "align_labels",
    "answer_windows",
    "best_answers",
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
    "tag_windows",
    "text_rows",
    "tokenize_file",
    "tokenize_files",
    "train_validation_split",
    "word_tags",
    "write_tokens",
]
