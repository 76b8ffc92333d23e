"""An mm classifier with AlignMixup's decoder, and pictures that go into it and come out."""

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
from mixplug.from_config.config import built, load, read_config, weights
from mixplug.hosts.mm.mixing.key import train_with
from mixplug.mixers.alignmix import AlignMixup
from mixplug.mixers.building import build_mixer
from mixplug.models.heads.autoencoder import Autoencoder
from mixplug.stages import Stages

_PREFIX = "mixup."
_TRAIN = "mixplug train decoder_wrn10-1_1xb64-20e_digits, or another mm_configs/alignmix/decoder_*"


@dataclass(frozen=True)
class Decoding:
    """A network in evaluation mode, its settings of alignment, and its decoder D.

    Attributes:
        stages: the network.
        mixer: with its settings, and ``features``, the module whose map is A.
        autoencoder: D and the shape of its images.
        pipeline: of the config's test data.
        scope: in which its transforms are looked for.
    """

    stages: Stages
    mixer: AlignMixup
    autoencoder: Autoencoder
    pipeline: Sequence[Mapping[str, Any]]
    scope: str

    def ready(self, files: Sequence[Path]) -> Tensor:
        """Pictures (B, C, H, W) as the network takes them: read, fitted and normalized.

        The test pipeline of the config fits them. Where it leaves another size than the decoder
        has, as one that trusts its data does, the shorter edge is resized and the middle cut out.

        Raises:
            ValueError: a file that is no picture.
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
        """Normalized images (B, C, H, W) as RGB in [0, 1], (B, H, W, 3)."""
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
            raise ValueError(f"There is no picture {file}.")
        height, width = self.autoencoder.image_shape[1:]
        edge = max(height, width)
        fit = [
            {"type": "ResizeEdge", "scale": edge},
            {"type": "CenterCrop", "crop_size": (width, height)},
        ]
        steps = list(self.pipeline)
        if not steps or steps[0]["type"] != "LoadImageFromFile":  # data that are in memory
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
        except (OSError, AssertionError, AttributeError) as error:  # by backend of mmcv
            raise ValueError(f"{file} is no picture: {error}.") from error
        inputs: Tensor = data["inputs"]
        return inputs


def decoding(config: Config | str | Path, checkpoint: str | Path) -> Decoding:
    """The network and the decoder of a checkpoint, on the CPU, in evaluation mode.

    Raises:
        ValueError: a config or a checkpoint without a decoder, or that do not fit each other, or a
            checkpoint with more in it than weights.
    """
    config = config if isinstance(config, Config) else read_config(config)
    mixup = config.get("mixup") or {}
    mixer = build_mixer(mixup) if mixup else None
    if not isinstance(mixer, AlignMixup) or not mixer.learns:
        raise ValueError(
            f"{config.filename} has no decoder, that is no mixup=dict(type='AlignMixup', "
            f"decoder='ae', ...). Train one: {_TRAIN}."
        )
    state = {
        key.removeprefix(_PREFIX): value
        for key, value in weights(checkpoint).items()
        if key.startswith(_PREFIX)
    }
    if not state:
        raise ValueError(
            f"{checkpoint} has no decoder (no weights {_PREFIX}decoder.*). Train one: {_TRAIN}."
        )
    scope = config.get("default_scope", "mmpretrain")
    with DefaultScope.overwrite_default_scope(scope):
        model = built(config)
    load(model, checkpoint)
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
