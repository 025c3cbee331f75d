"""Files that appear whole or not at all, and folders that one process has to itself."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from minilm.errors import LockedError


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; on success it takes that name, on any failure it goes.

    The bytes reach the disk (fsync) before the rename, so that neither a crash nor a full disk
    leaves a half-written file under the final name; what stood there before stays until then.

    Errors: OSError of the file system (no space, no permission), with `path` untouched; only if the folder's own fsync
    fails does the new file stand there already, whole.
    """
    target = Path(path)
    # Named before it is made: an interrupt may come as soon as it is there, and must know what to take away.
    part = target.parent / f".{target.name}.{secrets.token_hex(8)}.part"
    try:
        with open(part, mode.replace("w", "x"), encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, str(part)):
            error.filename = str(target)  # a full disk does not say where
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable. Errors: OSError, unless the system knows no such thing (Windows)."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EISDIR, errno.EINVAL, errno.ENOTSUP):
            error.filename = error.filename or str(folder)
            raise


def save_figure(figure: Any, path: Path) -> None:
    """Write a matplotlib figure, whole or not at all, and close it. Errors: OSError of the file system."""
    from matplotlib import pyplot

    with warnings.catch_warnings(), written_whole(path) as file:
        warnings.filterwarnings("ignore", "Glyph .* missing")  # its font need not have every script
        figure.savefig(file, format=path.suffix[1:])
    pyplot.close(figure)


def checksum(path: Path) -> str:
    """The SHA-256 of a file. Errors: OSError."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


LOCK = "lock"


@contextlib.contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Within, no other process can have this folder, and none can be within already.

    The lock goes with the process, however that ends. Where the system has no such locks (Windows) nothing is locked.

    Errors: LockedError if another process has it; OSError for a folder that cannot be written.
    """
    place = Path(folder) / LOCK
    try:
        import fcntl
    except ImportError:
        yield
        return
    with place.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise LockedError(
                f"{place.parent}: is in use by another process ({file.read().strip() or 'unknown'})"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()}\n")
        file.flush()
        yield
