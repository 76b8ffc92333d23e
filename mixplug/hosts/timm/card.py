"""Reliability cards of timm models: classifiers by name, and folders of images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import ImageNetInfo, create_transform, infer_imagenet_subset, resolve_data_config
from torch import Tensor, nn
from torch.utils.data import Dataset

import mixplug.models.small.timm_entrypoints  # noqa: F401  registers
from mixplug.data.image_folders import Labeled, labeled
from mixplug.evaluation.card.checkpoints import facts_of
from mixplug.evaluation.card.outside import fingerprint_of_files, ood_streams, overlaps
from mixplug.evaluation.card.settings import Settings
from mixplug.evaluation.card.subject import Data, Stream, Subject
from mixplug.evaluation.results import fingerprint, to_device
from mixplug.hosts.timm.stages import timm_stages
from mixplug.hosts.timm.task import LEARNED
from mixplug.image_files import open_rgb
from mixplug.models.vit import timm_model
from mixplug.models.vit.from_checkpoint import trained_size
from mixplug.weights import Preprocessing, part, preprocessing_of, read
from mixplug.weights.dialects import in_timms_names
from mixplug.weights.load import load_part
from mixplug.weights.timm_names import timm_with
from mixplug.weights.vit import TIMM


def subject_of(
    model: str, checkpoint: Path | None, name: str, device: str, **images: Any
) -> Subject:
    """A timm classifier, given by its name.

    Images are prepared as in the training of the weights: as the checkpoint says, or as timm does
    for its own weights of this model.

    Args:
        model: name as in ``timm.create_model``, with a tag for other than the default weights.
        checkpoint: file of timm's train.py; its EMA weights are used if there are any. None takes
            the pretrained weights of timm, which timm downloads if they are not in its cache.
        name: column name.
        device: device of the network.
        **images: values that replace those of the checkpoint, see
            :meth:`mixplug.weights.Preprocessing.changed`.

    Raises:
        ValueError: an unknown model, weights that do not fit it, or a network without classifier.
    """
    if checkpoint is None:
        network = timm_model(model, pretrained=True, num_classes=None)
        facts: dict[str, Any] = {"checkpoint": TIMM + model}
        config: Any = getattr(network, "pretrained_cfg", {})
        prepared = preprocessing_of(TIMM + model, config=config)
    else:
        timm_with(model, "timm", "mixplug eval card")
        found = read(checkpoint)
        chosen = part(found)
        own = {k: v for k, v in chosen.backbone.items() if not k.startswith(LEARNED)}
        chosen = replace(chosen, backbone=own)
        network = classifier_for(model, chosen.backbone)
        try:
            load_part(network, chosen, checkpoint, found, min_loaded=1.0)
        except ValueError as error:
            raise ValueError(
                f"{checkpoint} does not fit {model}: {str(error).splitlines()[-1]}"
            ) from None
        facts = {**facts_of(checkpoint, found), "weights": chosen.name}
        prepared = preprocessing_of(checkpoint, model=model, found=found)
    prepared = prepared.changed(**images)
    network = to_device(network, device).eval().requires_grad_(False)
    _note(network, prepared)
    colors = resolve_data_config({}, model=network)
    mean, std = (torch.tensor(colors[key], device=device)[:, None, None] for key in ("mean", "std"))
    digest = hashlib.sha256(f"{model} {colors} {fingerprint(network)}".encode()).hexdigest()[:16]
    facts |= {"model": model, "input_size": list(colors["input_size"]), "images": prepared.line()}
    try:
        stages = timm_stages(network)
    except ValueError as error:
        raise ValueError(f"No card can be made of {model}: {error}") from None
    return Subject(name, stages, partial(_normalized, mean, std, prepared.bgr), digest, facts)


def _normalized(mean: Tensor, std: Tensor, bgr: bool, pixels: Tensor) -> Tensor:
    return ((pixels.flip(1) if bgr else pixels) - mean) / std


def _note(network: Any, prepared: Preprocessing) -> None:
    """Make timm's functions find how images are prepared for a network."""
    channels = (getattr(network, "pretrained_cfg", None) or {}).get("input_size", (3,))[0]
    network.pretrained_cfg = {
        **(getattr(network, "pretrained_cfg", None) or {}),
        "mean": prepared.mean,
        "std": prepared.std,
        "input_size": (channels, *prepared.size),
        "crop_pct": prepared.crop,
        "interpolation": prepared.interpolation,
    }


