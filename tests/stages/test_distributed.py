"""Two gloo processes: a probe shows nowhere, and two passes are one gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stages.two_passes import in_one_process, work
from torch.testing import assert_close
from two_processes import in_both


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return in_both(work, tmp_path_factory.mktemp("two_passes"))


def test_a_probe_in_every_step_leaves_all_gradients(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert len(rank["with"]) == len(rank["without"]) > 20
        for probed, plain in zip(rank["with"], rank["without"], strict=True):
            assert torch.equal(probed, plain)
    assert any(bool(value.any()) for value in ranks[0]["with"])


def test_a_clean_and_a_mixed_pass_are_reduced_once(ranks: list[dict[str, Any]]) -> None:
    """Every parameter has the mean over ranks of the sum of both gradients."""
    expected = in_one_process()
    for rank in ranks:
        for mine, other in zip(rank["both"], expected, strict=True):
            assert_close(mine, other, rtol=1e-4, atol=1e-6)


def test_so_they_are_with_buffers_that_are_broadcast(ranks: list[dict[str, Any]]) -> None:
    own = zip(*(rank["norm"][0] for rank in ranks), strict=True)
    for number, gradients in enumerate(own):
        assert not torch.allclose(*gradients)
        for rank in ranks:
            assert_close(rank["norm"][1][number], sum(gradients) / 2, rtol=1e-4, atol=1e-6)
