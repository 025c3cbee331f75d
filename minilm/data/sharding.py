"""Tokenizing text of any size into a folder of shards, by several processes, and going on after an end."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.data.cutting import Piece, pieces
from minilm.data.dedup import Hashes, Mask, Seen, hashes, kept
from minilm.data.processes import in_order
from minilm.data.shards import INDEX, VERSION, Shard, ShardedTokens, read_index, write_index
from minilm.data.tokenfile import TokenFile, write_tokens
from minilm.device import available_cpus
from minilm.errors import DataError
from minilm.files import LOCK, checksum, locked, written_whole
from minilm.text import BPETokenizer, CharTokenizer, load_tokenizer
from minilm.text.reading import read_chunks
from minilm.text.tokenizer import FILE_NAME as TOKENIZER
from minilm.text.tokenizer import Tokenizer

PLAN = "plan.json"  # what the folder is to be; there from the first moment until index.json is
SHARD_BYTES = 1 << 26

_SHARD = re.compile(r"shard-\d{5,}\.bin")
_PART = re.compile(r"\.(shard-\d{5,}\.bin|plan\.json|index\.json|tokenizer\.json)\.[0-9a-f]+\.part")


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
        dedup: "line" or "document": of equal ones only the first stays. Empty ones all stay. Memory:
            21 to 43 bytes for each different one (see `Seen`), and a bit for each.
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
    plan = {
        "version": VERSION,
        "sources": [_identity(source) for source in sources],
        "shard_bytes": shard_bytes,
        "document_separator": document_separator,
        "dedup": dedup,
        "tokenizer": learnt if tokenizer is None else tokenizer.fingerprint.hex(),
    }
    _check_folder(place, plan)
    if (place / INDEX).exists():
        return ShardedTokens(place)
    missing = [path for path in (place, *place.parents) if not path.exists()]  # innermost first
    place.mkdir(parents=True, exist_ok=True)
    with locked(place):
        try:
            _remove(place, _PART)
            with written_whole(place / PLAN) as file:
                file.write(json.dumps(plan, ensure_ascii=False).encode())
            ready = _tokenizer_of(place, sources, tokenizer, kind, vocab_size)
            shards = _shards(cut, place, ready, separator, dedup, jobs or available_cpus(), progress)
            write_index(place, ready, plan, shards)
            (place / PLAN).unlink()
        except DataError:
            _remove(place, _SHARD)
            for name in (TOKENIZER, PLAN, LOCK):
                (place / name).unlink(missing_ok=True)
            for path in missing:
                with contextlib.suppress(OSError):
                    path.rmdir()
            raise
    return ShardedTokens(place)


@dataclass(frozen=True)
class _Kept:
    """Which records of a piece stay, a bit for each."""

    bits: NDArray[np.uint8]
    count: int

    def mask(self) -> Mask:
        return np.unpackbits(self.bits, count=self.count).view(np.bool_)


@dataclass(frozen=True)
class _Task:
    """One shard to be made, by any process."""

    piece: Piece
    path: Path
    tokenizer: Path
    fingerprint: bytes
    separator: str
    kept: _Kept | None

    def __call__(self) -> Shard:
        piece = self.piece
        if self.kept is not None and not self.kept.bits.any():
            return Shard(None, 0, None, piece.source, piece.start, piece.end)
        file = self._standing() or self._written()
        return Shard(self.path.name, len(file), checksum(self.path), piece.source, piece.start, piece.end)

    def _standing(self) -> TokenFile | None:
        """The shard that is there already: whole, since it got its name last."""
        try:
            file = TokenFile(self.path)
        except DataError:
            return None
        return file if file.fingerprint == self.fingerprint else None

    def _written(self) -> TokenFile:
        chunks = _text(self.piece)
        if self.kept is not None:
            chunks = kept(chunks, self.separator, self.kept.mask())
        tokenizer = _loaded(self.tokenizer, self.fingerprint)
        try:
            return write_tokens(self.path, tokenizer.encode_chunks(chunks), tokenizer.vocab_size, self.fingerprint)
        except DataError as error:
            raise _named(self.piece, error) from None


def _shards(
    cut: Sequence[Piece],
    folder: Path,
    tokenizer: Tokenizer,
    separator: str,
    dedup: str | None,
    jobs: int,
    progress: Callable[[int, int], None] | None,
) -> list[Shard]:
    """Make what is missing; the shards of all pieces in order."""
    jobs = min(jobs, len(cut))
    which: list[_Kept | None] = [None] * len(cut) if dedup is None else _first_of_each(cut, separator, jobs)
    total, done, shards = sum(piece.end - piece.start for piece in cut), 0, []
    tasks = (
        _Task(piece, folder / f"shard-{i:05d}.bin", folder / TOKENIZER, tokenizer.fingerprint, separator, stay)
        for i, (piece, stay) in enumerate(zip(cut, which))
    )
    for shard in in_order(_do, tasks, jobs):
        shards.append(shard)
        done += shard.end - shard.start
        if progress is not None:
            progress(done, total)
    return shards


def _do(task: Callable[[], Shard]) -> Shard:
    return task()


def _first_of_each(cut: Sequence[Piece], separator: str, jobs: int) -> list[_Kept | None]:
    """For each piece, which of its records were not there before, in the order of the input."""
    seen = Seen()
    fresh = map(seen.add, in_order(_hashes, zip(cut, repeat(separator)), jobs))
    return [_Kept(np.packbits(mask), len(mask)) for mask in fresh]


def _hashes(task: tuple[Piece, str]) -> Hashes:
    try:
        return hashes(_text(task[0]), task[1])
    except DataError as error:
        raise _named(task[0], error) from None


def _text(piece: Piece) -> Iterator[str]:
    return read_chunks(piece.source, span=(piece.start, piece.end))


def _named(piece: Piece, error: DataError) -> DataError:
    if str(error).startswith(piece.source):
        return error
    return DataError(f"{piece.source}: in bytes {piece.start} to {piece.end}: {error}")


@lru_cache(maxsize=1)
def _loaded(path: Path, fingerprint: bytes) -> Tokenizer:
    return load_tokenizer(path)


def _tokenizer_of(
    folder: Path, sources: Sequence[str | os.PathLike[str]], given: Tokenizer | None, kind: str, vocab_size: int
) -> Tokenizer:
    """The tokenizer that is there already, the given one, or one that learns now; then it is there."""
    if (folder / TOKENIZER).exists():
        return load_tokenizer(folder / TOKENIZER)
    if given is None and kind == "char":
        given = CharTokenizer.train(chain.from_iterable(map(read_chunks, sources)))
    elif given is None:
        given = BPETokenizer.train_files(sources, vocab_size)
    given.save(folder / TOKENIZER)
    return given


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
        if name not in ours and not _SHARD.fullmatch(name):
            raise DataError(f"{folder}: holds something else ({name}); name another folder")
    if names and PLAN not in names and INDEX not in names:
        raise DataError(f"{folder}: holds a {names[0]} that belongs to no plan; name another folder")
    if not names:
        return
    found = read_index(folder)["plan"] if INDEX in names else _read_plan(folder / PLAN)
    differing = [key for key in plan if found.get(key) != plan[key]]
    if differing:
        raise DataError(
            f"{folder}: holds shards made with another {', '.join(differing)}; "
            "they stay as they are: call it as before to go on, or name another folder"
        )


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
