"""mmdet's two-stage detectors under the key ``mixup``: mixed RoIs, and all else as it was."""

from __future__ import annotations

import copy
import pickle
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mmdet.models
import numpy as np
import pytest
import torch
from mmdet.models.roi_heads.bbox_heads import BBoxHead, Shared2FCBBoxHead
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from reference import hull as naive
from reference.compare import assert_near, assert_same_gradients
from reference.targets import cross_entropy, one_hot
from torch import Tensor, nn
from torch.utils.data import Dataset

import mixplug
import mixplug.mm
from mixplug import sampling
from mixplug.hosts.mm.hooks.mixup import MixupHook
from mixplug.hosts.mm.mixing.key import train_with

CLASSES, SIDE = 3, 64
MULTIMIX = {"type": "MultiMix", "n": 6, "prob": 1.0}


def bbox_head(**changes: Any) -> dict[str, Any]:
    return {
        "type": "Shared2FCBBoxHead",
        "in_channels": 8,
        "fc_out_channels": 12,
        "roi_feat_size": 3,
        "num_classes": CLASSES,
        "reg_class_agnostic": False,
        "bbox_coder": {"type": "DeltaXYWHBBoxCoder"},
        "loss_cls": {"type": "CrossEntropyLoss", "loss_weight": 1.5},
        "loss_bbox": {"type": "L1Loss"},
        **changes,
    }


def extractor(size: int) -> dict[str, Any]:
    return {
        "type": "SingleRoIExtractor",
        "roi_layer": {"type": "RoIAlign", "output_size": size, "sampling_ratio": 0},
        "out_channels": 8,
        "featmap_strides": [4, 8],
    }


def rcnn_cfg(iou: float = 0.5, **sampler: Any) -> dict[str, Any]:
    assigner = {"type": "MaxIoUAssigner", "pos_iou_thr": iou, "neg_iou_thr": iou}
    return {
        "assigner": {**assigner, "min_pos_iou": iou, "ignore_iof_thr": -1},
        "sampler": {"type": "RandomSampler", "num": 8, "pos_fraction": 0.5, **sampler},
        "pos_weight": -1,
        "mask_size": 6,
        "debug": False,
    }


def detector(kind: str = "faster", **head: Any) -> dict[str, Any]:
    """A small Faster, Mask or Cascade R-CNN of two levels."""
    roi: dict[str, Any] = {"type": "StandardRoIHead", "bbox_roi_extractor": extractor(3)}
    roi["bbox_head"], rcnn = bbox_head(**head), rcnn_cfg()
    if kind == "mask":
        roi["mask_roi_extractor"] = extractor(3)
        roi["mask_head"] = {"type": "FCNMaskHead", "num_convs": 1, "in_channels": 8}
        roi["mask_head"] |= {"conv_out_channels": 8, "num_classes": CLASSES}
    if kind == "cascade":
        roi |= {"type": "CascadeRoIHead", "num_stages": 2, "stage_loss_weights": [1, 0.5]}
        roi["bbox_head"] = [bbox_head(reg_class_agnostic=True, **head) for _ in range(2)]
        rcnn = [rcnn_cfg(), rcnn_cfg(0.3)]
    rpn = rcnn_cfg(0.5, type="RandomSampler", num=16, add_gt_as_proposals=False)
    proposals = {"nms_pre": 50, "max_per_img": 30, "min_bbox_size": 0}
    proposals["nms"] = {"type": "nms", "iou_threshold": 0.9}
    test = {"score_thr": 0.0, "nms": {"type": "nms", "iou_threshold": 0.5}, "max_per_img": 5}
    return {
        "type": "CascadeRCNN" if kind == "cascade" else f"{kind.title()}RCNN",
        "data_preprocessor": {"type": "DetDataPreprocessor", "mean": [0] * 3, "std": [1] * 3},
        "backbone": {
            "type": "ResNet",
            "depth": 18,
            "base_channels": 8,
            "stem_channels": 8,
            "num_stages": 2,
            "strides": (1, 2),
            "dilations": (1, 1),
            "out_indices": (0, 1),
        },
        "neck": {"type": "FPN", "in_channels": [8, 16], "out_channels": 8, "num_outs": 2},
        "rpn_head": {
            "type": "RPNHead",
            "in_channels": 8,
            "feat_channels": 8,
            "anchor_generator": {
                "type": "AnchorGenerator",
                "scales": [4],
                "ratios": [1.0],
                "strides": [4, 8],
            },
        },
        "roi_head": roi,
        "train_cfg": {
            "rpn": {**rpn, "allowed_border": -1},
            "rpn_proposal": proposals,
            "rcnn": rcnn,
        },
        "test_cfg": {"rpn": proposals, "rcnn": {**test, "mask_thr_binary": 0.5}},
    }


