"""Long videos: an index of what is in them, and frames at given times."""

from mixplug.video.findings import Settings
from mixplug.video.index import VideoIndex
from mixplug.video.open import open_reader
from mixplug.video.reader import Crop, DecodeError, VideoReader
from mixplug.video.scan import scan

__all__ = [
    "Crop",
    "DecodeError",
    "Settings",
    "VideoIndex",
    "VideoReader",
    "open_reader",
    "scan",
]
