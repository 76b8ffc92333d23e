"""The demo of transfer: a tiny detector and segmentor from the weights of the DoRA demo."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

import mixplug.mm  # noqa: F401  registers
from mixplug.data.toy_scenes import write_scenes
from mixplug.optional import optional

CONFIGS = {
    "detection": "detection/cascade-mask-rcnn_vit-tiny_fpn_1xb8-6e_digits.py",
    "segmentation": "segmentation/vit-tiny_upernet_1xb8-300_digits-128x128.py",
}
SCORES = {
    "coco/bbox_mAP": "box mAP",
    "coco/bbox_mAP_50": "box mAP, IoU 0.5",
    "coco/segm_mAP": "mask mAP",
    "mIoU": "mIoU",
}
WEIGHTS = ("DoRA", "random")
DIGITS = 3  # of ten: few steps are enough to find digits, but not to recognize ten classes
SHOWN = 4  # number of scenes in the figure

Tick = Callable[[str, int], None]


@dataclass
class Result:
    """Results of fine-tuning from some weights.

    Attributes:
        weights: one of :data:`WEIGHTS`.
        scores: values of :data:`SCORES` in percent.
        loaded: report of the loaded checkpoint in one line.
        maps: predicted classes of the first scenes, (:data:`SHOWN`, H, W).
    """

    weights: str
    scores: dict[str, float] = field(default_factory=dict)
    loaded: str = ""
    maps: Tensor | None = None


class _Watch(Hook):
    """Reports every step, and collects the scores of validation."""

    priority = "VERY_LOW"

    def __init__(self, step: Callable[[], None]) -> None:
        self.step = step
        self.scores: dict[str, float] = {}

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        self.step()

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        self.scores.update(metrics or {})


def configs(scenes: Path, out: Path, checkpoint: Path, epochs: int, steps: int, seed: int) -> Any:
    """(task, weights, config) of all runs.

    Args:
        scenes: folder of the data set.
        out: folder for the runs.
        checkpoint: checkpoint of DoRA.
        epochs: number of epochs of the detector.
        steps: number of steps of the segmentor.
        seed: seed of heads and of the order of images.
    """
    root = Path(__file__).parents[2] / "mm_configs"
    for task, name in CONFIGS.items():
        for weights in WEIGHTS:
            config = Config.fromfile(root / name)
            for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
                config[loader].dataset.data_root = f"{scenes}/"
                config[loader].update(num_workers=0, persistent_workers=False)
            if task == "detection":
                file = str(scenes / "annotations" / "instances_val.json")
                config.val_evaluator.ann_file = config.test_evaluator.ann_file = file
                config.train_cfg.update(max_epochs=epochs, val_interval=epochs)
                config.param_scheduler[1].update(T_max=epochs, end=epochs)
            else:
                config.train_cfg.update(max_iters=steps, val_interval=steps)
                config.param_scheduler[1].end = max(steps, 31)
            if weights == "DoRA":
                config.model.backbone.init_cfg = {
                    "type": "mixplug.Pretrained",
                    "checkpoint": str(checkpoint),
                    "part": "teacher",
                }
            config.work_dir = str(out / f"{task}-{weights}")
            config.experiment_name = f"{task}-{weights}"
            config.randomness = {"seed": seed}
            config.log_level = "ERROR"
            yield task, weights, config


def length(scenes: int, epochs: int, steps: int) -> int:
    """Number of steps of all runs."""
    return len(WEIGHTS) * (epochs * -(-scenes // 8) + steps)


def run(
    scenes: Path, out: Path, checkpoint: Path, epochs: int, steps: int, seed: int, tick: Tick
) -> list[Result]:
    """Fine-tune all models; the results depend on the seed alone.

    Args:
        scenes: folder that :func:`mixplug.data.toy_scenes.write_scenes` wrote.
        out: folder for the runs.
        checkpoint: checkpoint of DoRA, such as that of its demo.
        epochs: number of epochs of the detector.
        steps: number of steps of the segmentor.
        seed: seed of heads and of the order of images.
        tick: function that is called with the name of the run, and with 1 after each step.

    Raises:
        ValueError: a checkpoint that does not fit.
    """
    from mixplug.weights import load_file

    results = {weights: Result(weights) for weights in WEIGHTS}
    for task, weights, config in configs(scenes, out, checkpoint, epochs, steps, seed):
        name = f"{task}, {weights} weights"
        tick(name, 0)
        with warnings.catch_warnings(action="ignore"):
            runner = Runner.from_cfg(config)
        watch = _Watch(lambda name=name: tick(name, 1))
        runner.register_hook(watch)
        if weights == "DoRA":
            results[weights].loaded = load_file(runner.model.backbone, checkpoint, "teacher").line()
        with redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            model = runner.train()  # the evaluators print at any log level
        for key in (key for key in SCORES if key in watch.scores):
            percent = 1 if key == "mIoU" else 100  # mmseg returns percent
            results[weights].scores[key] = percent * float(watch.scores[key])
        if task == "segmentation":
            results[weights].maps = _predicted(model, runner.val_dataloader.dataset)
    return list(results.values())


def save(results: list[Result], file: Path) -> None:
    """Write the scores as JSON."""
    rows = [{k: v for k, v in asdict(result).items() if k != "maps"} for result in results]
    file.write_text(json.dumps(rows, indent=2) + "\n")


def figure(results: list[Result], scenes: Path, file: Path) -> None:
    """Draw scenes, their true maps, and the predictions from each of the weights."""
    plt = optional("matplotlib.pyplot", "demo", "The figure")
    pillow = optional("PIL.Image", "video", "Reading images")
    names = [f"{number:05}" for number in range(1, SHOWN + 1)]
    rows = {"scene": [pillow.open(scenes / "val" / f"{name}.jpg") for name in names]}
    truth = scenes / "annotations" / "semantic" / "val"
    rows["truth"] = [pillow.open(truth / f"{name}.png") for name in names]
    for result in results:
        if result.maps is not None:
            rows[f"{result.weights}\n{result.scores['mIoU']:.1f} mIoU"] = list(result.maps)
    fig, axes = plt.subplots(
        len(rows), SHOWN, figsize=(1.7 * SHOWN + 0.6, 1.7 * len(rows)), layout="constrained"
    )
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for axis, picture in zip(line, pictures, strict=True):
            axis.imshow(picture, cmap="viridis", vmin=0, vmax=DIGITS, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name)
    fig.savefig(file, dpi=150)
    plt.close(fig)


@torch.no_grad()
def _predicted(model: Any, dataset: Any) -> Tensor:
    model.eval()
    items = [dataset[i] for i in range(SHOWN)]
    batch = {key: [item[key] for item in items] for key in ("inputs", "data_samples")}
    return torch.stack([sample.pred_sem_seg.data[0].cpu() for sample in model.test_step(batch)])


def write_data(folder: Path, train: int, val: int, seed: int, tick: Tick) -> Path:
    """Write the data set unless it exists."""
    return write_scenes(
        folder, train, val, seed=seed, digits=DIGITS, tick=lambda count: tick("scenes", 0)
    )
