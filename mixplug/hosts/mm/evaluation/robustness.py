"""mm evaluator of robustness: ``dict(type='mixplug.RobustAccuracy', attack='pgd')``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mixplug import distributed as ranks
from mixplug import sampling
from mixplug.hosts.mm.evaluation.watch import WatchingMetric, labels_of
from mixplug.metrics.robustness import ATTACKS, PART, Attack
from mixplug.numbers import ScoreNames, compute, scaled
from mixplug.registry import METRICS


@METRICS.register_module()
class RobustAccuracy(WatchingMetric):
    """Top-1 error under an attack in percent (Tables 3.3, 5.4).

    Its name is 'fgsm_error', 'pgd_error' or 'apgd_error'. Images are attacked in pixel space,
    [0, 1], through the data preprocessor of the model, so normalization and channel order do not
    matter. The model runs in float32. Each step of an attack costs about three forward passes.
    Attacked images are not rounded to integer gray levels.

    Args:
        attack: 'fgsm', 'pgd' or 'apgd', see :mod:`mixplug.functional.attacks`.
        white: value of a white pixel in the inputs; None means 255 and requires uint8 inputs.
        seed: seed of random starts, which also depend on the rank and the index of the example.
        collect_device: where mmengine collects the results of several GPUs, 'cpu' or 'gpu'.
        prefix: put before the names of the scores, as in 'PREFIX/fgsm_error'; two settings of one
            attack need different prefixes. None puts nothing.
        collect_dir: folder through which the CPU collects, visible to all ranks; None makes one.
        **settings: settings of the attack, such as ``eps`` and ``iters``.

    Raises:
        ValueError: an unknown attack, or white <= 0.
        KeyError: a setting that the attack does not have.
    """

    higher_is_better = ScoreNames(PART, True, [f"{attack}_" for attack in ATTACKS])
    lower_is_better = ScoreNames(PART, False, [f"{attack}_" for attack in ATTACKS])

    def __init__(
        self,
        attack: str = "fgsm",
        white: float | None = None,
        seed: int = 0,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        if white is not None and not white > 0:
            raise ValueError(f"RobustAccuracy needs white > 0 or None, got {white}.")
        self.attack, self.white, self.seed = Attack(attack, settings), white, seed

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Attack a batch, and keep which images are still classified correctly.

        Raises:
            ValueError: see :meth:`pixels` and :func:`mixplug.functional.fgsm`.
        """
        labels = torch.tensor(labels_of(type(self).__name__, data_samples))
        known = labels >= 0
        right = torch.zeros(len(labels), dtype=torch.bool)
        if bool(known.any()):
            _, watch = self.watched
            pixels = self.pixels(data_batch["inputs"], known)
            y = labels[known].to(pixels.device)
            draws = sampling.generators(self.seed, len(self.results), ranks.rank())
            key = sampling.key(draws.local)
            with watch.paused():
                attacked = self.attack(self.logits, pixels, y, key)
                with torch.no_grad():
                    right[known] = (self.logits(attacked).argmax(1) == y).cpu()
        self.results += list(zip(right.tolist(), known.tolist(), strict=True))

    def pixels(self, inputs: Any, wanted: Tensor) -> Tensor:
        """Selected images of a batch in [0, 1], (B, C, H, W), on the device of the model.

        Args:
            inputs: images of the batch.
            wanted: which of them, (N,) bool.

        Raises:
            ValueError: images of different sizes, or images that are not uint8 without ``white``.
        """
        images = [image for image, take in zip(inputs, wanted.tolist(), strict=True) if take]
        if len({image.shape for image in images}) > 1:
            raise ValueError(
                "RobustAccuracy needs images of one size: add a CenterCrop to the pipeline."
            )
        batch = torch.stack(images).to(next(self.watched[0].parameters()).device)
        if batch.dtype != torch.uint8 and self.white is None:
            raise ValueError(
                f"RobustAccuracy needs uint8 inputs, or the value of a white pixel (white=255 or "
                f"white=1), got {batch.dtype}. The data_preprocessor must normalize images, not "
                f"the pipeline."
            )
        return batch.float() / (self.white or 255)

    def logits(self, pixels: Tensor) -> Tensor:
        """Logits (B, K) of pixels (B, C, H, W) in [0, 1]."""
        model, _ = self.watched
        given = {"inputs": pixels * (self.white or 255)}
        return model(model.data_preprocessor(given, False)["inputs"], mode="tensor")

    def compute_metrics(self, results: list[tuple[bool, bool]]) -> dict[str, float]:
        """See the class.

        Raises:
            ValueError: no example of a known class.
        """
        correct = [right for right, known in results if known]
        if not correct:
            raise ValueError("RobustAccuracy got no image of a known class.")
        found = scaled(PART, compute(PART, "correct", torch.tensor(correct)))
        return {f"{self.attack.name}_{name}": value for name, value in found.items()}
