"""Discovery, tracking and masks against loops, their limits, and two squares that move."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from reference import track as naive
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor
from torch.testing import assert_close

from mixplug.functional import (
    cls_attention,
    masked_frames,
    object_masks,
    object_plan,
    object_prototypes,
    patch_masks,
    refine_prototypes,
    track,
)

B, H, K, N, D = 2, 4, 3, 6, 8
DIVISOR = {"head": math.sqrt(D / H), "dim": math.sqrt(D)}


@pytest.mark.parametrize("prefix", [1, 3])
@pytest.mark.parametrize("scale", DIVISOR)
def test_attention_of_the_class_token(scale: str, prefix: int, dtype: torch.dtype) -> None:
    q, k = torch.randn(2, B, H, prefix + N, D // H, dtype=dtype).mul(2).unbind(0)
    q.requires_grad_(), k.requires_grad_()
    found = cls_attention(q, k, prefix, scale)
    expected = naive.cls_attention(q, k, prefix, DIVISOR[scale])
    assert found.shape == (B, H, N) and found.dtype == dtype
    assert_near(found, expected)
    w = torch.randn(B, H, N, dtype=torch.float64)
    assert_same_gradients((found * w.to(dtype)).sum(), (expected * w).sum(), [("q", q), ("k", k)])


def test_what_is_left_of_a_row_is_the_prefix(dtype: torch.dtype) -> None:
    """Keys of zeros: every one of the P + N tokens has the same part."""
    q = torch.randn(B, H, 2 + N, D, dtype=dtype)
    found = cls_attention(q, torch.zeros_like(q), prefix=2)
    assert_close(found, torch.full((B, H, N), 1 / (2 + N), dtype=dtype))


@pytest.mark.parametrize("prefix", [1, 4])
def test_it_is_the_row_that_fused_attention_has(prefix: int, dtype: torch.dtype) -> None:
    """With one-hot values fused attention gives its matrix back."""
    q, k = torch.randn(2, B, H, prefix + N, D, dtype=dtype).unbind(0)
    one_hot = torch.eye(prefix + N, dtype=dtype).expand(B, H, -1, -1)
    matrix = F.scaled_dot_product_attention(q, k, one_hot)
    assert_near(cls_attention(q, k, prefix), matrix[:, :, 0, prefix:].double())


def test_prototypes(dtype: torch.dtype) -> None:
    attention = torch.rand(B, K, N, dtype=dtype, requires_grad=True)
    queries = torch.randn(B, N, D, dtype=dtype, requires_grad=True)
    found = object_prototypes(attention, queries)
    expected = naive.pooled(attention, queries)
    assert found.shape == (B, K, D) and found.dtype == dtype
    w = torch.randn(B, K, D, dtype=torch.float64)
    named = [("attention", attention), ("queries", queries)]
    assert_same_gradients((found * w.to(dtype)).sum(), (expected * w).sum(), named)
    assert_near(found, expected)


@pytest.mark.parametrize("kind", ["columns", "joint"])
@pytest.mark.parametrize("normalize", [True, False])
def test_the_plan_and_what_it_pools(normalize: bool, kind: str, dtype: torch.dtype) -> None:
    prototypes, patches = torch.randn(B, K, D, dtype=dtype), 3 * torch.randn(B, N, D, dtype=dtype)
    settings = (0.3, 7, normalize, kind)
    plan = object_plan(prototypes, patches, *settings)
    expected = naive.plan(prototypes, patches, *settings)
    assert plan.shape == (B, K, N) and plan.dtype == dtype
    assert_near(plan, expected)
    points = F.normalize(patches.double(), dim=-1) if normalize else patches
    assert_near(refine_prototypes(prototypes, patches, *settings), naive.pooled(expected, points))


@pytest.mark.parametrize(("kind", "mass"), [("columns", N), ("joint", 1)])
def test_marginals_of_the_plan(kind: str, mass: int, dtype: torch.dtype) -> None:
    prototypes, patches = torch.randn(B, K, D, dtype=dtype), torch.randn(B, N, D, dtype=dtype)
    plan = object_plan(prototypes, patches, eps=0.5, iters=300, plan=kind)
    assert_close(plan.sum(-2), torch.full((B, N), mass / N, dtype=dtype))
    assert_close(plan.sum(-1), torch.full((B, K), mass / K, dtype=dtype), rtol=1e-4, atol=0)


def test_defaults_are_those_of_the_design() -> None:
    prototypes, patches = torch.randn(B, K, D), torch.randn(B, N, D)
    expected = naive.plan(prototypes, patches, 0.05, 30, True, "columns")
    assert_near(object_plan(prototypes, patches), expected)
    points = F.normalize(patches.double(), dim=-1)
    assert_near(refine_prototypes(prototypes, patches), naive.pooled(expected, points))


def test_length_of_patches_counts_only_where_they_are_not_normalized() -> None:
    prototypes, patches = torch.randn(B, K, D), torch.randn(B, N, D)
    longer = patches * torch.rand(B, N, 1).add(0.5)
    assert_close(refine_prototypes(prototypes, longer), refine_prototypes(prototypes, patches))
    raw = refine_prototypes(prototypes, patches, normalize=False)
    assert not torch.allclose(refine_prototypes(prototypes, longer, normalize=False), raw)


def test_a_wide_range_of_costs_underflows_nowhere() -> None:
    """exp(500 / 0.05) is beyond every float; a patch without length is no NaN either."""
    prototypes, patches = 500 * torch.randn(B, K, D), torch.randn(B, N, D)
    patches[0, 0] = 0
    plan = object_plan(prototypes, patches)
    assert bool(plan.isfinite().all())
    assert_close(plan.sum(-2), torch.ones(B, N))


def test_objects_that_all_prefer_one_patch_are_told_apart(dtype: torch.dtype) -> None:
    """What all objects share is canceled by the columns; exp(0.5 / ε) = e of the rest decides."""
    order = torch.eye(3, dtype=dtype)[[2, 0, 1]]
    patches = torch.eye(3, dtype=dtype)[None]
    prototypes = 5 * patches[:, :1] + 0.5 * order
    assert track(prototypes, patches, 0.5).argmax(-1).tolist() == [[0, 0, 0]]
    plan = object_plan(prototypes, patches, eps=0.5, iters=100)
    assert_near(plan, ((math.e - 1) * order + 1)[None].double() / (math.e + 2))


@pytest.mark.parametrize("scale", ["dim", 0.7])
def test_tracking(scale: str | float, dtype: torch.dtype) -> None:
    prototypes = torch.randn(B, K, D, dtype=dtype, requires_grad=True)
    keys = torch.randn(B, N, D, dtype=dtype, requires_grad=True)
    found = track(prototypes, keys, scale)
    expected = naive.track(prototypes, keys, math.sqrt(D) if scale == "dim" else scale)
    assert found.shape == (B, K, N) and found.dtype == dtype
    assert_near(found, expected)
    assert_close(found.sum(-1), torch.ones(B, K, dtype=dtype))
    w = torch.randn(B, K, N, dtype=torch.float64)
    named = [("prototypes", prototypes), ("keys", keys)]
    assert_same_gradients((found * w.to(dtype)).sum(), (expected * w).sum(), named)


def test_objects_of_one_frame_are_tracked_over_many_at_once(dtype: torch.dtype) -> None:
    prototypes, keys = torch.randn(B, K, D, dtype=dtype), torch.randn(B, 4, N, D, dtype=dtype)
    found = track(prototypes[:, None], keys)
    assert found.shape == (B, 4, K, N)
    for t in range(4):
        assert_close(found[:, t], track(prototypes, keys[:, t]))


def test_autocast_changes_nothing() -> None:
    q, k = torch.randn(2, B, H, 1 + N, D).unbind(0)
    prototypes, patches, attention = torch.randn(B, K, D), torch.randn(B, N, D), torch.rand(B, K, N)

    def everything() -> list[Tensor]:
        return [
            cls_attention(q, k),
            object_prototypes(attention, patches),
            object_plan(prototypes, patches),
            refine_prototypes(prototypes, patches),
            track(prototypes, patches),
        ]

    plain = everything()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for mine, other in zip(everything(), plain, strict=True):
            assert torch.equal(mine, other)


def test_half_precision_comes_out_in_float32() -> None:
    half = torch.bfloat16
    prototypes, patches = torch.randn(B, K, D, dtype=half), torch.randn(B, N, D, dtype=half)
    for found, exact in (
        (track(prototypes, patches), track(prototypes.float(), patches.float())),
        (refine_prototypes(prototypes, patches), refine_prototypes(prototypes.float(), patches)),
    ):
        assert found.dtype == torch.float32
        assert_close(found, exact)


def test_masks_are_above_the_mean_of_their_own_frame_and_object(dtype: torch.dtype) -> None:
    attention = torch.rand(B, K, N, dtype=dtype)
    attention[0] *= 100  # a mean over the batch would leave nothing of the second frame
    attention[1, 0] /= 100
    found = patch_masks(attention)
    assert found.dtype == dtype
    assert torch.equal(found.double(), naive.binary(attention))
    assert bool((found.sum(-1) > 0).all())
    assert torch.equal(patch_masks(attention, "soft"), attention)
    assert int(patch_masks(torch.full((1, 1, N), 0.5)).sum()) == 0


@pytest.mark.parametrize("kind", ["binary", "soft"])
@pytest.mark.parametrize("size", [(4, 6), (8, 12), (12, 9), (5, 7)])
def test_every_pixel_has_the_mask_of_its_patch(
    size: tuple[int, int], kind: str, dtype: torch.dtype
) -> None:
    attention = torch.rand(B, K, N, dtype=dtype)
    found = object_masks(attention, (2, 3), size, kind)
    assert found.shape == (B, K, *size) and found.dtype == dtype
    masks = patch_masks(attention, kind)
    for y in range(size[0]):
        for x in range(size[1]):
            row = int((y + 0.5) * 2 / size[0])
            column = int((x + 0.5) * 3 / size[1])
            assert torch.equal(found[:, :, y, x], masks[:, :, row * 3 + column])


@pytest.mark.parametrize("kind", ["binary", "soft"])
@pytest.mark.parametrize("size", [(4, 6), (8, 12), (2, 3), (6, 9)])
def test_masked_frames(size: tuple[int, int], kind: str, dtype: torch.dtype) -> None:
    frames, attention = torch.randn(B, 3, *size, dtype=dtype), torch.rand(B, K, N, dtype=dtype)
    found = masked_frames(frames, patch_masks(attention, kind), (2, 3))
    assert found.shape == (B, K, 3, *size) and found.dtype == dtype
    assert_close(found, frames[:, None] * object_masks(attention, (2, 3), size, kind)[:, :, None])
    masks = naive.binary(attention) if kind == "binary" else attention.double()
    for b in range(B):
        for i in range(K):
            assert_near(found[b, i], naive.masked(frames[b].double(), masks[b, i], (2, 3)))


SIDE, PATCH, SQUARE = 64, 4, 16
GRID = (SIDE // PATCH, SIDE // PATCH)


def two_squares(frames: int) -> tuple[Tensor, Tensor]:
    """A clip (T, 3, H, W) of two textured squares on noise, and where they are (T, 2, H, W)."""
    source = torch.Generator().manual_seed(0)
    clip = 0.1 * torch.randn(frames, 3, SIDE, SIDE, generator=source)
    where = torch.zeros(frames, 2, SIDE, SIDE)
    stripes = torch.tensor([1.0, -1.0]).repeat(SQUARE // 2)
    textures = (stripes[:, None].expand(-1, SQUARE), stripes[:, None] * stripes)
    starts, moves = ((4, 2), (42, 44)), ((3, 5), (-1, -5))  # not by whole patches
    for t in range(frames):
        for i in range(2):
            y, x = (s + t * m for s, m in zip(starts[i], moves[i], strict=True))
            clip[t, i, y : y + SQUARE, x : x + SQUARE] += textures[i]
            where[t, i, y : y + SQUARE, x : x + SQUARE] = 1
    return clip, where


def energy_of_patches(clip: Tensor) -> Tensor:
    """(T, N, 3): how much texture a patch has in red and in green, and a constant."""
    patches = F.unfold(clip[:, :2].flatten(0, 1)[:, None], PATCH, stride=PATCH)  # (T 2, p p, N)
    energy = patches.square().mean(1).sqrt().unflatten(0, (-1, 2)).mT
    return torch.cat([energy, torch.full_like(energy[..., :1], 0.3)], -1)


@pytest.mark.parametrize(("refine", "scale"), [(True, 5.0), (False, 0.3)])
def test_masks_follow_two_squares(refine: bool, scale: float) -> None:
    """Hand-made attention in the first frame; intersection over union of 0.6 or more in all six.

    A square of 16 pixels off the grid of 4 touches 25 patches: all of them have 0.64.
    """
    clip, where = two_squares(6)
    features = energy_of_patches(clip)
    share = F.avg_pool2d(where[:1], PATCH).flatten(2)
    attention = torch.cat([share, 1 - share.sum(1, keepdim=True)], 1)  # the third is what is left
    objects = object_prototypes(attention / attention.sum(-1, keepdim=True), features[:1])
    if refine:
        objects = refine_prototypes(objects, features[:1])
    maps = track(objects[:, None], features[None], scale)[0, :, :2]
    masks = object_masks(maps, GRID, (SIDE, SIDE))
    overlap = (masks * where).sum((-2, -1)) / masks.maximum(where).sum((-2, -1))
    assert float(overlap.min()) >= 0.6
    assert float((masks * where.flip(1)).sum()) == 0  # nothing of the other square
    still = (masks[:1] * where).sum((-2, -1)) / masks[:1].maximum(where).sum((-2, -1))
    assert float(still[-1].max()) == 0  # the first frame's masks would have lost them


QK = torch.zeros(1, 2, 3, 4)
RAISES = {
    "prefix": (lambda: cls_attention(QK, QK, 3), "1 <= P < P [+] N, got .* with prefix=3"),
    "no prefix": (lambda: cls_attention(QK, QK, 0), "with prefix=0"),
    "q and k": (lambda: cls_attention(QK, QK[:, :1]), r"got \(1, 2, 3, 4\) and \(1, 1, 3, 4\)"),
    "scale": (
        lambda: cls_attention(QK, QK, scale="d"),
        r"cls_attention needs scale in \('head', 'dim'\), got 'd'",
    ),
    "plan": (
        lambda: object_plan(QK[0], QK[0], plan="rows"),
        r"object_plan needs plan in \('columns', 'joint'\), got 'rows'",
    ),
    "plan of refine": (lambda: refine_prototypes(QK[0], QK[0], plan="rows"), "refine_prototypes n"),
    "eps": (lambda: object_plan(QK[0], QK[0], eps=0), "eps > 0, got eps=0"),
    "widths": (
        lambda: track(QK[0], QK[0, :, :, :3]),
        r"track needs objects .* of the same D, got \(2, 3, 4\) and \(2, 3, 3\)",
    ),
    "widths of refine": (lambda: refine_prototypes(QK[0], QK[0, :, :, :3]), "of the same D"),
    "track scale": (lambda: track(QK[0], QK[0], 0), "'dim' or a number > 0, got 0"),
    "track scale name": (lambda: track(QK[0], QK[0], "head"), "a number > 0, got 'head'"),
    "kind": (
        lambda: patch_masks(QK[0], "hard"),
        r"patch_masks needs kind in \('binary', 'soft'\), got 'hard'",
    ),
    "grid": (
        lambda: object_masks(QK[0], (2, 3), (4, 6)),
        r"object_masks needs \(B, k, N\) of a grid 2 x 3, got \(2, 3, 4\)",
    ),
    "size": (
        lambda: masked_frames(torch.zeros(2, 3, 5, 4), QK[0], (2, 2)),
        "multiple of the grid 2 x 2, got 5 x 4",
    ),
    "grid of frames": (
        lambda: masked_frames(torch.zeros(2, 3, 4, 4), QK[0], (2, 3)),
        "masked_frames needs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", RAISES)
def test_errors_say_what_was_given(case: str) -> None:
    call, message = RAISES[case]
    with pytest.raises(ValueError, match=message):
        call()
