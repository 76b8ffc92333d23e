"""mmseg's EncoderDecoder under the key ``mixup``: mixed pixels, and all else as it was."""

from __future__ import annotations

import copy
import math
import pickle
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmseg.models
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from reference import dense as naive
from reference.compare import assert_near, assert_same_gradients
from reference.targets import one_hot
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import mixplug
import mixplug.mm
from mixplug import sampling
from mixplug.hosts.mm.hooks.mixup import MixupHook
from mixplug.hosts.mm.mixing.key import train_with

CLASSES, SIDE, IGNORED = 4, 16, 255
DENSE = {"type": "DenseMultiMix", "prob": 1.0}
CE = {"type": "CrossEntropyLoss", "loss_weight": 0.7, "avg_non_ignore": True}
NORM = {"type": "BN", "requires_grad": True}

pytestmark = pytest.mark.filterwarnings("ignore:Default ``avg_non_ignore``")


def fcn(index: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "type": "FCNHead",
        "in_channels": (8, 16)[index],
        "in_index": index,
        "channels": 6,
        "num_convs": 1,
        "concat_input": False,
        "dropout_ratio": 0.3,
        "num_classes": CLASSES,
        "norm_cfg": NORM,
        "loss_decode": CE,
        **changes,
    }


def segmentor(**head: Any) -> dict[str, Any]:
    """A small FCN with an auxiliary head; features have strides 4 and 8."""
    return {
        "type": "EncoderDecoder",
        "data_preprocessor": {
            "type": "SegDataPreProcessor",
            "size": (SIDE, SIDE),
            "seg_pad_val": IGNORED,
        },
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
        "decode_head": fcn(**head),
        "auxiliary_head": fcn(0, loss_decode={"type": "CrossEntropyLoss", "loss_weight": 0.4}),
        "test_cfg": {"mode": "whole"},
    }


def cascade() -> dict[str, Any]:
    """FCN, then OCR."""
    ocr = {**fcn(type="OCRHead", ocr_channels=6)}
    for key in ("num_convs", "concat_input"):
        del ocr[key]
    parts = {**segmentor(), "type": "CascadeEncoderDecoder", "num_stages": 2}
    return {**parts, "decode_head": [fcn(), ocr]}


def built(config: dict[str, Any]) -> nn.Module:
    with DefaultScope.overwrite_default_scope("mmseg"):
        model = MODELS.build(Config(config)._cfg_dict)
        model.init_weights()
    for head in model.modules():  # the initial logits are near zero
        if isinstance(head, BaseDecodeHead):
            nn.init.normal_(head.conv_seg.weight)
    return model.train()


def build(**head: Any) -> nn.Module:
    return built(segmentor(**head))


class Maps(Dataset):
    """Noise with a class per pixel; a band is ignored, at the corner in every image."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        made = torch.Generator().manual_seed(index)
        labels = torch.randint(CLASSES, (1, SIDE, SIDE), generator=made)
        labels[:, :, 3 * index : 3 * index + 4] = IGNORED
        labels[:, 13:, 13:] = IGNORED
        sample = SegDataSample(metainfo={"img_shape": (SIDE, SIDE), "ori_shape": (SIDE, SIDE)})
        sample.gt_sem_seg = PixelData(data=labels)
        return {"inputs": torch.rand(3, SIDE, SIDE, generator=made) * 255, "data_samples": sample}

    def __len__(self) -> int:
        return 4


def truth() -> Tensor:
    return torch.stack([Maps()[i]["data_samples"].gt_sem_seg.data[0] for i in range(3)])


def losses_of(model: nn.Module) -> dict[str, Tensor]:
    """One step's losses, of three images; dropout is alike every time."""
    torch.manual_seed(4)
    batch = model.data_preprocessor(pseudo_collate([Maps()[i] for i in range(3)]), training=True)
    return model(**batch, mode="loss")


def last_head(model: nn.Module) -> nn.Module:
    head = model.decode_head
    return head[-1] if isinstance(head, nn.ModuleList) else head


def embeddings_of(head: nn.Module) -> list[Tensor]:
    """What enters conv_seg, kept from now on."""
    kept: list[Tensor] = []
    head.conv_seg.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    return kept


