"""Reliability cards of mmpretrain: the classifiers and the data of an mm config."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mmpretrain.datasets  # noqa: F401  registers
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from mmpretrain.models import ImageClassifier
from torch import Tensor
from torch.utils.data import Dataset

import mixplug.mm  # noqa: F401  registers
from mixplug.evaluation.card.checkpoints import facts_of
from mixplug.evaluation.card.outside import fingerprint_of_files, ood_streams, overlaps
from mixplug.evaluation.card.settings import Settings
from mixplug.evaluation.card.subject import Data, Stream, Subject
from mixplug.evaluation.results import fingerprint, to_device
from mixplug.from_config.config import build_model, load_weights, preprocessor_of
from mixplug.hosts.mm.mixing.classifier import mm_stages

_SCOPE = "mmpretrain"


def subject_of(config: Config, checkpoint: Path, name: str, device: str) -> Subject:
    """The classifier of a config with the weights of a checkpoint.

    Raises:
        ValueError: the model is not an ImageClassifier, or the checkpoint does not fit it.
    """
    with DefaultScope.overwrite_default_scope(config.get("default_scope", _SCOPE)):
        model = build_model(config)
    if not isinstance(model, ImageClassifier) or not hasattr(model, "head"):
        raise ValueError(
            f"A card needs mmpretrain's ImageClassifier with a head, {config.filename} has a "
            f"{type(model).__name__}."
        )
    found = load_weights(model, checkpoint)
    model = to_device(model, device).eval().requires_grad_(False)
    digest = hashlib.sha256(f"{config.model} {fingerprint(model)}".encode()).hexdigest()[:16]
    facts = {**facts_of(checkpoint, found), "config": str(config.filename)}
    normalize = partial(_normalized, model)
    return Subject(name, mm_stages(model), normalize, digest, facts, _trained_on(found))


def _trained_on(found: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes that mmengine saved in a checkpoint; empty if there are none."""
    meta = found.get("meta")
    noted = meta.get("dataset_meta") if isinstance(meta, Mapping) else None
    names = noted.get("classes") if isinstance(noted, Mapping) else None
    return tuple(map(str, names)) if isinstance(names, (list, tuple)) else ()


def _normalized(model: ImageClassifier, pixels: Tensor) -> Tensor:
    """Normalize pixels in [0, 1], RGB, with the data preprocessor of the config."""
    images = 255 * pixels
    if model.data_preprocessor.to_rgb:
        images = images.flip(1)  # the preprocessor expects BGR
    return model.data_preprocessor({"inputs": images}, False)["inputs"]


class Pixels(Dataset[tuple[Tensor, int]]):
    """Images (C, H, W) uint8 in RGB, and labels, of an mm data set.

    Args:
        dataset: mm data set whose pipeline ends in PackInputs.
        bgr: whether its images are BGR.
        indices: indices of the images to use; None uses all.
    """

    def __init__(self, dataset: Any, bgr: bool, indices: Sequence[int] | None = None) -> None:
        self.dataset, self.bgr = dataset, bgr
        self.indices = range(len(dataset)) if indices is None else indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """An image and its label.

        Raises:
            ValueError: an image that is not uint8, or an example with several labels.
        """
        item = self.dataset[self.indices[index]]
        image, label = item["inputs"], item["data_samples"].gt_label
        if image.dtype != torch.uint8 or label.numel() != 1:
            raise ValueError(
                f"A card needs uint8 images, which the data preprocessor normalizes, and one label "
                f"per image; the pipeline gives {image.dtype} and {label.numel()} labels."
            )
        return image.flip(0) if self.bgr and len(image) == 3 else image, int(label)


def data_of(config: Config, settings: Settings) -> Data:
    """The image sets of a card for an mm config.

    Test images are those of ``test_dataloader``. Training images for k-NN are those of
    ``train_dataloader``, loaded with the test pipeline.

    Raises:
        ValueError: no test data, data in another layout; see also the settings.
    """
    if not config.get("test_dataloader"):
        raise ValueError(f"{config.filename} has no test_dataloader.")
    bgr = bool(preprocessor_of(config).get("to_rgb"))
    spec = config.test_dataloader.dataset
    test = _stream("test", spec, bgr)
    classes = _classes(test.dataset.dataset, test)
    bank = None
    if config.get("train_dataloader") and "ood" in settings.parts:
        own = _with_pipeline(config.train_dataloader.dataset, spec.get("pipeline"))
        bank = _stream("train", own, bgr, settings)
    return Data(test, classes, bank, ood_streams(settings, test), overlaps(settings, classes))


def _stream(name: str, spec: Any, bgr: bool, limit: Settings | None = None) -> Stream:
    """A data set as a stream; with ``limit``, a random subset of its images for k-NN."""
    try:
        with DefaultScope.overwrite_default_scope(_SCOPE):
            dataset = DATASETS.build(copy.deepcopy(spec))
            if hasattr(dataset, "full_init"):
                dataset.full_init()
    except (OSError, AssertionError, RuntimeError) as error:
        where = spec.get("data_root") or "where its config says"
        raise ValueError(f"The {name} images, {where}, cannot be read: {error}") from error
    indices: Any = range(len(dataset))
    if limit is not None:
        indices = limit.bank_of(len(dataset))
    return Stream(name, Pixels(dataset, bgr, indices), _fingerprint_of(spec, dataset, indices))


def _fingerprint_of(spec: Any, dataset: Any, indices: Sequence[int]) -> str:
    """Hash of the images (their files, or their pixels) and the labels of a data set."""
    digest = hashlib.sha256(f"{spec} {len(dataset)}".encode())
    for index in indices:
        info = dataset.get_data_info(index) if hasattr(dataset, "get_data_info") else {}
        path = Path(str(info.get("img_path", "")))
        if "img" in info:
            digest.update(info["img"].tobytes())
        elif path.is_file():
            digest.update(fingerprint_of_files([path], "").encode())
        digest.update(f"{index} {path} {info.get('gt_label')}\n".encode())
    return digest.hexdigest()[:16]


def _with_pipeline(spec: Mapping[str, Any], pipeline: Any) -> dict[str, Any]:
    """The config of a data set, and of data sets within it, with another pipeline."""
    made = copy.deepcopy(dict(spec))
    if "pipeline" in made:
        made["pipeline"] = pipeline
    if "dataset" in made:
        made["dataset"] = _with_pipeline(made["dataset"], pipeline)
    if "datasets" in made:
        made["datasets"] = [_with_pipeline(one, pipeline) for one in made["datasets"]]
    return made


def _classes(dataset: Any, stream: Stream) -> list[str]:
    """Names of the classes, or class indices if the data set has no names."""
    names = (getattr(dataset, "metainfo", None) or {}).get("classes")
    if names:
        return [str(name) for name in names]
    labels = {stream.dataset[i][1] for i in range(len(stream))}
    return [str(label) for label in range(max(labels) + 1)]
