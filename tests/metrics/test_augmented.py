"""Mixtures of training embeddings: with whom, with what λ, how often."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from mixplug import sampling
from mixplug.metrics.augmented import mixed_embeddings

LABELS = torch.tensor([7, 2, 2, 5, 7, 2])


def test_partners_are_of_other_classes_and_uniform() -> None:
    """Of 6000 draws every item of another class gets its share, within 5 standard deviations."""
    source = torch.Generator().manual_seed(0)
    count = torch.zeros(6, 6)
    for _ in range(6000):
        count[torch.arange(6), sampling.other_class(LABELS, source)] += 1
    other = LABELS[:, None] != LABELS
    assert not count[~other].any()
    p = other / other.sum(1, keepdim=True)
    assert ((count / 6000 - p).abs() <= 5 * (p * (1 - p) / 6000).sqrt()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mixtures_lie_between_two_classes(dtype: torch.dtype) -> None:
    """On the arc from the unit vector itself to a partner's, λ = Beta(2, 2) of the way."""
    e = torch.eye(6, dtype=dtype) * torch.arange(1, 7, dtype=dtype)[:, None]  # lengths do not count
    before = e.clone()
    mixed = mixed_embeddings(e, LABELS, epochs=500)
    assert torch.equal(e, before) and mixed.shape == (3000, 6) and mixed.dtype == dtype
    assert_close(mixed.norm(dim=1), torch.ones(3000, dtype=dtype))
    assert ((mixed > 0).sum(1) == 2).all()
    own = torch.arange(6).repeat(500)
    partner = (mixed * (1 - torch.eye(6, dtype=dtype)[own])).argmax(1)
    assert (LABELS[own] != LABELS[partner]).all()
    a, b = mixed.gather(1, own[:, None])[:, 0], mixed.gather(1, partner[:, None])[:, 0]
    lam = a / (a + b)
    assert abs(lam.mean().item() - 0.5) < 5 * (0.05 / 3000) ** 0.5
    assert abs(lam.var().item() - 0.05) < 0.005  # of Beta(2, 2); of a uniform λ it is 0.083


def test_the_seed_gives_the_mixtures_and_epochs_differ() -> None:
    e = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    two = mixed_embeddings(e, LABELS, epochs=2, seed=4)
    assert torch.equal(two[:6], mixed_embeddings(e, LABELS, seed=4))
    assert not torch.equal(two[:6], two[6:])
    assert not torch.equal(two[:6], mixed_embeddings(e, LABELS, seed=5))


def test_what_cannot_be_mixed_is_said() -> None:
    with pytest.raises(ValueError, match="all 3 labels are equal"):
        mixed_embeddings(torch.eye(3), torch.zeros(3).long())
    with pytest.raises(ValueError, match="epochs >= 1 and alpha > 0, got 0, 2"):
        mixed_embeddings(torch.eye(3), torch.arange(3), epochs=0)
