"""Identify a video without reading all of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mixplug.image_files import image_files

_SAMPLE = 1 << 16  # bytes that are read at the start, in the middle and at the end


def frame_files(folder: Path) -> list[Path]:
    """The images in a folder of frames, in order; digits in names are compared as numbers."""
    return sorted(image_files(folder), key=_by_number)


def _by_number(file: Path) -> tuple[list[tuple[int, str]], str]:
    parts: list[tuple[int, str]] = []
    number = ""
    for sign in f"{file.stem}\0":
        if sign.isdecimal():
            number += sign
            continue
        if number:
            parts.append((int(number), ""))
            number = ""
        parts.append((-1, sign))
    return parts, file.name


def fingerprint(video: Path) -> tuple[int, str]:
    """Size in bytes, and a digest.

    A copy has the same fingerprint; an edited or replaced file almost never has.

    Args:
        video: a file, of which three samples are read, or a folder of frames, of which names and
            sizes are read.

    Raises:
        ValueError: a missing video.
    """
    if not video.exists():
        raise ValueError(f"There is no file or folder {video}.")
    digest = hashlib.blake2b(digest_size=16)
    if video.is_dir():
        sizes = [(file.name, file.stat().st_size) for file in frame_files(video)]
        digest.update(repr(sizes).encode())
        return sum(size for _, size in sizes), digest.hexdigest()
    size = video.stat().st_size
    with video.open("rb") as file:
        for place in (0, size // 2, max(0, size - _SAMPLE)):
            file.seek(place)
            digest.update(file.read(_SAMPLE))
    return size, digest.hexdigest()
