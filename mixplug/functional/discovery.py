"""Objects that nobody has labeled, found in frozen features, and how well they are found (6.5.3).

Letters: B images, h heads, N patches in a grid of (rows, columns), D width, P predicted and G true
masks. Boxes are (left, top, right, bottom), of which right and bottom are the first that are
outside, so an area is (right - left) (bottom - top), in patches or in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mixplug.functional.precision import exact_dtype
from mixplug.optional import optional

_WHY = "Object discovery"


def attention_mask(attention: Tensor, mass: float = 0.8) -> Tensor:
    r"""The fewest patches that together have a share of the attention (6.5.3, as in DINO [0]).

        M = the smallest set of patches with \sum_{i in M} a_i >= mass \sum_i a_i

    Where patches tie, the first ones are taken. That a sum reaches the mass is decided to the
    precision of ``attention``.

    Args:
        attention: a of the class token, (B, N), or (B, h, N), of which the mean over heads is
            taken: the averaged map of 6.5.3. DINO takes each head by itself instead, and of an
            image the head that fits the true mask best, which is not unsupervised.
        mass: share that is kept, in (0, 1].

    Returns:
        (B, N) bool.

    Raises:
        ValueError: another shape, or a mass outside (0, 1].

    - [0]: Emerging Properties in Self-Supervised Vision Transformers, 2021,
      https://arxiv.org/abs/2104.14294
    """
    if attention.dim() not in (2, 3) or not attention.numel():
        raise ValueError(
            f"attention_mask needs attention (B, N) or (B, h, N), got {tuple(attention.shape)}."
        )
    if not 0 < mass <= 1:
        raise ValueError(f"attention_mask needs a mass in (0, 1], got {mass}.")
    rounding = torch.finfo(attention.dtype).eps
    a = attention.double()
    a = a.mean(1) if a.dim() == 3 else a
    ordered, order = a.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered  # what is kept without this patch
    needed = mass * (1 - rounding) * a.sum(-1, keepdim=True)
    return torch.zeros_like(a, dtype=torch.bool).scatter_(-1, order, before < needed)


def component(mask: Tensor, seed: int | None = None) -> Tensor:
    """One connected component of a mask: the largest, or that of a patch.

    Patches are connected that share a side. Of components of one size the first counts.

    Args:
        mask: (rows, columns) bool.
        seed: number of a patch in the mask, row by row; None takes the largest component.

    Returns:
        (rows, columns) bool.

    Raises:
        ValueError: another shape or type, an empty mask, or a seed outside it.
        ImportError: scipy is not installed.
    """
    if mask.dim() != 2 or mask.dtype != torch.bool:
        raise ValueError(
            f"component needs a mask (rows, columns) of bool, got {tuple(mask.shape)} of "
            f"{mask.dtype}."
        )
    ndimage = optional("scipy.ndimage", "metric", _WHY)
    labels = torch.as_tensor(ndimage.label(mask.cpu().numpy())[0], device=mask.device)
    if not labels.any():
        raise ValueError("component needs a mask with one patch at least, got an empty one.")
    if seed is None:
        return labels == 1 + labels[mask].bincount()[1:].argmax()
    if not 0 <= seed < mask.numel() or not mask.flatten()[seed]:
        raise ValueError(f"component needs a seed inside the mask, got {seed}.")
    return labels == labels.flatten()[seed]


def mask_box(mask: Tensor) -> Tensor:
    """The smallest box around a mask.

    Args:
        mask: (rows, columns) bool, not empty.

    Returns:
        (4,) int64, in patches, or in whatever the mask is of.

    Raises:
        ValueError: an empty mask.
    """
    rows, columns = (mask.any(axis).nonzero() for axis in (1, 0))
    if not len(rows):
        raise ValueError("mask_box needs a mask with one patch at least, got an empty one.")
    first, last = torch.cat([columns[0], rows[0]]), torch.cat([columns[-1], rows[-1]])
    return torch.cat([first, last + 1])


def attention_box(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """The box around the largest connected component of an image's :func:`attention_mask`.

    Args:
        mask: (N,) bool.
        grid: (rows, columns) of the N patches.

    Returns:
        (4,) int64, in patches.

    Raises:
        ValueError: N is not the grid's; or see :func:`component`.
    """
    _require_grid(mask, grid, "attention_box", "a mask (N,)", 1)
    return mask_box(component(mask.unflatten(0, grid)))


def lost_box(keys: Tensor, grid: tuple[int, int], k: int = 100) -> Tensor:
    r"""The box of LOST [0]: one object from what patches do not have in common.

        seed:  p* = argmin_p d_p,   d_p = |{q : f_p . f_q > 0}|
        seeds: S  = {q among the k patches of lowest degree d : f_q . f_{p*} > 0}
        mask:  M  = {q : \sum_{s in S} f_q . f_s > 0}

    The box is around the connected component of M that contains p*. Where degrees tie, the first
    patches are taken.

    Args:
        keys: f, keys of an image's patches in the last block, all heads side by side, (N, D).
        grid: (rows, columns) of the N patches.
        k: of lowest degree, from which seeds are taken; all of them if there are no more than k.

    Returns:
        (4,) int64, in patches.

    Raises:
        ValueError: N is not the grid's, or k < 1.
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
    mask[seed] = True  # as it always is, but for keys that are zero
    return mask_box(component(mask.unflatten(0, grid), int(seed)))


