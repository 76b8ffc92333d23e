"""Attacks by name: complete settings, how they are called, and that they are those functions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixplug.functional import fgsm, pgd
from mixplug.metrics.robustness import Attack


def model(x: Tensor) -> Tensor:
    source = torch.Generator().manual_seed(3)
    weight = torch.randn(12, 4, generator=source)
    return x.flatten(1) @ weight


def test_defaults_are_among_the_settings() -> None:
    assert Attack("fgsm").keys == {"eps": 8 / 255}
    keys = {"eps": 4 / 255, "step": 2 / 255, "iters": 3, "random_start": False}
    assert Attack("pgd", {"iters": 3.0}).keys == keys
    assert (Attack("fgsm").steps, Attack("pgd").steps, Attack("apgd", {"iters": 7}).steps) == (
        1, 10, 7,
    )  # fmt: skip
    drawn = [Attack("fgsm"), Attack("pgd"), Attack("pgd", {"random_start": 1}), Attack("apgd")]
    assert [one.drawn for one in drawn] == [False, False, True, True]


def test_they_are_called_by_their_settings() -> None:
    assert str(Attack("fgsm")) == "FGSM 8/255"
    assert str(Attack("fgsm", {"eps": 0.1})) == "FGSM 0.1"
    assert str(Attack("pgd", {"random_start": True})) == (
        "PGD 4/255, step 2/255, 10 iterations, random start"
    )
    assert str(Attack("apgd", {"eps": 8 / 255})) == "APGD 8/255, 10 iterations"


def test_they_are_the_functions() -> None:
    x, y = torch.rand(5, 3, 2, 2), torch.arange(5) % 4
    assert torch.equal(Attack("fgsm", {"eps": 0.1})(model, x, y, 0), fgsm(model, x, y, 0.1))
    keys = {"eps": 0.1, "step": 0.03, "iters": 1, "random_start": True}
    attack, source = Attack("pgd", keys), torch.Generator().manual_seed(9)
    assert torch.equal(attack(model, x, y, 9), pgd(model, x, y, **keys, generator=source))
    assert not torch.equal(attack(model, x, y, 9), attack(model, x, y, 8))


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="no attack 'cw', only fgsm, pgd, apgd"):
        Attack("cw")
    with pytest.raises(KeyError, match=r"'pgd' has no key 'epsilon'"):
        Attack("pgd", {"epsilon": 1})
    with pytest.raises(ValueError, match=r"step in .* such as 8/255, .* got 2"):
        Attack("pgd", {"step": 2})
    with pytest.raises(ValueError, match="iters to be a whole number >= 1, got 0"):
        Attack("pgd", {"iters": 0})
