"""Model and test images of an mm config for weakly supervised object localization."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import Tensor, nn

import mixplug
import mixplug.mm  # registers
from mixplug.evaluation.results import best_device, fingerprint, to_device
from mixplug.evaluation.wsol import Batch
from mixplug.from_config.config import build_model, load_weights, ordered_loader, read_config
from mixplug.from_config.heat_maps import heat_maps_of

_KEPT = ("LoadImageFromFile", "Resize", "PackInputs")  # transforms that keep boxes valid


@dataclass(frozen=True)
class Subject:
    """The classifier and the images to evaluate.

    Attributes:
        heat_maps: computes maps, see :func:`mixplug.from_config.heat_maps.heat_maps_of`.
        class_names: names of the classes of the data.
        total: number of images.
        model: the classifier, in evaluation mode.
        loader: data loader of the test images.
    """

    heat_maps: Any
    class_names: Sequence[str]
    total: int
    model: Any
    loader: Any

    def facts(self) -> dict[str, str]:
        """What results depend on besides settings, for the JSON."""
        return {
            "maps": self.heat_maps.name,
            "weights": fingerprint(self.model),
            "mixplug": mixplug.__version__,
            "torch": torch.__version__,
        }

    def batches(self) -> Iterator[Batch]:
        """Batches of all test images.

        Raises:
            ValueError: images of different sizes, or images without boxes.
        """
        for batch in self.loader:
            sizes = {tuple(image.shape) for image in batch["inputs"]}
            if len(sizes) > 1:
                raise ValueError(
                    f"Images of a batch need the same size, got {sorted(sizes)}: add "
                    f"dict(type='Resize', scale=(224, 224)) to the pipeline."
                )
            pixels = torch.stack(list(batch["inputs"]))
            ready = self.model.data_preprocessor(batch, False)
            samples = ready["data_samples"]
            if ready["inputs"].shape[-2:] != pixels.shape[-2:]:
                raise ValueError(
                    f"The data_preprocessor pads images of {tuple(pixels.shape[-2:])} to "
                    f"{tuple(ready['inputs'].shape[-2:])}, which would invalidate the boxes."
                )
            yield Batch(
                ready["inputs"],
                pixels.flip(1).byte(),  # mm has BGR
                torch.cat([sample.gt_label for sample in samples]),
                [_boxes(sample) for sample in samples],
                ["/".join(Path(sample.img_path).parts[-2:]) for sample in samples],
            )


def wsol_of(
    config: Config | str | Path,
    checkpoint: str | Path,
    maps: str | None = None,
    device: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Subject:
    """The model of a config and the images of its test_dataloader.

    Args:
        config: an mm config, or its path.
        checkpoint: of mmpretrain; weights of a mixer are ignored.
        maps: 'cam' or 'attention'; None chooses by the backbone.
        device: None takes a GPU if there is one.
        overrides: changes of the config, as in ``--cfg-options`` of OpenMMLab's tools.

    Raises:
        ValueError: a config without model or test images, data without boxes, transforms that
            invalidate boxes, a model with fewer classes than the data; or see
            :func:`mixplug.from_config.heat_maps.heat_maps_of`.
    """
    config = config if isinstance(config, Config) else read_config(config)
    config.merge_from_dict(dict(overrides or {}))
    if not config.get("model") or not config.get("test_dataloader"):
        raise ValueError(
            f"The config needs the keys model and test_dataloader, got {config.filename}."
        )
    with DefaultScope.overwrite_default_scope(config.get("default_scope", "mmpretrain")):
        loader = Runner.build_dataloader(
            ordered_loader(config.test_dataloader)
        )  # before the network
        _require_pipeline(loader.dataset)
        model = _model(config, checkpoint, device)
    names = loader.dataset.metainfo.get("classes") or ()
    classes = getattr(model.head, "num_classes", None)
    if classes is not None and classes < len(names):
        raise ValueError(
            f"The model has {classes} classes, but the data have {len(names)}: the checkpoint was "
            f"trained on other data."
        )
    return Subject(heat_maps_of(model, maps), names, len(loader.dataset), model, loader)


def _model(config: Config, checkpoint: str | Path, device: str | None) -> nn.Module:
    model = build_model(config)
    load_weights(model, checkpoint)
    return to_device(model, device or best_device()).eval()


def _require_pipeline(dataset: Any) -> None:
    """Refuse transforms that would invalidate the boxes of an image."""
    kinds = [type(step).__name__ for step in dataset.pipeline.transforms]
    wrong = [kind for kind in kinds if kind not in _KEPT]
    if wrong:
        raise ValueError(
            f"The test pipeline has {', '.join(wrong)}, which would invalidate the boxes. Allowed "
            f"are {', '.join(_KEPT)}: images are resized as a whole (thesis 3.4.2)."
        )


def _boxes(sample: Any) -> Tensor:
    """Ground-truth boxes of an image, (n, 4) float64, scaled like the image by Resize."""
    boxes = sample.get("true_boxes")
    if boxes is None:
        raise ValueError(
            "The test data have no boxes. Use type='mixplug.CUBBoxes' for CUB200-2011, or a data "
            "set whose data samples have true_boxes (n, 4) in their metainfo."
        )
    (height, width), (old_height, old_width) = sample.img_shape[:2], sample.ori_shape[:2]
    scale = [width / old_width, height / old_height] * 2
    return torch.as_tensor(boxes, dtype=torch.float64) * torch.tensor(scale, dtype=torch.float64)
