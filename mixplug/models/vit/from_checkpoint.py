"""Build a vision transformer of timm from a checkpoint, by the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixplug.models.vit.encoder import as_encoder
from mixplug.optional import optional
from mixplug.weights.architecture import Architecture, activation_of, architecture_of
from mixplug.weights.dialects import in_timms_names
from mixplug.weights.load import load
from mixplug.weights.names import BEIT, UNNEEDED, kind_of, layout_of, only_beit, translate
from mixplug.weights.notes import notes_of
from mixplug.weights.parts import Part
from mixplug.weights.parts import part as part_of
from mixplug.weights.position import Grid, square_grid
from mixplug.weights.preprocessing import NORMALIZATION, Preprocessing, preprocessing_of
from mixplug.weights.read import read
from mixplug.weights.report import Report
from mixplug.weights.timm_names import timm_with
from mixplug.weights.vit import KNOWN, TIMM, keys_of


def vit_of(
    source: str | Path,
    part: str | None = None,
    heads: int | None = None,
    grid: Grid | None = None,
    model: str | None = None,
    found: Mapping[str, Any] | None = None,
    **keys: Any,
) -> tuple[nn.Module, Report | None]:
    """The vision transformer of a checkpoint, in evaluation mode, for images of any size.

    Shapes tell most settings of the network. The activation, the epsilon of the norms and the
    number of heads are taken from ``model``, else from what the file says: the model's name in
    a checkpoint of timm's train.py, the config in one of mmengine, and the config.json that hubs
    store beside a file. Without any of these, they are those of timm's ViT.

    Args:
        source: a checkpoint of mixplug, timm, mmpretrain, mmseg, DINO, DoRA, DINOv2, MAE or Hugging
            Face's transformers; or 'timm:NAME' for a model of timm with timm's own weights, which
            timm downloads if they are not cached.
        part: which of the checkpoint's networks, see :func:`mixplug.weights.part`.
        heads: number of attention heads, which the shapes do not contain; None is one for 64
            channels.
        grid: (rows, columns) of the patches in training; None is a square.
        model: name of timm's model whose weights these are.
        found: content of the checkpoint, if it was read before, see :func:`content_of`.
        **keys: further keys of timm's model, such as ``drop_path_rate``.

    Returns:
        The model, and a report of what was loaded; the report is None for 'timm:NAME'.

    Raises:
        ImportError: timm is not installed.
        ValueError: the checkpoint has no vision transformer, or see
            :func:`mixplug.weights.load_file`; it has a norm before its blocks, as CLIP has, and
            nothing tells which activation it was trained with; timm has no such model, or cannot
            get its weights.
    """
    if str(source).startswith(TIMM):
        name = str(source).removeprefix(TIMM)
        as_encoder(timm_model(name, **keys))  # checked before weights are downloaded
        return timm_model(name, pretrained=True, **keys).eval(), None
    found = read(source) if found is None else found
    chosen = part_of(found, part, Path(source).name)
    state = _state_of(chosen, source)
    label = f"{chosen} of {Path(source).name}"
    notes = notes_of(source, found)
    if heads is not None and (model is not None or notes.name):
        keys = {"num_heads": heads, **keys}
    if model is not None:
        return _as_model(model, state, grid, label, keys)
    told = architecture_of(notes, chosen.backbone)
    if notes.name and _is_vit_of_timm(notes.name):
        try:
            return _as_model(notes.name, state, grid, label, keys)
        except (ValueError, TypeError):  # trained with other settings; the shapes decide
            told = _architecture_of_timm(notes.name, state["patch_embed.proj.weight"].shape[0])
    if told.activation is None and "act_layer" not in keys:
        _require_activation(state, source)
    keys = {**keys_of(state, heads or told.heads, grid), **told.keys(), **keys}
    home = "timm.models.deit" if "dist_token" in state else "timm.models.vision_transformer"
    kind = "VisionTransformerDistilled" if "dist_token" in state else "VisionTransformer"
    network: nn.Module = getattr(optional(home, "video", "A vision transformer"), kind)(**keys)
    return _loaded(network, state, grid, label, source)


def content_of(source: str | Path) -> Mapping[str, Any] | None:
    """What a checkpoint contains, to be read once for :func:`vit_of` and :func:`images_of`.

    Returns:
        None for 'timm:NAME', which is no file.

    Raises:
        ValueError: see :func:`mixplug.weights.read`.
    """
    return None if str(source).startswith(TIMM) else read(source)


def images_of(
    vit: nn.Module,
    source: str | Path,
    part: str | None = None,
    model: str | None = None,
    needed: Sequence[str] = NORMALIZATION,
    found: Mapping[str, Any] | None = None,
    **images: Any,
) -> Preprocessing:
    """How images are prepared for a network of :func:`vit_of`.

    Args:
        vit: the network.
        source: see :func:`vit_of`.
        part: see :func:`vit_of`.
        model: see :func:`vit_of`.
        needed: fields of :class:`mixplug.weights.Preprocessing`; a warning says which of these are
            guessed.
        found: see :func:`vit_of`.
        **images: values that replace those of the checkpoint, see
            :meth:`mixplug.weights.Preprocessing.changed`.

    Raises:
        ValueError: see :meth:`mixplug.weights.Preprocessing.changed`.
    """
    config = getattr(vit, "pretrained_cfg", None) if str(source).startswith(TIMM) else None
    size = getattr(getattr(vit, "patch_embed", None), "img_size", None)
    own = preprocessing_of(source, part, model, found, config, size)
    own = own.changed(**images)
    own.warn(needed)
    return own


def _state_of(chosen: Part, source: str | Path) -> dict[str, Tensor]:
    """Tensors of a part with timm's names, without those that features do not depend on."""
    found, _ = in_timms_names(chosen.backbone)
    layout = layout_of(found)
    if layout is None:
        raise ValueError(
            f"{source} has no vision transformer of {KNOWN} in its part {chosen}, but "
            f"{', '.join(list(chosen.backbone)[:4])}, ..."
        )
    if kind_of(found) == BEIT:
        raise ValueError(
            f"{source} is a BEiT, which is not a VisionTransformer: it has "
            f"{', '.join(only_beit(found))}."
        )
    state, _ = translate(found, layout, "timm")
    return {name: tensor for name, tensor in state.items() if not name.startswith(UNNEEDED)}


