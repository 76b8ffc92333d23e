"""Names of columns and curves, such as paths of checkpoints: told apart, and in lines."""

from __future__ import annotations

import re


def wrapped(name: str, width: int) -> str:
    """A name in lines of at most ``width`` letters, broken where one reads on, else anywhere.

    Spaces and the signs ``/ _ -`` end a line; none is lost but the spaces.
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
