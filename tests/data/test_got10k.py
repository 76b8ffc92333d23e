"""GOT-10k: its folders, invalid folders, and the training examples drawn from them."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from got10k_folder import SIZE, moving_square, write_split
from torch.testing import assert_close

from mixplug.data.clip_samplers import ClipSampler, generators
from mixplug.data.got10k import GOT10k
from mixplug.data.tracking_pairs import Jitter, TrackingPairs

T = 12
STILL = {"center": 0.0, "scale": 0.0, "brightness": 0.0, "gray": 0.0, "flip": 0.0}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sequences in each split; in the labeled splits the object is absent in frame 3."""
    path = tmp_path_factory.mktemp("got10k")
    made = [
        moving_square(T, (10, 20), (4, 2), seed=1),
        moving_square(T, (90, 60), (-3, -1), seed=2),
    ]
    for split in ("train", "val", "test"):
        write_split(path, split, made, lambda i: ("cat", "dog")[i], absent=(3,))
    return path


@pytest.fixture
def broken(root: Path, tmp_path: Path) -> Path:
    shutil.copytree(root / "train", tmp_path / "train")
    return tmp_path


def pairs(root: Path, **settings: object) -> TrackingPairs:
    plain = {"pairs_per_epoch": 6, "size": 32, "jitter": STILL}
    return TrackingPairs(root, **{**plain, **settings})


# ---------------------------------------------------------------- the folder


def test_a_sequence_equals_the_written_files(root: Path) -> None:
    data = GOT10k(root, "train")
    assert len(data) == 2
    pictures, boxes = moving_square(T, (10, 20), (4, 2), seed=1)
    sequence = data[0]
    assert sequence.name == "GOT-10k_Train_000001"
    assert (sequence.object_class, sequence.motion_class) == ("cat", "sliding")
    assert torch.equal(sequence.boxes, boxes)
    assert sequence.absent.nonzero().flatten().tolist() == [3]
    assert sequence.cover.tolist() == [8, 8, 8, 0, *[8] * 8]
    assert sequence.size == SIZE[::-1]
    for number, image in enumerate(sequence.images()):
        wrong = (image.int() - pictures[number].int()).abs().float().mean()
        assert image.dtype == torch.uint8 and wrong < 3  # JPEG
    assert torch.equal(sequence.read(5), list(sequence.images())[5])
    assert [s.object_class for s in data] == ["cat", "dog"]


def test_the_test_split_has_only_the_first_box(root: Path) -> None:
    sequence = GOT10k(root, "test")[1]
    assert sequence.boxes.tolist() == [[90, 60, 16, 16]] and len(sequence.frames) == T
    assert not sequence.labeled and sequence.object_class == ""


def test_visible_means_present_uncovered_and_with_an_area(broken: Path) -> None:
    folder = broken / "train" / "GOT-10k_Train_000001"
    rows = (folder / "groundtruth.txt").read_text().splitlines()
    rows[5] = "10,20,0,16"
    (folder / "groundtruth.txt").write_text("\n".join(rows))
    cover = ["8"] * T
    cover[7] = "0"
    (folder / "cover.label").write_text("\n".join(cover))
    hidden = (~GOT10k(broken, "train")[0].visible).nonzero().flatten().tolist()
    assert hidden == [3, 5, 7]


def test_invalid_folders(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"splits \('train', 'val', 'test'\); got 'dev'"):
        GOT10k(root, "dev")
    with pytest.raises(ValueError, match=r"is not a GOT-10k folder: .*train.list\.txt is missing"):
        GOT10k(tmp_path, "train")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "list.txt").write_text("\n")
    with pytest.raises(ValueError, match="lists no sequence"):
        GOT10k(tmp_path, "train")
    (tmp_path / "train" / "list.txt").write_text("a\nb\nc\nd\n")
    with pytest.raises(ValueError, match="without a folder: a, b, c and 1 more"):
        GOT10k(tmp_path, "train")


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("groundtruth.txt", "1,2,3\n" * T, r"needs 4 finite numbers per line.*\(12, 3\)"),
        ("groundtruth.txt", "1,2,3,4\n", "needs 12 lines, one per frame, got 1"),
        ("groundtruth.txt", "1,2,3,x\n", "needs 4 numbers per line"),
        ("groundtruth.txt", "1,2,3,nan\n" * T, "finite"),
        ("groundtruth.txt", None, "There is no .*groundtruth.txt"),
        ("cover.label", "9\n" * T, r"numbers outside \[0, 8\]"),
        ("cover.label", "8\n", "needs 12 lines"),
        ("absence.label", None, "There is no .*absence.label"),
        ("meta_info.ini", None, "needs a section METAINFO"),
        ("meta_info.ini", "[METAINFO]\nobject_class: cat\n", "object_class and motion_class"),
        ("00000004.jpg", None, r"without a gap; got 00000005\.jpg"),
    ],
)
def test_invalid_files_of_a_sequence(
    broken: Path, name: str, change: str | None, message: str
) -> None:
    path = broken / "train" / "GOT-10k_Train_000001" / name
    path.unlink() if change is None else path.write_text(change)
    with pytest.raises(ValueError, match=message):
        GOT10k(broken, "train")[0]


def test_the_error_for_a_broken_image_names_the_file(broken: Path) -> None:
    path = broken / "train" / "GOT-10k_Train_000001" / "00000002.jpg"
    path.write_text("no image")
    with pytest.raises(ValueError, match=re.escape(str(path))):
        GOT10k(broken, "train")[0].read(1)