def build(kind: str = "faster", **head: Any) -> nn.Module:
    return built(detector(kind, **head))


def built(config: dict[str, Any]) -> nn.Module:
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(Config(config)._cfg_dict)
        model.init_weights()
    return model.train()


class Boxes(Dataset):
    """Noise with two boxes in an image."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        made = torch.Generator().manual_seed(index)
        corner = torch.rand(2, 2, generator=made) * 30
        boxes = torch.cat([corner, corner + 10 + torch.rand(2, 2, generator=made) * 20], 1)
        truth = InstanceData(bboxes=boxes, labels=torch.tensor([index % CLASSES, 1]))
        truth.masks = BitmapMasks(np.ones((2, SIDE, SIDE), np.uint8), SIDE, SIDE)
        shape = {"img_shape": (SIDE, SIDE), "ori_shape": (SIDE, SIDE), "scale_factor": (1.0, 1.0)}
        sample = DetDataSample(metainfo={**shape, "pad_shape": (SIDE, SIDE), "img_id": index})
        sample.gt_instances = truth
        return {"inputs": torch.rand(3, SIDE, SIDE, generator=made), "data_samples": sample}

    def __len__(self) -> int:
        return 4


def losses_of(model: nn.Module) -> dict[str, Any]:
    """One step's losses, of two images; proposals are sampled alike every time."""
    torch.manual_seed(4)
    np.random.seed(4)
    batch = model.data_preprocessor(pseudo_collate([Boxes()[0], Boxes()[1]]), training=True)
    return model(**batch, mode="loss")


def heads_of(model: nn.Module) -> Sequence[nn.Module]:
    head = model.roi_head.bbox_head
    return list(head) if isinstance(head, nn.ModuleList) else [head]


class Spy:
    """What enters each head's classifier, and the labels and weights of its RoIs."""

    def __init__(self, model: nn.Module) -> None:
        self.embeddings: list[Tensor] = []
        self.targets: list[tuple[Tensor, Tensor]] = []
        for head in heads_of(model):
            head.fc_cls.register_forward_pre_hook(lambda _, args: self.embeddings.append(args[0]))
            head.get_targets = self._kept(head.get_targets)

    def _kept(self, get_targets: Callable) -> Callable:
        def call(*args: Any, **keys: Any) -> tuple:
            found = get_targets(*args, **keys)
            self.targets.append(found[:2])
            return found

        return call


def lambdas(step: int, place: int, size: int, mixer: Any) -> Tensor:
    """Λ of head ``place``: its key is the one after those of the heads before it."""
    draws = sampling.generators(0, step)
    keys = [sampling.key(draws.local) for _ in range(place + 1)]
    source = torch.Generator().manual_seed(keys[-1])
    return sampling.hull_weights(mixer.n, size, mixer.alpha, mixer.m, source)


# ---------------------------------------------------------------- the mixed loss


