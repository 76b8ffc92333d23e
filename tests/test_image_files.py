"""Images in every mode, compared with what mmcv or timm reads, and files that are no images."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mixplug.data import ImageViews, Unlabeled
from mixplug.data.davis import davis_videos, read_frame, read_labels
from mixplug.data.got10k import GOT10k
from mixplug.data.image_folders import Crops, image_folders, labeled
from mixplug.data.image_views import as_tensor
from mixplug.data.office_home import _folders, _images
from mixplug.data.retrieval import retrieval_set
from mixplug.data.videos import find_videos
from mixplug.data.voc import VOCImage
from mixplug.image_files import image_files, open_rgb, read_image
from mixplug.video import DecodeError, open_reader, scan

LEVELS = (np.arange(12).reshape(3, 4) * 5000 + 300).astype(np.uint16)  # 300 to 55300
COLORS = np.random.default_rng(0).integers(0, 256, (3, 4, 3)).astype(np.uint8)
ALPHA = np.dstack([COLORS, np.arange(12, dtype=np.uint8).reshape(3, 4) * 20])
TURN = Image.Exif()
TURN[274] = 6  # a quarter turn clockwise makes it upright


def pgm(path: Path) -> None:
    path.write_bytes(b"P5\n4 3\n65535\n" + LEVELS.astype(">u2").tobytes())


def saved(image: Image.Image, **options: object) -> Callable[[Path], None]:
    return lambda path: image.save(path, **options)


RGB = Image.fromarray(COLORS)
SECOND = Image.fromarray(255 - COLORS)
PALETTE = RGB.quantize(8)
GRAY = np.asarray(RGB.convert("L"))
# name, how it is written, expected (H, W, 3) without orientation
MODES: dict[str, tuple[Callable[[Path], None], np.ndarray]] = {
    "gray16.png": (saved(Image.fromarray(LEVELS)), np.dstack([LEVELS // 256] * 3)),
    "gray16.tif": (saved(Image.fromarray(LEVELS)), np.dstack([LEVELS // 256] * 3)),
    "gray16.ppm": (pgm, np.dstack([LEVELS // 256] * 3)),
    "rgba.png": (saved(Image.fromarray(ALPHA)), COLORS),
    "rgba.webp": (saved(Image.fromarray(ALPHA), lossless=True, exact=True), COLORS),
    "la.png": (saved(RGB.convert("LA")), np.dstack([GRAY] * 3)),
    "gray.bmp": (saved(RGB.convert("L")), np.dstack([GRAY] * 3)),
    "palette.png": (saved(PALETTE), np.asarray(PALETTE.convert("RGB"))),
    "clear.png": (saved(PALETTE, transparency=0), np.asarray(PALETTE.convert("RGB"))),
    "cmyk.tif": (saved(RGB.convert("CMYK")), COLORS),
    "bits.png": (
        saved(Image.fromarray(GRAY > 100)),
        np.dstack([(GRAY > 100) * 255] * 3),
    ),
    "moving.webp": (
        saved(RGB, save_all=True, append_images=[SECOND], lossless=True),
        COLORS,
    ),
    "moving.png": (saved(RGB, save_all=True, append_images=[SECOND]), COLORS),
    "pages.tif": (saved(RGB, save_all=True, append_images=[SECOND]), COLORS),
    "turned.png": (saved(RGB, exif=TURN), COLORS),
    "turned.webp": (saved(RGB, exif=TURN, lossless=True), COLORS),
}
UPRIGHT = {"turned.png", "turned.webp"}
REFUSED = {
    "int32.tif": Image.fromarray(LEVELS.astype(np.int32) * 1000),
    "float.tif": Image.fromarray((LEVELS / 65535).astype(np.float32)),
}


def pixels(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array).astype(np.uint8)).permute(2, 0, 1)


@pytest.mark.parametrize("name", MODES)
def test_pixels_of_every_mode(tmp_path: Path, name: str) -> None:
    write, expected = MODES[name]
    path = tmp_path / name
    write(path)
    stored, turned = pixels(expected), pixels(np.rot90(expected, -1))
    upright = turned if name in UPRIGHT else stored
    # data sets ignore the orientation, as timm does
    assert torch.equal(read_image(path), stored)
    assert torch.equal(as_tensor(path), stored)
    assert torch.equal(Unlabeled(tmp_path)[0], stored)
    assert np.array_equal(np.asarray(open_rgb(path)), expected)
    with Image.open(path) as image:  # an item of somebody's data set
        if image.mode != "I":
            assert torch.equal(as_tensor(image), stored)
    # frames are upright, as those of videos
    reader = open_reader(tmp_path, fps=1)
    assert reader.size == tuple(upright.shape[1:])
    assert torch.equal(reader.read([0.0])[0], upright)
    assert torch.equal(Unlabeled(tmp_path, orientation="apply")[0], upright)


@pytest.mark.parametrize("name", [name for name in MODES if name != "bits.png"])
def test_upright_pixels_are_those_of_mmcv(tmp_path: Path, name: str) -> None:
    mmcv = pytest.importorskip("mmcv")
    path = tmp_path / name
    MODES[name][0](path)
    theirs = pixels(mmcv.imread(str(path), channel_order="rgb"))
    difference = read_image(path, "apply").int() - theirs.int()
    assert difference.abs().max() <= 1  # CMYK is rounded differently


def test_the_orientation_is_applied_in_all_eight_ways(tmp_path: Path) -> None:
    pytest.importorskip("mmcv")
    import mmcv

    for way in range(1, 9):
        exif = Image.Exif()
        exif[274] = way
        RGB.save(tmp_path / "a.png", exif=exif)
        theirs = pixels(mmcv.imread(str(tmp_path / "a.png"), channel_order="rgb"))
        assert torch.equal(read_image(tmp_path / "a.png", "apply"), theirs), way
        assert open_reader(tmp_path, fps=1).size == tuple(theirs.shape[1:])


@pytest.mark.parametrize("name", REFUSED)
def test_pixels_without_a_known_range_are_refused(tmp_path: Path, name: str) -> None:
    """Pillow would cut them at 0 and 255, so a picture in [0, 1] would be black."""
    path = tmp_path / "train" / "a" / name
    path.parent.mkdir(parents=True)
    REFUSED[name].save(path)
    message = rf"{name} cannot be read as an image: its pixels have the mode [IF], whose range"
    with pytest.raises(ValueError, match=message):
        read_image(path)
    with pytest.raises(ValueError, match=message):
        Crops(labeled(tmp_path / "train"), 8)[0]
    with pytest.raises(ValueError, match=message):
        ImageViews(tmp_path)[0]
    with pytest.raises(DecodeError, match=message):
        open_reader(path.parent, fps=1).read([0.0])
    with pytest.raises(ValueError, match="A PIL image cannot be used: its pixels have the mode"):
        as_tensor(REFUSED[name])
    assert scan(path.parent, fps=1).bad == ((0.0, 1.0, "corrupt"),)


def test_whatever_a_decoder_raises_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RGB.save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)  # DecompressionBombError, no OSError
    for read in (read_image, as_tensor, read_frame, Unlabeled(tmp_path).__getitem__):
        with pytest.raises(ValueError, match=r"large\.png cannot be read as an image: Image size"):
            read(0 if read.__name__ == "__getitem__" else tmp_path / "large.png")
    with pytest.raises(DecodeError, match="Image size"):
        open_reader(tmp_path, fps=1)


def test_images_with_masks_or_boxes_refuse_an_orientation(tmp_path: Path) -> None:
    RGB.save(tmp_path / "a.jpg", exif=TURN)
    for read in (read_frame, lambda path: VOCImage("a", path, path, path).pixels()):
        with pytest.raises(ValueError, match=r"a\.jpg cannot be read.*EXIF orientation.*upright"):
            read(tmp_path / "a.jpg")
    RGB.save(tmp_path / "a.jpg")
    assert read_frame(tmp_path / "a.jpg").shape == (3, 3, 4)


def test_data_of_a_timm_card_get_the_pixels_of_timm(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    from timm.data import ImageDataset

    from mixplug.hosts.timm.card import Pixels

    for name in ("rgba.png", "palette.png", "la.png", "turned.png", "moving.png", "gray.bmp"):
        (tmp_path / "a").mkdir(exist_ok=True)
        MODES[name][0](tmp_path / name)
        shutil.move(tmp_path / name, tmp_path / "a" / f"{name}.png")  # timm finds few suffixes
    theirs = ImageDataset(str(tmp_path))
    ours = Pixels(labeled(tmp_path), np.asarray)
    assert len(ours) == len(theirs) == 6
    for place in range(6):
        assert np.array_equal(ours[place][0], np.asarray(theirs[place][0]))
    MODES["gray16.png"][0](tmp_path / "a" / "0.png")
    assert np.array_equal(Pixels(labeled(tmp_path), np.asarray)[0][0], MODES["gray16.png"][1])


def test_out_of_distribution_images_of_mm_are_upright_as_its_test_images(tmp_path: Path) -> None:
    mmcv = pytest.importorskip("mmcv")
    pytest.importorskip("mmpretrain")
    from mixplug.hosts.mm.datasets.outside import OODFolder

    for name in ("turned.png", "gray16.png", "rgba.png"):
        MODES[name][0](tmp_path / name)
    found = OODFolder(str(tmp_path))
    for place, path in enumerate(found.images.paths):
        assert np.array_equal(found.get_data_info(place)["img"], mmcv.imread(str(path)))


def test_figures_of_mm_show_what_the_model_saw(tmp_path: Path) -> None:
    mmcv = pytest.importorskip("mmcv")
    pytest.importorskip("mmpretrain")
    from mixplug.from_config.embeddings import Embedded

    class Paths:
        def get_data_info(self, index: int) -> dict:
            return {"img_path": str(tmp_path / ("turned.png", "gray16.png")[index])}

    none = torch.zeros(0)
    shown = Embedded(none, none, [], [], [], torch.nn.Identity(), Paths())
    for index, name in enumerate(("turned.png", "gray16.png")):
        MODES[name][0](tmp_path / name)
        theirs = mmcv.imread(str(tmp_path / name), channel_order="rgb")
        assert np.array_equal(shown.image(index).numpy(), theirs)


def test_an_index_of_16_bit_frames_sees_their_lightness(tmp_path: Path) -> None:
    """Cut at 255, all frames would be white, and the video blank."""
    for number in range(3):
        rows = np.linspace(0, 119 * 256 * 2, 16)[:, None].repeat(16, 1)
        Image.fromarray(rows.astype(np.uint16)).save(tmp_path / f"{number}.png")
    index = scan(tmp_path, fps=1)
    assert index.bad == () and 40 < index.lightness[0][1] < 60


def litter(folder: Path) -> None:
    """What macOS, Jupyter and file servers leave in a folder."""
    (folder / "._0.png").write_bytes(b"\0\5\x16\7" + bytes(200))
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX"):
        (folder / name).mkdir()
        Image.fromarray(COLORS).save(folder / name / "0.png")
        (folder / name / "x.mp4").touch()
    (folder / "folder.png").mkdir()


def test_hidden_files_and_folders_are_no_images_and_no_classes(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in "ab":
            folder = tmp_path / ".data" / split / name  # the root itself may be hidden
            folder.mkdir(parents=True)
            RGB.save(folder / "0.png")
            litter(folder)
        litter(tmp_path / ".data" / split)
        shutil.rmtree(tmp_path / ".data" / split / "folder.png")
    root = tmp_path / ".data"
    litter(root)
    shutil.rmtree(root / "folder.png")
    train, val = image_folders(root)
    assert train.classes == val.classes == ["a", "b"]
    assert train.paths == [str(root / "train" / name / "0.png") for name in "ab"]
    assert train.labels.tolist() == [0, 1]
    found = [root / split / name / "0.png" for split in ("train", "val") for name in "ab"]
    assert image_files(root, nested=True) == found
    assert Unlabeled(root).paths == found
    assert ImageViews(root).images == found
    shutil.copytree(root / "val", root / "test")
    assert retrieval_set("folder", root, "train").paths == tuple(train.paths)
    assert retrieval_set("folder", root, "test").class_names == ("a", "b")
    assert [f.name for f in _folders(root / "train")] == ["a", "b"]
    assert _images(root / "train", "a", root) == found[:1]
    assert find_videos(root / "train" / "a") == [root / "train" / "a"]  # not the hidden x.mp4
    assert open_reader(root / "train" / "a", fps=1).duration == 1.0


def test_folders_behind_links_are_searched_once_in_a_loop(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "set").mkdir()
    RGB.save(tmp_path / "real" / "0.png")
    (tmp_path / "set" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "back").symlink_to(tmp_path / "set")
    assert image_files(tmp_path / "set", nested=True) == [tmp_path / "set" / "link" / "0.png"]


def test_hidden_files_in_davis_and_got10k(tmp_path: Path) -> None:
    davis = tmp_path / "DAVIS"
    for folder in ("ImageSets/2017", "JPEGImages/480p/v", "Annotations/480p/v"):
        (davis / folder).mkdir(parents=True)
    (davis / "ImageSets/2017/val.txt").write_text("v\n")
    for number in range(2):
        RGB.save(davis / f"JPEGImages/480p/v/0000{number}.jpg")
        PALETTE.save(davis / f"Annotations/480p/v/0000{number}.png")
    (davis / "JPEGImages/480p/v/._00000.jpg").write_bytes(bytes(99))
    (video,) = davis_videos(davis)
    assert [frame.name for frame in video.frames] == ["00000.jpg", "00001.jpg"]
    assert torch.equal(
        read_labels(video.annotations[0]), torch.from_numpy(np.array(PALETTE, copy=True))
    )
    sequence = tmp_path / "got" / "test" / "s"
    sequence.mkdir(parents=True)
    (tmp_path / "got" / "test" / "list.txt").write_text("s\n")
    (sequence / "groundtruth.txt").write_text("0,0,2,2\n")
    RGB.save(sequence / "00000001.jpg")
    (sequence / "._00000001.jpg").write_bytes(bytes(99))
    assert [f.name for f in GOT10k(tmp_path / "got", "test")[0].frames] == ["00000001.jpg"]
