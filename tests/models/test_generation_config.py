"""What generation_config.json says of outputs, and a T5's outputs beside those of Hugging Face's `generate`."""

from __future__ import annotations

import json

import numpy as np
import pytest

import minilm as ml
from minilm import models
from minilm.errors import CheckpointError, ConfigError
from minilm.models.generation_config import GenerationConfig
from minilm.models.translator import Translator
from minilm.text.pair_tokenizer import PairTokenizer

V, PAD, END = 280, 0, 1
LENGTH = 12  # of the longest outputs
T5 = {"vocab_size": V, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
MARIAN = {"vocab_size": 31, "d_model": 20, "pad_token_id": 30, "decoder_start_token_id": 30}
MARIAN |= {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads", "ffn_dim")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A T5 with random weights, far enough from alike that its outputs differ, and that writes padding now and then."""
    place = tmp_path_factory.mktemp("t5")
    ml.manual_seed(0)
    model = models.T5ForConditionalGeneration(models.T5Config(**T5, tie_word_embeddings=False))
    rng = np.random.default_rng(3)
    for parameter in model.parameters():
        parameter.array[...] += 0.3 * rng.standard_normal(parameter.shape).astype("float32")
    model.lm_head.weight.array[...] *= 0.5
    model.lm_head.weight.array[[PAD, END]] *= np.float32([[2], [4]])  # so that some outputs hold padding, and some end
    model.save_pretrained(place)
    PairTokenizer.train(["the cat sat on the mat"], V).save_pretrained(place)
    return place


SETTINGS = {
    "usual": {"num_beams": 5},
    "never": {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 2.0, "early_stopping": "never"},
    "early": {"num_beams": 3, "num_return_sequences": 3, "length_penalty": 0.6, "early_stopping": True,
              "no_repeat_ngram_size": 2, "min_new_tokens": 5},
    "greedy": {"num_beams": 1},
}  # fmt: skip


def both(torch, transformers, folder, settings):
    """The outputs for 200 sources of ours and of theirs, each as a list of tokens."""
    rng = np.random.default_rng(1)
    sources = [np.append(rng.integers(2, V, n), END) for n in rng.integers(1, 20, 200)]
    options = {"max_new_tokens": LENGTH, **settings}
    translator = Translator.from_pretrained(folder)
    ours = translator.written(sources, translator.search(**options))
    model = transformers.T5ForConditionalGeneration.from_pretrained(folder).eval()
    theirs = []
    for first in range(0, 200, 50):
        part = sources[first : first + 50]
        mask = np.arange(max(map(len, part))) < np.array([[len(x)] for x in part])
        ids = np.zeros(mask.shape, np.int64)
        ids[mask] = np.concatenate(part)
        rows = model.generate(torch.tensor(ids), attention_mask=torch.tensor(mask), do_sample=False, **options)
        theirs += [row[1:].tolist() for row in rows]
    return [h.tokens.tolist() for group in ours for h in group], theirs


def assert_equal_outputs(ours, theirs):
    """Theirs are filled up behind an end, with padding or, where that is token 0, with ends."""
    assert len(ours) == len(theirs)
    for number, (a, b) in enumerate(zip(ours, theirs)):
        assert a == b[: len(a)], number
        assert set(b[len(a) :]) <= {PAD, END}, number
        assert a[-1] == END or len(a) == len(b) == LENGTH, number


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_two_hundred_outputs_of_a_t5_as_transformers_writes_them(torch, transformers, folder, settings):
    """Padding included, which nothing forbids a T5; with it forbidden, as Marian's is, other outputs are the best."""
    ours, theirs = both(torch, transformers, folder, settings)
    assert_equal_outputs(ours, theirs)
    inside = sum(PAD in row for row in ours)
    ended = sum(END in row for row in ours)
    assert 10 < inside < len(ours)
    assert ended > 10


@pytest.mark.parametrize(
    "said",
    [
        {"eos_token_id": END, "bad_words_ids": [[PAD], [END]]},
        {"eos_token_id": END, "forced_eos_token_id": END, "suppress_tokens": [5, 9]},
        {"eos_token_id": [END], "bad_words_ids": [[7]], "suppress_tokens": [PAD, 7]},
    ],
    ids=["bad-words", "forced-and-suppressed", "all"],
)
def test_both_go_by_what_the_file_says(torch, transformers, folder, said):
    place = folder / "generation_config.json"
    place.write_text(json.dumps({"decoder_start_token_id": 0, "pad_token_id": PAD, **said}))
    try:
        ours, theirs = both(torch, transformers, folder, {"num_beams": 3})
    finally:
        place.unlink()
    assert_equal_outputs(ours, theirs)
    never = {*said.get("suppress_tokens", ()), *(t for [t] in said.get("bad_words_ids", ()) if t != END)}
    assert not any(never & set(row) for row in ours)
    assert all(END in row for row in ours) == ("forced_eos_token_id" in said)


def test_without_the_file_the_models_configuration_says_it(tmp_path):
    t5 = models.T5Config(**T5)
    marian = models.MarianConfig(**MARIAN)
    assert GenerationConfig.of(t5) == GenerationConfig(END) == GenerationConfig.from_pretrained(tmp_path, t5)
    assert GenerationConfig.of(marian) == GenerationConfig(0, True, (30,))
    t5 = models.T5Config.from_dict({**t5.to_dict(), "bad_words_ids": [[PAD]], "forced_eos_token_id": END})
    assert GenerationConfig.of(t5) == GenerationConfig(END, True, (PAD,))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 0}))
    assert GenerationConfig.from_pretrained(tmp_path, marian) == GenerationConfig(0), "the file alone says it"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"eos_token_id": [1, 2]}, r"eos_token_id \[1, 2\] is not supported: one token ends outputs"),
        ({"eos_token_id": 1, "forced_eos_token_id": 2}, "forced_eos_token_id 2 is not supported"),
        ({"bad_words_ids": [[3, 4]]}, r"bad_words_ids .* are not supported: lists of one token each were expected"),
        ({"bad_words_ids": [3]}, r"bad_words_ids .* are not supported: lists of one token each were expected"),
        ({"suppress_tokens": [V]}, "suppress_tokens must be tokens from 0 to 279"),
        ({"eos_token_id": "end"}, "eos_token_id must be tokens from 0 to 279, not 'end'"),
        ({"forced_bos_token_id": 4}, "forced_bos_token_id 4 is not supported"),
        ({"encoder_no_repeat_ngram_size": 3}, "encoder_no_repeat_ngram_size 3 is not supported"),
    ],
)
def test_what_is_not_known_is_refused_and_the_file_named(tmp_path, said, words):
    (tmp_path / "generation_config.json").write_text(json.dumps(said))
    with pytest.raises(ConfigError, match=rf"generation_config\.json: {words}"):
        GenerationConfig.from_pretrained(tmp_path, models.T5Config(**T5))
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        GenerationConfig.from_pretrained(tmp_path, models.T5Config(**T5))