@pytest.mark.parametrize("kind", ["faster", "cascade"])
def test_multimix_at_the_roi_classifier_equals_the_loop_over_mixed_embeddings(kind: str) -> None:
    model, mixer = build(kind), mixplug.build(MULTIMIX)
    train_with(model, mixer)
    model.clock.step = 7
    spy = Spy(model)
    losses = losses_of(model)
    for place, head in enumerate(heads_of(model)):
        e, (labels, weights) = spy.embeddings[place], spy.targets[place]
        assert e.shape == (16, 12) and bool((labels == CLASSES).any() and (labels < CLASSES).any())
        assert bool((weights == 1).all())
        drawn = lambdas(7, place, len(e), mixer)
        targets = naive.combine(one_hot(labels.tolist(), CLASSES + 1), drawn)
        w, b = head.fc_cls.weight, head.fc_cls.bias
        terms = [
            cross_entropy(w @ one + b, y)
            for one, y in zip(naive.combine(e, drawn), targets, strict=True)
        ]
        scale = 1.5 if kind == "faster" else 1.5 * (1, 0.5)[place]
        expected = scale * sum(terms) / len(terms)
        name = "loss_cls" if kind == "faster" else f"s{place}.loss_cls"
        assert_same_gradients(losses[name], expected, [("e", e), ("W", w), ("b", b)])


