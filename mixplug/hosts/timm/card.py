"""timm: classifiers by name and folders of images, for a reliability card."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from timm.data import ImageNetInfo, create_transform, infer_imagenet_subset, resolve_data_config
from torch import Tensor, nn
from torch.utils.data import Dataset

import mixplug.models.small.timm_entrypoints  # noqa: F401  registers
from mixplug.data.image_folders import Labeled, labeled
from mixplug.evaluation.card.checkpoints import facts_of
from mixplug.evaluation.card.outside import of_files, outside, overlaps
from mixplug.evaluation.card.settings import Settings
from mixplug.evaluation.card.subject import Data, Stream, Subject
from mixplug.evaluation.results import fingerprint, to_device
from mixplug.hosts.timm.stages import timm_stages
from mixplug.hosts.timm.task import LEARNED
from mixplug.models.vit import timm_model
from mixplug.weights import load, part, read
from mixplug.weights.timm_names import timm_with
from mixplug.weights.vit import TIMM


def subject_of(model: str, checkpoint: Path | None, name: str, device: str) -> Subject:
    """A classifier of timm by its name.

    Args:
        model: as in ``timm.create_model``; a tag selects weights other than the default ones.
        checkpoint: of train.py; its EMA weights are used if it has them. None uses timm's own
            weights, from its cache or from where timm downloads them.
        name: name of the card's column.
        device: where the network runs.

    Raises:
        ValueError: there is no such model, the weights do not fit it, or it has no classifier.
    """
    if checkpoint is None:
        network = timm_model(model, pretrained=True, num_classes=None)
        facts: dict[str, Any] = {"checkpoint": TIMM + model}
    else:
        timm_with(model, "timm", "mixplug eval card")
        found = read(checkpoint)
        state = {
            key: value for key, value in part(found).backbone.items() if not key.startswith(LEARNED)
        }
        network = timm_model(model, num_classes=_classes_of(model, state))
        try:
            load(network, state, min_loaded=1.0, source=checkpoint.name)
        except ValueError as error:
            raise ValueError(
                f"{checkpoint} does not fit {model}: {str(error).splitlines()[-1]}"
            ) from None
        facts = {**facts_of(checkpoint, found), "weights": part(found).name}
    network = to_device(network, device).eval().requires_grad_(False)
    colors = resolve_data_config({}, model=network)
    mean, std = (torch.tensor(colors[key], device=device)[:, None, None] for key in ("mean", "std"))
    digest = hashlib.sha256(f"{model} {colors} {fingerprint(network)}".encode()).hexdigest()[:16]
    facts |= {"model": model, "input_size": list(colors["input_size"])}
    try:
        stages = timm_stages(network)
    except ValueError as error:
        raise ValueError(f"No card can be made of {model}: {error}") from None
    return Subject(name, stages, partial(_normalized, mean, std), digest, facts)


def _normalized(mean: Tensor, std: Tensor, pixels: Tensor) -> Tensor:
    return (pixels - mean) / std


def _classes_of(model: str, state: dict[str, Tensor]) -> int:
    """Number of classes of a checkpoint, which is the number of rows of its classifier.

    Raises:
        ValueError: it has no classifier.
    """
    config = timm.get_pretrained_cfg(model, allow_unregistered=True)
    head = getattr(config, "classifier", None)
    heads = [head] if isinstance(head, str) else list(head or ())
    for one in heads:
        if f"{one}.weight" in state:
            return len(state[f"{one}.weight"])
    raise ValueError(f"The checkpoint has no classifier of {model} ({', '.join(heads) or 'none'}).")


class Pixels(Dataset[tuple[Tensor, int]]):
    """Images (3, H, W) uint8, cropped as in timm's evaluation, and labels.

    Args:
        images: files and labels.
        transform: maps a PIL image to a tensor.
        indices: which images to use; None uses all.
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
        path = Path(self.images.paths[place])
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")  # by PIL, as in timm's evaluation
            return self.transform(image), int(self.images.labels[place])
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error}") from error


def data_of(subject: Subject, root: Path, settings: Settings) -> Data:
    """The data of a card: images in ROOT/val/CLASS/, and in ROOT/train/CLASS/ for k-NN.

    Without ROOT/val, the folders of ROOT are the classes. Folders with the names of ImageNet
    classes (WordNet ids) may be a part of the network's classes. Other folders must be all of its
    classes, in the order of their names.

    Raises:
        ValueError: the layout is another one, or it is not known which classes the folders are.
    """
    has_val = (root / "val").is_dir()
    images = _numbered(labeled(root / "val" if has_val else root), subject)
    colors = resolve_data_config({}, model=subject.network)
    transform = create_transform(**colors, normalize=False)
    test = Stream("test", Pixels(images, transform), of_files(images.paths, str(colors)))
    bank = None
    if has_val and (root / "train").is_dir() and "ood" in settings.parts:
        bank = _bank(labeled(root / "train"), transform, settings, str(colors))
    classes = images.classes
    return Data(test, classes, bank, outside(settings, test), overlaps(settings, classes))


def _bank(images: Labeled, transform: Any, settings: Settings, made: str) -> Stream:
    chosen = settings.bank_of(len(images))
    files = [images.paths[i] for i in chosen]
    return Stream("train", Pixels(images, transform, chosen), of_files(files, made))


def _numbered(images: Labeled, subject: Subject) -> Labeled:
    """Labels in the numbering of the network."""
    known, classes = _names(subject.network), subject.stages.num_classes
    if known and set(images.classes) <= set(known):
        places = torch.tensor([known.index(name) for name in images.classes])
        return Labeled(images.paths, places[images.labels], known)
    if len(images.classes) != classes:
        raise ValueError(
            f"The data has {len(images.classes):,} classes ({', '.join(images.classes[:3])}, ...) "
            f"and {subject.name} has {classes:,}. The folders need to be all of its classes, or to "
            f"have the names of ImageNet's classes (such as n01440764)."
        )
    return images


def _names(network: nn.Module) -> list[str]:
    """WordNet ids of the network's classes; empty if they are not those of ImageNet."""
    subset = infer_imagenet_subset(network)
    return list(ImageNetInfo(subset).label_names()) if subset else []
