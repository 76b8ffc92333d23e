"""Decide whether enough of a checkpoint fits a model, and explain why not.

The share of loaded values alone is not enough, because a few missing values can ruin a network: a
ViT-S without its position embeddings has 99.65 % of its values, and a ViT-S without any of its
norms 99.91 %.
"""

from __future__ import annotations

from mixplug.names import shortened
from mixplug.weights.names import UNNEEDED, generic, layout_of
from mixplug.weights.report import Report

MIN_LOADED = 0.99
# Counters, tensors that models compute themselves, and tensors that profilers add.
_COMPUTED = (
    "num_batches_tracked",
    "relative_position_index",
    "relative_coords_table",
    "attn_mask",
    "total_ops",
    "total_params",
)
# Tensors that a vision transformer uses outside its blocks, by the names of all frameworks.
_AROUND = (
    *("norm_pre.", "pre_norm.", "ln_pre.", "rel_pos_bias.", "pos_embed"),
    *("cls_token", "dist_token", "reg_token", "register_tokens"),
)


def refusal(report: Report, min_loaded: float = MIN_LOADED) -> str:
    """Why a load is not good enough, without a full stop; '' if it is.

    The share of the model's values must be at least ``min_loaded``. If ``min_loaded`` is at least
    the default, two more rules hold:

    - No tensor of the model stays randomly initialized, except counters, tensors that are computed
      from the grid, and the classifier and mask token of a ViT.
    - No tensor is dropped that the checkpoint's network uses in a numbered module (a block) that
      the model has too, such as a layer scale, or before the blocks of a ViT, such as registers.
      Whole blocks, classifiers and last norms may be dropped.

    Args:
        report: report of a load, or of a planned load.
        min_loaded: smallest share of values, in [0, 1].
    """
    needed = f"{100 * min_loaded:g} %"
    found = []
    if not report.share >= min_loaded:
        found.append(f"{report.percent} of the model would be loaded, but {needed} are needed")
    elif min_loaded >= MIN_LOADED:
        missing, dropped = missing_of(report), dropped_of(report)
        if missing:
            found.append(
                f"{_tensors(missing)} of the model would stay randomly initialized: "
                f"{_short(missing)}"
            )
        if dropped:
            found.append(
                f"{_tensors(dropped)} that the checkpoint's network uses would be dropped: "
                f"{_short(dropped)}"
            )
        if found:
            found.append(f"only a min_loaded below {MIN_LOADED} allows that")
    if found and report.difference:
        found.append(report.difference)
    return "; ".join(found)


def missing_of(report: Report) -> list[str]:
    """Names of tensors that the model needs and would not get."""
    optional = _COMPUTED + (UNNEEDED if _is_vit(report) else ())
    missing = [*report.missing, *report.mismatched]
    return [n for n in missing if not n.endswith(optional) and not n.startswith(optional)]


def dropped_of(report: Report) -> list[str]:
    """Names of tensors that the checkpoint's network uses and the model does not have."""
    own = (report.loaded, report.resized, report.missing, report.mismatched)
    modules = {module for names in own for name in names for module in _numbered(name)}
    around = _AROUND if _is_vit(report) else ()
    return [
        name
        for name in report.unexpected
        if not name.endswith(_COMPUTED)
        and (name.startswith(around) or not modules.isdisjoint(_numbered(name)))
    ]


def _numbered(name: str) -> list[str]:
    """The numbered modules that contain a tensor: ``layers.0.blocks.1.norm.bias`` is in two."""
    path = name.split(".")
    return [".".join(path[: i + 1]) for i, step in enumerate(path[:-1]) if step.isdecimal()]


def _is_vit(report: Report) -> bool:
    return (
        layout_of((*report.loaded, *report.resized, *report.missing, *report.mismatched))
        is not None
    )


def _tensors(names: list[str]) -> str:
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''}"


def _short(names: list[str]) -> str:
    return shortened(map(generic, names))
