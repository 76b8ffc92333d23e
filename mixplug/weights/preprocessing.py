"""How images were normalized and resized in the training of a checkpoint.

Every command that gives images to a network takes mean, standard deviation, size, crop and
interpolation from here.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from mixplug.names import listed
from mixplug.optional import optional
from mixplug.weights.dialects import DINOV2, dialect_of
from mixplug.weights.notes import Notes, notes_of
from mixplug.weights.parts import part as part_of
from mixplug.weights.parts import parts
from mixplug.weights.preprocessing_notes import Told, of_hub, of_mm, of_written
from mixplug.weights.read import read
from mixplug.weights.timm_names import timm_with

TIMM = "timm:"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALIZATION = ("mean", "std")
FIELDS = (*NORMALIZATION, "size", "crop", "interpolation")
INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "lanczos", "hamming", "box")
_IMAGENET: Told = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
DINO_IMAGES: Told = {**_IMAGENET, "crop": 224 / 256, "interpolation": "bicubic"}
_TOLERANCE = 0.5  # of pixels in [0, 255]; papers and configs round
_GUESS: Told = {**DINO_IMAGES, "size": (224, 224)}


@dataclass(frozen=True)
class Preprocessing:
    """Preparation of the images for a network.

    Attributes:
        mean: mean of the channels, for pixels in [0, 1], in the order of the network's channels.
        std: standard deviation of the channels.
        size: (height, width) of the images in pixels.
        crop: share of the resized shorter side that the center crop keeps, in (0, 1].
        interpolation: how images are resized: 'bicubic', 'bilinear', ...
        bgr: whether the network takes its channels in the order B, G, R.
        source: where mean and std come from.
        guessed: names of the fields that nothing tells, and that have a default.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    size: tuple[int, int] = (224, 224)
    crop: float = 224 / 256
    interpolation: str = "bicubic"
    bgr: bool = False
    source: str = "defaults"
    guessed: tuple[str, ...] = ()

    def normalized(self, images: Tensor) -> Tensor:
        """Images (..., 3, H, W) uint8 in RGB to the float32 input of the network."""
        if self.bgr:
            images = images.flip(-3)
        mean, std = (
            images.new_tensor([255 * value for value in values], dtype=torch.float32)[:, None, None]
            for values in (self.mean, self.std)
        )
        return (images.float() - mean).div_(std)

    def line(self, fields: Sequence[str] = FIELDS) -> str:
        """The values of these fields and their source, for a log."""
        values = {
            "mean": f"mean {_short(self.mean)}",
            "std": f"std {_short(self.std)}{' in BGR' if self.bgr else ''}",
            "size": f"size {self.size[0]} x {self.size[1]}",
            "crop": f"crop {self.crop:.4g}",
            "interpolation": self.interpolation,
        }
        guessed = [field for field in fields if field in self.guessed]
        ending = f" ({listed(guessed, 'and')} assumed)" if guessed else ""
        return f"images: {', '.join(values[f] for f in fields)}; from {self.source}{ending}"

    def facts(self) -> dict[str, Any]:
        """All fields, for a results file."""
        return asdict(self)

    def warn(self, fields: Sequence[str] = NORMALIZATION) -> None:
        """Give a warning if one of these fields was guessed."""
        guessed = [field for field in fields if field in self.guessed]
        if guessed:
            options = " and ".join(f"--{field}" for field in guessed)
            warnings.warn(
                f"{self.source} does not say with which {listed(guessed, 'and')} of images it was "
                f"trained, so these are assumed: {self.line(guessed).removeprefix('images: ')}. "
                f"Pass {options}, or --model with the name of timm's model.",
                UserWarning,
                stacklevel=3,
            )

    def contradicted(self, mean: Sequence[float], std: Sequence[float]) -> str:
        """How other values differ from what the checkpoint says; '' if they do not.

        Args:
            mean: for pixels in [0, 255]; one value is for all channels.
            std: in the same unit.
        """
        if not {*NORMALIZATION}.isdisjoint(self.guessed):
            return ""
        pairs = ((self.mean, mean), (self.std, std))
        if all(_close([255 * value for value in own], given) for own, given in pairs):
            return ""
        wanted = ", ".join(
            f"{name}=[{', '.join(f'{255 * value:.6g}' for value in values)}]"
            for name, values in (("mean", self.mean), ("std", self.std))
        )
        return (
            f"the weights were trained on images with {wanted} (says {self.source}), but images "
            f"are normalized with mean {_short(mean)} and std {_short(std)}"
        )

    def changed(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: int | tuple[int, int] | None = None,
        crop: float | None = None,
        interpolation: str | None = None,
    ) -> Preprocessing:
        """A copy with the given values, which are no longer guessed; None keeps a value.

        Args:
            mean: for pixels in [0, 1], or in [0, 255] if a value is greater than 1.
            std: in the same unit as ``mean``; alone, its own values tell the unit.
            size: side, or (height, width), in pixels.
            crop: share of the resized shorter side.
            interpolation: of resizing.

        Raises:
            ValueError: a value that is not allowed.
        """
        mean, std = _in_one(mean, std)
        given = {
            "mean": mean,
            "std": std,
            "size": (size, size) if isinstance(size, int) else size,
            "crop": crop,
            "interpolation": interpolation,
        }
        found = {name: value for name, value in given.items() if value is not None}
        made = replace(self, **found)  # type: ignore[arg-type]
        allowed = made.interpolation in INTERPOLATIONS and 0 < made.crop <= 1
        lengths = len(made.mean) == len(made.std)
        if not (allowed and lengths and min(made.size) > 0 and min(made.std) > 0):
            raise ValueError(
                f"Images need as many values of mean as of std, std > 0, a size > 0, a crop in "
                f"(0, 1] and an interpolation of {listed(INTERPOLATIONS)}; got {found}."
            )
        if not found:
            return self
        guessed = tuple(field for field in self.guessed if field not in found)
        source = self.source
        if not {*NORMALIZATION}.isdisjoint(found):
            source = (
                "the options" if {*NORMALIZATION} <= set(found) else f"{source} and the options"
            )
        return replace(made, guessed=guessed, source=source)


