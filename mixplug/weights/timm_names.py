"""Check names of timm's models before a model is built or downloaded."""

from __future__ import annotations

import difflib
from types import ModuleType

from mixplug.optional import optional


def timm_with(name: str, extra: str = "video", why: str = "A vision transformer") -> ModuleType:
    """Import timm, and check that it has a model of this name.

    A name with a scheme, such as 'hf-hub:', is not checked, because timm downloads the model
    itself.

    Args:
        name: name as for ``timm.create_model``, with or without a tag.
        extra: extra of mixplug that installs timm, for the error message.
        why: feature that needs timm, for the error message.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no such model; the message suggests similar names.
    """
    timm = optional("timm", extra, why)
    if ":" not in name and not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        raise ValueError(f"timm has no model {name!r}. Nearest: {', '.join(near) or 'none'}.")
    return timm
