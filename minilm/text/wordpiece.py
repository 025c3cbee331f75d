"""BERT's tokenizer: WordPiece over the `tokenizers` library, called as Hugging Face's."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minilm.errors import DataError
from minilm.files import written_whole
from minilm.text.batch_encoding import BatchEncoding, as_tensors
from minilm.text.bert_files import CONFIG, SPECIAL, UNLIMITED, VOCAB, BertSettings, from_tokenizer_json, read_pretrained
from minilm.text.reading import cut_pieces, read_chunks, word_pieces
from minilm.text.tokenizer import FILE_NAME, Ids, Tokenizer, check_surrogates

if TYPE_CHECKING:
    import tokenizers

TRUNCATIONS = {True: "longest_first", False: None, None: None, "do_not_truncate": None}
TRUNCATIONS |= {name: name for name in ("longest_first", "only_first", "only_second")}
PADDINGS = {
    True: "longest",
    False: None,
    None: None,
    "do_not_pad": None,
    "longest": "longest",
    "max_length": "max_length",
}


class BertTokenizer(Tokenizer):
    """Words are cut at blanks and punctuation, each into the longest pieces of the vocabulary, left to right.

    "##" begins a piece within a word; a word with no such pieces is [UNK]. Lower case and accents are
    normalised first, so `decode` does not give the text back exactly.

    Called, it gives a BatchEncoding as transformers' BertTokenizer does, with the same names and defaults.
    `encode` adds [CLS] and [SEP], too; `encode_array` and `encode_chunks`, which corpora are stored with, do not.

    vocab: the token of each id, 0, 1, 2, ... Errors: DataError if ids have holes or a special token is missing.

    Source: Devlin et al. 2019; Wu et al. 2016 (WordPiece); transformers' tokenization_bert.py.
    """

    def __init__(
        self, vocab: Mapping[str, int], settings: BertSettings | None = None, source: str = "BertTokenizer"
    ) -> None:
        self.settings = settings or BertSettings()
        _check_vocabulary(vocab, self.settings, source)
        self._backend = _backend(vocab, self.settings, source)
        self._model_vocab = dict(vocab)
        self.model_max_length = self.settings.model_max_length
        self.padding_side = self.truncation_side = "right"
        roles = self.settings.special_tokens()
        self.special_tokens_map = roles
        self.unk_token, self.sep_token, self.pad_token, self.cls_token, self.mask_token = roles.values()
        known = self._backend.get_vocab()
        ids: list[int] = [known[token] for token in roles.values()]
        self.unk_token_id, self.sep_token_id, self.pad_token_id, self.cls_token_id, self.mask_token_id = ids
        self.all_special_tokens, self.all_special_ids = list(roles.values()), ids

    # --- where tokenizers come from and go to ----------------------------------------------------------

    @classmethod
    def train(
        cls,
        texts: str | Iterable[str],
        vocab_size: int,
        lowercase: bool = True,
        min_frequency: int = 2,
        limit_alphabet: int = 1000,
        model_max_length: int = 512,
    ) -> BertTokenizer:
        """Learn a vocabulary of at most `vocab_size` tokens from a text or from several (held in memory).

        First come [PAD] [UNK] [CLS] [SEP] [MASK], then the `limit_alphabet` most frequent characters, those that go
        on a word (##), and the pieces that merging the most frequent pairs gives, while they occur `min_frequency`
        times. The same texts give the same vocabulary.

        Errors: DataError if there is no text, or if vocab_size does not hold the characters.
        """
        several = [texts] if isinstance(texts, str) else list(texts)
        return cls._train(lambda: iter(several), vocab_size, lowercase, min_frequency, limit_alphabet, model_max_length)

    @classmethod
    def train_files(
        cls,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        vocab_size: int,
        lowercase: bool = True,
        min_frequency: int = 2,
        limit_alphabet: int = 1000,
        model_max_length: int = 512,
    ) -> BertTokenizer:
        """`train` on UTF-8 files of any size: they are read twice, in parts that end at words."""
        several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)

        def texts() -> Iterator[str]:
            return (piece for path in several for piece in word_pieces(read_chunks(path)))

        return cls._train(texts, vocab_size, lowercase, min_frequency, limit_alphabet, model_max_length)

    @classmethod
    def _train(
        cls,
        texts: Callable[[], Iterator[str]],
        vocab_size: int,
        lowercase: bool,
        min_frequency: int,
        limit_alphabet: int,
        model_max_length: int,
    ) -> BertTokenizer:
        from tokenizers import trainers

        settings = BertSettings(do_lower_case=lowercase, model_max_length=model_max_length)
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        backend = _backend({token: i for i, token in enumerate(special)}, settings, "BertTokenizer.train")
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
        return cls(json.loads(backend.to_str())["model"]["vocab"], settings, "BertTokenizer.train")

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str]) -> BertTokenizer:
        """Read a folder (tokenizer.json or vocab.txt, with tokenizer_config.json), or one of the two files.

        Errors: DataError, naming the file, if it is missing, broken or not a BERT tokenizer's.
        """
        if not Path(path).exists():
            raise DataError(f"{path}: there is no such folder or file (nothing is fetched from the network)")
        return cls(*read_pretrained(Path(path)))

    def save_pretrained(self, path: str | os.PathLike[str]) -> None:
        """Write tokenizer.json, vocab.txt, tokenizer_config.json and special_tokens_map.json into a folder."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {"tokenizer_class": "BertTokenizer", "model_max_length": self.model_max_length}
        for name in ("do_lower_case", "strip_accents", "tokenize_chinese_chars"):
            config[name] = getattr(self.settings, name)
        added = json.loads(self.to_json())["added_tokens"]
        config["added_tokens_decoder"] = {str(token.pop("id")): token for token in added}
        files = {
            FILE_NAME: self.to_json(),
            VOCAB: "".join(f"{token}\n" for token in sorted(self._model_vocab, key=self._model_vocab.__getitem__)),
            SPECIAL: json.dumps(self.special_tokens_map, indent=2),
            CONFIG: json.dumps(config | self.special_tokens_map, indent=2),
        }
        for name, content in files.items():
            with written_whole(folder / name) as file:
                file.write(content.encode("utf-8"))

    def to_json(self) -> str:
        """The content of tokenizer.json, as the library writes it."""
        self._configure(None, None)
        content: str = self._backend.to_str(pretty=True)
        return content

    @classmethod
    def from_json(cls, content: str, source: str = FILE_NAME) -> BertTokenizer:
        """The inverse of `to_json`, but for model_max_length, which stands elsewhere. Errors: DataError."""
        return cls(*from_tokenizer_json(content, source), source)

    # --- calling it, as Hugging Face's ------------------------------------------------------------------

    def __call__(
        self,
        text: Any,
        text_pair: Any = None,
        add_special_tokens: bool = True,
        padding: bool | str | None = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool = True,
        return_attention_mask: bool = True,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
    ) -> BatchEncoding:
        """Encode a text (lists of T ids) or a list of B texts (lists of B lists, or arrays (B, T)), perhaps in pairs.

        text, text_pair: a str, or a list of them; with is_split_into_words lists of words, or lists of these.
        padding: False, True or "longest" (of the batch), "max_length".
        truncation: False, True or "longest_first" (a token at a time from the longer of a pair), "only_first",
            "only_second"; None truncates where max_length is given without padding. To `max_length` tokens, special
            ones counted, or to model_max_length.
        return_overflowing_tokens: truncated texts go on in more rows, which repeat `stride` tokens of the row
            before; `overflow_to_sample_mapping` says which text a row is from.
        return_tensors: None, "ml" or "np". A single text then has B = 1.
        return_offsets_mapping: `offset_mapping`, the characters (start, end) of each token in its text.

        Errors: DataError for what is no text, for pairs that do not match, a max_length that leaves no room, a
        stride that does not go on, or rows of different lengths as arrays.
        """
        batch, single = _batch(text, text_pair, is_split_into_words)
        paired = any(isinstance(item, tuple) for item in batch)
        how = _choice("truncation", truncation, TRUNCATIONS)
        fill = _choice("padding", padding, PADDINGS)
        if max_length is not None and padding is False and truncation is None:
            how = "longest_first"
        if max_length is None:
            max_length = self.model_max_length
        if max_length >= UNLIMITED:
            max_length, how, fill = None, None, None if fill == "max_length" else fill
        room = None if max_length is None else max_length - self._added(paired, add_special_tokens)
        if how is not None and room is not None:
            _check_room(how, max_length, room, stride, paired)
            if fill is not None and pad_to_multiple_of and (max_length or 0) % pad_to_multiple_of:
                raise DataError(f"max_length is {max_length}, no multiple of pad_to_multiple_of {pad_to_multiple_of}")
        self._configure(
            None
            if how is None
            else {"max_length": max_length, "stride": stride, "strategy": how, "direction": self.truncation_side},
            None
            if fill is None
            else {
                "length": max_length if fill == "max_length" else None,
                "direction": padding_side or self.padding_side,
                "pad_id": self.pad_token_id,
                "pad_token": self.pad_token,
                "pad_to_multiple_of": pad_to_multiple_of,
            },
        )
        rows, sample = self._rows(batch, add_special_tokens, is_split_into_words, return_overflowing_tokens)
        fields: dict[str, Any] = {"input_ids": [row.ids for row in rows]}
        if return_token_type_ids:
            fields["token_type_ids"] = [row.type_ids for row in rows]
        if return_attention_mask:
            fields["attention_mask"] = [row.attention_mask for row in rows]
        if return_special_tokens_mask:
            fields["special_tokens_mask"] = [row.special_tokens_mask for row in rows]
        if return_offsets_mapping:
            fields["offset_mapping"] = [row.offsets for row in rows]
        if return_length:
            fields["length"] = [len(row.ids) for row in rows]
        if return_overflowing_tokens:
            fields["overflow_to_sample_mapping"] = sample
        elif single and return_tensors is None:
            fields = {key: value[0] if isinstance(value[0], list) else value for key, value in fields.items()}
        return BatchEncoding(as_tensors(fields, return_tensors), rows)

    def encode(self, text: Any, text_pair: Any = None, **options: Any) -> list[int]:
        """The ids of one text or pair, [CLS] and [SEP] among them unless add_special_tokens=False."""
        ids: list[int] = self(text, text_pair, **options)["input_ids"]
        return ids

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False) -> list[str]:
        """The tokens of a text."""
        return self(text, pair, add_special_tokens=add_special_tokens).tokens()

    def pad(
        self,
        rows: Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """Bring encoded texts (mappings with T ids each) to one length: B rows, as a call with padding gives them.

        Fields other than those a call gives, and labels of tokens (filled up with -100), are put together as they are.

        Errors: DataError for rows that make no array, or no rows.
        """
        fill = _choice("padding", padding, PADDINGS)
        if not rows:
            raise DataError("BertTokenizer.pad: there are no rows")
        fields = {key: [np.asarray(row[key]).tolist() for row in rows] for key in rows[0]}
        longest = max(len(ids) for ids in fields["input_ids"])
        if fill == "max_length":
            longest = max(longest, self.model_max_length if max_length is None else max_length)
        longest += -longest % (pad_to_multiple_of or 1)
        fields.setdefault("attention_mask", [[1] * len(ids) for ids in fields["input_ids"]])
        fillers = {"input_ids": self.pad_token_id, "token_type_ids": 0, "attention_mask": 0, "special_tokens_mask": 1}
        fillers["labels"] = -100  # where there is one a token
        for key in fields.keys() & fillers.keys() if fill else ():
            left = self.padding_side == "left"
            for i, row in enumerate(fields[key]):
                if not isinstance(row, list):
                    continue
                filler = [fillers[key]] * (longest - len(row))
                fields[key][i] = filler + row if left else row + filler
        return BatchEncoding(as_tensors(fields, return_tensors))

    def decode(self, ids: Ids | int, skip_special_tokens: bool = False) -> str:
        """The text of token ids: pieces joined, and blanks before punctuation taken away.

        Errors: DataError for an id outside 0 .. V - 1.
        """
        checked = self._checked(np.atleast_1d(np.asarray(ids))).tolist()
        text: str = self._backend.decode(checked, skip_special_tokens=skip_special_tokens)
        return text

    def batch_decode(self, rows: Iterable[Ids], skip_special_tokens: bool = False) -> list[str]:
        """`decode` of each row."""
        return [self.decode(row, skip_special_tokens) for row in rows]

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any:
        """The id of a token, or the ids of several; unknown ones get [UNK]'s."""
        if isinstance(tokens, str):
            index = self.token_to_id(tokens)
            return self.unk_token_id if index is None else index
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: int | Ids, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or the tokens of several. Errors: DataError for an id outside 0 .. V - 1."""
        checked = self._checked(np.atleast_1d(np.asarray(ids))).tolist()
        tokens = [self._backend.id_to_token(i) for i in checked]
        if np.ndim(ids) == 0:
            return tokens[0]
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        return [token for i, token in zip(checked, tokens) if i not in skipped]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of tokens."""
        text: str = self._backend.decoder.decode(list(tokens))
        return text

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many special tokens a call adds: 2, or 3 for a pair."""
        return self._added(pair, True)

    def get_vocab(self) -> dict[str, int]:
        """Each token and its id."""
        vocab: dict[str, int] = self._backend.get_vocab()
        return vocab

    def __len__(self) -> int:
        return self.vocab_size

    # --- what every tokenizer of minilm can do ----------------------------------------------------------

    @property
    def vocab_size(self) -> int:
        """V, added tokens counted (transformers' vocab_size leaves them out; its len() does not)."""
        size: int = self._backend.get_vocab_size()
        return size

    def encode_array(self, text: str) -> NDArray[np.unsignedinteger[Any]]:
        """The token ids of `text` without [CLS] and [SEP], shape (N,). Errors: DataError for a lone surrogate."""
        check_surrogates(text)
        self._configure(None, None)
        pieces = [text] if self._blank_in_added() else list(cut_pieces(text))
        batch = self._backend.encode_batch_fast(pieces, add_special_tokens=False)
        return np.concatenate([np.empty(0, self.dtype), *(np.array(row.ids, self.dtype) for row in batch)])

    def encode_chunks(self, chunks: Iterable[str]) -> Iterator[NDArray[np.unsignedinteger[Any]]]:
        """Encode adjacent parts of one text, regrouped at words: any parts give the same ids."""
        return map(self.encode_array, ["".join(chunks)] if self._blank_in_added() else word_pieces(chunks))

    def token_to_id(self, token: str) -> int | None:
        """The id of a token ("##ing" within a word); None if there is none."""
        index: int | None = self._backend.token_to_id(token)
        return index

    def id_to_token(self, index: int) -> str | None:
        """The token of an id; None outside 0 .. V - 1."""
        token: str | None = self._backend.id_to_token(index) if 0 <= index < self.vocab_size else None
        return token

    def token_bytes(self, index: int) -> bytes:
        """The bytes that a token adds: a blank before the beginning of a word. `decode` joins with more care."""
        token: str = self.convert_ids_to_tokens(index)
        return token[2:].encode() if token.startswith("##") else f" {token}".encode()

    def _identity(self) -> object:
        data = json.loads(self.to_json())
        return {"kind": "wordpiece", **{key: data[key] for key in ("model", "normalizer", "added_tokens")}}

    # --- the library's state ----------------------------------------------------------------------------

    def _configure(self, truncation: dict[str, Any] | None, padding: dict[str, Any] | None) -> None:
        """The library keeps these two in the tokenizer; every use sets both."""
        if truncation is not None:
            self._backend.enable_truncation(**truncation)
        elif self._backend.truncation is not None:
            self._backend.no_truncation()
        if padding is not None:
            self._backend.enable_padding(**padding)
        elif self._backend.padding is not None:
            self._backend.no_padding()

    def _rows(
        self, batch: list[Any], special: bool, words: bool, overflowing: bool
    ) -> tuple[list[tokenizers.Encoding], list[int]]:
        """The encodings of all rows, and the number of each row's text."""
        try:
            encodings = self._backend.encode_batch(batch, is_pretokenized=words, add_special_tokens=special)
        except (TypeError, UnicodeEncodeError):
            for text in _texts_of(batch):
                check_surrogates(text)
            raise
        except BaseException as error:  # the library raises bare Exceptions, and a panic is not even one
            if type(error) is Exception or type(error).__name__ == "PanicException":
                raise DataError(f"BertTokenizer: {error}") from None
            raise
        numbered = [(i, row) for i, e in enumerate(encodings) for row in [e, *(e.overflowing if overflowing else [])]]
        return [row for _, row in numbered], [i for i, _ in numbered]

    def _added(self, pair: bool, special: bool) -> int:
        return (3 if pair else 2) if special else 0

    def _blank_in_added(self) -> bool:
        """Whether an added token could lie across a place where text is cut."""
        return any(
            t.get("lstrip") or t.get("rstrip") or any(c.isspace() for c in t["content"])
            for t in self.settings.added_tokens
        )


def _backend(vocab: Mapping[str, int], settings: BertSettings, source: str) -> tokenizers.Tokenizer:
    """The library's tokenizer, built as transformers builds it."""
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


def _check_vocabulary(vocab: Mapping[str, int], settings: BertSettings, source: str) -> None:
    ids = list(vocab.values())
    if any(type(i) is not int for i in ids) or sorted(ids) != list(range(len(ids))):
        raise DataError(f"{source}: the vocabulary does not number its tokens 0, 1, 2, ...")
    added = {token["content"] for token in settings.added_tokens}
    for role, token in settings.special_tokens().items():
        if token not in vocab and token not in added:
            raise DataError(f"{source}: the {role} {token!r} is not in the vocabulary of {len(ids)} tokens")


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


def _batch(text: Any, pair: Any, words: bool) -> tuple[list[Any], bool]:
    """A list of texts, or of (text, pair), as the library takes them; and whether one text alone was given."""
    listed = isinstance(text, list | tuple)
    single = not listed or (words and not (text and isinstance(text[0], list | tuple)))
    texts = [text] if single else text
    if pair and single:
        texts = [(text, pair)]
    elif pair is not None and not single:
        if isinstance(pair, str) or len(pair) != len(text):
            raise DataError(f"BertTokenizer: {len(text)} texts need as many in text_pair, a list")
        texts = list(zip(text, pair, strict=True))
    batch = [_one(item, words) for item in texts]
    for i, item in enumerate(batch):
        for part in item if isinstance(item, tuple) else (item,):
            wrong = [w for w in part if not isinstance(w, str)] if words and isinstance(part, list | tuple) else []
            if wrong or isinstance(part, str) == words:
                what = type(wrong[0] if wrong else part).__name__
                raise DataError(f"BertTokenizer: text {i} is {what}, not {'a list of words' if words else 'a str'}")
    return batch, single


def _one(item: Any, words: bool) -> Any:
    """A text, a list of words, or a tuple of two of these."""
    if not isinstance(item, list | tuple):
        return item
    if not words:
        return tuple(item)
    if item and isinstance(item[0], list | tuple):
        return tuple(list(part) for part in item)
    return list(item)


def _texts_of(batch: Iterable[Any]) -> Iterator[str]:
    for item in batch:
        if isinstance(item, str):
            yield item
        else:
            yield from _texts_of(item)


def _choice(name: str, value: Any, known: Mapping[Any, str | None]) -> str | None:
    if value not in known:
        raise DataError(f"{name} is {value!r}; known are {', '.join(map(repr, known))}")
    return known[value]


def _check_room(how: str, max_length: int | None, room: int, stride: int, paired: bool) -> None:
    if room < 0:
        raise DataError(f"max_length is {max_length}: the special tokens alone are {(max_length or 0) - room}")
    if stride and not 0 <= stride < room:
        raise DataError(f"stride is {stride}: windows with room for {room} tokens would not go on")
    if how == "only_second" and not paired:
        raise DataError("truncation is 'only_second', and there is no text_pair")
