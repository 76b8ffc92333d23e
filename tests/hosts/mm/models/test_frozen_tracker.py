"""The frozen tracker under mmengine's Runner: what learns, resume, scores, result files."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from got10k_folder import moving_square, write_split
from hosts.hosting import run_tool
from mmengine.config import Config
from mmengine.runner import Runner
from torch.testing import assert_close

import mixplug.mm  # noqa: F401  registers
from mixplug.data.got10k import GOT10k, TrackingSequence
from mixplug.hosts.mm.evaluation.got10k import GOT10kMetric, Tracked
from mixplug.models.vit.encoder import build_timm_vit
from mixplug.registry import MODELS

T = 6
TINY = {"img_size": 32, "patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 2}
DECODER = {"bins": 16, "dim": 16, "heads": 2, "hidden": 16}
CONFIG = Path("mm_configs/tracking/seqtrack-lite_vit-small-p16_8xb8-500e_got10k.py")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("got10k")
    made = [moving_square(T, (10, 20), (4, 2), seed=1), moving_square(T, (90, 60), (-3, -1))]
    for split in ("train", "val", "test"):
        write_split(path, split, made, lambda i: ("cat", "dog")[i], absent=(3,))
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a network of the same kind has saved."""
    torch.manual_seed(11)
    path = tmp_path_factory.mktemp("weights") / "vit.pth"
    torch.save(build_timm_vit("vit_tiny_patch16_224", **TINY).state_dict(), path)
    return path


def config_of(root: Path, weights: Path | None, work: Path, epochs: int = 2) -> Config:
    """Two steps of 2 pairs an epoch, validated after each."""
    config = Config.fromfile(Path(__file__).parents[4] / CONFIG)
    init = {"type": "mixplug.Pretrained", "checkpoint": str(weights)}
    backbone = {"type": "mixplug.TimmBackbone", "model_name": "vit_tiny_patch16_224", **TINY}
    backbone |= {"dynamic_img_size": True, "init_cfg": init if weights else None}
    config.model = {"type": "mixplug.FrozenTracker", "backbone": backbone, "size": 32, **DECODER}
    plain = {"num_workers": 0, "persistent_workers": False}
    for name in ("train", "val", "test"):
        loader = config[f"{name}_dataloader"]
        loader.update(plain)
        loader.dataset.root = str(root)
    config.train_dataloader.batch_size = 2
    config.train_dataloader.dataset.update(pairs_per_epoch=4, size=32)
    config.test_evaluator.out_dir = str(work / "results")
    config.optim_wrapper.optimizer.lr = 0.01
    config.train_cfg = {"by_epoch": True, "max_epochs": epochs, "val_interval": 1}
    config.param_scheduler.update(milestones=[1], end=10)  # not that of a run cut short
    config.randomness = {"seed": 5}
    config.work_dir, config.experiment_name = str(work), f"{work.parent.name}-{work.name}"
    config.log_level = "WARNING"
    return config


def trained(config: Config, **changes: Any) -> Runner:
    config.merge_from_dict(changes)
    runner = Runner.from_cfg(config)
    runner.train()
    return runner


