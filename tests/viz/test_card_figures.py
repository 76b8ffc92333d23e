"""Figures of the reliability card: curves, histograms, attention maps and long names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image
from torch.testing import assert_close

from mixplug.functional.calibration import calibration_bins
from mixplug.viz import attention, ood, reliability
from mixplug.viz.embedding import COLORS, MARKERS
from mixplug.viz.labels import wrap_name

LONG = [
    f"work_dirs/alignmix-ae_preact-resnet18_1xb128-2000e_cifar100/best_accuracy_top1_epoch_{k}.pth"
    for k in range(5)
]


def check_texts_inside(figure: object, canvas: object) -> None:
    """Every text of a figure is inside the figure."""
    texts = [t for legend in figure.legends for t in legend.get_texts()]
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label] if axes.get_visible() else []
    for text in filter(plt.Text.get_text, texts):
        box, inside = text.get_window_extent(canvas), figure.bbox
        assert box.x0 >= inside.x0 and box.x1 <= inside.x1, text.get_text()
        assert box.y0 >= inside.y0 and box.y1 <= inside.y1, text.get_text()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Figures at the time they are closed, still complete."""
    figures: list[object] = []
    monkeypatch.setattr(plt, "close", lambda figure: figures.append(figure))
    yield figures
    monkeypatch.undo()
    for figure in figures:
        plt.close(figure)


def test_reliability_curve_by_hand() -> None:
    """Four bins: two are empty; half of the examples at (0.3, 0.5), half at (0.9, 0.8)."""
    bins = (
        torch.tensor([0.0, 0.5, 0.0, 0.5]),
        torch.tensor([0.0, 0.5, 0.0, 0.8]),
        torch.tensor([0.0, 0.3, 0.0, 0.9]),
    )
    axes = plt.figure().add_subplot()
    reliability.curves(axes, {"one": bins, "two": bins}, {"one": 0.25, "two": 0.1})
    diagonal, one, two = axes.lines
    assert list(diagonal.get_ydata()) == [0, 1]
    assert_close(torch.tensor(one.get_xydata()).float(), torch.tensor([[0.3, 0.5], [0.9, 0.8]]))
    assert (one.get_color(), two.get_color()) == COLORS[:2]
    assert (one.get_marker(), two.get_marker()) == MARKERS[:2]
    assert [one.get_label(), two.get_label()] == ["one, ECE 25.0 %", "two, ECE 10.0 %"]
    plt.close()
    axes = plt.figure().add_subplot()
    reliability.curves(axes, {"one": bins}, least=0.6)
    # 0.5 * |0.5 - 0.3| + 0.5 * |0.8 - 0.9|
    assert axes.lines[1].get_label() == "one, ECE 15.0 %" and not len(axes.lines[1].get_xdata())
    plt.close()


def test_reliability_figure_has_shares_below(tmp_path: Path, drawn: list[object]) -> None:
    rows, labels = torch.randn(50, 4).softmax(-1), torch.randint(4, (50,))
    bins = {name: calibration_bins(rows, labels, 5) for name in LONG}
    reliability.figure(bins, tmp_path / "r.png", "title")
    above, below = drawn[0].axes
    steps = below.patches[3].get_data()
    assert_close(torch.tensor(steps.values), bins[LONG[3]][0])
    assert_close(torch.tensor(steps.edges), torch.arange(6) / 5, check_dtype=False)
    texts = [t.get_text().replace("\n", "") for t in drawn[0].legends[0].get_texts()]
    assert [t.partition(", ECE")[0] for t in texts] == LONG
    check_texts_inside(drawn[0], drawn[0].canvas.get_renderer())
    assert len(above.lines) == 6 and Image.open(tmp_path / "r.png").width > 700
    with pytest.raises(ValueError, match="no reliability curve"):
        reliability.figure({}, tmp_path / "r.png")


def test_histograms_by_hand() -> None:
    """40 bins from 0 to 1, area 1: if all scores are equal, their bin is 1 / 0.025 high."""
    inside, outside = torch.tensor([1.0, 1.0, 1.0, 0.51]), torch.tensor([0.0, 0.51])
    axes = plt.figure().add_subplot()
    ood.histograms(axes, {"test": inside, "noise": outside}, ["test", "noise"])
    first, second = (p.get_data() for p in axes.patches)
    for found, heights in ((first, {39: 30.0, 20: 10.0}), (second, {0: 20.0, 20: 20.0})):
        expected = torch.zeros(40, dtype=torch.float64)
        for place, height in heights.items():
            expected[place] = height
        assert_close(torch.tensor(found.values), expected)
    assert [p.get_fill() for p in axes.patches] == [True, False]
    plt.close()


