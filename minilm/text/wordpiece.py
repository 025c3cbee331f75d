"""BERT's tokenizer: WordPiece over the `tokenizers` library, called as Hugging Face's."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minilm.errors import DataError
from minilm.files import written_whole
from minilm.text.batch_encoding import BatchEncoding, as_tensors
from minilm.text.bert_backend import built, check_vocabulary, learned
from minilm.text.bert_files import CONFIG, SPECIAL, UNLIMITED, VOCAB, BertSettings, from_tokenizer_json, read_pretrained
from minilm.text.bert_inputs import PADDINGS, TRUNCATIONS, as_batch, check_room, choice, texts_of
from minilm.text.reading import cut_pieces, read_chunks, word_pieces
from minilm.text.tokenizer import FILE_NAME, Ids, Tokenizer, check_surrogates

if TYPE_CHECKING:
    import tokenizers


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
        self.source = source
        check_vocabulary(vocab, self.settings, source)
        self._backend = built(vocab, self.settings, source)
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
        settings = BertSettings(do_lower_case=lowercase, model_max_length=model_max_length)
        return cls(learned(lambda: iter(several), vocab_size, settings, min_frequency, limit_alphabet), settings)

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

        settings = BertSettings(do_lower_case=lowercase, model_max_length=model_max_length)
        return cls(learned(texts, vocab_size, settings, min_frequency, limit_alphabet), settings)

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
        batch, single = as_batch(text, text_pair, is_split_into_words)
        paired = any(isinstance(item, tuple) for item in batch)
        if max_length is not None and padding is False and truncation is None:
            truncation = True
        how, fill = choice("truncation", truncation, TRUNCATIONS), choice("padding", padding, PADDINGS)
        limit = self.model_max_length if max_length is None else max_length
        if limit >= UNLIMITED:
            how, fill = None, None if fill == "max_length" else fill
        if how is not None:
            special = self.num_special_tokens_to_add(paired) if add_special_tokens else 0
            check_room(how, limit, special, stride, paired, pad_to_multiple_of if fill else None)
        cut = {"max_length": limit, "stride": stride, "strategy": how, "direction": self.truncation_side}
        filled = {
            "length": limit if fill == "max_length" else None,
            "direction": padding_side or self.padding_side,
            "pad_id": self.pad_token_id,
            "pad_token": self.pad_token,
            "pad_to_multiple_of": pad_to_multiple_of,
        }
        self._configure(cut if how else None, filled if fill else None)
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
        fill = choice("padding", padding, PADDINGS)
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
        return 3 if pair else 2

    def get_vocab(self) -> dict[str, int]:
        """Each token and its id."""
        vocab: dict[str, int] = self._backend.get_vocab()
        return vocab

    def check_fits(self, vocab_size: int, model: str) -> None:
        """Errors: DataError unless a model of `vocab_size` embeddings, named `model`, has one for each token."""
        if len(self) > vocab_size:
            raise DataError(f"{self.source}: {len(self)} tokens, and {model} has embeddings for {vocab_size}")

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
            for text in texts_of(batch):
                check_surrogates(text)
            raise
        except BaseException as error:  # the library raises bare Exceptions, and a panic is not even one
            if type(error) is Exception or type(error).__name__ == "PanicException":
                raise DataError(f"BertTokenizer: {error}") from None
            raise
        numbered = [(i, row) for i, e in enumerate(encodings) for row in [e, *(e.overflowing if overflowing else [])]]
        return [row for _, row in numbered], [i for i, _ in numbered]

    def _blank_in_added(self) -> bool:
        """Whether an added token could lie across a place where text is cut."""
        return any(
            t.get("lstrip") or t.get("rstrip") or any(c.isspace() for c in t["content"])
            for t in self.settings.added_tokens
        )