def parts(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors of the encoder, by the network's own names, and all others."""
    prefix = "tracker.backbone."
    encoder = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return encoder, {k: v for k, v in state.items() if not k.startswith(prefix)}


def test_the_decoder_learns_and_the_encoder_stays_what_was_loaded(
    root: Path, weights: Path, tmp_path: Path
) -> None:
    runner = trained(config_of(root, weights, tmp_path / "run"))
    assert runner.iter == 4
    for epoch in (1, 2):
        saved = torch.load(tmp_path / "run" / f"epoch_{epoch}.pth", weights_only=False)
        encoder, decoder = parts(saved["state_dict"])
        given = torch.load(weights)
        assert encoder.keys() == given.keys()
        assert all(torch.equal(encoder[name], given[name]) for name in given)
        assert len(decoder) > 20
    fresh = MODELS.build(config_of(root, None, tmp_path / "other").model)
    names = dict(fresh.tracker.decoder.named_parameters())
    moved = [not torch.equal(decoder[f"tracker.decoder.{n}"], p.cpu()) for n, p in names.items()]
    assert all(moved)
    kept = runner.optim_wrapper.optimizer.state
    learning = {id(p) for p in runner.model.tracker.decoder.parameters()}
    assert {id(p) for p in kept} == learning  # and so checkpoints have no moments of the encoder
    best = list((tmp_path / "run").glob("best_mAO_epoch_*.pth"))
    assert len(best) == 1


def test_a_resumed_run_goes_on_bit_for_bit(root: Path, weights: Path, tmp_path: Path) -> None:
    """Dropout of the decoder and data are drawn by key."""
    trained(config_of(root, weights, tmp_path / "whole"))
    trained(config_of(root, weights, tmp_path / "half", epochs=1))
    again = config_of(root, weights, tmp_path / "rest")
    trained(again, load_from=str(tmp_path / "half" / "epoch_1.pth"), resume=True)
    whole, rest = (
        torch.load(tmp_path / name / "epoch_2.pth", weights_only=False)["state_dict"]
        for name in ("whole", "rest")
    )
    assert whole.keys() == rest.keys()
    assert all(torch.equal(whole[name], rest[name]) for name in whole)


def test_the_stock_tools_train_and_test_with_result_files(
    root: Path, weights: Path, tmp_path: Path
) -> None:
    """Of the test split, whose boxes nobody has: files, in the layout that the server takes."""
    config = config_of(root, weights, tmp_path / "run", epochs=1)
    config.dump(tmp_path / "config.py")
    run_tool("train.py", tmp_path / "config.py")
    checkpoint = tmp_path / "run" / "epoch_1.pth"
    config.model.backbone.init_cfg.checkpoint = "nowhere.pth"  # it is in the checkpoint
    config.dump(tmp_path / "config.py")
    run_tool("test.py", tmp_path / "config.py", checkpoint)
    names = GOT10k(root, "test").names
    files = {f"{name}/{name}_{kind}.txt" for name in names for kind in ("001", "time")}
    with zipfile.ZipFile(tmp_path / "run" / "results.zip") as archive:
        assert {name for name in archive.namelist() if not name.endswith("/")} == files
    model = MODELS.build(config.model).eval()
    model.load_state_dict(torch.load(checkpoint, weights_only=False)["state_dict"])
    for sequence in GOT10k(root, "test"):
        folder = tmp_path / "run" / "results" / sequence.name
        rows = (folder / f"{sequence.name}_001.txt").read_text().splitlines()
        boxes = torch.tensor([[float(n) for n in row.split(",")] for row in rows]).double()
        wanted = model.tracker.track(sequence.images(), sequence.boxes[0])
        assert_close(boxes, wanted, atol=1e-3, rtol=0)
        assert rows[0] == ",".join(f"{n:.3f}" for n in sequence.boxes[0].tolist())
        times = (folder / f"{sequence.name}_time.txt").read_text().split()
        assert len(times) == T and all(float(t) > 0 for t in times)


# ---------------------------------------------------------------- scores


def found(sequence: TrackingSequence, shares: list[float]) -> Tracked:
    """Boxes as wide as the truth, of which the given shares of the height are left."""
    boxes = sequence.boxes.clone()
    boxes[:, 3] *= torch.tensor(shares, dtype=torch.float64)
    return Tracked(sequence, boxes, [0.1] * len(boxes))


def test_scores_of_two_sequences_worked_out_by_hand(root: Path) -> None:
    """Frame 0 is given and frame 3 has no object: 4 of 6 count.

    cat: 1, 0.5, 0.25, 0.25, mean 0.5; dog: 0.8 four times. mAO = AO = 0.65. Above 0.5: 1 of 4 and
    4 of 4; above 0.75: the same. A second cat with 1 four times weighs as a frame does in AO,
    2.3 / 3, and as half a cat in mAO, (0.75 + 0.8) / 2.
    """
    cat, dog = GOT10k(root, "val")
    metric = GOT10kMetric()
    some = [
        found(cat, [0.1, 1, 0.5, 0.0, 0.25, 0.25]),
        found(dog, [0.1, 0.8, 0.8, 0.0, 0.8, 0.8]),
    ]
    metric.process(None, some)
    scores = metric.compute_metrics(metric.results)
    wanted = {"mAO": 65, "AO": 65, "SR@0.5": 62.5, "mSR@0.5": 62.5, "SR@0.75": 62.5}
    assert scores == pytest.approx({**wanted, "mSR@0.75": 62.5})
    metric.process(None, [found(cat, [1.0] * T)])
    scores = metric.evaluate(3)
    assert scores["AO"] == pytest.approx(230 / 3) and scores["mAO"] == pytest.approx(77.5)
    assert scores["SR@0.5"] == pytest.approx(75) and scores["mSR@0.5"] == pytest.approx(81.25)


def test_without_boxes_there_are_no_scores(root: Path) -> None:
    metric = GOT10kMetric()
    metric.process(None, [found(s, [1.0]) for s in GOT10k(root, "test")])
    assert metric.evaluate(2) == {}
    with pytest.raises(ValueError, match=r"thresholds in \[0, 1\], got \(50,\)"):
        GOT10kMetric(thresholds=(50,))


def test_a_mode_needs_what_belongs_to_it(root: Path, tmp_path: Path) -> None:
    model = MODELS.build(config_of(root, None, tmp_path).model)
    crops = torch.zeros(1, 2, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    assert model(*crops).shape == (1, 16, 24)
    with pytest.raises(ValueError, match=r"got 'loss' with crops True, box False and 0 sequences"):
        model(*crops, mode="loss")
    with pytest.raises(ValueError, match=r"got 'predict' with crops False"):
        model(mode="predict")
    with pytest.raises(TypeError, match="layers"):
        MODELS.build({**config_of(root, None, tmp_path).model, "layers": 2})
