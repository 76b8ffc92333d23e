"""Cards of mm configs: the same predictions as mm's own, and the command from end to end."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from PIL import Image
from typer.testing import CliRunner

import mixplug.mm  # noqa: F401
from mixplug.cli import app
from mixplug.evaluation.card import Settings
from mixplug.from_config.card import data_of, subject_of

ROOT = Path(__file__).parents[2] / "mm_configs"
DIGITS = ROOT / "baseline" / "baseline_wrn10-1_1xb64-10e_digits.py"


def config_of(folder: Path, more: str = "") -> Path:
    path = folder / "config.py"
    path.write_text(f"_base_ = '{DIGITS}'\n{more}\n")
    return path


def checkpoint(config: Config, path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        preprocessor = config.get("data_preprocessor")
        model = MODELS.build({**config.model, "data_preprocessor": preprocessor})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    decoder = {"mixup.decoder.linear.weight": torch.zeros(1)}  # as AlignMixup/AE saves
    state = {**model.state_dict(), **decoder}
    torch.save({"state_dict": state, "meta": {"epoch": 4, "seed": 11}}, path)
    return path


@pytest.mark.parametrize("to_rgb", [False, True])
def test_predictions_are_mms_own(to_rgb: bool, tmp_path: Path) -> None:
    more = f"data_preprocessor = dict(to_rgb={to_rgb}, mean=[90., 70., 50.], std=[50., 80., 70.])"
    config = Config.fromfile(config_of(tmp_path, more))
    path = checkpoint(config, tmp_path / "x.pth")
    data = data_of(config, Settings(noise=(), parts=("clean",)))
    subject = subject_of(config, path, "x", "cpu")
    images, labels = next(data.test.batches(32))
    images = images.clone()
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        loader = Runner.build_dataloader(
            {**config.test_dataloader, "batch_size": 32, "num_workers": 0}, seed=0
        )
        batch = next(iter(loader))
    with torch.no_grad():
        ready = subject.network.data_preprocessor(batch, False)
        wanted = subject.network(ready["inputs"], mode="tensor")
        found = subject(subject.pixels(images))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert labels.tolist() == [int(s.gt_label) for s in ready["data_samples"]]
    assert (subject.facts["epoch"], subject.facts["seed"]) == (4, 11)


def test_images_are_rgb_whatever_the_config_takes(tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    Image.fromarray(red).save(tmp_path / "images" / "a" / "0.png")
    more = f"""
data_preprocessor = dict(to_rgb=True)
test_dataloader = dict(dataset=dict(
    _delete_=True, type='CustomDataset', data_root='{tmp_path / "images"}',
    pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]))
"""
    config = Config.fromfile(config_of(tmp_path, more))
    data = data_of(config, Settings(noise=(), parts=("clean",)))
    image, label = data.test.dataset[0]
    assert (image[:, 0, 0].tolist(), label, list(data.classes)) == ([200, 0, 0], 0, ["a"])


def test_train_images_come_by_the_pipeline_for_testing(tmp_path: Path) -> None:
    config = Config.fromfile(config_of(tmp_path))
    data = data_of(config, Settings(noise=(), bank=40))
    again = data_of(config, Settings(noise=(), bank=40))
    assert len(data.bank) == 40
    torch.testing.assert_close(
        data.bank.dataset[7][0], again.bank.dataset[7][0]
    )  # no crop at random
    whole = data_of(config, Settings(noise=()))
    assert len(whole.bank) == 1198
    assert whole.bank.fingerprint != data.bank.fingerprint


def test_the_command_from_end_to_end(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
    (tmp_path / "sky" / "3").mkdir(parents=True)  # 3 is a digit, too
    Image.fromarray(picture).save(tmp_path / "sky" / "3" / "a.png")
    more = f"""
card = dict(
    ood=[dict(name='sky', root='{tmp_path / "sky"}', fit='resize')], noise=('uniform', ),
    attacks=dict(fgsm=dict(eps=8 / 255)))
