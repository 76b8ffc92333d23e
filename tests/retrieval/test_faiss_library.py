"""Threads of faiss, and its self-test on a GPU."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch

from mixplug.retrieval import faiss_library as module
from mixplug.retrieval.faiss_library import gpu_faiss_works
from mixplug.retrieval.stores import choose_backend


def test_faiss_gets_as_many_threads_as_torch() -> None:
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(before + 3)
    try:
        with module.threads(faiss):
            assert faiss.omp_get_max_threads() == torch.get_num_threads()
        assert faiss.omp_get_max_threads() == before + 3
    finally:
        faiss.omp_set_num_threads(before)


@pytest.mark.parametrize(
    ("code", "warned"),
    [
        ("raise SystemExit(0)", None),
        (
            "import os; os.abort()",
            r"failed its self-test on the GPU, so it is not used there: exit",
        ),
        ("assert False, 'wrong ids'", r"failed its self-test on the GPU(.|\n)*wrong ids"),
    ],
    ids=["right", "abort", "wrong"],
)
def test_gpu_faiss_must_find_known_neighbors(
    code: str, warned: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU: a fake faiss that claims one, and a self-test that ends in each way."""
    fake = SimpleNamespace(StandardGpuResources=object, get_num_gpus=lambda: 1)
    monkeypatch.setitem(sys.modules, "faiss", fake)
    monkeypatch.setattr(module, "_SELF_TEST", code)
    gpu_faiss_works.cache_clear()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert gpu_faiss_works() is (warned is None)
            chosen = choose_backend("auto", "flat", torch.device("cuda"))
        assert chosen == ("faiss" if warned is None else "torch")
        assert len(caught) == (warned is not None)  # tested and warned once
        assert warned is None or re.search(warned, str(caught[0].message))
    finally:
        gpu_faiss_works.cache_clear()


def test_the_self_test_detects_wrong_neighbors() -> None:
    """Its code, with the GPU index replaced by a CPU index of the same and of another metric."""
    for make, passes in (("lambda r, d, i: i", True), ("lambda *_: WRONG", False)):
        code = f"import faiss\nfaiss.StandardGpuResources = object\nfaiss.index_cpu_to_gpu = {make}"
        code = code.replace("WRONG", "faiss.IndexFlat(32, faiss.METRIC_L1)")
        wrong = "found = found[::-1]\nknown" if not passes else "known"
        tested = module._SELF_TEST.replace("known", wrong, 1)
        run = subprocess.run([sys.executable, "-c", code + tested], capture_output=True)
        assert (run.returncode == 0) is passes


def test_faiss_for_cpus_is_never_used_on_a_gpu() -> None:
    gpu_faiss_works.cache_clear()
    assert choose_backend("auto", "flat", torch.device("cuda")) == "torch"
    assert choose_backend("auto", "flat", torch.device("cpu")) == "faiss"
