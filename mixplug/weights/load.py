"""Weights into a model, or a list of what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mixplug.weights.names import layout_of, translate
from mixplug.weights.parts import part as part_of
from mixplug.weights.position import Grid, resize_positions, square_grid
from mixplug.weights.read import read
from mixplug.weights.report import Pair, Report

MIN_LOADED = 0.99
_POSITIONS = "pos_embed"
_INNER = ("model", "timm_model", "module", "_orig_mod")  # the only child of a wrapper


def load(
    model: nn.Module,
    state: Mapping[str, Tensor],
    min_loaded: float = MIN_LOADED,
    grid: Grid | None = None,
    source: str = "a state dict",
) -> Report:
    """Load tensors by the model's own names; all that fit, or none.

    Position embeddings of another grid are resized, see :func:`resize_positions`.

    Args:
        model: any network.
        state: its tensors; dtype and device become the model's.
        min_loaded: the share of the numbers in the model's state that needs to be loaded.
        grid: (rows, columns) of the patches that ``state`` was trained on; None takes a square, or
            the model's where there are as many.
        source: what ``state`` is, for the report.

    Raises:
        ValueError: less than ``min_loaded`` fits, with the list of what does not; the model is as
            before. Or ``min_loaded`` is no share.
    """
    if not 0 <= min_loaded <= 1:
        raise ValueError(f"min_loaded needs to be in [0, 1], got {min_loaded}.")
    given, resized = _with_positions(model, state, grid)
    report = _compare(model.state_dict(), given, resized, source)
    if not report.share >= min_loaded:
        problems = report.text(("missing", "mismatched", "unexpected"))
        raise ValueError(
            f"{100 * min_loaded:g} % of {type(model).__name__} need to be loaded, but only this "
            f"would be: {report.line()}.\n(name, shape in the checkpoint, shape in the model)\n"
            f"{problems}"
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
    """Load the backbone of a checkpoint, whatever host has written it.

    The names of vision transformers are translated between timm, mmpretrain and DINO; those of
    other networks need to be the model's.

    Args:
        model: the backbone itself, or a wrapper that has nothing besides it.
        path: of the checkpoint.
        part: which of its networks, see :func:`mixplug.weights.part`.
        min_loaded: see :func:`load`.
        grid: see :func:`load`.

    Raises:
        ValueError: see :func:`mixplug.weights.read`, :func:`mixplug.weights.part`,
            :func:`mixplug.weights.translate` and :func:`load`.
    """
    chosen = part_of(read(path), part)
    core = _unwrapped(model)
    state: Mapping[str, Tensor] = chosen.backbone
    layouts = layout_of(state), layout_of(core.state_dict())
    source = f"{chosen} of {Path(path).name}"
    if None in layouts or layouts[0] == layouts[1]:
        return load(core, state, min_loaded, grid, source)
    translated, dropped = translate(state, str(layouts[0]), str(layouts[1]))
    translated |= {name: state[name] for name in dropped}  # the report says that it has them
    return load(core, translated, min_loaded, grid, f"{source}, named as in {layouts[0]}")


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
    """The tensors with positions of the model's grid, and the shapes of those that were resized."""
    found, resized = dict(state), {}
    for name, has in model.state_dict().items():
        given = state.get(name)
        if not name.endswith(_POSITIONS) or given is None or has.dim() != 3 or given.dim() != 3:
            continue
        if given.shape[-1] != has.shape[-1] or (grid is None and given.shape == has.shape):
            continue
        target = _grid_of(model, has.shape[1])
        prefix = has.shape[1] - target[0] * target[1]
        found[name] = resize_positions(given, grid or square_grid(given.shape[1] - prefix), target)
        if found[name] is not given:
            resized[name] = (tuple(given.shape), tuple(found[name].shape))
    return found, resized


def _grid_of(model: Any, positions: int) -> Grid:
    """Rows and columns of the patches that a timm or mmpretrain model has positions for."""
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    grid = grid or getattr(model, "patch_resolution", None)
    if grid is None:
        raise ValueError(
            f"{type(model).__name__} does not say the grid of its {positions} position embeddings; "
            f"it needs patch_embed.grid_size or patch_resolution, as in timm and mmpretrain."
        )
    return int(grid[0]), int(grid[1])


def _compare(
    wanted: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    resized: Mapping[str, Pair],
    source: str,
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
    )
