"""Both sides of ``mixplug bench metric`` compute the same; its results are printed, not tested."""

from __future__ import annotations

import torch
from torch.testing import assert_close
from typer.testing import CliRunner

from mixplug.bench import metric as bench
from mixplug.bench.measure import NO_BOUND, Row
from mixplug.cli import app
from mixplug.losses.metrix import Metrix
from mixplug.losses.pair import MultiSimilarity


def test_mixing_embeddings_first_gives_the_same_loss_and_gradient() -> None:
    e = torch.randn(12, 5, dtype=torch.float64, requires_grad=True)
    labels, lam = torch.arange(4).repeat_interleave(3), torch.rand(12, 12, 12).double()
    plain = bench.mixed_embeddings_first(e, labels, lam)
    closed = Metrix(MultiSimilarity(), level="embed").mixed(e, labels, lam, "pos-neg")
    assert_close(plain, closed)
    assert_close(torch.autograd.grad(plain, e), torch.autograd.grad(closed, e))


def test_steps_differ_only_in_the_mixed_loss() -> None:
    maps = torch.randn(20, 4, 2, 2, requires_grad=True)
    head = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 6))
    norms = {}
    for name, step in bench._steps(
        lambda: maps, head, MultiSimilarity(), torch.arange(5).repeat_interleave(4)
    ).items():
        maps.grad = None
        step()
        norms[name] = float(maps.grad.norm())
    assert len(set(norms.values())) == 3


def test_a_row_without_a_bound_has_none_in_the_table(monkeypatch) -> None:
    rows = [Row("free", 3.0, NO_BOUND, False, "ms"), Row("bound", 3.0, 2.0, False, "x")]
    monkeypatch.setattr(bench, "GROUPS", {"loss": lambda *_: iter(rows)})
    run = CliRunner().invoke(app, ["bench", "metric"], env={"COLUMNS": "100"})
    assert run.exit_code == 0, run.output
    lines = {line.split()[0]: line for line in run.output.splitlines() if line.strip()}
    free, bound = lines["free"], lines["bound"]
    assert "inf" not in free and "yes" not in free and bound.split()[-1] == "no"