def shifted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Λ is a permutation at every pixel."""

    def order(n: int, b: int, alpha: object, m: object, source: object, positions: int) -> Tensor:
        return torch.eye(b).roll(1, 0)[..., None].expand(b, b, positions)

    monkeypatch.setattr(sampling, "hull_weights", order)


# ---------------------------------------------------------------- the mixed loss


def looped(head: nn.Module, e: Tensor, labels: Tensor, weights: Tensor, reduction: str) -> Tensor:
    """(5.10)-(5.14) pixel by pixel: embeddings resized, mixed, classified."""
    z = F.interpolate(e, labels.shape[1:], mode="bilinear", align_corners=False).flatten(2)
    y, known = labels.flatten(1), (labels != IGNORED).flatten(1)
    m_hat, s = naive.scaled_weights(weights, known.double())
    rows = torch.stack([one_hot(row.tolist(), CLASSES) for row in torch.where(known, y, 0)])
    w, b = head.conv_seg.weight[..., 0, 0], head.conv_seg.bias
    logits = torch.einsum("kd,mbn,bdn->mkn", w, m_hat.float(), z) + b[:, None]
    targets = torch.einsum("mbn,bnk->mkn", m_hat, rows)
    return naive.dense_loss(logits, targets, s, reduction)


@pytest.mark.parametrize("reduction", ["position_mean", "global"])
def test_densemultimix_equals_the_loop_over_mixed_pixel_embeddings(reduction: str) -> None:
    model, mixer = build(), mixplug.build({**DENSE, "n": 2, "reduction": reduction})
    train_with(model, mixer)
    model.clock.step = 7
    kept = embeddings_of(model.decode_head)
    loss = losses_of(model)["decode.loss_ce"]
    (e,) = kept
    assert e.shape == (3, 6, 2, 2)
    source = torch.Generator().manual_seed(sampling.key(sampling.generators(0, 7).local))
    drawn = sampling.hull_weights(2, 3, mixer.alpha, mixer.m, source, SIDE * SIDE)
    expected = 0.7 * looped(model.decode_head, e, truth(), drawn, reduction)
    if reduction == "position_mean":  # of pixels that no image has a label of, there is no mean
        expected = expected / (truth() != IGNORED).any(0).float().mean()
    conv = model.decode_head.conv_seg
    assert_same_gradients(loss, expected, [("e", e), ("W", conv.weight), ("b", conv.bias)])


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("config", [segmentor, cascade])
def test_one_hot_weights_give_the_plain_loss_with_ignore(
    config: Callable[[], dict], align_corners: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shifted(monkeypatch)
    model = built(config())
    last_head(model).align_corners = align_corners
    plain = losses_of(copy.deepcopy(model))
    train_with(model, mixplug.build({**DENSE, "reduction": "global"}))
    mixed = losses_of(model)
    assert list(mixed) == list(plain)
    for name in plain:
        assert_near(mixed[name], plain[name], name)


def test_by_default_each_pixel_is_a_mean_over_those_that_are_not_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """(5.14), of the pixels that any of the images has a label of."""
    shifted(monkeypatch)
    model = build(dropout_ratio=0)
    train_with(model, mixplug.build(DENSE))
    kept = embeddings_of(model.decode_head)
    loss = losses_of(model)["decode.loss_ce"]
    logits = F.interpolate(model.decode_head.conv_seg(kept[0]), (SIDE, SIDE), mode="bilinear")
    terms = F.cross_entropy(logits, truth(), ignore_index=IGNORED, reduction="none")
    count = (truth() != IGNORED).sum(0)
    assert set(count.unique().tolist()) == {0, 1, 2, 3}
    means = [terms[:, r, c].sum() / count[r, c] for r, c in (count > 0).nonzero().tolist()]
    assert len(means) < count.numel()
    assert_near(loss, 0.7 * torch.stack(means).mean())


@pytest.mark.parametrize("config", [segmentor, cascade])
def test_all_other_losses_are_bit_identical(config: Callable[[], dict]) -> None:
    model = built(config())
    plain = losses_of(copy.deepcopy(model))
    train_with(model, mixplug.build(DENSE))
    mixed = losses_of(model)
    assert list(mixed) == list(plain)
    changed = [name for name in plain if not torch.equal(mixed[name], plain[name])]
    assert changed == ["decode.loss_ce" if config is segmentor else "decode_1.loss_ce"]
    assert any(name.endswith("acc_seg") for name in plain) and "aux.loss_ce" in plain


def test_ignored_pixels_have_no_part() -> None:
    model = build()
    train_with(model, mixplug.build(DENSE))
    head, given = model.decode_head, [Maps()[i]["data_samples"] for i in range(3)]
    logits = torch.randn(3, CLASSES, SIDE, SIDE, requires_grad=True)
    loss = head.loss_by_feat(logits, given)["loss_ce"]
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.equal(gradient.abs().sum(1) > 0, truth() != IGNORED)
    changed = torch.where(truth()[:, None] == IGNORED, 100.0, logits)
    assert torch.equal(head.loss_by_feat(changed, given)["loss_ce"], loss)


def test_where_everything_is_ignored_the_loss_is_zero() -> None:
    model = build()
    train_with(model, mixplug.build(DENSE))
    given = [Maps()[0]["data_samples"]]
    given[0].gt_sem_seg.data[:] = IGNORED
    logits = torch.randn(1, CLASSES, 4, 4, requires_grad=True)
    loss = model.decode_head.loss_by_feat(logits, given)["loss_ce"]
    assert loss == 0 and torch.autograd.grad(loss, logits)[0].abs().max() == 0


WEIGHTS = [0.2, 1.0, 2.0, 0.5]
SCALES: dict[str, dict[str, Any]] = {
    "as mmseg does by default": {"loss_decode": {**CE, "avg_non_ignore": False}},
    "of labeled pixels": {"loss_decode": CE},
    "class weights": {"loss_decode": {**CE, "avg_non_ignore": False, "class_weight": WEIGHTS}},
    "hard pixels": {"sampler": {"type": "OHEMPixelSampler", "min_kept": 40}},
    "two losses": {"loss_decode": [CE, {**CE, "avg_non_ignore": False}]},
}


@pytest.mark.parametrize("scale", SCALES)
def test_one_hot_weights_give_the_plain_loss_whatever_it_divides_by(
    scale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shifted(monkeypatch)
    model = build(**SCALES[scale])
    plain = losses_of(copy.deepcopy(model))["decode.loss_ce"]
    train_with(model, mixplug.build({**DENSE, "reduction": "global"}))
    assert_near(losses_of(model)["decode.loss_ce"], plain)


@pytest.mark.parametrize(
    ("reduction", "weights", "expected"),
    [
        ("global", None, 3 / 6),
        ("position_mean", None, 3 / 6),
        ("global", [0.5, 4.0], (4 + 0.5 + 0.5) / 3 * 3 / 5),
        ("position_mean", [0.5, 4.0], ((4 + 0.5) / 2 + 0.5) / 2 * 3 / 5),
    ],
)
def test_the_scale_by_hand(
    reduction: str,
    weights: list[float] | None,
    expected: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two images of three pixels with the labels 1, -, - and 0, 0, -; all logits are 0.

    So a pixel of class k costs c_k log 2: a mean of these times what three labeled pixels weigh,
    3 of 6 pixels, or 3 of class weights 4 + 0.5 + 0.5.
    """
    shifted(monkeypatch)
    samples = []
    for labels in ([1, IGNORED, IGNORED], [0, 0, IGNORED]):
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=torch.tensor([[labels]]))))
    loss = {"type": "CrossEntropyLoss", "class_weight": weights}
    model = build(loss_decode=loss, num_classes=2)
    train_with(model, mixplug.build({**DENSE, "reduction": reduction}))
    found = model.decode_head.loss_by_feat(torch.zeros(2, 2, 1, 3), samples)["loss_ce"]
    assert float(found) == pytest.approx(expected * math.log(2))


