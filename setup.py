"""Compiles the native backend: csrc/ once per instruction set, and the Cython module over all of them.

Everything else about the package stands in pyproject.toml. Without a C compiler the package installs all
the same, and Numba serves; MINILM_REQUIRE_NATIVE=1 makes that an error.
"""

from __future__ import annotations

import itertools
import os
import platform
import runpy
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parent
SOURCES = runpy.run_path(str(ROOT / "minilm/kernels/sources.py"))

REQUIRED = os.environ.get("MINILM_REQUIRE_NATIVE", "") not in ("", "0")

# Compiled once per instruction set and element type.
NUMERIC = (
    *("gemm", "attention", "cached", "softmax", "largest", "norm", "loss", "embedding", "pointwise", "optimizer"),
    *("dropout", "philox", "recurrent", "peak", "reals"),
)
SHARED = ("pool", "memory", "cpu")
TYPES = {"f32": [], "f64": [("MINILM_DOUBLE", "1")]}

# The compiler's flags for each instruction set; the extensions by name, since older compilers do not know levels.
V2 = ["-mssse3", "-msse4.1", "-msse4.2", "-mpopcnt"]
V3 = [*V2, "-mavx", "-mavx2", "-mfma", "-mbmi", "-mbmi2"]
V4 = [*V3, "-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl"]
X86_64 = {
    "portable": [],
    "x86-64-v2": V2,
    "x86-64-v3": V3,
    "x86-64-v4": V4,
    "x86-64-v4-bf16": [*V4, "-mavx512bf16"],
}
AARCH64 = {"portable": [], "aarch64": []}

# MINILM_SANITIZE=address,undefined compiles checks in, of every access to memory and every sum of integers: what C
# leaves undefined ends the process with a report (-fno-wrapv: Python's own flags would define how integers overflow).
# tests/sanitize.sh runs the tests on it.
SANITIZE = os.environ.get("MINILM_SANITIZE", "")
CHECKS = [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all", "-fno-wrapv", "-g"] if SANITIZE else []

# Last on the command line, so that nothing in CFLAGS can let the compiler reorder sums or fuse what is not fused.
FLAGS = ["-std=gnu11", "-O1" if SANITIZE else "-O3", "-fno-fast-math", "-ffp-contract=off", "-fvisibility=hidden"]
FLAGS += ["-pthread", *CHECKS]


def instruction_sets() -> dict[str, list[str]]:
    """The instruction sets to compile for, slowest first, and the flags of each."""
    flags = f"{os.environ.get('ARCHFLAGS', '')} {sysconfig.get_config_var('CFLAGS') or ''}".split()
    wanted = {value for option, value in itertools.pairwise(flags) if option == "-arch"}  # macOS: one file for both
    if {"x86_64", "arm64"} <= wanted:
        only = {name: [w for f in flags for w in ("-Xarch_x86_64", f)] for name, flags in X86_64.items()}
        return {**only, **AARCH64}
    machine = next(iter(wanted), platform.machine()).lower()
    return {"x86_64": X86_64, "amd64": X86_64, "arm64": AARCH64, "aarch64": AARCH64}.get(machine, {"portable": []})


class BuildNative(build_ext):
    """Compiles csrc/ into one folder per instruction set, unless the binary there has these sources' fingerprint."""

    def build_extension(self, ext: Extension) -> None:
        fingerprint = SOURCES["source_hash"]()
        target = Path(self.get_ext_fullpath(ext.name))
        if target.exists() and fingerprint.encode() in target.read_bytes() and not self.force:
            return
        try:
            if sys.maxsize < 2**32:
                raise CompileError("a 64-bit Python is needed")
            ext.extra_objects = self._compile_csrc()
            ext.define_macros = [("MINILM_SOURCE_HASH", f'"{fingerprint}"')]
            self.force = True  # setuptools would only compare the times of the Cython module
            super().build_extension(ext)
        except Exception as error:
            if REQUIRED:
                raise CompileError(f"MINILM_REQUIRE_NATIVE is set, and the native backend failed: {error}") from error
            target.unlink(missing_ok=True)  # an older one would serve older sources
            _say(f"minilm: installed WITHOUT its C part, Numba serves instead ({' '.join(str(error).split())[:200]})")

    def copy_extensions_to_source(self) -> None:
        for ext in self.extensions:
            Path(ROOT, self.get_ext_filename(ext.name)).unlink(missing_ok=True)
        super().copy_extensions_to_source()

    def _compile_csrc(self) -> list[str]:
        jobs = [(["table"], name, "", flags) for name, flags in instruction_sets().items()]
        jobs += [(NUMERIC, name, real, flags) for name, flags in instruction_sets().items() for real in TYPES]
        jobs.append((SHARED, "shared", "", []))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return [path for objects in pool.map(self._compile, jobs) for path in objects]

    def _compile(self, job: tuple[tuple[str, ...], str, str, list[str]]) -> list[str]:
        files, name, real, flags = job
        symbol = name.replace("-", "_")
        macros = [("MINILM_SET", symbol), ("MINILM_SET_NAME", f'"{name}"'), ("MINILM_SUFFIX", f"_{real}_{symbol}")]
        if name == "portable":
            macros.append(("MINILM_PORTABLE", "1"))
        return self.compiler.compile(
            [f"csrc/{file}.c" for file in files],
            output_dir=str(Path(self.build_temp, name, real)),
            macros=macros + TYPES.get(real, []),
            extra_postargs=FLAGS + flags,
            depends=[str(path) for path in (ROOT / "csrc").glob("*.h")],
        )


def _say(line: str) -> None:
    """Print where it is seen: pip hides what a build prints, but not the terminal itself."""
    print(line, file=sys.stderr, flush=True)
    if not sys.stderr.isatty():
        try:
            with open("/dev/tty", "w", encoding="utf-8") as terminal:
                terminal.write(line + "\n")
        except OSError:  # no terminal: nobody is watching
            pass


setup(
    ext_modules=[
        Extension(
            "minilm.kernels.native",
            ["minilm/kernels/native.pyx"],
            include_dirs=["csrc"],
            extra_compile_args=["-std=gnu11", "-O1" if SANITIZE else "-O2", "-pthread", *CHECKS],
            extra_link_args=["-pthread", *CHECKS],
            libraries=["m"],
            optional=not REQUIRED,
        )
    ],
    cmdclass={"build_ext": BuildNative},
)
