"""The layout of DAVIS-2017, and label maps with its palette."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from evaluation import films_of_squares as films
from PIL import Image

from mixplug.data.davis import davis_videos, palette, read_frame, read_labels, write_labels


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return films.write(tmp_path / "DAVIS", {"zebra": films.squares(3), "ape": films.squares(4)})


def test_videos_are_in_list_order_and_frames_in_name_order(root: Path) -> None:
    zebra, ape = davis_videos(root)
    assert (zebra.name, len(zebra), ape.name, len(ape)) == ("zebra", 3, "ape", 4)
    assert ape.frames == tuple(root / f"JPEGImages/480p/ape/0000{i}.jpg" for i in range(4))
    assert ape.annotations == tuple(root / f"Annotations/480p/ape/0000{i}.png" for i in range(4))
    assert davis_videos(root.parent) == [zebra, ape]  # the parent folder works too


def test_a_wrong_layout(root: Path, tmp_path: Path) -> None:
    layout = r"DAVIS-2017 needs ImageSets/2017/<split>\.txt, JPEGImages/480p/<video>/\*\.jpg and"
    with pytest.raises(ValueError, match=rf"There is no file .*/nothing/.*val\.txt\. {layout}"):
        davis_videos(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"2017/train\.txt\..*Existing splits: val\."):
        davis_videos(root, "train")
    (root / "Annotations/480p/ape/00002.png").unlink()
    with pytest.raises(ValueError, match=r"ape: 1 of 4 frames have no .* file is .*00002\.png"):
        davis_videos(root)
    for frame in (root / "JPEGImages/480p/zebra").iterdir():
        frame.unlink()
    with pytest.raises(ValueError, match=rf"no files .*/480p/zebra/\*\.jpg\. {layout}"):
        davis_videos(root)
    (root / "ImageSets/2017/val.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"val\.txt lists no video\."):
        davis_videos(root)


def test_the_palette_is_that_of_pascal_voc() -> None:
    """Its first colors, and 255 (void), by hand: 8 set bits give 3, 3 and 2 bits of the colors."""
    colors = torch.tensor(palette()).reshape(256, 3).tolist()
    first = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    assert colors[:5] == first and colors[8] == [64, 0, 0] and colors[255] == [224, 224, 192]


def test_label_maps_survive_writing_and_reading(tmp_path: Path) -> None:
    labels = torch.arange(256).reshape(8, 32)
    write_labels(tmp_path / "a.png", labels)
    assert torch.equal(read_labels(tmp_path / "a.png"), labels.to(torch.uint8))
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P" and image.getpalette() == palette()
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_files_that_are_not_label_maps_or_images(tmp_path: Path) -> None:
    Image.new("RGB", (4, 3)).save(tmp_path / "colors.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "colors.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"A label map needs a palette .*colors\.png has mode RGB"):
        read_labels(tmp_path / "colors.png")
    for read in (read_labels, read_frame):
        with pytest.raises(ValueError, match=r"torn\.png cannot be read as an image"):
            read(tmp_path / "torn.png")
