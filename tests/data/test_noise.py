"""Noise: its distribution, and on what an image depends."""

from __future__ import annotations

import math

import pytest
import torch

from mixplug.data.noise import Noise

SHAPE = (3, 32, 32)


def below(kind: str, x: float) -> float:
    """P(pixel <= x), computed by hand."""
    return x if kind == "uniform" else 0.5 * (1 + math.erf((x - 0.5) / (0.5 * math.sqrt(2))))


@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
def test_distribution(kind: str) -> None:
    data = Noise(kind, 20, SHAPE, seed=1)
    x = torch.stack([data[i] for i in range(len(data))])
    assert x.shape == (20, *SHAPE) and x.dtype == torch.float32
    assert x.min() >= 0 and x.max() <= 1
    for at in (0.1, 0.25, 0.5, 0.8):
        assert float((x <= at).double().mean()) == pytest.approx(below(kind, at), abs=0.01)
    ends = {"uniform": 0.0, "gaussian": 0.1587}[kind]  # P(N(0, 1) < -1) are clamped
    assert float((x == 0).double().mean()) == pytest.approx(ends, abs=0.01)
    assert float((x == 1).double().mean()) == pytest.approx(ends, abs=0.01)


@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
def test_an_image_depends_on_seed_and_index_alone(kind: str) -> None:
    data, before = Noise(kind, 5, SHAPE, seed=3), torch.get_rng_state()
    images = [data[i] for i in range(5)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(Noise(kind, 9, SHAPE, seed=3)[4], images[4])
    assert len({float(image.sum()) for image in images}) == 5
    assert not torch.equal(Noise(kind, 5, SHAPE, seed=4)[0], images[0])
    assert len(list(data)) == 5


def test_invalid_arguments() -> None:
    with pytest.raises(ValueError, match=r"kind must be one of uniform, gaussian; got 'salt'"):
        Noise("salt", 1, SHAPE)
    for count, shape in ((0, SHAPE), (1, (32, 32)), (1, (3, 0, 2))):
        with pytest.raises(ValueError, match="Noise needs count >= 1 and a shape"):
            Noise("uniform", count, shape)
    with pytest.raises(IndexError, match=r"The index must be in \[0, 2\), got 2"):
        Noise("uniform", 2, SHAPE)[2]
