"""Arithmetic of the benchmarks; their results are printed, not tested."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from mixplug.bench import measure
from mixplug.bench import mixers as bench
from mixplug.bench.measure import Row
from mixplug.cli import app
from mixplug.functional import sinkhorn


def test_in_turns_alternates_and_drops_the_first_round(monkeypatch) -> None:
    calls: list[str] = []
    clock = iter(range(100))
    monkeypatch.setattr(measure, "_now", lambda: float(next(clock)))
    seconds = measure.in_turns({k: lambda k=k: calls.append(k) for k in "ab"}, rounds=2)
    assert calls == list("ababab")
    assert seconds == {"a": [1.0, 1.0], "b": [1.0, 1.0]}


def test_ratio_uses_the_fastest_rounds() -> None:
    assert measure.ratio([6.0, 9.0], [4.0, 3.0]) == 2.0


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (Row("a", 5.0, 5.0, at_least=True), True),
        (Row("a", 4.9, 5.0, at_least=True), False),
        (Row("a", 1.06, 1.06, at_least=False), True),
        (Row("a", 1.07, 1.06, at_least=False), False),
    ],
)
def test_a_row_knows_whether_its_bound_is_met(row: Row, met: bool) -> None:
    assert row.met is met


def test_peak_bytes_counts_simultaneous_memory() -> None:
    def call() -> None:
        for _ in range(3):  # one after the other, so one at a time
            torch.empty(1 << 20, dtype=torch.uint8)

    assert 1 << 20 <= measure.peak_bytes(call) < 2 << 20


@pytest.mark.parametrize(
    "make",
    [
        lambda: bench._multimix_head(torch.device("cpu"), batch=6, width=5, classes=4, n=9),
        lambda: bench._dense_head(
            torch.device("cpu"), batch=6, width=5, classes=4, n=9, positions=3
        ),
    ],
    ids=["multimix", "dense"],
)
def test_both_alternatives_give_the_same_loss(make, monkeypatch) -> None:
    losses = []
    backward = torch.Tensor.backward
    monkeypatch.setattr(
        torch.Tensor, "backward", lambda self: (losses.append(self.detach()), backward(self))[0]
    )
    plain, fast = make()[:2]
    plain(), fast()
    torch.testing.assert_close(losses[0], losses[1])


def test_the_plain_sinkhorn_gives_the_same_plan() -> None:
    cost = torch.rand(2, 4, 5, dtype=torch.float64) * 20
    torch.testing.assert_close(bench.log_sum_exp_loop(cost, 0.1, 7), sinkhorn(cost, 0.1, 7))


def test_command_prints_rows_and_writes_json(tmp_path: Path, monkeypatch) -> None:
    row = Row("a row", 2.5, 2.0, at_least=True, unit="x", note="a note")
    groups = {"mine": lambda device, rounds, tick: [row], "other": lambda *_: 1 / 0}
    monkeypatch.setattr(bench, "GROUPS", groups)
    path = tmp_path / "rows.json"
    command = ["bench", "mixers", "--only", "mine", "--json", str(path)]
    run = CliRunner().invoke(app, command, env={"COLUMNS": "100"})
    assert run.exit_code == 0, run.output
    assert "a row" in run.output and "2.5 x" in run.output and "≥ 2" in run.output
    assert json.loads(path.read_text())[0]["value"] == 2.5
    run = CliRunner().invoke(app, ["bench", "mixers", "--only", "none"], env={"COLUMNS": "100"})
    assert run.exit_code == 2 and "['mine', 'other']" in run.output
