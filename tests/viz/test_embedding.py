"""Maps of test classes: neighborhoods are figures, and classes have different signs."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from mixplug.viz import embedding as viz


def clusters(size: int = 12) -> tuple[Tensor, Tensor]:
    """Three clusters in different directions; random lengths, which cosine distance ignores."""
    labels = torch.arange(3).repeat_interleave(size)
    directions = torch.eye(5)[labels] + 0.05 * torch.randn(3 * size, 5)
    return directions * torch.rand(3 * size, 1).add(0.1), labels


def test_tsne_keeps_clusters_and_is_deterministic() -> None:
    embeddings, labels = clusters()
    points, name = viz.flat_map(embeddings, "tsne")
    assert name == "t-SNE" and points.shape == (36, 2)
    nearest = torch.cdist(points, points).fill_diagonal_(torch.inf).argmin(1)
    assert torch.equal(labels[nearest], labels)
    assert torch.equal(viz.flat_map(embeddings, "tsne")[0], points)


def test_umap_is_used_if_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class UMAP:
        def __init__(self, **keys: object) -> None:
            calls.append(keys)

        def fit_transform(self, rows: np.ndarray) -> np.ndarray:
            np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
            return rows[:, :2]

    stub = types.ModuleType("umap")
    stub.UMAP = UMAP
    monkeypatch.setitem(sys.modules, "umap", stub)
    found = viz.importlib.util.find_spec
    monkeypatch.setattr(
        viz.importlib.util, "find_spec", lambda name: stub if name == "umap" else found(name)
    )
    embeddings, _ = clusters()
    points, name = viz.flat_map(embeddings, seed=5)
    assert name == "UMAP" and len(points) == 36
    assert calls[0]["random_state"] == 5 and calls[0]["metric"] == "cosine"
    viz.flat_map(embeddings[:6])
    assert calls[1]["n_neighbors"] == 5  # all other points
    monkeypatch.setattr(
        viz.importlib.util, "find_spec", lambda name: None if name == "umap" else found(name)
    )
    assert viz.flat_map(embeddings[:6])[1] == "t-SNE"


@pytest.mark.parametrize("count", [10, 15, 20])
def test_classes_have_different_signs_and_the_legend_is_not_clipped(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    labels = torch.arange(count).repeat(4) + 3
    names = [f"{i:03d}.A Bird of a Very Long Name {i}" for i in range(count + 3)]
    names[4] = "b"
    maps = {"one": torch.randn(4 * count, 2), "two": torch.randn(4 * count, 2)}
    viz.figure(maps, labels, names, tmp_path / "x.png", "title")
    (figure,) = figures
    signs = {
        (tuple(dots.get_facecolor()[0][:3]), dots.get_paths()[0].vertices.tobytes())
        for dots in figure.axes[0].collections
    }
    assert len(signs) == count
    for axes, points in zip(figure.axes, maps.values(), strict=True):
        for place, dots in enumerate(axes.collections):
            expected = points[labels == place + 3].double()
            torch.testing.assert_close(torch.tensor(np.asarray(dots.get_offsets())), expected)
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert len(texts) == count and max(map(len, texts)) <= 26
    assert texts[:2] == [names[3][:25] + "…", "b"]
    figure.canvas.draw()  # the figure was saved at another resolution
    box, whole = legend.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0
    assert all(box.y1 <= axes.get_window_extent().y0 for axes in figure.axes)
    monkeypatch.undo()
    plt.close(figure)


def test_classes_are_the_first_of_the_order() -> None:
    labels = torch.tensor([7, 2, 2, 9, 7, 4])
    some = viz.choose_classes(labels, 2, torch.tensor([3, 0, 2, 1]))  # of 2, 4, 7, 9
    assert some.tolist() == [False, True, True, True, False, False]
    assert viz.choose_classes(labels, 4, torch.arange(4)).all()
    with pytest.raises(ValueError, match=r"--classes must be in \[1, 4\], .*; got 5"):
        viz.choose_classes(labels, 5, torch.arange(4))


def test_invalid_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="method must be one of"):
        viz.flat_map(torch.randn(9, 3), "pca")
    with pytest.raises(ValueError, match="at least four embeddings, got 3"):
        viz.flat_map(torch.randn(3, 3))
    with pytest.raises(ValueError, match="no map"):
        viz.figure({}, torch.zeros(0), [], tmp_path / "x.png")