def test_ood_figure(tmp_path: Path, drawn: list[object]) -> None:
    sets = ["cifar100 (test)", "LSUN (crop)", "TinyImageNet (resize)", "uniform noise"]
    scores = {name: {s: torch.rand(9) for s in sets} for name in LONG}
    scores[LONG[2]] = {"cifar100 (test)": torch.ones(3), "late": torch.ones(2)}
    ood.figure(scores, tmp_path / "o.png", "energy")
    visible = [axes for axes in drawn[0].axes if axes.get_visible()]
    assert [a.get_title().replace("\n", "") for a in visible] == LONG
    assert {a.get_xlabel() for a in visible} == {"energy"}
    assert [t.get_text() for t in drawn[0].legends[0].get_texts()] == [*sets, "late"]
    late = visible[2].patches[1]
    assert late.get_edgecolor()[:3] == pytest.approx(plt.matplotlib.colors.to_rgb(COLORS[4]))
    check_texts_inside(drawn[0], drawn[0].canvas.get_renderer())
    for empty in ({}, {"a": {}}):
        with pytest.raises(ValueError, match="no scores"):
            ood.figure(empty, tmp_path / "o.png")


def test_attention_overlay_by_hand() -> None:
    """The maximum gets 65 % dark red, half the maximum half as much color, 0 none."""
    images = torch.full((1, 2, 2, 3), 100, dtype=torch.uint8)
    maps = torch.tensor([[[0.6, 0.3], [0.1, 0.0]]])
    red, half = (torch.tensor(plt.colormaps["turbo"](v)[:3]) for v in (1.0, 0.5))
    found = attention.overlay(images, maps)[0].float()
    assert_close(found[0, 0], (0.35 * 100 + 0.65 * 255 * red).float(), atol=0.51, rtol=0)
    assert_close(found[0, 1], (0.675 * 100 + 0.325 * 255 * half).float(), atol=1.5, rtol=0)
    assert found[1, 1].tolist() == [100, 100, 100]
    assert torch.equal(attention.overlay(images, 0 * maps), images)
    assert torch.equal(attention.overlay(images, maps), attention.overlay(images, 7 * maps))


def test_attention_figure(tmp_path: Path, drawn: list[object]) -> None:
    images = torch.randint(256, (3, 8, 12, 3), dtype=torch.uint8)
    maps = {name: torch.rand(3, 2, 3) for name in LONG}
    attention.figure(images, maps, tmp_path / "a.png")
    cells = drawn[0].axes
    assert len(cells) == 3 * 6
    for i in range(3):
        assert torch.equal(torch.tensor(cells[i].get_images()[0].get_array()), images[i])
    row = attention.overlay(images, maps[LONG[1]])
    assert torch.equal(torch.tensor(cells[2 * 3 + 2].get_images()[0].get_array()), row[2])
    labels = [cells[3 * k].get_ylabel().replace("\n", "") for k in range(6)]
    assert labels == ["image", *LONG]
    check_texts_inside(drawn[0], drawn[0].canvas.get_renderer())


def test_invalid_attention(tmp_path: Path) -> None:
    images = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"maps \(N, h, w\), got \(2, 4, 4, 3\) and \(1, 2, 2\)"):
        attention.overlay(images, torch.rand(1, 2, 2))
    with pytest.raises(ValueError, match="attention >= 0, got -1"):
        attention.overlay(images, torch.full((2, 2, 2), -1.0))
    with pytest.raises(ValueError, match="no attention"):
        attention.figure(images, {}, tmp_path / "a.png")


def test_wrap_name() -> None:
    assert wrap_name("short", 10) == "short"
    assert wrap_name("work_dirs/a-b_c/epoch_1.pth", 12) == "work_dirs/a-\nb_c/epoch_\n1.pth"
    assert wrap_name("two words of it", 9) == "two words\nof it"
    assert wrap_name("abcdefghij", 4) == "abcd\nefgh\nij"
    for name in LONG:
        assert wrap_name(name, 30).replace("\n", "") == name
        assert max(map(len, wrap_name(name, 30).split("\n"))) <= 30
