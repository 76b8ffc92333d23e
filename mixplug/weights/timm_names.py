"""Names of timm's models, looked up before anything is made or downloaded."""

from __future__ import annotations

import difflib
from types import ModuleType

from mixplug.optional import optional


def timm_with(name: str, extra: str = "video", why: str = "A vision transformer") -> ModuleType:
    """timm, if it has a model of this name; what has a scheme, as 'hf-hub:', it fetches by itself.

    Args:
        name: as for ``timm.create_model``, with or without a tag.
        extra: of mixplug, that brings timm.
        why: what it is wanted for.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no such model; it names the nearest.
    """
    timm = optional("timm", extra, why)
    if ":" not in name and not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        raise ValueError(f"timm has no model {name!r}. Nearest: {', '.join(near) or 'none'}.")
    return timm