def _loaded(
    network: nn.Module,
    state: Mapping[str, Tensor],
    grid: Grid | None,
    label: str,
    source: str | Path,
) -> tuple[nn.Module, Report]:
    report = load(network, state, 0, grid, label)
    if report.unexpected or not report.complete:  # the shapes fit, so it is another kind of ViT
        raise ValueError(f"{source} is not a ViT that timm has: {report.line()}.")
    return network.eval(), report


def _as_model(
    name: str, state: Mapping[str, Tensor], grid: Grid | None, label: str, keys: Mapping[str, Any]
) -> tuple[nn.Module, Report]:
    """The model of this name in timm with the weights, for the grid of the weights."""
    network = timm_model(name, **{"img_size": trained_size(name, state, grid), **keys})
    as_encoder(network)
    report = load(network, state, 1.0, grid, f"{label}, as {name} of timm")
    return network.eval(), report


def trained_size(
    name: str, state: Mapping[str, Tensor], grid: Grid | None = None
) -> tuple[int, int] | None:
    """(height, width) of the images of a vision transformer of timm with these weights.

    Args:
        name: name of a model of timm.
        state: tensors with timm's names.
        grid: (rows, columns) of the patches; None is a square.

    Returns:
        None if the model is not a VisionTransformer of timm.

    Raises:
        ValueError: the grid is not square.
    """
    if "pos_embed" not in state or not _is_vit_of_timm(name):
        return None
    rows, columns = grid or square_grid(state["pos_embed"].shape[1] - _prefix_of(name, state))
    patch = state["patch_embed.proj.weight"].shape[2:]
    return rows * patch[0], columns * patch[1]


def _prefix_of(name: str, state: Mapping[str, Tensor]) -> int:
    """Number of position embeddings that belong to no patch in a model of timm."""
    with torch.device("meta"):
        network: Any = timm_model(name)
    return 0 if network.no_embed_class else int(network.num_prefix_tokens)


def _architecture_of_timm(name: str, width: int) -> Architecture:
    """Activation, epsilon and channels per head of timm's model, for a network of this width."""
    with torch.device("meta"):
        network: Any = timm_model(name)
    channels = network.embed_dim // network.blocks[0].attn.num_heads
    heads = width // channels if not width % channels else None
    eps = getattr(network.blocks[0].norm1, "eps", None)
    return Architecture(activation_of(network), eps, heads)


def _is_vit_of_timm(name: str) -> bool:
    timm = optional("timm", "video", "A vision transformer")
    homes = (".vision_transformer", ".deit")
    return timm.is_model(name) and timm.models.model_entrypoint(name).__module__.endswith(homes)


def _require_activation(state: Mapping[str, Tensor], source: str | Path) -> None:
    """Refuse to guess between GELU and QuickGELU, whose shapes are equal."""
    if "norm_pre.weight" in state:
        raise ValueError(
            f"{source} has a norm before its blocks, as the image encoders of CLIP have. Some were "
            f"trained with GELU and some with QuickGELU, which the file does not say. Pass the "
            f"name of timm's model with model=... (--model on the command line), such as "
            f"vit_base_patch32_clip_quickgelu_224 for OpenAI's weights, or "
            f"vit_base_patch32_clip_224."
        )


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
