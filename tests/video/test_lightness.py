"""Figure 6.2a."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mixplug.video import VideoIndex
from mixplug.viz import lightness

INDEX = VideoIndex(
    name="walk.mp4", size=1, digest="", duration=13_200.0, fps=59.94, width=3840, height=2160,
    frames=791_208, codec="h264", cuts=(600.0, 6000.0),
    bad=((6600.0, 13_200.0, "blank"), (1000.0, 1010.0, "corrupt")),
    lightness=tuple((float(t), 50 - 40 * (t > 6600) + t % 7) for t in range(13_200)),
    complete=True, position=13_200.0,
)  # fmt: skip


def test_the_summary() -> None:
    assert lightness.summary(INDEX) == (
        "3840 × 2160, 59.94 frames per second, 3:40:00, 2 cuts, 49.9% usable"
    )
    assert "1 cut," in lightness.summary(replace(INDEX, cuts=(3.0,)))
    assert [lightness.clock(t) for t in (0, 59.9, 3600, 6610)] == [
        "0:00:00", "0:00:59", "1:00:00", "1:50:10"
    ]  # fmt: skip


def test_the_mean_over_a_window() -> None:
    values = [float(v) for v in range(100)]
    smooth = lightness._mean(values)
    assert smooth[50] == 50 and smooth[0] == 7.5 and smooth[99] == 91.5  # of 16 values at the ends
    assert len(smooth) == 100


@pytest.mark.parametrize(
    "index",
    [
        INDEX,
        replace(INDEX, cuts=(), bad=()),
        replace(INDEX, duration=12.5, lightness=INDEX.lightness[:12], bad=(), cuts=(3.0,)),
        replace(INDEX, complete=False, position=100.0, lightness=INDEX.lightness[:100]),
    ],
    ids=["long", "plain", "short", "unfinished"],
)
def test_bad_parts_are_drawn(index: VideoIndex, tmp_path: Path) -> None:
    lightness.figure(index, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (1170, 468)
        pixels = {color: n / 1170 / 468 for n, color in image.convert("RGB").getcolors(1 << 20)}
    assert pixels[0, 114, 178] > 5e-5  # the line
    gray = sum(n for color, n in pixels.items() if len(set(color)) == 1 and 225 < color[0] < 240)
    assert (gray > 0.2) == any(reason == "blank" for _, _, reason in index.bad)
    orange = sum(n for (r, g, b), n in pixels.items() if r - b > 60)
    assert (orange > 1e-4) == any(reason == "corrupt" for _, _, reason in index.bad)


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"walk\.mp4 has no lightness to draw"):
        lightness.figure(replace(INDEX, lightness=()), tmp_path / "a.png")
