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
from mixplug.evaluation.results import Tick, no_progress, write_results
from mixplug.metrics.vos import VOID, ObjectScore, Scores, object_count, overall, score_video

_RECORD = "predictions"  # file that records the network and protocol of the predictions


@dataclass(frozen=True)
class DavisResult:
    """Result of :func:`evaluate_davis`; scores are fractions, as in the official evaluation.

    Attributes:
        objects: J and F of every object of every video.
        scores: means over all objects.
        segmented: names of the videos that were segmented in this run; the predictions of the
            others existed.
        frames_per_second: speed on these videos, including reading, the network and propagation,
            without scoring. None if no video was segmented.
        peak_bytes: peak memory of the GPU, or of the whole process on a CPU; None if the operating
            system does not report it.
        file: JSON file with all results.
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
    tick: Tick = no_progress,
) -> DavisResult:
    """Segment videos and score them.

    Predictions are written to OUT/VIDEO/*.png in the official layout, so that the official
    evaluation can score them, too. Videos with complete predictions are only scored, so interrupted
    runs resume. OUT/predictions.json records the network and the protocol of all predictions of the
    folder; results are written to OUT/davis-SPLIT.json.

    Args:
        frozen: the network.
        videos: see :func:`mixplug.data.davis.davis_videos`.
        out: folder for predictions and results.
        split: part of the name of the results file.
        protocol: settings of label propagation; None takes those of DINO.
        tick: progress callback.

    Raises:
        ValueError: the folder has predictions of another or an unknown network or protocol; a file
            is damaged; a video has fewer than 3 frames or no object; sizes of frames and
            annotations differ.
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
    """Paths of the predicted label maps of all frames."""
    return [out / video.name / path.name for path in video.annotations]


class _Clock:
    """Measures the speed of segmentation."""

    def __init__(self) -> None:
        self.videos: list[str] = []
        self.seconds, self.frames = 0.0, 0

    def timed(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        """Pass frames on, and measure the time until each arrives."""
        while True:
            start = time.perf_counter()
            frame = next(frames, None)  # it is on the CPU, so the GPU has finished
            self.seconds += time.perf_counter() - start
            if frame is None:
                return
            self.frames += 1
            yield frame

    @property
    def rate(self) -> float | None:
        return self.frames / self.seconds if self.frames else None


class _Meter:
    """Measures peak memory, see :class:`DavisResult`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def peak(self) -> int | None:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        try:
            import resource  # not on Windows
        except ImportError:
            return None
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else 1024 * used


def _require_frames(videos: Sequence[Video]) -> None:
    for video in videos:
        if len(video) < 3:
            raise ValueError(
                f"{video.name} needs at least 3 frames, because the first and the last are not "
                f"scored, got {len(video)}."
            )


def _require_same(out: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder with predictions of another network: they would be scored as of this one."""
    existing = next(iter(sorted(out.glob("*/*.png"))), None)
    if existing is None:
        return
    file = out / f"{_RECORD}.json"
    way = "Choose another folder with --out, or remove that one."
    try:
        known = json.loads(file.read_text(encoding="utf-8"))["settings"]
        differing = [f"{key} {known[key]}, not {settings[key]}" for key in settings
                     if known[key] != settings[key]]  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(
            f"{out} has predictions such as {existing.relative_to(out)}, but no {file.name} that "
            f"records their network. {way}"
        ) from None
    if differing:
        raise ValueError(f"{out} has predictions of another run: {'; '.join(differing)}. {way}")


def _first(video: Video) -> tuple[Tensor, int]:
    """Annotation of the first frame, and its number of objects."""
    labels = read_labels(video.annotations[0])
    count = object_count(labels)
    if not count:
        raise ValueError(f"{video.annotations[0]} has no object.")
    return torch.where(labels == VOID, 0, labels), count


def _read(video: Video) -> Iterator[Tensor]:
    return map(read_frame, video.frames)


def _pairs(video: Video, out: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Predictions and annotations of the frames that are scored."""
    pairs = zip(predictions(video, out), video.annotations, strict=True)
    return ((read_labels(a), read_labels(b)) for a, b in list(pairs)[1:-1])
