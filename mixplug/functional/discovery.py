"""Unsupervised object discovery in frozen features, and its scores (§6.5.3).

Letters: B images, h heads, N patches in a grid of (rows, columns), D width, P predicted and G true
masks. Boxes are (left, top, right, bottom) in patches or in pixels. Right and bottom are exclusive,
so the area is (right - left) (bottom - top).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mixplug.functional.precision import exact_dtype
from mixplug.optional import optional

_FEATURE = "Object discovery"


def attention_mask(attention: Tensor, mass: float = 0.8) -> Tensor:
    r"""Smallest set of patches that holds a given share of the attention (§6.5.3, as in DINO [0]).

        M = the smallest set of patches with \sum_{i in M} a_i >= mass \sum_i a_i

    Ties go to the first patches. The comparison tolerates the rounding error of the dtype of
    ``attention``.

    Args:
        attention: attention a of the class token, (B, N) or (B, h, N). Maps of several heads are
            averaged (§6.5.3). DINO instead masks each head separately and evaluates the head that
            fits the true mask best, which uses labels.
        mass: share of the attention to keep, in (0, 1].

    Returns:
        Masks, (B, N) bool.

    Raises:
        ValueError: ``attention`` has a wrong shape, or ``mass`` is outside (0, 1].

    - [0]: Emerging Properties in Self-Supervised Vision Transformers, 2021,
      https://arxiv.org/abs/2104.14294
    """
    if attention.dim() not in (2, 3) or not attention.numel():
        raise ValueError(
            f"attention_mask needs attention (B, N) or (B, h, N), got {tuple(attention.shape)}."
        )
    if not 0 < mass <= 1:
        raise ValueError(f"attention_mask needs mass in (0, 1], got {mass}.")
    rounding = torch.finfo(attention.dtype).eps
    a = attention.double()
    a = a.mean(1) if a.dim() == 3 else a
    ordered, order = a.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered  # attention of all stronger patches
    needed = mass * (1 - rounding) * a.sum(-1, keepdim=True)
    return torch.zeros_like(a, dtype=torch.bool).scatter_(-1, order, before < needed)


def component(mask: Tensor, seed: int | None = None) -> Tensor:
    """One connected component of a mask: the largest, or the one that contains a given patch.

    Patches that share a side are connected. Of several largest components, the first is taken.

    Args:
        mask: (rows, columns) bool.
        seed: row-major index of a patch in the mask; None selects the largest component.

    Returns:
        (rows, columns) bool.

    Raises:
        ValueError: wrong shape or dtype, an empty mask, or a seed outside of the mask.
        ImportError: scipy is not installed.
    """
    if mask.dim() != 2 or mask.dtype != torch.bool:
        raise ValueError(
            f"component needs a bool mask (rows, columns), got {tuple(mask.shape)} of {mask.dtype}."
        )
    ndimage = optional("scipy.ndimage", "metric", _FEATURE)
    labels = torch.as_tensor(ndimage.label(mask.cpu().numpy())[0], device=mask.device)
    if not labels.any():
        raise ValueError("component needs a mask with at least one patch, got an empty mask.")
    if seed is None:
        return labels == 1 + labels[mask].bincount()[1:].argmax()
    if not 0 <= seed < mask.numel() or not mask.flatten()[seed]:
        raise ValueError(f"component needs a seed inside of the mask, got {seed}.")
    return labels == labels.flatten()[seed]


def mask_box(mask: Tensor) -> Tensor:
    """Bounding box of a mask.

    Args:
        mask: (rows, columns) bool, not empty.

    Returns:
        (4,) int64, in cells of the mask.

    Raises:
        ValueError: an empty mask.
    """
    rows, columns = (mask.any(axis).nonzero() for axis in (1, 0))
    if not len(rows):
        raise ValueError("mask_box needs a mask with at least one patch, got an empty mask.")
    first, last = torch.cat([columns[0], rows[0]]), torch.cat([columns[-1], rows[-1]])
    return torch.cat([first, last + 1])


def attention_box(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Bounding box of the largest connected component of an :func:`attention_mask`.

    Args:
        mask: mask of one image, (N,) bool.
        grid: (rows, columns) of the N patches.

    Returns:
        (4,) int64, in patches.

    Raises:
        ValueError: N is not rows * columns; see also :func:`component`.
        ImportError: scipy is not installed.
    """
    _require_grid(mask, grid, "attention_box", "a mask (N,)", 1)
    return mask_box(component(mask.unflatten(0, grid)))


