"""Threads of faiss, and whether its kernels are trusted on a GPU."""

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
from mixplug.retrieval.stores import choose


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
        ("import os; os.abort()", r"fails its self-test on the GPU, so it is not used: it ended"),
        ("assert False, 'wrong ids'", r"fails its self-test on the GPU(.|\n)*wrong ids"),
    ],
    ids=["right", "abort", "wrong"],
)
def test_gpu_faiss_must_find_known_neighbors(
    code: str, warned: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU here: a faiss that claims one, and the test's process made to end in each way."""
    fake = SimpleNamespace(StandardGpuResources=object, get_num_gpus=lambda: 1)
    monkeypatch.setitem(sys.modules, "faiss", fake)
    monkeypatch.setattr(module, "_SELF_TEST", code)
    gpu_faiss_works.cache_clear()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert gpu_faiss_works() is (warned is None)
            chosen = choose("auto", "flat", torch.device("cuda"))
        assert chosen == ("faiss" if warned is None else "torch")
        assert len(caught) == (warned is not None)  # asked and warned once
        assert warned is None or re.search(warned, str(caught[0].message))
    finally:
        gpu_faiss_works.cache_clear()


def test_the_self_test_knows_right_from_wrong() -> None:
    """Its code, with the GPU's index replaced by the CPU's, and by one of another metric."""
    for make, passes in (("lambda r, d, i: i", True), ("lambda *_: WRONG", False)):
        code = f"import faiss\nfaiss.StandardGpuResources = object\nfaiss.index_cpu_to_gpu = {make}"
        code = code.replace("WRONG", "faiss.IndexFlat(32, faiss.METRIC_L1)")
        wrong = "found = found[::-1]\nknown" if not passes else "known"
        tested = module._SELF_TEST.replace("known", wrong, 1)
        run = subprocess.run([sys.executable, "-c", code + tested], capture_output=True)
        assert (run.returncode == 0) is passes


def test_faiss_for_cpus_is_never_taken_on_a_gpu() -> None:
    gpu_faiss_works.cache_clear()
    assert choose("auto", "flat", torch.device("cuda")) == "torch"
    assert choose("auto", "flat", torch.device("cpu")) == "faiss"
