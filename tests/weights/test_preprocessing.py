"""Mean, std, size, crop and interpolation of images, as every kind of checkpoint says them."""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from typer.testing import CliRunner
from weights import made

from mixplug.cli import app
from mixplug.evaluation.frozen.frozen import Frozen
from mixplug.hosts.timm import card as timm_card
from mixplug.weights import convert, preprocessing_of

VIT = "vit_tiny_patch16_224"  # of timm, trained with mean and std 0.5
HALF, IMAGENET = (0.5,) * 3, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PLAIN = {"mean": None, "std": None, "img_size": None, "input_size": None, "crop_pct": None,
         "interpolation": "", "in_chans": None}  # fmt: skip


def values(source: Any, **keys: Any) -> tuple[Any, ...]:
    found = preprocessing_of(source, **keys)
    close = [tuple(round(v, 5) for v in values) for values in (found.mean, found.std)]
    return (*close, found.size, round(found.crop, 4), found.interpolation, found.guessed)


def of_timm(path: Path, arch: str = VIT, **arguments: Any) -> Path:
    """A checkpoint as timm's train.py saves it."""
    args = argparse.Namespace(model=arch, **{**PLAIN, **arguments})
    state = made.timm_vit(embed_dim=192, num_heads=3).state_dict()
    torch.save({"arch": arch, "args": args, "state_dict": state}, path)
    return path


def test_a_file_has_the_same_as_its_name_in_timm(tmp_path: Path) -> None:
    wanted = (HALF, HALF, (224, 224), 0.9, "bicubic", ())
    assert values(f"timm:{VIT}") == values(of_timm(tmp_path / "a.pth")) == wanted
    torch.save(made.timm_vit().state_dict(), tmp_path / "plain.pth")
    assert values(tmp_path / "plain.pth", model=VIT) == wanted
    config = timm.create_model(VIT).pretrained_cfg
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": VIT, "pretrained_cfg": dict(config)})
    )
    save_file(made.timm_vit().state_dict(), tmp_path / "model.safetensors")
    assert values(tmp_path / "model.safetensors") == wanted
    save_file(made.timm_vit().state_dict(), tmp_path / "mine.safetensors")  # not about this file
    assert values(tmp_path / "mine.safetensors")[:2] == IMAGENET


@pytest.mark.parametrize(
    "arguments",
    [
        {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "img_size": 64, "crop_pct": 1.0},
        {"input_size": [3, 96, 128], "interpolation": "bilinear"},
        {"mean": [0.3], "std": [0.2]},
        {},
    ],
)
def test_arguments_of_timms_training(arguments: dict[str, Any], tmp_path: Path) -> None:
    """As timm itself resolves them."""
    wanted = resolve_data_config({**PLAIN, **arguments}, model=timm.create_model(VIT))
    found = preprocessing_of(of_timm(tmp_path / "a.pth", **arguments))
    assert found.mean == wanted["mean"] and found.std == wanted["std"]
    assert found.size == wanted["input_size"][1:] and found.crop == wanted["crop_pct"]
    assert found.interpolation == wanted["interpolation"]
    assert "the arguments of the training" in found.line() and not found.guessed
    of_timm(tmp_path / "b.pth", "a_model_of_another_timm", **arguments)
    mean = tuple(arguments["mean"]) if "mean" in arguments else IMAGENET[0]
    assert values(tmp_path / "b.pth")[0] == mean


def of_mm(path: Path, text: str) -> Path:
    torch.save(
        {"state_dict": made.under("backbone.", made.timm_vit()), "meta": {"cfg": text}}, path
    )
    return path


PIPELINE = """
test_dataloader = dict(dataset=dict(type='ImageNet', pipeline=[
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=128, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=96),
    dict(type='PackInputs')]))
"""


