"""Evaluation of video object segmentation as in DAVIS-2017: J and F of objects, and their means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixplug.functional.vos import Course, contour_accuracy, course, region_similarity

VOID = 255  # label of ignored pixels in annotations, which count as background


@dataclass(frozen=True)
class ObjectScore:
    """Scores of one object of one video, as fractions.

    Attributes:
        video: name of the video.
        number: label of the object in the annotations, from 1.
        region: J, see :func:`mixplug.functional.vos.region_similarity`.
        contour: F, see :func:`mixplug.functional.vos.contour_accuracy`.
    """

    video: str
    number: int
    region: Course
    contour: Course

    @property
    def both(self) -> float:
        """J&F, the mean of the mean J and the mean F."""
        return (self.region.mean + self.contour.mean) / 2


@dataclass(frozen=True)
class Scores:
    """Means over all objects of all videos with equal weights, as fractions."""

    region: Course
    contour: Course

    @property
    def both(self) -> float:
        """J&F, the mean of the mean J and the mean F."""
        return (self.region.mean + self.contour.mean) / 2


def object_count(annotation: Tensor) -> int:
    """Number of objects of a video, from the annotation of its first frame, (H, W) integers."""
    return int(torch.where(annotation == VOID, 0, annotation).max())


def score_video(
    video: str, frames: Iterable[tuple[Tensor, Tensor]], objects: int
) -> list[ObjectScore]:
    """Scores of every object of a video.

    Args:
        video: name of the video.
        frames: predicted and annotated label maps, (H, W) integers each, of all frames but the
            first, whose annotation is given, and the last, which DAVIS-2017 does not score either.
        objects: number of objects, see :func:`object_count`. Objects that appear later do not
            count.

    Raises:
        ValueError: no frames, label maps of different sizes, or a prediction of an object that the
            first annotation does not have.
    """
    values: list[tuple[list[float], list[float]]] = []
    numbers = torch.arange(1, objects + 1)[:, None, None]
    for prediction, truth in frames:
        if prediction.shape != truth.shape:
            raise ValueError(
                f"{video}: a prediction has {tuple(prediction.shape)} pixels, but its annotation "
                f"has {tuple(truth.shape)}."
            )
        if int(prediction.max()) > objects:
            raise ValueError(
                f"{video}: a prediction has object {int(prediction.max())}, but the first "
                f"annotation has {objects} objects."
            )
        masks = prediction == numbers, truth == numbers  # (k, H, W) each
        values.append((region_similarity(*masks).tolist(), contour_accuracy(*masks).tolist()))
    if not values:
        raise ValueError(
            f"{video} needs at least 3 frames, because the first and the last are not scored."
        )
    return [
        ObjectScore(
            video, i + 1, course([j[i] for j, _ in values]), course([f[i] for _, f in values])
        )
        for i in range(objects)
    ]


def overall(objects: Sequence[ObjectScore]) -> Scores:
    """Means over objects.

    Raises:
        ValueError: no objects.
    """
    if not objects:
        raise ValueError("A mean over objects needs at least one object.")
    return Scores(_mean([o.region for o in objects]), _mean([o.contour for o in objects]))


def _mean(courses: Sequence[Course]) -> Course:
    sums = [sum(values) for values in zip(*map(_numbers, courses), strict=True)]
    return Course(*(value / len(courses) for value in sums))


def _numbers(of: Course) -> tuple[float, float, float]:
    return of.mean, of.recall, of.decay
