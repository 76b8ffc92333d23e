"""Names of timm's models, checked before a model is built or downloaded."""

from __future__ import annotations

import difflib
from types import ModuleType

from mixplug.optional import optional


def timm_with_model(
    name: str, extra: str = "video", why: str = "A vision transformer"
) -> ModuleType:
    """The module timm, after a check that it has a model of this name.

    Names with a scheme, such as 'hf-hub:...', are not checked: timm downloads them.

    Args:
        name: of a model, as for ``timm.create_model``, with or without a tag.
        extra: the extra of mixplug that installs timm.
        why: what needs timm, for the error message.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no such model; the message names the nearest.
    """
    timm = optional("timm", extra, why)
    if ":" not in name and not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        raise ValueError(f"timm has no model {name!r}. Nearest: {', '.join(near) or 'none'}.")
    return timm
