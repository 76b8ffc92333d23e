"""Which epoch a step belongs to, and how images are normalized, as the training loader tells it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hosts.hosting import HERE, TimmRun
from timm.data import create_loader
from timm.task import ClassificationTask, resume_task_checkpoint
from torch import Tensor, nn
from torch.testing import assert_close

import mixplug
from mixplug.hosts.timm.loader import EpochCount, TrainingLoader
from mixplug.hosts.timm.stages import timm_stages
from mixplug.hosts.timm.task import MixupTask, bind, resuming

STEPS = 4  # of an epoch: 128 images in batches of 32
OFF = ("--epochs", 2, "--mixup-off-epoch", 1)
BOTH = [(0, True)] * STEPS + [(1, False)] * STEPS

ours = pytest.mark.parametrize("script", [HERE / "train.py"])  # with its --val-every


@ours
@pytest.mark.parametrize(
    "flags",
    [
        "--val-every 1",
        "--val-every 3 --no-prefetcher",
        "--val-every 1 --grad-accum-steps 2 --model-ema",
        "--val-every 2 --torchcompile eager",
        "--use-multi-epochs-loader",
        "--use-multi-epochs-loader --no-prefetcher -j 1",
    ],
)
def test_validation_within_an_epoch_is_no_epoch(
    flags: str, timm_train: Callable, seen: list[dict]
) -> None:
    run: TimmRun = timm_train("mixplug.mixup", *OFF, *flags.split())
    assert [(s["epoch"], s["soft"]) for s in seen] == BOTH
    assert run.state["epoch"] == 1


@ours
def test_a_resumed_run_counts_on(timm_train: Callable, seen: list[dict]) -> None:
    first: TimmRun = timm_train("mixplug.mixup", "--val-every", 1)
    flags = ("--val-every", 1, "--epochs", 3, "--mixup-off-epoch", 2)
    timm_train("mixplug.mixup", *flags, "--resume", first.folder / "last.pth.tar")
    epochs = [(s["epoch"], s["soft"]) for s in seen[STEPS:]]
    assert epochs == [(1, True)] * STEPS + [(2, False)] * STEPS


def test_a_run_that_resumes_a_plain_checkpoint_counts_on(
    timm_train: Callable, seen: list[dict], tmp_path: Path
) -> None:
    """Of timm itself, which has no state of a mixer in it."""
    first: TimmRun = timm_train("mixplug.mixup")
    checkpoint = {k: v for k, v in first.checkpoint.items() if k != "task_state"}
    torch.save({**checkpoint, "epoch": 4}, path := tmp_path / "plain.pth.tar")
    timm_train("mixplug.mixup", "--epochs", 7, "--mixup-off-epoch", 6, "--resume", path)
    epochs = [(s["epoch"], s["soft"]) for s in seen[STEPS:]]
    assert epochs == [(5, True)] * STEPS + [(6, False)] * STEPS


@ours
def test_start_epoch_wins_also_with_validation_within(
    timm_train: Callable, seen: list[dict]
) -> None:
    first: TimmRun = timm_train("mixplug.mixup")
    flags = ("--epochs", 5, "--start-epoch", 3, "--mixup-off-epoch", 4, "--val-every", 2)
    timm_train("mixplug.mixup", *flags, "--resume", first.folder / "last.pth.tar")
    epochs = [(s["epoch"], s["soft"]) for s in seen[STEPS:]]
    assert epochs == [(3, True)] * STEPS + [(4, False)] * STEPS


class Pixels:
    """Images of one color each, and their classes."""

    transform: Any = None

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        image = Image.new("RGB", (8, 8), (20 * index, 255 - index, 100))
        return (image if self.transform is None else self.transform(image)), index % 3


def loader_of(watch: TrainingLoader | None, **keys: Any) -> Any:
    make = create_loader if watch is None else watch.watched(create_loader)
    keys = {"use_prefetcher": False, "is_training": True, "no_aug": True, **keys}
    device = torch.device("cpu")
    return make(Pixels(), (3, 8, 8), batch_size=4, num_workers=0, device=device, **keys)


def test_the_watched_loader_gives_the_batches_of_timms_own() -> None:
    for prefetch in (False, True):
        torch.manual_seed(1)
        plain = list(loader_of(None, use_prefetcher=prefetch))
        torch.manual_seed(1)
        watched = loader_of(TrainingLoader(), use_prefetcher=prefetch)
        assert len(watched) == 3 and isinstance(
            watched, type(loader_of(None, use_prefetcher=prefetch))
        )
        for (x, y), (z, w) in zip(plain, watched, strict=True):
            assert torch.equal(x, z) and torch.equal(y, w)


def counted(epochs: EpochCount, batches: Iterator[Any]) -> list[int | None]:
    return [epochs.step() for _ in batches]


def test_an_epoch_is_a_pass_that_is_trained_on() -> None:
    watch = TrainingLoader()
    loader, epochs = loader_of(watch), EpochCount(watch)
    assert epochs.step() is None  # no batch yet
    next(iter(loader))  # a look, say to log an image
    assert counted(epochs, loader) == [0, 0, 0]
    list(loader)  # looked at only, say to measure training accuracy
    passed = iter(loader)
    next(passed), next(iter(loader))  # a look from within an epoch
    assert counted(epochs, passed) == [1, 1]
    broken = iter(loader)
    next(broken)
    assert epochs.step() == 2  # the loop breaks off here
    assert counted(epochs, loader) == [3, 3, 3]


def test_a_loader_for_validation_is_not_watched() -> None:
    watch = TrainingLoader()
    loader, test = loader_of(watch), loader_of(watch, is_training=False, mean=(9.0,) * 3)
    epochs = EpochCount(watch)
    for _ in loader:
        list(test)
        assert epochs.step() == 0
    assert watch.pixels[0] != (9.0,) * 3


def test_first_epochs() -> None:
    for fixed, expected in ((False, [5, 5, 5]), (True, [2, 2, 2])):
        watch = TrainingLoader()
        epochs = EpochCount(watch, first=2, fixed=fixed)
        epochs.resume(5)
        assert counted(epochs, loader_of(watch)) == expected


@pytest.mark.parametrize(("fixed", "expected"), [(False, 5), (True, 2)])
@pytest.mark.parametrize("within", [False, True])
def test_resuming_after_steps(within: bool, fixed: bool, expected: int) -> None:
    """Between two epochs, or within one, whose other batches then belong to the resumed epoch."""
    watch = TrainingLoader()
    loader, epochs = loader_of(watch), EpochCount(watch, first=2, fixed=fixed)
    assert counted(epochs, loader) == [2, 2, 2]
    batches = iter(loader)
    if within:
        next(batches)
        assert epochs.step() == 3
    epochs.resume(5)
    assert counted(epochs, batches) == [expected] * (2 if within else 3)
    assert counted(epochs, loader) == [expected + 1] * 3
    epochs.resume(None)
    assert counted(epochs, loader) == [2 if fixed else None] * 3


def test_resuming_leaves_an_epoch_that_the_loop_sets() -> None:
    watch = TrainingLoader()
    epochs = EpochCount(watch)
    epochs.set_epoch(7)
    epochs.resume(5)
    assert counted(epochs, loader_of(watch)) == [7, 7, 7]


def test_an_epoch_that_the_loop_sets_is_not_counted() -> None:
    watch = TrainingLoader()
    loader, epochs = loader_of(watch), EpochCount(watch)
    epochs.set_epoch(7)
    assert counted(epochs, loader) == counted(epochs, loader) == [7, 7, 7]


def make_task(**bound: Any) -> MixupTask:
    model = timm.create_model("test_resnet", num_classes=10)
    mixer = mixplug.build("mixup", off_epoch=1)
    return bind(ClassificationTask, mixer, **bound)(model, nn.CrossEntropyLoss(), verbose=False)


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(4, 3, 64, 64), torch.arange(4)


def mixes(task: MixupTask) -> bool:
    """Whether the loss of a training step is another than that of the clean batch."""
    x, y = batch()
    task.trainable_module.train()
    state = {k: v.clone() for k, v in task.trainable_module.state_dict().items()}
    loss = task(x, y)["loss"]
    task.trainable_module.load_state_dict(state)
    return abs(loss - nn.functional.cross_entropy(task.trainable_module(x), y)) > 1e-5


def test_a_loop_of_ones_own_sets_the_epoch() -> None:
    task = make_task()
    for epoch in range(3):
        task.epoch = epoch
        for _ in range(2):
            assert mixes(task) == (epoch == 0)
            task.trainable_module.eval()
        assert task.epoch == task.get_task_state()["mixplug"]["epoch"] == epoch


def test_an_epoch_that_nobody_tells_is_refused() -> None:
    x, y = batch()
    message = (
        r"InputMixup has off_epoch=1, but the task does not know the epoch of this batch\. In your "
        r"own loop set task\.epoch at the start of every epoch\. Under timm_hooks\.train the "
        r"script must make its training loader with timm\.data\.create_loader\."
    )
    for task in (make_task(), make_task(loader=TrainingLoader())):
        with pytest.raises(ValueError, match=message):
            task(x, y)
    task = make_task()
    task.trainable_module.eval()
    task(x, y)  # validates


def test_weights_that_do_not_say_their_epoch_are_refused_to_count_from() -> None:
    """The script may have resumed, or have loaded pretrained weights: --start-epoch tells."""
    plain = timm.create_model("test_resnet", num_classes=10).state_dict()
    for start, expected in ((None, None), (0, 0)):
        watch = TrainingLoader()
        loader, task = loader_of(watch), make_task(loader=watch, start_epoch=start)
        task.load_checkpoint_state(plain)
        next(iter(loader))
        if expected is None:
            with pytest.raises(ValueError, match="or pass --start-epoch"):
                task(*batch())
        else:
            assert mixes(task)


def test_resuming_tells_the_task(tmp_path: Path) -> None:
    task, path = make_task(), tmp_path / "checkpoint.pth.tar"
    torch.save({"state_dict": task.trainable_module.state_dict(), "epoch": 3, "version": 2}, path)
    watch = TrainingLoader()
    other = make_task(loader=watch)
    assert resuming(resume_task_checkpoint)(other, str(path), log_info=False) == 4
    next(iter(loader_of(watch)))
    assert not mixes(other) and other.epoch == 4


@ours
@pytest.mark.parametrize("prefetcher", [[], ["--no-prefetcher"]], ids=["prefetcher", "without"])
@pytest.mark.parametrize("given", [True, False])
def test_pixels_are_those_of_the_loader(
    given: bool, prefetcher: list[str], timm_train: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    plain = mixplug.Mixer.__call__

    def call(self: mixplug.Mixer, stages: mixplug.Stages, x: Tensor, *args: Any) -> object:
        found.append((x, *stages.pixels))
        return plain(self, stages, x, *args)

    monkeypatch.setattr(mixplug.Mixer, "__call__", call)
    flags = ["--mean", "0.1", "0.2", "0.3", "--std", "0.5", "0.25", "0.125"] if given else []
    timm_train("mixplug.mixup", *flags, *prefetcher)
    x, mean, std = found[0]
    config = timm.create_model("test_resnet").pretrained_cfg
    expected = ((0.1, 0.2, 0.3), (0.5, 0.25, 0.125)) if given else (config["mean"], config["std"])
    for mine, other in zip((mean, std), expected, strict=True):
        assert_close(mine, torch.tensor(other).view(3, 1, 1))
    images = x * std + mean
    assert_close(images.min(), torch.tensor(0.0), atol=1e-5, rtol=0)
    assert 0.9 < images.max() <= 1 + 1e-5
    assert_close(images[:, 0], images[:, 2], atol=1e-5, rtol=0)  # the digits are gray


def test_pixels_of_a_loop_of_ones_own() -> None:
    model = timm.create_model("test_resnet", num_classes=10)
    with pytest.raises(
        ValueError, match=r"in timm with timm_stages\(model, pixels=\(mean, std\)\)"
    ):
        _ = timm_stages(model).pixels
    config = timm.data.resolve_model_data_config(model)
    stages = timm_stages(model, pixels=(config["mean"], config["std"]))
    assert_close(stages.pixels[1], torch.tensor(config["std"]).view(3, 1, 1))
