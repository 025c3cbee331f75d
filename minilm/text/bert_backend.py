"""The tokenizers library's tokenizer under BertTokenizer: built from a vocabulary, or taught by texts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from minilm.errors import DataError
from minilm.text.bert_files import BertSettings
from minilm.text.reading import cut_pieces
from minilm.text.tokenizer import check_surrogates

if TYPE_CHECKING:
    import tokenizers


def built(vocab: Mapping[str, int], settings: BertSettings, source: str) -> tokenizers.Tokenizer:
    """The library's tokenizer as transformers builds it. Errors: DataError for an added token whose id is taken."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    model = models.WordPiece(
        dict(vocab), unk_token=settings.unk_token, max_input_chars_per_word=settings.max_input_chars_per_word
    )
    backend = Tokenizer(model)
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=settings.clean_text,
        handle_chinese_chars=settings.tokenize_chinese_chars,
        strip_accents=settings.strip_accents,
        lowercase=settings.do_lower_case,
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    flags = ("special", "single_word", "lstrip", "rstrip", "normalized")
    for token in sorted(settings.added_tokens, key=lambda token: token["id"]):
        given = {flag: token[flag] for flag in flags if flag in token}
        (backend.add_special_tokens if given.get("special") else backend.add_tokens)(
            [AddedToken(token["content"], **given)]
        )
        if backend.token_to_id(token["content"]) != token["id"]:
            raise DataError(f"{source}: the added token {token['content']!r} cannot have the id {token['id']}")
    known = {token["content"] for token in settings.added_tokens}
    backend.add_special_tokens([token for token in settings.special_tokens().values() if token not in known])
    cls, sep = settings.cls_token, settings.sep_token
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(token, backend.token_to_id(token)) for token in (cls, sep)],
    )
    return backend


def check_vocabulary(vocab: Mapping[str, int], settings: BertSettings, source: str) -> None:
    """Errors: DataError for ids with holes, or a special token that is missing."""
    ids = list(vocab.values())
    if any(type(i) is not int for i in ids) or sorted(ids) != list(range(len(ids))):
        raise DataError(f"{source}: the vocabulary does not number its tokens 0, 1, 2, ...")
    added = {token["content"] for token in settings.added_tokens}
    for role, token in settings.special_tokens().items():
        if token not in vocab and token not in added:
            raise DataError(f"{source}: the {role} {token!r} is not in the vocabulary of {len(ids)} tokens")


def learned(
    texts: Callable[[], Iterator[str]], vocab_size: int, settings: BertSettings, min_frequency: int, limit_alphabet: int
) -> dict[str, int]:
    """The vocabulary that texts teach; they are walked through twice. See BertTokenizer.train."""
    from tokenizers import trainers

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend = built({token: i for i, token in enumerate(special)}, settings, "BertTokenizer.train")
    alphabet, inner = _alphabet(backend, texts(), limit_alphabet)
    # The trainer numbers characters within words in the order of a hash table, another in every process, and
    # ties between pairs are broken by number. Given as "special", they have their numbers beforehand.
    first = [*special, *alphabet, *inner]
    if vocab_size < len(first):
        raise DataError(
            f"BertTokenizer.train: vocab_size is {vocab_size}; {len(special)} special tokens, {len(alphabet)} "
            f"characters and {len(inner)} within words need at least {len(first)} (or a smaller limit_alphabet)"
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=first,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    backend.train_from_iterator(texts(), trainer)
    vocab: dict[str, int] = json.loads(backend.to_str())["model"]["vocab"]
    return vocab


def _alphabet(backend: tokenizers.Tokenizer, texts: Iterator[str], limit: int) -> tuple[list[str], list[str]]:
    """The most frequent characters, sorted, and "##" before those of them that go on a word, sorted."""
    words: Counter[str] = Counter()
    for text in texts:
        check_surrogates(text)
        for piece in cut_pieces(text):
            normal = backend.normalizer.normalize_str(piece)
            words.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal))
    count: Counter[str] = Counter()
    for word, times in words.items():
        for character in word:
            count[character] += times
    if not count:
        raise DataError("BertTokenizer.train: the text is empty, so there is nothing to learn")
    kept = set(sorted(count, key=lambda c: (-count[c], c))[:limit])
    inner = {character for word in words for character in word[1:]} & kept
    return sorted(kept), [f"##{character}" for character in sorted(inner)]