def test_losses_of_one_name_are_added_and_others_keep_theirs() -> None:
    losses = [CE, {**CE, "loss_weight": 0.3}, {**CE, "loss_name": "loss_other"}]
    model = build(loss_decode=losses)
    train_with(model, mixplug.build(DENSE))
    found = losses_of(model)
    assert_near(found["decode.loss_ce"], found["decode.loss_other"] / 0.7)


def test_cross_entropy_is_mixed_and_dice_beside_it_stays_clean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = [CE, {"type": "DiceLoss", "loss_weight": 3.0}]
    model, alone = build(loss_decode=both), build()
    alone.load_state_dict(model.state_dict())
    plain = losses_of(copy.deepcopy(model))
    messages = list[str]()
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, "info", lambda text, *values: messages.append(text % values))
    for each in (model, alone):
        train_with(each, mixplug.build(DENSE))
    found, of_one = losses_of(model), losses_of(alone)
    assert torch.equal(found["decode.loss_dice"], plain["decode.loss_dice"])
    assert_near(found["decode.loss_ce"], of_one["decode.loss_ce"])
    assert not torch.equal(found["decode.loss_ce"], plain["decode.loss_ce"])
    assert messages[0].startswith(
        "DenseMultiMix mixes the input of decode_head.conv_seg, and leaves clean DiceLoss "
        "(loss_dice)"
    )


