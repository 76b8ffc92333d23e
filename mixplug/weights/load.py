"""Load weights into a model, or report everything that does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mixplug.weights.architecture import architecture_of, check_activation
from mixplug.weights.dialects import dialect_of, in_timms_names
from mixplug.weights.names import is_derived, kind_of, layout_of, only_beit, translate
from mixplug.weights.notes import notes_of
from mixplug.weights.parts import Part
from mixplug.weights.parts import part as part_of
from mixplug.weights.position import Grid, resize_biases, resize_positions, square_grid
from mixplug.weights.read import read
from mixplug.weights.report import Pair, Report
from mixplug.weights.sizes import differences, tokens_of
from mixplug.weights.verdict import MIN_LOADED, refusal

_POSITIONS = "pos_embed"
_INNER = ("model", "timm_model", "module", "_orig_mod")  # names of the only child of a wrapper


def load(
    model: nn.Module,
    state: Mapping[str, Tensor],
    min_loaded: float = MIN_LOADED,
    grid: Grid | None = None,
    source: str = "a state dict",
) -> Report:
    """Load tensors under the model's own names; either all that fit, or none.

    Position embeddings and a BEiT's biases of another grid are resized, see
    :func:`resize_positions` and :func:`resize_biases`.

    Args:
        model: any network.
        state: its tensors; they are cast to the model's dtype and device.
        min_loaded: share of the values in the model's state that must be loaded, in [0, 1]. From
            0.99 on, two more rules hold: no tensor of the model may stay randomly initialized, and
            no tensor that the checkpoint's network uses may be dropped, see
            :func:`mixplug.weights.refusal`.
        grid: (rows, columns) of the patches of ``state``; None means a square, or the model's grid
            if the number of patches is the same.
        source: description of ``state`` for the report.

    Raises:
        ValueError: too little fits. The message lists what does not fit, and the model is
            unchanged. Also if ``min_loaded`` is not in [0, 1].
    """
    if not 0 <= min_loaded <= 1:
        raise ValueError(f"min_loaded must be in [0, 1], got {min_loaded}.")
    given, resized = _with_positions(model, state, grid)
    own = model.state_dict()
    wanted = {name: value for name, value in own.items() if not is_derived(name)}
    report = _compare(wanted, given, resized, source, differences(state, own))
    reason = refusal(report, min_loaded)
    if reason:
        kind = type(model).__name__
        problems = report.text(("missing", "mismatched", "unexpected"))
        raise ValueError(
            f"At least {100 * min_loaded:g} % of {kind} must be loaded, but only this fits: "
            f"{report.line()}.\n(name, shape in the checkpoint, shape in the model)\n{problems}\n"
            f"{kind} was not changed, because {reason}."
        )
    fitting = report.loaded.keys() | report.resized.keys()
    model.load_state_dict({name: given[name] for name in fitting}, strict=False)
    return report


def load_file(
    model: nn.Module,
    path: str | Path,
    part: str | None = None,
    min_loaded: float = MIN_LOADED,
    grid: Grid | None = None,
) -> Report:
    """Load the backbone of a checkpoint from any supported framework.

    Names of vision transformers are translated between timm, mmpretrain, mmseg and DINO, and from
    DINOv2's release and Hugging Face's transformers. Names of other networks must be those of the
    model.

    Args:
        model: the backbone itself, or a wrapper that contains nothing else.
        path: path of the checkpoint.
        part: network in the checkpoint, see :func:`mixplug.weights.part`.
        min_loaded: see :func:`load`.
        grid: see :func:`load`.

    Raises:
        ValueError: see :func:`mixplug.weights.read`, :func:`mixplug.weights.part`,
            :func:`mixplug.weights.translate` and :func:`load`; or one network is a BEiT and the
            other a ViT.
    """
    found = read(path)
    chosen = part_of(found, part, Path(path).name)
    return load_part(model, chosen, path, found, min_loaded, grid)


def load_part(
    model: nn.Module,
    chosen: Part,
    path: str | Path,
    found: Mapping[str, Any],
    min_loaded: float = MIN_LOADED,
    grid: Grid | None = None,
) -> Report:
    """Load one part of a checkpoint that was read before, see :func:`load_file`.

    Args:
        model: see :func:`load_file`.
        chosen: the part.
        path: path of the checkpoint.
        found: its content.
        min_loaded: see :func:`load`.
        grid: see :func:`load`.

    Raises:
        ValueError: see :func:`load_file`.
    """
    core = _unwrapped(model)
    state, written = _for_model(chosen.backbone, core)
    layouts = layout_of(state), layout_of(core.state_dict())
    source = f"{chosen} of {Path(path).name}"
    named = f"{source}, with the names of {written}" if written else source
    _check_kind(core, state, source)
    if layouts[0] is not None and layouts[1] is not None:
        told = architecture_of(notes_of(path, found), chosen.backbone)
        check_activation(core, state, told, source)
    if None in layouts or layouts[0] == layouts[1]:
        return load(core, state, min_loaded, grid, named)
    translated, dropped = translate(state, str(layouts[0]), str(layouts[1]))
    translated |= {name: state[name] for name in dropped}  # for the report
    named = f"{source}, with the names of {written or layouts[0]}"
    return load(core, translated, min_loaded, grid, named)


def _for_model(
    state: Mapping[str, Tensor], model: nn.Module
) -> tuple[Mapping[str, Tensor], str | None]:
    """The tensors with timm's names if only that can fit the model, and whose names they had."""
    written, own = dialect_of(state), model.state_dict()
    if written is None or dialect_of(own) == written or layout_of(own) is None:
        return state, None
    return in_timms_names(state)[0], written


