"""The memory estimate against measurements, and the warning."""

from __future__ import annotations

import warnings

import pytest
import torch

from mixplug.bench.measure import peak_bytes
from mixplug.retrieval import memory as module
from mixplug.retrieval import memory_estimate, search


@pytest.mark.parametrize("block", [None, (64, 512)])
def test_memory_stays_below_the_estimate(block: tuple[int, int] | None) -> None:
    e = torch.randn(2000, 16)
    own = torch.arange(2000)

    def call() -> None:
        search(e, e, 50, exclude=own, backend="torch", metric="cosine", block=block)

    assert peak_bytes(call) < memory_estimate(2000, 2000, 16, 50)


def test_the_estimate_grows_with_its_arguments() -> None:
    """60,000 x 60,000 distances are 14 GB; results with k = 1000 are 0.7 GB."""
    small = memory_estimate(60_000, 60_000, 512, 10)
    assert small < 1 << 30
    assert memory_estimate(60_000, 60_000, 512, 1000) - small >= 12 * 60_000 * 990
    assert memory_estimate(0, 1000, 512, 10) - memory_estimate(0, 0, 512, 10) == 4 * 512 * 1000


def test_too_little_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_free_bytes", lambda device: 1 << 20)
    with pytest.warns(
        UserWarning, match=r"needs about 0\.\d GiB .* only 0\.0 GiB are free\. Search"
    ):
        search(torch.randn(3, 2), torch.randn(5, 2), 1)
    monkeypatch.setattr(module, "_free_bytes", lambda device: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search(torch.randn(3, 2), torch.randn(5, 2), 1)


def test_free_memory_is_known_on_this_system() -> None:
    free = module._free_bytes(torch.device("cpu"))
    assert free is not None and 1 << 20 < free < 1 << 50
