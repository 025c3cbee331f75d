"""The driver's end of the pipe to a peer's process."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import minilm
from minilm_benchmarks.cases import COMPILED, JAX, MINILM, NUMPY, TORCH

PACKAGE = {MINILM: "minilm", TORCH: "torch", COMPILED: "torch", JAX: "jax", NUMPY: "numpy"}
TIMEOUT = 900.0  # seconds; torch.compile of a whole model takes minutes on two cores

# Where this package and minilm lie, last, so that a worker finds them in a plain checkout too.
_START = """
import sys
sys.path.extend({folders!r})
from minilm_benchmarks.worker import main
main({peer!r}, {threads})
"""


class PeerError(Exception):
    """A peer did not answer, or answered that it cannot; the message says why, in one line."""


def installed(peer: str) -> bool:
    """Whether its library is there, without loading it."""
    return importlib.util.find_spec(PACKAGE[peer]) is not None


class Peer:
    """A process that runs one library's workloads; started when first asked, and again after it died."""

    def __init__(self, name: str, threads: int, timeout: float = TIMEOUT) -> None:
        self.name, self.threads, self.timeout = name, threads, timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: Any = None

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer. Errors: PeerError."""
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({"do": do, **request}).encode() + b"\n")
            process.stdin.flush()
            line = self._line(process)
        except (BrokenPipeError, EOFError):
            reason = self._last_words()
            self.close()
            raise PeerError(reason) from None
        except TimeoutError:
            self.close()
            raise PeerError(f"no answer in {self.timeout:.0f} s") from None
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(" ".join(answer["error"].split())[:200])
        return answer

    def close(self) -> None:
        """End the process; it is started again when asked."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._errors.close()
            self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        folders = [str(Path(__file__).parents[1]), str(Path(minilm.__file__).parents[1])]
        start = _START.format(folders=folders, peer=self.name, threads=self.threads)
        names = (
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "MKL_NUM_THREADS",
            "NUMBA_NUM_THREADS",
            "MINILM_NUM_THREADS",
        )
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **dict.fromkeys(names, str(self.threads))},
        )
        return self._process

    def _line(self, process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        received, end = b"", time.monotonic() + self.timeout
        while not received.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError
            piece = os.read(process.stdout.fileno(), 2**16)
            if not piece:
                raise EOFError
            received += piece
        return received

    def _last_words(self) -> str:
        """How the process ended, and the last line that it wrote."""
        assert self._process is not None
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        said = next((line for line in reversed(lines) if line.strip()), "")
        how = f"killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"the process was {how}: {said}"[:200] if code < 0 else f"the process {how}: {said}"[:200]
