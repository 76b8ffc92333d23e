"""Open a video file or a folder of frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mixplug.optional import optional
from mixplug.video.reader import VideoReader


def open_reader(
    path: str | Path,
    backend: str = "auto",
    fps: float | None = None,
    keyframes: Sequence[float] = (),
    cache_bytes: int = 0,
    threads: int = 1,
) -> VideoReader:
    """Open a video.

    Args:
        path: a video file, or a folder with one image per frame, in the order of their names.
        backend: 'pyav', 'torchcodec' or 'folder'; 'auto' is 'folder' for a folder, otherwise
            'pyav'.
        fps: frames per second of a folder of frames; required for a folder, not allowed for a file.
        keyframes: keyframes of the video's :class:`VideoIndex`; with them seeking needs no search
            ('pyav' only).
        cache_bytes: size of the cache of decoded frames; the least recently used frames are dropped
            first ('pyav' only). A cache helps if reads are close to each other: all frames on the
            way to a requested one are then decoded and stored if they fit. Without a cache, frames
            that no other frame references are skipped.
        threads: number of threads of the decoder. With several workers of a loader, use one each.

    Raises:
        ValueError: a missing or unreadable video, an unknown backend, or an option that the backend
            does not support.
        ImportError: the backend's package is not installed.
    """
    path = Path(path)
    if backend == "auto":
        backend = "folder" if path.is_dir() else "pyav"
    if backend not in _BACKENDS:
        raise ValueError(f"backend must be one of {('auto', *_BACKENDS)}, got {backend!r}.")
    if (fps is None) == (backend == "folder"):
        raise ValueError(
            f"{path} is a folder of frames and needs fps, the frames per second; got None."
            if fps is None
            else f"fps is only for folders of frames, and {path} is a file; got fps={fps}."
        )
    if cache_bytes < 0 or threads < 1:
        raise ValueError(
            f"A reader needs cache_bytes >= 0 and threads >= 1, got {cache_bytes} and {threads}."
        )
    return _BACKENDS[backend](
        path,
        fps=fps,
        keyframes=tuple(keyframes),
        cache_bytes=cache_bytes,
        threads=threads,
    )


def _pyav(path: Path, fps: float | None, **options: Any) -> VideoReader:
    optional("av", "video", "Reading videos")
    from mixplug.video.pyav_reader import PyAVReader

    return PyAVReader(path, **options)


def _torchcodec(path: Path, threads: int, **_: Any) -> VideoReader:
    from mixplug.video.torchcodec_reader import TorchcodecReader

    return TorchcodecReader(path, threads=threads)


def _folder(path: Path, fps: float, **_: Any) -> VideoReader:
    from mixplug.video.folder_reader import FolderReader

    return FolderReader(path, fps=fps)


_BACKENDS: Mapping[str, Callable[..., VideoReader]] = {
    "pyav": _pyav,
    "torchcodec": _torchcodec,
    "folder": _folder,
}
