"""Batches of a loader become normalized views."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from mixplug.models.self_distillation import Views
from mixplug.models.self_distillation.views import normalized


def test_colors_of_imagenet() -> None:
    images = torch.zeros(2, 3, 1, 1, dtype=torch.uint8)
    images[1] = 255
    before = images.clone()
    found = normalized(images)
    assert found.dtype == torch.float32 and torch.equal(images, before)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    assert_close(found[0, :, 0, 0], -mean / std, rtol=1e-5, atol=0)
    assert_close(found[1, :, 0, 0], (1 - mean) / std, rtol=1e-5, atol=0)


def test_views_of_a_stacked_batch() -> None:
    """A loader stacks clips first, a method wants views first."""
    large = torch.randint(256, (4, 2, 3, 3, 8, 8), dtype=torch.uint8)
    small = torch.randint(256, (4, 5, 3, 3, 4, 4), dtype=torch.uint8)
    views = Views.of({"large": large, "small": small, "time": torch.zeros(4)}, "cpu")
    assert views.large.shape == (2, 4, 3, 3, 8, 8) and views.small.shape == (5, 4, 3, 3, 4, 4)
    assert torch.equal(views.large[1, 2], normalized(large[2, 1]))
    assert torch.equal(views.small[4, 0], normalized(small[0, 4]))
    assert Views.of({"large": large}).small is None
