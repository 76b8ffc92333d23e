"""Top-k accuracy against a loop over classes."""

from __future__ import annotations

import pytest
import torch

from mixplug.functional import top_k_correct


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_top_k_equals_the_loop(k: int, dtype: torch.dtype) -> None:
    logits, labels = torch.randn(40, 6, dtype=dtype), torch.randint(6, (40,))
    wanted = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        larger = sum(value > row[label] for value in row)
        wanted.append(larger < k)
    found = top_k_correct(logits, labels, k)
    assert found.tolist() == wanted
    assert bool(found.all()) == (k == 9)  # more than there are classes


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"k >= 1, .* got 0, \(2, 3\) and \(2,\)\."):
        top_k_correct(torch.zeros(2, 3), torch.tensor([0, 1]), 0)
    with pytest.raises(ValueError, match=r"got 1, \(2, 3\) and \(1,\)\."):
        top_k_correct(torch.zeros(2, 3), torch.tensor([0]), 1)
