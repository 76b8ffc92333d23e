"""The benchmark of a detector's step: the steps, and the ratio."""

from __future__ import annotations

import pytest
import torch
from hosts.mm.mixing.test_detector import detector
from mmengine.config import Config

from mixplug.bench import roi
from mixplug.mixers.multimix import MultiMix


def test_the_result_is_the_median_of_the_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"plain": [1.0, 4.0, 2.0], "mixed": [3.0, 2.0, 2.0]}
    monkeypatch.setattr(roi, "_steps", lambda *_: {})
    monkeypatch.setattr(roi, "in_turns", lambda *_: seconds)
    assert roi.measure_roi() == 1.0


def test_steps_alternate_on_the_same_rois(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the mixed model calls the mixer, once per step."""
    rows, ticks = [], []
    plain = MultiMix.mix_rows
    monkeypatch.setattr(
        MultiMix, "mix_rows", lambda *args: rows.append(len(args[1])) or plain(*args)
    )
    config = Config(detector())
    value = roi.measure_roi(2, "cpu", lambda: ticks.append(len(rows)), config, 64)
    assert value > 0
    assert ticks == [0, 1, 1, 2, 2, 3]
    assert len(set(rows)) == 1


def test_both_models_start_equal_and_learn() -> None:
    config = Config(detector())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roi, "_step", lambda model, *_: model)
        plain, mixed = roi._steps(torch.device("cpu"), config, 64).values()
    assert not hasattr(plain, "clock") and hasattr(mixed, "clock")
    weights = [model.roi_head.bbox_head.fc_cls.weight for model in (plain, mixed)]
    before = weights[0].detach().clone()
    assert torch.equal(before, weights[1])
    for model in (plain, mixed):
        roi._step(model, torch.device("cpu"), 64)()
    assert not torch.equal(weights[0], before)
    assert not torch.equal(weights[1], before)
    assert not torch.equal(*weights)


def test_the_stock_model_downloads_nothing_and_samples_512_rois() -> None:
    config = roi._stock_config()
    assert config.backbone.init_cfg is None
    assert config.train_cfg.rcnn.sampler.num == 512
    assert (config.type, config.roi_head.bbox_head.num_classes) == ("FasterRCNN", 80)
