"""Open a video, whatever it is stored as."""

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
        path: a video file, or a folder of frames, one image each, in the order of their names.
        backend: 'pyav', 'torchcodec' or 'folder'; 'auto' is 'folder' for a folder, else 'pyav'.
        fps: frames per second of a folder of frames, which must have it; no other may.
        keyframes: of the video's :class:`VideoIndex`, so that seeking needs no search ('pyav').
        cache_bytes: how many bytes of decoded frames are kept for later reads, the least recently
            used go first ('pyav'). It pays where reads lie near each other: all frames on the way
            to a wanted one are decoded and kept if they fit, where else those are left out that
            no other frame needs.
        threads: of the decoder. One for each worker of a loader is best.

    Raises:
        ValueError: no such video, one that cannot be read, an unknown backend, or an option that
            the backend has not.
        ImportError: the backend's package is not installed.
    """
    path = Path(path)
    if backend == "auto":
        backend = "folder" if path.is_dir() else "pyav"
    if backend not in _BACKENDS:
        raise ValueError(f"A reader's backend is one of {('auto', *_BACKENDS)}, got {backend!r}.")
    if (fps is None) == (backend == "folder"):
        raise ValueError(
            f"{path} needs fps, the frames per second of the folder."
            if fps is None
            else f"fps is for folders of frames; {path} has its own, got fps={fps}."
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
