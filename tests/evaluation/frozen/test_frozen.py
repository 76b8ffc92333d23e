"""Class tokens of several blocks against timm's own, and what a frozen network is told by."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from weights.made import timm_vit

from mixplug.evaluation.frozen.frozen import Frozen
from mixplug.evaluation.results import write_results
from mixplug.models.vit.encoder import as_encoder


@pytest.mark.parametrize("keys", [{}, {"reg_tokens": 2}, {"global_pool": "avg", "fc_norm": True}])
def test_class_tokens_of_blocks(keys: dict[str, object]) -> None:
    vit = timm_vit(depth=3, **keys)
    frozen = Frozen(as_encoder(vit), "made")
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(c)[:, None, None] for c in ((0.485, 0.456, 0.406),
                                                          (0.229, 0.224, 0.225)))  # fmt: skip
    plain = (images.float() / 255 - mean) / std
    with torch.no_grad():
        raw = vit.forward_intermediates(
            plain, return_prefix_tokens=True, intermediates_only=True, output_fmt="NLC"
        )
        norm = vit.norm if not isinstance(vit.norm, nn.Identity) else vit.fc_norm
        every = [norm(prefix[:, 0]) for _, prefix in raw]
    for blocks in (1, 2, 3):
        found = frozen.class_tokens(images, blocks)
        assert_close(found, torch.cat(every[-blocks:], -1), rtol=1e-4, atol=1e-4)
    assert not any(block._forward_hooks for block in vit.blocks)
    for blocks in (0, 4):
        with pytest.raises(ValueError, match=rf"blocks in \[1, 3\], .* got {blocks}"):
            frozen.class_tokens(images, blocks)


def test_of_a_checkpoint(tmp_path: Path) -> None:
    vit = timm_vit()
    torch.save({"model": vit.state_dict()}, tmp_path / "vit.pth")
    frozen = Frozen.of(tmp_path / "vit.pth", device="cpu")
    assert "vit.pth" in frozen.source and frozen.device.type == "cpu"
    assert not any(p.requires_grad for p in frozen.encoder.backbone.parameters())
    assert frozen.fingerprint() == Frozen(as_encoder(vit), "").fingerprint()
    with torch.no_grad():
        vit.blocks[1].mlp.fc2.bias[3] += 1e-3
    assert frozen.fingerprint() != Frozen(as_encoder(vit), "").fingerprint()
    with pytest.raises(ValueError, match="cannot be moved to nowhere"):
        Frozen.of(tmp_path / "vit.pth", device="nowhere")


def test_colors_of_timms_own(monkeypatch) -> None:
    """A model with weights of timm is shown images as it was trained on."""
    vit = timm_vit()
    vit.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.2, 0.1)}
    monkeypatch.setattr("mixplug.evaluation.frozen.frozen.vit_of", lambda *_: (vit, None))
    frozen = Frozen.of("timm:some", device="cpu")
    images = torch.tensor([255, 51, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    assert_close(frozen.normalized(images).flatten(), torch.tensor([1.0, -1.0, -3.0]))


def test_results_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be written to"):
        write_results(tmp_path / "file", "x", {})
