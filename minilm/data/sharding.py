"""Tokenizing text of any size into a folder of shards, by several processes, and going on after an end."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

from minilm.data.cutting import Piece, pieces, spans
from minilm.data.dedup import SPAN_BYTES, kept, mark_repeated, ranges, write_hashes
from minilm.data.processes import InOrder, processes
from minilm.data.shards import INDEX, VERSION, Shard, ShardedTokens, read_index, write_index
from minilm.data.tokenfile import TokenFile, write_tokens
from minilm.device import available_cpus
from minilm.errors import DataError
from minilm.files import LOCK, checksum, locked, written_whole
from minilm.text import BPETokenizer, CharTokenizer, load_tokenizer
from minilm.text.reading import read_chunks, word_pieces
from minilm.text.tokenizer import FILE_NAME as TOKENIZER
from minilm.text.tokenizer import Tokenizer

PLAN = "plan.json"  # what the folder is to be; there from the first moment until index.json is
SHARD_BYTES = 1 << 26
# What byte pairs are learnt from, since the memory for that grows with the words that are different; and its parts.
LEARNT, PART_BYTES = 1 << 27, 1 << 20

_SHARD = re.compile(r"shard-\d{5,}\.bin")
_HASHES = re.compile(r"hashes-\d{5,}-\d{3,}\.bin")  # what deduplication needs until the index is there
_PART = re.compile(rf"\.({_SHARD.pattern}|{_HASHES.pattern}|plan\.json|index\.json|tokenizer\.json)\.[0-9a-f]+\.part")


def tokenize_files(
    sources: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    tokenizer: Tokenizer | None = None,
    *,
    kind: str = "char",
    vocab_size: int = 2048,
    shard_bytes: int = SHARD_BYTES,
    document_separator: str | None = None,
    dedup: str | None = None,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ShardedTokens:
    r"""Tokenize UTF-8 files, one after the other, into a folder of shards. The bytes do not depend on `jobs`.

    A shard has the tokens of a piece of about `shard_bytes` of one file, encoded by itself. Characters
    give the tokens of the whole file so; byte pairs do wherever a piece ends at a newline between two
    characters that are no white space, which is preferred (see `pieces`); elsewhere the white space
    about the end may be other tokens of the same text. Nothing is put between two files.

    Args:
        tokenizer: None learns one from the files, before duplicates are left out: of characters (`kind`
            "char") or of byte pairs ("bpe", of `vocab_size` tokens).
        document_separator: what ends a document; pieces end behind it. None: pieces end at lines.
        dedup: "line" or "document": of equal ones only the first stays. Empty ones all stay. The memory has
            a bound (see dedup.py); until the end the folder holds at most 24 bytes for each line or document.
        jobs: processes, by default one for each core. More than 1 needs `if __name__ == "__main__":`.
        progress: called with bytes done and bytes in all.

    Stopped, also by force, it goes on when called again in the same way: whole shards are kept. Text
    that cannot be used leaves nothing. A folder that is whole already is given back as it is.

    Errors: DataError for options, files or text that cannot be used, or a folder that holds something
    else; LockedError if another process is at it; OSError of the file system, such as a full disk,
    after which it can go on.
    """
    place = Path(folder)
    _check(sources, kind, vocab_size, shard_bytes, document_separator, dedup, jobs)
    separator = document_separator or "\n"
    cut = pieces(sources, shard_bytes, separator)
    learnt = {"kind": kind} if kind == "char" else {"kind": kind, "vocab_size": vocab_size}
    plan: dict[str, Any] = {
        "version": VERSION,
        "sources": [_identity(source) for source in sources],
        "shard_bytes": shard_bytes,
        "document_separator": document_separator,
        "dedup": dedup,
        "tokenizer": learnt if tokenizer is None else tokenizer.fingerprint.hex(),
    }
    _check_folder(place, plan)
    if (place / INDEX).exists():
        _remove(place, _HASHES)  # of a call that was ended after its last step but one
        return ShardedTokens(place)
    missing = [path for path in (place, *place.parents) if not path.exists()]  # innermost first
    place.mkdir(parents=True, exist_ok=True)
    with locked(place):
        try:
            _remove(place, _PART)
            with written_whole(place / PLAN) as file:
                file.write(json.dumps(plan, ensure_ascii=False).encode())
            with processes(min(jobs or available_cpus(), len(cut))) as in_order:
                ready = _tokenizer_of(place, sources, cut, tokenizer, kind, vocab_size, in_order)
                shards = _shards(cut, place, ready, separator, dedup is not None, in_order, progress)
            for source, before in zip(sources, plan["sources"]):
                if _identity(source) != before:
                    raise DataError(f"{source}: was changed while it was read")
            write_index(place, ready, plan, shards)
            (place / PLAN).unlink()
            _remove(place, _HASHES)
        except DataError:
            _remove(place, _SHARD)
            _remove(place, _HASHES)
            for name in (TOKENIZER, PLAN, LOCK):
                (place / name).unlink(missing_ok=True)
            for path in missing:
                with contextlib.suppress(OSError):
                    path.rmdir()
            raise
    return ShardedTokens(place)


@dataclass(frozen=True)
class _Span:
    """A part of a piece whose records are compared with all others; `hashes` is the file for it."""

    text: Piece
    hashes: Path
    separator: str

    def hash(self) -> None:
        """Step 1 of dedup.py, unless it was done before."""
        if not self.hashes.exists():
            with _naming(self.text):
                write_hashes(self.hashes, _text(self.text), self.separator)

    def kept(self) -> Iterator[str]:
        return kept(_text(self.text), self.separator, self.hashes)


@dataclass(frozen=True)
class _Task:
    """One shard to be made, by any process; of all its text, or of what is kept of its spans."""

    piece: Piece
    path: Path
    tokenizer: Path
    fingerprint: bytes
    spans: tuple[_Span, ...] | None

    def __call__(self) -> Shard:
        piece = self.piece
        file = self._standing() or self._written()
        if file is None:
            return Shard(None, 0, None, piece.source, piece.start, piece.end)
        return Shard(self.path.name, len(file), checksum(self.path), piece.source, piece.start, piece.end)

    def _standing(self) -> TokenFile | None:
        """The shard that is there already: whole, since it got its name last."""
        try:
            file = TokenFile(self.path)
        except DataError:
            return None
        return file if file.fingerprint == self.fingerprint else None

    def _written(self) -> TokenFile | None:
        """A new shard; None if deduplication left no text."""
        tokenizer = _loaded(self.tokenizer, self.fingerprint)
        with _naming(self.piece):
            text = _text(self.piece) if self.spans is None else chain.from_iterable(s.kept() for s in self.spans)
            first = next(text, None)
            if first is None:
                return None
            tokens = tokenizer.encode_chunks(chain([first], text))
            return write_tokens(self.path, tokens, tokenizer.vocab_size, self.fingerprint)


def _shards(
    cut: Sequence[Piece],
    folder: Path,
    tokenizer: Tokenizer,
    separator: str,
    dedup: bool,
    in_order: InOrder,
    progress: Callable[[int, int], None] | None,
) -> list[Shard]:
    """Make what is missing; the shards of all pieces in order."""
    which = _first_of_each(cut, folder, separator, in_order) if dedup else [None] * len(cut)
    total, done, shards = sum(piece.end - piece.start for piece in cut), 0, []
    tasks = (
        _Task(piece, folder / f"shard-{i:05d}.bin", folder / TOKENIZER, tokenizer.fingerprint, stay)
        for i, (piece, stay) in enumerate(zip(cut, which))
    )
    for shard in in_order(_do, tasks):
        shards.append(shard)
        done += shard.end - shard.start
        if progress is not None:
            progress(done, total)
    return shards


def _do(task: Callable[[], Any]) -> Any:
    return task()


def _first_of_each(cut: Sequence[Piece], folder: Path, separator: str, in_order: InOrder) -> list[tuple[_Span, ...]]:
    """Each piece as spans whose files say which records were not there before, in the order of the input."""
    result = [
        tuple(
            _Span(text, folder / f"hashes-{i:05d}-{j:03d}.bin", separator)
            for j, text in enumerate(spans(piece, SPAN_BYTES, separator))
        )
        for i, piece in enumerate(cut)
    ]
    every = list(chain.from_iterable(result))
    _finish(in_order(_do, (span.hash for span in every)))
    paths = [span.hashes for span in every]
    _finish(in_order(_do, (partial(mark_repeated, paths, *bounds) for bounds in ranges(paths))))
    return result


def _finish(results: Iterator[Any]) -> None:
    for _ in results:
        pass


def _text(piece: Piece) -> Iterator[str]:
    return read_chunks(piece.source, span=(piece.start, piece.end))


@contextlib.contextmanager
def _naming(piece: Piece) -> Iterator[None]:
    """Errors within say where in the input."""
    try:
        yield
    except DataError as error:
        if str(error).startswith(piece.source):
            raise
        raise DataError(f"{piece.source}: in bytes {piece.start} to {piece.end}: {error}") from None


@lru_cache(maxsize=1)
def _loaded(path: Path, fingerprint: bytes) -> Tokenizer:
    return load_tokenizer(path)


def _tokenizer_of(
    folder: Path,
    sources: Sequence[str | os.PathLike[str]],
    cut: Sequence[Piece],
    given: Tokenizer | None,
    kind: str,
    vocab_size: int,
    in_order: InOrder,
) -> Tokenizer:
    """The tokenizer that is there already, the given one, or one that learns now; then it is there."""
    if (folder / TOKENIZER).exists():
        return load_tokenizer(folder / TOKENIZER)
    if given is None and kind == "char":
        given = CharTokenizer.train(in_order(_characters, cut))
    elif given is None:
        given = BPETokenizer.train(_learnt_from(sources), vocab_size)
    given.save(folder / TOKENIZER)
    return given


def _learnt_from(sources: Sequence[str | os.PathLike[str]]) -> Iterator[str]:
    """All of the text, or of a larger one `LEARNT` bytes, in parts spread evenly over it."""
    parts = pieces(sources, PART_BYTES)
    step = max(-(-sum(piece.end - piece.start for piece in parts) // LEARNT), 1)
    for piece in parts[::step]:
        with _naming(piece):
            yield from word_pieces(_text(piece))


def _characters(piece: Piece) -> str:
    """All different characters of a piece."""
    found = CharTokenizer.train(_text(piece))
    return found.decode(range(found.vocab_size))


def _identity(source: str | os.PathLike[str]) -> dict[str, Any]:
    status = os.stat(source)
    return {"file": str(source), "bytes": status.st_size, "modified": status.st_mtime_ns}


def _check(
    sources: Sequence[Any],
    kind: str,
    vocab_size: int,
    shard_bytes: int,
    separator: str | None,
    dedup: str | None,
    jobs: int | None,
) -> None:
    problems = [
        (not sources, "there is no file to tokenize"),
        (kind not in ("char", "bpe"), f"kind is {kind!r}; it must be 'char' or 'bpe'"),
        (kind == "bpe" and vocab_size < 257, f"vocab_size is {vocab_size}; 256 bytes and <|endoftext|> need 257"),
        (shard_bytes < 1, f"shard_bytes is {shard_bytes}; it must be at least 1"),
        (jobs is not None and jobs < 1, f"jobs is {jobs}; it must be at least 1"),
        (separator == "", "document_separator is empty"),
        (dedup not in (None, "line", "document"), f"dedup is {dedup!r}; it must be 'line' or 'document'"),
        (dedup == "document" and not separator, "dedup 'document' needs a document_separator"),
        (dedup == "line" and bool(separator), "dedup 'line' and a document_separator do not go together"),
    ]
    for wrong, why in problems:
        if wrong:
            raise DataError(f"tokenize_files: {why}")


def _check_folder(folder: Path, plan: dict[str, Any]) -> None:
    """The folder must be new, empty, or one that this very plan began. Errors: DataError."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file, and shards need a folder")
    if not folder.exists():
        return
    ours = (PLAN, INDEX, TOKENIZER, LOCK)
    names = sorted(path.name for path in folder.iterdir() if not _PART.fullmatch(path.name) and path.name != LOCK)
    for name in names:
        if name not in ours and not _SHARD.fullmatch(name) and not _HASHES.fullmatch(name):
            raise DataError(f"{folder}: holds something else ({name}); name another folder")
    if names and PLAN not in names and INDEX not in names:
        raise DataError(f"{folder}: holds a {names[0]} that belongs to no plan; name another folder")
    if not names:
        return
    found = read_index(folder)["plan"] if INDEX in names else _read_plan(folder / PLAN)
    if different := _differences(found, plan):
        whole = "the shards of another call" if INDEX in names else "the unfinished shards of another call"
        raise DataError(
            f"{folder}: holds {whole}: {'; '.join(different)}. They stay as they are: "
            "call it as before to go on, or name another folder"
        )


