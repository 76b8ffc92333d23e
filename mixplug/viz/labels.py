"""Line breaks for long names, such as paths of checkpoints."""

from __future__ import annotations

import re


def wrap_name(name: str, width: int) -> str:
    """Break a name into lines of at most ``width`` characters.

    Lines end after spaces and the signs ``/ _ -`` if possible, otherwise anywhere. No character is
    lost except spaces.
    """
    lines = [""]
    for part in re.findall(r"[^\s/_-]*[\s/_-]?", name):
        while len((lines[-1] + part).rstrip()) > width:
            if lines[-1]:
                lines.append("")
            else:
                lines[-1], part = part[:width], part[width:]
        lines[-1] += part
    return "\n".join(line.strip() for line in lines)
