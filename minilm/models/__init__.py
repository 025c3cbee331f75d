"""Models, one file each."""

from minilm.models.bert import BertModel
from minilm.models.bert_config import BertConfig
from minilm.models.bert_heads import (
    BertForMaskedLM,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from minilm.models.gpt import GPT, GPTConfig
from minilm.models.marian import MarianModel, MarianMTModel
from minilm.models.marian_config import MarianConfig
from minilm.models.t5 import T5ForConditionalGeneration
from minilm.models.t5_config import T5Config

__all__ = [
    "GPT",
    "BertConfig",
    "BertForMaskedLM",
    "BertForNextSentencePrediction",
    "BertForPreTraining",
    "BertForQuestionAnswering",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertModel",
    "GPTConfig",
    "MarianConfig",
    "MarianMTModel",
    "MarianModel",
    "T5Config",
    "T5ForConditionalGeneration",
]
