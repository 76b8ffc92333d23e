"""Boxes of Figure 3.5: their positions, and that true and predicted boxes can be distinguished."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

from mixplug.metrics.localization import LocalizedImage
from mixplug.viz import localization


def one(box: list[int] | None, predicted: int = 0) -> LocalizedImage:
    found = None if box is None else torch.tensor(box)
    truths = torch.tensor([[1.0, 2.0, 9.0, 6.0]])
    return LocalizedImage(
        torch.zeros(3, 8, 10).byte(), torch.rand(8, 10), found, truths, 0.5, 0, predicted
    )


def drawn(monkeypatch: pytest.MonkeyPatch, path: Path, *shown: LocalizedImage) -> list:
    """The axes of the figure."""
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    localization.figure(shown, ["Black_footed_Albatross", "A_bird_with_a_very_long_name"], path)
    monkeypatch.undo()
    cells = figures[0].axes
    plt.close(figures[0])
    return cells


def test_boxes_are_around_their_pixels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pixel 0 spans -0.5 to 0.5. Boxes are on the image and on its map; red is over green."""
    cells = drawn(monkeypatch, tmp_path / "a.png", one([0, 0, 10, 8], 1), one(None))
    assert (tmp_path / "a.png").exists() and len(cells) == 4
    for cell in (cells[0], cells[2]):
        true, predicted = [p for p in cell.patches if isinstance(p, Rectangle)]
        assert true.get_bbox().extents.tolist() == [0.5, 1.5, 8.5, 5.5]
        assert predicted.get_bbox().extents.tolist() == [-0.5, -0.5, 9.5, 7.5]
        red, green, _, _ = predicted.get_edgecolor()
        assert red > 0.8 > 0.2 > green
        assert true.get_edgecolor()[1] > 0.7 and true.get_linestyle() != predicted.get_linestyle()
    caption = ["Black footed Albatross", "IoU 0.50", "predicted: A bird with a very lo…"]
    assert cells[0].get_title().split("\n") == caption
    assert [len(cell.patches) for cell in (cells[1], cells[3])] == [1, 1]  # no predicted box
    assert cells[1].get_title().split("\n")[1:] == ["IoU 0.50", " "]


def test_a_grid_of_many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ten images form two bands of five, each image above its map."""
    cells = drawn(monkeypatch, tmp_path / "b.png", *[one([0, 0, 4, 4])] * 10)
    assert [len(cell.images) for cell in cells] == [1] * 5 + [2] * 5 + [1] * 5 + [2] * 5
    with pytest.raises(ValueError, match="no image to show"):
        localization.figure([], [], tmp_path / "c.png")
