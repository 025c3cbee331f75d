"""How the native backend is built: into which instructions, out of which files, and what happens where it cannot."""

from __future__ import annotations

import os
import platform
import re
import runpy
import shutil
import subprocess
import sys

import pytest

from minilm.kernels import sources

pytestmark = pytest.mark.skipif(not sources.source_files(), reason="minilm is installed without its sources")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what the build needs, with objects compiled by this machine's compiler."""
    if not shutil.which(os.environ.get("CC", "cc").split()[0]):
        pytest.skip("there is no C compiler")
    pytest.importorskip("Cython")
    root = tmp_path_factory.mktemp("checkout")
    for path in [*sources.source_files(), *_package_files()]:
        (root / path.relative_to(sources.ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path.relative_to(sources.ROOT))
    _build(root)
    return root


def _package_files():
    return [sources.ROOT / name for name in ("pyproject.toml", "LICENSE", "minilm/kernels/sources.py")]


def _build(root, **env):
    (root / "README.md").touch()
    return subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=root,
        env={**os.environ, "MINILM_REQUIRE_NATIVE": "1", **env},
        capture_output=True,
        text=True,
    )


def _binary(root):
    return next(iter((root / "minilm/kernels").glob("native.*.so")), None)


# --- instructions -----------------------------------------------------------------------------------

NUMERIC = ("gemm", "attention", "softmax", "norm", "loss", "embedding", "pointwise", "optimizer", "philox", "peak")


def _instructions(root, instruction_set, file):
    objects = sorted((root / "build").glob(f"temp*/{instruction_set}/*/csrc/{file}.o"))
    assert objects, f"{instruction_set} was not built into a folder of its own"
    dump = ["objdump", "-d", "--no-show-raw-insn", *map(str, objects)]
    return subprocess.run(dump, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(not shutil.which("objdump"), reason="needs objdump")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are registers of x86-64")
@pytest.mark.parametrize("file", NUMERIC)
def test_each_instruction_set_uses_its_own_registers_and_no_others(checkout, file):
    def registers(instruction_set):
        return set(re.findall(r"%([xyz]mm|k)\d", _instructions(checkout, instruction_set, file)))

    assert "zmm" in registers("x86-64-v4")
    assert "ymm" in registers("x86-64-v3")
    assert not registers("x86-64-v3") & {"zmm", "k"}
    for instruction_set in ("x86-64-v2", "portable"):
        assert registers(instruction_set) == {"xmm"}
        assert not re.search(r"\tv[a-z]+p[sd] ", _instructions(checkout, instruction_set, file))


@pytest.mark.skipif(not shutil.which("objdump"), reason="needs objdump")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are instructions of x86-64")
def test_sums_of_products_are_fused_where_the_processor_can(checkout):
    for instruction_set, register in [("x86-64-v3", "ymm"), ("x86-64-v4", "zmm")]:
        text = _instructions(checkout, instruction_set, "gemm")
        assert len(re.findall(rf"vfmadd\w+p[sd] .*%{register}", text)) > 20
        # an accumulator that went through memory in the innermost loop would halve the speed
        loop = max(re.findall(r"(?:.*\t(?:vfmadd|vbroadcast).*\n)+", text), key=len)
        assert loop.count("vfmadd") >= 12


# --- rebuilding -------------------------------------------------------------------------------------


def test_a_changed_header_is_compiled_in(checkout):
    binary = _binary(checkout)
    before = binary.stat().st_mtime_ns
    assert not _build(checkout).returncode
    assert binary.stat().st_mtime_ns == before, "nothing changed, and it was compiled again"
    header = checkout / "csrc/simd.h"
    text = header.read_text()
    try:
        header.write_text(text + '\n#error "this header is read"\n')
        run = _build(checkout)
    finally:
        header.write_text(text)
    assert run.returncode
    assert "this header is read" in run.stderr


def test_the_fingerprint_covers_every_source(tmp_path):
    for path in sources.source_files():
        (tmp_path / path.relative_to(sources.ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / path.relative_to(sources.ROOT))
    assert sources.source_hash(tmp_path) == sources.source_hash()
    names = {path.name for path in sources.source_files(tmp_path)}
    assert {"gemm.c", "simd.h", "minilm.h", "native.pyx", "setup.py"} <= names
    for path in sources.source_files(tmp_path):
        before = sources.source_hash(tmp_path)
        path.write_text(path.read_text() + "\n")
        assert sources.source_hash(tmp_path) != before, path
    assert sources.source_hash(tmp_path / "elsewhere") == ""


def test_a_binary_with_checks_never_passes_for_one_without(monkeypatch):
    hashes = set()
    for checks in ("", "address", "address,undefined"):
        monkeypatch.setenv("MINILM_SANITIZE", checks)
        hashes.add(sources.source_hash())
    assert len(hashes) == 3


# --- where it cannot be compiled --------------------------------------------------------------------


def test_without_a_compiler_it_says_so_in_one_line_and_goes_on(checkout, tmp_path):
    root = shutil.copytree(checkout, tmp_path / "checkout", ignore=shutil.ignore_patterns("build"))
    (root / "csrc/gemm.c").touch()  # what is there is out of date: it must not be served
    run = _build(root, CC="/nonexistent/cc", MINILM_REQUIRE_NATIVE="")
    assert not run.returncode, run.stderr
    lines = [line for line in run.stderr.splitlines() if line.startswith("minilm:")]
    assert len(lines) == 1
    assert "installed WITHOUT its C part" in lines[0]
    assert "/nonexistent/cc" in lines[0]
    assert _binary(root) is None


def test_where_it_is_required_its_want_is_an_error(checkout, tmp_path):
    root = shutil.copytree(checkout, tmp_path / "checkout", ignore=shutil.ignore_patterns("build"))
    (root / "csrc/gemm.c").touch()
    run = _build(root, CC="/nonexistent/cc")
    assert run.returncode
    assert "MINILM_REQUIRE_NATIVE is set, and the native backend failed" in run.stderr


# --- machines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "archflags", "expected"),
    [
        ("x86_64", "", ["portable", "x86-64-v2", "x86-64-v3", "x86-64-v4", "x86-64-v4-bf16"]),
        ("aarch64", "", ["portable", "aarch64"]),
        ("arm64", "", ["portable", "aarch64"]),
        ("riscv64", "", ["portable"]),
        ("x86_64", "-arch arm64", ["portable", "aarch64"]),
        (
            "arm64",
            "-arch arm64 -arch x86_64",
            ["portable", "x86-64-v2", "x86-64-v3", "x86-64-v4", "x86-64-v4-bf16", "aarch64"],
        ),
    ],
)
def test_instruction_sets_of_a_machine(monkeypatch, machine, archflags, expected):
    import setuptools

    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr("sysconfig.get_config_var", lambda name: "")
    monkeypatch.setenv("ARCHFLAGS", archflags)
    found = runpy.run_path(str(sources.ROOT / "setup.py"))["instruction_sets"]()
    assert list(found) == expected
    if {"x86-64-v2", "aarch64"} <= set(expected):  # both processors in one file: flags of one must not reach the other
        assert found["x86-64-v3"][0::2] == ["-Xarch_x86_64"] * (len(found["x86-64-v3"]) // 2)