test_dataloader = dict(dataset=dict(indices=60))
train_dataloader = dict(dataset=dict(indices=60))
"""
    path = config_of(tmp_path, more)
    config = Config.fromfile(path)
    run = tmp_path / "run"
    run.mkdir()
    for number in (1, 2):
        checkpoint(config, run / f"epoch_{number}.pth", number)
    (run / "epoch_1.pth").rename(run / "best_accuracy_top1_epoch_1.pth")
    (run / "last_checkpoint").write_text(str(run / "epoch_2.pth"))
    parts = ["clean", "robustness", "calibration", "ood", "representation"]
    arguments = ["eval", "card", str(path), str(run), "--out", str(tmp_path / "card")]
    arguments += [text for part in parts for text in ("--part", part)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "sky contains classes of the training set" in done.output
    card = json.loads((tmp_path / "card" / "card.json").read_text())
    names = [one["name"] for one in card["networks"]]
    assert names == ["run/epoch_2.pth", "run/best_accuracy_top1_epoch_1.pth"]
    assert card["data"]["test"]["images"] == 60
    for one in card["networks"]:
        assert set(one["results"]) == {*parts, "fgsm"} - {"robustness"}
        assert set(one["results"]["ood"]) == {"sky", "uniform noise"}
        assert one["results"]["fgsm"]["error"] >= 1 - one["results"]["clean"]["top1"]
    assert "data:image/png" in (tmp_path / "card" / "card.html").read_text()
    assert re.search(r"\| top-1 accuracy, % ↑ \|", (tmp_path / "card" / "card.md").read_text())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["no_such_config", "x.pth"], "neither a file nor the name of a config"),
        ([str(DIGITS)], "An mm config needs a checkpoint"),
        ([str(DIGITS), "no.pth"], "There is no checkpoint no.pth"),
        ([str(DIGITS), "no.pth", "--part", "clear"], "parts among"),
        ([str(DIGITS), "no.pth", "--attack", "pgd:eps=a"], "needs the form pgd:eps=8/255"),
        ([str(DIGITS), "no.pth", "--attack", "pgd:epsilon=1"], "has no key 'epsilon'"),
    ],
)
def test_what_can_be_mended_is_said_in_a_line(arguments: list[str], text: str) -> None:
    done = CliRunner().invoke(app, ["eval", "card", *arguments])
    assert done.exit_code == 1
    assert text in " ".join(done.output.split())
    assert "Traceback" not in done.output


def test_changed_images_are_measured_anew(tmp_path: Path) -> None:
    source = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        picture = source.integers(0, 255, (16, 16, 3), np.uint8)
        Image.fromarray(picture).save(tmp_path / "images" / name / "0.bmp")
    more = f"""
test_dataloader = dict(dataset=dict(
    _delete_=True, type='CustomDataset', data_root='{tmp_path / "images"}', extensions=('.bmp', ),
    pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]))
"""
    config = Config.fromfile(config_of(tmp_path, more))
    settings = Settings(parts=("clean",))
    before = data_of(config, settings).test.fingerprint
    assert data_of(config, settings).test.fingerprint == before
    picture = source.integers(0, 255, (16, 16, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "images" / "a" / "0.bmp")  # as large as before
    assert data_of(config, settings).test.fingerprint != before


def test_the_models_own_preprocessor_goes_first(tmp_path: Path) -> None:
    more = """
model = dict(data_preprocessor=dict(to_rgb=True, mean=[1., 2., 3.], std=[4., 5., 6.]))
"""
    config = Config.fromfile(config_of(tmp_path, more))  # the base has one beside it
    path = checkpoint(config, tmp_path / "x.pth")
    subject = subject_of(config, path, "x", "cpu")
    assert subject.network.data_preprocessor.to_rgb
    image, _ = data_of(config, Settings(noise=(), parts=("clean",))).test.dataset[0]
    pixels = subject.pixels(image[None])
    mean, std = (torch.tensor(c)[:, None, None] for c in ([1.0, 2, 3], [4.0, 5, 6]))
    torch.testing.assert_close(subject.normalize(pixels), (255 * pixels - mean) / std)
    bare = Config.fromfile(config_of(tmp_path, "data_preprocessor = None"))
    assert subject_of(bare, path, "x", "cpu").network.data_preprocessor.to_rgb is False


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    more = (
        "model = dict(_delete_=True, type='mixplug.MetricLearner', "
        "backbone=dict(type='mixplug.WideResNet', depth=10, widen_factor=1), loss='Contrastive')"
    )
    config = Config.fromfile(config_of(tmp_path, more))
    with pytest.raises(ValueError, match=r"ImageClassifier with a head, .* has a MetricLearner"):
        subject_of(config, tmp_path / "x.pth", "x", "cpu")
    plain = Config.fromfile(config_of(tmp_path))
    path = checkpoint(plain, tmp_path / "x.pth")
    wide = Config.fromfile(config_of(tmp_path, "model = dict(head=dict(num_classes=7))"))
    with pytest.raises(ValueError, match="does not fit the config"):
        subject_of(wide, path, "x", "cpu")
