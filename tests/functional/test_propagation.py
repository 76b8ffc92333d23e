"""Label propagation against loops over positions and results by hand, and its memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from reference.compare import assert_near
from reference.propagation import propagated
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mixplug.functional.propagation import label_map, propagate

GRID, FRAMES, CLASSES = (4, 6), 3, 3


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    count = GRID[0] * GRID[1]
    query = F.normalize(torch.randn(count, 5, dtype=dtype), dim=1)
    context = F.normalize(torch.randn(FRAMES, count, 5, dtype=dtype), dim=2)
    return query, context, torch.rand(FRAMES, count, CLASSES, dtype=dtype)


@pytest.mark.parametrize("radius", [0, 1, 3, None])
@pytest.mark.parametrize(("topk", "temperature"), [(1, 0.1), (5, 0.1), (7, 1.0), (1000, 0.5)])
def test_position_by_position(
    radius: int | None, topk: int, temperature: float, dtype: torch.dtype
) -> None:
    """With radius 0 only three positions are in reach, so for most topk T_n holds all of them."""
    given = inputs(dtype)
    found = propagate(*given, topk, temperature, radius, grid=GRID)
    assert found.dtype == dtype
    assert_near(found, propagated(*given, topk, temperature, radius, GRID))


@pytest.mark.parametrize("radius", [1, 12, None])
@pytest.mark.parametrize("block", [1, 5, 6, 23, 24, 1000])
def test_any_block_gives_the_same(block: int, radius: int | None, dtype: torch.dtype) -> None:
    given = inputs(dtype)
    expected = propagate(*given, radius=radius, grid=GRID, block=7)
    assert_near(propagate(*given, radius=radius, grid=GRID, block=block), expected)


def test_the_same_position_of_a_static_video_keeps_its_label(dtype: torch.dtype) -> None:
    """Features are orthogonal: the position itself has weight 1, four others e^(-10) each."""
    features = torch.eye(24, dtype=dtype)
    labels = F.one_hot(torch.arange(24) % 2, 2).to(dtype)
    found = propagate(features, features[None], labels[None], radius=None, grid=GRID)
    share = 1 / (1 + 4 * torch.tensor(-10.0, dtype=torch.float64).exp())
    assert (found.argmax(1) == labels.argmax(1)).all()
    assert bool((found.amax(1) >= share - 1e-6).all())
    exact = propagate(features, features[None], labels[None], 1, radius=None, grid=GRID)
    assert torch.equal(exact, labels)


def test_the_neighborhood_is_a_square(dtype: torch.dtype) -> None:
    """The only similar position is two rows and two columns away."""
    query = torch.zeros(24, 2, dtype=dtype)
    query[0, 0] = 1.0
    context = torch.zeros(1, 24, 2, dtype=dtype)
    context[0, 2 * 6 + 2, 0] = 1.0
    labels = torch.zeros(1, 24, 1, dtype=dtype)
    labels[0, 2 * 6 + 2] = 1.0
    reached = [
        float(propagate(query, context, labels, 1, 0.1, radius, grid=GRID)[0])
        for radius in (1, 2, None)
    ]
    assert reached == [0.0, 1.0, 1.0]


class Largest(TorchFunctionMode):
    """Record the largest number of elements of any returned tensor, or of the base of a view."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage().nbytes() // tensor.element_size()
                self.elements = max(self.elements, storage)
        return out


@pytest.mark.parametrize("block", [1, 4])
@pytest.mark.parametrize("radius", [2, None])
def test_memory_is_bounded_by_the_block(block: int, radius: int | None) -> None:
    query, context, labels = inputs(torch.float32)
    with Largest() as seen:
        propagate(query, context, labels, radius=radius, grid=GRID, block=block)
    held = max(context.numel(), labels.numel(), FRAMES * 24 * block, query.numel())
    assert seen.elements <= held < FRAMES * 24 * 24
    with Largest() as seen:
        propagate(query, context, labels, radius=None, grid=GRID, block=24)
    assert seen.elements == FRAMES * 24 * 24  # which the measure above does see


def test_autocast_changes_nothing_and_half_becomes_float() -> None:
    given = inputs(torch.float32)
    expected = propagate(*given, grid=GRID)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(propagate(*given, grid=GRID), expected)
    assert propagate(*(t.half() for t in given), grid=GRID).dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": torch.zeros(23, 5)}, r"got \(23, 5\), \(3, 24, 5\) and \(3, 24, 3\)"),
        ({"context": torch.zeros(3, 24, 4)}, r"N = 4 x 6, got \(24, 5\), \(3, 24, 4\)"),
        ({"context": torch.zeros(0, 24, 5), "labels": torch.zeros(0, 24, 3)}, "F >= 1"),
        ({"labels": torch.zeros(2, 24, 3)}, r"and \(2, 24, 3\)\."),
        ({"grid": (5, 6)}, "N = 5 x 6, got"),
        ({"topk": 0}, "topk >= 1.*got topk=0"),
        ({"temperature": 0.0}, "temperature > 0.*temperature=0.0"),
        ({"radius": -1}, "radius >= 0 or None.*radius=-1"),
        ({"block": 0}, "block >= 1.*block=0"),
    ],
)
def test_bad_input(change: dict, message: str) -> None:
    query, context, labels = inputs(torch.float32)
    given = {"query": query, "context": context, "labels": labels, "grid": GRID}
    with pytest.raises(ValueError, match=message):
        propagate(**{**given, **change})


def test_label_map_by_hand() -> None:
    """Two patches of 2 pixels side by side: the left one has weights 1, .75, .25 and 0."""
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert label_map(labels, (1, 2), (1, 4)).tolist() == [[0, 0, 1, 1]]
    weak = torch.tensor(
        [[1.0, 0.0], [0.6, 0.4]]
    )  # an object that is less likely than the background everywhere
    assert label_map(weak, (1, 2), (1, 4), stretch=False).tolist() == [[0, 0, 0, 0]]
    assert label_map(weak, (1, 2), (1, 4)).tolist() == [[0, 0, 1, 1]]


def test_a_constant_class_is_not_stretched() -> None:
    """Otherwise its only value would be divided by zero, and exceed all others."""
    nowhere = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.8, 0.0]])
    assert label_map(nowhere, (1, 2), (1, 2)).tolist() == [[0, 1]]
    everywhere = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert label_map(everywhere, (1, 2), (1, 2)).tolist() == [[1, 1]]


def test_label_map_needs_the_grid() -> None:
    with pytest.raises(ValueError, match=r"\(N, K\) of a grid 2 x 2, got \(3, 2\)"):
        label_map(torch.zeros(3, 2), (2, 2), (4, 4))
