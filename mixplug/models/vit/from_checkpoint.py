"""Build a vision transformer of timm from a checkpoint, by the shapes of its tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from mixplug.models.vit.encoder import as_encoder
from mixplug.optional import optional
from mixplug.weights.load import load
from mixplug.weights.names import BEIT, UNNEEDED, kind_of, layout_of, only_beit, translate
from mixplug.weights.parts import part as part_of
from mixplug.weights.position import Grid
from mixplug.weights.read import read
from mixplug.weights.report import Report
from mixplug.weights.timm_names import timm_with
from mixplug.weights.vit import TIMM, keys_of


def vit_of(
    source: str | Path,
    part: str | None = None,
    heads: int | None = None,
    grid: Grid | None = None,
    **keys: Any,
) -> tuple[nn.Module, Report | None]:
    """The vision transformer of a checkpoint, in evaluation mode, for images of any size.

    Args:
        source: a checkpoint of mixplug, timm, mmpretrain, mmseg, DINO or DoRA; or 'timm:NAME' for
            a model of timm with timm's own weights, which timm downloads if they are not cached.
        part: which of the checkpoint's networks, see :func:`mixplug.weights.part`.
        heads: number of attention heads, which the shapes do not contain; None is one for 64
            channels.
        grid: (rows, columns) of the patches in training; None is a square.
        **keys: further keys of timm's model, such as ``drop_path_rate``.

    Returns:
        The model, and a report of what was loaded; the report is None for 'timm:NAME'.

    Raises:
        ImportError: timm is not installed.
        ValueError: the checkpoint has no vision transformer, or see
            :func:`mixplug.weights.load_file`; timm has no such model, or cannot get its weights.
    """
    if str(source).startswith(TIMM):
        name = str(source).removeprefix(TIMM)
        as_encoder(timm_model(name, **keys))  # checked before weights are downloaded
        return timm_model(name, pretrained=True, **keys).eval(), None
    chosen = part_of(read(source), part, Path(source).name)
    layout = layout_of(chosen.backbone)
    if layout is None:
        raise ValueError(
            f"{source} has no vision transformer of timm, mmpretrain, mmseg or DINO in its part "
            f"{chosen}, but {', '.join(list(chosen.backbone)[:4])}, ..."
        )
    if kind_of(chosen.backbone) == BEIT:
        raise ValueError(
            f"{source} is a BEiT, which is not a VisionTransformer: it has "
            f"{', '.join(only_beit(chosen.backbone))}."
        )
    state, _ = translate(chosen.backbone, layout, "timm")
    state = {name: tensor for name, tensor in state.items() if not name.startswith(UNNEEDED)}
    vision = optional("timm.models.vision_transformer", "video", "A vision transformer")
    model: nn.Module = vision.VisionTransformer(**{**keys_of(state, heads, grid), **keys})
    report = load(model, state, 0, grid, f"{chosen} of {Path(source).name}")
    if report.unexpected or not report.complete:  # the shapes fit, so it is another kind of ViT
        raise ValueError(f"{source} is not a ViT that timm has: {report.line()}.")
    return model.eval(), report


def timm_model(name: str, pretrained: bool = False, **keys: Any) -> nn.Module:
    """``timm.create_model`` without classifier; a ViT is built for images of any size.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no such model, or cannot get its weights.
    """
    timm = timm_with(name)
    homes = (".vision_transformer", ".deit")
    if ":" not in name and timm.models.model_entrypoint(name).__module__.endswith(homes):
        keys = {"dynamic_img_size": True, **keys}
    try:
        model: nn.Module = timm.create_model(name, pretrained, **{"num_classes": 0, **keys})
    except (OSError, RuntimeError) as error:  # no network, or a tag without weights
        raise ValueError(f"timm cannot build {name} with its weights: {error}") from error
    return model