def jaccard(predicted: Tensor, truth: Tensor, ignore: Tensor | None = None) -> Tensor:
    """Jaccard similarity of masks, ``J(P, G) = |G and P| / |G or P|`` (6.5.3).

    Args:
        predicted: P, (..., H, W) bool.
        truth: G, of the same shape.
        ignore: pixels that count in neither, of the same shape.

    Returns:
        (...) float64, in [0, 1]; 1 where both masks are empty.

    Raises:
        ValueError: shapes or types differ.
    """
    masks = (predicted, truth) if ignore is None else (predicted, truth, ignore)
    if {(m.shape, m.dtype) for m in masks} != {(truth.shape, torch.bool)} or truth.dim() < 2:
        told = ", ".join(f"{tuple(m.shape)} of {m.dtype}" for m in masks)
        raise ValueError(f"jaccard needs masks (..., H, W) of bool and of one shape, got {told}.")
    counts = torch.ones_like(truth) if ignore is None else ~ignore
    both = (predicted & truth & counts).sum((-2, -1)).double()
    either = ((predicted | truth) & counts).sum((-2, -1)).double()
    return torch.where(either > 0, both / either, 1.0)


def best_iou(box: Tensor, truths: Tensor) -> Tensor:
    """Intersection over union of a box with the true box that it fits best.

    Args:
        box: (4,).
        truths: (n, 4), n >= 1.

    Returns:
        Scalar in [0, 1], float64 if the box is, else float32.

    Raises:
        ValueError: other shapes, or no true box.
        ImportError: torchvision is not installed.
    """
    if box.shape != (4,) or truths.dim() != 2 or truths.shape[1:] != (4,) or not len(truths):
        raise ValueError(
            f"best_iou needs a box (4,) and true ones (n, 4) with n >= 1, got {tuple(box.shape)} "
            f"and {tuple(truths.shape)}."
        )
    ops = optional("torchvision.ops", "timm", _WHY)
    dtype = exact_dtype(box)
    found: Tensor = ops.box_iou(box[None].to(dtype), truths.to(dtype)).max()
    return found


def corloc(boxes: Tensor, truths: Sequence[Tensor], threshold: float = 0.5) -> float:
    """Correct localization [0]: share of images whose box fits one of the true boxes.

    A box fits with an intersection over union that is no less than the threshold (6.5.3).

    Args:
        boxes: one of each image, (B, 4).
        truths: of each image its true boxes, B times (n, 4).
        threshold: of the intersection over union.

    Returns:
        A fraction.

    Raises:
        ValueError: no image, or other shapes; and see :func:`best_iou`.

    - [0]: Weakly Supervised Localization and Learning with Generic Knowledge, 2012
    """
    if boxes.dim() != 2 or not len(boxes) or len(boxes) != len(truths):
        raise ValueError(
            f"corloc needs boxes (B, 4) with B >= 1, and true ones of as many images, got "
            f"{tuple(boxes.shape)} and {len(truths)}."
        )
    best = torch.stack([best_iou(*pair) for pair in zip(boxes, truths, strict=True)])
    return float((best >= threshold).double().mean())


def _require_grid(given: Tensor, grid: tuple[int, int], who: str, what: str, axes: int) -> None:
    if given.dim() != axes or len(given) != grid[0] * grid[1]:
        raise ValueError(
            f"{who} needs {what} of a grid {grid[0]} x {grid[1]}, got {tuple(given.shape)}."
        )
