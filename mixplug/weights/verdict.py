"""Whether what a model would get of a checkpoint is enough, and why not.

A share of numbers alone would let pass what ruins a network: a ViT-S without its position
embeddings has 99.65 % of its numbers, and one without any of its norms 99.91 %.
"""

from __future__ import annotations

from mixplug.names import shortened
from mixplug.weights.names import UNNEEDED, generic, layout_of
from mixplug.weights.report import Report

MIN_LOADED = 0.99
# What models count or make for themselves, and what profilers leave in them.
_MADE = (
    "num_batches_tracked",
    "relative_position_index",
    "relative_coords_table",
    "attn_mask",
    "total_ops",
    "total_params",
)
# What a vision transformer computes with outside its blocks, by the names of all hosts.
_AROUND = (
    *("norm_pre.", "pre_norm.", "ln_pre.", "rel_pos_bias.", "pos_embed"),
    *("cls_token", "dist_token", "reg_token", "register_tokens"),
)


def refusal(report: Report, min_loaded: float = MIN_LOADED) -> str:
    """Why this is not enough, without a full stop; '' if it is.

    The share of the model's numbers is at least ``min_loaded``. Unless that is below the default,
    furthermore

    - nothing of the model is left at random, but counters, what it makes of its grid, and a ViT's
      classifier and mask token;
    - nothing is left out that the checkpoint's network computes with in a numbered module (a
      block) that the model has too, such as a layer scale, or before a ViT's blocks, such as
      registers. Whole blocks, classifiers and last norms may be left out.

    Args:
        report: of a load that is made, or could be.
        min_loaded: in [0, 1].
    """
    needed = f"{100 * min_loaded:g} %"
    found = []
    if not report.share >= min_loaded:
        found.append(f"{report.percent} of the model would be loaded, {needed} are needed")
    elif min_loaded >= MIN_LOADED:
        lacking, lost = lacking_of(report), lost_of(report)
        if lacking:
            found.append(
                f"{_tensors(lacking)} of the model would stay at random: {_short(lacking)}"
            )
        if lost:
            found.append(
                f"{_tensors(lost)} that the checkpoint's network computes with would be left out: "
                f"{_short(lost)}"
            )
        if found:
            found.append(f"only a min_loaded below {MIN_LOADED} allows that")
    if found and report.difference:
        found.append(report.difference)
    return "; ".join(found)


def lacking_of(report: Report) -> list[str]:
    """Names of what the model needs and would not get."""
    made = _MADE + (UNNEEDED if _is_vit(report) else ())
    lacking = [*report.missing, *report.mismatched]
    return [name for name in lacking if not name.endswith(made) and not name.startswith(made)]


def lost_of(report: Report) -> list[str]:
    """Names of what the checkpoint's network computes with, and the model has no place for."""
    own = (report.loaded, report.resized, report.missing, report.mismatched)
    modules = {module for names in own for name in names for module in _numbered(name)}
    around = _AROUND if _is_vit(report) else ()
    return [
        name
        for name in report.unexpected
        if not name.endswith(_MADE)
        and (name.startswith(around) or not modules.isdisjoint(_numbered(name)))
    ]


def _numbered(name: str) -> list[str]:
    """The modules with a number that a tensor is in: ``layers.0.blocks.1.norm.bias`` is in two."""
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
