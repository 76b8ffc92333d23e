"""Linear probe of frozen features on ImageNet-style folders (6.5.3, Tables 6.5a and 6.6)."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixplug import sampling
from mixplug.data.image_folders import Crops, Labeled, loader
from mixplug.evaluation.frozen.frozen import Frozen
from mixplug.evaluation.results import Tick, unseen
from mixplug.functional.accuracy import top_k_correct
from mixplug.weights import read

CHECKPOINT = "checkpoint.pth"
_PER_IMAGES = 256  # of a batch, for which DINO gives learning rates
_STD = 0.01  # of the classifier's first weights
_ORDER = -2  # so that no draw here is one of an image, which counts from 0
_TOP = 5


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How a linear classifier is trained: DINO's protocol [0].

    SGD with momentum; the learning rate falls from ``lr batch_size / 256`` to 0 by a cosine, epoch
    by epoch. Images are cropped at random and flipped in training, resized and center-cropped in
    testing.

    Attributes:
        epochs: of training.
        batch_size: images of a step; 1024 in 6.5.3.
        lr: learning rate for 256 images.
        momentum: of SGD.
        weight_decay: of SGD.
        blocks: whose class tokens are classified side by side: DINO takes the last 4 of ViT-S and
            the last one of ViT-B.
        size: side of the crops in pixels.
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
    size: int = 224
    seed: int = 0

    def __post_init__(self) -> None:
        for key, allowed, holds in (
            ("epochs", ">= 1", self.epochs >= 1),
            ("batch_size", ">= 1", self.batch_size >= 1),
            ("lr", "> 0", self.lr > 0),
            ("momentum", "in [0, 1)", 0 <= self.momentum < 1),
            ("weight_decay", ">= 0", self.weight_decay >= 0),
            ("blocks", ">= 1", self.blocks >= 1),
            ("size", ">= 1", self.size >= 1),
        ):
            if not holds:
                raise ValueError(f"A probe needs {key} {allowed}, got {getattr(self, key)}.")

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, which counts from 0."""
        cosine = 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        return self.lr * self.batch_size / _PER_IMAGES * cosine


def linear(
    frozen: Frozen,
    train: Labeled,
    val: Labeled,
    out: Path,
    probe: Probe | None = None,
    workers: int = 4,
    tick: Tick = unseen,
) -> dict[str, Any]:
    """Train a linear classifier of frozen features, and test it after every epoch.

    OUT/checkpoint.pth is written after every epoch. Called again, the job goes on from there, on a
    CPU bit for bit as if it had not stopped.

    Args:
        frozen: the network.
        train: images with labels.
        val: images to be classified.
        out: folder for checkpoint.pth.
        probe: how it is trained.
        workers: processes that read images.
        tick: called after every batch.

    Returns:
        ``top1`` and ``top5`` of the last epoch in percent, ``epochs`` with those of each and its
        mean loss, and the settings.

    Raises:
        ValueError: out has a checkpoint of other settings, images or weights; a loss that is no
            number; more blocks than there are; an image that cannot be read.
    """
    probe = probe or Probe()
    if probe.blocks > frozen.encoder.depth:
        raise ValueError(
            f"A probe needs blocks (of a command, --blocks) in [1, {frozen.encoder.depth}], which "
            f"the network has, got {probe.blocks}."
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
    """The state of a training that can be saved after every epoch."""

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
        self.train = Crops(train, probe.size, augment=True, seed=probe.seed)
        self.val = Crops(val, probe.size)
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
        """Train for an epoch, and test."""
        self.train.epoch = epoch
        rate = self.optimizer.param_groups[0]["lr"] = self.probe.rate(epoch)
        source = sampling.generators(self.probe.seed, epoch, _ORDER).local
        order = sampling.permutation(len(self.train), source).tolist()
        lost = torch.zeros((), dtype=torch.float64)
        for images, labels in self._batches(self.train, order, 0):
            loss = F.cross_entropy(self._logits(images), labels.to(self.frozen.device))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            lost += loss.detach().double().cpu() * len(images)
        mean = float(lost) / len(self.train)
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
        """Tell how many images were seen in this epoch."""
        each, ended = len(self.train) + len(self.val), len(self.history)
        what = f"epoch {min(ended + 1, self.probe.epochs)} of {self.probe.epochs}"
        if self.history:
            what += f", top-1 {self.history[-1]['top1']:.1f}"
        self.tick(ended * each + done, self.probe.epochs * each, what)

    def save(self, path: Path) -> None:
        """Write all that is needed to go on, at once or not at all."""
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
        """Go on from there.

        Raises:
            ValueError: it is of another training, or no such checkpoint.
        """
        saved = read(path)
        given: Mapping[str, Any] = saved.get("of", {})
        own = self._identity()
        other = [
            f"{key} {given[key]} there and {own[key]} here"
            for key in own
            if key in given and given[key] != own[key]
        ]
        if other or given.keys() != own.keys():
            why = ", ".join(other) or "it is not of a linear probe"
            raise ValueError(
                f"{path} is of another training: {why}. Name another folder by --out, or remove it."
            )
        self.head.load_state_dict(saved["head"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.history = list(saved["epochs"])

    def _identity(self) -> dict[str, Any]:
        """What must not differ where a training goes on."""
        return {
            **self.facts["probe"],
            **{key: value for key, value in self.facts.items() if key != "probe"},
            "train_list": _listed(self.train.images),
            "val_list": _listed(self.val.images),
            "network": self.frozen.fingerprint(),
            "heads": self.frozen.encoder.heads,
        }


def _listed(images: Labeled) -> str:
    """Of names and labels of all images; the folder that they are in may have moved."""
    home = os.path.commonpath(images.paths)
    digest = hashlib.sha256()
    for path, label in zip(images.paths, images.labels.tolist(), strict=True):
        digest.update(f"{label} {os.path.relpath(path, home)}\n".encode())
    return digest.hexdigest()[:16]