def require_same_images(subjects: Sequence[Subject]) -> None:
    """Refuse one card of networks whose images have another size, crop or interpolation.

    Raises:
        ValueError: the networks differ.
    """
    kinds: dict[str, str] = {}
    for subject in subjects:
        colors = resolve_data_config({}, model=subject.network)
        height, width = colors["input_size"][1:]
        crop = f"{height} x {width} pixels, crop {colors['crop_pct']:.4g}, "
        kinds.setdefault(crop + str(colors["interpolation"]), subject.name)
    if len(kinds) > 1:
        described = "; ".join(f"{name}: {kind}" for kind, name in kinds.items())
        raise ValueError(
            f"A card gives the same images to all networks, but these were trained on other ones: "
            f"{described}. Make a card of each, or set --size, --crop and --interpolation."
        )


def classifier_for(model: str, backbone: Mapping[str, Tensor]) -> nn.Module:
    """A timm classifier of random weights, with the classes and the grid of a checkpoint.

    Raises:
        ValueError: the checkpoint has no classifier.
    """
    state, _ = in_timms_names(backbone)
    keys: dict[str, Any] = {"num_classes": _classes_of(model, state)}
    size = trained_size(model, state)
    return timm_model(model, **keys, **({} if size is None else {"img_size": size}))


def _classes_of(model: str, state: Mapping[str, Tensor]) -> int:
    """Number of classes of a checkpoint, from the shape of its classifier.

    Raises:
        ValueError: the checkpoint has no classifier.
    """
    config = timm.get_pretrained_cfg(model, allow_unregistered=True)
    head = getattr(config, "classifier", None)
    heads = [head] if isinstance(head, str) else list(head or ())
    for one in heads:
        if f"{one}.weight" in state:
            return len(state[f"{one}.weight"])
    raise ValueError(f"The checkpoint has no classifier of {model} ({', '.join(heads) or 'none'}).")


class Pixels(Dataset[tuple[Tensor, int]]):
    """Images (3, H, W) uint8, cropped as in the evaluation of timm, and labels.

    Args:
        images: files and labels.
        transform: from a PIL image to a tensor.
        indices: indices of the images to use; None uses all.
    """

    def __init__(
        self, images: Labeled, transform: Any, indices: Sequence[int] | None = None
    ) -> None:
        self.images, self.transform = images, transform
        self.indices = range(len(images)) if indices is None else indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """An image and its label.

        Raises:
            ValueError: the file cannot be read.
        """
        place = self.indices[index]
        image = open_rgb(self.images.paths[place])  # a PIL image, as in timm
        return self.transform(image), int(self.images.labels[place])


def data_of(subject: Subject, root: Path, settings: Settings) -> Data:
    """The image sets of a card: ROOT/val/CLASS/ for testing, and ROOT/train/CLASS/ for k-NN.

    If there is no ROOT/val, the folders in ROOT are the classes. For a network with ImageNet
    classes, folders may be a subset of them, named by WordNet ids. Otherwise there must be one
    folder for each class of the network, in alphabetical order.

    Raises:
        ValueError: another layout, or folders that cannot be assigned to classes.
    """
    has_val = (root / "val").is_dir()
    images = _numbered(labeled(root / "val" if has_val else root), subject)
    colors = resolve_data_config({}, model=subject.network)
    transform = create_transform(**colors, normalize=False)
    of_test = fingerprint_of_files(images.paths, str(colors))
    test = Stream("test", Pixels(images, transform), of_test)
    bank = None
    if has_val and (root / "train").is_dir() and "ood" in settings.parts:
        bank = _bank(labeled(root / "train"), transform, settings, str(colors))
    classes = images.classes
    return Data(test, classes, bank, ood_streams(settings, test), overlaps(settings, classes))


def _bank(images: Labeled, transform: Any, settings: Settings, processing: str) -> Stream:
    chosen = settings.bank_of(len(images))
    of_bank = fingerprint_of_files([images.paths[i] for i in chosen], processing)
    return Stream("train", Pixels(images, transform, chosen), of_bank)


def _numbered(images: Labeled, subject: Subject) -> Labeled:
    """Map labels to the class indices of the network."""
    known, classes = _names(subject.network), subject.stages.num_classes
    if known and set(images.classes) <= set(known):
        places = torch.tensor([known.index(name) for name in images.classes])
        return Labeled(images.paths, places[images.labels], known)
    if len(images.classes) != classes:
        raise ValueError(
            f"The data has {len(images.classes):,} classes ({', '.join(images.classes[:3])}, ...) "
            f"and {subject.name} has {classes:,}. There must be a folder for each of its classes, "
            f"or folders must be named like classes of ImageNet (such as n01440764)."
        )
    return images


def _names(network: nn.Module) -> list[str]:
    """WordNet ids of the classes, if the network has ImageNet classes."""
    subset = infer_imagenet_subset(network)
    return list(ImageNetInfo(subset).label_names()) if subset else []
