"""Retrieval data sets and samplers under mmengine's own Registry, Runner and ranks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mmpretrain
import pytest
import torch
from hosts.two_samplers import LABELS, Rows, work
from mmengine.dataset import ConcatDataset
from mmengine.hooks import DistSamplerSeedHook
from mmengine.registry import DATA_SAMPLERS, DATASETS
from mmengine.runner import Runner
from torch.utils.data import DataLoader
from torchvision.transforms.functional import to_pil_image
from two_processes import in_both

import mixplug.mm
from mixplug.data.digits import digits
from mixplug.data.retrieval import retrieval_set
from mixplug.hosts.mm.datasets.samplers import class_labels

mmpretrain.utils.register_all_modules(init_default_scope=False)

LOADED = [
    {"type": "mmpretrain.LoadImageFromFile"},
    {"type": "mmpretrain.CenterCrop", "crop_size": 8},
    {"type": "mmpretrain.PackInputs"},
]
PACKED = [{"type": "mmpretrain.PackInputs"}]
M_PER_CLASS = {"type": "MPerClassSampler", "m": 3, "batch_size": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six classes of 4 to 9 PNGs, all pixels of one class alike: 16 times its number."""
    root = tmp_path_factory.mktemp("classes")
    for k in range(6):
        (root / f"class {k}").mkdir()
        for i in range(4 + k):
            image = torch.full((3, 10, 10), 16 * k, dtype=torch.uint8)
            to_pil_image(image).save(root / f"class {k}" / f"{i}.png")
    return root


def loader(dataset: dict[str, Any], sampler: dict[str, Any], seed: int | None = 3) -> DataLoader:
    """As a Runner builds ``train_dataloader``."""
    config = {"batch_size": 6, "num_workers": 0, "dataset": dataset, "sampler": sampler}
    config["collate_fn"] = {"type": "pseudo_collate"}
    return Runner.build_dataloader(config, seed=seed)


def own(root: Path, split: str = "train", **changes: Any) -> dict[str, Any]:
    return {
        "type": "RetrievalDataset",
        "name": "folder",
        "data_root": str(root),
        "split": split,
        "pipeline": LOADED,
        **changes,
    }


@pytest.mark.parametrize("prefix", ["", "mixplug."])
@pytest.mark.parametrize("split", ["train", "test"])
def test_images_are_loaded_with_their_class(folder: Path, split: str, prefix: str) -> None:
    """mmpretrain's own transforms read the file: its pixels say of which class it is."""
    data = DATASETS.build(own(folder, split, type=f"{prefix}RetrievalDataset"))
    first = {"train": 0, "test": 3}[split]
    assert data.metainfo["classes"] == tuple(f"class {first + k}" for k in range(3))
    assert len(data) == sum(4 + first + k for k in range(3))
    for index, item in enumerate(data):
        label = int(item["data_samples"].gt_label)
        assert item["inputs"].shape == (3, 8, 8)
        assert item["inputs"].unique().tolist() == [16 * (first + label)]
        assert data.get_cat_ids(index) == [label]


def test_digits_are_arrays() -> None:
    """The same as retrieval_set's, gray as RGB, in an integer range, none read from disk."""
    spec = {"type": "RetrievalDataset", "name": "digits", "split": "test", "size": 8}
    data = DATASETS.build({**spec, "pipeline": PACKED})
    found = retrieval_set("digits", split="test", size=8)
    assert data.metainfo["classes"] == tuple("56789") and len(data) == 896
    for i in (0, 400, 895):
        expected = (found.images[i] * 255).round().byte().expand(3, -1, -1)
        assert torch.equal(data[i]["inputs"], expected)
        assert int(data[i]["data_samples"].gt_label) == found.labels[i]


def test_the_digits_of_classification_are_what_they_were() -> None:
    data = DATASETS.build({"type": "mixplug.Digits", "split": "test", "size": 9})
    images, labels = digits("test", 9)
    assert data.metainfo["classes"] == tuple("0123456789") and len(data) == 599
    for i in (0, 300, 598):
        info = data.get_data_info(i)
        assert torch.equal(torch.from_numpy(info["img"][..., 1]), (images[i, 0] * 255).round())
        assert info["gt_label"] == int(labels[i])
        assert info["img_shape"] == info["ori_shape"] == (9, 9)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"sop: \S+Ebay_train\.txt is missing\. Unpack"):
        DATASETS.build({"type": "RetrievalDataset", "name": "sop", "data_root": str(tmp_path)})
    with pytest.raises(ValueError, match=r"sop needs root, the folder of its files; got"):
        DATASETS.build({"type": "RetrievalDataset", "name": "sop"})


def test_a_subset_need_not_be_complete(tmp_path: Path) -> None:
    rows = "image_id class_id super_class_id path\n1 5 1 a_final/1_0.JPG\n2 9 1 a_final/2_0.JPG\n"
    (tmp_path / "Ebay_train.txt").write_text(rows)
    spec = {"type": "RetrievalDataset", "name": "sop", "data_root": str(tmp_path)}
    with pytest.raises(ValueError, match=r"found 2 images of 2 classes, but .* has 59,551"):
        DATASETS.build(spec)
    data = DATASETS.build({**spec, "check": False})
    assert [data.get_data_info(i)["img_path"] for i in range(2)] == [
        str(tmp_path / "a_final" / f"{k}_0.JPG") for k in (1, 2)
    ]


def labels_of(batch: dict[str, list]) -> list[int]:
    return [int(sample.gt_label) for sample in batch["data_samples"]]


@pytest.mark.parametrize("prefix", ["", "mixplug."])
def test_the_runner_builds_the_sampler(folder: Path, prefix: str) -> None:
    """Two classes of three in every batch of six, of the classes that the images show."""
    sampler = {**M_PER_CLASS, "type": f"{prefix}MPerClassSampler", "length": 60}
    run = loader(own(folder), sampler)
    assert len(run) == 10 and run.sampler.seed == 3
    for batch in run:
        assert sorted(Counter(labels_of(batch)).values()) == [3, 3]
        shown = [int(image[0, 0, 0]) // 16 for image in batch["inputs"]]
        assert shown == labels_of(batch)


def test_the_runner_builds_the_balanced_sampler() -> None:
    """Ten digits are of class 0 and some 180 of each other: all are drawn alike."""
    spec = {"type": "RetrievalDataset", "name": "digits", "size": 8, "pipeline": PACKED}
    data = DATASETS.build(spec)
    kept = [i for i in range(len(data)) if data.get_cat_ids(i) != [0]]
    kept += [i for i in range(len(data)) if data.get_cat_ids(i) == [0]][:10]
    sampler = {"type": "ClassBalancedSampler", "length": 5000}
    run = loader({**spec, "indices": kept}, sampler)
    labels = class_labels(run.dataset)
    count = Counter(labels[i] for i in run.sampler)
    assert len(labels) == len(kept) and labels.count(0) == 10
    assert all(abs(count[k] - 1000) < 5 * (5000 * 0.2 * 0.8) ** 0.5 for k in range(5))


def test_epochs_differ_and_are_resumed(folder: Path) -> None:
    """mmengine's hook sets the epoch of the loader's sampler; a fresh loader draws the same."""
    sampler = {**M_PER_CLASS, "length": 60}
    one, two = loader(own(folder), sampler), loader(own(folder), sampler)
    epochs = []
    for epoch in range(3):
        loop = SimpleNamespace(dataloader=one)
        DistSamplerSeedHook().before_train_epoch(SimpleNamespace(train_loop=loop, epoch=epoch))
        epochs.append(list(one.sampler))
    two.sampler.set_epoch(2)
    assert list(two.sampler) == epochs[2] != epochs[1] != epochs[0]
    assert list(loader(own(folder), sampler, seed=4).sampler) != epochs[0]


def test_without_a_seed_ranks_agree_on_one(folder: Path) -> None:
    """mmengine draws it from numpy, anew every time."""
    drawn = [loader(own(folder), {**M_PER_CLASS, "seed": None}, seed=None) for _ in range(2)]
    assert drawn[0].sampler.seed != drawn[1].sampler.seed


def test_labels_of_other_data_sets(folder: Path) -> None:
    own_data = DATASETS.build(own(folder))
    expected = [k for k in range(3) for _ in range(4 + k)]
    assert class_labels(own_data) == expected
    named = Rows([7, 8], metainfo=own_data.metainfo)
    assert class_labels(ConcatDataset([own_data, named])) == [*expected, 7, 8]
    custom = {"type": "mmpretrain.CustomDataset", "data_root": str(folder)}
    assert class_labels(DATASETS.build(custom)) == [k for k in range(6) for _ in range(4 + k)]
    assert class_labels(DATASETS.build({"type": "mixplug.Digits", "split": "test"})) == (
        digits("test")[1].tolist()
    )
    for labels, found in (([1, [0, 2]], r"\[0, 2\]"), ([1, None], r"\[\]")):
        with pytest.raises(ValueError, match=rf"example 1 of Rows has {found}\."):
            class_labels(Rows(labels))


def test_names_are_in_the_root_registries() -> None:
    assert {"RetrievalDataset", "Digits"} <= set(DATASETS.module_dict)
    assert {"MPerClassSampler", "ClassBalancedSampler"} <= set(DATA_SAMPLERS.module_dict)
    assert mixplug.registry.DATA_SAMPLERS.parent is DATA_SAMPLERS


def test_two_ranks(tmp_path: Path) -> None:
    """mmengine tells the ranks: 10 batches on each, of disjoint pairs of the four classes."""
    ranks = in_both(work, tmp_path)
    for name in ("m per class", "unseeded", "balanced"):
        (seed, one), (same, two) = (rank[name] for rank in ranks)
        assert seed == same and one != two
        if name == "balanced":
            assert len(one) == len(two) == 30
            continue
        assert len(one) == len(two) == 60
        for start in range(0, 60, 6):
            seen = [{LABELS[i] for i in drawn[start : start + 6]} for drawn in (one, two)]
            assert len(seen[0]) == len(seen[1]) == 2 and seen[0] | seen[1] == {0, 1, 2, 3}
