"""Linear probe of frozen features on ImageNet-style folders (6.5.3, Tables 6.5a and 6.6)."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixplug import sampling
from mixplug.data.image_folders import Crops, Labeled, loader
from mixplug.evaluation.frozen.frozen import Frozen
from mixplug.evaluation.results import Tick, no_progress
from mixplug.functional.accuracy import top_k_correct
from mixplug.weights import Preprocessing, read

CHECKPOINT = "checkpoint.pth"
_PER_IMAGES = 256  # batch size that learning rates refer to, as in DINO
_STD = 0.01  # of the initial weights of the classifier
_ORDER = -2  # separates these draws from those of images, whose indices start at 0
_TOP = 5


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Settings of a linear probe; the defaults are the protocol of DINO [0].

    The classifier is trained by SGD with momentum. The learning rate starts at ``lr batch_size /
    256`` and decreases to 0 by a cosine schedule, once per epoch. Training images are cropped at
    random and flipped; test images are resized and center-cropped.

    Attributes:
        epochs: number of epochs.
        batch_size: images per step; 1024 in the thesis (6.5.3).
        lr: learning rate for a batch of 256 images.
        momentum: of SGD.
        weight_decay: of SGD.
        blocks: number of last blocks whose class tokens are concatenated: DINO takes 4 for ViT-S
            and 1 for ViT-B.
        size: side of the crops in pixels; None is the size of the checkpoint's images.
        seed: of all draws.

    Raises:
        ValueError: a setting that is not allowed.

    - [0]: Emerging Properties in Self-Supervised Vision Transformers, 2021,
      https://arxiv.org/abs/2104.14294
    """

    epochs: int = 100
    batch_size: int = 1024
    lr: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 0.0
    blocks: int = 4
    size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for key, allowed, holds in (
            ("epochs", ">= 1", self.epochs >= 1),
            ("batch_size", ">= 1", self.batch_size >= 1),
            ("lr", "> 0", self.lr > 0),
            ("momentum", "in [0, 1)", 0 <= self.momentum < 1),
            ("weight_decay", ">= 0", self.weight_decay >= 0),
            ("blocks", ">= 1", self.blocks >= 1),
            ("size", ">= 1", self.size is None or self.size >= 1),
        ):
            if not holds:
                raise ValueError(f"A probe needs {key} {allowed}, got {getattr(self, key)}.")

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch; epochs count from 0."""
        cosine = 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        return self.lr * self.batch_size / _PER_IMAGES * cosine


def linear(
    frozen: Frozen,
    train: Labeled,
    val: Labeled,
    out: Path,
    probe: Probe | None = None,
    workers: int = 4,
    tick: Tick = no_progress,
) -> dict[str, Any]:
    """Train a linear classifier on frozen features, and test it after every epoch.

    OUT/checkpoint.pth is written after every epoch. Interrupted runs resume from it; on a CPU the
    result is bitwise that of an uninterrupted run.

    Args:
        frozen: the network.
        train: labeled images.
        val: labeled images for testing.
        out: folder for checkpoint.pth.
        probe: settings of the training.
        workers: processes that read images.
        tick: progress callback.

    Returns:
        ``top1`` and ``top5`` of the last epoch in percent, ``epochs`` with the results and the mean
        loss of each epoch, and the settings.

    Raises:
        ValueError: OUT has a checkpoint of other settings, images or weights; the loss is not
            finite; the network has fewer blocks; an image cannot be read.
    """
    probe = probe or Probe()
    if probe.size is None:
        probe = replace(probe, size=_square(frozen))
    if probe.blocks > frozen.encoder.depth:
        raise ValueError(
            f"A probe needs blocks (option --blocks) in [1, {frozen.encoder.depth}], the blocks of "
            f"the network, got {probe.blocks}."
        )
    job = _Job(frozen, train, val, probe, workers, tick)
    path = out / CHECKPOINT
    if path.exists():
        job.resume(path)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for epoch in range(len(job.history), probe.epochs):
            job.history.append(job.run(epoch))
            job.save(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error}") from error
    job.show(0)
    last = {key: job.history[-1][key] for key in ("top1", "top5")}
    return {**last, **job.facts, "epochs": job.history}


class _Job:
    """State of a training, which is saved after every epoch."""

    def __init__(
        self,
        frozen: Frozen,
        train: Labeled,
        val: Labeled,
        probe: Probe,
        workers: int,
        tick: Tick,
    ) -> None:
        self.frozen, self.probe, self.workers, self.tick = frozen, probe, workers, tick
        assert probe.size is not None  # set by linear
        self.images = frozen.images.changed(size=probe.size)
        self.train = Crops(train, probe.size, augment=True, seed=probe.seed)
        crop = None if "crop" in self.images.guessed else self.images.crop
        how = self.images.interpolation
        self.val = Crops(val, probe.size, crop=crop, interpolation=how)
        self.history: list[dict[str, float]] = []
        self.head = self._head(len(train.classes))
        self.optimizer = torch.optim.SGD(
            self.head.parameters(), 1.0, probe.momentum, weight_decay=probe.weight_decay
        )
        self.facts: dict[str, Any] = {
            "probe": asdict(probe),
            "classes": len(train.classes),
            "train_images": len(train),
            "val_images": len(val),
        }

    def _head(self, classes: int) -> nn.Linear:
        head = nn.utils.skip_init(nn.Linear, self.frozen.encoder.width * self.probe.blocks, classes)
        source = sampling.generators(self.probe.seed, 0, _ORDER).synced
        with torch.no_grad():
            head.weight.copy_(_STD * sampling.normal(head.weight.shape, source))
            head.bias.zero_()
        return head.to(self.frozen.device)

    def run(self, epoch: int) -> dict[str, float]:
        """Train for one epoch, then test."""
        self.train.epoch = epoch
        rate = self.optimizer.param_groups[0]["lr"] = self.probe.rate(epoch)
        source = sampling.generators(self.probe.seed, epoch, _ORDER).local
        order = sampling.permutation(len(self.train), source).tolist()
        total = torch.zeros((), dtype=torch.float64)
        for images, labels in self._batches(self.train, order, 0):
            loss = F.cross_entropy(self._logits(images), labels.to(self.frozen.device))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach().double().cpu() * len(images)
        mean = float(total) / len(self.train)
        if not math.isfinite(mean):
            raise ValueError(
                f"The loss of epoch {epoch + 1} is {mean}: lower the learning rate, which is "
                f"{self.probe.lr} for 256 images."
            )
        return {"lr": rate, "loss": mean, **self._tested()}

    @torch.no_grad()
    def _tested(self) -> dict[str, float]:
        hits = torch.zeros(2, dtype=torch.int64)
        for images, labels in self._batches(self.val, None, len(self.train)):
            found = self._logits(images)
            correct = [top_k_correct(found, labels.to(found.device), k).sum() for k in (1, _TOP)]
            hits += torch.stack(correct).cpu()
        top1, top5 = (100 * hits / len(self.val)).tolist()
        return {"top1": top1, "top5": top5}

    def _logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.frozen.class_tokens(images, self.probe.blocks).float())
        return logits

    def _batches(self, crops: Crops, order: list[int] | None, done: int) -> Iterable[Any]:
        for images, labels in loader(crops, self.probe.batch_size, self.workers, order):
            self.show(done)
            yield images, labels
            done += len(images)
        self.show(done)

    def show(self, done: int) -> None:
        """Report progress: number of images seen in this epoch."""
        each, ended = len(self.train) + len(self.val), len(self.history)
        what = f"epoch {min(ended + 1, self.probe.epochs)} of {self.probe.epochs}"
        if self.history:
            what += f", top-1 {self.history[-1]['top1']:.1f}"
        self.tick(ended * each + done, self.probe.epochs * each, what)

    def save(self, path: Path) -> None:
        """Save the state; the file is replaced in one step, so it is never incomplete."""
        saved = {
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epochs": self.history,
            "of": self._identity(),
        }
        beside = path.with_name(f"{path.name}.part")
        torch.save(saved, beside)
        os.replace(beside, path)

    def resume(self, path: Path) -> None:
        """Load a saved state.

        Raises:
            ValueError: the checkpoint is of another training, or not one of a linear probe.
        """
        saved = read(path)
        given: Mapping[str, Any] = saved.get("of", {})
        own = self._identity()
        if given and "images" not in given:  # of a version that had only these values
            given = {**given, "images": _prepared(Preprocessing())}
        other = [
            f"{key} is {given[key]} in the checkpoint and {own[key]} now"
            for key in own
            if key in given and given[key] != own[key]
        ]
        if other or given.keys() != own.keys():
            why = ", ".join(other) or "it is not one of a linear probe"
            raise ValueError(
                f"{path} is a checkpoint of another training: {why}. Choose another folder with "
                f"--out, or remove the checkpoint."
            )
        self.head.load_state_dict(saved["head"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.history = list(saved["epochs"])

    def _identity(self) -> dict[str, Any]:
        """Everything that must be equal to resume a training."""
        return {
            **self.facts["probe"],
            **{key: value for key, value in self.facts.items() if key != "probe"},
            "train_list": _listed(self.train.images),
            "val_list": _listed(self.val.images),
            "network": self.frozen.fingerprint(),
            "images": _prepared(self.images),
            "heads": self.frozen.encoder.heads,
        }


def _square(frozen: Frozen) -> int:
    height, width = frozen.images.size
    if height != width:
        raise ValueError(
            f"A probe crops squares, but the checkpoint was trained on images of {height} x "
            f"{width} pixels: set the size (option --size)."
        )
    return height


def _prepared(images: Preprocessing) -> list[Any]:
    """Everything about images, except the size, that changes the features."""
    colors = [[round(value, 6) for value in values] for values in (images.mean, images.std)]
    return [*colors, images.bgr, round(images.crop, 6), images.interpolation]


def _listed(images: Labeled) -> str:
    """Hash of the names and labels of all images; the folder of the images may be moved."""
    home = os.path.commonpath(images.paths)
    digest = hashlib.sha256()
    for path, label in zip(images.paths, images.labels.tolist(), strict=True):
        digest.update(f"{label} {os.path.relpath(path, home)}\n".encode())
    return digest.hexdigest()[:16]
