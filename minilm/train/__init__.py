"""Training: the loop, its configuration, what it writes down, and checkpoints to go on from."""

from minilm.train.batches import Mixture, RandomBlocks, ShuffledBlocks, ShuffledEpochs
from minilm.train.checkpoint import load_run, resume
from minilm.train.config import TrainConfig
from minilm.train.corpus import Corpus
from minilm.train.observers import Costs, LogFile, Observer, Samples
from minilm.train.progress import Progress
from minilm.train.trainer import Trainer

__all__ = [
    "Corpus",
    "Costs",
    "LogFile",
    "Mixture",
    "Observer",
    "Progress",
    "RandomBlocks",
    "Samples",
    "ShuffledBlocks",
    "ShuffledEpochs",
    "TrainConfig",
    "Trainer",
    "load_run",
    "resume",
]