# ---------------------------------------------------------------- clean batches


@pytest.mark.parametrize("changes", [{"prob": 0.0}, {"off_epoch": 2}], ids=str)
def test_the_other_half_is_the_clean_batch(changes: dict[str, Any]) -> None:
    model = build()
    plain = losses_of(copy.deepcopy(model))
    train_with(model, mixplug.build({**DENSE, **changes}))
    model.clock.epoch = 2
    assert all(torch.equal(value, plain[name]) for name, value in losses_of(model).items())


def test_the_loss_stays_float32_under_autocast() -> None:
    model = build()
    train_with(model, mixplug.build(DENSE))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_of(model)
    assert losses["decode.loss_ce"].dtype == torch.float32


# ---------------------------------------------------------------- copies, testing, the runner


@pytest.mark.parametrize("way", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_has_a_clock_of_its_own(way: Callable[[nn.Module], nn.Module]) -> None:
    model = build()
    train_with(model, mixplug.build(DENSE))
    twin = way(model)
    assert twin.decode_head.clock is twin.clock is not model.clock
    expected = losses_of(model)
    assert all(torch.equal(value, expected[name]) for name, value in losses_of(twin).items())


def test_names_and_predictions_stay() -> None:
    model = build()
    plain = copy.deepcopy(model).eval()
    train_with(model, mixplug.build(DENSE))
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert isinstance(model.decode_head, FCNHead)
    mine, other = (
        net.test_step(pseudo_collate([Maps()[0]]))[0].seg_logits.data
        for net in (model.eval(), plain)
    )
    assert torch.equal(mine, other)


def run(folder: Path, mixup: dict[str, Any] | None) -> Runner:
    loader = DataLoader(Maps(), 2, collate_fn=pseudo_collate)
    runner = Runner(
        Config(segmentor())._cfg_dict,
        str(folder),
        train_dataloader=loader,
        train_cfg={"type": "IterBasedTrainLoop", "max_iters": 2},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.01}},
        default_hooks={"checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 2}},
        default_scope="mmseg",
        randomness={"seed": 3},
        experiment_name=uuid.uuid4().hex,
        log_level="WARNING",
        cfg=Config({} if mixup is None else {"mixup": mixup}),
    )
    runner.train()
    return runner


def test_the_runner_trains_and_its_checkpoint_is_the_plain_ones(tmp_path: Path) -> None:
    runner, plain = run(tmp_path / "mixed", DENSE), run(tmp_path / "plain", None)
    assert runner.iter == plain.iter == 2
    assert sum(isinstance(hook, MixupHook) for hook in runner.hooks) == 1
    assert (runner.model.clock.seed, runner.model.clock.step) == (3, 1)
    states = [
        torch.load(tmp_path / name / "iter_2.pth", weights_only=False)["state_dict"]
        for name in ("mixed", "plain")
    ]
    assert states[0].keys() == states[1].keys()
    name = "decode_head.conv_seg.weight"
    assert not torch.equal(states[0][name], states[1][name])
    built(segmentor()).load_state_dict(states[0], strict=True)


