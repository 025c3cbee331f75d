"""Files appear whole or not at all, whenever they are interrupted."""

from __future__ import annotations

import itertools
import os
import sys

import pytest

from minilm.files import written_whole


def write(path, text):
    with written_whole(path, "w") as file:
        file.write(text)


def interrupted(function, *args, after):
    """Call `function`, with KeyboardInterrupt at its `after`-th line, in whatever module; whether that came."""
    count = itertools.count(1)

    def trace(frame, event, arg):
        if event == "line" and next(count) == after:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*args)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


# Between `open` and `with` nobody closes the file but the collector, which says so.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_at_any_line_leaves_one_whole_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write(path, "old")
    for after in itertools.count(1):
        came = interrupted(write, path, "new", after=after)
        assert os.listdir(tmp_path) == ["file"], f"line {after}"
        assert path.read_text() == "old" or path.read_text() == "new"
        if not came:
            break
        path.write_text("old")
    assert after > 10
    assert path.read_text() == "new"


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    write(path, "old")
    with pytest.raises(TypeError):
        write(path, b"new")  # when the temporary file is open already
    assert os.listdir(tmp_path) == ["file"]
    assert path.read_text() == "old"


def test_a_folder_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "nowhere" / "file"
    with pytest.raises(FileNotFoundError) as caught, written_whole(path):
        pass
    assert caught.value.filename == str(path)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_permissions_are_those_of_any_new_file(tmp_path):
    write(tmp_path / "ours", "")
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode
