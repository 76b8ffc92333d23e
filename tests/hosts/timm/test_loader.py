"""``--samples-per-class``: class-balanced batches in timm's training loader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hosts.hosting import TimmRun
from timm.data import create_dataset, create_loader
from torch import Tensor
from torch.utils.data import TensorDataset

from mixplug.hosts.timm.loader import TrainingLoader, balance, labels_of
from mixplug.hosts.timm.task import MixupTask
from timm_hooks.train import samples_per_class


def batches_of(folder: Path, watcher: TrainingLoader, **keys: object) -> object:
    return watcher.watched(create_loader)(
        create_dataset("", root=str(folder), split="train", is_training=True),
        input_size=(3, 32, 32),
        batch_size=16,
        is_training=True,
        num_workers=0,
        device=torch.device("cpu"),
        **keys,
    )


def classes(loader: object) -> list[Counter]:
    return [Counter(y.tolist()) for _, y in loader]


@pytest.mark.parametrize("prefetcher", [True, False])
def test_batches_have_m_examples_of_each_class(image_folder: Path, prefetcher: bool) -> None:
    torch.manual_seed(0)
    loader = batches_of(image_folder, TrainingLoader(4), use_prefetcher=prefetcher)
    first, second = classes(loader), classes(loader)
    assert len(first) == len(second) == len(loader) == 8  # 128 images
    assert all(set(batch.values()) == {4} and len(batch) == 4 for batch in first + second)
    assert first != second  # drawn anew in every epoch


def test_draws_depend_on_seed_and_epoch(image_folder: Path) -> None:
    runs = []
    for first in (0, 1):
        torch.manual_seed(0)
        watcher = TrainingLoader(4)
        watcher.first = first
        loader = batches_of(image_folder, watcher)
        runs.append([classes(loader), classes(loader)])
    assert runs[0][1] == runs[1][0]  # the second epoch of a run, and the first of a resumed one


def test_without_the_flag_the_order_is_timms(image_folder: Path) -> None:
    loader = batches_of(image_folder, TrainingLoader())
    assert any(len(set(batch.values())) > 1 for batch in classes(loader))


def test_a_run_with_a_pair_loss(timm_train: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Counter] = []
    plain = MixupTask.forward

    def forward(self: MixupTask, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        if self.trainable_module.training:
            seen.append(Counter(target.tolist()))
        return plain(self, input, target)

    monkeypatch.setattr(MixupTask, "forward", forward)
    flags = ("--samples-per-class", 8, "--epochs", 2)
    first: TimmRun = timm_train("mixplug.multisimilarity", *flags)
    assert len(seen) == 8
    assert all(set(batch.values()) == {8} for batch in seen)
    resume = ("--resume", first.folder / "last.pth.tar", "--epochs", 3)
    timm_train("mixplug.multisimilarity", "--samples-per-class=8", *resume)
    whole = seen[:]
    seen.clear()
    timm_train("mixplug.multisimilarity", "--samples-per-class", 8, "--epochs", 3)
    assert seen == whole  # the third epoch has the classes of a run that was not stopped


def test_labels_of_data_sets(image_folder: Path) -> None:
    folder = create_dataset("", root=str(image_folder), split="train")
    assert labels_of(folder) == [folder.reader.samples[i][1] for i in range(128)]
    with pytest.raises(ValueError, match="TensorDataset has neither targets nor labels"):
        labels_of(TensorDataset(torch.zeros(3)))


def test_loaders_of_another_kind_are_refused(image_folder: Path) -> None:
    with pytest.raises(ValueError, match="Leave out --use-multi-epochs-loader"):
        batches_of(image_folder, TrainingLoader(4), use_multi_epochs_loader=True)
    with pytest.raises(ValueError, match="multiple of m"):
        batches_of(image_folder, TrainingLoader(5))
    with pytest.raises(ValueError, match="plain loader over images, got list"):
        balance([], 4, 16)


def test_the_flag_is_not_passed_on() -> None:
    rest = ["--lr", "0.1", "--samples-per-class", "5", "-b", "20"]
    assert samples_per_class(rest) == (["--lr", "0.1", "-b", "20"], 5)
    assert samples_per_class(["-b", "20"]) == (["-b", "20"], None)
