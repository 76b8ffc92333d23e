"""Figures of tracked objects: colors at the objects, on the right frames."""

from __future__ import annotations

import math
from pathlib import Path

import av
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from mixplug.functional.track import cls_attention
from mixplug.models.self_distillation import object_tracks
from mixplug.models.self_distillation.views import normalized
from mixplug.models.vit.encoder import as_encoder, build_timm_vit
from mixplug.viz import track_video
from mixplug.viz.track_video import cuts_before, distinct_heads, fit_to_patches, overlaps
from mixplug.viz.tracks import colors, film, overlay, strip


def test_objects_are_colored_at_their_positions() -> None:
    frames = torch.full((2, 3, 8, 12), 100, dtype=torch.uint8)
    attention = torch.zeros(2, 3, 6)  # a grid of 2 x 3, patches of 4 pixels
    for frame, places in enumerate(((0, 1, 2), (3, 4, 5))):
        for i, place in enumerate(places):
            attention[frame, i, place] = 1.0
    drawn = overlay(frames, attention, (2, 3))
    for frame, row in ((0, 0), (1, 1)):
        center = drawn[frame, :, 4 * row + (0 if row == 0 else 3)]
        for i, column in enumerate((0, 6, 11)):
            assert int(center[:, column].argmax()) == i  # red, green, blue
    assert drawn.dtype == torch.uint8 and drawn.shape == frames.shape


def test_strength_by_hand() -> None:
    """One patch is one pixel. The color depends on attention above its mean, over the maximum."""
    frames = torch.full((1, 3, 2, 2), 200, dtype=torch.uint8)
    attention = torch.tensor([[[0.75, 0.25, 0.0, 0.0]], [[0.5, 0.4, 0.1, 0.0]]])
    for maps, shares in ((attention[:1], (1, 0, 0, 0)), (attention[1:], (1, 0.6, 0, 0))):
        red, green, blue = overlay(frames, maps, (2, 2))[0].flatten(1).tolist()
        for pixel, share in enumerate(shares):
            cover = 0.6 * share
            assert red[pixel] == round((1 - cover) * 200 + cover * 255 * share)
            assert green[pixel] == blue[pixel] == round((1 - cover) * 200)


def test_uniform_attention_gives_no_color() -> None:
    frames = torch.randint(256, (1, 3, 4, 4), dtype=torch.uint8)
    assert torch.equal(overlay(frames, torch.full((1, 2, 4), 0.25), (2, 2)), frames)


@pytest.mark.parametrize("objects", [1, 3, 7])
def test_colors_are_pure_and_differ(objects: int) -> None:
    found = colors(objects)
    assert found.shape == (objects, 3) and bool((found.amax(1) == 1).all())
    assert len({tuple(color.tolist()) for color in found}) == objects


def test_invalid_attention() -> None:
    frames = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"for 2 frames and a grid of 2 x 2, got \(1, 3, 4\)"):
        overlay(frames, torch.rand(1, 3, 4), (2, 2))
    with pytest.raises(ValueError, match=r"got \(2, 3, 6\)"):
        overlay(frames, torch.rand(2, 3, 6), (2, 2))


