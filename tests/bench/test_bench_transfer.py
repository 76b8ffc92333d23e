"""``mixplug bench transfer``: its rows, and that both sides of a ratio compute the same."""

from __future__ import annotations

import pytest
import torch

from mixplug.bench import roi, transfer
from mixplug.models.vit import timm_model
from mixplug.models.vit.timm_vit import TimmViT

CPU = torch.device("cpu")


def test_the_backbone_against_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_SIDES", (32, 48))
    monkeypatch.setattr(transfer, "_NAME", "vit_tiny_patch16_224")
    ticks: list[int] = []
    (row,) = transfer.vit_rows(CPU, 2, lambda: ticks.append(1))
    assert (row.bound, row.at_least) == (1.03, False)
    assert len(ticks) == 2 * 3  # two alternatives, two rounds and a warm-up
    assert 0.1 < row.value < 10


def test_both_sides_give_the_same_maps() -> None:
    ours, timms = TimmViT("vit_tiny_patch16_224"), timm_model("vit_tiny_patch16_224")
    timms.load_state_dict(ours.model.state_dict(), strict=False)
    x = torch.randn(1, 3, 32, 48)
    wanted = timms.forward_intermediates(x, [3, 5, 7, 11], intermediates_only=True)
    torch.testing.assert_close(list(ours(x)), wanted)


def test_rows_contain_the_measured_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "measure_davis", lambda device, tick: (0.5, 88_000_000))
    fps, peak = transfer.davis_rows(CPU, 1, lambda: None)
    assert (fps.value, peak.value, peak.unit) == (0.5, 88.0, "MB")
    monkeypatch.setattr(roi, "measure_roi", lambda rounds, device, tick: 1.5)
    (row,) = transfer.roi_rows(CPU, 1, lambda: None)
    assert (row.value, row.bound, row.met) == (1.5, 1.03, False)
    assert list(transfer.GROUPS) == ["vit", "roi", "davis"]
