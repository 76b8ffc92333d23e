"""Scores of a test set against loops over thresholds; maps that are all right or all wrong."""

from __future__ import annotations

import pytest
import torch
from reference import localization as naive
from torch import Tensor

from mixplug.functional.localization import heat_of_map
from mixplug.metrics.localization import Localization


def test_all_scores_by_loops(dtype: torch.dtype) -> None:
    """In batches of 14, 1 and 9 images, with boxes drawn at random."""
    corners = torch.rand(24, 2, dtype=dtype) * 6
    truths = list(torch.cat([corners, corners + 2 + 4 * torch.rand(24, 2)], 1).to(dtype)[:, None])
    maps = heat_of_map(torch.rand(24, 3, 4, dtype=dtype), (9, 12))
    for one, box in zip(maps, truths, strict=True):
        left, top, end, bottom = box[0].round().int().tolist()
        one[top:bottom, left:end] += 0.5  # seen, but not well
    heat = heat_of_map(maps, (9, 12))
    right = torch.arange(24) % 2 > 0
    scores = Localization(threshold=0.6, steps=10)
    located = []
    for part in torch.arange(24).split([14, 1, 9]):
        located += scores.update(heat[part], [truths[i] for i in part], right[part])
    found, thresholds = scores.compute(), [step / 10 for step in range(10)]
    assert len(scores) == 24

    hits = []
    for image, one in enumerate(located):
        iou = naive.overlap(heat[image], truths[image], 0.6, every=False)
        assert one.iou == pytest.approx(iou)
        assert one.box.tolist() == list(naive.boxes(heat[image], 0.6)[0])
        hits.append(iou >= 0.5)
    assert found["top1"] == 12 / 24
    assert found["gt_known_localization"] == sum(hits) / 24
    both = [hit and bool(r) for hit, r in zip(hits, right, strict=True)]
    assert found["top1_localization"] == sum(both) / 24
    assert 0 < sum(both) < sum(hits) < 24

    name, v2 = "max_box_acc", []
    expected = naive.max_box_accuracy(heat, truths, thresholds, 0.5, every=False)
    assert (found[name], found[f"{name}_threshold"]) == expected
    for least in (0.3, 0.5, 0.7):
        expected = naive.max_box_accuracy(heat, truths, thresholds, least, every=True)
        name = f"max_box_acc_v2@{least}"
        assert (found[name], found[f"{name}_threshold"]) == expected
        v2.append(expected[0])
    assert found["max_box_acc_v2"] == pytest.approx(sum(v2) / 3)
    assert len(set(v2)) == 3


def square() -> tuple[Tensor, list[Tensor]]:
    heat = torch.zeros(2, 10, 10)
    heat[:, 2:7, 3:9] = 1
    return heat, [torch.tensor([[3.0, 2.0, 9.0, 7.0]])] * 2


def test_perfect_maps() -> None:
    scores = Localization()
    heat, truths = square()
    located = scores.update(heat, truths, torch.tensor([True, True]))
    assert [(one.box.tolist(), one.iou) for one in located] == [([3, 2, 9, 7], 1)] * 2
    found = scores.compute()
    assert all(v == (0 if k.endswith("_threshold") else 1) for k, v in found.items())


def test_the_right_component_is_not_the_largest() -> None:
    """MaxBoxAcc takes the largest alone, MaxBoxAccV2 any; both are as strong at all thresholds."""
    heat, truths = square()
    heat[1, 9] = 1  # 10 pixels below the square of 30 ...
    heat[1, 2:7, 3:9] = 0
    heat[1, 2:4, 3:6] = 1  # ... of which now 6 are left
    scores = Localization()
    scores.update(heat, [truths[0], torch.tensor([[3.0, 2.0, 6.0, 4.0]])], torch.ones(2).bool())
    found = scores.compute()
    assert (found["max_box_acc"], found["gt_known_localization"]) == (0.5, 0.5)
    assert found["max_box_acc_v2"] == found["max_box_acc_v2@0.5"] == 1


def test_maps_without_anything() -> None:
    scores = Localization()
    heat, truths = square()
    located = scores.update(0 * heat, truths, torch.tensor([True, False]))
    assert [(one.box, one.iou) for one in located] == [(None, 0.0)] * 2
    found = scores.compute()
    assert found.pop("top1") == 0.5 and not any(found.values())


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"threshold in \[0, 1\) and steps >= 1, got 1.0 and 100"):
        Localization(1.0)
    with pytest.raises(ValueError, match=r"got 0.15 and 0"):
        Localization(steps=0)
    with pytest.raises(ValueError, match="has seen no image"):
        Localization().compute()
    heat, truths = square()
    with pytest.raises(ValueError, match=r"got \(2, 10, 10\), 1 and \(2,\)"):
        Localization().update(heat, truths[:1], torch.ones(2).bool())
    with pytest.raises(ValueError, match="at least one true box"):
        Localization().update(heat, [torch.zeros(0, 4)] * 2, torch.ones(2).bool())
