"""Multi-crop: every operation against a loop over pixels, and the distribution of the parameters.

Statistical bounds are five standard errors.
"""

from __future__ import annotations

import colorsys
import dataclasses
import itertools
import math
from collections import Counter

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from mixplug.data.multicrop import MultiCrop, View, multicrop_of
from mixplug.data.view import blurred

KEYS = 1500
WHOLE = View(0, 0, 12, 12, 12)


@pytest.fixture
def clip() -> Tensor:
    """Three frames that differ."""
    return torch.randint(0, 256, (3, 3, 12, 12), dtype=torch.uint8)


def near(got: Tensor, expected: Tensor, most: float = 1.03) -> None:
    """Rounding and clamping can differ by one, and torchvision's gray weights sum to 0.9999."""
    assert got.dtype == torch.uint8 and got.shape == expected.shape
    assert float((got.double() - expected.double()).abs().max()) <= most


def luma(pixel: Tensor) -> float:
    return float(0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2])


# ---------------------------------------------------------------- operations


def test_crop_and_resize_are_pils_bicubic(clip: Tensor) -> None:
    big = torch.randint(0, 256, (2, 3, 40, 50), dtype=torch.uint8)
    for view in (View(5, 7, 30, 20, 9), View(0, 0, 40, 50, 64), View(39, 49, 1, 1, 3)):
        box = (view.left, view.top, view.left + view.width, view.top + view.height)
        for frame, got in zip(big, view(big), strict=True):
            cut = to_pil_image(frame).crop(box)
            near(got, pil_to_tensor(cut.resize((view.size, view.size), Image.Resampling.BICUBIC)))


def test_a_full_crop_of_the_same_size_changes_nothing(clip: Tensor) -> None:
    assert torch.equal(WHOLE(clip), clip)


def test_flip(clip: Tensor) -> None:
    flipped = dataclasses.replace(WHOLE, flip=True)(clip)
    assert all(torch.equal(flipped[..., c], clip[..., 11 - c]) for c in range(12))


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.4])
def test_brightness_contrast_and_saturation(clip: Tensor, factor: float) -> None:
    for name in ("brightness", "contrast", "saturation"):
        got = dataclasses.replace(WHOLE, jitter=((name, factor),))(clip)
        for frame, changed in zip(clip.double(), got, strict=True):
            mean = sum(luma(p) for p in frame.flatten(1).T) / 144
            expected = torch.empty(3, 12, 12)
            for i, j in itertools.product(range(12), range(12)):
                pixel = frame[:, i, j]
                to = {"brightness": 0.0, "contrast": mean, "saturation": luma(pixel)}[name]
                expected[:, i, j] = (factor * pixel + (1 - factor) * to).clamp(0, 255)
            near(changed, expected, 1.5)


@pytest.mark.parametrize("factor", [-0.1, 0.07])
def test_hue(clip: Tensor, factor: float) -> None:
    got = dataclasses.replace(WHOLE, jitter=(("hue", factor),))(clip)
    for frame, changed in zip(clip.double() / 255, got, strict=True):
        for i, j in itertools.product(range(12), range(12)):
            h, s, v = colorsys.rgb_to_hsv(*frame[:, i, j].tolist())
            near(changed[:, i, j], 255 * torch.tensor(colorsys.hsv_to_rgb((h + factor) % 1, s, v)))


def test_gray(clip: Tensor) -> None:
    got = dataclasses.replace(WHOLE, gray=True)(clip)
    for frame, changed in zip(clip.double(), got, strict=True):
        for i, j in itertools.product(range(12), range(12)):
            near(changed[:, i, j], torch.tensor([luma(frame[:, i, j])] * 3))


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur_is_a_weighted_mean_of_neighbors(clip: Tensor, sigma: float) -> None:
    got = dataclasses.replace(WHOLE, sigma=sigma)(clip[..., :12, :12])
    radius = math.ceil(3 * sigma)
    steps = range(-radius, radius + 1)
    for i, j in ((0, 0), (5, 6), (11, 3)):
        total, weights = torch.zeros(3, 3).double(), 0.0
        for a, b in itertools.product(steps, steps):
            weight = math.exp(-(a * a + b * b) / (2 * sigma**2))
            total += weight * clip[..., min(max(i + a, 0), 11), min(max(j + b, 0), 11)]
            weights += weight
        near(got[..., i, j], total / weights, 0.51)


