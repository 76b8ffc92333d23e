"""The demo: deterministic for a seed, fair between rows, and tested on unseen classes."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from mixplug.cli import app
from mixplug.demo import metric as demo


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    all_batches = demo.batches
    monkeypatch.setattr(demo, "batches", lambda *keys: all_batches(*keys)[:3])
    monkeypatch.setattr(demo, "_POINTS", 8)


def test_train_and_test_share_no_class() -> None:
    known, held_out = demo.data("train"), demo.data("test")
    assert not set(known.class_names) & set(held_out.class_names)
    assert len(known) + len(held_out) == 1797
    both = torch.cat([known.images, held_out.images]).flatten(1)
    assert len(both.unique(dim=0)) == 1797


def test_results_depend_on_the_seed_alone() -> None:
    first, models = demo.run_all([0], 1, lambda row: None)
    again, same = demo.run_all([0], 1, lambda row: None)
    other, _ = demo.run_all([1], 1, lambda row: None)
    assert [r.row for r in first] == list(demo.ROWS) == list(models)
    for row in demo.ROWS:
        states = (found[row].state_dict().values() for found in (models, same))
        assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    assert [r.recall for r in first] == [r.recall for r in again]
    assert all(a.recall != b.recall for a, b in zip(first, other, strict=True))
    heads = torch.stack([models[row].head.fc.weight for row in demo.ROWS])
    assert len(heads.unique(dim=0)) == len(demo.ROWS)  # every level of Metrix has an effect


def test_rows_share_initial_weights_and_batches() -> None:
    runs = [demo.start(row, 3, 10) for row in demo.ROWS]
    for run in runs[1:]:
        states = (r.model.state_dict().values() for r in (runs[0], run))
        assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    labels = torch.tensor(demo.data("train").labels)
    some, same, next_epoch = (demo.batches(labels, 3, epoch) for epoch in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(some, same, strict=True))
    assert not torch.equal(some[0], next_epoch[0])
    for index in some:
        assert labels[index].bincount().tolist() == [demo.M] * 5


def test_recall_equals_a_loop() -> None:
    e, y = torch.randn(30, 4), torch.randint(0, 5, (30,))
    found = demo.recall(e, y)
    unit = (e / e.norm(dim=1, keepdim=True)).double()
    for k in demo.KS:
        hits = 0
        for q in range(30):
            order = sorted(
                (i for i in range(30) if i != q), key=lambda i: -float(unit[q] @ unit[i])
            )
            hits += any(y[i] == y[q] for i in order[:k])
        assert found[k] == pytest.approx(100 * hits / 30)


def test_command_prints_the_table_and_writes_figure_and_numbers(tmp_path: Path) -> None:
    run = CliRunner().invoke(
        app,
        ["demo", "metric", "--seeds", "2", "--epochs", "1", "--out", str(tmp_path)],
        env={"COLUMNS": "80"},
    )
    assert run.exit_code == 0, run.output
    numbers = json.loads((tmp_path / "metric.json").read_text())
    assert [(row["loss"], row["metrix"]) for row in numbers] == list(demo.ROWS)
    lines = run.stdout.splitlines()[1:9]
    for row, line in zip(numbers, lines, strict=True):
        assert (row["metrix"] or "no") in line.split()
        for values in row["recall_percent"].values():
            assert f"{sum(values) / 2:.1f} ±" in line
    printed = [line for line in run.stdout.splitlines() if str(tmp_path) not in line]
    assert max(map(len, printed)) <= 81
    assert str((tmp_path / "metric.png").resolve()) in run.output
    assert (tmp_path / "metric.png").read_bytes().startswith(b"\x89PNG")