def preprocessing_of(
    source: str | Path,
    part: str | None = None,
    model: str | None = None,
    found: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    trained_size: tuple[int, int] | None = None,
) -> Preprocessing:
    """What a checkpoint says about its images; the fields that it does not tell are guessed.

    The sources are, in this order: the settings that ``mixplug weights convert`` and timm write
    into a file, or into the config.json that a hub stores beside it; the arguments of timm's
    train.py in the file, with the defaults of its model; the ``data_preprocessor`` and the test
    pipeline of the mm config in the file; the preprocessor_config.json of transformers; ``model``;
    and the training codes of DINO, DoRA, DINOv2 and MAE, which have the values of ImageNet.

    Args:
        source: a checkpoint, or 'timm:NAME'.
        part: part of the checkpoint.
        model: name of timm's model whose weights these are.
        found: content of the checkpoint, if it was read before.
        config: ``pretrained_cfg`` of the network, for 'timm:NAME', if it was built before.
        trained_size: (height, width) of the images to which the position embeddings belong.

    Raises:
        ValueError: see :func:`mixplug.weights.read`; or timm has no such model.
    """
    if str(source).startswith(TIMM):
        name = str(source).removeprefix(TIMM)
        told = of_written(config) if config else _of_timm(name)
        return _merged([(f"timm's {name}", told)], str(source))
    found = read(source) if found is None else found
    notes = notes_of(source, found)
    sources = [
        (
            "the settings in the file or its config.json",
            of_written(_mapping(notes.written.get("images"))),
        ),
        ("timm's settings in the file or its config.json", of_written(notes.pretrained)),
        ("the arguments of the training in the file", _of_arguments(notes)),
        ("the mm config in the file", of_mm(notes.mm)),
        ("preprocessor_config.json", of_hub(notes.preprocessor)),
    ]
    if model is not None:
        sources.append((f"timm's {model}", _of_timm(model)))
    if trained_size is not None:
        sources.append(("the position embeddings", {"size": trained_size}))
    sources.append(_of_method(found, part, Path(source).name))
    return _merged(sources, Path(source).name)