def test_blur_keeps_a_constant_and_works_on_other_shapes() -> None:
    flat = torch.full((1, 3, 5, 9), 77, dtype=torch.uint8)
    assert torch.equal(blurred(flat, 1.3), flat)
    wide = torch.zeros(1, 3, 5, 9, dtype=torch.uint8)
    wide[..., 2, 4] = 255
    spread = blurred(wide, 1.0)
    assert torch.equal(spread[..., 2, 1:8], spread[..., 2, 1:8].flip(-1))
    assert torch.equal(spread[..., :, 4], spread[..., :, 4].flip(-1))


def test_solarize(clip: Tensor) -> None:
    got = dataclasses.replace(WHOLE, solarize=True)(clip)
    expected = [255 - v if v >= 128 else v for v in clip.flatten().tolist()]
    assert got.flatten().tolist() == expected
    edge = torch.tensor([127, 128]).byte().expand(1, 3, 2, 2)
    assert View(0, 0, 2, 2, 2, solarize=True)(edge)[0, 0, 0].tolist() == [127, 127]


def test_operations_are_applied_in_the_order_of_the_fields(clip: Tensor) -> None:
    """All operations at once equal one after the other, jitter in the given order."""
    jitter = (("hue", 0.1), ("contrast", 1.4), ("brightness", 0.7), ("saturation", 1.2))
    at_once = View(2, 1, 8, 9, 12, True, jitter, True, 1.0, True)
    steps = [View(2, 1, 8, 9, 12), dataclasses.replace(WHOLE, flip=True)]
    steps += [dataclasses.replace(WHOLE, jitter=(one,)) for one in jitter]
    steps += [dataclasses.replace(WHOLE, **{k: v}) for k, v in [("gray", True), ("sigma", 1.0)]]
    steps += [dataclasses.replace(WHOLE, solarize=True)]
    one_by_one = clip
    for step in steps:
        one_by_one = step(one_by_one)
    assert torch.equal(at_once(clip), one_by_one)
    other = dataclasses.replace(at_once, jitter=jitter[::-1], gray=False)
    assert not torch.equal(other(clip), dataclasses.replace(at_once, gray=False)(clip))


# ---------------------------------------------------------------- clips


def test_shapes_and_unchanged_inputs(clip: Tensor) -> None:
    before = clip.clone()
    crops = MultiCrop(large=10, small=6, smalls=3)(clip, 1)
    assert {k: (tuple(v.shape), v.dtype) for k, v in crops.items()} == {
        "large": ((2, 3, 3, 10, 10), torch.uint8),
        "small": ((3, 3, 3, 6, 6), torch.uint8),
    }
    assert torch.equal(clip, before)
    assert MultiCrop(large=10, smalls=0)(clip, 1).keys() == {"large"}


def test_a_view_is_the_same_in_all_frames(clip: Tensor) -> None:
    """Each frame alone gives the same result as within the clip: nothing is drawn per frame."""
    crop = MultiCrop(large=10, small=6)
    for key in range(30):
        whole = crop(clip, key)
        for t in range(3):
            alone = crop(clip[t : t + 1], key)
            assert torch.equal(whole["large"][:, t], alone["large"][:, 0])
            assert torch.equal(whole["small"][:, t], alone["small"][:, 0])


def test_the_views_are_the_drawn_ones(clip: Tensor) -> None:
    crop = MultiCrop(large=10, small=6, smalls=4)
    for key in range(10):
        crops, views = crop(clip, key), crop.draw(12, 12, key)
        assert len(views) == 6
        for number, view in enumerate(views):
            got = crops["large"][number] if number < 2 else crops["small"][number - 2]
            assert torch.equal(got, view(clip))


# ---------------------------------------------------------------- draws


@pytest.fixture(scope="module")
def drawn() -> list[list[View]]:
    crop = MultiCrop()
    return [crop.draw(300, 300, key) for key in range(KEYS)]


