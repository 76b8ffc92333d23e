"""Input mixup: pairs of images."""

from __future__ import annotations

from dataclasses import dataclass

from mixplug.catalog import register
from mixplug.mixers.pairwise import PairMixer


@register("InputMixup", alias="mixup", reference="thesis (3.3), (5.5)")
@dataclass(frozen=True, kw_only=True)
class InputMixup(PairMixer):
    """Input mixup [0]: ``λ x + (1 - λ) x'``, and the same for targets (eq. 3.1, 3.3).

    λ weighs the example itself. x' is its pair under a random permutation of the batch.

    ``prob=0, dense=True`` trains without mixing and with a dense loss, the baseline of Table 5.9.

    - [0]: mixup: Beyond Empirical Risk Minimization, 2018, https://arxiv.org/abs/1710.09412
    """
