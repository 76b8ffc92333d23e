"""``mixplug bench eval``: its rows, and that both sides make the same passes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mixplug.bench import card

CPU = torch.device("cpu")


class Counting(nn.Module):
    """Counts the images that pass through it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.act = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, 10)
        self.images = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.images += len(x)
        return self.fc(self.pool(self.act(self.conv(x))).flatten(1))


def test_card_and_bare_loop_make_the_same_number_of_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    networks: list[Counting] = []

    def network(*args: object, **keys: object) -> Counting:
        networks.append(Counting())
        networks[-1].stages = nn.ModuleDict({"2": nn.ModuleDict({"0": nn.Identity()})})
        return networks[-1]

    def stages(model: nn.Module, *names: str) -> card.mixplug.Stages:
        return real(model, "conv", "fc", "act")

    real = card.mixplug.Stages
    monkeypatch.setattr(card, "WideResNet", network)
    monkeypatch.setattr(card.mixplug, "Stages", stages)
    monkeypatch.setattr(card, "write_card", lambda *arguments: [])
    rows = list(card.card_rows(60, CPU, 1, lambda: None))
    per_image = 4 + (1 + 1) + (10 + 1)  # test, train, two noises; two attacks with a final pass
    assert networks[0].images == (32 + 2 * 60) * per_image  # warm-up, bare loop, card
    assert (rows[0].bound, rows[0].at_least) == (1.2, False)