def rate(hits: list[bool], p: float) -> None:
    assert abs(sum(hits) - len(hits) * p) <= 5 * math.sqrt(len(hits) * p * (1 - p))


def test_defaults_of_the_thesis_and_of_dino(drawn: list[list[View]]) -> None:
    """6.5.2 and 6.5.3: two global crops of [0.4, 1], six local ones of [0.05, 0.4]."""
    assert all(len(views) == 8 for views in drawn)
    assert {v.size for views in drawn for v in views[:2]} == {224}
    assert {v.size for views in drawn for v in views[2:]} == {96}
    first, second, small = ([w for v in drawn for w in v[s]] for s in PARTS)
    rate([v.solarize for v in second], 0.2)
    rate([v.sigma > 0 for v in second], 0.1)
    rate([v.sigma > 0 for v in small], 0.5)
    assert all(v.sigma > 0 and not v.solarize for v in first)
    assert not any(v.solarize for v in small)
    for part in (first, second, small):
        rate([v.flip for v in part], 0.5)
        rate([bool(v.jitter) for v in part], 0.8)
        rate([v.gray for v in part], 0.2)


PARTS = (slice(0, 1), slice(1, 2), slice(2, None))


def uniform(values: list[float], low: float, high: float) -> None:
    """All values are in the range, and a quarter of them in each quarter of it."""
    assert all(low <= v <= high for v in values)
    for quarter in range(4):
        edge = [low + (high - low) * (quarter + k) / 4 for k in (0, 1)]
        rate([edge[0] <= v < edge[1] for v in values], 0.25)


def test_blur_and_jitter_are_uniform(drawn: list[list[View]]) -> None:
    views = [v for part in drawn for v in part]
    uniform([v.sigma for v in views if v.sigma], 0.1, 2.0)
    jitters = [dict(v.jitter) for v in views if v.jitter]
    uniform([j["brightness"] for j in jitters], 0.6, 1.4)
    uniform([j["contrast"] for j in jitters], 0.6, 1.4)
    uniform([j["saturation"] for j in jitters], 0.8, 1.2)
    uniform([j["hue"] for j in jitters], -0.1, 0.1)
    orders = Counter(tuple(name for name, _ in v.jitter) for v in views if v.jitter)
    assert len(orders) == 24
    for count in orders.values():
        n = len(jitters)
        assert abs(count - n / 24) < 5 * math.sqrt(n / 24)


def test_crops_are_uniform_in_area_and_log_ratio() -> None:
    """If all draws fit; in a frame of 300x300 draws of large area do not."""
    crop = MultiCrop(large_scale=(0.1, 0.5), smalls=2)
    drawn = [crop.draw(900, 900, key) for key in range(KEYS)]
    for part, low, high in ((slice(2), 0.1, 0.5), (slice(2, 4), 0.05, 0.4)):
        areas = [v.height * v.width / 900**2 for views in drawn for v in views[part]]
        uniform(areas, low - 5e-4, high + 5e-4)
    views = [v for views in drawn for v in views]
    uniform([math.log(v.width / v.height) for v in views], math.log(0.747), math.log(1.339))
    uniform([v.top / (900 - v.height) for v in views], 0, 1)
    uniform([v.left / (900 - v.width) for v in views], 0, 1)


def test_all_positions_occur() -> None:
    """A crop one pixel smaller than the frame has two positions along each side."""
    crop = MultiCrop(large_scale=(0.81, 0.81), smalls=0, ratio=(1, 1))
    places = Counter((v.top, v.left) for key in range(400) for v in crop.draw(10, 10, key))
    assert places.keys() == set(itertools.product((0, 1), (0, 1)))
    for count in places.values():
        assert abs(count - 200) < 5 * math.sqrt(800 * 0.25 * 0.75)


def test_crops_lie_within_the_frame() -> None:
    crop = MultiCrop(smalls=2)
    for height, width in ((300, 300), (7, 200), (200, 7), (1, 1), (33, 40)):
        for key in range(100):
            for v in crop.draw(height, width, key):
                assert 0 <= v.top <= height - v.height and 0 <= v.left <= width - v.width
                assert min(v.height, v.width) >= 1


