"""Object discovery against exhaustive search, loops and flood fill, and results by hand."""

from __future__ import annotations

import pytest
import torch
from reference import discovery as naive
from torch import Tensor
from torch.testing import assert_close

from mixplug.functional.discovery import (
    attention_box,
    attention_mask,
    best_iou,
    component,
    corloc,
    jaccard,
    lost_box,
    mask_box,
)


def drawn(*rows: str) -> Tensor:
    """A mask drawn as text; # is inside."""
    return torch.tensor([[cell == "#" for cell in row] for row in rows])


@pytest.mark.parametrize("heads", [None, 3])
@pytest.mark.parametrize("mass", [0.3, 0.8, 1.0])
def test_mask_is_the_smallest_set(mass: float, heads: int | None, dtype: torch.dtype) -> None:
    shape = (4, 7) if heads is None else (4, heads, 7)
    attention = torch.rand(shape, dtype=dtype) ** 3
    found = attention_mask(attention, mass)
    assert found.dtype == torch.bool
    expected = naive.attention_mask(attention, mass)
    assert found.tolist() == torch.stack([naive.as_mask(s, 7) for s in expected]).tolist()


def test_mask_by_hand(dtype: torch.dtype) -> None:
    """0.5 and 0.3 reach 0.8 in spite of rounding; a common factor has no effect."""
    attention = torch.tensor([[0.1, 0.5, 0.1, 0.3]], dtype=dtype)
    for scale in (1.0, 0.37, 1e-5):
        assert attention_mask(scale * attention).tolist() == [[False, True, False, True]]
    assert attention_mask(attention, 0.81).sum() == 3
    assert attention_mask(attention, 0.5).tolist() == [[False, True, False, False]]


def test_of_equal_patches_the_first_are_taken(dtype: torch.dtype) -> None:
    found = attention_mask(torch.full((2, 10), 0.1, dtype=dtype))
    assert found.tolist() == [[True] * 8 + [False] * 2] * 2


def test_heads_are_averaged_before_patches_are_kept() -> None:
    """Each head alone would keep its own patch; their average keeps the common one."""
    heads = torch.tensor([[[0.6, 0.4, 0.0, 0.0], [0.0, 0.4, 0.6, 0.0]]])
    assert attention_mask(heads, 0.4)[0].nonzero().flatten().tolist() == [1]
    assert attention_mask(heads[:, 0], 0.4)[0].nonzero().flatten().tolist() == [0]


TWO = drawn("##...", "#..##", "..###", "#....")


def test_components_by_hand() -> None:
    """Corners do not connect. The largest component has five patches; ties go to the first."""
    assert component(TWO).tolist() == drawn(".....", "...##", "..###", ".....").tolist()
    assert component(TWO, 0).tolist() == drawn("##...", "#....", ".....", ".....").tolist()
    assert component(TWO, 15).tolist() == drawn(".....", ".....", ".....", "#....").tolist()
    assert component(drawn("#.#")).tolist() == [[True, False, False]]


def test_boxes_by_hand() -> None:
    """Boxes are (left, top, right, bottom), with right and bottom exclusive."""
    assert mask_box(TWO).tolist() == [0, 0, 5, 4]
    assert attention_box(TWO.flatten(), (4, 5)).tolist() == [2, 1, 5, 3]
    assert mask_box(drawn("...", "..#")).tolist() == [2, 1, 3, 2]


@pytest.mark.parametrize("k", [1, 4, 100])
def test_lost_by_loops(k: int, dtype: torch.dtype) -> None:
    found = set()
    for _ in range(30):
        keys = torch.randn(12, 3, dtype=dtype)
        expected = naive.lost_box(keys, (3, 4), k)
        assert lost_box(keys, (3, 4), k).tolist() == expected
        found.add(tuple(expected))
    assert len(found) > 5


def test_lost_by_hand(dtype: torch.dtype) -> None:
    """Three patches differ from the nine others. Two of the three touch: the box contains both."""
    odd = drawn("##..", "....", "...#").flatten()
    keys = torch.where(odd[:, None], torch.tensor([1.0, 0.2]), torch.tensor([-1.0, 0.2])).to(dtype)
    assert lost_box(keys, (3, 4)).tolist() == [0, 0, 2, 1]
    assert lost_box(keys.flip(0), (3, 4)).tolist() == [0, 0, 1, 1]  # the seed is the first one
    assert lost_box(-keys, (3, 4)).tolist() == [0, 0, 2, 1]
    assert lost_box(torch.zeros(12, 2, dtype=dtype), (3, 4)).tolist() == [0, 0, 1, 1]


