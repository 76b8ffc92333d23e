"""The demo: deterministic for a seed, fair between methods, and correct in its output."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from mixplug.cli import app
from mixplug.data.digits import digits
from mixplug.demo import classification as demo


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    def few(split: str, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = digits(split, size)
        return x[:130], y[:130]

    monkeypatch.setattr(demo, "digits", few)


def test_networks_depend_on_the_seed_alone() -> None:
    first, models = demo.run_all([0], 1, lambda method: None)
    again, _ = demo.run_all([0], 1, lambda method: None)
    other, _ = demo.run_all([1], 1, lambda method: None)
    assert [r.method for r in first] == list(demo.METHODS) == list(models)
    for a, b, c in zip(first, again, other, strict=True):
        assert torch.equal(a.probabilities, b.probabilities)
        assert not torch.equal(a.probabilities, c.probabilities)


def test_methods_share_initial_weights_and_order_of_data() -> None:
    runs = [demo.start(method, 3, 10) for method in ("no mixup", "DenseMultiMix")]
    for a, b in zip(*(run.model.state_dict().values() for run in runs), strict=True):
        assert torch.equal(a, b)
    x, y = digits("train", 8)
    seen: list[list[torch.Tensor]] = [[], []]
    for run, batches in zip(runs, seen, strict=True):
        run.step = lambda x, y, step, b=batches, r=run: (b.append(y), r.model(x).sum() * 0)[1]
        demo.train_epoch(run, x[:130], y[:130], epoch=2)
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))
    assert sorted(torch.cat(seen[0]).tolist()) == sorted(y[:130].tolist())


def test_the_summary_matches_the_model() -> None:
    x, y = digits("test", 8)
    run = demo.start("no mixup", 0, 10)
    run.seconds = [0.001, 0.005, 0.002]
    result = demo.summarize("no mixup", [run], x, y)
    run.model.eval()
    hits = sum(int(run.model(x[i : i + 1]).argmax()) == int(y[i]) for i in range(len(y)))
    assert result.accuracy == [pytest.approx(100 * hits / len(y))]
    assert result.ms_per_step == pytest.approx(2.0)


def test_command_prints_the_table_and_writes_figure_and_numbers(tmp_path: Path) -> None:
    run = CliRunner().invoke(
        app,
        ["demo", "classification", "--seeds", "2", "--epochs", "1", "--out", str(tmp_path)],
        env={"COLUMNS": "100"},
    )
    assert run.exit_code == 0, run.output
    numbers = json.loads((tmp_path / "demo.json").read_text())
    assert [row["method"] for row in numbers] == list(demo.METHODS)
    for row in numbers:
        mean = sum(row["accuracy_percent"]) / 2
        line = next(line for line in run.output.splitlines() if f" {row['method']} " in f" {line} ")
        assert f"{mean:.2f} ±" in line
    assert str((tmp_path / "demo.png").resolve()) in run.output
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert max(map(len, run.output.splitlines()[:9])) <= 100


def test_the_split_of_digits() -> None:
    (x, y), (test_x, test_y) = digits("train", 8), digits("test", 8)
    assert x.shape == (1198, 1, 8, 8) and test_x.shape == (599, 1, 8, 8)
    assert (x.min(), x.max()) == (0, 1)
    shares = torch.bincount(test_y) / (torch.bincount(y) + torch.bincount(test_y))
    assert float((shares - 1 / 3).abs().max()) < 0.01  # stratified
    both = torch.cat([x, test_x]).flatten(1)
    assert len(both.unique(dim=0)) == 1797  # no scan is in both splits
    assert digits("test", 16)[0].shape[-1] == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("validation", 8), "digits needs split in"), (("train", 4), "digits needs size >= 8")],
)
def test_invalid_arguments_of_digits(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        digits(*arguments)
