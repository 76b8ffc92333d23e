"""Pictures much wider than high get the class ``wide``: on a phone they scroll by themselves."""

from __future__ import annotations

from pathlib import Path

import imagesize
from docutils import nodes

_RATIO = 3.5


def _mark(app, doctree: nodes.document) -> None:
    for image in doctree.findall(nodes.image):
        width, height = imagesize.get(Path(app.srcdir) / image["uri"])
        if width > _RATIO * height > 0:
            image.setdefault("classes", []).append("wide")
            image.parent.setdefault("classes", []).append("wide-image")


def setup(app) -> dict[str, bool]:
    """Look at all pictures of a page when it has been read."""
    app.connect("doctree-read", _mark)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
