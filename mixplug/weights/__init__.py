"""Weights between hosts: read safely, named anew, resized, and loaded with a report."""

from importlib import import_module
from typing import Any

from mixplug.renamed import warn
from mixplug.weights.convert import Converted, convert
from mixplug.weights.load import load, load_file
from mixplug.weights.names import LAYOUTS, layout_of, translate
from mixplug.weights.parts import PARTS, Part, part, parts
from mixplug.weights.position import resize_biases, resize_positions, square_grid
from mixplug.weights.preprocessing import Preprocessing, preprocessing_of
from mixplug.weights.read import read
from mixplug.weights.report import Report
from mixplug.weights.verdict import refusal
from mixplug.weights.vit import keys_of

__all__ = [
    "Converted",
    "LAYOUTS",
    "PARTS",
    "Part",
    "Preprocessing",
    "Report",
    "convert",
    "keys_of",
    "layout_of",
    "load",
    "load_file",
    "part",
    "parts",
    "preprocessing_of",
    "read",
    "refusal",
    "resize_biases",
    "resize_positions",
    "square_grid",
    "translate",
]


def __getattr__(name: str) -> Any:
    """``vit_of`` and ``timm_model`` under their old path; they build models."""
    if name not in ("timm_model", "vit_of"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warn(f"{__name__}.{name}", f"mixplug.models.vit.{name}")
    return getattr(import_module("mixplug.models.vit"), name)
