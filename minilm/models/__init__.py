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
from minilm.models.feed_forward import FeedForwardConfig, FeedForwardLM
from minilm.models.gpt import GPT, GPTConfig
from minilm.models.marian import MarianModel, MarianMTModel
from minilm.models.marian_config import MarianConfig
from minilm.models.ngram import NGram
from minilm.models.recurrent import RecurrentConfig, RecurrentLM
from minilm.models.t5 import T5ForConditionalGeneration
from minilm.models.t5_config import T5Config
from minilm.models.text_cnn import TextCNN, TextCNNConfig

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
    "FeedForwardConfig",
    "FeedForwardLM",
    "GPTConfig",
    "MarianConfig",
    "MarianMTModel",
    "MarianModel",
    "NGram",
    "RecurrentConfig",
    "RecurrentLM",
    "T5Config",
    "T5ForConditionalGeneration",
    "TextCNN",
    "TextCNNConfig",
]
