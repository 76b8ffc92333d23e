"""An unseen domain in mmengine: what the data set gives, what is sampled, what is measured."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import folders
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample

import mixplug.mm  # noqa: F401  registers
from mixplug.data.office_home import CLASSES
from mixplug.hosts.mm.evaluation.open_set import OpenSetAccuracy
from mixplug.registry import DATA_SAMPLERS, DATASETS


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(folders.office_home(tmp_path_factory.mktemp("data"), 2, CLASSES))


def of(root: str, split: str, **options: object):
    init_default_scope("mmpretrain")
    spec = {"type": "mixplug.OfficeHome", "target": "Product", "split": split, "data_root": root}
    pipeline = [{"type": "LoadImageFromFile"}, {"type": "PackInputs"}]
    return DATASETS.build({**spec, "pipeline": pipeline, **options})


def test_items_and_classes(root: str) -> None:
    test = of(root, "test")
    assert test.metainfo["classes"] == CLASSES[:54] and len(test) == 54
    item = test[0]
    assert item["inputs"].shape == (3, 10, 12) and int(item["data_samples"].gt_label) == 0
    assert Counter(test.get_data_info(i)["gt_label"] for i in range(54))[54] == 22
    assert {test.get_data_info(i)["domain"] for i in range(54)} == {2}
    assert len(of(root, "train")) == 78  # one of two images of 26 classes in 3 domains


def test_domains_are_drawn_alike(root: str, tmp_path: Path) -> None:
    """Clipart with 11 images of a class has most images and is not drawn more often for it."""
    other = folders.office_home(tmp_path / "home", 2, CLASSES)
    for folder in (other / "Clipart").iterdir():
        for number in range(3, 12):
            (folder / f"{number:05}.jpg").write_bytes((folder / "00001.jpg").read_bytes())
    train = of(str(other), "train")
    sizes = Counter(train.get_data_info(i)["domain"] for i in range(len(train)))
    assert sizes == {0: 26, 1: 234, 3: 26}
    spec = {"type": "mixplug.ClassBalancedSampler", "key": "domain", "length": 3000, "seed": 0}
    sampler = DATA_SAMPLERS.build(spec, default_args={"dataset": train})
    drawn = Counter(train.get_data_info(i)["domain"] for i in sampler)
    assert len(sampler) == 3000 and sorted(drawn) == [0, 1, 3]
    assert all(abs(count - 1000) < 100 for count in drawn.values())
    with pytest.raises(ValueError, match=r"Examples of OfficeHome have no 'place', only \['d"):
        DATA_SAMPLERS.build({**spec, "key": "place"}, default_args={"dataset": train})


def sample(scores: list[float], label: int) -> dict:
    return DataSample().set_gt_label(label).set_pred_score(torch.tensor(scores)).to_dict()


def test_scores_by_hand() -> None:
    """Confidences 0.9, 0.8 (wrong), 0.6 of known classes and 0.7, 0.5 of unknown ones.

    Thresholds are 0.5, 0.7 and 0.9, so known and unknown ones are right in 2/3 and 0, 1/3 and 1/2,
    1/3 and 1; of all five, 2, 2 and 3.
    """
    rows = [([0.9, 0.1], 0), ([0.2, 0.8], 0), ([0.4, 0.6], 1), ([0.7, 0.3], 2), ([0.5, 0.5], 2)]
    evaluator = Evaluator([{"type": "mixplug.OpenSetAccuracy", "thresholds": 3}])
    evaluator.process([sample(*row) for row in rows[:2]])
    evaluator.process([sample(*row) for row in rows[2:]])
    found = evaluator.evaluate(5)
    assert found == pytest.approx(
        {"known_accuracy": 200 / 3, "h_score": 100 * 2 * (1 / 3) / (4 / 3), "open_accuracy": 60.0}
    )


def test_without_unknown_classes_there_is_one_score() -> None:
    metric = OpenSetAccuracy()
    metric.process(None, [sample([0.1, 0.9], 1), sample([0.1, 0.9], 0)])
    assert metric.compute_metrics(metric.results) == {"known_accuracy": 50.0}


def test_what_is_wrong_is_said() -> None:
    metric = OpenSetAccuracy()
    with pytest.raises(ValueError, match=r"pred_score and gt_label, got \['gt_label'\]"):
        metric.process(None, [{"gt_label": torch.tensor([1])}])
    metric.process(None, [sample([0.1, 0.9], 2)])
    with pytest.raises(ValueError, match="examples of known classes, got 1 of others"):
        metric.compute_metrics(metric.results)
    with pytest.raises(ValueError, match="thresholds >= 2, got 1"):
        OpenSetAccuracy(1)
