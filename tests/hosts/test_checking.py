"""``mixplug doctor models``: what it says of models that take every mixer, some, and none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import mixplug
from mixplug import Plan
from mixplug.catalog import Entry
from mixplug.cli import app
from mixplug.hosts import checking
from mixplug.hosts.checking import Record, Verdict, verdicts
from mixplug.hosts.timm.families import FAMILIES
from mixplug.mixed import Mixed
from mixplug.mixers import Mixer
from mixplug.sampling import Generators
from mixplug.stages import Stages

SIZE = (3, 16, 16)


class Net(nn.Module):
    """Two blocks; with ``bypass`` the first one's input also reaches the classifier by itself."""

    def __init__(self, bypass: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.first = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())
        self.fc = nn.Linear(6, 4)
        self.bypass = bypass

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.last(self.first(x))
        return self.fc((x + y if self.bypass else y).mean((2, 3)))


def states(stages: Callable[[], Stages]) -> dict[str, Verdict]:
    torch.manual_seed(0)
    return {verdict.mixer: verdict for verdict in verdicts(stages, SIZE, "timm")}


def test_a_plain_network_takes_every_mixer() -> None:
    model = Net().eval()
    found = states(lambda: Stages(model, features="first", classifier="fc", last="last"))
    assert {verdict.state for verdict in found.values()} == {"ok"}
    assert found["AlignMixup"].reason == "first"
    assert found["DenseMultiMix"].reason == "last"
    assert found["InputMixup"].reason == ""


def test_where_a_map_is_bypassed_only_mixers_of_maps_are_refused() -> None:
    model = Net(bypass=True).eval()
    found = states(lambda: Stages(model, features="first", classifier="fc", last="last"))
    refused = {name for name, verdict in found.items() if verdict.state == "refused"}
    assert refused == {"AlignMixup", "ManifoldMixup", "DenseMultiMix"}
    assert "'first'" in found["AlignMixup"].reason and "bypasses" in found["AlignMixup"].reason
    assert {found[name].state for name in ("CutMix", "InputMixup", "MultiMix")} == {"ok"}


@dataclass(frozen=True, kw_only=True)
class Fails(Mixer):
    """A mixer whose step fails as code does that has a fault."""

    def sample(self, x: Tensor, generators: Generators) -> Plan:
        return Plan("always")

    def apply(self, stages: Stages, x: Tensor, y: Tensor, plan: Plan) -> Mixed:
        raise RuntimeError("sizes differ")


def test_a_mixer_whose_step_fails_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused is only what says so before the first step."""
    entry = Entry("mixer", "Fails", Fails, "", "fails", ("timm",))
    monkeypatch.setattr(checking, "entries", lambda kind: [entry])
    model = Net().eval()
    found = states(lambda: Stages(model, features="first", classifier="fc"))
    assert found == {"Fails": Verdict("Fails", "broken", "RuntimeError: sizes differ")}


def test_a_record_goes_on_with_what_the_same_versions_wrote(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "timm.json"
    Record("timm", path).add("a", [Verdict("CutMix", "ok", "")])
    again = Record("timm", path)
    again.add("b", [Verdict("CutMix", "refused", "so")])
    written = json.loads(path.read_text())
    assert written["models"] == {
        "a": [{"mixer": "CutMix", "state": "ok", "reason": ""}],
        "b": [{"mixer": "CutMix", "state": "refused", "reason": "so"}],
    }
    assert written["versions"] == {
        "mixplug": mixplug.__version__, "torch": version("torch"), "timm": timm.__version__,
    }  # fmt: skip
    path.write_text(json.dumps({**written, "versions": {**written["versions"], "timm": "0.9"}}))
    assert Record("timm", path).models == {}


def test_the_command(tmp_path: Path) -> None:
    """It prints a row for each model; --out keeps the results, and a second call has no work."""
    path = tmp_path / "timm.json"
    words = ["doctor", "models", "test_resnet", "levit_128s", "--out", str(path)]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    assert "2 of 2 models take every mixer. Of" in result.output
    assert all(len(line) <= 100 for line in result.output.splitlines())
    found = json.loads(path.read_text())["models"]
    assert {row["mixer"]: row["reason"] for row in found["test_resnet"]}["AlignMixup"] == "layer3"
    found["levit_128s"][0] |= {"state": "broken", "reason": "as the file says"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "models": found}))
    again = CliRunner().invoke(app, words, env={"COLUMNS": "100"})
    assert again.exit_code == 1
    assert "1 of 2 models take every mixer." in again.output
    assert "broken: as the file says" in " ".join(again.output.split())


def test_families_are_all_model_files_of_timm() -> None:
    """One model of every file, but for those that hold no model of their own."""
    files = {timm.models.model_entrypoint(name).__module__ for name in FAMILIES}
    every = {timm.models.model_entrypoint(name).__module__ for name in timm.list_models()}
    assert files == {name for name in every if name.startswith("timm.")}
    assert len(FAMILIES) == len(files)