def _check_kind(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Refuse a BEiT for a ViT and vice versa: nearly all tensors would fit, but be useless."""
    names = model.state_dict()
    if layout_of(state) is None or layout_of(names) is None or kind_of(state) == kind_of(names):
        return
    marks = only_beit(state) or only_beit(names)
    raise ValueError(
        f"{source} is a {kind_of(state)}, but {type(model).__name__} is a {kind_of(names)}. "
        f"Weights of one kind do not work in the other: only a BEiT has {', '.join(marks)}."
    )


def _unwrapped(model: nn.Module) -> nn.Module:
    names = model.state_dict()
    for inner in _INNER:
        child = getattr(model, inner, None)
        if isinstance(child, nn.Module) and all(n.startswith(f"{inner}.") for n in names):
            return _unwrapped(child)
    return model


def _with_positions(
    model: nn.Module, state: Mapping[str, Tensor], grid: Grid | None
) -> tuple[dict[str, Tensor], dict[str, Pair]]:
    """The tensors with positions for the model's grid, and the shapes of the resized ones."""
    found = {name: tensor for name, tensor in state.items() if not is_derived(name)}
    resized: dict[str, Pair] = {}
    own = model.state_dict()
    same_tokens = tokens_of(state) == tokens_of(own)  # otherwise the grid is unknown
    for name, target_value in own.items():
        given = state.get(name)
        if given is None or given.dim() not in (2, 3) or given.dim() != target_value.dim():
            continue
        if given.shape[-1] != target_value.shape[-1]:
            continue
        if grid is None and given.shape == target_value.shape:
            continue
        if name.endswith(_POSITIONS) and given.dim() == 3:
            if not same_tokens:
                continue
            target = _grid_of(model, target_value.shape[1])
            prefix = target_value.shape[1] - target[0] * target[1]
            source = grid or square_grid(given.shape[1] - prefix)
            found[name] = resize_positions(given, source, target)
        elif only_beit([name]) and given.dim() == 2:
            found[name] = resize_biases(given, grid, _grid_of(model, len(target_value)))
        else:
            continue
        if found[name] is not given:
            resized[name] = (tuple(given.shape), tuple(found[name].shape))
    return found, resized


def _grid_of(model: Any, positions: int) -> Grid:
    """Rows and columns of the patches of a model from timm, mmpretrain or mmseg."""
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    grid = grid or getattr(model, "patch_resolution", None)
    image, patch = getattr(model, "img_size", None), getattr(model, "patch_size", None)
    if grid is None and isinstance(image, tuple) and isinstance(patch, int):
        grid = image[0] // patch, image[1] // patch
    if grid is None:
        raise ValueError(
            f"The grid of the {positions} position embeddings of {type(model).__name__} is "
            f"unknown. The model needs patch_embed.grid_size, patch_resolution, or img_size and "
            f"patch_size, as in timm, mmpretrain and mmseg."
        )
    return int(grid[0]), int(grid[1])


def _compare(
    wanted: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    resized: Mapping[str, Pair],
    source: str,
    difference: str,
) -> Report:
    common = [name for name in wanted if name in given]
    fits = [name for name in common if wanted[name].shape == given[name].shape]
    return Report(
        {name: tuple(wanted[name].shape) for name in fits if name not in resized},
        {name: pair for name, pair in resized.items() if name in fits},
        {name: tuple(value.shape) for name, value in wanted.items() if name not in given},
        {name: tuple(value.shape) for name, value in given.items() if name not in wanted},
        {
            name: (tuple(given[name].shape), tuple(wanted[name].shape))
            for name in common
            if name not in fits
        },
        source,
        difference,
    )