def permuted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Λ is a permutation; the numbers of rows that it was drawn for."""
    sizes: list[int] = []

    def order(n: int, b: int, *rest: object) -> Tensor:
        sizes.append(b)
        return torch.eye(b)[torch.arange(b).roll(3)]

    monkeypatch.setattr(sampling, "hull_weights", order)
    return sizes


@pytest.mark.parametrize("kind", ["faster", "cascade", "mask"])
@pytest.mark.parametrize("settings", [{}, {"class_weight": [1.0, 2.0, 0.5, 0.25]}], ids=str)
def test_one_hot_weights_give_the_plain_loss(
    settings: dict, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = permuted(monkeypatch)
    model = build(kind, loss_cls={"type": "CrossEntropyLoss", "loss_weight": 0.7, **settings})
    plain = losses_of(copy.deepcopy(model))
    train_with(model, mixplug.build(MULTIMIX))
    mixed = losses_of(model)
    assert mixed.keys() == plain.keys()
    for name in mixed:
        if name.endswith("loss_cls"):
            assert_near(mixed[name], plain[name])
    assert sizes == [16] * len(heads_of(model))


@pytest.mark.parametrize("kind", ["faster", "mask", "cascade"])
def test_all_other_losses_are_bit_identical(kind: str) -> None:
    model = build(kind)
    plain = losses_of(copy.deepcopy(model))
    train_with(model, mixplug.build(MULTIMIX))
    mixed = losses_of(model)
    assert list(mixed) == list(plain)
    changed = [name for name in plain if not _same(mixed[name], plain[name])]
    wanted = {"cascade": ["s0.loss_cls", "s1.loss_cls"]}.get(kind, ["loss_cls"])
    assert changed == wanted
    assert {name.split(".")[-1] for name in plain} >= {"loss_bbox", "acc", "loss_rpn_cls"}
    assert ("loss_mask" in plain) == (kind == "mask")


def _same(a: object, b: object) -> bool:
    if isinstance(a, list):
        return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b)


def test_gradients_of_the_box_branch_are_those_of_the_plain_head() -> None:
    model = build()
    plain = copy.deepcopy(model)
    train_with(model, mixplug.build(MULTIMIX))
    for net in (model, plain):
        losses_of(net)["loss_bbox"].backward()
    for (name, mine), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        same = mine.grad is other.grad or torch.equal(mine.grad, other.grad)
        assert same, name


# ---------------------------------------------------------------- label weights


def head_batch(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    labels = torch.tensor([0, 2, 1, 3, 3, 3])
    return {
        "cls_score": torch.randn(6, CLASSES + 1, dtype=dtype, requires_grad=True),
        "bbox_pred": torch.randn(6, 4 * CLASSES, dtype=dtype, requires_grad=True),
        "rois": torch.rand(6, 5, dtype=dtype),
        "labels": labels,
        "label_weights": torch.tensor([2.0, 0.0, 2.0, 1.0, 0.0, 1.0], dtype=dtype),
        "bbox_targets": torch.randn(6, 4, dtype=dtype),
        "bbox_weights": torch.ones(6, 4, dtype=dtype),
    }


def mixed_head(mixer: dict[str, Any] = MULTIMIX, **changes: Any) -> nn.Module:
    model = build(**changes)
    train_with(model, mixplug.build(mixer))
    return model.roi_head.bbox_head


def test_rois_without_label_weight_never_enter_the_mix() -> None:
    head, batch = mixed_head(), head_batch()
    loss = head.loss(**batch)["loss_cls"]
    (gradient,) = torch.autograd.grad(loss, batch["cls_score"])
    assert torch.equal(gradient.abs().sum(-1) > 0, batch["label_weights"] > 0)
    batch["cls_score"] = torch.where(batch["label_weights"][:, None] > 0, batch["cls_score"], 1e4)
    batch["labels"] = torch.tensor([0, 1, 1, 3, 0, 3])
    assert torch.equal(head.loss(**batch)["loss_cls"], loss)


def test_other_weights_count_as_in_the_plain_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    permuted(monkeypatch)
    head, batch = mixed_head(), head_batch()
    plain = head.plain.loss(head, **batch)["loss_cls"]
    assert_same_gradients(head.loss(**batch)["loss_cls"], plain, [("logits", batch["cls_score"])])


@pytest.mark.parametrize("way", ["no weights", "no RoIs"])
def test_without_rois_the_loss_is_the_plain_one(way: str) -> None:
    head, batch = mixed_head(), head_batch()
    batch["label_weights"] = torch.zeros(6)
    if way == "no RoIs":
        batch = {name: value[:0] for name, value in batch.items()}
    losses, plain = head.loss(**batch), head.plain.loss(head, **batch)
    assert losses.keys() == plain.keys()
    assert all(torch.equal(losses[name], plain[name]) for name in plain)


# ---------------------------------------------------------------- clean batches


@pytest.mark.parametrize("changes", [{"prob": 0.0}, {"off_epoch": 2}], ids=str)
def test_the_other_half_is_the_clean_batch(changes: dict[str, Any]) -> None:
    model = build("cascade")
    plain = losses_of(copy.deepcopy(model))
    train_with(model, mixplug.build({**MULTIMIX, **changes}))
    model.clock.epoch = 2
    assert all(_same(value, plain[name]) for name, value in losses_of(model).items())


def test_both_stages_of_a_cascade_are_mixed_in_the_same_steps() -> None:
    model = build("cascade")
    plain = losses_of(copy.deepcopy(model))
    train_with(model, mixplug.build({**MULTIMIX, "prob": 0.5}))
    found = []
    for step in range(12):
        model.clock.step = step
        losses = losses_of(model)
        found.append([not torch.equal(losses[k], plain[k]) for k in ("s0.loss_cls", "s1.loss_cls")])
    assert all(a == b for a, b in found)
    assert {a for a, _ in found} == {True, False}


def test_a_sampler_that_looks_for_hard_rois_sees_clean_losses() -> None:
    """OHEMSampler asks the head for losses one by one."""
    head, batch = mixed_head(), head_batch()
    each = head.loss(**batch, reduction_override="none")["loss_cls"]
    assert torch.equal(each, head.plain.loss(head, **batch, reduction_override="none")["loss_cls"])
    assert each.shape == (6,)


def test_the_loss_stays_float32_under_autocast() -> None:
    head, batch = mixed_head(), head_batch()
    batch["cls_score"] = batch["cls_score"].detach().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head.loss(**batch)["loss_cls"]
    assert loss.dtype == torch.float32


# ---------------------------------------------------------------- copies, testing, the runner


@pytest.mark.parametrize("way", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_has_a_clock_of_its_own(way: Callable[[nn.Module], nn.Module]) -> None:
    model = build("cascade")
    train_with(model, mixplug.build(MULTIMIX))
    twin = way(model)
    assert all(head.clock is twin.clock is not model.clock for head in heads_of(twin))
    assert twin.state_dict().keys() == model.state_dict().keys()
    expected = losses_of(model)
    assert all(_same(value, expected[name]) for name, value in losses_of(twin).items())


def test_names_and_predictions_stay() -> None:
    model = build()
    plain = copy.deepcopy(model).eval()
    train_with(model, mixplug.build(MULTIMIX))
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert isinstance(model.roi_head.bbox_head, Shared2FCBBoxHead)
    mine, other = (
        net.test_step(pseudo_collate([Boxes()[0]]))[0].pred_instances
        for net in (model.eval(), plain)
    )
    assert len(mine) == len(other) > 0
    assert torch.equal(mine.scores, other.scores) and torch.equal(mine.bboxes, other.bboxes)


def run(
    folder: Path, mixup: dict[str, Any] | None, epochs: int = 1, resume: bool = False
) -> Runner:
    loader = {
        "batch_size": 2,
        "num_workers": 0,
        "dataset": Boxes(),
        "sampler": {"type": "DefaultSampler", "shuffle": True},
        "collate_fn": {"type": "pseudo_collate"},
    }
    runner = Runner(
        Config(detector("mask"))._cfg_dict,
        str(folder),
        train_dataloader=loader,
        train_cfg={"by_epoch": True, "max_epochs": epochs},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.01, "momentum": 0.9}},
        resume=resume,
        default_hooks={"logger": {"type": "LoggerHook", "interval": 1}},
        default_scope="mmdet",
        randomness={"seed": 3},
        experiment_name=uuid.uuid4().hex,
        log_level="WARNING",
        cfg=Config({} if mixup is None else {"mixup": mixup}),
    )
    runner.train()
    return runner


def test_the_runner_trains_and_its_checkpoint_is_the_plain_ones(tmp_path: Path) -> None:
    runner, plain = run(tmp_path / "mixed", MULTIMIX), run(tmp_path / "plain", None)
    assert runner.iter == plain.iter == 2
    assert sum(isinstance(hook, MixupHook) for hook in runner.hooks) == 1
    assert (runner.model.clock.seed, runner.model.clock.step) == (3, 1)
    states = [
        torch.load(tmp_path / name / "epoch_1.pth", weights_only=False)["state_dict"]
        for name in ("mixed", "plain")
    ]
    assert states[0].keys() == states[1].keys()
    name = "roi_head.bbox_head.fc_cls.weight"
    assert not torch.equal(states[0][name], states[1][name])
    built(detector("mask")).load_state_dict(states[0], strict=True)


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Order of images, sampled RoIs, branch and Λ are those of a run that never stopped."""
    mixup = {**MULTIMIX, "prob": 0.5}
    run(tmp_path / "whole", mixup, epochs=2)
    run(tmp_path / "parts", mixup, epochs=1)
    for seeded in (torch.manual_seed, np.random.seed):
        seeded(99)  # whatever was drawn before
    assert run(tmp_path / "parts", mixup, epochs=2, resume=True).iter == 4
    whole, parts, first = (
        torch.load(tmp_path / name, weights_only=False)
        for name in ("whole/epoch_2.pth", "parts/epoch_2.pth", "parts/epoch_1.pth")
    )
    states = [checkpoint["state_dict"] for checkpoint in (whole, parts, first)]
    assert [name for name in states[0] if not torch.equal(states[0][name], states[1][name])] == []
    moved = [name for name in states[0] if not torch.equal(states[0][name], states[2][name])]
    assert {"roi_head.bbox_head.fc_cls.weight", "rpn_head.rpn_cls.weight"} <= set(moved)
    speeds = [checkpoint["optimizer"]["state"] for checkpoint in (whole, parts)]
    assert all(
        torch.equal(speed["momentum_buffer"], speeds[1][number]["momentum_buffer"])
        for number, speed in speeds[0].items()
    )