def test_seeds_are_those_of_lowest_degree() -> None:
    """The seed a is dissimilar to the patch between; b is similar to both.

    The degrees are 2 for a and for the patch between, 3 for b and for all others.
    """
    a, b, other = [1.0, 0.0, 0.0], [0.2, 1.0, 0.0], [-1.0, 0.1, 1.0]
    between = [-0.1, 0.5, -0.4]
    keys = torch.tensor([a, b, between, other, other, other])
    assert lost_box(keys, (1, 6), 2).tolist() == [0, 0, 2, 1]
    assert lost_box(keys, (1, 6), 3).tolist() == [0, 0, 3, 1]


def test_jaccard_by_hand_and_by_loops() -> None:
    p, g = drawn("##.", "##."), drawn(".##", ".#.")
    assert float(jaccard(p, g)) == 2 / 5
    void = drawn(".#.", "#..")
    assert float(jaccard(p, g, void)) == 1 / 3
    p, g, void = torch.rand(3, 4, 6, 5) > 0.5
    expected = [naive.jaccard(*each) for each in zip(p, g, void, strict=True)]
    assert_close(jaccard(p, g, void), torch.tensor(expected, dtype=torch.float64))
    empty = torch.zeros(2, 2, dtype=torch.bool)
    assert float(jaccard(empty, empty)) == 1 and float(jaccard(empty, ~empty)) == 0


def test_corloc_by_hand(dtype: torch.dtype) -> None:
    """IoU of 1/2 with the second true box, of slightly less, of 1, and of 0."""
    boxes = torch.tensor([[8, 8, 24, 24], [8, 8, 24, 24], [0, 0, 3, 5], [0, 0, 1, 1]]).to(dtype)
    truths = [
        torch.tensor([[0, 0, 9, 9], [8, 8, 24, 16]]).to(dtype),
        torch.tensor([[8.0, 8.0, 23.0, 16.0]], dtype=dtype),
        torch.tensor([[0, 0, 3, 5]]).to(dtype),
        torch.tensor([[1, 0, 2, 1]]).to(dtype),
    ]
    found = [float(best_iou(*pair)) for pair in zip(boxes, truths, strict=True)]
    assert found == [0.5, 120 / 256, 1, 0]
    assert best_iou(boxes[0], truths[0]).dtype == dtype
    assert corloc(boxes, truths) == 0.5
    assert corloc(boxes, truths, 0.4) == 0.75 and corloc(boxes, truths, 0.51) == 0.25


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attention_mask(torch.rand(3)), r"\(B, N\) or \(B, h, N\), got \(3,\)"),
        (lambda: attention_mask(torch.rand(1, 3), 0.0), r"mass in \(0, 1\], got 0.0"),
        (lambda: attention_mask(torch.rand(1, 3), 1.1), r"got 1.1"),
        (lambda: component(torch.rand(2, 2)), r"bool mask .*, got \(2, 2\) of torch.float32"),
        (lambda: component(torch.zeros(2, 2).bool()), r"at least one patch, got an empty mask"),
        (lambda: component(TWO, 3), r"a seed inside of the mask, got 3"),
        (lambda: component(TWO, 20), r"got 20"),
        (lambda: mask_box(torch.zeros(2, 2).bool()), r"got an empty mask"),
        (lambda: attention_box(TWO.flatten(), (4, 4)), r"of a grid 4 x 4, got \(20,\)"),
        (lambda: lost_box(torch.rand(5, 2), (2, 3)), r"keys \(N, D\) of a grid 2 x 3, got \(5, 2"),
        (lambda: lost_box(torch.rand(6, 2), (2, 3), 0), r"k >= 1, got 0"),
        (
            lambda: jaccard(TWO, TWO.int()),
            r"bool masks .* of the same shape, got \(4, 5\) of torch.bool, ",
        ),
        (lambda: jaccard(TWO, TWO[:2]), r"\(4, 5\) of torch.bool, \(2, 5\) of torch.bool"),
        (lambda: best_iou(torch.rand(4), torch.rand(0, 4)), r"n >= 1, got \(4,\) and \(0, 4\)"),
        (lambda: corloc(torch.rand(2, 4), []), r"got \(2, 4\) and true boxes for 0"),
        (lambda: corloc(torch.rand(0, 4), []), r"B >= 1"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
