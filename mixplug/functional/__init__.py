"""Pure functions on tensors: no framework, no random draws, no state.

Letters: B batch, C channels, H W grid, N = H*W positions, D width, K classes, M mixed examples,
A anchors, P points, Q queries, k objects, h heads, V views.
λ always weighs the first operand. Results are on the device of the input.

Equation, algorithm, table and section numbers, such as (eq. 3.9) or (§6.5.3), are those of the
thesis that ``mixplug.__doc__`` names.
"""

from mixplug.functional.accuracy import top_k_correct
from mixplug.functional.aligned import (
    align,
    assignment,
    correspondences,
    mix,
    squared_distances,
)
from mixplug.functional.attacks import apgd, fgsm, pgd
from mixplug.functional.calibration import (
    brier_score,
    calibration_bins,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    overconfidence_error,
)
from mixplug.functional.dense import attention_map, dense_multimix, dense_weights
from mixplug.functional.discovery import attention_box, corloc, jaccard, lost_box
from mixplug.functional.distill import (
    cross_entropy,
    cross_view_loss,
    entropy,
    local_loss,
    teacher_probabilities,
    updated_center,
)
from mixplug.functional.exact_search import nearest
from mixplug.functional.hull import hull_cross_entropy, multimix
from mixplug.functional.hull_labels import hull_label_cross_entropy
from mixplug.functional.localization import (
    box_iou,
    boxes_by_threshold,
    class_activation_map,
    component_boxes,
    heat_of_map,
    map_overlaps,
    max_box_accuracy,
    max_box_accuracy_v2,
    top1_localization,
)
from mixplug.functional.neighbors import (
    knn_accuracy,
    knn_votes,
    map_at_r,
    nmi,
    precision_at_1,
    r_precision,
    recall_at_k,
)
from mixplug.functional.ood import (
    best_detection_accuracy,
    detection_accuracy,
    energy,
    false_positive_rate,
    knn_score,
    max_logit,
    max_softmax,
)
from mixplug.functional.open_set import h_score, open_set_accuracy, spread_thresholds
from mixplug.functional.pairwise import Additive, Form, LogSum, pair_share
from mixplug.functional.positivity import acts_positive, expected_positive, positivity_threshold
from mixplug.functional.propagation import label_map, propagate
from mixplug.functional.representation import alignment, intrusion_distance, uniformity, utilization
from mixplug.functional.similarity import mixed_similarity
from mixplug.functional.targets import smooth, soft_cross_entropy, soft_targets
from mixplug.functional.track import (
    cls_attention,
    masked_frames,
    object_masks,
    object_plan,
    object_prototypes,
    patch_masks,
    refine_prototypes,
    track,
)
from mixplug.functional.tracking_metrics import (
    average_overlap,
    class_balanced,
    sequence_overlaps,
    success_rate,
)
from mixplug.functional.transport import sinkhorn
from mixplug.functional.vos import contour_accuracy, region_similarity
from mixplug.renamed import renamed_names

__all__ = [
    "Additive",
    "Form",
    "LogSum",
    "acts_positive",
    "align",
    "alignment",
    "apgd",
    "assignment",
    "attention_box",
    "attention_map",
    "average_overlap",
    "best_detection_accuracy",
    "box_iou",
    "boxes_by_threshold",
    "brier_score",
    "calibration_bins",
    "class_activation_map",
    "class_balanced",
    "cls_attention",
    "component_boxes",
    "contour_accuracy",
    "corloc",
    "correspondences",
    "cross_entropy",
    "cross_view_loss",
    "dense_multimix",
    "dense_weights",
    "detection_accuracy",
    "energy",
    "entropy",
    "expected_calibration_error",
    "expected_positive",
    "false_positive_rate",
    "fgsm",
    "fit_temperature",
    "h_score",
    "heat_of_map",
    "hull_cross_entropy",
    "hull_label_cross_entropy",
    "intrusion_distance",
    "jaccard",
    "knn_accuracy",
    "knn_score",
    "knn_votes",
    "label_map",
    "local_loss",
    "lost_box",
    "map_at_r",
    "map_overlaps",
    "masked_frames",
    "max_box_accuracy",
    "max_box_accuracy_v2",
    "max_logit",
    "max_softmax",
    "mix",
    "mixed_similarity",
    "multimix",
    "nearest",
    "negative_log_likelihood",
    "nmi",
    "object_masks",
    "object_plan",
    "object_prototypes",
    "open_set_accuracy",
    "overconfidence_error",
    "pair_share",
    "patch_masks",
    "pgd",
    "positivity_threshold",
    "precision_at_1",
    "propagate",
    "r_precision",
    "recall_at_k",
    "refine_prototypes",
    "region_similarity",
    "sequence_overlaps",
    "sinkhorn",
    "smooth",
    "soft_cross_entropy",
    "soft_targets",
    "spread_thresholds",
    "squared_distances",
    "success_rate",
    "teacher_probabilities",
    "top1_localization",
    "top_k_correct",
    "track",
    "uniformity",
    "updated_center",
    "utilization",
]

__getattr__ = renamed_names(__name__, {"updated_centre": updated_center})