def _differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two plans, in words."""
    different = []
    for key in now:
        if then.get(key) == now[key]:
            continue
        if key != "sources":
            different.append(f"{key} was {_shown(then.get(key))}, is {_shown(now[key])}")
            continue
        before = {str(source["file"]): source for source in then.get(key) or []}
        after = {str(source["file"]): source for source in now[key]}
        if list(before) != list(after):
            different.append(f"the files were {', '.join(before)}, are {', '.join(after)}")
        elif changed := [name for name in after if before[name] != after[name]]:
            different += [
                f"{name} was changed since ({before[name].get('bytes')} bytes then, {after[name]['bytes']} now)"
                for name in changed
            ]
        else:
            different.append("a file was given another number of times")
    return different


def _shown(value: Any) -> str:
    """An entry of a plan, for people; a tokenizer is what is to learn, or a fingerprint."""
    if isinstance(value, dict):
        return "one to learn (" + ", ".join(map(str, value.values())) + ")"
    return value[:12] if isinstance(value, str) and len(value) == 64 else repr(value)


def _read_plan(path: Path) -> dict[str, Any]:
    try:
        plan = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    return plan if isinstance(plan, dict) else {}


def _remove(folder: Path, names: re.Pattern[str]) -> None:
    for path in folder.iterdir():
        if names.fullmatch(path.name):
            path.unlink(missing_ok=True)