def test_a_config_of_mmengine(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    processor = "dict(mean=[127.5, 51, 25.5], std=[51.0, 102.0, 127.5], to_rgb=True)"
    of_mm(path, f"data_preprocessor = {processor}\n{PIPELINE}")
    colors = ((0.5, 0.2, 0.1), (0.2, 0.4, 0.5))
    assert values(path) == (*colors, (96, 96), 0.75, "bicubic", ())
    of_mm(path, f"model = dict(type='X', data_preprocessor={processor})")
    assert values(path)[:2] == colors and preprocessing_of(path).bgr is False
    text = f"model = dict(data_preprocessor={processor.replace('True', 'False')})\n{PIPELINE}"
    assert preprocessing_of(of_mm(path, text)).bgr is True  # images of mmcv are BGR
    images = torch.tensor([255, 51, 0], dtype=torch.uint8).view(3, 1, 1)
    found = Frozen.of(path, device="cpu").normalized(images[None]).flatten()
    # B, G, R in this order: (0 - 0.5) / 0.2, (0.2 - 0.2) / 0.4, (1 - 0.1) / 0.5
    torch.testing.assert_close(found, torch.tensor([-2.5, 0.0, 1.8]))
    of_mm(path, f"data_preprocessor = dict(num_classes=10, to_rgb=True)\n{PIPELINE}")
    images = preprocessing_of(path).normalized(images)
    torch.testing.assert_close(images.flatten(), torch.tensor([255.0, 51.0, 0.0]))  # no mean
    normalize = "dict(type='Normalize', mean=[0, 0, 0], std=[255, 255, 255], to_rgb=True)"
    of_mm(path, f"data = dict(test=dict(pipeline=[dict(type='LoadImageFromFile'), {normalize}]))")
    assert values(path)[:2] == ((0.0,) * 3, (1.0,) * 3)  # of mm before version 2
    of_mm(path, "import os\ndata_preprocessor = dict(mean=os.system('false'), std=[1, 1, 1])")
    assert values(path)[:2] == IMAGENET  # nothing is run


def test_preprocessor_config_of_transformers(tmp_path: Path) -> None:
    config = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "resample": 2,
              "do_center_crop": True, "size": {"shortest_edge": 128}, "crop_size": 96}  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    torch.save(made.timm_vit().state_dict(), tmp_path / "pytorch_model.bin")
    wanted = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), (96, 96), 0.75, "bilinear", ())
    assert values(tmp_path / "pytorch_model.bin") == wanted
    config |= {"size": {"height": 64, "width": 32}, "do_center_crop": False, "do_normalize": False}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    assert values(tmp_path / "pytorch_model.bin")[:4] == ((0.0,), (1.0,), (64, 32), 1.0)