def lost_box(keys: Tensor, grid: tuple[int, int], k: int = 100) -> Tensor:
    r"""Box of one object found by LOST [0], which starts from the patch least like the others.

        seed:  p* = argmin_p d_p,   d_p = |{q : f_p . f_q > 0}|
        seeds: S  = {q among the k patches of lowest degree d : f_q . f_{p*} > 0}
        mask:  M  = {q : \sum_{s in S} f_q . f_s > 0}

    The result is the bounding box of the connected component of M that contains p*. Ties between
    degrees go to the first patches.

    Args:
        keys: f, keys of the last block for the patches of one image, heads concatenated, (N, D).
        grid: (rows, columns) of the N patches.
        k: number of patches of lowest degree that may become seeds; all N if k > N.

    Returns:
        (4,) int64, in patches.

    Raises:
        ValueError: N is not rows * columns, or k < 1.
        ImportError: scipy is not installed.

    - [0]: Localizing Objects with Self-Supervised Transformers and no Labels, 2021,
      https://arxiv.org/abs/2109.14279
    """
    _require_grid(keys, grid, "lost_box", "keys (N, D)", 2)
    if k < 1:
        raise ValueError(f"lost_box needs k >= 1, got {k}.")
    with torch.autocast(keys.device.type, enabled=False):
        f = keys.to(exact_dtype(keys))
        correlation = f @ f.mT  # (N, N)
        lowest = (correlation > 0).sum(-1).argsort(stable=True)[:k]
        seed = lowest[0]
        seeds = lowest[correlation[seed, lowest] > 0]
        mask = correlation[seeds].sum(0) > 0
    mask[seed] = True  # it is True anyway unless the keys are zero
    return mask_box(component(mask.unflatten(0, grid), int(seed)))


def jaccard(predicted: Tensor, truth: Tensor, ignore: Tensor | None = None) -> Tensor:
    """Jaccard similarity of masks (§6.5.3): ``J(P, G) = |G and P| / |G or P|``.

    Args:
        predicted: P, (..., H, W) bool.
        truth: G, same shape.
        ignore: pixels to exclude from both counts, same shape, bool.

    Returns:
        (...) float64, in [0, 1]; 1 where both masks are empty.

    Raises:
        ValueError: shapes differ, or a mask is not bool.
    """
    masks = (predicted, truth) if ignore is None else (predicted, truth, ignore)
    if {(m.shape, m.dtype) for m in masks} != {(truth.shape, torch.bool)} or truth.dim() < 2:
        received = ", ".join(f"{tuple(m.shape)} of {m.dtype}" for m in masks)
        raise ValueError(f"jaccard needs bool masks (..., H, W) of the same shape, got {received}.")
    counts = torch.ones_like(truth) if ignore is None else ~ignore
    both = (predicted & truth & counts).sum((-2, -1)).double()
    either = ((predicted | truth) & counts).sum((-2, -1)).double()
    return torch.where(either > 0, both / either, 1.0)


def best_iou(box: Tensor, truths: Tensor) -> Tensor:
    """Largest intersection over union (IoU) of a box with any true box.

    Args:
        box: (4,).
        truths: true boxes, (n, 4), n >= 1.

    Returns:
        Scalar in [0, 1], float32 (float64 for float64 ``box``).

    Raises:
        ValueError: wrong shapes, or no true box.
        ImportError: torchvision is not installed.
    """
    if box.shape != (4,) or truths.dim() != 2 or truths.shape[1:] != (4,) or not len(truths):
        raise ValueError(
            f"best_iou needs a box (4,) and true boxes (n, 4) with n >= 1, got {tuple(box.shape)} "
            f"and {tuple(truths.shape)}."
        )
    ops = optional("torchvision.ops", "timm", _FEATURE)
    dtype = exact_dtype(box)
    best: Tensor = ops.box_iou(box[None].to(dtype), truths.to(dtype)).max()
    return best


def corloc(boxes: Tensor, truths: Sequence[Tensor], threshold: float = 0.5) -> float:
    """Correct localization (CorLoc) [0]: share of images whose box matches one of the true boxes.

    A box matches a true box if their IoU is at least the threshold (§6.5.3).

    Args:
        boxes: one predicted box per image, (B, 4).
        truths: true boxes of each image, B tensors (n, 4).
        threshold: smallest IoU of a match.

    Returns:
        A fraction.

    Raises:
        ValueError: no image, or wrong shapes; see also :func:`best_iou`.
        ImportError: torchvision is not installed.

    - [0]: Weakly Supervised Localization and Learning with Generic Knowledge, 2012
    """
    if boxes.dim() != 2 or not len(boxes) or len(boxes) != len(truths):
        raise ValueError(
            f"corloc needs boxes (B, 4) with B >= 1 and true boxes for each of the B images, got "
            f"{tuple(boxes.shape)} and true boxes for {len(truths)} images."
        )
    best = torch.stack([best_iou(*pair) for pair in zip(boxes, truths, strict=True)])
    return float((best >= threshold).double().mean())


def _require_grid(t: Tensor, grid: tuple[int, int], caller: str, expected: str, axes: int) -> None:
    if t.dim() != axes or len(t) != grid[0] * grid[1]:
        raise ValueError(
            f"{caller} needs {expected} of a grid {grid[0]} x {grid[1]}, got {tuple(t.shape)}."
        )
