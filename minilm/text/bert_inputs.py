"""What a call of BertTokenizer is given: texts in all forms that Hugging Face's takes, and options."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from minilm.errors import DataError

TRUNCATIONS = {True: "longest_first", False: None, None: None, "do_not_truncate": None}
TRUNCATIONS |= {name: name for name in ("longest_first", "only_first", "only_second")}
PADDINGS = {True: "longest", False: None, None: None, "do_not_pad": None}
PADDINGS |= {name: name for name in ("longest", "max_length")}


def as_batch(text: Any, pair: Any, words: bool) -> tuple[list[Any], bool]:
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


def texts_of(batch: Iterable[Any]) -> Iterator[str]:
    """All strings in lists and tuples, however deep."""
    for item in batch:
        if isinstance(item, str):
            yield item
        else:
            yield from texts_of(item)


def choice(name: str, value: Any, known: Mapping[Any, str | None]) -> str | None:
    """What an option stands for. Errors: DataError, naming those that are known."""
    if value not in known:
        raise DataError(f"{name} is {value!r}; known are {', '.join(map(repr, known))}")
    return known[value]


def check_room(how: str, max_length: int, special: int, stride: int, paired: bool, multiple: int | None) -> None:
    """Errors: DataError for a truncation that cannot be: no room, windows that stand still, no second text."""
    room = max_length - special
    if room < 0:
        raise DataError(f"max_length is {max_length}: the special tokens alone are {special}")
    if stride and not 0 <= stride < room:
        raise DataError(f"stride is {stride}: windows with room for {room} tokens would not go on")
    if how == "only_second" and not paired:
        raise DataError("truncation is 'only_second', and there is no text_pair")
    if multiple and max_length % multiple:
        raise DataError(f"max_length is {max_length}, no multiple of pad_to_multiple_of {multiple}")
