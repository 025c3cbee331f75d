"""Reports and pictures of an evaluation."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from minilm.errors import ConfigError, MissingExtraError, ShapeError
from minilm.evaluation import Measure, draw_confusion, write_report

MEASURES = {
    "accuracy": Measure(0.9, 0.85, 0.9412, 0.95, "Wilson score interval"),
    "f1|macro": Measure(0.5, 0.25, 0.75, 0.95, "percentile bootstrap"),
}
MATRIX = np.array([[9, 1], [2, 8]])


def test_report(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    write_report(path, "Films", MEASURES, 1200, 4.0, 345_600_000, {"data": "a.tsv"}, MATRIX, ["neg", "pos"], "c.png")
    assert path.read_text("utf-8").split("\n") == [
        "# Films",
        "",
        "| measure | value | 95% interval | method of the interval |",
        "| --- | --- | --- | --- |",
        "| accuracy | 0.9000 | 0.8500 to 0.9412 | Wilson score interval |",
        "| f1\\|macro | 0.5000 | 0.2500 to 0.7500 | percentile bootstrap |",
        "",
        "| what | value |",
        "| --- | --- |",
        "| data | a.tsv |",
        "| examples | 1,200 |",
        "| time | 4.0 s (300.0 examples/s) |",
        "| peak memory | 346 MB |",
        "",
        "True classes in rows, predicted ones in columns:",
        "",
        "|  | neg | pos |",
        "| --- | --- | --- |",
        "| neg | 9 | 1 |",
        "| pos | 2 | 8 |",
        "",
        "![confusion matrix](c.png)",
        "",
    ]
    write_report(path, "Again\n", {}, 1, 0.0, 0)
    assert path.read_text("utf-8").startswith("# Again\n\n| what | value |")
    assert [p.name for p in tmp_path.iterdir()] == ["report.md"]


def test_many_classes_are_not_tabled(tmp_path: Path) -> None:
    write_report(tmp_path / "r.md", "t", MEASURES, 1, 1.0, 1, confusion=np.eye(13, dtype=int), names=["x"] * 13)
    assert "True classes" not in (tmp_path / "r.md").read_text()


@pytest.mark.parametrize("name", ["c.png", "c.svg"])
def test_picture(tmp_path: Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    path = draw_confusion(MATRIX, ["$neg", "是" * 40], tmp_path / name, "50$ and $")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
    many = draw_confusion(np.zeros((25, 25), dtype=int), [str(i) for i in range(25)], tmp_path / name)
    assert many.stat().st_size > 1000


def test_numbers_are_written_in_the_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from minilm.evaluation import picture

    figures = []
    monkeypatch.setattr(picture, "save_figure", lambda figure, path: figures.append(figure))
    draw_confusion(MATRIX, ["a", "b"], tmp_path / "c.png")
    axes = figures[0].axes[0]
    texts = {t.get_position(): t.get_text() for t in axes.texts}
    assert texts == {(0, 0): "9", (1, 0): "1", (0, 1): "2", (1, 1): "8"}  # x is the predicted class
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.9, 0.1], [0.2, 0.8]])


def test_pictures_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.png or \.svg"):
        draw_confusion(MATRIX, ["a", "b"], tmp_path / "c.pdf")
    with pytest.raises(ShapeError, match=r"a matrix \(2, 2\) for 3 names"):
        draw_confusion(MATRIX, ["a", "b", "c"], tmp_path / "c.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'minilm\[plot\]'"):
        draw_confusion(MATRIX, ["a", "b"], tmp_path / "c.png")
    assert not list(tmp_path.iterdir())