@pytest.mark.parametrize(
    ("kind", "name"), [("faster", "bbox_head.fc_cls"), ("cascade", "bbox_head.{0, 1}.fc_cls")]
)
def test_the_log_says_what_is_mixed(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, messages = build(kind), list[str]()  # mmengine logs how it initializes weights
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, "info", lambda text, *values: messages.append(text % values))
    train_with(model, mixplug.build({"type": "MultiMix", "m": 8, "alpha": [1, 2.0]}))
    settings = "(m=8, alpha=(1, 2.0), prob=0.5)"
    assert messages == [f"MultiMix mixes the input of roi_head.{name} {settings}"]


# ---------------------------------------------------------------- errors


def test_a_one_stage_detector_is_refused() -> None:
    head = {"type": "RetinaHead", "num_classes": 3, "in_channels": 8, "feat_channels": 8}
    parts = {k: v for k, v in detector().items() if k in ("backbone", "neck")}
    model = built({"type": "RetinaNet", "bbox_head": {**head, "stacked_convs": 1}, **parts})
    text = (
        r"needs a two-stage detector\. Its roi_head\.bbox_head \(in a cascade, every one\) must be "
        r"a BBoxHead with BBoxHead's loss, fc_cls an nn\.Linear, .* Found RetinaNet, which is no "
        r"two-stage detector\. One-stage and query detectors have no sampled RoIs to mix\."
    )
    with pytest.raises(ValueError, match=text):
        train_with(model, mixplug.build("multimix"))
    assert not hasattr(model, "clock")