def test_the_test_split_must_have_one_box(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "val", tmp_path / "test")
    with pytest.raises(ValueError, match="needs 1 line, as in the test split, got 12"):
        GOT10k(tmp_path, "test")[0]


# ---------------------------------------------------------------- examples


def test_without_jitter_crops_are_centered_on_the_object(root: Path) -> None:
    """The crop's side is 16 · 4 = 64 pixels, so the box is the middle quarter of each side."""
    data = pairs(root)
    for key in range(20):
        item = data[key]
        assert item["template"].shape == (2, 3, 32, 32) and item["search"].shape == (3, 32, 32)
        assert item["search"].dtype == torch.uint8
        assert_close(item["box"], torch.tensor([0.375, 0.375, 0.25, 0.25]))
        for crop in (*item["template"], item["search"]):
            assert (
                crop[:, 13:19, 13:19].float().mean() > 160
            )  # the square is a pattern of 160 and 250
            outside = crop.float().clone()
            outside[:, 11:21, 11:21] = 0
            assert outside.max() < 120


def test_the_box_encloses_the_square(root: Path) -> None:
    """With jitter, scaling and flips, the bright pixels are inside the box and fill it."""
    data = pairs(root, size=64, jitter={"brightness": 0.0, "gray": 0.0}, pairs_per_epoch=40)
    flips = 0
    for key in range(40):
        item = data[key]
        left, top, width, height = (64 * item["box"]).tolist()
        bright = item["search"].float().mean(0) > 140
        rows, columns = bright.any(1).nonzero()[:, 0], bright.any(0).nonzero()[:, 0]
        assert abs(float(columns[0]) - left) < 3 and abs(float(rows[0]) - top) < 3
        assert abs(float(columns[-1]) + 1 - left - width) < 3
        assert abs(float(rows[-1]) + 1 - top - height) < 3
        flips += left + width / 2 > 32
    assert 8 < flips < 32


def test_jitter_has_the_stated_distribution(root: Path) -> None:
    """The center moves by up to 1.75 · 16 of 64 pixels, uniformly in +-0.4375 of the crop.

    If the center of a box is 0.4375 from the middle, 0.0625 + 0.125 of its side 0.25 stay in the
    crop.
    """
    data = pairs(root, size=8, jitter={**STILL, "center": 3.5}, pairs_per_epoch=200)
    boxes = torch.stack([data[key]["box"] for key in range(200)])
    assert 0.1875 - 1 / 64 <= float(boxes[:, 2:].min()) < 0.22
    centers = boxes[:, :2] + boxes[:, 2:] / 2 - 0.5
    near = float((centers.abs() < 0.21875).float().mean())
    assert abs(near - 0.5) < 5 * 0.5 / 20
    assert abs(float(centers.mean())) < 5 * 0.25 / 20


def test_frames_are_visible_and_near(root: Path) -> None:
    data = pairs(root, max_gap=2)
    orders: Counter[str] = Counter()
    for key in range(200):
        sequence, frames = data.draw(generators(0, 0, key).local)
        assert len(frames) == 3 and 3 not in frames and bool(sequence.visible[frames].all())
        assert max(frames) - min(frames) <= 4
        if frames[0] != frames[-1]:
            orders["forth" if frames[0] < frames[-1] else "back"] += 1
        assert frames in (sorted(frames), sorted(frames, reverse=True))
        orders[sequence.name] += 1
    for one, other in (("forth", "back"), ("GOT-10k_Train_000001", "GOT-10k_Train_000002")):
        assert abs(orders[one] - orders[other]) < 5 * 200**0.5


def test_an_item_depends_on_seed_epoch_and_index_alone(root: Path) -> None:
    def same(a: dict, b: dict) -> bool:
        return all(torch.equal(a[name], b[name]) for name in a)

    data, again = pairs(root, jitter=Jitter()), pairs(root, jitter=None)
    keys = list(ClipSampler(data, seed=1))
    assert sorted(keys) == list(range(6))
    assert all(same(data[key], again[key]) for key in keys)
    assert not same(data[0], data[6])  # the next epoch
    assert not same(data[0], pairs(root, jitter=Jitter(), seed=1)[0])
    with pytest.raises(IndexError, match="got -1"):
        data[-1]


def test_gray_and_brightness(root: Path) -> None:
    gray = pairs(root, jitter={**STILL, "gray": 1.0})[0]
    assert torch.equal(gray["search"][0], gray["search"][2])
    assert torch.equal(gray["template"][:, 0], gray["template"][:, 1])
    plain = pairs(root)[0]["search"].float()
    means = [
        float(
            pairs(root, jitter={**STILL, "brightness": 0.2}, seed=seed)[0]["search"].float().mean()
        )
        / float(pairs(root, seed=seed)[0]["search"].float().mean())
        for seed in range(20)
    ]
    assert 0.78 < min(means) < 0.9 and 1.1 < max(means) < 1.22 and plain.max() > 200


def test_invalid_settings(root: Path, broken: Path) -> None:
    with pytest.raises(ValueError, match="'test' has no boxes"):
        pairs(root, split="test")
    with pytest.raises(ValueError, match="got 0, 2, 32"):
        pairs(root, pairs_per_epoch=0)
    with pytest.raises(ValueError, match=r"search_factor > 0, got 4\.0 and 0"):
        pairs(root, search_factor=0)
    with pytest.raises(TypeError, match="shift"):
        pairs(root, jitter={"shift": 1.0})
    for name in GOT10k(broken, "train").names:
        (broken / "train" / name / "absence.label").write_text("1\n" * T)
    with pytest.raises(ValueError, match=r"None of the 3 sequences drawn .* visible object"):
        pairs(broken, retries=2)[0]