@pytest.mark.parametrize(
    ("config", "name"), [(segmentor, "decode_head"), (cascade, "decode_head.1")]
)
def test_the_log_says_what_is_mixed(
    config: Callable[[], dict], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, messages = built(config()), list[str]()  # mmengine logs how it initializes weights
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, "info", lambda text, *values: messages.append(text % values))
    train_with(model, mixplug.build({**DENSE, "m": 2}))
    assert messages == [f"DenseMultiMix mixes the input of {name}.conv_seg (m=2, prob=1.0)"]


def test_an_epoch_that_a_loop_by_iterations_never_reaches_is_refused(tmp_path: Path) -> None:
    text = r"by iterations is always in epoch 0, so DenseMultiMix would never reach off_epoch=3"
    with pytest.raises(ValueError, match=text):
        run(tmp_path, {**DENSE, "off_epoch": 3})


# ---------------------------------------------------------------- errors


class OwnLoss(FCNHead):
    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: list) -> dict[str, Tensor]:
        return {}


class OwnClassifier(FCNHead):
    def cls_seg(self, feat: Tensor) -> Tensor:
        return self.conv_seg(feat).sigmoid()


def _own_loss(model: nn.Module) -> None:
    model.decode_head.__class__ = OwnLoss


def _own_classifier(model: nn.Module) -> None:
    model.decode_head.__class__ = OwnClassifier


def _wide(model: nn.Module) -> None:
    model.decode_head.conv_seg = nn.Conv2d(6, CLASSES, 3, padding=1)


def _dice(model: nn.Module) -> None:
    model.decode_head.loss_decode = mmseg.models.losses.DiceLoss()


def _sigmoid(model: nn.Module) -> None:
    model.decode_head.loss_decode.use_sigmoid = True


def _binary(model: nn.Module) -> None:
    model.decode_head.out_channels = 1


def _no_head(model: nn.Module) -> None:
    del model.decode_head


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_own_loss, "Found OwnLoss, whose loss is not BaseDecodeHead's."),
        (_own_classifier, "Found OwnClassifier, whose cls_seg is not BaseDecodeHead's."),
        (_wide, "Found FCNHead whose conv_seg is Conv2d with kernel_size=(3, 3)."),
        (_dice, "Found FCNHead whose loss_decode is DiceLoss."),
        (_sigmoid, "whose loss_decode is CrossEntropyLoss with use_sigmoid=True."),
        (_binary, "Found FCNHead with out_channels=1."),
        (_no_head, "Found EncoderDecoder with NoneType."),
    ],
)
def test_what_cannot_be_mixed_is_refused(change: Callable[[nn.Module], None], text: str) -> None:
    model = build()
    change(model)
    with pytest.raises(ValueError) as raised:
        train_with(model, mixplug.build("dense_multimix"))
    assert text in str(raised.value)
    assert "needs mmseg's EncoderDecoder. Its decode_head (in a cascade, the last) must" in str(
        raised.value
    )
    assert not hasattr(model, "clock")


@pytest.mark.parametrize("mixer", ["alignmix", "mixup", "cutmix", "manifold", "multimix"])
def test_a_mixer_without_positions_is_refused(mixer: str) -> None:
    model = build()
    text = r"does not work in an mmseg segmentor: it has no mix_positions, .*: DenseMultiMix"
    with pytest.raises(ValueError, match=text):
        train_with(model, mixplug.build(mixer))
    assert type(model.decode_head).loss_by_feat is BaseDecodeHead.loss_by_feat


def test_a_model_of_no_host_is_refused() -> None:
    text = (
        r"works for mmpretrain's ImageClassifier \(head\), mmdet's two-stage detectors \(roi_head\."
        r"bbox_head\.fc_cls\) and mmseg's EncoderDecoder \(decode_head\.conv_seg\), got Linear "
        r"with NoneType as its head\."
    )
    with pytest.raises(ValueError, match=text):
        train_with(nn.Linear(2, 2), mixplug.build("multimix"))
