"""Tensors in files: a round trip of all kinds, read by the safetensors library too, and damaged files."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import minilm as ml
from minilm.errors import CheckpointError
from minilm.serialization import load, load_with_metadata, save

DTYPES = ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]


def same(found, expected):
    array = found.array if isinstance(found, ml.Tensor) else found
    assert array.dtype == expected.dtype
    assert array.shape == expected.shape
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (2, 3, 5)], ids=str)
def test_every_type_and_shape_comes_back(tmp_path, dtype, shape):
    expected = (np.arange(np.prod(shape, dtype=int)).reshape(shape) % 3 - (dtype[0] in "if")).astype(dtype)
    save({"x": ml.tensor(expected), "an array": expected}, tmp_path / "x")
    found = load(tmp_path / "x")
    assert set(found) == {"x", "an array"}
    for name in found:
        same(found[name], expected)
    theirs = safetensors.numpy.load_file(tmp_path / "x")
    same(theirs["x"], expected)


VIEWS = {
    "transposed": lambda x: x.T,
    "every other": lambda x: x[::2, 1::3],
    "backwards": lambda x: x[::-1, ::-1],
    "expanded": lambda x: np.broadcast_to(x[:1], (4, 5)),
    "Fortran": np.asfortranarray,
    "one element": lambda x: x[1, 2],
    "other byte order": lambda x: x.astype(">f4"),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_views_are_written_as_what_they_show(tmp_path, view):
    expected = view(np.arange(20, dtype=np.float32).reshape(4, 5))
    save({"x": expected}, tmp_path / "x")
    same(load(tmp_path / "x")["x"], np.asarray(expected, np.float32))


def test_views_of_tensors_and_what_requires_grad(tmp_path):
    x = ml.tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    save({"x": x, "y": x.transpose(0, 1), "z": x[1, 2], "computed": x * 2}, tmp_path / "x")
    found = load(tmp_path / "x")
    same(found["y"], x.array.T)
    same(found["z"], np.array(5.0))
    same(found["computed"], x.array * 2)
    assert not any(tensor.requires_grad for tensor in found.values())


def test_tied_tensors_come_back_under_each_name_and_apart(tmp_path):
    x = ml.tensor([1.0, 2.0])
    save({"a": x, "b": x, "part": x[:1]}, tmp_path / "x")
    found = load(tmp_path / "x")
    same(found["b"], x.array)
    same(found["part"], x.array[:1])
    found["a"].array[0] = 9  # what was read can be written, and shares nothing
    same(found["b"], x.array)


@given(arrays.arrays(st.sampled_from(DTYPES), arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)))
def test_any_array_comes_back_to_the_bit(tmp_path_factory, expected):
    path = tmp_path_factory.mktemp("any") / "x"
    finite = expected.dtype.kind != "f" or np.isfinite(expected).all()
    save({"x": expected}, path)
    if finite:
        assert load(path)["x"].array.tobytes() == expected.tobytes()
    else:
        with pytest.raises(CheckpointError, match="the tensor x holds NaN or infinity"):
            load(path)


def test_names_and_texts_of_any_kind(tmp_path):
    save({"漢.0": np.ones(2), "with a blank": np.ones(1)}, tmp_path / "x", {"é": '{"a": "漢\n"}', "empty": ""})
    tensors, texts = load_with_metadata(tmp_path / "x")
    assert set(tensors) == {"漢.0", "with a blank"}
    assert texts == {"é": '{"a": "漢\n"}', "empty": ""}
    save({}, tmp_path / "none")
    assert load_with_metadata(tmp_path / "none") == ({}, {})


def test_a_file_of_the_safetensors_library_is_read(tmp_path):
    expected = {"x": np.arange(6, dtype=np.int32).reshape(2, 3), "y": np.float64([0.5])}
    safetensors.numpy.save_file(expected, tmp_path / "x", {"from": "them"})
    tensors, texts = load_with_metadata(tmp_path / "x")
    for name, array in expected.items():
        same(tensors[name], array)
    assert texts == {"from": "them"}


def test_the_bytes_are_those_of_the_safetensors_library(tmp_path):
    arrays = {dtype: np.ones((2, 3), dtype) for dtype in ("int8", "float16", "float32", "int64")}
    arrays |= {"a": np.array(1, np.float32), "b": np.zeros((0, 2), np.int8)}
    for texts in (None, {"é": '"漢\n'}):
        save(arrays, tmp_path / "x", texts)
        assert (tmp_path / "x").read_bytes() == safetensors.numpy.save(arrays, texts)


def test_what_is_larger_than_a_piece_comes_back_and_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr("minilm.serialization.PIECE_BYTES", 1000)
    monkeypatch.setattr("minilm.serialization.SYNC_BYTES", 3000)
    expected, told, synced, fsync = np.arange(2001, dtype=np.float32), [], [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.path.getsize(file)), fsync(file)))
    save({"x": expected}, tmp_path / "x", progress=told.append)
    same(load(tmp_path / "x")["x"], expected)
    assert told == [1000] * 8 + [4]
    header = (tmp_path / "x").stat().st_size - 8004
    assert synced[:3] == [header + 3000, header + 6000, header + 8004]


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([1 + 1j]), np.array([None])], ids=str)
def test_what_the_format_lacks_is_refused(tmp_path, array):
    with pytest.raises(CheckpointError, match=r"x of type .* cannot be written as safetensors"):
        save({"x": array}, tmp_path / "x")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save({"__metadata__": np.ones(1)}, tmp_path / "x")
    assert not list(tmp_path.iterdir())


# --- damage ----------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    save({"x": np.arange(30.0).reshape(5, 6), "y": np.arange(7)}, tmp_path / "x", {"a": "b"})
    return tmp_path / "x"


def refused(path, message="it cannot be read as safetensors, perhaps it was cut short"):
    with pytest.raises(CheckpointError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_cut_at_any_length_is_refused(file):
    content = file.read_bytes()
    for length in range(len(content)):
        file.write_bytes(content[:length])
        refused(file)
    file.write_bytes(content + b"more")
    refused(file)


def test_damage_in_the_header_is_an_error_of_ours_or_none(file):
    content, rng = file.read_bytes(), np.random.default_rng(0)
    end = 8 + int.from_bytes(content[:8], "little")
    for _ in range(500):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(0, end)] = rng.integers(0, 256)
        file.write_bytes(bytes(damaged))
        try:
            load(file)
        except CheckpointError as error:
            assert str(error).startswith(f"{file}: ")  # noqa: PT017 - some damage is not seen


@pytest.mark.parametrize("header", [b"", b"{}", b"[]", b"null", b"{" * 50, b'{"x": 3}', b"\xff" * 9])
def test_headers_that_are_none_are_refused_or_empty(tmp_path, header):
    path = tmp_path / "x"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    if header == b"{}":
        assert load(path) == {}
    else:
        refused(path)


def test_types_that_minilm_lacks_are_refused(tmp_path):
    for dtype, size in (("F8_E4M3", 2), ("U16", 4), ("C64", 16)):
        header = b'{"x":{"dtype":"%s","shape":[2],"data_offsets":[0,%d]}}' % (dtype.encode(), size)
        (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
        refused(tmp_path / "x", f"x is of a type of numbers that minilm does not read, {dtype}")


def test_what_is_no_file_is_refused(tmp_path):
    refused(tmp_path / "missing", "there is no such file")
    refused(tmp_path, "there is no such file")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(file, value):
    save({"fine": np.ones(2), "bad": np.array([1.0, value])}, file)
    refused(file, "the tensor bad holds NaN or infinity")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_other(file, monkeypatch, call):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = file.read_bytes()
    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match=f"No space left on device: '{file}'"):
        save({"x": np.zeros(3)}, file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]
