"""``mixplug demo card``: a card of two checkpoints, or the command that creates them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from sklearn.datasets import load_sample_images
from typer.testing import CliRunner

from mixplug.cli import app
from mixplug.data.digits import digits
from mixplug.demo import card, classification


def test_a_card_of_two_networks(tmp_path: Path) -> None:
    models = {}
    for seed, method in enumerate(card.METHODS):
        torch.manual_seed(seed)
        models[method] = classification.network()
    classification.save_networks(models, tmp_path)
    done = CliRunner().invoke(app, ["demo", "card", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "card" / "card.json").read_text())
    assert [one["name"] for one in found["networks"]] == list(card.METHODS)
    x, y = digits("test", size=8)
    for one, model in zip(found["networks"], models.values(), strict=True):
        accuracy = (classification.probabilities(model, x).argmax(1) == y).double().mean()
        assert one["results"]["clean"]["top1"] == float(accuracy)
        assert set(one["results"]["ood"]) == {"photographs", "uniform noise", "gaussian noise"}
    assert "data:image/png" in (tmp_path / "card" / "card.html").read_text()


def test_missing_checkpoints(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["demo", "card", "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "To create it, run: mixplug demo classification" in " ".join(done.output.split())


def test_patches_come_from_the_photographs() -> None:
    patches = card.Patches(599)
    assert len(patches) == 599
    gray = torch.tensor(load_sample_images().images[0]).float().mean(-1) / 255
    torch.testing.assert_close(patches[0][0], gray[:8, :8])
    assert len({tuple(patch.flatten().tolist()) for patch in patches.patches}) > 590