def test_the_film_shows_all_ways_side_by_side(tmp_path: Path) -> None:
    colors = torch.tensor([[200, 30, 30], [30, 200, 30]], dtype=torch.uint8)
    rows = {
        name: colors[i].view(1, 3, 1, 1).expand(5, -1, 33, 41)
        for i, name in enumerate(("left", "right"))
    }
    film(rows, 4.0, tmp_path / "t.mp4")
    with av.open(str(tmp_path / "t.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 4 and stream.codec_context.pix_fmt == "yuv420p"
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == 5 and frames[0].shape == (54, 82, 3)  # 33 and a label of 22, made even
    for x, i in ((10, 0), (70, 1)):
        assert abs(frames[2][45, x].astype(int) - colors[i].numpy()).max() < 12
    assert frames[0][:22].min() < 128  # there is text


def test_the_strip_has_a_picture_for_every_frame_and_way(tmp_path: Path) -> None:
    frames = torch.zeros(3, 3, 20, 30, dtype=torch.uint8)
    frames[:, 0] = 255
    strip({"input": frames, "objects": frames}, [0.0, 0.5, 1.0], tmp_path / "s.png", "title")
    image = torch.tensor(list(Image.open(tmp_path / "s.png").convert("RGB").getdata()))
    red = (image == torch.tensor([255, 0, 0])).all(1).float().mean()
    # six pictures of 1.7 x 1.13 inches in a figure of about 5.6 x 3
    assert math.isclose(float(red), 6 * 1.7 * 1.13 / (5.6 * 3.02), rel_tol=0.35)


def test_a_strip_with_many_frames_a_legend_and_cuts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[object] = []
    monkeypatch.setattr(plt, "close", figures.append)
    frames = torch.arange(11, dtype=torch.uint8).view(11, 1, 1, 1).expand(-1, 3, 4, 6)
    times = [0.5 * i for i in range(11)]
    rows = {"input": frames, "objects": frames + 100}
    strip(rows, times, tmp_path / "s.png", heads=[4, 0], cuts=[3, 8])
    (figure,) = figures
    first, second = figure.subfigs
    for block, numbers in ((first, range(8)), (second, range(8, 11))):
        assert len(block.axes) == 16
        for row, above in enumerate((0, 100)):
            for place, cell in enumerate(block.axes[8 * row : 8 * row + 8]):
                if place >= len(numbers):
                    assert not cell.get_visible()
                    continue
                number = numbers[place]
                assert int(cell.get_images()[0].get_array()[0, 0, 0]) == number + above
                assert len(cell.lines) == (number in (3, 8))
                assert cell.get_title() == ("" if row else f"{times[number]:.1f} s")
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["head 4", "head 0", "cut"]
    red, green, _ = (h.get_facecolor()[:3] for h in legend.get_patches())
    assert (red, green) == ((1, 0, 0), (0, 1, 0))
    monkeypatch.undo()
    plt.close(figure)


def test_cuts_come_from_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut is the time of a scene's first frame; a video without an index has no known cuts."""
    times = [0.0, 1.0, 2.0, 3.0, 4.0]
    index = type("I", (), {"cuts": (0.0, 2.0, 3.2, 3.4, 9.0)})()
    monkeypatch.setattr(track_video.VideoIndex, "of", lambda video: index)
    assert cuts_before("a.mp4", times) == [2, 4]
    monkeypatch.undo()
    assert cuts_before("no such.mp4", times) == []


def test_frames_are_cropped_to_whole_patches() -> None:
    clip = torch.randint(256, (2, 3, 50, 70), dtype=torch.uint8)
    assert torch.equal(fit_to_patches(clip, (16, 16), None), clip[..., :48, :64])
    assert fit_to_patches(clip, (8, 8), 25).shape == (2, 3, 24, 32)
    with pytest.raises(ValueError, match="as large as a patch of 64 x 64 pixels, got 50 x 70"):
        fit_to_patches(clip, (64, 64), None)


def test_overlaps_by_hand() -> None:
    """Masks {0, 1}, {1, 2} and {3} of four patches."""
    attention = torch.tensor([[[0.4, 0.4, 0.1, 0.1], [0.0, 0.5, 0.5, 0.0], [0.1, 0.1, 0.1, 0.7]]])
    expected = torch.tensor([[[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]]])
    torch.testing.assert_close(overlaps(attention), expected)


def test_the_heads_that_overlap_least_are_selected() -> None:
    """Compared with all triples of six heads."""
    torch.manual_seed(1)
    keys = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 6}
    vit = build_timm_vit("vit_tiny_patch16_224", **keys).eval()
    frame = torch.randint(256, (3, 32, 48), dtype=torch.uint8)
    with torch.no_grad():
        vit.blocks[0].attn.qkv.weight.mul_(4)
        found = distinct_heads(vit, frame)
        tokens = as_encoder(vit).tokens(normalized(frame[None]))
    attention = cls_attention(tokens.queries, tokens.keys)[0]
    masks = [
        {n for n, a in enumerate(row) if a > sum(row) / len(row)} for row in attention.tolist()
    ]
    shares = {}
    for a in range(6):
        for b in range(a + 1, 6):
            for c in range(b + 1, 6):
                pairs = ((a, b), (a, c), (b, c))
                shares[a, b, c] = sum(
                    len(masks[i] & masks[j]) / len(masks[i] | masks[j]) for i, j in pairs
                )
    assert found == min(shares, key=shares.__getitem__) != (0, 1, 2)
    assert len(set(shares.values())) > 5
    assert distinct_heads(vit, frame, objects=9) == tuple(range(6))
    assert object_tracks(as_encoder(vit), normalized(frame[None]), heads=found).shape == (1, 3, 24)
