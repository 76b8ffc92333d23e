"""Image files: find them in folders, and read their pixels. All of mixplug uses these functions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixplug.optional import optional

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
ORIENTATIONS = ("ignore", "apply", "refuse")
# folders of operating systems and file servers; Synology's @eaDir has thumbnails of all images
_SYSTEM = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information"}
_WHY = "Reading images"
_ORIENTATION = 274  # EXIF tag
_BITS = 258  # TIFF tag
# EXIF orientation -> Pillow's operation that makes the image upright
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
    6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90",
}  # fmt: skip
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width


def hidden(name: str) -> bool:
    """Whether a file or folder is hidden, such as '._x.png', '.ipynb_checkpoints' or '@eaDir'."""
    return name.startswith(".") or name in _SYSTEM


def subfolders(folder: str | os.PathLike[str]) -> list[Path]:
    """The visible folders directly in a folder, sorted by name."""
    return sorted(f for f in Path(folder).iterdir() if f.is_dir() and not hidden(f.name))


def files_in(
    folder: str | os.PathLike[str], suffixes: Sequence[str], nested: bool = False
) -> list[Path]:
    """The visible files in a folder whose names end with one of the suffixes, in any case.

    Args:
        folder: the folder. Its own path may have hidden parts.
        suffixes: suffixes in lower case, with the dot.
        nested: whether to search visible subfolders too, also those behind links.

    Returns:
        Paths, sorted by folder and name.
    """
    found: list[Path] = []
    for place, names in sorted(_walk(Path(folder), nested)):
        matching = (n for n in sorted(names) if n.lower().endswith(tuple(suffixes)))
        found += [path for name in matching if (path := Path(place, name)).is_file()]
    return found


def image_files(folder: str | os.PathLike[str], nested: bool = False) -> list[Path]:
    """The visible images in a folder, see :func:`files_in`."""
    return files_in(folder, IMAGE_SUFFIXES, nested)


def _walk(
    folder: Path, nested: bool, above: tuple[str, ...] = ()
) -> Iterator[tuple[str, list[str]]]:
    """A folder, and if nested those below it, with the names of what is visible in each."""
    names = [name for name in os.listdir(folder) if not hidden(name)]
    yield str(folder), names
    chain = (*above, os.path.realpath(folder))
    for name in names if nested else ():
        inner = folder / name
        if inner.is_dir() and os.path.realpath(inner) not in chain:  # no loops of links
            yield from _walk(inner, True, chain)


def read_image(path: str | os.PathLike[str], orientation: str = "ignore") -> Tensor:
    """Read an image file as (3, H, W) uint8, RGB. See :func:`open_rgb`."""
    return pixels_of(open_rgb(path, orientation))


def open_rgb(path: str | os.PathLike[str], orientation: str = "ignore") -> Any:
    """Read an image file as a PIL image in mode RGB.

    Args:
        path: path of the file. Of an animation or a file with several pages, the first is read, as
            in timm and mmcv.
        orientation: what to do with the orientation of the camera (EXIF). 'ignore' returns the
            pixels as they are stored, as timm and torchvision do; Pillow itself turns TIFFs.
            'apply' returns the upright image, as mmcv does. 'refuse' is for images with boxes or
            masks, of which nobody knows to which of the two they refer.

    Raises:
        ValueError: the file cannot be read, its pixels have no 8-bit equivalent (see
            :func:`to_rgb`), or 'refuse' meets an orientation.
    """
    with opened(path) as image:
        if orientation == "refuse":
            _refuse_orientation(image)
        rgb = to_rgb(image)
        return upright(rgb, image) if orientation == "apply" else rgb


def check_orientation(path: str | os.PathLike[str]) -> None:
    """Check an image with boxes or masks that something else will read; only reads the header.

    Raises:
        ValueError: the file has an EXIF orientation, or is not an image.
    """
    with opened(path) as image:
        _refuse_orientation(image)


def _refuse_orientation(image: Any) -> None:
    if _exif(image) in _UPRIGHT:
        raise ValueError(
            "its EXIF orientation asks to turn or mirror it, so it is unclear to which pixels "
            "boxes and masks refer. Save it and its annotations upright, without EXIF"
        )


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """An image file, opened by Pillow.

    Raises:
        ValueError: anything that Pillow or the body raises. Decoders raise many kinds of errors,
            such as SyntaxError, struct.error and DecompressionBombError, not only OSError.
    """
    pillow = optional("PIL.Image", "video", _WHY)
    try:
        with pillow.open(path) as image:
            yield image
    except Exception as error:
        cause = str(error).rstrip(".") or type(error).__name__
        raise ValueError(f"{path} cannot be read as an image: {cause}.") from error


def to_rgb(image: Any) -> Any:
    """Convert a PIL image of any mode to RGB, 8 bit per channel.

    Alpha is dropped, as in timm and mmcv. Gray images of 16 bit are divided by 256, as in mmcv;
    Pillow's own conversion would cut them at 255, so most of them would be white.

    Raises:
        ValueError: integers of 32 bit, floats, or TIFFs of 9 to 15 bit, whose range is unknown.
    """
    mode, tags = image.mode, getattr(image, "tag_v2", None)
    bits = tuple(tags.get(_BITS) or ()) if tags is not None else ()
    # of these formats, 'I' is 16 bit; older versions of Pillow open PNGs in this mode
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        if bits in ((), (16,)):
            numpy = optional("numpy", "video", _WHY)
            levels = (numpy.asarray(image) >> 8).clip(0, 255).astype(numpy.uint8)
            return optional("PIL.Image", "video", _WHY).fromarray(levels).convert("RGB")
        mode = f"{mode} of {bits[0]} bit"
    elif mode not in ("I", "F"):
        return image.convert("RGB")
    raise ValueError(
        f"its pixels have the mode {mode}, whose range is unknown. Save it with 8 bit per channel, "
        f"or as a PNG of 16 bit"
    )


def upright(rgb: Any, image: Any) -> Any:
    """Turn a PIL image by the EXIF orientation of the opened file that it comes from."""
    way = _UPRIGHT.get(_exif(image))
    transpose = optional("PIL.Image", "video", _WHY).Transpose
    return rgb if way is None else rgb.transpose(transpose[way])


def upright_size(image: Any) -> tuple[int, int]:
    """(height, width) of an opened file after :func:`upright`; only the header is read."""
    width, height = image.size
    # Pillow turns TIFFs itself and states the size afterwards
    turned = image.format != "TIFF" and _exif(image) in _TURNED
    return (width, height) if turned else (height, width)


def _exif(image: Any) -> int:
    return int(image.getexif().get(_ORIENTATION) or 1)


def pixels_of(image: Any) -> Tensor:
    """The pixels of a PIL image in mode RGB, (3, H, W) uint8."""
    data = bytearray(image.tobytes())
    return (
        torch.frombuffer(data, dtype=torch.uint8)
        .view(image.height, image.width, 3)
        .permute(2, 0, 1)
    )
