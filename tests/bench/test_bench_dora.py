"""Both sides of ``mixplug bench dora`` compute the same; its results are printed, not tested."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from mixplug.bench import dora as bench
from mixplug.models.self_distillation import DINO, Views
from mixplug.models.vit.encoder import build_timm_vit


def tiny() -> bench.DoRA:
    vit = build_timm_vit("vit_tiny_patch16_224", img_size=48, depth=2, embed_dim=24, num_heads=4)
    return bench.DoRA(vit, objects=2, head={"out_dim": 16, "hidden": 12, "bottleneck": 8}).double()


def test_the_eager_step_has_the_same_losses_and_gradients() -> None:
    method = tiny()
    eager = bench.EagerDoRA.like(method)
    views = Views(
        torch.randn(2, 2, 3, 3, 48, 48).double(), torch.randn(2, 2, 3, 3, 32, 32).double()
    )
    terms, plain = method(views), eager(views)
    assert plain.keys() == {"loss_object", "loss_local"} <= terms.keys()
    for name, value in plain.items():
        assert_close(terms[name], value, msg=name)
    for each, its in ((method, terms), (eager, plain)):
        (its["loss_object"] + its["loss_local"]).backward()
        assert any(getattr(m, "fused_attn", False) for m in each.modules()) != (each is eager)
    for mine, other in zip(method.student.parameters(), eager.student.parameters(), strict=True):
        if mine.requires_grad:
            assert_close(mine.grad, other.grad)


@pytest.mark.parametrize(("group", "count"), [("step", 2), ("eager", 3)])
def test_rows_are_measured(group: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"img_size": 32, "depth": 1, "embed_dim": 24, "num_heads": 4}
    monkeypatch.setattr(bench, "build_timm_vit", lambda name: build_timm_vit(name, **keys))
    monkeypatch.setattr(bench, "ARCH", "vit_tiny_patch16_224")
    monkeypatch.setattr(bench, "OUTPUTS", 16)
    views = Views(torch.randn(2, 1, 8, 3, 32, 32), torch.randn(2, 1, 8, 3, 16, 16))
    monkeypatch.setattr(bench, "_views", lambda device: views)
    rows = list(bench.GROUPS[group](torch.device("cpu"), 2, lambda: None))
    assert len(rows) == count and all(row.value == row.value for row in rows)
    assert isinstance(bench._method(DINO, torch.device("cpu")), DINO)
