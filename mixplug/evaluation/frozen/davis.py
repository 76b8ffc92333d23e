"""Video object segmentation on DAVIS-2017 with frozen features (6.5.3, Table 6.4a)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixplug.data.davis import Video, read_frame, read_labels, write_labels
from mixplug.evaluation.frozen.frozen import Frozen
from mixplug.evaluation.frozen.label_propagation import Protocol, segment
from mixplug.evaluation.results import Tick, unseen, write_results
from mixplug.metrics.vos import VOID, ObjectScore, Scores, object_count, overall, score_video

_RECORD = "predictions"  # which network and protocol all predictions of a folder are of


@dataclass(frozen=True)
class DavisResult:
    """What :func:`evaluate_davis` has found; scores are fractions, as of the official evaluation.

    Attributes:
        objects: J and F of every object of every video.
        scores: their means.
        segmented: names of videos that were segmented in this run; the predictions of the others
            were there.
        frames_per_second: of these videos: reading, the network and propagation; not scoring. None
            if there was none.
        peak_bytes: most memory that was held, of the GPU, or else of the whole process with all
            that it has loaded; None where the system does not tell.
        file: JSON with all of it.
    """

    objects: tuple[ObjectScore, ...]
    scores: Scores
    segmented: tuple[str, ...]
    frames_per_second: float | None
    peak_bytes: int | None
    file: Path


def evaluate_davis(
    frozen: Frozen,
    videos: Sequence[Video],
    out: Path,
    split: str = "val",
    protocol: Protocol | None = None,
    tick: Tick = unseen,
) -> DavisResult:
    """Segment videos and score them.

    Predictions are OUT/VIDEO/*.png, in the official layout, so that the official evaluation can
    score them too. A video whose predictions are all there is scored, not segmented: a run that was
    stopped goes on where it was. OUT/predictions.json says of which network and protocol all of
    them are, whatever their split; results go to OUT/davis-SPLIT.json.

    Args:
        frozen: the network.
        videos: see :func:`mixplug.data.davis.davis_videos`.
        out: folder for predictions and results.
        split: in the name of the results.
        protocol: None is DINO's.
        tick: called after every frame.

    Raises:
        ValueError: the folder has predictions of another network or protocol, or such of which it
            does not say it; a file is damaged; a video has fewer than 3 frames or no object; sizes
            of frames and annotations differ.
    """
    protocol = protocol or Protocol()
    _require_frames(videos)
    settings = {
        "weights": frozen.fingerprint(), "heads": frozen.encoder.heads, "mean": list(frozen.mean),
        "std": list(frozen.std), **asdict(protocol),
    }  # fmt: skip
    _require_same(out, settings)
    write_results(out, _RECORD, {"network": frozen.source, "settings": settings})
    clock, meter = _Clock(), _Meter(frozen.device)
    objects, total, done = [], sum(map(len, videos)), 0
    for video in videos:
        annotation, count = _first(video)
        if not all(path.is_file() for path in predictions(video, out)):
            clock.videos.append(video.name)
            frames = clock.timed(segment(frozen, _read(video), annotation, count, protocol))
            for number, path in enumerate(predictions(video, out)):
                tick(done + number, total, video.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_labels(path, next(frames) if number else annotation)
        tick(done + len(video) - 1, total, f"scoring {video.name}")
        objects += score_video(video.name, _pairs(video, out), count)
        done += len(video)
        tick(done, total, video.name)
    scores, peak = overall(objects), meter.peak()
    results = {
        "network": frozen.source, "settings": settings, "J&F": scores.both,
        "J": asdict(scores.region), "F": asdict(scores.contour), "frames_per_second": clock.rate,
        "peak_bytes": peak, "segmented": clock.videos, "objects": [asdict(o) for o in objects],
    }  # fmt: skip
    file = write_results(out, f"davis-{split}", results)
    return DavisResult(tuple(objects), scores, tuple(clock.videos), clock.rate, peak, file)


def predictions(video: Video, out: Path) -> list[Path]:
    """Where the label map of every frame is written."""
    return [out / video.name / path.name for path in video.annotations]


class _Clock:
    """Seconds per frame of some videos."""

    def __init__(self) -> None:
        self.videos: list[str] = []
        self.seconds, self.frames = 0.0, 0

    def timed(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        """The same frames."""
        while True:
            start = time.perf_counter()
            frame = next(frames, None)  # on the CPU when it comes, so a GPU has done its part
            self.seconds += time.perf_counter() - start
            if frame is None:
                return
            self.frames += 1
            yield frame

    @property
    def rate(self) -> float | None:
        return self.frames / self.seconds if self.frames else None


class _Meter:
    """Most memory that is held, see :class:`DavisResult`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def peak(self) -> int | None:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        try:
            import resource  # no Windows
        except ImportError:
            return None
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else 1024 * used


def _require_frames(videos: Sequence[Video]) -> None:
    for video in videos:
        if len(video) < 3:
            raise ValueError(
                f"{video.name}: at least 3 frames are needed, as the first and the last do not "
                f"count, got {len(video)}."
            )


def _require_same(out: Path, settings: dict[str, Any]) -> None:
    """Predictions of two networks in one folder would be scored as those of one."""
    there = next(iter(sorted(out.glob("*/*.png"))), None)
    if there is None:
        return
    file = out / f"{_RECORD}.json"
    way = "Name another folder by --out, or remove that one."
    try:
        known = json.loads(file.read_text(encoding="utf-8"))["settings"]
        differing = [f"{key} {known[key]}, not {settings[key]}" for key in settings
                     if known[key] != settings[key]]  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(
            f"{out} has predictions such as {there.relative_to(out)}, and no {file.name} that says "
            f"of which network they are. {way}"
        ) from None
    if differing:
        raise ValueError(f"{out} has predictions of another run: {'; '.join(differing)}. {way}")


def _first(video: Video) -> tuple[Tensor, int]:
    """The annotation of the first frame, and how many objects it has."""
    labels = read_labels(video.annotations[0])
    count = object_count(labels)
    if not count:
        raise ValueError(f"{video.annotations[0]} has no object.")
    return torch.where(labels == VOID, 0, labels), count


def _read(video: Video) -> Iterator[Tensor]:
    return map(read_frame, video.frames)


def _pairs(video: Video, out: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Prediction and annotation of the frames that count."""
    pairs = zip(predictions(video, out), video.annotations, strict=True)
    return ((read_labels(a), read_labels(b)) for a, b in list(pairs)[1:-1])