def test_if_no_draw_fits_the_largest_central_crop_is_used() -> None:
    crop = MultiCrop(large_scale=(0.9, 1.0), smalls=0)
    for height, width, expected in ((9, 100, (0, 44, 9, 12)), (100, 9, (44, 0, 12, 9))):
        for v in crop.draw(height, width, 5):
            assert (v.top, v.left, v.height, v.width) == expected


def test_draws_depend_on_the_key_alone() -> None:
    crop = MultiCrop()
    torch.manual_seed(1)
    first = crop.draw(300, 200, 7)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert crop.draw(300, 200, 7) == first
    torch.manual_seed(1)
    clip = torch.zeros(2, 3, 30, 30, dtype=torch.uint8)
    crop(clip, 7)
    assert torch.equal(torch.get_rng_state(), state)
    others = crop.draw(300, 200, 8)
    assert all(mine != other for mine, other in zip(first, others, strict=True))
    assert len(set(first)) == 8


def test_views_do_not_depend_on_their_number_or_on_other_settings() -> None:
    views = MultiCrop().draw(300, 300, 3)
    assert MultiCrop(smalls=2).draw(300, 300, 3) == views[:4]
    plain = MultiCrop(jitter_p=0, gray=0, blur=(0, 0, 0), flip=0, solarize=(0, 0, 0))
    for mine, other in zip(plain.draw(300, 300, 3), views, strict=True):
        assert mine == View(other.top, other.left, other.height, other.width, other.size)


def test_zero_jitter_is_omitted() -> None:
    views = MultiCrop(jitter=(0.4, 0, 0.2, 0), jitter_p=1).draw(30, 30, 0)
    assert all({name for name, _ in v.jitter} == {"brightness", "saturation"} for v in views)


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({"large": 0}, "large, small >= 1 and smalls >= 0"),
        ({"smalls": -1}, "large, small >= 1 and smalls >= 0"),
        ({"large_scale": (0.5, 0.4)}, "scales with 0 < low <= high <= 1"),
        ({"small_scale": (0.0, 0.4)}, "scales with 0 < low <= high <= 1"),
        ({"large_scale": (0.5, 1.1)}, "scales with 0 < low <= high <= 1"),
        ({"ratio": (0, 1)}, "a ratio with 0 < low <= high"),
        ({"sigma": (2, 1)}, "a sigma with 0 < low <= high"),
        ({"flip": 1.5}, r"probabilities in \[0, 1\]"),
        ({"blur": (0.5, 2, 0)}, r"probabilities in \[0, 1\]"),
        ({"blur": (0.5, 0.5)}, "three probabilities in blur and in solarize"),
        ({"jitter": (0.4, 0.4, 0.2)}, "four numbers in jitter"),
        ({"jitter": (0.4, 0.4, 0.2, 0.6)}, r"four numbers in jitter, in \[0, 1\], the last in"),
    ],
)
def test_invalid_settings(settings: dict, needed: str) -> None:
    with pytest.raises(ValueError, match=rf"MultiCrop needs {needed}.*, got MultiCrop\("):
        MultiCrop(**settings)


def test_from_keys() -> None:
    own = MultiCrop(smalls=1)
    assert multicrop_of(own) is own and multicrop_of(None) == MultiCrop()
    given = {"large": 64, "large_scale": [0.5, 1.0]}
    assert multicrop_of(given) == MultiCrop(large=64, large_scale=(0.5, 1.0))
    assert given == {"large": 64, "large_scale": [0.5, 1.0]}
    with pytest.raises(KeyError, match=r"MultiCrop has no key 'smals'.*smalls"):
        multicrop_of({"smals": 2})


@pytest.mark.parametrize("shape", [(3, 12, 12), (2, 1, 12, 12), (0, 3, 12, 12)])
def test_invalid_clips(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"needs a uint8 clip \(T, 3, H, W\), got \("):
        MultiCrop()(torch.zeros(shape, dtype=torch.uint8), 0)
    with pytest.raises(ValueError, match=r"got \(1, 3, 4, 4\) of torch.float32"):
        MultiCrop()(torch.zeros(1, 3, 4, 4), 0)
