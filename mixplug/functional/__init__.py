"""Pure functions on tensors: no framework, no random draws, no state.

Letters: B batch, C channels, H W grid, N = H*W positions, D width, K classes, M mixed examples.
λ weighs the first operand, always. Device and dtype follow the input.
"""

from mixplug.functional.aligned import align, mix, squared_distances
from mixplug.functional.calibration import (
    calibration_bins,
    expected_calibration_error,
    overconfidence_error,
)
from mixplug.functional.dense import attention_map, dense_multimix, dense_weights
from mixplug.functional.hull import hull_cross_entropy, multimix
from mixplug.functional.targets import smooth, soft_cross_entropy, soft_targets
from mixplug.functional.transport import sinkhorn

__all__ = [
    "align",
    "attention_map",
    "calibration_bins",
    "dense_multimix",
    "dense_weights",
    "expected_calibration_error",
    "hull_cross_entropy",
    "mix",
    "multimix",
    "overconfidence_error",
    "sinkhorn",
    "smooth",
    "soft_cross_entropy",
    "soft_targets",
    "squared_distances",
]