def test_methods_with_constants_are_not_guessed(tmp_path: Path) -> None:
    made.dino(tmp_path / "dino.pth", made.timm_vit(), made.timm_vit())
    made.mm(tmp_path / "mm.pth", made.timm_vit(), made.timm_vit())
    for name in ("dino.pth", "mm.pth"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = Frozen.of(tmp_path / name, device="cpu").images
        assert (found.mean, found.std) == IMAGENET
        assert found.size == (32, 32)  # of the position embeddings


def test_a_guess_gives_a_warning_and_an_option_overrides(tmp_path: Path) -> None:
    torch.save(made.timm_vit().state_dict(), tmp_path / "a.pth")
    with pytest.warns(UserWarning, match=r"a.pth does not say with which mean and std .* --model"):
        frozen = Frozen.of(tmp_path / "a.pth", device="cpu")
    assert (frozen.images.mean, frozen.images.std) == IMAGENET
    assert "from a.pth (mean and std assumed)" in frozen.images.line(("mean", "std"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frozen = Frozen.of(tmp_path / "a.pth", device="cpu", mean=[102, 51, 0], std=[51, 51, 51])
        assert Frozen.of(tmp_path / "a.pth", device="cpu", model=None, mean=HALF, std=HALF)
    white = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
    torch.testing.assert_close(frozen.normalized(white).flatten(), torch.tensor([3.0, 4.0, 5.0]))
    with pytest.raises(ValueError, match=r"std > 0, a size > 0, a crop in \(0, 1\]"):
        frozen.images.changed(crop=2.0)


@pytest.mark.parametrize("to", ["timm", "mmpretrain", "dino"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_converting_keeps_them(to: str, suffix: str, tmp_path: Path) -> None:
    of_timm(tmp_path / "a.pth", mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6], img_size=64)
    convert(tmp_path / "a.pth", tmp_path / f"b.{suffix}", to=to)
    assert values(tmp_path / f"b.{suffix}") == values(tmp_path / "a.pth")
    torch.save(made.timm_vit().state_dict(), tmp_path / "plain.pth")
    convert(tmp_path / "plain.pth", tmp_path / f"c.{suffix}", to="mmpretrain")
    assert "mean" in preprocessing_of(tmp_path / f"c.{suffix}").guessed  # a guess stays a guess


def pictures(root: Path) -> Path:
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for number in range(2):
                pixels = generator.integers(0, 256, (40, 60, 3)).astype("uint8")
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


def test_the_command_prepares_images_as_the_checkpoint_says(tmp_path: Path) -> None:
    """The features of timm's own transform and network give the same result."""
    root = pictures(tmp_path / "images")
    arguments = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "img_size": 16, "crop_pct": 0.8}
    of_timm(tmp_path / "a.pth", interpolation="bilinear", **arguments)
    command = ["eval", "knn", str(root), str(tmp_path / "a.pth"), "-k", "1", "--device", "cpu"]
    command += ["--workers", "0", "--out", str(tmp_path / "out")]
    run = CliRunner().invoke(app, command)
    assert run.exit_code == 0, run.output
    line = (
        "images: mean (0.1, 0.2, 0.3), std (0.4, 0.5, 0.6), size 16 x 16, crop 0.8, bilinear; "
        "from the arguments of the training in the file"
    )
    assert line in run.output.replace("\n", " ").replace("  ", " ")
    told = json.loads((tmp_path / "out" / "knn.json").read_text())
    assert told["size"] == 16 and told["images"]["mean"] == [0.1, 0.2, 0.3]
    run = CliRunner().invoke(
        app, [*command, "--mean", "127.5", "--std", "51,51,51", "--size", "32"]
    )
    told = json.loads((tmp_path / "out" / "knn.json").read_text())["images"]
    assert told["mean"] == [0.5] * 3 and told["std"] == [0.2] * 3 and told["size"] == [32, 32]
    assert told["crop"] == 0.8 and told["source"] == "the options"
    run = CliRunner().invoke(app, [*command, "--mean", "1,2"])
    assert run.exit_code == 1 and "--mean needs one number or three" in run.output


def test_crops_are_those_of_timm(tmp_path: Path) -> None:
    from mixplug.data.image_folders import Crops, labeled

    images = labeled(pictures(tmp_path / "images") / "val")
    transform = create_transform((3, 20, 20), crop_pct=0.81, interpolation="bilinear",
                                 normalize=False)  # fmt: skip
    for (found, _), path in zip(
        Crops(images, 20, crop=0.81, interpolation="bilinear"), images.paths, strict=False
    ):
        wanted = transform(Image.open(path)).float()
        wanted = wanted if wanted.max() > 1 else 255 * wanted
        assert (found.float() - wanted).abs().max() <= 1  # another rounding of torchvision


def test_cards_of_timm(tmp_path: Path) -> None:
    """A card of a file with arguments normalizes and crops by them, not by timm's model."""
    name = "vit_tiny_patch16_224"
    net = timm.create_model(name, num_classes=4, img_size=32, depth=1)
    args = argparse.Namespace(**PLAIN | {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6],
                                         "img_size": 32, "crop_pct": 1.0}, model=name)  # fmt: skip
    torch.save({"arch": name, "args": args, "state_dict": net.state_dict()}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="does not fit"):  # of one block, not of twelve
        timm_card.subject_of(name, tmp_path / "a.pth", "a", "cpu")
    net = timm.create_model("test_vit", num_classes=4, img_size=32).eval()
    torch.save(
        {"arch": "test_vit", "args": args, "state_dict": net.state_dict()}, tmp_path / "a.pth"
    )
    subject = timm_card.subject_of("test_vit", tmp_path / "a.pth", "a", "cpu")
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(c)[:, None, None] for c in ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    with torch.no_grad():
        torch.testing.assert_close(subject(pixels), net((pixels - mean) / std))
    assert resolve_data_config({}, model=subject.network)["input_size"] == (3, 32, 32)
    plain = timm_card.subject_of("test_vit", tmp_path / "a.pth", "b", "cpu", size=64, crop=0.5)
    with pytest.raises(ValueError, match=r"a: 32 x 32 pixels, crop 1, bicubic; b: 64 x 64 pixels"):
        timm_card.require_same_images([subject, plain])


def test_a_detector_says_what_its_checkpoint_was_trained_with(tmp_path: Path) -> None:
    from mmengine.model import BaseModel
    from mmengine.registry import MODELS

    import mixplug.mm  # noqa: F401  registers

    net = timm.create_model(VIT, num_classes=0, depth=1)
    args = argparse.Namespace(**PLAIN, model=VIT)
    torch.save({"arch": VIT, "args": args, "state_dict": net.state_dict()}, tmp_path / "a.pth")

    class Whole(BaseModel):
        def __init__(self, mean: list[float]) -> None:
            super().__init__({"type": "ImgDataPreprocessor", "mean": mean, "std": [127.5] * 3})
            init = {"type": "mixplug.Pretrained", "checkpoint": str(tmp_path / "a.pth")}
            self.backbone = MODELS.build(
                {"type": "mixplug.TimmViT", "model_name": VIT, "depth": 1, "out_indices": (0,),
                 "final_norm": True, "init_cfg": init}
            )  # fmt: skip

        def forward(self) -> None:
            raise NotImplementedError

    with pytest.warns(UserWarning, match=r"mean=\[127.5, 127.5, 127.5\].*mean \(123.7, 116.3, 103"):
        Whole([123.675, 116.28, 103.53]).init_weights()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Whole([127.5] * 3).init_weights()
