"""DAVIS-2017's evaluation of segmented videos: J and F of every object, and their means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixplug.functional.vos import Course, contour_accuracy, course, region_similarity

VOID = 255  # of annotations: pixels that belong to nothing, and count as background


@dataclass(frozen=True)
class ObjectScore:
    """One object of one video, as fractions.

    Attributes:
        video: its name.
        number: of the object in annotations, from 1.
        region: J, see :func:`mixplug.functional.vos.region_similarity`.
        contour: F, see :func:`mixplug.functional.vos.contour_accuracy`.
    """

    video: str
    number: int
    region: Course
    contour: Course

    @property
    def both(self) -> float:
        """J&F, the mean of both means."""
        return (self.region.mean + self.contour.mean) / 2


@dataclass(frozen=True)
class Scores:
    """Means over all objects of all videos, each object weighing alike, as fractions."""

    region: Course
    contour: Course

    @property
    def both(self) -> float:
        """J&F, the mean of both means."""
        return (self.region.mean + self.contour.mean) / 2


def object_count(annotation: Tensor) -> int:
    """How many objects a video has by the annotation of its first frame, (H, W) integers."""
    return int(torch.where(annotation == VOID, 0, annotation).max())


def score_video(
    video: str, frames: Iterable[tuple[Tensor, Tensor]], objects: int
) -> list[ObjectScore]:
    """Every object of a video over its frames.

    Args:
        video: its name.
        frames: label maps of prediction and annotation, (H, W) integers each: of all frames but
            the first, which is given, and the last, which DAVIS-2017 leaves out too.
        objects: how many, see :func:`object_count`; later ones do not count.

    Raises:
        ValueError: no frames, label maps of two sizes, or a prediction of an object that there is
            not.
    """
    values: list[tuple[list[float], list[float]]] = []
    numbers = torch.arange(1, objects + 1)[:, None, None]
    for prediction, truth in frames:
        if prediction.shape != truth.shape:
            raise ValueError(
                f"{video}: a prediction of {tuple(prediction.shape)} pixels does not fit its "
                f"annotation of {tuple(truth.shape)}."
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
            f"{video}: at least 3 frames are needed, as the first and the last do not count."
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
        raise ValueError("There are no objects to take the mean of.")
    return Scores(_mean([o.region for o in objects]), _mean([o.contour for o in objects]))


def _mean(courses: Sequence[Course]) -> Course:
    sums = [sum(values) for values in zip(*map(_numbers, courses), strict=True)]
    return Course(*(value / len(courses) for value in sums))


def _numbers(of: Course) -> tuple[float, float, float]:
    return of.mean, of.recall, of.decay