class OwnLoss(Shared2FCBBoxHead):
    def loss(self, *args: Any, **keys: Any) -> dict[str, Tensor]:
        return {}


class Scaled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def _replace_head(model: nn.Module) -> None:
    model.roi_head.bbox_head.__class__ = OwnLoss


def _replace_classifier(model: nn.Module) -> None:
    model.roi_head.bbox_head.fc_cls.__class__ = Scaled


def _replace_loss(model: nn.Module) -> None:
    model.roi_head.bbox_head.loss_cls = mmdet.models.losses.FocalLoss()


def _sigmoid(model: nn.Module) -> None:
    model.roi_head.bbox_head.loss_cls.use_sigmoid = True


def _no_head(model: nn.Module) -> None:
    del model.roi_head.bbox_head


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_replace_head, "Found OwnLoss, whose loss is not BBoxHead's."),
        (_replace_classifier, "Found Shared2FCBBoxHead whose fc_cls is Scaled."),
        (_replace_loss, "Found Shared2FCBBoxHead whose loss_cls is FocalLoss."),
        (_sigmoid, "whose loss_cls is CrossEntropyLoss with use_sigmoid=True."),
        (_no_head, "Found FasterRCNN without roi_head.bbox_head."),
    ],
)
def test_what_cannot_be_mixed_is_refused(change: Callable[[nn.Module], None], text: str) -> None:
    model = build()
    change(model)
    with pytest.raises(ValueError) as raised:
        train_with(model, mixplug.build("multimix"))
    assert text in str(raised.value)


@pytest.mark.parametrize("mixer", ["alignmix", "mixup", "cutmix", "manifold", "dense_multimix"])
def test_a_mixer_without_rows_is_refused(mixer: str) -> None:
    model = build()
    with pytest.raises(ValueError, match=r"does not work in an mmdet detector: it has no mix_rows"):
        train_with(model, mixplug.build(mixer))
    assert type(model.roi_head.bbox_head).loss is BBoxHead.loss
