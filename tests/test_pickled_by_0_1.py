"""Whole models that mixplug 0.1 pickled (with ``torch.save(model)``) work as they did."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from mixplug import AlignMixup, Stages, sampling
from mixplug.hosts.retype import retyped

_FOLDER = Path(__file__).with_name("pickled_by_0_1")


def load(name: str) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the old paths
        found: dict[str, Any] = torch.load(_FOLDER / f"{name}.pt", weights_only=False)
    return found


@pytest.mark.parametrize("name", ["timm", "mm"])
def test_models_give_their_logits(name: str) -> None:
    pickled = load(name)
    torch.testing.assert_close(pickled["model"](pickled["x"]), pickled["logits"])


def test_a_model_in_stages_mixes_on() -> None:
    """A new ``Stages`` of the same model, which has none of 0.1's hooks, is the reference."""
    pickled = load("loop")
    stages, mixer, x = pickled["stages"], pickled["mixer"], pickled["x"]
    y = torch.tensor([0, 1, 2, 0])
    assert type(stages) is Stages
    assert mixer == AlignMixup()
    torch.testing.assert_close(stages(x).logits, pickled["logits"])
    fresh = Stages(stages.model, features="0", classifier="5", last="2")
    for step in range(4):
        mixed, expected = (
            mixer(each, x, y, sampling.generators(0, step, 0), 0, step) for each in (stages, fresh)
        )
        torch.testing.assert_close(mixed.logits, expected.logits)
        torch.testing.assert_close(mixed.target, expected.target)


def test_a_model_of_openmmlab_trains_on() -> None:
    pytest.importorskip("mmpretrain")
    from mmpretrain.structures import DataSample

    from mixplug.hosts.mm.mixing.classifier import MixedLoss

    pickled = load("mm")
    model = pickled["model"].train()
    assert retyped(model, MixedLoss)
    assert isinstance(model.stages, Stages)
    samples = [DataSample().set_gt_label(label) for label in (0, 1)]
    loss = model.loss(pickled["x"], samples)["loss"]
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_a_metric_loss_has_its_value() -> None:
    pytest.importorskip("pytorch_metric_learning")
    pickled = load("loss")
    torch.testing.assert_close(
        pickled["loss"].unmixed(pickled["e"], pickled["y"]), pickled["value"]
    )
