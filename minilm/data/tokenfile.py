"""Token files: a corpus as token numbers on disk, read through memory mapping.

Layout, little-endian: a header of 64 bytes, then `count` unsigned integers of `itemsize` bytes.

    offset  0   8 bytes   b"minilmTF"
            8   uint32    version of this layout, 1
           12   uint32    itemsize: 1, 2 or 4
           16   uint64    count, the number of tokens
           24   uint64    V, the size of the vocabulary
           32   32 bytes  fingerprint of the tokenizer (SHA-256)
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.errors import DataError
from minilm.files import written_whole
from minilm.text.reading import CHUNK_BYTES, read_chunks
from minilm.text.tokenizer import Tokenizer

MAGIC = b"minilmTF"
VERSION = 1
HEADER = struct.Struct("<8sIIQQ32s")


class TokenFile:
    """The tokens of a token file, mapped into memory read-only: only what is touched is read.

    `tokens` is the array, shape (N,), uint8, uint16 or uint32; indexing and slicing the TokenFile
    is indexing it.

    Errors: DataError if the file is missing, is no token file, or is truncated.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        itemsize, count, self.vocab_size, self.fingerprint = _read_header(self.path)
        with self.path.open("rb") as file:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # Batches come from random places, so reading ahead fetches what nobody asks for. Measured on
        # a sparse file of 2 GiB: 390 blocks of 128 tokens came some 370 times sooner.
        if hasattr(mmap, "MADV_RANDOM"):
            pages.madvise(mmap.MADV_RANDOM)
        self.tokens: NDArray[np.unsignedinteger[Any]] = np.frombuffer(pages, f"<u{itemsize}", count, HEADER.size)

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """uint8, uint16 or uint32."""
        return self.tokens.dtype

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Raise DataError unless this very tokenizer (or one that encodes alike) wrote the file."""
        if tokenizer.fingerprint != self.fingerprint:
            raise DataError(
                f"{self.path}: was written by another tokenizer (its vocabulary has "
                f"{self.vocab_size} tokens, fingerprint {self.fingerprint.hex()[:12]}) than this "
                f"one ({tokenizer.vocab_size} tokens, {tokenizer.fingerprint.hex()[:12]})"
            )

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: Any) -> Any:
        return self.tokens[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.tokens, dtype, copy=copy)

    def __repr__(self) -> str:
        return f"TokenFile({str(self.path)!r}, {len(self)} tokens, {self.dtype})"


def write_tokens(
    path: str | os.PathLike[str],
    arrays: Iterable[NDArray[np.integer[Any]]],
    vocab_size: int,
    fingerprint: bytes = bytes(32),
) -> TokenFile:
    """Write token arrays, one after the other, as a token file: whole or not at all.

    Errors: DataError for an id outside 0 .. vocab_size - 1, or no tokens at all; OSError of the
    file system. Whatever fails, a file that stood at `path` before stays as it was.
    """
    dtype = np.dtype(np.min_scalar_type(max(vocab_size - 1, 0))).newbyteorder("<")
    if dtype.itemsize > 4 or vocab_size < 1:
        raise DataError(f"{path}: a vocabulary of {vocab_size} tokens is not in 1 .. 2**32")
    count = 0
    with written_whole(path) as file:
        file.write(bytes(HEADER.size))
        for array in arrays:
            _check_ids(path, array, count, vocab_size)
            file.write(array.astype(dtype, copy=False).tobytes())
            count += len(array)
        if count == 0:
            raise DataError(f"{path}: there are no tokens to write")
        # The count is known only now; until here the file could not be taken for a token file.
        file.seek(0)
        file.write(HEADER.pack(MAGIC, VERSION, dtype.itemsize, count, vocab_size, fingerprint))
    return TokenFile(path)


def tokenize_file(
    corpus: str | os.PathLike[str],
    path: str | os.PathLike[str],
    tokenizer: Tokenizer,
    *,
    chunk_bytes: int = CHUNK_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> TokenFile:
    """Tokenize a UTF-8 text file into the token file `path`, in memory that does not grow with it.

    The tokens are those of `tokenizer.encode_array` of the whole text, whatever `chunk_bytes` is.
    `progress(done, total)` is called with bytes read.

    Errors: those of `read_chunks` and `write_tokens`; DataError, naming `corpus`, for text that the
    tokenizer cannot encode. Whatever fails, also Ctrl-C or a full disk, leaves nothing behind.
    """
    arrays = tokenizer.encode_chunks(read_chunks(corpus, chunk_bytes, progress))
    try:
        return write_tokens(path, arrays, tokenizer.vocab_size, tokenizer.fingerprint)
    except DataError as error:
        if str(error).startswith((str(corpus), str(path))):
            raise
        raise DataError(f"{corpus}: {error}") from None


def _check_ids(path: str | os.PathLike[str], array: NDArray[np.integer[Any]], count: int, vocab_size: int) -> None:
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{path}: tokens must be integers in one dimension, not {array.dtype} {array.shape}")
    if array.size == 0:
        return
    for at in (int(array.argmin()), int(array.argmax())):
        if not 0 <= array[at] < vocab_size:
            raise DataError(
                f"{path}: token {array[at]} at position {count + at} is outside the vocabulary of {vocab_size}"
            )


def _read_header(path: Path) -> tuple[int, int, int, bytes]:
    try:
        with path.open("rb") as file:
            start = file.read(HEADER.size)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if start[: len(MAGIC)] != MAGIC:
        raise DataError(f"{path}: is not a token file (it begins with {start[:8]!r})")
    if len(start) < HEADER.size:
        raise DataError(f"{path}: is truncated: {size} bytes, the header alone has {HEADER.size}")
    _, version, itemsize, count, vocab_size, fingerprint = HEADER.unpack(start)
    if version != VERSION or itemsize not in (1, 2, 4) or count == 0:
        raise DataError(
            f"{path}: version {version}, itemsize {itemsize}, {count} tokens; this minilm reads "
            f"version {VERSION}, itemsize 1, 2 or 4, and at least 1 token"
        )
    expected = HEADER.size + count * itemsize
    if size != expected:
        what = "truncated" if size < expected else "longer than it says"
        raise DataError(
            f"{path}: is {what}: {size} bytes, but {count} tokens of {itemsize} bytes and the header need {expected}"
        )
    return itemsize, count, vocab_size, fingerprint