def _merged(told: Sequence[tuple[str, Told]], name: str) -> Preprocessing:
    """Each field from the first source that has it; mean, std and channel order from one source."""
    values: dict[str, Any] = {}
    origin = name
    for source, fields in told:
        fields = {key: value for key, value in fields.items() if value is not None}
        if "mean" in values or not {*NORMALIZATION} <= set(fields):
            fields = {k: v for k, v in fields.items() if k not in (*NORMALIZATION, "bgr")}
        else:
            origin = source
        values = {**fields, **values}
    guessed = tuple(field for field in FIELDS if field not in values)
    return Preprocessing(**{**_GUESS, **values}, source=origin, guessed=guessed)


def _of_timm(name: str, arguments: Mapping[str, Any] | None = None) -> Told:
    """What timm's own scripts resolve for a model and the arguments of a script."""
    timm = timm_with(name, "timm", "The settings of images")
    config = _config_of_timm(timm, name)
    data = optional("timm.data", "timm", "The settings of images")
    if not config and not arguments:
        return {}
    return of_written(data.resolve_data_config(dict(arguments or {}), pretrained_cfg=config))


def _config_of_timm(timm: ModuleType, name: str) -> dict[str, Any]:
    if ":" in name:  # of a hub; timm reads its config.json
        factory = timm.models._factory
        kind, identifier = factory.parse_model_name(name)
        if kind == "hf-hub":
            config, *_ = timm.models.load_model_config_from_hf(identifier)
            return dict(config)
        return {}
    found = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if found is None:  # a model of another package, which says it itself
        with torch.device("meta"):
            return dict(getattr(timm.create_model(name), "pretrained_cfg", None) or {})
    return dict(found.to_dict())


def _of_arguments(notes: Notes) -> Told:
    """Arguments of timm's train.py, whose model also has settings."""
    keys = ("mean", "std", "img_size", "input_size", "crop_pct", "interpolation", "in_chans")
    if not notes.args or not notes.name or not any(key in notes.args for key in keys[:2]):
        is_timm = not notes.args and notes.name and _is_model(notes.name)
        return _of_timm(notes.name) if is_timm else {}
    arguments = {key: notes.args[key] for key in keys if notes.args.get(key) is not None}
    if _is_model(notes.name):
        return _of_timm(notes.name, arguments)
    return of_written(arguments)  # a model that this version of timm does not have


def _is_model(name: str) -> bool:
    """Whether timm has a model of this name; without timm, its settings are not known."""
    if importlib.util.find_spec("timm") is None:
        return False
    return bool(optional("timm", "timm", "The settings of images").is_model(name))


def _of_method(found: Mapping[str, Any], part: str | None, name: str) -> tuple[str, Told]:
    """Methods whose training code has the mean and std of ImageNet as constants."""
    try:
        names = part_of(found, part, name).backbone
    except ValueError:
        return "", {}
    if dialect_of(names) == DINOV2:
        return "the training code of DINOv2", {**_IMAGENET, "crop": 1.0, "interpolation": "bicubic"}
    if not {"student", "teacher"}.isdisjoint(parts(found)):
        return "the training code of DINO and DoRA", DINO_IMAGES
    if any(key.startswith("decoder_blocks.") for key in names):
        return "the training code of MAE", DINO_IMAGES
    return "", {}


def _in_one(
    mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Both in the unit of pixels in [0, 1]."""
    large = max([*(mean or ()), *(std or ())], default=0.0) > 1
    scale = 255.0 if large else 1.0
    made = [None if v is None else tuple(float(x) / scale for x in v) for v in (mean, std)]
    return made[0], made[1]


def _close(own: Sequence[float], given: Sequence[float]) -> bool:
    """Whether values of channels are equal up to rounding; one value is for all channels."""
    length = max(len(own), len(given))
    pairs = [list(values) * length if len(values) == 1 else values for values in (own, given)]
    return len(pairs[0]) == len(pairs[1]) and all(
        abs(a - b) <= _TOLERANCE for a, b in zip(*pairs, strict=True)
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _short(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
