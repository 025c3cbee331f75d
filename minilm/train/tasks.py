"""The kinds of runs: what each is configured by, what it trains and what it reads.

A run's config.json and its checkpoints name the kind; all else (checkpoints, --resume, replay, runs, plot) is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from minilm.errors import ConfigError
from minilm.train.config import RunConfig


@dataclass(frozen=True)
class Task:
    """A kind of run.

    Attributes:
        config: its RunConfig. model: a Module of `config.model`, or what makes one.
        corpus: what it reads: `prepare(source, folder, config, progress)` for a new run, `load(folder, config)` for one
            that goes on. What these give has a length in tokens, `name`, `tokenizer`, `data(config)` for a Trainer,
            `completed(config)`, with what follows from the corpus, `checksum()`; where they are needed `start(model)`,
            which gives a new run's model its first weights, and `prepared(model)`, for any run's; `guessing()`, the
            loss of knowing nothing, in words and as a number; `observers(show)`, what else is done around the loop;
            `result(folder, minilm)`, a word and what to look at or type when it is done.
    """

    config: type[RunConfig]
    model: Any
    corpus: type[Any]


def _gpt() -> Task:
    from minilm.models.gpt import GPT
    from minilm.train.config import TrainConfig
    from minilm.train.corpus import Corpus

    return Task(TrainConfig, GPT, Corpus)


def _neural(name: str) -> Callable[[], Task]:
    def load() -> Task:
        from minilm.models.feed_forward import FeedForwardLM
        from minilm.models.recurrent import RecurrentLM
        from minilm.train.corpus import Corpus
        from minilm.train.neural import CONFIGS

        return Task(CONFIGS[name], FeedForwardLM if name == "ffnn" else RecurrentLM, Corpus)

    return load


def _bert() -> Task:
    from minilm.train.bert_start import new_bert
    from minilm.train.pretraining import PretrainConfig, PretrainCorpus

    return Task(PretrainConfig, new_bert, PretrainCorpus)


def _finetuning(name: str) -> Callable[[], Task]:
    def load() -> Task:
        from minilm.train.finetuning import config
        from minilm.train.finetuning.corpus import FinetuneCorpus
        from minilm.train.finetuning.tasks import TASKS as KINDS

        configs = {"classify": config.ClassifyConfig, "tag": config.TagConfig, "qa": config.AnswerConfig}
        return Task(configs[name], KINDS[name].MODEL, FinetuneCorpus)

    return load


def _pairs(name: str) -> Callable[[], Task]:
    def load() -> Task:
        from minilm.train.finetuning.pair_config import SummarizeConfig, TranslateConfig
        from minilm.train.finetuning.pair_corpus import PairCorpus
        from minilm.train.finetuning.tasks import TASKS as KINDS

        configs = {"translate": TranslateConfig, "summarize": SummarizeConfig}
        return Task(configs[name], KINDS[name].MODEL, PairCorpus)

    return load


LANGUAGE_MODELS = ("gpt", "ffnn", "rnn", "lstm", "gru")  # those that write texts

TASKS: dict[str, Callable[[], Task]] = {  # each loads its modules when it is asked for
    "gpt": _gpt,
    **{name: _neural(name) for name in LANGUAGE_MODELS[1:]},
    "bert": _bert,
    **{name: _finetuning(name) for name in ("classify", "tag", "qa")},
    **{name: _pairs(name) for name in ("translate", "summarize")},
}


def task(name: str) -> Task:
    """The kind of run of that name. Errors: ConfigError."""
    if name not in TASKS:
        raise ConfigError(f"task must be one of {', '.join(TASKS)}, not {name!r}")
    return TASKS[name]()


def config_from(values: Mapping[str, Any]) -> RunConfig:
    """A run's configuration, of what its `to_dict` gave. Errors: ConfigError."""
    return task(str(values.get("task", "gpt"))).config.from_dict(values)  # older runs did not name it
