"""An mm classifier with the decoder of AlignMixup, and its input and output images."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample
from torch import Tensor, nn

import mixplug.mm  # noqa: F401  registers
from mixplug.from_config.config import build_model, load_weights, read_config, state_dict_of
from mixplug.hosts.mm.mixing.key import train_with
from mixplug.mixers.alignmix import AlignMixup
from mixplug.mixers.building import build_mixer
from mixplug.models.heads.autoencoder import Autoencoder
from mixplug.stages import Stages

_PREFIX = "mixup."
_TRAIN = "mixplug train decoder_wrn10-1_1xb64-20e_digits, or another mm_configs/alignmix/decoder_*"


@dataclass(frozen=True)
class Decoding:
    """A classifier in evaluation mode, the settings of its alignment, and its decoder D.

    Attributes:
        stages: the classifier.
        mixer: settings of AlignMixup; ``features`` names the module whose output is A.
        autoencoder: the decoder D, and the shape of its images.
        pipeline: pipeline of the test data of the config.
        scope: mmengine scope of the transforms.
    """

    stages: Stages
    mixer: AlignMixup
    autoencoder: Autoencoder
    pipeline: Sequence[Mapping[str, Any]]
    scope: str

    def ready(self, files: Sequence[Path]) -> Tensor:
        """Read images, resize them and normalize them to inputs (B, C, H, W) of the network.

        Images go through the test pipeline of the config. If it does not give the size of the
        decoder, the shorter edge is resized to it and the center is cropped.

        Raises:
            ValueError: a file is not an image.
        """
        inputs = [self._one(Path(file)) for file in files]
        samples = [DataSample() for _ in files]
        with torch.no_grad():
            ready = self._preprocess(pseudo_collate([
                {"inputs": x, "data_samples": s} for x, s in zip(inputs, samples, strict=True)
            ]))  # fmt: skip
        result: Tensor = ready["inputs"]
        return result

    def shown(self, images: Tensor) -> Tensor:
        """Undo the normalization: RGB in [0, 1], (B, H, W, 3), of images (B, C, H, W)."""
        preprocessor: Any = self.stages.model.data_preprocessor
        if hasattr(preprocessor, "mean"):
            images = images * preprocessor.std + preprocessor.mean
        if not preprocessor.to_rgb:
            images = images.flip(1)  # mm reads BGR
        return (images / 255).clamp(0, 1).permute(0, 2, 3, 1).cpu()

    def _preprocess(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        preprocessor: Any = self.stages.model.data_preprocessor
        ready: Mapping[str, Any] = preprocessor(batch, False)
        return ready

    def _one(self, file: Path) -> Tensor:
        if not file.is_file():
            raise ValueError(f"There is no image {file}.")
        height, width = self.autoencoder.image_shape[1:]
        edge = max(height, width)
        fit = [
            {"type": "ResizeEdge", "scale": edge},
            {"type": "CenterCrop", "crop_size": (width, height)},
        ]
        steps = list(self.pipeline)
        if (
            not steps or steps[0]["type"] != "LoadImageFromFile"
        ):  # the data set holds images in memory
            steps.insert(0, {"type": "LoadImageFromFile"})
        found = self._run(steps, file)
        if found.shape[-2:] != (height, width):
            found = self._run([*steps[:-1], *fit, steps[-1]], file)
        return found

    def _run(self, steps: Sequence[Mapping[str, Any]], file: Path) -> Tensor:
        with DefaultScope.overwrite_default_scope(self.scope):
            run = Compose(copy.deepcopy(list(steps)))
        try:
            data = run({"img_path": str(file)})
        except (OSError, AssertionError, AttributeError) as error:  # depends on the backend of mmcv
            raise ValueError(f"{file} is not an image: {error}.") from error
        inputs: Tensor = data["inputs"]
        return inputs


def decoding(config: Config | str | Path, checkpoint: str | Path) -> Decoding:
    """Load the classifier and the decoder of a checkpoint, on the CPU, in evaluation mode.

    Raises:
        ValueError: the config or the checkpoint has no decoder, they do not fit each other, or the
            checkpoint contains objects other than weights.
    """
    config = config if isinstance(config, Config) else read_config(config)
    mixup = config.get("mixup") or {}
    mixer = build_mixer(mixup) if mixup else None
    if not isinstance(mixer, AlignMixup) or not mixer.learns:
        raise ValueError(
            f"{config.filename} has no decoder, that is, no mixup=dict(type='AlignMixup', "
            f"decoder='ae', ...). Train one: {_TRAIN}."
        )
    state = {
        key.removeprefix(_PREFIX): value
        for key, value in state_dict_of(checkpoint).items()
        if key.startswith(_PREFIX)
    }
    if not state:
        raise ValueError(
            f"{checkpoint} has no decoder (no weights {_PREFIX}decoder.*). Train one: {_TRAIN}."
        )
    scope = config.get("default_scope", "mmpretrain")
    with DefaultScope.overwrite_default_scope(scope):
        model = build_model(config)
    load_weights(model, checkpoint)
    train_with(model, mixer)
    model.eval()
    autoencoder = model.mixup
    _load_decoder(autoencoder, state, checkpoint)
    pipeline = config.test_dataloader.dataset.pipeline
    return Decoding(model.stages, mixer, autoencoder, pipeline, scope)


def _load_decoder(module: nn.Module, state: Mapping[str, Tensor], checkpoint: str | Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise ValueError(f"The decoder of {checkpoint} does not fit the config: {first}") from error
