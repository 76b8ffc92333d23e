"""How the images were normalized, as a loop of one's own says it."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from toys import ConvNet, stages_of


@pytest.mark.parametrize(
    "given",
    [
        ((0.1, 0.2, 0.3), [0.5, 0.25, 0.125]),
        (torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.25, 0.125]).view(3, 1, 1)),
    ],
)
def test_they_make_images_of_the_input_again(given: tuple) -> None:
    images = torch.rand(2, 3, 4, 5)
    x = images.clone()
    for channel, (mean, std) in enumerate(((0.1, 0.5), (0.2, 0.25), (0.3, 0.125))):
        x[:, channel] = (images[:, channel] - mean) / std
    mean, std = stages_of(ConvNet(), pixels=given).pixels
    assert mean.shape == std.shape == (3, 1, 1)
    assert_close(x * std + mean, images)


def test_one_number_for_all_channels() -> None:
    mean, std = stages_of(ConvNet(), pixels=(0.5, 0.25)).pixels
    assert mean.tolist() == [[[0.5]]] and std.tolist() == [[[0.25]]]


def test_a_function_is_asked_once_it_is_known() -> None:
    known: list[tuple[float, float]] = []
    stages = stages_of(ConvNet(), pixels=lambda: known[0] if known else None)
    with pytest.raises(ValueError, match="It is not known how the images were normalized"):
        _ = stages.pixels
    known.append((0.5, 0.25))
    assert stages.pixels[0].item() == 0.5
    known[0] = (0.0, 1.0)
    assert stages.pixels[0].item() == 0.5  # not asked in every step


def test_not_known_says_what_to_pass() -> None:
    message = (
        r"It is not known how the images were normalized\. Say so with "
        r"Stages\(\.\.\., pixels=\(mean, std\)\), for images in \[0, 1\]"
    )
    with pytest.raises(ValueError, match=message):
        _ = stages_of(ConvNet()).pixels


def test_a_deviation_of_zero() -> None:
    with pytest.raises(ValueError, match="pixels needs a positive standard deviation, got 0"):
        _ = stages_of(ConvNet(), pixels=(0.5, 0)).pixels


def test_on_the_models_device() -> None:
    stages = stages_of(ConvNet().to("meta"), pixels=(0.5, 0.25))
    assert stages.pixels[0].device.type == "meta"
